"""Evaluating a run: restore its newest checkpoint, score every frame of a split, write tables and samples."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.loader import MissingPosesError, pose_statistics
from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.checkpoint import restore_run
from fusion_jax.config import Config
from fusion_jax.distributed import check_agreed, writes, writing
from fusion_jax.errors import UserError, check_field
from fusion_jax.evaluate_heatmaps import evaluate_heatmap_run, heatmap_text
from fusion_jax.fed_data import feed_split
from fusion_jax.heatmap_feed import Feed, open_feed
from fusion_jax.heatmap_net import Source
from fusion_jax.inputs import network_inputs, with_heatmaps
from fusion_jax.leakage import Seen
from fusion_jax.network import active_streams
from fusion_jax.protocol_text import protocol_markdown
from fusion_jax.protocols import PROTOCOLS, Protocol
from fusion_jax.records import to_json
from fusion_jax.release_protocol import release_text, score_release
from fusion_jax.scoring import (
    data_words,
    example_labels,
    load_samples,
    loaded_size,
    open_scored,
    save_arrays,
    score_benchmark,
    score_split,
    scored_name,
    write_benchmark,
)
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState
from fusion_jax.tables import ALIGNMENTS, baseline_frames, markdown, pick_samples, table, write_tables
from fusion_jax.work_folder import load_run

_MADE = "from true 2D joints"


def evaluate_run(
    workdir: pathlib.Path,
    split: str = "test",
    data_dir: pathlib.Path | None = None,
    batch_size: int = 64,
    dataset: str | None = None,
    *,
    heatmaps: Source | None = None,
    heatmap_workdir: pathlib.Path | None = None,
    protocol: Literal["release"] | None = None,
    checkpoint: int | Literal["latest", "best"] = "latest",
) -> dict[str, Any]:
    """Scores a checkpoint on every frame of a split; writes WORKDIR/eval/<name>.{json,md,csv} and samples.

    Several processes share the frames, get the same result, and one of them writes.

    <name> is the split, or <dataset>_<config>_<split> for a dataset other than the run's own, with _<heatmaps> behind
    it where a fusion network is fed other heatmaps than it was trained with. A dataset with a
    protocol of its own (`protocols.PROTOCOLS`) also gets that protocol's tables: `benchmark` in the result,
    <name>_protocol.{md,csv}.

    Args:
      workdir: of a run that has saved a checkpoint.
      split: which part of the dataset.
      data_dir: where the data is now, if it moved since training.
      batch_size: frames at a time; does not change the result.
      dataset: name of a prepared dataset; None for the run's own, the first of a mixture.
      heatmaps: true, noisy or predicted, whatever the network was trained with; None for the same.
      heatmap_workdir: of the 2D network that predicts them; None for the one that the run was trained with.
      protocol: `release` also scores as the paper's authors' code does: `release` in the result.
      checkpoint: the newest that is sound, the best on people held out, or a step.

    Returns:
      The table as written to the JSON file.

    Raises:
      UserError: no run, no checkpoint, no such split, no 2D network where one is needed, data that differs from what
        the run trained on, a layout without joints that the protocol scores, or frames or people of another split that
        the network has seen in training; or processes that differ in what they were asked or in their data.
    """
    workdir = pathlib.Path(workdir)
    check_field(batch_size >= 1, "batch_size", batch_size, ">= 1")
    config, record = load_run(workdir)
    asked = {"split": split, "dataset": dataset, "batch_size": batch_size, "protocol": protocol, "heatmaps": heatmaps}
    asked["heatmap_workdir"] = None if heatmap_workdir is None else str(pathlib.Path(heatmap_workdir).resolve())
    check_agreed({"config": to_json(config), **asked, "checkpoint": checkpoint})  # each then takes the same steps
    if config.task == "heatmaps":
        if heatmaps is not None or heatmap_workdir is not None:
            raise UserError(f"{workdir} is a 2D network, which reads no heatmaps; leave --heatmaps away")
        if protocol is not None:
            raise UserError(f"{workdir} is a 2D network; --protocol {protocol} scores poses, leave it away")
        return evaluate_heatmap_run(workdir, split, data_dir, batch_size, dataset, checkpoint)
    mesh = sharding.data_mesh()
    feed = open_feed(config, heatmaps, heatmap_workdir, mesh)
    if protocol is not None and feed.config.heatmaps.source == "noisy":
        raise UserError(f"--protocol {protocol} is not for noisy heatmaps, which its authors never scored; leave it")
    config = feed.config
    opened = open_scored(feed.trained, record, data_dir, dataset, workdir)
    layout, family = skeleton(config.inputs.skeleton), opened.name.partition("/")[0]
    if family in PROTOCOLS:
        PROTOCOLS[family].check_joints(layout)
    check_agreed({"dataset": f"{opened.name} {opened.fingerprint}", "fed": to_json(feed.config.heatmaps)})
    own = dataset is None
    opened, seen, warnings = feed_split(feed, opened, split, workdir, record, mesh, data_dir=data_dir, own=own)
    state = feed.state(restore_run(workdir, feed.trained, mesh, checkpoint))
    tell = functools.partial(example_labels, enlarged=loaded_size(feed.trained) / opened.image_size)
    frames = score_split(feed.trained, state, opened, split, mesh, batch_size=batch_size, labels=tell)
    name = scored_name(opened, split, own=own) + feed.suffix
    result = table(frames, frames["action"], layout, _baseline(opened, frames, layout)) | {
        "protocol": protocol_words(config, opened, split, seen, warnings, feed),
        "name": name,
        "dataset": opened.name,
        "split": split,
        "strategy": config.fusion.strategy,
        "heatmaps": config.heatmaps.source,
        "checkpoint_step": int(state.step),
    }
    if not own:
        result["baseline"]["name"] += f" of {opened.name}"
    if family in PROTOCOLS:
        result["benchmark"] = _benchmark(PROTOCOLS[family], frames, opened, split, seen, feed, warnings)
    if protocol == "release":
        result["release"] = score_release(feed.trained, state, opened, split, mesh, batch_size)
    with writing():
        if writes():
            if "benchmark" in result:
                write_benchmark(workdir / "eval", name, result["benchmark"])
            write_tables(workdir / "eval", name, result)  # before the samples, which take longer and may fail
            write_samples(workdir / "eval" / f"{name}_samples.npz", feed.trained, state, opened, split, frames)
    return result


def _baseline(dataset: PoseDataset, frames: dict[str, np.ndarray], layout) -> dict[str, np.ndarray]:
    """The frames scored for who always answers the mean pose of the dataset's training part.

    Nothing counts as known where there is no 3D, or the dataset's training part lacks a joint or is not there at all.
    """
    unknown = frames | {"valid": np.zeros_like(frames["valid"])}
    if not frames["valid"].any() or "train" not in dataset.splits:
        return unknown
    try:
        mean_pose, _ = pose_statistics(dataset, layout)
    except MissingPosesError:
        return unknown
    return baseline_frames(frames, mean_pose)


def _benchmark(
    protocol: Protocol,
    frames: dict[str, np.ndarray],
    dataset: PoseDataset,
    split: str,
    seen: Sequence[Seen],
    feed: Feed,
    warnings: Sequence[str],
) -> dict[str, Any]:
    config = feed.config
    fed, streams = _input_words(config, dataset, split, feed), _read(config)
    given = "heatmap" in streams and _MADE in fed
    return score_benchmark(
        protocol,
        frames,
        dataset,
        split,
        seen,
        config,
        network_input=fed + ("; nothing else" if len(streams) == 1 else ""),
        differs=["the network is given the true 2D joints, as heatmaps"] if given else [],
        warnings=warnings,
    )


def evaluation_text(result: dict[str, Any]) -> str:
    """The tables for a terminal: the general one where anything is known in 3D, and the benchmark's."""
    if result.get("task") == "heatmaps":
        return heatmap_text(result)
    parts = [markdown(result)] if result["mpjpe_mm"] is not None or "benchmark" not in result else []
    parts += [protocol_markdown(result["benchmark"])] if "benchmark" in result else []
    parts += [release_text(result)] if "release" in result else []
    return "\n".join(parts)


def protocol_words(
    config: Config,
    dataset: PoseDataset,
    split: str,
    seen: Sequence[Seen],
    warnings: Sequence[str] = (),
    feed: Feed | None = None,
) -> dict[str, Any]:
    """What a number means: who, which frames, which root and joints, which alignment, mean over what.

    Args:
      feed: what the network is fed; None for heatmaps of true joints.
      warnings: what casts doubt on it, beside the dataset's own warning.
    """
    layout = skeleton(config.inputs.skeleton)
    return {
        **data_words(dataset, split, seen, warnings),
        "input": _input_words(config, dataset, split, feed),
        "root": " and ".join(layout.root),
        "joints": f"{layout.num_joints} ({layout.name}), the root counted",
        "unit and frame": "mm, camera frame, relative to the root",
        "alignment": ALIGNMENTS,
        "mean": "over frames of the mean over a frame's joints; action_mean_* over the actions' means",
    }


def _input_words(config: Config, dataset: PoseDataset, split: str, feed: Feed | None) -> str:
    """What the streams that the strategy reads are given."""
    stored = "heatmap" in dataset.split(split)[0]
    heatmaps = feed.words if feed is not None and feed.words else "stored with the data" if stored else _MADE
    given = {
        "image": f"{config.inputs.image_size} px crops",
        "heatmap": f"heatmaps {heatmaps}",
        "parts": "true body parts",
        "silhouette": "the true silhouette",
    }
    return "; ".join(given.get(name, name) for name in _read(config))


def _read(config: Config) -> list[str]:
    """The names of the streams that a run's strategy reads."""
    return [stream.name for stream in active_streams(config.fusion.streams, config.fusion.strategy)]


def write_samples(
    path: pathlib.Path,
    config: Config,
    state: TrainState,
    dataset: PoseDataset,
    split: str,
    frames: dict[str, np.ndarray],
) -> None:
    """Saves the best, median and worst frames with pictures, heatmaps and both poses, for the report."""
    rows, kinds = pick_samples(frames)
    batch, names = load_samples(config, dataset, split, frames["index"][rows])
    batch["index"] = frames["index"][rows]  # by which noise is drawn, as when they were scored
    here = sharding.on_one_device(state)  # so few frames need not divide over all devices
    inputs = network_inputs(with_heatmaps(here, batch), config.inputs)
    shrunk = config.inputs.image_size / batch["image"].shape[1]
    arrays = {
        "image": np.asarray(np.round(np.asarray(inputs["image"]) * 255), np.uint8),
        "heatmap": np.asarray(inputs["heatmap"], np.float16),
        "joints2d": (np.asarray(batch["joints2d"]) + 0.5) * shrunk - 0.5,
        "true_mm": frames["true_mm"][rows],
        "pred_mm": frames["pred_mm"][rows],
        "valid": frames["valid"][rows],
        "valid2d": np.asarray(batch["valid2d"]),
        "mpjpe_mm": np.ma.masked_array(frames["mpjpe"][rows], ~frames["valid"][rows]).mean(1).filled(np.nan),
        "kind": kinds,
        **names,
    }
    save_arrays(path, arrays)
