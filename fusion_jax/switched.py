"""Where to fuse as data: one network whose weights w_l come from arrays, so that strategies train side by side."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fusion_jax import fusion
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.mixing import Mixing
from fusion_jax.network import FusionNet, active_streams
from fusion_jax.state import TrainState, create_state

MIXED = ("learned", "free", "fixed")
"""The strategies that one SwitchedNet can follow; the order numbers them."""


class SwitchedNet(FusionNet):
    """A FusionNet that follows whichever strategy the collection `constants` says; every layer is built and run.

    Parameters hold `alpha`, `beta` and `mix_logits`, whatever is used of them; `constants` also `strategy`, () int32,
    the place in MIXED, and `fixed_weights` (L,) for `fixed`. What is not used gets no gradient.
    """

    def mixing(self, num_layers: int) -> Mixing:
        params, constants = self.variables["params"], self.variables["constants"]
        strategy = constants["strategy"]
        learned = fusion.fusion_weights(params["alpha"], params["beta"], num_layers)
        free = fusion.free_weights(params["mix_logits"])
        trained = jnp.where(strategy == MIXED.index("learned"), learned, free)
        weights = jnp.where(strategy == MIXED.index("fixed"), constants["fixed_weights"], trained)
        return Mixing(weights, fusion.LiveLayers(last_data=num_layers, first_fusion=1))


@dataclasses.dataclass(frozen=True)
class Switch:
    """What tells a member of a sweep from the others of its shape; arrays of one axis more for many members."""

    key: jax.Array
    """The run's typed PRNG key."""
    alpha: np.ndarray
    beta: np.ndarray
    strategy: np.ndarray
    """() int32, place in MIXED."""
    fixed_weights: np.ndarray
    """(L,)"""
    alpha_penalty_weight: np.ndarray
    """lambda, mm^2; 0 for strategies without alpha."""


jax.tree_util.register_dataclass(
    Switch,
    data_fields=["key", "alpha", "beta", "strategy", "fixed_weights", "alpha_penalty_weight"],
    meta_fields=[],
)


def switch(config: Config) -> Switch:
    """The switch of a run of `config`. Raises UserError for a single stream, which is a network of another shape."""
    network = config.fusion
    depth = len(network.streams[0].layers)
    if network.strategy not in MIXED:
        raise UserError(f"strategy {network.strategy!r} has no weights to switch; expected one of {', '.join(MIXED)}")
    hard, learned = network.strategy == "fixed", network.strategy == "learned"
    return Switch(
        key=jax.random.key(config.seed),
        alpha=np.asarray(network.alpha_init, np.float32),
        beta=np.asarray((depth + 1) / 2 if hard or network.beta is None else network.beta, np.float32),
        strategy=np.asarray(MIXED.index(network.strategy), np.int32),
        fixed_weights=fusion.fixed_weights(network.beta, depth) if hard else np.zeros(depth, np.float32),
        alpha_penalty_weight=np.asarray(config.optim.alpha_penalty_weight if learned else 0.0, np.float32),
    )


def switched_state(
    config: Config, chosen: Switch, pose_mean_mm: np.ndarray | None = None, pose_std_mm: np.ndarray | None = None
) -> TrainState:
    """The state before the first step of a switched network; pure, to be mapped over many switches.

    Its layers are those that `create_state` would draw for the member alone, dead ones added.

    Args:
      config: of any member; what the switch says is taken from there.
      chosen: the switch.
      pose_mean_mm, pose_std_mm: (J, 3), as for `create_state`.
    """
    network = dataclasses.replace(config.fusion, strategy="learned", beta=None, live=None)
    lone = create_state(dataclasses.replace(config, network=network), chosen.key, pose_mean_mm, pose_std_mm)
    of = {field.name: getattr(lone.network, field.name) for field in dataclasses.fields(FusionNet)}
    params = lone.params | {
        "alpha": jnp.asarray(chosen.alpha),
        "beta": jnp.asarray(chosen.beta),
        "mix_logits": jnp.zeros(chosen.fixed_weights.shape),
    }
    constants = lone.constants | {
        "strategy": jnp.asarray(chosen.strategy),
        "fixed_weights": jnp.asarray(chosen.fixed_weights),
    }
    net = SwitchedNet(**{name: value for name, value in of.items() if name not in ("parent", "name")})
    return lone.replace(network=net, params=params, constants=constants, opt_state=lone.tx.init(params))


def lone_state(config: Config, trained: TrainState) -> TrainState:
    """A trained member as the state of a run of its own `config`, its dead layers left out and its optimiser fresh."""
    shapes = jax.eval_shape(lambda key: create_state(config, key), jax.random.key(0))
    params = {name: trained.params[name] for name in shapes.params}
    constants = {name: trained.constants[name] for name in shapes.constants}
    return shapes.replace(
        step=trained.step, params=params, constants=constants, opt_state=shapes.tx.init(params), rng=trained.rng
    )


def shape_key(config: Config) -> tuple:
    """Equal for runs that one compiled program can train side by side."""
    network = config.fusion
    mixed = network.strategy in MIXED
    optim = dataclasses.replace(config.optim, alpha_penalty_weight=0.0)
    same = dataclasses.replace(network, strategy="learned", beta=None, alpha_init=1.0) if mixed else network
    names = tuple(stream.name for stream in active_streams(network.streams, network.strategy))
    return names, dataclasses.replace(config, network=same, optim=optim, seed=0)
