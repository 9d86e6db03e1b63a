"""Archives in the manual folder: known by their bytes, unpacked each into a folder of its own, trusted in nothing."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
MAX_RATIO = 200  # unpacked bytes to packed bytes; media and MATLAB files stay far below
MAX_BYTES = 500 * 10**9


def find_archives(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """The archives that lie directly in a folder."""
    return sorted(p for p in manual_dir.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES))


def unpacked_folder(archive: pathlib.Path) -> pathlib.Path:
    """Where an archive is unpacked: beside it, in a folder of its name without the ending."""
    name = archive.name
    ending = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s))
    return archive.with_name(name[: -len(ending)])


def unpack_all(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """Unpacks every archive of a folder that is not unpacked yet; returns the new folders.

    Raises:
      UserError: one is no archive, is damaged or tries to write outside its folder.
    """
    made = []
    for archive in find_archives(manual_dir):
        folder = unpacked_folder(archive)
        if not folder.exists():
            unpack(archive, folder)
            made.append(folder)
    return made


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks an archive into a new folder, all of it or nothing.

    Raises:
      UserError: it is a web page, damaged or cut off; a member is a link, absolute, or leads out of the folder; or
        it unpacks to more than MAX_RATIO times its size.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    limit = min(MAX_BYTES, MAX_RATIO * archive.stat().st_size + 10**6)
    try:
        partial.mkdir(parents=True)
        for name, size, source in _members(archive):
            limit -= size
            if limit < 0:
                raise UserError(f"{archive} unpacks to more than {MAX_RATIO} times its size; it is no such dataset")
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                _copy(source, out, size, archive)
        os.replace(partial, folder)
    except FileExistsError as error:
        raise UserError(f"{archive} holds {error.filename} twice; it is damaged, download it again") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # the disk's fault, not the archive's
        raise UserError(f"{archive} is damaged or cut off ({error}); download it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _members(archive: pathlib.Path) -> Iterator[tuple[pathlib.PurePosixPath, int, object]]:
    """(safe relative name, size, open file) of every file in an archive."""
    check_not_text(archive)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if entry.is_dir():
                    continue
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise UserError(
                        f"{archive}: {entry.filename} is a link; datasets hold none, do not use this archive"
                    )
                with packed.open(entry) as file:
                    yield _safe(archive, entry.filename), entry.file_size, file
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed:
            for member in packed:
                if member.isdir():
                    continue
                if not member.isfile():
                    raise UserError(f"{archive}: {member.name} is a link or a device; do not use this archive")
                yield _safe(archive, member.name), member.size, packed.extractfile(member)
    else:
        with archive.open("rb") as file:
            start = file.read(8)
        raise UserError(f"{archive} is no zip or tar archive (it starts with {start!r}); download it again")


def _safe(archive: pathlib.Path, name: str) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise UserError(f"{archive}: member {name!r} leads out of its folder; do not use this archive")
    return path


def _copy(source, out, size: int, archive: pathlib.Path) -> None:
    """Copies at most the announced size; a member that holds more lied about it."""
    left = size
    while chunk := source.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise UserError(f"{archive}: a member is larger than it says; do not use this archive")
        out.write(chunk)


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
