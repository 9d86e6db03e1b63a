"""Writers of HumanEva-I's file formats, for made-up data."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Mapping, Sequence

import c3d
import cv2
import numpy as np

from data_pipelines.humaneva import tables
from fusion_jax.geometry import Camera


def plausible_camera(rotation: np.ndarray, centre: np.ndarray, name: str) -> Camera:
    """A camera at a published pose; its intrinsic numbers, which are not published, are made up."""
    n = tables.COLOUR_CAMERAS.index(name)
    focal = np.array([762.0, 758.5]) + 7 * n
    skew = 0.0015 * (n - 1)
    intrinsics = np.array([[focal[0], focal[0] * skew, 321.4 - 3 * n], [0, focal[1], 238.2 + 2 * n], [0, 0, 1]])
    return Camera(rotation, centre, intrinsics, np.array([-0.19 + 0.01 * n, 0.17, 0.0006, -0.0009, 0.0]))


def write_cal(path: pathlib.Path, camera: Camera) -> None:
    """The 22 numbers of a `.cal` file, one a line."""
    fx, skew, cx = camera.intrinsics[0]
    fy, cy = camera.intrinsics[1, 1:]
    translation = -camera.rot_world_to_cam @ camera.cam_center_mm
    numbers = [fx, fy, cx, cy, skew / fx, *camera.distortion, *camera.rot_world_to_cam.ravel(), *translation]
    _write_text(path, "".join(f"{float(number)!r}\r\n" for number in numbers))


def write_ofs(path: pathlib.Path, start: float, common: float, scale: float) -> None:
    """An `.ofs` file that puts mocap position `common` at video frame `start` (1-based, not rounded)."""
    im_st = 40.0
    mc_st = common + (im_st - start) * scale
    _write_text(path, f"{im_st!r}\n{float(mc_st)!r}\n{scale!r}\n")


def write_mp(path: pathlib.Path, values: Mapping[str, float]) -> None:
    """An `.mp` file."""
    _write_text(path, "".join(f"${name} = {value!r}\r\n" for name, value in values.items()))


def write_c3d(
    path: pathlib.Path, labels: Sequence[str], points: np.ndarray, *, rate: float = 120.0, scale: float = -1.0
) -> None:
    """Points (T, P, 3) mm as a C3D file; (0, 0, 0) is missing.

    Args:
      rate: rows a second.
      scale: negative for float32 numbers; positive for int16 times it.
    """
    writer = c3d.Writer(point_rate=rate, point_scale=scale)
    writer.set_point_labels(list(labels))
    no_analog = np.zeros((0, 0), np.float32)
    for row in points:  # residuals and cameras 0: the dataset's own sign of a missing point is (0, 0, 0)
        writer.add_frames([(np.pad(row, ((0, 0), (0, 2))).astype(np.float32), no_analog)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no analogue samples
        writer.write(file)


def write_avi(path: pathlib.Path, pictures: Mapping[int, np.ndarray], count: int) -> None:
    """An XVID video of `count` frames at 60 Hz; frames without a picture (H, W, 3) RGB repeat the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"XVID"), tables.FPS, _size(pictures))
    for picture in _all(pictures, count):
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()


def write_pictures(path: pathlib.Path, pictures: Mapping[int, np.ndarray], count: int) -> None:
    """The folder of numbered PNG files that can stand in for a video."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(_all(pictures, count)):
        cv2.imwrite(str(folder / f"image{number + 1:04d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _all(pictures: Mapping[int, np.ndarray], count: int):
    picture = pictures[min(pictures)]
    for number in range(count):
        picture = pictures.get(number, picture)
        yield picture


def _size(pictures: Mapping[int, np.ndarray]) -> tuple[int, int]:
    height, width = pictures[min(pictures)].shape[:2]
    return width, height


def _write_text(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
