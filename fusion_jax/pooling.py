"""Max pooling by comparisons, and pooling with ReLU that keeps of each window which number won."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Grid = list[list[jax.Array]]
"""Arrays of one shape by row and column of the window, or of several windows beside each other."""


def max_pool(x: Float[Array, "B H W C"], window: int) -> Float[Array, "B h w C"]:
    """Largest value of each window x window tile; a remainder at the right and bottom is dropped.

    By reshaping: on a CPU the gradient of XLA's windowed reduction takes more than twice as long (measured after the
    second layer of `tiny` and the first of `paper`). Of a tie the first gets the gradient.
    """
    if window == 1:
        return x
    b, h, w, c = x.shape
    x = x[:, : h - h % window, : w - w % window].reshape(b, h // window, window, w // window, window, c)
    for axis in (4, 2):
        # Not by max: its gradient divides by how many equal the largest, none where a compiler rounds x anew.
        first, *rest = (jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(window))
        x = functools.reduce(lambda a, b: jnp.where(_wins(a, b), a, b), rest, first)
    return x


def pool_relu(grid: Grid, bias: Float[Array, "D"], window: int) -> tuple[Grid, Grid]:
    """relu(max + bias) of each window of a grid, and which place won it.

    Args:
      grid: (..., D) each, a multiple of `window` along both sides.
      bias: added to the largest.
      window: side of a window.

    Returns:
      For each window its value, and row * window + column of its first largest number as int8; window * window where
      ReLU gives 0. NaN wins, and is passed on.
    """
    windows = range(len(grid) // window)
    found = [[_pool_one(grid, bias, window, i, j) for j in windows] for i in windows]
    return [[out for out, _ in row] for row in found], [[code for _, code in row] for row in found]


def _pool_one(grid: Grid, bias: jax.Array, window: int, row: int, column: int) -> tuple[jax.Array, jax.Array]:
    def larger(a, b):
        wins = _wins(a[0], b[0])
        return jnp.where(wins, a[0], b[0]), jnp.where(wins, a[1], b[1])

    sides = range(window)
    numbers = [[(grid[row * window + i][column * window + j], jnp.int8(i * window + j)) for j in sides] for i in sides]
    largest, code = functools.reduce(larger, [functools.reduce(larger, line) for line in numbers])
    out = jax.nn.relu(largest + bias)
    return out, jnp.where(out > 0, code, jnp.int8(window**2))


def unpool(grad: Grid, code: Grid, window: int) -> Grid:
    """The gradient toward `pool_relu`'s grid: each window's goes to the place that won it."""
    side = range(len(grad) * window)

    def one(i, j):
        place = (i // window, j // window)
        won = code[place[0]][place[1]] == i % window * window + j % window
        return jnp.where(won, grad[place[0]][place[1]], 0)

    return [[one(i, j) for j in side] for i in side]


def _wins(a: jax.Array, b: jax.Array) -> jax.Array:
    return (a >= b) | jnp.isnan(a)  # NaN is passed on
