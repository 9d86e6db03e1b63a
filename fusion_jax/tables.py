"""Per-frame scores to tables: means over frames and actions, per action, per joint, as JSON, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fusion_jax import metrics
from fusion_jax.distributed import gather_rows
from fusion_jax.errors import UserError
from fusion_jax.records import write_json, write_text
from fusion_jax.skeletons import Skeleton

DISTANCES = ("mpjpe", "pa_mpjpe", "pa_mpjpe_reflection", "n_mpjpe")
COLUMNS = (*(f"{name}_mm" for name in DISTANCES), "pck_150mm", "auc")

ALIGNMENTS = {
    "mpjpe_mm": "none",
    "pa_mpjpe_mm": "rotation, translation, scale per frame",
    "pa_mpjpe_reflection_mm": "as pa_mpjpe, mirror images admitted",
    "n_mpjpe_mm": "scale per frame",
    "pck_150mm": "none; share of joints within 150 mm",
    "auc": "none; mean share within 0, 5, .., 150 mm",
}


def score_batches(score: Callable, batches: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Per-frame results of all batches, padding removed: what `score` gives, true poses (N, J, 3) mm, `index` (N,).

    Several processes give their shares of the frames, as many batches each, and get those of all, in the split's order.
    With 2D joints also `joints2d` (N, J, 2) px and `valid2d` (N, J), and what `labels` of the batches hold, (N,) each.

    Args:
      score: batch -> dict of (B, ...) arrays such as `steps.eval_step` or `heatmap_steps.heatmap_eval_step` gives.
      batches: with `mask`, `index`, `pose_mm` and `valid`.

    Raises:
      UserError: no frame at all, or a prediction that is not finite.
    """
    parts: list[dict[str, np.ndarray]] = []
    for batch in batches:
        keep = np.asarray(batch["mask"])
        result = score(batch) | {
            "true_mm": batch["pose_mm"],
            "valid": batch["valid"],
            "index": batch["index"],
        }
        result |= {name: batch[name] for name in ("joints2d", "valid2d") if name in batch}
        result |= batch.get("labels", {})
        parts.append({name: np.asarray(value)[keep] for name, value in result.items()})
    frames = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    if parts:
        frames = gather_rows(frames, order_by="index")
    if not parts or not len(frames["index"]):
        raise UserError("there is no frame to evaluate; the split is empty")
    for name in {"pred_mm", "pred2d_px"} & frames.keys():
        if not np.isfinite(frames[name]).all():
            raise UserError("the network predicted joints that are not finite; its checkpoint is damaged")
    return frames


def baseline_frames(frames: dict[str, np.ndarray], mean_pose_mm: np.ndarray) -> dict[str, np.ndarray]:
    """The same frames scored for someone who always answers the mean training pose (J, 3) mm."""
    pred = np.broadcast_to(mean_pose_mm, frames["true_mm"].shape)
    distances = metrics.aligned_distances_mm(*map(jnp.asarray, (pred, frames["true_mm"], frames["valid"])))
    return frames | {name: np.asarray(value) for name, value in distances.items()} | {"pred_mm": pred}


def summarise(frames: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)) -> dict[str, float | None]:
    """The columns of a table over chosen frames: the mean over frames of the mean over a frame's valid joints.

    None (printed n/a) for a group without a valid joint.
    """
    valid = frames["valid"][rows]
    columns = {f"{name}_mm": frames[name][rows] for name in DISTANCES}
    columns["pck_150mm"] = np.asarray(metrics.pck(jnp.asarray(frames["mpjpe"][rows])))
    columns["auc"] = np.asarray(metrics.auc(jnp.asarray(frames["mpjpe"][rows])))
    return {name: frame_mean(values, valid) for name, values in columns.items()}


def frame_mean(values: np.ndarray, valid: np.ndarray) -> float | None:
    """The mean over frames of the mean over a frame's valid joints, both (N, J); None where no joint is valid."""
    count = valid.sum(1)
    if not count.any():
        return None
    per_frame = np.where(valid, values, 0).sum(1, dtype=np.float64) / np.maximum(count, 1)
    return float(per_frame[count > 0].mean())


def table(
    frames: dict[str, np.ndarray], actions: np.ndarray, skeleton: Skeleton, baseline: dict[str, np.ndarray]
) -> dict[str, Any]:
    """All numbers of an evaluation: over frames, over actions, per action, per joint, and the baseline's.

    Args:
      frames: of `score_batches`.
      actions: (N,) action name of each frame.
      skeleton: names of the J joints.
      baseline: of `baseline_frames`.
    """
    per_action = {
        str(name): {**summarise(frames, actions == name), "num_frames": int((actions == name).sum())}
        for name in sorted(set(actions))
    }
    per_joint = {}
    for j, joint in enumerate(skeleton.joints):
        one = {name: frames[name][:, j : j + 1] for name in (*DISTANCES, "valid")}
        per_joint[joint] = summarise(one)
    action_means: dict[str, float | None] = {}
    for column in COLUMNS:
        known = [score for row in per_action.values() if (score := row[column]) is not None]
        action_means[f"action_mean_{column}"] = float(np.mean(known)) if known else None
    return {
        **summarise(frames),
        "num_frames": len(frames["index"]),
        **action_means,
        "baseline": {"name": "mean training pose", **summarise(baseline)},
        "per_action": per_action,
        "per_joint": per_joint,
    }


def pick_samples(frames: dict[str, np.ndarray], count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the best, median and worst `count` frames by mpjpe, and their (N,) kinds.

    Where no frame has a 3D joint nothing is best or worst: frames evenly spaced, of the kind `any`.
    """
    error = np.ma.masked_array(frames["mpjpe"], ~frames["valid"]).mean(1).filled(np.inf)
    order = np.argsort(error, kind="stable")[: int(np.isfinite(error).sum())]
    if not len(order):
        rows = np.unique(np.linspace(0, len(error) - 1, 3 * count).astype(int))
        return rows, np.repeat(["any"], len(rows))
    count = max(1, min(count, len(order) // 3))
    middle = max(0, len(order) // 2 - count // 2)
    picks = {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
    return np.concatenate(list(picks.values())), np.repeat(list(picks), [len(rows) for rows in picks.values()])


def write_tables(folder: pathlib.Path, split: str, result: dict[str, Any]) -> pathlib.Path:
    """Writes <split>.json, .md and .csv; returns the JSON's path."""
    write_text(folder / f"{split}.md", markdown(result))
    write_text(folder / f"{split}.csv", csv_rows(result))
    write_json(folder / f"{split}.json", result)
    return folder / f"{split}.json"


def markdown(result: dict[str, Any]) -> str:
    """The tables as Markdown, the protocol underneath."""
    mean = {name: result[f"action_mean_{name}"] for name in COLUMNS}
    rows = [("mean pose (baseline)", result["baseline"]), ("all frames", result), ("mean of actions", mean)]
    rows += [(f"action {name}", row) for name, row in result["per_action"].items()]
    rows += [(f"joint {name}", row) for name, row in result["per_joint"].items()]
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    lines += [
        f"| {name} | {' | '.join(format_score(row[column], column) for column in COLUMNS)} |" for name, row in rows
    ]
    return "\n".join(
        [*lines, "", *(f"- {key}: {protocol_text(value)}" for key, value in result["protocol"].items()), ""]
    )


def format_score(value: float | None, column: str) -> str:
    """'81.3' for mm and percent, '0.913' for shares, 'n/a' where there is nothing to average."""
    return "n/a" if value is None else f"{value:.1f}" if column.endswith(("_mm", "_percent")) else f"{value:.3f}"


def protocol_text(value: Any) -> str:
    """A protocol entry in one line."""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def csv_rows(result: dict[str, Any]) -> str:
    """One row per group: kind, name, num_frames, the columns, and the protocol they all follow."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "name", "num_frames", *COLUMNS, "protocol"])
    protocol = "; ".join(
        f"{key}: {protocol_text(result['protocol'][key])}" for key in ("dataset", "split", "subjects", "root", "joints")
    )
    total = result["num_frames"]
    groups = [
        ("all", "frames", total, result),
        ("baseline", result["baseline"]["name"], total, result["baseline"]),
    ]
    groups += [("action", name, row["num_frames"], row) for name, row in result["per_action"].items()]
    groups += [("joint", name, total, row) for name, row in result["per_joint"].items()]
    for kind, name, count, row in groups:
        writer.writerow([kind, name, count, *("" if row[c] is None else f"{row[c]:.4f}" for c in COLUMNS), protocol])
    return out.getvalue()
