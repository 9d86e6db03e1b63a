"""The trainable fusion of Tekin et al. (ICCV 2017), as pure functions: weights, mix, penalty, live layers.

Layers count l = 1 .. L. At each of them the fusion stream's features Z_l meet the data streams' features, side by
side along channels, and go on as M_l = (1 - w_l) * concat(data) + w_l * Z_l. Where the w_l come from is the
*strategy*:

  learned   w_l = sigmoid(alpha * (l - beta)), alpha and beta trained, lambda / alpha^2 added to the loss
  fixed     w_l = [l > beta] for a given beta: 0 is early fusion, L late fusion, between them fusion at layer beta
  free      w_l = sigmoid(logit_l), one trained number per layer, no penalty (the paper's ablation)
  image     the image stream alone
  heatmap   the heatmap stream alone
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fusion_jax.errors import UserError, unknown_name

Strategy = Literal["learned", "fixed", "free", "image", "heatmap"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
SINGLE_STREAM = ("image", "heatmap")


def fusion_weights(alpha: Float[Array, ""], beta: Float[Array, ""], num_layers: int) -> Float[Array, " L"]:
    """Share of the fusion stream's own features at layers 1 .. L, in (0, 1).

    w_l = sigmoid(alpha * (l - beta)) (Tekin et al. 2017, eq. 3; alpha is not squared here, the authors' release
    squares it). w near 0 reads the data streams, w near 1 keeps the fusion stream.

    Args:
      alpha: sharpness, meant > 0; 0 mixes half and half, a large alpha is a switch. Any finite value is safe.
      beta: fusion layer, in layers; w_l = 1/2 where l == beta.
      num_layers: L.
    """
    alpha = jnp.asarray(alpha, jnp.result_type(alpha, float))  # whole numbers are welcome
    layers = jnp.arange(1, num_layers + 1, dtype=alpha.dtype)
    return jax.nn.sigmoid(alpha * (layers - beta))


def fixed_weights(beta: float | None, num_layers: int) -> np.ndarray:
    """The (L,) float32 switch [l > beta] that `fusion_weights` tends to as alpha grows; 0 at l == beta.

    Raises:
      UserError: no beta, or one outside [0, L].
    """
    if beta is None:
        raise UserError(f"strategy 'fixed' needs a beta in [0, {num_layers}] (--beta)")
    if not 0 <= beta <= num_layers:
        raise UserError(
            f"beta {beta} is outside [0, {num_layers}]: 0 fuses before layer 1 (early), {num_layers} after the "
            f"last of the {num_layers} layers (late)"
        )
    return (np.arange(1, num_layers + 1) > beta).astype(np.float32)


def free_weights(logits: Float[Array, " L"]) -> Float[Array, " L"]:
    """One weight per layer without order between layers: w_l = sigmoid(logit_l)."""
    return jax.nn.sigmoid(logits)


def mix(weight: Float[Array, ""], data: Float[Array, "*B C"], fused: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """What the next fusion layer reads: (1 - w) * concat(data streams) + w * fusion stream.

    Args:
      weight: w_l, a scalar in [0, 1].
      data: all data streams' features of this layer, concatenated along channels.
      fused: the fusion stream's features, exactly as wide.

    Raises:
      UserError: the shapes differ.
    """
    if data.shape != fused.shape:
        raise UserError(
            f"mix: the concatenated data streams are {data.shape} but the fusion stream is {fused.shape}; the "
            "fusion stream must be as wide as all data streams together"
        )
    weight = jnp.asarray(weight)  # 1 - w in the weight's own precision: in bfloat16 w = 0.999 is 1
    return (1 - weight).astype(fused.dtype) * data + weight.astype(fused.dtype) * fused


def alpha_penalty(alpha: Float[Array, ""], alpha_min: float = 0.01) -> Float[Array, ""]:
    """1 / alpha^2 (eq. 4, without lambda), which punishes soft fusion.

    Below `alpha_min` the curve goes on along its tangent, so that alpha at 0 or of the wrong sign has a finite
    value and a finite gradient that pushes it back up, where 1 / alpha^2 itself would blow up or pull it further
    down.
    """
    alpha = jnp.asarray(alpha)
    # One branch or the other: adding the tangent's part to the curve's would round the curve's gradient away.
    above = jnp.where(alpha > alpha_min, alpha, alpha_min)
    tangent = 1 / alpha_min**2 - 2 / alpha_min**3 * (alpha - alpha_min)
    return jnp.where(alpha > alpha_min, 1 / above**2, tangent)


@dataclasses.dataclass(frozen=True)
class LiveLayers:
    """Which layers influence the output: data layers 1 .. last_data and fusion layers first_fusion .. L + 1."""

    last_data: int
    """0: the data streams' own layers are not read at all."""
    first_fusion: int
    """1: the fusion stream reads the inputs."""

    def check(self, num_layers: int) -> None:
        """Raises UserError unless a network of L data layers can be cut down to these."""
        reads = 1 <= self.first_fusion <= self.last_data + 1
        if not (0 <= self.last_data <= num_layers and reads):
            raise UserError(
                f"layers last_data {self.last_data}, first_fusion {self.first_fusion}: expected 0 <= last_data <= "
                f"{num_layers} and 1 <= first_fusion <= last_data + 1, or nothing is read between them"
            )


def live_layers(weights: np.ndarray, eps: float = 0.0) -> LiveLayers:
    """The layers that still matter once weights within `eps` of 0 or 1 count as exactly 0 or 1.

    Where w_l is 0 the fusion stream is not read at l, so its layers 1 .. l are dead; data layers above the last l
    with w_l below 1 are dead.

    Args:
      weights: (L,) in [0, 1], any order.
      eps: in [0, 0.5).
    """
    if not 0 <= eps < 0.5:
        raise UserError(f"eps {eps} is outside [0, 0.5): weights within eps of 0 or 1 are taken for 0 or 1")
    weights = np.asarray(weights)
    unread = np.flatnonzero(weights <= eps)
    mixed = np.flatnonzero(weights < 1 - eps)
    return LiveLayers(
        last_data=int(mixed[-1]) + 1 if mixed.size else 0,
        first_fusion=int(unread[-1]) + 2 if unread.size else 1,
    )


def check_strategy(name: str) -> None:
    """Raises UserError, listing the known ones, unless `name` is a strategy."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
