"""LSP's `joints.mat`: which of the two sets it is, what its flag means, and its joints as rows. Arrays and one file."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from data_pipelines.matfile import as_numbers, list_mat_variables, load_mat_variable
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

JOINTS = skeleton("lsp14").joints


class Set(NamedTuple):
    """One of the two sets.

    Attributes:
      name: for messages.
      layout: the first two axes of `joints`: the only thing that tells the sets apart for sure.
      pictures: how many there are.
      train: how many of them, the first, train; the rest tests.
    """

    name: str
    layout: tuple[int, int]
    pictures: int
    train: int


LSP, EXTENDED = "LSP", "LSP extended"
SETS: dict[str, Set] = {
    LSP: Set(LSP, (3, 14), 2000, 1000),
    EXTENDED: Set(EXTENDED, (14, 3), 10000, 10000),
}
KINDS = {"scaled": LSP, "original": LSP, "extended": EXTENDED}
_TALL_PX = 250  # between the scaled set's people, about 150 px tall, and the full size


class Labels(NamedTuple):
    """Labels of N pictures, in the order of their numbers.

    Attributes:
      px: (N, 14, 2) as stored; whatever is not labelled may hold anything.
      labelled: (N, 14) bool.
      hidden: (N, 14) bool; known to be occluded. Never, where the set does not tell.
    """

    px: np.ndarray
    labelled: np.ndarray
    hidden: np.ndarray


def recognise(shape: tuple[int, ...], path: pathlib.Path) -> Set:
    """Which set has `joints` of this shape. Raises UserError, naming both, where none has."""
    for known in SETS.values():
        if len(shape) == 3 and shape[:2] == known.layout:
            return known
    raise UserError(f"{path}: joints is {_by(shape)}, expected {' or '.join(_words(s) for s in SETS.values())}")


def set_of(path: pathlib.Path) -> Set:
    """Which set a `joints.mat` belongs to, by its header alone.

    Raises:
      UserError: it is missing, damaged, lacks numbers named `joints`, or they are of another shape.
    """
    found = {variable.name: variable for variable in list_mat_variables(path)}
    if "joints" not in found:
        raise UserError(f"{path} holds no variable 'joints' but {sorted(found)[:5]}; it is another file")
    if found["joints"].kind != "numeric":
        raise UserError(f"{path}: joints is of kind {found['joints'].kind}, expected numbers; it is another file")
    return recognise(found["joints"].shape, path)


def load_labels(path: pathlib.Path, kind: str) -> Labels:
    """The labels of a `joints.mat`.

    Args:
      kind: as in the settings; the file must be of its set.

    Raises:
      UserError: the file is missing or damaged, of the other set, has another number of pictures, or a flag that is
        neither 0 nor 1 or means the opposite.
    """
    found, wanted = set_of(path), SETS[KINDS[kind]]
    if found.name != wanted.name:
        kinds = " or ".join(k for k, name in KINDS.items() if name == found.name)
        raise UserError(
            f"{path} holds {_words(found)}, but kind {kind} wants {_words(wanted)}; choose --kind {kinds} or give "
            f"the folder of {wanted.name}"
        )
    joints = as_numbers(load_mat_variable(path, "joints"), f"{path}: joints")
    if joints.shape[2] != wanted.pictures:
        raise UserError(f"{path}: joints is {_by(joints.shape)}, expected {_words(wanted)}; download it again")
    pages = np.moveaxis(joints, 2, 0)
    rows = pages.transpose(0, 2, 1) if wanted.layout == (3, 14) else pages
    return read_flags(rows[..., :2], rows[..., 2], wanted.name, path)


def read_flags(px: np.ndarray, flag: np.ndarray, set_name: str, path: pathlib.Path) -> Labels:
    """What the flags (N, 14) mean: they are opposite in the two sets, and readers of LSP have swapped them.

    LSP: 1 is occluded, though its readme speaks of visibility. Extended: 1 is labelled. Either way most joints are
    labelled and in sight, so that the mean tells a swapped flag.

    Raises:
      UserError: a flag is neither 0 nor 1, or most of them say the unlikely.
    """
    odd = np.argwhere((flag != 0) & (flag != 1))
    if len(odd):
        page, joint = odd[0]
        raise UserError(
            f"{path}: page {page + 1}, {JOINTS[joint]}: the flag is {flag[page, joint]}, expected 0 or 1; "
            "it is another file or damaged"
        )
    share = float(flag.mean())
    if set_name == LSP:
        if share >= 0.5:
            raise UserError(
                f"{path}: {share:.0%} of the flags are 1, which in LSP means occluded and must be the smaller part; "
                "somebody inverted the flag, use the file of the dataset itself"
            )
        return Labels(px, np.ones(flag.shape, bool), flag == 1)
    if share < 0.5:
        raise UserError(
            f"{path}: {share:.0%} of the flags are 1, which in LSP extended means labelled and must be the larger "
            "part; somebody inverted the flag, use the file of the dataset itself"
        )
    return Labels(px, flag == 1, np.zeros(flag.shape, bool))


def broken_joint(labels: Labels, page: int) -> str | None:
    """The first labelled joint of a page (from 0) that is not finite; None where all are."""
    bad = labels.labelled[page] & ~np.isfinite(labels.px[page]).all(-1)
    return JOINTS[int(np.argmax(bad))] if bad.any() else None


def person_height(labels: Labels) -> float:
    """Median over the pictures of the longer side of the labelled joints' box, px."""
    px = np.where(labels.labelled[..., None] & np.isfinite(labels.px), labels.px, np.nan)
    px = px[np.isfinite(px).all(-1).sum(-1) >= 2]
    if not len(px):
        return 0.0
    return float(np.median((np.nanmax(px, 1) - np.nanmin(px, 1)).max(-1)))


def scale_warning(height_px: float, kind: str) -> str | None:
    """Words where the people's height speaks for the other of the two LSP zips, whose labels differ by scale alone."""
    if kind == "scaled" and height_px > _TALL_PX:
        return f"people are {height_px:.0f} px tall, not about 150: this looks like the original pictures"
    if kind == "original" and height_px < _TALL_PX:
        return f"people are {height_px:.0f} px tall: this looks like the scaled pictures"
    return None


def _words(known: Set) -> str:
    return f"{known.name} ({_by((*known.layout, known.pictures))})"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
