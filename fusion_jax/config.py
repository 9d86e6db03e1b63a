"""Everything a run can be told, as frozen records. Defaults live here and nowhere else."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from fusion_jax.augmentation import AugmentConfig
from fusion_jax.errors import UserError, check_field
from fusion_jax.fusion import LiveLayers, check_strategy, fixed_weights
from fusion_jax.heatmap_noise import HeatmapNoise
from fusion_jax.hourglass import STRIDE, check_size
from fusion_jax.network import Stream, active_streams, fusion_layers
from fusion_jax.skeletons import skeleton

MAX_SIZE = 4096
"""px along a side of what a network reads: a config from elsewhere must not fill the memory."""


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """What the network sees and predicts."""

    image_size: int = 112
    """Side of the square input, px."""
    skeleton: str = "human36m17"
    """Layout of the predicted pose."""
    heatmap_skeleton: str = "mpii16"
    """Layout of the heatmap channels; made from the dataset's joints by name."""
    heatmap_size: int = 64
    """Side of the heatmaps, px; they are resized to image_size."""
    heatmap_sigma_px: float = 1.0
    """Standard deviation of a heatmap's Gaussian, heatmap px."""

    def __post_init__(self):
        skeleton(self.skeleton), skeleton(self.heatmap_skeleton)
        for name in ("image_size", "heatmap_size"):
            value = getattr(self, name)
            check_field(0 < value <= MAX_SIZE, f"inputs.{name}", value, f"a positive number of px, at most {MAX_SIZE}")
        ok = 0 < self.heatmap_sigma_px <= MAX_SIZE
        check_field(ok, "inputs.heatmap_sigma_px", self.heatmap_sigma_px, f"> 0 px and at most {MAX_SIZE}")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The streams and how they fuse."""

    streams: tuple[Stream, ...]
    strategy: str = "learned"
    beta: float | None = None
    """Fusion layer in [0, L]: of `fixed`, or where `learned` starts (none: the middle layer)."""
    alpha_init: float = 0.1
    """Sharpness at the start, > 0."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, loss and metrics are always float32."""
    standardise_targets: bool = True
    """Scale the output by the training poses' mean and deviation, kept in the checkpoint."""
    live: LiveLayers | None = None
    """Of a pruned network: the layers that are left (none: all that the strategy needs)."""

    def __post_init__(self):
        check_strategy(self.strategy)
        depth = len(fusion_layers(active_streams(self.streams, self.strategy)))
        if self.strategy == "fixed":
            fixed_weights(self.beta, depth)
        elif self.strategy == "learned":
            inside = self.beta is None or 0 <= self.beta <= depth
            check_field(inside, "network.beta", self.beta, f"none or in [0, {depth}]")
        else:
            check_field(self.beta is None, "network.beta", self.beta, f"none: strategy {self.strategy!r} has no beta")
        if self.live is not None:
            self.live.check(depth)
            trained = self.strategy in ("learned", "free")
            check_field(trained, "network.live", self.live, f"none: {self.strategy!r} builds live layers alone anyway")
        types = ("float32", "bfloat16")  # float16 overflows a sum of squared mm
        check_field(self.compute_dtype in types, "network.compute_dtype", self.compute_dtype, " or ".join(types))
        check_field(0 < self.alpha_init < math.inf, "network.alpha_init", self.alpha_init, "> 0 and finite")


@dataclasses.dataclass(frozen=True)
class HourglassConfig:
    """The 2D network, a stacked hourglass: `task` heatmaps."""

    stacks: int = 2
    features: int = 256
    """Width."""
    depth: int = 4
    """How often an hourglass halves its input."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; parameters, statistics, heatmaps and loss are always float32."""

    def __post_init__(self):
        for name in ("stacks", "depth"):
            check_field(1 <= getattr(self, name) <= 16, f"network.{name}", getattr(self, name), "in [1, 16]")
        ok = 4 <= self.features <= 4096 and self.features % 4 == 0
        check_field(ok, "network.features", self.features, "a multiple of 4 in [4, 4096]")
        types = ("float32", "bfloat16")
        check_field(self.compute_dtype in types, "network.compute_dtype", self.compute_dtype, " or ".join(types))


@dataclasses.dataclass(frozen=True)
class HeatmapNet:
    """A trained 2D network from which a fusion network gets its heatmaps."""

    workdir: str
    weights: str
    """Digest of its weights; others of the same folder are refused."""
    network: HourglassConfig
    inputs: InputConfig


@dataclasses.dataclass(frozen=True)
class HeatmapConfig:
    """Where a fusion network's heatmaps come from, in training and, unless told otherwise, in evaluation."""

    source: Literal["true", "noisy", "predicted"] = "true"
    """true: the dataset's own, else from true 2D joints. noisy: from those with errors. predicted: a 2D network's."""
    mode: Literal["cache", "frozen", "finetune"] = "cache"
    """For predicted: worked out once and kept beside the dataset; or in every step, the 2D network frozen; or
    trained along."""
    noise: HeatmapNoise = HeatmapNoise()
    net: HeatmapNet | None = None
    """For predicted."""

    def __post_init__(self):
        kinds, modes = ("true", "noisy", "predicted"), ("cache", "frozen", "finetune")
        check_field(self.source in kinds, "heatmaps.source", self.source, " or ".join(kinds))
        check_field(self.mode in modes, "heatmaps.mode", self.mode, " or ".join(modes))

    @property
    def in_step(self) -> bool:
        """Whether the 2D network runs in the training step."""
        return self.source == "predicted" and self.mode != "cache"


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Adam with a learning rate of its own for the fusion parameters."""

    learning_rate: float = 1e-3
    fusion_learning_rate: float = 1e-2
    """Of alpha, beta and free mix logits; Adam moves them by about this much a step."""
    heatmap_learning_rate: float = 1e-4
    """Of a 2D network that is trained along with a fusion network."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """After the warm-up: constant as in the paper, or a cosine down to 1% (both groups)."""
    warmup_steps: int = 100
    clip_norm: float = 0.0
    """Largest gradient norm, each group on its own, in units of the loss (mm^2); 0 for no clipping."""
    alpha_penalty_weight: float = 5000.0
    """lambda of eq. 4, mm^2."""
    alpha_final: float | None = None
    """Sharpness that alpha is led to over the last part of the training, so that a short run ends sharp; none: it is
    trained to the end."""
    anneal_from: float = 0.5
    """Share of the steps after which alpha is led to alpha_final, geometrically."""
    skip_dead: float | None = None
    """Fusion weights this close to 0 or 1, in [0, 0.5), count as 0 or 1 in training, and layers that nothing reads then
    are left out of the step; none: every step runs all of them."""
    skip_every: int = 100
    """Steps between two decisions on which layers are left out."""

    def __post_init__(self):
        kinds = ("constant", "cosine")
        check_field(self.schedule in kinds, "optim.schedule", self.schedule, " or ".join(kinds))
        for name in ("learning_rate", "fusion_learning_rate", "heatmap_learning_rate"):
            check_field(0 < getattr(self, name) < math.inf, f"optim.{name}", getattr(self, name), "> 0 and finite")
        for name in ("warmup_steps", "clip_norm", "alpha_penalty_weight"):
            check_field(0 <= getattr(self, name) < math.inf, f"optim.{name}", getattr(self, name), ">= 0 and finite")
        sharp = self.alpha_final is None or 0 < self.alpha_final < math.inf
        check_field(sharp, "optim.alpha_final", self.alpha_final, "none, or > 0 and finite")
        check_field(0 <= self.anneal_from < 1, "optim.anneal_from", self.anneal_from, "in [0, 1)")
        eps = self.skip_dead is None or 0 <= self.skip_dead < 0.5
        check_field(eps, "optim.skip_dead", self.skip_dead, "none, or in [0, 0.5)")
        check_field(self.warmup_steps < 2**31, "optim.warmup_steps", self.warmup_steps, "below 2^31")
        check_field(1 <= self.skip_every < 2**31, "optim.skip_every", self.skip_every, ">= 1 and below 2^31")


@dataclasses.dataclass(frozen=True)
class Config:
    """All that determines a run's result; saved beside its checkpoints and compared on resume."""

    preset: str
    network: NetworkConfig | HourglassConfig
    """What is trained: a fusion network, or the 2D network."""
    inputs: InputConfig = InputConfig()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    heatmaps: HeatmapConfig = HeatmapConfig()
    """Of a fusion network."""
    dataset: str = "synthetic_humans"
    """A name, or a mixture such as 'human36m=3,synthetic_humans=1'; the first is validated and tested on.

    Weights count to whole percents of the smallest.
    """
    train_split: Literal["train", "train+validation"] = "train"
    """train+validation also trains on the people held out of training, once nothing is to be chosen by them."""
    init_from: str | None = None
    """Work folder of the run whose newest weights this one starts from."""
    steps: int = 1000
    batch_size: int = 32
    """Over all hosts."""
    seed: int = 0
    """Draws the first weights and dropout, and the data too where data_seed is none."""
    data_seed: int | None = None
    """Draws order and augmentation of the data, and live people; runs that differ in `seed` alone then see the same."""

    def __post_init__(self):
        splits = ("train", "train+validation")
        check_field(self.train_split in splits, "train_split", self.train_split, " or ".join(splits))
        check_field(1 <= self.steps < 2**31, "steps", self.steps, ">= 1 and below 2^31")
        check_field(1 <= self.batch_size <= 2**20, "batch_size", self.batch_size, ">= 1 and at most 2^20")
        check_field(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2^32 - 1")
        if self.optim.alpha_final is not None:
            learned = isinstance(self.network, NetworkConfig) and self.network.strategy == "learned"
            check_field(learned, "optim.alpha_final", self.optim.alpha_final, "none: only 'learned' has an alpha")
        if self.optim.skip_dead is not None:
            trained = isinstance(self.network, NetworkConfig) and self.network.strategy in ("learned", "free")
            expected = "none: only 'learned' and 'free' have weights that move"
            check_field(trained, "optim.skip_dead", self.optim.skip_dead, expected)
        data_seed_ok = self.data_seed is None or 0 <= self.data_seed < 2**32
        check_field(data_seed_ok, "data_seed", self.data_seed, "none or 0 to 2^32 - 1")
        if isinstance(self.network, HourglassConfig):
            _check_hourglass(self.network, self.inputs, self.heatmaps)
            varied = self.batch_size > 1 or self.inputs.image_size // STRIDE > 2**self.network.depth
            expected = "2 or more: the lowest maps are 1 px, and batch norm has no variance of one value"
            check_field(varied, "batch_size", self.batch_size, expected)
        elif self.heatmaps.source != "true" and "heatmap" not in {stream.name for stream in self.network.streams}:
            raise UserError(f"heatmaps are {self.heatmaps.source!r}, and no stream reads them; leave --heatmaps away")
        elif self.heatmaps.net is not None:
            ours, theirs = self.inputs.heatmap_skeleton, self.heatmaps.net.inputs.heatmap_skeleton
            expected = f"{theirs!r}, which the 2D network of {self.heatmaps.net.workdir} predicts"
            check_field(ours == theirs, "inputs.heatmap_skeleton", ours, expected)

    @property
    def drawn_by(self) -> int:
        """The seed of the data's order, augmentation and live people."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def task(self) -> Literal["pose", "heatmaps"]:
        """What the run learns: 3D poses, or 2D joints as heatmaps."""
        return "heatmaps" if isinstance(self.network, HourglassConfig) else "pose"

    @property
    def fusion(self) -> NetworkConfig:
        """The network of a run that learns poses. Raises UserError for a 2D network."""
        if isinstance(self.network, HourglassConfig):
            raise UserError("this run is of a 2D network (task heatmaps); a run of a fusion network is needed here")
        return self.network

    @property
    def hourglass(self) -> HourglassConfig:
        """The network of a run that learns heatmaps. Raises UserError for a fusion network."""
        if not isinstance(self.network, HourglassConfig):
            raise UserError("this run is of a fusion network (task pose); a run of a 2D network is needed here")
        return self.network


def _check_hourglass(network: HourglassConfig, inputs: InputConfig, heatmaps: HeatmapConfig) -> None:
    check_size((inputs.image_size, inputs.image_size), network.depth)
    size = inputs.image_size // STRIDE
    check_field(
        inputs.heatmap_size == size, "inputs.heatmap_size", inputs.heatmap_size, f"{size}, a quarter of the input"
    )
    ours = inputs.skeleton == inputs.heatmap_skeleton
    check_field(ours, "inputs.skeleton", inputs.skeleton, f"{inputs.heatmap_skeleton!r}, which the heatmaps are of")
    own = heatmaps == HeatmapConfig()
    check_field(own, "heatmaps", heatmaps.source, "the default: a 2D network makes heatmaps and reads none")
