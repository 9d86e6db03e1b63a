"""The command that trains every strategy side by side and says which claims the numbers carry."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import sys
from typing import Literal

from fusion_jax.cli_train import Preset
from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train all strategies on the same data, score them on unseen people, and say what the numbers carry.

    fusion-jax sweep --preset tiny --dataset synthetic_humans --data-dir data --out runs/sweep

    fusion-jax sweep --strategies learned,fixed --seeds 3 --lambdas 0,5000 --steps 400 --out runs/quick

    All runs of one shape train together in one compiled program, spread over the devices. The forecast of its time is
    printed first; a stopped sweep goes on by the same command. Writes OUT/sweep.md with tables, figures and one
    sentence for each claim of the paper; OUT/members/*.json; and the first seed of each kind as a run in OUT/runs.
    """

    out: pathlib.Path
    """Folder of the sweep."""
    preset: Preset = "tiny"
    """The runs' network and settings."""
    dataset: str | None = None
    """As for train; none: the preset's."""
    data_dir: pathlib.Path = pathlib.Path("data")
    """Where `fusion-jax prepare` wrote."""
    strategies: str = "all"
    """all, or some of learned,fixed,free,image,heatmap; fixed is trained at every beta in 0 .. L."""
    seeds: int = 5
    """Runs of each kind. One gives no intervals."""
    lambdas: str = "0,50,5000"
    """Penalties of learned, mm^2, beside the preset's; 'none' for no others."""
    initial_betas: str | None = None
    """Starts of beta of learned, beside the middle; 'none' for no others; by default the first and the last layer."""
    final_alphas: str = "20"
    """learned with alpha led to so much in the last half of the training, to end sharp; 'none' for no such runs."""
    streams: str | None = None
    """As for train; each stream beyond image and heatmap is also left out once, to see what it adds."""
    heatmaps: Literal["true", "noisy"] = "true"
    """What the networks read: heatmaps of true 2D joints, or of those with a 2D network's errors."""
    split: str = "test"
    """On whom members are scored; nobody of them may be in the training data."""
    steps: int | None = None
    """Of each run; none: the preset's."""
    batch_size: int | None = None
    """None: the preset's."""
    learning_rate: float | None = None
    """None: the preset's."""
    fusion_learning_rate: float | None = None
    """Of alpha and beta; none: the preset's."""
    seed: int = 0
    """Draws the data's order and augmentation, the same for all members."""
    log_every: int = 25
    """Steps between two rows of numbers."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""

    def run(self) -> None:
        import jax

        from fusion_jax.fusion import STRATEGIES

        # Each core of a CPU takes its own members: the products of many small networks at once run on one core each.
        with contextlib.suppress(RuntimeError):  # a process that uses its devices already keeps them
            jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
        from fusion_jax.heatmap_net import heatmap_source
        from fusion_jax.presets import with_overrides
        from fusion_jax.records import write_text
        from fusion_jax.sweep import SweepOptions, run_sweep
        from fusion_jax.sweep_plan import SweepConfig, sweep_members
        from fusion_jax.sweep_report import write_sweep_report

        base = with_overrides(
            self.preset,
            dataset=self.dataset,
            streams=self.streams,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            fusion_learning_rate=self.fusion_learning_rate,
            seed=self.seed,
        )
        if base.task != "pose":
            raise UserError(f"preset {self.preset} is a 2D network, which fuses nothing; a sweep is of fusion networks")
        if self.heatmaps != "true":
            base = heatmap_source(base, self.heatmaps)
        chosen = STRATEGIES if self.strategies == "all" else tuple(n.strip() for n in self.strategies.split(","))
        sweep = SweepConfig(
            strategies=chosen,
            seeds=self.seeds,
            lambdas=_numbers("--lambdas", self.lambdas),
            initial_betas=None if self.initial_betas is None else _numbers("--initial-betas", self.initial_betas),
            final_alphas=_numbers("--final-alphas", self.final_alphas),
        )
        members = sweep_members(base, sweep)
        print(f"{len(members)} runs of {base.steps} steps")
        options = SweepOptions(split=self.split, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        results = run_sweep(members, self.data_dir, self.out, options)
        write_text(self.out / "command.txt", shlex.join(["fusion-jax", *sys.argv[1:]]) + "\n")
        print(write_sweep_report(self.out, results))
        print(f"written {self.out / 'sweep.md'}, and its figures")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers separated by commas; 'none' for no number. Raises UserError naming the option."""
    if text.strip() in ("", "none"):
        return ()
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise UserError(f"{option} {text!r}: expected numbers separated by commas, or none") from None
