"""The training loop, and nothing else: what a step computes is in steps.py, what comes before the first in start.py."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time

import jax

from data_pipelines.bad_examples import BadExamples
from data_pipelines.loader import Batches
from fusion_jax import sharding
from fusion_jax.checkpoint_place import check_workdir
from fusion_jax.config import Config
from fusion_jax.distributed import gather_rows, writes
from fusion_jax.errors import TrainingInterruptedError, UserError
from fusion_jax.fusion_watch import FusionWatch
from fusion_jax.heatmap_steps import heatmap_eval_step, training_step
from fusion_jax.heatmap_tables import COLUMNS_2D, summarise2d
from fusion_jax.interrupt import stop_requests
from fusion_jax.profiling import Profile
from fusion_jax.progress import Progress
from fusion_jax.scoring import example_labels, loaded_size, place_batch, score_split
from fusion_jax.skeletons import skeleton
from fusion_jax.skip_dead import Skipping
from fusion_jax.start import LoopOptions, Ready, ready, training_data
from fusion_jax.state import TrainState
from fusion_jax.steps import eval_step
from fusion_jax.tables import summarise
from fusion_jax.transfers import any_transfers, explicit_transfers
from fusion_jax.window import Window
from fusion_jax.workdir_lock import workdir_lock


def train(
    config: Config, data_dir: pathlib.Path, workdir: pathlib.Path, options: LoopOptions | None = None
) -> TrainState:
    """Trains, or resumes what `workdir` holds, up to config.steps; returns the final state.

    The same config, data and machine give the same parameters bit for bit, whether or not the run was stopped and
    resumed on the way.

    Raises:
      UserError: bad data, or a work folder of another run.
      TrainingDivergedError: at the first step whose loss or gradient is not finite, or after many in a row.
      CheckpointError: a checkpoint could not be written, twice in a row, or hangs.
      TrainingInterruptedError: after SIGINT or SIGTERM, once a checkpoint is written.
    """
    options = options or LoopOptions()
    check_workdir(workdir)
    options = dataclasses.replace(options, show=options.show and writes())
    with (
        workdir_lock(workdir) if writes() else contextlib.nullcontext(),
        ready(config, data_dir, workdir, options) as run,
    ):
        bad = BadExamples(options.bad_examples, any_transfers(gather_rows))
        with contextlib.closing(training_data(run.config, run.datasets, run.next_batch, options.workers, bad)) as data:
            run.claim(workdir)
            return _loop(run, options, data, bad, workdir)


def _loop(run: Ready, options: LoopOptions, data: Batches, bad: BadExamples, workdir: pathlib.Path) -> TrainState:
    config, mesh, dataset, state, checkpoints = run.config, run.mesh, run.dataset, run.state, run.checkpoints
    step_fn = sharding.jit_train_step(mesh, training_step(config), options.shard_params)
    start, end = int(state.step), config.steps
    validated = "validation" in dataset.splits and "validation" not in config.train_split
    eval_every = options.eval_every if validated else 0
    if options.eval_every and not validated and options.show:
        print("nobody is held out of this training, so there is no validation on the way")
    if options.stop_after is not None:
        end = min(end, max(start, options.stop_after))
    profile = Profile(workdir / "profile", start=start, end=end, steps=options.profile if writes() else 0)
    window = Window(config.batch_size, workdir, options.on_nonfinite, run.nonfinite)
    watch = FusionWatch(config.fusion.alpha_init if config.task == "pose" else 1.0)
    whole, skipping = state.network, Skipping(config, state.network, run.live)  # all but the step itself see it whole
    label = config.preset if config.task == "heatmaps" else f"{config.preset} {config.fusion.strategy}"
    with (
        Progress(workdir, start=start, total=config.steps, label=label, show=options.show) as progress,
        stop_requests(options.log_every) as stop_requested,
        profile,
        explicit_transfers() as of_program,
    ):
        if run.live is None and start < end:
            skipping.decide(state.params, start, progress)
        due = start and eval_every and (start % eval_every == 0 or start == config.steps)
        if due and not checkpoints.is_scored(start):  # a stop at this very step left its validation out
            late = _validate_and_log(run, options, state, start, progress)
            if late is not None:
                checkpoints.add_score(start, late)
            window.restart_clock()
        done, stop = start, None
        try:
            for step in range(start + 1, end + 1):
                profile.before(step)
                waited = time.perf_counter()
                host = next(data)
                bad.tell(progress.event, step)
                # Steps are queued, so this loop runs ahead of the device: time was lost only if the queue is empty.
                waited = time.perf_counter() - waited if state.step.is_ready() else 0.0  # type: ignore[attr-defined]
                with of_program(skipping.network):
                    state, measured = step_fn(state.replace(network=skipping.network), place_batch(host, dataset, mesh))
                state, done = state.replace(network=whole), step
                if (traced := profile.after(step, measured)) and options.show:
                    print(traced)
                window.add(step, host, measured, waited)
                progress.step()
                stop = stop_requested(step)
                last = step == end or stop is not None
                if step % options.log_every == 0 or last:
                    bad.share()
                    bad.tell(progress.event, step)
                    if (row := window.close(progress)) is not None:
                        progress.row("train", step, row | bad.row())
                        for concern in watch.look(row):
                            progress.event("watch", step, {}, concern)
                elif window.full:
                    window.check(progress)
                score = None
                # Not before a stop: whoever asks for one does not wait for long.
                if eval_every and (step % eval_every == 0 or step == config.steps) and stop is None:
                    window.check(progress)
                    score = _validate_and_log(run, options, state, step, progress)
                    window.restart_clock()
                if skipping.due(step) and step < config.steps:
                    skipping.decide(state.params, step, progress)
                failed = checkpoints.poll()
                if failed:
                    progress.event("unsaved", step, {}, f"{failed}; trying again now")
                best = score is not None and checkpoints.is_best(score)
                if step % options.checkpoint_every == 0 or last or best or failed:
                    window.check(progress)  # never save a state whose steps were not looked at
                    save = checkpoints.save_and_wait if last or best else checkpoints.save
                    save(step, state, step, skipping.live, score, window.nonfinite)
                if stop is not None:
                    break
        except UserError as error:  # of data: what was learned until then is not its fault
            if jax.process_count() > 1 or done == start:  # several processes save together or not at all
                raise
            window.check(progress)
            checkpoints.save_and_wait(done, state, done, skipping.live, None, window.nonfinite)
            stop = stop_requested(done)
            if stop is None:
                error.add_note(f"what was learned until step {done} is saved")
                raise
    if stop is not None:
        raise TrainingInterruptedError(
            f"stopped by signal {stop} and saved at step {done} of {config.steps}; the same command resumes there", stop
        )
    return state


def _validate_and_log(
    run: Ready, options: LoopOptions, state: TrainState, step: int, progress: Progress
) -> float | None:
    """The error on people held out after a step, whose row is written."""
    scores = _validate(run, options, state)
    progress.row("validation", step, scores)
    return scores.get("mpjpe_mm" if run.config.task == "pose" else "joint_error_px")


@any_transfers  # scores are worked out on the host, through functions that compute on a device
def _validate(run: Ready, options: LoopOptions, state: TrainState) -> dict[str, float]:
    config, dataset = run.config, run.dataset
    pose = config.task == "pose"
    frames = score_split(
        config,
        state,
        dataset,
        "validation",
        run.mesh,
        step=eval_step if pose else heatmap_eval_step,
        batch_size=config.batch_size,
        limit=options.eval_frames,
        labels=functools.partial(example_labels, enlarged=loaded_size(config) / dataset.image_size),
    )
    scores = summarise(frames) if pose else summarise2d(frames, skeleton(config.inputs.skeleton))
    shown = ("mpjpe_mm", "pa_mpjpe_mm") if pose else COLUMNS_2D
    return {name: score for name in shown if (score := scores[name]) is not None}
