"""The command line: sub-commands to one function call each. Heavy imports wait until a command runs."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import sys
from typing import Literal

import tyro

from fusion_jax.cli_prepare import CheckData, Prepare
from fusion_jax.errors import TrainingDivergedError, TrainingInterruptedError, UserError

Preset = Literal["tiny", "paper", "paper-wide", "human36m", "humaneva", "kth", "lsp"]
StrategyName = Literal["learned", "fixed", "free", "image", "heatmap"]


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network, or resume what the work folder holds.

    fusion-jax train --preset tiny --dataset synthetic_humans --data-dir data --workdir runs/learned

    The work folder gets config.json, metrics.jsonl, TensorBoard files and checkpoints. The same command continues
    after a stop or a kill, at the exact example; another config in the same folder is refused.
    """

    preset: Preset = "tiny"
    """tiny: learns on two CPU cores in minutes. paper, paper-wide: the published networks, for GPU or TPU.
    human36m, humaneva, kth, lsp: the paper's four experiments with its network."""
    dataset: str | None = None
    """A prepared dataset, <dataset>/<config> where several are prepared, or synthetic_humans/live, which renders new
    pictures on the device while it trains. A mixture: human36m=3,synthetic_humans=1; the first is validated on,
    and weights, in [1e-3, 1e3], count to whole percents of the smallest. None: the preset's."""
    train_split: Literal["train", "train+validation"] = "train"
    """train+validation also trains on the people held out for choosing, as published numbers do; choose first."""
    skeleton: Literal["human36m17", "mpii16", "humaneva15", "lsp14"] | None = None
    """Layout of the predicted pose; a dataset's own joints are matched to it by name. None: the preset's."""
    init_from: pathlib.Path | None = None
    """Work folder of a run whose newest weights this one starts from; joints are matched by name."""
    data_dir: pathlib.Path = pathlib.Path("data")
    """Where `fusion-jax prepare` wrote."""
    workdir: pathlib.Path = pathlib.Path("runs/tiny")
    """Folder of this run."""
    steps: int | None = None
    """Optimiser steps in all; none: the preset's."""
    strategy: StrategyName = "learned"
    """Where to fuse: learned finds out; fixed does it at --beta; free has one weight per layer; image and heatmap
    use that stream alone."""
    beta: float | None = None
    """Fusion layer: for fixed 0 (early) .. L (late); for learned where it starts, by default the middle."""
    alpha_init: float | None = None
    """Sharpness at the start; none: the preset's."""
    alpha_penalty_weight: float | None = None
    """lambda of the penalty lambda / alpha^2, mm^2; none: the preset's."""
    learning_rate: float | None = None
    """Of the weights; none: the preset's."""
    fusion_learning_rate: float | None = None
    """Of alpha and beta; none: the preset's."""
    clip_norm: float | None = None
    """Largest gradient norm of each parameter group, mm^2; 0 for no clipping; none: the preset's."""
    batch_size: int | None = None
    """Over all hosts; none: the preset's."""
    augment: Literal["full", "light", "paper", "none"] | None = None
    """full: crop, flip, scale, rotation, colour. light: crop, flip, colour. paper: the release's one crop per
    batch. none: pictures as they are. None: the preset's."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, loss and metrics stay float32."""
    seed: int = 0
    """Draws weights, order, augmentation, dropout; with synthetic_humans/live the people too, test people included."""
    log_every: int = 25
    """Steps between two rows of numbers."""
    eval_every: int = 500
    """Steps between two evaluations on validation people; 0 for none."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    stop_after: int | None = None
    """Save and stop once this many steps are done in all; the same command without it goes on."""
    workers: int = 0
    """Processes that prepare batches; 0 for threads."""

    def run(self) -> None:
        from fusion_jax.config import with_overrides
        from fusion_jax.train import LoopOptions, train

        config = with_overrides(
            self.preset,
            dataset=self.dataset,
            train_split=self.train_split,
            skeleton=self.skeleton,
            init_from=None if self.init_from is None else str(self.init_from),
            strategy=self.strategy,
            beta=self.beta,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            augment=self.augment,
            compute_dtype=self.compute_dtype,
            alpha_init=self.alpha_init,
            alpha_penalty_weight=self.alpha_penalty_weight,
            learning_rate=self.learning_rate,
            fusion_learning_rate=self.fusion_learning_rate,
            clip_norm=self.clip_norm,
        )
        options = LoopOptions(
            log_every=self.log_every,
            eval_every=self.eval_every,
            checkpoint_every=self.checkpoint_every,
            stop_after=self.stop_after,
            workers=self.workers,
        )
        state = train(config, self.data_dir, self.workdir, options)
        print(f"{int(state.step)} of {config.steps} steps done; next: fusion-jax evaluate --workdir {self.workdir}")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run's newest checkpoint on every frame of a split.

    fusion-jax evaluate --workdir runs/learned

    fusion-jax evaluate --workdir runs/lsp --dataset lsp --data-dir data

    Writes WORKDIR/eval/<split>.json, .md and .csv (with --dataset <dataset>_<config>_<split>.json and so on): mpjpe,
    pa_mpjpe, n_mpjpe, pck, auc, per action and per joint, with the protocol they follow. human36m, humaneva,
    kth_football2, lsp and mpii are scored by their own protocol as well, published numbers beside ours. People or
    frames that training has seen are refused.
    """

    workdir: pathlib.Path
    """Folder of the run."""
    split: str = "test"
    """Part of the dataset: test people were never seen in training."""
    dataset: str | None = None
    """Another prepared dataset to score the run on; none: its own."""
    data_dir: pathlib.Path | None = None
    """Where the data is now, if it moved since training."""
    batch_size: int = 64
    """Frames at a time; does not change the result."""

    def run(self) -> None:
        from fusion_jax.evaluate import evaluate_run, evaluation_text

        result = evaluate_run(self.workdir, self.split, self.data_dir, self.batch_size, self.dataset)
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
    """Everything at once on the embedded dataset: prepare, train three networks, evaluate, report.

    fusion-jax demo

    A few minutes on two CPU cores. What is done already is reused.
    """

    data_dir: pathlib.Path = pathlib.Path("data")
    """Folder for the dataset."""
    runs_dir: pathlib.Path = pathlib.Path("runs/demo")
    """Folder for the runs: learned, image, heatmap."""
    steps: int | None = None
    """Steps of each training; none: the preset's."""

    def run(self) -> None:
        from fusion_jax.demo import run_demo

        run_demo(self.data_dir, self.runs_dir, self.steps)


def main(args: list[str] | None = None) -> int:
    """Runs a sub-command; returns the exit code: 0, 2 for bad input, 3 diverged, 130 stopped by a signal.

    `check-data` also gives 1: the data is incomplete.
    """
    prog = "fusion-jax"
    description = "3D human pose from one photo, by learning where to fuse 2D heatmaps with image features."
    commands = Prepare | CheckData | Train | Evaluate | Report | Demo
    try:
        command = tyro.cli(commands, prog=prog, description=description, args=args)
        logging.getLogger("absl").setLevel(logging.ERROR)  # of TFDS, Grain and Orbax; users need none of it
        return command.run() or 0
    except UserError as error:
        message, code = str(error), 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message, code = f"{where}{error.strerror or error}; check the path and free space", 2
    except TrainingDivergedError as error:
        message, code = str(error), 3
    except TrainingInterruptedError as error:
        message, code = str(error), 130
    except KeyboardInterrupt:
        message, code = "stopped; nothing unfinished counts, the same command goes on", 130
    print(f"{prog}: {message}", file=sys.stderr)
    return code
