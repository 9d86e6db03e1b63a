"""The log of a training, metrics.jsonl, read back and checked: of one run, or of the many of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion_jax.errors import UserError
from fusion_jax.records import parse_json

Record = Mapping[str, Any]
MAX_BYTES = 10**9  # a million steps' log has a tenth
LISTS = ("fusion_weights",)  # fields that hold a list of numbers; all others hold one
_MOST_NORMS = 1000  # parameters; each becomes a line of a picture


def read_log(path: Path, *, nested: bool = False) -> tuple[list[Record], list[Record]]:
    """The (train, validation) records of a metrics.jsonl, by rising step; of a repeated step the last counts.

    A run that was resumed logs some steps again. A last line without its line end was cut short by a kill;
    where it does not parse it is left out.

    Args:
      path: of the log.
      nested: whether training records hold the numbers of many runs, as a sweep's do: lists under `members`, equally
        long. What else a sweep records, such as a checkpoint that could not be written, is of all runs at once.

    Raises:
      UserError: no file, no training record, or a broken line, by number.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `fusion-jax train --workdir {path.parent}` first")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{path} is {path.stat().st_size} bytes long, expected at most {MAX_BYTES}; is it a log at all?"
        )
    lines = path.read_bytes().split(b"\n")
    by_step: dict[str, dict[int, Record]] = {"train": {}, "validation": {}}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, finite=False)  # their field is named below
        except ValueError as error:
            if number == len(lines):  # no line end: cut short
                continue
            raise UserError(f"{path}, line {number}: not a JSON object ({error}); repair or delete it") from None
        where = f"{path}, line {number}"
        of_members = nested and isinstance(record, dict) and record.get("kind") == "train"
        own = _without_members(record, where) if of_members else record
        _check_record(own, where)
        by_step.setdefault(record["kind"], {})[record["step"]] = record
    if not by_step["train"]:
        raise UserError(
            f"{path} holds no training record yet: train on with `fusion-jax train --workdir {path.parent}`"
        )
    train, validation = ([by_step[k][s] for s in sorted(by_step[k])] for k in ("train", "validation"))
    lengths = {len(r["fusion_weights"]) for r in train if "fusion_weights" in r}
    if len(lengths) > 1:
        raise UserError(f"{path}: fusion_weights has {sorted(lengths)} entries in different lines, expected one L")
    return train, validation


def _without_members(record: Record, where: str) -> Record:
    """A sweep's record without its lists of members, once these are checked."""
    lists = record.get("members")
    values = list(lists.values()) if isinstance(lists, dict) else []
    whole = values and all(isinstance(v, list) and v and all(map(is_number, v)) for v in values)
    if not whole or len(set(map(len, values))) != 1:
        raise UserError(f"{where}: members is no object of equally long lists of finite numbers; repair or delete it")
    return {name: value for name, value in record.items() if name != "members"}


def _check_record(record: Any, where: str) -> None:
    """Raises UserError unless it is an object of kind, step, and finite numbers or lists of them.

    `layer_grad_norms` alone is an object of finite numbers, by parameter.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: {record!r:.80} is not a JSON object; repair or delete the line")
    if not isinstance(record.get("kind"), str) or type(record.get("step")) is not int:
        raise UserError(f"{where}: expected a text `kind` and a whole number `step`; repair or delete the line")
    for field, value in record.items():
        if field == "layer_grad_norms":
            _check_norms(value, where)
            continue
        numbers = value if isinstance(value, list) else [] if field == "kind" else [value]
        if not all(is_number(v) for v in numbers):
            raise UserError(
                f"{where}: {field[:80]} is {value!r:.80}, expected finite numbers; did the training diverge there?"
            )
        if isinstance(value, list) != (field in LISTS):
            expected = "a list of numbers" if field in LISTS else "one number"
            raise UserError(f"{where}: {field[:80]} is {value!r:.80}, expected {expected}; repair or delete the line")


def _check_norms(norms: Any, where: str) -> None:
    if not isinstance(norms, dict) or not all(is_number(v) and v >= 0 for v in norms.values()):
        raise UserError(f"{where}: layer_grad_norms is {str(norms)[:200]}, expected an object of finite numbers >= 0")
    if len(norms) > _MOST_NORMS:
        raise UserError(f"{where}: layer_grad_norms has {len(norms)} entries, expected at most {_MOST_NORMS}")


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number (true and false are none)."""
    if type(value) is int:
        return abs(value) < 1 << 1023  # so that a float can hold it
    return isinstance(value, float) and math.isfinite(value)
