"""What an analysis of a run found, as frozen records: how they are written, read back strictly, and told in words."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from fusion_jax.errors import UserError
from fusion_jax.records import from_json, read_json

WAYS = {
    "mean": "its mean over the frames",
    "other": "another person's",
    "noise": "noise added",
}
"""How a stream's input is changed, and what the changed input is."""


@dataclasses.dataclass(frozen=True)
class StreamUse:
    """The run's error, mpjpe in mm, when the input of one stream is changed and all else is left as it is."""

    stream: str
    mean_mm: float
    """With the stream's mean input over the frames, the same for every frame."""
    other_mm: float
    """With the input of another frame, of another person where there are several."""
    noise_mm: float
    """With Gaussian noise added, then clipped."""
    noise_std: float
    """Standard deviation of the noise: that of all values of the input, over frames, pixels and channels."""
    low: float
    """Smallest value of the input over the frames, to which it is clipped with noise."""
    high: float
    """Largest value."""

    def __post_init__(self):
        _check_finite(self, "mean_mm", "other_mm", "noise_mm", "noise_std", "low", "high")

    def error_mm(self, way: str) -> float:
        """The error under one of `WAYS`."""
        return getattr(self, f"{way}_mm")


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Squared Pearson correlations R^2 between the channels of the data streams at one layer."""

    layer: int
    """l, counted from 1."""
    positions: int
    """Positions of the feature maps; each of each frame is an observation."""
    streams: tuple[str, ...]
    alive: tuple[int, ...]
    """For each stream the channels that change at all."""
    dead: tuple[int, ...]
    """For each stream the channels that are the same everywhere, which are left out."""
    means: tuple[tuple[float | None, ...], ...]
    """Mean R^2 for each pair of streams; within a stream over pairs of different channels. None where there is no
    pair."""

    def __post_init__(self):
        count = len(self.streams)
        sizes = [len(self.alive), len(self.dead), len(self.means), *map(len, self.means)]
        if any(size != count for size in sizes):
            raise UserError(f"analysis: correlation has {count} streams but entries for {sizes}; expected {count} each")
        values = [value for row in self.means for value in row if value is not None]
        if not all(0 <= value <= 1 for value in values):
            raise UserError(f"analysis: correlation.means holds {values}, expected numbers in [0, 1]")


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Everything that `analyze` tells in words and numbers."""

    dataset: str
    split: str
    strategy: str
    heatmaps: str
    checkpoint_step: int
    frames: int
    """How many were looked at."""
    all_frames: int
    """How many the split has."""
    seed: int
    """Of the frames' order and of the noise."""
    mpjpe_mm: float | None
    """With all inputs as they are; none where nothing is known in 3D."""
    usage: tuple[StreamUse, ...]
    usage_words: str
    """Whose inputs were exchanged, or why there is no usage."""
    correlation: Correlation | None
    correlation_words: str
    """Which layer was looked at and why, or why there is no correlation."""
    gradient_words: str
    """Why there are no gradient norms; empty where there are."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        if self.mpjpe_mm is not None:
            _check_finite(self, "mpjpe_mm")
        elif self.usage:
            raise UserError("analysis: usage is told without mpjpe_mm, the error of the untouched inputs")


def read_analysis(path: pathlib.Path) -> Analysis:
    """The record in an analysis.json. Raises UserError where it is missing, broken or of another form."""
    try:
        return from_json(Analysis, read_json(path), path.name)
    except UserError as error:
        raise UserError(f"{path.parent}: {error}; run fusion-jax analyze again") from None


def usage_rows(found: Analysis) -> list[list[str]]:
    """A row of texts for each stream and change: stream, what its input is, error and change in mm."""
    rows = [["none", "all inputs as they are", f"{found.mpjpe_mm:.1f}", ""]] if found.usage else []
    for use in found.usage:
        for way, words in WAYS.items():
            rows.append([use.stream, words, f"{use.error_mm(way):.1f}", change_text(found, use, way)])
    return rows


def change_text(found: Analysis, use: StreamUse, way: str) -> str:
    """How much larger (+) or smaller (-) than the untouched error one under a change is, mm."""
    return f"{round(use.error_mm(way) - (found.mpjpe_mm or 0), 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def noise_words(found: Analysis) -> str:
    """What the noise is, exactly."""
    each = [f"{u.stream} {u.noise_std:.3g}, clipped to [{u.low:.3g}, {u.high:.3g}]" for u in found.usage]
    return (
        "Noise: Gaussian, independent for every value, one standard deviation of all values of that input over frames, "
        f"pixels and channels, then clipped to the range that they have: {'; '.join(each)}."
    )


def correlation_rows(found: Correlation) -> list[list[str]]:
    """A row of texts for each pair of streams: the pair, and the mean R^2 of their channels."""
    rows = []
    for a, name in enumerate(found.streams):
        for b in range(a, len(found.streams)):
            mean = found.means[a][b]
            pair = f"within {name}" if a == b else f"{name} with {found.streams[b]}"
            rows.append([pair, "n/a" if mean is None else f"{mean:.4f}"])
    return rows


def dead_words(found: Correlation) -> str:
    """How many channels were left out."""
    each = [f"{d} of {a + d} of {s}" for s, a, d in zip(found.streams, found.alive, found.dead, strict=True)]
    return f"Channels that never change, left out: {', '.join(each)}."


def analysis_markdown(found: Analysis) -> str:
    """All of it as Markdown."""
    shown = "all" if found.frames == found.all_frames else f"{found.frames} evenly chosen of the"
    lines = [
        f"Strategy {found.strategy}, checkpoint of step {found.checkpoint_step}, heatmaps {found.heatmaps}, on {shown} "
        f"{found.all_frames} frames of {found.dataset} {found.split}, seed {found.seed}."
    ]
    lines += [f"Beware: {warning}." for warning in found.warnings]
    lines += ["", "## How much each stream is used", ""]
    if found.usage:
        lines += ["| changed stream | its input | mpjpe, mm | change, mm |", "|---|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in usage_rows(found)]
        lines += ["", noise_words(found)]
    lines += [found.usage_words, "", "## How alike the streams' features are", ""]
    if found.correlation is not None:
        lines += [f"| channels at layer {found.correlation.layer} | mean R² |", "|---|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in correlation_rows(found.correlation)]
        lines += ["", dead_words(found.correlation)]
    lines.append(found.correlation_words)
    if found.gradient_words:
        lines += ["", "## Gradients over training", "", found.gradient_words]
    return "\n".join(lines) + "\n"


def _check_finite(record: StreamUse | Analysis, *fields: str) -> None:
    for field in fields:
        if not math.isfinite(getattr(record, field)):
            raise UserError(f"analysis: {field} is {getattr(record, field)}, expected a finite number")
