"""One step of training and of evaluation of the 2D network: pure functions of (state, batch), as those of steps.py."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fusion_jax.batch import Batch, check_batch
from fusion_jax.config import Config
from fusion_jax.heatmaps import decode_heatmaps
from fusion_jax.inputs import joint_heatmaps, predict_heatmaps, resize, unit_image
from fusion_jax.losses import heatmap_loss
from fusion_jax.optim import tree_norm, update_if
from fusion_jax.state import TrainState
from fusion_jax.steps import train_step

Metrics = dict[str, jax.Array]


def heatmap_train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """The state of a 2D network after one optimiser step, batch statistics included, and the step's metrics.

    Where loss or gradient is not finite parameters, statistics and the optimiser stay as they were.

    Returns:
      The new state, and scalars loss, grad_norm, finite; joint_error_px_sum and joint_error_px_count, over the known
      joints in the picture, px of the network's input.
    """
    check_batch(batch, state.inputs)
    target = joint_heatmaps(batch, state.inputs)
    size = (state.inputs.image_size, state.inputs.image_size)
    image = resize(unit_image(batch["image"]), size)

    def loss_fn(params):
        variables = {"params": params, **state.constants}
        heatmaps, updates = state.network.apply(variables, image, train=True, mutable=["batch_stats"])
        return heatmap_loss(heatmaps, target), (heatmaps[-1], updates)

    (loss, (heatmaps, statistics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    grad_norm = tree_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    params, opt_state = update_if(finite, state.tx, grads, state.opt_state, state.params)
    constants = jax.tree.map(lambda new, old: jnp.where(finite, new, old), dict(statistics), dict(state.constants))
    found, _ = decode_heatmaps(heatmaps, state.inputs.image_size)
    error, known = _errors(found, batch, state.inputs.image_size)
    measured = {"loss": loss, "grad_norm": grad_norm, "finite": finite}
    measured |= {"joint_error_px_sum": error.sum(), "joint_error_px_count": known.sum()}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state, constants=constants), measured


def training_step(config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step that trains the network of a run, pose or heatmaps."""
    return train_step if config.task == "pose" else heatmap_train_step


def heatmap_predict_step(state: TrainState, batch: Batch, flip: bool = True) -> jax.Array:
    """Heatmaps (B, h, w, K) in [0, 1] of the last stack, by default averaged with the mirrored picture's."""
    check_batch(batch, state.inputs)
    variables = {"params": state.params, **state.constants}
    return predict_heatmaps(state.network, variables, batch["image"], state.inputs, flip=flip)


def heatmap_eval_step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """`pred2d_px` (B, K, 2), px of the batch's pictures, and `confidence` (B, K), each map's peak."""
    joints, peak = decode_heatmaps(heatmap_predict_step(state, batch), batch["image"].shape[1])
    return {"pred2d_px": joints, "confidence": peak}


def _errors(found: jax.Array, batch: Batch, image_size: int) -> tuple[jax.Array, jax.Array]:
    """Distances (B, K) px of the network's input, 0 where not known, and which are known and in the picture."""
    side = batch["image"].shape[1]
    true = (batch["joints2d"] + 0.5) * (image_size / side) - 0.5
    inside = ((true >= -0.5) & (true <= image_size - 0.5)).all(-1)
    known = batch["valid2d"] & inside
    distance = jnp.linalg.norm(jnp.where(known[..., None], found - true, 0), axis=-1)
    return distance, known
