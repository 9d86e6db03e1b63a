"""Which machine this is, in words: numbers of speed mean nothing without it."""

from __future__ import annotations

import os
import platform

import jax


def machine_words() -> str:
    """Processor, cores and JAX's devices in one line. Touches the devices."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return f"{processor}, {os.cpu_count()} cores; {jax.devices()[0].device_kind} x {jax.device_count()}"


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []
