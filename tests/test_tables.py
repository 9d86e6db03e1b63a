"""Tables from frames whose scores are worked out by hand."""

import csv
import io

import numpy as np
import pytest

from fusion_jax.errors import UserError
from fusion_jax.metrics import AUC_THRESHOLDS_MM
from fusion_jax.skeletons import Skeleton
from fusion_jax.tables import (
    COLUMNS,
    DISTANCES,
    baseline_frames,
    csv_rows,
    format_score,
    markdown,
    pick_samples,
    score_batches,
    summarise,
    table,
)

BODY = Skeleton("body", ("pelvis", "left_hand", "right_hand"), (-1, 0, 0), ("pelvis",))
ACTIONS = np.array(["wave", "wave", "walk"])


def frames():
    """Three frames of three joints; one hand of the second frame is unknown and holds NaN."""
    distance = np.array([[0.0, 30, 60], [0, 120, np.nan], [0, 300, 150]])
    valid = ~np.isnan(distance)
    true = np.random.default_rng(0).normal(0, 300, (3, 3, 3)).astype(np.float32)
    return {name: distance for name in DISTANCES} | {
        "pred_mm": true, "true_mm": true, "valid": valid, "index": np.arange(3)
    }  # fmt: skip


def result():
    zero = baseline_frames(frames(), np.zeros((3, 3), np.float32))
    protocol = {"dataset": "d", "split": "test", "subjects": ["S9"], "root": "pelvis", "joints": "3"}
    return table(frames(), ACTIONS, BODY, zero) | {"protocol": protocol}


def test_means_by_hand():
    """Frame means 30, 60, 150; the action wave has mean 45, walk 150."""
    got = result()
    assert got["mpjpe_mm"] == pytest.approx((30 + 60 + 150) / 3)
    assert got["action_mean_mpjpe_mm"] == pytest.approx((45 + 150) / 2)
    assert got["per_action"]["wave"]["num_frames"] == 2 and got["per_action"]["walk"]["mpjpe_mm"] == 150
    assert got["per_joint"]["right_hand"]["mpjpe_mm"] == pytest.approx((60 + 150) / 2)
    assert got["pck_150mm"] == pytest.approx((1 + 1 + 2 / 3) / 3), "150 mm itself counts as right"


def test_auc_by_hand():
    def share(distance):
        return np.mean([distance <= t for t in AUC_THRESHOLDS_MM])

    expected = np.mean([np.mean([share(d) for d in frame]) for frame in ([0, 30, 60], [0, 120], [0, 300, 150])])
    assert result()["auc"] == pytest.approx(expected, rel=1e-6)


def test_baseline_is_the_distance_to_the_given_pose():
    true = frames()["true_mm"].astype(np.float64)
    per_joint = np.where(frames()["valid"], np.linalg.norm(true, axis=-1), 0)
    expected = (per_joint.sum(1) / frames()["valid"].sum(1)).mean()
    assert result()["baseline"]["mpjpe_mm"] == pytest.approx(expected, rel=1e-5)


def test_a_group_without_a_valid_joint_is_not_available():
    empty = frames() | {"valid": np.zeros((3, 3), bool)}
    assert set(summarise(empty).values()) == {None}
    assert format_score(None, "mpjpe_mm") == "n/a" and format_score(81.26, "mpjpe_mm") == "81.3"


def test_markdown_and_csv_hold_the_same_numbers_and_the_protocol():
    got = result()
    text, rows = markdown(got), list(csv.DictReader(io.StringIO(csv_rows(got))))
    assert "| all frames | 80.0 |" in text and "- subjects: S9" in text
    assert float(rows[0]["mpjpe_mm"]) == pytest.approx(80) and {row["num_frames"] for row in rows[:2]} == {"3"}
    assert all("subjects: S9" in row["protocol"] for row in rows)
    assert len(rows) == 2 + 2 + 3 and all(column in rows[0] for column in COLUMNS)


def test_samples_are_best_median_and_worst():
    many = frames()
    error = np.random.default_rng(1).permutation(30).astype(float)
    many = {name: np.repeat(value[:1], 30, axis=0) for name, value in many.items()}
    many["mpjpe"] = np.repeat(error[:, None], 3, axis=1)
    rows, kinds = pick_samples(many, count=2)
    assert list(error[rows]) == [0, 1, 14, 15, 29, 28] and list(kinds) == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2


def test_nothing_to_score_and_a_broken_prediction():
    with pytest.raises(UserError, match="no frame to evaluate"):
        score_batches(lambda batch: {}, [])
    batch = {"mask": np.array([True]), "pose_mm": np.zeros((1, 3, 3)), "valid": np.ones((1, 3), bool), "index": [0]}
    with pytest.raises(UserError, match="not finite"):
        score_batches(lambda _: {"pred_mm": np.full((1, 3, 3), np.nan)}, [batch])
