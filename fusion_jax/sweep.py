"""A sweep over strategies: all runs of one shape trained together, each scored on people training has not seen.

OUT/sweep.json          the members' configs and the data; another plan in the same folder is refused
OUT/groups/N            the runs of one shape while they train: metrics.jsonl, checkpoints of all at once
OUT/members/NAME.json   a finished member's scores and costs
OUT/runs/NAME           the first seed of each kind as a run of its own: evaluate, predict, prune and report take it
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.loader import pose_statistics
from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.batch import fake_batch
from fusion_jax.checkpoint import Checkpoints, DatasetRecord, save_run
from fusion_jax.config import Config
from fusion_jax.cost import gflops, images_per_s, parameters
from fusion_jax.errors import TrainingDivergedError, TrainingInterruptedError, UserError, check_field
from fusion_jax.fusion import LiveLayers
from fusion_jax.interrupt import stop_requests
from fusion_jax.leakage import Seen, check_test
from fusion_jax.progress import Progress
from fusion_jax.prune import alive, mixing_weights
from fusion_jax.records import differences, read_json, to_json, write_json
from fusion_jax.scoring import place_batch, score_split
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, create_state
from fusion_jax.stream_correlation import correlate_streams
from fusion_jax.stream_usage import Frames, choose_rows
from fusion_jax.sweep_plan import LEARNED, Member, groups
from fusion_jax.sweep_steps import jit_member_step, member_mesh, member_sharding, member_states, padded
from fusion_jax.switched import lone_state
from fusion_jax.tables import summarise
from fusion_jax.train import open_training_data, training_data

EPS = 1e-3
"""Weights so near to 0 or 1 count as 0 or 1 when a member's live layers are counted."""
SPEED_BATCH = 32
"""Pictures at a time where a member's speed is measured."""
R2_FRAMES = 128
"""Pictures over which channels are correlated, as in the paper."""
_Data = list[tuple[PoseDataset, float]]


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


def run_sweep(
    members: Sequence[Member], data_dir: pathlib.Path, out: pathlib.Path, options: SweepOptions | None = None
) -> list[dict[str, Any]]:
    """Trains and scores what is not done yet; returns the members' results in the order of `members`.

    A result holds label, seed, mpjpe_mm, pa_mpjpe_mm, alpha, beta, weights (L,), and of the network cut down to its
    live layers parameters, gflops (forward, one picture) and images_per_s; see `score_member`.

    Raises:
      UserError: bad data, or a folder of another sweep.
      TrainingDivergedError: at the first step that is not finite for some member, naming it.
      TrainingInterruptedError: after SIGINT or SIGTERM, once a checkpoint is written.
    """
    options = options or SweepOptions()
    datasets, record = open_training_data(members[0].config, data_dir)
    members = [Member(m.label, dataclasses.replace(m.config, dataset=record.name)) for m in members]
    seen = [Seen.of(dataset, members[0].config.train_split.split("+")) for dataset, _ in datasets]
    dataset = datasets[0][0]
    dataset.split(options.split)  # a split that is not there is named before hours of training
    check_test(seen, dataset, options.split)
    _check_plan(out, members, record, options)
    todo = [(n, group) for n, group in enumerate(groups(members)) if not all(_done(out, m) for m in group)]
    runs = [_Group(out / "groups" / str(n), group, datasets, options) for n, group in todo]
    if options.show and runs:
        print(_forecast(runs), flush=True)
    for run in runs:
        trained = run.train()
        _score_group(run, trained, dataset, record, seen, out, options)
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # hundreds of networks; the results are written
    results = [read_json(out / "members" / f"{m.slug}.json") for m in members]
    return _with_speeds(members, results, out / "speeds.json")


def _check_plan(out: pathlib.Path, members: Sequence[Member], record: DatasetRecord, options: SweepOptions) -> None:
    """Writes the plan of a new sweep, or compares with that of the old one. Raises UserError where they differ."""
    path = out / "sweep.json"
    plan = {
        "split": options.split,
        "dataset": {"name": record.name, "fingerprint": record.fingerprint},
        "members": {member.slug: {"label": member.label, "config": to_json(member.config)} for member in members},
    }
    if len(plan["members"]) != len(members):
        raise UserError("two members of the sweep have the same name; give each strategy, lambda and beta once")
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is in use and holds no sweep; give another --out")
        write_json(path, plan)
        return
    lines = differences(read_json(path), plan)
    if lines:
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"{out} holds another sweep: {'; '.join(line[:200] for line in lines[:3])}{more} (old -> new). Give the "
            "same settings to resume it, or another --out"
        )


def _done(out: pathlib.Path, member: Member) -> bool:
    return (out / "members" / f"{member.slug}.json").exists()


class _Group:
    """The members of one shape: their states, their step, and where they stand."""

    def __init__(self, folder: pathlib.Path, members: list[Member], datasets: _Data, options: SweepOptions):
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
        with contextlib.closing(Checkpoints(self.folder, self.config, keep=1)) as checkpoints:
            return self.config.steps - (checkpoints.latest_step or 0)

    def train(self) -> TrainState:
        """The members' states after the last step, stacked along their first axis."""
        config, options = self.config, self._options
        with contextlib.closing(Checkpoints(self.folder, config, keep=1)) as checkpoints:
            (states, lambdas), start = self._states(), 0
            if checkpoints.latest_step is not None:
                states, start = checkpoints.restore(states, self._mesh)
                states = jax.device_put(states, member_sharding(self._mesh))
            with (
                contextlib.closing(training_data(config, self._datasets, start)) as data,
                Progress(self.folder, start=start, total=config.steps, label=self.label, show=options.show) as progress,
                stop_requests() as stop_requested,
            ):
                window: list[dict[str, jax.Array]] = []
                for step in range(start + 1, config.steps + 1):
                    states, measured = self._step(states, lambdas, self._place(next(data)))
                    window.append(measured)
                    progress.step()
                    stop = stop_requested()
                    last = step == config.steps or stop is not None
                    if last or step % options.log_every == 0 or step % options.checkpoint_every == 0:
                        progress.row("train", step, self._row(step, window))
                        window = []
                    if last or step % options.checkpoint_every == 0:
                        checkpoints.save(step, states, step)
                    if stop is not None:
                        checkpoints.wait()
                        raise TrainingInterruptedError(
                            f"stopped by signal {stop} and saved at step {step} of {config.steps} of {self.label}; the "
                            "same command resumes there"
                        )
                checkpoints.wait()
        return states

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
        each = {"mpjpe_mm": mpjpe, **{name: rows[-1][name] for name in ("alpha", "beta") if name in rows[-1]}}
        told = {name: np.round(values.astype(float), 5).tolist() for name, values in each.items()}
        loss = float(np.mean([row["loss"] for row in rows]))
        return {"loss": loss, "mpjpe_mm": float(mpjpe.mean()), "members": told}


def _forecast(runs: Sequence[_Group]) -> str:
    """How long a sweep's training will take, measured on steps of every group."""
    lines, whole = [], 0.0
    for run in tqdm(runs, desc="compiling and timing", unit="group", leave=False, disable=not sys.stderr.isatty()):
        left, each = run.steps_left(), run.seconds_per_step()
        whole += left * each
        lines.append(f"  {run.label}: {left} steps of {each:.3f} s, {tqdm.format_interval(left * each)}")
    return "\n".join([*lines, f"training will take about {tqdm.format_interval(whole)}; then each member is scored"])


def _score_group(
    run: _Group,
    trained: TrainState,
    dataset: PoseDataset,
    record: DatasetRecord,
    seen: list[Seen],
    out: pathlib.Path,
    options: SweepOptions,
) -> None:
    """Writes the result of every member of a group, and its first seeds as runs of their own."""
    mesh = sharding.data_mesh()
    hidden = not (options.show and sys.stderr.isatty())
    members = tqdm(run.members, desc="scoring", unit="run", leave=False, disable=hidden)
    for place, member in enumerate(members):
        if _done(out, member):
            continue
        stacked = jax.tree.map(lambda leaf, place=place: leaf[place], trained)
        state = jax.device_put(lone_state(member.config, stacked), sharding.replicated(mesh))
        result = score_member(member.config, state, dataset, options.split, mesh)
        if member.label == LEARNED:
            result["r_squared"] = _r_squared(member.config, state, dataset, options.split, mesh)
        if member.config.seed == 0:
            _write_run(out / "runs" / member.slug, member.config, state, record, seen)
        write_json(out / "members" / f"{member.slug}.json", {"label": member.label, **result})


def score_member(
    config: Config, state: TrainState, dataset: PoseDataset, split: str, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """A trained run's errors on every frame of a split, and what the network costs once dead layers are cut out.

    Args:
      config: of the run.
      state: of the run, on the mesh.
      dataset, split: on whom.
      mesh: for the scoring.
    """
    frames = score_split(config, state, dataset, split, mesh, batch_size=64)
    scores = summarise(frames)
    cut, _ = alive(config, state.params, EPS)
    learned = config.fusion.strategy == "learned"
    return {
        "seed": config.seed,
        "strategy": config.fusion.strategy,
        "split": split,
        "num_frames": len(frames["index"]),
        "mpjpe_mm": scores["mpjpe_mm"],
        "pa_mpjpe_mm": scores["pa_mpjpe_mm"],
        "alpha": float(state.params["alpha"]) if learned else None,
        "beta": float(state.params["beta"]) if learned else config.fusion.beta,
        "weights": [float(w) for w in mixing_weights(config, state.params)],
        "whole": {"parameters": parameters(config), "gflops": gflops(config)},
        "alive": {"eps": EPS, "parameters": parameters(cut), "gflops": gflops(cut)},
        "live": None if cut.fusion.live is None else dataclasses.asdict(cut.fusion.live),
    }


def _r_squared(
    config: Config, state: TrainState, dataset: PoseDataset, split: str, mesh: jax.sharding.Mesh
) -> dict[str, float] | None:
    """Mean R^2 of channel pairs `across` and `within` the data streams at the last convolution; None if it has none."""
    rows = choose_rows(len(dataset.split(split)), R2_FRAMES)
    found, _ = correlate_streams(Frames(config, state, dataset, split, rows, mesh, batch_size=64))
    if found is None:
        return None
    means = np.array(found.found.means, float)  # None, where a pair has no channels, becomes NaN
    within, across = np.diagonal(means), means[~np.eye(len(means), dtype=bool)]
    if not np.isfinite(means).all():
        return None
    return {"within": float(within.mean()), "across": float(across.mean())}


def _with_speeds(members: Sequence[Member], results: list[dict[str, Any]], path: pathlib.Path) -> list[dict[str, Any]]:
    """The results with images_per_s of their cut-down networks, measured once for all, in turns, on this machine."""
    networks = {}
    for member, result in zip(members, results, strict=True):
        live = None if result["live"] is None else LiveLayers(**result["live"])
        network = dataclasses.replace(member.config.fusion, live=live, beta=_hard_beta(member.config))
        result["speed_of"] = hashlib.sha256(json.dumps(to_json(network), sort_keys=True).encode()).hexdigest()[:12]
        networks[result["speed_of"]] = dataclasses.replace(member.config, network=network)
    known = read_json(path) if path.exists() else None
    if known is None or known["images_per_s"].keys() != networks.keys():
        shapes = [jax.eval_shape(functools.partial(create_state, c), jax.random.key(0)) for c in networks.values()]
        empty = [jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (s.params, s.constants)) for s in shapes]
        runs = [(config, *arrays) for config, arrays in zip(networks.values(), empty, strict=True)]
        speeds = images_per_s(runs, SPEED_BATCH)
        known = {"batch_size": SPEED_BATCH, "images_per_s": dict(zip(networks, speeds, strict=True))}
        write_json(path, known)
    speeds, size = known["images_per_s"], known["batch_size"]
    return [r | {"images_per_s": speeds[r["speed_of"]], "speed_batch": size} for r in results]


def _hard_beta(config: Config) -> float | None:
    """Of `fixed` the layer; else nothing, since where beta starts is nothing to speed."""
    return config.fusion.beta if config.fusion.strategy == "fixed" else None


def _write_run(
    folder: pathlib.Path, config: Config, state: TrainState, record: DatasetRecord, seen: list[Seen]
) -> None:
    """A member as a finished run of its own."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_run(partial, config, record, seen)
    with contextlib.closing(Checkpoints(partial, config)) as checkpoints:
        checkpoints.save(config.steps, state, config.steps)
        checkpoints.wait()
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
