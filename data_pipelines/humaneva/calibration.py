"""Camera files: `.cal` text to an exact `geometry.Camera`, and whether it stands where the published one does."""

from __future__ import annotations

import pathlib

import numpy as np

from data_pipelines.humaneva.small_text import numbers, read_small_text
from data_pipelines.humaneva.tables import EXTRINSICS
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera

_WHAT = "fc 2, cc 2, alpha, kc 5, R 9, T 3"
MAX_ANGLE_DEG = 0.1  # S2's cameras are turned by 0.46 deg or more against the others', and stand 65 mm or more off
MAX_DISTANCE_MM = 5.0


def read_camera(path: pathlib.Path) -> Camera:
    """The camera of a `.cal` file. Raises UserError as `parse_cal`, or where there is no such file."""
    return parse_cal(read_small_text(path), str(path))


def parse_cal(text: str, where: str) -> Camera:
    """A camera, of the full picture, from the 22 numbers of a `.cal` file.

    fc 2 and cc 2 px, alpha (skew), kc 5 (k1 k2 p1 p2 k3), R 9 row by row, T 3 mm; X_cam = R X_world + T, and
    u = fx (x_d + alpha y_d) + cx. The skew is kept in the intrinsics.

    Raises:
      UserError: not 22 finite numbers, a focal length that is not positive, or an R that is no rotation.
    """
    values = np.array(numbers(text, 22, where, _WHAT))
    (fx, fy), (cx, cy), alpha, lens = values[:2], values[2:4], values[4], values[5:10]
    rotation, translation = values[10:19].reshape(3, 3), values[19:]
    if fx <= 0 or fy <= 0:
        raise UserError(f"{where}: fc is {fx:g} {fy:g} px, expected two positive focal lengths; fetch the file again")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: numbers 11 to 19 are no rotation matrix; fetch the file again")
    return Camera(
        rot_world_to_cam=rotation,
        # Solved rather than -R^T T: R is rounded text, and so R (X - centre) stays exactly R X + T.
        cam_center_mm=np.linalg.solve(rotation, -translation),
        intrinsics=np.array([[fx, fx * alpha, cx], [0, fy, cy], [0, 0, 1]]),
        distortion=lens,
    )


def published_pose(subject: str, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera rotation (3, 3) and centre (3,) mm of a colour camera as others published them."""
    quaternion, centre = EXTRINSICS[subject][camera]
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    camera_to_world = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return camera_to_world.T, np.array(centre)


def pose_difference(camera: Camera, subject: str, name: str) -> tuple[float, float]:
    """How far a camera is from the published pose of `subject`'s camera `name`: degrees and mm."""
    rotation, centre = published_pose(subject, name)
    cosine = (np.trace(rotation @ camera.rot_world_to_cam.T) - 1) / 2
    angle = float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    return angle, float(np.linalg.norm(camera.cam_center_mm - centre))


def check_pose(camera: Camera, subject: str, name: str) -> str | None:
    """What is wrong with where a camera stands, in one clause, or None where it is as published."""
    angle, distance = pose_difference(camera, subject, name)
    if angle <= MAX_ANGLE_DEG and distance <= MAX_DISTANCE_MM:
        return None
    others = {other: pose_difference(camera, other, name) for other in EXTRINSICS if other != subject}
    fitting = [o for o, (a, d) in others.items() if a <= MAX_ANGLE_DEG and d <= MAX_DISTANCE_MM]
    centre = ", ".join(f"{v:.1f}" for v in camera.cam_center_mm)
    known = ", ".join(f"{v:.1f}" for v in published_pose(subject, name)[1])
    hint = f"it is {fitting[0]}'s, put {subject}'s own file here" if fitting else "fetch the file again"
    return (
        f"{name} stands at ({centre}) mm, the published one of {subject} at ({known}) mm: {distance:.1f} mm and "
        f"{angle:.2f} deg apart; {hint}"
    )
