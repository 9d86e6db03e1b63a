"""Everything a run can be told, as frozen records, and the named presets. Defaults live here and nowhere else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from fusion_jax.augmentation import AUGMENTATIONS, AugmentConfig
from fusion_jax.errors import UserError, check_field, unknown_name
from fusion_jax.fusion import check_strategy
from fusion_jax.heatmap_noise import HeatmapNoise
from fusion_jax.hourglass import STRIDE, check_size
from fusion_jax.network import Conv, Dense, Stream, active_streams, fusion_layers, hard_weights
from fusion_jax.skeletons import skeleton


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
        check_field(self.image_size > 0, "inputs.image_size", self.image_size, "a positive number of px")
        check_field(self.heatmap_size > 0, "inputs.heatmap_size", self.heatmap_size, "a positive number of px")
        check_field(self.heatmap_sigma_px > 0, "inputs.heatmap_sigma_px", self.heatmap_sigma_px, "> 0 px")


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

    def __post_init__(self):
        check_strategy(self.strategy)
        depth = len(fusion_layers(active_streams(self.streams, self.strategy)))
        if self.strategy == "fixed":
            hard_weights(self.strategy, self.beta, depth)
        elif self.strategy == "learned":
            inside = self.beta is None or 0 <= self.beta <= depth
            check_field(inside, "network.beta", self.beta, f"none or in [0, {depth}]")
        else:
            check_field(self.beta is None, "network.beta", self.beta, f"none: strategy {self.strategy!r} has no beta")
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

    def __post_init__(self):
        kinds = ("constant", "cosine")
        check_field(self.schedule in kinds, "optim.schedule", self.schedule, " or ".join(kinds))
        for name in ("learning_rate", "fusion_learning_rate", "heatmap_learning_rate"):
            check_field(0 < getattr(self, name) < math.inf, f"optim.{name}", getattr(self, name), "> 0 and finite")
        for name in ("warmup_steps", "clip_norm", "alpha_penalty_weight"):
            check_field(0 <= getattr(self, name) < math.inf, f"optim.{name}", getattr(self, name), ">= 0 and finite")


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

    def __post_init__(self):
        splits = ("train", "train+validation")
        check_field(self.train_split in splits, "train_split", self.train_split, " or ".join(splits))
        check_field(self.steps >= 1, "steps", self.steps, ">= 1")
        check_field(self.batch_size >= 1, "batch_size", self.batch_size, ">= 1")
        check_field(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2^32 - 1")
        if isinstance(self.network, HourglassConfig):
            _check_hourglass(self.network, self.inputs, self.heatmaps)
            varied = self.batch_size > 1 or self.inputs.image_size // STRIDE > 2**self.network.depth
            expected = "2 or more: the lowest maps are 1 px, and batch norm has no variance of one value"
            check_field(varied, "batch_size", self.batch_size, expected)
        elif self.heatmaps.net is not None:
            ours, theirs = self.inputs.heatmap_skeleton, self.heatmaps.net.inputs.heatmap_skeleton
            expected = f"{theirs!r}, which the 2D network of {self.heatmaps.net.workdir} predicts"
            check_field(ours == theirs, "inputs.heatmap_skeleton", ours, expected)

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


def two_streams(image: tuple, heatmap: tuple | None = None) -> tuple[Stream, ...]:
    """The paper's pair of streams, `image` and `heatmap`, with the same layers unless told otherwise."""
    return (Stream("image", image), Stream("heatmap", image if heatmap is None else heatmap))


def tiny() -> Config:
    """Learns where to fuse on two CPU cores within minutes, on `synthetic_humans` at 64 px.

    fusion-jax train --preset tiny --dataset synthetic_humans --data-dir DATA --workdir RUN
    """
    # Measured on two cores, batch 32: a first layer whose windows do not overlap makes a step 5 times cheaper than a
    # 5 x 5 one with stride 2 (65 against 369 ms) and costs 9 mm after the same 600 steps; more steps win that back.
    layers = (Conv(24, 4, stride=4, pool=1), Conv(48, 3), Conv(64, 3, pool=1), Dense(256), Dense(128))
    return Config(
        preset="tiny",
        network=NetworkConfig(two_streams(layers)),
        inputs=InputConfig(image_size=64, heatmap_size=16),  # what `hourglass-tiny` predicts
        optim=OptimConfig(learning_rate=2e-3, fusion_learning_rate=3e-2),
        augment=AUGMENTATIONS["light"],
        steps=1000,
        batch_size=32,
    )


_PAPER_CONVS = (Conv(36, 9), Conv(72, 5), Conv(72, 5))


def paper() -> Config:
    """The paper's network as its authors released it (type 1, L = 7), with the release's training settings.

    fusion-jax train --preset paper --dataset synthetic_humans/live --workdir RUN

    About 120 M parameters and 6.2 GFLOP forward a picture: meant for a GPU or TPU.
    """
    layers = (*_PAPER_CONVS, Dense(2048, 0.5), Dense(2048, 0.5), Dense(512), Dense(512))
    return Config(
        preset="paper",
        network=NetworkConfig(two_streams(layers), standardise_targets=False),
        optim=OptimConfig(fusion_learning_rate=1e-3, schedule="constant", warmup_steps=0),
        augment=AUGMENTATIONS["paper"],
        steps=500_000,
        batch_size=128,
    )


def paper_wide() -> Config:
    """The release's type 2, L = 8: as `paper` with five dense layers, the third 4096 wide.

    fusion-jax train --preset paper-wide --dataset synthetic_humans/live --workdir RUN
    """
    dense = (Dense(512, 0.5), Dense(2048, 0.5), Dense(4096, 0.5), Dense(512), Dense(512))
    base = paper()
    network = dataclasses.replace(base.fusion, streams=two_streams((*_PAPER_CONVS, *dense)))
    return dataclasses.replace(base, preset="paper-wide", network=network)


def human36m() -> Config:
    """The paper's experiment on Human3.6M: five subjects train, every 5th frame, every camera by itself.

    fusion-jax train --preset human36m --train-split train+validation --data-dir DATA --workdir runs/human36m
    """
    return dataclasses.replace(paper(), preset="human36m", dataset="human36m")


def humaneva() -> Config:
    """The paper's experiment on HumanEva-I: 15 joints, camera C1, from weights trained on Human3.6M.

    fusion-jax prepare humaneva --cameras C1 --manual-dir RAW --data-dir DATA
    fusion-jax train --preset humaneva --train-split train+validation --init-from runs/human36m --data-dir DATA
      --workdir runs/humaneva
    """
    return _experiment("humaneva", "humaneva", "humaneva15", steps=20_000)


def kth() -> Config:
    """The paper's experiment on KTH Multiview Football II: 14 joints, from weights trained on synthetic people.

    fusion-jax train --preset lsp --workdir runs/lsp
    fusion-jax train --preset kth --train-split train+validation --init-from runs/lsp --data-dir DATA
      --workdir runs/kth
    """
    return _experiment("kth", "kth_football2", "lsp14", steps=5_000)


def lsp() -> Config:
    """The paper's experiment on Leeds Sports Pose: 14 joints, trained on synthetic people alone.

    fusion-jax train --preset lsp --workdir runs/lsp
    fusion-jax evaluate --workdir runs/lsp --dataset lsp --data-dir DATA
    """
    config = _experiment("lsp", "synthetic_humans/live", "lsp14", steps=500_000)
    return dataclasses.replace(config, augment=AUGMENTATIONS["none"])  # live pictures are new each time


def hourglass_tiny() -> Config:
    """A small 2D network that learns on two CPU cores within minutes, on `synthetic_humans`.

    fusion-jax train --task heatmaps --dataset synthetic_humans --data-dir DATA --workdir RUN
    """
    # Measured: small batches and large steps learn most in a given time, and strong augmentation needs more of it.
    base = _hourglass("hourglass-tiny", HourglassConfig(1, 64), "synthetic_humans", 64, 1600, 16)
    return dataclasses.replace(base, optim=OptimConfig(learning_rate=6e-3), augment=AUGMENTATIONS["light"])


def hourglass_2() -> Config:
    """Two stacks as published, on MPII: input 256 px, 6.6 M parameters.

    fusion-jax train --task heatmaps --preset hourglass-2 --data-dir DATA --workdir RUN
    """
    return _hourglass("hourglass-2", HourglassConfig(2), "mpii", 256, 200_000, 16)


def hourglass_8() -> Config:
    """Eight stacks as published, on MPII: input 256 px, 25 M parameters.

    fusion-jax train --task heatmaps --preset hourglass-8 --data-dir DATA --workdir RUN
    """
    return _hourglass("hourglass-8", HourglassConfig(8), "mpii", 256, 200_000, 16)


def _hourglass(name: str, network: HourglassConfig, dataset: str, size: int, steps: int, batch_size: int) -> Config:
    inputs = InputConfig(image_size=size, skeleton="mpii16", heatmap_size=size // STRIDE)
    optim = OptimConfig(learning_rate=1e-3)
    return Config(
        name, network, inputs, optim, AUGMENTATIONS["hourglass"], dataset=dataset, steps=steps, batch_size=batch_size
    )


def _experiment(name: str, dataset: str, layout: str, steps: int) -> Config:
    """`paper` with another dataset and pose layout; the paper does not tell how long it fine-tuned, steps are ours."""
    base = paper()
    inputs = dataclasses.replace(base.inputs, skeleton=layout)
    return dataclasses.replace(base, preset=name, dataset=dataset, inputs=inputs, steps=steps)


PRESETS: dict[str, Callable[[], Config]] = {
    **{"tiny": tiny, "paper": paper, "paper-wide": paper_wide},
    **{"human36m": human36m, "humaneva": humaneva, "kth": kth, "lsp": lsp},
    **{"hourglass-tiny": hourglass_tiny, "hourglass-2": hourglass_2, "hourglass-8": hourglass_8},
}


def preset(name: str) -> Config:
    """The preset called `name`. Raises UserError, listing the known ones."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]()


def with_overrides(name: str, *, augment: str | None = None, **fields) -> Config:
    """A preset with some fields changed; None leaves the preset's value.

    Args:
      name: of the preset.
      augment: name of an augmentation setting.
      **fields: of Config, NetworkConfig, InputConfig or OptimConfig, by their own names (no name is in two of them).

    Raises:
      UserError: an unknown preset or augmentation, or a value out of range.
    """
    config = preset(name)
    given = {key: value for key, value in fields.items() if value is not None}
    if config.task == "heatmaps":  # whose sizes and layouts follow from one another
        if "skeleton" in given:
            given.setdefault("heatmap_skeleton", given["skeleton"])
        if "image_size" in given:
            given.setdefault("heatmap_size", given["image_size"] // STRIDE)
    live = str(given.get("dataset", config.dataset)).endswith("/live")
    if live and augment not in (None, "none"):
        raise UserError(f"augment {augment!r}: live pictures are new each time; leave --augment away")
    if augment is None and live != config.dataset.endswith("/live"):  # the preset's is for the other kind of data
        augment = "none" if live else "light"
    if augment is not None:
        given["augment"] = _augmentation(augment)
    for part in ("network", "inputs", "optim"):
        record: Any = getattr(config, part)
        names = {field.name for field in dataclasses.fields(record)} & given.keys()
        given[part] = dataclasses.replace(record, **{key: given.pop(key) for key in names})
    known = [field.name for field in dataclasses.fields(config)]
    other = NetworkConfig if config.task == "heatmaps" else HourglassConfig
    for key in given:
        if key in {field.name for field in dataclasses.fields(other)}:
            raise UserError(f"preset {name} is for task {config.task}, whose networks have no {key!r}; leave it away")
        if key not in known:
            raise unknown_name("setting", key, known)
    return dataclasses.replace(config, **given)


def _augmentation(name: str) -> AugmentConfig:
    if name not in AUGMENTATIONS:
        raise unknown_name("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
