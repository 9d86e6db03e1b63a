"""Whether the system hands out what lies in a data folder: rights and failing disks are no damage to the data."""

from __future__ import annotations

import errno
import os
import pathlib

from fusion_jax.errors import UserError

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_WITHHELD = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENODEV, errno.EMFILE, errno.ENFILE)


class UnreadableError(UserError):
    """Files or folders that may be sound, but that this process is not let read, or cannot for their name."""


def check_name(folder: pathlib.Path) -> None:
    """Raises UnreadableError for a data folder whose name is no text: array_record takes no such path."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UnreadableError(
            f"{str(folder)!a} is no text in UTF-8, on which TFDS breaks; rename it, or give another --data-dir"
        ) from None


def check_readable(folder: pathlib.Path, error: Exception | None = None) -> None:
    """Raises UnreadableError where a file of a folder does not open, or does not give its first byte.

    For after a failure: the libraries that read datasets raise kinds of their own, which do not tell the two apart.

    Args:
      folder: whose own files are looked at, without hidden ones.
      error: what failed; a disk that fails further inside a file is known by the system's words in it.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name[0] != "." and not entry.is_dir())
    except OSError as found:
        raise _unreadable(folder, found.strerror) from found
    for name in names:
        try:
            _read_a_byte(folder / name)
        except OSError as found:
            raise _unreadable(folder / name, found.strerror) from found
    for words in map(os.strerror, _WITHHELD):
        if words in str(error):
            raise _unreadable(folder, words)


def folders_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder by name; none where it is missing. Unlike a glob, which passes over what it may not see.

    Raises:
      UnreadableError: it cannot be listed.
    """
    try:
        return sorted(folder / entry.name for entry in os.scandir(folder) if entry.is_dir())
    except ValueError:  # a name with a zero byte
        return []
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise _unreadable(folder, error.strerror) from error


def is_there(path: pathlib.Path) -> bool:
    """Whether a file exists. Raises UnreadableError where its folder does not let it be seen."""
    try:
        path.stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise _unreadable(path, error.strerror) from error
    return True


def _read_a_byte(path: pathlib.Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for ever
    try:
        os.read(number, 1)
    finally:
        os.close(number)


def _unreadable(path: pathlib.Path, reason: str | None) -> UnreadableError:
    return UnreadableError(f"{path} cannot be read ({reason}); look at its rights and at the disk")
