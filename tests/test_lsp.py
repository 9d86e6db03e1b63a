"""LSP and LSP extended: from made-up zips in the true formats to a prepared dataset, and every trap on the way."""

import dataclasses
import pathlib
import re
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import scipy.io

from data_pipelines.lsp.dummy_data import WRIST, Truth, write_dummy, write_labels
from data_pipelines.lsp.labels import EXTENDED, LSP, SETS, load_labels, read_flags
from data_pipelines.lsp.settings import LspSettings
from data_pipelines.lsp.source import LspSource, splits
from data_pipelines.pixel_origin import origin_warning
from data_pipelines.prepared import open_prepared
from data_pipelines.source import Tally
from fusion_jax.errors import UserError
from fusion_jax.geometry import apply_affine, crop_matrix
from fusion_jax.prepare_raw import check_data, prepare_raw

SMALL = LspSettings(validation_count=2)


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def prepared(raw, data_dir, settings=None, **options):
    prepare_raw("lsp", raw, data_dir, settings, **options)
    return open_prepared("lsp", data_dir)


def problems(raw, settings=SMALL):
    return [f"{item.path}: {item.problem}" for item in check_data("lsp", raw, settings).problems]


def read(raw):
    """The examples of the first part, without writing anything."""
    source = LspSource(raw, SMALL)
    return source.read(source.parts()[0], Tally())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(truth, dataset) of as many pictures as the true set has, with a mark on the right wrist."""
    raw = tmp_path_factory.mktemp("lsp")
    truth = write_dummy(raw, mark=True)
    found = check_data("lsp", raw)
    assert not found.problems and found.summary().startswith("complete: 2001 files")
    return truth, prepared(raw, raw / "data")


@pytest.fixture
def few(monkeypatch):
    """Sets of 8 pictures: LSP 5 to train on, the extended one all."""
    monkeypatch.setitem(SETS, LSP, SETS[LSP]._replace(pictures=8, train=5))
    monkeypatch.setitem(SETS, EXTENDED, SETS[EXTENDED]._replace(pictures=8, train=8))


@pytest.fixture
def small(few, tmp_path) -> tuple[Truth, pathlib.Path]:
    return write_dummy(tmp_path / "raw", pictures=8), tmp_path / "raw"


def relabel(truth, *, px=None, labelled=None, hidden=None, layout=(3, 14)):
    write_labels(
        truth.folder / "joints.mat",
        truth.joints2d_px + 1 if px is None else px,
        truth.labelled if labelled is None else labelled,
        truth.hidden if hidden is None else hidden,
        layout,
    )


def test_the_whole_set_comes_back_as_it_was_made(whole):
    truth, dataset = whole
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 900,
        "validation": 100,
        "test": 1000,
    }
    assert dataset.provenance == {
        "train": {"lsp": [[1, 900]]},
        "validation": {"lsp": [[901, 1000]]},
        "test": {"lsp": [[1001, 2000]]},
    }
    assert dataset.skeleton.name == "lsp14" and not dataset.people_shared and "warning" not in dataset.description
    for split, first in (("train", 1), ("validation", 901), ("test", 1001)):
        for position, example in enumerate(dataset.split(split)):
            number = first + position
            assert int(example["frame"]) == number
            if number % 7:
                continue
            px, size = truth.joints2d_px[number - 1], truth.sizes[number - 1]
            mapped = apply_affine(crop_matrix(example["box"], 128), px)
            np.testing.assert_allclose(example["joints2d_px"], mapped, atol=2e-3)
            inside = ((px >= -0.5) & (px <= size - 0.5)).all(-1)
            np.testing.assert_array_equal(example["visible"], inside & ~truth.hidden[number - 1])
            assert example["valid2d"].all() and not example["valid"].any() and not example["joints_world_mm"].any()
            assert example["camera"]["model"] == b"none" and not example["camera"]["intrinsics"].any()
            assert (example["action"], example["sequence"], example["camera_name"]) == (b"sport", b"lsp", b"photo")
            assert example["subject"] == b""


def test_the_mark_in_each_picture_is_where_its_label_says(whole):
    _, dataset = whole
    errors = []
    for example in list(dataset.split("test"))[:60]:
        picture = decode(example["image"]).astype(float)
        strength = np.clip(np.minimum(picture[..., 0], picture[..., 2]) - picture[..., 1] - 80, 0, None)
        ys, xs = np.mgrid[:128, :128]
        centre = np.array([(strength * xs).sum(), (strength * ys).sum()]) / strength.sum()
        errors.append((centre - example["joints2d_px"][WRIST]) * example["box"][2] / 128)  # px of the photo
    assert np.abs(errors).max() < 0.5 and np.abs(np.mean(errors, axis=0)).max() < 0.1


def test_joints_outside_the_photo_keep_their_place_and_are_not_visible(whole):
    truth, dataset = whole
    example = dataset.split("train")[2]  # every fifth picture cuts the feet off
    ankles = truth.joints2d_px[2, [0, 5]]
    assert (ankles[:, 1] > truth.sizes[2, 1]).all()
    mapped = apply_affine(crop_matrix(example["box"], 128), ankles)
    np.testing.assert_allclose(example["joints2d_px"][[0, 5]], mapped, atol=2e-3)
    assert example["valid2d"][[0, 5]].all() and not example["visible"][[0, 5]].any()
    assert 0 < example["joints2d_px"][0, 1] < 128, "the box holds them"


def test_the_extended_set_is_training_alone_and_its_flag_is_labelled(few, tmp_path):
    truth = write_dummy(tmp_path / "raw", "extended", 8)
    settings = LspSettings(kind="extended", validation_count=2)
    assert not problems(tmp_path / "raw", settings)
    dataset = prepared(tmp_path / "raw", tmp_path / "data", settings)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "validation": 2}
    assert dataset.provenance["validation"] == {"lsp_extended": [[7, 8]]}
    examples = [*dataset.split("train"), *dataset.split("validation")]
    for example, labelled, px in zip(examples, truth.labelled, truth.joints2d_px, strict=True):
        np.testing.assert_array_equal(example["valid2d"], labelled)
        mapped = apply_affine(crop_matrix(example["box"], 128), px)
        np.testing.assert_allclose(example["joints2d_px"][labelled], mapped[labelled], atol=2e-3)
        assert not example["joints2d_px"][~labelled].any() and not example["visible"][~labelled].any()
        assert example["sequence"] == b"lsp_extended"
    assert not truth.labelled.all()


def test_kind_and_shape_must_agree(small, tmp_path):
    truth, raw = small
    with pytest.raises(
        UserError, match=r"holds LSP \(3 x 14 x 8\), but kind extended wants LSP extended \(14 x 3 x 8\)"
    ):
        load_labels(truth.folder / "joints.mat", "extended")
    assert "choose --kind scaled or original" in problems(raw, LspSettings(kind="extended"))[0]
    other = write_dummy(tmp_path / "other", "extended", 8)
    with pytest.raises(UserError, match=r"holds LSP extended .* but kind original wants LSP .* choose --kind extended"):
        load_labels(other.folder / "joints.mat", "original")
    with pytest.raises(UserError, match=r"hr-lspet/joints.mat: holds LSP extended"):
        prepare_raw("lsp", tmp_path / "other", tmp_path / "data", SMALL)


@pytest.mark.parametrize("shape", [(2, 14, 8), (14, 2, 8), (3, 14), (8, 14, 3), (3, 16, 8)])
def test_other_shapes_name_what_was_expected(few, tmp_path, shape):
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": np.ones(shape)})
    expected = r"joints is .*, expected LSP \(3 x 14 x 8\) or LSP extended \(14 x 3 x 8\)"
    with pytest.raises(UserError, match=expected):
        load_labels(tmp_path / "joints.mat", "scaled")


def test_another_number_of_pages_or_variable_is_refused(small):
    truth, raw = small
    relabel(truth, px=truth.joints2d_px[:7], hidden=truth.hidden[:7], labelled=truth.labelled[:7])
    assert "joints is 3 x 14 x 7, expected LSP (3 x 14 x 8)" in problems(raw)[0]
    scipy.io.savemat(truth.folder / "joints.mat", {"annolist": np.ones(3)})
    assert "holds no variable 'joints' but ['annolist']" in problems(raw)[0]
    scipy.io.savemat(truth.folder / "joints.mat", {"joints": "words"})
    assert "joints is of kind char, expected numbers" in problems(raw)[0]
    (truth.folder / "joints.mat").write_text("<html>log in</html>")
    assert "a web page" in problems(raw)[0]
    (truth.folder / "joints.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(200))
    assert "v7.3" in problems(raw)[0]


@pytest.mark.parametrize("layout", [(3, 14), (14, 3)])
def test_rows_columns_and_pages_by_hand(few, tmp_path, layout):
    joints = np.zeros((*layout, 8))
    for page in range(8):
        for joint in range(14):
            values = (100 * page + joint + 0.25, 10 * joint - page, 1.0 if joint == page else 0.0)
            for row, value in enumerate(values):
                where = (row, joint, page) if layout == (3, 14) else (joint, row, page)
                joints[where] = 1 - value if row == 2 and layout == (14, 3) else value
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    labels = load_labels(tmp_path / "joints.mat", "scaled" if layout == (3, 14) else "extended")
    assert labels.px.shape == (8, 14, 2)
    np.testing.assert_array_equal(labels.px[6, 11], [611.25, 104])
    known = labels.hidden if layout == (3, 14) else ~labels.labelled
    np.testing.assert_array_equal(known, np.eye(8, 14, dtype=bool))


def test_swapped_flags_are_refused(small):
    truth, raw = small
    relabel(truth, hidden=~truth.hidden)
    assert re.search(r"9\d% of the flags are 1, which in LSP means occluded .* inverted", problems(raw)[0])
    px = np.zeros((4, 14, 2))
    flag = np.zeros((4, 14))
    assert read_flags(px, flag, LSP, raw).labelled.all()
    with pytest.raises(UserError, match="0% of the flags are 1, which in LSP extended means labelled"):
        read_flags(px, flag, EXTENDED, raw)
    flag[2, 6] = 2
    with pytest.raises(UserError, match=r"page 3, right_wrist: the flag is 2.0, expected 0 or 1"):
        read_flags(px, flag, LSP, raw)
    flag[2, 6] = np.nan
    with pytest.raises(UserError, match=r"the flag is nan"):
        read_flags(px, flag, LSP, raw)


def test_of_two_lsp_zips_the_smaller_people_are_the_scaled_ones(few, tmp_path):
    raw = tmp_path / "raw"
    small, tall = write_dummy(raw, "scaled", 8), write_dummy(raw, "original", 8)
    write_dummy(raw, "extended", 8)
    small.folder.rename(raw / "b"), tall.folder.rename(raw / "a")  # names tell nothing
    for kind, truth in (("scaled", small), ("original", tall)):
        settings = dataclasses.replace(SMALL, kind=kind)
        example = prepared(raw, tmp_path / kind, settings).split("test")[0]
        mapped = apply_affine(crop_matrix(example["box"], 128), truth.joints2d_px[5])
        np.testing.assert_allclose(example["joints2d_px"], mapped, atol=2e-3)
    shutil.copytree(raw / "b", raw / "c")
    assert "are both LSP; leave the one to be used" in problems(raw)[0]
    shutil.rmtree(raw / "a")
    assert "are the same LSP; leave the one" in problems(raw)[0]


def test_people_of_another_size_than_the_kinds_are_spoken_of(few, tmp_path):
    write_dummy(tmp_path / "small", "scaled", 8)
    write_dummy(tmp_path / "tall", "original", 8)
    said = prepared(tmp_path / "tall", tmp_path / "a", SMALL).description["warning"]
    assert re.fullmatch(r"people are \d+ px tall, not about 150: this looks like the original pictures", said)
    settings = dataclasses.replace(SMALL, kind="original")
    said = prepared(tmp_path / "small", tmp_path / "b", settings).description["warning"]
    assert re.fullmatch(r"people are \d+ px tall: this looks like the scaled pictures", said)


def test_the_pixel_origin_shifts_labels_by_one_and_evidence_is_told(small, tmp_path):
    truth, raw = small
    one = prepared(raw, tmp_path / "one", SMALL).split("train")[0]
    other = prepared(raw, tmp_path / "zero", dataclasses.replace(SMALL, pixel_origin=0)).split("train")[0]
    full = [
        apply_affine(np.linalg.inv(crop_matrix(e["box"], 128)), e["joints2d_px"].astype(float)) for e in (one, other)
    ]
    np.testing.assert_allclose(full[1] - full[0], 1, atol=1e-3)
    px = truth.joints2d_px + 1
    px[3, 0] = [0.2, 40]
    relabel(truth, px=px)
    said = prepared(raw, tmp_path / "again", SMALL).description["warning"]
    assert said.startswith("1 of 112 labels lie just off the picture if its first pixel is 1") and "origin 0" in said


def test_origin_evidence_by_hand():
    px = np.array([[0.4, 50], [0.6, 50], [-0.7, 50], [np.nan, 50], [100.0, 50], [101.0, 50]])
    assert origin_warning(px, 1).startswith("1 of 6")  # 0.4 is half a pixel before the first's edge; -0.7 is cut off
    assert origin_warning(px[1:], 1) is None
    assert origin_warning(px[4:5], 0, (100, 90)).startswith("1 of 1")  # of a hundred, the last is 99
    assert origin_warning(px[4:5], 1, (100, 90)) is None
    assert origin_warning(px[5:], 1, (100, 90)).startswith("1 of 1")


def test_a_joint_that_is_not_finite_is_named(small, tmp_path):
    truth, raw = small
    px = truth.joints2d_px + 1
    px[1, 4, 0] = np.nan
    relabel(truth, px=px)
    assert problems(raw) == [
        "lsp_dataset/joints.mat: page 2: left_knee is not finite (1 such pages); download it again"
    ]
    with pytest.raises(UserError, match=r"joints.mat: page 2: left_knee is not finite"):
        prepare_raw("lsp", raw, tmp_path / "data", SMALL)
    dataset = prepared(raw, tmp_path / "data", SMALL, partial=True)
    assert [int(e["frame"]) for e in dataset.split("train")] == [1, 3]
    assert "page 2: left_knee is not finite" in dataset.description["warning"]


def test_broken_and_missing_pictures_are_named_and_the_rest_is_kept(small, tmp_path):
    truth, raw = small
    images = truth.folder / "images"
    (images / "im0001.jpg").unlink()
    (images / "im0003.jpg").write_bytes((images / "im0003.jpg").read_bytes()[:300])  # its header is all right
    (images / "im0006.jpg").write_text("<!DOCTYPE html>")
    (images / "im0007.jpg").write_bytes(b"")
    (images / "im0004.jpg").write_bytes(
        (images / "im0004.jpg").read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8\xfe", 1)
    )
    said = problems(raw)
    assert said[0].startswith("lsp_dataset/images/im0001.jpg: missing; unpack its zip again")
    assert "im0003.jpg: cut off, it lacks JPEG's end mark" in said[1]
    assert "im0004.jpg: no JPEG (it starts with b'\\xff\\xd8\\xfe" in said[2]
    assert "im0006.jpg: is a web page saved under this name" in said[3] and "im0007.jpg: is empty" in said[4]
    assert len(said) == 5
    with pytest.raises(UserError, match=r"im0001.jpg: missing.*and 4 more"):
        prepare_raw("lsp", raw, tmp_path / "data", SMALL)
    dataset = prepared(raw, tmp_path / "data", SMALL, partial=True)
    frames = {name: [int(e["frame"]) for e in split] for name, split in dataset.splits.items()}
    assert frames == {"train": [2], "validation": [5], "test": [8]}
    assert "5 broken or missing pieces" in dataset.description["warning"]


def test_a_picture_of_other_labels_is_a_fault(small, tmp_path):
    truth, raw = small
    px = truth.joints2d_px + 1
    px[0] += 5000
    px[1, 3] = 1e9
    relabel(truth, px=px)
    with pytest.raises(UserError, match=r"im0001.jpg: no joint of page 1 lies in the .* picture; is it the picture"):
        prepare_raw("lsp", raw, tmp_path / "data", SMALL)
    dataset = prepared(raw, tmp_path / "data", SMALL, partial=True)
    assert [int(e["frame"]) for e in dataset.split("train")] == [3]


def test_two_sets_in_one_folder_are_seen(small, tmp_path):
    truth, raw = small
    images = truth.folder / "images"
    shutil.copy(images / "im0001.jpg", images / "im0009.jpg")
    assert "holds im0009.jpg and 0 more beyond the 8 pages" in problems(raw)[0]
    with pytest.raises(UserError, match="no frame was left to write"):
        prepare_raw("lsp", raw, tmp_path / "data", SMALL, partial=True)
    (images / "im0002.jpg").unlink()  # as many pictures as pages, and yet not theirs
    with pytest.raises(UserError, match=r"images: holds im0009.jpg and 0 more beyond the 8 pages of joints.mat; two"):
        next(read(raw))
    shutil.copy(images / "im0001.jpg", images / "im0002.jpg")
    (images / "im0009.jpg").rename(images / "im00001.jpg")
    assert "have one number; two sets lie in one folder" in problems(raw)[0]


def test_a_zip_is_unpacked_and_its_wrapper_is_seen_through(few, tmp_path):
    truth = write_dummy(tmp_path / "raw", pictures=8, wrapper=True, zipped=True)
    raw = tmp_path / "raw"
    assert not (raw / "lsp_dataset").exists()
    items = check_data("lsp", raw, SMALL).items
    assert [(item.path, item.problem) for item in items] == [("lsp_dataset.zip", None)]
    assert items[0].note == "not unpacked yet; prepare does it"
    dataset = prepared(raw, tmp_path / "data", SMALL)
    assert len(dataset.split("train")) == 3 and (raw / "lsp_dataset" / "inner" / "joints.mat").exists()
    mapped = apply_affine(crop_matrix(dataset.split("train")[0]["box"], 128), truth.joints2d_px[0])
    np.testing.assert_allclose(dataset.split("train")[0]["joints2d_px"], mapped, atol=2e-3)


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "images/../../out.txt", "C:\\out.txt"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(few, tmp_path, name):
    raw = tmp_path / "raw"
    write_dummy(raw, pictures=8, zipped=True)
    with zipfile.ZipFile(raw / "lsp_dataset.zip", "a") as packed:
        packed.writestr(name, "x")
    with pytest.raises(UserError, match=r"lsp_dataset.zip: member .* leads out of its folder"):
        prepare_raw("lsp", raw, tmp_path / "data", SMALL)
    assert sorted(path.name for path in raw.iterdir()) == ["lsp_dataset.zip"]
    assert not (tmp_path / "out.txt").exists()


def test_a_web_page_saved_as_the_zip_is_named(few, tmp_path):
    (tmp_path / "lsp_dataset.zip").write_text("<!DOCTYPE html><html>moved</html>")
    assert "lsp_dataset.zip: is a web page saved under this name" in problems(tmp_path)[0]
    with pytest.raises(UserError, match=r"lsp_dataset.zip: is a web page"):
        prepare_raw("lsp", tmp_path, tmp_path / "data", SMALL)
    (tmp_path / "lsp_dataset.zip").write_bytes(b"\x00\x01\x02\x03")
    assert "is no zip or tar archive" in problems(tmp_path)[0]


def test_an_archive_of_something_else_does_not_make_it_complete(tmp_path):
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as packed:
        packed.writestr("beach.jpg", "x")
    assert problems(tmp_path) == ["joints.mat: missing; download lsp_dataset.zip"]


def test_an_empty_folder_says_what_to_download(tmp_path):
    assert problems(tmp_path) == ["joints.mat: missing; download lsp_dataset.zip"]
    with pytest.raises(UserError, match=r"joints.mat: missing; download lsp_dataset.zip"):
        prepare_raw("lsp", tmp_path, tmp_path / "data", SMALL)


def test_splits_by_hand():
    assert splits("scaled", 100) == [("train", 1, 900), ("validation", 901, 1000), ("test", 1001, 2000)]
    assert splits("original", 0) == [("train", 1, 1000), ("test", 1001, 2000)]
    assert splits("extended", 100) == [("train", 1, 9900), ("validation", 9901, 10000)]


def test_settings_are_checked_and_name_the_config():
    base = LspSettings()
    assert base.config_name() == "128px_scaled_validation100_margin0.15"
    others = {"size": 64, "kind": "original", "validation_count": 0, "box_margin": 0.2, "pixel_origin": 0}
    assert others.keys() == {field.name for field in dataclasses.fields(base)}
    names = {dataclasses.replace(base, **{field: value}).config_name() for field, value in others.items()}
    assert len(names | {base.config_name()}) == 6
    for field, value in {"size": 5, "kind": "x", "validation_count": -1, "box_margin": -1.0, "pixel_origin": 2}.items():
        with pytest.raises(UserError, match=field):
            LspSettings(**{field: value})
