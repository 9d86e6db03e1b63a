"""The 2D network: the stacked hourglass of Newell, Yang and Deng (ECCV 2016) as a linen module.

Parameters are named after the parts of the published PyTorch weights, so that importing them is a matter of layout.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fusion_jax.conv import conv2d
from fusion_jax.errors import UserError
from fusion_jax.pooling import max_pool

STRIDE = 4  # px of the input for each px of the heatmaps
_EPSILON = 1e-5  # of the published weights' batch norm
_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's, where the published ones start


class Hourglass(nn.Module):
    """Heatmaps of every stack, (S, B, H/4, W/4, K) float32, of pictures (B, H, W, 3) in [0, 1], RGB.

    With `train` batch norm takes its statistics from the batch and moves the running ones (make the collection
    `batch_stats` mutable); without it the running ones serve, so that a picture's result does not depend on its
    batch. In a step that is jitted over a mesh the statistics are of the whole batch, not of a device's part.

    Attributes:
      stacks: hourglasses one after another, each with heatmaps of its own.
      features: width; the stem grows to it by 1/4, 1/2, 1/2.
      depth: how often an hourglass halves its input.
      num_joints: K, channels.
      dtype: of the computation; parameters, statistics and heatmaps stay float32.
    """

    stacks: int = 2
    features: int = 256
    depth: int = 4
    num_joints: int = 16
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, train: bool = False) -> Float[Array, "S B h w K"]:
        check_size(image.shape[1:3], self.depth)
        width = self.features
        kind: dict[str, Any] = {"train": train, "dtype": self.dtype}
        x = ConvNormRelu(width // 4, 7, 2, **kind, name="pre_0")(image.astype(self.dtype))
        x = Residual(width // 2, **kind, name="pre_1")(x)
        x = max_pool(x, 2)
        x = Residual(width // 2, **kind, name="pre_3")(x)
        x = Residual(width, **kind, name="pre_4")(x)
        found = []
        for i in range(self.stacks):
            features = Pyramid(self.depth, width, **kind, name=f"hourglass_{i}")(x)
            features = Residual(width, **kind, name=f"features_{i}_residual")(features)
            features = ConvNormRelu(width, 1, 1, **kind, name=f"features_{i}_conv")(features)
            heatmaps = Conv2d(self.num_joints, 1, dtype=self.dtype, name=f"out_{i}")(features)
            found.append(heatmaps.astype(jnp.float32))
            if i < self.stacks - 1:
                x = x + Conv2d(width, 1, dtype=self.dtype, name=f"merge_preds_{i}")(heatmaps)
                x = x + Conv2d(width, 1, dtype=self.dtype, name=f"merge_features_{i}")(features)
        return jnp.stack(found)


class Pyramid(nn.Module):
    """One hourglass: halves its input `depth` times, doubles it again, and adds what each size had on the way down."""

    depth: int
    features: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        kind: dict[str, Any] = {"train": self.train, "dtype": self.dtype}
        up = Residual(self.features, **kind, name="up1")(x)
        low = Residual(self.features, **kind, name="low1")(max_pool(x, 2))
        if self.depth > 1:
            low = Pyramid(self.depth - 1, self.features, **kind, name="low2")(low)
        else:
            low = Residual(self.features, **kind, name="low2")(low)
        low = Residual(self.features, **kind, name="low3")(low)
        return up + upsample(low)


class Residual(nn.Module):
    """Pre-activation bottleneck to `features` channels, plus its input (through a 1 x 1 where widths differ)."""

    features: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        inner, half = x, self.features // 2
        for n, (features, kernel) in enumerate([(half, 1), (half, 3), (self.features, 1)], start=1):
            inner = nn.relu(_batch_norm(f"bn{n}", self.train, self.dtype)(inner))
            inner = Conv2d(features, kernel, dtype=self.dtype, name=f"conv{n}")(inner)
        if x.shape[-1] != self.features:
            x = Conv2d(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + inner


class ConvNormRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    kernel: int
    stride: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W D"]:
        x = Conv2d(self.features, self.kernel, self.stride, self.dtype, name="conv")(x)
        return nn.relu(_batch_norm("bn", self.train, self.dtype)(x))


class Conv2d(nn.Module):
    """A convolution padded by (k - 1) / 2 on every side, as PyTorch's; SAME would pad a strided one unevenly."""

    features: int
    kernel: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W D"]:
        k = self.kernel
        kernel = self.param("kernel", _INIT, (k, k, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        pad = (k - 1) // 2
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x
        return conv2d(x, kernel.astype(self.dtype), stride=self.stride) + bias.astype(self.dtype)


def _batch_norm(name: str, train: bool, dtype: jnp.dtype) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=_EPSILON, dtype=dtype, name=name)


def upsample(x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
    """Each pixel as 2 x 2 of the same."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def check_size(size: tuple[int, ...], depth: int) -> None:
    """Raises UserError unless pictures of (height, width) px can be halved as often as the network does."""
    multiple = STRIDE * 2**depth
    if any(side % multiple or not side for side in size):
        raise UserError(
            f"an hourglass of depth {depth} needs pictures whose sides are multiples of {multiple} px, got "
            f"{size[0]} x {size[1]}; choose another input size or a smaller depth"
        )


def mirrored(heatmaps: Float[Array, "B h w K"], flip: tuple[int, ...]) -> Float[Array, "B h w K"]:
    """Heatmaps of the mirrored picture as those of the picture: mirrored back, left and right joints swapped.

    Args:
      flip: the mirror image of each joint, `Skeleton.flip`.
    """
    return jax.lax.rev(heatmaps, (2,))[..., jnp.asarray(flip)]
