"""What all benchmarks share: where they ran, medians that leave compilation out, turns, and JSON."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from fusion_jax.errors import UserError
from fusion_jax.machine import machine_words


class Timing(NamedTuple):
    """Seconds: of the first call, compilation included, and the median, least and most of the repeats."""

    first: float
    median: float
    least: float
    most: float


def measure(function: Callable, *args, repeats: int = 7) -> Timing:
    """Times `function(*args)` until its result is ready."""
    began = time.perf_counter()
    jax.block_until_ready(function(*args))
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - began)
    return Timing(first, statistics.median(seconds), min(seconds), max(seconds))


def take_turns(functions: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, Timing]:
    """Times functions that return once their work is done, A B C A B C ..., so that a busy spell meets all of them."""
    first, seconds = {}, {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            taken = time.perf_counter() - began
            if turn:
                seconds[name].append(taken)
            else:
                first[name] = taken
    return {name: Timing(first[name], statistics.median(s), min(s), max(s)) for name, s in seconds.items()}


def write_json(path: pathlib.Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `rows` with the machine, the versions and the date of now; nothing without a path."""
    if path is None:
        return
    versions = {"python": platform.python_version()}
    for name in ("jax", "flax", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # torch is an extra
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    load = round(os.getloadavg()[0], 2)
    found = {"date": date, "machine": machine_words(), "load": load, "versions": versions, "rows": list(rows)}
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written {path}")


def limit_threads(threads: int | None) -> None:
    """Keeps this process and its children to so many cores. Call it before JAX touches a device."""
    if threads is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"--threads {threads}: this system cannot keep a process to some cores; leave it away")
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise UserError(f"--threads {threads}: expected 1 to {len(cores)}, the cores this process may use")
    os.sched_setaffinity(0, cores[:threads])


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def header() -> str:
    """Machine, device and versions in one line."""
    import flax

    return (
        f"{machine_words()}; load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, jax {jax.__version__}, "
        f"flax {flax.__version__}"
    )
