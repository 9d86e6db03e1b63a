"""The three small matrices of a Toom-Cook ("Winograd") correlation, worked out exactly.

y = A^T [(G g) * (B^T d)] gives m correlations of a signal d of m + r - 1 numbers with r taps g by m + r - 1
multiplications instead of m * r (S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin and S. Gray,
"Fast algorithms for convolutional neural networks", CVPR 2016). Two polynomials are multiplied by their values at some
points; the correlation is the transpose of that product.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# Few, small and their own inverses' like: every further point costs about a digit (measured in float32, m + r <= 9).
_POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-1/2", "-2", "1/2"))


class Matrices(NamedTuple):
    """Of one axis, a = m + r - 1."""

    out: np.ndarray
    """(m, a) A^T."""
    taps: np.ndarray
    """(a, r) G."""
    data: np.ndarray
    """(a, a) B^T."""


@functools.cache
def matrices(outputs: int, taps: int) -> Matrices:
    """The matrices for m outputs of r taps, float64.

    Raises:
      ValueError: m + r - 2 exceeds the number of points that keep float32 accurate, or is negative.
    """
    size = outputs + taps - 1
    if not 1 <= size <= len(_POINTS) + 1:
        raise ValueError(f"{outputs} outputs of {taps} taps: expected m + r - 1 within 1 .. {len(_POINTS) + 1}")
    points = _POINTS[: size - 1]

    def values(count: int) -> list[list[Fraction]]:
        """Of the powers 0 .. count - 1 at each point; at infinity only the highest counts."""
        highest = [Fraction(int(j == count - 1)) for j in range(count)]
        return [[point**j for j in range(count)] for point in points] + [highest]

    data = np.array(_inverse(values(size))).T
    # Powers of two, which cost no accuracy, even out the rows.
    scale = [Fraction(2) ** round(float(np.log2(float(max(abs(row)))))) for row in data]
    data = np.array([row / s for row, s in zip(data, scale, strict=True)])
    weights = np.array([np.array(row) * s for row, s in zip(values(taps), scale, strict=True)])
    return Matrices(np.array(values(outputs)).T.astype(float), weights.astype(float), data.astype(float))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """By Gauss and Jordan, without rounding."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for i in range(size):
            if i != column:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[column], strict=True)]
    return [row[size:] for row in rows]
