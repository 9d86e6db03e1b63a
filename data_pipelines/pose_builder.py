"""The TFDS builder of any `Source`: one shard a part, made in processes, resumable; its metadata tells all."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from data_pipelines.provenance import merge
from data_pipelines.shards import Shard, plan_digest, total_skipped, write_shards
from data_pipelines.source import Part, Source
from fusion_jax.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass
class PoseConfig(tfds.core.BuilderConfig):
    """A TFDS config named after the settings it carries."""

    settings: Any = None

    @classmethod
    def of(cls, settings: Any) -> PoseConfig:
        """The config of some settings, which tell their name by `config_name()`."""
        return cls(name=settings.config_name(), settings=settings)


class PoseBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS's own keyword
    """Prepares a `Source`. Subclasses set VERSION, RELEASE_NOTES, BUILDER_CONFIGS, pkg_dir_path and `source_class`.

    Attributes:
      source_class: the dataset.
      workers: processes that read; 0 for this one.
      strict: whether broken or missing files are an error; else what is good is prepared and the rest is listed.
      show: a progress bar.
      problems: what was found wrong before, a line each, for the metadata.
    """

    source_class: ClassVar[type[Source]]
    workers: int = 0
    strict: bool = True
    show: bool = True
    problems: tuple[str, ...] = ()

    @property
    def settings(self) -> Any:
        """What this config asks for."""
        return self.builder_config.settings

    def source(self, manual_dir: pathlib.Path | None = None) -> Source:
        """The raw dataset in a folder; without one it can still tell its features."""
        return self.source_class(pathlib.Path() if manual_dir is None else manual_dir, self.settings)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(type(self).__doc__ or "").strip(),
            features=self.source().features(),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        source = self.source(pathlib.Path(dl_manager.manual_dir))
        parts = source.parts()
        for part in parts:
            if part.split not in SPLITS:
                expected = ", ".join(SPLITS)
                raise UserError(f"{source.name}: part {part.name} is of split {part.split!r}, expected {expected}")
        work = self.unfinished(source, parts)
        shards = write_shards(source, parts, work, workers=self.workers, strict=self.strict, show=self.show)
        kept = [shard for shard in shards if shard.examples]
        if not kept:
            counts = [f"{count} {reason}" for reason, count in total_skipped(shards).items()]
            faults = [fault for shard in shards for fault in shard.faults]
            why = "; ".join([*counts, *faults[:1]]) or "there is nothing"
            raise UserError(f"{source.name}: no frame was left to write ({why})")
        self.info.set_splits(tfds.core.splits.SplitDict([self._place(split, kept) for split in _present(kept)]))
        self.info.metadata.update(_metadata(source, shards, self.problems))
        for stale in work.parent.glob(f".unfinished-{self.version}-*"):  # of this plan, and of settings since changed
            shutil.rmtree(stale, ignore_errors=True)

    def unfinished(self, source: Source, parts: list[Part]) -> pathlib.Path:
        """Where shards wait until all are there: beside the dataset, named after the plan."""
        config = pathlib.Path(self._data_dir_root) / self.name / self.builder_config.name
        return config / f".unfinished-{self.version}-{plan_digest(source, parts)}"

    def _place(self, split: str, shards: list[Shard]) -> tfds.core.SplitInfo:
        mine = [shard for shard in shards if shard.part.split == split]
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.data_path, dataset_name=self.name, split=split, filetype_suffix="array_record"
        )
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.examples for shard in mine],
            num_bytes=sum(shard.path.stat().st_size for shard in mine),
            filename_template=template,
        )
        for number, shard in enumerate(mine):
            target = template.sharded_filepath(shard_index=number, num_shards=len(mine))
            try:
                os.link(shard.path, target)  # a kill before the end leaves the shard where it waits
            except OSError:
                shutil.copyfile(shard.path, target)
        return info


def _present(shards: list[Shard]) -> list[str]:
    """The splits that hold something, in the usual order."""
    present = {shard.part.split for shard in shards}
    return [split for split in SPLITS if split in present]


def _metadata(source: Source, shards: list[Shard], problems: tuple[str, ...]) -> dict[str, Any]:
    splits = _present([shard for shard in shards if shard.examples])
    by_split = {split: [s for s in shards if s.part.split == split and s.examples] for split in splits}
    description = dict(source.description())
    if hasattr(source.settings, "frame_step"):
        description["frame_step"] = source.settings.frame_step  # protocols compare it
    skipped = total_skipped(shards)
    unique: dict[str, str] = {}
    for line in (*problems, *(fault for shard in shards for fault in shard.faults)):
        unique.setdefault(line.replace(": ", " "), line)  # 'PATH: is missing' and 'PATH is missing' are one
    faults = list(unique.values())
    notes = list(dict.fromkeys(note for shard in shards for note in shard.notes))
    if notes:
        description["notes"] = "; ".join(notes)
    if skipped:
        description["frames left out"] = "; ".join(f"{count} {reason}" for reason, count in skipped.items())
    if faults:
        told = f"prepared without {len(faults)} broken or missing pieces, first: {faults[0]}"
        description["warning"] = "; ".join(filter(None, [told, description.get("warning")]))
    return {
        "skeleton": source.skeleton_name,
        "image_size": source.settings.size,
        "subjects": {
            split: sorted({s.part.subject for s in mine if s.part.subject}, key=lambda name: (len(name), name))
            for split, mine in by_split.items()
        },
        "family": source.family or source.name,
        "people_shared": source.people_shared,
        "provenance": {
            split: merge((s.part.recording, s.part.first, s.part.last) for s in mine)
            for split, mine in by_split.items()
        },
        "description": description,
        "settings": {k: str(v) for k, v in dataclasses.asdict(source.settings).items()},
        "skipped": skipped,
        "faults": faults,
        "notes": notes,
    }
