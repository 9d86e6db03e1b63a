"""A camera from a JSON file, and where in its frame a root-relative pose stands. NumPy only."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import reprlib
from typing import Any, NamedTuple

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, distort, undistort
from fusion_jax.records import read_json
from fusion_jax.skeletons import Skeleton

MIN_CONFIDENCE = 0.1
"""2D joints below this do not help to place a person."""
MIN_JOINTS = 4
"""So many 2D joints at least: two would do for three unknowns, but could not outvote a wrong one."""
MIN_SPREAD_PX = 4.0
"""Root mean square distance of the 2D joints from their middle, below which they tell no distance."""
MAX_DISTANCE_MM = 1e6
"""A person farther than a kilometre is smaller than any that a network can make out."""
_HUBER = 1.345  # deviations beyond which a joint counts less: 95 % of the efficiency of least squares
_ROUNDS = 50
_MAX_FILE = 1_000_000  # bytes; a camera takes a few hundred
_ONE_FORM, _OTHER_FORM = ("fx", "fy", "cx", "cy"), ("intrinsics",)
_OPTIONAL = ("distortion", "image_size", "rotation", "center_mm")


@dataclasses.dataclass(frozen=True, eq=False)
class KnownCamera:
    """What a camera file says.

    Attributes:
      path: the file, for errors.
      camera: intrinsics in px of the upright picture, (0, 0) the centre of its top left pixel; distortion zero and the
        world the camera's own frame where the file is silent.
      image_size: (width, height) px of the pictures it is good for; None for all.
      knows_world: whether the file says where the camera stands.
    """

    path: pathlib.Path
    camera: Camera
    image_size: tuple[int, int] | None
    knows_world: bool

    def check_size(self, picture: object, size: tuple[int, int]) -> None:
        """Raises UserError, naming `picture` and both sizes, where it is not for pictures of (width, height) px."""
        if self.image_size is not None and self.image_size != tuple(size):
            (w, h), (width, height) = self.image_size, size
            raise UserError(
                f"{picture} is {width} x {height} px, but {self.path} is the camera of pictures of {w} x {h} px; its "
                "numbers hold for that size only"
            )


def read_camera(path: pathlib.Path) -> KnownCamera:
    """The camera of a JSON file.

    `fx`, `fy`, `cx`, `cy` in px, or `intrinsics`, 3 lists of 3 numbers, the last 0 0 1. May have `distortion`
    [k1, k2, p1, p2, k3] as OpenCV has it; `image_size` [width, height]; and, both or none, `rotation`, 3 lists of 3
    numbers, which takes world directions to the camera's, and `center_mm` [x, y, z], where the camera is in the world.
    Pixels as OpenCV counts them: (0, 0) is the centre of the top left pixel.

    Raises:
      UserError: naming the file, the field, what came and what was expected.
    """
    if os.path.exists(path) and (not os.path.isfile(path) or os.path.getsize(path) > _MAX_FILE):
        raise UserError(f"{path} is no camera file; expected an ordinary JSON file of at most {_MAX_FILE} bytes")
    data = read_json(path, finite=False)  # a field that is not is named below
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected an object with {', '.join(_ONE_FORM)}, got {_short(data)}")
    needed = _OTHER_FORM if "intrinsics" in data else _ONE_FORM
    world = ("rotation", "center_mm") if {"rotation", "center_mm"} & data.keys() else ()
    for name in sorted(data):
        if name not in (*needed, *_OPTIONAL):
            raise UserError(f"{path}: unknown field {_short(name)}; expected {', '.join((*needed, *_OPTIONAL))}")
    for name in (*needed, *world):
        if name not in data:
            raise UserError(f"{path}: missing field {name!r}; expected {', '.join((*needed, *world))}")
    size = _image_size(data["image_size"], f"{path}: image_size") if "image_size" in data else None
    camera = Camera(
        rot_world_to_cam=_rotation(data["rotation"], f"{path}: rotation") if world else np.eye(3),
        cam_center_mm=_numbers(data["center_mm"], (3,), f"{path}: center_mm") if world else np.zeros(3),
        intrinsics=_intrinsics(data, path),
        distortion=_numbers(data["distortion"], (5,), f"{path}: distortion") if "distortion" in data else np.zeros(5),
    )
    return KnownCamera(path, camera, size, bool(world))


class Placement(NamedTuple):
    """Where a person stands.

    Attributes:
      position_mm: (3,) float64, the root joint in the camera frame, mm; None where it cannot be told.
      reason: why it cannot be told; empty where it can.
    """

    position_mm: np.ndarray | None
    reason: str = ""


def root_position_mm(
    pose_mm: np.ndarray,
    layout: Skeleton,
    joints2d_px: np.ndarray,
    layout2d: Skeleton,
    confidence: np.ndarray,
    intrinsics: np.ndarray,
    distortion: np.ndarray,
) -> Placement:
    """The place t of a root-relative pose at which its image comes nearest to the 2D joints.

    A joint (X, Y, Z) of the pose moved by t = (tx, ty, tz) is seen at u = (X + tx) / (Z + tz), v = (Y + ty) / (Z + tz),
    in normalised coordinates without the lens. With a = tx / tz, b = ty / tz and s = 1 / tz that is linear:

        a + s (X - u Z) = u        b + s (Y - v Z) = v

    The error of these equations is that in the image times 1 + s Z, a number near 1. So weighted least squares are
    solved again and again: each joint weighs confidence / (1 + s Z)^2 with the last round's s, which settles at the
    error in the image, and times min(1, 1.345 m / error), with m the normalised median of the errors, which takes the
    power from single wrong joints (Huber's weights). Only joints with the same name in both layouts take part: a
    stand-in is near, not there.

    Args:
      pose_mm: (J, 3) mm, camera frame, relative to the root, of `layout`.
      joints2d_px: (K, 2) px of the picture, of `layout2d`.
      confidence: (K,) in [0, 1]; joints below MIN_CONFIDENCE are left out.
      intrinsics: (3, 3) px.
      distortion: (5,) k1 k2 p1 p2 k3.
    """
    pairs = [(layout.joints.index(name), k) for k, name in enumerate(layout2d.joints) if name in layout.joints]
    rows3d, rows2d = np.array(pairs, np.int64).reshape(-1, 2).T
    intrinsics, distortion = np.asarray(intrinsics, np.float64), np.asarray(distortion, np.float64)
    seen = apply_affine(np.linalg.inv(intrinsics), np.asarray(joints2d_px, np.float64)[rows2d])
    focal = math.sqrt(abs(np.linalg.det(intrinsics[:2, :2])))
    with np.errstate(over="ignore", invalid="ignore"):
        straight = undistort(seen, distortion)
        invertible = np.abs(distort(straight, distortion) - seen).max(-1) * focal < 0.5  # px; False for NaN
    weight = np.asarray(confidence, np.float64)[rows2d]
    used = (weight >= MIN_CONFIDENCE) & invertible
    if used.sum() < MIN_JOINTS:
        return Placement(None, f"{used.sum()} joints are sure enough and inside the lens's range, {MIN_JOINTS} needed")
    pose, seen, weight = np.asarray(pose_mm, np.float64)[rows3d[used]], straight[used], weight[used]
    spread = np.sqrt(((seen - seen.mean(0)) ** 2).sum(-1).mean()) * focal
    if spread < MIN_SPREAD_PX:
        return Placement(None, f"the joints lie within {spread:.1f} px, too close to tell a distance")
    return _settle(pose, seen, weight)


def _settle(pose_mm: np.ndarray, seen: np.ndarray, confidence: np.ndarray) -> Placement:
    """The rounds of `root_position_mm` on matched joints (N, 3) mm and (N, 2) normalised."""
    matrix = np.zeros((len(seen), 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1
    matrix[..., 2] = pose_mm[:, :2] - seen * pose_mm[:, 2:]
    weight = confidence
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)[:, None]
        a, b, s = np.linalg.lstsq((matrix * root[..., None]).reshape(-1, 3), (seen * root).ravel(), rcond=None)[0]
        stretch = np.maximum(1 + s * pose_mm[:, 2], 0.1)  # a wrong joint may turn the first rounds inside out
        error = np.linalg.norm(matrix @ [a, b, s] - seen, axis=-1) / stretch
        scale = max(1.4826 * float(np.median(error)), 1e-12)
        weight = confidence / stretch**2 * np.minimum(1, _HUBER * scale / np.maximum(error, 1e-12))
    if s < 1 / MAX_DISTANCE_MM or (1 + s * pose_mm[:, 2]).min() <= 0:
        return Placement(None, "the pose fits the 2D joints at no distance before the camera")
    return Placement(np.array([a, b, 1.0]) / s)


def _intrinsics(data: dict[str, Any], path: pathlib.Path) -> np.ndarray:
    if "intrinsics" not in data:
        fx, fy, cx, cy = (float(_numbers(data[name], (), f"{path}: {name}")) for name in _ONE_FORM)
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        where, expected = f"{path}: fx, fy", "focal lengths of at least 1 px"
    else:
        matrix = _numbers(data["intrinsics"], (3, 3), f"{path}: intrinsics")
        where, expected = f"{path}: intrinsics", "[[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx and fy of at least 1 px"
        if matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
            raise UserError(f"{where}: expected {expected}, got {matrix.tolist()}")
    if min(matrix[0, 0], matrix[1, 1]) < 1:
        raise UserError(f"{where}: expected {expected}, got {matrix[0, 0]:g} and {matrix[1, 1]:g}")
    return matrix


def _rotation(data: Any, where: str) -> np.ndarray:
    matrix = _numbers(data, (3, 3), where)
    if np.abs(matrix @ matrix.T - np.eye(3)).max() > 1e-3 or np.linalg.det(matrix) < 0:
        raise UserError(f"{where}: expected a rotation (rows of length 1 at right angles, no mirror), got {data}")
    return matrix


def _image_size(data: Any, where: str) -> tuple[int, int]:
    if not isinstance(data, list) or len(data) != 2 or not all(type(v) is int and 0 < v < 10**6 for v in data):
        raise UserError(f"{where}: expected [width, height] in whole px, got {_short(data)}")
    return data[0], data[1]


def _numbers(data: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Nested lists of JSON numbers as float64 of that shape; refuses everything else."""
    if not shape:
        if type(data) not in (int, float) or not abs(data) < 1e9:  # also NaN
            raise UserError(f"{where}: expected a number, got {_short(data)}")
        return np.asarray(data, np.float64)
    if not isinstance(data, list) or len(data) != shape[0]:
        kind = "numbers" if len(shape) == 1 else f"lists of {shape[1]} numbers"
        raise UserError(f"{where}: expected a list of {shape[0]} {kind}, got {_short(data)}")
    return np.stack([_numbers(item, shape[1:], f"{where}[{i}]") for i, item in enumerate(data)])


def _short(data: Any) -> str:
    return reprlib.repr(data)
