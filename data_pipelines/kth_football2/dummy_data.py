"""A made-up sequence of KTH Multiview Football II in its true formats: our own runner, seen from far away.

python -m data_pipelines.kth_football2.dummy_data FOLDER
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import zipfile
from typing import NamedTuple

import cv2
import numpy as np

from data_pipelines.kth_football2.checks import PICTURE_SIZE
from data_pipelines.kth_football2.files import zip_name
from data_pipelines.kth_football2.numbers import CAMERAS as CAMERAS_FILE
from data_pipelines.kth_football2.numbers import POSITIONS_2D, POSITIONS_3D
from data_pipelines.kth_football2.settings import CAMERAS
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_camera
from fusion_jax.skeletons import convert_joints, skeleton

DISTANCE_MM = 30_000.0  # of the filming camera; the renderer's precision ends not far beyond
SCALE = 0.24  # px per mm: a player is about 430 px tall
WRIST, HEAD = skeleton("lsp14").index("right_wrist"), skeleton("lsp14").index("head_top")
_AZIMUTHS = (0.3, 2.2, 4.4)  # rad, from which the three cameras look at the origin
_RUN_MM = np.array([310.0, -140.0, 0.0])  # by which the player gets on in a time step


class Truth(NamedTuple):
    """What a tree was made from.

    Attributes:
      joints_mm: (T, 14, 3) world, z up.
      joints2d_px: (T, 3, 14, 2) labels by camera, noise included; (0, 0) the centre of the first pixel.
      projected_px: (T, 3, 14, 2) where the pictures show the joints.
      matrices: (T, 3, 2, 4) px per metre, as written.
      folder: of the sequence.
    """

    joints_mm: np.ndarray
    joints2d_px: np.ndarray
    projected_px: np.ndarray
    matrices: np.ndarray
    folder: pathlib.Path


def write_dummy(
    folder: pathlib.Path,
    steps: int = 20,
    *,
    player: int = 2,
    sequence: int = 1,
    cameras: tuple[str, ...] = CAMERAS,
    noise_px: float = 2.0,
    pixel_origin: int = 1,
    mark: bool = False,
    zipped: bool = False,
    bare: bool = False,
) -> Truth:
    """Writes a tree like an unpacked zip's, or that zip.

    Args:
      folder: the manual folder.
      steps: T.
      player, sequence: whose; each plays a motion of its own.
      cameras: those with pictures; the text files always tell of all three.
      noise_px: standard deviation of the 2D labels.
      pixel_origin: the number of the first pixel in labels and cameras.
      mark: a magenta disc on the right wrist, and the time step as a shade of grey around the head's top.
      zipped: as the zip alone.
      bare: without the folder that is named after the zip.
    """
    folder = pathlib.Path(folder)
    outer = folder if bare else folder / zip_name(player, sequence)
    inner = outer / f"Sequence {sequence}"
    seed = 10 * player + sequence
    person, joints_mm = act("running", steps, 8.0, seed=seed)
    joints_mm = joints_mm - joints_mm[:, :1] * [1, 1, 0]  # the pictures follow the player
    world = joints_mm + np.arange(steps)[:, None, None] * _RUN_MM
    rng = np.random.default_rng(seed)
    all_matrices, all_projected = [], []
    for name, azimuth in zip(CAMERAS, _AZIMUTHS, strict=True):
        far = _far_camera(azimuth)
        matrices, projected = _affine(far, joints_mm, world)
        all_matrices.append(matrices)
        all_projected.append(projected)
        if name in cameras:
            pictures = film(person, _straightened(joints_mm, far), far, PICTURE_SIZE, seed=seed)
            _write_pictures(inner / name, pictures, projected if mark else None)
    projected, matrices = np.stack(all_projected, axis=1), np.stack(all_matrices, axis=1)
    labels = projected + noise_px * rng.standard_normal(projected.shape)
    joints = convert_joints(world, skeleton("human36m17"), skeleton("lsp14"))
    shift = np.zeros((2, 4))
    shift[:, 3] = pixel_origin
    write_numbers(inner, labels + pixel_origin, joints / 1000, matrices + shift)
    if zipped:
        with zipfile.ZipFile(folder / f"{zip_name(player, sequence)}.zip", "w") as packed:
            for path in sorted(p for p in inner.rglob("*") if p.is_file()):
                packed.write(path, f"{inner.name}/{path.relative_to(inner).as_posix()}")
        shutil.rmtree(inner if bare else outer)
    return Truth(joints, labels, projected, matrices + shift, inner)


def write_numbers(folder: pathlib.Path, joints2d: np.ndarray, joints3d: np.ndarray, matrices: np.ndarray) -> None:
    """The three text files of arrays (T, 3, 14, 2), (T, 14, 3) and (T, 3, 2, 4)."""
    folder.mkdir(parents=True, exist_ok=True)
    in_order = ((POSITIONS_2D, joints2d), (POSITIONS_3D, joints3d), (CAMERAS_FILE, matrices.swapaxes(-1, -2)))
    for name, values in in_order:
        (folder / name).write_text("".join(f"{value:.9g}\n" for value in values.ravel()))


def _far_camera(azimuth: float) -> Camera:
    """A camera with a long lens, slightly skewed, that looks at a player at the origin."""
    forward = -np.array([np.cos(azimuth), np.sin(azimuth), 0.15])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = SCALE * DISTANCE_MM
    middle = np.array(PICTURE_SIZE) / 2 + [3.0, -5.0]
    intrinsics = np.array([[focal, 0.01 * focal, middle[0]], [0, 1.03 * focal, middle[1]], [0, 0, 1]])
    return Camera(rotation, np.array([0, 0, 950.0]) - DISTANCE_MM * forward, intrinsics, np.zeros(5))


def _straightened(joints_mm: np.ndarray, far: Camera) -> np.ndarray:
    """Joints (T, 17, 3) moved so that `far`, a perspective camera, shows them exactly where an affine one would.

    A joint that is nearer is brought inwards by as much as perspective brings it outwards: at most two percent.
    """
    at = world_to_camera(joints_mm, far)
    at = at * np.concatenate([at[..., 2:], at[..., 2:], np.full_like(at[..., 2:], DISTANCE_MM)], -1) / DISTANCE_MM
    return at @ far.rot_world_to_cam + far.cam_center_mm


def _affine(far: Camera, joints_mm: np.ndarray, world_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((T, 2, 4) px per metre in the world the player runs through, (T, 14, 2) px of the joints)."""
    rows = far.intrinsics[:2, :2] @ far.rot_world_to_cam[:2] / DISTANCE_MM  # (2, 3) px per mm
    moved = (world_mm - joints_mm)[:, 0]  # (T, 3)
    offset = far.intrinsics[:2, 2] - (moved + far.cam_center_mm) @ rows.T
    matrices = np.concatenate([np.broadcast_to(1000 * rows, (len(moved), 2, 3)), offset[..., None]], axis=-1)
    joints = convert_joints(world_mm, skeleton("human36m17"), skeleton("lsp14"))
    return matrices, joints @ rows.T + offset[:, None]


def _write_pictures(folder: pathlib.Path, pictures, marks: np.ndarray | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        drawn = np.ascontiguousarray(picture[..., ::-1])
        if marks is not None:
            grey = frame_grey(number + 1)
            for joint, color in ((WRIST, (255, 0, 255)), (HEAD, (grey, grey, grey))):
                where = tuple(int(v) for v in np.round(marks[number, joint] * 16))
                cv2.circle(drawn, where, 16 * 11, color, -1, cv2.LINE_AA, shift=4)
        cv2.imwrite(str(folder / f"{number + 1:05d}.png"), drawn)


def frame_grey(step: int) -> int:
    """The shade that tells a time step (1 to 12, then again), 20 apart."""
    return 10 + 20 * ((step - 1) % 12)


if __name__ == "__main__":
    write_dummy(pathlib.Path(sys.argv[1]))
