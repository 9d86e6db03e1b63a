"""Pose files: a CDF with one variable `Pose`, a row a frame, 32 joints a row."""

from __future__ import annotations

import pathlib

import cdflib
import numpy as np

from data_pipelines.human36m.cdf_structure import MAX_BYTES, check_structure
from data_pipelines.human36m.sequences import Sequence
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

NUM_JOINTS = 32
USUAL_17 = np.array([0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27])
"""The joints of `human36m17` among the dataset's 32."""
_FARTHEST = 1e5  # mm or px; the studio is a few metres wide
_THIGH_MM = (250.0, 700.0)


def read_pose_cdf(path: pathlib.Path, width: int) -> np.ndarray:
    """Joints (N, 32, width) float64 of a pose file.

    Args:
      path: the file.
      width: 3 for positions (mm), 2 for pixels.

    Raises:
      UserError: it is missing, a web page, cut off, no CDF, or holds other numbers than poses.
    """
    check_not_text(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size} bytes, a pose file at most {MAX_BYTES}; download it again")
    try:
        check_structure(path.read_bytes(), "Pose")
        values = cdflib.CDF(path).varget("Pose")
    except Exception as error:  # cdflib raises whatever the bytes provoke
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path} cannot be read as a pose file ({reason}); download it again") from error
    return as_poses(np.asarray(values), width, path)


def as_poses(values: np.ndarray, width: int, where: pathlib.Path) -> np.ndarray:
    """Joints (N, 32, width) float64 of an array (1, N, 32 width) or (N, 32 width).

    Raises:
      UserError: of another shape or kind, or not finite, naming `where`.
    """
    flat = values[0] if values.ndim == 3 and len(values) == 1 else values
    wanted = NUM_JOINTS * width
    if flat.ndim != 2 or flat.shape[1] != wanted or not len(flat) or flat.dtype.kind != "f":
        kind = f"{values.dtype} {values.shape}"
        raise UserError(
            f"{where}: Pose is {kind}, expected reals (1, N, {wanted}); use the archive this file is named for"
        )
    with np.errstate(invalid="ignore"):  # NaN is looked for here
        flat = flat.astype(np.float64)
        bad = ~(np.abs(flat) < _FARTHEST).all(1)
    if bad.any():
        raise UserError(
            f"{where}: row {int(bad.argmax())} holds {flat[bad.argmax()].min():g} to {flat[bad.argmax()].max():g}, "
            f"expected finite numbers below {_FARTHEST:g}; download it again"
        )
    return flat.reshape(len(flat), NUM_JOINTS, width)


def read_world_poses(path: pathlib.Path, sequence: Sequence) -> np.ndarray:
    """Joints (N, 32, 3) mm, world frame, z up, of a sequence, with the number of rows it is known to have.

    Raises:
      UserError: as `read_pose_cdf`; or another number of rows, or not in mm.
    """
    joints = read_pose_cdf(path, 3)
    if len(joints) != sequence.rows:
        raise UserError(
            f"{path} has {len(joints)} rows, expected the {sequence.rows} of {sequence.name}; it is cut off or "
            "another subject's or sequence's file under this name: download it again"
        )
    thigh = float(np.linalg.norm(joints[0, 1] - joints[0, 2]))
    if not _THIGH_MM[0] < thigh < _THIGH_MM[1]:
        raise UserError(
            f"{path}: the right thigh is {thigh:g} long, expected mm ({_THIGH_MM}); these are no D3_Positions"
        )
    return joints
