"""What of a raw dataset is there and what is missing, as a tree to read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from data_pipelines.source import Item, Source
from fusion_jax.errors import UserError

_SHOWN = 6  # good files in a row that are listed before the rest of a folder is summed up


@dataclasses.dataclass(frozen=True)
class Inventory:
    """All items of a dataset.

    Attributes:
      root: the manual folder.
      items: in the tree's order.
    """

    root: pathlib.Path
    items: list[Item]

    @property
    def problems(self) -> list[Item]:
        """What keeps the dataset from being complete."""
        return [item for item in self.items if item.problem and not item.optional]

    def summary(self) -> str:
        """One line: complete, or the first wrong path and how many more."""
        size = sum(item.size or 0 for item in self.items)
        good = sum(not item.problem for item in self.items)
        if not self.problems:
            return f"complete: {good} files and folders, {format_bytes(size)}"
        first, more = self.problems[0], len(self.problems) - 1
        return f"{self.root / first.path}: {first.problem}" + (f" (and {more} more)" if more else "")


def take_inventory(source: Source) -> Inventory:
    """Looks at everything a dataset needs. Raises UserError where the manual folder itself is not there."""
    if not source.manual_dir.is_dir():
        raise UserError(
            f"{source.manual_dir} is no folder; give --manual-dir the folder with the files of {source.name}"
        )
    try:
        return Inventory(source.manual_dir, list(source.inventory()))
    except OSError as error:
        where, why = error.filename or source.manual_dir, error.strerror
        raise UserError(f"{where} cannot be read ({why}); see whether the disk and the file are whole") from error


def format_tree(inventory: Inventory) -> str:
    """Folders and files with a mark, size and note; long runs of good files in one folder are summed up.

    ok what is as it should be, -- what is missing and optional, !! what has to be mended.
    """
    lines, shown = [f"{inventory.root}/"], pathlib.PurePosixPath()
    for folder, items in _by_folder(inventory.items):
        lines += _folder_lines(shown, folder)
        shown = folder
        indent = "  " * (len(folder.parts) + 1)
        good = [item for item in items if not item.problem]
        hidden = {item.path for item in good[_SHOWN:]}
        lines += [indent + _line(item) for item in items if item.path not in hidden]
        if hidden:
            size = sum(item.size or 0 for item in good[_SHOWN:])
            lines.append(f"{indent}ok .. and {len(hidden)} more  {format_bytes(size)}")
    return "\n".join(lines)


def format_bytes(size: int) -> str:
    """'12.9 GB' and the like."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _by_folder(items: Iterable[Item]) -> list[tuple[pathlib.PurePosixPath, list[Item]]]:
    folders: dict[pathlib.PurePosixPath, list[Item]] = {}
    for item in items:
        folders.setdefault(pathlib.PurePosixPath(item.path).parent, []).append(item)
    return list(folders.items())


def _folder_lines(shown: pathlib.PurePosixPath, folder: pathlib.PurePosixPath) -> list[str]:
    common = 0
    for one, other in zip(shown.parts, folder.parts, strict=False):
        if one != other:
            break
        common += 1
    return ["  " * (depth + 1) + folder.parts[depth] + "/" for depth in range(common, len(folder.parts))]


def _line(item: Item) -> str:
    name = pathlib.PurePosixPath(item.path).name
    mark = "ok" if not item.problem else "--" if item.optional else "!!"
    words = [f"{mark} {name}"]
    words += [] if item.size is None else [format_bytes(item.size)]
    words += [text for text in (item.note, item.problem) if text]
    return "  ".join(words)
