"""Which frames of which recordings a split is made of, and whether two splits share any. No arrays, no files.

A provenance maps a recording's name, unique within its dataset, to the inclusive intervals of frame numbers used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fusion_jax.errors import UserError

Provenance = dict[str, list[list[int]]]


def merge(parts: Iterable[tuple[str, int, int]]) -> Provenance:
    """The provenance of (recording, first, last) triples; overlapping and adjoining intervals become one."""
    found: dict[str, list[list[int]]] = {}
    for recording, first, last in parts:
        found.setdefault(recording, []).append([int(first), int(last)])
    merged: Provenance = {}
    for recording, intervals in sorted(found.items()):
        kept: list[list[int]] = []
        for first, last in sorted(intervals):
            if kept and first <= kept[-1][1] + 1:
                kept[-1][1] = max(kept[-1][1], last)
            else:
                kept.append([first, last])
        merged[recording] = kept
    return merged


def overlap(one: Mapping[str, list[list[int]]], other: Mapping[str, list[list[int]]]) -> str | None:
    """Words for the first frames that both hold, such as 'S9/Walking frames 10-20', or None where they share none."""
    for recording in sorted(set(one) & set(other)):
        for first, last in one[recording]:
            for low, high in other[recording]:
                if max(first, low) <= min(last, high):
                    return f"{recording} frames {max(first, low)}-{min(last, high)}"
    return None


def check_provenance(data: object, where: str) -> Provenance:
    """`data` if it is a provenance. Raises UserError, naming `where` it came from, if it is not."""
    ok = isinstance(data, dict) and all(
        isinstance(name, str)
        and isinstance(intervals, list)
        and all(isinstance(i, list) and len(i) == 2 and all(type(n) is int for n in i) for i in intervals)
        for name, intervals in data.items()
    )
    if not ok:
        raise UserError(f"{where} must map recordings to lists of [first, last] frames; prepare the dataset again")
    return data  # type: ignore[return-value]
