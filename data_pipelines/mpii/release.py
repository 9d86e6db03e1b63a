"""The annotation struct `RELEASE` as plain records, one a person. No files, no pictures."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.mpii.structs import field, items, number, text
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

NUM_JOINTS = skeleton("mpii16").num_joints
_PICTURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # a plain file name: nothing that leads out of images/


class Person(NamedTuple):
    """One annotated person. Pixels are as labelled: of the full picture, their origin not yet corrected.

    Attributes:
      annolist_index, annorect_index: 0-based place in RELEASE.
      image: file name in images/.
      center: (2,) px, rough; None where absent.
      scale: the person's height / 200 px; None where absent.
      joints: (16, 2) px in `mpii16` order, zeros where not labelled.
      labelled, visible: (16,) bool; a label without a word on visibility counts as visible.
      head_box: (4,) x1 y1 x2 y2 px; None where absent.
      activity: category, such as 'walking', or 'unknown'.
      train: in a picture of the training part; the others' joints are withheld.
      separated: known to stand well apart from others.
      problem: what is wrong with the annotation, or '' where nothing is.
    """

    annolist_index: int
    annorect_index: int
    image: str
    center: np.ndarray | None
    scale: float | None
    joints: np.ndarray
    labelled: np.ndarray
    visible: np.ndarray
    head_box: np.ndarray | None
    activity: str
    train: bool
    separated: bool
    problem: str = ""


def parse_release(release: Any) -> list[Person]:
    """Everybody annotated, in the order of annolist and annorect.

    Args:
      release: `RELEASE` as scipy reads it with `struct_as_record=False, squeeze_me=True`.

    Raises:
      UserError: the struct as a whole is something else; a single person's fault is that person's `problem`.
    """
    pictures = items(field(release, "annolist"))
    if not pictures:
        raise UserError("RELEASE has no annolist; expected the struct of mpii_human_pose_v1_u12_1.mat")
    count = len(pictures)
    train = _flags(field(release, "img_train"), count)
    acts = _aligned(field(release, "act"), count, "act")
    apart = _aligned(field(release, "single_person"), count, "single_person")
    people: list[Person] = []
    for index, picture in enumerate(pictures):
        rects = items(field(picture, "annorect"))
        if not rects:
            continue
        image = _picture_name(picture, index)
        activity, separated = _activity(acts[index]), _separated(apart[index], index)
        for place, rect in enumerate(rects):
            people.append(_person(rect, index, place, image, activity, train[index], place in separated))
    return people


def _flags(value: Any, count: int) -> list[bool]:
    """img_train: one number a picture."""
    try:
        flags = [number(flag) for flag in items(value)]
    except ValueError as error:
        raise UserError(f"RELEASE.img_train: {error}") from None
    if len(flags) != count or not set(flags) <= {0.0, 1.0}:
        raise UserError(f"RELEASE.img_train has {len(flags)} values, expected {count} (one a picture), each 0 or 1")
    return [flag == 1 for flag in flags]


def _aligned(value: Any, count: int, name: str) -> list[Any]:
    """A value for each picture. Of one picture the array was squeezed away; where the field is absent all are None."""
    if value is None:
        return [None] * count
    values = [value] if count == 1 else items(value)
    if len(values) != count:
        raise UserError(f"RELEASE.{name} has {len(values)} entries, expected {count}, as many as annolist")
    return values


def _picture_name(picture: Any, index: int) -> str:
    name = text(field(field(picture, "image"), "name"))
    if not _PICTURE.fullmatch(name):
        raise UserError(
            f"RELEASE.annolist({index + 1}).image.name is {name[:99]!r}, expected one such as 015601864.jpg"
        )
    return name


def _activity(act: Any) -> str:
    """The category; the activity's own name where there is none; 'unknown' where there is neither."""
    return text(field(act, "cat_name")) or text(field(act, "act_name")) or "unknown"


def _separated(value: Any, index: int) -> set[int]:
    """0-based annorect indexes of those who stand apart; stored 1-based, one of them as a bare number."""
    try:
        found = [number(place) for place in items(value)]
    except ValueError as error:
        raise UserError(f"RELEASE.single_person{{{index + 1}}}: {error}") from None
    return {int(place) - 1 for place in found if place is not None and np.isfinite(place)}


def _person(rect: Any, index: int, place: int, image: str, activity: str, train: bool, separated: bool) -> Person:
    empty = np.zeros((NUM_JOINTS, 2)), np.zeros(NUM_JOINTS, bool), np.zeros(NUM_JOINTS, bool)
    center, scale, head_box, (joints, labelled, visible), problem = None, None, None, empty, ""
    try:
        center = _numbers(field(rect, "objpos"), ("x", "y"), "objpos")
        scale = number(field(rect, "scale"))
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale:g}, expected a number above 0")
        head_box = _numbers(rect, ("x1", "y1", "x2", "y2"), "head box")
        joints, labelled, visible = parse_points(items(field(field(rect, "annopoints"), "point")))
    except ValueError as error:
        problem = f"RELEASE.annolist({index + 1}).annorect({place + 1}): {error}"
    return Person(
        index, place, image, center, scale, joints, labelled, visible, head_box, activity, train, separated, problem
    )


def _numbers(struct: Any, names: tuple[str, ...], what: str) -> np.ndarray | None:
    """Some fields as one array; None where one of them is absent."""
    values = [number(field(struct, name)) for name in names]
    if None in values:
        return None
    found = np.array(values, np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{what} is {found.tolist()}, expected finite numbers")
    return found


def parse_points(points: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(joints (16, 2) px, labelled (16,), visible (16,)) of a person's points, which come in any order.

    Raises:
      ValueError: a point has no id or place, an id is unknown or comes twice, or a place is not finite.
    """
    joints, labelled, visible = np.zeros((NUM_JOINTS, 2)), np.zeros(NUM_JOINTS, bool), np.zeros(NUM_JOINTS, bool)
    for count, point in enumerate(points, 1):
        joint, xy = number(field(point, "id")), _numbers(point, ("x", "y"), f"point({count})")
        if joint is None or joint not in range(NUM_JOINTS):
            raise ValueError(f"point({count}).id is {joint}, expected 0 to {NUM_JOINTS - 1}")
        if xy is None:
            raise ValueError(f"point({count}) has no x and y")
        if labelled[int(joint)]:
            raise ValueError(f"joint id {int(joint)} comes twice")
        seen = number(field(point, "is_visible"))
        joints[int(joint)], labelled[int(joint)] = xy, True
        visible[int(joint)] = True if seen is None else seen != 0
    return joints, labelled, visible
