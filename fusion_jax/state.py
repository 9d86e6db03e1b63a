"""The training state: everything a step reads and writes, as one pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from fusion_jax.config import Config, InputConfig, NetworkConfig
from fusion_jax.network import FusionNet, active_streams
from fusion_jax.optim import make_optimizer
from fusion_jax.skeletons import skeleton


class TrainState(struct.PyTreeNode):
    """One run's state. Arrays are leaves; the rest is static, compared by value, and decides what gets compiled.

    Attributes:
      step: () int32, steps done.
      params: FusionNet's parameters.
      constants: pose_mean_mm and pose_std_mm, (J, 3) mm, which are not trained.
      opt_state: optax's.
      rng: root key; a step uses fold_in(rng, step), so a resumed run replays the same dropout.
      network: the linen module.
      tx: the optimiser.
      inputs: how a batch becomes the network's inputs.
      alpha_penalty_weight: lambda, mm^2.
    """

    step: jax.Array
    params: Any
    constants: Any
    opt_state: Any
    rng: jax.Array
    network: nn.Module = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    inputs: InputConfig = struct.field(pytree_node=False)
    alpha_penalty_weight: float = struct.field(pytree_node=False)


def make_network(config: NetworkConfig, inputs: InputConfig) -> FusionNet:
    """The linen module that a config describes."""
    return FusionNet(
        streams=config.streams,
        num_joints=skeleton(inputs.skeleton).num_joints,
        strategy=config.strategy,
        beta=config.beta,
        alpha_init=config.alpha_init,
        dtype=jnp.dtype(config.compute_dtype),
    )


def input_shapes(inputs: InputConfig, batch_size: int = 1) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's inputs `image` (B, H, W, 3) and `heatmap` (B, H, W, J')."""
    size = (batch_size, inputs.image_size, inputs.image_size)
    return {"image": (*size, 3), "heatmap": (*size, skeleton(inputs.heatmap_skeleton).num_joints)}


def create_state(
    config: Config,
    key: jax.Array,
    pose_mean_mm: np.ndarray | None = None,
    pose_std_mm: np.ndarray | None = None,
    extra_inputs: tuple[tuple[str, tuple[int, ...]], ...] = (),
) -> TrainState:
    """A fresh state for a run of `config`; pure, so it can be jitted or shape-evaluated.

    Args:
      config: the run.
      key: a typed PRNG key.
      pose_mean_mm, pose_std_mm: (J, 3) statistics of the training poses that scale the output; without them (or
        with standardise_targets off) the output layer works in mm.
      extra_inputs: (name, shape of one example) of streams other than `image` and `heatmap`.
    """
    network = make_network(config.network, config.inputs)
    init_key, run_key = jax.random.split(key)
    wanted = {stream.name for stream in active_streams(network.streams, network.strategy)}
    shapes = input_shapes(config.inputs) | {name: (1, *shape) for name, shape in extra_inputs}
    variables = network.init(init_key, {k: jnp.zeros(v) for k, v in shapes.items() if k in wanted})
    constants = variables["constants"]
    if config.network.standardise_targets and pose_mean_mm is not None and pose_std_mm is not None:
        constants = {
            "pose_mean_mm": jnp.asarray(pose_mean_mm, jnp.float32),
            "pose_std_mm": jnp.asarray(pose_std_mm, jnp.float32),
        }
    tx = make_optimizer(config.optim, config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        constants=constants,
        opt_state=tx.init(variables["params"]),
        rng=run_key,
        network=network,
        tx=tx,
        inputs=config.inputs,
        alpha_penalty_weight=config.optim.alpha_penalty_weight,
    )
