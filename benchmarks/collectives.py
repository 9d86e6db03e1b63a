"""What a compiled step sends between devices, read from its HLO text as the CPU's compiler writes it."""

from __future__ import annotations

import collections
import math
import re
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(r" = (.+?) (" + "|".join(_KINDS) + r")(-start)?\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Collective(NamedTuple):
    """One operation between devices.

    Attributes:
      kind: as HLO calls it.
      size: bytes of its result on one device.
      devices: that take part in it together.
      times: how often a step runs it; more than once within a loop.
    """

    kind: str
    size: int
    devices: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by the algorithms that send least (rings)."""
        n = self.devices
        each = {
            "all-reduce": 2 * (n - 1) / n,  # its parts summed up around the ring, then handed round
            "all-gather": (n - 1) / n,
            "reduce-scatter": n - 1,  # the result is one part of n
            "all-to-all": (n - 1) / n,
            "collective-permute": 1,
        }
        return self.times * self.size * each[self.kind]


def collectives(hlo: str, devices: int) -> list[Collective]:
    """The operations between devices of a compiled module.

    Args:
      hlo: `compiled.as_text()`.
      devices: how many the module runs on, for operations among all of them.

    Raises:
      ValueError: one of them is in a loop whose length the compiler does not know, or of an unknown form.
    """
    found: dict[str, list[Collective]] = collections.defaultdict(list)
    calls: dict[str, list[tuple[str, int | None]]] = collections.defaultdict(list)
    entry, name = "", ""
    for line in hlo.splitlines():
        if begins := _COMPUTATION.match(line):
            name = begins[2]
            entry = name if begins[1] else entry
            continue
        if match := _COLLECTIVE.search(line):
            shape, kind, start = match.groups()
            if start and kind != "all-reduce":
                raise ValueError(f"{kind}-start: asynchronous operations of other compilers are not read: {line}")
            found[name].append(Collective(kind, _size(shape), _group(line, devices), 1))
        trips = 1
        if " while(" in line:
            known = _TRIPS.search(line)
            trips = int(known[1]) if known else None
        called = _CALLED.findall(line)
        called += [part.strip().lstrip("%") for text in _BRANCHES.findall(line) for part in text.split(",")]
        calls[name] += [(other, trips) for other in called]
    times: dict[str, int] = collections.Counter()

    def visit(name: str, factor: int | None) -> None:
        if found[name] and factor is None:
            raise ValueError(f"{name} sends within a loop of unknown length: {found[name]}")
        times[name] += factor or 0
        for other, trips in calls[name]:
            visit(other, None if factor is None or trips is None else factor * trips)

    visit(entry, 1)
    return [one._replace(times=times[name]) for name, ones in found.items() for one in ones if times[name]]


def _size(shape: str) -> int:
    """Bytes of a shape, or of a tuple of them, such as (f32[3,4]{1,0}, f32[])."""
    return sum(
        _BYTES[kind] * math.prod(map(int, sides.split(",") if sides else []))
        for kind, sides in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    )


def _group(line: str, devices: int) -> int:
    """Devices of one group: of replica_groups={{0,1},{2,3}}, [2,4]<=[8], or all of them."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if arranged := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(arranged[1])
    return devices
