"""Every file of HumanEva-I that some settings need, looked into as far as is quick."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from data_pipelines.archives import find_archives, is_unpacked
from data_pipelines.humaneva import files, tables
from data_pipelines.humaneva.calibration import check_pose, read_camera
from data_pipelines.humaneva.marker_params import read_shoulder_offsets
from data_pipelines.humaneva.mocap_file import read_shape
from data_pipelines.humaneva.picture_folder import PictureFolder, open_pictures
from data_pipelines.humaneva.recording import beyond_mocap, read_clock
from data_pipelines.humaneva.settings import HumanevaSettings
from data_pipelines.humaneva.sync import check_start, read_offsets
from data_pipelines.source import Item, archive_item
from fusion_jax.errors import UserError


class _Seen(NamedTuple):
    """What a look found: a note, and what is wrong."""

    note: str = ""
    problem: str | None = None


def items(manual_dir: pathlib.Path, settings: HumanevaSettings) -> Iterator[Item]:
    """An Item for every file, present or missing, in the tree's order; archives first."""
    packed = [archive.name for archive in find_archives(manual_dir) if not is_unpacked(archive)]
    yield from map(archive_item, find_archives(manual_dir))
    look = _Looker(manual_dir, packed)
    for subject in tables.SUBJECTS:
        needed = [action for action in settings.actions if _is_needed(subject, action, settings)]
        for action in needed:
            for camera in settings.cameras:
                yield look.at(files.video_name(subject, action, camera), _video(manual_dir, subject, action, camera))
        for action in needed:
            yield look.at(files.mocap_name(subject, action), _mocap(manual_dir, subject, action, settings.cameras[0]))
        yield look.at(files.static_name(subject), lambda path: _Seen(f"{read_shape(path).rows} rows"))
        yield look.at(files.params_name(subject), _params, hint=_other_params(manual_dir, subject))
        for action in needed:
            for camera in tables.CLOCK_CAMERAS:
                yield look.offsets(subject, action, camera)
        for camera in settings.cameras:
            yield look.at(files.calibration_name(subject, camera), _calibration(subject, camera))


def _is_needed(subject: str, action: str, settings: HumanevaSettings) -> bool:
    """S3 ThrowCatch 1 is damaged; where it is dropped its files need not be there."""
    return settings.damaged == "keep" or (subject, action) != ("S3", "ThrowCatch")


class _Looker:
    """Makes Items of looks; what is missing may still be in an archive that is not unpacked."""

    def __init__(self, manual_dir: pathlib.Path, packed: list[str]):
        self._dir, self._packed = manual_dir, packed

    def at(self, name: str, look: Callable[[pathlib.Path], _Seen], hint: str = "") -> Item:
        """The item of a required file, or of what stands in for it."""
        found = self._dir / name
        try:
            path = files.find(self._dir, name)
            found = files.stand_in(path) or path
            if not found.exists():
                return Item(name, self._missing(hint))
            return self._item(found, look(path))
        except UserError as error:
            return self._item(found, _Seen(problem=_without(found, error)))

    def offsets(self, subject: str, action: str, camera: str) -> Item:
        """The item of an `.ofs` file. Those of the grey cameras are optional, but belong to the clock."""
        name = files.offsets_name(subject, action, camera)
        optional = camera not in tables.COLOUR_CAMERAS
        path = self._dir / name
        try:
            path = files.find_offset(self._dir, subject, action, camera)
            if not path.exists():
                why = (
                    "missing; the clock is worked out without it, which may shift it" if optional else self._missing("")
                )
                return Item(name, why, optional=optional)
            read_offsets(path)
        except UserError as error:
            return self._item(path, _Seen(problem=_without(path, error)))
        try:
            clock = read_clock(self._dir, subject, action, camera)
        except UserError:  # another camera's file is wrong, and has an item of its own
            return self._item(path, _Seen())
        return self._item(path, _Seen(f"starts at {clock.starts[camera]}", check_start(clock, subject, action, camera)))

    def _item(self, path: pathlib.Path, seen: _Seen) -> Item:
        size = path.stat().st_size if path.is_file() else None
        return Item(path.relative_to(self._dir).as_posix(), seen.problem, size, seen.note)

    def _missing(self, hint: str) -> str:
        if self._packed:
            return f"not here yet; prepare unpacks {', '.join(self._packed)} first, see whether it is in there"
        return hint or "missing; download it or correct --manual-dir"


def _video(manual_dir: pathlib.Path, subject: str, action: str, camera: str) -> Callable[[pathlib.Path], _Seen]:
    def look(path: pathlib.Path) -> _Seen:
        with open_pictures(path) as pictures:
            width, height = pictures.size
            kind = "pictures" if isinstance(pictures, PictureFolder) else "frames"
            note = f"{pictures.num_frames} {kind}, {width} x {height} px"
            if pictures.size != tables.COLOUR_SIZE:
                expected = " x ".join(map(str, tables.COLOUR_SIZE))
                return _Seen(note, f"expected {expected} px; a resized video does not fit its .cal file")
            if not isinstance(pictures, PictureFolder) and lacks_bytes(path):
                return _Seen(note, "it is shorter than it announces: cut off, fetch it again")
        try:
            clock = read_clock(manual_dir, subject, action, camera)
        except UserError:  # the .ofs files have items of their own
            return _Seen(note)
        last = tables.halves(subject, action)[1][1]
        needed = clock.starts[camera] + last - 1
        short = f"the frames up to {last} need {needed} {kind}; it is cut off, fetch it again"
        return _Seen(note, short if pictures.num_frames < needed else None)

    return look


def lacks_bytes(path: pathlib.Path) -> bool:
    """Whether an AVI file announces more bytes than it has; its frame count stands at the start and tells nothing."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"AVI ":
        return False  # the decoder took it for something else
    return int.from_bytes(start[4:8], "little") + 8 > path.stat().st_size


def _mocap(manual_dir: pathlib.Path, subject: str, action: str, camera: str) -> Callable[[pathlib.Path], _Seen]:
    def look(path: pathlib.Path) -> _Seen:
        shape = read_shape(path)
        note = f"{shape.rows} rows of {shape.points} points"
        try:
            clock = read_clock(manual_dir, subject, action, camera)
        except UserError:
            return _Seen(note)
        lacking = beyond_mocap(clock, shape.rows, tables.halves(subject, action)[1][1])
        return _Seen(note if lacking is None else f"{note} ({lacking}: the end is left out)")

    return look


def _params(path: pathlib.Path) -> _Seen:
    left, right = read_shoulder_offsets(path)
    return _Seen(f"shoulder offsets {left:g} and {right:g} mm")


def _other_params(manual_dir: pathlib.Path, subject: str) -> str:
    """What to say where a subject's folder holds somebody else's measures."""
    try:
        folder = files.find(manual_dir, files.params_name(subject)).parent
    except UserError:  # in two places; its own item says so
        return ""
    others = sorted(path.name for path in folder.glob("*.mp")) if folder.is_dir() else []
    return f"the folder holds {others[0]} instead: another subject's files; put {subject}'s own here" if others else ""


def _calibration(subject: str, camera: str) -> Callable[[pathlib.Path], _Seen]:
    def look(path: pathlib.Path) -> _Seen:
        found = read_camera(path)
        return _Seen(f"focal {found.intrinsics[0, 0]:.0f} px", check_pose(found, subject, camera))

    return look


def _without(path: pathlib.Path, error: UserError) -> str:
    """A message without the file at its start: the tree shows that already."""
    return str(error).removeprefix(str(path)).removeprefix(":").strip()
