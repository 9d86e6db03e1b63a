"""Who does what: people, divided into splits, act out procedural actions or captured clips. NumPy only."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from data_pipelines.bvh import MAX_FILE_BYTES
from data_pipelines.synthetic_humans.actions import ACTIONS, perform
from data_pipelines.synthetic_humans.body import retarget
from data_pipelines.synthetic_humans.clips import Clip
from data_pipelines.synthetic_humans.mocap import MAPPING_FILE, load_clips
from data_pipelines.synthetic_humans.people import Person, sample_person
from fusion_jax.bounded_file import Refused, read_ordinary
from fusion_jax.errors import UserError, check_field

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """All that determines the dataset's content."""

    size: int = 64
    """Side of the pictures, px."""
    num_subjects: int = 32
    """People; about a quarter of them are for testing and an eighth for validation."""
    frames: int = 8
    """Frames of each sequence; four cameras see each."""
    fps: float = 5.0
    """Frames per second kept of the motion."""
    seed: int = 0
    motion: str = ""
    """Folder of BVH clips to act out; without one the procedural actions."""
    test_performers: tuple[str, ...] = ()
    """Whose clips only the test people act out; without names, those with the least motion, a tenth of it."""

    def __post_init__(self):
        check_field(16 <= self.size <= 1024, "size", self.size, "16 to 1024 px")
        check_field(self.num_subjects >= 3, "num_subjects", self.num_subjects, "at least 3: one for each split")
        check_field(self.frames >= 1, "frames", self.frames, ">= 1")
        check_field(0 < self.fps <= 1000, "fps", self.fps, "> 0 and <= 1000 frames per second")
        check_field(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2^32 - 1")
        if self.test_performers and not self.motion:
            raise UserError("test_performers needs a folder of clips (--motion)")


class Sequence(NamedTuple):
    """One person doing one thing: joints (T, 17, 3) world mm, floor at z = 0."""

    subject: str
    name: str
    action: str
    person: Person
    joints_mm: np.ndarray


def split_subjects(num_subjects: int) -> dict[str, list[int]]:
    """Subject numbers of each split; nobody is in two."""
    num_test = max(1, round(num_subjects / 4))
    num_validation = max(1, round(num_subjects / 8))
    num_train = num_subjects - num_test - num_validation
    numbers = list(range(num_subjects))
    return {
        "train": numbers[:num_train],
        "validation": numbers[num_train : num_train + num_validation],
        "test": numbers[num_train + num_validation :],
    }


def subject_name(number: int) -> str:
    """'S01' for subject 0."""
    return f"S{number + 1:02d}"


def family(seed: int) -> str:
    """What datasets with the same people share: person n of a seed is the same in every size, live or on disk."""
    return f"synthetic_humans/seed{seed}"


def split_clips(clips: list[Clip], test_performers: tuple[str, ...]) -> dict[str, list[Clip]]:
    """Captured clips by split: nobody who moves in the test clips moves in the others.

    Validation people act out training clips, with bodies and moments of their own. Where there is only one
    performer everybody acts out all clips, and `overlapping_performers` says so.

    Raises:
      UserError: a test performer that moves in no clip, or none left to train on.
    """
    names = sorted({clip.performer for clip in clips})
    unknown = sorted(set(test_performers) - set(names))
    if unknown:
        raise UserError(f"test performer {unknown[0]!r} is in no clip; the clips have {', '.join(names)}")
    if len(names) == 1 and not test_performers:
        return dict.fromkeys(SPLITS, clips)
    testers = set(test_performers) or _default_testers(clips)
    train = [clip for clip in clips if clip.performer not in testers]
    if not train:
        raise UserError("every performer is a test performer; leave at least one to train on")
    return {
        "train": train,
        "validation": train,
        "test": [clip for clip in clips if clip.performer in testers],
    }


def _default_testers(clips: list[Clip]) -> set[str]:
    """Those with the fewest frames, as many as it takes to hold a tenth of all frames; most stays to train on."""
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.performer] = frames.get(clip.performer, 0) + len(clip.joints_mm)
    by_frames = sorted(frames, key=lambda name: (frames[name], name))
    testers: set[str] = set()
    for name in by_frames[:-1]:
        testers.add(name)
        if sum(frames[tester] for tester in testers) >= 0.1 * sum(frames.values()):
            break
    return testers


def performers(clips: Mapping[str, list[Clip]]) -> dict[str, list[str]]:
    """Whose clips each split acts out."""
    return {split: sorted({clip.performer for clip in members}) for split, members in clips.items()}


def overlapping_performers(clips: Mapping[str, list[Clip]]) -> list[str]:
    """Performers whose motion is in both train and test."""
    return sorted({c.performer for c in clips["train"]} & {c.performer for c in clips["test"]})


def load_motion(settings: SyntheticSettings) -> dict[str, list[Clip]] | None:
    """The captured clips of each split, None for procedural actions."""
    if not settings.motion:
        return None
    return split_clips(load_clips(settings.motion, settings.fps), settings.test_performers)


def motion_digest(folder: str) -> str:
    """Eight hex digits that change when a clip or the mapping in the folder does.

    Raises:
      UserError: one of them is no ordinary file, or larger than any clip.
    """
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(folder).iterdir()):
        if path.suffix.lower() == ".bvh" or path.name == MAPPING_FILE:
            try:
                digest.update(path.name.encode() + b"\0" + read_ordinary(path, MAX_FILE_BYTES))
            except Refused as error:
                raise UserError(f"{path} {error}; correct it or take it out of that folder") from error
    return digest.hexdigest()[:8]


def sequences(settings: SyntheticSettings, split: str, clips: Mapping[str, list[Clip]] | None) -> Iterator[Sequence]:
    """Every sequence of a split, each drawn from (seed, subject, name) alone and so independent of the others."""
    for number in split_subjects(settings.num_subjects)[split]:
        person = sample_person(settings.seed, number)
        if clips is None:
            for action in ACTIONS:
                clip = perform(action, person, rng_of(settings.seed, number, action), settings.frames, settings.fps)
                yield Sequence(subject_name(number), action, action, person, clip.joints_mm)
        else:
            for clip in clips[split]:
                joints = _acted(clip, person, rng_of(settings.seed, number, clip.name), settings.frames)
                yield Sequence(subject_name(number), clip.name, clip.action, person, joints)


def rng_of(seed: int, subject: int, name: str) -> np.random.Generator:
    """A generator of its own for a subject's sequence."""
    return np.random.default_rng((seed, subject, zlib.crc32(name.encode())))


def _acted(clip: Clip, person: Person, rng: np.random.Generator, frames: int) -> np.ndarray:
    """A random stretch of the clip with the person's bones, turned by a random heading."""
    start = int(rng.integers(0, max(1, len(clip.joints_mm) - frames + 1)))
    joints = retarget(clip.joints_mm, person.bone_lengths_mm)[start : start + frames]
    joints[..., :2] -= joints[:, :1, :2].mean(0)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    joints[..., :2] = joints[..., :2] @ turn.T
    return joints.astype(np.float32)
