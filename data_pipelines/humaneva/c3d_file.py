"""C3D motion capture files to `Points`, believing nothing that their headers announce."""

from __future__ import annotations

import io
import math
import pathlib
import warnings
from typing import Any, NamedTuple

import c3d
import numpy as np

from data_pipelines.humaneva.points import Points, mark_missing
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

MAX_BYTES = 300_000_000  # the real ones are a hundredth of it


class Shape(NamedTuple):
    """What a motion capture file says of itself: rows T, points P, rows a second."""

    rows: int
    points: int
    rate: float


def read_c3d(path: pathlib.Path) -> Points:
    """All points of a C3D file of float32 or int16 numbers.

    Rows count from the first one stored, whatever number the file gives that frame, as the toolbox counts them. A
    point is missing where it is (0, 0, 0), or its residual is negative.

    Raises:
      UserError: missing, cut off, damaged, of another kind, or with coordinates that are not finite.
    """
    data = _read_bounded(path)
    return _points(_open(data, str(path)), len(data), str(path))


def read_c3d_shape(path: pathlib.Path) -> Shape:
    """Rows, points and rate, without the coordinates. Raises UserError as `read_c3d`, as far as can be seen."""
    data = _read_bounded(path)
    return _checked_shape(_open(data, str(path)), len(data), str(path))


def _read_bounded(path: pathlib.Path) -> bytes:
    check_not_text(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is {path.stat().st_size} bytes, expected at most {MAX_BYTES}; it is another file")
    return path.read_bytes()


def _points(reader: Any, num_bytes: int, where: str) -> Points:
    shape = _checked_shape(reader, num_bytes, where)
    labels = _labels(reader, where)
    xyz = np.zeros((shape.rows, shape.points, 3))
    missing = np.zeros((shape.rows, shape.points), bool)
    rows = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _, frame, _ in reader.read_frames(copy=False, check_nan=False):
                xyz[rows], missing[rows] = frame[:, :3], frame[:, 3] < 0
                rows += 1
    except Exception as error:  # the package lets struct's, NumPy's and its own kinds through
        raise _damaged(where, error) from error
    if rows < shape.rows:
        raise UserError(f"{where} is cut off: it holds {rows} of the {shape.rows} rows it announces; fetch it again")
    return Points(where, labels, mark_missing(xyz, missing, where), shape.rate)


def _open(data: bytes, where: str) -> Any:
    if len(data) < 512 or data[1] != 80:
        raise UserError(f"{where} is no C3D file (truncated or of another kind); fetch it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return c3d.Reader(io.BytesIO(data))
    except Exception as error:
        raise _damaged(where, error) from error


def _checked_shape(reader: Any, num_bytes: int, where: str) -> Shape:
    """What the file announces, if its bytes can hold it: nothing is allocated on a damaged header's word."""
    try:
        rows, points, rate = int(reader.frame_count), int(reader.point_used), float(reader.point_rate)
        word = 4 if reader.point_scale < 0 else 2
        start = (int(reader.header.data_block) - 1) * 512
        row_bytes = word * (4 * points + int(reader.analog_used) * int(reader.analog_per_frame))
    except Exception as error:
        raise _damaged(where, error) from error
    if rows < 1 or points < 1 or start < 512 or not math.isfinite(rate):
        raise UserError(f"{where} announces {rows} rows of {points} points; it is damaged, fetch it again")
    held = max(0, num_bytes - start) // row_bytes
    if held < rows:
        raise UserError(f"{where} is cut off: it holds {held} of the {rows} rows it announces; fetch it again")
    return Shape(rows, points, rate)


def _labels(reader: Any, where: str) -> list[str]:
    """POINT:LABELS, and LABELS2, ... which hold what goes beyond 255 points.

    Cut here from the bytes: the package believes the parameter's dimensions, which a damaged file makes huge.
    """
    labels: list[str] = []
    for name in ("LABELS", *(f"LABELS{n}" for n in range(2, 10))):
        param = reader.get(f"POINT:{name}")
        if param is None:
            break
        if len(param.dimensions) != 2 or len(param.bytes) != param.dimensions[0] * param.dimensions[1]:
            raise UserError(f"{where}: POINT:{name} is no list of names; the file is damaged, fetch it again")
        width, count = param.dimensions
        labels += [param.bytes[width * n : width * (n + 1)].decode("latin-1").strip("\0 ") for n in range(count)]
    return labels


def _damaged(where: str, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    return UserError(f"{where} is cut off, damaged or of another kind ({reason}); fetch it again")
