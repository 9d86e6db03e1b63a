"""The one convolution that every network calls, lowered to what is fast on each platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Above this the copied patches cost more memory than the faster product is worth (bytes, float32).
_MAX_PATCH_BYTES = 256 * 2**20


def conv2d(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"], *, stride: int = 1, padding: str = "VALID"
) -> Float[Array, "B h w D"]:
    """Cross-correlation of channels-last pictures with a square kernel, in x's dtype.

    GPU and TPU get their native convolution. XLA's CPU convolution runs far below its matrix product when there are
    few channels, above all in the gradient, so on a CPU small problems gather their patches and multiply once
    (benchmarks/conv.py measures both).

    Args:
      x: (B, H, W, C).
      kernel: (k, k, C, D).
      stride: same in both directions.
      padding: "VALID" or "SAME", as in jax.lax.
    """

    def native(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def patches(x, kernel):
        return _patch_conv(x, kernel, stride, padding)

    batch, height, width, _ = x.shape
    k, _, c, _ = kernel.shape
    if 4 * batch * (height // stride) * (width // stride) * k * k * c > _MAX_PATCH_BYTES:
        return native(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=patches, default=native)


def _patch_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> jax.Array:
    k = kernel.shape[0]
    pads = lax.padtype_to_pads(x.shape[1:3], (k, k), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = ((n - k) // stride + 1 for n in x.shape[1:3])

    def shifted(i, j):
        return x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]

    columns = jnp.concatenate([shifted(i, j) for i in range(k) for j in range(k)], axis=-1)
    return columns @ kernel.reshape(-1, kernel.shape[-1])
