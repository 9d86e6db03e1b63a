"""The training state: everything a step reads and writes, as one pytree."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from fusion_jax.batch import stream_channels
from fusion_jax.config import Config, HeatmapConfig, HourglassConfig, InputConfig, NetworkConfig
from fusion_jax.errors import UserError
from fusion_jax.hourglass import Hourglass
from fusion_jax.network import FusionNet, active_streams
from fusion_jax.optim import HEATMAP_NETWORK, make_optimizer
from fusion_jax.skeletons import skeleton

MAX_PARAMETERS = 2**31
"""With Adam's moments 26 GB; a config from elsewhere must not ask for more than any machine has."""


class TrainState(struct.PyTreeNode):
    """One run's state. Arrays are leaves; the rest is static, compared by value, and decides what gets compiled.

    Attributes:
      step: () int32, steps done.
      params: the network's parameters; under HEATMAP_NETWORK those of a 2D network that is trained along.
      constants: what no gradient changes. Of a FusionNet pose_mean_mm and pose_std_mm, (J, 3) mm, and under
        HEATMAP_NETWORK what of a 2D network that runs in the step is not trained; of an Hourglass `batch_stats`.
      opt_state: optax's.
      rng: root key; a step uses fold_in(rng, step), so a resumed run replays the same dropout.
      network: the linen module.
      tx: the optimiser.
      inputs: how a batch becomes the network's inputs.
      alpha_penalty_weight: lambda, mm^2.
      heatmaps: where a fusion network's heatmaps come from.
      heatmap_network: the linen module of the 2D network that runs in the step, if one does.
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
    heatmaps: HeatmapConfig = struct.field(pytree_node=False, default=HeatmapConfig())
    heatmap_network: Hourglass | None = struct.field(pytree_node=False, default=None)


def network_variables(state: TrainState, params: Any = None) -> dict[str, Any]:
    """What a FusionNet is applied to: its parameters (`params` in the place of the state's) and constants."""
    params = state.params if params is None else params
    own = {name: value for name, value in params.items() if name != HEATMAP_NETWORK}
    constants = {name: value for name, value in state.constants.items() if name != HEATMAP_NETWORK}
    return {"params": own, "constants": constants}


def heatmap_network_variables(state: TrainState, params: Any = None) -> dict[str, Any]:
    """What the 2D network that runs in the step is applied to."""
    params = state.params if params is None else params
    variables = dict(state.constants[HEATMAP_NETWORK])
    return variables | ({"params": params[HEATMAP_NETWORK]} if HEATMAP_NETWORK in params else {})


def make_network(config: NetworkConfig, inputs: InputConfig) -> FusionNet:
    """The linen module that a fusion network's config describes."""
    return FusionNet(
        streams=config.streams,
        num_joints=skeleton(inputs.skeleton).num_joints,
        strategy=config.strategy,
        beta=config.beta,
        alpha_init=config.alpha_init,
        live=config.live,
        dtype=jnp.dtype(config.compute_dtype),
    )


def make_hourglass(config: HourglassConfig, inputs: InputConfig) -> Hourglass:
    """The linen module that a 2D network's config describes."""
    joints = skeleton(inputs.heatmap_skeleton).num_joints
    return Hourglass(config.stacks, config.features, config.depth, joints, jnp.dtype(config.compute_dtype))


def input_shapes(inputs: InputConfig, batch_size: int = 1) -> dict[str, tuple[int, ...]]:
    """Shapes (B, H, W, C) of what the known streams read, by name, see `batch.STREAMS`."""
    size = (batch_size, inputs.image_size, inputs.image_size)
    return {name: (*size, channels) for name, channels in stream_channels(inputs).items()}


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
      extra_inputs: (name, shape of one example) of streams other than `batch.STREAMS`.

    Raises:
      UserError: the shape of a stream's input is not known, or there are more than MAX_PARAMETERS.
    """
    init_key, run_key = jax.random.split(key)
    heatmap_network: Hourglass | None = None
    if isinstance(config.network, HourglassConfig):
        network: nn.Module = make_hourglass(config.network, config.inputs)
        params, constants = _init_hourglass(network, config.inputs, init_key)
    else:
        fusion_net = network = make_network(config.network, config.inputs)
        wanted = {stream.name for stream in active_streams(fusion_net.streams, fusion_net.strategy)}
        shapes = input_shapes(config.inputs) | {name: (1, *shape) for name, shape in extra_inputs}
        unknown = sorted(wanted - shapes.keys())
        if unknown:
            raise UserError(
                f"the network has a stream {unknown[0]!r}, whose input's shape is not known; give it to create_state: "
                f"extra_inputs=(({unknown[0]!r}, (H, W, C)),), and train with your own loop"
            )
        variables = fusion_net.init(init_key, {k: jnp.zeros(v) for k, v in shapes.items() if k in wanted})
        params, constants = dict(variables["params"]), dict(variables["constants"])
        if config.network.standardise_targets and pose_mean_mm is not None and pose_std_mm is not None:
            constants["pose_mean_mm"] = jnp.asarray(pose_mean_mm, jnp.float32)
            constants["pose_std_mm"] = jnp.asarray(pose_std_mm, jnp.float32)
        if config.heatmaps.in_step:
            heatmap_network = _add_heatmap_network(config.heatmaps, init_key, params, constants)
    _check_size((params, constants))
    tx = make_optimizer(config.optim, config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        constants=constants,
        opt_state=tx.init(params),
        rng=run_key,
        network=network,
        tx=tx,
        inputs=config.inputs,
        alpha_penalty_weight=config.optim.alpha_penalty_weight,
        heatmaps=config.heatmaps,
        heatmap_network=heatmap_network,
    )


def _check_size(variables: Any) -> None:
    """Raises UserError for a network that fits no machine; where shapes alone are worked out, before it is made."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    if count > MAX_PARAMETERS:
        raise UserError(
            f"the network of this config has {count:.3g} parameters, expected at most {MAX_PARAMETERS:.3g}; "
            "make its layers narrower"
        )


def state_shapes(config: Config) -> TrainState:
    """Shapes and types of a run's state; draws no weights and compiles nothing."""
    return jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))


def _init_hourglass(network: nn.Module, inputs: InputConfig, key: jax.Array) -> tuple[Any, Any]:
    variables = network.init(key, jnp.zeros((1, inputs.image_size, inputs.image_size, 3)))
    return variables["params"], {"batch_stats": variables["batch_stats"]}


def _add_heatmap_network(heatmaps: HeatmapConfig, key: jax.Array, params: dict, constants: dict) -> Hourglass:
    """Puts a fresh 2D network in its place in `params` and `constants`; a run then loads the trained weights."""
    if heatmaps.net is None:
        raise UserError("heatmaps.net is missing: the config has to say which 2D network predicts the heatmaps")
    network = make_hourglass(heatmaps.net.network, heatmaps.net.inputs)
    weights, statistics = _init_hourglass(network, heatmaps.net.inputs, key)
    constants[HEATMAP_NETWORK] = statistics
    if heatmaps.mode == "finetune":
        params[HEATMAP_NETWORK] = weights
    else:
        constants[HEATMAP_NETWORK] = statistics | {"params": weights}
    return network
