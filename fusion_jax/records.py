"""Frozen dataclasses to JSON and back, strictly: unknown fields and wrong types are errors that name the field."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import pathlib
import types
import typing
from typing import TYPE_CHECKING, Any

from fusion_jax.errors import UserError

if TYPE_CHECKING:
    from etils import epath

MAX_BYTES = 256 * 2**20
"""Of a JSON file: a trained_on.json that lists every frame of the largest dataset has a hundredth."""
MAX_DEPTH = 64
"""Of lists and objects in one another; whatever walks through the data later stays far from Python's own limit."""
_SHOWN = 200  # characters of a wrong value in an error


def to_json(value: Any) -> Any:
    """Plain JSON data of a record; nested records that share a union carry their class name as `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        return {f.name: _tagged(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(hint: Any, data: Any, where: str) -> Any:
    """The value of type `hint` that `to_json` made `data` from.

    Args:
      hint: a dataclass, or a field's type: str, int, float, bool, None, Literal, tuple[X, ...], unions of these.
      data: parsed JSON.
      where: what to call the data in errors, such as "config.json".

    Raises:
      UserError: naming the field, what was expected and what came.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _record_from_json(hint, data, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return data if data in args else _refuse(where, " or ".join(map(repr, args)), data)
    if origin is tuple:
        if not isinstance(data, list):
            return _refuse(where, "a list", data)
        return tuple(from_json(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin in (types.UnionType, typing.Union):
        return _union_from_json(args, data, where)
    if hint is type(None):
        return None if data is None else _refuse(where, "null", data)
    if hint is float and type(data) is int:
        return float(data) if abs(data) < 1 << 1023 else _refuse(where, "a number that a float can hold", data)
    if type(data) is not hint:
        return _refuse(where, hint.__name__, data)
    if hint is float and not math.isfinite(data):
        return _refuse(where, "a finite number", data)
    return data


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """JSON data, taken strictly: text of UTF-8, finite numbers, each name of an object once, MAX_DEPTH at most.

    Python's own reader takes NaN and Infinity, makes infinity of 1e999, and of a name that comes twice keeps the last.

    Args:
      finite: refuse numbers that are not; without it NaN and Infinity come out as such.

    Raises:
      ValueError: it is something else, in words that go behind the file's name.
    """
    numbers: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _finite} if finite else {}
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        data = json.loads(text, object_pairs_hook=_object, **numbers)
    except RecursionError:
        raise ValueError(f"it nests deeper than {MAX_DEPTH}") from None
    _check_depth(data)
    return data


def read_json(path: pathlib.Path | epath.Path, *, finite: bool = True) -> Any:
    """Parsed JSON of a file, as `parse_json`. Raises UserError where it is missing, no file, too large, or not JSON."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ValueError("it is no ordinary file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return parse_json(data, finite=finite)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _finite(word: str) -> float:
    value = float(word)
    return value if math.isfinite(value) else _no_number(word[:40])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object names {name[:80]!r} twice")
    return found


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        inner = (value.values() if type(value) is dict else value for value in level if type(value) in (dict, list))
        level = [item for values in inner for item in values if type(item) in (dict, list)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {MAX_DEPTH}")


def one_line(text: str) -> str:
    """A text as every terminal takes it, on one line: a file's name need not be UTF-8, and may have line ends."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a whole file or, if interrupted, leaves the old one."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a whole file or, if interrupted, leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes JSON that people can read; atomically, and never NaN."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines 'field: old -> new' for every leaf in which two pieces of JSON data differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return lines
    return [] if old == new else [f"{prefix}: {json.dumps(old)} -> {json.dumps(new)}"]


def _tagged(value: Any, hint: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_tagged(item, typing.get_args(hint)[0]) for item in value]
    data = to_json(value)
    in_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return {"type": type(value).__name__, **data} if in_union and dataclasses.is_dataclass(value) else data


def _record_from_json(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        return _refuse(where, f"an object ({cls.__name__})", data)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(data.keys() - fields.keys())
    if unknown:
        raise UserError(f"{where}: unknown field {_short(unknown[0])}; {cls.__name__} has {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: missing field {missing[0]!r} of {cls.__name__}")
    return cls(**{key: from_json(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _union_from_json(args: tuple, data: Any, where: str) -> Any:
    records = {arg.__name__: arg for arg in args if isinstance(arg, type) and dataclasses.is_dataclass(arg)}
    if isinstance(data, dict) and records:
        tag = data.get("type")
        if not isinstance(tag, str) or tag not in records:
            return _refuse(f"{where}.type", " or ".join(records), tag)
        return _record_from_json(records[tag], {k: v for k, v in data.items() if k != "type"}, where)
    for arg in args:
        try:
            return from_json(arg, data, where)
        except UserError:
            continue
    return _refuse(where, " or ".join(getattr(arg, "__name__", str(arg)) for arg in args), data)


def _refuse(where: str, expected: str, came: Any) -> Any:
    raise UserError(f"{where}: expected {expected}, got {_short(came)}")


def _short(value: Any) -> str:
    if type(value) is int and value.bit_length() > 1 << 13:  # Python writes out no more digits than that
        return f"a number of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
