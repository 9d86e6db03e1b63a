"""The one convolution that every network calls, lowered to what is fast on each platform.

GPU and TPU get their native convolution. XLA's CPU convolution runs far below its matrix product, so on a CPU small
problems gather their patches and multiply once, and others go through winograd.py (benchmarks/conv.py measures all).
The choice is made when a program is lowered: no caller knows, and a step that is lowered here for a TPU is native.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fusion_jax import winograd
from fusion_jax.pooling import max_pool, pool_relu, unpool

# Patches of one picture that still fit the cache (bytes, float32); beyond, copying them costs more than it saves.
_MAX_PATCH_BYTES = 2**20


def conv2d(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"], *, stride: int = 1, padding: str = "VALID"
) -> Float[Array, "B h w D"]:
    """Cross-correlation of channels-last pictures with a square kernel, in x's dtype.

    A large one has gradients in reverse mode only. On a CPU it is computed in float32 at least, tile by tile, each to
    within about 1e-4 of the spread of a picture's outputs: a number far larger than the others, infinite or NaN spoils
    all outputs of the 4 x 4 tiles that read it.

    Args:
      x: (B, H, W, C).
      kernel: (k, k, C, D).
      stride: same in both directions.
      padding: "VALID" or "SAME", as in jax.lax.
    """
    call = _Call.of(x, kernel, stride, padding)
    if call.gathers(x, kernel):
        return lax.platform_dependent(x, kernel, cpu=call.by_patches, default=call.native)
    return _conv(call, *_alike(x, kernel))


def conv_pool_relu(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k C D"],
    bias: Float[Array, "D"],
    *,
    stride: int = 1,
    padding: str = "VALID",
    pool: int = 2,
) -> Float[Array, "B h w D"]:
    """relu(max_pool(conv2d(x, kernel) + bias, pool)) in x's dtype: a layer of the fusion network; a pool of 1 is none.

    A large one is done in one pass and keeps a byte for each output for the gradient: the convolution's own outputs
    would be several times as large as all else. What `conv2d` says holds here too.
    """
    bias = bias.astype(x.dtype)
    call = _Call.of(x, kernel, stride, padding)
    if call.gathers(x, kernel) or winograd.OUTPUTS % pool:
        return jax.nn.relu(max_pool(conv2d(x, kernel, stride=stride, padding=padding) + bias, pool))
    return _layer(call, pool, *_alike(x, kernel, bias))


def _alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, all of them varying over every mesh axis that one does within shard_map.

    The rules for gradients below then need not know: what shard_map's cast is transposed to sums them up.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset().union(*axes)
    return [
        lax.pcast(array, tuple(every - own), to="varying") if every - own else array
        for array, own in zip(arrays, axes, strict=True)
    ]


class _Call(NamedTuple):
    """One convolution's sizes, and the ways to compute it."""

    stride: int
    pads: tuple[tuple[int, int], tuple[int, int]]
    height: int
    width: int
    """Of the output."""

    @classmethod
    def of(cls, x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> _Call:
        down, across = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
        h, w = ((n + sum(pad) - len(kernel)) // stride + 1 for n, pad in zip(x.shape[1:3], (down, across), strict=True))
        return cls(stride, (down, across), h, w)

    def gathers(self, x: jax.Array, kernel: jax.Array) -> bool:
        """Whether a CPU is faster with patches, where they do not overlap or are few, or has to: tiles need numbers of
        pictures that are known and not 0, and floats."""
        k, _, c, _ = kernel.shape
        few = k <= self.stride or 4 * self.height * self.width * k * k * c <= _MAX_PATCH_BYTES
        known = isinstance(x.shape[0], int) and x.shape[0] > 0  # no int while exporting for any batch
        return few or not known or not jnp.issubdtype(x.dtype, jnp.floating)

    def native(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (self.stride,) * 2, self.pads, dimension_numbers=numbers)

    def by_patches(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        k, s = kernel.shape[0], self.stride
        x = jnp.pad(x, ((0, 0), *self.pads, (0, 0)))

        def shifted(i, j):
            return x[:, i : i + (self.height - 1) * s + 1 : s, j : j + (self.width - 1) * s + 1 : s]

        columns = jnp.concatenate([shifted(i, j) for i in range(k) for j in range(k)], axis=-1)
        return columns @ kernel.reshape(-1, kernel.shape[-1])

    def plain(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same convolution without stride or padding, in float32 at least; linear in both.

        s x s pixels become the channels of one, and the kernel's taps likewise.
        """
        s, (k, _, c, d) = self.stride, kernel.shape
        wide = jnp.promote_types(x.dtype, jnp.float32)
        x = jnp.pad(x.astype(wide), ((0, 0), *self.pads, (0, 0)))
        kernel = kernel.astype(wide)
        if s == 1:
            return x, kernel
        taps = -(-k // s)
        h, w = self.height - 1 + taps, self.width - 1 + taps
        more = [max(0, need * s - n) for need, n in zip((h, w), x.shape[1:3], strict=True)]
        x = jnp.pad(x, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))[:, : h * s, : w * s]
        x = x.reshape(-1, h, s, w, s, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, s * s * c)
        kernel = jnp.pad(kernel, ((0, taps * s - k), (0, taps * s - k), (0, 0), (0, 0)))
        kernel = kernel.reshape(taps, s, taps, s, c, d).transpose(0, 2, 1, 3, 4, 5)
        return x, kernel.reshape(taps, taps, s * s * c, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(call: _Call, x: jax.Array, kernel: jax.Array) -> jax.Array:
    def tiled(x, kernel):
        out = winograd.forward(*call.plain(x, kernel), lambda grid: grid)
        return out[:, : call.height, : call.width].astype(x.dtype)

    return lax.platform_dependent(x, kernel, cpu=tiled, default=call.native)


def _conv_forward(call: _Call, x: Any, kernel: Any) -> Any:
    return _conv(call, x.value, kernel.value), (x.value, kernel.value, _asks(x))


def _conv_backward(call: _Call, kept: Any, grad: Any) -> Any:
    x, kernel, asks = kept

    def tiled(x, kernel, grad):
        return _tiled_gradients(call, x, kernel, grad, lambda plan, g: plan.grid_of(g, winograd.OUTPUTS), asks)

    def native(x, kernel, grad):
        return _native_gradients(call, x, kernel, grad, asks)

    return _both(lax.platform_dependent(x, kernel, _array(grad), cpu=tiled, default=native))


_conv.defvjp(_conv_forward, _conv_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _layer(call: _Call, pool: int, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return _layer_and_code(call, pool, x, kernel, bias)[0]


def _layer_and_code(call: _Call, pool: int, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> Any:
    """The layer's outputs (B, h, w, D), and by `pool_relu` which number of its window each of them is."""
    h, w = call.height // pool, call.width // pool

    def tiled(x, kernel, bias):
        out, code = winograd.forward(*call.plain(x, kernel), lambda grid: pool_relu(grid, bias, pool))
        return out[:, :h, :w].astype(x.dtype), code[:, :h, :w]

    def native(x, kernel, bias):
        found = call.native(x, kernel)[:, : h * pool, : w * pool].reshape(-1, h, pool, w, pool, len(bias))
        windows = [[found[:, :, i, :, j] for j in range(pool)] for i in range(pool)]
        ((out,),), ((code,),) = pool_relu(windows, bias, pool)
        return out, code

    return lax.platform_dependent(x, kernel, bias, cpu=tiled, default=native)


def _layer_forward(call: _Call, pool: int, x: Any, kernel: Any, bias: Any) -> Any:
    out, code = _layer_and_code(call, pool, x.value, kernel.value, bias.value)
    return out, (x.value, kernel.value, code, _asks(x))


def _layer_backward(call: _Call, pool: int, kept: Any, grad: Any) -> Any:
    x, kernel, code, asks = kept
    grad = _array(grad)

    def tiled(x, kernel, *cotangent):
        def spread(plan, cotangent):
            return unpool(*(plan.grid_of(v, winograd.OUTPUTS // pool) for v in cotangent), pool)

        return _tiled_gradients(call, x, kernel, cotangent, spread, asks)

    def native(x, kernel, grad, code):
        h, w = grad.shape[1:3]
        full = jnp.stack([jnp.stack(row, 3) for row in unpool([[grad]], [[code]], pool)], 2)
        full = full.reshape(-1, h * pool, w * pool, grad.shape[-1])
        beyond = ((0, call.height - h * pool), (0, call.width - w * pool))
        return _native_gradients(call, x, kernel, jnp.pad(full, ((0, 0), *beyond, (0, 0))), asks)

    both = lax.platform_dependent(x, kernel, grad, code, cpu=tiled, default=native)
    return *_both(both), jnp.where(code < pool**2, grad, 0).sum((0, 1, 2))


_layer.defvjp(_layer_forward, _layer_backward, symbolic_zeros=True)


def _tiled_gradients(call: _Call, x: jax.Array, kernel: jax.Array, cotangent: Any, spread: Any, asks: Any) -> Any:
    """(dkernel,), or with it dx where that is asked for."""
    (plain_x, plain_kernel), to_call = jax.vjp(call.plain, x, kernel)
    dx, dkernel = winograd.backward(plain_x, plain_kernel, cotangent, spread, asks is not None)
    dx, dkernel = to_call((jnp.zeros_like(plain_x) if dx is None else dx, dkernel))
    return (dkernel,) if asks is None else (dkernel, dx)


def _native_gradients(call: _Call, x: jax.Array, kernel: jax.Array, grad: jax.Array, asks: Any) -> Any:
    if asks is None:
        return jax.vjp(functools.partial(call.native, x), kernel)[1](grad)
    return jax.vjp(call.native, x, kernel)[1](grad)[::-1]


def _asks(x: Any) -> tuple | None:
    """Whether anything asks for the gradient toward x, as a pytree without leaves, which stays known while tracing."""
    return () if x.perturbed else None


def _both(gradients: tuple) -> tuple:
    """(dx, dkernel) of gradients that are dkernel alone, or dkernel and dx."""
    return (gradients[1] if len(gradients) > 1 else None), gradients[0]


def _array(grad: Any) -> jax.Array:
    return grad if isinstance(grad, jax.Array) else jnp.zeros(grad.shape, grad.dtype)
