"""A sweep as a page of Markdown: table, paired differences, figures, and one sentence for each claim."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion_jax import sweep_stats
from fusion_jax.pictures import png_bytes
from fusion_jax.records import read_json, write_bytes, write_text
from fusion_jax.sweep_pictures import beta_over_steps, error_against_beta
from fusion_jax.sweep_plan import LEARNED, groups, members_of
from fusion_jax.sweep_stats import Result, by_seed, interval, labels
from fusion_jax.training_log import read_log

_HEATMAPS = {"true": "of true 2D joints", "noisy": "of true 2D joints with a 2D network's errors"}
ERROR_FIGURE, BETA_FIGURE = "error_against_beta.png", "beta_over_steps.png"


def write_sweep_report(out: pathlib.Path, results: Sequence[Result]) -> str:
    """Writes OUT/sweep.md and its figures; returns the text of the page.

    Args:
      out: folder of a finished sweep.
      results: as `sweep.run_sweep` returns.
    """
    plan = read_json(out / "sweep.json")
    write_bytes(out / ERROR_FIGURE, png_bytes(error_against_beta(results)))
    curves = _beta_curves(out, plan)
    if curves:
        depth = max(len(r["weights"]) for r in results)
        write_bytes(out / BETA_FIGURE, png_bytes(beta_over_steps(curves, depth)))
    text = sweep_markdown(results, plan, with_betas=bool(curves))
    write_text(out / "sweep.md", text)
    return text


def sweep_markdown(results: Sequence[Result], plan: dict[str, Any], with_betas: bool) -> str:
    """The page of a sweep; figures are named, not held."""
    config = next(iter(plan["members"].values()))["config"]
    seeds, frames = len({r["seed"] for r in results}), results[0]["num_frames"]
    streams = ", ".join(stream["name"] for stream in config["network"]["streams"])
    found = sweep_stats.claims(results)
    heatmaps = _HEATMAPS[config["heatmaps"]["source"]]
    spans = ", with 95 % intervals of the mean over seeds (Student's t)" if seeds > 1 else "; one seed has no interval"
    lines = [
        f"{len(results)} runs of preset `{config['preset']}` at {config['inputs']['image_size']} px: {config['steps']} "
        f"steps of batch {config['batch_size']} on {plan['dataset']['name']}, {seeds} seed{'s' * (seeds > 1)} of each "
        f"kind, data in the same order for all. Streams: {streams}; heatmaps {heatmaps}. Scored on all {frames} frames "
        f"of {plan['split']}, people that no run was trained on. Errors in mm{spans}.",
        "",
        *results_table(results),
        "",
        "Alive: of the network cut down to the layers that are read once weights within "
        f"{results[0]['eps']:g} of 0 or 1 count as 0 or 1; GFLOPs of one forward pass of one picture; "
        f"images/s forward at batch {results[0]['speed_batch']}, all networks taking turns on this machine.",
        "",
        f"![Error against the layer of fusion]({ERROR_FIGURE})",
        "",
        *([f"![Fusion layer over the steps]({BETA_FIGURE})", ""] if with_betas else []),
        *differences_table(results),
        "",
        *(["Each verdict stands at 95 % on its own; of many such, one may be wrong by chance.", ""] if found else []),
        *(f"- {claim.statement}: **{claim.verdict}**. {_sentence(claim.why)}" for claim in found),
        *(f"- {note}" for note in sweep_stats.notes(results)),
        "",
    ]
    return "\n".join(lines)


def results_table(results: Sequence[Result]) -> list[str]:
    """Lines of a Markdown table, a row for each kind of run."""
    lines = [
        "| kind | mpjpe | pa_mpjpe | beta | alpha | parameters alive | GFLOPs alive | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label in labels(results):
        rows = [r for r in results if r["label"] == label]
        scores = [str(interval([r[column] for r in rows])) for column in ("mpjpe_mm", "pa_mpjpe_mm")]
        trained = [
            f"{np.mean([r[name] for r in rows]):.2f}" if rows[0]["strategy"] == "learned" else "" for name in _TRAINED
        ]
        size, work = (np.mean([r["alive"][name] for r in rows]) for name in ("parameters", "gflops"))
        speed = np.mean([r["images_per_s"] for r in rows])
        cells = [label, *scores, *trained, f"{size / 1e6:.2f} M", f"{work:.4f}", f"{speed:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_TRAINED = ("beta", "alpha")


def differences_table(results: Sequence[Result]) -> list[str]:
    """Lines of a Markdown table: each kind's error minus trainable fusion's, paired by seed."""
    if not by_seed(results, LEARNED):
        return []
    lines = ["| against trainable fusion, paired by seed | mpjpe, mm | 95 % interval |", "| --- | --- | --- |"]
    for label in labels(results):
        change = sweep_stats.difference(results, label, LEARNED)
        if label == LEARNED or change is None:
            continue
        span = "one seed, none" if change.low is None else f"{change.low:+.1f} to {change.high:+.1f}"
        lines.append(f"| {label} | {change.mean:+.1f} | {span} |")
    return lines


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _beta_curves(out: pathlib.Path, plan: dict[str, Any]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """(steps, beta) of every learned run, by kind, from the groups' logs."""
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, group in enumerate(groups(members_of(plan))):
        path = out / "groups" / str(number) / "metrics.jsonl"
        rows = read_log(path, nested=True)[0] if path.exists() else []
        rows = [row for row in rows if "beta" in row["members"]]
        steps = np.array([row["step"] for row in rows])
        for place, member in enumerate(group):
            if rows and member.config.fusion.strategy == "learned":
                betas = np.array([row["members"]["beta"][place] for row in rows])
                curves.setdefault(member.label, []).append((steps, betas))
    return curves
