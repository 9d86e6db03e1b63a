"""Leeds Sports Pose and its extended set as their zips hold them: pictures and 2D joints, no 3D."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.archives import may_hold
from data_pipelines.lsp.files import (
    LABELS,
    PICTURES,
    ZIPS,
    beyond_labels,
    find_labels,
    number_pictures,
)
from data_pipelines.lsp.labels import (
    EXTENDED,
    KINDS,
    SETS,
    Labels,
    broken_joint,
    load_labels,
    person_height,
    scale_warning,
)
from data_pipelines.lsp.settings import LspSettings
from data_pipelines.picture_file import picture_problem
from data_pipelines.pixel_origin import origin_warning
from data_pipelines.source import Example, Item, Part, Source, Tally, waiting_archives
from fusion_jax.errors import UserError
from fusion_jax.geometry import square_box

SEQUENCES = {"scaled": "lsp", "original": "lsp_original", "extended": "lsp_extended"}
_PART_PICTURES = 250
_AGAIN = "unpack its zip again"


class LspSource(Source):
    """See README.md."""

    name = "lsp"
    skeleton_name = "lsp14"
    settings: LspSettings

    def inventory(self) -> Iterator[Item]:
        """Archives that are not unpacked yet, the labels, and every picture."""
        packed = waiting_archives(self)
        yield from map(self.archive_item, packed)
        path = self.manual_dir / LABELS
        try:
            path = self.labels_path()
            labels = self.labels() if path.is_file() else None
        except UserError as error:
            yield Item(self._relative(path), str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "))
            return
        if labels is None:
            if not any(may_hold(archive, LABELS) for archive in packed):
                yield Item(LABELS, f"missing; download {ZIPS[self.settings.kind]}")
            return
        yield self._labels_item(path, labels)
        yield from self._picture_items(path.parent / PICTURES, len(labels.px))

    def _labels_item(self, path: pathlib.Path, labels: Labels) -> Item:
        broken = [page for page in range(len(labels.px)) if broken_joint(labels, page)]
        problem = None
        if broken:
            joint = broken_joint(labels, broken[0])
            problem = f"page {broken[0] + 1}: {joint} is not finite ({len(broken)} such pages); download it again"
        note = f"{len(labels.px)} pictures, people {person_height(labels):.0f} px tall"
        note += "".join(f"; {warning}" for warning in self._warnings(labels))
        return Item(self._relative(path), problem, path.stat().st_size, note)

    def _picture_items(self, folder: pathlib.Path, count: int) -> Iterator[Item]:
        try:
            pictures = number_pictures(folder)
        except UserError as error:
            yield Item(self._relative(folder), str(error))
            return
        if more := beyond_labels(pictures, count):
            yield Item(self._relative(folder), more)
        for number in range(1, count + 1):
            path = pictures.get(number, folder / f"im{number:04d}.jpg")
            size = path.stat().st_size if number in pictures else None
            yield Item(self._relative(path), picture_problem(path, "JPEG", _AGAIN), size)

    def _relative(self, path: pathlib.Path) -> str:
        return path.relative_to(self.manual_dir).as_posix()

    def labels_path(self) -> pathlib.Path:
        """Where the labels of the kind that is asked for are, or should be."""
        return find_labels(self.manual_dir, self.settings.kind)

    def labels(self) -> Labels:
        """All labels of the kind that is asked for."""
        path = self.labels_path()
        if not path.is_file():
            raise UserError(f"{path} is missing; download {ZIPS[self.settings.kind]} or correct --manual-dir")
        stat = path.stat()
        return _load(path, self.settings.kind, stat.st_size, stat.st_mtime_ns)

    def parts(self) -> list[Part]:
        """Runs of 250 pictures; `first` and `last` are the numbers of their names."""
        labels, kind = self.labels_path(), self.settings.kind
        pictures = number_pictures(labels.parent / PICTURES)
        # Both LSP zips show the same people, so they are one recording: nobody may train on one and test on the other.
        recording = "lsp_extended" if KINDS[kind] == EXTENDED else "lsp"
        parts = []
        for split, first, last in splits(kind, self.settings.validation_count):
            for start in range(first, last + 1, _PART_PICTURES):
                stop = min(start + _PART_PICTURES - 1, last)
                numbers = range(start, stop + 1)
                files = tuple(pictures.get(n, labels.parent / PICTURES / f"im{n:04d}.jpg") for n in numbers)
                name = f"{SEQUENCES[kind]}/{start:05d}-{stop:05d}"
                parts.append(Part(split, name, "", recording, start, stop, len(files), (labels, *files)))
        return parts

    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        """A crop for each picture."""
        from data_pipelines.video import read_picture

        labels, folder = self.labels(), part.files[0].parent / PICTURES
        if more := beyond_labels(number_pictures(folder), len(labels.px)):
            raise UserError(f"{folder}: {more}")
        for number, path in zip(range(part.first, part.last + 1), part.files[1:], strict=True):
            broken = broken_joint(labels, number - 1)
            if broken:
                tally.fault(f"{part.files[0]}: page {number}: {broken} is not finite; download it again")
                continue
            if wrong := picture_problem(path, "JPEG", _AGAIN):
                tally.fault(f"{path}: {wrong}")
                continue
            try:
                example = photo(read_picture(path), labels, number, self.settings)
            except UserError as error:
                words = str(error)
                tally.fault(
                    words if words.startswith(str(path)) else f"{path}: {words}; is it the picture of the label?"
                )
                continue
            yield example

    def description(self) -> dict[str, Any]:
        """What a table says of the data."""
        settings, labels = self.settings, self.labels()
        words: dict[str, Any] = {
            "pictures": f"{KINDS[settings.kind]}, {settings.kind}: one person each, 2D only, no camera",
            "split": "; ".join(f"{s} {a}-{b}" for s, a, b in splits(settings.kind, settings.validation_count)),
            "people": f"{person_height(labels):.0f} px tall in median, by their joints",
            "flags": "1 = labelled" if KINDS[settings.kind] == EXTENDED else "1 = occluded",
            "boxes": f"square around the labelled joints, {settings.box_margin:g} of its side added at each side",
            "pixel origin": f"{settings.pixel_origin}, unconfirmed",
            "activity": "not told by the dataset; all are called 'sport'",
            "terms": "research; no licence found, pictures from Flickr: do not pass them on",
        }
        warnings = self._warnings(labels)
        return words | ({"warning": "; ".join(warnings)} if warnings else {})

    def _warnings(self, labels: Labels) -> list[str]:
        found = [
            scale_warning(person_height(labels), self.settings.kind),
            origin_warning(labels.px[labels.labelled], self.settings.pixel_origin),
        ]
        return [words for words in found if words]


def splits(kind: str, validation_count: int) -> list[tuple[str, int, int]]:
    """(split, first picture, last picture) of those that hold any; validation is the end of the training pictures."""
    known = SETS[KINDS[kind]]
    train = known.train - min(validation_count, known.train - 1)
    all_three = [("train", 1, train), ("validation", train + 1, known.train), ("test", known.train + 1, known.pictures)]
    return [(split, first, last) for split, first, last in all_three if first <= last]


def photo(image: np.ndarray, labels: Labels, number: int, settings: LspSettings) -> Example:
    """The example of one picture (H, W, 3) with the number in its name.

    A joint outside the picture keeps its place and is never visible.

    Raises:
      UserError: no joint is labelled, or none lies in the picture.
    """
    from data_pipelines.crops import person_example

    px, labelled = labels.px[number - 1] - settings.pixel_origin, labels.labelled[number - 1]
    if not labelled.any():
        raise UserError(f"page {number} has no labelled joint")
    inside = ((px >= -0.5) & (px <= np.array(image.shape[1::-1]) - 0.5)).all(-1)
    if not (inside & labelled).any():
        raise UserError(f"no joint of page {number} lies in the {image.shape[1]} x {image.shape[0]} picture")
    return person_example(
        image,
        square_box(px, settings.box_margin, keep=labelled),
        settings.size,
        joints_world_mm=np.zeros((len(px), 3)),
        valid=np.zeros(len(px), bool),
        joints2d_px=px,
        valid2d=labelled,
        visible=labelled & inside & ~labels.hidden[number - 1],
        camera_name="photo",
        subject="",
        action="sport",
        sequence=SEQUENCES[settings.kind],
        frame=number,
    )


@functools.lru_cache(maxsize=2)
def _load(path: pathlib.Path, kind: str, size: int, mtime_ns: int) -> Labels:
    """Kept while the file stays the same: every part asks for it."""
    return load_labels(path, kind)
