"""Turning SIGINT and SIGTERM into a question that a loop can ask between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax

from fusion_jax import distributed, stopping


@contextlib.contextmanager
def stop_requests(agree_every: int = 1) -> Iterator[Callable[[int], int | None]]:
    """Within the block the first SIGINT or SIGTERM is only noted; the yielded function of a step returns it, or None.

    A second signal acts as usual. Outside the main thread signals stay as they are and the answer is None.

    Where several processes train together all of them ask after every step, and get the same answer after the same
    step, whichever of them was sent the signal: within a few steps where jax's preemption service is on and it was
    SIGTERM, else at the next multiple of `agree_every`.
    """
    # The service has a handler of its own for SIGTERM, which one of Python's would replace.
    numbers = [signal.SIGINT] if distributed.preemption_service() else [signal.SIGINT, signal.SIGTERM]
    with _noted(numbers) as received:
        if jax.process_count() == 1:
            yield lambda step: received()
        else:
            yield lambda step: distributed.agreed_stop(step, received(), agree_every, signal.SIGTERM)


@contextlib.contextmanager
def _noted(numbers: list[signal.Signals]) -> Iterator[Callable[[], int | None]]:
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received = list(stopping.received())  # those before the block too, if nothing came of them
    previous = {number: signal.getsignal(number) for number in numbers}

    def note(number, frame):
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
