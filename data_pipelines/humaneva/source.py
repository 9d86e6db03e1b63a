"""HumanEva-I's raw files as a `Source`: a part is one half of one video."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.crops import MAX_SIDE, person_example
from data_pipelines.humaneva import files, inventory, tables
from data_pipelines.humaneva.calibration import check_pose, read_camera
from data_pipelines.humaneva.picture_folder import PictureFolder, open_pictures
from data_pipelines.humaneva.recording import Recording, read_recording
from data_pipelines.humaneva.settings import HumanevaSettings
from data_pipelines.humaneva.sync import check_start
from data_pipelines.source import Item, Part, Source, Tally
from data_pipelines.video import Video
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, square_box, world_to_camera, world_to_image
from fusion_jax.skeletons import skeleton

_THORAX, _HEAD = (skeleton("humaneva15").index(joint) for joint in ("thorax", "head"))
_NEAREST_MM = 200.0  # a joint this close to the camera's plane has no picture

DAMAGED = "frames of S3 ThrowCatch 1, whose motion capture is damaged"
OUT_OF_SIGHT = "frames in which the person is not in the picture"
HEAD_ON_CHEST = "heads of S3 Walking 1 below the thorax (the joint is masked, its frame is kept)"


class _Job(NamedTuple):
    subject: str
    action: str
    camera: str
    first: int
    last: int


class HumanevaSource(Source):
    """HumanEva-I in a folder that holds S1, S2 and S3, or the archives with them."""

    name = "humaneva"
    skeleton_name = "humaneva15"
    people_shared = True
    settings: HumanevaSettings

    def inventory(self) -> Iterator[Item]:
        """Every file of the chosen cameras and actions, folder by folder, and whether it can be what it should."""
        return inventory.items(self.manual_dir, self.settings)

    def parts(self) -> list[Part]:
        """Both halves of trial 1 of every chosen action and camera: the first tests, the second trains."""
        found = []
        for subject in tables.SUBJECTS:
            trains = "validation" if subject in self.settings.validation_subjects else "train"
            for action in self.settings.actions:
                for camera in self.settings.cameras:
                    for split, half in zip(("test", trains), tables.halves(subject, action), strict=True):
                        found.append(self._part(split, _Job(subject, action, camera, *half)))
        return found

    def _part(self, split: str, job: _Job) -> Part:
        recording = tables.recording(job.subject, job.action)
        return Part(
            split=split,
            name=f"{recording}/{job.camera}/{job.first}-{job.last}",
            subject=job.subject,
            recording=recording,
            first=job.first,
            last=job.last,
            examples=tables.count_kept(job.first, job.last, self.settings.frame_step),
            files=() if self._dropped(job) else tuple(self._files(job)),
            job=job,
        )

    def _dropped(self, job: _Job) -> bool:
        return self.settings.damaged == "drop" and is_damaged(job.subject, job.action)

    def _files(self, job: _Job) -> Iterator[pathlib.Path]:
        subject, action, camera = job[:3]
        for name in (
            files.video_name(subject, action, camera),
            files.mocap_name(subject, action),
            files.static_name(subject),
            files.params_name(subject),
            files.calibration_name(subject, camera),
        ):
            path = files.find(self.manual_dir, name)
            yield files.stand_in(path) or path
        yield from files.find_offsets(self.manual_dir, subject, action).values()

    def read(self, part: Part, tally: Tally) -> Iterator[dict[str, Any]]:
        """The examples of one half of a video.

        Raises:
          UserError: a file is missing or wrong.
        """
        job: _Job = part.job
        subject, action, name = job[:3]
        if self._dropped(job):
            tally.skip(DAMAGED, part.examples)
            return
        recording = read_recording(self.manual_dir, subject, action, name)
        calibration = files.find(self.manual_dir, files.calibration_name(subject, name))
        camera = read_camera(calibration)
        oddities = (
            (calibration, check_pose(camera, subject, name)),
            (files.find_offsets(self.manual_dir, subject, action)[name], check_start(recording.clock, *job[:3])),
        )
        for path, oddity in oddities:
            if oddity:
                tally.fault(f"{path}: {oddity}")
        if any(oddity for _, oddity in oddities):
            return  # picture and pose would not belong together
        frames, joints = self._known(job, recording, tally)
        path = files.find(self.manual_dir, files.video_name(subject, action, name))
        with open_pictures(path) as pictures:
            check_size(pictures)
            for frame, pose, picture in _pictured(frames, joints, recording, job, pictures, tally):
                example = self._example(job, camera, frame, pose, picture, tally)
                if example is not None:
                    yield example

    def _known(self, job: _Job, recording: Recording, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """The frames (F,) of a half whose pose is known, and their joints (F, 15, 3); the others are counted."""
        frames = np.array(tables.frames_kept(job.first, job.last, self.settings.frame_step))
        joints, why = recording.joints(frames)
        counts = collections.Counter(str(reason) for reason in why if reason)
        for reason, count in counts.items():
            tally.skip(reason, count)
        good = why == ""
        if not good.any():
            said = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            tally.fault(
                f"{recording.points.where}: no pose for any of the frames {job.first}-{job.last} ({said}); "
                "fetch the file and its .ofs files again"
            )
        return frames[good], joints[good]

    def _example(
        self, job: _Job, camera: Camera, frame: int, joints: np.ndarray, picture: np.ndarray, tally: Tally
    ) -> dict[str, Any] | None:
        joints2d = world_to_image(joints, camera)
        valid = np.ones(len(joints), bool)
        if self.settings.head_check and is_head_on_chest(job.subject, job.action, joints2d):
            valid[_HEAD] = False
            tally.skip(HEAD_ON_CHEST)
        in_front = (world_to_camera(joints, camera)[valid, 2] > _NEAREST_MM).all()
        box = square_box(joints2d, self.settings.box_margin, keep=valid) if in_front else None
        if box is None or not _in_sight(box, picture):
            tally.skip(OUT_OF_SIGHT)
            return None
        return person_example(
            picture,
            box,
            self.settings.size,
            joints_world_mm=joints,
            valid=valid,
            joints2d_px=joints2d,
            valid2d=valid,
            camera=camera,
            camera_name=job.camera,
            subject=job.subject,
            action=job.action,
            sequence=tables.recording(job.subject, job.action),
            frame=frame,
        )

    def description(self) -> dict[str, Any]:
        """What a table's protocol says of the data."""
        s = self.settings
        damaged = "left out" if s.damaged == "drop" else "kept, though its motion capture is damaged"
        heads = "masked where below the thorax" if s.head_check else "not checked"
        train = [subject for subject in tables.SUBJECTS if subject not in s.validation_subjects]
        step = "every frame" if s.frame_step == 1 else f"every {s.frame_step}th frame of each half"
        held_out = f"; validation: the training halves of {', '.join(s.validation_subjects)}"
        return {
            "frames": f"trial 1 at 60 Hz, {step}, where the motion capture is valid",
            "splits": f"test: validation halves of S1, S2, S3; train: training halves of {', '.join(train)}"
            + (held_out if s.validation_subjects else ""),
            "actions": ", ".join(s.actions),
            "cameras": f"{', '.join(s.cameras)}, each view on its own; lenses as calibrated, skew in the intrinsics",
            "joints": "15, from the motion capture's segments with the dataset's two corrections; 2D: their projection",
            "boxes": f"square around the joints, {s.box_margin:g} of it added at each side",
            "S3 ThrowCatch 1": damaged,
            "head of S3 Walking 1": heads,
            "terms": "no redistribution; Sigal, Balan, Black, IJCV 2010",
        }


def is_damaged(subject: str, action: str) -> bool:
    """S3's ThrowCatch 1 has damaged motion capture; others leave it out."""
    return (subject, action) == ("S3", "ThrowCatch")


def is_head_on_chest(subject: str, action: str, joints2d_px: np.ndarray) -> bool:
    """S3's Walking 1 has the head's point on the chest in most frames: there it lies below the thorax in the picture.

    Args:
      joints2d_px: (15, 2), y down.
    """
    return (subject, action) == ("S3", "Walking") and bool(joints2d_px[_HEAD, 1] > joints2d_px[_THORAX, 1])


def check_size(pictures: Video | PictureFolder) -> None:
    """Raises UserError where a colour video has not the size that its calibration is for."""
    if pictures.size != tables.COLOUR_SIZE:
        found, expected = (" x ".join(map(str, size)) for size in (pictures.size, tables.COLOUR_SIZE))
        raise UserError(
            f"{pictures.path} is {found} px, expected {expected}; a resized video does not fit its .cal file"
        )


def _pictured(
    frames: np.ndarray,
    joints: np.ndarray,
    recording: Recording,
    job: _Job,
    pictures: Video | PictureFolder,
    tally: Tally,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(FRAME, joints (15, 3), picture) for as long as there are pictures; a video that is too short is a fault.

    One that decodes to fewer pictures than its header announces is noted, not a fault: whether the released files
    announce exactly what they hold is unconfirmed.
    """
    wanted = recording.clock.video_frames(job.camera, frames)
    shown = 0
    for (_, picture), frame, pose in zip(pictures.frames(wanted), frames, joints, strict=False):
        yield int(frame), pose, picture
        shown += 1
    if shown < len(wanted):
        tally.fault(
            f"{pictures.path} ends before picture {int(wanted[shown]) + 1}; frames {job.first}-{job.last} need "
            f"{int(wanted[-1]) + 1}: it is cut off, fetch it again"
        )
    elif shown and isinstance(pictures, Video) and (lacking := pictures.decodes_fewer(int(wanted[-1]) + 1)):
        tally.note(
            f"{pictures.path}: its header announces {lacking} pictures more than can be decoded; pictures after a "
            "damaged place would not belong to their poses"
        )


def _in_sight(box: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a box overlaps the picture by more than a pixel and is of a size that can be cut."""
    left, top, side = box
    height, width = picture.shape[:2]
    return bool(side < MAX_SIDE and left < width - 2 and top < height - 2 and left + side > 1 and top + side > 1)
