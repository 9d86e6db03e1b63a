"""The smallest real things the pipeline's tests share: a prepared dataset and a network that compiles fast."""

import dataclasses
import functools
import pathlib
import shutil
import tempfile

from fusion_jax.config import Config
from fusion_jax.network import Conv, Dense
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.presets import two_streams, with_overrides

SIZE = 16


@functools.cache
def data_dir() -> pathlib.Path:
    """A folder with `synthetic_humans`: 3 people, one frame of each action, four cameras, 16 px."""
    folder = tempfile.TemporaryDirectory(prefix="fusion_jax_test_")
    _keep.append(folder)
    prepare_synthetic_humans(pathlib.Path(folder.name), size=SIZE, num_subjects=3, frames=1)
    return pathlib.Path(folder.name)


_keep: list[tempfile.TemporaryDirectory] = []


def tidy_data_dir() -> None:
    """Removes the heatmaps that runs kept beside the dataset: what one file of tests did must not change the next."""
    if data_dir.cache_info().currsize:
        for folder in data_dir().glob("synthetic_humans/*/heatmaps"):
            shutil.rmtree(folder)


def config(**overrides) -> Config:
    """A run of a few steps of two small layers with dropout."""
    base = with_overrides("tiny", **{"steps": 6, "batch_size": 8, **overrides})
    layers = (Conv(4, 3), Dense(8, 0.5))
    return dataclasses.replace(
        base,
        network=dataclasses.replace(base.network, streams=two_streams(layers)),
        inputs=dataclasses.replace(base.inputs, image_size=SIZE, heatmap_size=SIZE),
    )
