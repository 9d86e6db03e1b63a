"""Frozen records to JSON and back: nothing lost, nothing tolerated."""

import dataclasses
import json
from typing import Literal

import pytest

from fusion_jax import records
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.network import Conv, Dense, Stream
from fusion_jax.presets import PRESETS, with_overrides
from fusion_jax.records import from_json, to_json


def tiny_json():
    return json.loads(json.dumps(to_json(with_overrides("tiny")), allow_nan=False))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_round_trip(name):
    strategy = {} if PRESETS[name]().task == "heatmaps" else {"strategy": "fixed", "beta": 2.0}
    for config in (PRESETS[name](), with_overrides(name, compute_dtype="bfloat16", **strategy)):
        text = json.dumps(to_json(config), allow_nan=False)
        back = from_json(Config, json.loads(text), "config.json")
        assert back == config and hash(back) == hash(config)
        assert json.dumps(to_json(back)) == text


def test_layers_carry_their_type():
    stream = Stream("image", (Conv(4, 3), Dense(5, 0.5)))
    data = to_json(stream)
    assert [layer["type"] for layer in data["layers"]] == ["Conv", "Dense"]
    assert data["layers"][1] == {"type": "Dense", "features": 5, "dropout": 0.5}
    assert from_json(Stream, data, "s") == stream


def test_missing_fields_with_defaults_take_them():
    data = tiny_json()
    del data["seed"], data["optim"]["clip_norm"]
    assert from_json(Config, data, "c") == with_overrides("tiny")


def test_whole_numbers_serve_as_floats_and_not_the_reverse():
    data = tiny_json()
    data["optim"]["learning_rate"] = 1
    rate = from_json(Config, data, "c").optim.learning_rate
    assert rate == 1.0 and type(rate) is float
    data["steps"] = 10.0
    with pytest.raises(UserError, match=r"c\.steps: expected int, got 10.0"):
        from_json(Config, data, "c")


def poke(data, path, value):
    *parents, last = path
    for key in parents:
        data = data[key]
    if value is KeyError:
        del data[last]
    else:
        data[last] = value


LAYER = ("network", "streams", 1, "layers", 0)
BAD = {
    "unknown field": (("stepz",), 3, r"c: unknown field 'stepz'.*steps"),
    "unknown nested field": (("optim", "lr"), 3, r"c\.optim: unknown field 'lr'.*learning_rate"),
    "unknown field in a union": ((*LAYER, "size"), 3, r"c\.network\.streams\[1\]\.layers\[0\]: unknown field 'size'"),
    "type outside a union": (("optim", "type"), "Banana", r"c\.optim: unknown field 'type'"),
    "missing field": (("preset",), KeyError, "c: missing field 'preset'"),
    "missing in a union": ((*LAYER, "kernel"), KeyError, r"layers\[0\]: missing field 'kernel' of Conv"),
    "text for int": (("steps",), "3", r"c\.steps: expected int, got '3'"),
    "bool for int": (("steps",), True, r"c\.steps: expected int, got True"),
    "bool for float": (("optim", "learning_rate"), True, r"c\.optim\.learning_rate: expected float"),
    "null for str": (("dataset",), None, r"c\.dataset: expected str, got None"),
    "number for bool": (("augment", "shared_crop"), 1, r"c\.augment\.shared_crop: expected bool, got 1"),
    "text for float or null": (("network", "beta"), "4", r"c\.network\.beta: expected float or .*got '4'"),
    "unknown choice": (("optim", "schedule"), "linear", r"c\.optim\.schedule: expected 'constant' or 'cosine'"),
    "list for choice": (("optim", "schedule"), ["cosine"], r"c\.optim\.schedule: expected"),
    "object for list": (("network", "streams"), {}, r"c\.network\.streams: expected a list"),
    "list for object": (("optim",), [], r"c\.optim: expected an object"),
    "wrong tag": ((*LAYER, "type"), "Pool", r"layers\[0\]\.type: expected Conv or Dense, got 'Pool'"),
    "missing tag": ((*LAYER, "type"), KeyError, r"layers\[0\]\.type: expected Conv or Dense, got None"),
    "list for tag": ((*LAYER, "type"), ["Conv"], r"layers\[0\]\.type: expected Conv or Dense"),
    "text for a union": (LAYER, "Conv", r"layers\[0\]: expected Conv or Dense, got 'Conv'"),
    "value out of range": (("optim", "learning_rate"), -1.0, "optim.learning_rate is -1.0"),
    "unknown skeleton": (("inputs", "skeleton"), "h36m", "unknown skeleton 'h36m'"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_errors_name_the_field(case):
    path, value, words = BAD[case]
    data = tiny_json()
    poke(data, path, value)
    with pytest.raises(UserError, match=words):
        from_json(Config, data, "c")


def test_whole_file_of_the_wrong_kind():
    for data in ([], "config", None, 3):
        with pytest.raises(UserError, match=r"config.json: expected an object \(Config\)"):
            from_json(Config, data, "config.json")


@dataclasses.dataclass(frozen=True)
class Sample:
    flag: bool
    mode: Literal["a", "b"]
    numbers: tuple[int, ...]
    nested: tuple[tuple[float, ...], ...]
    choice: int | str | None = None


@pytest.mark.parametrize("choice", [None, 3, "three"])
def test_other_types_round_trip(choice):
    sample = Sample(True, "b", (1, 2), ((1.5,), ()), choice)
    data = json.loads(json.dumps(to_json(sample)))
    assert data["nested"] == [[1.5], []]
    assert from_json(Sample, data, "s") == sample
    with pytest.raises(UserError, match=r"s\.nested\[0\]\[0\]: expected float, got 'x'"):
        from_json(Sample, data | {"nested": [["x"]]}, "s")


def test_differences_list_every_changed_leaf():
    old, new = tiny_json() | {"steps": 1500}, tiny_json() | {"steps": 1500}
    assert records.differences(old, new) == []
    new["steps"], new["optim"]["clip_norm"] = 9, 2.5
    new["network"]["beta"] = 1.0
    assert records.differences(old, new) == [
        "network.beta: null -> 1.0",
        "optim.clip_norm: 0.0 -> 2.5",
        "steps: 1500 -> 9",
    ]


def test_files(tmp_path):
    path = tmp_path / "new" / "config.json"
    records.write_json(path, tiny_json())
    assert records.read_json(path) == tiny_json()
    with pytest.raises(ValueError):
        records.write_json(path, {"loss": float("nan")})
    assert records.read_json(path) == tiny_json()  # the old file survived
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]
    with pytest.raises(UserError, match="missing.json does not exist"):
        records.read_json(tmp_path / "missing.json")
    path.write_text("{")
    with pytest.raises(UserError, match="config.json cannot be read as JSON"):
        records.read_json(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        records.read_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        records.read_json(tmp_path)
