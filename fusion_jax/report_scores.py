"""The report's parts about scores: headline, comparison of runs, bars by action and by joint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusion_jax import pictures
from fusion_jax.report_page import Section, definitions, paragraph, picture, subtitle, table
from fusion_jax.run_record import Evaluation, RunRecord, Task
from fusion_jax.training_log import Record, is_number

METRICS = (
    ("mpjpe_mm", "MPJPE", "mean distance between predicted and true joint"),
    ("pa_mpjpe_mm", "PA-MPJPE", "after the best rotation, shift and scale of each pose: is its shape right?"),
    (
        "pa_mpjpe_reflection_mm",
        "PA-MPJPE, mirror images allowed",
        "as the paper's own evaluation code aligns",
    ),
    ("n_mpjpe_mm", "N-MPJPE", "after the best scale of each pose alone: size does not count"),
    ("action_mean_mpjpe_mm", "MPJPE, mean over actions", "each action counts alike, whatever its frames"),
    ("pck_150mm", "PCK at 150 mm", "share of joints at most 150 mm off; more is better"),
    ("auc", "AUC", "that share, averaged over limits from 0 to 150 mm; more is better"),
)
METRICS_2D = (
    ("pckh_0.5", "PCKh at 0.5", "share of joints at most half the head's length off; more is better"),
    ("pck_0.2_torso", "PCK at 0.2", "share of joints at most 0.2 of the torso's length off; more is better"),
    ("joint_error_px", "joint error", "mean distance between predicted and true joint, px of the network's input"),
)
_SHARES = ("pck_150mm", "auc", "pckh_0.5", "pck_0.2_torso")  # in [0, 1], more is better


class _Scored(NamedTuple):
    """How scores of one task are shown: sentences, (field, label, meaning) of each, those to compare runs by."""

    intro: str
    metrics: Sequence[tuple[str, str, str]]
    compared: Sequence[str]
    network: str


_TASKS: dict[Task, _Scored] = {
    "pose": _Scored(
        "Errors are distances between predicted and true joints, so smaller is better. The baseline answers every "
        "photo with the mean pose of the training set: a network that has learned nothing from the photo is no "
        "better than that.",
        METRICS,
        ("mpjpe_mm", "pa_mpjpe_mm", "n_mpjpe_mm", "pck_150mm", "auc"),
        "strategy",
    ),
    "heatmaps": _Scored(
        "PCK is the percentage of correct keypoints: joints that are found near enough to where they are, measured by "
        "the person's own size. The baseline puts every joint at its mean place in the training crops: a network "
        "that has learned nothing from the photo is no better than that.",
        METRICS_2D,
        ("pckh_0.5", "pck_0.2_torso", "joint_error_px"),
        "network",
    ),
}


def headline_section(run: RunRecord) -> Section:
    """For every split a table of scores beside the baseline's, and the protocol they were measured under."""
    shown = _TASKS[run.task]
    parts = [paragraph(shown.intro)]
    trained = run.train[-1]["step"] if run.train else None
    for evaluation in run.evaluations:
        scores, baseline = evaluation.scores, baseline_of(evaluation)
        scored = scores.get("checkpoint_step")
        if None not in (trained, scored) and scored != trained:
            parts.append(
                paragraph(
                    f"Beware: these are the scores after step {scored}, but the run has gone on to step {trained}; "
                    f"score it again with: {evaluation.command(run.workdir)}"
                )
            )
        rows = [
            (label, score_text(field, scores.get(field)), score_text(field, baseline.get(field)), meaning)
            for field, label, meaning in shown.metrics
            if field in scores and not (scores[field] is None and "benchmark" in scores)
        ]
        header = ["", "this run", _name(baseline), "what it says"]
        parts.append(subtitle(f"Scores on {evaluation.split}"))
        if rows:
            parts.append(table(header, rows, numeric=(1, 2)))
        else:
            parts.append(paragraph("Nothing is known of these frames in 3D; the benchmark's own scores are below."))
        parts.append(definitions(_protocol(scores)))
    return Section("Scores", "scores", parts, {})


def _protocol(scores: Record) -> list[tuple[str, str]]:
    known = [("frames scored", _count(scores.get("num_frames")))]
    if "num_joints" in scores:
        known.append(("joints scored", _count(scores["num_joints"])))
    if "checkpoint_step" in scores:
        known.append(("checkpoint", f"step {scores['checkpoint_step']}"))
    protocol = _mapping(scores.get("protocol")).items()
    return known + [(str(key).replace("_", " "), _plain(value)) for key, value in protocol]


def comparison_section(runs: Sequence[RunRecord]) -> Section:
    """One table for each split of the first run, its best numbers stressed, and which rows do not compare."""
    parts = [paragraph("The same split, scored for several runs. The best number of each column stands out.")]
    shown = _TASKS[runs[0].task]
    names = _short_names([run.workdir for run in runs])
    labels = {field: label for field, label, _ in shown.metrics}
    header = ["run", shown.network, *(labels[field] for field in shown.compared), "frames"]
    for evaluation in runs[0].evaluations:
        found = [{e.split: e.scores for e in run.evaluations}.get(evaluation.split) for run in runs]
        rows = [
            [name, network_label(run), *_score_cells(scores or {}, shown.compared)]
            for name, run, scores in zip(names, runs, found, strict=True)
        ]
        baseline = baseline_of(evaluation)
        rows.append([_name(baseline), "none", *_score_cells(baseline, shown.compared)])
        parts.append(subtitle(f"On {evaluation.split}"))
        best = _best_cells(found, shown.compared)
        parts.append(table(header, rows, numeric=range(2, len(header)), best=best))
        parts += [paragraph(note, "note") for note in _caveats(names, runs, found, evaluation)]
    return Section("Comparison", "comparison", parts, {})


def _score_cells(scores: Mapping, fields: Sequence[str]) -> list[str]:
    return [*(score_text(f, scores.get(f)) for f in fields), _count(scores.get("num_frames"))]


def _best_cells(found: Sequence[Record | None], fields: Sequence[str]) -> list[tuple[int, int]]:
    """(row, column) of the best run of each column; the baseline below the runs does not take part."""
    cells = []
    for column, field in enumerate(fields, start=2):
        known = {row: s[field] for row, s in enumerate(found) if s and is_number(s.get(field))}
        if known:
            best = (max if field in _SHARES else min)(known.values())
            cells += [(row, column) for row, value in known.items() if value == best]
    return cells


def _caveats(
    names: Sequence[str], runs: Sequence[RunRecord], found: Sequence[Record | None], evaluation: Evaluation
) -> list[str]:
    """Sentences on runs without this split, or scored differently from the first one."""
    notes = []
    ours = _conditions(found[0] or {})
    for name, run, scores in zip(names, runs, found, strict=True):
        if scores is None:
            notes.append(
                f"{name} has no scores on {evaluation.split}; to make them run {evaluation.command(run.workdir)}"
            )
            continue
        theirs = _conditions(scores)
        differ = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if differ and run.task == "heatmaps" and set(differ) <= {"input", "unit and frame"}:
            notes.append(f"Beware: {name} reads pictures of another size: shares compare, px do not.")
        elif differ:
            notes.append(f"Beware: {name} was scored differently ({', '.join(differ)}), its row is not comparable.")
    return notes


def _conditions(scores: Record) -> dict[str, Any]:
    return {**_mapping(scores.get("protocol")), "number of frames": scores.get("num_frames")}


def breakdown_section(run: RunRecord, evaluation: Evaluation) -> Section:
    """Bars per action and per joint, or a sentence where the evaluation holds none."""
    split, layout, scores = evaluation.split, run.skeleton, evaluation.scores
    actions, per_joint = _scored(scores.get("per_action")), _scored(scores.get("per_joint"))
    joints = {name: per_joint[name]["mpjpe_mm"] for name in layout.joints if name in per_joint}
    parts: list[str] = []
    pngs: dict[str, bytes] = {}
    if actions:
        mean = scores.get("action_mean_mpjpe_mm")
        figure = pictures.action_bars(actions, mean if is_number(mean) else None)
        png = pngs[f"{split}_actions"] = pictures.png_bytes(figure)
        parts.append(picture(png, "Which actions are hard. In brackets: how many frames were scored."))
    else:
        parts.append(paragraph("No bars per action: the evaluation holds no scores per action.", "note"))
    if joints:
        sides = {name: layout.side(layout.index(name)) for name in joints}
        png = pngs[f"{split}_joints"] = pictures.png_bytes(pictures.joint_bars(joints, sides))
        caption = (
            "Which joints are hard. Positions are relative to the root, so joints far from it, along arms "
            "and legs, move most and are the hardest to place."
        )
        parts.append(picture(png, caption))
    else:
        parts.append(paragraph("No bars per joint: the evaluation holds no scores per joint.", "note"))
    return Section(f"By action and joint on {split}", f"breakdown-{split}", parts, pngs)


def no_samples(run: RunRecord, evaluation: Evaluation) -> str:
    """A sentence in the place of the sample frames, and the command that makes them."""
    command = evaluation.command(run.workdir)
    why = f"No pictures: {evaluation.split}_samples.npz is missing or empty; to make it run again: {command}"
    return paragraph(why, "note")


def baseline_of(evaluation: Evaluation) -> Mapping:
    """The scores of always answering the mean training pose; empty where the evaluation has none."""
    return _mapping(evaluation.scores.get("baseline"))


def network_label(run: RunRecord) -> str:
    """What kind of network a run is of, in a few words."""
    if run.task == "pose":
        return strategy_label(run)
    network = run.config["network"]
    stacks, width = network.get("stacks"), network.get("features")
    return f"hourglass, {stacks} {'stack' if stacks == 1 else 'stacks'}, {width} wide"


def strategy_label(run: RunRecord) -> str:
    """The strategy's name, with its layer where that was set by hand."""
    beta = run.config["network"].get("beta")
    return f"fixed, β = {beta:g}" if run.strategy == "fixed" and is_number(beta) else run.strategy


def score_text(field: str, value: Any) -> str:
    """A score with its unit as plain text; a dash where there is none.

    >>> score_text("mpjpe_mm", 61.54), score_text("auc", 0.5), score_text("auc", None)
    ('61.5 mm', '50.0 %', '—')
    >>> score_text("joint_error_px", 1.236)
    '1.24 px'
    """
    if not is_number(value):
        return "—"
    if field in _SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.2f} px" if field.endswith("_px") else f"{value:.1f} mm"


def _scored(entries: Any) -> dict[str, Mapping]:
    """Those of {name: scores} that have an mpjpe: a joint that is never valid has none."""
    return {k: v for k, v in _mapping(entries).items() if is_number(_mapping(v).get("mpjpe_mm"))}


def _name(baseline: Mapping) -> str:
    return str(baseline.get("name", "baseline"))


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> str:
    return f"{value:,}" if is_number(value) else "—"


def _plain(value: Any) -> str:
    """A protocol entry as a line of text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    return ", ".join(_plain(v) for v in value) if isinstance(value, list) else str(value)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Folder names, or whole paths where two folders are called alike."""
    names = [path.resolve().name for path in paths]
    return [str(path) if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]
