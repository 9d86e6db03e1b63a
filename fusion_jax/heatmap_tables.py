"""Scores of 2D joints: PCKh, PCK and the distance in px, over frames, actions and joints, as JSON data and text."""

from __future__ import annotations

import csv
import io
import pathlib
from typing import Any

import numpy as np

from fusion_jax.parts import pck2d
from fusion_jax.records import write_json, write_text
from fusion_jax.skeletons import Skeleton
from fusion_jax.tables import format_score, pick_samples, protocol_text

COLUMNS_2D = ("pckh_0.5", "pck_0.2_torso", "joint_error_px")
TORSO = ("right_shoulder", "left_hip")
"""The ends of the torso's length."""

Frames = dict[str, np.ndarray]


def torso_px(frames: Frames, layout: Skeleton) -> np.ndarray:
    """True length (N,) px of each frame's torso; 0 where an end is not known or not in the layout."""
    true, valid = frames["joints2d"], frames["valid2d"]
    if not set(TORSO) <= set(layout.joints):
        return np.zeros(len(true))
    a, b = map(layout.index, TORSO)
    return np.where(valid[:, a] & valid[:, b], np.linalg.norm(true[:, a] - true[:, b], axis=-1), 0)


def summarise2d(
    frames: Frames, layout: Skeleton, rows: np.ndarray | slice = slice(None), joints: slice = slice(None)
) -> dict[str, float | None]:
    """Shares of right joints in [0, 1] and the mean distance in px of the network's input, over known joints.

    None where nothing is known: `pckh_0.5` needs `head_size_px`, `pck_0.2_torso` a layout with the torso's corners.

    Args:
      frames: `pred2d_px`, `joints2d` (N, K, 2) px, `valid2d` (N, K) bool, `head_size_px` (N,) px, 0 where unknown.
      layout: of the joints.
      rows: the frames that count.
      joints: the joints that count.
    """
    pred, true, valid = (frames[name][rows, joints] for name in ("pred2d_px", "joints2d", "valid2d"))
    distance = np.linalg.norm(pred - true, axis=-1)
    return {
        "pckh_0.5": _share(*pck2d(pred, true, valid, frames["head_size_px"][rows], 0.5)),
        "pck_0.2_torso": _share(*pck2d(pred, true, valid, torso_px(frames, layout)[rows], 0.2)),
        "joint_error_px": float(distance[valid].mean()) if valid.any() else None,
    }


def _share(correct: np.ndarray, known: np.ndarray) -> float | None:
    return float(correct[known].mean()) if known.any() else None


def table2d(frames: Frames, layout: Skeleton, baseline: Frames) -> dict[str, Any]:
    """All numbers of an evaluation: over frames, per action, per joint, and the baseline's.

    Each group of frames comes with `num_frames`, and each with `num_joints`, how many joints are known in 2D.

    Args:
      frames: as in `summarise2d`, and `action` (N,).
      layout: of the K joints.
      baseline: the same frames, with what is predicted without looking.
    """

    def group(rows: np.ndarray) -> dict[str, Any]:
        counts = {"num_frames": int(rows.sum()), "num_joints": int(frames["valid2d"][rows].sum())}
        return {**summarise2d(frames, layout, rows), **counts}

    actions = frames["action"]
    per_joint = {
        joint: {
            **summarise2d(frames, layout, joints=slice(j, j + 1)),
            "num_joints": int(frames["valid2d"][:, j].sum()),
        }
        for j, joint in enumerate(layout.joints)
    }
    counted = {"num_joints": int(baseline["valid2d"].sum())}
    return {
        **group(np.ones(len(actions), bool)),
        "baseline": {"name": "mean training pose", **summarise2d(baseline, layout), **counted},
        "per_action": {str(name): group(actions == name) for name in sorted(set(actions))},
        "per_joint": per_joint,
    }


def errors_px(frames: Frames) -> np.ndarray:
    """Mean distance (N,) px over each frame's known joints, NaN where none is known."""
    distance = np.linalg.norm(frames["pred2d_px"] - frames["joints2d"], axis=-1)
    return np.ma.masked_array(distance, ~frames["valid2d"]).mean(1).filled(np.nan)


def pick_samples2d(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the best, median and worst frames by `errors_px`, and their kinds, as `tables.pick_samples`."""
    distance = np.linalg.norm(frames["pred2d_px"] - frames["joints2d"], axis=-1)
    return pick_samples({"mpjpe": distance, "valid": frames["valid2d"]})


def write_tables2d(folder: pathlib.Path, name: str, result: dict[str, Any]) -> None:
    """Writes <name>.json, .md and .csv."""
    write_text(folder / f"{name}.md", markdown2d(result))
    write_text(folder / f"{name}.csv", csv_rows2d(result))
    write_json(folder / f"{name}.json", result)


def markdown2d(result: dict[str, Any]) -> str:
    """The table as Markdown, the protocol underneath."""
    columns = [*COLUMNS_2D, "joints"]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for kind, name, row in _groups(result):
        label = {"all": "all frames", "baseline": "mean training pose (baseline)"}.get(kind, f"{kind} {name}")
        scores = [_score(row[column], column) for column in COLUMNS_2D]
        lines.append(f"| {label} | {' | '.join(scores)} | {row['num_joints']} |")
    words = [f"- {key}: {protocol_text(value)}" for key, value in result["protocol"].items()]
    return "\n".join([*lines, "", *words, ""])


def csv_rows2d(result: dict[str, Any]) -> str:
    """One row per group: kind, name, num_frames, num_joints, the columns, and the protocol they all follow."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "name", "num_frames", "num_joints", *COLUMNS_2D, "protocol"])
    words = ("dataset", "split", "subjects", "input", "joints")
    protocol = "; ".join(f"{key}: {protocol_text(result['protocol'][key])}" for key in words)
    for kind, name, row in _groups(result):
        scores = ["" if row[column] is None else f"{row[column]:.4f}" for column in COLUMNS_2D]
        count = row.get("num_frames", result["num_frames"])
        writer.writerow([kind, name, count, row["num_joints"], *scores, protocol])
    return out.getvalue()


def _groups(result: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, name, scores) of every row of a table, in its order."""
    rows = [("baseline", result["baseline"]["name"], result["baseline"]), ("all", "frames", result)]
    for kind in ("action", "joint"):
        rows += [(kind, name, row) for name, row in result[f"per_{kind}"].items()]
    return rows


def _score(value: float | None, column: str) -> str:
    return f"{value:.2f}" if value is not None and column.endswith("_px") else format_score(value, column)
