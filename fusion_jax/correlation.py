"""Squared Pearson correlations between feature channels, from moments that are gathered batch by batch. No drawing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What is kept of N observations of C channels: their number, means and how they vary together, all float64.

    Attributes:
      total: N.
      mean: (C,).
      scatter: (C, C) sum over observations of the products of two channels' distances from their means.
    """

    total: int
    mean: np.ndarray
    scatter: np.ndarray


def moments(values: np.ndarray) -> Moments:
    """Moments of observations (N, C), N >= 1.

    Distances are taken from the first observation before anything is summed up, so that large means cost no precision
    and the scatter of a channel that never changes is exactly 0.
    """
    values = np.asarray(values, np.float64)
    shifted = values - values[0]
    offset = shifted.mean(0)
    centred = shifted - offset
    return Moments(len(values), values[0] + offset, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets of observations together (Chan, Golub, LeVeque 1983), in either order but for rounding."""
    total = a.total + b.total
    step = b.mean - a.mean
    mean = a.mean + step * (b.total / total)
    return Moments(total, mean, a.scatter + b.scatter + np.outer(step, step) * (a.total * b.total / total))


def update(before: Moments | None, values: np.ndarray) -> Moments:
    """`before` (None: nothing yet) with more observations (N, C), in memory that does not grow with them."""
    new = moments(values)
    return new if before is None else merge(before, new)


def r_squared(of: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Squared Pearson correlations between all pairs of channels that change at all.

    A channel whose values are all the same has no correlation with anything; it is left out.

    Returns:
      (K, K) in [0, 1], and the places (K,) of those channels among the C.
    """
    alive = np.flatnonzero(np.diagonal(of.scatter) > 0)
    scatter = of.scatter[np.ix_(alive, alive)]
    spread = np.sqrt(np.diagonal(scatter))
    correlation = scatter / spread[:, None] / spread  # one after the other: a product of two could underflow
    return np.clip(correlation**2, 0, 1), alive


def block_means(matrix: np.ndarray, group: np.ndarray, num_groups: int) -> list[list[float | None]]:
    """Mean of a symmetric matrix (K, K) over each pair of groups of its rows; None where there is no pair.

    Within a group only pairs of two different rows count: a channel's correlation with itself says nothing.

    Args:
      group: (K,) int, in [0, num_groups).
    """
    others = ~np.eye(len(matrix), dtype=bool)
    means: list[list[float | None]] = []
    for a in range(num_groups):
        masks = [np.outer(group == a, group == b) & others for b in range(num_groups)]
        means.append([float(matrix[mask].mean()) if mask.any() else None for mask in masks])
    return means
