"""The whole product once, from nothing to a report: prepare, train three networks, evaluate, compare."""

from __future__ import annotations

import pathlib
import time

from fusion_jax.config import with_overrides
from fusion_jax.evaluate import evaluate_run
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.records import read_json
from fusion_jax.report import write_report
from fusion_jax.tables import format_score
from fusion_jax.train import LoopOptions, train

STRATEGIES = {"learned": "trainable fusion", "image": "image only", "heatmap": "heatmap only"}
DATASET = "synthetic_humans"


def run_demo(data_dir: pathlib.Path, runs_dir: pathlib.Path, steps: int | None = None) -> pathlib.Path:
    """Runs everything that is not done yet, prints a table, returns the report's path.

    Args:
      data_dir: for the prepared dataset.
      runs_dir: one work folder for each strategy is made in it.
      steps: of each training; None for the preset's.
    """
    began = time.perf_counter()
    folder = prepare_synthetic_humans(data_dir)
    results = {}
    for strategy in STRATEGIES:
        print(f"\n== {STRATEGIES[strategy]} ==", flush=True)
        config = with_overrides("tiny", strategy=strategy, steps=steps, dataset=f"{DATASET}/{folder.parent.name}")
        workdir = runs_dir / strategy
        if scored(workdir, config.steps):
            print(f"{workdir} is trained and scored already; reusing it")
        else:
            train(config, data_dir, workdir, LoopOptions(log_every=50, eval_every=250))
            evaluate_run(workdir)
        results[strategy] = read_json(workdir / "eval" / "test.json")
    report = write_report(runs_dir / "learned", [runs_dir / "image", runs_dir / "heatmap"])
    print("\n" + comparison(results))
    print(f"\n{time.perf_counter() - began:.0f} s; open the report: {report.absolute()}")
    return report


def scored(workdir: pathlib.Path, steps: int) -> bool:
    """Whether the work folder holds the scores of a checkpoint after `steps` steps."""
    path = workdir / "eval" / "test.json"
    return path.exists() and read_json(path).get("checkpoint_step") == steps


def comparison(results: dict[str, dict]) -> str:
    """The strategies' errors under the baseline's, on people never seen in training."""
    first = next(iter(results.values()))
    rows = [("mean pose (baseline)", first["baseline"])]
    rows += [(STRATEGIES[name], result) for name, result in results.items()]
    rows = [rows[0], *sorted(rows[1:], key=lambda row: -row[1]["mpjpe_mm"])]
    lines = [f"{'test people, mm':24s}{'mpjpe':>10s}{'pa_mpjpe':>10s}"]
    for name, row in rows:
        scores = (format_score(row[column], column) for column in ("mpjpe_mm", "pa_mpjpe_mm"))
        lines.append(f"{name:24s}" + "".join(f"{score:>10s}" for score in scores))
    protocol = first["protocol"]
    lines.append(f"({first['num_frames']} frames of {', '.join(protocol['subjects'])}, root {protocol['root']})")
    return "\n".join(lines)
