"""How a person is cut out of an MPII picture, and how large the head is. Pixels are as labelled throughout."""

from __future__ import annotations

import numpy as np

from fusion_jax.geometry import square_box

_HEAD_SHARE = 0.6  # of the head box's diagonal: the length in which PCKh measures


def hourglass_center(center: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Centre (2,) px and scale after the stacked hourglass's correction.

    The annotated centre lies on the trunk and the annotated scale is tight: the centre goes down by 15 * scale and
    the scale grows by a quarter, so that feet are in the crop.
    """
    return np.array([center[0], center[1] + 15 * scale]), scale * 1.25


def hourglass_box(center: np.ndarray, scale: float) -> np.ndarray:
    """The square [left, top, side] of side 200 * scale around the centre, both corrected."""
    middle, corrected = hourglass_center(center, scale)
    side = 200 * corrected
    return np.array([*(middle - side / 2), side])


def joints_box(joints: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The square [left, top, side] around the labelled joints with the usual margin."""
    return square_box(joints, keep=labelled)


def head_size(head_box: np.ndarray | None) -> float:
    """Length of the head, px, from its box x1 y1 x2 y2; 0 where unknown."""
    if head_box is None:
        return 0.0
    x1, y1, x2, y2 = head_box
    return float(_HEAD_SHARE * np.hypot(x2 - x1, y2 - y1))
