"""The page on datasets of one's own: its code runs as it stands, and what it makes can be trained on."""

import csv
import dataclasses
import importlib.util
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import small

from data_pipelines.prepared import open_prepared
from data_pipelines.samples import camera_pose_mm
from fusion_jax.evaluate import evaluate_run
from fusion_jax.skeletons import skeleton
from fusion_jax.train import LoopOptions, train

ROOT = pathlib.Path(__file__).parent.parent
LAYOUT = skeleton("lsp14")


def write_raw(folder):
    """Three people, two pictures each, joints drawn at random; Cem's second picture lacks a wrist."""
    rng = np.random.default_rng(0)
    rows, truth = [], {}
    for subject, split in (("ann", "train"), ("ben", "validation"), ("cem", "test")):
        (folder / subject).mkdir(parents=True)
        for number in range(2):
            name = f"{subject}/{number}.png"
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (90, 70, 3), np.uint8))
            px, mm = rng.uniform(10, 60, (14, 2)).round(2), rng.normal(0, 400, (14, 3)).round(2)
            truth[subject, number] = mm
            for j, joint in enumerate(LAYOUT.joints):
                if (name, joint) != ("cem/1.png", "left_wrist"):
                    rows.append([name, subject, split, joint, *px[j], *mm[j]])
    with (folder / "joints.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["file", "subject", "split", "joint", "x_px", "y_px", "x_mm", "y_mm", "z_mm"], *rows]
        )
    return truth


def test_the_page_works_as_it_stands(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_own_dataset.md").read_text(), re.S)
    script = tmp_path / "mydata.py"
    script.write_text(code)
    truth = write_raw(tmp_path / "raw")
    command = [sys.executable, script, tmp_path / "raw", tmp_path / "data"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "train 2, validation 2, test 2 frames" in done.stdout
    dataset = open_prepared("mydata", tmp_path / "data")
    assert dataset.subjects == {"train": ["ann"], "validation": ["ben"], "test": ["cem"]}
    for number, example in enumerate(dataset.split("test")):
        pose, valid = camera_pose_mm(example, LAYOUT, "x")
        expected = truth["cem", number] - truth["cem", number][[2, 3]].mean(0)
        np.testing.assert_allclose(pose[valid], expected[valid], atol=1e-3)
        assert valid.all() != (number == 1)
    base = small.config(steps=1, batch_size=4, dataset="mydata")
    config = dataclasses.replace(base, inputs=dataclasses.replace(base.inputs, skeleton="lsp14"))
    train(config, tmp_path / "data", tmp_path / "run", LoopOptions(show=False, eval_every=0))
    assert evaluate_run(tmp_path / "run", batch_size=4)["num_frames"] == 2


def test_its_errors_name_the_line(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_own_dataset.md").read_text(), re.S)
    (tmp_path / "mydata.py").write_text(code)
    spec = importlib.util.spec_from_file_location("mydata_page", tmp_path / "mydata.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    write_raw(tmp_path / "raw")
    table = tmp_path / "raw" / "joints.csv"
    table.write_text(table.read_text().replace("ann/1.png,ann,train,left_knee", "ann/1.png,ann,train,left_nee"))
    page.prepare_with(page.Mydata, tmp_path / "raw", tmp_path / "data", page.MySettings(), partial=True)
    dataset = open_prepared("mydata", tmp_path / "data")
    assert len(dataset.split("train")) == 1
    assert "ann/1.png: unknown joint of lsp14 'left_nee'. Did you mean 'left_knee'?" in dataset.description["warning"]
