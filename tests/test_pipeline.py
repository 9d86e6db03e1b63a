"""The embedded dataset on disk and what the loader makes of it."""

import dataclasses
import os
import pickle
import re
import shutil

import cv2
import jax
import numpy as np
import pytest
import small
import tensorflow_datasets as tfds
from withheld import withhold

from data_pipelines import samples
from data_pipelines.augment import Change, change_image, draw_change, frame_map, pixel_map
from data_pipelines.loader import eval_batches, pose_statistics, train_iterator
from data_pipelines.prepared import find_prepared, open_prepared
from data_pipelines.record_parser import RecordParser
from data_pipelines.synthetic_humans.sequences import SyntheticSettings, sequences
from fusion_jax.augmentation import AUGMENTATIONS, AugmentConfig
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, camera_to_image, world_to_camera, world_to_image
from fusion_jax.prepare_raw import prepare_raw
from fusion_jax.skeletons import skeleton

H36M, MPII, LSP = skeleton("human36m17"), skeleton("mpii16"), skeleton("lsp14")
FULL = AugmentConfig(rotation_deg=40, scale_range=0.3)


@pytest.fixture(scope="module")
def dataset():
    return open_prepared("synthetic_humans", small.data_dir())


def iterator(dataset, **kwargs):
    options = {"target": H36M, "image_size": 16, "augment": FULL, "batch_size": 4, "seed": 3, **kwargs}
    return train_iterator(dataset, **options)


def test_every_example_is_complete_and_consistent(dataset):
    people = dataset.subjects
    assert {k: len(v) for k, v in people.items()} == {"train": 1, "validation": 1, "test": 1}
    assert len({name for names in people.values() for name in names}) == 3
    assert {k: len(v) for k, v in dataset.splits.items()} == dict.fromkeys(people, 14 * 4)
    for index in range(0, 56, 5):
        example = dataset.split("test")[index]
        camera = samples.camera_of(example)
        projected = world_to_image(example["joints_world_mm"].astype(np.float64), camera)
        np.testing.assert_allclose(projected, example["joints2d_px"], atol=0.01)
        assert samples.text(example["subject"]) in people["test"]
        assert example["valid"].all() and example["visible"].sum() >= 5
        assert samples.decode_image(example["image"], 16, "x").std() > 5
        inside = (example["joints2d_px"] > -0.5) & (example["joints2d_px"] < 15.5)
        assert inside.all(), "the crop holds the whole person"
        assert 0.05 * 16 < example["head_size_px"] < 0.3 * 16


def test_records_are_read_as_tfds_reads_them(dataset):
    builder = tfds.builder_from_directory(find_prepared("synthetic_humans", small.data_dir()))
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "parts")}
    expected = builder.as_data_source(split="test", decoders=skip)[7]
    found = pickle.loads(pickle.dumps(dataset)).split("test")[7]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        np.testing.assert_array_equal(a, b)


def test_records_that_are_of_other_features_are_refused():
    features = tfds.features.FeaturesDict({"pose": tfds.features.Tensor(shape=(2,), dtype=np.float32)})
    parse = RecordParser(features, ())
    np.testing.assert_array_equal(parse(features.serialize_example({"pose": np.float32([1, 2])}))["pose"], [1, 2])
    three = tfds.features.FeaturesDict({"pose": tfds.features.Tensor(shape=(3,), dtype=np.float32)})
    with pytest.raises(ValueError, match="3 numbers where 2"):
        parse(three.serialize_example({"pose": np.zeros(3, np.float32)}))
    with pytest.raises(ValueError, match="lacks pose"):
        parse(tfds.features.FeaturesDict({"x": np.int64}).serialize_example({"x": 1}))


def test_records_of_features_unknown_here_are_left_to_tfds():
    features = tfds.features.FeaturesDict({"names": tfds.features.Sequence(tfds.features.Text())})
    assert list(RecordParser(features, ())(features.serialize_example({"names": ["a", "b"]}))["names"]) == [b"a", b"b"]


def test_actions_and_cameras_are_all_there(dataset):
    examples = list(dataset.split("train"))
    assert len({e["action"] for e in examples}) == 14
    assert {e["camera_name"] for e in examples} == {b"cam1", b"cam2", b"cam3", b"cam4"}
    assert len({samples.example_name(e) for e in examples}) == 56


def test_preparing_again_reuses_and_other_settings_stand_beside(capsys, tmp_path):
    from fusion_jax.prepare import prepare_synthetic_humans

    first = prepare_synthetic_humans(tmp_path, size=16, num_subjects=3, frames=1)
    before = {p: p.stat().st_mtime_ns for p in first.iterdir()}
    again = prepare_synthetic_humans(tmp_path, size=16, num_subjects=3, frames=1)
    assert again == first and "reusing" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in first.iterdir()}
    prepare_synthetic_humans(tmp_path / "twin", size=16, num_subjects=3, frames=1)  # compiled as the first one was
    reference = open_prepared("synthetic_humans", tmp_path / "twin")
    same = open_prepared("synthetic_humans", tmp_path)
    for split in reference.splits:
        assert reference.split(split)[3]["image"] == same.split(split)[3]["image"], "drawn from the seed alone"
    other = first.parent.parent / "other" / "1.0.0"
    other.mkdir(parents=True)
    (other / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="choose one with --dataset: .*synthetic_humans/other"):
        open_prepared("synthetic_humans", tmp_path)
    assert open_prepared(f"synthetic_humans/{first.parent.name}", tmp_path).fingerprint == same.fingerprint


def test_interrupted_preparation_counts_for_nothing(tmp_path):
    unfinished = tmp_path / "synthetic_humans" / "64px" / "incomplete.ABC_1.0.0"
    unfinished.mkdir(parents=True)
    (unfinished / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="no prepared synthetic_humans .* run: fusion-jax prepare"):
        open_prepared("synthetic_humans", tmp_path)


class TestDamagedData:
    @pytest.fixture
    def folder(self, tmp_path):
        source = next((small.data_dir() / "synthetic_humans").glob("16px*"))
        shutil.copytree(source, tmp_path / "synthetic_humans" / source.name)
        return tmp_path / "synthetic_humans" / source.name / "1.3.0"

    def refused(self, folder, match):
        from fusion_jax.prepare import prepare_synthetic_humans

        root = folder.parent.parent.parent
        with pytest.raises(UserError, match=match):
            open_prepared("synthetic_humans", root)
        with pytest.raises(UserError, match=match):  # nor is it taken for finished
            prepare_synthetic_humans(root, size=16, num_subjects=3, frames=1)

    @pytest.mark.parametrize("harm", ["delete", "empty", "truncate", "flip"])
    def test_shards(self, folder, harm):
        path = next(folder.glob("*train.array_record*"))
        data = path.read_bytes()
        harmed = {"empty": b"", "truncate": data[: len(data) // 2], "flip": bytes(b ^ 255 for b in data)}
        path.unlink() if harm == "delete" else path.write_bytes(harmed[harm])
        self.refused(folder, "is damaged .*; delete that folder and prepare it again")

    @pytest.mark.parametrize("words", ["Permission denied", "Input/output error"])
    @pytest.mark.parametrize("name", ["*train.array_record*", "metadata.json", "features.json", "dataset_info.json"])
    def test_what_cannot_be_read_is_not_called_damaged(self, folder, monkeypatch, name, words):
        path = next(folder.glob(name))
        path.write_bytes(b"{")  # fails in whichever library reads it; that the system withholds it is made up
        withhold(monkeypatch, path, words)
        with pytest.raises(UserError, match=re.escape(f"{path} cannot be read ({words}); look at its rights")) as told:
            open_prepared("synthetic_humans", folder.parent.parent.parent)
        assert "damaged" not in str(told.value) and "delete" not in str(told.value)

    def test_an_example_that_cannot_be_read_later(self, folder, monkeypatch):
        examples = open_prepared("synthetic_humans", folder.parent.parent.parent).split("train")
        path = next(folder.glob("*train.array_record*"))
        monkeypatch.setattr(examples, "_parse", lambda record: record["no bytes"])
        with pytest.raises(UserError, match="is damaged .*; delete"):
            examples[0]
        withhold(monkeypatch, path, "Input/output error")
        with pytest.raises(UserError, match=re.escape(f"{path} cannot be read (Input/output error)")):
            examples[0]

    def test_a_disk_that_fails_inside_a_file_is_known_by_its_words(self, folder, monkeypatch):
        examples = open_prepared("synthetic_humans", folder.parent.parent.parent).split("train")

        def fail(record):
            raise RuntimeError("UNKNOWN: Input/output error; reading block 7")

        monkeypatch.setattr(examples, "_parse", fail)
        with pytest.raises(UserError, match=re.escape(f"{folder} cannot be read (Input/output error)")):
            examples[0]

    def test_a_folder_whose_name_is_no_text(self, folder, tmp_path):
        root = tmp_path / os.fsdecode(b"data_\xff")
        root.mkdir()
        folder.parent.parent.rename(root / "synthetic_humans")
        with pytest.raises(UserError, match="is no text in UTF-8.*rename it") as told:
            open_prepared("synthetic_humans", root)
        assert str(told.value).isascii() and "damaged" not in str(told.value)
        self.refused(root / folder.relative_to(tmp_path), "is no text in UTF-8")
        with pytest.raises(UserError, match="is no text in UTF-8"):
            prepare_raw("lsp", tmp_path, root / "new")
        assert not (root / "new").exists()

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_folders_that_cannot_be_listed_are_not_empty(self, folder, monkeypatch, depth):
        root = folder.parent.parent.parent
        closed = (folder, folder.parent, folder.parent.parent)[depth]
        withhold(monkeypatch, closed / "dataset_info.json" if depth == 0 else closed, "Permission denied")
        with pytest.raises(UserError, match=re.escape(str(closed)) + ".* cannot be read .Permission denied"):
            find_prepared("synthetic_humans", root)

    def test_a_closed_folder_of_another_config_is_no_matter(self, folder, monkeypatch):
        (folder.parent.parent / "other" / "1.0.0").mkdir(parents=True)
        withhold(monkeypatch, folder.parent.parent / "other", "Permission denied")
        root = folder.parent.parent.parent
        assert find_prepared(f"synthetic_humans/{folder.parent.name}", root) == folder
        with pytest.raises(UserError, match="other cannot be read"):
            find_prepared("synthetic_humans", root)

    @pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
    def test_descriptions(self, folder, name):
        (folder / name).write_text("{")
        self.refused(folder, "is damaged")

    @pytest.mark.parametrize("text", ["{}", "[1]", '{"skeleton": "human36m17", "image_size": "64"}', "{"])
    def test_metadata(self, folder, text):
        (folder / "metadata.json").write_text(text)
        self.refused(folder, "metadata.json")

    def test_an_empty_folder_and_a_foreign_file(self, folder):
        before = open_prepared("synthetic_humans", folder.parent.parent.parent).fingerprint
        (folder / ".DS_Store").write_text("x")
        assert open_prepared("synthetic_humans", folder.parent.parent.parent).fingerprint == before
        shutil.rmtree(folder)
        folder.mkdir()
        self.refused(folder, "no prepared synthetic_humans|is unfinished; delete")


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_moves_picture_joints_and_pose_as_one_camera(dataset, seed):
    """The changed pose, put before the changed camera, projects onto the changed 2D joints."""
    example = dataset.split("train")[seed * 7]
    change = draw_change(np.random.default_rng(seed), FULL)
    sample = samples.make_sample(example, H36M, H36M, 16, 24, change)
    camera = samples.camera_of(example)
    points = world_to_camera(example["joints_world_mm"].astype(np.float64), camera)
    turned = points @ frame_map(change).T
    intrinsics = pixel_map(change, 16, 24) @ camera.intrinsics @ np.linalg.inv(frame_map(change))
    order = list(H36M.flip) if change.flip else list(range(17))
    np.testing.assert_allclose(camera_to_image(turned, intrinsics)[order], sample["joints2d"], atol=1e-2)
    np.testing.assert_allclose((turned - turned[:1])[order], sample["pose_mm"], atol=0.05)


def test_picture_follows_its_joints():
    """A white dot drawn at a joint is found where the joint went."""
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(image, (20, 36), 2, (255, 255, 255), -1)
    for seed in range(8):
        change = draw_change(np.random.default_rng(seed), dataclasses.replace(FULL, colour=0.0))
        moved = change_image(image, change, 48).astype(float).sum(-1)
        expected = apply_affine(pixel_map(change, 64, 48), np.array([[20.0, 36.0]]))[0]
        if (expected < 4).any() or (expected > 43).any():
            continue
        ys, xs = np.mgrid[:48, :48]
        found = np.array([(moved * xs).sum(), (moved * ys).sum()]) / moved.sum()
        np.testing.assert_allclose(found, expected, atol=0.25)


def test_flipping_twice_is_the_identity(dataset):
    example = dataset.split("train")[0]
    plain = samples.make_sample(example, H36M, H36M, 16, 16, Change())
    flipped = samples.make_sample(example, H36M, H36M, 16, 16, Change(flip=True))
    order = list(H36M.flip)
    np.testing.assert_allclose(flipped["pose_mm"][order] * [-1, 1, 1], plain["pose_mm"], atol=1e-3)
    np.testing.assert_allclose(15 - flipped["joints2d"][order][:, 0], plain["joints2d"][:, 0], atol=1e-4)
    np.testing.assert_array_equal(flipped["image"][:, ::-1], plain["image"])


def test_switching_one_change_off_leaves_the_others_draws_alone():
    on = draw_change(np.random.default_rng(5), FULL)
    off = draw_change(np.random.default_rng(5), dataclasses.replace(FULL, rotation_deg=0.0, colour=0.0))
    assert (off.angle, off.gain, off.brightness) == (0, (1, 1, 1), 0)
    assert (on.box, on.flip, on.zoom) == (off.box, off.flip, off.zoom)


def test_other_layouts_are_converted_by_name(dataset):
    example = dataset.split("train")[4]
    full = samples.make_sample(example, H36M, H36M, 16, 16, Change())
    lsp = samples.make_sample(example, H36M, LSP, 16, 16, Change())
    hips = full["pose_mm"][[1, 4]].mean(0)
    np.testing.assert_allclose(lsp["pose_mm"][LSP.index("left_wrist")], full["pose_mm"][13] - hips, atol=1e-2)
    assert samples.make_sample(example, H36M, MPII, 16, 16, Change(flip=True))["pose_mm"].shape == (16, 3)


def test_training_batches_depend_on_the_seed_alone(dataset):
    first, second, other = iterator(dataset), iterator(dataset), iterator(dataset, seed=4)
    for _ in range(3):
        a, b, c = next(first), next(second), next(other)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert not np.array_equal(a["pose_mm"], c["pose_mm"])


def test_paper_augmentation_shares_one_crop_in_a_batch(dataset):
    config = dataclasses.replace(AUGMENTATIONS["paper"], crop_probability=1.0)
    plain = {p.tobytes(): p for p in (samples.make_sample(dataset.split("train")[i], H36M, H36M, 16, 16, Change())
                                      ["pose_mm"] for i in range(56))}  # fmt: skip
    by_pose = {key: i for i, key in enumerate(plain)}
    data, shifts = iterator(dataset, augment=config), []
    for _ in range(4):
        batch = next(data)
        for pose, joints in zip(batch["pose_mm"], batch["joints2d"], strict=True):
            index = by_pose[pose.tobytes()]
            stored = dataset.split("train")[index]["joints2d_px"]
            shifts.append(((joints + 0.5) / (16 / 14) - (stored + 0.5))[0])
    shifts = np.array(shifts).reshape(4, 4, 2)
    np.testing.assert_allclose(shifts, shifts[:, :1] + np.zeros_like(shifts), atol=1e-3)
    assert np.abs(np.diff(shifts[:, 0], axis=0)).max() > 0.01, "batches differ"


@pytest.mark.parametrize(("batch_size", "processes"), [(5, 1), (16, 1), (56, 1), (100, 1), (12, 3), (1, 2), (5, 3)])
def test_t20_evaluation_sees_every_frame_once(dataset, batch_size, processes):
    seen, lengths = [], []
    for index in range(processes):
        batches = list(
            eval_batches(
                dataset,
                "test",
                target=H36M,
                image_size=16,
                batch_size=batch_size,
                process_index=index,
                process_count=processes,
            )  # fmt: skip
        )
        lengths.append(len(batches))
        assert all(len(batch["image"]) == -(-batch_size // processes) for batch in batches)
        seen += [i for batch in batches for i in batch["index"][batch["mask"]]]
    assert sorted(seen) == list(range(56)) and len(set(lengths)) == 1


def test_pose_statistics_by_hand(dataset):
    mean, std = pose_statistics(dataset, H36M)
    train = dataset.split("train")
    poses = np.stack([samples.camera_pose_mm(train[i], H36M, "")[0] for i in range(56)])
    np.testing.assert_allclose(mean, poses.mean(0), atol=1e-2)
    np.testing.assert_allclose(std, np.maximum(poses.std(0), 1), rtol=1e-4)
    assert (std[0] == 1).all()


def test_unknown_root_hides_the_pose(dataset):
    example = {**dataset.split("train")[0], "valid": np.arange(17) != 0}
    assert not samples.make_sample(example, H36M, H36M, 16, 16, Change())["valid"].any()


def test_missing_split_and_folder(dataset, tmp_path):
    with pytest.raises(UserError, match="no split 'tset'; it has train, validation, test"):
        dataset.split("tset")
    with pytest.raises(UserError, match="fusion-jax prepare synthetic_humans"):
        open_prepared("synthetic_humans", tmp_path / "nowhere")


@pytest.fixture(scope="module")
def live():
    from data_pipelines.synthetic_humans.live import open_live

    return open_live(16, seed=0, num_subjects=3)


class TestLive:
    def test_batches_are_new_pictures_of_known_poses(self, live):
        data = iterator(live, batch_size=4)
        first, second = next(data), next(data)
        assert jax.tree.leaves(first["scene"])[0].shape[0] == 4
        pictures = np.asarray(live.render(first["scene"]))
        assert pictures.shape == (4, 16, 16, 3) and pictures.dtype == np.uint8 and pictures.std() > 5
        assert "head_size_px" not in first and 0.05 * 16 < live.split("test")[3]["head_size_px"] < 0.3 * 16
        jax.tree.map(np.testing.assert_array_equal, next(iterator(live, batch_size=4, start=1)), second)
        with pytest.raises(AssertionError):
            jax.tree.map(np.testing.assert_array_equal, first, second)

    def test_scene_pose_and_2d_joints_are_of_one_camera(self, live):
        """The bank's world joints before the scene's camera give the batch's pose and 2D joints."""
        split, indices = live.split("train"), [0, 9, 40]
        batch = split.batch(indices, np.random.default_rng(1))
        scene = batch["scene"]
        camera = Camera(scene.rot_world_to_cam, scene.cam_center_mm, scene.intrinsics, np.zeros((3, 5)))
        joints = np.stack([sequence.joints_mm[0] for sequence in self.first_frames(indices)])
        points = world_to_camera(joints.astype(np.float64), camera)
        np.testing.assert_allclose(batch["pose_mm"], points - points[:, :1], atol=0.01)
        np.testing.assert_allclose(batch["joints2d"], camera_to_image(points, camera.intrinsics), atol=0.01)

    @staticmethod
    def first_frames(indices):
        settings = SyntheticSettings(size=16, num_subjects=3, seed=0)
        frames = [
            sequence._replace(joints_mm=sequence.joints_mm[i : i + 1])
            for sequence in sequences(settings, "train", None)
            for i in range(len(sequence.joints_mm))
        ]
        return [frames[index] for index in indices]

    def test_evaluation_does_not_depend_on_the_batch_size(self, live):
        def collect(size):
            batches = eval_batches(live, "test", target=H36M, image_size=16, batch_size=size, limit=6)
            parts = [(b["pose_mm"][b["mask"]], b["joints2d"][b["mask"]]) for b in batches]
            return [np.concatenate(part) for part in zip(*parts, strict=True)]

        for a, b in zip(collect(2), collect(5), strict=True):
            np.testing.assert_array_equal(a, b)
