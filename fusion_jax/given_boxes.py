"""Boxes that the user gives: read from a JSON file, and laid on the inputs they are for."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.people import MOST_BOXES
from fusion_jax.picture_input import Input
from fusion_jax.records import read_json

Boxes = Mapping[str, Sequence[np.ndarray]]
_MOST_BYTES = 100_000_000  # of a file


def read_boxes(path: pathlib.Path) -> dict[str, list[np.ndarray]]:
    """Where people are, from a JSON file: {"photo.jpg": [[x, y, width, height], ...], ...}, px of the upright picture.

    Raises:
      UserError: the file is missing or says something else, naming what.
    """
    if os.path.exists(path) and (not os.path.isfile(path) or os.path.getsize(path) > _MOST_BYTES):
        raise UserError(f"{path} is no file of boxes; expected ordinary JSON of at most {_MOST_BYTES} bytes")
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected an object of lists of boxes by file name, got {type(data).__name__}")
    found: dict[str, list[np.ndarray]] = {}
    for name, boxes in data.items():
        fits = isinstance(boxes, list) and all(isinstance(box, list) and len(box) == 4 for box in boxes)
        if not fits or not all(type(n) in (int, float) and abs(n) < 1e9 for box in boxes for n in box):
            raise UserError(
                f"{path}: {name!r}: expected a list of boxes [x, y, width, height] in px, got {boxes!r:.80}"
            )
        if len(boxes) > MOST_BOXES:
            raise UserError(f"{path}: {name!r}: expected at most {MOST_BOXES} boxes, got {len(boxes)}")
        found[name] = [np.array(box, np.float64) for box in boxes]
    return found


def boxes_of(inputs: Sequence[Input], boxes: Boxes) -> dict[Input, Sequence[np.ndarray] | None]:
    """Where people are in each input; None where they are to be looked for.

    Args:
      inputs: all there are.
      boxes: (4,) [x, y, width, height] px each, by an input's file name or its path as given, '*' for all others.

    Raises:
      UserError: boxes of no input, or of several.
    """
    told: dict[Input, Sequence[np.ndarray] | None] = dict.fromkeys(inputs, boxes.get("*"))
    by_path, by_name = {str(one.path): one for one in inputs}, collections.defaultdict(list)
    for one in inputs:
        by_name[one.path.name].append(one)
    named: set[Input] = set()
    for name in boxes.keys() - {"*"}:
        path = str(pathlib.Path(name))
        fits = [by_path[path]] if path in by_path else by_name[name]
        if len(fits) != 1 or fits[0] in named:
            wrong = "are of an input that is named twice" if fits and fits[0] in named else f"fit {len(fits)} inputs"
            raise UserError(f"the boxes of {name!r} {wrong}; name one input by its file name, or by its path as given")
        named.add(fits[0])
        told[fits[0]] = boxes[name]
    return told
