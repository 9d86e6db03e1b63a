"""Output that may go away: what nobody can be shown any more is no reason to lose the work of a command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Lasting:
    """A stream whose writes never fail; `error` is the first that did."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, function: Any, *args: str) -> None:
        try:
            function(*args)
        except OSError as error:  # the reader of a pipe is gone, the disk with a log is full
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Within the block nothing fails because standard output or error cannot be written.

    Raises:
      OSError: after the block, if it ended well and standard output was lost, unless its reader simply went away.
    """
    with contextlib.ExitStack() as stack:
        streams = []
        for name in ("stdout", "stderr"):
            before = getattr(sys, name)
            stream = before if before is not None else stack.enter_context(open(os.devnull, "w"))  # closed by `2>&-`
            streams.append(_Lasting(stream))
            setattr(sys, name, streams[-1])
            stack.callback(setattr, sys, name, before)
        yield
        streams[0].flush()
        error = streams[0].error
        if error is not None and not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, f"standard output: {error.strerror}")


def settle_output() -> None:
    """For the end of a program: what is left to write goes nowhere if it cannot be written, and the exit code stays."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
