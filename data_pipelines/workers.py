"""Batches that worker processes make: one that dies or hangs is an error that says so, never a wait without end.

Grain notices a worker that was killed, but waits for ever for one that ended with exit code 0, that stands still, or
that died while it was writing.

A worker ends with the process that started it, however that ends, and not before: Ctrl-C and a scheduler's SIGTERM
reach the whole process group, and whoever trains still needs batches until a checkpoint is saved.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import grain

from fusion_jax.errors import UserError

_LOOK_EVERY_S = 1.0
_LAST_WORDS_S = 5.0  # after a worker's end, for what it had made or what Grain has to say
_PATIENCE_S = 600.0
_NAME = "grain-process-prefetch"  # how Grain calls its processes


class WorkerError(UserError):
    """A process that prepares batches ended, or brought none for too long. Exit code 6."""

    exit_code = 6


def end_with_parent(index: int, count: int) -> None:
    """Grain calls this in each worker before anything else: it then ends with its parent, even one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True, name="end-with-parent").start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()  # a pipe of the parent, which the system closes
    os._exit(1)


class WorkerBatches(Iterator[dict[str, Any]]):
    """The batches of Grain's iterator, which a thread waits for, so that the wait can be given up; close it when done.

    Args:
      data: an iterator that has not been asked for anything yet, with `end_with_parent` in its workers.
      num_workers: how many processes it starts.
      patience_s: the longest wait for one batch.
    """

    def __init__(self, data: grain.DatasetIterator, num_workers: int, patience_s: float = _PATIENCE_S):
        self._data, self._num_workers, self._patience_s = data, num_workers, patience_s
        self._others = set(multiprocessing.active_children())
        self._workers: set[BaseProcess] = set()
        self._made: queue.Queue[tuple[Any, Exception | None]] = queue.Queue(1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fetch, daemon=True, name="worker-batches")
        self._failed: Exception | None = None

    def __next__(self) -> dict[str, Any]:
        """Raises WorkerError, or what a worker raised; then that again."""
        if self._failed is not None:
            raise self._failed
        if not self._thread.is_alive() and not self._closed.is_set():
            self._thread.start()
        try:
            return self._wait()
        except Exception as error:
            self._failed = error
            self._end_workers()  # one that stands still would hold up closing
            raise

    def _wait(self) -> dict[str, Any]:
        began, ended_at = time.monotonic(), None
        while True:
            self._find_workers()
            try:
                batch, error = self._made.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                now = time.monotonic()
                ended = [worker for worker in self._workers if worker.exitcode is not None]
                ended_at = (ended_at or now) if ended else None
                if ended_at is not None and now - ended_at > _LAST_WORDS_S:
                    raise _died(ended[0].exitcode) from None
                if now - began > self._patience_s:
                    raise WorkerError(
                        f"{len(self._workers)} data workers brought no batch for {self._patience_s:.0f} s and still "
                        "run; see whether the data's disk answers, then resume with the same command, with --workers 0 "
                        "if it happens again"
                    ) from None
                continue
            if error is None:
                return batch
            codes = [worker.exitcode for worker in self._workers if worker.exitcode]
            if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):  # Grain's words
                raise _died(codes[0] if codes else None) from error
            raise error

    def _fetch(self) -> None:
        # Whatever this thread starts begins with its signal mask: Grain's threads, the workers and their threads.
        # Python's tracker first: where it is not there yet, the first worker's start brings it up and clears the mask.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while not self._closed.is_set():
            try:
                made: tuple[Any, Exception | None] = (next(self._data), None)
            except Exception as error:
                made = (None, error)
            while not self._closed.is_set():
                try:
                    self._made.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if made[1] is not None:
                return

    def _find_workers(self) -> None:
        if len(self._workers) < self._num_workers:
            started = set(multiprocessing.active_children()) - self._others
            self._workers |= {process for process in started if process.name.startswith(_NAME)}

    def _end_workers(self) -> None:
        for worker in self._workers:
            if worker.is_alive():
                worker.kill()

    def close(self) -> None:
        """Ends the processes; what they had made is lost."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(1.0)  # longer where it waits for a worker, which closing ends
        if self._failed is None:
            self._data.close()
        else:  # Grain may wait for ever for a worker that is gone
            closing = threading.Thread(target=self._data.close, daemon=True, name="close-workers")
            closing.start()
            closing.join(_LAST_WORDS_S)


def _died(exitcode: int | None) -> WorkerError:
    how = "ended" if exitcode is None else f"ended with exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        how = f"was killed by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    return WorkerError(
        f"a process that prepares training data {how}; most often memory ran out: resume with the same command, with "
        "fewer --workers or 0"
    )
