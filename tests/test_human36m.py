"""Human3.6M end to end: a made-up tree in the true formats is checked, prepared and read back against its truth."""

import dataclasses
import functools
import hashlib
import pathlib
import pickle
import re
import shutil
import tarfile

import cv2
import numpy as np
import pytest

from data_pipelines.human36m import archive_checks
from data_pipelines.human36m.cameras import CAMERAS, camera, picture_sizes, project_published
from data_pipelines.human36m.dummy_data import HEAD_TOP, shade, write_dummy
from data_pipelines.human36m.dummy_files import write_cdf, write_masks, write_video
from data_pipelines.human36m.files import MASKS, POSES, POSES_2D, POSES_CAMERA, VIDEOS, file_name
from data_pipelines.human36m.poses import USUAL_17
from data_pipelines.human36m.sequences import read_table
from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.human36m.source import Human36mSource
from data_pipelines.prepared import open_prepared
from data_pipelines.source import Tally
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, crop_matrix, world_to_camera, world_to_image
from fusion_jax.prepare_raw import check_data, prepare_raw

ROWS, STEP = 6, 2
SUBJECTS = ("S1", "S8", "S9", "S11")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree of four subjects with marks in the pictures, and the truth behind it."""
    folder = tmp_path_factory.mktemp("h36m") / "raw"
    return folder, write_dummy(folder, rows=ROWS, mark=True)


@pytest.fixture
def s9(made, tmp_path):
    """A copy of S9 alone, to be broken, and settings for it."""
    folder, truth = made
    shutil.copytree(folder / "S9", tmp_path / "raw" / "S9")
    return tmp_path / "raw", Human36mSettings(subjects=("S9",), table=str(truth.table), frame_step=STEP)


@functools.cache
def prepared(folder):
    """The whole tree, prepared once and opened again."""
    settings = Human36mSettings(subjects=SUBJECTS, table=str(folder / "sequences.txt"), frame_step=STEP)
    prepare_raw("human36m", folder, folder.parent / "data", settings)
    return open_prepared("human36m", folder.parent / "data")


def read(folder, settings, name, *, strict=True):
    """The examples of the view called `name` and its tally, without writing anything."""
    source = Human36mSource(folder, settings)
    part = next(p for p in source.parts() if p.name == name)
    tally = Tally(strict)
    return list(source.read(part, tally)), tally


def examples(dataset):
    return [e for split in dataset.splits for e in dataset.split(split)]


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def view(example):
    return text(example["sequence"]), text(example["camera_name"])


def stored_camera(example):
    return Camera(*(example["camera"][field] for field in Camera._fields))


def picture(example):
    return cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)


# From the raw tree to examples


def test_the_tree_is_complete_and_gives_exactly_the_examples_expected(made):
    folder, truth = made
    found = check_data("human36m", folder, Human36mSettings(subjects=SUBJECTS, table=str(truth.table)))
    assert not found.problems, found.summary()
    dataset = prepared(folder)
    frames = ROWS // STEP
    assert {name: len(dataset.split(name)) for name in dataset.splits} == {
        "train": 4 * frames, "validation": 4 * frames, "test": 4 * frames + 3 * frames,
    }  # fmt: skip
    assert dataset.subjects == {"train": ["S1"], "validation": ["S8"], "test": ["S9", "S11"]}
    assert dataset.provenance["test"] == {"S9/SittingDown 1": [[0, 5]], "S11/Directions": [[0, 5]]}
    assert dataset.description["frames left out"].startswith("3 frames of S11 Directions 54138969")
    assert dataset.description["frames"] == "every 2nd of 50 a second, from the first pose"
    assert "displaced by 200 mm as released" in dataset.description["corrections"]
    assert not dataset.people_shared and dataset.skeleton.name == "human36m17"
    assert dataset.name.startswith("human36m/128px_step2_jointboxes_S1S8S9S11_table")


def test_examples_carry_the_names_that_protocols_look_for(made):
    folder, _ = made
    test = prepared(folder).split("test")
    assert [int(e["frame"]) for e in test] == [0, 2, 4] * 7
    assert [view(e) for e in test][::3] == [
        *(("S9/SittingDown 1", name) for name in CAMERAS),
        *(("S11/Directions", name) for name in CAMERAS[1:]),
    ]
    assert {(text(e["subject"]), text(e["action"])) for e in examples(prepared(folder))} == {
        *(("S1", "Photo"), ("S8", "Photo")),  # S1's files are called TakingPhoto
        *(("S9", "SittingDown"), ("S11", "Directions")),
    }


def test_3d_equals_the_truth_and_2d_its_projection(made):
    folder, truth = made
    for e in examples(prepared(folder)):
        frame, (sequence, name) = int(e["frame"]), view(e)
        expected = truth.joints_world_mm[sequence][frame][USUAL_17]
        np.testing.assert_array_equal(e["joints_world_mm"], expected.astype(np.float32))
        np.testing.assert_allclose(
            world_to_image(e["joints_world_mm"].astype(float), stored_camera(e)), e["joints2d_px"], atol=1e-3
        )
        in_crop = apply_affine(crop_matrix(e["box"], 128), truth.joints2d_px[sequence, name][frame])
        np.testing.assert_allclose(e["joints2d_px"], in_crop, atol=1e-3)
        assert e["valid"].all() and e["valid2d"].all() and e["visible"].all()
        assert text(e["camera"]["model"]) == "perspective" and e["head_size_px"] == 0


def test_the_joints_lie_where_the_picture_shows_them(made):
    """A magenta disc was drawn on the head's top: its middle in the stored crop must be the stored 2D joint."""
    folder, _ = made
    errors = []
    for e in examples(prepared(folder)):
        red, green, blue = np.moveaxis(picture(e), -1, 0)
        weight = np.clip(np.minimum(red, blue) - green - 60, 0, None)
        ys, xs = np.mgrid[:128, :128]
        x, y = e["joints2d_px"][HEAD_TOP]
        weight *= np.hypot(xs - x, ys - y) < 9  # clothes may be pink
        assert weight.sum() > 500
        errors.append(np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum() - (x, y))
    assert np.abs(np.mean(errors, 0)).max() < 0.1, "no bias of half a pixel"
    assert np.linalg.norm(errors, axis=1).max() < 0.5


def test_video_frame_i_is_pose_row_i(made):
    """Each frame's number is a shade of grey on the pelvis, 24 steps apart."""
    folder, _ = made
    for e in examples(prepared(folder)):
        x, y = np.round(e["joints2d_px"][0]).astype(int)
        seen = picture(e)[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert abs(seen - shade(int(e["frame"]))) < 8, f"{view(e)} frame {e['frame']}"


def test_every_frame_is_kept_at_step_one_and_the_videos_end_is_not_used(made):
    folder, truth = made
    settings = Human36mSettings(subjects=("S9",), table=str(truth.table), frame_step=1, size=32)
    found, tally = read(folder, settings, "S9/SittingDown 1/55011271")
    assert [int(e["frame"]) for e in found] == list(range(ROWS)), "the video has two frames more"
    assert not tally.skipped and not tally.faults
    one, _ = read(folder, dataclasses.replace(settings, frame_step=4), "S9/SittingDown 1/55011271")
    assert [int(e["frame"]) for e in one] == [0, 4] and one[1]["image"] == found[4]["image"]


def test_the_published_projection_is_told_apart(made):
    folder, truth = made
    settings = Human36mSettings(subjects=("S1",), table=str(truth.table))
    ours, theirs = (
        read(folder, dataclasses.replace(settings, projection=p), "S1/TakingPhoto 1/55011271")[0][0]
        for p in ("opencv", "published")
    )
    seen_by = camera("S1", "55011271")
    joints = truth.joints_world_mm["S1/TakingPhoto 1"][0][USUAL_17]
    full = project_published(world_to_camera(joints, seen_by), seen_by)
    np.testing.assert_allclose(theirs["joints2d_px"], apply_affine(crop_matrix(theirs["box"], 128), full), atol=1e-3)
    scale = theirs["box"][2] / 128
    off = np.linalg.norm(world_to_image(joints, stored_camera(theirs)) - theirs["joints2d_px"], axis=1) * scale
    assert 0.002 < off.max() < 1.4, "and the stored camera is OpenCV's"
    np.testing.assert_array_equal(ours["joints_world_mm"], theirs["joints_world_mm"])
    said = [
        Human36mSource(folder, dataclasses.replace(settings, projection=p)).description()
        for p in ("opencv", "published")
    ]
    assert "OpenCV" in said[0]["2D joints"] and "released 2D poses" in said[1]["2D joints"]


def test_parts_can_be_sent_to_processes(made):
    folder, truth = made
    source = Human36mSource(folder, Human36mSettings(subjects=SUBJECTS, table=str(truth.table)))
    again = pickle.loads(pickle.dumps((source, source.parts())))
    assert again[1] == source.parts() and len(pickle.dumps(again[1][0])) < 2000
    assert [p.split for p in source.parts()] == ["train"] * 4 + ["validation"] * 4 + ["test"] * 8


def test_the_whole_dataset_is_840_views_of_which_one_is_dropped(tmp_path):
    source = Human36mSource(tmp_path, Human36mSettings())
    parts = source.parts()
    assert len(parts) == 840 == len({part.name for part in parts})
    assert parts[0].files == (
        tmp_path / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf",
        tmp_path / "S1/Videos/Directions 1.54138969.mp4",
    )
    dropped = [part for part in parts if not part.files]
    assert [part.name for part in dropped] == ["S11/Directions/54138969"]
    tally = Tally()
    assert not list(source.read(dropped[0], tally)) and sum(tally.skipped.values()) == 365
    every = Human36mSource(tmp_path, Human36mSettings(frame_step=1)).parts()
    assert sum(p.examples for p in every if p.split != "test") == 1_559_752
    assert sum(p.examples for p in every if p.split == "test") == 550_644


# Boxes and corrections


def test_boxes_from_masks_are_the_rectangles_and_empty_masks_fall_back(s9, made):
    folder, settings = s9
    truth = made[1]
    key = ("S9/SittingDown 1", "58860488")
    rectangles = truth.rectangles[key].copy()
    rectangles[4] = 0
    path = folder / "S9" / MASKS.folder / file_name(MASKS, "SittingDown 1", "58860488")
    write_masks(path, rectangles, (1000, 1000))
    settings = dataclasses.replace(settings, boxes="masks")
    assert not check_data("human36m", folder, settings).problems
    found, tally = read(folder, settings, "/".join(key))
    for e in found[:2]:
        left, top, right, bottom = rectangles[int(e["frame"])]
        side = max(right - left, bottom - top)
        assert e["box"][2] == round(side)
        np.testing.assert_allclose(e["box"][:2] + side / 2, [(left + right) / 2, (top + bottom) / 2], atol=0.5)
    joints_alone, _ = read(folder, dataclasses.replace(settings, boxes="joints"), "/".join(key))
    np.testing.assert_array_equal(found[2]["box"], joints_alone[2]["box"])
    assert tally.notes == ["where a mask is empty the box is around the joints"] and not tally.skipped


def test_the_room_box_shows_two_metres(made):
    folder, truth = made
    settings = Human36mSettings(subjects=("S8",), table=str(truth.table), boxes="room")
    found, _ = read(folder, settings, "S8/Photo/60457274")
    pelvis = world_to_camera(truth.joints_world_mm["S8/Photo"][0][:1], camera("S8", "60457274"))[0]
    assert abs(found[0]["box"][2] - 2000 * 1145 / pelvis[2]) < 0.04 * found[0]["box"][2], "but for the lens"


def test_the_shift_of_s9_moves_its_three_sequences_and_nothing_else(made):
    folder, truth = made
    settings = Human36mSettings(subjects=SUBJECTS, table=str(truth.table), shift_s9=True)
    for name, moved in (("S9/SittingDown 1/54138969", True), ("S8/Photo/54138969", False)):
        as_is, _ = read(folder, dataclasses.replace(settings, shift_s9=False), name)
        shifted, _ = read(folder, settings, name)
        difference = shifted[0]["joints_world_mm"] - as_is[0]["joints_world_mm"]
        np.testing.assert_allclose(difference, np.tile([-200.0 if moved else 0, 0, 0], (17, 1)), atol=1e-3)
        np.testing.assert_allclose(
            world_to_image(shifted[0]["joints_world_mm"].astype(float), stored_camera(shifted[0])),
            shifted[0]["joints2d_px"],
            atol=1e-3,
        )
    assert "moved back by 200 mm" in Human36mSource(folder, settings).description()["corrections"]


def test_with_boxes_from_masks_the_shift_moves_the_boxes_as_the_joints(made):
    folder, truth = made
    settings = Human36mSettings(subjects=SUBJECTS, table=str(truth.table), boxes="masks")
    for name in CAMERAS:
        as_is, _ = read(folder, settings, f"S9/SittingDown 1/{name}")
        moved, _ = read(folder, dataclasses.replace(settings, shift_s9=True), f"S9/SittingDown 1/{name}")
        full = []
        for e in (as_is[0], moved[0]):
            full.append(apply_affine(np.linalg.inv(crop_matrix(e["box"], 128)), e["joints2d_px"].astype(float)))
        boxes_moved = (moved[0]["box"] - as_is[0]["box"])[:2] + (moved[0]["box"] - as_is[0]["box"])[2] / 2
        joints_moved = (full[1] - full[0])[0]
        assert np.abs(joints_moved).max() > 3
        np.testing.assert_allclose(boxes_moved, joints_moved, atol=0.03 * np.abs(joints_moved).max() + 1)


def test_the_broken_video_is_asked_for_only_where_it_is_kept(made, tmp_path):
    folder, truth = made
    shutil.copytree(folder / "S11", tmp_path / "S11")
    (tmp_path / "S11/Videos/Directions.54138969.mp4").write_bytes(b"broken")
    settings = Human36mSettings(subjects=("S11",), table=str(truth.table))
    assert not check_data("human36m", tmp_path, settings).problems
    keep = dataclasses.replace(settings, broken_video="keep")
    problem = check_data("human36m", tmp_path, keep).problems
    assert len(problem) == 1 and "cannot be opened as a video" in problem[0].problem
    shutil.copy(folder / "S11/Videos/Directions.54138969.mp4", tmp_path / "S11/Videos")
    found, _ = read(tmp_path, keep, "S11/Directions/54138969")
    assert len(found) == 2 and "included" in Human36mSource(tmp_path, keep).description()["broken video"]


# What is broken is named


def video_of(folder, name="55011271"):
    return folder / "S9" / VIDEOS.folder / file_name(VIDEOS, "SittingDown 1", name)


def problem(folder, settings):
    """The one problem there is."""
    problems = check_data("human36m", folder, settings).problems
    assert len(problems) == 1, problems
    return f"{problems[0].path}: {problems[0].problem}"


def cut(path, frames):
    capture = cv2.VideoCapture(str(path))
    pictures = [capture.read()[1][..., ::-1] for _ in range(frames)]
    write_video(path, pictures, pictures[0].shape[1::-1])


def test_a_short_video_is_named_with_both_counts_and_its_good_part_kept(s9):
    folder, settings = s9
    cut(video_of(folder), 4)
    said = "has 4 frames for the 6 pose rows of S9/SittingDown 1"
    assert f"SittingDown 1.55011271.mp4: {said}" in problem(folder, settings)
    with pytest.raises(UserError, match=f"55011271.mp4 {said}"):
        read(folder, settings, "S9/SittingDown 1/55011271")
    found, tally = read(folder, settings, "S9/SittingDown 1/55011271", strict=False)
    assert [int(e["frame"]) for e in found] == [0, 2] and len(tally.faults) == 1


def long(path, frames):
    """Makes a video as long as asked for, of its first picture."""
    first = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    write_video(path, [first] * frames, first.shape[1::-1])


def test_a_much_longer_video_is_anothers(s9):
    folder, settings = s9
    long(video_of(folder), ROWS + 20)
    assert not check_data("human36m", folder, settings).problems
    assert len(read(folder, settings, "S9/SittingDown 1/55011271")[0]) == 3
    long(video_of(folder), ROWS + 21)
    said = "has 27 frames, the videos of S9/SittingDown 1 about 6 (6 pose rows); it is cut off or another's under this"
    assert said in problem(folder, settings)
    with pytest.raises(UserError, match=re.escape(said)):
        read(folder, settings, "S9/SittingDown 1/55011271", strict=False)


@pytest.mark.parametrize(("frames", "good"), [(29, False), (30, True), (70, True), (71, False), (4, False)])
def test_videos_known_to_be_much_longer_are_held_to_their_published_length(s9, tmp_path, frames, good):
    folder, settings = s9
    table = tmp_path / "longer.txt"
    table.write_text("S9\tSittingDown\t1\tSittingDown 1\t6\t50\n")
    for name in CAMERAS:
        long(video_of(folder, name), 50 if name != "55011271" else frames)
    settings = dataclasses.replace(settings, table=str(table))
    if good:
        assert not check_data("human36m", folder, settings).problems
        return
    said = f"has {frames} frames, the videos of S9/SittingDown 1 about 50 (6 pose rows)"
    assert said in problem(folder, settings)
    with pytest.raises(UserError, match=re.escape(said)):
        read(folder, settings, "S9/SittingDown 1/55011271", strict=False)


def test_a_video_whose_header_promises_too_much_is_named(s9, monkeypatch):
    folder, settings = s9
    cut(video_of(folder), 4)
    monkeypatch.setattr("data_pipelines.human36m.views.check_enough", lambda *_: None)  # as if the header said 6
    with pytest.raises(UserError, match=r"55011271.mp4 cannot be decoded beyond frame 2 of the 6 that have poses"):
        read(folder, settings, "S9/SittingDown 1/55011271")


def test_a_video_of_another_size_is_named(s9):
    folder, settings = s9
    shutil.copy(video_of(folder, "54138969"), video_of(folder))
    said = "has pictures of 1000 x 1002, camera 55011271 makes 1000 x 1000"
    assert said in problem(folder, settings)
    with pytest.raises(UserError, match=said):
        read(folder, settings, "S9/SittingDown 1/55011271")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is missing"), (b"", "is empty"), (b"<html>log in</html>", "web page"), (b"\0" * 5000, "cannot be opened")],
)
def test_a_file_that_is_no_video_is_named(s9, content, said):
    folder, settings = s9
    video_of(folder).unlink()
    if content is not None:
        video_of(folder).write_bytes(content)
    assert said in problem(folder, settings)
    with pytest.raises(UserError, match=said):
        read(folder, settings, "S9/SittingDown 1/55011271")


def test_other_row_counts_are_named(s9, made):
    folder, settings = s9
    joints = made[1].joints_world_mm["S9/SittingDown 1"]
    path = folder / "S9/MyPoseFeatures/D3_Positions/SittingDown 1.cdf"
    write_cdf(path, joints[:4].reshape(1, 4, -1))
    problems = check_data("human36m", folder, settings).problems
    assert "has 4 rows, expected the 6 of S9/SittingDown 1" in problems[0].problem
    with pytest.raises(UserError, match=r"SittingDown 1.cdf has 4 rows"):
        read(folder, settings, "S9/SittingDown 1/55011271")


def test_another_subjects_tree_is_recognised(made, tmp_path):
    folder, truth = made
    shutil.copytree(folder / "S11", tmp_path / "S9")
    problems = check_data("human36m", tmp_path, Human36mSettings(subjects=("S9",), table=str(truth.table))).problems
    assert any("holds the files of S11, not of S9" in p.problem for p in problems)


def test_the_true_table_is_what_pose_folders_are_held_to(tmp_path):
    """S6 with its true 30 names and row counts: nothing wrong with the poses until one is."""
    pose = np.zeros((1, 3000, 32, 3), np.float32)
    pose[..., 2, 2] = -450
    folder = tmp_path / "S6" / POSES.folder
    for sequence in (q for q in read_table() if q.subject == "S6"):
        rows = np.broadcast_to(pose[:, :1], (1, sequence.rows, 32, 3)).reshape(1, sequence.rows, 96)
        write_cdf(folder / file_name(POSES, sequence.stem, ""), rows)
    (folder / "_ALL.cdf").write_bytes(b"not to be read")
    settings = Human36mSettings(subjects=("S6",))
    assert problem(tmp_path, settings) == (
        f"S6/Videos: missing, with its 120 files; download Videos_S6.tgz into {tmp_path}"
    )
    (folder / "Waiting 3.cdf").rename(folder / "Waiting 1.cdf")
    problems = [p.problem for p in check_data("human36m", tmp_path, settings).problems]
    assert (
        "lacks Waiting 3 and holds Waiting 1, not of S6; 30 sequences expected, download its pose archive again"
        in problems
    )
    assert "is missing" in problems[0]


@pytest.mark.parametrize("change", ["size", "few", "text"])
def test_masks_that_do_not_fit_are_named(s9, change):
    folder, settings = s9
    path = folder / "S9" / MASKS.folder / file_name(MASKS, "SittingDown 1", "54138969")
    write_masks(path, np.ones((4 if change == "few" else 6, 4)), (1002, 1000) if change == "size" else (1000, 1002))
    if change == "text":
        path.write_bytes(b"<html>")
    assert not check_data("human36m", folder, settings).problems, "nobody asked for masks"
    settings = dataclasses.replace(settings, boxes="masks")
    said = {
        "size": r"mask 0 is .*\(1002, 1000\).* expected \(width, height\) = \(1000, 1002\)",
        "few": "has 4 masks for 6 pose rows",
        "text": "is a web page",
    }[change]
    if change != "size":
        assert said.replace("for 6", "for the 6") in problem(folder, settings)
    with pytest.raises(UserError, match=said):
        read(folder, settings, "S9/SittingDown 1/54138969")


def test_poses_that_are_not_where_the_camera_looks_are_named(s9, made):
    folder, settings = s9
    joints, path = made[1].joints_world_mm["S9/SittingDown 1"], folder / "S9" / POSES.folder / "SittingDown 1.cdf"
    aside, behind = (joints.copy() for _ in range(2))
    seen_by = camera("S9", "55011271")
    aside[2] += seen_by.rot_world_to_cam[0] * 20_000  # to the camera's right
    behind[2] -= seen_by.rot_world_to_cam[2] * 20_000
    write_cdf(path, aside.reshape(1, ROWS, -1))
    found, tally = read(folder, settings, "S9/SittingDown 1/55011271")
    assert [int(e["frame"]) for e in found] == [0, 4] and list(tally.skipped) == [
        "frames whose person is outside the picture"
    ]
    beside = joints.copy()
    beside[2, 27] = seen_by.cam_center_mm + seen_by.rot_world_to_cam.T @ [500, 0, 5]
    write_cdf(path, beside.reshape(1, ROWS, -1))
    with pytest.raises(UserError, match=r"SittingDown 1.cdf: row 2 cannot be cut out .box .* at most 20000 px"):
        read(folder, settings, "S9/SittingDown 1/55011271")
    write_cdf(path, behind.reshape(1, ROWS, -1))
    with pytest.raises(UserError, match=r"SittingDown 1.cdf: row 2 lies behind camera 55011271"):
        read(folder, settings, "S9/SittingDown 1/55011271")


@pytest.mark.parametrize(("kind", "unit", "width"), [(POSES_2D, "px", 2), (POSES_CAMERA, "mm", 3)])
def test_released_2d_and_camera_poses_are_compared(s9, made, kind, unit, width):
    folder, settings = s9
    path = folder / "S9" / kind.folder / file_name(kind, "SittingDown 1", "60457274")
    notes = [
        i.note
        for i in check_data("human36m", folder, settings).items
        if i.path.endswith(f"{path.parent.name}/{path.name}")
    ]
    assert len(notes) == 1 and "first row within" in notes[0] and unit in notes[0]
    other = folder / "S9" / kind.folder / file_name(kind, "SittingDown 1", "54138969")
    shutil.copy(other, path)
    assert f"{unit} from" in problem(folder, settings) and "another subject's" in problem(folder, settings)
    path.unlink()
    assert not check_data("human36m", folder, settings).problems, "optional"


# Archives


def test_archives_are_found_checked_and_unpacked(made, tmp_path, monkeypatch):
    folder, truth = made
    raw = tmp_path / "raw"
    raw.mkdir()
    for kind in (POSES, VIDEOS):
        with tarfile.open(raw / f"{kind.archive}_S9.tgz", "w:gz") as packed:
            packed.add(folder / "S9" / kind.folder, f"S9/{kind.folder}")
    settings = Human36mSettings(subjects=("S9",), table=str(truth.table), frame_step=ROWS)
    problems = {p.path: p.problem for p in check_data("human36m", raw, settings).problems}
    assert set(problems) == {"Poses_D3_Positions_S9.tgz", "Videos_S9.tgz"}
    assert all("published is" in p for p in problems.values()), "they are not the real ones"
    sums = {a.name: hashlib.md5(a.read_bytes()).hexdigest() for a in raw.iterdir()}
    monkeypatch.setattr(archive_checks, "checksums", lambda: sums)
    found = check_data("human36m", raw, settings)
    assert not found.problems and {i.note for i in found.items if i.path.endswith(".tgz")} == {
        "will be unpacked, checksum right"
    }
    prepare_raw("human36m", raw, tmp_path / "data", settings)
    assert len(open_prepared("human36m", tmp_path / "data").split("test")) == 4
    assert (raw / "Videos_S9/S9/Videos").is_dir()
    (raw / "Videos_S9.tgz").write_bytes(b"<html>please log in</html>")
    shutil.rmtree(raw / "Videos_S9")
    assert "web page" in problem(raw, settings)
    (raw / "Videos_S9.tgz").write_bytes(b"PK\3\4")
    assert "no gzip archive" in problem(raw, settings)


def pack(folder, subject, raw, monkeypatch):
    """A subject's two archives in `raw`, whose sums count as the published ones."""
    raw.mkdir(exist_ok=True)
    for kind in (POSES, VIDEOS):
        with tarfile.open(raw / f"{kind.archive}_{subject}.tgz", "w:gz") as packed:
            packed.add(folder / subject / kind.folder, f"{subject}/{kind.folder}")
    sums = {a.name: hashlib.md5(a.read_bytes()).hexdigest() for a in raw.glob("*.tgz")}
    monkeypatch.setattr(archive_checks, "checksums", lambda: sums)


def test_an_archive_of_another_sum_is_not_unpacked(made, tmp_path, monkeypatch, capsys):
    folder, truth = made
    raw = tmp_path / "raw"
    pack(folder, "S1", raw, monkeypatch)
    pack(folder, "S9", raw, monkeypatch)
    monkeypatch.setattr(archive_checks, "checksums", lambda: {"Videos_S9.tgz": "0" * 32})
    settings = Human36mSettings(subjects=("S1", "S9"), table=str(truth.table), frame_step=ROWS)
    with pytest.raises(UserError, match=r"Videos_S9.tgz: its MD5 is \w{32}, published is 0{32}; it is cut off"):
        prepare_raw("human36m", raw, tmp_path / "data", settings)
    assert not (raw / "Videos_S9").exists() and (raw / "Videos_S1").exists()
    prepare_raw("human36m", raw, tmp_path / "data", settings, partial=True)
    assert not (raw / "Videos_S9").exists()
    dataset = open_prepared("human36m", tmp_path / "data")
    assert list(dataset.splits) == ["train"] and len(dataset.split("train")) == 4
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if "broken or missing: " in line and "its MD5 is" in line]) == 1
    assert "left out: 4 frames of broken or missing pieces" in said


def test_only_the_chosen_subjects_archives_are_unpacked(made, tmp_path, monkeypatch):
    folder, truth = made
    raw = tmp_path / "raw"
    pack(folder, "S1", raw, monkeypatch)
    pack(folder, "S9", raw, monkeypatch)
    (raw / "Poses_D2_Positions_S1.tgz").write_bytes(b"<html>log in</html>")
    settings = Human36mSettings(subjects=("S1",), table=str(truth.table), frame_step=ROWS)
    assert problem(raw, settings).startswith("Poses_D2_Positions_S1.tgz: is a web page"), "prepare would refuse it"
    (raw / "Poses_D2_Positions_S1.tgz").unlink()
    (raw / "Segments_mat_gt_bb_S1.tgz").write_bytes(b"<html>not asked for</html>")
    prepare_raw("human36m", raw, tmp_path / "data", settings)
    unpacked = sorted(path.name for path in raw.iterdir() if path.is_dir())
    assert unpacked == ["Poses_D3_Positions_S1", "Videos_S1"]


def test_archives_unpacked_by_hand_are_not_unpacked_again(made, tmp_path, monkeypatch):
    folder, truth = made
    raw = tmp_path / "raw"
    pack(folder, "S9", raw, monkeypatch)
    for archive in raw.glob("*.tgz"):
        with tarfile.open(archive) as packed:
            packed.extractall(raw, filter="data")
    before = sorted(path.name for path in raw.iterdir())
    assert before == ["Poses_D3_Positions_S9.tgz", "S9", "Videos_S9.tgz"]
    settings = Human36mSettings(subjects=("S9",), table=str(truth.table), frame_step=ROWS)
    assert not check_data("human36m", raw, settings).problems
    prepare_raw("human36m", raw, tmp_path / "data", settings)
    assert sorted(path.name for path in raw.iterdir()) == before
    assert len(open_prepared("human36m", tmp_path / "data").split("test")) == 4


def test_partial_goes_on_without_a_pose_file(made, tmp_path, capsys):
    folder, truth = made
    raw = tmp_path / "raw"
    for subject in ("S1", "S9"):
        shutil.copytree(folder / subject, raw / subject)
    path = raw / "S9" / POSES.folder / "SittingDown 1.cdf"
    path.unlink()
    settings = Human36mSettings(subjects=("S1", "S9"), table=str(truth.table), frame_step=STEP)
    prepare_raw("human36m", raw, tmp_path / "data", settings, partial=True)
    said = capsys.readouterr().out
    assert "train 12 frames" in said and "left out: 12 frames of broken or missing pieces" in said
    assert f"broken or missing: {path}: is missing; download it" in said
    assert said.count("is missing") <= 2, "not once a camera, nor for each file that is compared with it"


def test_nothing_there_is_one_line_a_folder(tmp_path):
    problems = check_data("human36m", tmp_path).problems
    assert [p.path for p in problems] == [
        f"{s}/{k.folder}" for s in ("S1", "S5", "S6", "S7", "S8", "S9", "S11") for k in (POSES, VIDEOS)
    ]
    assert "missing, with its 30 files; download Poses_D3_Positions_S1.tgz" in problems[0].problem
    with pytest.raises(UserError, match=r"S1/MyPoseFeatures/D3_Positions: missing.* .and 13 more."):
        prepare_raw("human36m", tmp_path, tmp_path / "data")


def test_published_sums_are_there_for_both_archives_of_each_subject():
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    assert set(archive_checks.checksums()) == {f"{k.archive}_{s}.tgz" for k in (POSES, VIDEOS) for s in subjects}
    assert len(set(archive_checks.checksums().values())) == 14
    assert all(len(md5) == 32 and int(md5, 16) for md5 in archive_checks.checksums().values())


def test_every_picture_size_of_the_dummy_is_the_cameras(made):
    folder, _ = made
    for name in CAMERAS:
        capture = cv2.VideoCapture(str(video_of(folder, name)))
        height, width = capture.read()[1].shape[:2]
        assert (width, height) == picture_sizes("S9", name)[0] and capture.get(cv2.CAP_PROP_FPS) == 50
    assert pathlib.Path(folder / "S9/Videos/_ALL 1.54138969.mp4").exists(), "and the reader did not mind"
