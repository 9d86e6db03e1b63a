"""HumanEva-I from made-up raw files: true formats in, exact joints at video time out, every fault in one line."""

import functools
import pathlib
import pickle
import shutil
import tarfile
import tempfile
import zipfile

import cv2
import numpy as np
import pytest
import scipy.io
from test_humaneva_chain import reference_joints

from data_pipelines.humaneva import dummy_files, tables
from data_pipelines.humaneva.c3d_file import read_c3d, read_c3d_shape
from data_pipelines.humaneva.calibration import parse_cal, published_pose
from data_pipelines.humaneva.dummy_body import LABELS
from data_pipelines.humaneva.dummy_data import SCALE, SHOULDER_OFFSETS, Truth, write_dummy
from data_pipelines.humaneva.marker_params import MarkerParams
from data_pipelines.humaneva.mocap_file import read_points
from data_pipelines.humaneva.picture_folder import ordered_pictures
from data_pipelines.humaneva.settings import HumanevaSettings
from data_pipelines.humaneva.source import DAMAGED, HEAD_ON_CHEST, OUT_OF_SIGHT, HumanevaSource, is_head_on_chest
from data_pipelines.humaneva.sync import parse_ofs
from data_pipelines.humaneva.validity import NO_MARKER, NO_SEGMENT, OUTSIDE
from data_pipelines.inventory import format_tree
from data_pipelines.prepared import open_prepared
from data_pipelines.provenance import overlap
from data_pipelines.source import Tally
from fusion_jax.cli import main
from fusion_jax.errors import UserError
from fusion_jax.prepare_raw import check_data, prepare_raw
from fusion_jax.skeletons import skeleton

SETTINGS = HumanevaSettings(actions=("Walking", "Box"), cameras=("C1", "C3"))
FAST = HumanevaSettings(actions=("Box",), cameras=("C1",))
FIRST, LAST = 6, 13  # FRAMEs of both halves: 6-9 and 10-13
# FRAME f of S1 Box is at mocap position 1 + (f - 1) * 2.0013: 7 lies between rows 13 and 14, 10 between 19 and 20.
LOST = (("S1", "Box", "LKNE", 13), ("S2", "Walking", "LRAA", 20))


@pytest.fixture(autouse=True, scope="module")
def short_halves():
    """Halves of four frames each, and no grey cameras' videos to write."""
    with pytest.MonkeyPatch.context() as patch:
        for key in tables.RANGES:
            patch.setitem(tables.RANGES, key, ((6, 9), (10, 13)))
        yield


@pytest.fixture(scope="module")
def tree(short_halves, tmp_path_factory) -> tuple[pathlib.Path, Truth]:
    """S1 to S3, two actions, two cameras; do not write into it."""
    folder = tmp_path_factory.mktemp("humaneva") / "raw"
    truth = write_dummy(folder, actions=SETTINGS.actions, cameras=SETTINGS.cameras, frame_step=1, mark=True, lost=LOST)
    return folder, truth


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    data = tmp_path_factory.mktemp("humaneva_data")
    prepare_raw("humaneva", tree[0], data, SETTINGS)
    return open_prepared("humaneva", data)


@pytest.fixture
def raw(tree, tmp_path) -> pathlib.Path:
    """A copy to break."""
    return pathlib.Path(shutil.copytree(tree[0], tmp_path / "raw"))


def examples(dataset, *splits):
    """All examples of some splits, or of all, with their texts as str."""
    return [
        {
            key: value.decode() if isinstance(value, bytes) and key != "image" else value
            for key, value in example.items()
        }
        for split in splits or dataset.splits
        for example in dataset.split(split)
    ]


def read(raw, name, settings=FAST, strict=True):
    """(examples of the part called `name`, tally)."""
    source = HumanevaSource(raw, settings)
    part = next(part for part in source.parts() if part.name == name)
    tally = Tally(strict)
    return list(source.read(part, tally)), tally


def problems(raw, settings=FAST) -> dict[str, str]:
    return {item.path: item.problem for item in check_data("humaneva", raw, settings).problems}


# What comes out


def test_a_complete_tree_has_no_problems(tree):
    found = check_data("humaneva", tree[0], SETTINGS)
    # A person: 4 videos, 2 motion captures, Static, .mp, 2 x 7 clock files, 2 calibrations.
    assert not found.problems and found.summary().startswith("complete: 72 files and folders")
    text = format_tree(found)
    assert (
        "ok Walking_1_(C1).avi" in text
        and "94 frames, 640 x 480 px" in text
        and "shoulder offsets 41 and 44.5 mm" in text
    )


def test_counts_people_and_frames(prepared):
    # 3 people x 2 actions x 2 cameras x 4 frames; S1 Box lacks frame 7 in both views, S2 Walking frame 10.
    assert {name: len(prepared.split(name)) for name in prepared.splits} == {
        "train": 32 - 2,
        "validation": 16,
        "test": 48 - 2,
    }
    assert prepared.subjects == {"train": ["S1", "S2"], "validation": ["S3"], "test": ["S1", "S2", "S3"]}
    assert prepared.people_shared and prepared.skeleton is skeleton("humaneva15")
    assert prepared.description["frames left out"] == f"2 {NO_SEGMENT}; 2 {NO_MARKER}"
    assert "warning" not in prepared.description
    assert prepared.provenance["test"]["S1/Walking_1"] == [[6, 9]]
    assert prepared.provenance["train"]["S1/Walking_1"] == [[10, 13]]
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert overlap(prepared.provenance[one], prepared.provenance[other]) is None
    first = examples(prepared, "test")[0]
    assert [first[k] for k in ("subject", "action", "sequence", "camera_name", "frame")] == [
        *("S1", "Walking", "S1/Walking_1", "C1", 6),
    ]
    assert {e["frame"] for e in examples(prepared, "test") if e["sequence"] == "S1/Box_1"} == {6, 8, 9}


def test_joints_are_those_of_the_second_implementation(tree, prepared):
    shoulders = {}
    for subject in tables.SUBJECTS:
        static = read_c3d(tree[0] / subject / "Mocap_Data" / "Static.c3d")
        left, right = (static.xyz[:, static.index(name)] for name in ("LSHO", "RSHO"))
        kept = [0, 2, 3]  # LSHO is lost in row 2
        shoulders[subject] = np.linalg.norm(left - right, axis=-1)[kept].mean() / 2 - 7
    checked = 0
    for example in examples(prepared):
        subject, action = example["subject"], example["action"]
        common = 5.3 if (subject, action) == ("S3", "Box") else 1.0
        position = common + (int(example["frame"]) - 1) * SCALE
        take = tree[1].takes[subject, action]
        np.testing.assert_array_equal(
            example["joints_world_mm"], take.joints_mm[int(example["frame"])].astype(np.float32)
        )
        points = take.points
        expected = reference_joints(LABELS, points, position, shoulders[subject], SHOULDER_OFFSETS)
        np.testing.assert_allclose(example["joints_world_mm"], expected, atol=1e-3)  # float32 of a few metres
        assert example["valid"].all() and example["valid2d"].all()
        checked += 1
    assert checked == 92


def test_2d_is_the_projection_by_the_calibration_file(tree, prepared):
    for example in examples(prepared):
        path = tree[0] / example["subject"] / "Calibration_Data" / f"{example['camera_name']}.cal"
        n = np.loadtxt(path)
        x, y, z = n[10:19].reshape(3, 3) @ example["joints_world_mm"].astype(float).T + n[19:, None]
        x, y = x / z, y / z
        r2 = x * x + y * y
        k1, k2, p1, p2, k3 = n[5:10]
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        px = np.stack([n[0] * (xd + n[4] * yd) + n[2], n[1] * yd + n[3]], axis=-1)
        left, top, side = example["box"]
        crop = (px - [left, top]) * prepared.image_size / side - 0.5
        np.testing.assert_allclose(example["joints2d_px"], crop, atol=2e-3)
        assert example["camera"]["model"] == b"perspective" and example["visible"].all()


def test_pictures_show_the_frame_and_the_place_of_their_joints(prepared):
    """Every picture has a square on the head whose brightness tells the number of its video frame."""
    for example in examples(prepared):
        start = tables.published_start(example["subject"], example["action"], example["camera_name"])
        number = start - 1 + int(example["frame"]) - 1
        picture = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
        x, y = np.round(example["joints2d_px"][-1]).astype(int)
        level = picture[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert abs(level - (16 + 32 * (number % 8))) < 10, (example["sequence"], example["camera_name"], number)


def test_the_next_frame_would_be_noticed(prepared):
    levels = []
    for example in examples(prepared, "test"):
        if example["sequence"] == "S3/Walking_1" and example["camera_name"] == "C1":
            picture = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
            x, y = np.round(example["joints2d_px"][-1]).astype(int)
            levels.append(picture[y - 1 : y + 2, x - 1 : x + 2].mean())
    assert len(levels) == 4
    np.testing.assert_allclose(np.diff(levels) % 256, 32, atol=12)


# Settings, tables, parts


def test_config_names_tell_all_settings_apart():
    base = HumanevaSettings()
    assert base.config_name() == "128px_step1_C1-C2-C3_valS3"
    changed = [
        dict(size=64), dict(cameras=("C1",)), dict(cameras=("C2", "C1")), dict(actions=("Box",)), dict(frame_step=5),
        dict(box_margin=0.2), dict(validation_subjects=()), dict(validation_subjects=("S1", "S2")),
        dict(damaged="keep"), dict(head_check=False),
    ]  # fmt: skip
    names = {HumanevaSettings(**change).config_name() for change in changed} | {base.config_name()}
    assert len(names) == len(changed) + 1
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(size=8), "size is 8, expected 16 to 1024 px"),
        (dict(frame_step=0), "frame_step is 0"),
        (dict(box_margin=float("nan")), "box_margin is nan"),
        (dict(cameras=("C1", "BW1")), "cameras is .'C1', 'BW1'., expected some of C1, C2, C3"),
        (dict(cameras=()), "cameras is"),
        (dict(actions=("Box", "Box")), "each once"),
        (dict(actions=("Combo",)), "actions is"),
        (dict(validation_subjects=("S4",)), "validation_subjects is"),
        (dict(validation_subjects=("S1", "S2", "S3")), "leaves nobody to train on"),
        (dict(damaged="fix"), "damaged is 'fix'"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(UserError, match=message):
        HumanevaSettings(**change)


def test_published_tables_are_consistent():
    with pytest.MonkeyPatch.context() as patch:
        import importlib

        patch.delitem(__import__("sys").modules, "data_pipelines.humaneva.tables")
        whole = importlib.import_module("data_pipelines.humaneva.tables")
    keys = {(subject, action) for subject in whole.SUBJECTS for action in whole.ACTIONS}
    assert set(whole.RANGES) == set(whole.STARTS) == keys and len(keys) == 15
    assert all(first[0] == 6 and second[0] == first[1] + 1 < second[1] for first, second in whole.RANGES.values())
    # Sums of the table's last frames by subject, added by hand.
    assert sum(first[1] for first, _ in whole.RANGES.values()) == 2210 + 2268 + 2387
    assert sum(second[1] for _, second in whole.RANGES.values()) == 4478 + 4434 + 4931
    assert (
        whole.count_kept(6, 590, 1) == 585 and whole.count_kept(6, 590, 100) == len(whole.frames_kept(6, 590, 100)) == 6
    )
    assert whole.published_start("S2", "Box", "C3") == 117 and whole.published_start("S2", "Box", "BW1") is None


def test_parts_of_the_default_settings(tmp_path):
    parts = HumanevaSource(tmp_path, HumanevaSettings()).parts()
    assert len(parts) == 3 * 5 * 3 * 2 == len({part.name for part in parts})
    assert [part.split for part in parts].count("test") == 45 and [part.split for part in parts].count(
        "validation"
    ) == 15
    assert parts[0].name == "S1/Walking_1/C1/6-9" and parts[0].recording == "S1/Walking_1"
    nobody = HumanevaSource(tmp_path, HumanevaSettings(validation_subjects=())).parts()
    assert {part.split for part in nobody} == {"train", "test"}
    assert pickle.loads(pickle.dumps(parts)) == parts


def test_every_second_frame(tree):
    found, _ = read(tree[0], "S3/Box_1/C1/6-9", HumanevaSettings(actions=("Box",), cameras=("C1",), frame_step=3))
    assert [example["frame"] for example in found] == [6, 9]


def test_published_camera_poses_look_at_the_room():
    for subject in tables.SUBJECTS:
        for camera in tables.COLOUR_CAMERAS:
            rotation, centre = published_pose(subject, camera)
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
            assert (rotation @ -centre)[2] > 3500, "the middle of the floor lies before it"
            assert rotation[1, 2] < -0.9, "the picture's y axis points down"


# Quirks


def test_damaged_throws_and_catches_are_left_out_or_kept(tmp_path):
    keep = HumanevaSettings(actions=("ThrowCatch",), cameras=("C1",), damaged="keep")
    drop = HumanevaSettings(actions=("ThrowCatch",), cameras=("C1",))
    found, tally = read(tmp_path, "S3/ThrowCatch_1/C1/6-9", drop)
    assert not found and tally.skipped == {DAMAGED: 4}
    with pytest.raises(UserError, match="ThrowCatch_1.c3d is missing"):
        read(tmp_path, "S3/ThrowCatch_1/C1/6-9", keep)
    names = [item.path for item in HumanevaSource(tmp_path, drop).inventory()]
    assert "S1/Mocap_Data/ThrowCatch_1.c3d" in names and "S3/Mocap_Data/ThrowCatch_1.c3d" not in names
    assert "S3/Mocap_Data/ThrowCatch_1.c3d" in [i.path for i in HumanevaSource(tmp_path, keep).inventory()]


def test_heads_on_the_chest_are_masked_in_s3_walking_alone(raw, tree):
    settings = HumanevaSettings(actions=("Walking",), cameras=("C1",))
    for subject in ("S2", "S3"):
        points = tree[1].takes[subject, "Walking"].points.copy()
        first = LABELS.index("HEDO")
        for axis in (1, 2):  # the head's z and x axes the other way round: it hangs down
            points[:, first + axis] = 2 * points[:, first] - points[:, first + axis]
        dummy_files.write_c3d(raw / subject / "Mocap_Data" / "Walking_1.c3d", LABELS, points)
    found, tally = read(raw, "S3/Walking_1/C1/6-9", settings)
    assert len(found) == 4 and tally.skipped == {HEAD_ON_CHEST: 4}
    for example in found:
        np.testing.assert_array_equal(example["valid"], [True] * 14 + [False])
        np.testing.assert_array_equal(example["valid2d"], example["valid"])
        assert not example["joints_world_mm"][14].any() and not example["visible"][14]
    assert all(e["valid"].all() for e in read(raw, "S2/Walking_1/C1/6-9", settings)[0])
    unchecked = HumanevaSettings(actions=("Walking",), cameras=("C1",), head_check=False)
    assert all(e["valid"].all() for e in read(raw, "S3/Walking_1/C1/6-9", unchecked)[0])
    px = np.zeros((15, 2))
    px[14, 1] = 1  # y points down
    assert is_head_on_chest("S3", "Walking", px) and not is_head_on_chest("S3", "Jog", px)
    assert not is_head_on_chest("S3", "Walking", -px)


def test_a_folder_of_pictures_is_preferred_to_the_video(raw):
    video = raw / "S3" / "Image_Data" / "Box_1_(C1).avi"
    folder = video.with_suffix("")
    folder.mkdir()
    for number in range(14):
        cv2.imwrite(str(folder / f"Box_{number:03d}.bmp"), np.full((480, 640, 3), 10 * number, np.uint8))
    (folder / "Thumbs.db").write_text("no picture")

    def levels():
        found, _ = read(raw, "S3/Box_1/C1/6-9")
        return [round(cv2.imdecode(np.frombuffer(e["image"], np.uint8), 0)[64, 64] / 10) for e in found]

    assert levels() == [5, 6, 7, 8]  # S3 Box starts at once: FRAME 6 is the sixth picture
    assert not problems(raw)
    assert "14 pictures, 640 x 480 px" in format_tree(check_data("humaneva", raw, FAST))
    video.unlink()
    assert levels() == [5, 6, 7, 8]
    cv2.imwrite(str(folder / "Box_007.bmp"), np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(UserError, match="Box_007.bmp is 320 x 240 px, the folder's first picture 640 x 480"):
        levels()
    (folder / "Box_007.bmp").unlink()
    assert "after picture 6 number 7 is missing" in problems(raw)["S3/Image_Data/Box_1_(C1)"]


def test_orders_of_pictures_that_are_not_clear(tmp_path):
    with pytest.raises(UserError, match="holds no numbered bmp, png or tif pictures"):
        ordered_pictures(tmp_path)
    for number in (10, 9, 2, 1):
        (tmp_path / f"Walking_1_{number}.png").touch()
    with pytest.raises(UserError, match="after picture 2 number 3 is missing"):
        ordered_pictures(tmp_path)
    for number in range(3, 9):
        (tmp_path / f"Walking_1_{number}.png").touch()
    assert [path.stem.split("_")[-1] for path in ordered_pictures(tmp_path)] == [str(n) for n in range(1, 11)]
    (tmp_path / "other_04.tif").touch()
    with pytest.raises(UserError, match="Walking_1_4.png and other_04.tif have one number"):
        ordered_pictures(tmp_path)
    for path in [tmp_path / "other_04.tif", tmp_path / "Walking_1_1.png"]:
        path.unlink()
    with pytest.raises(UserError, match="the first picture is number 2, expected 0 or 1"):
        ordered_pictures(tmp_path)


def _write_cache(path, points, labels, **changes):
    """The toolbox's cache, names in cells as MATLAB's cellstr leaves them."""

    def cells(words):
        made = np.empty((len(words), 1), object)
        made[:, 0] = words
        return made

    kind = [("name", object), ("data", object)]
    parameters = np.array([(cells(["USED"]), np.array([[len(labels)]])), (cells(["LABELS"]), cells(labels))], kind)
    groups = np.array(
        [(cells(["ANALOG"]), parameters[:1]), (cells(["POINT"]), parameters)], [("name", object), ("Parameter", object)]
    )
    values = {
        "Markers": points,
        "VideoFrameRate": 120.0,
        "AnalogSignals": np.zeros(3),
        "ParameterGroup": groups,
        **changes,
    }
    scipy.io.savemat(path, {k: v for k, v in values.items() if v is not None}, do_compression=True)


def test_the_toolboxs_cache_stands_in_for_the_c3d(raw, tree):
    path = raw / "S1" / "Mocap_Data" / "Box_1.c3d"
    expected, tally = read(raw, "S1/Box_1/C1/6-9")
    path.unlink()
    assert "Box_1.c3d" in next(iter(problems(raw)))
    _write_cache(path.with_suffix(".mat"), tree[1].takes["S1", "Box"].points, [f"S1:{label}" for label in LABELS])
    assert not problems(raw)
    found, again = read(raw, "S1/Box_1/C1/6-9")
    assert len(found) == 3 and again.skipped == tally.skipped == {NO_MARKER: 1}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["joints_world_mm"], other["joints_world_mm"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(Markers=None), "Box_1.mat holds no variable 'Markers'"),
        (dict(VideoFrameRate=None), "holds no variable 'VideoFrameRate'"),
        (dict(Markers=np.zeros((5, 91))), r"Markers is \(5, 91\), expected \(frames, points, 3\)"),
        (dict(Markers=np.zeros((5, 91, 2))), r"Markers is \(5, 91, 2\)"),
        (dict(Markers="text"), "Markers holds no numbers"),
        (dict(Markers=np.full((5, 91, 3), np.nan)), "point 1 of row 1 is not finite"),
        (dict(Markers=np.ones((5, 92, 3))), "names 91 of its 92 points"),
        (dict(VideoFrameRate=60.0), "has 60 rows a second, expected 120"),
        (dict(VideoFrameRate=[1.0, 2.0]), "VideoFrameRate has the shape"),
        (dict(ParameterGroup=3.0), "ParameterGroup has no POINT with LABELS"),
    ],
)
def test_bad_caches(tmp_path, changes, message):
    _write_cache(tmp_path / "Box_1.mat", np.ones((5, 91, 3)), LABELS, **changes)
    with pytest.raises(UserError, match=message):
        read_points(tmp_path / "Box_1.c3d")


def test_the_grey_cameras_clock_files_may_lack_and_the_check_speaks_up(raw):
    for path in raw.glob("*/Sync_Data/*BW*.ofs"):
        path.unlink()
    found = check_data("humaneva", raw, FAST)
    assert not found.problems  # the dummy's grey cameras begin no earlier than the colour ones
    missing = [item for item in found.items if item.problem]
    assert len(missing) == 12 and all(item.optional and "may shift it" in item.problem for item in missing)


def test_the_releases_own_wrong_clock_is_told_and_the_update_counts(raw):
    path = raw / "S1" / "Sync_Data" / "Box_1_(C1).ofs"
    right = path.read_bytes()
    dummy_files.write_ofs(path, 59.0, 1.0, SCALE)
    told = problems(raw)
    assert "need 71 frames" in told.pop("S1/Image_Data/Box_1_(C1).avi")  # as it were, the video would be too short
    assert list(told) == ["S1/Sync_Data/Box_1_(C1).ofs"]
    assert "C1 starts at frame 59, the published start is 57" in told[str(path.relative_to(raw))]
    assert "Critical_Update_OFS_files.zip" in told[str(path.relative_to(raw))]
    with pytest.raises(UserError, match=r"Box_1_\(C1\).ofs: C1 starts at frame 59, the published start is 57"):
        read(raw, "S1/Box_1/C1/6-9")
    found, tally = read(raw, "S1/Box_1/C1/6-9", strict=False)
    assert not found and len(tally.faults) == 1, "nothing is written with a wrong start"
    updated = raw / "Critical_Update_OFS_files" / path.relative_to(raw)
    updated.parent.mkdir(parents=True)
    updated.write_bytes(right)
    assert not problems(raw) and len(read(raw, "S1/Box_1/C1/6-9")[0]) == 3


def test_archives_are_unpacked_and_said_to_be_waiting(raw, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "HumanEvaI_Data_CD1.tar", "w") as archive:
        for subject in tables.SUBJECTS:
            archive.add(raw / subject, subject)
    found = check_data("humaneva", packed, FAST)
    assert "HumanEvaI_Data_CD1.tar" in found.items[0].path and "not unpacked yet" in found.items[0].note
    assert all("prepare unpacks HumanEvaI_Data_CD1.tar first" in item.problem for item in found.problems)
    (packed / "CD2.zip").write_text("<!DOCTYPE html><title>log in</title>")
    assert "is a web page" in problems(packed)["CD2.zip"]
    (packed / "CD2.zip").unlink()
    prepare_raw("humaneva", packed, tmp_path / "data", FAST)
    assert {k: len(v) for k, v in open_prepared("humaneva", tmp_path / "data").splits.items()} == {
        "train": 8,
        "validation": 4,
        "test": 11,
    }
    assert not problems(packed)
    shutil.copytree(raw / "S2" / "Mocap_Data", packed / "S2" / "Mocap_Data")
    assert "remove one of them" in problems(packed)["S2/Mocap_Data/S2.mp"]


# Bad files


def _cal(**changes):
    words = ["750", "751", "320", "240", "0", *["0"] * 5, *"1 0 0 0 1 0 0 0 1".split(), "0", "0", "4000"]
    for at, word in changes.items():
        words[int(at[1:])] = word
    return " ".join(words)


def test_a_calibration_by_pencil():
    camera = parse_cal(_cal(n4="0.5", n5="0.1", n6="0.2", n7="0.3", n8="0.4", n9="0.5", n19="7"), "C1.cal")
    np.testing.assert_array_equal(camera.intrinsics, [[750, 375, 320], [0, 751, 240], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(camera.cam_center_mm, [-7, 0, -4000])
    turned = parse_cal(_cal(n10="0", n11="1", n13="-1", n14="0", n19="10", n20="20"), "C1.cal")
    np.testing.assert_allclose(turned.cam_center_mm, [20, -10, -4000])  # -R^T T
    np.testing.assert_array_equal(turned.rot_world_to_cam, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "C1.cal holds 0 words, expected 22 numbers"),
        (_cal() + " 1", "C1.cal holds 23 words"),
        (_cal(n3="nan"), "C1.cal: 'nan' is no finite number"),
        (_cal(n21="1e999"), "'1e999' is no finite number"),
        (_cal(n7="k"), "'k' is no finite number"),
        (_cal(n0="-750"), "fc is -750 751 px"),
        (_cal(n10="2"), "numbers 11 to 19 are no rotation matrix"),
        (_cal(n10="-1"), "numbers 11 to 19 are no rotation matrix"),
    ],
)
def test_bad_calibrations(text, message):
    with pytest.raises(UserError, match=message):
        parse_cal(text, "C1.cal")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2", "a.ofs holds 2 words, expected 3 numbers .im_st mc_st mc_sc."),
        ("1 inf 2", "a.ofs: 'inf' is no finite number"),
        ("1 2 0", "a.ofs: mc_sc is 0, expected about 2"),
        ("1 1e30 2", "offsets 1 and 1e.30 frames are absurd"),
    ],
)
def test_bad_offsets(text, message):
    with pytest.raises(UserError, match=message):
        parse_ofs(text, "a.ofs")
    assert parse_ofs("82\r\n 1.5\t2.0\n", "a.ofs") == (82, 1.5, 2)


def test_marker_params():
    text = "$SubjectName = Anna\r\n$MyLShoulderOffset= 41.5\r\n$LShoulderOffset = 7\r\n$RShoulderOffset = nan\r\n"
    params = MarkerParams(text, "S1.mp")
    assert params.value("LShoulderOffset") == 41.5, "the first name that contains it"
    for name, message in (
        ("RShoulderOffset", "S1.mp: .RShoulderOffset is 'nan', expected a length in mm"),
        ("SubjectName", ".SubjectName is 'Anna'"),
        ("LKneeWidth", "S1.mp has no .LKneeWidth"),
    ):
        with pytest.raises(UserError, match=message):
            params.value(name)
    with pytest.raises(UserError, match="S1.mp holds no line"):
        MarkerParams("LShoulderOffset 41", "S1.mp")


def test_another_subjects_files_in_a_folder_are_told(raw):
    shutil.copy(raw / "S2" / "Calibration_Data" / "C1.cal", raw / "S1" / "Calibration_Data" / "C1.cal")
    (raw / "S2" / "Mocap_Data" / "S2.mp").rename(raw / "S2" / "Mocap_Data" / "S1.mp")
    told = problems(raw)
    assert set(told) == {"S1/Calibration_Data/C1.cal", "S2/Mocap_Data/S2.mp"}
    calibration = told["S1/Calibration_Data/C1.cal"]
    assert (
        "C1 stands at (4112.9, 626.5, 1545.3) mm, the published one of S1 at (4062.2, 663.2, 1528.4) mm" in calibration
    )
    assert "it is S2's, put S1's own file here" in calibration
    assert "the folder holds S1.mp instead: another subject's files" in told["S2/Mocap_Data/S2.mp"]
    with pytest.raises(UserError, match="S1/Calibration_Data/C1.cal: C1 stands at"):
        read(raw, "S1/Box_1/C1/6-9")
    found, tally = read(raw, "S1/Box_1/C1/6-9", strict=False)
    assert not found and len(tally.faults) == 1, "nothing is written with a wrong camera"
    with pytest.raises(UserError, match="S2.mp is missing"):
        read(raw, "S2/Box_1/C1/6-9")


@functools.cache
def _small_c3d() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.c3d"
        dummy_files.write_c3d(path, LABELS, np.random.default_rng(0).normal(0, 900, (9, len(LABELS), 3)))
        return path.read_bytes()


def test_c3d_numbers_of_both_kinds_and_missing_points(tmp_path):
    points = np.random.default_rng(0).uniform(-3000, 3000, (5, 4, 3)).astype(np.float32).astype(float)
    points[2, 1] = 0
    path = tmp_path / "a.c3d"
    dummy_files.write_c3d(path, ["A", "B", "C", "D"], points)
    expected = np.where((points == 0).all(-1, keepdims=True), np.nan, points)
    np.testing.assert_array_equal(read_c3d(path).xyz, expected)
    assert read_c3d(path).labels == ["A", "B", "C", "D"] and tuple(read_c3d_shape(path)) == (5, 4, 120)
    dummy_files.write_c3d(path, ["A", "B", "C", "D"], points, scale=0.1)
    np.testing.assert_allclose(read_c3d(path).xyz, expected, atol=0.11)  # whole tenths of a mm
    dummy_files.write_c3d(path, ["A", "B", "C", "D"], points)
    data = bytearray(path.read_bytes())
    at = data.index(points[3, 2].astype("<f4").tobytes())
    data[at + 12 : at + 16] = np.array(-1, "<f4").tobytes()  # a negative residual: not to be believed
    path.write_bytes(data)
    expected[3, 2] = np.nan
    np.testing.assert_array_equal(read_c3d(path).xyz, expected)


def test_more_than_255_points_have_their_names_in_two_lists(tmp_path):
    import c3d

    names = [f"P{n:03d}" for n in range(300)]
    writer = c3d.Writer(point_rate=120.0, point_scale=-1.0)
    writer.set_point_labels(names[:255])
    writer.point_group.add_str("LABELS2", "more", "".join(names[255:]), 4, 45)
    writer.point_group.add_str("DESCRIPTIONS", "none", " " * 4, 1, 4)
    writer.add_frames([(np.ones((300, 5), np.float32), np.zeros((0, 0), np.float32))])
    path = tmp_path / "a.c3d"
    with path.open("wb") as file, pytest.warns(UserWarning, match="analog"):
        writer.write(file)
    assert read_c3d(path).labels == names


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[: len(d) * 2 // 3], "a.c3d is cut off: it holds 5 of the 9 rows it announces"),
        (lambda d: d[:700], "a.c3d is cut off"),
        (lambda d: d[:100], "a.c3d is no C3D file"),
        (lambda d: b"", "a.c3d is empty"),
        (lambda d: b"<html>log in</html>" + d, "a.c3d is a web page"),
        (lambda d: d[:1] + b"\x51" + d[2:], "a.c3d is no C3D file"),
        (lambda d: d[:3] + b"\x01" + d[4:], "a.c3d is cut off, damaged or of another kind .inconsistent point count"),
        (lambda d: d.replace(b"LABELS", b"LABELZ"), "a.c3d names 0 of its 91 points"),
        (lambda d: d[:-5000] + np.full(3, np.nan, "<f4").tobytes() * 40 + d[-4520:], "of row . is not finite"),
    ],
)
def test_bad_c3d_files(tmp_path, damage, message):
    path = tmp_path / "a.c3d"
    path.write_bytes(damage(_small_c3d()))
    with pytest.raises(UserError, match=message):
        read_c3d(path)


def test_c3d_files_damaged_anywhere_give_one_kind_of_error(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "a.c3d"
    refused = 0
    for _ in range(250):
        data = np.frombuffer(_small_c3d(), np.uint8).copy()
        reach = rng.choice([32, 1024, 3500])  # the header; the parameters' start; all parameters
        places = rng.integers(0, reach, rng.integers(1, 6))
        data[places] = rng.integers(0, 256, len(places))
        path.write_bytes(data.tobytes())
        try:
            read_c3d(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and "a.c3d" in str(error)
    assert 50 < refused < 250


def test_a_recording_of_another_rate(tmp_path):
    dummy_files.write_c3d(tmp_path / "a.c3d", ["A"], np.ones((2, 1, 3)), rate=60.0)
    with pytest.raises(UserError, match="a.c3d has 60 rows a second, expected 120"):
        read_points(tmp_path / "a.c3d")


def test_a_motion_capture_that_ends_early(raw, tree):
    points = tree[1].takes["S3", "Box"].points  # FRAME 13 is at 5.3 + 12 * 2.0013 = 29.3: it needs rows 29 and 30
    path = raw / "S3" / "Mocap_Data" / "Box_1.c3d"
    dummy_files.write_c3d(path, LABELS, points[:29])
    found, tally = read(raw, "S3/Box_1/C1/10-13")
    assert [e["frame"] for e in found] == [10, 11, 12] and tally.skipped == {OUTSIDE: 1}
    item = next(i for i in check_data("humaneva", raw, FAST).items if i.path.endswith("S3/Mocap_Data/Box_1.c3d"))
    assert item.problem is None and "29 rows, frame 13 needs 30" in item.note
    dummy_files.write_c3d(path, LABELS, points[:20])
    with pytest.raises(UserError, match="no pose for any of the frames 10-13 .4 frames beyond the motion capture."):
        read(raw, "S3/Box_1/C1/10-13")


def test_a_video_that_is_too_short(raw, tmp_path):
    path = raw / "S3" / "Image_Data" / "Box_1_(C1).avi"
    picture = np.full((480, 640, 3), 90, np.uint8)
    dummy_files.write_avi(path, {0: picture}, 11)
    assert problems(raw) == {
        "S3/Image_Data/Box_1_(C1).avi": "the frames up to 13 need 13 frames; it is cut off, fetch it again"
    }
    assert len(read(raw, "S3/Box_1/C1/6-9")[0]) == 4
    with pytest.raises(
        UserError, match=r"Box_1_\(C1\).avi ends before picture 12; frames 10-13 need 13: it is cut off"
    ):
        read(raw, "S3/Box_1/C1/10-13")
    with pytest.raises(UserError, match="the frames up to 13 need 13 frames"):
        prepare_raw("humaneva", raw, tmp_path / "data", FAST)
    prepare_raw("humaneva", raw, tmp_path / "data", FAST, partial=True)
    dataset = open_prepared("humaneva", tmp_path / "data")
    assert [int(e["frame"]) for e in dataset.split("validation")] == [10, 11]
    assert "Box_1_(C1).avi" in dataset.description["warning"]


def test_a_damaged_video_whose_pictures_move_forward_is_noted(raw, tmp_path):
    path = raw / "S3" / "Image_Data" / "Box_1_(C1).avi"
    dummy_files.write_avi(path, {n: np.full((480, 640, 3), 12 * n, np.uint8) for n in range(20)}, 20)
    parts = ("S3/Box_1/C1/6-9", "S3/Box_1/C1/10-13")
    assert [read(raw, part)[1].notes for part in parts] == [[], []]
    data = bytearray(path.read_bytes())
    start = data.index(b"movi")
    for _ in range(4):  # the fourth picture
        start = data.index(b"00dc", start + 4)
    stop = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    said = "its header announces 1 pictures more than can be decoded; pictures after a damaged place would not belong"
    for part in parts:
        found, tally = read(raw, part)
        assert len(found) == 4 and not tally.faults
        assert len(tally.notes) == 1 and f"Box_1_(C1).avi: {said}" in tally.notes[0]
    picture = cv2.imdecode(np.frombuffer(read(raw, parts[0])[0][0]["image"], np.uint8), 0)
    assert round(picture[64, 64] / 12) == 6, "frame 6 is the sixth picture, number 5, and shows the one after it"
    prepare_raw("humaneva", raw, tmp_path / "data", FAST)
    assert said in open_prepared("humaneva", tmp_path / "data").description["notes"]


def test_bad_videos(raw):
    path = raw / "S3" / "Image_Data" / "Box_1_(C1).avi"
    whole, name = path.read_bytes(), "S3/Image_Data/Box_1_(C1).avi"
    path.write_bytes(whole[: len(whole) // 3])
    assert problems(raw)[name] == "it is shorter than it announces: cut off, fetch it again"
    with pytest.raises(UserError, match=r"Box_1_\(C1\).avi (ends before|cannot be opened)"):
        read(raw, "S3/Box_1/C1/10-13")
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match="cannot be opened as a video"):
        read(raw, "S3/Box_1/C1/6-9")
    path.write_text("<html>")
    assert "is a web page" in problems(raw)[name]
    dummy_files.write_avi(path, {0: np.zeros((240, 320, 3), np.uint8)}, 20)
    assert "expected 640 x 480 px" in problems(raw)[name]
    with pytest.raises(UserError, match="is 320 x 240 px, expected 640 x 480"):
        read(raw, "S3/Box_1/C1/6-9")
    path.unlink()
    assert problems(raw) == {name: "missing; download it or correct --manual-dir"}
    with pytest.raises(UserError, match=r"Box_1_\(C1\).avi is missing"):
        read(raw, "S3/Box_1/C1/6-9")


def test_an_archive_of_something_else_does_not_make_it_complete(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as packed:
        packed.writestr("beach.jpg", "x")
    told = problems(tmp_path)
    assert len(told) == 24 and set(told.values()) == {
        "not here yet; prepare unpacks holiday.zip first, see whether it is in there"
    }
    assert main(["check-data", "humaneva", "--manual-dir", str(tmp_path)]) == 1
    assert "complete" not in capsys.readouterr().out


def test_missing_files_are_listed_one_by_one(tmp_path):
    told = problems(tmp_path)
    assert len(told) == 3 * (1 + 3 + 3 + 1) and "S2/Mocap_Data/S2.mp" in told  # video; mocap; colour clocks; camera
    assert set(told.values()) == {"missing; download it or correct --manual-dir"}


def test_a_person_out_of_the_picture_is_left_out(raw, tree):
    points = tree[1].takes["S3", "Box"].points.copy()
    shift = np.array([0.0, 0, 0])
    shift[:2] = published_pose("S3", "C1")[1][:2] * 3  # behind the camera
    points[:14] += shift
    dummy_files.write_c3d(raw / "S3" / "Mocap_Data" / "Box_1.c3d", LABELS, points)
    found, tally = read(raw, "S3/Box_1/C1/6-9")  # FRAME 6 is at 15.3
    assert len(found) == 4 and not tally.skipped
    points[:18] += shift
    dummy_files.write_c3d(raw / "S3" / "Mocap_Data" / "Box_1.c3d", LABELS, points)
    found, tally = read(raw, "S3/Box_1/C1/6-9")
    assert [e["frame"] for e in found] == [8, 9] and tally.skipped == {OUT_OF_SIGHT: 2}
