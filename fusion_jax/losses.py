"""Training losses: each returns (scalar, dict of its terms)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fusion_jax.fusion import alpha_penalty


def pose_loss(
    pred_mm: Float[Array, "B J 3"], true_mm: Float[Array, "B J 3"], valid: Bool[Array, "B J"]
) -> Float[Array, ""]:
    """Mean over the batch of the squared error summed over the 3J coordinates, mm^2 (Tekin et al. 2017, eq. 4).

    The authors' release takes half of it. Joints that are not valid add nothing, whatever their values.
    """
    error = jnp.where(valid[..., None], pred_mm - true_mm, 0)
    return (error**2).sum((1, 2)).mean()


def fusion_loss(
    pred_mm: Float[Array, "B J 3"],
    true_mm: Float[Array, "B J 3"],
    valid: Bool[Array, "B J"],
    alpha: Float[Array, ""] | None,
    alpha_penalty_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The whole objective, pose_loss + lambda / alpha^2, and its terms `data_loss` and `penalty`.

    Args:
      pred_mm, true_mm: (B, J, 3) mm, same frame and root.
      valid: (B, J).
      alpha: the sharpness; None for strategies without one, which pay no penalty.
      alpha_penalty_weight: lambda, mm^2.
    """
    data = pose_loss(pred_mm, true_mm, valid)
    penalty = jnp.zeros_like(data) if alpha is None else alpha_penalty_weight * alpha_penalty(alpha)
    return data + penalty, {"data_loss": data, "penalty": penalty}


def heatmap_loss(pred: Float[Array, "S B h w K"], true: Float[Array, "B h w K"]) -> Float[Array, ""]:
    """Mean squared error of every stack's heatmaps, summed over the stacks (Newell, Yang, Deng, ECCV 2016).

    A joint that is not known has an empty map, as published: its true map is all zero.
    """
    return ((pred - true) ** 2).mean((1, 2, 3, 4)).sum()
