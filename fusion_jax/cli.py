"""The command line: sub-commands to one function call each. Heavy imports wait until a command runs."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import sys
from typing import Literal

import tyro

from fusion_jax.cli_analyze import Analyze
from fusion_jax.cli_doctor import Doctor
from fusion_jax.cli_predict import ImportHourglass, ImportRelease, Predict
from fusion_jax.cli_prepare import CheckData, Prepare
from fusion_jax.cli_processes import Processes
from fusion_jax.cli_prune import Prune
from fusion_jax.cli_replay import Replay
from fusion_jax.cli_sweep import Sweep
from fusion_jax.cli_train import Train
from fusion_jax.compile_cache import use_compilation_cache
from fusion_jax.errors import (
    CheckpointError,
    PeerFailedError,
    TrainingDivergedError,
    TrainingInterruptedError,
    UserError,
    exit_code,
)
from fusion_jax.lasting_output import lasting_output, settle_output
from fusion_jax.stopping import STOPPED, TerminatedError, stoppable


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run on every frame of a split.

    fusion-jax evaluate --workdir runs/learned

    fusion-jax evaluate --workdir runs/lsp --dataset lsp --data-dir data

    Writes WORKDIR/eval/<split>.json, .md and .csv (with --dataset <dataset>_<config>_<split>.json and so on): mpjpe,
    pa_mpjpe, n_mpjpe, pck, auc, per action and per joint, with the protocol they follow. human36m, humaneva,
    kth_football2, lsp and mpii are scored by their own protocol as well, published numbers beside ours. A 2D network is
    scored by PCKh, PCK and the distance in px. People or frames that training has seen are refused.
    """

    workdir: pathlib.Path
    """Folder of the run."""
    split: str = "test"
    """Part of the dataset: test people were never seen in training."""
    dataset: str | None = None
    """Another prepared dataset to score the run on; none: its own."""
    data_dir: pathlib.Path | None = None
    """Where the data is now, if it moved since training."""
    heatmaps: Literal["true", "noisy", "predicted"] | None = None
    """Feed a fusion network other heatmaps than it was trained with; none: the same kind."""
    heatmap_workdir: pathlib.Path | None = None
    """For predicted: folder of a trained 2D network, if not the one that the run was trained with."""
    batch_size: int = 64
    """Frames at a time; does not change the result."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """latest, best (on the people held out for choosing), or a step that is still there."""
    protocol: Literal["release"] | None = None
    """release: also score as the paper's authors' code does (every 4th whole batch of 128), its numbers above ours."""
    processes: tyro.conf.OmitArgPrefixes[Processes] = Processes()

    def run(self) -> None:
        self.processes.run(self._evaluate)

    def _evaluate(self) -> None:
        from fusion_jax.distributed import writes
        from fusion_jax.evaluate import evaluate_run, evaluation_text

        result = evaluate_run(
            self.workdir,
            self.split,
            self.data_dir,
            self.batch_size,
            self.dataset,
            heatmaps=self.heatmaps,
            heatmap_workdir=self.heatmap_workdir,
            protocol=self.protocol,
            checkpoint=self.checkpoint,
        )
        if writes():
            print(evaluation_text(result))
            print(f"written to {self.workdir / 'eval'}: {result['name']}.json, .md, .csv")


@dataclasses.dataclass(frozen=True)
class Report:
    """Make pictures and one self-contained page of a run.

    fusion-jax report --workdir runs/learned --compare runs/image runs/heatmap

    Writes WORKDIR/report.html (opens without a network) and its PNGs in WORKDIR/report.
    """

    workdir: pathlib.Path
    """Folder of a run that was evaluated."""
    compare: tuple[pathlib.Path, ...] = ()
    """Further evaluated runs for a table side by side."""

    def run(self) -> None:
        from fusion_jax.report import write_report

        print(f"written {write_report(self.workdir, self.compare)}")


@dataclasses.dataclass(frozen=True)
class Demo:
    """Everything at once on the embedded dataset: prepare, train, evaluate, report, and poses of people in photos.

    fusion-jax demo

    fusion-jax demo --chain

    Trains three fusion networks on true heatmaps and a 2D network. Some minutes on two CPU cores. What is done already
    is reused. --chain goes on from photo to pose: fusion trained on the 2D network's own heatmaps.
    """

    data_dir: pathlib.Path = pathlib.Path("data")
    """Folder for the dataset."""
    runs_dir: pathlib.Path = pathlib.Path("runs/demo")
    """Folder for the runs: hourglass, learned, image, heatmap; and photos with their poses."""
    steps: int | None = None
    """Steps of each training; none: the presets'."""
    chain: bool = False
    """Also train trainable fusion on noisy and on predicted heatmaps, test each network on all three kinds, and give
    the photos to the one that was trained on predicted heatmaps."""

    def run(self) -> None:
        from fusion_jax.demo import run_demo

        run_demo(self.data_dir, self.runs_dir, self.steps, self.chain)


def main(args: list[str] | None = None) -> int:
    """Runs a sub-command; returns the exit code, whatever becomes of its output.

    0 done; 2 bad input; 3 diverged; 4 a checkpoint could not be written; 5 another process of the run failed; 6 a
    process that prepares data ended; 75 stopped by SIGTERM, start it again; 130 stopped by Ctrl-C.

    `check-data`, `predict`, `prune` and `doctor` also give 1: data is incomplete; an input could not be done; no layer
    is dead; something is to be mended.
    Without `args`, as the program itself and not as a function of another one, it also keeps what JAX compiles.
    """
    try:
        return _main(args)
    finally:
        if args is None:
            settle_output()


def _main(args: list[str] | None) -> int:
    prog = "fusion-jax"
    description = "3D human pose from one photo, by learning where to fuse 2D heatmaps with image features."
    commands = (
        Prepare
        | CheckData
        | Train
        | Evaluate
        | Prune
        | Analyze
        | Report
        | Replay
        | Predict
        | ImportHourglass
        | ImportRelease
        | Sweep
        | Demo
        | Doctor
    )
    hung = False
    try:
        with lasting_output(), stoppable():
            command = tyro.cli(commands, prog=prog, description=description, args=args)
            _check_folders(command)
            for name in ("absl", "asyncio"):  # TFDS, Grain and Orbax: what fails is an error too, told in one line
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if args is None:
                sys.unraisablehook = _unraisable
                use_compilation_cache()
            return command.run() or 0
    except (UserError, TrainingDivergedError, CheckpointError, TrainingInterruptedError, PeerFailedError) as error:
        notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]  # none of JAX's or Grain's own
        message, code = "; ".join([str(error), *notes]), exit_code(error)
        hung = isinstance(error, CheckpointError) and error.hung
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message, code = f"{where}{error.strerror or error}; check the path and free space", exit_code(error)
    except (KeyboardInterrupt, TerminatedError) as error:
        message, code = STOPPED, exit_code(error)
    with lasting_output():
        print(f"{prog}: {message}", file=sys.stderr, flush=True)
    if hung and args is None:  # Python would wait for the thread that hangs
        os._exit(code)
    return code


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """Shows an error that nobody can catch, but none of TensorStore's, one an array, after Orbax gave up a write."""
    if not isinstance(told.exc_value, RuntimeError) or str(told.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(told)


def _check_folders(command: object) -> None:
    """Raises UserError for a folder to write in whose name is not UTF-8, which Orbax and TFDS cannot take."""
    for name in ("data_dir", "workdir", "runs_dir", "out"):
        path = getattr(command, name, None)
        if isinstance(path, pathlib.Path) and any(0xDC80 <= ord(letter) <= 0xDCFF for letter in str(path.absolute())):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {str(path)!r}: its name, or that of a folder above it, is not UTF-8; rename it")
