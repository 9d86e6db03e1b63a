"""One step of training and of evaluation: pure functions of (state, batch), not jitted, knowing no devices.

What a batch holds is in batch.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fusion_jax import fusion, metrics
from fusion_jax.batch import Batch, check_batch
from fusion_jax.geometry import root_relative
from fusion_jax.inputs import network_inputs, with_heatmaps
from fusion_jax.losses import fusion_loss
from fusion_jax.optim import tree_norm, update_if
from fusion_jax.prune import resting_layers
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, network_variables

Metrics = dict[str, jax.Array]


def train_step(state: TrainState, batch: Batch, axis_name: str | None = None) -> tuple[TrainState, Metrics]:
    """The state after one optimiser step through all weights, alpha and beta, and the step's metrics.

    The loss is a mean over the batch, so a batch sharded over devices gives the same step. Where loss or gradient
    is not finite the parameters and the optimiser stay as they were; `finite` tells the caller. So do, at any time,
    those of layers that the state holds and its network does not run: Adam alone would move them on for a while.

    Args:
      axis_name: of the devices where each has its own part of the batch, as under `jax.pmap`; see
        `sharding.pmap_train_step`.

    Returns:
      The new state, and scalars loss, data_loss, penalty (mm^2), mpjpe_sum, mpjpe_count, grad_norm, finite;
      layer_grad_norms, one for each entry of the parameters; fusion_weights (L,); alpha and beta where the strategy
      has them.
    """
    check_batch(batch, state.inputs, training=True)
    dropout_key = jax.random.fold_in(state.rng, state.step)
    if axis_name is not None:
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    noise_key = jax.random.fold_in(dropout_key, 1)

    def loss_fn(params):
        inputs = network_inputs(with_heatmaps(state, batch, params=params, key=noise_key), state.inputs)
        variables = network_variables(state, params)
        pred = state.network.apply(variables, inputs, train=True, rngs={"dropout": dropout_key})
        loss, terms = fusion_loss(
            pred, batch["pose_mm"], batch["valid"], params.get("alpha"), state.alpha_penalty_weight
        )
        return loss, (terms, pred)

    (loss, (terms, pred)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    total, count = metrics.mpjpe_mm(pred, batch["pose_mm"], batch["valid"])
    if axis_name is not None:
        loss, terms, grads = jax.lax.pmean((loss, terms, grads), axis_name)
        total, count = jax.lax.psum((total, count), axis_name)
    layer_norms = {name: tree_norm(part) for name, part in grads.items()}
    grad_norm = tree_norm(layer_norms)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    resting = resting_layers(state.network)
    params, opt_state = update_if(finite, state.tx, grads, state.opt_state, state.params, resting)
    measured = {"loss": loss, **terms, "mpjpe_sum": total, "mpjpe_count": count, "grad_norm": grad_norm}
    measured |= {"layer_grad_norms": layer_norms, "finite": finite, **fusion_state(state)}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), measured


def predict_step(state: TrainState, batch: Batch) -> jax.Array:
    """Predicted root-relative poses (B, J, 3), mm, camera frame, of a batch without `pose_mm` and `valid`."""
    check_batch(batch, state.inputs)
    inputs = network_inputs(with_heatmaps(state, batch), state.inputs)
    pose = state.network.apply(network_variables(state), inputs)
    assert isinstance(pose, jax.Array)  # not mutable: no second value
    return pose


def eval_step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """`pred_mm` (B, J, 3), both poses root-relative, and joint distances (B, J) mm under every alignment."""
    root = skeleton(state.inputs.skeleton).root_indices
    pred = predict_step(state, batch)
    pred = root_relative(pred, root)
    return {"pred_mm": pred, **metrics.aligned_distances_mm(pred, batch["pose_mm"], batch["valid"])}


def fusion_state(state: TrainState) -> Metrics:
    """`fusion_weights` (L,), and alpha and beta for the learned strategy; empty for constant strategies."""
    params, num_layers = state.params, len(state.network.streams[0].layers)
    if "alpha" in params:
        alpha, beta = params["alpha"], params["beta"]
        return {
            "alpha": alpha,
            "beta": beta,
            "fusion_weights": fusion.fusion_weights(alpha, beta, num_layers),
        }
    if "mix_logits" in params:
        return {"fusion_weights": fusion.free_weights(params["mix_logits"])}
    return {}
