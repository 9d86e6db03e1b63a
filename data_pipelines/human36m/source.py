"""Human3.6M as a `Source`: seven subjects, 30 sequences each, four cameras, every view on its own."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from data_pipelines.human36m import checks, views
from data_pipelines.human36m.archive_checks import packed
from data_pipelines.human36m.cameras import CAMERAS
from data_pipelines.human36m.faults import DISPLACED, is_broken_video
from data_pipelines.human36m.files import (
    MASKS,
    POSES,
    POSES_2D,
    POSES_CAMERA,
    VIDEOS,
    archive_of,
    file_name,
    folder_of,
)
from data_pipelines.human36m.sequences import TABLE, Sequence, read_table
from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.source import Example, Item, Part, Source, Tally

BROKEN = "frames of S11 Directions 54138969, a video known as broken (--broken-video keep reads it)"


class Human36mSource(Source):
    """The raw dataset; a part is one video."""

    name = "human36m"
    skeleton_name = "human36m17"
    settings: Human36mSettings

    def table(self) -> tuple[Sequence, ...]:
        """The sequences there are to be: the dataset's, or those of another table."""
        return read_table(pathlib.Path(self.settings.table) if self.settings.table else TABLE)

    def archives(self) -> list[pathlib.Path]:
        """Those of the chosen subjects; rectangles only where boxes come from them."""
        kinds = [POSES, VIDEOS, POSES_2D, POSES_CAMERA, *([MASKS] if self.settings.boxes == "masks" else [])]
        wanted = [archive_of(self.manual_dir, kind, subject) for subject in self.settings.subjects for kind in kinds]
        return [archive for archive in wanted if archive.is_file()]

    def archive_item(self, archive: pathlib.Path) -> Item:
        """With the published MD5 sum compared."""
        return packed(archive)

    def inventory(self) -> Iterator[Item]:
        return checks.inventory(self.manual_dir, self.settings, self.table())

    def parts(self) -> list[Part]:
        """One a video, subjects in the settings' order."""
        parts = []
        for subject in self.settings.subjects:
            wanted = [sequence for sequence in self.table() if sequence.subject == subject]
            folders = {kind: folder_of(self.manual_dir, kind, subject) for kind in (POSES, VIDEOS, MASKS)}
            for sequence in wanted:
                for name in CAMERAS:
                    files = [folders[kind] / file_name(kind, sequence.stem, name) for kind in (POSES, VIDEOS, MASKS)]
                    parts.append(self._part(views.View(sequence, name, *files)))
        return parts

    def _part(self, view: views.View) -> Part:
        sequence, settings = view.sequence, self.settings
        read = (view.poses, view.video, view.masks) if settings.boxes == "masks" else (view.poses, view.video)
        return Part(
            split=settings.split(sequence.subject),
            name=f"{sequence.name}/{view.camera_name}",
            subject=sequence.subject,
            recording=sequence.name,
            first=0,
            last=sequence.rows - 1,
            examples=-(-sequence.rows // settings.frame_step),
            files=() if self._is_dropped(view) else read,
            job=view,
        )

    def _is_dropped(self, view: views.View) -> bool:
        return self.settings.broken_video == "drop" and is_broken_video(view.sequence, view.camera_name)

    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        if self._is_dropped(part.job):
            tally.skip(BROKEN, part.examples)
            return
        yield from views.examples(part.job, self.settings, tally)

    def description(self) -> dict[str, Any]:
        s = self.settings
        box = {
            "joints": f"square around the projected joints, {s.margin:g} of its side added on each side",
            "masks": "square around the dataset's rectangles",
            "room": "2 m x 2 m around the pelvis",
        }[s.boxes]
        lens = {
            "opencv": "projected with OpenCV's lens model, that of the stored camera",
            "published": "projected with the lens model of the released 2D poses; up to 1.4 px of the full picture "
            "from what the stored camera gives",
        }[s.projection]
        return {
            "frames": f"every {_ordinal(s.frame_step)} of 50 a second, from the first pose",
            "cameras": "all 4, each view on its own",
            "boxes": box,
            "2D joints": lens,
            "corrections": f"{', '.join(DISPLACED)} moved back by 200 mm"
            if s.shift_s9
            else f"none; {', '.join(DISPLACED)} are displaced by 200 mm as released",
            "broken video": f"S11 Directions 54138969 {'left out' if s.broken_video == 'drop' else 'included'}",
            "terms": "academic use under the signed agreement of vision.imar.ro/human3.6m, no redistribution",
            **({"sequences": f"of the table {pathlib.Path(s.table).name}, not the dataset's"} if s.table else {}),
        }


def _ordinal(number: int) -> str:
    """'5th'; '1st' and '2nd' and so on."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
