"""A batch to the networks' inputs, on the device: pictures, body parts, and heatmaps from wherever a run takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fusion_jax.batch import Batch
from fusion_jax.body_parts import PARTS
from fusion_jax.config import InputConfig
from fusion_jax.errors import UserError
from fusion_jax.heatmap_noise import noisy_heatmaps
from fusion_jax.heatmaps import gaussian_heatmaps
from fusion_jax.hourglass import mirrored
from fusion_jax.skeletons import convert_joints, convert_valid, skeleton
from fusion_jax.state import TrainState, heatmap_network_variables


def network_inputs(batch: Batch, config: InputConfig) -> dict[str, jax.Array]:
    """The network's inputs, each (B, image_size, image_size, C) float, made on the device.

    `image` in [0, 1]; `heatmap`; of a batch's `parts` the stream `parts`, a map for each body part, 1 on it and 0
    elsewhere, and `silhouette`, one map of them all. Each is brought to the network's size as the picture is, so that
    they stay aligned with it. What the batch lacks is left out; any further stream's input is passed on under its own
    name.
    """
    known = {"image", "joints2d", "valid2d", "heatmap", "pose_mm", "valid", "parts"}
    inputs = {name: value for name, value in batch.items() if name not in known}
    size = (config.image_size, config.image_size)
    if "image" in batch:
        inputs["image"] = resize(unit_image(batch["image"]), size)
    if "heatmap" in batch or "joints2d" in batch:
        heatmap = batch["heatmap"] if "heatmap" in batch else joint_heatmaps(batch, config)
        inputs["heatmap"] = resize(heatmap, size)
    if "parts" in batch:
        labels = batch["parts"][..., None]
        inputs["parts"] = resize((labels == jnp.arange(1, len(PARTS) + 1)).astype(jnp.float32), size)
        inputs["silhouette"] = resize((labels > 0).astype(jnp.float32), size)
    return inputs


def with_heatmaps(
    state: TrainState, batch: Batch, *, params: Any = None, key: jax.Array | None = None
) -> Mapping[str, jax.Array]:
    """The batch with the `heatmap` that the run's config asks for; as it is where those come from true joints.

    Args:
      state: of a fusion network; says where heatmaps come from, and holds the 2D network where it runs in the step.
      batch: as in batch.py; the 2D network reads its `image`, noise is put on its `joints2d`.
      params: in the place of the state's, to differentiate through.
      key: of the noise, one for each step of training; without it the noise belongs to the example's `index`, so that
        an evaluation is the same for every batch size.

    Raises:
      UserError: the batch lacks what the heatmaps are made of, or the kept ones of a 2D network.
    """
    source = state.heatmaps
    if state.heatmap_network is not None and source.net is not None:
        _need(batch, "image", "in which the 2D network looks for joints")
        variables = heatmap_network_variables(state, params)
        return {
            **batch,
            "heatmap": predict_heatmaps(state.heatmap_network, variables, batch["image"], source.net.inputs),
        }
    if source.source == "noisy":
        _need(batch, "joints2d", "on which noise is put")
        return {**batch, "heatmap": _noisy(state, batch, key)}
    if source.source == "predicted":  # or true heatmaps would stand in unnoticed
        _need(batch, "heatmap", "which the run's 2D network has to have predicted")
    return batch


def _need(batch: Batch, name: str, why: str) -> None:
    if name not in batch:
        raise UserError(f"the batch has no {name!r}, {why}; it has {', '.join(sorted(batch))}")


def predict_heatmaps(
    network: Any, variables: Any, image: jax.Array, inputs: InputConfig, *, flip: bool = False
) -> jax.Array:
    """What a 2D network sees in pictures (B, H, W, 3): its last stack's heatmaps (B, h, w, K), in [0, 1].

    Args:
      network, variables: an `hourglass.Hourglass`, with running statistics.
      image: uint8, or float in [0, 1]; brought to the network's size.
      inputs: of the 2D network.
      flip: whether to average with what it sees in the mirrored picture, as published scores do; twice the work.
    """
    picture = resize(unit_image(image), (inputs.image_size, inputs.image_size))
    heatmaps = network.apply(variables, picture)[-1]
    if flip:
        other = network.apply(variables, jax.lax.rev(picture, (2,)))[-1]
        heatmaps = (heatmaps + mirrored(other, skeleton(inputs.heatmap_skeleton).flip)) / 2
    return jnp.clip(heatmaps, 0, 1)


def joint_heatmaps(batch: Batch, config: InputConfig) -> jax.Array:
    """Heatmaps (B, heatmap_size, heatmap_size, J') of a batch's 2D joints, converted by joint name."""
    joints, valid = _heatmap_joints(batch, config)
    return gaussian_heatmaps(joints, valid, **_sizes(batch, config))


def _noisy(state: TrainState, batch: Batch, key: jax.Array | None) -> jax.Array:
    joints, valid = _heatmap_joints(batch, state.inputs)
    count = len(joints)
    numbers = batch["index"] if key is None and "index" in batch else jnp.arange(count)
    root = jax.random.key(0) if key is None else key
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, numbers)
    flip = skeleton(state.inputs.heatmap_skeleton).flip
    sizes = _sizes(batch, state.inputs)
    return noisy_heatmaps(keys, joints, valid, flip=flip, noise=state.heatmaps.noise, **sizes)


def _heatmap_joints(batch: Batch, config: InputConfig) -> tuple[jax.Array, jax.Array]:
    source, target = skeleton(config.skeleton), skeleton(config.heatmap_skeleton)
    return convert_joints(batch["joints2d"], source, target), convert_valid(batch["valid2d"], source, target)


def _sizes(batch: Batch, config: InputConfig) -> dict[str, Any]:
    return {
        "image_size": batch["image"].shape[1] if "image" in batch else config.image_size,
        "heatmap_size": config.heatmap_size,
        "sigma_px": config.heatmap_sigma_px,
    }


def unit_image(image: jax.Array) -> jax.Array:
    """Pictures as float in [0, 1], from that or from uint8."""
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear, half-pixel centres, no antialiasing, as OpenCV's; (B, H, W, C) to (B, *size, C)."""
    if x.shape[1:3] == size:
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "linear", antialias=False)
