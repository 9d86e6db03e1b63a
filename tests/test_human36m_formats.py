"""Human3.6M's files and numbers one by one: cameras, names, pose files, masks, boxes, settings. No whole dataset."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from data_pipelines.human36m import boxes, faults
from data_pipelines.human36m.cameras import (
    CAMERAS,
    camera,
    numbers,
    picture_sizes,
    project,
    project_published,
    unproject,
)
from data_pipelines.human36m.cdf_structure import MAX_BYTES, check_structure
from data_pipelines.human36m.dummy_data import opencv_pixels
from data_pipelines.human36m.dummy_files import write_cdf, write_masks
from data_pipelines.human36m.files import POSES, VIDEOS, file_name, stem_of, stems_in
from data_pipelines.human36m.masks import Masks, edges
from data_pipelines.human36m.poses import USUAL_17, as_poses, read_pose_cdf, read_world_poses
from data_pipelines.human36m.sequences import (
    ACTIONS,
    SUBJECTS,
    TRAIN_SUBJECTS,
    canonical_action,
    parse_table,
    read_table,
    wrong_names,
)
from data_pipelines.human36m.settings import Human36mSettings
from fusion_jax.errors import UserError
from fusion_jax.geometry import world_to_camera
from fusion_jax.skeletons import skeleton

SHARED = pathlib.Path(__file__).parent.parent.parent / "shared" / "h36m_cameras.json"
RNG = np.random.default_rng(0)
VIEWS = [(subject, name) for subject in SUBJECTS for name in CAMERAS]


# Cameras


def test_self_test_pixels_of_the_published_projection():
    point = np.array([[0.0, 0.0, 900.0]])
    expected = {
        "54138969": (451.840275, 426.452436),
        "55011271": (511.456589, 409.045151),
        "58860488": (608.069099, 374.763363),
        "60457274": (511.7064, 381.697501),
    }
    for name, pixel in expected.items():
        seen_by = camera("S9", name)
        np.testing.assert_allclose(project_published(world_to_camera(point, seen_by), seen_by)[0], pixel, atol=1e-6)


def test_numbers_equal_the_reference_file():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there; the pixels above test the same numbers for S9")
    reference = json.loads(SHARED.read_text())
    tested = reference["_about"]["self_test"]
    for subject, name in VIEWS:
        inner, outer = reference["intrinsics"][name], reference["extrinsics"][subject][name]
        ours = camera(subject, name)
        np.testing.assert_array_equal(ours.rot_world_to_cam, outer["R"])
        np.testing.assert_array_equal(ours.cam_center_mm, outer["T"])
        np.testing.assert_array_equal(ours.intrinsics, [[inner["f"][0], 0, inner["c"][0]], [0, inner["f"][1], inner["c"][1]], [0, 0, 1]])  # fmt: skip  # noqa: E501
        np.testing.assert_array_equal(ours.distortion, [*inner["k"][:2], *inner["p"], inner["k"][2]])
        assert tuple(outer["image_size_wh"]) in picture_sizes(subject, name)
        np.testing.assert_allclose(ours.rot_world_to_cam, euler(*outer["euler_xyz_rad"]), atol=1e-12)
        if subject == tested["subject"]:
            seen = world_to_camera(np.array([tested["world_point_mm"]]), ours)
            np.testing.assert_allclose(project_published(seen, ours)[0], tested["expected_pixels"][name], atol=1e-6)


def euler(a, b, c):
    """Rx(a) Ry(b) Rz(c), elementary rotations as in a textbook."""
    (ca, cb, cc), (sa, sb, sc) = np.cos([a, b, c]), np.sin([a, b, c])
    x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return x @ y @ z


@pytest.mark.parametrize("projection", ["opencv", "published"])
def test_every_camera_projects_and_unprojects_to_a_millionth_of_a_pixel(projection):
    for subject, name in VIEWS:
        seen_by = camera(subject, name)
        (width, height), *_ = picture_sizes(subject, name)
        grid = np.stack(np.meshgrid(np.linspace(-0.5, width - 0.5, 33), np.linspace(-0.5, height - 0.5, 33)), -1)
        px, depth = grid.reshape(-1, 2), RNG.uniform(1500, 9000, 33 * 33)
        points = unproject(px, depth, seen_by, projection)
        np.testing.assert_allclose(points[:, 2], depth)
        np.testing.assert_allclose(project(points, seen_by, projection), px, rtol=0, atol=1e-6)
        # and the other way round, from points
        np.testing.assert_allclose(unproject(project(points, seen_by, projection), depth, seen_by, projection), points)


def test_the_opencv_form_is_opencvs_and_the_published_one_is_the_formula():
    for subject, name in VIEWS:
        seen_by = camera(subject, name)
        world = RNG.uniform([-1000, -1000, 0], [1000, 1000, 1900], (1, 50, 3))
        seen = world_to_camera(world[0], seen_by)
        np.testing.assert_allclose(project(seen, seen_by, "opencv"), opencv_pixels(world, seen_by)[0], atol=1e-6)
        k1, k2, p1, p2, k3 = seen_by.distortion
        for (x, y, z), got in zip(seen, project(seen, seen_by, "published"), strict=True):
            x, y = x / z, y / z
            r2 = x**2 + y**2
            g = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
            u = seen_by.intrinsics[0, 0] * (x * g + p2 * r2) + seen_by.intrinsics[0, 2]
            v = seen_by.intrinsics[1, 1] * (y * g + p1 * r2) + seen_by.intrinsics[1, 2]
            np.testing.assert_allclose(got, [u, v], atol=1e-9)


def test_the_two_projections_differ_as_far_as_is_said():
    most = {}
    for name in CAMERAS:
        seen_by = camera("S1", name)
        for reach, limit in ((0.2, 0.29), (None, 1.4)):
            axis = np.linspace(-(reach or 0.44), reach or 0.44, 41)
            rays = np.stack([*np.meshgrid(axis, axis), np.ones((41, 41))], -1).reshape(-1, 3)
            ours, theirs = (project(rays, seen_by, form) for form in ("opencv", "published"))
            visible = ((ours > -0.5) & (ours < 999.5)).all(1)
            most[name] = np.linalg.norm(ours - theirs, axis=1)[visible].max()
            assert 0.01 < most[name] < limit
    assert max(most, key=most.get) == "55011271" and most["55011271"] > 1.2


def test_cameras_stand_in_the_corners_and_look_at_the_room():
    for subject, name in VIEWS:
        seen_by = camera(subject, name)
        rotation = seen_by.rot_world_to_cam
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0 and 1000 < seen_by.cam_center_mm[2] < 2000
        foot, head = project(world_to_camera(np.array([[0.0, 0, 0], [0, 0, 1700]]), seen_by), seen_by, "opencv")
        assert foot[1] - head[1] > 200, "heads are above feet in the picture"
    with pytest.raises(UserError, match="unknown subject of Human3.6M 'S2'"):
        camera("S2", CAMERAS[0])
    with pytest.raises(UserError, match="unknown camera of Human3.6M '4'"):
        camera("S1", "4")


def test_picture_sizes():
    assert picture_sizes("S9", "54138969") == ((1000, 1002),) == picture_sizes("S7", "60457274")
    assert picture_sizes("S9", "55011271") == ((1000, 1000),) == picture_sizes("S11", "58860488")
    assert picture_sizes("S7", "55011271") == ((1000, 1000), (1000, 1002)), "sources disagree on S7"
    assert set(numbers()["intrinsics"]) == set(CAMERAS)


# Names


def test_a_table_that_is_no_ordinary_file_or_too_large_is_not_read(tmp_path):
    path = tmp_path / "table.txt"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_bytes(bytes(2**20 + 1))):
        make(path)
        for read in (lambda: read_table(path), lambda: Human36mSettings(table=str(path)).config_name()):
            with pytest.raises(UserError, match=r"table\.txt (is no ordinary file|has more than .* bytes), .* --table"):
                read()
        path.unlink()


def test_the_table_has_thirty_sequences_a_subject_and_the_known_sums():
    table = read_table()
    rows = {s: sum(q.rows for q in table if q.subject == s) for s in SUBJECTS}
    assert rows == {"S1": 62094, "S5": 99079, "S6": 62466, "S7": 101621, "S8": 64678, "S9": 79417, "S11": 58244}
    assert sum(rows[s] for s in TRAIN_SUBJECTS) * 4 == 1_559_752
    assert (rows["S9"] + rows["S11"]) * 4 == 550_644
    left = 550_644 - 4 * next(q.rows for q in table if q.name == "S11/Directions")
    assert left == 543_344, "without S11 Directions, as the literature counts"
    for subject in SUBJECTS:
        pairs = [(q.action, q.recording) for q in table if q.subject == subject]
        assert sorted(pairs) == sorted((a, n) for a in ACTIONS for n in (1, 2))


def test_odd_names_are_in_the_table_and_no_rule_makes_them():
    rows = {q.name: q.rows for q in read_table()}
    assert rows["S1/Directions 1"] == 1383 and rows["S9/Greeting"] == 1447 and rows["S9/Waiting 1"] == 1612
    assert "S11/Phoning 3" in rows and "S11/Phoning" not in rows and "S6/Waiting 3" in rows
    assert "S5/Directions" not in rows and "S1/Photo" not in rows and "S5/TakingPhoto" not in rows
    actions = {q.name: (q.action, q.recording) for q in read_table()}
    assert actions["S1/TakingPhoto"] == ("Photo", 2) and actions["S1/WalkingDog 1"] == ("WalkDog", 1)
    assert actions["S9/SittingDown 1"] == ("SittingDown", 2) and actions["S9/SittingDown"] == ("SittingDown", 1)


@pytest.mark.parametrize(
    ("stem", "action"),
    [
        *[("Sitting 1", "Sitting"), ("SittingDown 1", "SittingDown"), ("Walking", "Walking"), ("WalkDog", "WalkDog")],
        *[
            ("WalkingDog", "WalkDog"),
            ("WalkTogether 2", "WalkTogether"),
            ("TakingPhoto", "Photo"),
            ("Photo 1", "Photo"),
        ],
    ],
)
def test_actions_are_looked_up_whole(stem, action):
    assert canonical_action(stem) == action


@pytest.mark.parametrize("stem", ["WalkingTogether", "_ALL", "Sit", "Walk 1", "", "walking"])
def test_other_actions_are_refused(stem):
    with pytest.raises(UserError, match="unknown action of Human3.6M"):
        canonical_action(stem)


@pytest.mark.parametrize(
    "line",
    [
        "S1\tPhoto\t1\tTakingPhoto 1",
        "S2\tPhoto\t1\tPhoto\t10",
        "S1\tPhoto\t3\tPhoto\t10",
        "S1\tPhoto\t1\tPhoto\tmany",
        "S1\tPhoto\t1\tPhoto\t0",
        "S1\tPhoto\t1\tPhoto\t-5",
        "S1\tPhoto\t1\tWaiting\t5",
        "S1\tPhoto\t1\tPhoto ../../x\t5",
        "S1\tPhoto\t1\tPhoto\t99999999999999999999",
        "S1\tPhoto\t1\tPhoto\t10\t9",
        "S1\tPhoto\t1\tPhoto\t10\tmany",
        "S1\tPhoto\t1\tPhoto\t10\t20\t30",
    ],
)
def test_a_bad_line_of_a_table_is_named(line):
    with pytest.raises(UserError, match="^t.txt, line 2: "):
        parse_table("# made up\n" + line, "t.txt")


def test_the_sequences_whose_videos_are_much_longer():
    assert {q.name: (q.frames, q.rows) for q in read_table() if q.frames} == {
        "S1/SittingDown": (2756, 2742),
        "S1/SittingDown 2": (3032, 3023),
        "S9/Greeting": (2899, 1447),
        "S9/Phoning": (3465, 3319),
        "S9/SittingDown 1": (2788, 1554),
        "S9/Waiting 1": (3390, 1612),
        "S9/Walking": (3115, 1612),
    }


def test_tables_that_repeat_or_are_missing():
    with pytest.raises(UserError, match="line 2: S1/Photo is there twice"):
        parse_table("S1\tPhoto\t1\tPhoto\t5\nS1\tPhoto\t2\tPhoto\t5", "t")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(pathlib.Path("/nowhere/at/all"))


def test_wrong_names_tell_what_is_wrong():
    table = read_table()
    stems = {s: {q.stem for q in table if q.subject == s} for s in SUBJECTS}
    assert all(wrong_names(s, stems[s], table) is None for s in SUBJECTS)
    assert "holds the files of S11, not of S1" in wrong_names("S1", stems["S11"], table)
    assert "lacks Photo; 30" in wrong_names("S9", stems["S9"] - {"Photo"}, table)
    assert "holds Photo 2, not of S9; 30" in wrong_names("S9", stems["S9"] | {"Photo 2"}, table)


def test_file_names_are_split_at_dots_from_the_right(tmp_path):
    assert file_name(VIDEOS, "Directions 1", "54138969") == "Directions 1.54138969.mp4"
    assert file_name(POSES, "Directions 1", "54138969") == "Directions 1.cdf"
    assert stem_of(VIDEOS, "Sitting Down. 1.54138969.mp4") == "Sitting Down. 1" and stem_of(POSES, "A b.cdf") == "A b"
    for name in ("Photo 1.cdf", "_ALL.cdf", "_ALL 1.cdf", "._Photo 1.cdf", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    assert stems_in(tmp_path, POSES) == {"Photo 1"}


# Pose files

POSE = RNG.normal(0, 400, (1, 5, 96))


@pytest.mark.parametrize("reals", ["CDF_FLOAT", "CDF_DOUBLE"])
@pytest.mark.parametrize("form", ["plain", "rVariable", "records", "packed", "packed records", "packed file"])
def test_every_form_a_pose_file_may_have(tmp_path, form, reals):
    path = tmp_path / "Photo.cdf"
    write_cdf(
        path,
        POSE[0] if "records" in form else POSE,
        reals=reals,
        kind="rVariable" if form == "rVariable" else "zVariable",
        compress=6 if form in ("packed", "packed records") else 0,
        whole_file=form == "packed file",
    )
    joints = read_pose_cdf(path, 3)
    assert joints.dtype == np.float64
    expected = POSE.astype(np.float32 if reals == "CDF_FLOAT" else np.float64)
    np.testing.assert_array_equal(joints, expected[0].reshape(5, 32, 3))
    np.testing.assert_array_equal(joints[3, 7], expected[0, 3, 21:24], "joint after joint, x y z")


def test_pixels_and_single_rows(tmp_path):
    write_cdf(tmp_path / "a.cdf", POSE[:, :, :64])
    assert read_pose_cdf(tmp_path / "a.cdf", 2).shape == (5, 32, 2)
    write_cdf(tmp_path / "b.cdf", POSE[:, :1])
    assert read_pose_cdf(tmp_path / "b.cdf", 3).shape == (1, 32, 3)


def test_a_cdf_of_version_2_6(tmp_path):
    """Built by hand: 4-byte places and 64-byte names; cdflib writes version 3 only."""
    values = POSE.astype(">f4")
    name = b"Pose".ljust(64, b"\0")
    cdr = struct.pack(">12i", 304, 1, 312, 2, 6, 1, 3, 0, 0, 0, 0, 0) + bytes(256)
    gdr_size = 60
    vdr_at = 8 + 304 + gdr_size
    vdr = struct.pack(">15i", 144, 8, 0, 44, 0, vdr_at + 144, vdr_at + 144, 1, 0, 0, 0, 0, 1, 0, -1)
    vdr += struct.pack(">i", 0) + name + struct.pack(">5i", 2, 5, 96, -1, -1)
    vdr = struct.pack(">i", len(vdr)) + vdr[4:]
    vxr_at = vdr_at + len(vdr)
    vdr = vdr[:20] + struct.pack(">2i", vxr_at, vxr_at) + vdr[28:]
    vxr = struct.pack(">8i", 32, 6, 0, 1, 1, 0, 0, vxr_at + 32)
    vvr = struct.pack(">2i", 8 + values.nbytes, 7) + values.tobytes()
    gdr = struct.pack(">15i", gdr_size, 2, 0, vdr_at, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)
    path = tmp_path / "old.cdf"
    path.write_bytes(bytes.fromhex("cdf260020000ffff") + cdr + gdr + vdr + vxr + vvr)
    np.testing.assert_array_equal(read_pose_cdf(path, 3), values[0].reshape(5, 32, 3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        read_pose_cdf(path, 3)


def test_files_that_are_no_poses_are_named_with_what_they_hold(tmp_path):
    path = tmp_path / "Photo.cdf"
    write_cdf(path, POSE, variable="Angles")
    with pytest.raises(UserError, match=r"Photo.cdf cannot be read .*it holds Angles, not the variable Pose"):
        read_pose_cdf(path, 3)
    write_cdf(path, POSE[:, :, :64])
    with pytest.raises(UserError, match=r"Photo.cdf: Pose is float32 \(1, 5, 64\), expected reals \(1, N, 96\)"):
        read_pose_cdf(path, 3)
    write_cdf(path, POSE)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 400, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut off|no CDF"):
            read_pose_cdf(path, 3)
    for content, said in ((b"<!DOCTYPE html>", "web page"), (b"", "is empty"), (b"PK\3\4" * 99, "no CDF of version")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_pose_cdf(path, 3)
    with pytest.raises(UserError, match="is missing"):
        read_pose_cdf(tmp_path / "no.cdf", 3)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
        file.write(b"\xcd\xf3")
    with pytest.raises(UserError, match="a pose file at most"):
        read_pose_cdf(path, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9])
def test_numbers_that_are_no_poses_are_named_by_row(value):
    values = POSE[0].copy()
    values[3, 50] = value
    with pytest.raises(UserError, match="^x: row 3 holds"):
        as_poses(values, 3, pathlib.Path("x"))


def test_damaged_files_give_one_line_and_neither_hang_nor_fill_the_memory(tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / "x.cdf"
    refused = 0
    for compress, whole_file, kind in ((0, False, "zVariable"), (6, False, "rVariable"), (0, True, "zVariable")):
        write_cdf(path, POSE, compress=compress, whole_file=whole_file, kind=kind)
        good = path.read_bytes()
        for _ in range(150):
            bad, at = bytearray(good), int(rng.integers(8, min(len(good), 1500) - 8))
            bad[at : at + 4] = rng.choice([b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", rng.bytes(4)])
            path.write_bytes(bad)
            began = time.perf_counter()
            try:
                read_pose_cdf(path, 3)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and "x.cdf" in str(error)
            assert time.perf_counter() - began < 5
    assert refused > 100


def test_announced_numbers_are_held_to_the_file(tmp_path):
    path = tmp_path / "x.cdf"
    write_cdf(path, POSE)
    good = path.read_bytes()
    gdr = 8 + int.from_bytes(good[8:16], "big")
    vdr = int.from_bytes(good[gdr + 20 : gdr + 28], "big")
    vxr = int.from_bytes(good[vdr + 28 : vdr + 36], "big")
    check_structure(good, "Pose")
    check_structure(good, "pose")

    def refuse(at, value, said, size=4):
        bad = bytearray(good)
        bad[at : at + size] = value.to_bytes(size, "big", signed=True)
        with pytest.raises(ValueError, match=said):
            check_structure(bytes(bad), "Pose")

    refuse(gdr + 60, 2**31 - 1, "announces 2147483647 variables")
    refuse(gdr + 56, 2**30, "announces 1073741824 entries")  # dimensions of rVariables
    refuse(vdr + 24, 2**31 - 1, "Pose announces 2147483648 records")
    refuse(vdr + 24, -1, "Pose announces 0 records")
    refuse(vdr + 20, 51, "type 51")
    refuse(vdr + 340, 2**31 - 1, "announces 2147483647 entries")  # its dimensions
    refuse(vdr + 344, 10_000, "cut off: the data of Pose are fewer")
    refuse(vdr + 344, 2**31 - 1, "Pose announces 1 records of")
    refuse(vxr + 24, 2**31 - 1, "uses 2147483647 of")
    refuse(vxr + 12, vxr, "too many or too large, or lead in a circle", size=8)
    packed = tmp_path / "bomb.cdf"
    write_cdf(packed, np.zeros((1, 200_000, 96)), whole_file=True)
    assert packed.stat().st_size < 10**6
    with pytest.raises(UserError, match="unpacks to more than a pose file holds"):
        read_pose_cdf(packed, 3)


def test_world_poses_have_the_rows_they_are_known_to_have_and_are_mm(tmp_path):
    sequence = parse_table("S9\tPhoto\t1\tPhoto\t5", "t")[0]
    pose = POSE.copy().reshape(1, 5, 32, 3)
    pose[0, 0, 1], pose[0, 0, 2] = (0, 0, 900), (0, 0, 450)
    write_cdf(tmp_path / "a.cdf", pose.reshape(1, 5, 96))
    assert read_world_poses(tmp_path / "a.cdf", sequence).shape == (5, 32, 3)
    with pytest.raises(UserError, match="a.cdf has 5 rows, expected the 6 of S9/Photo"):
        read_world_poses(tmp_path / "a.cdf", sequence._replace(rows=6))
    write_cdf(tmp_path / "m.cdf", pose.reshape(1, 5, 96) / 1000)
    with pytest.raises(UserError, match="thigh is 0.45 long, expected mm"):
        read_world_poses(tmp_path / "m.cdf", sequence)


def test_the_seventeen_joints_are_those_of_the_skeleton():
    names = (
        "Hips RightUpLeg RightLeg RightFoot RightToeBase Site LeftUpLeg LeftLeg LeftFoot LeftToeBase Site "
        "Spine Spine1 Neck Head Site LeftShoulder LeftArm LeftForeArm LeftHand LeftHandThumb Site L_Wrist Site "
        "RightShoulder RightArm RightForeArm RightHand RightHandThumb Site R_Wrist Site"
    ).split()
    ours = {
        **{"pelvis": "Hips", "spine": "Spine1", "thorax": "Neck", "nose": "Head", "head_top": "Site"},
        **{"right_hip": "RightUpLeg", "right_knee": "RightLeg", "right_ankle": "RightFoot"},
        **{"left_hip": "LeftUpLeg", "left_knee": "LeftLeg", "left_ankle": "LeftFoot"},
        **{"left_shoulder": "LeftArm", "left_elbow": "LeftForeArm", "left_wrist": "LeftHand"},
        **{"right_shoulder": "RightArm", "right_elbow": "RightForeArm", "right_wrist": "RightHand"},
    }
    assert len(names) == 32
    assert [names[n] for n in USUAL_17] == [ours[joint] for joint in skeleton("human36m17").joints]


# Masks and boxes


@pytest.mark.parametrize("row", [False, True])
def test_masks_give_the_edges_of_their_ones(tmp_path, row):
    path = tmp_path / "Photo.54138969.mat"
    rectangles = np.array([[9.5, 19.5, 29.5, 59.5], [0, 0, 0, 0], [-0.5, -0.5, 99.5, 101.5]])
    write_masks(path, rectangles, (100, 102), row=row)
    with Masks(path, (100, 102)) as masks:
        assert len(masks) == 3
        np.testing.assert_array_equal(masks.rectangle(0), rectangles[0])
        assert masks.rectangle(1) is None
        np.testing.assert_array_equal(masks.rectangle(2), rectangles[2])
    with Masks(path, (102, 100)) as masks, pytest.raises(UserError, match="mask 0 is .*100, 102.* expected .width"):
        masks.rectangle(0)


def test_edges_by_hand():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 1] = mask[3, 5] = True
    np.testing.assert_array_equal(edges(mask), [0.5, 1.5, 5.5, 3.5])


def test_files_that_hold_no_masks_are_refused(tmp_path):
    path = tmp_path / "Photo.54138969.mat"
    for content in (b"<html>", b"", b"MATLAB 5.0 MAT-file".ljust(600, b" ")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"Photo.54138969.mat (is|cannot be read)"):
            Masks(path, (100, 100))
    for build, said in (
        (lambda f: None, "Masks is no such list"),
        (lambda f: f.create_dataset("Masks", data=np.zeros((3, 1))), "expected .N, 1. references"),
        (lambda f: f.create_group("Masks"), "expected .N, 1. references"),
        (lambda f: f.create_dataset("Masks", (3, 3), h5py.ref_dtype), "expected .N, 1. references"),
        (
            lambda f: f.create_dataset("Masks", (10**9, 1), h5py.ref_dtype, chunks=(1000, 1)),
            "expected .N, 1. references",
        ),
    ):
        with h5py.File(path, "w") as file:
            build(file)
        with pytest.raises(UserError, match=said):
            Masks(path, (100, 100))
    with h5py.File(path, "w") as file:
        file.create_dataset("Masks", (2, 1), h5py.ref_dtype)  # references to nothing
    with Masks(path, (100, 100)) as masks, pytest.raises(UserError, match="cannot be read as masks"):
        masks.rectangle(0)
    write_masks(path, np.zeros((40, 4)), (100, 100))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read as masks"):
        Masks(path, (100, 100))
    with h5py.File(path, "w") as file:
        (tmp_path / "secret").write_bytes(bytes(10_000))
        mask = file.create_dataset("m", (100, 100), np.uint8, external=[(str(tmp_path / "secret"), 0, 10_000)])
        file.create_dataset("Masks", data=np.array([[mask.ref]], h5py.ref_dtype), dtype=h5py.ref_dtype)
    with Masks(path, (100, 100)) as masks, pytest.raises(UserError, match="as no MATLAB file stores it"):
        masks.rectangle(0)


def test_boxes_by_hand():
    px = np.array([[100.0, 200], [200, 600], [150, 300]])
    np.testing.assert_allclose(boxes.joints_box(px, 0.25), [-150, 100, 600])  # side 400 about (150, 400), half more
    np.testing.assert_allclose(boxes.rectangle_box(np.array([9.5, 19.5, 29.5, 59.5])), [-0.5, 19.5, 40])
    ideal = camera("S1", "54138969")._replace(
        intrinsics=np.array([[1000.0, 0, 500], [0, 1000, 500], [0, 0, 1]]), distortion=np.zeros(5)
    )
    box = boxes.room_box(np.array([100.0, -50, 5000]), ideal, "opencv")
    np.testing.assert_allclose(box, [320, 310, 400])  # x -900..1100, y -950..1050 at 5 m: 320..720, 310..710
    assert boxes.inside(box, (1000, 1000)) and not boxes.inside(np.array([-500.0, 0, 500]), (1000, 1000))
    assert not boxes.inside(np.array([0, 999.5, 40]), (1000, 1000))


def test_moving_a_rectangle_back_is_moving_what_it_encloses():
    """A rectangle spanned by two points at the pelvis' depth must come out as those points moved by 200 mm."""
    for name in CAMERAS:
        seen_by = camera("S9", name)
        pelvis = np.array([120.0, -340, 930])
        depth = world_to_camera(pelvis[None], seen_by)[0, 2]
        seen = np.array([[-300.0, -800, depth], [350, 900, depth]])
        corners = seen @ seen_by.rot_world_to_cam + seen_by.cam_center_mm
        stored, moved = (
            opencv_pixels((corners + shift)[None], seen_by).reshape(4) for shift in ([0, 0, 0], [-200, 0, 0])
        )
        got = faults.move_rectangle_back(stored, pelvis, seen_by, "opencv")
        np.testing.assert_allclose(got, moved, atol=1e-6)
        assert np.abs(moved - stored).max() > 3
    np.testing.assert_array_equal(faults.move_back(np.array([[10.0, 20, 30]])), [[-190, 20, 30]])


def test_known_faults_are_those_sequences_and_no_others():
    table = read_table()
    assert [q.name for q in table if faults.is_displaced(q)] == ["S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1"]
    broken = [(q.name, c) for q in table for c in CAMERAS if faults.is_broken_video(q, c)]
    assert broken == [("S11/Directions", "54138969")]


# Settings


def test_settings_that_make_no_sense_are_refused():
    for options, said in (
        ({"size": 1}, "size is 1, expected 8 to 2000"),
        ({"frame_step": 0}, "frame_step is 0"),
        ({"margin": -1.0}, "margin is -1.0"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"subjects": ()}, "subjects is empty"),
        ({"subjects": ("S1", "S1")}, "names someone twice"),
        ({"subjects": ("S2",)}, "unknown subject of human36m 'S2'"),
        ({"validation_subjects": ("S9",)}, "unknown validation subject of human36m 'S9'"),
    ):
        with pytest.raises(UserError, match=said):
            Human36mSettings(**options)


def test_config_names_tell_settings_apart(tmp_path):
    table = tmp_path / "t.txt"
    table.write_text("S1\tPhoto\t1\tPhoto\t5")
    options = [
        *[{}, {"size": 64}, {"frame_step": 1}, {"subjects": ("S1", "S9")}, {"validation_subjects": ()}],
        *[{"validation_subjects": ("S1",)}, {"boxes": "masks"}, {"boxes": "room"}, {"margin": 0.2}],
        *[{"margin": 0.1234561}, {"margin": 0.1234564}],
        *[{"projection": "published"}, {"shift_s9": True}, {"broken_video": "keep"}, {"table": str(table)}],
    ]
    names = [Human36mSettings(**o).config_name() for o in options]
    assert names[0] == "128px_step5_jointboxes" and len(set(names)) == len(names)
    assert all(name.replace("_", "").replace(".", "").isalnum() for name in names)
    table.write_text("S1\tPhoto\t1\tPhoto\t6")
    assert Human36mSettings(table=str(table)).config_name() != names[-1]
    with pytest.raises(UserError, match="cannot be read as a table"):
        Human36mSettings(table=str(tmp_path / "none")).config_name()


def test_settings_are_light_to_import():
    code = "import sys, data_pipelines.human36m.settings; print({'cv2', 'h5py', 'cdflib', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_splits_are_by_person():
    settings = Human36mSettings()
    assert [settings.split(s) for s in SUBJECTS] == ["train"] * 4 + ["validation"] + ["test"] * 2
    nobody = Human36mSettings(validation_subjects=())
    assert [nobody.split(s) for s in SUBJECTS] == ["train"] * 5 + ["test"] * 2
