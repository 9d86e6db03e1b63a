"""Which sequences each subject has, under which file name and with how many pose rows. Text and names only.

The names follow no rule (S6 has a `Waiting 3`, S11 a `Phoning 3` and no `Phoning`), so they are a table.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from fusion_jax.bounded_file import Refused, read_ordinary
from fusion_jax.errors import UserError, unknown_name

TABLE = pathlib.Path(__file__).with_name("sequences.txt")
TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
SUBJECTS = (*TRAIN_SUBJECTS, *TEST_SUBJECTS)
ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
_S1_NAMES = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}  # file names that S1 alone has
_MAX_ROWS = 10**6
_MAX_BYTES = 2**20  # of a table; the dataset's own has a hundredth


class Sequence(NamedTuple):
    """A performance.

    Attributes:
      subject: such as 'S9'.
      action: one of ACTIONS.
      recording: 1 or 2, as the dataset counts; file names do not always say.
      stem: name of its files without camera and ending, such as 'SittingDown 1'.
      rows: how many frames have a pose.
      frames: of its videos, where those go on for long after the last pose; 0 where not.
    """

    subject: str
    action: str
    recording: int
    stem: str
    rows: int
    frames: int = 0

    @property
    def name(self) -> str:
        """Unique in the dataset: 'S9/SittingDown 1'."""
        return f"{self.subject}/{self.stem}"


def canonical_action(stem: str) -> str:
    """The action of a file's stem: its first word, looked up whole, since Sitting also begins SittingDown.

    Raises:
      UserError: no such action.
    """
    word = stem.split(" ")[0]
    action = _S1_NAMES.get(word, word)
    if action not in ACTIONS:
        raise unknown_name("action of Human3.6M", word, (*ACTIONS, *_S1_NAMES))
    return action


def is_miscellaneous(file_name: str) -> bool:
    """Whether a file is of the `_ALL` recording, which has no action and which nobody uses."""
    return file_name.startswith("_ALL")


def parse_table(text: str, where: str) -> tuple[Sequence, ...]:
    """Sequences of a table: subject, action, recording, stem, rows with tabs between; # begins a comment line.

    A sixth word is how many frames its videos have, where those go on for long after the last pose.

    Args:
      text: of the table.
      where: names it in errors.

    Raises:
      UserError: a line is no such row, or a name is there twice.
    """
    found: dict[str, Sequence] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        words = line.split("\t")
        numbers = all(word.isdecimal() and word.isascii() for word in words[4:])
        whole = len(words) in (5, 6) and words[2] in ("1", "2") and numbers
        if not whole or words[0] not in SUBJECTS or words[1] != canonical_action(words[3]) or "/" in words[3]:
            raise UserError(
                f"{where}, line {number}: {line[:80]!r} is no 'subject, action, recording, file name, rows'"
            )
        sequence = Sequence(words[0], words[1], int(words[2]), words[3], *(int(word[:9]) for word in words[4:]))
        if sequence.name in found or not 0 < sequence.rows <= _MAX_ROWS:
            raise UserError(f"{where}, line {number}: {sequence.name} is there twice or has {sequence.rows} rows")
        if sequence.frames and not sequence.rows <= sequence.frames <= _MAX_ROWS:
            raise UserError(f"{where}, line {number}: videos of {sequence.frames} frames for {sequence.rows} rows")
        found[sequence.name] = sequence
    return tuple(found.values())


def table_bytes(path: pathlib.Path) -> bytes:
    """A table file as it is. Raises UserError where it is no ordinary file, too large, or cannot be read."""
    try:
        return read_ordinary(path, _MAX_BYTES)
    except Refused as error:
        raise UserError(f"{path} {error}, expected a table of sequences; correct --table") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read as a table of sequences ({error.strerror}); correct --table") from error


@functools.cache
def read_table(path: pathlib.Path = TABLE) -> tuple[Sequence, ...]:
    """All sequences of a table file, by default the dataset's own. Raises UserError where it cannot be read."""
    try:
        text = table_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as a table of sequences ({error}); correct --table") from error
    return parse_table(text, str(path))


def wrong_names(subject: str, found: Iterable[str], table: tuple[Sequence, ...]) -> str | None:
    """What is wrong with the stems of a subject's pose files, in words; None where they are the table's.

    Names another subject where the files are all of theirs: a tree that was unpacked into the wrong folder.
    """
    stems: dict[str, set[str]] = {}
    for sequence in table:
        stems.setdefault(sequence.subject, set()).add(sequence.stem)
    expected, there = stems.get(subject, set()), set(found)
    if there == expected:
        return None
    owners = [other for other, names in stems.items() if names == there]
    if owners:
        return f"holds the files of {owners[0]}, not of {subject}; unpack each subject's archives into its own folder"
    words = [f"lacks {', '.join(sorted(expected - there))}"] if expected - there else []
    words += [f"holds {', '.join(sorted(there - expected))}, not of {subject}"] if there - expected else []
    return f"{' and '.join(words)}; {len(expected)} sequences expected, download its pose archive again"
