"""Where a run's numbers go: a progress bar, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar
from tqdm import tqdm

from fusion_jax.distributed import writes
from fusion_jax.errors import UserError
from fusion_jax.records import write_bytes

_SHOWN = {
    "loss": "{:.3g}",
    "mpjpe_mm": "{:.1f}",
    "joint_error_px": "{:.2f}",
    "pckh_0.5": "{:.3f}",
    "pck_0.2_torso": "{:.3f}",
    "alpha": "{:.3f}",
    "beta": "{:.2f}",
    "examples_per_s": "{:.0f}",
}


class Progress:
    """Writes rows of numbers for a run of `total` steps that starts at `start`; a context manager.

    On a terminal it shows a bar with loss, error (mpjpe or, of a 2D network, px), alpha, beta, examples/s and time
    left; elsewhere it prints a line for each row. Where numbers cannot be written, as on a full disk, that is said once
    and the training goes on: they are written later if they can be. Of several processes one writes and shows; in the
    others all of this does nothing.
    """

    def __init__(self, workdir: pathlib.Path, *, start: int, total: int, label: str, show: bool = True):
        show = show and writes()
        path = workdir / "metrics.jsonl" if writes() else pathlib.Path(os.devnull)
        if writes():
            workdir.mkdir(parents=True, exist_ok=True)
            _forget_after(path, start)
        self._file = path.open("a")
        self._workdir, self._complained = workdir, False
        self._board = None
        if writes():
            (workdir / "tensorboard").mkdir(exist_ok=True)
            # Not SummaryWriter: its thread dies of a full disk, and whoever then adds to its queue waits for ever.
            self._board = EventsWriter(str(workdir / "tensorboard" / "events"))
        self._start, self._total, self._show, self._began = start, total, show, time.perf_counter()
        terminal = show and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=start, desc=label, unit="step", disable=not terminal)

    def step(self) -> None:
        """One more step is under way."""
        self._bar.update()

    def row(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Records numbers after `step` steps; `kind` is 'train' or 'validation'."""
        line = {"kind": kind, "step": step, **values}
        self._log(json.dumps(line, allow_nan=False))
        scalars = {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}
        if self._board is not None:
            with self._complaining():
                for name, value in scalars.items():
                    event = Event(wall_time=time.time(), step=step, summary=scalar(f"{kind}/{name}", value))
                    self._board.write_event(event)
                self._board.flush()
        shown = {name: form.format(values[name]) for name, form in _SHOWN.items() if name in values}
        if kind == "train":
            self._bar.set_postfix(shown, refresh=False)
        if self._show and (self._bar.disable or kind != "train"):
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            self._bar.write(f"{kind:10s} step {step}/{self._total}  {text}{self._left(kind, step)}", file=sys.stderr)

    def event(self, kind: str, step: int, values: dict[str, int], text: str) -> None:
        """Records what happened after `step` steps, and says it in one line."""
        self._log(json.dumps({"kind": kind, "step": step, **values}))
        if self._show:
            self._bar.write(f"{kind:10s} step {step}/{self._total}  {text}", file=sys.stderr)

    def _log(self, line: str) -> None:
        with self._complaining():
            print(line, file=self._file, flush=True)  # what cannot be flushed stays in the buffer

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._complained:
                reason = error.strerror or error
                self._bar.write(f"warning: numbers cannot be written in {self._workdir} ({reason})", file=sys.stderr)
            self._complained = True

    def _left(self, kind: str, step: int) -> str:
        done = step - self._start
        if kind != "train" or done <= 0:
            return ""
        seconds = (time.perf_counter() - self._began) / done * (self._total - step)
        return f"  left {tqdm.format_interval(seconds)}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        for file in filter(None, (self._board, self._file)):
            with self._complaining():
                file.close()


def logged_steps(workdir: pathlib.Path) -> dict[str, int]:
    """The last step that a run's metrics.jsonl tells of, by kind of row; lines that are broken are passed over."""
    path, last = workdir / "metrics.jsonl", dict[str, int]()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            row = json.loads(line)
            last[str(row["kind"])] = max(last.get(str(row["kind"]), 0), int(row["step"]))
    return last


def _forget_after(path: pathlib.Path, start: int) -> None:
    """Drops rows of steps that a killed run did and did not save, and a last line that was cut short."""
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{path} is no ordinary file, and the log is to be written there; move it away")
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            wanted = json.loads(line)["step"] <= start
        except (ValueError, KeyError, TypeError, RecursionError):
            wanted = number < len(lines)  # a kill cuts the last line alone; what else is broken the report names
        if wanted:
            kept.append(line)
    write_bytes(path, "".join(f"{line}\n" for line in kept).encode(errors="surrogateescape"))
