"""Every dataset in its true format, made up: check-data, prepare, train, evaluate and the report, as a lab would."""

import dataclasses
import functools
import importlib
import json

import numpy as np
import pytest
import small

from data_pipelines.mpii.dummy_data import write_dummy
from data_pipelines.mpii.settings import MpiiSettings
from fusion_jax.cli import main
from fusion_jax.datasets import open_dataset
from fusion_jax.evaluate import evaluate_run, example_labels
from fusion_jax.prepare_raw import prepare_raw
from fusion_jax.report import write_report
from fusion_jax.train import LoopOptions, train

pytestmark = pytest.mark.optimised

QUIET = LoopOptions(show=False, log_every=1, eval_every=2, eval_frames=8)
# Per dataset: options of its dummy data, flags of `prepare`, the layout of a network for it, frames by split.
CASES = {
    "human36m": (
        {"sequences": {"S1": ("Walking 1",), "S8": ("Photo",), "S9": ("Greeting",), "S11": ("Directions",)}, "rows": 2,
         "optional": False},
        ["--table", "RAW/sequences.txt", "--subjects", "S1", "S8", "S9", "S11", "--frame-step", "1", "--size", "32"],
        "human36m17",
        {"train": 8, "validation": 8, "test": 14},  # 4 cameras x 2 rows; S11 Directions is dropped from one camera
    ),
    "humaneva": (
        {"frame_step": 120},
        ["--actions", "Box", "--cameras", "C1", "--frame-step", "120", "--size", "32"],
        "humaneva15",
        # Box of 2.3: train halves 386-789, 383-734 (S1, S2) and 513-1021 (S3, held out), test 6-385, 6-382, 6-512
        {"train": 4 + 3, "validation": 5, "test": 4 + 4 + 5},
    ),
    "kth_football2": (
        {"steps": 12}, ["--size", "32"], "lsp14",
        {"train": 5, "validation": 1, "test": 6},  # halves of 6 steps; a fifth of the first is held out
    ),
    "lsp": ({"pictures": None}, ["--size", "32"], "lsp14", {"train": 900, "validation": 100, "test": 1000}),
    "mpii": ({}, ["--size", "32"], "mpii16", None),
    "tekin_release": ({"rows": (8, 4)}, [], "human36m17", {"train": 6, "validation": 2, "test": 4}),
}  # fmt: skip
ONLY_2D = ("lsp", "mpii")


def network_for(layout, **fields):
    base = small.config(steps=2, batch_size=4, **fields)
    return dataclasses.replace(base, inputs=dataclasses.replace(base.inputs, skeleton=layout))


@functools.cache
def synthetic_run(layout, folder):
    """A network that was trained on synthetic people only, as the paper's for LSP."""
    train(network_for(layout), small.data_dir(), folder, LoopOptions(show=False, eval_every=0))
    return folder


def test_pckh_is_the_same_in_pictures_of_any_size(tmp_path):
    """A head of 8 px of the stored picture is one of 4 px where the network sees that picture at half its size."""
    example = {"head_size_px": np.float32(8), "subject": b"S1", "action": "walking", "sequence": b"q"}
    labels = example_labels(example, enlarged=0.5)
    assert (labels["head_size_px"], labels["subject"], labels["camera_name"]) == (4, "S1", "")
    write_dummy(tmp_path / "raw")
    scores = []
    for size in (16, 64):  # of the stored pictures; the network sees 16 px
        data = tmp_path / f"data{size}"
        settings = MpiiSettings(size=size)
        prepare_raw("mpii", tmp_path / "raw", data, settings)
        result = evaluate_run(synthetic_run("mpii16", tmp_path / "run"), batch_size=8, dataset="mpii", data_dir=data)
        (table,) = result["benchmark"]["tables"]
        scores.append({row["name"]: row["values"]["pckh_0.5_percent"] for row in table["rows"]})
    assert scores[0] == pytest.approx(scores[1], abs=17), "one of six people's joints may fall on the other side"
    assert scores[0]["total"] < 90, "a network that has learned nothing"


@pytest.mark.parametrize("name", CASES)
def test_from_raw_files_to_the_report(name, tmp_path, capsys):
    options, flags, layout, expected = CASES[name]
    raw, data, run = tmp_path / "raw", tmp_path / "data", tmp_path / "run"
    importlib.import_module(f"data_pipelines.{name}.dummy_data").write_dummy(raw, **options)
    flags = [flag.replace("RAW", str(raw)) for flag in flags]
    assert main(["check-data", name, "--manual-dir", str(raw), *flags]) == 0, capsys.readouterr().out
    assert "complete: " in capsys.readouterr().out
    command = ["prepare", name, "--manual-dir", str(raw), "--data-dir", str(data), "--workers", "0", *flags]
    assert main(command) == 0, capsys.readouterr().err
    assert main(command) == 0 and "is there already; reusing it" in capsys.readouterr().out
    info = json.loads(next(data.glob("*/*/*/dataset_info.json")).read_text())
    counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    if expected is not None:
        assert counts == expected
    if name in ONLY_2D:
        run = synthetic_run(layout, run)
        result = evaluate_run(run, batch_size=16, dataset=name, data_dir=data)
        assert result["mpjpe_mm"] is None
        assert result["dataset"].startswith(f"{name}/") and result["split"] == "test"
        assert result["name"] == result["dataset"].replace("/", "_").replace("=", "_") + "_test"
        assert (run / "eval" / f"{result['name']}.json").is_file()
        assert result["baseline"]["name"] == f"mean training pose of {result['dataset']}"
    else:
        train(network_for(layout, dataset=name), data, run, QUIET)
        result = evaluate_run(run, batch_size=8)
        assert result["mpjpe_mm"] > 0 and result["baseline"]["mpjpe_mm"] > 0
    assert result["num_frames"] == counts["test"]
    if name != "tekin_release":
        made = "differs from the protocol: the network is given the true 2D joints, as heatmaps"
        assert made in result["benchmark"]["differs"]
        words = result["benchmark"]["protocol"]
        assert words["input"] == "16 px crops; heatmaps from true 2D joints" and words["data, boxes"]
        tables = result["benchmark"]["tables"]
        scores = [value for table in tables for row in table["rows"] for value in row["values"].values()]
        assert any(score is not None for score in scores)
    else:
        assert open_dataset(name, data, 16).family == "human36m"
    page = write_report(run).read_text()
    assert "benchmark-" in page or name == "tekin_release"
