"""The report's parts on a run of the 2D network: how it learned, which joints it misses, what it sees in samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fusion_jax import pictures, pose_pictures
from fusion_jax.pictures import SIDE_COLORS, Curve
from fusion_jax.report_page import Section, paragraph, picture, subtitle
from fusion_jax.report_scores import METRICS_2D, baseline_of, no_samples, score_text
from fusion_jax.run_record import Evaluation, RunRecord, Samples2D
from fusion_jax.skeletons import Skeleton
from fusion_jax.training_log import is_number

TASK = (
    "From one photo of a person, this network makes a heatmap for each joint of the body: a map that is bright where "
    "in the photo the joint seems to be. The joint is read off at the brightest place."
)
_TRAIN, _VALIDATION, _BASELINE = "#0072b2", "#d55e00", "#7a7a7a"
_SHARES = ("pckh_0.5", "pck_0.2_torso")
_LABELS = {field: label for field, label, _ in METRICS_2D}


def heatmap_numbers(run: RunRecord) -> list[tuple[str, str]]:
    """The first split's share of right joints and error, how it stands to the mean pose, and the steps."""
    evaluation = run.evaluations[0]
    scores, baseline = evaluation.scores, baseline_of(evaluation)
    share, error, mean = _share(scores), scores["joint_error_px"], baseline.get("joint_error_px")
    numbers = []
    if share is not None:
        numbers.append((score_text(share, scores[share]), f"of joints right ({_LABELS[share]}) on {evaluation.split}"))
    numbers.append((score_text("joint_error_px", error), f"mean distance, in pictures {run.image_size} px across"))
    if mean is not None and is_number(mean) and mean > 0:
        change = 1 - error / mean
        worth = f"{abs(change):.0%} {'less' if change >= 0 else 'more'}"
        numbers.append((worth, f"error than always answering the mean place ({score_text('joint_error_px', mean)})"))
    steps = f"{run.train[-1]['step']:,}" if run.train else "none"
    return [*numbers, (steps, "training steps" if run.train else "training steps here: the weights are imported")]


def heatmap_sections(run: RunRecord) -> list[Section]:
    """Everything between the scores and the settings."""
    sections = [_learning(run)]
    for evaluation in run.evaluations:
        sections += [_errors(run, evaluation), _samples(run, evaluation)]
    return sections


def _share(scores: Mapping[str, Any]) -> str | None:
    """Which share of right joints the scores have: PCKh, where heads are known."""
    return next((name for name in _SHARES if is_number(scores.get(name))), None)


def _learning(run: RunRecord) -> Section:
    if not run.train:
        why = paragraph("These weights were imported and not trained here; imported.json says from which file.", "note")
        return Section("How it learned", "learning", [why], {})
    own = {e.split: baseline_of(e) for e in run.evaluations if e.own}
    baseline = own.get("validation", next(iter(own.values()), {}))
    share = next((name for name in _SHARES if Curve.of(run.validation, name)), None)
    png = pictures.png_bytes(learning_curves(run.train, run.validation, share, baseline))
    caption = (
        "What training minimises (the mean squared error of the heatmaps, summed over the stacks) and what it is "
        "for: joints near where they are. The loss alone says little, as maps that are black everywhere are near the "
        "truth already. Training pictures are varied at random, so they can be the harder ones."
    )
    parts = [picture(png, caption)]
    if not run.validation:
        parts.append(paragraph("The log holds no validation scores, so only training is drawn.", "note"))
    return Section("How it learned", "learning", parts, {"learning_curves": png})


def learning_curves(
    train: Sequence[Mapping], validation: Sequence[Mapping], share: str | None, baseline: Mapping[str, Any]
) -> Figure:
    """The loss, the error in px, and where validation has one the share of right joints, over the steps.

    Args:
      train, validation: log records.
      share: which field of the validation records the last panel shows.
      baseline: scores of the mean training pose, drawn as lines where known.
    """
    figure = Figure(figsize=(4.4 * (3 if share else 2), 3.7), layout="constrained")
    axes = figure.subplots(1, 3 if share else 2)
    _panel(axes[0], "loss", "mean squared error of heatmaps", {"training batches": (Curve.of(train, "loss"), _TRAIN)})
    axes[0].set_yscale("log")
    errors = {
        "training batches": (Curve.of(train, "joint_error_px"), _TRAIN),
        "validation": (Curve.of(validation, "joint_error_px"), _VALIDATION),
    }
    _panel(axes[1], "mean joint distance", "px of the network's input", errors, baseline.get("joint_error_px"))
    axes[1].set_ylim(bottom=0)
    if share:
        found = {"validation": (Curve.of(validation, share), _VALIDATION)}
        _panel(axes[2], f"joints found ({_LABELS[share]})", "share of joints", found, baseline.get(share))
        axes[2].set_ylim(0, 1)
    return figure


def _panel(axis: Axes, title: str, unit: str, curves: Mapping[str, tuple[Curve, str]], baseline: Any = None) -> None:
    for label, (curve, color) in curves.items():
        if curve:
            marker = "o" if label == "validation" else None
            axis.plot(curve.steps, curve.values, color=color, linewidth=1.5, marker=marker, markersize=4, label=label)
    if is_number(baseline):
        axis.axhline(baseline, color=_BASELINE, linestyle="--", label="mean training pose")
    axis.set(title=title, xlabel="step", ylabel=unit)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
    if len(axis.lines) > 1:
        axis.legend(frameon=False)


def _errors(run: RunRecord, evaluation: Evaluation) -> Section:
    """Bars per joint and per action, or a sentence where the evaluation holds none."""
    split, layout, scores = evaluation.split, run.skeleton, evaluation.scores
    joints, actions = _known(scores.get("per_joint")), _known(scores.get("per_action"))
    joints = {name: joints[name] for name in layout.joints if name in joints}
    share, parts, pngs = _share(scores), [], {}
    if joints:
        sides = {name: layout.side(layout.index(name)) for name in joints}
        figure = error_bars(joints, share, [SIDE_COLORS[sides[name]] for name in joints])
        figure.legend(handles=pose_pictures.side_lines(), loc="outside lower center", ncols=3, frameon=False)
        png = pngs[f"{split}_joints"] = pictures.png_bytes(figure)
        caption = (
            "Which joints are hard to find. Those that move far and are often hidden, wrists above all, usually are."
        )
        parts.append(picture(png, caption))
        missing = [name.replace("_", " ") for name in layout.joints if name not in joints]
        if missing:
            parts.append(paragraph(f"Never known in these frames: {', '.join(missing)}.", "note"))
    else:
        parts.append(paragraph("No bars per joint: the evaluation holds no scores per joint.", "note"))
    if len(actions) > 1:
        hardest = sorted(actions, key=lambda name: -actions[name]["joint_error_px"])
        rows = {_counted(name, actions[name]): actions[name] for name in hardest}
        png = pngs[f"{split}_actions"] = pictures.png_bytes(error_bars(rows, share, [_TRAIN] * len(rows)))
        parts.append(picture(png, "Which actions are hard. In brackets: how many frames were scored."))
    else:
        parts.append(paragraph("No bars per action: the evaluation does not tell several actions apart.", "note"))
    return Section(f"Where it errs on {split}", f"breakdown-{split}", parts, pngs)


def _known(entries: Any) -> dict[str, Mapping]:
    """Those of {name: scores} that have an error: a joint that is never known has none."""
    entries = entries if isinstance(entries, Mapping) else {}
    return {k: v for k, v in entries.items() if isinstance(v, Mapping) and is_number(v.get("joint_error_px"))}


def _counted(name: str, scores: Mapping) -> str:
    return f"{name} ({scores['num_frames']:,})" if is_number(scores.get("num_frames")) else name


def error_bars(scores: Mapping[str, Mapping], share: str | None, colors: Sequence[str]) -> Figure:
    """Error in px of each group, in the given order from the top, and beside it its share of right joints, percent.

    Args:
      scores: by what a group is called: `joint_error_px` and, where known, the field `share`.
      share: which share of right joints; none for no second panel.
      colors: of the groups' bars.
    """
    names, rows = list(scores), np.arange(len(scores))[::-1]
    figure = Figure(figsize=(11 if share else 7, 1.3 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2 if share else 1, sharey=True, squeeze=False)[0]
    values = {"joint_error_px": ("error", "mean distance, px of the network's input", "{:.2f}", 1)}
    values |= {share: ("joints found", f"{_LABELS[share]}, %", "{:.0f}", 100)} if share else {}
    for axis, (field, (title, unit, form, times)) in zip(axes, values.items(), strict=True):
        found: list[Any] = [scores[name].get(field) for name in names]
        widths = [times * value if is_number(value) else 0 for value in found]
        labels = [form.format(width) if is_number(value) else "n/a" for width, value in zip(widths, found, strict=True)]
        axis.bar_label(axis.barh(rows, widths, 0.7, color=colors), labels, padding=3, fontsize=9)
        axis.set(title=title, xlabel=unit)
        axis.margins(x=0.1, y=0.02)
        axis.spines[["top", "right"]].set_visible(False)
    if share:
        axes[1].set_xlim(0, 108)  # room for a label beside the longest bar there can be
    axes[0].set_yticks(rows, [name.replace("_", " ") for name in names], parse_math=False)
    return figure


def _samples(run: RunRecord, evaluation: Evaluation) -> Section:
    split, samples, layout = evaluation.split, evaluation.samples2d, run.skeleton
    title, anchor = f"Sample predictions on {split}", f"samples-{split}"
    if samples is None:
        return Section(title, anchor, [no_samples(run, evaluation)], {})
    parts = [paragraph("Left and right are the person's own; a network that confuses them shows crossed limbs.")]
    pngs = {}
    for kind, meaning in pose_pictures.KINDS.items():
        rows = np.flatnonzero(samples.kind == kind)[:3].tolist()
        if rows:
            png = pngs[f"{split}_samples_{kind}"] = pictures.png_bytes(sample_figure(samples, rows, layout), dpi=100)
            caption = (
                f"{meaning} From left to right: the photo with the true joints, with the predicted ones (yellow lines "
                "lead to where they truly are), and all heatmaps in one picture."
            )
            parts += [subtitle(kind.capitalize()), picture(png, caption)]
    row = int(np.flatnonzero(samples.kind == ("median" if "median" in samples.kind else samples.kind[0]))[0])
    png = pngs[f"{split}_heatmaps"] = pictures.png_bytes(channel_figure(samples, row, layout), dpi=100)
    caption = (
        "Each joint's heatmap, made as bright as the brightest; the number is its true peak, from 0 (no idea) to 1. "
        "The cross is where the joint truly is."
    )
    parts += [subtitle("One frame, joint by joint"), picture(png, caption)]
    return Section(title, anchor, parts, pngs)


def sample_title(samples: Samples2D, row: int) -> str:
    """Which frame this is, and its error, in one line."""
    error = samples.joint_error_px[row]
    return pose_pictures.titled(samples, row, error, f"{error:.2f} px")


def sample_figure(samples: Samples2D, rows: Sequence[int], layout: Skeleton) -> Figure:
    """One line of panels a sample: crop with true joints, with predicted joints and their errors, and the heatmaps."""
    figure = Figure(figsize=(11.5, 4.05 * len(rows) + 0.5), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        part.suptitle(sample_title(samples, row), x=0.01, ha="left", weight="bold", parse_math=False)
        crop, found, heat = part.subplots(1, 3)
        image, true, pred = samples.image[row], samples.joints2d[row], samples.pred2d_px[row]
        valid = samples.valid2d[row]
        pose_pictures.draw_crop(crop, image, true, valid, layout)
        crop.set_title("true 2D joints")
        pose_pictures.draw_crop(found, image, pred, np.ones_like(valid), layout)
        for start, end in zip(pred[valid], true[valid], strict=True):
            found.plot(*np.stack([start, end]).T, color="#f5d800", linewidth=1.6, marker=None)
        found.set_title("predicted, and how far off")
        pose_pictures.draw_heatmaps(heat, image, samples.heatmap[row])
        heat.set_title(f"heatmaps, brightest {np.float32(samples.heatmap[row].max()):.2f}")
    error = Line2D([], [], color="#f5d800", linewidth=1.6, label="from predicted to true")
    figure.legend(handles=[*pose_pictures.side_lines(), error], loc="outside lower center", ncols=4, frameon=False)
    return figure


def channel_figure(samples: Samples2D, row: int, layout: Skeleton) -> Figure:
    """One panel a joint: its heatmap over the crop, a cross where it truly is, its name and peak above."""
    columns = 6
    lines = -(-layout.num_joints // columns)
    figure = Figure(figsize=(11.5, 2.15 * lines + 0.4), layout="constrained")
    figure.suptitle(sample_title(samples, row), x=0.01, ha="left", weight="bold", parse_math=False)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    outline = [matplotlib.patheffects.withStroke(linewidth=3.5, foreground="black")]
    for joint, axis in enumerate(axes):
        if joint >= layout.num_joints:
            axis.set_axis_off()
            continue
        pose_pictures.draw_heatmaps(axis, samples.image[row], samples.heatmap[row][..., joint : joint + 1])
        limits = axis.get_xlim(), axis.get_ylim()
        if samples.valid2d[row, joint]:
            place = samples.joints2d[row, joint]
            axis.plot(*place, "+", color="white", markersize=11, markeredgewidth=1.8, path_effects=outline)
        name = layout.joints[joint].replace("_", " ")
        axis.set_title(f"{name}  {samples.confidence[row, joint]:.2f}", fontsize=10)
        axis.set(xlim=limits[0], ylim=limits[1])
    return figure
