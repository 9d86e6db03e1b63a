"""Config to optax: Adam, with groups of their own for alpha, beta, free mix logits and for a 2D network in the step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fusion_jax.config import OptimConfig

HEATMAP_NETWORK = "heatmap_network"
"""Where the parameter tree holds a 2D network that is trained along."""
ANNEALED = "annealed"
FUSION_PARAMETERS = ("alpha", "beta", "mix_logits")


@functools.cache  # the same object for the same settings, so that a jitted step is compiled once
def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optax transformation of a run of `steps` steps over FusionNet's parameter tree.

    Groups are clipped apart: the penalty's gradient, -2 lambda / alpha^3, is 1e7 at alpha = 0.1 and under one
    common norm would scale the weights' gradients to nothing.
    """

    def group(learning_rate: float) -> optax.GradientTransformation:
        clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
        return optax.chain(clip, optax.adam(learning_rate_schedule(config, learning_rate, steps)))

    rates = {"weights": config.learning_rate, "fusion": config.fusion_learning_rate}
    rates |= {HEATMAP_NETWORK: config.heatmap_learning_rate}
    groups = {name: group(rate) for name, rate in rates.items()}
    if config.alpha_final is not None:
        start = round(config.anneal_from * steps)
        groups[ANNEALED] = led_to(groups["fusion"], config.alpha_final, start, steps)
    return optax.partition(groups, functools.partial(_labels, annealed=config.alpha_final is not None))


def led_to(base: optax.GradientTransformation, final: float, start: int, steps: int) -> optax.GradientTransformation:
    """Updates of `base` until step `start`, then geometric steps from wherever a parameter is to `final` at `steps`.

    Args:
      base: what trains the parameter at first.
      final: > 0, reached exactly after step `steps`.
      start, steps: counted from 0.
    """

    def init(params):
        return jnp.zeros((), jnp.int32), base.init(params)

    def update(grads, state, params=None):
        count, inner = state
        updates, inner = base.update(grads, inner, params)
        left = jnp.maximum(steps - count, 1)

        def pulled(update, value):
            now = jnp.maximum(value, 1e-3)  # a parameter at or below 0 has no geometric way up
            return jnp.where(count < start, update, now ** (1 - 1 / left) * final ** (1 / left) - value)

        return jax.tree.map(pulled, updates, params), (count + 1, inner)

    return optax.GradientTransformation(init, update)


def learning_rate_schedule(config: OptimConfig, peak: float, steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up to `peak`, then constant or a cosine to 1% of it at `steps`."""
    warmup = min(config.warmup_steps, steps // 2)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, steps - warmup), alpha=0.01)
    else:
        after = optax.constant_schedule(peak)
    if warmup == 0:
        return after
    # From peak / warmup, not 0, so that the first step already learns.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def _labels(params: dict, annealed: bool) -> dict:
    def label(name: str, subtree: Any) -> Any:
        if annealed and name == "alpha":
            return ANNEALED
        kind = "fusion" if name in FUSION_PARAMETERS else name if name == HEATMAP_NETWORK else "weights"
        return jax.tree.map(lambda _: kind, subtree)

    return {name: label(name, subtree) for name, subtree in params.items()}


def update_if(
    finite: jax.Array,
    tx: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    resting: frozenset[str] = frozenset(),
) -> Any:
    """(params, opt_state) after an update, or as they were where `finite` is False.

    What belongs to parameters of the names `resting` stays as it was in either case.

    By a branch, not by choosing number for number: what the choice is made from would have to be kept beside what it
    gives, and XLA on a CPU then copies Adam's moments (twice the time and the memory of `paper`'s update).
    """

    def update(grads, opt_state, params):
        updates, new_state = tx.update(grads, opt_state, params)
        new = optax.apply_updates(params, updates), new_state
        return jax.tree_util.tree_map_with_path(kept, new, (params, opt_state)) if resting else new

    def kept(path, new, old):
        return old if any(getattr(key, "key", None) in resting for key in path) else new

    return jax.lax.cond(finite, update, lambda _, opt_state, params: (params, opt_state), grads, opt_state, params)


def tree_norm(tree: Any) -> jax.Array:
    """Root of the sum of all squares. By products: XLA on a CPU would first write the squares out."""
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf, precision="highest") for leaf in jax.tree.leaves(tree)))
