"""Tar archives that came from outside, read from start to end by ourselves and trusted in nothing.

Python's reader keeps as much of a header in memory as the archive says, goes back in the file where a size is
negative, and for ever; and it takes a header that it cannot read for the end. Here come files and folders of usual
names, and nothing is made that is larger than a few blocks.
"""

from __future__ import annotations

import bz2
import gzip
import pathlib
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

_BLOCK = 512
_MAX_TEXT = 1 << 16  # bytes of a long name, or of a header of more fields
_MAX_TEXTS = 8  # of these before one member
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _FIELDS, _FIELDS_FOR_ALL = b"L", b"K", (b"x", b"X"), b"g"
_FIELD = re.compile(rb"(\d{1,6}) ([^=\n]{1,100})=")


class Damaged(Exception):
    """What is wrong, in words that go behind the archive's name."""


class Refused(Exception):
    """What the archive holds that no dataset does, in words that go behind its name."""


class Member(NamedTuple):
    """A file in an archive: its name as stored, its size in bytes, and its contents to be read before the next one."""

    name: str
    size: int
    file: IO[bytes]


def is_tar(path: pathlib.Path) -> bool:
    """Whether a file, packed with gzip or bzip2 or not, begins as a tar archive does."""
    try:
        with _opened(path) as file:
            block = file.read(_BLOCK)
        return len(block) == _BLOCK and (not block.strip(b"\0") or _checksum_fits(block))
    except Exception:  # of what packs it: OSError, EOFError, zlib's own
        return False


def tar_members(path: pathlib.Path, limit: int) -> Iterator[Member]:
    """The files of an archive, packed with gzip or bzip2 or not, in order; folders are passed over.

    Args:
      limit: bytes to unpack at most, headers and what is passed over included.

    Raises:
      Damaged: it is cut off, or does not end as a tar does.
      Refused: it holds a link, a device or a file with holes, or is larger than `limit`.
      Exception: of several kinds, where what packs it is damaged.
    """
    with _opened(path) as packed:
        stream = _Stream(packed, limit)
        while (header := _next_header(stream)) is not None:
            kind, name, size = header
            if kind == _FOLDER or (kind == b"\0" and name.endswith("/")):
                continue  # its size is no size of contents
            if kind not in _FILES:
                raise Refused(f"{name[:200]!r} is a link, a device or no usual file")
            contents = _Contents(stream, size)
            yield Member(name, size, cast("IO[bytes]", contents))
            stream.skip(contents.left + -size % _BLOCK)
        while stream.read(1 << 20):  # to the end, where gzip's checksum is compared
            pass


class _Stream:
    """What an archive unpacks to, `limit` bytes of it at most."""

    def __init__(self, file: IO[bytes], limit: int):
        self._file, self._left, self._limit = file, limit, limit

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Refused(f"unpacks to more than {self._limit} bytes, far more than its size")
        return data

    def exactly(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise Damaged("it ends in the middle")
        return data

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.exactly(min(size, 1 << 20)))


class _Contents:
    """The bytes of one member."""

    def __init__(self, stream: _Stream, size: int):
        self._stream, self.left = stream, size

    def read(self, size: int) -> bytes:
        data = self._stream.exactly(min(size, self.left))
        self.left -= len(data)
        return data


def _next_header(stream: _Stream) -> tuple[bytes, str, int] | None:
    """(kind, name, size) of the next member that is none of the headers in front of one; None at the end."""
    name: bytes | None = None
    size: int | None = None
    for _ in range(_MAX_TEXTS):
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise Damaged("it does not end as a tar does")
        if not block.strip(b"\0"):
            return None
        if not _checksum_fits(block):
            raise Damaged("it does not end as a tar does: a header's checksum is wrong")
        kind, own_size = block[156:157], _number(block[124:136])
        if kind in (_LONG_NAME, _LONG_LINK, *_FIELDS, _FIELDS_FOR_ALL):
            if own_size > _MAX_TEXT:
                raise Refused(f"has a header of {own_size} bytes, expected {_MAX_TEXT} at most")
            text = stream.exactly(own_size + -own_size % _BLOCK)[:own_size]
            if kind == _LONG_NAME:
                name = text.rstrip(b"\0")
            elif kind != _LONG_LINK:
                fields = _fields(text)
                if kind == _FIELDS_FOR_ALL and fields.keys() & {b"path", b"size"}:
                    raise Refused("has one name or size for all its members")
                name = fields.get(b"path", name)
                size = int(fields[b"size"]) if b"size" in fields else size
            continue
        found = name if name is not None else _own_name(block)
        return kind, found.decode("utf-8", "surrogateescape"), own_size if size is None else size
    raise Refused(f"has more than {_MAX_TEXTS} headers before one member")


def _fields(text: bytes) -> dict[bytes, bytes]:
    """The fields 'length name=value' of a header of POSIX 2001. Raises Damaged or Refused."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        match = _FIELD.match(text, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(text) or text[end - 1 : end] != b"\n":
            raise Damaged("a header of fields is none")
        found[match[2]] = text[match.end() : end - 1]
        at = end
    if any(name.startswith(b"GNU.sparse") for name in found):
        raise Refused("has a file with holes")
    if not re.fullmatch(rb"\d{1,18}", found.get(b"size", b"0")):
        raise Damaged("a size is no number")
    return found


def _own_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """A size: octal digits, or, where it is very large, bytes behind a mark. Raises Damaged."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise Damaged("a size is no number")
    return int(digits or b"0", 8)


def _checksum_fits(block: bytes) -> bool:
    """Whether a header's own sum of its bytes is right; some writers took bytes for signed numbers."""
    digits = block[148:156].replace(b"\0", b" ").strip()
    if not re.fullmatch(rb"[0-7]{1,8}", digits):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return int(digits, 8) in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest))


def _opened(path: pathlib.Path) -> Any:
    """The file, unpacked as it is read. Not xz: its writer chooses how much memory unpacking takes."""
    with path.open("rb") as file:
        start = file.read(3)
    if start[:2] == b"\x1f\x8b":
        return gzip.open(path)
    return bz2.open(path) if start == b"BZh" else path.open("rb")
