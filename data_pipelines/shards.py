"""Parts of a raw dataset to finished shards on disk, in processes, so that a killed run loses no finished part.

A part's shard counts once its `<number>.json` is there: that is written last, and names the files it was made from.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from data_pipelines.source import Part, Source, Tally
from fusion_jax.errors import UserError
from fusion_jax.records import read_json, write_json

_counter: Any = None  # frames done by all processes; set in each by _start_worker


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished part: its file, and what became of its frames.

    Attributes:
      part: what it was made of.
      path: the array_record file; absent where no example was left.
      examples: how many it holds.
      skipped: frames left out, by reason.
      faults: what was broken, a line each; only where faults are admitted.
    """

    part: Part
    path: pathlib.Path
    examples: int
    skipped: dict[str, int]
    faults: list[str]


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
      UserError: a fault, where strict; or a process that died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [n for n, part in enumerate(parts) if _finished(folder, n, part) is None]
    done = sum(part.examples for part in parts) - sum(parts[n].examples for n in todo)
    if len(todo) < len(parts):
        tqdm.write(f"{len(parts) - len(todo)} of {len(parts)} parts are there already", file=sys.stderr)
    bar = tqdm(total=sum(p.examples for p in parts), initial=done, unit="frame", disable=None if show else True)
    with bar:
        if workers == 0:
            for n in todo:
                _write_part(source, parts[n], folder, n, strict, bar.update)
        else:
            _in_processes(source, parts, todo, folder, workers, strict, bar)
    shards = [_finished(folder, n, part) for n, part in enumerate(parts)]
    missing = [part.name for part, shard in zip(parts, shards, strict=True) if shard is None]
    if missing:
        raise UserError(f"{missing[0]}: its files changed while they were read; run the same command again")
    return [shard for shard in shards if shard is not None]


def _in_processes(source, parts, todo, folder, workers, strict, bar) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process with jax threads may hang
    counter = context.Value("q", 0)
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, max(1, len(todo))), mp_context=context, initializer=_start_worker, initargs=(counter,)
    ) as pool:
        pending = {pool.submit(_work, source, parts[n], folder, n, strict) for n in todo}
        shown = 0
        try:
            while pending:
                finished, pending = concurrent.futures.wait(pending, timeout=0.3)
                bar.update(counter.value - shown)
                shown += counter.value - shown
                for future in finished:
                    future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process that prepares data was killed (out of memory?); the same command goes on where it "
                "stopped, with fewer --workers if need be"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us


def _work(source: Source, part: Part, folder: pathlib.Path, number: int, strict: bool) -> None:
    def count(frames: int) -> None:
        with _counter.get_lock():
            _counter.value += frames

    _write_part(source, part, folder, number, strict, count)


def _write_part(
    source: Source, part: Part, folder: pathlib.Path, number: int, strict: bool, count: Callable[[int], Any]
) -> None:
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    features = source.features()
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    path = _shard_path(folder, number)
    partial = path.with_suffix(".partial")
    tally, written, began = Tally(strict), 0, _identity(part)
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for example in _good(source, part, tally):
            writer.write(serializer.serialize_example(features.encode_example(example)))
            written += 1
            count(1)
    finally:
        writer.close()
    if written:
        partial.rename(path)
    else:
        partial.unlink()
    marker = {
        "part": part.name,
        "files": began,
        "examples": written,
        "skipped": dict(tally.skipped),
        "faults": tally.faults,
    }
    write_json(path.with_suffix(".json"), marker)
    count(part.examples - written)


def _good(source: Source, part: Part, tally: Tally) -> Iterator[dict[str, Any]]:
    """The examples of a part; where faults are admitted, those before an error that ends it."""
    try:
        yield from source.read(part, tally)
    except UserError as error:
        tally.fault(str(error))


def _finished(folder: pathlib.Path, number: int, part: Part) -> Shard | None:
    path = _shard_path(folder, number)
    if not path.with_suffix(".json").exists():
        return None
    marker = read_json(path.with_suffix(".json"))
    if marker["part"] != part.name or marker["files"] != _identity(part):
        return None
    if marker["examples"] and not path.exists():
        return None
    return Shard(part, path, marker["examples"], marker["skipped"], marker["faults"])


def _identity(part: Part) -> list[list[Any]]:
    """Name, size and time of each file a part is made from."""
    found = []
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
    plan = [str(source.settings), *(f"{p.split} {p.name} {p.first} {p.last}" for p in parts)]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]


def total_skipped(shards: list[Shard]) -> dict[str, int]:
    """Frames left out over all shards, by reason."""
    total: collections.Counter[str] = collections.Counter()
    for shard in shards:
        total.update(shard.skipped)
    return dict(sorted(total.items()))
