"""One view, a sequence seen by one camera, to its examples: video, poses and boxes brought together."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data_pipelines.crops import person_example
from data_pipelines.human36m import boxes, faults
from data_pipelines.human36m.cameras import camera, project
from data_pipelines.human36m.checks import check_enough, check_size, check_video
from data_pipelines.human36m.masks import Masks
from data_pipelines.human36m.poses import USUAL_17, read_world_poses
from data_pipelines.human36m.sequences import Sequence
from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.source import Example, Tally
from data_pipelines.video import Video
from fusion_jax.errors import UserError
from fusion_jax.geometry import world_to_camera

EMPTY_MASK = "where a mask is empty the box is around the joints"
NOBODY = "frames whose person is outside the picture"

BoxOf = Callable[[int, np.ndarray, np.ndarray], np.ndarray]  # (row, camera-frame joints, pixels) to a box


class View(NamedTuple):
    """What a part is read from.

    Attributes:
      sequence: the performance.
      camera_name: who saw it.
      poses, video, masks: the files; `masks` is read only where boxes come from it.
    """

    sequence: Sequence
    camera_name: str
    poses: pathlib.Path
    video: pathlib.Path
    masks: pathlib.Path


def examples(view: View, settings: Human36mSettings, tally: Tally) -> Iterator[Example]:
    """The examples of every `frame_step`th pose row, video frame i with row i, both counted from the start.

    A video may go on after the last pose; those frames belong to no pose and are not read.

    Raises:
      UserError: the poses, the video or the masks cannot be used.
    """
    sequence, seen_by = view.sequence, camera(view.sequence.subject, view.camera_name)
    stored = read_world_poses(view.poses, sequence)[:, USUAL_17]
    mended = settings.shift_s9 and faults.is_displaced(sequence)
    joints = faults.move_back(stored) if mended else stored
    wanted = np.arange(0, sequence.rows, settings.frame_step)
    everything = np.ones(len(USUAL_17), bool)
    with Video(view.video) as video, contextlib.ExitStack() as stack:
        short = _admit(video, view, tally)
        box_of = _box_maker(view, settings, stored, video.size, tally, stack)
        last = -1
        for row, picture in video.frames(wanted):
            last = row
            size = picture.shape[1], picture.shape[0]
            check_size(view.video, size, sequence, view.camera_name)
            in_camera = world_to_camera(joints[row], seen_by)
            if in_camera[:, 2].min() <= 0:
                tally.fault(f"{view.poses}: row {row} lies behind camera {view.camera_name}; download it again")
                continue
            joints_px = project(in_camera, seen_by, settings.projection)
            box = box_of(row, in_camera, joints_px)
            if not boxes.inside(box, size):
                tally.skip(NOBODY)
                continue
            try:
                example = person_example(
                    picture, box, settings.size, joints_world_mm=joints[row], valid=everything, joints2d_px=joints_px,
                    valid2d=everything, camera=seen_by, camera_name=view.camera_name, subject=sequence.subject,
                    action=sequence.action, sequence=sequence.name, frame=row,
                )  # fmt: skip
            except UserError as error:  # a box of absurd size: a joint beside the lens
                tally.fault(f"{view.poses}: row {row} cannot be cut out ({error}); download it again")
                continue
            yield example
        if last != wanted[-1] and not short:
            tally.fault(
                f"{view.video} cannot be decoded beyond frame {last} of the {sequence.rows} that have poses; "
                "it is damaged, download it again"
            )


def _admit(video: Video, view: View, tally: Tally) -> bool:
    """Whether a video's header says that it is too short, which is a fault; one of something else is an error."""
    check_video(video, view.sequence, view.camera_name)
    try:
        check_enough(video, view.sequence)
    except UserError as error:
        tally.fault(str(error))
        return True
    return False


def _box_maker(
    view: View,
    settings: Human36mSettings,
    stored_mm: np.ndarray,
    size: tuple[int, int],
    tally: Tally,
    stack: contextlib.ExitStack,
) -> BoxOf:
    """How this view's boxes are made; opens the masks where they are needed."""
    seen_by = camera(view.sequence.subject, view.camera_name)
    if settings.boxes == "room":
        return lambda row, joints_mm, joints_px: boxes.room_box(joints_mm[0], seen_by, settings.projection)
    if settings.boxes == "joints":
        return lambda row, joints_mm, joints_px: boxes.joints_box(joints_px, settings.margin)
    masks = stack.enter_context(Masks(view.masks, size))
    move = settings.shift_s9 and faults.is_displaced(view.sequence)

    def from_mask(row: int, joints_mm: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
        if row >= len(masks):
            raise UserError(
                f"{view.masks} has {len(masks)} masks for {view.sequence.rows} pose rows; download it again"
            )
        rectangle = masks.rectangle(row)
        if rectangle is None:
            tally.note(EMPTY_MASK)
            return boxes.joints_box(joints_px, settings.margin)
        if move:
            rectangle = faults.move_rectangle_back(rectangle, stored_mm[row, 0], seen_by, settings.projection)
        return boxes.rectangle_box(rectangle)

    return from_mask
