"""The words of a BVH file one by one, each checked as it is taken; every failure names file and line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NoReturn

from fusion_jax.errors import UserError

MAX_LINE_BYTES = 2**20
MAX_NUMBER = 1e9  # beyond any coordinate or angle of a body; keeps every later sum finite


class Tokens:
    """Words of a byte stream, split on whitespace only, with the line number of the last one taken."""

    def __init__(self, data: bytes, source: str):
        self.source, self.line_number = source, 0
        self._stream = io.BytesIO(data)
        self._words: Iterator[bytes] = iter(())

    def fail(self, expected: str, came: bytes | str, advice: str = "repair or re-export the file") -> NoReturn:
        """Raise the UserError for this place."""
        shown = came if isinstance(came, str) else repr(came[:40].decode("utf-8", "replace"))
        raise UserError(f"{self.source}, line {self.line_number}: expected {expected}, came {shown}; {advice}")

    def next_line(self) -> bytes | None:
        """The next line that is not blank; None at the end of the file."""
        while line := self._stream.readline(MAX_LINE_BYTES + 1):
            self.line_number += 1
            if len(line) > MAX_LINE_BYTES:
                self.fail(
                    f"lines of at most {MAX_LINE_BYTES} bytes",
                    "a longer one",
                    "check that this is a BVH file",
                )
            if line.strip():
                return line
        return None

    def take(self, expected: str) -> bytes:
        """The next word; `expected` says what it should be, for the message at the end of the file."""
        word: bytes | None = next(self._words, None)
        if word is None:
            line = self.next_line()
            if line is None:
                self.fail(expected, "the end of the file", "the file is cut short: copy it again")
            self._words = iter(line.split())
            word = next(self._words)
        return word

    def keyword(self, *allowed: str) -> str:
        """The next word, which must be one of `allowed` in any case."""
        expected = " or ".join(allowed)
        word = self.take(expected)
        found = next((name for name in allowed if name.lower().encode() == word.lower()), None)
        return found if found is not None else self.fail(expected, word)

    def count(self, what: str, most: int | None = None) -> int:
        """The next word, a whole number from 1, or from 0 to `most` where that is given."""
        word, low = self.take(what), 0 if most is not None else 1
        if not word.isdigit() or len(word) > 15 or not low <= int(word) <= (most or 10**15):
            limit = f"from {low}" + (f" to {most}" if most is not None else "")
            self.fail(f"{what} as a whole number {limit}", word)
        return int(word)

    def number(self, what: str, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float:
        """The next word, a number in [low, high]."""
        word = self.take(what)
        value = to_number(word)
        if value is None or not low <= value <= high:
            self.fail(f"{what} as a number from {low:g} to {high:g}", word)
        return value

    def end_of_line(self, after: str) -> None:
        """Fail unless all words of the current line are taken."""
        for word in self._words:
            self.fail(f"the end of the line after {after}", word)


def to_number(word: bytes) -> float | None:
    """The number that `word` spells, None where it is no finite number up to MAX_NUMBER."""
    try:
        value = float(word) if b"_" not in word else float("nan")  # Python reads 1_0 as 10
    except ValueError:
        return None
    return value if abs(value) <= MAX_NUMBER else None
