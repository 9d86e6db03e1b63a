"""What is found out about one person in a picture, and its files: JSON for one, one .npz for many. NumPy only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import reprlib
import shutil
import tempfile
import typing
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, Literal, NamedTuple

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
    """

    pose: PersonPose
    crop: np.ndarray
    heatmap: np.ndarray


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


class NpzStream:
    """All people of many pictures or of a long video as one .npz, row by row, in memory that does not grow.

    A context manager. Rows wait in unnamed temporary files beside `path`; at the end of the block the .npz appears
    under its name at once. After an error or a kill there is none, and an older one stays as it was. For N people it
    holds, to be read with `np.load(path, allow_pickle=False)`:

      pose_mm (N, J, 3) float32 mm, camera frame, relative to the root; joints (J,) names; root (1 or 2,) names
      joints2d_px (N, K, 2) float32 px of the original picture; confidence (N, K) float32; joints2d (K,) names
      box (N, 4) float64 [x, y, width, height] px; box_source (N,); crop (N, 3) float64 [left, top, side] px
      position_mm (N, 3) float32, the root in the camera frame, NaN where position_known (N,) bool is False
      picture (N,) names; frame (N,) int64, the number in a video, from 0; track (N,) int64, -1 where not followed
      skeleton, heatmap_skeleton, pose_network, heatmap_network, unit, pose_frame, pixels: () texts
    """

    def __init__(
        self, path: pathlib.Path, *, skeleton: str, heatmap_skeleton: str, pose_network: str, heatmap_network: str
    ):
        """`path` and what all people share, see PersonPose. Raises UserError where a skeleton is not known."""
        self.path, self.rows = path, 0
        self._shared = {
            "skeleton": skeleton,
            "heatmap_skeleton": heatmap_skeleton,
            "pose_network": pose_network,
            "heatmap_network": heatmap_network,
        }
        self._layouts = _layout(skeleton, "skeleton"), _layout(heatmap_skeleton, "heatmap_skeleton")
        self._columns = _columns(*self._layouts)
        self._files = contextlib.ExitStack()
        self._spools: dict[str, IO[bytes]] = {}
        self._longest_name = 1

    def __enter__(self) -> NpzStream:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for name in (*self._columns, "picture"):
            spool = tempfile.TemporaryFile(dir=self.path.parent)  # the system removes it, however we end
            self._spools[name] = self._files.enter_context(spool)
        return self

    def append(self, picture: str, frame: int, person: PersonPose) -> None:
        """Adds a person.

        Args:
          picture: name of the picture's or the video's file.
          frame: number in the video, from 0; 0 of a picture.
          person: of the skeletons and networks that the stream was opened with.

        Raises:
          UserError: the person is of another skeleton or network.
          OSError: the disk is full.
        """
        for name, expected in self._shared.items():
            if getattr(person, name) != expected:
                raise UserError(f"{self.path}: {name} is {getattr(person, name)!r}, all before it {expected!r}")
        known = person.position_mm is not None
        row = {
            **{name: getattr(person, name) for name in self._columns if hasattr(person, name)},
            "position_mm": person.position_mm if known else np.nan,
            "position_known": known,
            "frame": frame,
            "track": -1 if person.track is None else person.track,
        }
        for name, (dtype, shape) in self._columns.items():
            self._spools[name].write(np.broadcast_to(np.asarray(row[name], dtype), shape).tobytes())
        # One name a line, escaped, until the longest is known: an array of texts gives each the same room.
        self._spools["picture"].write(json.dumps(picture).encode("ascii") + b"\n")
        self._longest_name = max(self._longest_name, len(picture))
        self.rows += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._files:
            if kind is None:
                self._write()

    def _write(self) -> None:
        layout, layout2d = self._layouts
        texts = {**self._shared, "unit": UNIT, "pose_frame": FRAME, "pixels": PIXELS}
        names = {"joints": layout.joints, "joints2d": layout2d.joints, "root": layout.root}
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                for name, value in {**texts, **names}.items():
                    with archive.open(f"{name}.npy", "w") as file:
                        np.lib.format.write_array(file, np.array(value), allow_pickle=False)
                for name, (dtype, shape) in self._columns.items():
                    with self._member(archive, name, np.dtype(dtype), shape) as file:
                        self._spools[name].seek(0)
                        shutil.copyfileobj(self._spools[name], file)
                text = np.dtype(f"<U{self._longest_name}")
                with self._member(archive, "picture", text, ()) as file:
                    self._spools["picture"].seek(0)
                    for line in self._spools["picture"]:
                        file.write(np.array(json.loads(line), text).tobytes())
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _member(
        self, archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
    ) -> Iterator[IO[bytes]]:
        """The archive's array of that name, its header written, to be filled with the bytes of all rows."""
        header = {"descr": dtype.str, "fortran_order": False, "shape": (self.rows, *shape)}
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            yield file


def write_npz(path: pathlib.Path, people: Iterable[tuple[str, int, PersonPose]], **shared: str) -> None:
    """Writes people, each with picture and frame number, as one .npz; arguments, arrays and errors as of NpzStream."""
    with NpzStream(path, **shared) as stream:
        for picture, frame, person in people:
            stream.append(picture, frame, person)


def _columns(layout: Skeleton, layout2d: Skeleton) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of a person's entry in each array of an .npz; `picture` apart, whose names vary in length."""
    j, k = layout.num_joints, layout2d.num_joints
    return {
        "pose_mm": ("<f4", (j, 3)),
        "joints2d_px": ("<f4", (k, 2)),
        "confidence": ("<f4", (k,)),
        "box": ("<f8", (4,)),
        "box_source": (f"<U{max(map(len, typing.get_args(BoxSource)))}", ()),
        "crop": ("<f8", (3,)),
        "position_mm": ("<f4", (3,)),
        "position_known": ("|b1", ()),
        "frame": ("<i8", ()),
        "track": ("<i8", ()),
    }


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
