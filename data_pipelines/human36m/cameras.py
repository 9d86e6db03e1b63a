"""Human3.6M's four cameras: numbers from `cameras.json`, and the two ways to apply the lens that are in use.

The released 2D joints follow a lens model that looks like OpenCV's but does not double the cross terms (`published`).
The two differ by less than 0.3 px in the middle of the picture and by up to 1.4 px in its corners.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any, Literal

import numpy as np

from fusion_jax.errors import unknown_name
from fusion_jax.geometry import Camera, apply_affine, camera_to_image, image_to_camera
from fusion_jax.records import read_json

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
Projection = Literal["opencv", "published"]

_NUMBERS = pathlib.Path(__file__).with_name("cameras.json")


@functools.cache
def numbers() -> dict[str, Any]:
    """The calibration as in `cameras.json`."""
    return read_json(_NUMBERS)


def camera(subject: str, name: str) -> Camera:
    """A camera as it stood while a subject was recorded. Raises UserError for an unknown subject or camera."""
    placed = numbers()["extrinsics"]
    if subject not in placed:
        raise unknown_name("subject of Human3.6M", subject, placed)
    if name not in placed[subject]:
        raise unknown_name("camera of Human3.6M", name, CAMERAS)
    inner, outer = numbers()["intrinsics"][name], placed[subject][name]
    (fx, fy), (cx, cy), (k1, k2, k3), (p1, p2) = (inner[field] for field in "fckp")
    return Camera(
        rot_world_to_cam=np.array(outer["R"]),
        cam_center_mm=np.array(outer["T"]),
        intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        distortion=np.array([k1, k2, p1, p2, k3]),
    )


def picture_sizes(subject: str, name: str) -> tuple[tuple[int, int], ...]:
    """The (width, height) px that a video may have.

    Usually one. For two cameras of S7 the calibration lists another height than their videos are said to have
    elsewhere, so both pass.
    """
    own = numbers()["intrinsics"][name]["size"]
    listed = numbers()["extrinsics"][subject][name].get("size", own)
    return tuple(dict.fromkeys((tuple(own), tuple(listed))))


def distort_published(xy: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Normalised coordinates (N, 2) after the lens as the released 2D joints have it.

    g = 1 + k1 r2 + k2 r2^2 + k3 r2^3 + p1 y + p2 x; (x g + p2 r2, y g + p1 r2).

    Args:
      xy: (N, 2).
      distortion: (5,) in OpenCV's order k1 k2 p1 p2 k3.
    """
    k1, k2, p1, p2, k3 = distortion
    r2 = (xy**2).sum(-1, keepdims=True)
    g = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)) + p1 * xy[:, 1:] + p2 * xy[:, :1]
    return xy * g + r2 * np.array([p2, p1])


def project_published(points_mm: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels (N, 2) of camera-frame points (N, 3) mm by the lens model of the released 2D joints."""
    xy = points_mm[:, :2] / np.maximum(points_mm[:, 2:], 1e-3)
    return apply_affine(camera.intrinsics, distort_published(xy, camera.distortion))


def unproject_published(points_px: np.ndarray, depth_mm: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera-frame points (N, 3) mm of pixels (N, 2) at depths (N,) mm; undoes `project_published`."""
    seen = apply_affine(np.linalg.inv(camera.intrinsics), points_px)
    xy = seen
    for _ in range(20):  # the lens is mild: this reaches 1e-9 px all over the picture
        xy = xy + (seen - distort_published(xy, camera.distortion))
    return np.concatenate([xy, np.ones_like(xy[:, :1])], axis=1) * depth_mm[:, None]


def project(points_mm: np.ndarray, camera: Camera, projection: Projection) -> np.ndarray:
    """Pixels (N, 2) of camera-frame points (N, 3) mm by either lens model."""
    if projection == "published":
        return project_published(points_mm, camera)
    return camera_to_image(points_mm, camera.intrinsics, camera.distortion)


def unproject(points_px: np.ndarray, depth_mm: np.ndarray, camera: Camera, projection: Projection) -> np.ndarray:
    """Camera-frame points (N, 3) mm of pixels (N, 2) at depths (N,) mm by either lens model."""
    if projection == "published":
        return unproject_published(points_px, depth_mm, camera)
    return image_to_camera(points_px, depth_mm, camera.intrinsics, camera.distortion)
