"""Where LSP's files lie under the manual folder: three zips look alike inside, and one came with a wrapper folder."""

from __future__ import annotations

import pathlib
import re

from data_pipelines.lsp.labels import KINDS, load_labels, person_height, set_of
from fusion_jax.errors import UserError

LABELS, PICTURES = "joints.mat", "images"
ZIPS = {"scaled": "lsp_dataset.zip", "original": "lsp_dataset_original.zip", "extended": "the LSP extended zip"}
_PICTURE = re.compile(r"im(\d{1,6})\.jpe?g", re.IGNORECASE)  # how many digits the extended set has is unconfirmed


def label_files(manual_dir: pathlib.Path) -> list[pathlib.Path]:
    """Every `joints.mat` in the folder itself and up to two levels down: in an archive's folder, and its wrapper."""
    found = (path for depth in ("", "*/", "*/*/") for path in manual_dir.glob(depth + LABELS) if path.is_file())
    # Hidden folders are archives whose unpacking was killed.
    return sorted(p for p in found if not any(part[0] == "." for part in p.relative_to(manual_dir).parts))


def find_labels(manual_dir: pathlib.Path, kind: str) -> pathlib.Path:
    """The `joints.mat` of a kind; where it should be, if there is none at all.

    LSP and the extended set are told apart by the shape of the labels. Of the two LSP zips, where both are there,
    the one with the smaller people is the scaled one.

    Raises:
      UserError: there are others alone, or more than can be told apart.
    """
    files = label_files(manual_dir)
    if not files:
        return manual_dir / LABELS
    if len(files) == 1:
        return files[0]
    fitting = [path for path in files if set_of(path).name == KINDS[kind]]
    if not fitting:
        return files[0]  # whose shape then says what it is
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 2 or kind == "extended":
        raise UserError(f"{fitting[0]} and {fitting[1]} are both {KINDS[kind]}; leave the one to be used")
    heights = [person_height(load_labels(path, kind)) for path in fitting]
    if max(heights) < 1.2 * min(heights):
        raise UserError(f"{fitting[0]} and {fitting[1]} are the same LSP; leave the one to be used")
    small, tall = (path for _, path in sorted(zip(heights, fitting, strict=True)))
    return small if kind == "scaled" else tall


def number_pictures(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The pictures of a folder by the number in their name, `im0001.jpg` and on; empty where there is no folder.

    Raises:
      UserError: two have one number.
    """
    found: dict[int, pathlib.Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _PICTURE.fullmatch(path.name)
        if match and found.setdefault(int(match[1]), path) != path:
            raise UserError(f"{path} and {found[int(match[1])].name} have one number; two sets lie in one folder")
    return found


def beyond_labels(pictures: dict[int, pathlib.Path], count: int) -> str | None:
    """What is wrong with a folder that holds pictures with other numbers than 1 to `count`; None where it does not."""
    more = sorted(set(pictures) - set(range(1, count + 1)))
    if not more:
        return None
    return (
        f"holds {pictures[more[0]].name} and {len(more) - 1} more beyond the {count} pages of {LABELS}; two sets lie "
        "in one folder, unpack each zip into its own"
    )
