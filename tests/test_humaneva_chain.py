"""HumanEva's chain from segment points to 15 joints, against pencil and against a second, plain implementation."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.pose import Body, corrected_arm, corrected_pelvis, half_shoulders, poses
from data_pipelines.humaneva.segments import Frame, between_rows, slerp, turn_y
from data_pipelines.humaneva.sync import Offsets, common_clock
from data_pipelines.humaneva.validity import MARKERS, NO_MARKER, NO_SEGMENT, OUTSIDE, SKEWED, reasons
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

SEGMENTS = ("PEL", "TRX", "HED", "LFE", "RFE", "LTI", "RTI", "LCL", "RCL", "LHU", "RHU", "LRA", "RRA")
LABELS = [names[0] for names in MARKERS] + [segment + end for segment in SEGMENTS for end in "OPAL"]


# A second implementation, one time and one 4 x 4 matrix at a time, that shares nothing with the package.


def _matrix(rotation, origin):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, origin
    return matrix


def _ry(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s, 0], [0, 1, 0, 0], [s, 0, c, 0], [0, 0, 0, 1]])


def _apply(matrix, x, y, z):
    return (matrix @ [x, y, z, 1])[:3]


def reference_joints(labels, rows, t, w, offsets):
    """Joints (15, 3) at 1-based position t of complete points rows (T, P, 3)."""
    track = {label: rows[:, n] for n, label in enumerate(labels)}
    low = int(np.floor(t)) - 1
    part = t - np.floor(t)
    ends = (low, int(np.ceil(t)) - 1)

    def place(label):
        return track[label][low] + part * (track[label][low + 1] - track[label][low])

    def axes(segment):
        turns = []
        for row in (low, low + 1):
            origin, z, x, y = (track[segment + end][row] for end in "OPAL")
            columns = [(p - origin) / np.linalg.norm(p - origin) for p in (x, y, z)]
            turns.append(Rotation.from_matrix(np.column_stack(columns)))
        return Slerp([0, 1], Rotation.concatenate(turns))(part).as_matrix()

    def length(one, other):
        return np.mean([np.linalg.norm(track[one][row] - track[other][row]) for row in ends])

    torso = length("PELO", "TRXO")
    shift = np.eye(4)
    shift[0, 3] = -50
    pelvis = _matrix(axes("PEL"), place("PELO")) @ shift @ _ry(np.arctan2(w / 2, torso))
    head = _matrix(axes("HED"), place("TRXO"))
    thorax = (_apply(pelvis, 0, 0, torso) + _apply(head, 0, 0, 0)) / 2
    arms, legs = [], []
    for side, s in zip("LR", offsets, strict=True):
        a, forearm_length = length(f"{side}CLO", f"{side}HUO"), length(f"{side}HUO", f"{side}RAO")
        upper = _matrix(axes(f"{side}HU"), place(f"{side}CLO"))
        forearm = _matrix(axes(f"{side}RA"), place(f"{side}HUO"))
        d = forearm[:3, 3] - _apply(upper, 0, 0, -a)
        upper = upper @ _ry(-np.arctan2(s / 2, a))
        forearm[:3, 3] = _apply(upper, 0, 0, -a) + d
        forearm = forearm @ _ry(np.arctan2(s / 2, a))
        elbow = (_apply(upper, 0, 0, -a) + _apply(forearm, 0, 0, 0)) / 2
        arms += [_apply(upper, 0, 0, 0), elbow, _apply(forearm, 0, 0, -forearm_length)]
        thigh = _matrix(axes(f"{side}FE"), place(f"{side}FEP")) @ _ry(np.pi)
        shin = _matrix(axes(f"{side}TI"), place(f"{side}FEO")) @ _ry(np.pi)
        knee = (_apply(thigh, 0, 0, length(f"{side}FEP", f"{side}FEO")) + _apply(shin, 0, 0, 0)) / 2
        legs += [_apply(thigh, 0, 0, 0), knee, _apply(shin, 0, 0, length(f"{side}FEO", f"{side}TIO"))]
    return np.array([_apply(pelvis, 0, 0, 0), thorax, *arms, *legs, _apply(head, 0, 0, 316.103)])


def _rows(origins, rotations, arm=100.0):
    """Points (T, P, 3): markers anywhere, and every segment's four points from its origins and rotations."""
    count = len(next(iter(origins.values())))
    rows = np.random.default_rng(5).uniform(200, 900, (count, len(LABELS), 3))
    for segment in SEGMENTS:
        turns = rotations[segment].as_matrix()
        first = LABELS.index(segment + "O")
        for k, axis in enumerate((None, 2, 0, 1)):  # O, then P on z, A on x, L on y
            rows[:, first + k] = origins[segment] + (0 if axis is None else arm * turns[:, :, axis])
    return rows


def _tumbling(count=6, seed=0):
    """A skeleton whose segments stand and turn anyhow: no axis follows a bone, so that no mistake hides."""
    rng = np.random.default_rng(seed)
    origins = {s: rng.uniform(-800, 800, 3) + np.cumsum(rng.normal(0, 15, (count, 3)), 0) for s in SEGMENTS}
    rotations = {}
    for segment in SEGMENTS:
        steps = Rotation.from_rotvec(rng.normal(0, 0.15, (count, 3)))
        turn = Rotation.from_rotvec(rng.normal(0, 2, 3))
        turns = []
        for step in steps:
            turn = turn * step
            turns.append(turn)
        rotations[segment] = Rotation.concatenate(turns)
    return _rows(origins, rotations)


def _points(rows, labels=None):
    xyz = np.where((rows == 0).all(-1, keepdims=True), np.nan, rows)
    return Points("made.c3d", list(labels or LABELS), xyz, 120.0)


def _standing():
    """One body in two equal rows whose axes are the world's: numbers for a pencil."""
    origins = {
        "PEL": (0, 0, 900),
        "TRX": (0, 0, 1300),
        "HED": (30, 0, 1500),
        **{"LFE": (0, 100, 500), "RFE": (0, -100, 500), "LTI": (0, 100, 100), "RTI": (0, -100, 100)},
        **{"LCL": (0, 200, 1300), "RCL": (0, -200, 1300), "LHU": (0, 200, 900), "RHU": (0, -200, 900)},
        **{"LRA": (0, 200, 600), "RRA": (0, -200, 600)},
    }
    still = Rotation.identity(2)
    rows = _rows({k: np.tile(np.array(v, float), (2, 1)) for k, v in origins.items()}, dict.fromkeys(SEGMENTS, still))
    for side, y in (("L", 100), ("R", -100)):
        rows[:, LABELS.index(f"{side}FEP")] = (0, y, 900)  # the thigh's P is the hip
    return rows


def test_a_standing_body_by_pencil():
    # Torso 400 and half shoulders 600: atan2(300, 400) has sine 0.6 and cosine 0.8. So have arms of 400, offset 600.
    joints, why = poses(_points(_standing()), np.array([1.0]), Body(600.0, (600.0, 600.0)))
    assert why[0] == ""
    expected = {
        "pelvis": (-50, 0, 900),
        "thorax": ((-50 - 240 + 0) / 2, 0, (900 + 320 + 1300) / 2),
        "left_shoulder": (0, 200, 1300),
        "left_elbow": (-240, 200, 1300 - 320),
        "left_wrist": (-240 + 180, 200, 980 - 240),
        "right_shoulder": (0, -200, 1300),
        "right_elbow": (-240, -200, 980),
        "right_wrist": (-60, -200, 740),
        "left_hip": (0, 100, 900),
        "left_knee": (0, 100, 500),
        "left_ankle": (0, 100, 100),
        "right_hip": (0, -100, 900),
        "right_knee": (0, -100, 500),
        "right_ankle": (0, -100, 100),
        "head": (0, 0, 1300 + 316.103),
    }
    names = skeleton("humaneva15").joints
    np.testing.assert_allclose(joints[0], [expected[name] for name in names], atol=1e-9)


def test_without_width_and_offset_both_corrections_vanish_but_for_the_step_back():
    joints, _ = poses(_points(_standing()), np.array([1.0]), Body(0.0, (0.0, 0.0)))
    at = dict(zip(skeleton("humaneva15").joints, joints[0], strict=True))
    np.testing.assert_allclose(at["pelvis"], (-50, 0, 900), atol=1e-9)
    np.testing.assert_allclose(at["thorax"], (-25, 0, 1300), atol=1e-9)
    np.testing.assert_allclose(at["left_elbow"], (0, 200, 900), atol=1e-9)
    np.testing.assert_allclose(at["left_wrist"], (0, 200, 600), atol=1e-9)
    rng = np.random.default_rng(1)
    frames = [Frame(Rotation.random(4, rng=rng).as_matrix(), rng.normal(0, 500, (4, 3))) for _ in range(2)]
    for got, given in zip(corrected_arm(*frames, np.full(4, 300.0), 0.0), frames, strict=True):
        np.testing.assert_allclose(got.axes, given.axes, atol=1e-12)
        np.testing.assert_allclose(got.origin, given.origin, atol=1e-9)
    np.testing.assert_allclose(corrected_pelvis(frames[0], np.full(4, 500.0), 0.0).axes, frames[0].axes, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_tumbling_skeletons_as_in_the_second_implementation(seed):
    rows = _tumbling(seed=seed)
    times = np.array([1.0, 1.25, 2.0, 2.5, 3.9, 4.0, 4.999, 5.0])
    joints, why = poses(_points(rows), times, Body(163.0, (38.0, -21.5)))
    assert (why == "").all()
    expected = [reference_joints(LABELS, rows, t, 163.0, (38.0, -21.5)) for t in times]
    np.testing.assert_allclose(joints, expected, atol=1e-6)
    one_sided, _ = poses(_points(rows), times, Body(163.0, (38.0, 0.0)))
    moved = np.abs(one_sided - joints).max((0, 2)) > 1
    names = [name for name, far in zip(skeleton("humaneva15").joints, moved, strict=True) if far]
    assert names == ["right_elbow", "right_wrist"], "the right offset moves the right arm alone"


def test_the_turn_about_y_is_the_transpose_of_the_usual_one():
    usual = Rotation.from_euler("y", 0.3).as_matrix()
    np.testing.assert_allclose(turn_y(0.3), usual.T, atol=1e-15)
    np.testing.assert_allclose(turn_y(np.pi / 2) @ [0, 0, 1], [-1, 0, 0], atol=1e-15)
    assert turn_y(np.zeros((2, 5))).shape == (2, 5, 3, 3)


def test_slerp_takes_the_short_way_by_the_whole_dot_product():
    start = Rotation.from_rotvec([[0, 0, 0.1]]).as_quat()
    end = Rotation.from_rotvec([[0, 0, -0.3]]).as_quat()  # vector parts disagree, the whole does not
    for sign in (1, -1):
        half = Rotation.from_quat(slerp(start, sign * end, np.array([0.5])))
        np.testing.assert_allclose(half.as_rotvec(), [[0, 0, -0.1]], atol=1e-12)
    quarter = Rotation.from_quat(slerp(start, end, np.array([0.25]))).as_rotvec()
    np.testing.assert_allclose(quarter, [[0, 0, 0]], atol=1e-12)
    np.testing.assert_array_equal(slerp(start, start, np.array([0.7])), start)
    third = between_rows(Rotation.from_euler("x", [[0.0], [0.9]]).as_matrix(), np.array([1 + 1 / 3]))
    np.testing.assert_allclose(third[0], Rotation.from_euler("x", 0.3).as_matrix(), atol=1e-12)


def test_every_marker_and_segment_must_be_there_below_and_above():
    whole = _tumbling(count=5)
    assert list(reasons(_points(whole), np.array([2.0, 2.5]))) == ["", ""]
    assert len(MARKERS) == 39 == len({names[0] for names in MARKERS})
    for index in range(39):
        rows = whole.copy()
        rows[2, index] = 0  # row 3
        found = list(reasons(_points(rows), np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.0])))
        assert found == ["", "", NO_MARKER, NO_MARKER, NO_MARKER, ""], LABELS[index]
    for label in ("PELO", "PELA", "TRXO", "HEDL", "LFEP", "RTIO", "RCLO", "LHUP", "RRAO"):
        rows = whole.copy()
        rows[2, LABELS.index(label)] = 0
        found = list(reasons(_points(rows), np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.0])))
        assert found == ["", NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, ""], label  # at 2.0 row 3 is read too
    joints, _ = poses(_points(rows), np.array([3.0, 4.0]), Body(100.0, (0.0, 0.0)))
    assert np.isnan(joints[0]).all() and np.isfinite(joints[1]).all()


def test_times_outside_the_recording_have_no_pose():
    found = reasons(_points(_tumbling(count=5)), np.array([0.0, 0.99, 1.0, 4.0, 4.999, 5.0, 5.5, 1e9]))
    assert list(found) == [OUTSIDE, OUTSIDE, "", "", "", OUTSIDE, OUTSIDE, OUTSIDE]  # row 6 does not exist


def test_segments_that_are_no_right_handed_frames_are_told_apart():
    rows = _tumbling(count=4)
    first = LABELS.index("LHUO")
    rows[1, [first + 1, first + 2]] = rows[1, [first + 2, first + 1]]  # mirrored
    assert list(reasons(_points(rows), np.array([1.0, 2.0, 3.0]))) == [SKEWED, SKEWED, ""]


def test_labels_are_matched_as_parts_and_the_first_hit_wins():
    rows = _tumbling(count=3)
    prefixed = [f"Subject1:{label} " for label in LABELS]
    points = _points(rows, prefixed)
    np.testing.assert_allclose(
        poses(points, np.array([1.5]), Body(1.0, (2.0, 3.0)))[0],
        poses(_points(rows), np.array([1.5]), Body(1.0, (2.0, 3.0)))[0],
    )
    assert Points("f", ["xLSHO", "LSHO"], rows[:, :2], 120.0).index("LSHO") == 0
    assert _points(rows, [label.replace("LFRM", "LFRA") for label in LABELS]).index("LFRM", "LFRA") == 15
    with pytest.raises(UserError, match="made.c3d has no point LFRM or LFRA among its 91"):
        reasons(_points(rows, [label.replace("LFRM", "none") for label in LABELS]), np.array([1.0]))
    with pytest.raises(UserError, match="from PELO on are PELO, PELP, PELL, PELA, expected PEL with O, P, A, L"):
        swapped = {"PELA": "PELL", "PELL": "PELA"}
        reasons(_points(rows, [swapped.get(label, label) for label in LABELS]), np.array([1.0]))


def test_half_the_shoulders_less_a_marker():
    rows = np.ones((3, 2, 3))
    rows[:, 0, 0] += [400, 404, 0]
    rows[2, 1] = 0  # a lost marker does not count as one at the origin
    static = _points(rows, ["LSHO", "RSHO"])
    assert half_shoulders(static) == pytest.approx(402 / 2 - 7)
    with pytest.raises(UserError, match="never shows LSHO and RSHO together"):
        half_shoulders(_points(np.zeros((2, 2, 3)), ["LSHO", "RSHO"]))


def test_the_common_clock_by_pencil():
    # C2 is 2 pictures behind C1, C3 half a picture ahead: 10 + (21 - 22) / 2 = 9.5. The earliest one goes to 1:
    # by 8.5 pictures, 17 rows, from 21 to 4.
    after = {"C1": Offsets(10, 21, 2), "C2": Offsets(12, 21, 2), "C3": Offsets(10, 22, 2)}
    clock = common_clock(after)
    assert (clock.common, clock.scale) == (4, 2)
    assert clock.starts == {"C1": 2, "C2": 4, "C3": 1}  # 1.5 and 3.5 are rounded away from zero
    np.testing.assert_array_equal(clock.mocap_positions(np.array([1, 6])), [4, 14])
    np.testing.assert_array_equal(clock.video_frames("C2", np.array([1, 6])), [3, 8])
    # Ten rows less: common would be -6, so that everybody waits 3.5 pictures for row 1.
    before = {camera: o._replace(mc_st=o.mc_st - 10) for camera, o in after.items()}
    clock = common_clock(before)
    assert clock.common == 1 and clock.starts == {"C1": 5, "C2": 7, "C3": 5}  # 5, 7 and 4.5
    # A grey camera that began earliest moves the others; scales are averaged.
    grey = common_clock({"BW1": Offsets(4, 21, 2.5), **after})
    assert grey.scale == 2.125 and grey.starts == {"C1": 7, "C2": 9, "C3": 7, "BW1": 1}
    assert grey.common == 21 - 2.125 * 3
    alone = common_clock({"BW2": Offsets(3, 7.25, 2)})
    assert alone.starts == {"BW2": 1} and alone.common == 3.25
