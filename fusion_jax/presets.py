"""The named runs: networks, sizes and training settings that go together, and how to change some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fusion_jax.augmentation import AUGMENTATIONS, AugmentConfig
from fusion_jax.batch import STREAMS
from fusion_jax.config import Config, HourglassConfig, InputConfig, NetworkConfig, OptimConfig
from fusion_jax.errors import UserError, unknown_name
from fusion_jax.hourglass import STRIDE
from fusion_jax.network import Conv, Dense, Stream


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
    base = _hourglass("hourglass-tiny", HourglassConfig(1, 64), "synthetic_humans", 64, 1200, 16)
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


def with_overrides(
    name: str, *, augment: str | None = None, streams: str | tuple[str, ...] | None = None, **fields
) -> Config:
    """A preset with some fields changed; None leaves the preset's value.

    Args:
      name: of the preset.
      augment: name of an augmentation setting.
      streams: which data streams a fusion network has, of `batch.STREAMS`, in this order; a tuple of names, or one text
        with commas. One that the preset lacks gets the layers of its first.
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
    if streams is not None:
        if config.task == "heatmaps":
            raise UserError(f"preset {name} is for task heatmaps, whose networks have no 'streams'; leave it away")
        given["streams"] = _streams(config.fusion.streams, streams)
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


def _streams(own: tuple[Stream, ...], wanted: str | tuple[str, ...]) -> tuple[Stream, ...]:
    names = tuple(name.strip() for name in wanted.split(",")) if isinstance(wanted, str) else wanted
    for name in names:
        if name not in STREAMS:
            raise unknown_name("stream", name, STREAMS)
        if names.count(name) > 1:
            raise UserError(f"streams {','.join(names)} name {name} twice; name each once")
    layers = {stream.name: stream.layers for stream in own}
    return tuple(Stream(name, layers.get(name, own[0].layers)) for name in names)


def _augmentation(name: str) -> AugmentConfig:
    if name not in AUGMENTATIONS:
        raise unknown_name("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
