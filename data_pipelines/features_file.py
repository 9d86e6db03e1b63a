"""What a prepared dataset's features.json may say, looked over before TFDS acts on it.

TFDS imports the module of any class that the file names, which runs it: with a dataset from elsewhere, anything. Here
a file may name TFDS's own kinds of features that datasets of poses are made of, and no others.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from data_pipelines.readable import check_readable
from fusion_jax.errors import UserError
from fusion_jax.records import read_json

_OWN = "tensorflow_datasets.core.features."
_LEAVES = {  # a class, and the field that holds what is to be known of it
    f"{_OWN}text_feature.Text": "text",
    f"{_OWN}tensor_feature.Tensor": "tensor",
    f"{_OWN}scalar.Scalar": "tensor",
    f"{_OWN}image_feature.Image": "image",
    f"{_OWN}class_label_feature.ClassLabel": "classLabel",
    f"{_OWN}bounding_boxes.BBoxFeature": "boundingBox",
}
_DICT, _SEQUENCE = f"{_OWN}features_dict.FeaturesDict", f"{_OWN}sequence_feature.Sequence"
_KNOWN = (*_LEAVES, _DICT, _SEQUENCE)
_COMMON = {"pythonClassName", "description", "valueRange"}
MAX_FEATURES = 1000
MAX_VALUES = 10**8  # of one feature of one example


def check_features(folder: pathlib.Path) -> None:
    """Raises UserError unless a dataset's folder has a features.json of TFDS's usual kinds of features alone.

    Raises:
      UnreadableError: the file is there, but cannot be read.
    """
    path = folder / "features.json"
    try:
        waiting, seen = [("", read_json(path))], 0
    except UserError as error:
        check_readable(folder, error)
        raise UserError(f"the dataset in {folder} is damaged ({error}); prepare it again") from None
    while waiting:
        name, node = waiting.pop()
        where, seen = f"{path}: {name.strip('/') or 'the whole'}", seen + 1
        if seen > MAX_FEATURES:
            raise UserError(f"{path} has more than {MAX_FEATURES} features; it is of no dataset of poses")
        kind = node.get("pythonClassName") if isinstance(node, dict) else None
        if not isinstance(kind, str) or kind not in _KNOWN:
            known = ", ".join(one.rpartition(".")[2] for one in _KNOWN)
            raise UserError(
                f"{where} is of the class {str(kind)[:100]!r}, expected TFDS's own {known}; reading it would run that "
                "class's module, do not use this dataset"
            )
        field = {_DICT: "featuresDict", _SEQUENCE: "sequence"}.get(kind) or _LEAVES[kind]
        more = sorted(node.keys() - _COMMON - {field})
        content = node.get(field, {})
        if more or not isinstance(content, dict):
            raise UserError(f"{where} says {(more or [field])[0][:100]!r} in an unknown way; prepare the dataset again")
        if kind == _DICT:
            inner = content.get("features", {})
            if not isinstance(inner, dict) or content.keys() - {"features"}:
                raise UserError(f"{where} has no features by name; prepare the dataset again")
            waiting += [(f"{name}/{part[:100]}", value) for part, value in inner.items()]
        elif kind == _SEQUENCE:
            if content.keys() - {"feature", "length"}:
                raise UserError(f"{where} is no sequence of a feature; prepare the dataset again")
            waiting.append((f"{name}/[]", content.get("feature")))
        else:
            _check_size(content, where)


def _check_size(content: dict[str, Any], where: str) -> None:
    shape = content.get("shape", {})
    sides: Any = shape.get("dimensions", []) if isinstance(shape, dict) else None
    count = 1
    for side in sides if isinstance(sides, list) else [""]:
        if type(side) not in (int, str) or not re.fullmatch(r"-1|\d{1,12}", str(side)):  # -1: any length
            raise UserError(f"{where} has the shape {str(shape)[:100]}, expected whole numbers; prepare it again")
        count *= max(1, int(side))
        if count > MAX_VALUES:
            raise UserError(f"{where} has more than {MAX_VALUES} values an example; it is of no dataset of poses")
