"""The cache `.mat` that the dataset's toolbox leaves beside a C3D file, to `Points`."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from data_pipelines.humaneva.points import Points, mark_missing
from data_pipelines.matfile import as_numbers, load_mat_variable
from fusion_jax.errors import UserError


def read_cache(path: pathlib.Path) -> Points:
    """All points of a cache: its `Markers` (T, P, 3) mm, `VideoFrameRate` and the labels in `ParameterGroup`.

    Raises:
      UserError: missing, damaged or of another kind, or a variable lacks, is no numbers or has another shape.
    """
    markers = as_numbers(load_mat_variable(path, "Markers"), f"{path}: Markers")
    if markers.ndim != 3 or markers.shape[2] != 3 or not markers.size:
        raise UserError(f"{path}: Markers is {markers.shape}, expected (frames, points, 3); it is another file")
    rate = as_numbers(load_mat_variable(path, "VideoFrameRate"), f"{path}: VideoFrameRate")
    if rate.size != 1:
        raise UserError(f"{path}: VideoFrameRate has the shape {rate.shape}, expected one number; it is another file")
    labels = _labels(load_mat_variable(path, "ParameterGroup"))
    if labels is None:
        raise UserError(f"{path}: ParameterGroup has no POINT with LABELS; put the .c3d itself in its place")
    return Points(str(path), labels, mark_missing(markers, None, str(path)), float(rate.item()))


def _labels(groups: Any) -> list[str] | None:
    """The strings of group POINT, parameter LABELS; MATLAB wraps each name in a cell, or does not."""
    for group in _items(groups):
        if _text(getattr(group, "name", "")) == "POINT":
            for parameter in _items(getattr(group, "Parameter", ())):
                if _text(getattr(parameter, "name", "")) == "LABELS":
                    return [_text(label) for label in _items(getattr(parameter, "data", ()))]
    return None


def _items(values: Any) -> list[Any]:
    return list(np.asarray(values, dtype=object).ravel())


def _text(value: Any) -> str:
    while isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return str(value).strip()
