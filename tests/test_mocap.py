"""Motion capture folders as clips: names, units, rates, axes, floor; on a known body and on real clips."""

from __future__ import annotations

import functools
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.bvh import read_bvh
from data_pipelines.synthetic_humans.clips import Clip
from data_pipelines.synthetic_humans.mocap import load_clip, load_clips, performer_of, read_world
from data_pipelines.synthetic_humans.mocap_mappings import MAPPINGS, Point
from data_pipelines.synthetic_humans.mocap_motion import (
    floor_height,
    recentre,
    resample,
    straight_stature,
    y_up_to_z_up,
)
from data_pipelines.synthetic_humans.mocap_overrides import MAX_MAPPING_BYTES, Overrides, read_overrides
from data_pipelines.synthetic_humans.sequences import motion_digest
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

HUMAN = skeleton("human36m17")
CLIPS = Path(__file__).resolve().parents[2] / "shared" / "mocap"

# A body in T-pose, y up, facing +z, its left at +x: joint -> (parent, offset in mm). Depth first.
LEG = {"UpLeg": (100, -50, 0), "Leg": (0, -420, 0), "Foot": (0, -420, 0), "Foot_end": (0, -70, 150)}
ARM = {"Arm": (180, -40, 0), "ForeArm": (280, 0, 0), "Hand": (250, 0, 0), "Hand_end": (80, 0, 0)}
TRUNK = {"Spine": (0, 100, 0), "Spine1": (0, 180, 0), "Neck": (0, 200, 0)}
HEAD = {"Head": (0, 110, 0), "Head_end": (0, 180, 0)}


def body(root: str = "Hips", rename: dict[str, str] | None = None) -> dict[str, tuple[str, tuple[float, ...]]]:
    joints: dict[str, tuple[str, tuple[float, ...]]] = {root: ("", (0, 0, 0))}

    def chain(parent: str, offsets: dict, side: str = "", sign: int = 1) -> None:
        for name, (x, y, z) in offsets.items():
            name = side + name
            joints[name] = (parent, (sign * x, y, z))
            parent = name

    chain(root, LEG, "Left")
    chain(root, LEG, "Right", -1)
    chain(root, TRUNK)
    chain("Neck", HEAD)
    chain("Neck", ARM, "Left")
    chain("Neck", ARM, "Right", -1)
    names = {name: name for name in joints} | (rename or {})
    return {names[name]: (names[parent] if parent else "", offset) for name, (parent, offset) in joints.items()}


def bvh_text(joints: dict, frames: np.ndarray | None = None, mm: float = 10.0, rate: float = 120.0) -> str:
    """A BVH file of `joints` whose root goes through `frames` (T, 3) mm, unturned; `mm` per file unit."""
    frames = np.tile([0.0, 1000.0, 0.0], (25, 1)) if frames is None else frames
    children: dict[str, list[str]] = {name: [] for name in joints}
    for name, (parent, _) in joints.items():
        if parent:
            children[parent].append(name)

    def node(name: str) -> str:
        parent, offset = joints[name]
        place = "OFFSET " + " ".join(f"{value / mm:.9g}" for value in offset)
        if name == f"{parent}_end":
            return f"End Site {{ {place} }}\n"
        kind = "JOINT" if parent else "ROOT"
        positions = "" if parent else "Xposition Yposition Zposition "
        channels = f"CHANNELS {3 if parent else 6} {positions}Zrotation Yrotation Xrotation"
        return f"{kind} {name}\n{{ {place}\n{channels}\n" + "".join(map(node, children[name])) + "}\n"

    moving = sum(name != f"{parent}_end" for name, (parent, _) in joints.items())
    rows = [" ".join(f"{v / mm:.9g}" for v in root) + " 0" * (3 * moving) for root in frames]
    tree = node(next(iter(joints)))
    return f"HIERARCHY\n{tree}MOTION\nFrames: {len(rows)}\nFrame Time: {1 / rate:.7f}\n" + "\n".join(rows) + "\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


# By hand from the offsets, z up, facing -y, toe tips (at y = 40) brought to 25 mm above the floor.
EXPECTED = {
    "pelvis": (0, 0, 935),
    "left_hip": (100, 0, 935),
    "right_knee": (-100, 0, 515),
    "left_ankle": (100, 0, 95),
    "spine": (0, 0, 1265),
    "thorax": (0, 0, 1465),
    "nose": (0, 0, 1575),
    "head_top": (0, 0, 1755),
    "left_shoulder": (180, 0, 1425),
    "right_elbow": (-460, 0, 1425),
    "left_wrist": (710, 0, 1425),
}
BIOVISION = {
    f"{side}{old}": f"{side}{new}"
    for side in ("Left", "Right")
    for old, new in dict(
        UpLeg="Hip", Leg="Knee", Foot="Ankle", Foot_end="Ankle_end",
        Arm="Shoulder", ForeArm="Elbow", Hand="Wrist", Hand_end="Wrist_end",
    ).items()
} | {"Spine": "Chest", "Spine1": "Chest2"}  # fmt: skip
SMPL = {
    name: ("L_" if name.startswith("Left") else "R_") + new.removeprefix("Left").removeprefix("Right")
    for name, new in BIOVISION.items()
    if name[0] in "LR"
} | {"Spine1": "Spine2"}
MIXAMO = {name: f"mixamorig:{name}" for name in body()}


@pytest.mark.parametrize(
    ("rename", "scheme"), [({}, "Mixamo"), (MIXAMO, "Mixamo"), (BIOVISION, "Biovision"), (SMPL, "SMPL")]
)
def test_known_names_land_on_the_right_joints(tmp_path, rename, scheme):
    clip, source = load_clip(write(tmp_path, "a_1.bvh", bvh_text(body(rename=rename))))
    assert scheme in source.mapping
    assert clip.joints_mm.shape == (3, 17, 3) and clip.joints_mm.dtype == np.float32
    for joint, place in EXPECTED.items():
        np.testing.assert_allclose(clip.joints_mm[0, HUMAN.index(joint)], place, atol=0.01, err_msg=joint)


def test_crown_is_extrapolated_where_the_head_has_no_end(tmp_path):
    joints = body()
    joints["Head_end"] = ("Head", (0, 0, 0))  # an end site on its joint marks nothing
    clip, _ = load_clip(write(tmp_path, "a.bvh", bvh_text(joints)))
    assert clip.joints_mm[0, HUMAN.index("head_top"), 2] == pytest.approx(1575 + 1.7 * 110, abs=0.01)


@pytest.mark.parametrize("mm", [1.0, 10.0, 25.4, 25.4 / 0.45, 1000.0])
def test_unit_is_told_from_the_stature(tmp_path, mm):
    _, source = read_world(write(tmp_path, "a.bvh", bvh_text(body(), mm=mm)))
    assert source.unit_mm == pytest.approx(mm) and source.unit_from == "stature"
    assert source.stature_mm == pytest.approx(840 + 330 + 200 + 110 + 180, abs=0.1)


def test_unit_is_never_guessed(tmp_path):
    path = write(tmp_path, "a.bvh", bvh_text(body(), mm=4.0))
    with pytest.raises(UserError, match=r"a\.bvh: .*came 415 file units.*mapping\.json"):
        read_world(path)
    assert read_world(path, Overrides(unit_mm=4.0))[1].unit_from == "mapping.json"
    with pytest.raises(UserError, match="came 1.66e.04 mm with 40 mm per unit"):
        read_world(path, Overrides(unit_mm=40.0))


def test_unknown_names_are_refused_with_the_way_out(tmp_path):
    path = write(tmp_path, "a.bvh", bvh_text(body(rename={"LeftLeg": "Wade", "Neck": "Hals"})))
    with pytest.raises(UserError, match=r"a\.bvh: .*nearest, Hips.*needs LeftLeg, Neck.*mapping\.json") as caught:
        read_world(path)
    assert "\n" not in str(caught.value)


def test_z_up_files_need_saying_so(tmp_path):
    turned = {name: (parent, (x, -z, y)) for name, (parent, (x, y, z)) in body().items()}
    path = write(tmp_path, "a.bvh", bvh_text(turned, np.tile([0.0, 0.0, 1000.0], (3, 1))))
    with pytest.raises(UserError, match='came one along z; .*"up": "z"'):
        read_world(path)
    joints, _ = read_world(path, Overrides(up="z"))
    for joint, place in EXPECTED.items():
        np.testing.assert_allclose(joints[0, HUMAN.index(joint)], place, atol=0.01)
    lying, _ = read_world(path, Overrides(up="y"))
    assert np.ptp(lying[0, [0, 10], 2]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("name", "rate", "overrides", "expected"),
    [
        ("60_01", 120.0, Overrides(), (120.0, "header")),  # the CMU rule is for CMU's skeletons only
        ("a_1", 1 / 0.0083333, Overrides(), (120.0, "header")),
        ("a_1", 1 / 0.0417083, Overrides(), (1 / 0.0417083, "header")),  # 23.976
        ("a_1", 120.0, Overrides(fps={"a": 30.0}), (30.0, "mapping.json")),
        ("a_1", 120.0, Overrides(fps={"a": 30.0, "a_1": 50.0}), (50.0, "mapping.json")),
    ],
)
def test_true_rate(tmp_path, name, rate, overrides, expected):
    _, source = read_world(write(tmp_path, f"{name}.bvh", bvh_text(body(), rate=rate)), overrides)
    assert (source.true_fps, source.fps_from) == (pytest.approx(expected[0]), expected[1])


def test_first_frame_is_dropped_on_request(tmp_path):
    path = write(tmp_path, "a.bvh", bvh_text(body()))
    assert len(read_world(path)[0]) == 25
    assert len(read_world(path, Overrides(drop_first_frame=True))[0]) == 24
    single = write(tmp_path, "b.bvh", bvh_text(body(), np.array([[0.0, 1000, 0]])))
    assert load_clip(single)[0].joints_mm.shape == (1, 17, 3)
    with pytest.raises(UserError, match=r"b\.bvh: .*one frame only"):
        read_world(single, Overrides(drop_first_frame=True))


def test_fps_is_checked(tmp_path):
    path = write(tmp_path, "a.bvh", bvh_text(body(), rate=30.0))
    for bad in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(UserError, match="fps: expected a number above 0"):
            load_clip(path, bad)
    with pytest.raises(UserError, match="up to the capture's 30, came 60"):
        load_clip(path, 60.0)
    assert load_clip(path, 30.0)[0].fps == 30.0


def test_load_clips(tmp_path, caplog):
    for name in ("b_2.BVH", "a.bvh", "b_1.bvh"):
        write(tmp_path, name, bvh_text(body()))
    write(tmp_path, "notes.txt", "not a clip")
    with caplog.at_level(logging.INFO):
        clips = load_clips(tmp_path, fps=40)
    assert [(clip.performer, clip.action, clip.name) for clip in clips] == [
        ("a", "a", "a"), ("b", "b_1", "b_1"), ("b", "b_2", "b_2"),
    ]  # fmt: skip
    assert all(isinstance(clip, Clip) and clip.fps == 40 and len(clip.joints_mm) == 9 for clip in clips)
    assert caplog.text.count("unit_from='stature'") == 3 and "fps_from='header'" in caplog.text


def test_load_clips_refuses(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_clips(tmp_path / "absent")
    with pytest.raises(UserError, match=r"expected \.bvh files, came none"):
        load_clips(tmp_path)
    write(tmp_path, "good.bvh", bvh_text(body()))
    write(tmp_path, "worse.bvh", bvh_text(body())[:-20])
    with pytest.raises(UserError, match=r"worse\.bvh, line"):
        load_clips(tmp_path)
    (tmp_path / "worse.bvh").unlink()
    write(tmp_path, "good.BVH", bvh_text(body()))
    with pytest.raises(UserError, match="two files are called good"):
        load_clips(tmp_path)


def test_performer():
    assert [performer_of(name) for name in ("02_01", "walk", "_x")] == ["02", "walk", "_x"]


NAMES = {joint: [f"j{i}"] for i, joint in enumerate(HUMAN.joints) if joint not in ("pelvis", "spine", "head_top")}
SOURCES = dict(
    left_hip="LeftUpLeg", left_knee="LeftLeg", left_ankle="LeftFoot", right_hip="RightUpLeg",
    right_knee="RightLeg", right_ankle="RightFoot", thorax="Neck", nose="Head", left_shoulder="LeftArm",
    left_elbow="LeftForeArm", left_wrist="LeftHand", right_shoulder="RightArm", right_elbow="RightForeArm",
    right_wrist="RightHand",
)  # fmt: skip


def own_names(tmp_path) -> None:
    rename = {source: NAMES[joint][0] for joint, source in SOURCES.items()}
    rename |= {f"{source}_end": f"{rename[source]}_end" for source in ("LeftFoot", "RightFoot", "Head")}
    rename |= {f"{source}_end": f"{rename[source]}_end" for source in ("LeftHand", "RightHand")}
    write(tmp_path, "x_1.bvh", bvh_text(body(rename=rename)))


def test_user_mapping(tmp_path):
    own_names(tmp_path)
    fields = NAMES | {"fps": {"x": 60}, "drop_first_frame": True, "up": "y", "unit_mm": 10}
    write(tmp_path, "mapping.json", json.dumps(fields))
    (clip,) = load_clips(tmp_path)
    assert len(clip.joints_mm) == 4  # 24 frames at 60 fps
    for joint in set(EXPECTED) - {"spine", "head_top"}:
        np.testing.assert_allclose(clip.joints_mm[0, HUMAN.index(joint)], EXPECTED[joint], atol=0.01)
    np.testing.assert_allclose(clip.joints_mm[0, HUMAN.index("spine")], (0, 0, (935 + 1465) / 2), atol=0.01)
    assert clip.joints_mm[0, HUMAN.index("head_top"), 2] == pytest.approx(1575 + 1.7 * 110, abs=0.01)


def test_user_mapping_takes_means_and_checks_names(tmp_path):
    own_names(tmp_path)
    mean = {"head_top": [NAMES["nose"][0], NAMES["nose"][0] + "_end"], "spine": ["Spine", "Spine1"]}
    write(tmp_path, "mapping.json", json.dumps(NAMES | mean))
    (clip,) = load_clips(tmp_path)
    assert clip.joints_mm[0, HUMAN.index("head_top"), 2] == pytest.approx((1575 + 1755) / 2, abs=0.01)
    assert clip.joints_mm[0, HUMAN.index("spine"), 2] == pytest.approx((1085 + 1265) / 2, abs=0.01)
    write(tmp_path, "mapping.json", json.dumps(NAMES | {"spine": ["Spine9"]}))
    with pytest.raises(UserError, match=r"x_1\.bvh: mapping\.json, field spine: unknown joint 'Spine9'"):
        load_clips(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a JSON object"),
        ("[1]", r"expected a JSON object, came \[1\]"),
        ("[" * 100_000, "unreadable"),
        ("9" * 5000, "unreadable"),
        ('{"unit": 1}', "unknown field 'unit'. Did you mean 'unit_mm'"),
        ('{"unit_mm": "cm"}', "field unit_mm: expected a number above 0.*came 'cm'"),
        ('{"unit_mm": true}', "field unit_mm"),
        ('{"unit_mm": 0}', "field unit_mm"),
        ('{"unit_mm": NaN}', "field unit_mm"),
        ('{"unit_mm": 1e999}', "field unit_mm"),
        ('{"unit_mm": null}', "field unit_mm"),
        ('{"up": "x"}', "field up"),
        ('{"up": ["y"]}', "field up"),
        ('{"drop_first_frame": 1}', "field drop_first_frame: expected true or false, came 1"),
        ('{"fps": 60}', "field fps: expected an object"),
        ('{"fps": {"60": -1}}', "field fps.60"),
        ('{"nose": "Head"}', "field nose: expected a list"),
        ('{"nose": []}', "field nose"),
        ('{"nose": [1]}', "field nose"),
        ('{"nose": ["Head"]}', "right_hip, .* are missing"),
    ],
)
def test_bad_mapping_files_are_refused(tmp_path, content, message):
    path = write(tmp_path, "mapping.json", content)
    with pytest.raises(UserError, match=rf"mapping\.json: .*{message}") as caught:
        read_overrides(path)
    assert len(str(caught.value)) < 600


def test_a_mapping_that_is_no_ordinary_file_or_too_large_is_not_read(tmp_path, monkeypatch):
    write(tmp_path, "a_1.bvh", bvh_text(body()))
    path = tmp_path / "mapping.json"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):  # one waits for ever, one never ends
        make(path)
        for read in (lambda: load_clips(tmp_path), lambda: motion_digest(str(tmp_path))):
            with pytest.raises(UserError, match=r"mapping\.json.* is no ordinary file; "):
                read()
        path.unlink()
    path.write_text(" " * (MAX_MAPPING_BYTES + 1))
    with pytest.raises(UserError, match=r"mapping\.json: .* has more than 1048576 bytes; repair it"):
        load_clips(tmp_path)


def test_rates_for_absent_clips_are_refused(tmp_path):
    write(tmp_path, "a_1.bvh", bvh_text(body()))
    write(tmp_path, "mapping.json", '{"fps": {"b": 60}}')
    with pytest.raises(UserError, match=r"mapping\.json: fps\.b names no clip or performer"):
        load_clips(tmp_path)


def test_every_scheme_places_every_joint():
    for mapping in MAPPINGS:
        assert set(mapping.points) == set(HUMAN.joints), mapping.name
        for ways in mapping.points.values():
            assert ways and all(isinstance(way, Point) and bool(way.start) == bool(way.beyond) for way in ways)


def test_z_up_keeps_handedness():
    axes = y_up_to_z_up(np.eye(3))  # images of x, y, z
    np.testing.assert_array_equal(axes, [[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    assert np.linalg.det(axes) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.floats(1, 240), st.floats(0.05, 1))
def test_resampling_a_straight_line_stays_on_it(count, rate, share):
    line = np.arange(count, dtype=float)[:, None, None] * np.ones((1, 2, 3)) / rate  # position = time
    got = resample(line, rate, rate * share)[:, 0, 0]
    np.testing.assert_allclose(got, np.arange(len(got)) / (rate * share), atol=1e-6)
    assert (count - 1) / rate - got[-1] < 1 / (rate * share) + 1e-6


def test_resampling_picks_where_rates_divide():
    noise = np.random.default_rng(0).normal(size=(25, 17, 3))
    np.testing.assert_allclose(resample(noise, 120, 10), noise[::12])
    np.testing.assert_array_equal(resample(noise, 30, 30), noise)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_recentring_removes_even_motion_exactly(count):
    joints = np.random.default_rng(1).normal(0, 300, (17, 3)) + np.array([4000.0, -900.0, 1000.0])
    travel = np.arange(count)[:, None, None] * np.array([570.0, -110.0, 3.0])
    got = recentre(joints + travel, fps=10)
    wanted = joints - joints[0] * [1, 1, 0] + travel * [0, 0, 1]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_recentring_keeps_poses_and_bounds_wandering():
    angle = np.linspace(0, 12 * np.pi, 600)  # 10 s per round of radius 2 m: 1.26 m/s
    path = 2000 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    pose = np.random.default_rng(2).normal(0, 300, (600, 17, 3))
    pose -= pose[:, :1]
    got = recentre(path[:, None] + pose, fps=10)
    np.testing.assert_allclose(got - got[:, :1], pose, atol=1e-6)
    assert np.linalg.norm(got[:, 0, :2], axis=-1).max() < 400


def test_floor_ignores_jumps_and_glitches():
    feet = np.full((200, 4, 3), 300.0)
    feet[:, 1, 2] = 145.0
    feet[50:100, :, 2] += 500.0
    feet[7, 2, 2] = -200.0
    assert floor_height(feet) == pytest.approx(120)
    assert floor_height(feet[:, :2]) == pytest.approx(65)  # ankles alone stand higher


def test_stature_is_the_same_in_any_pose():
    pose = np.zeros((1, 17, 3))
    for joint, place in EXPECTED.items():
        pose[:, HUMAN.index(joint)] = place
    pose[:, HUMAN.index("right_hip")] = (-100, 0, 935)
    pose[:, HUMAN.index("right_ankle")] = (-100, 420, 515)  # bent by 90 degrees at the knee
    pose[:, HUMAN.index("left_knee")] = (100, 0, 515)
    assert straight_stature(pose) == pytest.approx(840 + 330 + 200 + 110 + 180)


REAL = sorted(CLIPS.glob("*.bvh"))
needs_clips = pytest.mark.skipif(not REAL, reason=f"no motion capture clips in {CLIPS}")


@functools.cache
def world(name: str):
    return read_world(CLIPS / f"{name}.bvh")


@needs_clips
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_clip_is_a_person_on_the_floor(path):
    joints, source = world(path.stem)
    rest, _ = read_world(path, Overrides(drop_first_frame=False))
    height = rest[0, :, 2].max() - rest[0, :, 2].min()  # ankles to crown
    assert 1360 <= height <= 1750 and 1360 <= source.stature_mm <= 1750
    left, right = HUMAN.index("left_wrist"), HUMAN.index("right_wrist")
    assert rest[0, left, 0] - rest[0, right, 0] > 1000  # T-pose, facing -y: the left at +x
    assert rest[0, HUMAN.index("left_hip"), 0] > rest[0, HUMAN.index("right_hip"), 0]
    ankles = joints[:, [HUMAN.index("left_ankle"), HUMAN.index("right_ankle")], 2].min(1)
    assert 20 < np.percentile(ankles, 5) < 130
    assert (ankles < -30).mean() < 0.01
    assert len(joints) == len(read_bvh(path).values) - 1
    assert np.isfinite(joints).all()


@needs_clips
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_bones_keep_their_lengths(path):
    joints, _ = world(path.stem)
    for parent, child in HUMAN.bones:
        pair = {HUMAN.joints[parent], HUMAN.joints[child]}
        if pair & {"spine"} or pair == {"thorax", "left_shoulder"} or pair == {"thorax", "right_shoulder"}:
            continue  # several joints of the source lie in between
        length = np.linalg.norm(joints[:, parent] - joints[:, child], axis=-1)
        assert np.ptp(length) < 1.0, pair


@needs_clips
@pytest.mark.parametrize(("name", "low", "high"), [("02_01", 0.9, 1.3), ("unknown_run", 5.4, 6.0), ("14_06", 0.0, 0.3)])
def test_real_speeds(name, low, high):
    if not (CLIPS / f"{name}.bvh").exists():
        pytest.skip(f"no {name}.bvh")
    joints, source = world(name)
    path = resample(joints, source.true_fps, 10)[:, 0, :2]
    speed = np.linalg.norm(np.diff(path, axis=0), axis=-1).mean() * 10 / 1000
    assert low < speed < high


@needs_clips
def test_real_folder():
    clips = {clip.name: clip for clip in load_clips(CLIPS)}
    assert list(clips) == [path.stem for path in REAL]
    for clip in clips.values():
        horizontal = np.linalg.norm(clip.joints_mm[:, 0, :2], axis=-1)
        assert horizontal.max() < 500 and clip.joints_mm.dtype == np.float32
    if "60_05" in clips:  # 1678 frames at the true 60 fps, though the header says 120
        assert len(clips["60_05"].joints_mm) == 280 and clips["60_05"].action == "salsa"
        assert clips["60_05"].performer == "60"
