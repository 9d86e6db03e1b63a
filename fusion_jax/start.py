"""What a run needs before its next step: its data, its state, and where in the data it stands; or why it cannot go on.

Nothing is written here but what a run says of itself once it can begin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from data_pipelines.bad_examples import BadExamples, Policy
from data_pipelines.loader import Batches, pose_statistics, train_iterator
from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.batch import batch_extras
from fusion_jax.checkpoint import MAX_TIMEOUT_S, Checkpoints
from fusion_jax.checkpoint_place import check_shared, check_writable, checkpoint_folder, is_bucket, remember
from fusion_jax.config import Config
from fusion_jax.datasets import check_trainable, mixture_name, open_mixture
from fusion_jax.distributed import check_agreed, writes
from fusion_jax.errors import CheckpointError, UserError, check_field
from fusion_jax.fusion import LiveLayers
from fusion_jax.heatmap_cache import with_cache
from fusion_jax.heatmap_net import OpenNet, check_net_fits, place_heatmap_net, reopen_heatmap_net
from fusion_jax.init_from import adopt_live, init_from
from fusion_jax.leakage import Seen, check_splits, check_test, unknown_overlap
from fusion_jax.progress import logged_steps
from fusion_jax.records import to_json
from fusion_jax.scoring import loaded_size
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, create_state, state_shapes
from fusion_jax.window import OnNonfinite
from fusion_jax.work_folder import (
    DatasetRecord,
    OwnRecord,
    check_run,
    has_run,
    has_seen,
    load_run,
    load_seen,
    save_run,
    save_seen,
)


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """What a run reports and saves, and when; on good data none of it changes the trained network."""

    log_every: int = 25
    """Steps between two rows of numbers."""
    eval_every: int = 500
    """Steps between two evaluations on people held out of training; 0 for none."""
    eval_frames: int = 1000
    """At most this many frames in such an evaluation."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the last step is always saved, and every one that is best on people held out."""
    keep: int = 3
    """So many newest checkpoints stay, and the best."""
    checkpoint_dir: str | None = None
    """Where checkpoints are, a folder or gs://BUCKET/FOLDER; none: where the work folder remembers, or its own."""
    save_timeout_s: float = 1200.0
    """A checkpoint that is not written after this time counts as hung, and ends the run."""
    on_nonfinite: OnNonfinite = "stop"
    """What to do about a step whose loss or gradient is not finite, from which nothing is learned: stop, or skip it."""
    stop_after: int | None = None
    """Save and stop once this many steps are done in all, to be resumed later by the same command."""
    workers: int = 0
    """Processes that prepare batches; 0 for threads of this one."""
    bad_examples: Policy = "stop"
    """What to do about a training example that cannot be used: stop, or train on another one in its place."""
    profile: int = 0
    """Trace this many steps, once warm, into the work folder's `profile`; 0 for none."""
    show: bool = True
    """Progress on the terminal."""
    shard_params: bool = False
    """Split large parameters and Adam's moments over all devices; if not, every device has all of them."""

    def __post_init__(self):
        for name in ("log_every", "checkpoint_every", "eval_frames", "keep"):
            check_field(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("eval_every", "workers", "profile"):
            check_field(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        in_time = 0 < self.save_timeout_s <= MAX_TIMEOUT_S
        check_field(in_time, "save_timeout_s", self.save_timeout_s, f"> 0 and at most {MAX_TIMEOUT_S} s")
        policies = ("stop", "skip")
        check_field(self.on_nonfinite in policies, "on_nonfinite", self.on_nonfinite, " or ".join(policies))
        check_field(self.bad_examples in ("stop", "skip"), "bad_examples", self.bad_examples, "stop or skip")
        check_field(self.stop_after is None or self.stop_after >= 1, "stop_after", self.stop_after, ">= 1")


class Ready(NamedTuple):
    """A run that can take its next step.

    Attributes:
      config: with what was found out since it was given: the data's full name, digests, layers that are left.
      mesh: where the state lies.
      datasets: what it trains on, with their weights; the first is validated on.
      record: which they are.
      seen: whom the weights have seen, or will have.
      state: before the next step.
      next_batch: its batch's number.
      live: the layers that it reads, of a run that skips dead ones and has begun.
      nonfinite: steps that were skipped as not finite so far, and how many of them were the last ones.
      resuming: whether the work folder holds the run already; a lost one does not.
      checkpoints: of the run.
    """

    config: Config
    mesh: jax.sharding.Mesh
    datasets: list[tuple[PoseDataset, float]]
    record: DatasetRecord
    seen: list[Seen]
    state: TrainState
    next_batch: int
    live: LiveLayers | None
    nonfinite: tuple[int, int]
    resuming: bool
    checkpoints: Checkpoints

    @property
    def dataset(self) -> PoseDataset:
        """The first dataset."""
        return self.datasets[0][0]

    def claim(self, workdir: pathlib.Path) -> None:
        """Makes the folder this run's, which is about to write there; one that could not begin leaves it as it was."""
        folder, elsewhere = self.checkpoints.folder, self.checkpoints.elsewhere is not None
        if elsewhere and writes():
            check_writable(folder)
        self.checkpoints.tidy()
        if writes() and checkpoint_folder(workdir) != folder:
            remember(workdir, folder)
        if not elsewhere and writes():
            with contextlib.suppress(OSError):  # the first save says it; where there is no folder, one was taken away
                folder.mkdir(parents=True, exist_ok=True)
        if not self.resuming and writes():
            save_run(workdir, self.config, self.record, self.seen)


@contextlib.contextmanager
def ready(
    config: Config,
    data_dir: pathlib.Path,
    workdir: pathlib.Path,
    options: LoopOptions,
    at_most: int | None = None,
) -> Iterator[Ready]:
    """A run at its newest sound checkpoint, or before its first step where it has none.

    Args:
      config: of the run, as it was given.
      data_dir: of the prepared data.
      workdir: of the run.
      options: of its loop.
      at_most: the newest checkpoint of at most this step, to look at what came next.

    Raises:
      UserError: bad data, or a work folder of another run.
      CheckpointError: when the block ends, if a checkpoint could not be written.
    """
    mesh = sharding.data_mesh()
    datasets, record = open_training_data(config, data_dir)
    dataset = datasets[0][0]
    start_from = None if config.init_from is None else str(pathlib.Path(config.init_from).resolve())
    config = dataclasses.replace(config, dataset=record.name, init_from=start_from)
    checkpoints = Checkpoints(workdir, config, options.keep, options.save_timeout_s, options.checkpoint_dir)
    try:
        check_agreed({"checkpoints are in": checkpoints.elsewhere})
        check_shared(workdir, checkpoints.folder)
        newest = checkpoints.latest_step
        lost = None if newest is None or has_run(workdir) else checkpoints.record_of(newest)
        config = adopt_live(config, workdir, *([lost.config] if lost else []))
        step = newest if at_most is None else checkpoints.newest(at_most)
        resumed = None
        known = lost.seen if lost and step is not None else _seen_before(workdir, checkpoints, step)
        if known is not None:  # else whom the 2D network saw is asked of its own run
            resumed = lost.config if lost else load_run(workdir)[0]
        config, net = _with_heatmap_net(config, mesh, resumed)
        checkpoints.config = config
        begun = {"dataset": record.fingerprint, "newest checkpoint": newest}
        told = dataclasses.asdict(dataclasses.replace(options, show=True))
        check_agreed({"config": to_json(config), **begun, **told})  # now all have looked at the folder: one may write
        if newest is None:
            checkpoints.require_sound()
            if at_most is None and writes():
                _refuse_lost_checkpoints(workdir, checkpoints, options)
        else:
            check_run(workdir, config, record, (lost, str(checkpoints.folder / str(newest))) if lost else None)
        seen = [Seen.of(opened, config.train_split.split("+")) for opened, _ in datasets]
        seen += [part for part in (net.seen if net else []) if part not in seen]
        if step is not None:
            state, next_batch = checkpoints.restore(state_shapes(config), mesh, options.shard_params, step)
            live, nonfinite = checkpoints.live_layers(step), checkpoints.nonfinite(step)
            seen = _seen_of_resumed(workdir, config, known, seen, bool(lost))
        else:
            whole = net is not None or start_from is not None  # to take other weights over
            state = initial_state(config, dataset, mesh, options.shard_params and not whole)
            next_batch, live, nonfinite = 0, None, (0, 0)
            if net is not None and config.heatmaps.in_step:
                state = place_heatmap_net(state, net)
            if start_from is not None:
                state, before = init_from(state, config, pathlib.Path(start_from), mesh, options.show)
                seen += before
            if whole:
                state = jax.device_put(state, sharding.state_shardings(mesh, state, options.shard_params))
        _refuse_leakage(config, dataset, seen, options.show)
        if net is not None and not config.heatmaps.in_step:  # only now: predicting a whole dataset may take hours
            splits = {*config.train_split.split("+"), "validation"}
            datasets = [(with_cache(d, data_dir, net, splits, mesh, options.show), weight) for d, weight in datasets]
        checkpoints.own_record = OwnRecord(config, record, seen)
        resuming = newest is not None and lost is None
        yield Ready(config, mesh, datasets, record, seen, state, next_batch, live, nonfinite, resuming, checkpoints)
    except BaseException:
        try:
            checkpoints.close()
        except CheckpointError as error:  # what ended the run before matters more
            print(f"warning: {error}", file=sys.stderr)
        raise
    checkpoints.close()


def _refuse_lost_checkpoints(workdir: pathlib.Path, checkpoints: Checkpoints, options: LoopOptions) -> None:
    """Raises UserError where a run has no checkpoint, though it had: beginning anew would wipe out its log.

    A run that was killed before its first has a folder for them, and its log shows none: that one may begin anew.
    """
    logged = logged_steps(workdir) if has_run(workdir) else {}
    last = max(logged.values(), default=0)
    folder = checkpoints.folder
    taken = not is_bucket(folder) and not folder.is_dir()  # a bucket has no empty folders
    # The first that is scored is the best, and waited for; a save begins once the one before it is done.
    saved = logged.get("validation", last) < last or last > 2 * options.checkpoint_every
    if last >= 1 and (taken or saved):
        raise UserError(
            f"the run in {workdir} got to step {last}, as its metrics.jsonl tells, but there is no checkpoint in "
            f"{folder}; mount or bring back what was there, or say by --checkpoint-dir where it is now, or give "
            "another --workdir to begin anew; if none was ever saved, remove metrics.jsonl"
        )


def _refuse_leakage(config: Config, dataset: PoseDataset, seen: list[Seen], show: bool) -> None:
    """Raises UserError where people or frames that are held out are trained on; warns where that is not known."""
    kept_out = [s for s in ("validation", "test") if s in dataset.splits and s not in config.train_split.split("+")]
    for split in kept_out:
        check_test(seen, dataset, split)
    for doubt in dict.fromkeys(unknown_overlap(seen, dataset, split) for split in kept_out):
        if doubt and show:
            print(f"warning: {doubt}")


def open_training_data(config: Config, data_dir: pathlib.Path) -> tuple[list[tuple[PoseDataset, float]], DatasetRecord]:
    """(a run's datasets with their weights, which they are). Raises UserError where they cannot train this network."""
    mixture = open_mixture(config.dataset, data_dir, loaded_size(config), config.drawn_by)
    datasets = [(dataset.with_extras(batch_extras(config)), weight) for dataset, weight in mixture]
    opened = [dataset for dataset, _ in datasets]
    check_splits(opened)
    pose = config.task == "pose"
    joints2d = not pose or config.heatmaps.source == "noisy"
    layout = skeleton(config.inputs.skeleton)
    check_trainable(opened, layout, config.train_split, poses=pose, joints2d=joints2d)
    prints = "+".join(dataset.fingerprint for dataset in opened)
    return datasets, DatasetRecord(mixture_name(datasets), str(pathlib.Path(data_dir).absolute()), prints)


def _with_heatmap_net(config: Config, mesh: jax.sharding.Mesh, resumed: Config | None) -> tuple[Config, OpenNet | None]:
    """The config with the digest of its 2D network's weights, and that network, where one predicts the heatmaps.

    A resumed run with the network in its step (`resumed` is its config) has those weights in its own checkpoints: they
    are not looked for again, whatever became of the run they came from.
    """
    if config.heatmaps.source != "predicted":
        return config, None
    if config.heatmaps.net is None:
        raise UserError("heatmaps 'predicted' need the 2D network that predicts them: --heatmap-workdir RUN")
    if resumed is not None and config.heatmaps.in_step and resumed.heatmaps.net is not None:
        weights = config.heatmaps.net.weights or resumed.heatmaps.net.weights
        net = dataclasses.replace(config.heatmaps.net, weights=weights)
        return dataclasses.replace(config, heatmaps=dataclasses.replace(config.heatmaps, net=net)), None
    opened = reopen_heatmap_net(config.heatmaps.net, mesh)
    config = dataclasses.replace(config, heatmaps=dataclasses.replace(config.heatmaps, net=opened.net))
    check_net_fits(config, opened)
    return config, opened


def _seen_before(workdir: pathlib.Path, checkpoints: Checkpoints, step: int | None) -> list[Seen] | None:
    """Whom a run that is resumed was trained on, as its work folder or its checkpoint says; None where neither does.

    Raises:
      UserError: a record is broken.
    """
    if step is None:
        return None
    if has_seen(workdir):
        return load_seen(workdir)
    return checkpoints.record_of(step).seen if checkpoints.has_record(step) else None


def _seen_of_resumed(
    workdir: pathlib.Path, config: Config, known: list[Seen] | None, seen: list[Seen], lost: bool
) -> list[Seen]:
    """What a run that is resumed says it was trained on: what is `known`, else `seen`; written down where it is not.

    Raises:
      UserError: nothing is known, and it started from another run, of which `seen` says nothing.
    """
    if known is None and config.init_from is not None:
        raise UserError(
            f"{workdir / 'trained_on.json'} is missing and cannot be written again: whom {config.init_from} had been "
            "trained on when this run started from it is not known; start this run anew in another --workdir"
        )
    seen = seen if known is None else known
    if not lost and writes() and not has_seen(workdir):  # a lost work folder is written whole when the run begins
        save_seen(workdir, seen)
    return seen


def initial_state(
    config: Config, dataset: PoseDataset, mesh: jax.sharding.Mesh, shard_params: bool = False
) -> TrainState:
    """The state before the first step, made on the mesh, a pose's output scaled by the dataset's training poses.

    With `shard_params` each device draws its own part: the whole need not fit on one.
    """
    learns_poses = config.task == "pose"
    mean, std = pose_statistics(dataset, skeleton(config.inputs.skeleton)) if learns_poses else (None, None)
    # Optimising a program that draws numbers once takes longer than it saves; the numbers are the same.
    quick = {"xla_backend_optimization_level": 1} if mesh.devices.flat[0].platform == "cpu" else None
    places = sharding.state_shardings(mesh, state_shapes(config), True) if shard_params else sharding.replicated(mesh)
    create = jax.jit(create_state, static_argnums=0, out_shardings=places, compiler_options=quick)
    return create(config, jax.random.key(config.seed), mean, std)


def training_data(
    config: Config,
    datasets: Sequence[tuple[PoseDataset, float]],
    start: int = 0,
    workers: int = 0,
    bad_examples: BadExamples | None = None,
) -> Batches:
    """This process's share of the endless training batches, from batch `start` on."""
    return train_iterator(
        datasets,
        target=skeleton(config.inputs.skeleton),
        image_size=loaded_size(config),
        augment=config.augment,
        batch_size=config.batch_size,
        seed=config.drawn_by,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=workers,
        start=start,
        split=config.train_split,
        bad_examples=bad_examples,
    )
