"""The whole product once, from nothing to photos with poses: prepare, train, evaluate, compare, predict."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from fusion_jax.config import Config, with_overrides
from fusion_jax.demo_photos import write_photos
from fusion_jax.evaluate import evaluate_run
from fusion_jax.heatmap_net import heatmap_source
from fusion_jax.predict import predict_files
from fusion_jax.predictor import Predictor
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.records import read_json
from fusion_jax.report import write_report
from fusion_jax.tables import format_score
from fusion_jax.train import LoopOptions, train

STRATEGIES = {"learned": "trainable fusion", "image": "image only", "heatmap": "heatmap only"}
FED = ("true", "noisy", "predicted")
DATASET = "synthetic_humans"


def run_demo(
    data_dir: pathlib.Path, runs_dir: pathlib.Path, steps: int | None = None, all_heatmaps: bool = False
) -> pathlib.Path:
    """Runs everything that is not done yet, prints tables, returns the report's path.

    Args:
      data_dir: for the prepared dataset.
      runs_dir: a work folder for the 2D network and for each strategy is made in it, and photos with their poses.
      steps: of each training; None for the presets'.
      all_heatmaps: whether trainable fusion is also trained on heatmaps of true and of noisy joints.
    """
    began = time.perf_counter()
    dataset = f"{DATASET}/{prepare_synthetic_humans(data_dir).parent.name}"
    print("\n== 2D network ==", flush=True)
    hourglass = runs_dir / "hourglass"
    in2d = _trained(with_overrides("hourglass-tiny", steps=steps, dataset=dataset), data_dir, hourglass)
    results = {}
    for strategy in STRATEGIES:
        print(f"\n== {STRATEGIES[strategy]} ==", flush=True)
        config = with_overrides("tiny", strategy=strategy, steps=steps, dataset=dataset)
        fed = config if strategy == "image" else heatmap_source(config, "predicted", "cache", hourglass)
        results[strategy] = _trained(fed, data_dir, runs_dir / strategy)
    rows = {"predicted": runs_dir / "learned"}
    for source in ("true", "noisy") if all_heatmaps else ():
        print(f"\n== trainable fusion on heatmaps of {source} joints ==", flush=True)
        config = heatmap_source(with_overrides("tiny", steps=steps, dataset=dataset), source)  # type: ignore[arg-type]
        _trained(config, data_dir, runs_dir / f"learned_{source}")
        rows[source] = runs_dir / f"learned_{source}"
    fed_with = {name: _on_each(workdir, name, hourglass) for name, workdir in rows.items()}
    report = write_report(runs_dir / "learned", [runs_dir / "image", runs_dir / "heatmap"])
    write_report(hourglass)
    print("\n== photos ==", flush=True)
    photos = write_photos(runs_dir / "photos")
    predict_files([photos], Predictor(runs_dir / "learned"), runs_dir / "poses")
    print("\n" + comparison(results))
    print("\n" + heatmap_table(in2d, fed_with))
    print(f"\n{time.perf_counter() - began:.0f} s; open the report: {report.absolute()}")
    print(f"and people it has never seen: {(runs_dir / 'poses' / 'index.html').absolute()}")
    print(f"your own photo: fusion-jax predict photo.jpg --workdir {runs_dir / 'learned'} --out poses")
    return report


def _trained(config: Config, data_dir: pathlib.Path, workdir: pathlib.Path) -> dict[str, Any]:
    """The scores on the test people of a run that is trained first if it is not yet."""
    if scored(workdir, config.steps):
        print(f"{workdir} is trained and scored already; reusing it")
    else:
        train(config, data_dir, workdir, LoopOptions(log_every=100, eval_every=max(1, config.steps // 4)))
        evaluate_run(workdir)
    return read_json(workdir / "eval" / "test.json")


def _on_each(workdir: pathlib.Path, own: str, hourglass: pathlib.Path) -> dict[str, dict[str, Any]]:
    """A run's scores on the test people when fed each kind of heatmaps, its own among them."""
    step = read_json(workdir / "eval" / "test.json")["checkpoint_step"]
    found = {}
    for source in FED:
        name = "test" if source == own else f"test_{source}"
        if not scored(workdir, step, name):
            evaluate_run(workdir, heatmaps=source, heatmap_workdir=hourglass if source == "predicted" else None)  # type: ignore[arg-type]
        found[source] = read_json(workdir / "eval" / f"{name}.json")
    return found


def scored(workdir: pathlib.Path, steps: int, name: str = "test") -> bool:
    """Whether the work folder holds the scores of a checkpoint after `steps` steps."""
    path = workdir / "eval" / f"{name}.json"
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


def heatmap_table(in2d: dict[str, Any], fed_with: dict[str, dict[str, dict]]) -> str:
    """The 2D network's scores, and mpjpe of trainable fusion by the heatmaps it was trained on and is tested on."""
    lines = [
        f"2D network on the test people: PCKh@0.5 {100 * in2d['pckh_0.5']:.1f} % "
        f"(mean joints {100 * in2d['baseline']['pckh_0.5']:.1f} %), {in2d['joint_error_px']:.1f} px of "
        f"{in2d['protocol']['input']}",
        "",
        f"{'mpjpe in mm, tested on':32s}" + "".join(f"{source:>12s}" for source in FED),
    ]
    for trained_on, results in fed_with.items():
        scores = (format_score(results[source]["mpjpe_mm"], "mpjpe_mm") for source in FED)
        lines.append(f"{'trained on ' + trained_on + ' heatmaps':32s}" + "".join(f"{score:>12s}" for score in scores))
    return "\n".join(lines)
