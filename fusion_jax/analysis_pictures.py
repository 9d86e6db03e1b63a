"""Figures of an analysis: correlation of the streams' features, use of the streams, gradient norms over training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion_jax.analysis_record import WAYS, Analysis, Correlation, change_text
from fusion_jax.errors import UserError
from fusion_jax.pictures import Curve

_WAY_COLORS = {"mean": "#8c8c8c", "other": "#d55e00", "noise": "#56b4e9"}  # told apart by colour-blind readers too
_MAX_PANELS = 16
_LAYER = re.compile(r"(.+)_(\d{1,4})")


def correlation_matrix(matrix: np.ndarray, found: Correlation) -> Figure:
    """R^2 of all pairs of channels as a map from 0 to 1, lines between streams, the mean of each block written in it.

    Args:
      matrix: (K, K) in [0, 1], the streams' channels one after another.
      found: which streams, how many channels of each, and the means.
    """
    edges = np.concatenate([[0], np.cumsum(found.alive)])
    middles = (edges[1:] + edges[:-1]) / 2 - 0.5
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(matrix, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    for edge in edges[1:-1] - 0.5:
        axis.axhline(edge, color="white", linewidth=1.5)
        axis.axvline(edge, color="white", linewidth=1.5)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "boxstyle": "round,pad=0.3"}
    for row, y in enumerate(middles):
        for column, x in enumerate(middles):
            mean = found.means[row][column]
            if mean is not None:
                axis.text(x, y, f"mean {mean:.4f}", ha="center", va="center", bbox=box)
    names = [f"{name}\n{count} channels" for name, count in zip(found.streams, found.alive, strict=True)]
    axis.set_xticks(middles, names, parse_math=False)
    axis.set_yticks(middles, names, parse_math=False, rotation=90, va="center")
    axis.tick_params(length=0)
    axis.set_title(f"squared correlation of the streams' channels at layer {found.layer}")
    figure.colorbar(shown, ax=axis, label="R²: 0 unrelated, 1 one follows from the other", shrink=0.9)
    return figure


def usage_bars(found: Analysis) -> Figure:
    """The error in mm with each stream's input changed in each way, a line for the untouched one.

    Args:
      found: with usage.
    """
    count, height = len(WAYS), 0.8 / len(WAYS)
    rows = np.arange(len(found.usage))[::-1]
    figure = Figure(figsize=(9, 1.9 + 1.1 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for number, (way, words) in enumerate(WAYS.items()):
        bars = axis.barh(
            rows + (count / 2 - 0.5 - number) * height,
            [use.error_mm(way) for use in found.usage],
            height * 0.92,
            color=_WAY_COLORS[way],
            label=words,
        )
        changes = [f"{use.error_mm(way):.1f} ({change_text(found, use, way)})" for use in found.usage]
        axis.bar_label(bars, changes, padding=3, fontsize=9)
    axis.axvline(found.mpjpe_mm or 0, color="black", linestyle="--", label=f"untouched: {found.mpjpe_mm:.1f}")
    axis.set_yticks(rows, [use.stream for use in found.usage], parse_math=False)
    axis.set(title="error when one stream's input is replaced (change)", xlabel="MPJPE, mm")
    axis.margins(x=0.16)
    axis.set_xlim(left=0)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    _plain(axis)
    return figure


def gradient_curves(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The gradient norms in a training log, by stream and layer.

    Args:
      records: train records by rising step; `layer_grad_norms` of those that have it is read.

    Returns:
      For each stream, `fusion` last, a curve for each layer by rising l; under `other parameters` those that are of
      no layer. Empty where no record has any.

    Raises:
      UserError: parameters of more streams than can be drawn.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for record in records:
        for name, norm in record.get("layer_grad_norms", {}).items():
            matched = _LAYER.fullmatch(name)
            group, label = matched.groups() if matched else ("other parameters", name)
            found.setdefault(group, {}).setdefault(label, []).append((record["step"], norm))
    if len(found) > _MAX_PANELS:
        raise UserError(f"the log has gradient norms of {len(found)} streams, expected at most {_MAX_PANELS}")
    last = {"fusion": 1, "other parameters": 2}
    curves: dict[str, dict[str, Curve]] = {}
    for group in sorted(found, key=lambda name: last.get(name, 0)):
        labels = found[group]
        order = sorted(labels, key=int) if group != "other parameters" else sorted(labels)
        curves[group] = {label: Curve(*map(np.asarray, zip(*labels[label], strict=True))) for label in order}
    return curves


def gradient_norms(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """A panel for each stream with a line for each layer, on one logarithmic axis.

    A norm of 0 has no place on that axis: it is left out of the line, and the legend says how often.

    Args:
      curves: of `gradient_curves`, not empty.
    """
    columns = min(2, len(curves))
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (group, layers) in zip(axes, curves.items(), strict=False):
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
        for color, (label, curve) in zip(colors, layers.items(), strict=True):
            zeros = int((curve.values == 0).sum())
            name = f"layer {label}" if label.isdigit() else label
            name += f" (0 at {zeros} of {len(curve.values)} points)" if zeros else ""
            drawn = np.where(curve.values > 0, curve.values, np.nan)
            axis.plot(curve.steps, drawn, color=color, linewidth=1.3, marker=".", markersize=3, label=name)
        axis.set_title(f"{group} stream" if group != "other parameters" else group, parse_math=False)
        axis.set_yscale("log")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(color="0.92")
        legend = axis.legend(frameon=False, fontsize=8, ncols=2)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
        _plain(axis)
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    figure.supxlabel("step")
    figure.supylabel("norm of the gradient, mean since the row before")
    return figure


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
