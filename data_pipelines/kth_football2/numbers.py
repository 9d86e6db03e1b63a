"""The three text files of a sequence, one number a line, as arrays. The first axis named in a file runs fastest."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

import numpy as np

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

POSITIONS_2D, POSITIONS_3D, CAMERAS = "positions2d.txt", "positions3d.txt", "cameras.txt"
PER_STEP = {POSITIONS_2D: 2 * 14 * 3, POSITIONS_3D: 3 * 14, CAMERAS: 2 * 4 * 3}
MAX_BYTES = 20_000_000  # forty times the true files
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_JOINTS = skeleton("lsp14").joints


class Numbers(NamedTuple):
    """What a sequence's files say, T time steps; single numbers may be NaN or infinite.

    Attributes:
      joints2d: (T, 3, 14, 2) px by camera, as labelled.
      joints3d: (T, 14, 3) in the dataset's unit, z up.
      cameras: (T, 3, 2, 4) affine: px = M [X, Y, Z, 1].
    """

    joints2d: np.ndarray
    joints3d: np.ndarray
    cameras: np.ndarray


def read_sequence(folder: pathlib.Path) -> Numbers:
    """The numbers of a sequence's folder.

    Raises:
      UserError: a file is missing, holds something else than a number in a line, or the three disagree about the
        number of time steps.
    """
    values = {name: parse_numbers(_read(folder / name), folder / name) for name in PER_STEP}
    count, per_step = len(values[POSITIONS_2D]), PER_STEP[POSITIONS_2D]
    if not count or count % per_step:
        raise UserError(
            f"{folder / POSITIONS_2D} has {count} numbers, expected a multiple of {per_step}; unpack its zip again"
        )
    steps = count // per_step
    for name, per_step in PER_STEP.items():
        if len(values[name]) != per_step * steps:
            raise UserError(
                f"{folder / name} has {len(values[name])} numbers, expected {per_step} x {steps} for the {steps} steps "
                f"of {POSITIONS_2D}; were two zips unpacked over each other? unpack this one again into a new folder"
            )
    return arrange(values[POSITIONS_2D], values[POSITIONS_3D], values[CAMERAS])


def arrange(positions2d: np.ndarray, positions3d: np.ndarray, cameras: np.ndarray) -> Numbers:
    """Flat values in the files' order as arrays of named axes; a camera is stored column by column."""
    return Numbers(
        positions2d.reshape(-1, 3, 14, 2),
        positions3d.reshape(-1, 14, 3),
        cameras.reshape(-1, 3, 4, 2).swapaxes(-1, -2),
    )


def parse_numbers(text: bytes, path: pathlib.Path) -> np.ndarray:
    """One number of every line of a file; NaN and infinity are numbers here, whose place counts.

    Raises:
      UserError: naming the first line that holds anything else.
    """
    lines = text.rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not _NUMBER.fullmatch(line.strip()):
            words = line.strip()[:40].decode("ascii", "replace")
            raise UserError(f"{path}, line {number}: {words!r} is not one number; unpack its zip again")
    return np.array([float(line) for line in lines], np.float64)


def not_finite(numbers: Numbers, step: int, camera: int | None = None) -> str | None:
    """Words that name the file, line and meaning of a step's first number that is not finite; None where all are.

    Of the 3D joints; with a camera (0-based) also of its matrix. `step` counts from 0.
    """
    bad = np.argwhere(~np.isfinite(numbers.joints3d[step]))
    if len(bad):
        joint, axis = (int(v) for v in bad[0])
        line = step * PER_STEP[POSITIONS_3D] + joint * 3 + axis + 1
        value = numbers.joints3d[step, joint, axis]
        return f"{POSITIONS_3D}: line {line}: {'xyz'[axis]} of {_JOINTS[joint]} at step {step + 1} is {value}"
    for view in range(3) if camera is None else (camera,):
        bad = np.argwhere(~np.isfinite(numbers.cameras[step, view]))
        if len(bad):
            row, column = (int(v) for v in bad[0])
            line = step * PER_STEP[CAMERAS] + view * 8 + column * 2 + row + 1
            value = numbers.cameras[step, view, row, column]
            return f"{CAMERAS}: line {line}: the matrix of camera {view + 1} at step {step + 1} holds {value}"
    return None


def _read(path: pathlib.Path) -> bytes:
    check_not_text(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size} bytes, more than {MAX_BYTES}; it is another file, unpack its zip again")
    return path.read_bytes()
