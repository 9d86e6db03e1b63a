"""What all benchmarks share: a header that says where they ran, and medians that leave compilation out."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

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


def header() -> str:
    """Machine, device and versions in one line."""
    import flax

    return (
        f"{machine_words()}; load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, jax {jax.__version__}, "
        f"flax {flax.__version__}"
    )
