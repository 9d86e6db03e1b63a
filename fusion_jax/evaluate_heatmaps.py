"""Evaluating a run of the 2D network: the 2D joints that it finds on every frame of a split, as tables and samples."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from data_pipelines.loader import eval_batches
from data_pipelines.prepared import PoseDataset
from fusion_jax import sharding
from fusion_jax.checkpoint import restore_run
from fusion_jax.config import Config
from fusion_jax.distributed import check_agreed, writes, writing
from fusion_jax.errors import UserError, check_field
from fusion_jax.heatmap_steps import heatmap_eval_step, heatmap_predict_step
from fusion_jax.heatmap_tables import (
    TORSO,
    Frames,
    errors_px,
    markdown2d,
    pick_samples2d,
    table2d,
    torso_px,
    write_tables2d,
)
from fusion_jax.leakage import Seen
from fusion_jax.protocol_text import protocol_markdown
from fusion_jax.protocols import PROTOCOLS
from fusion_jax.records import to_json
from fusion_jax.scoring import (
    data_words,
    example_labels,
    load_samples,
    open_scored,
    save_arrays,
    score_benchmark,
    score_split,
    scored_name,
    seen_before,
    write_benchmark,
)
from fusion_jax.skeletons import Skeleton, skeleton
from fusion_jax.state import TrainState
from fusion_jax.work_folder import load_run


def evaluate_heatmap_run(
    workdir: pathlib.Path,
    split: str = "test",
    data_dir: pathlib.Path | None = None,
    batch_size: int = 64,
    dataset: str | None = None,
    checkpoint: int | Literal["latest", "best"] = "latest",
) -> dict[str, Any]:
    """Scores a checkpoint of a 2D network on every frame of a split, as `evaluate.evaluate_run` does.

    Joints are read from heatmaps averaged with those of the mirrored picture. A dataset whose protocol is scored in
    2D (MPII, LSP) also gets that protocol's tables, where the network's layout has its joints: `benchmark` in the
    result, <name>_protocol.{md,csv}.

    Args:
      workdir: of a run with task heatmaps that has saved a checkpoint.
      split: which part of the dataset.
      data_dir: where the data is now, if it moved since training.
      batch_size: frames at a time; does not change the result.
      dataset: name of a prepared dataset; None for the run's own, the first of a mixture.
      checkpoint: the newest that is sound, the best on people held out, or a step.

    Returns:
      The table as written to the JSON file.

    Raises:
      UserError: no run of a 2D network, no checkpoint, no such split, data that differs from what the run trained on,
        a split without any 2D joint, or frames or people of another split that the network has seen in training;
        or processes that differ in what they were asked or in their data.
    """
    workdir = pathlib.Path(workdir)
    check_field(batch_size >= 1, "batch_size", batch_size, ">= 1")
    config, record = load_run(workdir)
    asked = {"split": split, "dataset": dataset, "batch_size": batch_size, "checkpoint": checkpoint}
    check_agreed({"config": to_json(config), **asked})
    layout = skeleton(config.inputs.skeleton)
    network = config.hourglass  # refuses another task
    opened, own = open_scored(config, record, data_dir, dataset, workdir), dataset is None
    check_agreed({"dataset": f"{opened.name} {opened.fingerprint}"})
    seen, warnings = seen_before(config, workdir, opened, split, own=own)
    mesh = sharding.data_mesh()
    state = restore_run(workdir, config, mesh, checkpoint)
    tell = functools.partial(example_labels, enlarged=config.inputs.image_size / opened.image_size)
    frames = score_split(config, state, opened, split, mesh, step=heatmap_eval_step, batch_size=batch_size, labels=tell)
    if not frames["valid2d"].any():
        raise UserError(f"no joint of {layout.name} is known in 2D in {opened.name}'s {split} split; score another")
    name = scored_name(opened, split, own=own)
    result = table2d(frames, layout, _baseline(opened, frames, layout, config.inputs.image_size)) | {
        "protocol": _protocol_words(config, opened, split, seen, warnings, frames),
        "name": name,
        "task": config.task,
        "dataset": opened.name,
        "split": split,
        "network": f"hourglass, stacks {network.stacks}, features {network.features}, depth {network.depth}",
        "checkpoint_step": int(state.step),
    }
    if not own:
        result["baseline"]["name"] += f" of {opened.name}"
    benchmark, reason = _benchmark(config, frames, opened, split, seen, warnings)
    if benchmark is not None:
        result["benchmark"] = benchmark
    elif reason:
        result["protocol"]["benchmark"] = reason
    with writing():
        if writes():
            if benchmark is not None:
                write_benchmark(workdir / "eval", name, benchmark)
            write_tables2d(workdir / "eval", name, result)  # before the samples, which take longer and may fail
            _write_samples(workdir / "eval" / f"{name}_samples.npz", config, state, opened, split, frames)
    return result


def heatmap_text(result: dict[str, Any]) -> str:
    """The tables for a terminal: the general one, and the benchmark's."""
    parts = [protocol_markdown(result["benchmark"])] if "benchmark" in result else []
    return "\n".join([markdown2d(result), *parts])


def mean_joints2d(
    dataset: PoseDataset, layout: Skeleton, image_size: int, limit: int = 4000
) -> tuple[np.ndarray, np.ndarray]:
    """The mean place (K, 2) in the crop, px of an image_size picture, of each training joint, and which are known (K,).

    Over at most `limit` examples, evenly spaced, as they are stored.
    """
    total, count = np.zeros((layout.num_joints, 2)), np.zeros(layout.num_joints, int)
    batches = eval_batches(dataset, "train", target=layout, image_size=image_size, batch_size=64, limit=limit)
    for batch in batches:
        known = batch["valid2d"] & batch["mask"][:, None]
        total += np.where(known[..., None], batch["joints2d"], 0).sum(0, dtype=np.float64)
        count += known.sum(0)
    return total / np.maximum(count, 1)[:, None], count > 0


def _baseline(dataset: PoseDataset, frames: Frames, layout: Skeleton, image_size: int) -> Frames:
    """The frames scored for who always answers the mean training pose; unknown where there is none."""
    known = np.zeros(layout.num_joints, bool)
    mean = np.zeros((layout.num_joints, 2))
    if "train" in dataset.splits:
        mean, known = mean_joints2d(dataset, layout, image_size)
    pred = np.broadcast_to(mean, frames["joints2d"].shape)
    return frames | {"pred2d_px": pred, "valid2d": frames["valid2d"] & known}


def _benchmark(
    config: Config, frames: Frames, dataset: PoseDataset, split: str, seen: Sequence[Seen], warnings: Sequence[str]
) -> tuple[dict[str, Any] | None, str]:
    """The tables of the dataset's protocol if that is scored in 2D, or none and why, where that needs saying."""
    protocol = PROTOCOLS.get(dataset.name.partition("/")[0])
    if protocol is None or protocol.dims != 2:
        return None, ""
    try:
        protocol.check_joints(skeleton(config.inputs.skeleton))
    except UserError as error:
        return None, f"none: {error}"
    fed = _input_words(config)
    return score_benchmark(protocol, frames, dataset, split, seen, config, network_input=fed, warnings=warnings), ""


def _input_words(config: Config) -> str:
    size = config.inputs.image_size
    return f"{size} px crops, each mirrored too; the heatmaps of both are averaged"


def _protocol_words(
    config: Config,
    dataset: PoseDataset,
    split: str,
    seen: Sequence[Seen],
    warnings: Sequence[str],
    frames: Frames,
) -> dict[str, Any]:
    """What a number means: who, which frames and joints, in what unit, mean over what."""
    layout, size = skeleton(config.inputs.skeleton), config.inputs.image_size
    true, valid, count = frames["joints2d"], frames["valid2d"], len(frames["index"])
    outside = (valid & ~((true >= -0.5) & (true <= size - 0.5)).all(-1)).sum()
    heads, torsos = (int((length > 0).sum()) for length in (frames["head_size_px"], torso_px(frames, layout)))
    return {
        **data_words(dataset, split, seen, warnings),
        "input": _input_words(config),
        "joints": f"all of the {layout.num_joints} ({layout.name}) that are known in 2D, hidden ones too; {outside} of "
        f"{valid.sum()} lie outside the crop, where no heatmap can hold them, and count as well",
        "unit and frame": f"px of the network's input, {size} px across",
        "pckh_0.5": "share of joints at most half the head's length off, 0.6 of the diagonal of the head's box; "
        f"it is known in {heads} of {count} frames, the others do not count",
        "pck_0.2_torso": f"share of joints at most 0.2 of the distance from {TORSO[0].replace('_', ' ')} to "
        f"{TORSO[1].replace('_', ' ')} off; "
        f"it is known in {torsos} of {count} frames, the others do not count",
        "mean": "over all joints that count, each once",
        "baseline": "each joint at its mean place in the training crops",
    }


def _write_samples(
    path: pathlib.Path, config: Config, state: TrainState, dataset: PoseDataset, split: str, frames: Frames
) -> None:
    """Saves the best, median and worst frames with pictures, heatmaps and both sets of joints, for the report."""
    rows, kinds = pick_samples2d(frames)
    batch, names = load_samples(config, dataset, split, frames["index"][rows])
    mesh = sharding.data_mesh(jax.local_devices()[:1])  # as the batch is
    heatmaps = sharding.jit_eval_step(mesh, heatmap_predict_step)(sharding.on_one_device(state), batch)
    picked = {name: frames[name][rows] for name in ("joints2d", "pred2d_px", "valid2d", "confidence")}
    arrays = {
        "image": np.asarray(batch["image"]),
        "heatmap": np.asarray(heatmaps, np.float16),
        **picked,
        "joint_error_px": errors_px(picked),
        "kind": kinds,
        **names,
    }
    save_arrays(path, arrays)
