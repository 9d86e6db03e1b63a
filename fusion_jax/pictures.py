"""Figures of a training run and its scores: arrays in, a matplotlib Figure out. For poses see pose_pictures.

Figures are made without pyplot, so that no global state, window or style of the caller's is touched.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

SIDE_COLORS = {
    "left": "#0072b2",
    "right": "#d55e00",
    "middle": "#4d4d4d",
}  # told apart by colour-blind readers too
_TRAIN, _VALIDATION, _BASELINE = "#0072b2", "#d55e00", "#7a7a7a"
WEIGHT_COLORS = "PuOr"  # orange at 0, white at 1/2, purple at 1; the report's text names these colours

_NO_METADATA: dict[str, Any] = {"Software": None}  # the same figure is the same file under any version
_BAR_LABEL: dict[str, Any] = {
    "fmt": "%.1f",
    "padding": 3,
    "fontsize": 9,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
}


class Curve(NamedTuple):
    """A number logged at some steps: both (T,), steps rising."""

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Mapping], field: str) -> Curve:
        """The curve of `field` over the log records that have it; maybe empty."""
        found = [(r["step"], r[field]) for r in records if field in r]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return cls(np.asarray(steps, int), np.asarray(values, float))

    def __bool__(self) -> bool:
        return self.steps.size > 0


def png_bytes(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as a PNG file's bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata=_NO_METADATA)
    return buffer.getvalue()


def pixels_png(image: np.ndarray) -> bytes:
    """The picture (H, W, 3) uint8 itself as a PNG file's bytes."""
    buffer = io.BytesIO()
    imsave(buffer, image, format="png", metadata=_NO_METADATA)
    return buffer.getvalue()


def batch_figure(image: np.ndarray, framed: Collection[int] = ()) -> Figure:
    """A batch's pictures (B, H, W, 3) uint8, numbered from 0, with a frame around some of them."""
    columns = min(8, len(image))
    rows = -(-len(image) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.5 * rows), layout="constrained")
    for number, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.set_xticks([]), axis.set_yticks([])
        if number >= len(image):
            axis.set_axis_off()
            continue
        axis.imshow(image[number], interpolation="nearest")
        color, width = ("#d55e00", 4) if number in framed else ("#4d4d4d", 0.5)
        axis.set_title(str(number), fontsize=9, color=color)
        for spine in axis.spines.values():
            spine.set(color=color, linewidth=width)
    return figure


def learning_curves(
    data_loss: Curve,
    penalty: Curve,
    train_mpjpe_mm: Curve,
    validation_mpjpe_mm: Curve,
    baseline_mm: float | None = None,
) -> Figure:
    """The loss's two terms apart, mm^2, and the error on training and validation pictures, mm.

    Args:
      penalty: lambda / alpha^2; its panel is left out where it is empty or 0 throughout.
      baseline_mm: mpjpe of always answering the mean training pose, drawn as a line.
    """
    panels = [(data_loss, "pose term of the loss", "mm², summed over coordinates")]
    if penalty and penalty.values.any():
        panels.append((penalty, "sharpness penalty", "λ / α², mm²"))
    figure = Figure(figsize=(4.4 * (len(panels) + 1), 3.7), layout="constrained")
    axes = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
    for axis, (curve, title, unit) in zip(axes, panels, strict=False):
        _line(axis, curve, _TRAIN)
        _over_steps(axis, title, unit)
        if curve and (curve.values > 0).all():
            axis.set_yscale("log")
    _line(axes[-1], train_mpjpe_mm, _TRAIN, label="training batches")
    _line(axes[-1], validation_mpjpe_mm, _VALIDATION, label="validation", marker="o")
    if baseline_mm is not None:
        axes[-1].axhline(baseline_mm, color=_BASELINE, linestyle="--", label="mean training pose")
    _over_steps(axes[-1], "mean joint distance (MPJPE)", "mm")
    axes[-1].set_ylim(bottom=0)
    axes[-1].legend(frameon=False)
    return figure


def fusion_parameters(alpha: Curve, beta: Curve, num_layers: int) -> Figure:
    """Sharpness alpha and fusion layer beta over training; beta's axis counts layers, 0 early, L late."""
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    _line(left, alpha, _TRAIN, marker=".")
    _over_steps(left, "sharpness α", "per layer")
    left.set_ylim(bottom=min(0, alpha.values.min()))
    _line(right, beta, _TRAIN, marker=".")
    _over_steps(right, "fusion layer β", "layer l")
    low, high = min(0, np.floor(beta.values.min())), max(num_layers, np.ceil(beta.values.max()))
    right.set_ylim(low - 0.3, high + 0.3)
    right.set_yticks(np.arange(low, high + 1))
    right.text(0.99, 0.02, "0: early fusion", transform=right.transAxes, ha="right", color=_BASELINE)
    right.text(0.99, 0.93, f"{num_layers}: late fusion", transform=right.transAxes, ha="right", color=_BASELINE)
    return figure


def weight_history(
    steps: np.ndarray, weights: np.ndarray, alpha: float | None = None, beta: float | None = None
) -> Figure:
    """The fusion weights w_l as a map over training, beside the last ones against the layer.

    Args:
      steps: (T,) rising.
      weights: (T, L) in [0, 1]; 0 (orange) reads the data streams, 1 (purple) keeps the fusion stream.
      alpha, beta: the last ones, to draw sigmoid(alpha (l - beta)) smoothly; none for free weights.
    """
    num_layers = weights.shape[1]
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    layer_edges = np.arange(num_layers + 1) + 0.5
    mesh = left.pcolormesh(
        step_edges(steps), layer_edges, weights.T, cmap=WEIGHT_COLORS, vmin=0, vmax=1, rasterized=True
    )
    left.set_yticks(np.arange(1, num_layers + 1))
    left.set(title="fusion weights over training", xlabel="step", ylabel="layer l")
    figure.colorbar(mesh, ax=left, label="w: 0 reads the streams, 1 keeps the fusion stream")
    _last_weights(right, weights[-1], alpha, beta)
    return figure


def _last_weights(axis: Axes, weights: np.ndarray, alpha: float | None, beta: float | None) -> None:
    layers = np.arange(1, len(weights) + 1)
    if alpha is not None and beta is not None:
        dense = np.linspace(0.5, len(weights) + 0.5, 400)
        smooth = 0.5 * (1 + np.tanh(alpha * (dense - beta) / 2))  # the sigmoid, without overflow however sharp
        axis.plot(dense, smooth, color=_BASELINE, label="σ(α (l − β))")
        axis.axvline(beta, color=_VALIDATION, linestyle="--", label=f"β = {beta:.2f}, α = {alpha:.2f}")
        axis.legend(frameon=False)
    else:
        axis.plot(layers, weights, color=_BASELINE, linewidth=1)
    axis.scatter(layers, weights, 70, weights, cmap=WEIGHT_COLORS, vmin=0, vmax=1, edgecolors="black", zorder=3)
    axis.axhline(0.5, color="0.85", linewidth=0.8, zorder=0)
    axis.set(title="fusion weights at the end", xlabel="layer l", ylabel="$w_l$", ylim=(-0.05, 1.05))
    axis.set_xticks(layers)
    _plain(axis)


def step_edges(steps: np.ndarray) -> np.ndarray:
    """T + 1 cell borders around T rising steps: half way between neighbours, the outer cells symmetric."""
    steps = np.asarray(steps, float)
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def action_bars(scores: Mapping[str, Mapping], mean_mm: float | None = None) -> Figure:
    """mpjpe and pa_mpjpe of each action, mm, the hardest on top, with its number of frames.

    Args:
      scores: per action `mpjpe_mm` and, where known, `pa_mpjpe_mm` and `num_frames`.
      mean_mm: mean over actions of mpjpe, drawn as a line.
    """
    names = sorted(scores, key=lambda name: scores[name]["mpjpe_mm"])
    rows = np.arange(len(names))
    figure = Figure(figsize=(9, 1.3 + 0.5 * len(names)), layout="constrained")
    axis = figure.subplots()
    whole = axis.barh(rows + 0.2, [scores[n]["mpjpe_mm"] for n in names], 0.38, color=_TRAIN, label="MPJPE")
    axis.bar_label(whole, **_BAR_LABEL)
    aligned = [scores[n]["pa_mpjpe_mm"] for n in names if scores[n].get("pa_mpjpe_mm") is not None]
    if len(aligned) == len(names):
        bars = axis.barh(rows - 0.2, aligned, 0.38, color="#9ecae1", label="PA-MPJPE, after alignment")
        axis.bar_label(bars, **_BAR_LABEL)
    if mean_mm is not None:
        axis.axvline(mean_mm, color=_VALIDATION, linestyle="--", zorder=0.5, label=f"mean over actions: {mean_mm:.1f}")
    frames = [scores[n].get("num_frames") for n in names]
    labels = [n if count is None else f"{n} ({count:,})" for n, count in zip(names, frames, strict=True)]
    axis.set_yticks(rows, labels, parse_math=False)
    axis.set(title="error per action (frames)", xlabel="mm", xlim=(0, None))
    axis.margins(x=0.08)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    _plain(axis)
    return figure


def joint_bars(errors_mm: Mapping[str, float], sides: Mapping[str, str]) -> Figure:
    """mpjpe of each joint, mm, in the given order from the top, coloured by the person's side.

    Args:
      errors_mm: by joint name.
      sides: 'left', 'right' or 'middle' for each of these names.
    """
    names = list(errors_mm)[::-1]
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(names)), layout="constrained")
    axis = figure.subplots()
    for side, color in SIDE_COLORS.items():
        rows = [row for row, name in enumerate(names) if sides[name] == side]
        if rows:
            bars = axis.barh(rows, [errors_mm[names[row]] for row in rows], 0.7, color=color, label=side)
            axis.bar_label(bars, **_BAR_LABEL)
    axis.set_yticks(range(len(names)), [n.replace("_", " ") for n in names], parse_math=False)
    axis.set(title="error per joint", xlabel="MPJPE, mm")
    axis.margins(x=0.08)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    _plain(axis)
    return figure


def _line(axis: Axes, curve: Curve, color: str, **style) -> None:
    if curve:
        axis.plot(curve.steps, curve.values, color=color, linewidth=1.5, markersize=4, **style)


def _over_steps(axis: Axes, title: str, unit: str) -> None:
    axis.set(title=title, xlabel="step", ylabel=unit)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.grid(color="0.92")
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
