"""A fusion network and a 2D network, each trained for a step or two, for tests of what comes after training."""

import dataclasses

import small

from fusion_jax.config import HourglassConfig, InputConfig
from fusion_jax.heatmap_net import heatmap_source
from fusion_jax.presets import preset
from fusion_jax.train import LoopOptions, train

HEATMAP_INPUT = 32
QUIET = LoopOptions(show=False, log_every=1, eval_every=0)


def hourglass(workdir, joints="mpii16", steps=1, **inputs):
    """A run of a 2D network of one stack, 8 wide, 32 px, in `workdir`."""
    base = preset("hourglass-tiny")
    size = {"image_size": HEATMAP_INPUT, "heatmap_size": HEATMAP_INPUT // 4}
    config = dataclasses.replace(
        base,
        network=HourglassConfig(1, 8, 1),
        inputs=InputConfig(skeleton=joints, heatmap_skeleton=joints, **size, **inputs),
        steps=steps,
        batch_size=4,
    )
    train(config, small.data_dir(), workdir, QUIET)
    return workdir


def pose(workdir, heatmaps=None, mode="cache", steps=1):
    """A run of a fusion network, fed true heatmaps as the 2D network's, or those of the run in `heatmaps`."""
    config = small.config(steps=steps, batch_size=4)
    inputs = dataclasses.replace(config.inputs, heatmap_size=HEATMAP_INPUT // 4, heatmap_sigma_px=1.0)
    config = dataclasses.replace(config, inputs=inputs)
    if heatmaps is not None:
        config = heatmap_source(config, "predicted", mode, heatmaps)
    train(config, small.data_dir(), workdir, QUIET)
    return workdir


def make(folder):
    """(fusion network's, 2D network's) work folders."""
    return pose(folder / "pose"), hourglass(folder / "hourglass")
