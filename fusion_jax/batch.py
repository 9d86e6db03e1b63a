"""What a batch is: its entries, their shapes and types, the check that says what is wrong with one, and a fake one.

A batch is a dict of arrays, B examples each:

  image     (B, H, W, 3) uint8, or float in [0, 1]
  joints2d  (B, J, 2) px of that image, in the skeleton's order; `heatmap` (B, h, w, J') may stand in its place
  valid2d   (B, J) bool, 2D joint known
  pose_mm   (B, J, 3) root-relative, camera frame
  valid     (B, J) bool, 3D joint known
  parts     (B, H, W) uint8, the label map of body parts of body_parts.py; only where a stream reads it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusion_jax.body_parts import PARTS
from fusion_jax.config import Config, InputConfig
from fusion_jax.errors import UserError
from fusion_jax.geometry import root_relative
from fusion_jax.network import active_streams
from fusion_jax.skeletons import skeleton

Batch = Mapping[str, jax.Array]
STREAMS = ("image", "heatmap", "parts", "silhouette")
"""The streams whose inputs are made of a batch's own entries."""


def stream_channels(inputs: InputConfig) -> dict[str, int]:
    """Channels of the inputs of all `STREAMS`: a picture's 3, a heatmap a joint, a map a body part, one silhouette."""
    return dict(zip(STREAMS, (3, skeleton(inputs.heatmap_skeleton).num_joints, len(PARTS), 1), strict=True))


def batch_extras(config: Config) -> tuple[str, ...]:
    """What batches of a run have to hold beside picture and joints: `parts` where a stream of the network reads it."""
    if config.task == "heatmaps":
        return ()
    streams = {stream.name for stream in active_streams(config.fusion.streams, config.fusion.strategy)}
    return ("parts",) if streams & {"parts", "silhouette"} else ()


def named_leaves(batch: Any) -> dict[str, Any]:
    """The arrays of a batch by name; those of a record within it as `record.field`."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def check_batch(batch: Batch, config: InputConfig, training: bool = False) -> None:
    """Compares a batch's entries with what a step reads; looks at shapes and types alone, so it is free under jit.

    Args:
      batch: whatever is there is checked; more than the known entries may be.
      config: says how many joints and heatmaps.
      training: whether `pose_mm` and `valid` have to be there.

    Raises:
      UserError: naming the entry, what was expected and what came.
    """
    joints, maps = skeleton(config.skeleton).num_joints, skeleton(config.heatmap_skeleton).num_joints
    needed = ["pose_mm", "valid"] if training else []
    needed += ["valid2d"] if "joints2d" in batch and "heatmap" not in batch else []
    for name in needed:
        if name not in batch:
            raise UserError(f"the batch has no {name!r}, only {', '.join(sorted(batch))}")
    expected = {
        "image": ("B", "H", "W", 3),
        "heatmap": ("B", "h", "w", maps),
        "joints2d": ("B", joints, 2),
        "valid2d": ("B", joints),
        "pose_mm": ("B", joints, 3),
        "valid": ("B", joints),
        "parts": ("B", "H", "W"),
    }
    sizes: dict[str, int] = {}
    for name in sorted(expected.keys() & batch.keys()):
        shape, form = batch[name].shape, expected[name]
        if len(shape) != len(form) or any(f != s for f, s in zip(form, shape, strict=True) if isinstance(f, int)):
            raise UserError(f"batch[{name!r}] is {shape}, expected ({', '.join(map(str, form))})")
        sizes[name] = shape[0]
    if len(set(sizes.values())) > 1:
        raise UserError(f"the batch's entries differ in B: {sizes}")
    kind = batch["image"].dtype if "image" in batch else jnp.uint8
    if kind != jnp.uint8 and not jnp.issubdtype(kind, jnp.floating):
        raise UserError(f"batch['image'] is {kind}, expected uint8, or float in [0, 1]")
    if "parts" in batch and batch["parts"].dtype != jnp.uint8:
        raise UserError(f"batch['parts'] is {batch['parts'].dtype}, expected uint8, labels of body parts")


def fake_batch(config: Config, batch_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of noise with the right shapes and types, for shape checks, benchmarks and tests."""
    rng, size = np.random.default_rng(seed), config.inputs.image_size
    j = skeleton(config.inputs.skeleton).num_joints
    pose = rng.normal(0, 300, (batch_size, j, 3)).astype(np.float32)
    batch = {
        "image": rng.integers(0, 256, (batch_size, size, size, 3), np.uint8),
        "joints2d": rng.uniform(0, size - 1, (batch_size, j, 2)).astype(np.float32),
        "valid2d": np.ones((batch_size, j), bool),
        "pose_mm": root_relative(pose, skeleton(config.inputs.skeleton).root_indices),
        "valid": np.ones((batch_size, j), bool),
    }
    if "parts" in batch_extras(config):
        batch["parts"] = rng.integers(0, len(PARTS) + 1, (batch_size, size, size), np.uint8)
    return batch
