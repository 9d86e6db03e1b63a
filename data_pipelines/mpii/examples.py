"""One annotated person and their picture to one example. No files."""

from __future__ import annotations

import pathlib

import numpy as np

from data_pipelines.crops import person_example
from data_pipelines.mpii.crop import head_size, hourglass_box, joints_box
from data_pipelines.mpii.settings import MpiiSettings
from data_pipelines.mpii.splits import Numbered
from data_pipelines.source import Example, Tally
from fusion_jax.errors import UserError

_EDGE = 1.0  # a label at or left of this column counts as absent in the hourglass's original code


def make_example(one: Numbered, picture: np.ndarray, settings: MpiiSettings, tally: Tally) -> Example | None:
    """The example of one person in their picture (H, W, 3); None, and counted, where nothing says what to cut.

    Raises:
      UserError: no joint lies in the picture, or the box cannot be cut from it.
    """
    who = one.person
    known = who.labelled & (who.joints[:, 0] > _EDGE) if settings.left_edge_absent else who.labelled
    box = _box(one, known, settings, tally)
    if box is None:
        return None
    joints = who.joints - settings.pixel_origin
    _check_in_picture(one, joints, picture)
    return person_example(
        picture,
        box - np.array([settings.pixel_origin, settings.pixel_origin, 0]),
        settings.size,
        joints_world_mm=np.zeros((len(joints), 3)),
        valid=np.zeros(len(joints), bool),
        joints2d_px=joints,
        valid2d=known,
        visible=who.visible & known,
        head_size_px=head_size(who.head_box),
        camera_name=pathlib.PurePosixPath(who.image).stem,
        subject="",
        action=who.activity,
        sequence="mpii",
        frame=one.number,
    )


def _box(one: Numbered, known: np.ndarray, settings: MpiiSettings, tally: Tally) -> np.ndarray | None:
    """The square to cut, px as labelled."""
    who = one.person
    if settings.crop == "hourglass":
        if who.center is not None and who.scale is not None:
            return hourglass_box(who.center, who.scale)
        tally.skip("people without centre or scale, which the hourglass's crop needs")
        return None
    if known.sum() >= 2:
        return joints_box(who.joints, known)
    tally.skip("people with fewer than two joints, around which no box can be laid")
    return None


def _check_in_picture(one: Numbered, joints: np.ndarray, picture: np.ndarray) -> None:
    """Some labels lie outside; where all of one person's do, the labels are of another picture, or another size."""
    who, (height, width) = one.person, picture.shape[:2]
    inside = np.all((joints >= -1) & (joints <= (width, height)), axis=-1)
    if not np.any(inside & who.labelled):
        raise UserError(
            f"no joint of annolist({who.annolist_index + 1}).annorect({who.annorect_index + 1}) lies in the "
            f"{width} x {height} picture; it is not the one that was labelled, download it again"
        )
