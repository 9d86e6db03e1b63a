"""Square boxes around the person in the full picture, three ways. Pure functions over arrays."""

from __future__ import annotations

import numpy as np

from data_pipelines.human36m.cameras import Projection, project
from fusion_jax.geometry import Camera, square_box

_ROOM_MM = np.array([[-1000.0, -900, 0], [1000, 1100, 0]])  # camera frame, y down: more room below the pelvis


def joints_box(joints_px: np.ndarray, margin: float) -> np.ndarray:
    """[left, top, side] px around joints (J, 2), grown by `margin` of its side on each side."""
    return square_box(joints_px, margin)


def rectangle_box(rectangle: np.ndarray) -> np.ndarray:
    """The square [left, top, side] px with the middle and the longer side of [left, top, right, bottom]."""
    return square_box(rectangle.reshape(2, 2), margin=0.0)


def room_box(pelvis_mm: np.ndarray, camera: Camera, projection: Projection) -> np.ndarray:
    """The square [left, top, side] px that shows 2 m x 2 m at the pelvis (3,), camera frame, mm.

    It reaches 1 m to each side, 0.9 m up and 1.1 m down; the side is the longer one of its picture.
    """
    return square_box(project(pelvis_mm + _ROOM_MM, camera, projection), margin=0.0)


def inside(box: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a square shows any of a picture of `size` (width, height), with a pixel to spare for snapping."""
    low, high = box[:2], box[:2] + box[2]
    return bool((high > 1).all() and (low < np.array(size) - 2).all())
