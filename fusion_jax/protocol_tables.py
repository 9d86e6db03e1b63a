"""Scored frames to a protocol's tables as JSON data: rows in its order, published numbers under ours, its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.parts import pck2d, pcp_correct, scaled_orthographic
from fusion_jax.protocols import Protocol
from fusion_jax.published import published_for
from fusion_jax.skeletons import Skeleton
from fusion_jax.tables import frame_mean

Frames = dict[str, np.ndarray]
Row = dict[str, Any]
Table = dict[str, Any]
Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # predicted and true joints (N, J, 2 or 3), valid (N, J)


def score_protocol(
    protocol: Protocol,
    frames: Frames,
    labels: Frames,
    skeleton: Skeleton,
    *,
    training_subjects: Sequence[str] | None = None,
    description: dict[str, Any] | None = None,
    split: str = "test",
    network_input: str = "",
    differs: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """All tables of a protocol, as JSON data without NaN: None where there is nothing to average.

    Args:
      protocol: what to measure.
      frames: of `tables.score_batches`: poses (N, J, 3) mm, `valid`, the distances (N, J) mm; for 2D measures also
        `joints2d` (N, J, 2) px and `valid2d` (N, J). A network that predicts 2D joints itself gives `pred2d_px`
        (N, J, 2); else the pose is laid over the true joints by `parts.scaled_orthographic`.
      labels: (N,) arrays `subject`, `action`, `sequence`, `camera_name`, and `head_size_px` (0 unknown) for PCKh.
      skeleton: layout of the J joints.
      training_subjects: who the network was trained on, if known.
      description: of the dataset, printed with the protocol; its `frame_step`, if any, is held against the
        protocol's, and its `warning` stands with the others.
      split: which part of the dataset the frames are; the protocols mean `test`.
      network_input: in words, what the network was fed.
      differs: in what else the evaluation is not the protocol.
      warnings: what else casts doubt on the scores.

    Returns:
      `protocol` (its words), `differs` and `warnings` (sentences), and `tables`: each with `title`, `columns`,
      `notes` and `rows`, each row with `name`, `num_frames`, `values`, `note` and `published`.

    Raises:
      UserError: a label, an array or a joint that the protocol needs is missing, or a score is not finite.
    """
    protocol.check_joints(skeleton)
    labels = _checked_labels(protocol, frames, labels)
    description = dict(description or {})
    doubts = [description.pop("warning")] if "warning" in description else []
    words = protocol.words() | ({"input": network_input} if network_input else {})
    words |= {f"data, {key}": str(text) for key, text in description.items()}
    remarks = [*([f"split {split} instead of test"] if split != "test" else []), *differs]
    tables: list[Table] = []
    if protocol.actions:
        tables += _distance_tables(protocol, frames, labels)
    if protocol.parts or protocol.joint_groups:
        points = _points(protocol, frames)
        if protocol.dims == 2 and "pred2d_px" in frames:
            words["alignment"] = "none: 2D joints as the network predicts them"
        if protocol.parts:
            tables += _part_tables(protocol, points, labels, skeleton)
        if protocol.joint_groups:
            tables.append(_joint_table(protocol, points, labels, skeleton))
    return {
        "protocol": words,
        "differs": [
            *protocol.differences(labels, skeleton, training_subjects, description),
            *(f"differs from the protocol: {remark}" for remark in remarks),
        ],
        "warnings": [*warnings, *doubts, *_outsiders(protocol, labels)],
        "tables": tables,
    }


def _checked_labels(protocol: Protocol, frames: Frames, labels: Frames) -> Frames:
    count = len(frames["pred2d_px" if "pred2d_px" in frames else "pred_mm"])
    needed = ["subject", "action", "sequence", "camera_name"]
    needed += ["head_size_px"] if protocol.joint_groups and not protocol.pck_scale else []
    found = {name: np.asarray(labels[name]) for name in needed if name in labels}
    for name in needed:
        shape = found[name].shape if name in found else "none"
        if shape != (count,):
            raise UserError(f"protocol {protocol.name}: labels need {name} of shape ({count},), got {shape}")
    return found


def _outsiders(protocol: Protocol, labels: Frames) -> list[str]:
    """A sentence for each kind of frames that the protocol does not know."""
    found = []
    fates = (("subject", protocol.test_subjects, "scored with the rest"), ("action", protocol.actions, "in no row"))
    for kind, known, fate in fates:
        outside = ~np.isin(labels[kind], known) if known else np.zeros(len(labels[kind]), bool)
        if outside.any():
            names = ", ".join(sorted(set(labels[kind][outside].tolist())))
            found.append(
                f"{kind} outside the protocol: {names}; these frames ({outside.sum()} of {len(outside)}) are {fate}"
            )
    return found


def _distance_tables(protocol: Protocol, frames: Frames, labels: Frames) -> list[Table]:
    known = np.isin(labels["action"], protocol.actions)
    tables = [_table(protocol, "all frames", _distance_rows(protocol, frames, labels, known))]
    if protocol.excluded:
        faulty = protocol.faulty(labels["sequence"], labels["camera_name"])
        names = ", ".join(" camera ".join(filter(None, pair)) for pair in protocol.excluded)
        notes = [
            f"without {(known & faulty).sum()} frames of {names}",
            "published numbers stand under the table of all frames: none is known to be of these frames alone",
        ]
        rows = _distance_rows(protocol, frames, labels, known & ~faulty)
        tables.append(_table(protocol, "clean", rows, notes, published=False))
    return tables


def _distance_rows(protocol: Protocol, frames: Frames, labels: Frames, chosen: np.ndarray) -> list[Row]:
    def group(name: str, rows: np.ndarray) -> Row:
        valid = frames["valid"][rows]
        values = {c: frame_mean(frames[c.removesuffix("_mm")][rows], valid) for c in protocol.columns}
        return _row(name, int(valid.any(1).sum()), values)

    def mean(name: str, groups: list[Row], kind: str) -> Row:
        return _mean_row(name, groups, kind, sum(row["num_frames"] for row in groups))

    rows, by_action = [], {}
    for action in protocol.actions:
        mine = chosen & (labels["action"] == action)
        by_action[action] = group(action, mine)
        if protocol.by_subject:
            subjects = dict.fromkeys([*protocol.test_subjects, *sorted(set(labels["subject"].tolist()))])
            people = [group(f"{subject} {action}", mine & (labels["subject"] == subject)) for subject in subjects]
            by_action[action] = mean(action, people, "subjects")
            rows += people
        rows.append(by_action[action])
    rows += [mean(name, [by_action[a] for a in actions], "actions") for name, actions in protocol.action_means]
    return [*rows, group("frame mean", chosen)]


def _points(protocol: Protocol, frames: Frames) -> Points:
    if protocol.dims == 3:
        return frames["pred_mm"], frames["true_mm"], frames["valid"]
    missing = [name for name in ("joints2d", "valid2d") if name not in frames]
    if missing:
        raise UserError(f"protocol {protocol.name} is scored in 2D: frames need {' and '.join(missing)}")
    true, valid = frames["joints2d"], frames["valid2d"]
    if "pred2d_px" in frames:
        return frames["pred2d_px"], true, valid
    # One known joint alone would be met exactly, wherever it is predicted.
    return scaled_orthographic(frames["pred_mm"], true, valid), true, valid & (valid.sum(1) >= 2)[:, None]


def _part_tables(protocol: Protocol, points: Points, labels: Frames, skeleton: Skeleton) -> list[Table]:
    if not protocol.by_camera:
        return [_table(protocol, "parts", _part_rows(protocol, points, skeleton))]
    pred, true, valid = points
    chosen = {"parts, all cameras": np.ones(len(pred), bool)}
    chosen |= {f"parts, {name}": labels["camera_name"] == name for name in sorted(set(labels["camera_name"].tolist()))}
    return [
        _table(protocol, title, _part_rows(protocol, (pred[mine], true[mine], valid[mine]), skeleton))
        for title, mine in chosen.items()
    ]


def _part_rows(protocol: Protocol, points: Points, skeleton: Skeleton) -> list[Row]:
    classes = []
    for name, members in protocol.parts:
        pairs = [(skeleton.index(a), skeleton.index(b)) for a, b in members]
        forms = {"pcp_percent": False, "pcp_strict_percent": True}
        shares = {column: pcp_correct(*points, pairs, strict=strict) for column, strict in forms.items()}
        classes.append(_share_row(name, shares))
    return [*classes, _mean_row("all", classes, "classes", max(row["num_frames"] for row in classes))]


def _joint_table(protocol: Protocol, points: Points, labels: Frames, skeleton: Skeleton) -> Table:
    pred, true, valid = points
    true = np.where(valid[..., None], true, 0)
    if protocol.pck_scale:
        a, b = map(skeleton.index, protocol.pck_scale)
        scale = np.where(valid[:, a] & valid[:, b], np.linalg.norm(true[:, a] - true[:, b], axis=-1), 0)
    else:
        scale = labels["head_size_px"]
    unknown = int((~(scale > 0)).sum())
    notes = [f"the length that scales errors is unknown in {unknown} pictures; none of their joints counts"]
    correct, known = pck2d(pred, true, valid, scale, protocol.pck_threshold)
    rows, every = [], []
    for name, joints in protocol.joint_groups:
        members = [skeleton.index(joint) for joint in joints]
        rows.append(_share_row(name, {protocol.pck_column: (correct[:, members], known[:, members])}))
        every += members
    total = {protocol.pck_column: _percent(correct[:, every], known[:, every])}
    rows.append(_row("total", int(known[:, every].any(1).sum()), total))
    return _table(protocol, "joints", rows, notes if unknown else ())


def _share_row(name: str, shares: dict[str, tuple[np.ndarray, np.ndarray]]) -> Row:
    """The mean of M shares, each of the frames in which its member is known; (correct, known) are (N, M) bool."""
    values = {
        column: _mean([_percent(*member) for member in zip(correct.T, known.T, strict=True)])
        for column, (correct, known) in shares.items()
    }
    _, known = next(iter(shares.values()))
    return _row(name, int(known.any(1).sum()), values)


def _mean_row(name: str, rows: list[Row], kind: str, num_frames: int) -> Row:
    """The mean of those rows that have a score, saying how many they are."""
    values = {column: _mean([row["values"][column] for row in rows]) for column in rows[0]["values"]}
    scored = sum(None not in row["values"].values() for row in rows)
    return _row(name, num_frames, values, f"mean of {scored} of {len(rows)} {kind}")


def _row(name: str, num_frames: int, values: dict[str, float | None], note: str = "") -> Row:
    for column, value in values.items():
        if value is not None and not math.isfinite(value):
            raise UserError(f"{name}: {column} is not finite; a prediction or a known joint of its frames is NaN")
    return {"name": name, "num_frames": num_frames, "values": values, "note": note, "published": []}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _percent(correct: np.ndarray, known: np.ndarray) -> float | None:
    return 100 * float(correct.sum() / known.sum()) if known.any() else None


def _table(protocol: Protocol, title: str, rows: list[Row], notes: Sequence[str] = (), published: bool = True) -> Table:
    columns = list(rows[0]["values"])
    for row in rows:
        for record in published_for(protocol.name) if published else ():
            values = {c: v for c, v in record.values.get(row["name"], {}).items() if c in columns}
            if values:
                row["published"].append(
                    {"name": record.name, "values": values, "source": record.source, "note": record.note}
                )
    return {"title": title, "columns": columns, "notes": list(notes), "rows": rows}
