"""KTH Multiview Football II: from a made-up zip in the true format to a prepared dataset, and every trap on the way."""

import dataclasses
import pathlib
import re
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import scipy.linalg

import data_pipelines.kth_football2.numbers as numbers_module
from data_pipelines.kth_football2.affine import affine_camera, project
from data_pipelines.kth_football2.checks import bend_of_knees, check_unit
from data_pipelines.kth_football2.dummy_data import HEAD, WRIST, Truth, frame_grey, write_dummy, write_numbers
from data_pipelines.kth_football2.numbers import parse_numbers, read_sequence
from data_pipelines.kth_football2.settings import CAMERAS, KthFootball2Settings
from data_pipelines.kth_football2.source import KthFootball2Source, halves
from data_pipelines.prepared import open_prepared
from data_pipelines.provenance import overlap
from fusion_jax.errors import UserError
from fusion_jax.geometry import apply_affine, crop_matrix, root_relative
from fusion_jax.prepare_raw import check_data, prepare_raw
from fusion_jax.skeletons import skeleton

NAME, LSP14 = "kth_football2", skeleton("lsp14")


def prepared(raw, data_dir, settings=None, **options):
    folder = prepare_raw(NAME, raw, data_dir, settings, **options)
    return open_prepared(f"{NAME}/{folder.parent.name}", data_dir)


def problems(raw, settings=None):
    return [f"{item.path}: {item.problem}" for item in check_data(NAME, raw, settings).problems]


def affine_px(example):
    """Where the stored camera shows the stored joints, by the schema's words."""
    camera = example["camera"]
    turned = (example["joints_world_mm"] - camera["cam_center_mm"]) @ camera["rot_world_to_cam"].T
    return turned[:, :2] @ camera["intrinsics"][:2, :2].T + camera["intrinsics"][:2, 2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Truth, pathlib.Path]:
    """Twelve steps of all cameras, with marks in the pictures."""
    raw = tmp_path_factory.mktemp("kth")
    return write_dummy(raw, 12, mark=True), raw


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> tuple[Truth, pathlib.Path]:
    raw = tmp_path_factory.mktemp("kth_small")
    return write_dummy(raw, 6, cameras=("Camera 1",)), raw


@pytest.fixture
def small(original, tmp_path) -> tuple[Truth, pathlib.Path]:
    """Six steps of camera 1, to be broken."""
    truth, raw = original
    shutil.copytree(raw, tmp_path / "raw")
    return truth._replace(folder=tmp_path / "raw" / truth.folder.relative_to(raw)), tmp_path / "raw"


def rewrite(truth, *, joints2d=None, joints3d=None, matrices=None):
    write_numbers(
        truth.folder,
        truth.joints2d_px + 1 if joints2d is None else joints2d,
        truth.joints_mm / 1000 if joints3d is None else joints3d,
        truth.matrices if matrices is None else matrices,
    )


def test_the_papers_camera_comes_back_as_it_was_made(whole, tmp_path):
    truth, raw = whole
    found = check_data(NAME, raw)
    assert not found.problems and found.summary().startswith("complete: 40 files")  # a folder, 3 texts, 36 pictures
    dataset = prepared(raw, tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 5, "validation": 1, "test": 6}
    assert dataset.provenance == {
        "train": {"player2/Sequence 1": [[1, 5]]},
        "validation": {"player2/Sequence 1": [[6, 6]]},
        "test": {"player2/Sequence 1": [[7, 12]]},
    }
    assert overlap(dataset.provenance["train"], dataset.provenance["test"]) is None
    assert dataset.people_shared and dataset.subjects["test"] == ["player2"] and dataset.skeleton.name == "lsp14"
    assert "warning" not in dataset.description
    examples = [example for name in ("train", "validation", "test") for example in dataset.split(name)]
    assert [int(example["frame"]) for example in examples] == list(range(1, 13))
    for step, example in enumerate(examples):
        np.testing.assert_allclose(example["joints_world_mm"], truth.joints_mm[step], rtol=1e-6, atol=1e-3)
        to_crop = crop_matrix(example["box"], 128)
        labels, shown = (apply_affine(to_crop, px[step, 0]) for px in (truth.joints2d_px, truth.projected_px))
        np.testing.assert_allclose(example["joints2d_px"], labels, atol=1e-3)
        np.testing.assert_allclose(affine_px(example), shown, atol=1e-3)
        assert np.abs(example["joints2d_px"] - affine_px(example)).max() < 4  # the labels' noise
        assert example["valid"].all() and example["valid2d"].all() and example["visible"].all()
        assert example["camera"]["model"] == b"affine" and example["camera_name"] == b"Camera 1"
        words = (example["subject"], example["action"], example["sequence"])
        assert words == (b"player2", b"football", b"player2/Sequence 1")


def test_all_cameras_are_parts_of_their_own_with_their_own_matrices(whole, tmp_path):
    truth, raw = whole
    dataset = prepared(raw, tmp_path, KthFootball2Settings(cameras=CAMERAS, validation_share=0))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 18, "test": 18}
    assert dataset.provenance["test"] == {"player2/Sequence 1": [[7, 12]]}
    names = [example["camera_name"].decode() for example in dataset.split("test")]
    assert names == ["Camera 1"] * 6 + ["Camera 2"] * 6 + ["Camera 3"] * 6
    for example in dataset.split("test"):
        view, step = CAMERAS.index(example["camera_name"].decode()), int(example["frame"]) - 1
        shown = apply_affine(crop_matrix(example["box"], 128), truth.projected_px[step, view])
        np.testing.assert_allclose(affine_px(example), shown, atol=1e-3)
    assert set(re.findall(r"Camera \d", dataset.description["projected poses to 2D labels, median"])) == set(CAMERAS)


@pytest.mark.parametrize("camera", CAMERAS)
def test_marks_in_the_pictures_are_at_the_projected_joints_of_their_own_step(whole, tmp_path, camera):
    truth, raw = whole
    dataset = prepared(raw, tmp_path, KthFootball2Settings(cameras=(camera,), size=256, validation_share=0))
    errors = []
    for example in [*dataset.split("train"), *dataset.split("test")]:
        picture = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        at = affine_px(example)
        strength = np.clip(np.minimum(picture[..., 0], picture[..., 2]) - picture[..., 1] - 100, 0, None)
        ys, xs = np.mgrid[:256, :256]
        centre = np.array([(strength * xs).sum(), (strength * ys).sum()]) / strength.sum()
        errors.append((centre - at[WRIST]) * example["box"][2] / 256)  # px of the full picture
        x, y = np.round(at[HEAD]).astype(int)
        assert abs(picture[y - 1 : y + 2, x - 1 : x + 2].mean() - frame_grey(int(example["frame"]))) < 8
    assert np.abs(errors).max() < 0.6 and np.abs(np.mean(errors, axis=0)).max() < 0.15


def test_the_person_is_drawn_where_the_matrix_says(tmp_path):
    """Not the marks: the body itself. Its legs' silhouette against an empty room, both sides of the shin."""
    truth = write_dummy(tmp_path, 2, cameras=("Camera 1",), noise_px=0)
    picture = cv2.imread(str(truth.folder / "Camera 1" / "00001.png")).astype(float)
    offsets = []
    for lower, upper in (("right_wrist", "right_elbow"), ("right_ankle", "right_knee"), ("left_ankle", "left_knee")):
        ends = truth.projected_px[0, 0, [LSP14.index(lower), LSP14.index(upper)]]
        middle, along = ends.mean(0), (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        across = np.array([-along[1], along[0]])
        places = (middle + np.arange(-40, 41)[:, None] * across).astype(np.float32)
        line = cv2.remap(picture, places[None], None, cv2.INTER_LINEAR)[0]
        alike = np.linalg.norm(line - line[40], axis=-1) < 40
        first = 40 - int(np.argmin(alike[40::-1])) + 1
        last = 40 + int(np.argmin(alike[40:])) - 1
        offsets.append((first + last) / 2 - 40)
    assert np.median(np.abs(offsets)) < 6, offsets  # limbs are 20 px wide and taper


def test_a_camera_by_hand():
    # Looks along +y from the height of z = 0; 200 px a metre, pixels counted from 1.
    matrix = np.array([[200.0, 0, 0, 241], [0, 0, -200, 321]])
    camera = affine_camera(matrix, 1000.0, 1)
    np.testing.assert_allclose(camera.rot_world_to_cam, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(camera.intrinsics, [[0.2, 0, 240], [0, 0.2, 320], [0, 0, 1]], atol=1e-12)
    assert not camera.cam_center_mm.any() and not camera.distortion.any()
    # The left hip is nearer to the camera (smaller y), so it has the smaller z in the camera's frame.
    hips = np.array([[100.0, 50, 900], [100, -50, 900]]) @ camera.rot_world_to_cam.T
    np.testing.assert_allclose(hips[:, 2], [50, -50], atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_camera_is_exact_and_its_directions_are_the_nearest(seed):
    rng = np.random.default_rng(seed)
    rows = 200 * (np.linalg.qr(rng.normal(size=(3, 3)))[0][:2] + rng.normal(0, 0.05, (2, 3)))
    matrix = np.concatenate([rows, rng.normal(300, 50, (2, 1))], axis=1)
    camera = affine_camera(matrix, 1000.0, 0)
    rotation = camera.rot_world_to_cam
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    joints = rng.normal(size=(14, 3))
    px = (1000 * joints @ rotation.T)[:, :2] @ camera.intrinsics[:2, :2].T + camera.intrinsics[:2, 2]
    np.testing.assert_allclose(px, project(joints, matrix), atol=1e-9)
    np.testing.assert_allclose(px, joints @ rows.T + matrix[:, 3], atol=1e-9)
    np.testing.assert_allclose(rotation[:2], scipy.linalg.polar(rows, side="left")[0], atol=1e-12)


@pytest.mark.parametrize("row", [[0.0, 0, 0, 5], [200, 0, 0, 5], [np.nan, 0, 0, 5], [np.inf, 0, 0, 5]])
def test_a_camera_that_looks_nowhere_is_refused(row):
    with pytest.raises(UserError, match="has parallel or zero rows|is not finite"):
        affine_camera(np.array([[200.0, 0, 0, 240], row]), 1000.0, 1)


def test_numbers_are_arranged_as_the_files_order_them(tmp_path):
    steps = 3
    two, three, matrices = [], [], []
    for step in range(steps):
        for view in range(3):
            for joint in range(14):
                two += [f"{step}{view}{joint:02d}{axis}" for axis in range(2)]
            for column in range(4):
                matrices += [f"{step}.{view}{column}{row}" for row in range(2)]
        for joint in range(14):
            three += [f"{step}{joint:02d}{axis}e-2" for axis in range(3)]
    for name, lines in (("positions2d", two), ("positions3d", three), ("cameras", matrices)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n\n")
    found = read_sequence(tmp_path)
    assert found.joints2d.shape == (3, 3, 14, 2) and found.joints2d[2, 1, 13, 1] == 21131
    assert found.joints3d.shape == (3, 14, 3) and found.joints3d[1, 7, 2] == 10.72
    assert (
        found.cameras.shape == (3, 3, 2, 4)
        and found.cameras[2, 1, 0, 3] == 2.130
        and found.cameras[0, 2, 1, 1] == 0.211
    )


@pytest.mark.parametrize("line", ["word", "", "1 2", "1,5", "0x10", "1_000", "1e99999", "--1", "\x00", "１"])
def test_a_line_that_is_not_one_number_is_named(line):
    with pytest.raises(UserError, match=r"p.txt, line 3: .* is not one number"):
        parse_numbers(f"1.5\r\n -2e-3 \n{line}\n4\n".encode(), pathlib.Path("p.txt"))


def test_numbers_of_all_spellings():
    got = parse_numbers(b"1\n+2.\n-.5\n  3e+002\nNaN\n-Inf\n", pathlib.Path("p.txt"))
    np.testing.assert_array_equal(got, [1, 2, -0.5, 300, np.nan, -np.inf])


def test_counts_that_disagree_are_named(small, monkeypatch):
    truth, raw = small
    texts = {name: (truth.folder / f"{name}.txt").read_text() for name in ("positions2d", "positions3d", "cameras")}

    def cut(name, lines):
        text = texts[name].splitlines(keepends=True)
        (truth.folder / f"{name}.txt").write_text("".join(text[:lines]))
        found = problems(raw)[0]
        (truth.folder / f"{name}.txt").write_text(texts[name])
        return found

    assert "positions2d.txt: has 503 numbers, expected a multiple of 84" in cut("positions2d", 503)
    assert "positions3d.txt: has 251 numbers, expected 42 x 6 for the 6 steps of positions2d.txt" in cut(
        "positions3d", 251
    )
    assert "cameras.txt: has 120 numbers, expected 24 x 6" in cut("cameras", 120)
    assert "were two zips unpacked over each other?" in cut("positions2d", 420)
    assert "cameras.txt: is empty" in cut("cameras", 0)
    (truth.folder / "cameras.txt").write_text("<html>log in</html>")
    assert "cameras.txt: is a web page" in problems(raw)[0]
    (truth.folder / "cameras.txt").unlink()
    assert "cameras.txt: is missing; download it" in problems(raw)[0]
    monkeypatch.setattr(numbers_module, "MAX_BYTES", 1000)
    assert re.search(r"positions2d.txt: has \d+ bytes, more than 1000", problems(raw)[0])


def test_numbers_that_are_not_finite_are_named_by_line(small, tmp_path):
    truth, raw = small
    joints3d, matrices, joints2d = truth.joints_mm / 1000, truth.matrices.copy(), truth.joints2d_px + 1
    joints3d[1, 4, 2] = np.nan  # step 2, left knee: 42 + 4 * 3 + 3 lines on
    matrices[3, 0, 1, 2] = np.inf  # step 4, camera 1, row 2, column 3: 3 * 24 + 2 * 2 + 2 lines on
    matrices[4, 2, 1, 2] = np.nan  # of a camera that is not asked for
    joints2d[5, 0, 6] = np.nan
    rewrite(truth, joints2d=joints2d, joints3d=joints3d, matrices=matrices)
    assert problems(raw) == [
        "player2sequence1/Sequence 1/positions3d.txt: line 57: z of left_knee at step 2 is nan; download its zip again",
        "player2sequence1/Sequence 1/cameras.txt: line 78: the matrix of camera 1 at step 4 holds inf; "
        "download its zip again",
    ]
    assert (truth.folder / "positions3d.txt").read_text().splitlines()[56] == "nan"
    assert (truth.folder / "cameras.txt").read_text().splitlines()[77] == "inf"
    with pytest.raises(UserError, match=r"positions3d.txt: line 57: z of left_knee at step 2 is nan"):
        prepare_raw(NAME, raw, tmp_path / "data")
    dataset = prepared(raw, tmp_path / "data", partial=True)
    frames = {name: [int(e["frame"]) for e in split] for name, split in dataset.splits.items()}
    assert frames == {"train": [1], "validation": [3], "test": [5, 6]}
    assert "without 2 broken or missing pieces" in dataset.description["warning"]
    assert "positions3d.txt: line 57: z of left_knee" in dataset.description["warning"]
    last = dataset.split("test")[1]
    np.testing.assert_array_equal(last["valid2d"], np.arange(14) != 6)
    assert last["valid"].all() and not last["visible"][6] and not last["joints2d_px"][6].any()
    assert dataset.description["2D labels that are not finite"] == "1"


def test_another_unit_is_noticed_and_can_be_told(small, tmp_path):
    truth, raw = small
    rows = truth.matrices.copy()
    rows[..., :3] /= 1000
    rewrite(truth, joints3d=truth.joints_mm, matrices=rows)
    said = problems(raw)[0]
    assert re.search(r"positions3d.txt: median lengths in mm with unit_mm 1000: thigh 4\d+e\+05|thigh 4.*e\+05", said)
    assert "people's are thigh 300-600" in said and "set --unit-mm" in said
    dataset = prepared(raw, tmp_path, KthFootball2Settings(unit_mm=1.0))
    example = dataset.split("train")[0]
    np.testing.assert_allclose(example["joints_world_mm"], truth.joints_mm[0], rtol=1e-6)
    shown = apply_affine(crop_matrix(example["box"], 128), truth.projected_px[0, 0])
    np.testing.assert_allclose(affine_px(example), shown, atol=1e-3)


def test_units_by_hand():
    joints = np.zeros((1, 14, 3))
    for side in ("left", "right"):
        joints[0, LSP14.index(f"{side}_hip")] = [0, 0, 0.9]
        joints[0, LSP14.index(f"{side}_knee")] = [0, 0, 0.45]
        joints[0, LSP14.index(f"{side}_shoulder")] = [0, 0, 1.4]
        joints[0, LSP14.index(f"{side}_elbow")] = [0, 0, 1.1]
    check_unit(joints, 1000.0)
    with pytest.raises(UserError, match="thigh 45, shin 45, upper arm 30; people's are thigh 300-600"):
        check_unit(joints, 100.0)


def test_a_mirrored_world_bends_knees_backwards_and_is_spoken_of(small, tmp_path):
    truth, raw = small
    assert bend_of_knees(truth.joints_mm) > 0.02
    mirror = np.array([1.0, -1, 1])
    assert bend_of_knees(truth.joints_mm * mirror) == pytest.approx(-bend_of_knees(truth.joints_mm))
    assert bend_of_knees(truth.joints_mm[:, list(LSP14.flip)]) < 0
    matrices = truth.matrices.copy()
    matrices[..., 1] *= -1  # the same pictures of a left-handed world
    rewrite(truth, joints3d=truth.joints_mm / 1000 * mirror, matrices=matrices)
    description = prepared(raw, tmp_path).description
    assert "knees bend backwards: the world is left handed" in description["warning"]
    assert "doubtful" in description["depth"]


def test_knees_by_hand():
    joints = np.zeros((1, 14, 3))  # looks along +x, so the left is at +y; the right knee lies 0.1 before the leg
    for side, y in (("left", 0.1), ("right", -0.1)):
        for joint, z in (("hip", 1.0), ("knee", 0.5), ("ankle", 0.0)):
            joints[0, LSP14.index(f"{side}_{joint}")] = [0, y, z]
    joints[0, LSP14.index("neck")] = [0, 0, 1.5]
    joints[0, LSP14.index("right_knee"), 0] = 0.1
    assert bend_of_knees(joints) == pytest.approx(0.05)  # 0.1 of a leg of 1, and 0: their mean


def test_a_world_upside_down_is_spoken_of(small, tmp_path):
    truth, raw = small
    turn = np.array([1.0, -1, -1])
    matrices = truth.matrices.copy()
    matrices[..., :3] *= turn
    rewrite(truth, joints3d=truth.joints_mm / 1000 * turn, matrices=matrices)
    warning = prepared(raw, tmp_path).description["warning"]
    assert "heads are below ankles in z" in warning and "camera 1: image down does not oppose z" in warning


def test_the_pixel_origin_shifts_labels_and_camera_and_evidence_is_told(small, tmp_path):
    truth, raw = small
    one, zero = (
        prepared(raw, tmp_path / str(origin), KthFootball2Settings(pixel_origin=origin)).split("train")[0]
        for origin in (1, 0)
    )
    for found in (lambda e: e["joints2d_px"].astype(float), affine_px):
        full = [apply_affine(np.linalg.inv(crop_matrix(e["box"], 128)), found(e)) for e in (one, zero)]
        np.testing.assert_allclose(full[1] - full[0], 1, atol=1e-2)
    joints2d = truth.joints2d_px + 1
    joints2d[2, 0, 7] = [0.25, 300]
    rewrite(truth, joints2d=joints2d)
    warning = prepared(raw, tmp_path / "again").description["warning"]
    assert "camera 1: 1 of 84 labels lie just off the picture if its first pixel is 1" in warning


def test_more_or_other_pictures_are_two_zips_over_each_other(small, tmp_path):
    truth, raw = small
    folder = truth.folder / "Camera 1"
    shutil.copy(folder / "00001.png", folder / "00007.png")
    said = problems(raw)[0]
    assert "Camera 1: holds 7 pictures, the text files 6 time steps (too many is 00007.png)" in said
    assert "two zips were unpacked over each other" in said
    with pytest.raises(UserError, match="no frame was left to write"):
        prepare_raw(NAME, raw, tmp_path / "data", partial=True)
    (folder / "00007.png").unlink()
    cv2.imwrite(str(folder / "00004.png"), np.zeros((600, 500, 3), np.uint8))
    assert "00004.png: 500 x 600 px, expected 480 x 640: another recording's; two zips" in problems(raw)[0]
    dataset = prepared(raw, tmp_path / "data", partial=True)
    assert [int(e["frame"]) for e in dataset.split("test")] == [5, 6]


def test_sequences_of_two_zips_in_one_folder_are_seen(small, tmp_path):
    truth, raw = small
    (raw / "player2sequence1" / "Sequence 2").mkdir()
    assert "holds Sequence 1, Sequence 2, expected 'Sequence 1' alone: two zips were unpacked" in problems(raw)[0]
    with pytest.raises(UserError, match="expected 'Sequence 1' alone"):
        prepare_raw(NAME, raw, tmp_path / "data")
    shutil.rmtree(truth.folder)
    assert "holds Sequence 2, expected 'Sequence 1' alone" in problems(raw)[0]


def test_text_files_of_two_recordings_are_seen(small):
    truth, raw = small
    matrices = truth.matrices.copy()
    matrices[..., 3] += [120, 40]
    rewrite(truth, matrices=matrices)
    said = problems(raw)[0]
    assert re.search(r"positions3d.txt: poses projected by camera 1 lie 12\d px from its labels in median", said)
    assert "not of one recording" in said


def test_a_sequence_whose_player_nothing_tells_is_read_with_a_warning(original, tmp_path):
    truth, _ = original
    shutil.copytree(truth.folder, tmp_path / "Sequence 1")
    assert "nothing tells that 'Sequence 1' is player 2's" in check_data(NAME, tmp_path).items[0].note
    dataset = prepared(tmp_path, tmp_path / "data")
    assert "nothing tells that 'Sequence 1' is player 2's" in dataset.description["warning"]
    # The zip's own folder comes first.
    shutil.copytree(truth.folder, tmp_path / "player2sequence1" / "Sequence 1")
    assert not check_data(NAME, tmp_path).items[0].note
    assert check_data(NAME, tmp_path).items[0].path == "player2sequence1/Sequence 1"


def test_player_and_sequence_are_settings(tmp_path):
    first = write_dummy(tmp_path, 4, cameras=("Camera 2",))
    other = write_dummy(tmp_path, 5, player=1, sequence=2, cameras=("Camera 2",))
    for truth, settings, counts in (
        (first, KthFootball2Settings(cameras=("Camera 2",)), {"train": 2, "test": 2}),
        (other, KthFootball2Settings(player=1, sequence=2, cameras=("Camera 2",)), {"train": 2, "test": 3}),
    ):
        dataset = prepared(tmp_path, tmp_path / "data", settings)
        assert {name: len(split) for name, split in dataset.splits.items()} == counts
        example = dataset.split("train")[0]
        np.testing.assert_allclose(example["joints_world_mm"], truth.joints_mm[0], rtol=1e-6, atol=1e-3)
        assert example["subject"].decode() == f"player{settings.player}"
        assert example["sequence"].decode() == f"player{settings.player}/Sequence {settings.sequence}"
    assert problems(tmp_path, KthFootball2Settings(player=1)) == [
        "player1sequence1/Sequence 1: missing; download player1sequence1.zip"
    ]


def test_a_zip_is_unpacked_into_a_folder_of_its_own(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    truth = write_dummy(raw, 4, cameras=("Camera 1",), zipped=True)
    items = check_data(NAME, raw).items
    assert [(item.path, item.problem, item.note) for item in items] == [
        ("player2sequence1.zip", None, "not unpacked yet; prepare does it")
    ]
    dataset = prepared(raw, tmp_path / "data")
    assert truth.folder.is_dir() and len(dataset.split("test")) == 2
    np.testing.assert_allclose(dataset.split("test")[1]["joints_world_mm"], truth.joints_mm[3], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "Sequence 1/../../out.txt", "C:\\out.txt"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    with zipfile.ZipFile(raw / "player2sequence1.zip", "w") as packed:
        packed.writestr("Sequence 1/cameras.txt", "1\n")
        packed.writestr(name, "x")
    with pytest.raises(UserError, match=r"player2sequence1.zip: member .* leads out of its folder"):
        prepare_raw(NAME, raw, tmp_path / "data")
    assert sorted(path.name for path in raw.iterdir()) == ["player2sequence1.zip"]
    assert not (tmp_path / "out.txt").exists()


def test_an_archive_of_something_else_does_not_make_it_complete(tmp_path):
    for name in ("holiday.zip", "player2sequence1.zip", "player1sequence1.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            packed.writestr("Sequence 1/beach.txt", "x")
    assert problems(tmp_path) == ["player2sequence1/Sequence 1: missing; download player2sequence1.zip"]


def test_only_the_chosen_sequences_zip_is_unpacked(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_dummy(raw, 4, cameras=("Camera 1",), zipped=True)
    shutil.copy(raw / "player2sequence1.zip", raw / "player2sequence2.zip")
    (raw / "player1sequence1.zip").write_text("<!DOCTYPE html>")
    prepare_raw(NAME, raw, tmp_path / "data")
    assert [path.name for path in raw.iterdir() if path.is_dir()] == ["player2sequence1"]


def test_a_web_page_saved_as_the_zip_is_named(tmp_path):
    (tmp_path / "player2sequence1.zip").write_text("<!DOCTYPE html><html>moved</html>")
    assert "player2sequence1.zip: is a web page saved under this name" in problems(tmp_path)[0]
    with pytest.raises(UserError, match=r"player2sequence1.zip: is a web page"):
        prepare_raw(NAME, tmp_path, tmp_path / "data")


def test_broken_and_missing_pictures_are_named_and_the_rest_is_kept(small, tmp_path):
    truth, raw = small
    folder = truth.folder / "Camera 1"
    (folder / "00001.png").unlink()
    (folder / "00004.png").write_bytes((folder / "00004.png").read_bytes()[:5000])  # its header is all right
    (folder / "00005.png").write_text("<!DOCTYPE html>")
    said = problems(raw)
    assert "Camera 1/00001.png: missing; unpack its zip again" in said[0]
    assert "00004.png: cut off" in said[1] and "00005.png: is a web page saved under this name" in said[2]
    (folder / "00005.png").write_bytes(b"\x89PNG\r\n\x1a\nIEND")
    assert "00005.png: cut off after 12 bytes" in problems(raw)[2]
    with pytest.raises(UserError, match=r"00001.png: missing; unpack its zip again .and 2 more"):
        prepare_raw(NAME, raw, tmp_path / "data")
    dataset = prepared(raw, tmp_path / "data", partial=True)
    frames = {name: [int(e["frame"]) for e in split] for name, split in dataset.splits.items()}
    assert frames == {"train": [2], "validation": [3], "test": [6]}
    assert "3 broken or missing pieces" in dataset.description["warning"]


def test_cameras_that_are_not_asked_for_may_lack(small):
    _, raw = small
    found = check_data(NAME, raw)
    assert not found.problems
    assert [item.path.rpartition("/")[2] for item in found.items if item.problem] == ["Camera 2", "Camera 3"]
    both = KthFootball2Settings(cameras=("Camera 1", "Camera 3"))
    assert problems(raw, both) == ["player2sequence1/Sequence 1/Camera 3: holds no pictures; unpack its zip again"]


def test_a_label_far_away_is_a_fault_of_its_frame(small, tmp_path):
    truth, raw = small
    joints2d = truth.joints2d_px + 1
    joints2d[0, 0, 3] = 1e9
    rewrite(truth, joints2d=joints2d)
    with pytest.raises(UserError, match=r"00001.png: box .* is not a square of at most"):
        prepare_raw(NAME, raw, tmp_path / "data")
    assert [int(e["frame"]) for e in prepared(raw, tmp_path / "data", partial=True).split("train")] == [2]


@pytest.mark.parametrize("huge", [1e300, -1e308])
def test_enormous_numbers_are_an_error_in_words(small, huge):
    truth, raw = small
    rewrite(truth, joints3d=truth.joints_mm / 1000 + huge)
    assert "positions3d.txt: " in problems(raw)[0]
    rewrite(truth, matrices=truth.matrices * (huge / 1e9))
    assert "px from its labels" in problems(raw)[0]


def test_a_camera_without_a_direction_is_a_fault_of_its_frame(small, tmp_path):
    truth, raw = small
    matrices = truth.matrices.copy()
    matrices[1, 0, 1, :3] = 2 * matrices[1, 0, 0, :3]
    rewrite(truth, matrices=matrices)
    with pytest.raises(UserError, match=r"00002.png: its matrix in cameras.txt has parallel or zero rows"):
        prepare_raw(NAME, raw, tmp_path / "data")
    assert [int(e["frame"]) for e in prepared(raw, tmp_path / "data", partial=True).split("train")] == [1]


def test_halves_by_hand():
    assert halves(214, 0.2) == [("train", 1, 86), ("validation", 87, 107), ("test", 108, 214)]
    assert halves(175, 0.0) == [("train", 1, 87), ("test", 88, 175)]
    assert halves(3, 0.9) == [("train", 1, 1), ("test", 2, 3)]


def test_root_is_between_the_hips(original):
    truth, _ = original
    pose = root_relative(truth.joints_mm, LSP14.root_indices)
    np.testing.assert_allclose(pose[:, 2] + pose[:, 3], 0, atol=1e-9)
    assert KthFootball2Source.skeleton_name == "lsp14"


def test_settings_are_checked_and_name_the_config():
    base = KthFootball2Settings()
    assert base.config_name() == "128px_player2_sequence1_camera1_validation0.2_margin0.15_unit1000.0"
    others = {
        "size": 64, "player": 1, "sequence": 2, "cameras": ("Camera 2", "Camera 1"), "validation_share": 0.0,
        "box_margin": 0.2, "unit_mm": 1.0, "pixel_origin": 0,
    }  # fmt: skip
    assert others.keys() == {field.name for field in dataclasses.fields(base)}
    names = {dataclasses.replace(base, **{field: value}).config_name() for field, value in others.items()}
    assert len(names | {base.config_name()}) == 9
    bad = {
        "size": 5, "player": 3, "sequence": 0, "cameras": ("Camera 4",), "validation_share": 1.0,
        "box_margin": -1.0, "unit_mm": 0.0, "pixel_origin": 2,
    }  # fmt: skip
    for field, value in bad.items():
        with pytest.raises(UserError, match=field):
            KthFootball2Settings(**{field: value})
    for cameras in ((), ("Camera 1", "Camera 1")):
        with pytest.raises(UserError, match="cameras"):
            KthFootball2Settings(cameras=cameras)
