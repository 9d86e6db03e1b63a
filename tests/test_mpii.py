"""MPII: every oddity of the annotation struct, the hourglass's crops, the published people; from a made-up tree."""

import dataclasses
import functools
import io
import pickle
import re
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import scipy.io

from data_pipelines.inventory import format_tree
from data_pipelines.mpii import dummy_data
from data_pipelines.mpii.crop import head_size, hourglass_box, hourglass_center, joints_box
from data_pipelines.mpii.dummy_data import MARKER, QUIRKS, WRIST, labels_bytes, release, struct_array, write_dummy
from data_pipelines.mpii.release import parse_points, parse_release
from data_pipelines.mpii.settings import MpiiSettings
from data_pipelines.mpii.source import MpiiSource
from data_pipelines.mpii.splits import (
    PUBLISHED_LIST,
    Listed,
    Numbered,
    chunks,
    make_plan,
    origin_warning,
    read_list,
)
from data_pipelines.mpii.structs import field, items, number, text
from data_pipelines.prepared import open_prepared
from data_pipelines.source import Tally
from fusion_jax.errors import UserError
from fusion_jax.geometry import apply_affine, crop_matrix, world_to_image
from fusion_jax.prepare_raw import check_data, prepare_raw
from fusion_jax.skeletons import convert_joints, skeleton

TEST_PLACES = [(6, 0), (17, 0), (27, 0), (29, 0), (30, 0), (35, 0)]
USUAL = MpiiSettings()
LABELS = "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(raw folder, truth, prepared dataset)."""
    folder = tmp_path_factory.mktemp("mpii")
    truth = write_dummy(folder / "raw", markers=True)
    prepare_raw("mpii", folder / "raw", folder / "data", workers=0)
    return folder / "raw", truth, open_prepared("mpii", folder / "data")


@pytest.fixture
def raw(made, tmp_path):
    """A copy of the raw folder that a test may damage."""
    return shutil.copytree(made[0], tmp_path / "raw")


def write_labels(raw, struct):
    (raw / LABELS).write_bytes(labels_bytes(struct))


def loaded(struct):
    """A struct as our reader sees it, through a file."""
    file = io.BytesIO(labels_bytes(struct))
    return scipy.io.loadmat(file, struct_as_record=False, squeeze_me=True)["RELEASE"]


@functools.cache
def fake_truth():
    """The people of the dummy without drawing them."""
    published = {listed.annolist_index: listed.image for listed in read_list(PUBLISHED_LIST)}
    names = [published.get(i, f"{900_000_000 + i}.jpg") for i in range(dummy_data.NUM_PICTURES)]
    joints = np.random.default_rng(0).normal([0, 0, 900], [200, 200, 400], (17, 3))
    people = {
        (index, place): dummy_data._person((index, place), names[index], joints, dummy_data.CAMERA, quirk)
        for index, quirks in QUIRKS.items()
        for place, quirk in enumerate(quirks)
    }
    return dummy_data.Truth(people, names)


def parsed(origin=1):
    return {(p.annolist_index, p.annorect_index): p for p in parse_release(loaded(release(fake_truth(), origin)))}


def plan(settings=USUAL, people=None, test_list=None):
    people = list(parsed().values()) if people is None else people
    return make_plan(people, read_list(PUBLISHED_LIST) if test_list is None else test_list, settings)


def read_all(raw, settings=USUAL, strict=True):
    source, tally = MpiiSource(raw, settings), Tally(strict)
    return {part.split: list(source.read(part, tally)) for part in source.parts()}, tally


def only_problem(raw, settings=None):
    found = check_data("mpii", raw, settings).problems
    assert len(found) == 1 and "\n" not in found[0].problem, found
    return f"{found[0].path}: {found[0].problem}"


# The whole way


def test_counts(made):
    raw, _, dataset = made
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {"train": 13, "validation": 4, "test": 6}
    found = check_data("mpii", raw)
    assert not found.problems and found.summary().startswith("complete: 21 files")
    assert "people: train 14, validation 4, test 6" in format_tree(found)
    assert dataset.skeleton is skeleton("mpii16") and dataset.image_size == 256
    assert dataset.subjects == {"train": [], "validation": [], "test": []}
    assert dataset.provenance == {
        "train": {"people": [[2959, 2972]]},
        "validation": {"people": [[2973, 2976]]},
        "test": {"people": [[0, 5]]},
    }
    assert dataset.description["frames left out"] == (
        "13 people of the official test part, whose joints are withheld; 2 people of training pictures without joints; "
        "1 people who share a picture with a test person; "
        "1 people without centre or scale, which the hourglass's crop needs"
    )


def test_every_example_is_one_true_person(made):
    _, truth, dataset = made
    seen = set()
    for split in dataset.splits:
        for example in dataset.split(split):
            person = find_person(truth, example)
            assert person.place not in seen
            assert (person.place in TEST_PLACES) == (split == "test")
            seen.add(person.place)
            check_example(example, person)
    assert seen == set(truth.people) - {(4, 0), (5, 0), (6, 1), (14, 0)}


def find_person(truth, example):
    """Who of the picture's people lies in the example's box as the example says."""
    to_crop = crop_matrix(example["box"], 256)
    near = [
        person
        for person in truth.people.values()
        if person.image == example["camera_name"].decode() + ".jpg"
        and (person.labelled == example["valid2d"]).all()
        and np.abs(apply_affine(to_crop, person.joints_px) - example["joints2d_px"])[person.labelled].max() < 1e-3
    ]
    assert len(near) == 1, example["camera_name"]
    return near[0]


def check_example(example, person):
    moved = person.quirk in ("left edge", "outside the picture", "whole numbers")  # some labels, on purpose
    mm = convert_joints(person.joints_mm, skeleton("human36m17"), skeleton("mpii16"))
    px = apply_affine(crop_matrix(example["box"], 256), world_to_image(mm, person.camera))
    off = np.abs(px - example["joints2d_px"])[person.labelled]
    assert np.median(off) < 0.5 and (moved or off.max() < 1e-2)
    inside = ((example["joints2d_px"] >= -0.5) & (example["joints2d_px"] <= 255.5)).all(-1)
    np.testing.assert_array_equal(example["visible"], person.visible & inside)
    assert not example["valid"].any() and not example["joints_world_mm"].any()
    assert example["camera"]["model"] == b"none" and not example["camera"]["intrinsics"].any()
    # By hand: the square of side 250 scale, lowered by 15 scale, to whole pixels.
    left, top, side = example["box"]
    assert abs(side - 250 * person.scale) <= 0.5
    middle = person.center + [0, 15 * person.scale]
    np.testing.assert_allclose([left + side / 2, top + side / 2], middle, atol=0.75)
    head = 0.0 if person.head_box is None else 0.6 * np.linalg.norm(person.head_box[2:] - person.head_box[:2])
    assert abs(example["head_size_px"] - head * 256 / side) < 1e-3
    assert example["action"] == (b"unknown" if person.quirk == "no activity" else b"walking")
    assert (example["subject"], example["sequence"]) == (b"", b"mpii")


def test_the_picture_shows_the_wrist_where_the_label_says(made):
    """The drawn spot's middle, in every picture."""
    _, truth, dataset = made
    count = 0
    for split in dataset.splits:
        for example in dataset.split(split):
            if not example["valid2d"][WRIST]:
                continue
            image = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
            likeness = np.clip(120 - np.linalg.norm(image - MARKER, axis=-1), 0, None)
            x, y = example["joints2d_px"][WRIST]
            ys, xs = np.mgrid[:256, :256]
            weight = likeness * (np.hypot(xs - x, ys - y) < 12)
            found = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
            np.testing.assert_allclose(found, [x, y], atol=0.5, err_msg=str(find_person(truth, example).place))
            count += 1
    assert count == 23


def test_people_of_the_test_list_keep_its_order(made):
    _, truth, dataset = made
    examples = list(dataset.split("test"))
    assert [int(e["frame"]) for e in examples] == [0, 1, 2, 3, 4, 5]
    assert [find_person(truth, e).place for e in examples] == TEST_PLACES


def test_the_archives_alone_are_enough(tmp_path):
    raw = tmp_path / "raw"
    write_dummy(raw, archives=True)
    found = check_data("mpii", raw)
    assert not found.problems
    assert [(i.path, i.note) for i in found.items] == [
        ("mpii_human_pose_v1.tar.gz", "not unpacked yet; prepare does it"),
        ("mpii_human_pose_v1_u12_2.zip", "not unpacked yet; prepare does it"),
    ]
    prepare_raw("mpii", raw, tmp_path / "data", MpiiSettings(size=32), workers=0)
    dataset = open_prepared("mpii", tmp_path / "data")
    assert [len(dataset.split(split)) for split in ("train", "validation", "test")] == [13, 4, 6]
    assert (raw / "mpii_human_pose_v1" / "images").is_dir()
    (raw / "mpii_human_pose_v1.tar.gz").unlink()  # to save space: the pictures are found all the same
    assert not check_data("mpii", raw).problems


def test_the_labels_may_lie_by_themselves(raw):
    shutil.move(raw / LABELS, raw / "mpii_human_pose_v1_u12_1.mat")
    shutil.rmtree(raw / "mpii_human_pose_v1_u12_2")
    assert not check_data("mpii", raw).problems


def test_parts_travel_to_other_processes(made):
    source = MpiiSource(made[0], MpiiSettings(size=32))
    part = source.parts()[-1]
    copy = pickle.loads(pickle.dumps(part))
    assert copy.files == part.files and copy.split == "test" and copy.examples == 6
    assert len(list(pickle.loads(pickle.dumps(source)).read(copy, Tally()))) == 6


# The struct


def test_scalars_empties_and_absent_fields():
    people, truth = parsed(), fake_truth()
    drawn = {place: person for place, person in people.items() if person.train}
    assert set(drawn) == set(truth.people) and not any(person.problem for person in people.values())
    for place, person in drawn.items():
        true = truth.people[place]
        np.testing.assert_array_equal(person.labelled, true.labelled, err_msg=true.quirk)
        np.testing.assert_array_equal(person.visible, true.visible, err_msg=true.quirk)
        np.testing.assert_allclose(person.joints, np.where(true.labelled[:, None], true.joints_px + 1, 0), atol=1e-9)
        assert person.image == true.image and person.separated
        assert person.activity == ("unknown" if true.quirk == "no activity" else "walking")
    assert people[5, 0].scale is None and people[5, 0].center is None
    assert people[10, 0].head_box is None and people[1, 0].head_box is not None
    assert people[2, 1].labelled.sum() == 1, "a point that is a scalar struct"
    assert not people[4, 0].labelled.any() and not people[14, 0].labelled.any()
    withheld = {place for place, person in people.items() if not person.train}
    assert len(withheld) == 13 and (20, 1) in withheld, "of the official test part: none, one or two a picture"


def test_a_release_of_one_picture_one_person_one_point():
    person = {"annopoints": {"point": {"x": 5.0, "y": 6.0, "id": 3.0}}, "scale": 1.5, "objpos": {"x": 1.0, "y": 2.0}}
    struct = {
        "annolist": {"image": {"name": "a.jpg"}, "annorect": person},
        "img_train": 1.0,
        "single_person": np.array([[1.0]], object),
        "act": {"cat_name": "", "act_name": "rowing", "act_id": 3.0},
    }
    (found,) = parse_release(loaded(struct))
    assert np.flatnonzero(found.labelled).tolist() == [3] and found.joints[3].tolist() == [5, 6]
    assert found.visible[3], "a label without a word on visibility"
    assert (found.scale, found.center.tolist(), found.train, found.separated) == (1.5, [1, 2], True, True)
    assert found.activity == "rowing"
    del struct["act"], struct["single_person"]
    (found,) = parse_release(loaded(struct))
    assert (found.activity, found.separated) == ("unknown", False)


@pytest.mark.parametrize(
    "told, seen",
    [(1.0, True), (0.0, False), (np.uint8(0), False), ("1", True), ("0", False), (np.zeros((0, 0)), True), ("", True)],
)
def test_visibility_comes_in_many_kinds(told, seen):
    point = struct_array([{"x": 1.0, "y": 2.0, "id": 4.0, "is_visible": told}])
    file = io.BytesIO()
    scipy.io.savemat(file, {"point": point})
    point = scipy.io.loadmat(file, struct_as_record=False, squeeze_me=True)["point"]
    assert parse_points(items(point))[2][4] == seen


def test_values_are_made_regular():
    assert items(None) == [] and items(np.zeros((0, 0))) == [] and items(3) == [3] and items(np.array([1, 2])) == [1, 2]
    assert number("2") == 2 and number(np.array([3])) == 3 and number(np.zeros(0)) is None and number(" ") is None
    assert text(np.array([], "<U1")) == "" and text("a ") == "a" and text(3) == "" and text(np.array(["b"])) == "b"
    assert field("no struct", "x") is None and field(None, "x") is None
    for bad in ("two", np.zeros(2), 1j, [1]):
        with pytest.raises(ValueError, match="one number was expected|where a number was expected"):
            number(bad)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"id": 16.0}, r"point\(1\).id is 16.0, expected 0 to 15"),
        ({"id": 2.5}, r"point\(1\).id is 2.5"),
        ({"id": np.zeros((0, 0))}, r"point\(1\).id is None"),
        ({"x": np.nan}, r"point\(1\) is \[nan, .*expected finite numbers"),
        ({"y": np.inf}, "expected finite numbers"),
        ({"x": np.zeros((0, 0))}, r"point\(1\) has no x and y"),
        ({"x": "left"}, "'left' where a number was expected"),
        ({"is_visible": "maybe"}, "'maybe' where a number was expected"),
        ({"id": 1.0}, "joint id 1 comes twice"),
    ],
)
def test_a_broken_point_is_named(change, problem, raw, made):
    struct = release(made[1])
    struct["annolist"]["annorect"][0, 7]["annopoints"][0, 0]["point"][name_of(change)][0, 0] = change[name_of(change)]
    (person,) = [p for p in parse_release(loaded(struct)) if p.annolist_index == 7]
    assert person.problem.startswith("RELEASE.annolist(8).annorect(1): ")
    assert re.search(problem, person.problem)
    write_labels(raw, struct)
    with pytest.raises(UserError, match=r"_u12_1.mat: RELEASE.annolist\(8\).annorect\(1\): .*download it again"):
        read_all(raw, MpiiSettings(size=16))


def name_of(change):
    return next(iter(change))


def test_partial_leaves_the_broken_person_out_and_says_so(raw, made, tmp_path):
    struct = release(made[1])
    struct["annolist"]["annorect"][0, 7]["scale"][0, 0] = -1.0
    struct["annolist"]["annorect"][0, 8]["objpos"][0, 0]["x"] = np.nan
    write_labels(raw, struct)
    prepare_raw("mpii", raw, tmp_path / "data", MpiiSettings(size=16), workers=0, partial=True)
    dataset = open_prepared("mpii", tmp_path / "data")
    assert sum(len(dataset.split(split)) for split in dataset.splits) == 21
    examples, tally = read_all(raw, MpiiSettings(size=16), strict=False)
    assert len(tally.faults) == 2 and sum(map(len, examples.values())) == 21
    told = " ".join(sorted(fault.split("RELEASE")[1] for fault in tally.faults))
    assert ".annolist(8).annorect(1): scale is -1, expected a number above 0; download" in told
    assert ".annolist(9).annorect(1): objpos is [nan, " in told


def test_the_struct_as_a_whole_is_checked():
    good = release(fake_truth())
    for change, message in (
        ({"annolist": np.zeros((0, 0))}, "RELEASE has no annolist"),
        ({"img_train": np.ones((1, 35))}, "RELEASE.img_train has 35 values, expected 36"),
        ({"img_train": np.full((1, 36), 2.0)}, "each 0 or 1"),
        ({"img_train": "yes"}, "RELEASE.img_train: 'yes' where a number was expected"),
        ({"act": good["act"][:5]}, "RELEASE.act has 5 entries, expected 36, as many as annolist"),
        ({"single_person": good["single_person"][:7]}, "RELEASE.single_person has 7 entries"),
    ):
        with pytest.raises(UserError, match=message):
            parse_release(loaded({**good, **change}))
    for name in ("../secret.jpg", "a/b.jpg", "", "/etc/passwd", ".hidden"):
        struct = release(fake_truth())
        struct["annolist"]["image"][0, 1] = {"name": name}
        with pytest.raises(UserError, match=r"annolist\(2\).image.name is .*expected one such as 015601864.jpg"):
            parse_release(loaded(struct))
    struct = release(fake_truth())
    struct["single_person"][1, 0] = "first"
    with pytest.raises(UserError, match=r"single_person\{2\}: 'first' where a number"):
        parse_release(loaded(struct))
    for other in (3.0, "text", np.zeros((2, 2)), np.array([[1, "a"]], object)):
        with pytest.raises(UserError, match="RELEASE has no annolist"):
            parse_release(loaded(other))


# Crops


def test_the_hourglass_crop_by_hand():
    """The first person of the published validation file, whose corrected numbers are stored as 410.78 and 5.898."""
    center, scale = hourglass_center(np.array([966.0, 340.0]), 4.718)
    np.testing.assert_allclose(center, [966, 410.77])
    np.testing.assert_allclose(center, [966, 410.78], atol=0.011)
    np.testing.assert_allclose(scale, 5.898, atol=0.001)
    # side 200 * 5.8975 = 1179.5; left 966 - 589.75; top 410.77 - 589.75
    np.testing.assert_allclose(hourglass_box(np.array([966.0, 340.0]), 4.718), [376.25, -178.98, 1179.5])


def test_the_box_around_joints_and_the_head_by_hand():
    joints, labelled = np.zeros((16, 2)), np.zeros(16, bool)
    joints[[2, 5]], labelled[[2, 5]] = [[10, 20], [50, 100]], True
    # side 80 * 1.3 = 104 around (30, 60); unlabelled zeros do not count
    np.testing.assert_allclose(joints_box(joints, labelled), [-22, 8, 104])
    assert head_size(np.array([10.0, 10, 40, 50])) == pytest.approx(30)  # 0.6 * 50
    assert head_size(None) == 0


def test_crop_by_joints_needs_no_scale_but_two_joints(raw):
    examples, tally = read_all(raw, MpiiSettings(size=32, crop="joints"))
    assert {split: len(found) for split, found in examples.items()} == {"train": 14, "validation": 3, "test": 6}
    assert tally.skipped["people with fewer than two joints, around which no box can be laid"] == 1
    assert not any("centre" in reason for reason in tally.skipped)
    for example in examples["test"]:
        assert ((example["joints2d_px"] > 0) & (example["joints2d_px"] < 31)).all()


def test_the_origin_moves_labels_and_box_alike(raw, made):
    one = read_all(raw, MpiiSettings(size=32))[0]["test"]
    zero = read_all(raw, MpiiSettings(size=32, pixel_origin=0))[0]["test"]
    for a, b in zip(one, zero, strict=True):
        np.testing.assert_allclose(b["box"] - a["box"], [1, 1, 0])
        np.testing.assert_allclose(a["joints2d_px"], b["joints2d_px"], atol=1e-4)
        assert a["image"] != b["image"]
    write_labels(raw, release(made[1], origin=0))
    again = read_all(raw, MpiiSettings(size=32, pixel_origin=0))[0]["test"]
    assert [e["image"] for e in again] == [e["image"] for e in one]


def test_the_labels_evidence_on_the_origin_speaks_up():
    def people(*values):
        joints, labelled = np.full((16, 2), 50.0), np.zeros(16, bool)
        joints[: len(values), 0], labelled[: len(values)] = values, True
        return [list(parsed().values())[1]._replace(joints=joints, labelled=labelled)]

    assert origin_warning(people(0, 0, 0, 0.5, 0, 1), 1).startswith("5 labelled coordinates lie in [0, 1) px and 1 in")
    assert "speaks for counting from 0" in origin_warning(people(0, 0, 0, 0.5, 0, 1), 1)
    assert origin_warning(people(1, 1, 1, 1, 1.5), 1) == "" and origin_warning(people(0, 0, 0, 0, 0), 0) == ""
    assert "speaks for counting from 1" in origin_warning(people(1, 1, 1, 1, 1.5), 0)
    assert origin_warning([], 1) == ""


def test_left_edge_labels_are_kept_unless_asked(raw):
    def ankle(settings):
        found = [e for split in read_all(raw, settings)[0].values() for e in split]
        (example,) = [e for e in found if e["camera_name"] == "900000011"]
        return example["valid2d"][0], example["valid2d"].sum()

    assert ankle(MpiiSettings(size=16)) == (True, 16)
    assert ankle(MpiiSettings(size=16, left_edge_absent=True)) == (False, 15)


# Who is where


def test_the_published_list():
    found = read_list(PUBLISHED_LIST)
    assert len(found) == 2958 and len({listed.image for listed in found}) == 2729
    assert len({listed[:2] for listed in found}) == 2958
    assert found[0] == Listed(6, 0, "005808361.jpg") and found[1] == Listed(17, 0, "052475643.jpg")
    assert max(listed.annolist_index for listed in found) == 24984
    names = {}
    assert all(names.setdefault(one.annolist_index, one.image) == one.image for one in found)


def test_no_picture_is_in_two_splits():
    splits = plan().splits
    pictures = {split: {one.person.image for one in found} for split, found in splits.items()}
    assert not pictures["train"] & pictures["test"] and not pictures["train"] & pictures["validation"]
    assert not pictures["validation"] & pictures["test"]
    for count in range(1, 5):
        held_out = plan(MpiiSettings(validation_count=count)).splits["validation"]
        pairs = [one for one in held_out if one.person.annolist_index in (2, 12, 15, 19)]
        assert len(held_out) >= count and len(pairs) % 2 == 0
    assert not plan(MpiiSettings(validation_count=0)).splits["validation"]


def test_numbers_do_not_depend_on_settings():
    def numbers(settings):
        found = [one for split in plan(settings).splits.values() for one in split]
        return {one.number: (one.person.annolist_index, one.person.annorect_index) for one in found}

    usual = numbers(MpiiSettings())
    assert len(usual) == 24 and [usual[n] for n in range(6)] == TEST_PLACES
    for settings in (MpiiSettings(validation_count=2), MpiiSettings(share_pictures=True), MpiiSettings(crop="joints")):
        other = numbers(settings)
        assert all(other[n] == place for n, place in usual.items())


def test_who_shares_a_picture_with_a_test_person():
    kept, shared = plan(), plan(MpiiSettings(share_pictures=True))
    assert kept.skipped["people who share a picture with a test person"] == 1
    assert "people who share a picture with a test person" not in shared.skipped
    extra = {o.number for o in shared.splits["train"]} - {o.number for o in kept.splits["train"]}
    assert extra == {2958} and shared.splits["train"][0].person.annolist_index == 6
    for split in ("validation", "test"):
        assert [o.number for o in kept.splits[split]] == [o.number for o in shared.splits[split]]
    assert kept.training_people == shared.training_people == 19


def test_separated_people_only():
    people = [p._replace(separated=p.annorect_index == 0) for p in parsed().values()]
    found = plan(MpiiSettings(people="separated"), people)
    assert found.skipped["training people who do not stand apart"] == 4
    assert all(o.person.annorect_index == 0 for o in [*found.splits["train"], *found.splits["validation"]])
    assert len(found.splits["test"]) == 6


def test_chunks_keep_pictures_whole():
    base = list(parsed().values())[0]
    people = [Numbered(n, base._replace(image=f"{n // 3}.jpg")) for n in range(12)]
    assert [len(run) for run in chunks(people, 4)] == [6, 6]
    assert [one.number for run in chunks(people, 4) for one in run] == list(range(12))
    assert chunks([], 4) == []


def test_counts_that_differ_from_the_published_are_told(made):
    warning = made[2].description["warning"]
    assert "2952 people of the list of test people are not in the annotations" in warning
    assert "19 training and 6 test people; published are 22246 and 2958, by a rule that is unconfirmed" in warning
    lines = format_tree(check_data("mpii", made[0]))
    assert "lacks 2952 people of the list of test people" in lines


def test_another_release_than_the_lists(raw, made):
    truth = made[1]
    names = [*truth.names]
    names[17] = "900000099.jpg"
    write_labels(raw, release(truth._replace(names=names)))
    assert only_problem(raw).endswith(
        "RELEASE.annolist(18) is picture 900000099.jpg, but the list of test people says 052475643.jpg; they are of "
        "different releases, use mpii_human_pose_v1_u12_1.mat"
    )


def test_a_test_person_without_joints_is_a_fault(raw, made):
    truth = made[1]
    people = {**truth.people, (17, 0): truth.people[17, 0]._replace(quirk="no points")}
    write_labels(raw, release(truth._replace(people=people)))
    with pytest.raises(UserError, match=r"annolist\(18\).annorect\(1\) is on the list .* but has no joints"):
        read_all(raw, MpiiSettings(size=16))


def test_a_list_of_ones_own(raw, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# two\n1 0 900000001\n\n19 1 900000019.jpg\n")
    settings = MpiiSettings(size=16, test_list=str(path))
    examples, _ = read_all(raw, settings)
    assert [e["camera_name"] for e in examples["test"]] == ["900000001", "900000019"]
    assert "warning" not in MpiiSource(raw, settings).description()
    assert "_testlist" in settings.config_name()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"1 0\n", "line 1 is '1 0', expected"),
        (b"1 0 a\n1 0 a\n", "line 2 names person 1 0 again"),
        (b"-1 0 a\n", "line 1 is"),
        (b"1 0 ../a\n", "line 1 is"),
        (b"# none\n", "names nobody"),
        (b"\xff\xfe\x00", "cannot be read as a list"),
    ],
)
def test_a_broken_list(content, message, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_list(path)


# Broken files


def test_missing_labels(raw):
    (raw / LABELS).unlink()
    assert "is missing; download mpii_human_pose_v1_u12_2.zip" in only_problem(raw)
    with pytest.raises(UserError, match="is missing; download"):
        prepare_raw("mpii", raw, raw / "data")


def test_a_web_page_for_labels_or_archive(raw):
    (raw / LABELS).write_bytes(b"<!DOCTYPE html><html>log in</html>")
    assert "is a web page saved under this name" in only_problem(raw)
    (raw / LABELS).unlink()
    for name in ("mpii_human_pose_v1_u12_2.zip", "mpii_human_pose_v1.tar.gz"):
        (raw / name).write_bytes(b"<html>")
    (raw / LABELS).parent.rmdir()
    found = check_data("mpii", raw).problems
    assert [item.path for item in found] == ["mpii_human_pose_v1.tar.gz", "mpii_human_pose_v1_u12_2.zip", LABELS]
    assert all("is a web page saved under this name" in item.problem for item in found[:2])
    (raw / "mpii_human_pose_v1.tar.gz").write_bytes(b"what is this")
    assert (
        "is no zip or tar archive, or is cut off (it starts with b'what')"
        in check_data("mpii", raw).problems[0].problem
    )


def test_an_archive_of_something_else_does_not_make_it_complete(raw):
    with zipfile.ZipFile(raw / "holiday.zip", "w") as packed:
        packed.writestr("notes.txt", "x")
    shutil.rmtree(raw / "images")
    assert only_problem(raw) == "images: missing; download mpii_human_pose_v1.tar.gz"
    (raw / LABELS).unlink()
    assert [item.path for item in check_data("mpii", raw).problems] == ["images", LABELS]
    (raw / LABELS).parent.rmdir()
    with zipfile.ZipFile(raw / "mpii_human_pose_v1_u12_2.zip", "w") as packed:
        packed.writestr(LABELS, "x")
    assert only_problem(raw) == "images: missing; download mpii_human_pose_v1.tar.gz"
    with zipfile.ZipFile(raw / "pictures.zip", "w") as packed:
        packed.writestr("images/1.jpg", "x")
    assert not check_data("mpii", raw).problems, "both may be in archives"


def test_partial_counts_a_missing_picture_once(raw, tmp_path, capsys):
    (raw / "images" / "900000001.jpg").unlink()
    prepare_raw("mpii", raw, tmp_path / "data", MpiiSettings(size=16), partial=True)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("broken or missing: ")] == [
        f"broken or missing: {raw}/images/900000001.jpg: missing; download mpii_human_pose_v1.tar.gz again"
    ]
    assert "left out: 1 frames of broken or missing pieces" in said


def test_labels_cut_off_anywhere(raw):
    whole = (raw / LABELS).read_bytes()
    for size in (0, 64, 130, len(whole) // 2, len(whole) - 1):
        (raw / LABELS).write_bytes(whole[:size])
        assert "download it again" in only_problem(raw)


def test_damaged_labels_never_raise_anything_else(raw):
    whole, rng = (raw / LABELS).read_bytes(), np.random.default_rng(0)
    plain = io.BytesIO()
    scipy.io.savemat(plain, {"RELEASE": release(fake_truth())}, do_compression=False)
    for data in (whole, plain.getvalue()):
        for _ in range(15):
            damaged = bytearray(data)
            for place in rng.integers(128, len(data), 4):
                damaged[place] = rng.integers(256)
            (raw / LABELS).write_bytes(damaged)
            try:
                read_all(raw, MpiiSettings(size=16), strict=False)
            except UserError as error:
                assert "\n" not in str(error)


def test_another_variable(raw):
    scipy.io.savemat(raw / LABELS, {"joints": np.zeros((3, 14))})
    assert "holds no variable 'RELEASE' but 'joints'" in only_problem(raw)
    scipy.io.savemat(raw / LABELS, {"RELEASE": np.zeros((3, 14))})
    assert "RELEASE has no annolist" in only_problem(raw)


def test_nobody_with_joints(raw, made):
    write_labels(raw, {**release(made[1]), "img_train": np.zeros((1, 36))})
    path = raw / "list.txt"
    path.write_text("900 0 x\n")
    assert "labels nobody's joints in a training picture" in only_problem(raw, MpiiSettings(test_list=str(path)))


def test_missing_and_broken_pictures(raw):
    picture = raw / "images" / "900000001.jpg"
    whole = picture.read_bytes()
    picture.unlink()
    assert only_problem(raw) == "images/900000001.jpg: missing; download mpii_human_pose_v1.tar.gz again"
    with pytest.raises(UserError, match="900000001.jpg: missing; download mpii_human_pose_v1.tar.gz again"):
        read_all(raw, MpiiSettings(size=16))
    examples, tally = read_all(raw, MpiiSettings(size=16), strict=False)
    assert sum(map(len, examples.values())) == 22 and len(tally.faults) == 1
    picture.write_bytes(b"<html>no</html>")
    assert "is a web page" in only_problem(raw)
    with pytest.raises(UserError, match="900000001.jpg: is a web page"):
        read_all(raw, MpiiSettings(size=16))
    picture.write_bytes(b"GIF89a")
    assert "no JPEG" in only_problem(raw)
    picture.write_bytes(whole[:300])
    with pytest.raises(UserError, match="900000001.jpg cannot be decoded as a picture"):
        read_all(raw, MpiiSettings(size=16))
    cv2.imwrite(str(picture), np.zeros((40, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"no joint of annolist\(2\).annorect\(1\) lies in the 32 x 40 picture"):
        read_all(raw, MpiiSettings(size=16))


def test_a_box_that_cannot_be_cut_names_the_picture(raw, made):
    struct = release(made[1])
    struct["annolist"]["annorect"][0, 7]["scale"][0, 0] = 1e6
    write_labels(raw, struct)
    with pytest.raises(UserError, match=r"images/900000007.jpg: box .* is not a square of at most"):
        read_all(raw, MpiiSettings(size=16))
    struct["annolist"]["annorect"][0, 7]["scale"][0, 0] = 0.1
    struct["annolist"]["annorect"][0, 7]["objpos"][0, 0]["x"] = 5000.0
    write_labels(raw, struct)
    with pytest.raises(UserError, match=r"images/900000007.jpg: box .* lies outside the 320 x 400 picture"):
        read_all(raw, MpiiSettings(size=16))


def test_a_folder_in_two_places_is_refused(raw):
    (raw / "mpii_human_pose_v1.tar.gz").write_bytes(b"\x1f\x8b")
    shutil.copytree(raw / "images", raw / "mpii_human_pose_v1" / "images")
    with pytest.raises(UserError, match="images is in both .* remove one of them"):
        check_data("mpii", raw)


# Settings


def test_names_differ_where_the_bytes_do(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("1 0 a\n")
    changes = {
        "size": 64, "crop": "joints", "people": "separated", "validation_count": 5, "share_pictures": True,
        "pixel_origin": 0, "left_edge_absent": True, "test_list": str(path),
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(MpiiSettings)}
    names = {MpiiSettings(**{key: value}).config_name() for key, value in changes.items()}
    assert len(names | {MpiiSettings().config_name()}) == len(changes) + 1
    assert MpiiSettings().config_name() == "256px_hourglass_validation300"


@pytest.mark.parametrize(
    "change", [{"size": 8}, {"crop": "tight"}, {"people": "few"}, {"validation_count": -1}, {"pixel_origin": 2}]
)
def test_bad_settings(change):
    with pytest.raises(UserError, match=f"{name_of(change)} is .*expected"):
        MpiiSettings(**change)
    with pytest.raises(UserError, match="test_list: nowhere.txt is no file"):
        MpiiSettings(test_list="nowhere.txt")
