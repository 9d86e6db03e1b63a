"""MATLAB structs as scipy hands them over, made regular.

With `squeeze_me` an array of one is that one, and an empty one is an empty array, on every level; a field may be
absent, and a number may come as text. Each function here takes all of these and gives back one form.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def items(value: Any) -> list[Any]:
    """The elements of a struct or cell array: many, one that was squeezed out of its array, or none."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return [value]


def field(struct: Any, name: str) -> Any:
    """A field of a struct; None where the field is absent or empty, or `struct` is no struct at all."""
    if name not in (getattr(struct, "_fieldnames", None) or ()):
        return None
    value = getattr(struct, name)
    return None if isinstance(value, np.ndarray) and not value.size else value


def number(value: Any) -> float | None:
    """A number that came as itself, as an array of one or as text; None where there is none.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, np.ndarray):
        if value.size > 1:
            raise ValueError(f"{value.size} values where one number was expected")
        value = value.ravel()[0] if value.size else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, (str, int, float, np.number, np.bool_)) or isinstance(value, np.complexfloating):
        raise ValueError(f"a {type(value).__name__} where a number was expected")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{str(value)[:40]!r} where a number was expected") from None


def text(value: Any) -> str:
    """Text; '' where it is empty, absent or no text."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size == 1 else ""
    return str(value).strip() if isinstance(value, str) else ""
