"""A trace of a few training steps, to see where their time goes."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from fusion_jax.errors import UserError

WARM_UP = 3
"""Steps of this process before the first that is traced: the first one compiles, the next ones fill queues."""


class Profile:
    """Traces `steps` steps into a folder once the warm-up is over; a context manager that ends a trace cut short.

    With `steps` 0 it does nothing.
    """

    def __init__(self, folder: pathlib.Path, *, start: int, end: int, steps: int):
        """`start` steps are done, the run goes on to `end`. Raises UserError where it is over before the trace is."""
        self._folder, self._steps = folder, steps
        self._first, self._last = start + WARM_UP + 1, start + WARM_UP + steps
        self._running = False
        if steps and self._last > end:
            raise UserError(
                f"--profile {steps} traces steps {self._first} to {self._last}, after {WARM_UP} to warm up, but this "
                f"run ends at step {end}; trace fewer, or raise --steps"
            )

    def before(self, step: int) -> None:
        """Step `step` is about to fetch its batch."""
        if self._steps and step == self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, results: Any) -> str | None:
        """Step `step` was handed to the devices; after the last one of the trace, where to look at it, as text."""
        if not self._running or step < self._last:
            return None
        jax.block_until_ready(results)  # or the trace would end before the work does
        self._stop()
        return (
            f"steps {self._first} to {self._last} are traced in {self._folder}: open its perfetto_trace.json.gz at "
            f"https://ui.perfetto.dev, or pip install xprof and run tensorboard --logdir {self._folder}"
        )

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
