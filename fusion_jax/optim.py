"""Config to optax: Adam, with groups of their own for alpha, beta, free mix logits and for a 2D network in the step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import optax

from fusion_jax.config import OptimConfig

HEATMAP_NETWORK = "heatmap_network"
"""Where the parameter tree holds a 2D network that is trained along."""
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
    return optax.partition({name: group(rate) for name, rate in rates.items()}, _labels)


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


def _labels(params: dict) -> dict:
    def label(name: str, subtree: Any) -> Any:
        kind = "fusion" if name in FUSION_PARAMETERS else name if name == HEATMAP_NETWORK else "weights"
        return jax.tree.map(lambda _: kind, subtree)

    return {name: label(name, subtree) for name, subtree in params.items()}
