"""What all benchmarks share: a header that says where they ran, and medians that leave compilation out."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax


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


def header() -> str:
    """Machine, device and versions in one line."""
    import flax

    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {jax.devices()[0].device_kind} x "
        f"{jax.device_count()}; Python {platform.python_version()}, jax {jax.__version__}, flax {flax.__version__}"
    )


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []
