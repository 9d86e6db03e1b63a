"""2D joints to Gaussian heatmaps and back, on the device. Pixels as in geometry.py: (0, 0) is a pixel's centre."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gaussian_heatmaps(
    joints_px: Float[Array, "B J 2"],
    valid: Bool[Array, "B J"],
    *,
    image_size: int,
    heatmap_size: int,
    sigma_px: float,
) -> Float[Array, "B Hh Wh J"]:
    """One map per joint: exp(-d^2 / (2 sigma^2)), peak 1 exactly at the sub-pixel joint; all zero where not valid.

    Args:
      joints_px: (B, J, 2) in px of an image_size x image_size picture.
      valid: (B, J), False for joints that are not known.
      image_size: side of the picture the joints are given in.
      heatmap_size: side of the maps; pictures and maps cover the same square.
      sigma_px: standard deviation in heatmap px (the stacked hourglass uses 1 at 64 x 64).
    """
    joints_px = jnp.where(valid[..., None], joints_px, 0)  # unknown ones may hold anything
    scale = heatmap_size / image_size
    centre = (joints_px + 0.5) * scale - 0.5
    pixel = jnp.arange(heatmap_size, dtype=joints_px.dtype)
    # A round Gaussian is the product of one along each axis: two short vectors instead of a distance per pixel.
    along = jnp.exp(-0.5 * ((pixel - centre[..., None]) / sigma_px) ** 2)  # (B, J, 2, size)
    x, y = along[:, :, 0], jnp.where(valid[..., None], along[:, :, 1], 0)
    return jnp.einsum("bjh,bjw->bhwj", y, x)


def decode_heatmaps(
    heatmaps: Float[Array, "B Hh Wh J"], image_size: int
) -> tuple[Float[Array, "B J 2"], Float[Array, "B J"]]:
    """Joints in px of an image_size picture with sub-pixel accuracy, and each map's peak value as confidence.

    Around the highest pixel a parabola through the logarithms of three neighbours per axis is exact for a Gaussian
    (the idea of Zhang et al., CVPR 2020, per axis). A peak on the border stays on its pixel along that axis.
    """
    b, h, w, j = heatmaps.shape
    flat = heatmaps.reshape(b, h * w, j)
    index = flat.argmax(1)  # (B, J)
    y, x = index // w, index % w
    batch, joint = jnp.arange(b)[:, None], jnp.arange(j)[None]
    log = jnp.log(jnp.maximum(heatmaps, 1e-10))

    def offset(before, here, after, inside):
        curve = 2 * here - before - after
        shift = 0.5 * (after - before) / jnp.where(curve > 0, curve, 1)
        return jnp.where(inside & (curve > 0), jnp.clip(shift, -0.5, 0.5), 0)

    here = log[batch, y, x, joint]
    left, right = (log[batch, y, jnp.clip(x + d, 0, w - 1), joint] for d in (-1, 1))
    up, down = (log[batch, jnp.clip(y + d, 0, h - 1), x, joint] for d in (-1, 1))
    x_sub = x + offset(left, here, right, (x > 0) & (x < w - 1))
    y_sub = y + offset(up, here, down, (y > 0) & (y < h - 1))
    size = jnp.array([w, h])
    joints = (jnp.stack([x_sub, y_sub], -1) + 0.5) * (image_size / size) - 0.5
    return joints, flat.max(1)
