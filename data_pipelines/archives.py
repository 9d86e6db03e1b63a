"""Archives in the manual folder: known by their bytes, unpacked each into a folder of its own, trusted in nothing."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import shutil
import stat
import zipfile
from collections.abc import Callable, Generator, Iterator
from typing import IO

from data_pipelines import tar_reader
from data_pipelines.tar_reader import is_tar, tar_members
from data_pipelines.video import check_not_text
from fusion_jax.bounded_file import BoundedFile, Refused
from fusion_jax.errors import UserError

Members = Generator[tuple[pathlib.PurePosixPath, int, IO[bytes]], None, None]

SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
MAX_RATIO = 200  # unpacked bytes to packed bytes; media and MATLAB files stay far below
MAX_BYTES = 500 * 10**9
MAX_MEMBERS = 1_000_000
_MAX_PARTS = 32  # folders in one another, each of which is made
_MAX_LIST = 1 << 25  # bytes of a zip's list of members; the largest of the datasets has a tenth
_LOOKED_AT = 200  # members of a tar, which has no list of its own
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of the others zipfile unpacks far more at once than is asked
_NO_SUCH_NAME = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL)


def find_archives(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """The archives that lie directly in a folder; `.zip` and `...zip`, which leave no name for a folder, are none."""
    if not manual_dir.is_dir():
        return []
    named = (p for p in manual_dir.iterdir() if p.name.lower().endswith(SUFFIXES) and _stem(p.name).strip("."))
    return sorted(p for p in named if p.is_file())


def unpacked_folder(archive: pathlib.Path) -> pathlib.Path:
    """Where an archive is unpacked: beside it, in a folder of its name without the ending."""
    return archive.with_name(_stem(archive.name))


def _stem(name: str) -> str:
    ending = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s))
    return name[: -len(ending)]


def is_unpacked(archive: pathlib.Path) -> bool:
    """Whether an archive has its folder, or was unpacked by hand where it lies: its first file is there, as large."""
    if unpacked_folder(archive).exists():
        return True
    try:
        with contextlib.closing(_members(archive)) as members:
            name, size, _ = next(members)
            return (archive.parent / name).stat().st_size == size > 0
    except (UserError, StopIteration, OSError, ValueError):  # ValueError: of a name with a zero byte
        return False


def is_archive(path: pathlib.Path) -> bool:
    """Whether a file looks like a zip or a tar by its ends."""
    return zipfile.is_zipfile(path) or is_tar(path)


def may_hold(archive: pathlib.Path, ending: str) -> bool:
    """Whether a file whose name ends so is in an archive; True also for a tar too long to be looked through."""
    try:
        with contextlib.closing(_members(archive)) as members:
            limit = None if zipfile.is_zipfile(archive) else _LOOKED_AT
            names = [str(name) for name, _, _ in itertools.islice(members, limit)]
    except UserError:
        return False
    return len(names) == limit or any(name.endswith(ending) for name in names)


def unpack(archive: pathlib.Path, folder: pathlib.Path, progress: Callable[[int], object] = lambda size: None) -> None:
    """Unpacks an archive into a new folder, all of it or nothing, and reads it to its end: its checksums count.

    Args:
      progress: is told of bytes written.

    Raises:
      UserError: it is a web page, damaged or cut off; a member is a link, absolute, or leads out of the folder; or
        it unpacks to more than MAX_RATIO times its size or MAX_MEMBERS files.
      OSError: the disk is full or cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    limit = _limit(archive)
    try:
        partial.mkdir(parents=True)
        with contextlib.closing(_members(archive)) as members:
            for number, (name, size, source) in enumerate(members, 1):
                limit -= size
                if limit < 0:
                    raise _bomb(archive)
                if number > MAX_MEMBERS:
                    raise UserError(f"{archive} holds more than {MAX_MEMBERS} files; it is no such dataset")
                _write(partial, name, size, source, archive, progress)
        os.replace(partial, folder)
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
        except Exception as error:
            raise _not_read(archive, error) from error
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise UserError(f"{archive}: a member is larger than it says; do not use this archive")
        yield chunk


def _limit(archive: pathlib.Path) -> int:
    return min(MAX_BYTES, MAX_RATIO * archive.stat().st_size + 10**6)


def _bomb(archive: pathlib.Path) -> UserError:
    return UserError(f"{archive} unpacks to more than {MAX_RATIO} times its size; it is no such dataset")


def _not_read(archive: pathlib.Path, error: Exception) -> UserError:
    """What reading an archive failed for, in our words: of its bytes the libraries raise nearly anything."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, (Refused, tar_reader.Refused)):
        return UserError(f"{archive} {error}; do not use this archive")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{archive} is damaged or cut off ({reason}); download it again")


def _members(archive: pathlib.Path) -> Members:
    """(safe relative name, size, open file) of every file in an archive, which is then read to its very end.

    Raises:
      UserError: whatever is wrong with it.
    """
    check_not_text(archive)
    try:
        if zipfile.is_zipfile(archive):
            yield from _zip_members(archive)
        elif is_tar(archive):
            for member in tar_members(archive, 2 * _limit(archive)):  # headers and padding come to the files
                yield _safe(archive, member.name), member.size, member.file
        else:
            with archive.open("rb") as file:
                start = file.read(8)
            raise UserError(f"{archive} is no zip or tar archive (it starts with {start!r}); download it again")
    except Exception as error:
        raise _not_read(archive, error) from error


def _zip_members(archive: pathlib.Path) -> Members:
    with BoundedFile(archive, _MAX_LIST) as file, zipfile.ZipFile(file) as packed:
        file.limit = None
        for entry in packed.infolist():
            if entry.is_dir():
                continue
            name = _safe(archive, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{archive}: {entry.filename!r} is a link; datasets hold none, do not use this archive")
            if entry.compress_type not in _METHODS:
                raise UserError(
                    f"{archive}: {str(name)!r} is packed by method {entry.compress_type}, expected 0 or 8 (deflate); "
                    "pack the archive anew"
                )
            with packed.open(entry) as member:
                yield name, entry.file_size, member


def _safe(archive: pathlib.Path, name: str) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    parts = path.parts
    if path.is_absolute() or ".." in parts or not parts or ":" in parts[0] or not name.isprintable():
        shown = f"{name[:200]!a}"
        raise UserError(f"{archive}: member {shown} leads out of its folder or is no name; do not use this archive")
    if len(parts) > _MAX_PARTS:
        raise UserError(f"{archive}: a member lies {len(parts)} folders deep; do not use this archive")
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
