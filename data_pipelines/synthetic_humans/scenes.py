"""Cameras around the person, and batches of scenes with their exact square crops. NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from data_pipelines.synthetic_humans.backdrop import Backdrop
from data_pipelines.synthetic_humans.cones import Body
from data_pipelines.synthetic_humans.flesh import capsules, head
from data_pipelines.synthetic_humans.people import Person
from data_pipelines.synthetic_humans.render import Light, Scene
from data_pipelines.synthetic_humans.surroundings import draw_backdrop, draw_light
from fusion_jax.errors import UserError
from fusion_jax.geometry import (
    Camera,
    camera_to_image,
    crop_matrix,
    square_box,
    world_to_camera,
    world_to_image,
)

FULL_PX = 1000  # side of the virtual full picture, as Human3.6M's
# What a camera is drawn from: its azimuth's shift, radians; distance and height, mm; the point it looks at, mm; its
# turn about its axis, radians; focal length and its middle's shift in x and y, px; a pixel's height over its width.
_DRAWN_LOW = np.array([-0.3, 4000, 1200, -250, -250, 800, -0.02, 1100, -12, -12, 0.998])
_DRAWN_RANGE = np.array([0.3, 5500, 1900, 250, 250, 1000, 0.02, 1200, 12, 12, 1.002]) - _DRAWN_LOW
_HEAD_SHARE = 0.6  # MPII's length of a head, of the diagonal of its box


class Views(NamedTuple):
    """What the pictures of N scenes show, float32.

    Attributes:
      camera: of the crops: intrinsics (N, 3, 3) are `crop_matrix(box, size) @` the full picture's.
      box: (N, 3) [left, top, side] of the crop in px of the full picture.
      joints2d: (N, 17, 2) px of the crop.
      head_size_px: (N,) px of the crop: 0.6 of the diagonal of the box around the head, as MPII measures it.
    """

    camera: Camera
    box: np.ndarray
    joints2d: np.ndarray
    head_size_px: np.ndarray


def camera_ring(rng: np.random.Generator, count: int = 4) -> list[Camera]:
    """The first `count` of four cameras around the origin, placed as in Human3.6M's room, without lens distortion.

    All four are drawn whatever the count is, so that the first ones are the same.
    """
    start, drawn = rng.uniform(0, 2 * np.pi), rng.random((4, 11))
    return [_camera(drawn[k], start + k * np.pi / 2) for k in range(count)]


def _camera(drawn: np.ndarray, azimuth: float) -> Camera:
    """A camera of eleven numbers (11,) in [0, 1), about at `azimuth`."""
    shift, distance, height, tx, ty, tz, turn, focal, cx, cy, stretch = (_DRAWN_LOW + _DRAWN_RANGE * drawn).tolist()
    azimuth += shift
    center = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])
    forward = np.array([tx, ty, tz]) - center
    forward /= np.linalg.norm(forward)
    right = _cross(forward, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    down = _cross(forward, right)
    right, down = np.cos(turn) * right + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * right
    middle = (FULL_PX - 1) / 2
    intrinsics = np.array([[focal, 0, middle + cx], [0, focal * stretch, middle + cy], [0, 0, 1]])
    fields = (np.stack([right, down, forward]), center, intrinsics, np.zeros(5))
    return Camera(*(np.asarray(field, np.float32) for field in fields))


def _cross(a: Any, b: Any) -> np.ndarray:
    """The cross product of two vectors (3,); np.cross takes 30 times as long to arrange its axes."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def stack_cameras(cameras: list[Camera]) -> Camera:
    """One Camera whose fields lead with a batch axis."""
    return Camera(*(np.stack(field) for field in zip(*cameras, strict=True)))


def make_scene(
    person: Person, joints_mm: np.ndarray, camera: Camera, size: int, rng: np.random.Generator
) -> tuple[Scene, Views]:
    """`make_scenes` for one frame: joints (17, 3), nothing batched."""
    scenes, views = make_scenes(person, joints_mm[None], camera, size, rng)
    return _first(scenes), _first(views)


def make_scenes(
    person: Person,
    joints_mm: np.ndarray,
    cameras: Camera,
    size: int,
    rng: np.random.Generator,
    *,
    one_room: bool = False,
) -> tuple[Scene, Views]:
    """Scenes and their exact crops for N frames.

    Args:
      person: one for all frames, or stacked (N, ...).
      joints_mm: (N, 17, 3) world, floor at z = 0.
      cameras: of the full picture, undistorted; one, or stacked (N, ...).
      size: side of the square pictures, px.
      one_room: the same light and room in all frames, as in one camera's sequence; else new ones in each. The
        furniture then stands beyond the first frame's person as the first camera sees it.

    Raises:
      UserError: where a camera has lens distortion, which the renderer has not.
    """
    joints = np.asarray(joints_mm, np.float64)
    num = len(joints)
    if np.any(cameras.distortion):
        raise UserError("make_scenes: the renderer has no lens distortion; give cameras with distortion 0")
    full = Camera(
        *(_batched(field, shape, num) for field, shape in zip(cameras, ((3, 3), (3,), (3, 3), (5,)), strict=True))
    )
    body = capsules(joints, person)
    box = _boxes(body, full, rng)
    crop = np.stack([crop_matrix(b, size) for b in box])
    camera = full._replace(intrinsics=crop @ full.intrinsics)
    corners = _corners(head(joints, person), camera)
    head_size = _HEAD_SHARE * np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)
    views = _float32(Views(camera, box, world_to_image(joints, camera), head_size))
    rooms = 1 if one_room else num
    light, backdrop = (
        draw_light(rng, rooms),
        draw_backdrop(rng, joints[:rooms, 0], full.cam_center_mm[:rooms]),
    )
    if one_room:
        light = Light(*(np.repeat(field, num, axis=0) for field in light))
        backdrop = Backdrop(*(np.repeat(field, num, axis=0) for field in backdrop))
    c = views.camera
    scene = Scene(body, c.rot_world_to_cam, c.cam_center_mm, c.intrinsics, light, backdrop)
    return _float32(scene), views


def _batched(field: Any, shape: tuple[int, ...], num: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(field, np.float64), (num, *shape))


def _first(tree: Any) -> Any:
    return tree[0] if isinstance(tree, np.ndarray) else type(tree)(*(_first(field) for field in tree))


def _float32(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return type(tree)(*(_float32(field) for field in tree))  # type: ignore[call-arg]
    return np.ascontiguousarray(tree, np.float32)


def _boxes(body: Body, cameras: Camera, rng: np.random.Generator) -> np.ndarray:
    """(N, 3) squares around the body, flesh included, each with its own margin and off the middle."""
    corners = _corners(body, cameras)
    margins = rng.uniform(0.05, 0.13, len(corners))
    box = np.stack([square_box(points, margin) for points, margin in zip(corners, margins, strict=True)])
    box[:, :2] += rng.uniform(-0.03, 0.03, (len(box), 2)) * box[:, 2:]
    return box


def _corners(body: Body, cameras: Camera) -> np.ndarray:
    """(N, 2, 2) px: the corners with the lowest and the highest x and y of the box around N bodies' pictures."""
    balls = world_to_camera(np.concatenate([body.start, body.end], axis=1).astype(np.float64), cameras)
    if balls[..., 2].min() < 200:
        raise UserError("make_scenes: a person stands less than 200 mm before the camera plane; move one of them")
    centre = camera_to_image(balls, cameras.intrinsics)  # (N, 2P, 2)
    focal = np.linalg.norm(cameras.intrinsics[:, :2, :2], axis=-1)[:, None]  # (N, 1, 2)
    radius = np.concatenate([body.radius[..., 0], body.radius[..., 1]], axis=1)[..., None]
    reach = radius * focal / balls[..., 2:]
    return np.stack([(centre - reach).min(axis=1), (centre + reach).max(axis=1)], axis=1)
