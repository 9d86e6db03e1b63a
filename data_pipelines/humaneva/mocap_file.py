"""A recording's motion capture, from whichever of its two files is there."""

from __future__ import annotations

import pathlib

from data_pipelines.humaneva.c3d_file import Shape, read_c3d, read_c3d_shape
from data_pipelines.humaneva.files import stand_in
from data_pipelines.humaneva.mocap_cache import read_cache
from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.tables import MOCAP_HZ
from fusion_jax.errors import UserError


def read_points(path: pathlib.Path) -> Points:
    """All points of a .c3d file, or of the cache beside it where there is no .c3d.

    Raises:
      UserError: as the two readers, or it is not 120 Hz.
    """
    found = stand_in(path) or path
    points = read_c3d(found) if found == path else read_cache(found)
    _check_rate(found, points.rate)
    return points


def read_shape(path: pathlib.Path) -> Shape:
    """Rows, points and rate of the same file. Raises UserError as `read_points`, as far as can be seen quickly."""
    found = stand_in(path) or path
    if found == path:
        shape = read_c3d_shape(found)
    else:
        points = read_cache(found)
        shape = Shape(len(points), len(points.labels), points.rate)
    _check_rate(found, shape.rate)
    return shape


def _check_rate(path: pathlib.Path, rate: float) -> None:
    if abs(rate - MOCAP_HZ) > 1:
        raise UserError(f"{path} has {rate:g} rows a second, expected {MOCAP_HZ:g}; it is another recording")
