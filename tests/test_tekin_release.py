"""The authors' release: rows come through unchanged, in both layouts; what a hostile HDF5 file may hold is refused."""

import dataclasses
import pickle
import shutil
import zipfile

import cv2
import h5py
import numpy as np
import pytest

from data_pipelines.inventory import format_tree
from data_pipelines.prepared import open_prepared
from data_pipelines.source import Tally
from data_pipelines.tekin_release import frames, rows
from data_pipelines.tekin_release.dummy_data import arrays, write_dummy
from data_pipelines.tekin_release.settings import ACTIONS, TekinReleaseSettings
from data_pipelines.tekin_release.source import TekinReleaseSource
from fusion_jax.errors import UserError
from fusion_jax.geometry import camera_to_image
from fusion_jax.prepare_raw import check_data, prepare_raw
from fusion_jax.skeletons import convert_joints, skeleton

USUAL = TekinReleaseSettings()
IMAGES, HEATMAPS = "h36m_data_imgs_A_14_{}.h5", "h36m_data_hg_preds_A_14_{}.h5"
SMALL = {"rows": (4, 2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(raw folder, truth, prepared dataset)."""
    folder = tmp_path_factory.mktemp("tekin_release")
    truth = write_dummy(folder / "raw")
    prepare_raw("tekin_release", folder / "raw", folder / "data", workers=0)
    return folder / "raw", truth, open_prepared("tekin_release", folder / "data")


@pytest.fixture
def raw(tmp_path):
    """A small release that a test may damage."""
    write_dummy(tmp_path / "raw", **SMALL)
    return tmp_path / "raw"


def read_all(raw, settings=USUAL, strict=True):
    source, tally = TekinReleaseSource(raw, settings), Tally(strict)
    found = {"train": [], "validation": [], "test": []}
    for part in source.parts():
        found[part.split] += source.read(part, tally)
    return found, tally


def problems(raw, settings=USUAL):
    found = check_data("tekin_release", raw, settings).problems
    assert all("\n" not in item.problem for item in found)
    return [f"{item.path}: {item.problem}" for item in found]


def replace(path, name, values, **options):
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, data=values, **options)


def change(path, name, where, value):
    with h5py.File(path, "a") as file:
        file[name][where] = value


# The whole way


def test_counts(made):
    raw, _, dataset = made
    assert {s: len(dataset.split(s)) for s in dataset.splits} == {"train": 18, "validation": 6, "test": 8}
    found = check_data("tekin_release", raw)
    assert not found.problems and found.summary().startswith("complete: 4 files")
    tree = format_tree(found)
    assert "train: 24 rows" in tree and "val: 8 rows" in tree
    assert dataset.provenance == {
        "train": {"A_14/train": [[0, 17]]},
        "validation": {"A_14/train": [[18, 23]]},
        "test": {"A_14/val": [[0, 7]]},
    }
    assert dataset.skeleton is skeleton("human36m17") and dataset.image_size == 128
    assert "warning" not in dataset.description and dataset.description["pictures"] == "bit for bit"


def test_every_row_comes_back_bit_for_bit(made):
    _, truth, dataset = made
    for split, part, first in (("train", "train", 0), ("validation", "train", 18), ("test", "val", 0)):
        for row, example in enumerate(dataset.split(split), first):
            image = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            np.testing.assert_array_equal(image, truth[part].images[row])
            assert example["image"].startswith(b"\x89PNG")
            np.testing.assert_array_equal(example["joints_world_mm"], truth[part].poses_mm[row])
            np.testing.assert_array_equal(example["heatmap"], truth[part].heatmaps[row])
            assert example["valid"].all() and not example["valid2d"].any() and not example["visible"].any()
            assert int(example["frame"]) == row and example["sequence"].decode() == f"A_14/{part}"
            assert (example["action"], example["camera_name"], example["subject"]) == (b"WalkDog", b"unknown", b"")
            camera = example["camera"]
            assert camera["model"] == b"none" and not camera["cam_center_mm"].any()
            np.testing.assert_array_equal(camera["rot_world_to_cam"], np.eye(3))
            np.testing.assert_array_equal(example["box"], [-0.5, -0.5, 128])


def test_picture_pose_and_heatmap_show_the_same_moment(made):
    """The pose before the dummy's camera, the heatmap's peak and the person's own colours in the picture agree."""
    _, truth, dataset = made
    intrinsics = truth["val"].camera.intrinsics
    for row, example in enumerate(dataset.split("test")):
        moved = example["joints_world_mm"].astype(np.float64)
        depth = 4800.0  # of the pelvis, which stands in the world's origin
        pixel = truth["val"].joints_px[row][6] - intrinsics[:2, 2]
        moved = moved + [*(pixel * depth / intrinsics[0, 0]), depth]
        px = camera_to_image(convert_joints(moved, skeleton("human36m17"), skeleton("mpii16")), intrinsics)
        for joint in range(16):
            y, x = np.unravel_index(example["heatmap"][..., joint].argmax(), (64, 64))
            assert np.abs((px[joint] + 0.5) / 2 - 0.5 - [x, y]).max() <= 0.5 + 0.05
        image = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR).astype(float)
        x, y = np.round(px[7]).astype(int)  # the chest; the room beside it is of another colour
        assert np.linalg.norm(image[y + 6, x] - image[y + 6, x - 25]) > 40


def test_layouts_are_the_same_data(tmp_path, made):
    flat = read_all(made[0])[0]
    for options in ({"flat": False}, {"one_file": True}):
        folder = tmp_path / str(options)
        write_dummy(folder, **options)
        assert not problems(folder)
        again = read_all(folder)[0]
        for split, examples in flat.items():
            assert len(again[split]) == len(examples)
            for a, b in zip(examples, again[split], strict=True):
                assert a["image"] == b["image"]
                np.testing.assert_array_equal(a["heatmap"], b["heatmap"])
                np.testing.assert_array_equal(a["joints_world_mm"], b["joints_world_mm"])


def test_both_parts_may_be_in_the_training_file(raw):
    with h5py.File(raw / IMAGES.format("val")) as source, h5py.File(raw / IMAGES.format("train"), "a") as target:
        for name in ("val_x", "val_y3d"):
            target.create_dataset(name, data=source[name][:])
    (raw / IMAGES.format("val")).unlink()
    assert not problems(raw) and len(read_all(raw)[0]["test"]) == 2


def test_an_unflattened_pose_is_taken(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path) as file:
        poses = file["train_y3d"][:].reshape(-1, 17, 3).astype(np.float64)
    replace(path, "train_y3d", poses)
    np.testing.assert_array_equal(read_all(raw)[0]["train"][1]["joints_world_mm"], poses[1].astype(np.float32))


def test_an_archive_is_unpacked(tmp_path, raw):
    shutil.make_archive(str(tmp_path / "release"), "zip", raw)
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.move(tmp_path / "release.zip", packed)
    assert [(i.path, i.note) for i in check_data("tekin_release", packed).items] == [
        ("release.zip", "not unpacked yet; prepare does it")
    ]
    prepare_raw("tekin_release", packed, tmp_path / "data", workers=0)
    assert len(open_prepared("tekin_release", tmp_path / "data").split("test")) == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "release.zip").write_bytes(b"<!doctype html>")
    assert "release.zip: is a web page" in problems(other)[0]


def test_an_archive_of_something_else_does_not_make_it_complete(tmp_path):
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as packed:
        packed.writestr("beach.jpg", "x")
    found = problems(tmp_path)
    assert len(found) == 4 and all(": is missing; download it" in line for line in found)


def test_validation_is_the_end_of_train(raw):
    splits = {n: read_all(raw, TekinReleaseSettings(validation_count=n))[0] for n in (0, 1, 99)}
    assert [[int(e["frame"]) for e in splits[n]["validation"]] for n in (0, 1, 99)] == [[], [3], [3]]
    assert [len(splits[n]["train"]) for n in (0, 1, 99)] == [4, 3, 3]


def test_parts_cover_every_row_once(tmp_path, monkeypatch):
    write_dummy(tmp_path, rows=(24, 8))
    monkeypatch.setattr("data_pipelines.tekin_release.source._PART_ROWS", 7)
    monkeypatch.setattr(rows, "_BLOCK_ROWS", 3)
    source = TekinReleaseSource(tmp_path, TekinReleaseSettings(validation_count=5))
    parts = pickle.loads(pickle.dumps(source.parts()))
    assert [(p.split, p.first, p.last, p.examples) for p in parts] == [
        ("train", 0, 6, 7), ("train", 7, 13, 7), ("train", 14, 18, 5), ("validation", 19, 23, 5),
        ("test", 0, 6, 7), ("test", 7, 7, 1),
    ]  # fmt: skip
    frames_of = [[int(e["frame"]) for e in source.read(part, Tally())] for part in parts]
    assert frames_of == [list(range(p.first, p.last + 1)) for p in parts]


# One row, by hand


def test_a_picture_by_hand():
    row = np.zeros((3, 128, 128), np.float32)
    row[0, 5, 9], row[2, 7, 1] = 1, np.float32(51 / 255)
    got = frames.picture(row)
    assert got.dtype == np.uint8 and got[5, 9].tolist() == [255, 0, 0] and got[7, 1].tolist() == [0, 0, 51]
    assert got.sum() == 306
    every = (np.arange(3 * 128 * 128) % 256).reshape(3, 128, 128)
    np.testing.assert_array_equal(frames.picture(every.astype(np.float32) / np.float32(255)).transpose(2, 0, 1), every)


def test_values_between_255ths_are_refused_or_rounded():
    row = np.full((3, 128, 128), np.float32(10.4 / 255))
    with pytest.raises(ValueError, match="0.4 of a 255th off a whole one; --round-pictures stores the nearest"):
        frames.picture(row)
    assert (frames.picture(row, rounded=True) == 10).all()


def test_heatmaps_by_hand():
    row = np.zeros((16, 64, 64), np.float32)
    row[3, 10, 20] = -0.25  # a network's, which may be below zero
    assert frames.heatmap(row)[10, 20, 3] == np.float32(-0.25)


def test_the_action_numbers():
    assert len(ACTIONS) == 15 and ACTIONS[13] == "WalkDog" and ACTIONS[0] == "Directions"
    assert TekinReleaseSettings(action=1).action_name == "Directions"


# Broken rows


@pytest.mark.parametrize(
    "file, name, where, value, message",
    [
        (IMAGES, "train_x", (1, 5), np.nan, "train_x row 1: the picture is not finite"),
        (IMAGES, "train_x", (1, 5), 1.5, "train_x row 1: the picture's values are 0.*to 1.5, expected 0 to 1"),
        (IMAGES, "train_x", (1, 5), -0.1, "train_x row 1: the picture's values are -0.1"),
        (IMAGES, "train_x", (1, 5), 0.3, "train_x row 1: a picture value is 0.5 of a 255th off"),
        (IMAGES, "train_y3d", (1, 7), np.inf, "train_y3d row 1: the pose is not finite"),
        (IMAGES, "train_y3d", (1, 1), 20.0, "train_y3d row 1: the pelvis is 20.0 mm from the origin"),
        (IMAGES, "train_y3d", (1, 50), 9000.0, "train_y3d row 1: the farthest joint is .*expected 200 to 3000 mm"),
        (HEATMAPS, "heatmaps", (1, 9), np.nan, "heatmaps row 1: the heatmaps are not finite"),
    ],
)
def test_a_broken_row_is_named(file, name, where, value, message, raw):
    path = raw / file.format("train")
    change(path, name, where, value)
    with pytest.raises(UserError, match=f"{path}: {message}.*--partial"):
        read_all(raw)
    found, tally = read_all(raw, strict=False)
    assert len(tally.faults) == 1 and [int(e["frame"]) for e in found["train"]] == [0, 2]
    if name == "train_y3d":
        assert len(problems(raw)) == 1 and "row 1" in problems(raw)[0], "check-data looks at poses"


def test_poses_in_another_unit_or_frame(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path) as file:
        poses = file["train_y3d"][:]
    replace(path, "train_y3d", poses / 1000)
    assert "expected 200 to 3000 mm" in problems(raw)[0]
    replace(path, "train_y3d", (poses.reshape(-1, 17, 3) * [1, -1, -1]).reshape(-1, 51).astype(np.float32))
    assert problems(raw) == [f"{path.name}: train_y3d: most poses stand on their heads; expected y to point down"]
    assert not frames.upside_down(poses.reshape(-1, 17, 3))


def test_rounding_is_a_setting_that_is_told(raw):
    change(raw / IMAGES.format("train"), "train_x", (1, 5), 10.4 / 255)
    settings = TekinReleaseSettings(round_pictures=True)
    assert len(read_all(raw, settings)[0]["train"]) == 3
    assert TekinReleaseSource(raw, settings).description()["pictures"] == "rounded to 255ths"


# Broken files


def test_missing_files(raw):
    (raw / IMAGES.format("val")).unlink()
    (raw / HEATMAPS.format("train")).unlink()
    found = problems(raw)
    assert len(found) == 2 and found[0].startswith(HEATMAPS.format("train") + ": is missing; download it")
    assert "holds train_x but no val_x; put the file of the validation part beside it" in found[1]
    with pytest.raises(UserError, match="is missing; download it"):
        prepare_raw("tekin_release", raw, raw / "data")


def test_partial_goes_on_without_a_part(raw, tmp_path):
    (raw / HEATMAPS.format("train")).write_bytes(b"")
    (raw / IMAGES.format("train")).write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    prepare_raw("tekin_release", raw, tmp_path / "data", workers=0, partial=True)
    dataset = open_prepared("tekin_release", tmp_path / "data")
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {"test": 2}
    assert "imgs_A_14_train.h5: is damaged or cut off" in dataset.description["warning"]


@pytest.mark.parametrize("file", [IMAGES.format("train"), HEATMAPS.format("train")])
def test_web_page_other_kind_cut_off(file, raw):
    path = raw / file
    whole = path.read_bytes()
    for content, message in (
        (b"<!DOCTYPE html><html>log in</html>", "is a web page saved under this name"),
        (b"", "is empty; download it again"),
        (b"MATLAB 5.0 MAT-file", "is no HDF5 file (it starts with b'MATLAB 5'); download it again"),
        (whole[: len(whole) // 2], "is damaged or cut off"),
        (whole[:600], "is damaged or cut off"),
        (whole[:-1], "download it again"),
    ):
        path.write_bytes(content)
        (problem,) = problems(raw)
        assert problem.startswith(f"{file}: ") and message in problem
        with pytest.raises(UserError):
            read_all(raw)


def test_damaged_files_never_raise_anything_else(raw):
    """Bytes of the structure, which lies before and between the values."""
    rng = np.random.default_rng(0)
    for file in (IMAGES.format("train"), HEATMAPS.format("train")):
        whole = (raw / file).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for place in rng.integers(8, 6000, 6):
                damaged[place] = rng.integers(256)
            (raw / file).write_bytes(damaged)
            try:
                read_all(raw, strict=False)
            except UserError as error:
                assert "\n" not in str(error)
        (raw / file).write_bytes(whole)


def test_wrong_names_shapes_and_types(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path) as file:
        images, poses = file["train_x"][:], file["train_y3d"][:]
    for name, values, message in (
        ("train_x", images.reshape(-1, 3, 128, 128).transpose(0, 2, 3, 1), "expected (N, 49152) or (N, 3, 128, 128)"),
        ("train_x", images[:, :-1], "train_x is (4, 49151), expected"),
        ("train_x", images[:0], "train_x is (0, 49152), expected"),
        ("train_x", np.float32(3), "train_x is (), expected"),
        ("train_x", h5py.Empty("f"), "train_x is None, expected"),
        ("train_x", images.astype(np.int16), "holds int16, expected float32"),
        ("train_x", images.astype(complex), "holds complex128, expected float32"),
        ("train_x", images, None),
        ("train_y3d", poses[:, :48], "expected (N, 51) or (N, 17, 3)"),
        ("train_y3d", poses[:3], "has 3 rows, the pictures 4; the files are of different releases"),
        ("train_y3d", poses, None),
    ):
        replace(path, name, values)
        found = problems(raw)
        assert found == [] if message is None else message in found[0], (found, message)
    with h5py.File(path, "a") as file:
        file.move("train_x", "x")
    assert "holds no train_x but train_y3d, x; it is another file" in problems(raw)[0]


def test_pictures_and_heatmaps_of_different_number(raw):
    path = raw / HEATMAPS.format("train")
    with h5py.File(path) as file:
        heatmaps = file["heatmaps"][:]
    replace(path, "heatmaps", heatmaps[:3])
    words = "heatmaps has 3 rows, the pictures 4; the files are of different releases"
    assert problems(raw) == [f"{path.name}: {words}"]
    with pytest.raises(UserError, match=words):
        read_all(raw)


def test_nothing_outside_the_file_is_read(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path) as file:
        images = file["train_x"][:]
    (raw / "outside.bin").write_bytes(images.tobytes())
    shutil.copy(path, raw / "other.h5")

    def external_link(file):
        file["train_x"] = h5py.ExternalLink(str(raw / "other.h5"), "train_x")

    def soft_link(file):
        file["train_x"] = h5py.SoftLink("/train_x")

    def external_values(file):
        file.create_dataset("train_x", images.shape, "f4", external=[(str(raw / "outside.bin"), 0, h5py.h5f.UNLIMITED)])

    def virtual(file):
        layout = h5py.VirtualLayout(images.shape, "f4")
        layout[:] = h5py.VirtualSource(str(raw / "other.h5"), "train_x", images.shape)
        file.create_virtual_dataset("train_x", layout)

    def group(file):
        file.create_group("train_x")

    for make, message in (
        (external_link, "train_x is a link to elsewhere; do not use this file"),
        (soft_link, "train_x is a link to elsewhere; do not use this file"),
        (external_values, "train_x has its values in other files; do not use this file"),
        (virtual, "train_x has its values in other files"),
        (group, "train_x is a group, expected a dataset"),
    ):
        with h5py.File(path, "a") as file:
            del file["train_x"]
            make(file)
        assert message in problems(raw)[0]
        with pytest.raises(UserError, match=message):
            list(TekinReleaseSource(raw, USUAL).read(part_of(raw), Tally()))


def part_of(raw):
    whole = raw.parent / "whole"
    if not whole.exists():
        write_dummy(whole, **SMALL)
    part = TekinReleaseSource(whole, USUAL).parts()[0]
    return part._replace(files=tuple(raw / path.name for path in part.files))


def test_promises_that_the_bytes_cannot_keep(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path, "a") as file:
        del file["train_x"]
        file.create_dataset("train_x", (10**9, 49152), "f4", chunks=(1, 49152), compression="gzip")
    assert (
        "train_x announces 1000000000 rows, more than its 0 stored bytes can hold; download it again"
        in problems(raw)[0]
    )
    with h5py.File(path, "a") as file:
        del file["train_x"]
        file.create_dataset("train_x", (4000, 49152), "f4", chunks=(4000, 49152), compression="gzip")
    assert "has chunks (4000, 49152) of more than 256000000 bytes" in problems(raw)[0]


def test_an_unknown_filter_is_refused(raw):
    path = raw / IMAGES.format("train")
    with h5py.File(path, "a") as file:
        del file["train_x"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 49152))
        properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"train_x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4, 49152)), properties)
    assert "train_x is packed by an unknown filter 32015; store it with gzip or unpacked" in problems(raw)[0]


def test_memory_stays_small_whatever_the_chunks(tmp_path):
    """Blocks are whole chunks where those are small, and a bounded number of rows else."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        values = np.zeros((100, 51), np.float32)
        file.create_dataset("plain", data=values)
        file.create_dataset("few", data=values, chunks=(2, 51))
        file.create_dataset("many", data=values, chunks=(64, 51))
        for name, expected in (("plain", 32), ("few", 32), ("many", 64)):
            assert rows.find_rows(file, tmp_path, name, (17, 3)).block_rows == expected
        pictures = np.zeros((400, 49152), np.float32)
        file.create_dataset("pictures", data=pictures, chunks=(400, 64))
        assert rows.find_rows(file, tmp_path, "pictures", (3, 128, 128)).block_rows == 64 * 10**6 // (4 * 49152)


# Settings


def test_names_differ_where_the_bytes_do():
    changes = {"action": 3, "validation_count": 5, "round_pictures": True}
    assert {"size", *changes} == {field.name for field in dataclasses.fields(USUAL)}
    names = {TekinReleaseSettings(**{key: value}).config_name() for key, value in changes.items()}
    assert len(names | {USUAL.config_name()}) == 4 and USUAL.config_name() == "128px_A14_validation200"


@pytest.mark.parametrize("change", [{"size": 64}, {"action": 0}, {"action": 16}, {"validation_count": -1}])
def test_bad_settings(change):
    with pytest.raises(UserError, match=f"{next(iter(change))} is .*expected"):
        TekinReleaseSettings(**change)


def test_another_action_has_other_files_and_a_warning(raw):
    settings = TekinReleaseSettings(action=13)
    assert problems(raw, settings)[0].startswith("h36m_data_imgs_A_13_train.h5: is missing")
    words = TekinReleaseSource(raw, settings).description()["warning"]
    assert words == "action 13 is taken for Walking, which is unconfirmed"


def test_dummy_arrays_are_in_the_releases_layout(made):
    found = arrays(made[1]["train"], "train")
    assert {name: (v.shape, v.dtype.name) for name, v in found.items()} == {
        "train_x": ((24, 49152), "float32"), "train_y3d": ((24, 51), "float32"),
    }  # fmt: skip
    with h5py.File(made[0] / HEATMAPS.format("val")) as file:
        assert file["heatmaps"].shape == (8, 65536) and file["heatmaps"].dtype == np.float32
