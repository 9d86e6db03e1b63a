"""Evaluating a run: restore its newest checkpoint, score every frame of a split, write tables and samples."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np

from data_pipelines.loader import eval_batches, pose_statistics
from data_pipelines.prepared import PoseDataset
from data_pipelines.samples import text
from fusion_jax import sharding
from fusion_jax.checkpoint import Checkpoints, load_run
from fusion_jax.config import Config
from fusion_jax.datasets import open_dataset
from fusion_jax.errors import UserError, check_field
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState
from fusion_jax.steps import network_inputs
from fusion_jax.tables import ALIGNMENTS, baseline_frames, pick_samples, table, write_tables
from fusion_jax.train import initial_state, place_batch, score_split


def evaluate_run(
    workdir: pathlib.Path, split: str = "test", data_dir: pathlib.Path | None = None, batch_size: int = 64
) -> dict[str, Any]:
    """Scores the newest checkpoint on every frame of `split`; writes WORKDIR/eval/<split>.{json,md,csv} and samples.

    Args:
      workdir: of a run that has saved a checkpoint.
      split: which part of the run's dataset.
      data_dir: where the data is now, if it moved since training.
      batch_size: frames at a time; does not change the result.

    Returns:
      The table as written to the JSON file.

    Raises:
      UserError: no run, no checkpoint, no such split, or data that differs from what the run trained on.
    """
    workdir = pathlib.Path(workdir)
    check_field(batch_size >= 1, "batch_size", batch_size, ">= 1")
    config, record = load_run(workdir)
    dataset = open_dataset(
        config.dataset, data_dir or pathlib.Path(record.data_dir), config.inputs.image_size, config.seed
    )
    if dataset.fingerprint != record.fingerprint:
        raise UserError(
            f"the data in {data_dir or record.data_dir} is not what {workdir} was trained on (fingerprint "
            f"{dataset.fingerprint}, expected {record.fingerprint}); prepare it alike or give --data-dir"
        )
    mesh = sharding.data_mesh()
    state = load_state(workdir, config, dataset, mesh)
    frames = score_split(config, state, dataset, split, mesh, batch_size=batch_size)
    examples = dataset.split(split)
    actions = np.array([text(examples[int(i)]["action"]) for i in frames["index"]])
    layout = skeleton(config.inputs.skeleton)
    mean_pose, _ = pose_statistics(dataset, layout)
    result = table(frames, actions, layout, baseline_frames(frames, mean_pose)) | {
        "protocol": protocol(config, dataset, split),
        "strategy": config.network.strategy,
        "checkpoint_step": int(state.step),
    }
    write_samples(workdir / "eval" / f"{split}_samples.npz", config, dataset, split, frames)
    write_tables(workdir / "eval", split, result)
    return result


def load_state(workdir: pathlib.Path, config: Config, dataset: PoseDataset, mesh: jax.sharding.Mesh) -> TrainState:
    """The newest checkpoint's state on the mesh. Raises UserError where there is none."""
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(initial_state(config, dataset, mesh))[0]
    finally:
        checkpoints.close()


def protocol(config: Config, dataset: PoseDataset, split: str) -> dict[str, Any]:
    """What a number means: who, which frames, which root and joints, which alignment, mean over what."""
    layout = skeleton(config.inputs.skeleton)
    return {
        "dataset": dataset.name,
        "split": split,
        "subjects": dataset.subjects[split],
        "training subjects": dataset.subjects["train"],
        **dataset.description,
        "scoring": "every frame of the split once, no batch dropped",
        "input": f"{config.inputs.image_size} px crops; heatmaps from true 2D joints",
        "root": " and ".join(layout.root),
        "joints": f"{layout.num_joints} ({layout.name}), the root counted",
        "unit and frame": "mm, camera frame, relative to the root",
        "alignment": ALIGNMENTS,
        "mean": "over frames of the mean over a frame's joints; action_mean_* over the actions' means",
    }


def write_samples(
    path: pathlib.Path, config: Config, dataset: PoseDataset, split: str, frames: dict[str, np.ndarray]
) -> None:
    """Saves the best, median and worst frames with pictures, heatmaps and both poses, for the report."""
    rows, kinds = pick_samples(frames)
    index = frames["index"][rows]
    examples = [dataset.split(split)[int(i)] for i in index]
    wanted = dataclasses.replace(dataset, splits={split: examples})
    (batch,) = eval_batches(
        wanted,
        split,
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
