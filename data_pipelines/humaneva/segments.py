"""Segment frames of the body model in the motion capture, between rows: axes turn evenly, origins move straight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.humaneva.points import Points
from fusion_jax.errors import UserError

MAX_SKEW = 0.02  # how far two axes' cosine may be from 0; rounding to float32 or 0.1 mm stays below


class Frame(NamedTuple):
    """Local to world at F times: X = origin + axes @ X_local.

    Attributes:
      axes: (F, 3, 3), unit axes as columns.
      origin: (F, 3) mm.
    """

    axes: np.ndarray
    origin: np.ndarray

    def at(self, x: float | np.ndarray, y: float | np.ndarray, z: float | np.ndarray) -> np.ndarray:
        """World points (F, 3) mm of local ones, each coordinate a number or (F,)."""
        local = np.stack(np.broadcast_arrays(x, y, z, self.origin[:, 0])[:3], axis=-1)
        return self.origin + np.einsum("fij,fj->fi", self.axes, local)

    def turned(self, rotation: np.ndarray) -> Frame:
        """The frame turned by (F, 3, 3) or (3, 3) about its own axes (multiplied on the right)."""
        return self._replace(axes=self.axes @ rotation)


def turn_y(angle: float | np.ndarray) -> np.ndarray:
    """[[c, 0, -s], [0, 1, 0], [s, 0, c]] of angles in radians: (..., 3, 3).

    The dataset's own convention, the transpose of the usual rotation about y.
    """
    c, s = np.cos(angle), np.sin(angle)
    zero, one = np.zeros_like(c), np.ones_like(c)
    rows = [[c, zero, -s], [zero, one, zero], [s, zero, c]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def row_axes(points: Points, segment: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit axes (T, 3, 3) as columns and origins (T, 3) of a segment such as 'PEL' at every row; NaN where missing.

    Four points in a row tell them: the origin, then one on the z, on the x and on the y axis.

    Raises:
      UserError: the points after the origin are not called so.
    """
    first = points.index(f"{segment}O")
    labels = points.labels[first : first + 4]
    stem = labels[0][: labels[0].index(f"{segment}O") + len(segment)]
    if [label[: len(stem) + 1] for label in labels] != [stem + end for end in "OPAL"]:
        raise UserError(
            f"{points.where}: the points from {labels[0]} on are {', '.join(labels)}, expected {stem} with O, P, A, L "
            "in turn; the file is of another body model"
        )
    origin, on_z, on_x, on_y = (points.xyz[:, first + k] for k in range(4))
    axes = np.stack([_unit(on_x - origin), _unit(on_y - origin), _unit(on_z - origin)], axis=-1)
    return axes, origin


def right_angled(axes: np.ndarray) -> np.ndarray:
    """(T,) whether (T, 3, 3) are the axes of a right-handed frame, up to rounding. False where NaN."""
    cosines = np.abs(np.swapaxes(axes, -1, -2) @ axes - np.eye(3)).max((-1, -2))
    volume = np.einsum("ti,ti->t", axes[..., 0], np.cross(axes[..., 1], axes[..., 2]))
    return (cosines <= MAX_SKEW) & (volume > 0)


def between_rows(axes: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Axes (F, 3, 3) at 1-based positions (F,) of (T, 3, 3), turning evenly the short way from row to row."""
    low = np.floor(positions).astype(int) - 1
    start, end = (Rotation.from_matrix(axes[rows]).as_quat() for rows in (low, low + 1))
    return Rotation.from_quat(slerp(start, end, positions - np.floor(positions))).as_matrix()


def slerp(start: np.ndarray, end: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Unit quaternions (F, 4) at fractions (F,) of the way from `start` to `end`, the short way round.

    The sign is chosen by the whole dot product. The dataset's toolbox takes the vector parts alone, which differs
    only for orientations near the identity.
    """
    dot = np.sum(start * end, axis=-1)
    end = np.where(dot[:, None] < 0, -end, end)
    angle = np.arccos(np.clip(np.abs(dot), 0, 1))
    near = angle < 1e-9  # both weights would be 0 / 0
    sine = np.where(near, 1.0, np.sin(angle))
    first = np.where(near, 1 - fraction, np.sin((1 - fraction) * angle) / sine)
    second = np.where(near, fraction, np.sin(fraction * angle) / sine)
    return first[:, None] * start + second[:, None] * end


def straight_between_rows(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Points (F, 3) at 1-based positions (F,) of (T, 3), moving evenly from row to row."""
    low = np.floor(positions).astype(int) - 1
    fraction = (positions - np.floor(positions))[:, None]
    return (1 - fraction) * values[low] + fraction * values[low + 1]


def mean_distance(one: np.ndarray, other: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distance (F,) mm of two tracks (T, 3): the mean of those at the rows below and above each 1-based position."""
    rows = np.linalg.norm(one - other, axis=-1)
    low, high = np.floor(positions).astype(int) - 1, np.ceil(positions).astype(int) - 1
    return (rows[low] + rows[high]) / 2


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / np.where(length > 0, length, np.nan)
