"""Who is tested, trained on and held out: the published list, whole pictures, and a number for everybody."""

from __future__ import annotations

import collections
import pathlib
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.mpii.release import Person
from data_pipelines.mpii.settings import MpiiSettings
from fusion_jax.errors import UserError

PUBLISHED_LIST = pathlib.Path(__file__).with_name("published_validation.txt")
PUBLISHED_TRAIN, PUBLISHED_TEST = 22_246, 2_958
_LINE = re.compile(r"(\d{1,6}) (\d{1,4}) ([A-Za-z0-9_.-]{1,100})")
_MOST_HELD_OUT = 1 / 4  # of the training people: a small release still has somebody to train on

SHARED = "people who share a picture with a test person"
WITHHELD = "people of the official test part, whose joints are withheld"
UNLABELLED = "people of training pictures without joints"
CROWDED = "training people who do not stand apart"


class Listed(NamedTuple):
    """A line of the list of test people: 0-based indexes, and the picture's file name."""

    annolist_index: int
    annorect_index: int
    image: str


class Numbered(NamedTuple):
    """A person and their running number, which no setting changes."""

    number: int
    person: Person


class Plan(NamedTuple):
    """Who is in which split.

    Attributes:
      splits: people by split, in the order of their numbers; those of one picture stand together.
      skipped: how many are in no split, by reason.
      training_people: how many the usual rule gives: with joints, in a training picture, not on the list.
      missing: how many of the list's people the release lacks.
    """

    splits: dict[str, list[Numbered]]
    skipped: dict[str, int]
    training_people: int
    missing: int


def read_list(path: pathlib.Path) -> list[Listed]:
    """The people of a list: lines 'annolist annorect picture', picture without .jpg, `#` before a comment.

    Raises:
      UserError: naming the line that is something else or comes twice, or a file that is no such list.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of people ({error}); correct test_list") from error
    found: dict[tuple[int, int], Listed] = {}
    for count, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise UserError(
                f"{path}: line {count} is {line[:60]!r}, expected '<annolist> <annorect> <picture>', 0-based"
            )
        listed = Listed(int(match[1]), int(match[2]), match[3].removesuffix(".jpg") + ".jpg")
        if listed[:2] in found:
            raise UserError(f"{path}: line {count} names person {listed[0]} {listed[1]} again; remove one of the lines")
        found[listed[:2]] = listed
    if not found:
        raise UserError(f"{path} names nobody; correct test_list")
    return list(found.values())


def make_plan(people: Sequence[Person], test_list: Sequence[Listed], settings: MpiiSettings) -> Plan:
    """Divides everybody.

    Test people are numbered by their place on the list; then come the training people who share a picture with one
    of them; then all others with joints, their pictures in an order that hashing the names gives. The last of these
    are held out. So a number means the same person under all settings, and held-out people are spread over the videos.

    Raises:
      UserError: the list and the release disagree on a picture's name, or nobody has joints.
    """
    tested, missing = _tested(people, test_list)
    test_pictures = {person.image for _, person in tested}
    skipped: collections.Counter[str] = collections.Counter()
    on_list = {(listed.annolist_index, listed.annorect_index) for listed in test_list}
    others = []
    for person in people:
        if (person.annolist_index, person.annorect_index) in on_list:
            continue
        if not person.train:
            skipped[WITHHELD] += 1
        elif not (person.labelled.any() or person.problem):
            skipped[UNLABELLED] += 1
        else:
            others.append(person)
    if not tested and not others:
        raise UserError("RELEASE labels nobody's joints in a training picture; it is another file, download it again")
    others.sort(key=lambda person: _place(person, test_pictures))
    training = []
    for number, person in enumerate(others, len(test_list)):
        if person.image in test_pictures and not settings.share_pictures:
            skipped[SHARED] += 1
        elif settings.people == "separated" and not person.separated:
            skipped[CROWDED] += 1
        else:
            training.append(Numbered(number, person))
    kept = _without_last_pictures(training, settings.validation_count, test_pictures)
    splits = {"train": training[:kept], "validation": training[kept:], "test": tested}
    return Plan(splits, dict(skipped), len(others), missing)


def _tested(people: Sequence[Person], test_list: Sequence[Listed]) -> tuple[list[Numbered], int]:
    """(the list's people, how many of them are not in the release)."""
    by_place = {(person.annolist_index, person.annorect_index): person for person in people}
    names = {person.annolist_index: person.image for person in people}
    tested = []
    for number, listed in enumerate(test_list):
        image = names.get(listed.annolist_index, listed.image)
        if image != listed.image:
            raise UserError(
                f"RELEASE.annolist({listed.annolist_index + 1}) is picture {image}, but the list of test people says "
                f"{listed.image}; they are of different releases, use mpii_human_pose_v1_u12_1.mat"
            )
        person = by_place.get(listed[:2])
        if person is not None:
            if not (person.labelled.any() or person.problem):
                person = person._replace(problem=f"{_where(person)} is on the list of test people but has no joints")
            tested.append(Numbered(number, person))
    return tested, len(test_list) - len(tested)


def _where(person: Person) -> str:
    return f"RELEASE.annolist({person.annolist_index + 1}).annorect({person.annorect_index + 1})"


def _place(person: Person, test_pictures: set[str]) -> tuple:
    """Where someone stands in the order of the training people: those who may be left out for their picture first."""
    shares = person.image in test_pictures
    return not shares, zlib.crc32(person.image.encode()), person.image, person.annolist_index, person.annorect_index


def _without_last_pictures(training: list[Numbered], count: int, test_pictures: set[str]) -> int:
    """How many to keep so that about `count` at the end are held out: whole pictures, none that a test person is in."""
    alone = sum(person.image not in test_pictures for _, person in training)
    count = min(count, int(alone * _MOST_HELD_OUT))
    kept = len(training)
    while len(training) - kept < count:
        kept -= 1
        while kept and training[kept - 1].person.image == training[kept].person.image:
            kept -= 1
    return kept


def chunks(numbered: Iterable[Numbered], size: int) -> list[list[Numbered]]:
    """Runs of about `size` people; those of one picture stay together, so that it is decoded once."""
    runs: list[list[Numbered]] = []
    for one in numbered:
        if not runs or (len(runs[-1]) >= size and runs[-1][-1].person.image != one.person.image):
            runs.append([])
        runs[-1].append(one)
    return runs


def origin_evidence(people: Iterable[Person]) -> tuple[int, int]:
    """How many labelled coordinates lie in [0, 1) and how many in [1, 2) px.

    A tool that keeps labels within the picture leaves many in the first pixel: in [0, 1) where it counts from 0, in
    [1, 2) and none before where it counts from 1.
    """
    labelled = [person.joints[person.labelled] for person in people if person.labelled.any()]
    values = np.concatenate(labelled) if labelled else np.zeros((0, 2))
    return int(((values >= 0) & (values < 1)).sum()), int(((values >= 1) & (values < 2)).sum())


def origin_warning(people: Iterable[Person], origin: int) -> str:
    """Words where the labels speak against the chosen origin, else ''."""
    zero, one = origin_evidence(people)
    told = f"{zero} labelled coordinates lie in [0, 1) px and {one} in [1, 2) px"
    if origin == 1 and zero > one and zero >= 5:
        return f"{told}, which speaks for counting from 0: compare with pixel_origin 0"
    if origin == 0 and not zero and one >= 5:
        return f"{told}, which speaks for counting from 1: compare with pixel_origin 1"
    return ""
