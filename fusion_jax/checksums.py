"""Checksums over every file of a folder, so that a cut file, a lost one or one flipped bit is noticed.

The list is a file of the folder itself, written last: a folder without it is not finished. It guards against disks,
kills and copies that went wrong, not against people, who can write a new list.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from etils import epath

NAME = "checksums.json"
_FORMAT = 1
_MAX_LIST = 64 * 2**20  # bytes of the list itself


def write_checksums(folder: epath.Path, without: tuple[str, ...] = ()) -> None:
    """Lists every file below a folder, with its size and SHA-256, in the folder's checksums.json.

    Args:
      folder: whole, save for this list.
      without: names of files that are not listed, as they may still change.
    """
    wanted = sorted(name for name in files_below(folder) if name.rpartition("/")[2] not in (NAME, *without))
    files = {name: _about(folder / name) for name in wanted}
    (folder / NAME).write_text(json.dumps({"format": _FORMAT, "files": files}, indent=1))


def damage(folder: epath.Path, optional: tuple[str, ...] = ()) -> str | None:
    """What is wrong with a folder, in words that go behind its name; None where it is as it was when it was listed.

    Args:
      folder: to be looked at; all of its files are read.
      optional: names of files that may be missing. One that is there has to be as it was.

    Raises:
      OSError: a file that is there cannot be read, which says nothing about what it holds.
    """
    try:
        if odd := _odd(folder / NAME, _MAX_LIST):
            return f"has a {NAME} that {odd}"
        listed = json.loads((folder / NAME).read_text())
        expected = listed["files"]
        if listed["format"] != _FORMAT:
            return f"has a {NAME} of format {listed['format']!r}; this version of the program reads {_FORMAT}"
        for name, (size, digest) in expected.items():
            if not isinstance(name, str) or not isinstance(size, int) or not isinstance(digest, str):
                raise TypeError
    except FileNotFoundError:
        return f"is not finished: it has no {NAME} (or it is of an older version of the program, which wrote none)"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"has a {NAME} that cannot be read"
    there = set(files_below(folder))
    for name, (size, digest) in expected.items():
        try:
            if name not in there:
                raise FileNotFoundError
            if odd := _odd(folder / name, size):
                return f"is damaged: {name} {odd}"
            found = _about(folder / name)
        except FileNotFoundError:
            if name.rpartition("/")[2] not in optional:
                return f"lacks its file {name}"
            continue
        if found[0] != size:
            return f"is damaged: {name} has {found[0]} bytes, {size} were written"
        if found[1] != digest:
            return f"is damaged: {name} does not hold what was written"
    return None


def _odd(path: epath.Path, most: int) -> str | None:
    """Whether a path is something else than a file (a pipe would be waited for), or too long to be read for nothing."""
    local = pathlib.Path(os.fspath(path))
    if local.exists() and not local.is_file():
        return "is no file"
    size = path.stat().length
    return f"has {size} bytes, {most} at most were expected" if size > most else None


def files_below(folder: epath.Path) -> Iterator[str]:
    """Every file below a folder, by its path from there; links to folders are not followed."""
    top = _bare(folder)
    for where, _, names in folder.walk():
        inner = _bare(where).removeprefix(top).strip("/")
        yield from (f"{inner}/{name}" if inner else name for name in names)


def _bare(path: epath.Path) -> str:
    """A path without gs://, which fsspec's walk takes off."""
    return str(path).rpartition("://")[2].strip("/")


def _about(path: epath.Path) -> list[Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return [size, digest.hexdigest()]
