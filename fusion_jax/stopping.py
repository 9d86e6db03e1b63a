"""A command that a signal may stop at any moment, from its first import on, and that says so by its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

from fusion_jax.errors import exit_code

STOPPED = "stopped; nothing unfinished counts, the same command goes on"
_received: list[int] = []


class TerminatedError(BaseException):
    """SIGTERM before there was anything to save. No Exception: nothing that goes on after an error may go on here."""

    exit_code = 75


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt and SIGTERM TerminatedError, and `received` tells of either.

    Outside the main thread signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number, frame):
        if os.getpid() != owner:  # a fork that has this handler too
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        error = KeyboardInterrupt() if number == signal.SIGINT else TerminatedError()
        if _importing(frame):
            with contextlib.suppress(OSError):
                print(f"fusion-jax: {STOPPED}", file=sys.stderr, flush=True)
            os._exit(exit_code(error))
        _received.append(number)
        raise error

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _received.clear()


def _importing(frame: types.FrameType | None) -> bool:
    """Whether a module is being imported, which does not bear an exception: extensions of C++ abort the process."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def received() -> list[int]:
    """The signals within the block until now; what they raise is lost where the interpreter runs its own callbacks."""
    return _received
