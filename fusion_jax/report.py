"""The report of a trained run: its pictures as PNG files, and all in one HTML file that needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusion_jax import pictures, pose_pictures, report_page
from fusion_jax.errors import UserError
from fusion_jax.pictures import Curve
from fusion_jax.report_analysis import analysis_sections
from fusion_jax.report_benchmark import benchmark_sections
from fusion_jax.report_heatmaps import TASK, heatmap_numbers, heatmap_sections
from fusion_jax.report_page import Section, paragraph, picture, subtitle
from fusion_jax.report_scores import (
    baseline_of,
    breakdown_section,
    comparison_section,
    headline_section,
    no_samples,
    strategy_label,
)
from fusion_jax.run_record import Evaluation, RunRecord, Samples, read_run
from fusion_jax.training_log import is_number

_TASK = (
    "From one photo of a person, this network predicts where the body's joints are in 3D, relative to the "
    "pelvis, in millimetres. "
)
_READS = {
    "image": "the photo itself",
    "heatmap": "heatmaps: maps of where in the photo each joint seems to be",
    "parts": "maps of the body's parts",
    "silhouette": "the person's silhouette",
}
_STRATEGIES = {
    "learned": "Training itself chose where the streams merge: w = σ(α (l − β)), with α and β trained.",
    "fixed": "The layer where the streams merge was set by hand.",
    "free": "Each layer has a trained mixing weight of its own.",
}


def write_report(workdir: Path, compare: Sequence[Path] = ()) -> Path:
    """Writes WORKDIR/report.html and the pictures as WORKDIR/report/*.png; returns the path of the page.

    Args:
      workdir: a run of `fusion-jax train` that `fusion-jax evaluate` has scored.
      compare: work folders of other scored runs of the same task, for a table that sets them side by side.

    Raises:
      UserError: a file is missing or broken (it names the file and the command that makes it), or a run to compare
        with is of another task.
    """
    run = read_run(workdir)
    others = [read_run(path, log=False) for path in compare]
    for other in others:
        if other.task != run.task:
            raise UserError(
                f"--compare {other.workdir}: a run of task {other.task}, but {run.workdir} is of task {run.task}, and "
                "their scores measure different things; compare runs of one task"
            )
    sections = _sections(run, others)
    folder = run.workdir / "report"
    folder.mkdir(exist_ok=True)
    for section in sections:
        for name, png in section.pngs.items():
            _write_whole(folder / f"{name}.png", png)
    path = run.workdir / "report.html"
    _write_whole(path, _page(run, sections).encode())
    return path


def _sections(run: RunRecord, others: Sequence[RunRecord]) -> list[Section]:
    sections = [headline_section(run), *benchmark_sections(run)]
    if others:
        sections.append(comparison_section([run, *others]))
    sections += heatmap_sections(run) if run.task == "heatmaps" else _pose_sections(run)
    return [*sections, _settings(run)]


def _pose_sections(run: RunRecord) -> list[Section]:
    trained = [_learning(run), _fusion(run)] if run.train else []  # else the weights came from elsewhere
    sections = [*trained, *analysis_sections(run)]
    has_code = False
    for index, evaluation in enumerate(run.evaluations):
        sections.append(_samples(run, evaluation, index, with_code=not has_code))
        has_code = has_code or evaluation.samples is not None
        sections.append(breakdown_section(run, evaluation))
    return sections


def _page(run: RunRecord, sections: Sequence[Section]) -> str:
    name = run.workdir.resolve().name
    if run.task == "heatmaps":
        words, numbers = TASK, heatmap_numbers(run)
    else:
        words, numbers = _words(run), _big_numbers(run)
    top = [report_page.header(name, words), report_page.contents(sections), report_page.cards(numbers)]
    return report_page.page(f"{name} - fusion-jax report", "\n".join(top), sections)


def _words(run: RunRecord) -> str:
    """What the network does, reads and how its streams merge."""
    reads = [_READS.get(name, f"the stream {name}") for name in run.streams]
    merge = _STRATEGIES.get(run.strategy, "") if len(reads) > 1 else "It reads nothing else."
    return f"{_TASK}It reads {', and '.join(reads)}. {merge}"


def _big_numbers(run: RunRecord) -> list[tuple[str, str]]:
    """The first split's error, how it stands to the mean pose, where the streams merge, and the steps."""
    evaluation, last = run.evaluations[0], run.train[-1] if run.train else None
    error, baseline = evaluation.scores["mpjpe_mm"], baseline_of(evaluation).get("mpjpe_mm")
    numbers = []
    if error is not None:  # else the data is known in 2D alone
        numbers = [(f"{error:.1f} mm", f"mean joint distance (MPJPE) on {evaluation.split}")]
    if error is not None and baseline is not None and is_number(baseline) and baseline > 0:
        change = 1 - error / baseline
        share = f"{abs(change):.0%} {'less' if change >= 0 else 'more'}"
        numbers.append((share, f"error than always answering the mean pose ({baseline:.1f} mm)"))
    if last is None:
        return [*numbers, ("none", "training steps here: the weights are imported or cut out of another run's")]
    if "alpha" in last and "beta" in last:
        numbers.append((f"β = {last['beta']:.2f}", f"the layer, of {run.num_layers}, around which the streams merge"))
        numbers.append((f"α = {last['alpha']:.2f}", "sharpness: the larger, the more abruptly they merge"))
    return [*numbers, (f"{last['step']:,}", "training steps")]


def _learning(run: RunRecord) -> Section:
    """Loss terms and errors over the steps."""
    validation = Curve.of(run.validation, "mpjpe_mm")
    own = {e.split: baseline_of(e).get("mpjpe_mm") for e in run.evaluations if e.own}
    baseline = own.get("validation", next(iter(own.values()), None))
    figure = pictures.learning_curves(
        Curve.of(run.train, "data_loss"),
        Curve.of(run.train, "penalty"),
        Curve.of(run.train, "mpjpe_mm"),
        validation,
        baseline if is_number(baseline) else None,
    )
    png = pictures.png_bytes(figure)
    caption = (
        "What training minimises (the pose term and, where fusion is learned, the penalty on soft fusion), "
        "and the error in millimetres. Where the training line goes on falling while the validation line "
        "rises again, the network has begun to learn its pictures by heart. Training pictures are varied at "
        "random, so they can be the harder ones."
    )
    parts = [picture(png, caption)]
    if not validation:
        parts.append(paragraph("The log holds no validation scores, so only the training error is drawn.", "note"))
    return Section("How it learned", "learning", parts, {"learning_curves": png})


def _fusion(run: RunRecord) -> Section:
    """Fusion weights, alpha and beta over the steps, or sentences that say why there are none."""
    alpha, beta = Curve.of(run.train, "alpha"), Curve.of(run.train, "beta")
    weighted = [r for r in run.train if r.get("fusion_weights")]
    parts: list[str] = []
    pngs: dict[str, bytes] = {}
    if weighted:
        steps = np.array([r["step"] for r in weighted])
        weights = np.array([r["fusion_weights"] for r in weighted], float)
        last = weighted[-1]
        figure = pictures.weight_history(steps, weights, last.get("alpha"), last.get("beta"))
        png = pngs["fusion_weights"] = pictures.png_bytes(figure)
        caption = (
            "At every layer l the fusion stream goes on with (1 − w) parts of what the photo's and the "
            "heatmaps' streams offer and w parts of its own features. Orange layers (w near 0) still read "
            "those streams; purple layers (w near 1) work on what has been merged. A sharp change from "
            "orange to purple means that the streams merge in one place; layers left unused can be pruned."
        )
        parts.append(picture(png, caption))
    else:
        parts.append(paragraph(_why_no_weights(run), "note"))
    if alpha and beta:
        png = pngs["alpha_beta"] = pictures.png_bytes(pictures.fusion_parameters(alpha, beta, run.num_layers))
        caption = (
            "β is the layer around which the streams merge, α how abruptly they do. Both are trained along "
            "with the network. Lines that have become level have settled; lines still moving want a longer "
            "training."
        )
        parts.append(picture(png, caption))
    else:
        parts.append(paragraph(f"No picture of α and β: strategy {run.strategy} trains neither.", "note"))
    return Section("Where the streams merge", "fusion", parts, pngs)


def _why_no_weights(run: RunRecord) -> str:
    if run.strategy == "fixed":
        label = strategy_label(run)
        return f"No picture of the fusion weights: they never change ({label} of {run.num_layers} layers)."
    return f"No picture of the fusion weights: the log of a run with strategy {run.strategy} holds none."


def _samples(run: RunRecord, evaluation: Evaluation, index: int, *, with_code: bool) -> Section:
    """Crops, heatmaps and poses of the chosen frames; `with_code` brings plotly's code along, once a page."""
    split, samples, layout = evaluation.split, evaluation.samples, run.skeleton
    title, anchor = f"Sample predictions on {split}", f"samples-{split}"
    if samples is None:
        return Section(title, anchor, [no_samples(run, evaluation)], {})
    parts = [
        paragraph(
            "Left and right are the person's own. A single photo hardly shows depth, so expect larger errors "
            "seen from the side than from the front."
        ),
        subtitle("To turn by hand"),
        paragraph("Broad and grey: the true pose. Thin and coloured: the prediction. Drag to turn, scroll to zoom."),
        _viewer(samples, run, f"poses-{index}", with_code),
    ]
    pngs = {}
    for kind, meaning in pose_pictures.KINDS.items():
        rows = pose_pictures.rows_of_kind(samples, kind)
        if rows:
            figure = pose_pictures.sample_figure(samples, rows, layout)
            png = pngs[f"{split}_samples_{kind}"] = pictures.png_bytes(figure, dpi=100)
            caption = (
                f"{meaning} From left to right: the photo with the true 2D joints, the heatmaps, and the "
                "true pose (broad, pale) under the predicted one (thin, dark) from two sides."
            )
            parts += [subtitle(kind.capitalize()), picture(png, caption)]
    return Section(title, anchor, parts, pngs)


def _viewer(samples: Samples, run: RunRecord, div_id: str, with_code: bool) -> str:
    plot = report_page.plot(pose_pictures.pose_viewer(samples, run.skeleton), div_id, with_code=with_code)
    labels = [pose_pictures.sample_title(samples, row) for row in range(len(samples.frame))]
    cameras = [(name, json.dumps(camera)) for name, camera in pose_pictures.CAMERAS.items()]
    crops = [pictures.pixels_png(image) for image in samples.image]
    return report_page.viewer(plot, labels, crops, cameras, pose_pictures.TRACES_PER_SAMPLE)


def _settings(run: RunRecord) -> Section:
    text = json.dumps(run.config, indent=2, ensure_ascii=False)
    why = paragraph("All that determines this run's result, as saved beside its checkpoints.")
    return Section("Settings", "settings", [why, report_page.folded("config.json", text)], {})


def _write_whole(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that a reader never sees half a file and a failure leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
