"""Dataset names of the command line to opened datasets."""

from __future__ import annotations

import pathlib

from data_pipelines.prepared import PoseDataset, open_prepared
from fusion_jax.errors import unknown_name

PREPARED = ("synthetic_humans",)
LIVE = "synthetic_humans/live"


def open_dataset(name: str, data_dir: pathlib.Path, image_size: int, seed: int = 0) -> PoseDataset:
    """The dataset called `name`: prepared in `data_dir`, or rendered while training (`synthetic_humans/live`).

    Args:
      name: '<dataset>', '<dataset>/<config>' or 'synthetic_humans/live'.
      data_dir: where `fusion-jax prepare` wrote; not read for live data.
      image_size: side of live pictures, px; prepared ones have their own and are resampled by the loader.
      seed: of live scenes.

    Raises:
      UserError: an unknown name, or nothing prepared.
    """
    if name == LIVE:
        from data_pipelines.synthetic_humans.live import open_live

        return open_live(image_size, seed)
    if name.partition("/")[0] not in PREPARED:
        raise unknown_name("dataset", name, (*PREPARED, LIVE))
    return open_prepared(name, pathlib.Path(data_dir))
