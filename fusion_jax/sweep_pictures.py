"""Figures of a sweep: the error against the layer of fusion, and where beta went from each start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fusion_jax.sweep_plan import FREE, LEARNED
from fusion_jax.sweep_stats import Result, by_seed, interval, labels
from fusion_jax.switched import MIXED

_FIXED, _LEARNED, _OTHERS = "#4d4d4d", "#d55e00", {"free": "#009e73", "image": "#0072b2", "heatmap": "#cc79a7"}
_STARTS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")


def error_against_beta(results: Sequence[Result]) -> Figure:
    """mpjpe in mm of fusion fixed at each layer, with 95 % bars over seeds; every learned run at its own beta.

    The axis holds the runs that fuse; what lies beyond, such as a weak stream alone, is told by its number.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    depth = max(len(r["weights"]) for r in results)
    fixed = {r["beta"]: r["label"] for r in results if r["strategy"] == "fixed"}
    if fixed:
        spans = [interval(list(by_seed(results, fixed[beta]).values())) for beta in sorted(fixed)]
        bars = [0 if span.high is None else span.high - span.mean for span in spans]
        means = [span.mean for span in spans]
        axis.errorbar(sorted(fixed), means, bars, color=_FIXED, marker="o", capsize=4, label="fixed at a layer")
    learned = [r for r in results if r["label"] == LEARNED]
    if learned:
        betas, errors = ([r[column] for r in learned] for column in ("beta", "mpjpe_mm"))
        axis.plot(betas, errors, "*", ms=11, color=_LEARNED, label="trainable fusion, at its β")
        axis.axvline(np.mean(betas), color=_LEARNED, lw=1, ls=":")
        _level(axis, results, LEARNED, _LEARNED, "trainable fusion, mean")
    for label, color in _OTHERS.items():
        if label in labels(results):
            _level(axis, results, label, color, {FREE: "free weights"}.get(label, f"{label} alone"))
    mixed = [r["mpjpe_mm"] for r in results if r["strategy"] in MIXED]
    axis.set_ylim(*_around(mixed or [r["mpjpe_mm"] for r in results]))
    axis.set_xticks(range(depth + 1))
    axis.set_xlabel("layer of fusion β (0 early, L late)")
    axis.set_ylabel("mpjpe on unseen people, mm")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beta_over_steps(curves: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], num_layers: int) -> Figure:
    """Where beta went; kind of run -> (steps (T,), beta (T,)) of each seed."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axis = figure.subplots()
    for place, (label, runs) in enumerate(curves.items()):
        for number, (steps, betas) in enumerate(runs):
            color = _STARTS[place % len(_STARTS)]
            axis.plot(steps, betas, color=color, lw=1.2, alpha=0.8, label=None if number else label)
    axis.axhline((num_layers + 1) / 2, color="#7a7a7a", lw=1, ls="--", label="middle layer")
    axis.set_ylim(-0.2, num_layers + 0.2)
    axis.set_xlabel("training steps")
    axis.set_ylabel("fusion layer β")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _around(errors: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that holds all errors, with room for bars around them."""
    low, high = min(errors), max(errors)
    room = 0.5 * (high - low) + 0.02 * high
    return low - room, high + room


def _level(axis, results: Sequence[Result], label: str, color: str, name: str) -> None:
    """A horizontal line at a kind's mean, with its interval as a band."""
    span = interval(list(by_seed(results, label).values()))
    axis.axhline(span.mean, color=color, lw=1.3, label=f"{name}, {span.mean:.1f} mm")
    if span.low is not None and span.high is not None:
        axis.axhspan(span.low, span.high, color=color, alpha=0.12, lw=0)
