"""Convolution as many small matrix products, for CPUs: tiles of the picture in Toom-Cook's domain (toom_cook.py).

XLA's CPU convolution runs far below its matrix product. A tile of a x a pixels is transformed along both axes; there
the convolution is one product over channels for each of the a * a elements, of all tiles at once; and m x m outputs
come back, a = m + r - 1. Gradients are the same products transposed, so they take as few multiplications. A kernel
larger than `_TAPS` is cut into blocks that become channels of a shifted picture.

What matters for speed (benchmarks/conv.py): a few pictures at a time, so that what lies between stays in the cache; one
element's column at a time, so that transforms are one-dimensional and the program is small; adds that read whole rows;
and a product for each element rather than a batch of them, which XLA would run on one core.

Pictures are taken in turns along the batch, so a batch that the compiler splits over several CPU devices is gathered
first: right, and slow. Within shard_map or pmap each device has its own turns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fusion_jax.toom_cook import Matrices, matrices

OUTPUTS = 4
"""m: outputs along a tile's side."""
_TAPS = 5
"""The longest block of a kernel: with m = 4 all points of toom_cook are in use."""
_CHUNK = 2**17
"""Numbers of one transformed element that are worked on at once: half a MB in float32, times a few of them."""

Grid = list[list[jax.Array]]
"""Outputs or gradients by their place in the tile, [row][column], each (tiles, D)."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one convolution is cut up."""

    height: int
    width: int
    """Of the output."""
    outputs: int
    """m, along a tile's side."""
    taps: int
    """r, of a block of the kernel."""
    blocks: int
    """Along one side of the kernel."""
    chunk: int
    """Pictures at a time."""

    @classmethod
    def of(cls, x: tuple[int, ...], kernel: tuple[int, ...]) -> Plan:
        """For pictures (B, H, W, C) and a kernel (k, k, C, D)."""
        batch, height, width, channels = x
        k, features = kernel[0], kernel[-1]
        blocks = -(-k // _TAPS)
        plan = cls(height - k + 1, width - k + 1, OUTPUTS, -(-k // blocks), blocks, 1)
        widest = plan.rows * plan.columns * max(blocks**2 * channels, features)
        most = max(1, _CHUNK // widest)
        return dataclasses.replace(plan, chunk=max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most))

    @property
    def rows(self) -> int:
        """Tiles down the picture."""
        return -(-self.height // self.outputs)

    @property
    def columns(self) -> int:
        """Tiles across the picture."""
        return -(-self.width // self.outputs)

    @property
    def size(self) -> int:
        """a, of a tile's side."""
        return self.outputs + self.taps - 1

    @property
    def matrices(self) -> Matrices:
        """Of one axis."""
        return matrices(self.outputs, self.taps)

    def grid_of(self, x: jax.Array, side: int) -> Grid:
        """(n, h, w, D) by place in the tile of side x side; nothing lies beyond the picture."""
        n, h, w, d = x.shape
        x = jnp.pad(x, ((0, 0), (0, self.rows * side - h), (0, self.columns * side - w), (0, 0)))
        x = x.reshape(n, self.rows, side, self.columns, side, d)
        return [[x[:, :, i, :, j].reshape(-1, d) for j in range(side)] for i in range(side)]


def forward(x: jax.Array, kernel: jax.Array, finish: Callable[[Grid], Any]) -> Any:
    """Correlation (stride 1, no padding) of pictures with a kernel, tile by tile.

    Args:
      x: (B, H, W, C).
      kernel: (k, k, C, D).
      finish: of the outputs of some tiles, what is kept of them: a pytree of grids of arrays (tiles, D'), each of them
        then one array.

    Returns:
      `finish`'s tree with pictures (B, side * rows of tiles, side * columns of tiles, D') in the place of its grids.
    """
    plan = Plan.of(x.shape, kernel.shape)
    a, m, (out, _, data) = plan.size, plan.outputs, plan.matrices
    weights = _transform_kernel(kernel, plan)

    def element_column(operands):
        picture, weight = operands
        tiles = _tiles(picture, plan, data)
        products = [tile @ weight[p] for p, tile in enumerate(tiles)]
        return tuple(_combine(out[i], products) for i in range(m))

    def some_pictures(pictures):
        columns = lax.map(element_column, (_columns(pictures, plan, data), weights))
        return finish([[_combine(out[j], [columns[i][q] for q in range(a)]) for j in range(m)] for i in range(m)])

    grids = lax.map(some_pictures, x.reshape(-1, plan.chunk, *x.shape[1:]))
    return jax.tree.map(lambda grid: _picture(grid, len(x), plan), grids, is_leaf=lambda node: isinstance(node, list))


def backward(
    x: jax.Array, kernel: jax.Array, cotangent: Any, spread: Callable[[Plan, Any], Grid], need_dx: bool
) -> tuple[jax.Array | None, jax.Array]:
    """Gradients of `forward`'s outputs toward x (None unless asked for) and the kernel.

    Args:
      x, kernel: as in `forward`.
      cotangent: a pytree of arrays whose first axis is B.
      spread: of some pictures' cotangents, the outputs' gradients by their place in the tile.
      need_dx: whether anything asks for the gradient toward x.
    """
    plan = Plan.of(x.shape, kernel.shape)
    a, m, (out, _, data) = plan.size, plan.outputs, plan.matrices
    weights, to_kernel = jax.vjp(functools.partial(_transform_kernel, plan=plan), kernel)

    def element_column(operands):
        picture, weight, *grads = operands
        tiles = _tiles(picture, plan, data)
        products = [_combine(out[:, p], grads) for p in range(a)]
        dweight = jnp.stack([tile.T @ product for tile, product in zip(tiles, products, strict=True)])
        if not need_dx:
            return dweight, ()
        dtiles = [product @ weight[p].T for p, product in enumerate(products)]
        return dweight, _untile(dtiles, plan, data)

    def some_pictures(total, operands):
        pictures, cotangents = operands
        grid = [[grad.astype(weights.dtype) for grad in row] for row in spread(plan, cotangents)]
        grads = [jnp.stack([_combine(out[:, q], grid[i]) for q in range(a)]) for i in range(m)]
        columns, uncolumns = jax.vjp(functools.partial(_columns, plan=plan, data=data), pictures)
        dweights, dcolumns = lax.map(element_column, (columns, weights, *grads))
        return total + dweights, uncolumns(dcolumns)[0] if need_dx else ()

    chunks = jax.tree.map(lambda v: v.reshape(-1, plan.chunk, *v.shape[1:]), (x, cotangent))
    dweights, dx = lax.scan(some_pictures, jnp.zeros_like(weights), chunks)
    return dx.reshape(x.shape) if need_dx else None, to_kernel(dweights)[0]


def _transform_kernel(kernel: jax.Array, plan: Plan) -> jax.Array:
    """(k, k, C, D) to (a, a, blocks * blocks * C, D), by the element's column, then its row."""
    k, _, c, d = kernel.shape
    b, r, a = plan.blocks, plan.taps, plan.size
    more = b * r - k
    kernel = jnp.pad(kernel, ((0, more), (0, more), (0, 0), (0, 0)))
    kernel = kernel.reshape(b, r, b, r, c, d).transpose(1, 3, 0, 2, 4, 5).reshape(r * r, -1)
    taps = plan.matrices.taps
    both = np.einsum("pi,qj->qpij", taps, taps).reshape(a * a, r * r)  # one product for both axes: kernels are small
    return jnp.matmul(both.astype(kernel.dtype), kernel, precision="highest").reshape(a, a, b * b * c, d)


def _columns(x: jax.Array, plan: Plan, data: np.ndarray) -> jax.Array:
    """Pictures (n, H, W, C) transformed along their width: (a, n, rows of m pixels, m, columns * channels)."""
    n, h, w, _ = x.shape
    m, r, b = plan.outputs, plan.taps, plan.blocks
    down, across = (-(-(tiles * m + r - 1) // m) for tiles in (plan.rows, plan.columns))
    beyond = (b - 1) * r
    x = jnp.pad(x, ((0, 0), (0, max(0, down * m + beyond - h)), (0, max(0, across * m + beyond - w)), (0, 0)))

    def every_mth(first: int) -> jax.Array:
        """Every m-th column from the first one on, the kernel's blocks beside each other as channels."""
        parts = [
            x[:, i * r : i * r + down * m, first + j * r : first + j * r + (across - 1) * m + 1 : m]
            for i in range(b)
            for j in range(b)
        ]
        return jnp.concatenate(parts, axis=-1).reshape(n, down, m, -1)

    phases = [every_mth(j) for j in range(m)]
    channels = phases[0].shape[-1] // across

    def shifted(j: int) -> jax.Array:
        start = j // m * channels
        return phases[j % m][..., start : start + plan.columns * channels]

    pixels = [shifted(j) for j in range(plan.size)]
    return jnp.stack([_combine(row, pixels) for row in data])


def _tiles(column: jax.Array, plan: Plan, data: np.ndarray) -> list[jax.Array]:
    """One of `_columns` transformed along the height: for each of a rows (tiles, channels)."""
    m, rows = plan.outputs, plan.rows
    pixels = [column[:, i // m : i // m + rows, i % m] for i in range(plan.size)]
    channels = column.shape[-1] // plan.columns
    return [_combine(row, pixels).reshape(-1, channels) for row in data]


def _untile(dtiles: list[jax.Array], plan: Plan, data: np.ndarray) -> jax.Array:
    """The transpose of `_tiles`."""
    m, r, rows = plan.outputs, plan.taps, plan.rows
    down = -(-(rows * m + r - 1) // m)
    shaped = [tile.reshape(-1, rows, plan.columns * tile.shape[-1]) for tile in dtiles]
    phases = []
    for i in range(m):
        parts = [
            jnp.pad(_combine(data[:, place], shaped), ((0, 0), (place // m, down - rows - place // m), (0, 0)))
            for place in range(i, plan.size, m)
        ]
        phases.append(functools.reduce(jnp.add, parts))
    return jnp.stack(phases, axis=2)


def _picture(grid: Grid, batch: int, plan: Plan) -> jax.Array:
    """A grid of (chunks, tiles of a chunk, D), put together: (B, side * rows, side * columns, D)."""
    side, d = len(grid), grid[0][0].shape[-1]
    pieces = [[piece.reshape(batch, plan.rows, plan.columns, d) for piece in row] for row in grid]
    return jnp.stack([jnp.stack(row, axis=3) for row in pieces], axis=2).reshape(
        batch, side * plan.rows, side * plan.columns, d
    )


def _combine(coefficients: np.ndarray, arrays: list[jax.Array]) -> jax.Array:
    """The sum of the arrays, each times its coefficient, without those that are 0 or 1."""
    terms = [
        array if factor == 1 else -array if factor == -1 else array * factor.astype(array.dtype)
        for factor, array in zip(coefficients, arrays, strict=True)
        if factor
    ]
    return functools.reduce(jnp.add, terms)
