"""Archives in the manual folder: known by their bytes, unpacked each into a folder of its own, trusted in nothing."""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import lzma
import os
import pathlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import IO

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

Members = Generator[tuple[pathlib.PurePosixPath, int, IO[bytes]], None, None]

SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
MAX_RATIO = 200  # unpacked bytes to packed bytes; media and MATLAB files stay far below
MAX_BYTES = 500 * 10**9
_LOOKED_AT = 200  # members of a tar, which has no list of its own
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError),  # zipfile: unknown compression, encryption
)
_NO_SUCH_NAME = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL)


def find_archives(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """The archives that lie directly in a folder."""
    if not manual_dir.is_dir():
        return []
    return sorted(p for p in manual_dir.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES))


def unpacked_folder(archive: pathlib.Path) -> pathlib.Path:
    """Where an archive is unpacked: beside it, in a folder of its name without the ending."""
    name = archive.name
    ending = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s))
    return archive.with_name(name[: -len(ending)])


def is_unpacked(archive: pathlib.Path) -> bool:
    """Whether an archive has its folder, or was unpacked by hand where it lies: its first file is there, as large."""
    if unpacked_folder(archive).exists():
        return True
    try:
        with contextlib.closing(_members(archive)) as members:
            name, size, _ = next(members)
            return (archive.parent / name).stat().st_size == size > 0
    except (UserError, StopIteration, OSError, *_BROKEN):
        return False


def may_hold(archive: pathlib.Path, ending: str) -> bool:
    """Whether a file whose name ends so is in an archive; True also for a tar too long to be looked through."""
    try:
        with contextlib.closing(_members(archive)) as members:
            limit = None if zipfile.is_zipfile(archive) else _LOOKED_AT
            names = [str(name) for name, _, _ in itertools.islice(members, limit)]
    except (UserError, OSError, *_BROKEN):
        return False
    return len(names) == limit or any(name.endswith(ending) for name in names)


def unpack(archive: pathlib.Path, folder: pathlib.Path, progress: Callable[[int], object] = lambda size: None) -> None:
    """Unpacks an archive into a new folder, all of it or nothing, and reads it to its end: its checksums count.

    Args:
      progress: is told of bytes written.

    Raises:
      UserError: it is a web page, damaged or cut off; a member is a link, absolute, or leads out of the folder; or
        it unpacks to more than MAX_RATIO times its size.
      OSError: the disk is full or cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    limit = min(MAX_BYTES, MAX_RATIO * archive.stat().st_size + 10**6)
    try:
        partial.mkdir(parents=True)
        with contextlib.closing(_members(archive)) as members:
            for name, size, source in members:
                limit -= size
                if limit < 0:
                    raise UserError(f"{archive} unpacks to more than {MAX_RATIO} times its size; it is no such dataset")
                _write(partial, name, size, source, archive, progress)
        os.replace(partial, folder)
    except _BROKEN as error:
        raise _damaged(archive, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    partial: pathlib.Path,
    name: pathlib.PurePosixPath,
    size: int,
    source: IO[bytes],
    archive: pathlib.Path,
    progress: Callable[[int], object],
) -> None:
    target = partial / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except OSError as error:
        if os.path.isfile(target):  # unlike its own method this bears any name
            raise UserError(f"{archive} holds {name} twice; it is damaged, download it again") from error
        if error.errno in _NO_SUCH_NAME:
            raise UserError(f"{archive}: member {str(name)[:80]!r} cannot be a file here; do not use it") from error
        raise
    with out:
        for chunk in _chunks(source, size, archive):
            out.write(chunk)
            progress(len(chunk))


def _chunks(source: IO[bytes], size: int, archive: pathlib.Path) -> Iterator[bytes]:
    """A member's bytes. Reading may fail for the archive's sake; what writes them fails for the disk's."""
    left = size
    while True:
        try:
            chunk = source.read(1 << 20)
        except OSError as error:
            raise _damaged(archive, error) from error
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise UserError(f"{archive}: a member is larger than it says; do not use this archive")
        yield chunk


def _damaged(archive: pathlib.Path, error: Exception) -> UserError:
    reason = str(error) or type(error).__name__
    return UserError(f"{archive} is damaged or cut off ({reason}); download it again")


def _members(archive: pathlib.Path) -> Members:
    """(safe relative name, size, open file) of every file in an archive, which is then read to its very end."""
    check_not_text(archive)
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        with archive.open("rb") as file:
            start = file.read(8)
        raise UserError(f"{archive} is no zip or tar archive (it starts with {start!r}); download it again")


def _zip_members(archive: pathlib.Path) -> Members:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            if entry.is_dir():
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{archive}: {entry.filename!r} is a link; datasets hold none, do not use this archive")
            with packed.open(entry) as file:
                yield _safe(archive, entry.filename), entry.file_size, file


def _tar_members(archive: pathlib.Path) -> Members:
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isdir():
                continue
            if not member.isfile():
                raise UserError(f"{archive}: {member.name!r} is a link or a device; do not use this archive")
            file = packed.extractfile(member)
            assert file is not None  # of a regular member there always is one
            yield _safe(archive, member.name), member.size, file
        _check_end(packed, archive)


def _check_end(packed: tarfile.TarFile, archive: pathlib.Path) -> None:
    """Raises UserError unless a tar ends as tars do.

    Python's reader takes a header that it cannot read for the end, and never looks at what follows: a damaged
    archive would come out short. A tar ends with a block of zeros, and reading a gzip file on checks its checksum.
    """
    file = packed.fileobj
    assert file is not None
    file.seek(packed.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise UserError(f"{archive} is damaged or cut off (it does not end as a tar does); download it again")
    while file.read(1 << 20):
        pass


def _safe(archive: pathlib.Path, name: str) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or not name.isprintable():
        raise UserError(f"{archive}: member {name!r} leads out of its folder or is no name; do not use this archive")
    return path


def locate(manual_dir: pathlib.Path, relative: str) -> pathlib.Path:
    """Where a path of the dataset's tree is: in the manual folder itself or in one unpacked archive's folder.

    The manual folder's own place is the answer where it is nowhere, so that messages name what was expected.

    Raises:
      UserError: it is in two of them; which one counts would be a guess.
    """
    places = [manual_dir, *(f for f in map(unpacked_folder, find_archives(manual_dir)) if f.is_dir())]
    found = [place / relative for place in places if (place / relative).exists()]
    if len(found) > 1:
        raise UserError(f"{relative} is in both {found[0]} and {found[1]}; remove one of them")
    return found[0] if found else manual_dir / relative
