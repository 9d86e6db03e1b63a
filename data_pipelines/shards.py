"""Parts of a raw dataset to finished shards on disk, in processes, so that a killed run loses no finished part.

A part's shard counts once its `<number>.json` is there: that is written last, and tells the files it was made from and
how large the shard is.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from data_pipelines.source import Part, Source, Tally
from fusion_jax.errors import UserError
from fusion_jax.records import read_json, write_json

_shared: Any = None  # (frames done by all processes, whether they are to stop); set in each by _start_worker


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished part: its file, and what became of its frames.

    Attributes:
      part: what it was made of.
      path: the array_record file; absent where no example was left.
      examples: how many it holds.
      skipped: frames left out, by reason.
      faults: what was broken, a line each; only where faults are admitted.
      notes: what is to be said of frames that were kept.
    """

    part: Part
    path: pathlib.Path
    examples: int
    skipped: dict[str, int]
    faults: list[str]
    notes: list[str]

    @property
    def lost(self) -> int:
        """Frames that faults cost."""
        return max(0, self.part.examples - self.examples - sum(self.skipped.values())) if self.faults else 0


def write_shards(
    source: Source, parts: list[Part], folder: pathlib.Path, *, workers: int, strict: bool, show: bool
) -> list[Shard]:
    """A shard in `folder` for every part, in order; those that are there already are kept.

    Args:
      source: knows how to read a part; is copied to the processes.
      workers: how many processes; 0 works in this one.
      strict: whether the first fault ends it all with an error.
      show: a progress bar.

    Raises:
      UserError: a fault, where strict; a process that died; or somebody else is at it.
      OSError: the disk is full or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        todo = [n for n, part in enumerate(parts) if _finished(folder, n, part, strict) is None]
        done = sum(part.examples for part in parts) - sum(parts[n].examples for n in todo)
        if len(todo) < len(parts):
            tqdm.write(f"{len(parts) - len(todo)} of {len(parts)} parts are there already", file=sys.stderr)
        total = sum(part.examples for part in parts)
        with tqdm(total=total, initial=done, unit="frame", disable=None if show else True) as bar:
            if workers == 0:
                for n in todo:
                    _write_part(source, parts[n], folder, n, strict, bar.update)
            else:
                _in_processes(source, parts, todo, folder, workers, strict, bar)
        shards = [_finished(folder, n, part, strict) for n, part in enumerate(parts)]
    missing = [part.name for part, shard in zip(parts, shards, strict=True) if shard is None]
    if missing:
        raise UserError(f"{missing[0]}: its files changed while they were read; run the same command again")
    return [shard for shard in shards if shard is not None]


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Keeps a second run out of a folder; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another run prepares the same data in {folder}; wait for it or end it") from error
        yield


def _in_processes(source, parts, todo, folder, workers, strict, bar) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process with jax threads may hang
    counter, stop = context.Value("q", 0), context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, max(1, len(todo))), mp_context=context, initializer=_start_worker, initargs=(counter, stop)
    ) as pool:
        pending = {pool.submit(_work, source, parts[n], folder, n, strict) for n in todo}
        shown = 0
        try:
            while pending:
                finished, pending = concurrent.futures.wait(pending, timeout=0.3)
                now = counter.value
                bar.update(now - shown)
                shown = now
                for future in finished:
                    future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process that prepares data was killed (out of memory?); the same command goes on where it "
                "stopped, with fewer --workers if need be"
            ) from error
        finally:
            stop.set()  # those under way end at their next frame
            for future in pending:
                future.cancel()


def _start_worker(counter: Any, stop: Any) -> None:
    global _shared
    _shared = (counter, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()


def _die_with_parent(parent: int) -> None:
    """Ends this process once its parent is gone: killed, it could not tell us, and the next run has our work."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


class _Stopped(Exception):
    """The run is over; what this part has so far is of no use."""


def _work(source: Source, part: Part, folder: pathlib.Path, number: int, strict: bool) -> None:
    counter, stop = _shared

    def count(frames: int) -> None:
        if stop.is_set():
            raise _Stopped
        with counter.get_lock():
            counter.value += frames

    with contextlib.suppress(_Stopped):
        _write_part(source, part, folder, number, strict, count)


def _write_part(
    source: Source, part: Part, folder: pathlib.Path, number: int, strict: bool, count: Callable[[int], Any]
) -> None:
    from tensorflow_datasets.core import example_serializer

    features = source.features()
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    path = _shard_path(folder, number)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    tally, written, files = Tally(strict), 0, _identity(part)
    try:
        with _record_writer(partial) as write:
            for example in _good(source, part, tally):
                record = serializer.get_tf_example(features.encode_example(example))
                write(record.SerializeToString(deterministic=True))  # the same examples give the same bytes
                written += 1
                count(1)
        _to_disk(partial)
        if written:
            partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    marker = {
        "part": part.name,
        "files": files,
        "examples": written,
        "bytes": path.stat().st_size if written else 0,
        "skipped": dict(tally.skipped),
        "faults": tally.faults,
        "notes": tally.notes,
    }
    write_json(path.with_suffix(".json"), marker)
    count(part.examples - written)


@contextlib.contextmanager
def _record_writer(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """Writes records to an array_record file; the library's RuntimeErrors are a disk's."""
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")

    def guarded(call: Callable, *args: Any) -> None:
        try:
            call(*args)
        except RuntimeError as error:
            raise OSError(f"{path}: {str(error).splitlines()[0][:200]}") from error

    try:
        yield lambda record: guarded(writer.write, record)
    except BaseException:
        with contextlib.suppress(OSError):
            guarded(writer.close)
        raise
    guarded(writer.close)


def _to_disk(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _good(source: Source, part: Part, tally: Tally) -> Iterator[dict[str, Any]]:
    """The examples of a part; where faults are admitted, those before an error that ends it."""
    try:
        yield from source.read(part, tally)
    except UserError as error:
        tally.fault(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        tally.fault(f"{error.filename} cannot be read ({error.strerror}); see whether the disk and the file are whole")


def _finished(folder: pathlib.Path, number: int, part: Part, strict: bool) -> Shard | None:
    """A part's shard if it is whole, of these very files, and good enough."""
    path = _shard_path(folder, number)
    try:
        marker = read_json(path.with_suffix(".json"))
        same = marker["part"] == part.name and marker["files"] == _identity(part)
        size = path.stat().st_size if marker["examples"] else 0
        shard = Shard(part, path, *(marker[key] for key in ("examples", "skipped", "faults", "notes")))
    except (UserError, OSError, KeyError, TypeError):  # not there, or cut off by a power failure
        return None
    whole = size == marker["bytes"] and not (strict and shard.faults)
    return shard if same and whole else None


def _identity(part: Part) -> list[list[Any]]:
    """Name, size and time of each file a part is made from."""
    found: list[list[Any]] = []
    for path in part.files:
        try:
            stat = path.stat()
            found.append([str(path), stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([str(path), None, None])
    return found


def _shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:05d}.array_record"


def plan_digest(source: Source, parts: list[Part]) -> str:
    """Changes when the parts, their order or the settings do: shards of another plan are never mixed in."""
    plan = [repr(source.settings), *(f"{p.split} {p.name} {p.first} {p.last}" for p in parts)]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]


def total_skipped(shards: list[Shard]) -> dict[str, int]:
    """Frames left out over all shards, by reason; those that faults cost are one of them."""
    total: collections.Counter[str] = collections.Counter()
    for shard in shards:
        total.update(shard.skipped)
    lost = sum(shard.lost for shard in shards)
    if lost:
        total["frames of broken or missing pieces"] += lost
    return dict(sorted(total.items()))
