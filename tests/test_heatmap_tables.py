"""Scores of 2D joints, from frames whose numbers are worked out by hand."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.heatmap_tables import (
    COLUMNS_2D,
    csv_rows2d,
    errors_px,
    markdown2d,
    pick_samples2d,
    summarise2d,
    table2d,
    torso_px,
)
from fusion_jax.skeletons import Skeleton, skeleton

BODY = Skeleton("body", ("pelvis", "right_shoulder", "left_hip"), (-1, 0, 0), ("pelvis",))
NAMES = ("dataset", "split", "subjects", "input", "joints")


def frames():
    """Three frames of three joints, whose torso is 10 px long; a joint of the second is unknown and holds NaN.

    Distances are 0 3 5, 2 ? 4 and 1 1 6 px; heads are 8 px, unknown and 4 px long.
    """
    true = np.tile(np.array([[2.0, 1], [4, 1], [4, 11]]), (3, 1, 1))
    off = np.array([[0.0, 3, 5], [2, np.nan, 4], [1, 1, 6]])
    pred = true + off[..., None] * np.array([0.6, -0.8])
    true[1, 1] = np.nan
    return {
        "pred2d_px": np.nan_to_num(pred, nan=7.0),
        "joints2d": true,
        "valid2d": ~np.isnan(off),
        "head_size_px": np.array([8.0, 0, 4]),
        "action": np.array(["wave", "wave", "walk"]),
        "index": np.arange(3),
    }


def result():
    """Scored beside someone who always answers (2, 1) and does not know left hips."""
    known = frames()["valid2d"] & np.array([True, True, False])
    baseline = frames() | {"pred2d_px": np.broadcast_to([2.0, 1], (3, 3, 2)), "valid2d": known}
    return table2d(frames(), BODY, baseline) | {"protocol": dict.fromkeys(NAMES, "w") | {"subjects": ["S9", "S1"]}}


def test_scores_by_hand():
    """Head: bounds 4 and 2 px of frames 1 and 3 (0 3 | 1 1 right of 6). Torso: 2 px of frames 1 and 3 (0 | 1 1)."""
    got = result()
    assert got["pckh_0.5"] == pytest.approx(4 / 6) and got["pck_0.2_torso"] == pytest.approx(3 / 6)
    assert got["joint_error_px"] == pytest.approx((0 + 3 + 5 + 2 + 4 + 1 + 1 + 6) / 8)
    assert (got["num_frames"], got["num_joints"]) == (3, 8)
    walk, wave = got["per_action"]["walk"], got["per_action"]["wave"]
    assert list(got["per_action"]) == ["walk", "wave"] and (wave["num_frames"], wave["num_joints"]) == (2, 5)
    assert walk["joint_error_px"] == pytest.approx(8 / 3) and wave["joint_error_px"] == pytest.approx(14 / 5)
    assert wave["pckh_0.5"] == pytest.approx(2 / 3), "of the frame with a known head"
    hip, shoulder = got["per_joint"]["left_hip"], got["per_joint"]["right_shoulder"]
    assert hip["pckh_0.5"] == 0 and hip["joint_error_px"] == pytest.approx(5) and hip["num_joints"] == 3
    assert shoulder["pck_0.2_torso"] == pytest.approx(1 / 2) and shoulder["num_joints"] == 2


def test_baseline_by_hand():
    """Pelvises are met, the two known shoulders are 2 px off; the hip that it does not know does not count."""
    baseline = result()["baseline"]
    assert baseline["num_joints"] == 5 and baseline["joint_error_px"] == pytest.approx(4 / 5)
    assert baseline["pckh_0.5"] == 1


def test_what_is_unknown_is_not_available():
    none = frames() | {"valid2d": np.zeros((3, 3), bool)}
    assert set(summarise2d(none, BODY).values()) == {None} and np.isnan(errors_px(none)).all()
    no_head = summarise2d(frames() | {"head_size_px": np.zeros(3)}, BODY)
    assert no_head["pckh_0.5"] is None and no_head["pck_0.2_torso"] is not None
    no_torso = Skeleton("other", ("pelvis", "right_shoulder", "left_hand"), (-1, 0, 0), ("pelvis",))
    assert summarise2d(frames(), no_torso)["pck_0.2_torso"] is None and not torso_px(frames(), no_torso).any()
    assert torso_px(frames(), BODY).tolist() == [10, 0, 10]
    one = result() | {"pckh_0.5": None}
    assert "| all frames | n/a | 0.500 | 2.75 | 8 |" in markdown2d(one)


@given(st.floats(0.25, 8), st.integers(0, 2**32 - 1))
def test_shares_do_not_depend_on_the_size_of_the_picture(scale, seed):
    rng = np.random.default_rng(seed)
    layout = skeleton("mpii16")
    true, off = rng.uniform(0, 64, (6, 16, 2)), rng.normal(0, 5, (6, 16, 2))
    known, heads = rng.random((6, 16)) < 0.8, rng.uniform(5, 12, 6)
    one, other = (
        summarise2d(
            {"pred2d_px": s * (true + off), "joints2d": s * true, "valid2d": known, "head_size_px": s * heads}, layout
        )
        for s in (1.0, scale)
    )
    assert other["joint_error_px"] == pytest.approx(scale * one["joint_error_px"])
    assert other["pckh_0.5"] == pytest.approx(one["pckh_0.5"], abs=0.011)  # one in 96 on the border by rounding
    assert other["pck_0.2_torso"] == pytest.approx(one["pck_0.2_torso"], abs=0.02)


def test_samples_are_ranked_by_the_error_of_known_joints():
    assert errors_px(frames()) == pytest.approx([8 / 3, 3, 8 / 3])
    error = np.random.default_rng(1).permutation(30).astype(float)
    many = {name: np.repeat(frames()[name][:1], 30, axis=0) for name in ("joints2d", "valid2d")}
    many["pred2d_px"] = many["joints2d"] + error[:, None, None] * np.array([0.6, 0.8])
    many["valid2d"][5, 1:] = False
    rows, kinds = pick_samples2d(many)
    assert error[rows].tolist() == [0, 1, 2, 3, 13, 14, 15, 16, 29, 28, 27, 26]
    assert kinds.tolist() == ["best"] * 4 + ["median"] * 4 + ["worst"] * 4


def test_markdown_and_csv_hold_the_same_numbers_and_the_protocol():
    got = result()
    text, rows = markdown2d(got), list(csv.DictReader(io.StringIO(csv_rows2d(got))))
    assert "| mean training pose (baseline) | 1.000 |" in text and "| all frames | 0.667 | 0.500 | 2.75 | 8 |" in text
    assert "- subjects: S9, S1" in text and "| joint left_hip |" in text
    assert [row["kind"] for row in rows] == ["baseline", "all", "action", "action", "joint", "joint", "joint"]
    assert all("subjects: S9, S1" in row["protocol"] for row in rows)
    assert float(rows[1]["joint_error_px"]) == pytest.approx(2.75) and rows[1]["num_joints"] == "8"
    assert rows[2]["num_frames"] == "1" and all(column in rows[0] for column in COLUMNS_2D)
    left_out = csv_rows2d(got | {"pck_0.2_torso": None})
    assert list(csv.DictReader(io.StringIO(left_out)))[1]["pck_0.2_torso"] == ""
