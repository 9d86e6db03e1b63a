"""Evaluating a run: restore its newest checkpoint, score every frame of a split, write tables and samples."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.loader import MissingPosesError, eval_batches, pose_statistics
from data_pipelines.prepared import PoseDataset
from data_pipelines.samples import text
from fusion_jax import sharding
from fusion_jax.checkpoint import DatasetRecord, load_run, load_seen, restore_run
from fusion_jax.config import Config
from fusion_jax.datasets import open_dataset, parse_mixture
from fusion_jax.errors import UserError, check_field
from fusion_jax.leakage import Seen, check_test, unknown_overlap
from fusion_jax.protocol_tables import score_protocol
from fusion_jax.protocol_text import protocol_csv, protocol_markdown
from fusion_jax.protocols import PROTOCOLS, Protocol
from fusion_jax.records import write_text
from fusion_jax.skeletons import skeleton
from fusion_jax.steps import network_inputs
from fusion_jax.tables import ALIGNMENTS, baseline_frames, markdown, pick_samples, table, write_tables
from fusion_jax.train import place_batch, score_split

_MADE = "from true 2D joints"


def evaluate_run(
    workdir: pathlib.Path,
    split: str = "test",
    data_dir: pathlib.Path | None = None,
    batch_size: int = 64,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Scores the newest checkpoint on every frame of a split; writes WORKDIR/eval/<name>.{json,md,csv} and samples.

    <name> is the split, or <dataset>_<config>_<split> for a dataset other than the run's own. A dataset with a
    protocol of its own (`protocols.PROTOCOLS`) also gets that protocol's tables: `benchmark` in the result,
    <name>_protocol.{md,csv}.

    Args:
      workdir: of a run that has saved a checkpoint.
      split: which part of the dataset.
      data_dir: where the data is now, if it moved since training.
      batch_size: frames at a time; does not change the result.
      dataset: name of a prepared dataset; None for the run's own, the first of a mixture.

    Returns:
      The table as written to the JSON file.

    Raises:
      UserError: no run, no checkpoint, no such split, data that differs from what the run trained on, a layout without
        joints that the protocol scores, or frames or people of another split that the network has seen in training.
    """
    workdir = pathlib.Path(workdir)
    check_field(batch_size >= 1, "batch_size", batch_size, ">= 1")
    config, record = load_run(workdir)
    opened = _open(config, record, data_dir, dataset, workdir)
    layout, family = skeleton(config.inputs.skeleton), opened.name.partition("/")[0]
    if family in PROTOCOLS:
        PROTOCOLS[family].check_joints(layout)
    seen, own = load_seen(workdir), dataset is None
    trained_on_it = own and bool(set(split.split("+")) & set(config.train_split.split("+")))
    if not trained_on_it:
        check_test(seen, opened, split)
    warnings = ["the network was trained on these frames"] if trained_on_it else []
    warnings += filter(None, [unknown_overlap(seen, opened, split)])
    mesh = sharding.data_mesh()
    state = restore_run(workdir, config, mesh)
    tell = functools.partial(example_labels, enlarged=config.inputs.image_size / opened.image_size)
    frames = score_split(config, state, opened, split, mesh, batch_size=batch_size, labels=tell)
    name = split if own else re.sub("[/=]", "_", f"{opened.name}_{split}")
    result = table(frames, frames["action"], layout, _baseline(opened, frames, layout)) | {
        "protocol": protocol_words(config, opened, split, seen, warnings),
        "name": name,
        "dataset": opened.name,
        "split": split,
        "strategy": config.network.strategy,
        "checkpoint_step": int(state.step),
    }
    if not own:
        result["baseline"]["name"] += f" of {opened.name}"
    if family in PROTOCOLS:
        result["benchmark"] = _benchmark(PROTOCOLS[family], frames, opened, split, seen, config, warnings)
        write_text(workdir / "eval" / f"{name}_protocol.md", protocol_markdown(result["benchmark"]))
        write_text(workdir / "eval" / f"{name}_protocol.csv", protocol_csv(result["benchmark"]))
    write_samples(workdir / "eval" / f"{name}_samples.npz", config, opened, split, frames)
    write_tables(workdir / "eval", name, result)
    return result


def _open(
    config: Config, record: DatasetRecord, data_dir: pathlib.Path | None, dataset: str | None, workdir: pathlib.Path
) -> PoseDataset:
    """The dataset to score; the run's own has to be what it was trained on."""
    folder = data_dir or pathlib.Path(record.data_dir)
    if dataset is not None:
        return open_dataset(dataset, folder, config.inputs.image_size, config.seed)
    name = parse_mixture(config.dataset)[0][0]
    opened = open_dataset(name, folder, config.inputs.image_size, config.seed)
    expected = record.fingerprint.split("+")[0]
    if opened.fingerprint != expected:
        raise UserError(
            f"the data in {folder} is not what {workdir} was trained on (fingerprint {opened.fingerprint}, expected "
            f"{expected}); prepare it alike or give --data-dir"
        )
    return opened


def example_labels(example: Mapping[str, Any], enlarged: float) -> dict[str, Any]:
    """What an example says of itself: texts, '' where it does not, and `head_size_px`, 0 if unknown.

    Args:
      enlarged: px of the network's input for each px of the stored picture; the head's size is told in the former,
        as the 2D joints that are scored.
    """
    names = ("subject", "action", "sequence", "camera_name")
    texts = {name: np.str_(text(example.get(name, ""))) for name in names}
    return {**texts, "head_size_px": np.float64(enlarged * float(example.get("head_size_px", 0)))}


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
    config: Config,
    warnings: Sequence[str],
) -> dict[str, Any]:
    people = sorted({name for part in seen if part.family == dataset.family for name in part.subjects})
    strategy, fed = config.network.strategy, _input_words(config, dataset, split)
    alone = {"image": "; this network reads the crops alone", "heatmap": "; this network reads the heatmaps alone"}
    differs = []
    if strategy != "image" and fed.endswith(_MADE):
        differs.append("the network is given the true 2D joints, as heatmaps")
    trained_on_it = any(part.family == dataset.family for part in seen)
    if trained_on_it and config.train_split == "train" and "validation" in dataset.splits:
        differs.append("trained without the held-out validation part")
    return score_protocol(
        protocol,
        frames,
        frames,
        skeleton(config.inputs.skeleton),
        training_subjects=people,
        description=dict(dataset.description),
        split=split,
        network_input=fed + alone.get(strategy, ""),
        differs=differs,
        warnings=warnings,
    )


def evaluation_text(result: dict[str, Any]) -> str:
    """The tables for a terminal: the general one where anything is known in 3D, and the benchmark's."""
    parts = [markdown(result)] if result["mpjpe_mm"] is not None or "benchmark" not in result else []
    parts += [protocol_markdown(result["benchmark"])] if "benchmark" in result else []
    return "\n".join(parts)


def protocol_words(
    config: Config, dataset: PoseDataset, split: str, seen: Sequence[Seen], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """What a number means: who, which frames, which root and joints, which alignment, mean over what.

    Args:
      warnings: what casts doubt on it, beside the dataset's own warning.
    """
    layout = skeleton(config.inputs.skeleton)
    people = [name for part in split.split("+") for name in dataset.subjects.get(part, [])]
    doubts = [*warnings, *filter(None, [dataset.description.get("warning")])]
    return {
        "dataset": dataset.name,
        "split": split,
        "subjects": people or "unknown",
        "training data": [part.dataset for part in seen],
        "training subjects": sorted({name for part in seen for name in part.subjects}) or "unknown",
        **dataset.description,
        **({"warning": "; ".join(doubts)} if doubts else {}),
        "scoring": "every frame of the split once, no batch dropped",
        "input": _input_words(config, dataset, split),
        "root": " and ".join(layout.root),
        "joints": f"{layout.num_joints} ({layout.name}), the root counted",
        "unit and frame": "mm, camera frame, relative to the root",
        "alignment": ALIGNMENTS,
        "mean": "over frames of the mean over a frame's joints; action_mean_* over the actions' means",
    }


def _input_words(config: Config, dataset: PoseDataset, split: str) -> str:
    heatmaps = "stored with the data" if "heatmap" in dataset.split(split)[0] else _MADE
    return f"{config.inputs.image_size} px crops; heatmaps {heatmaps}"


def write_samples(
    path: pathlib.Path, config: Config, dataset: PoseDataset, split: str, frames: dict[str, np.ndarray]
) -> None:
    """Saves the best, median and worst frames with pictures, heatmaps and both poses, for the report."""
    rows, kinds = pick_samples(frames)
    index = frames["index"][rows]
    examples = [dataset.split(split)[int(i)] for i in index]
    wanted = dataclasses.replace(dataset, splits={"samples": examples})
    (batch,) = eval_batches(
        wanted,
        "samples",
        target=skeleton(config.inputs.skeleton),
        image_size=config.inputs.image_size,
        batch_size=len(rows),
    )
    batch = place_batch(batch, dataset, sharding.data_mesh(jax.local_devices()[:1]))
    inputs = network_inputs(batch, config.inputs)
    arrays = {
        "image": np.asarray(np.round(np.asarray(inputs["image"]) * 255), np.uint8),
        "heatmap": np.asarray(inputs["heatmap"], np.float16),
        "joints2d": np.asarray(batch["joints2d"]),
        "true_mm": frames["true_mm"][rows],
        "pred_mm": frames["pred_mm"][rows],
        "valid": frames["valid"][rows],
        "valid2d": np.asarray(batch["valid2d"]),
        "mpjpe_mm": np.ma.masked_array(frames["mpjpe"][rows], ~frames["valid"][rows]).mean(1).filled(np.nan),
        "kind": kinds,
        **{name: np.array([text(e[name]) for e in examples]) for name in ("subject", "action")},
        "sequence": np.array(["/".join(text(e[k]) for k in ("sequence", "camera_name") if k in e) for e in examples]),
        "frame": np.array([int(e["frame"]) for e in examples]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(partial, **arrays)
    os.replace(partial, path)
