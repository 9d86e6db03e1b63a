"""The runs of one shape of a sweep, trained together: their states, their loop, their log, how long they will take."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from data_pipelines.loader import pose_statistics
from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.batch import fake_batch
from fusion_jax.checkpoint import Checkpoints
from fusion_jax.errors import TrainingDivergedError, TrainingInterruptedError, UserError, check_field
from fusion_jax.fusion import fusion_weights
from fusion_jax.interrupt import stop_requests
from fusion_jax.machine import machine_words
from fusion_jax.progress import Progress
from fusion_jax.records import read_json, write_json
from fusion_jax.scoring import place_batch
from fusion_jax.skeletons import skeleton
from fusion_jax.start import training_data
from fusion_jax.state import TrainState
from fusion_jax.sweep_plan import Member
from fusion_jax.sweep_steps import jit_member_step, member_mesh, member_sharding, member_states, padded
from fusion_jax.training_log import read_log
from fusion_jax.transfers import any_transfers, explicit_transfers

_KEEP = 2  # the one before the newest is for when that is damaged
_MEANS = ("loss", "data_loss", "penalty", "grad_norm")
Mixture = list[tuple[PoseDataset, float]]


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What a sweep reports and saves, and when; none of it changes the trained networks."""

    split: str = "test"
    """On whom members are scored."""
    log_every: int = 25
    checkpoint_every: int = 250
    show: bool = True

    def __post_init__(self):
        for name in ("log_every", "checkpoint_every"):
            check_field(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")


class SweepGroup:
    """The members of one shape: their states, their step, and where they stand."""

    def __init__(self, folder: pathlib.Path, members: list[Member], datasets: Mixture, options: SweepOptions):
        self.folder, self.members, self._datasets, self._options = folder, members, datasets, options
        self.config = members[0].config
        self._mesh = member_mesh(len(members))
        self._step = jit_member_step(self._mesh)
        layout = skeleton(self.config.inputs.skeleton)
        self._statistics = pose_statistics(datasets[0][0], layout)

    @property
    def label(self) -> str:
        """For people to read: how many runs, of what."""
        kinds = list(dict.fromkeys(member.label for member in self.members))
        named = ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more" if len(kinds) > 3 else "")
        return f"{len(self.members)} runs together ({named})"

    def _states(self) -> tuple[TrainState, jax.Array]:
        configs = padded([member.config for member in self.members], self._mesh)
        return member_states(configs, self._mesh, *self._statistics)

    def _place(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A host batch, whole on every device of the group."""
        one = sharding.data_mesh(self._mesh.local_devices[:1])
        return jax.device_put(place_batch(batch, self._datasets[0][0], one), sharding.replicated(self._mesh))

    def seconds_per_step(self) -> float:
        """Measured over three steps on noise, compilation left out; the compiled step is then used for training."""
        states, lambdas = self._states()
        batch = fake_batch(self.config, self.config.batch_size)
        for extra in self._datasets[0][0].extras:
            batch[extra] = np.zeros((*batch["image"].shape[:3],), np.uint8)
        placed = jax.device_put(batch, sharding.replicated(self._mesh))
        began = 0.0
        for step in range(4):
            if step == 1:
                began = time.perf_counter()
            states, _ = jax.block_until_ready(self._step(states, lambdas, placed))
        return (time.perf_counter() - began) / 3

    def steps_left(self) -> int:
        """Steps until the last; those of an interrupted sweep's checkpoint count as done."""
        if not (self.folder / "checkpoints").is_dir():
            return self.config.steps
        with contextlib.closing(Checkpoints(self.folder, self.config, keep=_KEEP)) as checkpoints:
            return self.config.steps - (checkpoints.latest_step or 0)

    def train(self) -> TrainState:
        """The members' states after the last step, stacked along their first axis, on the host."""
        config, options = self.config, self._options
        with contextlib.closing(Checkpoints(self.folder, config, keep=_KEEP)) as checkpoints:
            (states, lambdas), start = self._states(), 0
            newest = checkpoints.latest_step
            if newest is None:
                checkpoints.require_sound()
            else:
                restored, start = checkpoints.restore(self._members_shapes(states), self._mesh)
                states = self._with_padding(restored)
            checkpoints.tidy()
            with (
                contextlib.closing(training_data(config, self._datasets, start)) as data,
                Progress(self.folder, start=start, total=config.steps, label=self.label, show=options.show) as progress,
                stop_requests() as stop_requested,
                explicit_transfers() as of_program,
            ):
                timer = _Timer(self.folder / "time.json")
                window: list[dict[str, jax.Array]] = []
                for step in range(start + 1, config.steps + 1):
                    with of_program(self._step):
                        states, measured = self._step(states, lambdas, self._place(next(data)))
                    window.append(measured)
                    progress.step()
                    stop = stop_requested(step)
                    last = step == config.steps or stop is not None
                    if last or step % options.log_every == 0 or step % options.checkpoint_every == 0:
                        progress.row("train", step, self._row(step, window))
                        window = []
                    failed = checkpoints.poll()
                    if failed:
                        progress.event("unsaved", step, {}, f"{failed}; trying again now")
                    if last or failed or step % options.checkpoint_every == 0:
                        save = checkpoints.save_and_wait if last else checkpoints.save
                        save(step, self._without_padding(states), step)
                        timer.lap()
                    if stop is not None:
                        raise TrainingInterruptedError(
                            f"stopped by signal {stop} and saved at step {step} of {config.steps} of {self.label}; the "
                            "same command resumes there",
                            stop,
                        )
        return self._without_padding(states)

    @any_transfers  # for saving
    def _without_padding(self, states: TrainState) -> TrainState:
        """The members alone, on the host: what is saved must not depend on the number of devices.

        A part of an array that is split over devices is a program of all of them that waits for each. One for every
        array, queued at once on a busy CPU, can make some wait so long for the others that XLA ends the process.
        """
        return _on_host(states, slice(len(self.members)))

    def _members_shapes(self, states: TrainState) -> TrainState:
        """Of the members' states, where `states` holds padding too."""
        return jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[: len(self.members)], tree), states)

    @any_transfers
    def _with_padding(self, states: TrainState) -> TrainState:
        places = np.minimum(np.arange(len(padded([m.config for m in self.members], self._mesh))), len(self.members) - 1)
        return jax.device_put(_on_host(states, places), member_sharding(self._mesh))

    def member_log(self, place: int) -> str:
        """The training log of one member, as a run of its own would have written it."""
        rows = read_log(self.folder / "metrics.jsonl", nested=True)[0]
        strategy, depth = self.members[place].config.fusion.strategy, len(self.config.fusion.streams[0].layers)
        lines = []
        for row in rows:
            own = {name: values[place] for name, values in row["members"].items()}
            if strategy == "learned":
                weights = fusion_weights(jnp.float32(own["alpha"]), jnp.float32(own["beta"]), depth)
                own["fusion_weights"] = [round(float(w), 6) for w in weights]
            else:
                own = {name: value for name, value in own.items() if name not in ("alpha", "beta")}
            lines.append(json.dumps({"kind": "train", "step": row["step"], **own}))
        return "".join(f"{line}\n" for line in lines)

    def _row(self, step: int, window: list[dict[str, jax.Array]]) -> dict[str, Any]:
        """Numbers of the steps since the last row: means over members, and every member's own."""
        rows = jax.device_get(window)
        rows = [jax.tree.map(lambda value: value[: len(self.members)], row) for row in rows]  # without padding
        finite = np.array([row["finite"] for row in rows])
        if not finite.all():
            steps_before, member = np.argwhere(~finite)[0]
            raise TrainingDivergedError(
                f"{self.members[member].slug}, step {step - len(rows) + 1 + steps_before}: loss or gradient is not "
                "finite; nothing was learned from it. Lower the learning rate, or clip gradients, for the whole sweep"
            )
        mpjpe = sum(row["mpjpe_sum"] for row in rows) / np.maximum(1, sum(row["mpjpe_count"] for row in rows))
        means = {name: np.mean([row[name] for row in rows], 0) for name in _MEANS}
        last = {name: rows[-1][name] for name in ("alpha", "beta") if name in rows[-1]}
        each = {"mpjpe_mm": mpjpe, **means, **last}
        told = {name: np.round(values.astype(float), 5).tolist() for name, values in each.items()}
        return {"loss": float(means["loss"].mean()), "mpjpe_mm": float(mpjpe.mean()), "members": told}


def _on_host(states: TrainState, places: slice | np.ndarray) -> TrainState:
    """Members of stacked states, once all their arrays are there; copies, as a step takes the memory of its states."""
    bare = jax.device_get(states.replace(rng=jax.random.key_data(states.rng)))
    chosen = jax.tree.map(lambda leaf: np.array(leaf[places]), bare)
    return chosen.replace(rng=jax.random.wrap_key_data(chosen.rng))


class _Timer:
    """Adds up the seconds of training over all goes, as they are saved, and says on which machine."""

    def __init__(self, path: pathlib.Path):
        self._path, self._clock = path, time.perf_counter()

    def lap(self) -> None:
        found = read_json(self._path) if self._path.exists() else {}
        before = found.get("seconds", 0.0) if isinstance(found, dict) else None
        if not isinstance(before, int | float):
            raise UserError(f"{self._path} does not tell seconds; delete it, and they are counted from here on")
        now = time.perf_counter()
        write_json(self._path, {"seconds": before + now - self._clock, "machine": machine_words()})
        self._clock = now


def forecast(runs: Sequence[SweepGroup]) -> str:
    """How long a sweep's training will take, measured on steps of every group."""
    lines, whole = [], 0.0
    for run in tqdm(runs, desc="compiling and timing", unit="group", leave=False, disable=not sys.stderr.isatty()):
        left, each = run.steps_left(), run.seconds_per_step()
        whole += left * each
        lines.append(f"  {run.label}: {left} steps of {each:.3f} s, {tqdm.format_interval(left * each)}")
    return "\n".join([*lines, f"training will take about {tqdm.format_interval(whole)}; then each member is scored"])
