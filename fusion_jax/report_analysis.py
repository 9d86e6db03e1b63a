"""The report's parts about what the streams contribute: an analysis, where there is one, and gradient norms."""

from __future__ import annotations

from pathlib import Path

from fusion_jax import analysis_pictures, pictures
from fusion_jax.analysis_record import (
    correlation_rows,
    dead_words,
    noise_words,
    read_analysis,
    usage_rows,
)
from fusion_jax.errors import UserError
from fusion_jax.report_page import Section, paragraph, picture, subtitle, table
from fusion_jax.run_record import RunRecord

_LARGEST_PNG = 20_000_000  # bytes; ours have some hundred thousand


def analysis_sections(run: RunRecord) -> list[Section]:
    """Gradient norms where the log has them, and what `fusion-jax analyze` left in WORKDIR/analysis."""
    sections = []
    curves = analysis_pictures.gradient_curves(run.train)
    if curves:
        png = pictures.png_bytes(analysis_pictures.gradient_norms(curves))
        caption = (
            "How strongly the loss pulls at each layer: the norm of its gradient, averaged over the steps between two "
            "rows of the log. Where a whole stream falls far below the others, the error depends less and less on it. "
            "It is no measure of how fast weights change: Adam makes steps of about one size of small and large ones."
        )
        sections.append(Section("Gradients over training", "gradients", [picture(png, caption)], {"grad_norms": png}))
    path = run.workdir / "analysis" / "analysis.json"
    if path.is_file():
        sections.append(_analysis(run, path))
    return sections


def _analysis(run: RunRecord, path: Path) -> Section:
    found = read_analysis(path)
    parts, pngs = [], {}
    which = "all" if found.frames == found.all_frames else f"{found.frames:,} of {found.all_frames:,}"
    trained = run.train[-1]["step"] if run.train else None
    parts.append(
        paragraph(
            f"Looked at with the weights after step {found.checkpoint_step:,}, on {which} frames of {found.dataset}, "
            f"{found.split}, heatmaps {found.heatmaps}."
        )
    )
    if trained not in (None, found.checkpoint_step):
        parts.append(
            paragraph(
                f"Beware: the run has gone on to step {trained}; analyse it again with: fusion-jax analyze --workdir "
                f"{run.workdir} --split {found.split}"
            )
        )
    parts += [paragraph(f"Beware: {warning}.", "note") for warning in found.warnings]
    parts.append(subtitle("How much each stream is used"))
    if found.usage:
        png = pngs["usage"] = _own_png(path.with_name("usage.png"))
        caption = (
            "The error when what one stream reads is replaced while the others keep their own. A stream whose "
            "replacement changes nothing is not used; one whose replacement by another person's raises the error most "
            "is relied on most."
        )
        header = ["changed stream", "its input", "MPJPE, mm", "change, mm"]
        parts += [picture(png, caption), table(header, usage_rows(found), numeric=(2, 3))]
        parts.append(paragraph(noise_words(found), "note"))
    parts += [paragraph(found.usage_words, "note"), subtitle("How alike the streams' features are")]
    if found.correlation is not None:
        png = pngs["correlation"] = _own_png(path.with_name("correlation.png"))
        caption = (
            "R² of every pair of feature channels of the data streams, over frames and positions. A dark block between "
            "two streams means that neither repeats what the other tells, in so far as lines can relate them; whether "
            "that is of use to the network is told by the errors above."
        )
        parts += [picture(png, caption), table(["channels", "mean R²"], correlation_rows(found.correlation), (1,))]
        parts.append(paragraph(dead_words(found.correlation), "note"))
    parts.append(paragraph(found.correlation_words, "note"))
    return Section("What the streams contribute", "analysis", parts, pngs)


def _own_png(path: Path) -> bytes:
    """A picture that `fusion-jax analyze` made. Raises UserError where it is missing or something else."""
    again = f"run `fusion-jax analyze --workdir {path.parent.parent}` again"
    if not path.is_file():
        raise UserError(f"{path} is missing; {again}")
    if path.stat().st_size > _LARGEST_PNG:
        raise UserError(f"{path} has {path.stat().st_size} bytes, expected at most {_LARGEST_PNG}; {again}")
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise UserError(f"{path} is no PNG file; {again}")
    return content
