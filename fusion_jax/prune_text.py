"""What `prune` says on the terminal, from the numbers that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Numbers = dict[str, Any]


def softness(numbers: Numbers) -> str:
    """How soft a network is: its w_l, and which layers mix."""
    weights, eps, mixed = numbers["fusion_weights"], numbers["soft_layers"]["eps"], numbers["soft_layers"]["layers"]
    shown = f"fusion weights w_1 .. w_{len(weights)}: {', '.join(f'{w:.4g}' for w in weights)}"
    if not mixed:
        return f"{shown}; within {eps:g} of 0 or 1, so the streams merge once"
    between = f"layer {mixed[0]} still mixes" if len(mixed) == 1 else f"layers {', '.join(map(str, mixed))} still mix"
    return f"{shown}; the run is still soft: {between} data streams and fusion stream at eps {eps:g}"


def proof_text(numbers: Numbers) -> str:
    """The proof as lines of text."""
    frames, change, bound, error = (numbers[name] for name in ("frames", "change_mm", "bound_mm", "mpjpe_mm"))
    of = "" if frames["frames"] == frames["of"] else f" of {frames['of']}"
    lines = [
        softness(numbers),
        f"removed at eps {numbers['eps']:g}: {', '.join(numbers['removed'])}",
        _row("parameters", numbers["parameters"], "{:,}"),
        _row("GFLOP an image, by hand", numbers["gflops"], "{:.4g}"),
        _row("GFLOP an image, by XLA", numbers["xla_gflops"], "{:.4g}"),
        _row("images/s", numbers["images_per_s"], "{:.1f}", more="faster")
        + f" (batch {numbers['timed']['batch_size']}, {numbers['timed']['device']})",
        f"on {frames['frames']}{of} {frames['split']} frames of {frames['dataset']}:",
        f"  mpjpe: {millimetres(error['before'])} -> {millimetres(error['after'])}",
        f"  change of a joint: {millimetres(change['mean'])} on average, {millimetres(change['max'])} at most",
        f"  {_bound_words(bound)}",
        *(f"  warning: {text}" for text in frames["warnings"]),
    ]
    return "\n".join(lines)


def eps_table(rows: Sequence[Numbers]) -> str:
    """What pruning does at several eps, a table in Markdown."""
    lines = [
        "| eps | layers removed | layers that mix | parameters left | mean change | largest change | mpjpe after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (
            f"{row['eps']:g}",
            f"{len(row['removed'])}" + (f" ({', '.join(row['removed'])})" if row["removed"] else ""),
            ", ".join(map(str, row["mixed_layers"])) or "none",
            f"{row['parameters']:,}",
            millimetres(row["change_mm"]["mean"]),
            millimetres(row["change_mm"]["max"]),
            millimetres(row["mpjpe_mm"]["after"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def millimetres(value: float | None) -> str:
    """A length for readers; n/a where nothing is known in 3D."""
    if value is None:
        return "n/a"
    return f"{value:.1e} mm" if 0 < value < 0.01 else f"{value:.2f} mm"


def _bound_words(bound: Numbers) -> str:
    if bound["max"] == 0:
        return "the dropped weights are exactly 0 and 1: whatever changes is float rounding"
    shown = f"{millimetres(bound['mean'])} on average, {millimetres(bound['max'])} at most"
    return f"bound, worked out from the dropped weights: {shown}, plus float rounding"


def _row(name: str, pair: Numbers, form: str, more: str = "less") -> str:
    ratio = pair["after"] / pair["before"] if more == "faster" else pair["before"] / pair["after"]
    return f"{name}: {form.format(pair['before'])} -> {form.format(pair['after'])} ({ratio:.2f} times {more})"
