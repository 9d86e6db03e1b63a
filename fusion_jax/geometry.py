"""World -> camera -> image and back, square crops with exact cameras, root-relative poses.

Every function is pure and takes NumPy or jax arrays alike (the array's own namespace does the work), so that
loader processes need no jax and a jitted step can call the same code. Lengths are mm. Axes: `world` is right
handed with z up; `camera` is x right, y down, z forward; `image` is pixels, x right, y down, and **(0, 0) is the
centre of the top left pixel** (OpenCV's convention), so a picture covers [-0.5, W - 0.5].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusion_jax.errors import UserError

Array = Any  # np.ndarray or jax.Array, whichever came in


class Camera(NamedTuple):
    """A calibrated camera; each field may carry leading batch axes. A NamedTuple, hence a jax pytree.

    X_cam = rot_world_to_cam (X_world - cam_center_mm); the pixel is intrinsics applied to the distorted
    (x / z, y / z, 1).
    """

    rot_world_to_cam: Array  # (..., 3, 3)
    cam_center_mm: Array  # (..., 3) world
    intrinsics: Array  # (..., 3, 3) px; any affine map of normalised coordinates, skew and roll included
    distortion: Array  # (..., 5) k1 k2 p1 p2 k3, OpenCV's order and model


def world_to_camera(points_mm: Array, camera: Camera) -> Array:
    """Points (..., N, 3) from the world frame to the camera frame, mm."""
    centred = points_mm - camera.cam_center_mm[..., None, :]
    return centred @ _transpose(camera.rot_world_to_cam)


def camera_to_world(points_mm: Array, camera: Camera) -> Array:
    """Points (..., N, 3) from the camera frame to the world frame, mm."""
    return points_mm @ camera.rot_world_to_cam + camera.cam_center_mm[..., None, :]


def distort(xy: Array, distortion: Array) -> Array:
    """Normalised coordinates (..., N, 2) after the lens: OpenCV's radial k1 k2 k3 and tangential p1 p2 model."""
    xp = xy.__array_namespace__()
    k1, k2, p1, p2, k3 = (distortion[..., i, None] for i in range(5))
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return xp.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def undistort(xy: Array, distortion: Array, iterations: int = 20) -> Array:
    """The inverse of `distort` on (..., N, 2) by fixed-point iteration.

    Converges for the mild lenses of the pose datasets within the picture; 20 rounds reach float precision there.
    """
    guess = xy
    for _ in range(iterations):
        guess = guess + (xy - distort(guess, distortion))
    return guess


def camera_to_image(points_mm: Array, intrinsics: Array, distortion: Array | None = None) -> Array:
    """Pixels (..., N, 2) of camera-frame points (..., N, 3) mm.

    Points at or behind the camera plane have no image; they come out finite but meaningless, so mask with z > 0
    where they can occur.
    """
    xp = points_mm.__array_namespace__()
    z = points_mm[..., 2:]
    xy = points_mm[..., :2] / xp.where(z > 1e-3, z, 1e-3)
    if distortion is not None:
        # The lens model is a polynomial of degree 7: far outside any picture it would overflow float32.
        xy = distort(xp.clip(xy, -1e3, 1e3), distortion)
    return apply_affine(intrinsics, xy)


def world_to_image(points_mm: Array, camera: Camera) -> Array:
    """Pixels (..., N, 2) of world points (..., N, 3) mm."""
    return camera_to_image(world_to_camera(points_mm, camera), camera.intrinsics, camera.distortion)


def image_to_camera(points_px: Array, depth_mm: Array, intrinsics: Array, distortion: Array | None = None) -> Array:
    """Camera-frame points (..., N, 3) mm of pixels (..., N, 2) at depths z (..., N) mm; undoes camera_to_image."""
    xp = points_px.__array_namespace__()
    xy = apply_affine(xp.linalg.inv(intrinsics), points_px)
    if distortion is not None:
        xy = undistort(xy, distortion)
    return xp.concat([xy, xp.ones_like(xy[..., :1])], axis=-1) * depth_mm[..., None]


def apply_affine(matrix: Array, points: Array) -> Array:
    """A (..., 3, 3) affine map [A t; 0 0 1] applied to points (..., N, 2)."""
    return points @ _transpose(matrix[..., :2, :2]) + matrix[..., None, :2, 2]


def square_box(points_px: np.ndarray, margin: float = 0.15, keep: np.ndarray | None = None) -> np.ndarray:
    """The square [left, top, side] in px around points (N, 2), grown by `margin` of its side on each side.

    `left` and `top` are edges, not pixel centres: the whole W x W picture is [-0.5, -0.5, W].

    Args:
      points_px: (N, 2).
      margin: share of the tight side added at each side.
      keep: (N,) bool, the points that count; all without it.

    Raises:
      UserError: no point counts, or one of them is not finite.
    """
    points_px = points_px if keep is None else points_px[keep]
    if not len(points_px) or not np.isfinite(points_px).all():
        raise UserError(f"square_box: expected at least one point, all finite, got {points_px.tolist()}")
    low, high = points_px.min(0), points_px.max(0)
    side = max(float((high - low).max()), 1.0) * (1 + 2 * margin)
    return np.array([*((low + high) / 2 - side / 2), side])


def crop_matrix(box: np.ndarray, size: int) -> np.ndarray:
    """The (3, 3) affine map from picture px to the px of a size x size crop of the square box [left, top, side].

    A cropped picture's exact camera is the same camera with intrinsics `crop_matrix(...) @ intrinsics`.
    """
    left, top, side = (float(v) for v in box)
    scale = size / side
    return np.array([[scale, 0, -left * scale - 0.5], [0, scale, -top * scale - 0.5], [0, 0, 1]])


def root_relative(pose_mm: Array, root_indices: tuple[int, ...]) -> Array:
    """Pose (..., J, 3) minus its root, the mean of the joints `root_indices`."""
    return pose_mm - pose_mm[..., list(root_indices), :].mean(-2)[..., None, :]


def _transpose(matrix: Array) -> Array:
    return matrix.swapaxes(-1, -2)
