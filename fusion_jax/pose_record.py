"""What is found out about one person in a picture, as a record and as JSON. NumPy only."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import typing
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.skeletons import SKELETONS, Skeleton

BoxSource = Literal["given", "detected", "tracked", "picture"]

UNIT = "mm"
FRAME = "camera: x right, y down, z away from the camera; relative to the root"
PIXELS = "px of the original picture, (0, 0) is the centre of its top left pixel"


@dataclasses.dataclass(frozen=True, eq=False)
class PersonPose:
    """One person: the 3D pose, the 2D joints it was found with, where the person was looked for, and by whom.

    Arrays are converted to the types below. Two records are equal only if they are the same object.

    Attributes:
      skeleton: layout of `pose_mm`, a key of SKELETONS.
      pose_mm: (J, 3) float32, mm, camera frame (x right, y down, z away), relative to the root of the skeleton.
      heatmap_skeleton: layout of `joints2d_px`.
      joints2d_px: (K, 2) float32, px of the original picture, (0, 0) the centre of its top left pixel.
      confidence: (K,) float32 in [0, 1], the peak of each joint's heatmap.
      box: (4,) float64 [x, y, width, height] px, edges, the person in the original picture.
      box_source: who said where the person is: the user, the detector, the detector in an earlier frame of a video,
        or nobody, so that it is the whole picture.
      crop: (3,) float64 [left, top, side] px, edges, the square that the networks saw.
      pose_network: identity of the fusion network's weights, such as 'runs/demo/learned, step 1000, sha256 1a2b3c4d'.
      heatmap_network: the same of the 2D network.
      position_mm: (3,) float32, the root joint in the camera frame, mm; None where the camera is not known.
      track: in videos, the same person has the same number over frames; None elsewhere.

    Raises:
      UserError: a field has the wrong shape, is not finite or out of its range; the text names it.
    """

    skeleton: str
    pose_mm: np.ndarray
    heatmap_skeleton: str
    joints2d_px: np.ndarray
    confidence: np.ndarray
    box: np.ndarray
    box_source: BoxSource
    crop: np.ndarray
    pose_network: str
    heatmap_network: str
    position_mm: np.ndarray | None = None
    track: int | None = None

    def __post_init__(self):
        j = _layout(self.skeleton, "skeleton").num_joints
        k = _layout(self.heatmap_skeleton, "heatmap_skeleton").num_joints
        self._convert("pose_mm", (j, 3), np.float32)
        self._convert("joints2d_px", (k, 2), np.float32)
        self._convert("confidence", (k,), np.float32)
        self._convert("box", (4,), np.float64)
        self._convert("crop", (3,), np.float64)
        if self.position_mm is not None:
            self._convert("position_mm", (3,), np.float32)
        unit_range = bool((self.confidence >= 0).all() and (self.confidence <= 1).all())
        _check(unit_range, "confidence", self.confidence.tolist(), "numbers from 0 to 1")
        _check(bool((self.box[2:] > 0).all()), "box", self.box.tolist(), "a width and a height above 0")
        _check(bool(self.crop[2] > 0), "crop", self.crop.tolist(), "a side above 0")
        _check(self.box_source in typing.get_args(BoxSource), "box_source", self.box_source, _BOX_SOURCES)
        number = self.track is None or (type(self.track) is int and 0 <= self.track < 2**63)
        _check(number, "track", self.track, "a whole number from 0 or nothing")

    @property
    def absolute_mm(self) -> np.ndarray | None:
        """The pose (J, 3) float32 in the camera frame, mm, its origin the camera; None where that is not known."""
        return None if self.position_mm is None else self.pose_mm + self.position_mm

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, every joint by its name, units and frame said; `from_json` gives the same numbers back."""
        layout, layout2d = SKELETONS[self.skeleton], SKELETONS[self.heatmap_skeleton]
        return {
            "skeleton": self.skeleton,
            "unit": UNIT,
            "frame": FRAME,
            "root": list(layout.root),
            "joints_mm": dict(zip(layout.joints, _plain(self.pose_mm), strict=True)),
            "position_mm": None if self.position_mm is None else _plain(self.position_mm),
            "heatmap_skeleton": self.heatmap_skeleton,
            "pixels": PIXELS,
            "joints2d_px": dict(zip(layout2d.joints, _plain(self.joints2d_px), strict=True)),
            "confidence": dict(zip(layout2d.joints, _plain(self.confidence), strict=True)),
            "box": dict(zip(_BOX, self.box.tolist(), strict=True)),
            "box_source": self.box_source,
            "crop": dict(zip(_CROP, self.crop.tolist(), strict=True)),
            "track": self.track,
            "pose_network": self.pose_network,
            "heatmap_network": self.heatmap_network,
        }

    def _convert(self, field: str, shape: tuple[int, ...], dtype: type) -> None:
        try:
            with np.errstate(over="ignore"):  # what does not fit becomes inf and is refused below
                value: np.ndarray = np.array(getattr(self, field), dtype)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{field} is {_short(getattr(self, field))}, expected numbers {shape}") from None
        _check(value.shape == shape, f"the shape of {field}", value.shape, str(shape))
        _check(bool(np.isfinite(value).all()), field, value.tolist(), f"finite {np.dtype(dtype).name} numbers")
        object.__setattr__(self, field, value)


class PersonView(NamedTuple):
    """A person with what the networks saw of them, to be drawn.

    Attributes:
      pose: the person.
      crop: (S, S, 3) uint8, RGB, the square `pose.crop`.
      heatmap: (h, w, K) float32 in [0, 1], over the crop.
      unplaced: why `pose.position_mm` is unknown although the camera is known; else empty.
    """

    pose: PersonPose
    crop: np.ndarray
    heatmap: np.ndarray
    unplaced: str = ""


def unplaced_notes(views: Iterable[PersonView]) -> list[str]:
    """A sentence for everybody of a picture who cannot be placed although its camera is known."""
    return [f"person {n}: position unknown: {view.unplaced}" for n, view in enumerate(views, 1) if view.unplaced]


def from_json(data: Any, where: str) -> PersonPose:
    """The person that `PersonPose.to_json` made `data` from.

    Args:
      data: parsed JSON.
      where: what to call the data in errors, such as 'photo.json: people[0]'.

    Raises:
      UserError: naming the field, what was expected and what came.
    """
    fields = _object(data, _FIELDS, where)
    layout, layout2d = (_layout(fields[name], f"{where}.{name}") for name in ("skeleton", "heatmap_skeleton"))
    for name, expected in (("unit", UNIT), ("frame", FRAME), ("root", list(layout.root)), ("pixels", PIXELS)):
        if fields[name] != expected:
            raise UserError(f"{where}.{name}: expected {expected!r}, got {_short(fields[name])}")
    for name in ("pose_network", "heatmap_network"):
        if not isinstance(fields[name], str):
            raise UserError(f"{where}.{name}: expected a text, got {_short(fields[name])}")
    position = fields["position_mm"]
    try:
        return PersonPose(
            skeleton=layout.name,
            pose_mm=_by_name(fields["joints_mm"], layout.joints, 3, f"{where}.joints_mm"),
            heatmap_skeleton=layout2d.name,
            joints2d_px=_by_name(fields["joints2d_px"], layout2d.joints, 2, f"{where}.joints2d_px"),
            confidence=_by_name(fields["confidence"], layout2d.joints, None, f"{where}.confidence"),
            box=_by_name(fields["box"], _BOX, None, f"{where}.box"),
            box_source=fields["box_source"],
            crop=_by_name(fields["crop"], _CROP, None, f"{where}.crop"),
            pose_network=fields["pose_network"],
            heatmap_network=fields["heatmap_network"],
            position_mm=None if position is None else np.array(_numbers(position, 3, f"{where}.position_mm")),
            track=fields["track"],
        )
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


_BOX = ("x", "y", "width", "height")
_CROP = ("left", "top", "side")
_BOX_SOURCES = " or ".join(map(repr, typing.get_args(BoxSource)))
_FIELDS = (
    *("skeleton", "unit", "frame", "root", "joints_mm", "position_mm"),
    *("heatmap_skeleton", "pixels", "joints2d_px", "confidence"),
    *("box", "box_source", "crop", "track", "pose_network", "heatmap_network"),
)


def _check(ok: bool, field: str, value: object, expected: str) -> None:
    if not ok:
        raise UserError(f"{field} is {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # an array's text has several lines


def _plain(values: np.ndarray) -> Any:
    """Nested lists of the shortest decimals that are these float32 numbers: 0.1 and not 0.10000000149."""
    return [_plain(row) for row in values] if values.ndim else float(str(values[()]))


def _object(data: Any, names: Iterable[str], where: str) -> dict[str, Any]:
    names = tuple(names)
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected an object with {', '.join(names)}, got {_short(data)}")
    unknown, missing = sorted(data.keys() - set(names)), [name for name in names if name not in data]
    if unknown or missing:
        what = f"unknown name {unknown[0]!r}" if unknown else f"missing {missing[0]!r}"
        raise UserError(f"{where}: {what}; expected {', '.join(names)}")
    return data


def _layout(name: Any, where: str) -> Skeleton:
    if not isinstance(name, str) or name not in SKELETONS:
        raise UserError(f"{where}: expected one of {', '.join(SKELETONS)}, got {_short(name)}")
    return SKELETONS[name]


def _by_name(data: Any, names: tuple[str, ...], length: int | None, where: str) -> np.ndarray:
    """(names, length) or, where `length` is None, (names,) float64 of {name: numbers}."""
    given = _object(data, names, where)
    return np.array([_numbers(given[name], length, f"{where}.{name}") for name in names], np.float64)


def _numbers(data: Any, length: int | None, where: str) -> float | list[float]:
    if length is None:
        if type(data) not in (int, float) or abs(data) > 1e300 or math.isnan(data):
            raise UserError(f"{where}: expected a number, got {_short(data)}")
        return float(data)
    if not isinstance(data, list) or len(data) != length:
        raise UserError(f"{where}: expected a list of {length} numbers, got {_short(data)}")
    return [typing.cast(float, _numbers(item, None, f"{where}[{i}]")) for i, item in enumerate(data)]
