"""Archives that lie in the manual folder and are not unpacked yet, as items of an inventory."""

from __future__ import annotations

import pathlib
import tarfile
import zipfile

from data_pipelines.archives import find_archives, unpacked_folder
from data_pipelines.source import Item
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError


def waiting_archives(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """The archives directly in a folder that preparing would unpack."""
    return [path for path in find_archives(manual_dir) if not unpacked_folder(path).exists()]


def archive_item(path: pathlib.Path) -> Item:
    """What an archive looks like by its ends: one that waits to be unpacked, or a web page or something else."""
    size, problem = path.stat().st_size, None
    try:
        check_not_text(path)
        if not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
            with path.open("rb") as file:
                problem = (
                    f"is no zip or tar archive, or is cut off (it starts with {file.read(4)!r}); download it again"
                )
    except UserError as error:
        problem = str(error).removeprefix(f"{path} ")
    if problem:
        return Item(path.name, problem, size)
    return Item(
        path.name, None, size, "unpacked" if unpacked_folder(path).exists() else "not unpacked yet; prepare does it"
    )
