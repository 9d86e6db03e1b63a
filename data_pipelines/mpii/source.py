"""MPII Human Pose as its authors hand it out: the annotation struct and the pictures."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

from data_pipelines.archives import may_hold
from data_pipelines.mpii import files
from data_pipelines.mpii.settings import MpiiSettings
from data_pipelines.mpii.splits import (
    PUBLISHED_LIST,
    PUBLISHED_TEST,
    PUBLISHED_TRAIN,
    Plan,
    chunks,
    make_plan,
    origin_warning,
    read_list,
)
from data_pipelines.source import Example, Item, Part, Source, Tally, waiting_archives
from fusion_jax.errors import UserError

_PART_PEOPLE = 250


class MpiiSource(Source):
    """See README.md."""

    name = "mpii"
    skeleton_name = "mpii16"
    settings: MpiiSettings

    def plan(self) -> Plan:
        """Who is in which split."""
        test_list = read_list(pathlib.Path(self.settings.test_list) if self.settings.test_list else PUBLISHED_LIST)
        people = files.load_people(self.manual_dir)
        try:
            return make_plan(people, test_list, self.settings)
        except UserError as error:
            raise UserError(f"{files.labels_path(self.manual_dir)}: {error}") from error

    def inventory(self) -> Iterator[Item]:
        """The archives where they are not unpacked yet, the annotations, and every picture that is needed."""
        packed = waiting_archives(self)
        yield from map(self.archive_item, packed)
        labels, folder = files.labels_path(self.manual_dir), files.pictures_folder(self.manual_dir)
        if not folder.exists() and not any(files.may_hold_pictures(archive) for archive in packed):
            yield Item(self._relative(folder), f"missing; download {files.PICTURES_ARCHIVE}")
        if not labels.exists() and any(may_hold(archive, files.LABELS_FILE) for archive in packed):
            return  # what pictures are needed is told once it is unpacked
        relative, size = self._relative(labels), labels.stat().st_size if labels.is_file() else None
        try:
            plan = self.plan()
        except UserError as error:
            yield Item(relative, str(error).removeprefix(str(labels)).lstrip(": "), size)
            return
        counts = ", ".join(f"{split} {len(found)}" for split, found in plan.splits.items())
        yield Item(relative, None, size, f"people: {counts}")
        if plan.missing:
            yield Item(relative, f"lacks {plan.missing} people of the list of test people", optional=True)
        if folder.exists():
            for name in sorted({one.person.image for found in plan.splits.values() for one in found}):
                path = folder / name
                size = path.stat().st_size if path.is_file() else None
                yield Item(self._relative(path), files.image_problem(path), size)

    def _relative(self, path: pathlib.Path) -> str:
        return path.relative_to(self.manual_dir).as_posix()

    def parts(self) -> list[Part]:
        """Runs of about 250 people. `first` and `last` are running numbers, which are disjoint between splits."""
        plan = self.plan()
        labels, folder = files.labels_path(self.manual_dir), files.pictures_folder(self.manual_dir)
        parts: list[Part] = []
        for split, found in plan.splits.items():
            for run in chunks(found, _PART_PEOPLE):
                first, last = run[0].number, run[-1].number
                pictures = dict.fromkeys(folder / one.person.image for one in run)
                skipped = plan.skipped if not parts else {}  # counted once, with the first part
                name = f"{split}/{first:06d}-{last:06d}"
                parts.append(
                    Part(split, name, "", "people", first, last, len(run), (labels, *pictures), (tuple(run), skipped))
                )
        return parts

    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        """A crop for each person; a picture is decoded once for all its people."""
        from data_pipelines.mpii.examples import make_example
        from data_pipelines.video import read_picture

        people, skipped = part.job
        labels, folder = part.files[0], part.files[1].parent
        for reason, count in skipped.items():
            tally.skip(reason, count)
        for image, run in itertools.groupby(people, key=lambda one: one.person.image):
            path = folder / image
            if wrong := files.image_problem(path):
                tally.fault(f"{path}: {wrong}")
                continue
            try:
                picture = read_picture(path)
            except UserError as error:
                tally.fault(str(error))
                continue
            for one in run:
                if one.person.problem:
                    tally.fault(f"{labels}: {one.person.problem}; download it again or leave them out with --partial")
                    continue
                try:
                    example = make_example(one, picture, self.settings, tally)
                except UserError as error:
                    tally.fault(f"{path}: {error}")
                    continue
                if example is not None:
                    yield example

    def description(self) -> dict[str, Any]:
        """What a table must say of it."""
        settings, plan = self.settings, self.plan()
        words = {
            "people": f"train and validation: labelled people of training pictures ({settings.people})",
            "test people": f"{len(plan.splits['test'])}, of {settings.test_list or 'the published validation people'}",
            "training people by the usual rule": f"{plan.training_people}; published: {PUBLISHED_TRAIN}",
            "boxes": {
                "hourglass": "the stacked hourglass's: centre lowered by 15 scale, side 250 scale",
                "joints": "around the labelled joints",
            }[settings.crop],
            "pixel origin": f"{settings.pixel_origin} (unconfirmed)",
            "3D": "none",
            "terms": "annotations Simplified BSD, for research; pictures are YouTube's, not to be passed on",
        }
        if settings.left_edge_absent:
            words["labels"] = "those with x <= 1 count as absent"
        if settings.share_pictures:
            words["shared pictures"] = "people who share a picture with a test person are trained on"
        warnings = self._warnings(plan)
        return words | ({"warning": "; ".join(warnings)} if warnings else {})

    def _warnings(self, plan: Plan) -> list[str]:
        found = [origin_warning(files.load_people(self.manual_dir), self.settings.pixel_origin)]
        tested = len(plan.splits["test"])
        if plan.missing:
            found.append(f"{plan.missing} people of the list of test people are not in the annotations")
        if not self.settings.test_list and (plan.training_people, tested) != (PUBLISHED_TRAIN, PUBLISHED_TEST):
            found.append(
                f"{plan.training_people} training and {tested} test people; published are {PUBLISHED_TRAIN} and "
                f"{PUBLISHED_TEST}, by a rule that is unconfirmed"
            )
        return [words for words in found if words]
