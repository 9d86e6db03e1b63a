"""Heatmaps as a 2D network errs: joints that are off, missing, swapped left for right, and peaks of any height.

The kinds of error are those by which Ronchi and Perona (ICCV 2017) sort the faults of 2D networks; how often each comes
is a setting.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fusion_jax.errors import check_field
from fusion_jax.heatmaps import gaussian_heatmaps


@dataclasses.dataclass(frozen=True)
class HeatmapNoise:
    """How wrong heatmaps made from true joints are."""

    jitter: float = 0.012
    """Standard deviation of a joint's place, share of the picture's side."""
    outlier_probability: float = 0.05
    """How often a joint is off by `outlier_factor` times that."""
    outlier_factor: float = 5.0
    missing_probability: float = 0.03
    """How often a joint's map is empty."""
    swap_probability: float = 0.03
    """How often a pair of left and right joints is taken for one another."""
    lowest_peak: float = 0.4
    """Peaks are between this and 1."""

    def __post_init__(self):
        for name in ("outlier_probability", "missing_probability", "swap_probability"):
            check_field(0 <= getattr(self, name) <= 1, f"noise.{name}", getattr(self, name), "a share in [0, 1]")
        for name in ("jitter", "outlier_factor"):
            check_field(0 <= getattr(self, name) < 100, f"noise.{name}", getattr(self, name), "in [0, 100)")
        check_field(0 < self.lowest_peak <= 1, "noise.lowest_peak", self.lowest_peak, "in (0, 1]")


def noisy_heatmaps(
    keys: Key[Array, "B"],
    joints_px: Float[Array, "B K 2"],
    valid: Bool[Array, "B K"],
    *,
    flip: tuple[int, ...],
    noise: HeatmapNoise,
    image_size: int,
    heatmap_size: int,
    sigma_px: float,
) -> Float[Array, "B h w K"]:
    """`heatmaps.gaussian_heatmaps` of joints that are first made as wrong as `noise` says, each example by its own key.

    Args:
      keys: (B,) one key an example, so that the errors do not depend on what else is in the batch.
      joints_px, valid: (B, K, 2) px of a picture of image_size, and (B, K).
      flip: the mirror image of each joint, `Skeleton.flip`.
      noise: how wrong.
      image_size, heatmap_size, sigma_px: as of `gaussian_heatmaps`.
    """
    errors = jax.vmap(lambda key, joints, known: _err(key, joints, known, flip, noise, image_size))
    joints_px, valid, peak = errors(keys, joints_px, valid)
    maps = gaussian_heatmaps(joints_px, valid, image_size=image_size, heatmap_size=heatmap_size, sigma_px=sigma_px)
    return maps * peak[:, None, None]


def _err(key, joints, valid, flip, noise, image_size):
    """One example: joints (K, 2), valid (K,) and the peaks (K,) after all errors."""
    count, other = len(flip), jnp.asarray(flip)
    swap, move, far, miss, height = jax.random.split(key, 5)
    pair = jnp.minimum(jnp.arange(count), other)  # both of a pair draw the number of the first
    swapped = _happens(swap, noise.swap_probability, count)[pair]
    joints, valid = jnp.where(swapped[:, None], joints[other], joints), jnp.where(swapped, valid[other], valid)
    spread = jnp.where(_happens(far, noise.outlier_probability, count), noise.outlier_factor, 1.0)[:, None]
    joints = joints + spread * noise.jitter * image_size * jax.random.normal(move, (count, 2))
    valid = valid & ~_happens(miss, noise.missing_probability, count)
    return joints, valid, jax.random.uniform(height, (count,), minval=noise.lowest_peak, maxval=1.0)


def _happens(key, probability, count):
    return jax.random.bernoulli(key, jnp.asarray(probability, jnp.float32), (count,))  # jax refuses a whole number
