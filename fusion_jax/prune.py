"""Which layers of a trained network are dead by its fusion weights, and the smaller network without them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fusion_jax import fusion
from fusion_jax.config import Config, NetworkConfig
from fusion_jax.cost import live_of
from fusion_jax.errors import UserError
from fusion_jax.network import FusionNet, active_streams
from fusion_jax.state import TrainState, create_state

TRAINED = ("learned", "free")
"""Strategies whose networks are built whole, and can be pruned."""


def mixing_weights(config: Config, params: Mapping[str, Any]) -> np.ndarray:
    """(L,) float32 w_l as a run's network counts them: 0 and 1 where it was cut down already.

    Args:
      config: of a fusion network's run, any strategy.
      params: its parameters.

    Raises:
      UserError: they are not finite, or the run is of a 2D network.
    """
    network = config.fusion
    live, depth = live_of(network), len(active_streams(network.streams, network.strategy)[0].layers)
    if network.strategy == "learned":
        weights = fusion.fusion_weights(params["alpha"], params["beta"], depth)
    elif network.strategy == "free":
        weights = fusion.free_weights(params["mix_logits"])
    else:
        weights = jnp.full(depth, 0.5)  # all of them are outside the live band
    found = np.array(weights, np.float32)
    if not np.isfinite(found).all():
        raise UserError("the fusion weights are not finite: the checkpoint is damaged")
    found[: live.first_fusion - 1] = 0
    found[live.last_data :] = 1
    return found


def alive(config: Config, params: Mapping[str, Any], eps: float = 1e-3) -> tuple[Config, dict[str, Any]]:
    """The config and the parameters of what is left of a network once weights within eps of 0 or 1 count as those.

    Works for any number of streams. A 2D network that is trained along stays as it is. Where nothing is dead, or the
    strategy is one whose network is built of live layers alone, both come back as they were.

    Args:
      config: of a fusion network's run.
      params: its parameters.
      eps: in [0, 0.5).

    Raises:
      UserError: eps is outside, the weights are not finite, or the run is of a 2D network.
    """
    live = fusion.live_layers(mixing_weights(config, params), eps)
    if config.fusion.strategy not in TRAINED or live == live_of(config.fusion):
        return config, dict(params)
    pruned = dataclasses.replace(config, network=dataclasses.replace(config.fusion, live=live))
    dead = set(removed_layers(config, pruned))
    return pruned, {name: value for name, value in params.items() if name not in dead}


def removed_layers(config: Config, pruned: Config) -> list[str]:
    """Names of the layers that the first network has and the second, cut down from it, has not."""
    kept = _layer_names(pruned.fusion)
    return [name for name in _layer_names(config.fusion) if name not in kept]


def resting_layers(network: nn.Module) -> frozenset[str]:
    """Names of the layers that a network does not run because of its `live`, though a state may hold them."""
    if not isinstance(network, FusionNet) or network.live is None:
        return frozenset()
    return frozenset(_layer_names(network.clone(live=None))) - frozenset(_layer_names(network))


def mixed_layers(config: Config) -> list[int]:
    """The layers l that mix data streams and fusion stream; none of a network that merges once."""
    live = live_of(config.fusion)
    return list(range(live.first_fusion, live.last_data + 1))


def pruned_state(state: TrainState, pruned: Config) -> TrainState:
    """What is left of a run's state in the network that `alive` cut down; step, moments and key go on.

    Args:
      state: of the run before.
      pruned: of `alive`.
    """
    left = jax.eval_shape(functools.partial(create_state, pruned), jax.random.key(0))
    arrays = {name: getattr(state, name) for name in ("params", "constants", "opt_state")}
    kept = {name: _by_path(value, getattr(left, name)) for name, value in arrays.items()}
    return left.replace(step=state.step, rng=state.rng, **kept)


def _layer_names(network: FusionNet | NetworkConfig) -> list[str]:
    live, streams = live_of(network), active_streams(network.streams, network.strategy)
    data = [f"{stream.name}_{l}" for stream in streams for l in range(1, live.last_data + 1)]
    return data + [f"fusion_{l}" for l in range(live.first_fusion, len(streams[0].layers) + 2)]


def _by_path(tree: Any, like: Any) -> Any:
    """The leaves of `tree` that `like` has too, in the structure of `like`."""
    found = dict(jax.tree_util.tree_leaves_with_path(tree))
    return jax.tree_util.tree_map_with_path(lambda path, _: found[path], like)
