"""Evaluating a run of the 2D network: its files, what its numbers mean, and whom it may not be scored on."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_hourglass

from data_pipelines.mpii.dummy_data import write_dummy
from data_pipelines.mpii.settings import MpiiSettings
from fusion_jax import evaluate_heatmaps, scoring
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.config import InputConfig
from fusion_jax.datasets import open_dataset
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run, evaluation_text
from fusion_jax.evaluate_heatmaps import evaluate_heatmap_run, mean_joints2d
from fusion_jax.heatmap_tables import COLUMNS_2D
from fusion_jax.heatmaps import decode_heatmaps
from fusion_jax.prepare_raw import prepare_raw
from fusion_jax.progress import Progress
from fusion_jax.records import read_json
from fusion_jax.report import write_report
from fusion_jax.run_record import read_run
from fusion_jax.skeletons import convert_joints, skeleton
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import DatasetRecord, load_run, load_seen, save_run

LAYOUT = skeleton("mpii16")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on 16 px pictures."""
    workdir = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(small_hourglass.config(stacks=1), steps=2, augment=AUGMENTATIONS["none"])
    train(config, small.data_dir(), workdir, LoopOptions(show=False, log_every=1, eval_every=2, eval_frames=8))
    return workdir


@pytest.fixture(scope="module")
def result(run):
    return evaluate_run(run, batch_size=8)


@pytest.fixture
def oracle(monkeypatch):
    """Puts someone who knows where the joints are, but for a shift in px, in the network's place.

    The samples' heatmaps are of a network that has learned nothing; restoring one would compile for each test anew.
    """
    monkeypatch.setattr(evaluate_heatmaps, "restore_run", lambda workdir, config, *_: small_hourglass.state(config))

    def put(*shift):
        def step(state, batch):
            return {"pred2d_px": batch["joints2d"] + jnp.array(shift), "confidence": batch["valid2d"] * 1.0}

        monkeypatch.setattr(evaluate_heatmaps, "heatmap_eval_step", step)

    return put


def test_files_hold_what_is_promised(run, result):
    assert read_json(run / "eval" / "test.json") == result and result["task"] == "heatmaps"
    assert result["num_frames"] == 56 and result["num_joints"] == 56 * 16 and result["checkpoint_step"] == 2
    assert len(result["per_action"]) == 14 and list(result["per_joint"]) == list(LAYOUT.joints)
    assert all(isinstance(result[name], float) for name in COLUMNS_2D)
    words = result["protocol"]
    assert words["subjects"] == ["S03"] and words["training subjects"] == ["S01"]
    assert "16 px crops, each mirrored too" in words["input"] and "0 of 896 lie outside the crop" in words["joints"]
    assert "known in 56 of 56 frames" in words["pckh_0.5"] and "warning" not in words
    for name in ("md", "csv"):
        assert (run / "eval" / f"test.{name}").read_text().count("walking") == 1
    assert evaluation_text(result) == (run / "eval" / "test.md").read_text()
    log = read_run(run)
    assert {"pckh_0.5", "joint_error_px"} <= log.validation[0].keys() and "joint_error_px" in log.train[0]


def test_progress_shows_the_error_in_px_and_what_was_found(tmp_path, capsys):
    with Progress(tmp_path, start=0, total=10, label="x") as progress:
        progress.row("train", 5, {"loss": 0.0123, "grad_norm": 1.0, "joint_error_px": 3.456})
        progress.row("validation", 5, {"pckh_0.5": 0.7128, "joint_error_px": 2.5})
    lines = capsys.readouterr().err.splitlines()
    assert "step 5/10  loss 0.0123  joint_error_px 3.46" in lines[0]
    assert lines[1].endswith("step 5/10  joint_error_px 2.50  pckh_0.5 0.713")


def test_relations_between_the_numbers(result):
    """Every joint is known in every frame, so each group weighs by its size."""
    for column in COLUMNS_2D:
        joints = [row[column] for row in result["per_joint"].values()]
        actions = [row[column] * row["num_joints"] for row in result["per_action"].values()]
        assert np.mean(joints) == pytest.approx(result[column], rel=1e-5)
        assert sum(actions) / result["num_joints"] == pytest.approx(result[column], rel=1e-5)


def test_batch_size_does_not_matter_and_other_tasks_are_refused(run, result, tmp_path):
    again = evaluate_heatmap_run(run, batch_size=20)
    assert again["per_joint"]["left_knee"] == pytest.approx(result["per_joint"]["left_knee"], rel=1e-3)
    save_run(tmp_path, small.config(), DatasetRecord("a", "b", "c"), [])
    with pytest.raises(UserError, match="a run of a 2D network is needed"):
        evaluate_heatmap_run(tmp_path)
    with pytest.raises(UserError, match="batch_size is 0"):
        evaluate_heatmap_run(run, batch_size=0)


def test_samples_show_what_was_scored(run, result):
    samples = read_run(run).evaluations[0].samples2d
    assert samples.kind.tolist() == ["best"] * 4 + ["median"] * 4 + ["worst"] * 4
    distance = np.linalg.norm(samples.pred2d_px - samples.joints2d, axis=-1).mean(1)
    np.testing.assert_allclose(samples.joint_error_px, distance, rtol=1e-5)
    assert distance[:4].max() <= result["joint_error_px"] <= distance[8:].min()
    assert samples.image.shape == (12, 16, 16, 3) and set(samples.subject) == {"S03"}
    assert samples.sequence[0].startswith("S03/") and "/cam" in samples.sequence[0]
    joints, peaks = decode_heatmaps(jnp.asarray(samples.heatmap, jnp.float32), 16)
    np.testing.assert_allclose(peaks, samples.confidence, atol=1e-3)
    close = np.linalg.norm(joints - samples.pred2d_px, axis=-1) < 0.2  # float16 may turn a tie of two pixels
    assert close.mean() > 0.95


@pytest.mark.parametrize("size", [16, 32])
def test_px_are_those_of_the_input_whatever_size_is_stored(run, tmp_path, oracle, size):
    """Joints that are 3 and 4 px off are 5 px off; pictures of 16 px are stored."""
    config, record = load_run(run)
    inputs = InputConfig(image_size=size, skeleton="mpii16", heatmap_size=size // 4)
    save_run(tmp_path, dataclasses.replace(config, inputs=inputs), record, load_seen(run))
    oracle(3.0, 4.0)
    got = evaluate_run(tmp_path)
    assert got["joint_error_px"] == pytest.approx(5, rel=1e-5)
    heads = [
        float(e["head_size_px"]) * size / 16
        for e in open_dataset("synthetic_humans", small.data_dir(), 16).split("test")
    ]
    assert min(heads) > 0.05 * size
    assert got["pckh_0.5"] == pytest.approx(np.mean([5 <= 0.5 * head for head in heads]))
    oracle(0.0, 0.0)
    perfect = evaluate_run(tmp_path)
    assert perfect["joint_error_px"] == 0 and perfect["pckh_0.5"] == perfect["pck_0.2_torso"] == 1


def test_baseline_is_the_mean_place_in_the_training_crops(result):
    """In an input twice as wide as the stored pictures: edges at -0.5 stay there."""
    dataset = open_dataset("synthetic_humans", small.data_dir(), 16)
    stored = np.stack([convert_joints(e["joints2d_px"], dataset.skeleton, LAYOUT) for e in dataset.split("train")])
    mean, known = mean_joints2d(dataset, LAYOUT, 32)
    np.testing.assert_allclose(mean, (stored.mean(0) + 0.5) * 2 - 0.5, rtol=1e-4)
    assert known.all()
    tested = np.stack([convert_joints(e["joints2d_px"], dataset.skeleton, LAYOUT) for e in dataset.split("test")])
    expected = np.linalg.norm(tested - stored.mean(0), axis=-1).mean()
    assert result["baseline"]["joint_error_px"] == pytest.approx(expected, rel=1e-4)
    assert result["baseline"]["num_joints"] == result["num_joints"]


def test_scores_on_what_was_trained_on_say_so_and_its_people_elsewhere_are_refused(run, monkeypatch):
    assert evaluate_run(run, "train", batch_size=8)["protocol"]["warning"] == "the network was trained on these frames"
    base = open_dataset("synthetic_humans", small.data_dir(), 16)
    swapped = dataclasses.replace(
        base, name="other/config", splits={"test": base.split("train")}, subjects={"test": base.subjects["train"]}
    )
    monkeypatch.setattr(scoring, "open_dataset", lambda *_: swapped)
    with pytest.raises(UserError, match="S01 of other/config's test split was trained on"):
        evaluate_run(run, dataset="other")
    monkeypatch.setattr(scoring, "open_dataset", lambda *_: dataclasses.replace(base, fingerprint="changed"))
    with pytest.raises(UserError, match="fingerprint changed"):
        evaluate_run(run)


class Changed:
    """Examples with some fields replaced."""

    def __init__(self, examples, **fields):
        self._examples, self._fields = examples, fields

    def __len__(self):
        return len(self._examples)

    def __getitem__(self, index):
        return self._examples[index] | self._fields


def test_without_heads_without_training_part_and_without_2d_at_all(run, monkeypatch, oracle):
    oracle(1.0, 1.0)
    base = open_dataset("synthetic_humans", small.data_dir(), 16)
    valid = np.arange(17) != base.skeleton.index("left_wrist")
    test = Changed(base.split("test"), head_size_px=np.float32(0), valid2d=valid)
    other = dataclasses.replace(base, name="own/x=1", splits={"test": test}, subjects={"test": ["me"]}, family="own")
    monkeypatch.setattr(scoring, "open_dataset", lambda *_: other)
    got = evaluate_run(run, dataset="own")
    assert got["name"] == "own_x_1_test" and (run / "eval" / "own_x_1_test_samples.npz").is_file()
    assert (
        got["pckh_0.5"] is None and got["pck_0.2_torso"] is not None and "0 of 56 frames" in got["protocol"]["pckh_0.5"]
    )
    assert got["per_joint"]["left_wrist"] == dict.fromkeys(COLUMNS_2D) | {"num_joints": 0}
    assert got["num_joints"] == 56 * 15 and got["baseline"]["joint_error_px"] is None
    assert got["baseline"]["name"] == "mean training pose of own/x=1"
    blind = dataclasses.replace(other, splits={"test": Changed(base.split("test"), valid2d=np.zeros(17, bool))})
    monkeypatch.setattr(scoring, "open_dataset", lambda *_: blind)
    with pytest.raises(UserError, match="no joint of mpii16 is known in 2D in own/x=1's test split"):
        evaluate_run(run, dataset="own")


def test_mpii_is_scored_by_its_own_protocol_too(run, tmp_path, oracle):
    write_dummy(tmp_path / "raw")
    prepare_raw("mpii", tmp_path / "raw", tmp_path / "data", MpiiSettings(size=32))
    oracle(0.0, 0.0)
    got = evaluate_run(run, dataset="mpii", data_dir=tmp_path / "data")
    (table,) = got["benchmark"]["tables"]
    scored = {row["name"]: row["values"]["pckh_0.5_percent"] for row in table["rows"]}
    assert set(scored.values()) == {100} and "total" in scored
    assert got["benchmark"]["protocol"]["alignment"] == "none: 2D joints as the network predicts them"
    assert got["benchmark"]["protocol"]["input"].startswith("16 px crops")
    assert (run / "eval" / f"{got['name']}_protocol.md").is_file() and "### MPII" in evaluation_text(got)
    oracle(2.0, 0.0)
    shifted = evaluate_run(run, dataset="mpii", data_dir=tmp_path / "data")
    (table,) = shifted["benchmark"]["tables"]
    assert f"benchmark-{got['name']}" in write_report(run).read_text()
    ankle = next(row["values"]["pckh_0.5_percent"] for row in table["rows"] if row["name"] == "ankle")
    sides = [shifted["per_joint"][f"{side}_ankle"]["pckh_0.5"] for side in ("left", "right")]
    assert ankle == pytest.approx(100 * np.mean(sides)) and ankle < 100


def test_a_layout_without_the_benchmarks_joints_says_so(run):
    """LSP scores the neck, which MPII's 16 joints do not have."""
    config, _ = load_run(run)
    dataset = dataclasses.replace(open_dataset("synthetic_humans", small.data_dir(), 16), name="lsp/x")
    benchmark, reason = evaluate_heatmaps._benchmark(config, {}, dataset, "test", [], [])
    assert benchmark is None and reason.startswith("none: protocol lsp scores neck, which skeleton mpii16 lacks")
    other = dataclasses.replace(dataset, name="human36m/x")
    assert evaluate_heatmaps._benchmark(config, {}, other, "test", [], []) == (None, "")
