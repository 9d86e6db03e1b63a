"""Files from outside, opened so that an archive's list of members cannot fill the memory; what is wrong with them."""

from __future__ import annotations

import io
import pathlib


class Refused(Exception):
    """What is wrong, in words that go behind the file's name."""


class BoundedFile(io.BufferedReader):
    """A file that does not hand out an archive's list of members where it is too long; zipfile would parse it all."""

    def __init__(self, path: pathlib.Path, limit: int):
        """`limit`: the most bytes that one read may ask for, until it is set to None."""
        super().__init__(io.FileIO(path))
        self.limit: int | None = limit

    def read(self, size: int | None = -1) -> bytes:
        if self.limit is not None and size is not None and size > self.limit:
            raise Refused(f"is an archive whose list of members is {size} bytes long, expected {self.limit} at most")
        return super().read(size)


def read_ordinary(path: pathlib.Path, limit: int) -> bytes:
    """All of a file. A pipe would be waited for, and a device read, for ever.

    Raises:
      Refused: it is no ordinary file, or longer than `limit` bytes.
      OSError: it is missing or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise Refused("is no ordinary file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"has more than {limit} bytes")
    return data


def one_line_of(error: Exception) -> str:
    """An error's text on one line, cut off where it is long; its kind where it has none."""
    return " ".join(str(error).split())[:120] or type(error).__name__
