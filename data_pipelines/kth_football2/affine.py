"""Affine cameras: a 2 x 4 matrix as a rotation to a camera-aligned frame and what maps that frame's x, y to pixels."""

from __future__ import annotations

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera


def affine_camera(matrix: np.ndarray, unit_mm: float, pixel_origin: int) -> Camera:
    """The camera of px = M [X, Y, Z, 1], exactly, for `camera_model='affine'`.

    M's first three columns are A = K Q, K symmetric and positive (scale, aspect and skew) and Q's two rows orthonormal:
    of all such pairs of directions Q's are nearest to image right and image down. The viewing direction is
    right x down, which completes x right, y down, z away from the camera, if the world is right handed.

    Args:
      matrix: (2, 4), px for points in the dataset's unit.
      unit_mm: that unit.
      pixel_origin: the number of the first pixel.

    Raises:
      UserError: the matrix is not finite or its rows are parallel: it looks along no direction.
    """
    rows = np.asarray(matrix, np.float64)[:, :3] / unit_mm
    if not np.isfinite(matrix).all():
        raise UserError("its matrix in cameras.txt is not finite")
    left, scales, right = np.linalg.svd(rows, full_matrices=False)
    if scales[1] < 1e-6 * max(scales[0], 1e-12):
        raise UserError("its matrix in cameras.txt has parallel or zero rows")
    axes = left @ right
    intrinsics = np.eye(3)
    intrinsics[:2, :2] = (left * scales) @ left.T
    intrinsics[:2, 2] = matrix[:, 3] - pixel_origin
    rotation = np.stack([*axes, np.cross(axes[0], axes[1])])
    return Camera(rotation, np.zeros(3), intrinsics, np.zeros(5))


def project(joints: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Pixels (..., N, 2), as labelled, of joints (..., N, 3) in the dataset's unit by matrices (..., 2, 4)."""
    return joints @ matrix[..., :3].swapaxes(-1, -2) + matrix[..., None, :, 3]
