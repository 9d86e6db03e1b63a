"""A made-up raw tree of Human3.6M in its true formats: our own people, filmed by the dataset's cameras.

python -m data_pipelines.human36m.dummy_data FOLDER
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from data_pipelines.human36m.cameras import CAMERAS, camera, picture_sizes, project_published
from data_pipelines.human36m.dummy_files import FPS, write_cdf, write_masks, write_video
from data_pipelines.human36m.files import MASKS, POSES, POSES_2D, POSES_CAMERA, VIDEOS, Kind, file_name
from data_pipelines.human36m.poses import NUM_JOINTS, USUAL_17
from data_pipelines.human36m.sequences import Sequence, canonical_action
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_camera

SEQUENCES: Mapping[str, tuple[str, ...]] = {
    "S1": ("TakingPhoto 1",),
    "S8": ("Photo",),
    "S9": ("SittingDown 1",),
    "S11": ("Directions",),
}
_ACTS = {"Phoning": "phoning", "Sitting": "sitting", "SittingDown": "squatting", "Walking": "walking"}
HEAD_TOP, MARK_PX = 10, 13  # of `human36m17`; radius of the disc drawn there
# Where the joints are that our people lack: (joint of the 32, joint it goes with, offset in mm).
_OTHERS = (
    *((4, 3, (0, 120, -60)), (5, 3, (0, 180, -60)), (9, 8, (0, 120, -60)), (10, 8, (0, 180, -60)), (11, 0, (0, 0, 0))),
    *((16, 13, (0, 0, 0)), (24, 13, (0, 0, 0)), (20, 19, (0, 0, 0)), (21, 19, (0, 40, -40)), (22, 19, (0, 0, -80))),
    *((23, 19, (0, 0, -80)), (28, 27, (0, 0, 0)), (29, 27, (0, 40, -40)), (30, 27, (0, 0, -80)), (31, 27, (0, 0, -80))),
)


class Truth(NamedTuple):
    """What a tree was made from.

    Attributes:
      table: file with the sequences and row counts of this tree, for the setting `table`.
      joints_world_mm: (N, 32, 3) by sequence name, such as 'S9/SittingDown 1'.
      joints2d_px: (N, 17, 2) by (sequence name, camera), px of the full picture, by OpenCV's own projection.
      rectangles: (N, 4) by the same: left, top, right, bottom edges of the masks, px.
      cameras: by (subject, camera).
    """

    table: pathlib.Path
    joints_world_mm: dict[str, np.ndarray]
    joints2d_px: dict[tuple[str, str], np.ndarray]
    rectangles: dict[tuple[str, str], np.ndarray]
    cameras: dict[tuple[str, str], Camera]


def write_dummy(
    folder: pathlib.Path,
    sequences: Mapping[str, tuple[str, ...]] = SEQUENCES,
    *,
    rows: int = 6,
    extra_frames: int = 2,
    optional: bool = True,
    mark: bool = False,
    cameras: Iterable[str] = CAMERAS,
) -> Truth:
    """Writes a tree like the unpacked dataset's, with fewer and shorter sequences.

    Args:
      folder: gets S1/ ... and the table `sequences.txt`.
      sequences: stems by subject, in the dataset's names.
      rows: of each pose file.
      extra_frames: by which videos go on after the poses.
      optional: masks, 2D poses and poses in camera frames too.
      mark: a magenta disc on the head's top, and the frame's number as a shade of grey on the pelvis.
      cameras: those with a video.
    """
    truth = Truth(folder / "sequences.txt", {}, {}, {}, {})
    listed = [
        Sequence(subject, canonical_action(stem), 1, stem, rows)
        for subject, stems in sequences.items()
        for stem in stems
    ]
    for number, sequence in enumerate(listed):
        person, joints17 = act(_ACTS.get(sequence.action, "gesturing"), rows + extra_frames, FPS, number)
        joints = all_joints(joints17)
        truth.joints_world_mm[sequence.name] = joints[:rows]
        write_cdf(_place(folder, POSES, sequence), joints[:rows].reshape(1, rows, -1))
        for name in cameras:
            seen_by, size = camera(sequence.subject, name), picture_sizes(sequence.subject, name)[0]
            pictures = film(person, joints17, seen_by, size, number)
            px = opencv_pixels(joints17, seen_by)
            write_video(
                _place(folder, VIDEOS, sequence, name),
                (marked(p, n, px[n]) if mark else p for n, p in enumerate(pictures)),
                size,
            )
            truth.cameras[sequence.subject, name] = seen_by
            truth.joints2d_px[sequence.name, name] = px[:rows]
            low, high = np.floor(px[:rows].min(1)) - 20.5, np.ceil(px[:rows].max(1)) + 20.5
            truth.rectangles[sequence.name, name] = np.concatenate([low, high], axis=1)
            if optional:
                _write_optional(folder, sequence, name, truth)
        _write_miscellaneous(folder, sequence.subject)
    lines = [f"{s.subject}\t{s.action}\t{s.recording}\t{s.stem}\t{s.rows}" for s in listed]
    truth.table.write_text("\n".join(["# made up, not the dataset's", *lines]) + "\n", "utf-8")
    return truth


def all_joints(joints17: np.ndarray) -> np.ndarray:
    """The dataset's 32 joints (N, 32, 3) mm around 17."""
    joints = np.zeros((len(joints17), NUM_JOINTS, 3))
    joints[:, USUAL_17] = joints17
    for joint, near, offset in _OTHERS:
        joints[:, joint] = joints[:, near] + np.array(offset)
    return joints.astype(np.float32).astype(np.float64)  # what the file keeps


def opencv_pixels(joints_mm: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels (N, J, 2) of world points (N, J, 3) mm by OpenCV itself."""
    rotation = np.asarray(camera.rot_world_to_cam, np.float64)
    px, _ = cv2.projectPoints(
        joints_mm.reshape(-1, 1, 3), rotation, -rotation @ camera.cam_center_mm, camera.intrinsics, camera.distortion
    )
    return px.reshape(*joints_mm.shape[:2], 2)


def marked(picture: np.ndarray, number: int, joints_px: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) with a magenta disc on the head's top and the shade `shade(number)` on the pelvis."""
    for joint, colour in ((HEAD_TOP, (255, 0, 255)), (0, (shade(number),) * 3)):
        x, y = (round(16 * float(v)) for v in joints_px[joint])
        cv2.circle(picture, (x, y), MARK_PX * 16, colour, -1, cv2.LINE_AA, shift=4)
    return picture


def shade(number: int) -> int:
    """A grey that tells frames apart, 24 steps from one frame to the next."""
    return 12 + 24 * number % 240


def _write_optional(folder: pathlib.Path, sequence: Sequence, name: str, truth: Truth) -> None:
    seen_by, joints = truth.cameras[sequence.subject, name], truth.joints_world_mm[sequence.name]
    in_camera = world_to_camera(joints.reshape(-1, 3), seen_by)
    px = project_published(in_camera, seen_by)
    write_cdf(_place(folder, POSES_CAMERA, sequence, name), in_camera.reshape(1, len(joints), -1))
    write_cdf(_place(folder, POSES_2D, sequence, name), px.reshape(1, len(joints), -1))
    rectangles = truth.rectangles[sequence.name, name]
    write_masks(_place(folder, MASKS, sequence, name), rectangles, picture_sizes(sequence.subject, name)[0])


def _write_miscellaneous(folder: pathlib.Path, subject: str) -> None:
    """The `_ALL` recording, which nobody may open: these are no videos and poses."""
    for kind, stem in ((VIDEOS, "_ALL"), (VIDEOS, "_ALL 1"), (POSES, "_ALL")):
        (folder / subject / kind.folder / file_name(kind, stem, CAMERAS[0])).write_bytes(b"not to be read")


def _place(folder: pathlib.Path, kind: Kind, sequence: Sequence, camera_name: str = "") -> pathlib.Path:
    return folder / sequence.subject / kind.folder / file_name(kind, sequence.stem, camera_name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {__spec__.name} FOLDER")
    made = write_dummy(pathlib.Path(sys.argv[1]))
    chosen = f"--subjects {' '.join(SEQUENCES)} --table {made.table}"
    print(f"written {sys.argv[1]}; try: fusion-jax check-data human36m --manual-dir {sys.argv[1]} {chosen}")
