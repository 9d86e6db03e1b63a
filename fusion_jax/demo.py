"""The whole product once, from nothing to photos with poses: prepare, train, evaluate, compare, predict."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from fusion_jax.config import Config
from fusion_jax.demo_photos import write_photos
from fusion_jax.evaluate import evaluate_run
from fusion_jax.heatmap_net import Source, heatmap_source, open_heatmap_net
from fusion_jax.predict import predict_files
from fusion_jax.predictor import Predictor
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.presets import preset, with_overrides
from fusion_jax.records import read_json
from fusion_jax.report import write_report
from fusion_jax.sharding import data_mesh
from fusion_jax.tables import format_score
from fusion_jax.train import LoopOptions, train

STRATEGIES = {"learned": "trainable fusion", "image": "image only", "heatmap": "heatmap only"}
FED: tuple[Source, ...] = ("true", "noisy", "predicted")
DATASET = "synthetic_humans"


def run_demo(
    data_dir: pathlib.Path, runs_dir: pathlib.Path, steps: int | None = None, chain: bool = False
) -> pathlib.Path:
    """Runs everything that is not done yet, prints tables, returns the report's path.

    Args:
      data_dir: for the prepared dataset.
      runs_dir: a work folder for each strategy and for the 2D network is made in it, and photos with their poses.
      steps: of each training; None for the presets'.
      chain: whether trainable fusion is also trained on noisy and on predicted heatmaps, and the photos are given to
        the network that was trained on predicted ones.
    """
    began = time.perf_counter()
    dataset = f"{DATASET}/{prepare_synthetic_humans(data_dir).parent.name}"
    results = {}
    for strategy in STRATEGIES:
        print(f"\n== {STRATEGIES[strategy]} ==", flush=True)
        config = with_overrides("tiny", strategy=strategy, steps=steps, dataset=dataset)
        results[strategy] = _trained(config, data_dir, runs_dir / strategy)
    report = write_report(runs_dir / "learned", [runs_dir / "image", runs_dir / "heatmap"])
    print("\n== 2D network ==", flush=True)
    hourglass = runs_dir / "hourglass"
    in2d = _trained(with_overrides("hourglass-tiny", steps=steps, dataset=dataset), data_dir, hourglass)
    write_report(hourglass)
    rows = {"true": runs_dir / "learned"}
    for source in FED[1:] if chain else ():
        print(f"\n== trainable fusion on {source} heatmaps ==", flush=True)
        rows[source] = runs_dir / f"learned_{source}"
        by = hourglass if source == "predicted" else None
        config = heatmap_source(with_overrides("tiny", steps=steps, dataset=dataset), source, workdir=by)
        _trained(config, data_dir, rows[source])
    print("\n== photos ==", flush=True)
    last = list(rows.values())[-1]
    photos, poses = write_photos(runs_dir / "photos"), runs_dir / ("poses_chain" if chain else "poses")
    outcome = predict_files([photos], Predictor(last, None if chain else hourglass), poses)
    print("\n".join([f"left out: {text}" for text in outcome.failed] + [f"{outcome.people} people found"]))
    print("\n" + comparison(results))
    print("\n" + words_2d(in2d))
    if chain:
        print("\n" + heatmap_table({name: _on_each(run, name, hourglass) for name, run in rows.items()}))
    print(f"\n{time.perf_counter() - began:.0f} s; open the report: {report.absolute()}")
    print(f"and people it has never seen, from photo to pose: {(poses / 'index.html').absolute()}")
    given = "" if chain else f" --heatmap-workdir {hourglass}"
    print(f"your own photo: fusion-jax predict photo.jpg --workdir {last}{given} --out poses")
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
    weights = open_heatmap_net(hourglass, data_mesh()).net.weights
    found: dict[str, dict[str, Any]] = {}
    for source in FED:
        by = hourglass if source == "predicted" else None
        ending = "" if source == own else f"_{source}" if by is None else f"_{source}_{weights[:8]}"
        if not scored(workdir, step, f"test{ending}"):
            evaluate_run(workdir, heatmaps=source, heatmap_workdir=by)
        found[source] = read_json(workdir / "eval" / f"test{ending}.json")
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


def words_2d(result: dict[str, Any]) -> str:
    """The 2D network's scores in a line, beside those of always answering the mean joints."""
    baseline = result["baseline"]
    return (
        f"2D network on the test people: PCKh@0.5 {100 * result['pckh_0.5']:.1f} % (mean joints "
        f"{100 * baseline['pckh_0.5']:.1f} %), error {result['joint_error_px']:.1f} px (mean joints "
        f"{baseline['joint_error_px']:.1f} px) of {preset('hourglass-tiny').inputs.image_size}"
    )


def heatmap_table(results: dict[str, dict[str, dict]]) -> str:
    """mpjpe of trainable fusion by the heatmaps it was trained on (rows) and is tested on."""
    lines = [f"{'test people, mpjpe in mm; tested on':36s}" + "".join(f"{source:>12s}" for source in FED)]
    for trained_on, fed in results.items():
        scores = (format_score(fed[source]["mpjpe_mm"], "mpjpe_mm") for source in FED)
        lines.append(f"{'trained on ' + trained_on + ' heatmaps':36s}" + "".join(f"{score:>12s}" for score in scores))
    return "\n".join(lines)
