"""A sweep over strategies: all runs of one shape trained together, each scored on people training has not seen.

OUT/sweep.json          the members' configs and the data; another plan in the same folder is refused
OUT/groups/N            the runs of one shape while they train: metrics.jsonl, checkpoints of all at once
OUT/members/NAME.json   a finished member's scores and costs
OUT/runs/NAME           the first seed of each kind as a run of its own: evaluate, predict, prune and report take it
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.checkpoint import save_once
from fusion_jax.config import Config
from fusion_jax.cost import gflops, images_per_s, parameters
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen, check_test
from fusion_jax.prune import alive, mixing_weights
from fusion_jax.records import differences, read_json, to_json, write_json, write_text
from fusion_jax.scoring import score_split
from fusion_jax.start import open_training_data
from fusion_jax.state import TrainState, create_state
from fusion_jax.stream_correlation import correlate_streams
from fusion_jax.stream_usage import Frames, choose_rows
from fusion_jax.sweep_group import Mixture, SweepGroup, SweepOptions, forecast
from fusion_jax.sweep_plan import LEARNED, Member, groups
from fusion_jax.sweep_result import MemberResult, NetworkCost, RSquared, read_result, write_result
from fusion_jax.switched import lone_state
from fusion_jax.tables import summarise
from fusion_jax.work_folder import DatasetRecord, save_run, whole_folder
from fusion_jax.workdir_lock import workdir_lock

EPS = 1e-3
"""Weights so near to 0 or 1 count as 0 or 1 when a member's live layers are counted."""
SPEED_BATCH = 32
"""Pictures at a time where a member's speed is measured."""
R2_FRAMES = 128
"""Pictures over which channels are correlated, as in the paper."""


def run_sweep(
    members: Sequence[Member], data_dir: pathlib.Path, out: pathlib.Path, options: SweepOptions | None = None
) -> list[dict[str, Any]]:
    """Trains and scores what is not done yet; returns the members' results in the order of `members`.

    A result is the fields of a MemberResult, and images_per_s of the network cut down to its live layers, forward, at
    batch `speed_batch`.

    Raises:
      UserError: bad data, a folder of another sweep, or one in which another process is at it.
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
    with workdir_lock(out, "--out"):
        return _locked_sweep(members, datasets, record, seen, out, options)


def _locked_sweep(
    members: Sequence[Member],
    datasets: Mixture,
    record: DatasetRecord,
    seen: list[Seen],
    out: pathlib.Path,
    options: SweepOptions,
) -> list[dict[str, Any]]:
    """`run_sweep`, for the only process that has its folder."""
    dataset = datasets[0][0]
    _check_plan(out, members, record, options)
    todo = [(n, group) for n, group in enumerate(groups(members)) if not all(_done(out, m) for m in group)]
    runs = [SweepGroup(out / "groups" / str(n), group, datasets, options) for n, group in todo]
    if options.show and runs:
        print(forecast(runs), flush=True)
    for run in runs:
        trained = run.train()
        _score_group(run, trained, dataset, record, seen, out, options)
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # hundreds of networks; the results are written
    results = [read_result(out / "members" / f"{m.slug}.json") for m in members]
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
        if out.exists() and {entry.name for entry in out.iterdir()} - {f".{path.name}.partial", ".lock"}:
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


def _score_group(
    run: SweepGroup,
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
        result = score_member(member, state, dataset, options.split, mesh)
        if member.config.seed == 0:
            _write_run(out / "runs" / member.slug, member.config, state, record, seen, run.member_log(place))
        write_result(out / "members" / f"{member.slug}.json", result)


def score_member(
    member: Member, state: TrainState, dataset: PoseDataset, split: str, mesh: jax.sharding.Mesh
) -> MemberResult:
    """A trained run's errors on every frame of a split, and what the network costs once dead layers are cut out.

    Args:
      member: the run.
      state: of the run, on the mesh.
      dataset, split: on whom.
      mesh: for the scoring.

    Raises:
      UserError: nothing of the split is known in 3D.
    """
    config = member.config
    frames = score_split(config, state, dataset, split, mesh, batch_size=64)
    scores = summarise(frames)
    mpjpe_mm, pa_mpjpe_mm = scores["mpjpe_mm"], scores["pa_mpjpe_mm"]
    if mpjpe_mm is None or pa_mpjpe_mm is None:
        raise UserError(f"{dataset.name} has no 3D joints in {split}; score the sweep on another --split")
    cut, _ = alive(config, state.params, EPS)
    learned = config.fusion.strategy == "learned"
    return MemberResult(
        label=member.label,
        seed=config.seed,
        strategy=config.fusion.strategy,
        split=split,
        num_frames=len(frames["index"]),
        mpjpe_mm=mpjpe_mm,
        pa_mpjpe_mm=pa_mpjpe_mm,
        alpha=float(state.params["alpha"]) if learned else None,
        beta=float(state.params["beta"]) if learned else config.fusion.beta,
        weights=tuple(float(w) for w in mixing_weights(config, state.params)),
        whole=NetworkCost(parameters(config), gflops(config)),
        alive=NetworkCost(parameters(cut), gflops(cut)),
        eps=EPS,
        live=cut.fusion.live,
        r_squared=_r_squared(config, state, dataset, split, mesh) if member.label == LEARNED else None,
    )


def _r_squared(
    config: Config, state: TrainState, dataset: PoseDataset, split: str, mesh: jax.sharding.Mesh
) -> RSquared | None:
    """Of the data streams at their last convolution, over some pictures; None where there is none to compare."""
    rows = choose_rows(len(dataset.split(split)), R2_FRAMES)
    found, _ = correlate_streams(Frames(config, state, dataset, split, rows, mesh, batch_size=64))
    if found is None:
        return None
    means = np.array(found.found.means, float)  # None, where a pair has no channels, becomes NaN
    within, across = np.diagonal(means), means[~np.eye(len(means), dtype=bool)]
    if not np.isfinite(means).all():
        return None
    return RSquared(within=float(within.mean()), across=float(across.mean()))


def _with_speeds(
    members: Sequence[Member], results: Sequence[MemberResult], path: pathlib.Path
) -> list[dict[str, Any]]:
    """The results with images_per_s of their cut-down networks, measured once for all, in turns, on this machine."""
    networks, names = {}, []
    for member, result in zip(members, results, strict=True):
        network = dataclasses.replace(member.config.fusion, live=result.live, beta=_hard_beta(member.config))
        names.append(hashlib.sha256(json.dumps(to_json(network), sort_keys=True).encode()).hexdigest()[:12])
        networks[names[-1]] = dataclasses.replace(member.config, network=network)
    known = _known_speeds(path)
    if known.keys() != networks.keys():
        shapes = [jax.eval_shape(functools.partial(create_state, c), jax.random.key(0)) for c in networks.values()]
        empty = [jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (s.params, s.constants)) for s in shapes]
        runs = [(config, *arrays) for config, arrays in zip(networks.values(), empty, strict=True)]
        known = dict(zip(networks, images_per_s(runs, SPEED_BATCH), strict=True))
        write_json(path, known)
    return [
        {**dataclasses.asdict(result), "images_per_s": known[name], "speed_batch": SPEED_BATCH}
        for name, result in zip(names, results, strict=True)
    ]


def _known_speeds(path: pathlib.Path) -> dict[str, float]:
    """What was measured before; nothing where that cannot be read, as it is soon measured again."""
    try:
        found = read_json(path)
    except UserError:
        return {}
    return found if isinstance(found, dict) and all(type(speed) is float for speed in found.values()) else {}


def _hard_beta(config: Config) -> float | None:
    """Of `fixed` the layer; else nothing, since where beta starts is nothing to speed."""
    return config.fusion.beta if config.fusion.strategy == "fixed" else None


def _write_run(
    folder: pathlib.Path, config: Config, state: TrainState, record: DatasetRecord, seen: list[Seen], log: str
) -> None:
    """A member as a finished run of its own, with its log."""
    shutil.rmtree(folder, ignore_errors=True)  # of a go that was stopped before the member counted as scored
    with whole_folder(folder) as partial:
        save_run(partial, config, record, seen)
        write_text(partial / "metrics.jsonl", log)
        save_once(partial, config, config.steps, state)
