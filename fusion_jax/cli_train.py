"""The command that trains: both networks, one sub-command."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import tyro

from fusion_jax.cli_processes import Processes
from fusion_jax.errors import UserError

Preset = Literal[
    "tiny", "paper", "paper-wide", "human36m", "humaneva", "kth", "lsp", "hourglass-tiny", "hourglass-2", "hourglass-8"
]
StrategyName = Literal["learned", "fixed", "free", "image", "heatmap"]


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network, or resume what the work folder holds.

    fusion-jax train --preset tiny --dataset synthetic_humans --data-dir data --workdir runs/learned

    fusion-jax train --task heatmaps --dataset synthetic_humans --data-dir data --workdir runs/hourglass

    Exit codes: 0 done; 2 bad input; 3 loss or gradient not finite; 4 a checkpoint could not be written; 5 another
    process of a --distributed run failed; 6 a process that prepares data ended; 75 stopped by SIGTERM and saved, start
    it again; 130 stopped by Ctrl-C and saved.

    The work folder gets config.json, metrics.jsonl, TensorBoard files and checkpoints. The same command continues
    after a stop or a kill, at the exact example; another config in the same folder is refused.
    """

    task: Literal["pose", "heatmaps"] | None = None
    """pose: a fusion network. heatmaps: the 2D network, which finds joints in a picture. None: the preset's."""
    preset: Preset | None = None
    """None: tiny, or hourglass-tiny for --task heatmaps. tiny: learns on two CPU cores in minutes. paper, paper-wide:
    the published networks, for GPU or TPU. human36m, humaneva, kth, lsp: the paper's four experiments with its network.
    hourglass-tiny: a 2D network that learns on two cores in minutes. hourglass-2, hourglass-8: the published ones, on
    MPII."""
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
    heatmaps: Literal["true", "noisy", "predicted"] = "true"
    """What a fusion network reads: heatmaps of true 2D joints (or the dataset's own); of those with errors as a 2D
    network makes them; or those of the 2D network in --heatmap-workdir."""
    heatmap_workdir: pathlib.Path | None = None
    """For --heatmaps predicted: folder of a trained 2D network."""
    heatmap_mode: Literal["cache", "frozen", "finetune"] | None = None
    """For --heatmaps predicted. cache: worked out once, kept beside the dataset. frozen: in every step. finetune: in
    every step and trained along, by the pose's loss. None: cache."""
    heatmap_size: int | None = None
    """Side of a fusion network's heatmaps of joints, px; predicted ones have their own. None: the preset's."""
    heatmap_sigma: float | None = None
    """Their Gaussians' standard deviation, px. None: the preset's."""
    stacks: int | None = None
    """Of a 2D network: hourglasses one after another. None: the preset's."""
    features: int | None = None
    """Of a 2D network: width. None: the preset's."""
    image_size: int | None = None
    """Side of the network's input, px. None: the preset's."""
    streams: str | None = None
    """What a fusion network reads, with commas: image, heatmap, parts (a map for each body part), silhouette (one of
    them all); parts and silhouette come with synthetic_humans alone. None: the preset's, image,heatmap."""
    strategy: StrategyName | None = None
    """Where to fuse: learned finds out; fixed does it at --beta; free has one weight per layer; image and heatmap
    use that stream alone. None: learned."""
    beta: float | None = None
    """Fusion layer: for fixed 0 (early) .. L (late); for learned where it starts, by default the middle."""
    alpha_init: float | None = None
    """Sharpness at the start; none: the preset's."""
    alpha_penalty_weight: float | None = None
    """lambda of the penalty lambda / alpha^2, mm^2; none: the preset's."""
    alpha_final: float | None = None
    """Lead alpha to this sharpness in the last part of the training, so that a short run ends sharp and can be pruned;
    none: alpha is trained to the end."""
    anneal_from: float | None = None
    """Share of the steps after which alpha is led there; none: 0.5."""
    skip_dead: float | None = None
    """Train without the layers that no longer count: fusion weights this close to 0 or 1, such as 1e-3, count as 0 or
    1, and layers that nothing reads then are left out of the step, which is faster; they come back if alpha or beta
    turn round. Terms of this size are missing from the gradients. None: every step runs all layers."""
    skip_every: int | None = None
    """Steps between two looks at which layers those are; each change compiles the step anew. None: 100."""
    learning_rate: float | None = None
    """Of the weights; none: the preset's."""
    fusion_learning_rate: float | None = None
    """Of alpha and beta; none: the preset's."""
    heatmap_learning_rate: float | None = None
    """Of a 2D network that is trained along; none: the preset's."""
    clip_norm: float | None = None
    """Largest gradient norm of each parameter group, mm^2; 0 for no clipping; none: the preset's."""
    batch_size: int | None = None
    """Over all hosts; none: the preset's."""
    augment: Literal["full", "light", "paper", "hourglass", "none"] | None = None
    """full: crop, flip, scale, rotation, colour. light: crop, flip, colour. paper: the release's one crop per batch.
    hourglass: flip, stronger scale and rotation, colour, as usual for 2D networks. none: pictures as they are. None:
    the preset's."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, loss and metrics stay float32."""
    seed: int = 0
    """Draws weights, order, augmentation, dropout; with synthetic_humans/live the people too, test people included."""
    data_seed: int | None = None
    """Draws order, augmentation and live people in place of --seed, so that runs of other seeds see the same data."""
    log_every: int = 25
    """Steps between two rows of numbers."""
    eval_every: int = 500
    """Steps between two evaluations on validation people; 0 for none."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; one is also written whenever validation is better than it ever was."""
    keep: int = 3
    """So many newest checkpoints stay, and the best."""
    checkpoint_dir: str | None = None
    """Where checkpoints are, such as gs://BUCKET/FOLDER. The work folder remembers it, and a lost work folder is made
    again from there by the same command. None: where it remembers, else in the work folder."""
    save_timeout: float = 1200.0
    """Seconds after which a checkpoint that is still not written counts as hung, and ends the run with exit code 4."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do about a step whose loss or gradient is infinite or NaN. Nothing is learned from it in either case, and
    its batch is kept for fusion-jax replay. stop: exit code 3. skip: count it and go on; 20 in a row stop."""
    stop_after: int | None = None
    """Save and stop once this many steps are done in all; the same command without it goes on."""
    workers: int = 0
    """Processes that prepare batches; 0 for threads."""
    bad_examples: Literal["stop", "skip"] = "stop"
    """On a training example that cannot be used (a picture cut off, a joint that is no number, ...): stop names
    it and ends the run; skip names and counts it, trains on another in its place, and ends where a tenth is bad."""
    profile: int = 0
    """Trace this many steps, once warm, into the work folder's `profile`, for Perfetto or TensorBoard; 0 for none."""
    dry_run: bool = False
    """Compile the step, print parameters, memory and operations, and stop; exit code 2 where it does not fit in a
    device. Reads no data, draws no weights, writes nothing in the work folder."""
    memory_limit: float | None = None
    """With --dry-run: GB (1e9 bytes) of one device, to plan for another kind. None: what the devices here have."""
    shard_params: bool = False
    """Split large parameters and Adam's moments over all devices, for networks that do not fit on each of them."""
    processes: tyro.conf.OmitArgPrefixes[Processes] = Processes()

    def run(self) -> None:
        self._check_options()
        self.processes.run(self._train)

    def _train(self) -> None:
        from fusion_jax.distributed import writes
        from fusion_jax.heatmap_net import heatmap_source
        from fusion_jax.presets import with_overrides
        from fusion_jax.train import LoopOptions, train

        name = self.preset or ("hourglass-tiny" if self.task == "heatmaps" else "tiny")
        config = with_overrides(
            name,
            dataset=self.dataset,
            train_split=self.train_split,
            skeleton=self.skeleton,
            init_from=None if self.init_from is None else str(self.init_from),
            streams=self.streams,
            strategy=self.strategy,
            beta=self.beta,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            augment=self.augment,
            compute_dtype=self.compute_dtype,
            data_seed=self.data_seed,
            alpha_init=self.alpha_init,
            alpha_final=self.alpha_final,
            anneal_from=self.anneal_from,
            skip_dead=self.skip_dead,
            skip_every=self.skip_every,
            alpha_penalty_weight=self.alpha_penalty_weight,
            learning_rate=self.learning_rate,
            fusion_learning_rate=self.fusion_learning_rate,
            heatmap_learning_rate=self.heatmap_learning_rate,
            heatmap_size=self.heatmap_size,
            heatmap_sigma_px=self.heatmap_sigma,
            stacks=self.stacks,
            features=self.features,
            image_size=self.image_size,
            clip_norm=self.clip_norm,
        )
        if self.task not in (None, config.task):
            raise UserError(f"preset {name} is for task {config.task}; leave --task {self.task} away or choose another")
        if self.heatmaps != "true" or self.heatmap_workdir is not None:
            config = heatmap_source(config, self.heatmaps, self.heatmap_mode or "cache", self.heatmap_workdir)
        if self.dry_run:
            from fusion_jax.dry_run import dry_run
            from fusion_jax.sharding import data_mesh

            text = dry_run(config, data_mesh(), self.memory_limit, self.shard_params)
            return print(text) if writes() else None
        options = LoopOptions(
            log_every=self.log_every,
            eval_every=self.eval_every,
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            checkpoint_dir=self.checkpoint_dir,
            save_timeout_s=self.save_timeout,
            on_nonfinite=self.on_nonfinite,
            stop_after=self.stop_after,
            workers=self.workers,
            bad_examples=self.bad_examples,
            profile=self.profile,
            shard_params=self.shard_params,
        )
        state = train(config, self.data_dir, self.workdir, options)
        if writes():
            print(f"{int(state.step)} of {config.steps} steps done; next: fusion-jax evaluate --workdir {self.workdir}")

    def _check_options(self) -> None:
        """Raises UserError, naming it, for an option that would do nothing beside the others."""
        predicted = self.heatmaps == "predicted"
        finetuned = predicted and self.heatmap_mode == "finetune"
        made = "heatmaps of joints; predicted ones are as their 2D network makes them"
        for option, value, used, use in (
            ("--anneal-from", self.anneal_from, self.alpha_final is not None, "--alpha-final"),
            ("--memory-limit", self.memory_limit, self.dry_run, "--dry-run"),
            ("--skip-every", self.skip_every, self.skip_dead is not None, "--skip-dead"),
            ("--heatmap-workdir", self.heatmap_workdir, predicted, "--heatmaps predicted"),
            ("--heatmap-mode", self.heatmap_mode, predicted, "--heatmaps predicted"),
            ("--heatmap-learning-rate", self.heatmap_learning_rate, finetuned, "--heatmap-mode finetune"),
            ("--heatmap-size", self.heatmap_size, not predicted, made),
            ("--heatmap-sigma", self.heatmap_sigma, not predicted, made),
        ):
            if value is not None and not used:
                raise UserError(f"{option} {value} would do nothing: it is for {use}; leave it away")
