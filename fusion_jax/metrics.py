"""Pose errors per joint, and how they merge: as (sum, count), so that padding, batches and hosts add up exactly.

All distances are mm. `pred` and `true` are in one frame and relative to one root. Protocol numbers such as "1" and
"2" mean different things to different authors, so names here say the alignment instead.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fusion_jax.alignment import scale_align, similarity_align

AUC_THRESHOLDS_MM = tuple(range(0, 151, 5))  # of MPI-INF-3DHP's evaluation (Mehta et al. 2017)
PCK_THRESHOLD_MM = 150.0


def joint_distance_mm(pred: Float[Array, "*B J 3"], true: Float[Array, "*B J 3"]) -> Float[Array, "*B J"]:
    """Euclidean distance of each joint; its gradient is 0, not NaN, where prediction and truth coincide."""
    square = ((pred - true) ** 2).sum(-1)
    zero = square == 0  # not `square > 0`: NaN must stay NaN
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def aligned_distances_mm(
    pred: Float[Array, "B J 3"], true: Float[Array, "B J 3"], valid: Bool[Array, "B J"]
) -> dict[str, Float[Array, "B J"]]:
    """Joint distances under every alignment we report.

    `mpjpe` none; `pa_mpjpe` after the best rotation, translation and scale per frame; `pa_mpjpe_reflection` the
    same with mirror images admitted, as the paper's release scores; `n_mpjpe` after the best scale alone.
    """
    return {
        "mpjpe": joint_distance_mm(pred, true),
        "pa_mpjpe": joint_distance_mm(similarity_align(pred, true, valid), true),
        "pa_mpjpe_reflection": joint_distance_mm(similarity_align(pred, true, valid, reflection=True), true),
        "n_mpjpe": joint_distance_mm(scale_align(pred, true, valid), true),
    }


def masked_sum(values: Float[Array, "*B J"], valid: Bool[Array, "*B J"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum over valid entries, their number), both float32; invalid entries count nothing even if NaN."""
    return jnp.where(valid, values, 0).sum(dtype=jnp.float32), valid.sum(dtype=jnp.float32)


def mpjpe_mm(
    pred: Float[Array, "B J 3"], true: Float[Array, "B J 3"], valid: Bool[Array, "B J"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum of joint distances in mm, number of valid joints); divide once, at the end."""
    return masked_sum(joint_distance_mm(pred, true), valid)


def pck(distance_mm: Float[Array, "*B J"], threshold_mm: float = PCK_THRESHOLD_MM) -> Float[Array, "*B J"]:
    """1 where a joint lies within the threshold (<=), else 0: its mean is the share of correct keypoints."""
    return (distance_mm <= threshold_mm).astype(jnp.float32)


def auc(distance_mm: Float[Array, "*B J"]) -> Float[Array, "*B J"]:
    """Per joint the mean of `pck` over the 31 thresholds 0, 5, .., 150 mm; its mean is the area under that curve."""
    thresholds = jnp.asarray(AUC_THRESHOLDS_MM, jnp.float32)
    return (distance_mm[..., None] <= thresholds).mean(-1, dtype=jnp.float32)
