"""Who a network has seen in training, kept with it for good, and the refusal to test it on them.

A test person, or a test frame where a dataset's own protocol divides by frames, that was trained on makes every number
worthless. So each run records what it was trained on, what its starting weights were trained on included.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from data_pipelines.prepared import PoseDataset
from data_pipelines.provenance import Provenance, check_provenance, overlap
from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Seen:
    """One dataset's part in a training.

    Attributes:
      dataset: its name.
      family: of PoseDataset.
      people_shared: of PoseDataset.
      subjects: who was trained on.
      provenance: which frames, where the dataset tells.
    """

    dataset: str
    family: str
    people_shared: bool
    subjects: tuple[str, ...]
    provenance: Provenance

    @classmethod
    def of(cls, dataset: PoseDataset, splits: Iterable[str]) -> Seen:
        """Those splits of a dataset."""
        splits = tuple(splits)
        people = sorted({name for split in splits for name in dataset.subjects.get(split, [])})
        frames: Provenance = {}
        for split in splits:
            for recording, intervals in dataset.provenance.get(split, {}).items():
                frames[recording] = [*frames.get(recording, []), *intervals]
        return cls(dataset.name, dataset.family, dataset.people_shared, tuple(people), frames)

    def to_json(self) -> dict:
        """Plain JSON data; `seen_from_json` reads it."""
        return {**dataclasses.asdict(self), "subjects": list(self.subjects)}


def seen_from_json(data: object, where: str) -> list[Seen]:
    """What `Seen.to_json` made. Raises UserError naming `where` where the data is something else."""
    kinds = {"dataset": str, "family": str, "people_shared": bool, "subjects": list, "provenance": dict}
    if not isinstance(data, list):
        raise UserError(f"{where}: expected a list of datasets, got {type(data).__name__}")
    found = []
    for entry in data:
        if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in kinds.items()):
            raise UserError(f"{where}: each entry needs {', '.join(kinds)}; got {str(entry)[:100]}")
        people = tuple(str(name) for name in entry["subjects"])
        frames = check_provenance(entry["provenance"], f"{where}: provenance")
        found.append(Seen(entry["dataset"], entry["family"], entry["people_shared"], people, frames))
    return found


def shared(one: Seen, other: Seen) -> str | None:
    """Words for a person or for frames that both hold, or None where they have nothing in common."""
    if one.family != other.family:
        return None
    people = sorted(set(one.subjects) & set(other.subjects))
    if people and not (one.people_shared and other.people_shared):
        return ", ".join(people)
    return overlap(one.provenance, other.provenance)


def unknown_overlap(seen: Sequence[Seen], dataset: PoseDataset, split: str) -> str | None:
    """A warning where a dataset of the same family was trained on and nothing tells whether people are shared.

    That is so where one of the two names nobody and they have no recording in common whose frames could be compared.
    """
    asked = Seen.of(dataset, split.split("+"))
    doubtful = [
        trained.dataset
        for trained in seen
        if trained.family == asked.family
        and trained.dataset != asked.dataset
        and not (trained.subjects and asked.subjects)
        and not trained.provenance.keys() & asked.provenance.keys()
    ]
    if not doubtful:
        return None
    return f"cannot tell whether {dataset.name} and {', '.join(dict.fromkeys(doubtful))} share people"


def check_test(seen: Sequence[Seen], dataset: PoseDataset, split: str) -> None:
    """Raises UserError where somebody, or some frame, of a split was trained on."""
    asked = Seen.of(dataset, split.split("+"))
    for trained in seen:
        both = shared(trained, asked)
        if both:
            raise UserError(
                f"{both} of {dataset.name}'s {split} split was trained on (as {trained.dataset}); a score on what "
                "training has seen says nothing. Test on another dataset, or train without them"
            )


def check_splits(datasets: Sequence[PoseDataset]) -> None:
    """Raises UserError where two splits, of one dataset or of several trained on together, have somebody in common."""
    parts = [(dataset, split, Seen.of(dataset, [split])) for dataset in datasets for split in dataset.subjects]
    for (first, split, one), (second, other_split, other) in itertools.combinations(parts, 2):
        both = shared(one, other) if split != other_split else None
        if both:
            raise UserError(
                f"{both} {'is' if ',' not in both else 'are'} in both {split} of {first.name} and {other_split} of "
                f"{second.name}; prepare it again with splits that have nobody in common"
            )
