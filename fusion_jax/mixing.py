"""Trainable fusion over any stacks of layers: bring your own layers, get the method's mixing at every depth.

A network of two streams, in linen (any callables will do, such as functions that close over their parameters):

    class AudioVideo(nn.Module):
        @nn.compact
        def __call__(self, audio, video):
            mixing = declare_mixing(self, num_layers=2)
            data = [[nn.Dense(16), nn.Dense(8)], [nn.Dense(4), nn.Dense(4)]]
            return fuse([audio, video], data, [nn.Dense(20), nn.Dense(12), nn.Dense(1)], mixing)

Its parameters hold `alpha` and `beta` beside the layers' own; `fusion.alpha_penalty` of the first belongs in the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fusion_jax import fusion
from fusion_jax.errors import UserError

Layer = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How much of itself the fusion stream keeps at each layer, and which layers that leaves alive."""

    weights: jax.Array | np.ndarray
    """(L,) w_1 .. w_L in [0, 1]."""
    live: fusion.LiveLayers
    """Layers that are run. Where the fusion stream is not alive w_l counts as 0, where data streams are not as 1."""


def declare_mixing(
    module: nn.Module,
    num_layers: int,
    strategy: str = "learned",
    *,
    beta: float | None = None,
    alpha_init: float = 0.1,
    live: fusion.LiveLayers | None = None,
) -> Mixing:
    """The mixing of a strategy; what of it is trained becomes parameters of `module`.

    Args:
      module: within its `setup` or compact method. It gets scalars `alpha` and `beta` for `learned`, the vector
        `mix_logits` (L,) for `free`, nothing for `fixed`.
      num_layers: L.
      strategy: `learned`, `free` or `fixed`, see `fusion`.
      beta: for `fixed` the fusion layer in [0, L], for `learned` its start (None: the middle of 1 .. L).
      alpha_init: start of the sharpness.
      live: of a pruned network, the layers that are left; None for all that the strategy needs.

    Raises:
      UserError: another strategy, or a beta that `fixed` cannot use.
    """
    everything = fusion.LiveLayers(last_data=num_layers, first_fusion=1)
    if strategy == "learned":
        start = (num_layers + 1) / 2 if beta is None else beta
        alpha = module.param("alpha", nn.initializers.constant(alpha_init), ())
        center = module.param("beta", nn.initializers.constant(start), ())
        return Mixing(fusion.fusion_weights(alpha, center, num_layers), live or everything)
    if strategy == "free":
        logits = module.param("mix_logits", nn.initializers.zeros, (num_layers,))
        return Mixing(fusion.free_weights(logits), live or everything)
    if strategy != "fixed":
        raise UserError(f"strategy {strategy!r} does not mix streams; expected learned, free or fixed")
    weights = fusion.fixed_weights(beta, num_layers)
    return Mixing(weights, live or fusion.live_layers(weights))


def fuse(
    inputs: Sequence[jax.Array],
    data_layers: Sequence[Sequence[Layer]],
    fusion_layers: Sequence[Layer],
    mixing: Mixing,
    observe: Callable[[str, jax.Array], object] = lambda name, value: None,
) -> jax.Array:
    """What fusion layer L + 1 makes of S data streams and their fusion stream (Tekin et al. 2017, figure 2).

    Z_0 = concat(inputs); M_0 = Z_0; M_l = (1 - w_l) * concat(data_l) + w_l * Z_l; Z_{l+1} = fusion_{l+1}(M_l). Layers
    that are not alive are not called, so linen modules among them get no parameters.

    Args:
      inputs: S arrays that differ in their last axis alone, (*B, C_s).
      data_layers: for each stream its layers 1 .. L. After each layer the streams differ in their last axis alone.
      fusion_layers: 1 .. L + 1; layer l is as wide as all streams' layers l together, the last one is the output.
      mixing: w_l and what is alive.
      observe: called with the names `data_l` (all streams' features), `fused_l` (Z_l) and `mixed_l` (M_l).

    Returns:
      The output of fusion layer L + 1.

    Raises:
      UserError: the numbers of streams or layers do not go together, or widths at a layer differ.
    """
    depth, live = len(fusion_layers) - 1, mixing.live
    if len(inputs) != len(data_layers) or any(len(layers) != depth for layers in data_layers) or depth < 1:
        raise UserError(
            f"{len(inputs)} inputs, data streams of {[len(layers) for layers in data_layers]} layers, and "
            f"{len(fusion_layers)} fusion layers: expected as many streams as inputs, L >= 1 layers each, and L + 1"
        )
    if np.shape(mixing.weights) != (depth,):
        raise UserError(f"the mixing has weights of shape {np.shape(mixing.weights)}, expected ({depth},)")
    live.check(depth)
    data = list(inputs)
    mixed = jnp.concatenate(data, axis=-1)  # M_0
    for l in range(1, depth + 1):
        if l <= live.last_data:
            data = [layers[l - 1](x) for layers, x in zip(data_layers, data, strict=True)]
            offered = jnp.concatenate(data, axis=-1)
            observe(f"data_{l}", offered)
        if l >= live.first_fusion:
            fused = fusion_layers[l - 1](mixed)
            observe(f"fused_{l}", fused)
        if l < live.first_fusion - 1:
            continue  # nothing reads M_l
        if l < live.first_fusion:
            mixed = offered
        elif l > live.last_data:
            mixed = fused
        else:
            mixed = fusion.mix(mixing.weights[l - 1], offered, fused)
        observe(f"mixed_{l}", mixed)
    return fusion_layers[depth](mixed)
