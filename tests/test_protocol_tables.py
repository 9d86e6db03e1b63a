"""Each protocol's arithmetic on predictions whose scores are worked out by hand."""

import csv
import io
import json

import numpy as np
import pytest

from fusion_jax.errors import UserError
from fusion_jax.protocol_tables import score_protocol
from fusion_jax.protocol_text import protocol_csv, protocol_markdown
from fusion_jax.protocols import PROTOCOLS, protocol
from fusion_jax.published import PUBLISHED
from fusion_jax.skeletons import skeleton


def distance_frames(scores, layout="human36m17"):
    """Frames whose every joint is `scores` mm off; half of that when rigidly aligned, a quarter when mirrored too."""
    count, joints = len(scores), skeleton(layout).num_joints
    distance = np.repeat(np.array(scores, float)[:, None], joints, axis=1)
    pose = np.random.default_rng(0).normal(size=(count, joints, 3)) * 300
    return {
        "pred_mm": pose, "true_mm": pose, "valid": np.ones((count, joints), bool), "index": np.arange(count),
        "mpjpe": distance, "pa_mpjpe": distance / 2, "pa_mpjpe_reflection": distance / 4, "n_mpjpe": distance,
    }  # fmt: skip


def labels(*rows):
    """Columns of (subject, sequence stem, camera) rows; the action is the stem's first word."""
    subject, stem, camera = zip(*rows, strict=True)
    return {
        "subject": np.array(subject),
        "action": np.array([s.replace("_", " ").split()[0] for s in stem]),
        "sequence": np.array([f"{a}/{b}" for a, b in zip(subject, stem, strict=True)]),
        "camera_name": np.array(camera),
        "head_size_px": np.full(len(rows), 20.0),
    }


def table(result, title):
    return {row["name"]: row for row in next(t for t in result["tables"] if t["title"] == title)["rows"]}


def value(result, title, row, column):
    return table(result, title)[row]["values"][column]


HUMAN36M = [
    (10, ("S9", "Directions 1", "54138969")),
    (30, ("S9", "Greeting 1", "54138969")),
    (80, ("S9", "Greeting", "54138969")),  # faulty
    (40, ("S9", "Greeting 1", "55011271")),
    (70, ("S11", "Directions", "54138969")),  # faulty
    (20, ("S11", "Directions", "58860488")),
    (60, ("S11", "Walking", "60457274")),
]


def human36m(extra=(), **options):
    scores, rows = zip(*HUMAN36M, *extra, strict=True)
    return score_protocol(
        protocol("human36m"), distance_frames(scores), labels(*rows), skeleton("human36m17"), **options
    )


def test_human36m_by_hand():
    """Directions (10 + 70 + 20) / 3, Greeting (30 + 80 + 40) / 3 = 50, Walking 60; of 7 frames the mean is 310 / 7."""
    got = human36m()
    rows = table(got, "all frames")
    assert list(rows) == [*protocol("human36m").actions, "action mean", "frame mean"]
    assert rows["Directions"]["values"]["mpjpe_mm"] == pytest.approx(100 / 3)
    assert rows["Greeting"]["values"] == {"mpjpe_mm": 50, "pa_mpjpe_mm": 25, "pa_mpjpe_reflection_mm": 12.5}
    assert rows["Greeting"]["num_frames"] == 3 and rows["frame mean"]["num_frames"] == 7
    assert rows["action mean"]["values"]["mpjpe_mm"] == pytest.approx((100 / 3 + 50 + 60) / 3)
    assert rows["frame mean"]["values"]["mpjpe_mm"] == pytest.approx(310 / 7)
    assert rows["action mean"]["note"] == "mean of 3 of 15 actions"
    assert got["differs"] == [] and got["warnings"] == []


def test_clean_leaves_out_the_faulty_frames_alone():
    """Without 80 and 70: Directions (10 + 20) / 2 = 15, Greeting (30 + 40) / 2 = 35, Walking 60; frames 160 / 5."""
    got = human36m()
    assert [value(got, "clean", a, "mpjpe_mm") for a in ("Directions", "Greeting", "Walking")] == [15, 35, 60]
    assert value(got, "clean", "frame mean", "mpjpe_mm") == 32
    assert value(got, "clean", "action mean", "mpjpe_mm") == pytest.approx(110 / 3)
    assert "without 2 frames of S9/Greeting, S9/SittingDown 1, S9/Waiting 1, S11/Directions camera 54138969" in (
        protocol_markdown(got)
    )


def test_an_action_without_frames_is_not_available():
    got = human36m()
    assert table(got, "all frames")["Smoking"]["values"]["mpjpe_mm"] is None
    assert "| Smoking | 0 | n/a | n/a | n/a |" in protocol_markdown(got)
    lines = list(csv.DictReader(io.StringIO(protocol_csv(got))))
    assert {line["value"] for line in lines if line["row"] == "Smoking" and line["by"] == "this run"} == {""}
    json.dumps(got, allow_nan=False)


def test_only_known_joints_count():
    """One joint of 17 is 17 mm off and unknown (or known): the frame's mean is 0 (or 1)."""
    frames = distance_frames([0.0, 0.0])
    frames["mpjpe"][:, 3] = 17, np.nan
    frames["valid"][1, 3] = False
    got = score_protocol(
        protocol("human36m"),
        frames,
        labels(("S9", "Eating", "54138969"), ("S11", "Eating", "54138969")),
        skeleton("human36m17"),
    )
    assert value(got, "all frames", "Eating", "mpjpe_mm") == pytest.approx((1 + 0) / 2)


def test_frames_outside_the_protocol_are_said():
    got = human36m([(1000, ("S9", "Misc", "54138969")), (45, ("S8", "Walking", "54138969"))])
    assert value(got, "all frames", "frame mean", "mpjpe_mm") == pytest.approx((310 + 45) / 8), "Misc is in no row"
    text = protocol_markdown(got)
    assert "- warning: action outside the protocol: Misc; these frames (1 of 9) are in no row" in text
    assert "- warning: subject outside the protocol: S8; these frames (1 of 9) are scored with the rest" in text
    assert "- differs from the protocol: test subjects S8, S9, S11 instead of S9, S11" in text


def test_differences_reach_markdown_and_csv():
    got = human36m(training_subjects=["S1"], description={"frame_step": 64})
    for said in ("training subjects S1 instead of S1, S5, S6, S7, S8", "frame step 64 instead of 5"):
        assert f"- differs from the protocol: {said}" in protocol_markdown(got)
        assert said in protocol_csv(got)


def test_humaneva_by_hand():
    """Walking: S1 (10 + 20) / 2 = 15, S2 45, no S3, so 30 over subjects; Box: S3 60. Frames (10 + 20 + 45 + 60) / 4."""
    rows = [("S1", "Walking_1", "C1"), ("S1", "Walking_1", "C1"), ("S2", "Walking_1", "C1"), ("S3", "Box_1", "C1")]
    frames = distance_frames([10, 20, 45, 60], "humaneva15")
    got = score_protocol(protocol("humaneva"), frames, labels(*rows), skeleton("humaneva15"))
    found = table(got, "all frames")
    assert list(found)[:4] == ["S1 Walking", "S2 Walking", "S3 Walking", "Walking"] and len(got["tables"]) == 1
    assert found["S1 Walking"]["values"] == {"mpjpe_mm": 15, "pa_mpjpe_mm": 7.5}
    assert found["S3 Walking"]["values"]["mpjpe_mm"] is None and found["Jog"]["values"]["mpjpe_mm"] is None
    assert found["Walking"]["values"]["mpjpe_mm"] == 30 and found["Walking"]["note"] == "mean of 2 of 3 subjects"
    assert found["action mean"]["values"]["mpjpe_mm"] == 45 and found["action mean"]["note"] == "mean of 2 of 5 actions"
    assert found["mean of Walking, Jog, Box"]["note"] == "mean of 2 of 3 actions"
    assert found["frame mean"]["values"]["mpjpe_mm"] == 135 / 4


def lsp_body():
    """(14, 3): limbs along y, each 100 mm long, arms at x = +-50, legs at x = +-20, so the torso is 122 mm."""
    at = {"ankle": (20, 200), "knee": (20, 100), "hip": (20, 0), "wrist": (50, 100), "elbow": (50, 0),
          "shoulder": (50, -100)}  # fmt: skip
    middle = {"neck": (0, -110), "head_top": (0, -150)}
    points = []
    for joint in skeleton("lsp14").joints:
        side, _, name = joint.partition("_")
        x, y = at.get(name, middle.get(joint, (0, 0)))
        points.append((-x if side == "right" else x, y, 0))
    return np.array(points, float)


def moved(pose, joint, by):
    moved = pose.copy()
    moved[skeleton("lsp14").index(joint)] += by
    return moved


def kth_frames():
    """Three frames: exact; right wrist 80 mm off; right wrist 120 mm off (so 80 / 2 <= 50 < 120 / 2)."""
    body = lsp_body()
    pred = np.stack([body, moved(body, "right_wrist", [0, 0, 80]), moved(body, "right_wrist", [0, 0, 120])])
    return {"pred_mm": pred, "true_mm": np.stack([body] * 3), "valid": np.ones((3, 14), bool), "index": np.arange(3)}


def kth(frames):
    rows = [("player2", "Sequence 1", camera) for camera in ("Camera 1", "Camera 1", "Camera 2")]
    return score_protocol(protocol("kth_football2"), frames, labels(*rows), skeleton("lsp14"))


def test_kth_by_hand():
    """Right lower arm: averaged 2 of 3, strict 1 of 3; left 3 of 3. Class (2/3 + 1) / 2 and (1/3 + 1) / 2."""
    got = kth(kth_frames())
    whole = "parts, all cameras"
    assert value(got, whole, "lower arms", "pcp_percent") == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert value(got, whole, "lower arms", "pcp_strict_percent") == pytest.approx(100 * (1 / 3 + 1) / 2)
    for name in ("upper arms", "upper legs", "lower legs"):
        assert table(got, whole)[name]["values"] == {"pcp_percent": 100, "pcp_strict_percent": 100}
    assert value(got, whole, "all", "pcp_percent") == pytest.approx((300 + 100 * 5 / 6) / 4)
    # Camera 1 saw the first two frames, camera 2 the last.
    assert value(got, "parts, Camera 1", "lower arms", "pcp_percent") == 100
    assert value(got, "parts, Camera 1", "lower arms", "pcp_strict_percent") == pytest.approx(100 * (0.5 + 1) / 2)
    assert value(got, "parts, Camera 2", "lower arms", "pcp_percent") == 50
    assert got["differs"] == ["differs from the protocol: cameras Camera 1, Camera 2 instead of Camera 1"]
    assert "| lower arms | 3 | 83.3 | 66.7 |" in protocol_markdown(got)


def test_kth_class_without_known_parts_is_not_available():
    """No ankle is known: lower legs n/a, and all is the mean of the other three, (100 + 100 + 250 / 3) / 3."""
    frames = kth_frames()
    frames["valid"][:, [0, 5]] = False
    got = kth(frames)
    assert value(got, "parts, all cameras", "lower legs", "pcp_percent") is None
    every = table(got, "parts, all cameras")["all"]
    assert every["values"]["pcp_percent"] == pytest.approx((200 + 100 * 5 / 6) / 3)
    assert every["note"] == "mean of 3 of 4 classes"


def flat_frames(pred, true, size=0.5, shift=(64, 64)):
    """2D frames: the truth is `true`'s x and y in a picture of `size` px per mm; no 3D truth."""
    count, joints = len(true), true.shape[1]
    return {
        "pred_mm": pred, "true_mm": np.zeros_like(true), "valid": np.zeros((count, joints), bool),
        "index": np.arange(count), "joints2d": true[..., :2] * size + np.array(shift),
        "valid2d": np.ones((count, joints), bool),
    }  # fmt: skip


def lsp(frames):
    rows = [("", "im", "")] * len(frames["index"])
    return score_protocol(protocol("lsp"), frames, labels(*rows), skeleton("lsp14"))


def test_lsp_by_hand():
    """2D joints as predicted; the torso is |(70, 100)| / 2 = 61 px, so 0.2 of it 12.2 px. Frame 2's right wrist is
    12 px off (right), frame 3's 13 px (wrong): wrist (2/3 + 1) / 2, total (3 * 14 - 1) / 42. A lower arm is 50 px:
    both are right parts, 13 / 2 < 25."""
    body = lsp_body()
    frames = flat_frames(np.stack([body] * 3), np.stack([body] * 3))
    px = frames["joints2d"].copy()
    px[:, skeleton("lsp14").index("right_wrist"), 0] += [0, 12, 13]
    got = lsp(frames | {"pred2d_px": px})
    column = "pck_0.2_torso_percent"
    assert value(got, "joints", "wrist", column) == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert value(got, "joints", "total", column) == pytest.approx(100 * 41 / 42)
    assert value(got, "joints", "head", column) == 100 and value(got, "parts", "all", "pcp_percent") == 100
    assert "as the network predicts" in got["protocol"]["alignment"]


def test_a_pose_of_any_size_and_depth_is_laid_over_the_picture():
    """The right pose at a third of the size, deeper and elsewhere: all right.

    Upside down, its best scale is 0, so all joints lie on the mean (0, 340 / 14 = 24.3) mm. 0.2 of the torso is
    24.4 mm; the nearest joints, the hips at (+-20, 0), are 31.5 mm from it. The nearest part, an upper leg, is off by
    (31.5 + 78.3) / 2 = 54.9 mm, with 50 allowed. So nothing of the second picture is right.
    """
    body = lsp_body()
    got = lsp(flat_frames(np.stack([body / 3 + [500, -9, 2000], body * [1, -1, 1]]), np.stack([body] * 2)))
    assert {row["values"]["pck_0.2_torso_percent"] for row in table(got, "joints").values()} == {50}
    assert all(set(row["values"].values()) == {50} for row in table(got, "parts").values())
    assert "scaled and moved onto the true 2D joints" in protocol_markdown(got)


def test_lsp_without_a_torso_counts_no_joint_but_still_parts():
    body = lsp_body()
    frames = flat_frames(np.stack([body] * 2), np.stack([body] * 2))
    frames["valid2d"][1, skeleton("lsp14").index("left_hip")] = False
    got = lsp(frames)
    assert table(got, "joints")["total"]["num_frames"] == 1 and table(got, "parts")["upper arms"]["num_frames"] == 2
    assert "is unknown in 1 pictures" in protocol_markdown(got)


def test_a_single_known_joint_is_no_hit():
    """Laid over that one joint, any pose would meet it."""
    true = np.random.default_rng(2).normal(size=(2, 16, 3)) * 100
    frames = flat_frames(true, true)
    frames["valid2d"][0] = np.arange(16) == skeleton("mpii16").index("left_knee")
    got = score_protocol(protocol("mpii"), frames, labels(*[("", "im", "")] * 2), skeleton("mpii16"))
    assert table(got, "joints")["knee"]["num_frames"] == 1 and value(got, "joints", "total", "pckh_0.5_percent") == 100


def test_mpii_by_hand():
    """Heads of 20, 20 and 0 (unknown) px: 10 px allowed. Person 1 all right; person 2 misses head top and left ankle
    by 11 px, and pelvis and thorax, which nobody scores; person 3 counts nothing. Head (1/2 + 1) / 2, ankle the same,
    total 26 of 28; a left ankle that is unknown in person 1 leaves 0 of 1 and 25 of 27."""
    layout = skeleton("mpii16")
    true = np.random.default_rng(1).uniform(0, 100, (3, 16, 2))
    pred = true.copy()
    for joint in ("head_top", "left_ankle", "pelvis", "thorax"):
        pred[1, layout.index(joint), 0] += 11
    pred[2] += 1000
    frames = {"pred_mm": np.zeros((3, 16, 3)), "joints2d": true, "valid2d": np.ones((3, 16), bool), "pred2d_px": pred}
    who = labels(*[("", "im", "")] * 3) | {"head_size_px": np.array([20.0, 20, 0])}
    got = score_protocol(protocol("mpii"), frames, who, layout)
    column = "pckh_0.5_percent"
    assert [value(got, "joints", g, column) for g in ("head", "shoulder", "ankle")] == [75, 100, 75]
    assert value(got, "joints", "total", column) == pytest.approx(100 * 26 / 28)
    assert table(got, "joints")["total"]["num_frames"] == 2
    frames["valid2d"][0, layout.index("left_ankle")] = False
    got = score_protocol(protocol("mpii"), frames, who, layout)
    assert value(got, "joints", "ankle", column) == 50 and value(got, "joints", "total", column) == (
        pytest.approx(100 * 25 / 27)
    )


def empty_result(name):
    layout = {"humaneva": "humaneva15", "mpii": "mpii16", "human36m": "human36m17"}.get(name, "lsp14")
    frames = {key: x[:0] for key, x in distance_frames([1.0], layout).items()}
    frames |= {"joints2d": np.zeros((0, skeleton(layout).num_joints, 2)), "valid2d": frames["valid"]}
    who = {key: x[:0] for key, x in labels(("S9", "Eating", "C1")).items()}
    return score_protocol(protocol(name), frames, who, skeleton(layout))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_frames_everything_is_not_available(name):
    got = empty_result(name)
    assert {v for t in got["tables"] for row in t["rows"] for v in row["values"].values()} == {None}
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_table_prints_the_protocol_and_published_rows_with_their_sources(name):
    got = empty_result(name)
    for block in protocol_markdown(got).split("### ")[1:]:
        assert all(f"- {key}: {text}" in block for key, text in got["protocol"].items())
    first = protocol_markdown(got | {"tables": got["tables"][:1]})
    lines = list(csv.DictReader(io.StringIO(protocol_csv(got))))
    records = [record for record in PUBLISHED if record.protocol == name]
    for record in records:
        assert first.count(f"| *{record.name}* [") == len(record.values), "each value stands under a row of ours"
        assert f"published, {record.name}: {record.source}; {record.note}" in first
        mine = [line for line in lines if line["by"] == record.name]
        assert {(line["row"], line["column"]): float(line["value"]) for line in mine} == {
            (row, column): v for row, columns in record.values.items() for column, v in columns.items()
        }
        assert all(record.source in line["source"] for line in mine)
    assert {line["by"] for line in lines} == {"this run", *(record.name for record in records)}


def test_published_rows_stand_under_ours():
    lines = protocol_markdown(human36m()).splitlines()
    at = lines.index("| Greeting | 3 | 50.0 | 25.0 | 12.5 |")
    assert lines[at + 1] == "| *Tekin et al. 2017, trainable fusion* [1] | - | 61.2 | - | - |"


def test_what_is_not_the_protocol_stands_under_every_table():
    """Another split, what the caller knows to differ, the dataset's words and warning, and what the network was fed."""
    got = score_protocol(
        protocol("human36m"), distance_frames([1.0]), labels(("S9", "Eating", "54138969")), skeleton("human36m17"),
        split="validation", differs=["a horse was scored"], warnings=["the network was trained on these frames"],
        description={"boxes": "round", "warning": "the lens is dirty"}, network_input="crops alone",
    )  # fmt: skip
    assert "differs from the protocol: split validation instead of test" in got["differs"]
    assert "differs from the protocol: a horse was scored" in got["differs"]
    assert got["warnings"] == ["the network was trained on these frames", "the lens is dirty"]
    blocks = protocol_markdown(got).split("### ")[1:]
    lines = list(csv.DictReader(io.StringIO(protocol_csv(got))))
    for text in (*got["differs"], "the network was trained on these frames", "the lens is dirty", "data, boxes: round",
                 "input: crops alone"):  # fmt: skip
        assert all(text in block for block in blocks) and all(text in line["protocol"] for line in lines)
    usual = score_protocol(
        protocol("human36m"), distance_frames([1.0]), labels(("S9", "Eating", "54138969")), skeleton("human36m17")
    )
    assert not any("split" in text for text in usual["differs"]) and usual["warnings"] == []


def test_missing_or_broken_input_is_named():
    frames, who, layout = distance_frames([1.0]), labels(("S9", "Eating", "54138969")), skeleton("human36m17")
    with pytest.raises(UserError, match=r"labels need camera_name of shape \(1,\), got none"):
        score_protocol(protocol("human36m"), frames, {k: x for k, x in who.items() if k != "camera_name"}, layout)
    with pytest.raises(UserError, match=r"labels need action of shape \(1,\), got \(2,\)"):
        score_protocol(protocol("human36m"), frames, who | {"action": np.array(["Eating"] * 2)}, layout)
    frames["mpjpe"][0, 0] = np.nan
    with pytest.raises(UserError, match="Eating: mpjpe_mm is not finite"):
        score_protocol(protocol("human36m"), frames, who, layout)
    with pytest.raises(UserError, match="scored in 2D: frames need joints2d and valid2d"):
        score_protocol(protocol("lsp"), distance_frames([1.0], "lsp14"), who, skeleton("lsp14"))
    with pytest.raises(UserError, match="lsp scores neck"):
        score_protocol(protocol("lsp"), frames, who, layout)
