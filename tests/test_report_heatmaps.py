"""The report of a run of the 2D network: what the log, the scores and the samples say must be on the page."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_report import EVIL, Outline, RunMaker, png_size, table_rows, visible_text
from views import BODY, WAVING_MM

from fusion_jax.errors import UserError
from fusion_jax.report import write_report
from fusion_jax.report_heatmaps import channel_figure, error_bars, learning_curves, sample_figure
from fusion_jax.run_record import read_run, read_samples2d
from fusion_jax.skeletons import SKELETONS, convert_joints

LAYOUT = SKELETONS["mpii16"]
SIZE = 64


@dataclasses.dataclass
class HeatmapRunMaker:
    """Writes a work folder as training and evaluation of a 2D network leave it; fields are what the tests vary."""

    workdir: Path
    steps: int = 600
    every: int = 50
    splits: tuple[str, ...] = ("test",)
    error_px: float = 2.25
    pckh: float | None = 0.7125
    action: str = "walking"
    stacks: int = 2

    def write(self) -> Path:
        """Everything at once; returns the work folder."""
        (self.workdir / "eval").mkdir(parents=True)
        (self.workdir / "config.json").write_text(json.dumps(self.config()))
        lines = [json.dumps(record) for record in self.log()]
        (self.workdir / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        for split in self.splits:
            (self.workdir / "eval" / f"{split}.json").write_text(json.dumps(self.scores(split)))
            np.savez(self.workdir / "eval" / f"{split}_samples.npz", **self.samples())
        return self.workdir

    def config(self) -> dict:
        network = {"type": "HourglassConfig", "stacks": self.stacks, "features": 48, "depth": 3}
        inputs = {"skeleton": "mpii16", "heatmap_skeleton": "mpii16", "image_size": SIZE, "heatmap_size": SIZE // 4}
        return {"preset": "hourglass-tiny", "dataset": "synthetic_humans", "network": network, "inputs": inputs}

    def log(self) -> list[dict]:
        records = []
        for step in range(self.every, self.steps + 1, self.every):
            part = step / self.steps
            records.append(
                {"kind": "train", "step": step, "loss": 0.15 * 0.05**part, "grad_norm": 0.1,
                 "joint_error_px": 2 + 20 * 0.02**part, "examples_per_s": 210.0, "seconds": 0.1 * step}
            )  # fmt: skip
            if step % (2 * self.every) == 0:
                record = {"kind": "validation", "step": step, "joint_error_px": 2.4 + 16 * 0.02**part}
                pckh = {} if self.pckh is None else {"pckh_0.5": 0.75 * part}
                records.append(record | pckh | {"pck_0.2_torso": 0.8 * part})
        return records

    def scores(self, split: str) -> dict:
        base = {"pckh_0.5": self.pckh, "pck_0.2_torso": 0.8125, "joint_error_px": self.error_px, "num_joints": 4800}
        hard = {"wrist": 3.0, "elbow": 1.2, "ankle": 0.8}
        per_joint = {}
        for name in LAYOUT.joints:
            worse = hard.get(name.rpartition("_")[2], 0.0)
            share = None if self.pckh is None else self.pckh - 0.15 * worse
            per_joint[name] = base | {"joint_error_px": self.error_px + worse, "pckh_0.5": share, "num_joints": 300}
        per_action = {
            name: base | {"joint_error_px": self.error_px + more, "num_frames": 100}
            for name, more in ((self.action, -0.75), ("sitting", 1.5), ("reaching", 0.5))
        }
        baseline = base | {"name": "mean training pose", "pckh_0.5": self.pckh and 0.2, "pck_0.2_torso": 0.25}
        return base | {
            "num_frames": 300,
            "baseline": baseline | {"joint_error_px": 6.75},
            "per_action": per_action,
            "per_joint": per_joint,
            "protocol": {"dataset": "synthetic_humans", "split": split, "subjects": ["P07"], "input": "64 px crops"},
            "task": "heatmaps", "dataset": "synthetic_humans", "split": split, "checkpoint_step": self.steps,
        }  # fmt: skip

    def samples(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        kinds = np.array(["best", "median", "worst"])
        pose = convert_joints(WAVING_MM[:, :2] * 0.031 + (31.5, 33.0), BODY, LAYOUT)
        true = pose + rng.normal(0, 0.6, (3, 16, 2))
        pred = true + rng.normal(0, 1, (3, 16, 2)) * np.array([0.6, 1.8, 7.0])[:, None, None]
        peak = np.clip(rng.normal([[0.9], [0.7], [0.3]], 0.1, (3, 16)), 0.05, 1)
        rows, columns = np.mgrid[: SIZE // 4, : SIZE // 4]
        place = (pred + 0.5) / 4 - 0.5
        far = (columns - place[..., None, None, 0]) ** 2 + (rows - place[..., None, None, 1]) ** 2
        smooth = rng.integers(60, 200, (3, 4, 4, 3)).repeat(16, 1).repeat(16, 2) + rng.integers(
            -9, 9, (3, SIZE, SIZE, 3)
        )
        return {
            "image": smooth.astype(np.uint8),
            "joints2d": true.astype(np.float32),
            "pred2d_px": pred.astype(np.float32),
            "valid2d": np.ones((3, 16), bool),
            "confidence": peak.astype(np.float32),
            "heatmap": (peak[..., None, None] * np.exp(-far / 2)).transpose(0, 2, 3, 1).astype(np.float16),
            "joint_error_px": np.linalg.norm(pred - true, axis=-1).mean(1),
            "kind": kinds,
            "subject": np.full(3, "P07"),
            "action": np.full(3, self.action),
            "sequence": np.full(3, "walk_03"),
            "frame": np.arange(3) * 7,
        }


@pytest.fixture
def maker(tmp_path: Path) -> HeatmapRunMaker:
    return HeatmapRunMaker(tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The page of a run; not to be changed."""
    return write_report(HeatmapRunMaker(tmp_path_factory.mktemp("runs") / "run").write())


def test_page_tells_scores_and_protocol(finished):
    text = visible_text(finished.read_text())
    # 1 - 2.25 / 6.75 = 2 / 3
    for words in ("71.2 % of joints right (PCKh at 0.5) on test", "2.25 px mean distance, in pictures 64 px across",
                  "67% less error than always answering the mean place (6.75 px)", "600 training steps",
                  "PCK at 0.2 81.2 % 25.0 %", "joint error 2.25 px 6.75 px", "frames scored 300", "joints scored 4,800",
                  "checkpoint step 600", "subjects P07", "PCKh at 0.5 71.2 % 20.0 %"):  # fmt: skip
        assert words in text, words
    assert "fusion" not in text.replace("fusion-jax", "") and "3D" not in text


def test_sections_pictures_and_form(finished):
    page = finished.read_text()
    titles = [visible_text(title) for title in re.findall(r"<h2>.*?</h2>", page)]
    expected = ["Scores", "How it learned", "Where it errs on test", "Sample predictions on test", "Settings"]
    assert titles == expected
    files = {p.stem: p.read_bytes() for p in (finished.parent / "report").iterdir()}
    names = ("joints", "actions", "samples_best", "samples_median", "samples_worst", "heatmaps")
    assert set(files) == {"learning_curves"} | {f"test_{name}" for name in names}
    for name, content in files.items():
        width, height = png_size(content)
        assert width > 600 and height > 200, name
        assert base64.b64encode(content).decode() in page, name
    for tag, attributes in Outline(page).tags:
        assert attributes.get("src", "data:").startswith("data:") and attributes.get("href", "#").startswith("#"), tag
    assert "Plotly.newPlot" not in page and len(page) < 4e6, (
        "there is nothing to turn by hand, so its megabytes stay away"
    )


def test_text_from_files_is_escaped(maker):
    maker.action = EVIL
    page = write_report(maker.write()).read_text()
    assert "<script>alert" not in page
    Outline(page)


def test_without_heads_the_torso_measures(maker):
    maker.pckh = None
    run = maker.write()
    text = visible_text(write_report(run).read_text())
    assert "81.2 % of joints right (PCK at 0.2) on test" in text and "PCKh at 0.5 — —" in text
    figure = learning_curves([], [{"step": 5, "pck_0.2_torso": 0.5}], "pck_0.2_torso", {})
    assert figure.axes[2].get_title() == "joints found (PCK at 0.2)"


def test_parts_that_are_missing_are_left_out_with_a_sentence(maker):
    run = maker.write()
    scores = maker.scores("test")
    del scores["per_action"], scores["baseline"]
    scores["per_joint"]["pelvis"] |= {"joint_error_px": None, "num_joints": 0}
    (run / "eval" / "test.json").write_text(json.dumps(scores))
    (run / "eval" / "test_samples.npz").unlink()
    log = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(line for line in log if "validation" not in line) + "\n")
    text = visible_text(write_report(run).read_text())
    assert "No bars per action" in text and "holds no validation scores" in text
    assert "Never known in these frames: pelvis." in text and "less error" not in text
    assert f"to make it run again: fusion-jax evaluate --workdir {run} --split test" in text
    assert {p.stem for p in (run / "report").iterdir()} == {"learning_curves", "test_joints"}


def test_comparison_of_2d_networks(maker, tmp_path):
    other = HeatmapRunMaker(tmp_path / "other", error_px=1.5, pckh=0.65, stacks=1).write()
    page = write_report(maker.write(), [other]).read_text()
    assert table_rows(page, "comparison") == [
        ["run", "network", "PCKh at 0.5", "PCK at 0.2", "joint error", "frames"],
        ["run", "hourglass, 2 stacks, 48 wide", "71.2 %", "81.2 %", "2.25 px", "300"],
        ["other", "hourglass, 1 stack, 48 wide", "65.0 %", "81.2 %", "1.50 px", "300"],
        ["mean training pose", "none", "20.0 %", "25.0 %", "6.75 px", "—"],
    ]
    best = re.findall(r'<td class="number best">([^<]*)</td>', page)
    assert best == ["71.2 %", "81.2 %", "81.2 %", "1.50 px"]


def test_px_of_another_input_do_not_compare(maker, tmp_path):
    other = HeatmapRunMaker(tmp_path / "other")
    scores = other.scores("test")
    scores["protocol"]["input"] = "128 px crops"
    (other.write() / "eval" / "test.json").write_text(json.dumps(scores))
    text = visible_text(write_report(maker.write(), [other.workdir]).read_text())
    assert "Beware: other reads pictures of another size: shares compare, px do not." in text
    scores["protocol"]["subjects"] = ["P08"]
    (other.workdir / "eval" / "test.json").write_text(json.dumps(scores))
    text = visible_text(write_report(maker.workdir, [other.workdir]).read_text())
    assert "Beware: other was scored differently (subjects, input), its row is not comparable." in text


def test_runs_of_different_tasks_are_not_compared(maker, tmp_path):
    run, pose = maker.write(), RunMaker(tmp_path / "pose").write()
    with pytest.raises(UserError, match="pose: a run of task pose, but .*run is of task heatmaps, .*runs of one task"):
        write_report(run, [pose])
    with pytest.raises(UserError, match="run: a run of task heatmaps, but .*pose is of task pose"):
        write_report(pose, [run])
    assert not (run / "report.html").exists() and not (pose / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred2d_px": np.zeros((3, 17, 2))}, r"pred2d_px has shape \(3, 17, 2\), expected \(3, 16, 2\)"),
        ({"frame": np.array(1)}, r"has shape .* for 1 samples of mpii16"),
        ({"subject": np.array([None] * 3, object)}, "cannot be read"),
        ({"confidence": None}, "cannot be read.*confidence"),
    ],
)
def test_broken_samples_and_scores_are_named(maker, change, words):
    run = maker.write()
    path = run / "eval" / "test_samples.npz"
    np.savez(path, **{k: v for k, v in (maker.samples() | change).items() if v is not None})
    with pytest.raises(UserError, match=f"test_samples.npz.*{words}.*`fusion-jax evaluate"):
        read_samples2d(path, LAYOUT)
    (run / "eval" / "test.json").write_text('{"mpjpe_mm": 60.0}')
    with pytest.raises(UserError, match="joint_error_px is None, expected a number of px"):
        read_run(run)


class TestFigures:
    def test_learning_curves_hold_the_log_and_the_baseline(self, maker):
        train = [r for r in maker.log() if r["kind"] == "train"]
        validation = [r for r in maker.log() if r["kind"] == "validation"]
        baseline = {"joint_error_px": 6.75, "pckh_0.5": 0.2}
        figure = learning_curves(train, validation, "pckh_0.5", baseline)
        loss, error, share = figure.axes
        np.testing.assert_array_equal(loss.lines[0].get_ydata(), [r["loss"] for r in train])
        drawn, checked, mean = error.lines
        np.testing.assert_array_equal(drawn.get_ydata(), [r["joint_error_px"] for r in train])
        np.testing.assert_array_equal(checked.get_xdata(), [r["step"] for r in validation])
        assert set(mean.get_ydata()) == {6.75} and set(share.lines[1].get_ydata()) == {0.2}
        assert len(learning_curves(train, [], None, {}).axes) == 2

    def test_bars_stand_in_order_and_shares_are_percent(self):
        scores = {"a": {"joint_error_px": 1.5, "pckh_0.5": 0.25}, "b": {"joint_error_px": 0.5, "pckh_0.5": None}}
        left, right = error_bars(scores, "pckh_0.5", ["red", "blue"]).axes
        assert [bar.get_width() for bar in left.patches] == [1.5, 0.5]
        assert [bar.get_width() for bar in right.patches] == [25, 0]
        first, second = (bar.get_y() for bar in left.patches)
        assert first > second, "from the top"
        assert [text.get_text() for text in right.texts] == ["25", "n/a"]
        assert len(error_bars(scores, None, ["red", "blue"]).axes) == 1

    def test_samples_lead_from_predicted_to_true(self, maker, tmp_path):
        np.savez(tmp_path / "x.npz", **maker.samples())
        samples = read_samples2d(tmp_path / "x.npz", LAYOUT)
        samples.valid2d[0, 3] = False
        figure = sample_figure(samples, [0], LAYOUT)
        true, found, heat = figure.subfigs[0].axes
        drawn = [line for line in found.lines if line.get_color() == "#f5d800"]
        ends = np.array([line.get_xydata() for line in drawn])
        known = samples.valid2d[0]
        np.testing.assert_array_equal(ends, np.stack([samples.pred2d_px[0], samples.joints2d[0]], 1)[known])
        assert "true" in true.get_title() and "brightest 0." in heat.get_title()
        assert true.get_xlim() == (-0.5, SIZE - 0.5)

    def test_every_joint_has_its_heatmap_and_its_true_place(self, maker, tmp_path):
        np.savez(tmp_path / "x.npz", **maker.samples())
        samples = read_samples2d(tmp_path / "x.npz", LAYOUT)
        samples.valid2d[1, 0] = False
        axes = channel_figure(samples, 1, LAYOUT).axes
        assert [axis.get_title().rpartition("  ")[0] for axis in axes[:16]] == [
            n.replace("_", " ") for n in LAYOUT.joints
        ]
        assert not axes[0].lines and not axes[16].axison
        np.testing.assert_allclose(axes[9].lines[0].get_xydata()[0], samples.joints2d[1, 9])
        assert axes[9].get_title().endswith(f"{samples.confidence[1, 9]:.2f}")
