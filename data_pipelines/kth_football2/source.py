"""KTH Multiview Football II as its zips hold it: pictures that follow a player, affine cameras, 2D and 3D joints."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.archives import find_archives, may_hold, unpacked_folder
from data_pipelines.kth_football2.affine import affine_camera
from data_pipelines.kth_football2.checks import check_together, check_unit, doubts, label_distance_px
from data_pipelines.kth_football2.files import check_count, find_sequence, number_pictures, step_problem, zip_name
from data_pipelines.kth_football2.numbers import (
    PER_STEP,
    POSITIONS_3D,
    Numbers,
    not_finite,
    read_sequence,
)
from data_pipelines.kth_football2.settings import CAMERAS, KthFootball2Settings
from data_pipelines.source import Example, Item, Part, Source, Tally, waiting_archives
from fusion_jax.errors import UserError
from fusion_jax.geometry import square_box


class KthFootball2Source(Source):
    """See README.md."""

    name = "kth_football2"
    skeleton_name = "lsp14"
    people_shared = True  # the paper trains on the first half of a recording and tests on the second
    settings: KthFootball2Settings

    def archives(self) -> list[pathlib.Path]:
        """The chosen player's and sequence's zip."""
        name = zip_name(self.settings.player, self.settings.sequence)
        return [path for path in find_archives(self.manual_dir) if unpacked_folder(path).name == name]

    def inventory(self) -> Iterator[Item]:
        """Archives that are not unpacked yet, the text files and what they say, and every picture."""
        packed = waiting_archives(self)
        yield from map(self.archive_item, packed)
        zipped = zip_name(self.settings.player, self.settings.sequence)
        try:
            folder, doubt = find_sequence(self.manual_dir, self.settings.player, self.settings.sequence)
        except UserError as error:
            yield Item(zipped, str(error).removeprefix(f"{self.manual_dir / zipped} "))
            return
        if not folder.exists():
            if not any(may_hold(archive, POSITIONS_3D) for archive in packed):
                yield Item(self._relative(folder), f"missing; download {zipped}.zip")
            return
        yield Item(self._relative(folder), note=doubt or "")
        numbers, wrong = None, ""
        try:
            numbers = self.numbers()
        except UserError as error:
            wrong = str(error)
        yield from self._text_items(folder, numbers, wrong)
        for camera in CAMERAS:
            yield from self._picture_items(folder / camera, None if numbers is None else len(numbers.joints3d))

    def _text_items(self, folder: pathlib.Path, numbers: Numbers | None, wrong: str) -> Iterator[Item]:
        """The three text files; `wrong` is what kept their numbers from being read, and names one of them."""
        steps = range(0 if numbers is None else len(numbers.joints3d))
        bad = [found for step in steps if numbers and (found := self._not_finite(numbers, step))]
        for path in _texts(folder):
            problem = next((found.removeprefix(f"{path.name}: ") for found in bad if path.name in found), None)
            problem = problem and f"{problem}; download its zip again"
            if wrong.startswith(str(path)):
                problem = wrong.removeprefix(str(path)).lstrip(": ,")
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                problem = problem or "missing; download its zip again"
            yield Item(self._relative(path), problem, size, f"{len(steps)} steps" if steps else "")

    def _not_finite(self, numbers: Numbers, step: int) -> str | None:
        views = [CAMERAS.index(camera) for camera in self.settings.cameras]
        return next((found for view in views if (found := not_finite(numbers, step, view))), None)

    def _picture_items(self, folder: pathlib.Path, steps: int | None) -> Iterator[Item]:
        optional = folder.name not in self.settings.cameras
        pictures = number_pictures(folder)
        if steps is None:
            steps = max(pictures, default=0)
        try:
            check_count(folder, pictures, steps)
        except UserError as error:
            yield Item(self._relative(folder), str(error).removeprefix(f"{folder} "), optional=optional)
        if not pictures:
            yield Item(self._relative(folder), "holds no pictures; unpack its zip again", optional=optional)
            return
        for step in range(1, steps + 1):
            path = pictures.get(step, folder / f"{step:05d}.png")
            size = path.stat().st_size if step in pictures else None
            yield Item(self._relative(path), step_problem(path), size, optional=optional)

    def _relative(self, path: pathlib.Path) -> str:
        return path.relative_to(self.manual_dir).as_posix()

    def folder(self) -> pathlib.Path:
        """Where the sequence is, or should be."""
        return find_sequence(self.manual_dir, self.settings.player, self.settings.sequence)[0]

    def numbers(self) -> Numbers:
        """The sequence's numbers, which belong together and fit the settings. Raises UserError where they do not."""
        folder = self.folder()
        stats = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in _texts(folder) if path.is_file())
        numbers = _read(folder, stats)
        try:
            check_unit(numbers.joints3d, self.settings.unit_mm)
            for camera in self.settings.cameras:
                check_together(numbers, CAMERAS.index(camera))
        except UserError as error:
            raise UserError(f"{folder / POSITIONS_3D}: {error}") from error
        return numbers

    def parts(self) -> list[Part]:
        """One for each camera and split; `first` and `last` are time steps, counted from 1."""
        folder, settings = self.folder(), self.settings
        recording = f"player{settings.player}/Sequence {settings.sequence}"
        parts = []
        for split, first, last in halves(len(self.numbers().joints3d), settings.validation_share):
            for camera in settings.cameras:
                steps = range(first, last + 1)
                files = (*_texts(folder), *(folder / camera / f"{step:05d}.png" for step in steps))
                name = f"{recording}/{camera}/{split}"
                subject = f"player{settings.player}"
                parts.append(Part(split, name, subject, recording, first, last, len(steps), files, camera))
        return parts

    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        """The player's crop at each time step."""
        from data_pipelines.video import read_picture

        numbers, folder, view = self.numbers(), self.folder(), CAMERAS.index(part.job)
        pictures = number_pictures(folder / part.job)
        check_count(folder / part.job, pictures, len(numbers.joints3d))
        for step in range(part.first, part.last + 1):
            path = pictures.get(step, folder / part.job / f"{step:05d}.png")
            bad = not_finite(numbers, step - 1, view)
            problem = f"{folder}/{bad}; download its zip again" if bad else None
            if problem is None and (wrong := step_problem(path)):
                problem = f"{path}: {wrong}"
            if problem:
                tally.fault(problem)
                continue
            try:
                picture = read_picture(path)
                example = self._example(picture, numbers, step, part)
            except UserError as error:
                words = str(error)
                tally.fault(words if words.startswith(str(path)) else f"{path}: {words}; download its zip again")
                continue
            yield example

    def _example(self, picture: np.ndarray, numbers: Numbers, step: int, part: Part) -> Example:
        from data_pipelines.crops import person_example

        settings, view = self.settings, CAMERAS.index(part.job)
        px = numbers.joints2d[step - 1, view] - settings.pixel_origin
        labelled = np.isfinite(px).all(-1)
        if not labelled.any():
            raise UserError(f"no label of step {step} is finite")
        return person_example(
            picture,
            square_box(px, settings.box_margin, keep=labelled),
            settings.size,
            joints_world_mm=numbers.joints3d[step - 1] * settings.unit_mm,
            valid=np.ones(len(px), bool),
            joints2d_px=px,
            valid2d=labelled,
            camera=affine_camera(numbers.cameras[step - 1, view], settings.unit_mm, settings.pixel_origin),
            camera_model="affine",
            camera_name=part.job,
            subject=part.subject,
            action="football",
            sequence=part.recording,
            frame=step,
        )

    def description(self) -> dict[str, Any]:
        """What a table says of the data."""
        settings, numbers = self.settings, self.numbers()
        steps = len(numbers.joints3d)
        halved = "; ".join(f"{split} {a}-{b}" for split, a, b in halves(steps, settings.validation_share))
        doubt = find_sequence(self.manual_dir, settings.player, settings.sequence)[1]
        warnings, distances = [doubt] if doubt else [], []
        for camera in settings.cameras:
            view = CAMERAS.index(camera)
            distance = label_distance_px(numbers, view)
            distances.append(f"{camera}: {np.nanmedian(distance):.1f} px, at most {np.nanmax(distance):.0f}")
            warnings += doubts(numbers, view, settings.pixel_origin)
        words = {
            "frames": f"all {steps} of player {settings.player}, sequence {settings.sequence}; {halved}",
            "cameras": f"{', '.join(settings.cameras)}, each on its own; affine, as published, one for every frame",
            "depth": "along right x down of the camera's directions; its sign rests on a right-handed world, which "
            "nobody confirmed but the knees' bend agrees with",
            "unit": f"{settings.unit_mm:g} mm, unconfirmed; the limbs' lengths fit people",
            "pixel origin": f"{settings.pixel_origin}, unconfirmed",
            "projected poses to 2D labels, median": "; ".join(distances),
            "boxes": f"square around the 2D labels, {settings.box_margin:g} of its side added at each side",
            "terms": "academic use (a third party's note); do not pass it on",
        }
        if any("knees" in words for words in warnings):
            words["depth"] = "along right x down of the camera's directions; its sign is doubtful, see the warning"
        not_known = int((~np.isfinite(numbers.joints2d).all(-1)).sum())
        if not_known:
            words["2D labels that are not finite"] = str(not_known)
        return words | ({"warning": "; ".join(dict.fromkeys(warnings))} if warnings else {})


def halves(steps: int, validation_share: float) -> list[tuple[str, int, int]]:
    """(split, first step, last step) of those that hold any: the paper's halves; validation ends the first."""
    half = steps // 2
    train = max(1, half - round(half * validation_share))
    all_three = [("train", 1, train), ("validation", train + 1, half), ("test", half + 1, steps)]
    return [(split, first, last) for split, first, last in all_three if first <= last]


def _texts(folder: pathlib.Path) -> list[pathlib.Path]:
    return [folder / name for name in PER_STEP]


@functools.lru_cache(maxsize=2)
def _read(folder: pathlib.Path, stats: tuple[tuple[int, int], ...]) -> Numbers:
    """Kept while the files stay the same: every part asks for them."""
    return read_sequence(folder)
