"""Scores as the authors' release computes them, for numbers to compare with ours.

Its evaluation takes every 4th of the whole batches of 128, and leaves the predicted pelvis where it is.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from data_pipelines.prepared import ChosenExamples, PoseDataset
from fusion_jax.alignment import similarity_align
from fusion_jax.batch import Batch
from fusion_jax.config import Config
from fusion_jax.metrics import joint_distance_mm
from fusion_jax.scoring import score_split
from fusion_jax.state import TrainState
from fusion_jax.steps import predict_step
from fusion_jax.tables import format_score, frame_mean

BATCH, EVERY = 128, 4
_COLUMNS = ("mpjpe_mm", "pa_mpjpe_reflection_mm")


def release_rows(count: int) -> np.ndarray:
    """The (N,) places, among `count` frames in order, that the release scores: of whole batches 0, 4, 8 and so on."""
    whole = np.arange(count // BATCH * BATCH)
    return whole[whole // BATCH % EVERY == 0]


def release_step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """`pred_mm` (B, J, 3) as predicted, and joint distances (B, J) mm: `mpjpe` and `pa_mpjpe_reflection`."""
    pred, true = predict_step(state, batch), batch["pose_mm"]
    aligned = similarity_align(pred, true, batch["valid"], reflection=True)
    return {
        "pred_mm": pred,
        "mpjpe": joint_distance_mm(pred, true),
        "pa_mpjpe_reflection": joint_distance_mm(aligned, true),
    }


def score_release(
    config: Config, state: TrainState, dataset: PoseDataset, split: str, mesh: jax.sharding.Mesh, batch_size: int
) -> dict[str, Any]:
    """A split scored as the release does: the columns of `release_text`, `num_frames`, and the `protocol` in words.

    The columns are None where there is no whole batch or no 3D joint.

    Args:
      config: of the run; the pictures are loaded as they are stored, and brought to its size on the device.
      batch_size: frames at a time; does not change the result, nor which frames are scored.
    """
    examples = dataset.split(split)
    rows = release_rows(len(examples))
    scores: dict[str, Any] = dict.fromkeys(_COLUMNS)
    if len(rows):
        stored = dataclasses.replace(config.inputs, image_size=dataset.image_size)
        frames = score_split(
            dataclasses.replace(config, inputs=stored),
            state,
            dataclasses.replace(dataset, splits={split: ChosenExamples(examples, rows)}),
            split,
            mesh,
            step=release_step,
            batch_size=batch_size,
        )
        scores = {name: frame_mean(frames[name.removesuffix("_mm")], frames["valid"]) for name in _COLUMNS}
    return {**scores, "num_frames": len(rows), "protocol": _words(dataset.image_size, config.inputs.image_size)}


def release_text(result: dict[str, Any]) -> str:
    """The release's scores above ours, of an evaluation with both, and in what they differ; Markdown."""
    release = result["release"]
    lines = [f"| | {' | '.join(_COLUMNS)} | frames |", "|---|---:|---:|---:|"]
    for name, row in (("as the release scores", release), ("as we score", result)):
        shown = [format_score(row[column], column) for column in _COLUMNS]
        lines.append(f"| {name} | {' | '.join(shown)} | {row['num_frames']} |")
    return "\n".join(
        [*lines, "", *(f"- the release's {key}: {words}" for key, words in release["protocol"].items()), ""]
    )


def _words(stored_px: int, input_px: int) -> dict[str, str]:
    return {
        "frames": f"of whole batches of {BATCH}, in the split's order, every {EVERY}th from the first on; the last, "
        "partial batch is dropped. Ours: every frame once",
        "root": "the predicted pelvis is left where it is, and its distance counts. Ours: moved to 0",
        "alignment": "mpjpe: none; pa_mpjpe_reflection: rotation, translation, scale and mirror images, per frame",
        "pictures": f"from {stored_px} px to {input_px} px: bilinear, half-pixel centres, no antialiasing. Ours: also "
        "rounded to whole 255ths",
        "choice of weights": "its authors took the epoch with the best score on the frames that they report",
    }
