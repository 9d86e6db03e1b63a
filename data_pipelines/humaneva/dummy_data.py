"""A made-up HumanEva-I in the true file formats: our people, the published camera poses, nobody's real motion.

python -m data_pipelines.humaneva.dummy_data FOLDER
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from data_pipelines.humaneva import dummy_files, files, tables
from data_pipelines.humaneva.calibration import published_pose
from data_pipelines.humaneva.dummy_body import LABELS, capture
from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.pose import Body, half_shoulders, poses
from data_pipelines.humaneva.sync import Clock
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_image
from fusion_jax.skeletons import skeleton

_MOTIONS = {
    "Walking": "walking",
    "Jog": "running",
    "ThrowCatch": "throwing",
    "Gestures": "gesturing",
    "Box": "boxing",
}
SCALE = 2.0013  # mocap rows a frame, so that most times fall between two rows
SHOULDER_OFFSETS = (41.0, 44.5)  # mm
MARK_PX = 14  # half the side of the mark
MARK_LEVELS = 8


class _Options(NamedTuple):
    """What `write_dummy` was asked for."""

    folder: pathlib.Path
    cameras: Sequence[str]
    frame_step: int
    mark: bool
    as_pictures: bool
    grey_offsets: bool
    lost: Sequence[tuple[str, str, str, int]]


class Take(NamedTuple):
    """What a performance was made from.

    Attributes:
      points: (T, P, 3) world mm as written, float32 numbers; a missing point is (0, 0, 0).
      common: mocap position of FRAME 1.
      starts: by camera, the 1-based video frame that is FRAME 1.
      joints_mm: FRAME to (15, 3) world mm.
    """

    points: np.ndarray
    common: float
    starts: dict[str, int]
    joints_mm: dict[int, np.ndarray]


class Truth(NamedTuple):
    """What a dummy dataset was made from.

    Attributes:
      cameras: of the full picture, by (subject, camera).
      bodies: by subject.
      takes: by (subject, action).
    """

    cameras: dict[tuple[str, str], Camera]
    bodies: dict[str, Body]
    takes: dict[tuple[str, str], Take]


def write_dummy(
    folder: pathlib.Path,
    *,
    actions: Sequence[str] = ("Box",),
    cameras: Sequence[str] = ("C1",),
    frame_step: int = 100,
    mark: bool = False,
    as_pictures: bool = False,
    grey_offsets: bool = True,
    lost: Sequence[tuple[str, str, str, int]] = (),
    seed: int = 0,
) -> Truth:
    """Writes S1 to S3, with the ranges of `tables.RANGES` and the starts of `tables.STARTS`.

    Args:
      folder: the manual folder to be.
      cameras: whose videos are written; calibrations and .ofs files are written for all colour cameras.
      frame_step: draws the frames that this setting keeps; the others repeat the picture before.
      mark: a grey square on the head, 16 + 32 * (0-based video frame % 8) bright, on drawn pictures.
      as_pictures: folders of numbered PNG files in place of the AVI files.
      grey_offsets: .ofs files of the four grey cameras too.
      lost: (subject, action, label, 1-based mocap row) of points that are missing.
    """
    options = _Options(pathlib.Path(folder), cameras, frame_step, mark, as_pictures, grey_offsets, lost)
    truth = Truth({}, {}, {})
    for number, subject in enumerate(tables.SUBJECTS):
        for camera in tables.COLOUR_CAMERAS:
            truth.cameras[subject, camera] = dummy_files.plausible_camera(*published_pose(subject, camera), camera)
            path = options.folder / files.calibration_name(subject, camera)
            dummy_files.write_cal(path, truth.cameras[subject, camera])
        truth.bodies[subject] = _write_body(options.folder, subject, seed + number)
        for action in actions:
            _write_take(options, subject, action, truth, seed + number)
    return truth


def _write_body(folder: pathlib.Path, subject: str, seed: int) -> Body:
    _, joints = act("gesturing", 4, tables.MOCAP_HZ, seed)
    points = capture(joints)
    points[1, LABELS.index("LSHO")] = 0  # a marker that is lost for a moment
    dummy_files.write_c3d(folder / files.static_name(subject), [f"{subject}:{label}" for label in LABELS], points)
    path = folder / files.params_name(subject)
    measures = dict(zip(("LShoulderOffset", "RShoulderOffset"), SHOULDER_OFFSETS, strict=True))
    dummy_files.write_mp(path, {"LKneeWidth": 105.0, **measures, "HeadOffset": 0.0})
    return Body(half_shoulders(_as_points(points)), SHOULDER_OFFSETS)


def _write_take(options: _Options, subject: str, action: str, truth: Truth, seed: int) -> None:
    starts, common = _starts(subject, action)
    clock = Clock(common, SCALE, {camera: round(start) for camera, start in starts.items()})
    halves = tables.halves(subject, action)
    frames = np.array([f for half in halves for f in tables.frames_kept(*half, options.frame_step)])
    positions = clock.mocap_positions(frames)
    rows = int(np.ceil(clock.mocap_positions(np.array(halves[1][1])))) + 2
    person, acted = act(_MOTIONS[action], rows, tables.MOCAP_HZ, seed)
    whole = capture(acted)
    points = whole.copy()
    for *take, label, row in options.lost:
        if take == [subject, action]:
            points[row - 1, LABELS.index(label)] = 0
    names = [f"{subject}:{label}" for label in LABELS]
    dummy_files.write_c3d(options.folder / files.mocap_name(subject, action), names, points)
    for camera in tables.CLOCK_CAMERAS if options.grey_offsets else tables.COLOUR_CAMERAS:
        path = options.folder / files.offsets_name(subject, action, camera)
        dummy_files.write_ofs(path, starts[camera], common, SCALE)
    joints, why = poses(_as_points(points), positions, truth.bodies[subject])
    known = dict(zip(frames[why == ""].tolist(), joints[why == ""], strict=True))
    truth.takes[subject, action] = Take(points, common, dict(clock.starts), known)
    # The person is drawn where the joints are; what HumanEva has no joint for comes from the performance.
    joints, _ = poses(_as_points(whole), positions, truth.bodies[subject])
    drawn = _dressed(joints, acted[np.floor(positions).astype(int) - 1])
    for camera in options.cameras:
        view = truth.cameras[subject, camera]
        pictures = list(film(person, drawn, view, tables.COLOUR_SIZE, seed))
        shown = clock.video_frames(camera, frames)
        if options.mark:
            heads = world_to_image(joints[:, -1:], view)[:, 0]
            pictures = [_marked(p, at, int(n)) for p, at, n in zip(pictures, heads, shown, strict=True)]
        write = dummy_files.write_pictures if options.as_pictures else dummy_files.write_avi
        path = options.folder / files.video_name(subject, action, camera)
        write(path, dict(zip(shown.tolist(), pictures, strict=True)), clock.starts[camera] + halves[1][1] - 1)


def _starts(subject: str, action: str) -> tuple[dict[str, float], float]:
    """The video frame with the common mocap position, by camera and not rounded, and that position.

    Videos that begin before the motion capture wait for its row 1; those that do not begin at frame 1 of the earliest.
    """
    published = tables.STARTS[subject, action]
    at_once = min(published) == 1
    shift = dict(zip(tables.CLOCK_CAMERAS, (0.0, 0.25, 0.4, 0.3, 0.1, 0.2, 0.35), strict=True))
    starts = {camera: max(published) + shift[camera] for camera in tables.CLOCK_CAMERAS}
    for camera, start in zip(tables.COLOUR_CAMERAS, published, strict=True):
        starts[camera] = start + (shift[camera] if at_once else shift[camera] - 0.2)
    return starts, 5.3 if at_once else 1.0


def _dressed(joints: np.ndarray, acted: np.ndarray) -> np.ndarray:
    """`human36m17` joints (F, 17, 3) with `humaneva15`'s where both have one."""
    whole, known = skeleton("human36m17"), skeleton("humaneva15")
    drawn = acted.copy()
    for name in known.joints:
        if name in whole.joints:
            drawn[:, whole.index(name)] = joints[:, known.index(name)]
    drawn[:, whole.index("head_top")] = joints[:, known.index("head")]
    spine, pelvis, thorax = (whole.index(name) for name in ("spine", "pelvis", "thorax"))
    drawn[:, spine] = (drawn[:, pelvis] + drawn[:, thorax]) / 2
    nose, top = whole.index("nose"), whole.index("head_top")
    drawn[:, nose] = drawn[:, thorax] + (drawn[:, top] - drawn[:, thorax]) * 0.55
    return drawn


def _marked(picture: np.ndarray, at: np.ndarray, number: int) -> np.ndarray:
    x, y = (round(float(v)) for v in at)
    level = 16 + 32 * (number % MARK_LEVELS)
    corners = (x - MARK_PX, y - MARK_PX), (x + MARK_PX, y + MARK_PX)
    return cv2.rectangle(picture.copy(), *corners, (level, level, level), cv2.FILLED)


def _as_points(points: np.ndarray) -> Points:
    xyz = np.where((points == 0).all(-1, keepdims=True), np.nan, points)
    return Points("dummy", list(LABELS), xyz, tables.MOCAP_HZ)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m data_pipelines.humaneva.dummy_data FOLDER")
    write_dummy(pathlib.Path(sys.argv[1]))
    print(f"written {sys.argv[1]}; prepare it with --actions Box --cameras C1 --frame-step 100")
