"""Training on several datasets at once: shares, order, layouts, and what cannot go together."""

import dataclasses
import re
import shutil
import types

import jax
import numpy as np
import pytest
import small

from data_pipelines.augment import Change
from data_pipelines.loader import eval_batches, train_iterator
from data_pipelines.samples import change_heatmap
from data_pipelines.synthetic_humans.live import open_live
from fusion_jax import evaluate as evaluate_module
from fusion_jax import scoring
from fusion_jax import start as start_module
from fusion_jax import train as train_module
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.datasets import check_joints2d, check_trainable, mixture_name, open_dataset, open_mixture, parse_mixture
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run, example_labels
from fusion_jax.geometry import root_relative
from fusion_jax.leakage import Seen
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.protocols import PROTOCOLS
from fusion_jax.skeletons import convert_joints, skeleton
from fusion_jax.start import training_data
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import DatasetRecord, load_run, load_seen, save_run

H36M, LSP = skeleton("human36m17"), skeleton("lsp14")
QUIET = LoopOptions(show=False, eval_every=0)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two prepared datasets of different people, and their names."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(small.data_dir() / "synthetic_humans", folder / "synthetic_humans")
    other = prepare_synthetic_humans(folder, size=small.SIZE, num_subjects=3, frames=1, seed=1)
    return folder, base_dataset().name, f"synthetic_humans/{other.parent.name}"


def base_dataset(**fields):
    return dataclasses.replace(open_dataset("synthetic_humans", small.data_dir(), small.SIZE), **fields)


def opened_as(monkeypatch, *datasets):
    """Lets `train` open these."""
    monkeypatch.setattr(start_module, "open_mixture", lambda *_: [(opened, 1.0) for opened in datasets])


def poses_of(opened, split):
    """What tells a sample's example: its pose."""
    (batch,) = eval_batches(opened, split, target=H36M, image_size=small.SIZE, batch_size=len(opened.split(split)))
    return {pose.tobytes() for pose in batch["pose_mm"]}


def trained_poses(config, datasets, number):
    data = training_data(config, datasets)
    try:
        return [pose.tobytes() for _ in range(number) for pose in next(data)["pose_mm"]]
    finally:
        data.close()


class Constant:
    """Examples whose every joint stands at x = `mark` of the first camera, z = the example's number."""

    def __init__(self, layout, mark, count, **extra):
        self.layout, self.mark, self.count, self.extra = layout, mark, count, extra

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        example = dict(open_dataset("synthetic_humans", small.data_dir(), small.SIZE).split("train")[0])
        j = self.layout.num_joints
        joints = np.zeros((j, 3))
        joints[4] = [self.mark, 0, index]
        known = np.ones(j, bool)
        camera = {**example["camera"], "rot_world_to_cam": np.eye(3), "cam_center_mm": np.zeros(3)}
        return example | {
            "joints_world_mm": joints, "joints2d_px": np.zeros((j, 2)), "valid": known, "valid2d": known,
            "visible": known, "camera": camera, **self.extra,
        }  # fmt: skip


def dataset(layout, mark, count, name, **extra):
    base = open_dataset("synthetic_humans", small.data_dir(), small.SIZE)
    return dataclasses.replace(
        base, name=name, family=name, skeleton=layout, splits={"train": Constant(layout, mark, count, **extra)}
    )


def batches(datasets, number, *, augment="none", start=0, seed=0, **extra):
    iterator = train_iterator(
        datasets, target=LSP, image_size=small.SIZE, augment=AUGMENTATIONS[augment], batch_size=8, seed=seed,
        start=start, **extra,
    )  # fmt: skip
    try:
        return [next(iterator) for _ in range(number)]
    finally:
        iterator.close()


def test_shares_follow_the_weights_and_layouts_the_target():
    one, other = dataset(H36M, 100, 3, "one"), dataset(LSP, 200, 50, "other")
    poses = np.concatenate([batch["pose_mm"] for batch in batches([(one, 1.0), (other, 3.0)], 10)])
    assert poses.shape == (80, 14, 3)
    knee_h36m = np.isclose(poses[..., 0].max(1) - poses[..., 0].min(1), 100)  # joint 4 there: the left hip
    assert knee_h36m.sum() == 20, "a quarter, and exactly: the mix is no lottery"


def test_batch_n_of_a_mixture_is_the_same_from_anywhere():
    pair = [(dataset(LSP, 100, 5, "one"), 1.0), (dataset(LSP, 200, 7, "other"), 2.0)]
    for augment in ("light", "paper"):
        run = batches(pair, 4, augment=augment)
        late = batches(pair, 1, augment=augment, start=3)[0]
        shares = [batches(pair, 1, augment=augment, start=3, process_index=i, process_count=2)[0] for i in range(2)]
        for name in run[3]:
            np.testing.assert_array_equal(run[3][name], late[name])
            np.testing.assert_array_equal(late[name], np.concatenate([share[name] for share in shares]))
    assert not np.array_equal(batches(pair, 1, seed=1)[0]["pose_mm"], batches(pair, 1)[0]["pose_mm"])


def test_stored_heatmaps_do_not_mix_with_made_ones():
    plain = dataset(LSP, 100, 5, "plain")
    stored = dataset(LSP, 100, 5, "stored", heatmap=np.ones((8, 8, 16), np.float32))
    assert batches(stored, 1)[0]["heatmap"].shape == (8, 8, 8, 16)
    with pytest.raises(UserError, match="stored brings heatmaps of its own"):
        batches([(plain, 1.0), (stored, 1.0)], 1)


def test_heatmaps_change_with_their_picture():
    """A spot of the right ankle's channel at (x, y) = (1, 2) of 8: mirrored it is the left ankle's at (6, 2)."""
    heatmap = np.zeros((8, 8, 16), np.float32)
    heatmap[2, 1, 0] = 1
    np.testing.assert_array_equal(change_heatmap(heatmap, Change(), "x"), heatmap)
    flipped = change_heatmap(heatmap, Change(flip=True), "x")
    assert flipped[2, 6, 5] == pytest.approx(1) and flipped.sum() == pytest.approx(1)
    zoomed = change_heatmap(heatmap, Change(box=(0.0, 0.0, 0.5)), "x")  # the upper left quarter, twice as large
    assert np.unravel_index(zoomed[..., 0].argmax(), (8, 8)) in {(4, 2), (5, 2), (4, 3), (5, 3)}
    for wrong, message in ((heatmap[..., :3], r"expected \(h, h, 16\)"), (heatmap * np.nan, "not finite")):
        with pytest.raises(UserError, match=message):
            change_heatmap(wrong, Change(), "x")


@pytest.mark.parametrize("text", ["", "a=0", "a=x", "a,", "a=nan", "a=-1", "a=inf", "=2", "a=9e-4", "a=1001"])
def test_texts_that_name_no_mixture(text):
    with pytest.raises(UserError, match="expected NAME or NAME=WEIGHT"):
        parse_mixture(text)


def test_texts_that_do():
    assert parse_mixture("a=0.001,b=1000") == [("a", 0.001), ("b", 1000.0)]
    assert parse_mixture("a") == [("a", 1.0)] and parse_mixture("a=3, b/c=0.5") == [("a", 3.0), ("b/c", 0.5)]
    with pytest.raises(UserError, match="names a twice"):
        parse_mixture("a,b,a=2")
    with pytest.raises(UserError, match="cannot be mixed"):
        open_mixture("synthetic_humans,synthetic_humans/live", small.data_dir(), 16)


def test_live_people_come_in_the_networks_layout():
    live = open_live(16, seed=0, num_subjects=3)
    few = dataclasses.replace(live, splits={"train": live.split("train"), "test": live.split("test")})
    (batch,) = batches(few, 1)
    assert batch["pose_mm"].shape == (8, 14, 3) and batch["joints2d"].shape == (8, 14, 2) and batch["valid"].all()
    np.testing.assert_allclose(batch["pose_mm"][:, 2] + batch["pose_mm"][:, 3], 0, atol=1e-2)  # hips about their mean
    seen = next(eval_batches(few, "test", target=LSP, image_size=16, batch_size=2))
    example = live.split("test")[0]
    expected = root_relative(convert_joints(example["pose_mm"], H36M, LSP), LSP.root_indices)
    np.testing.assert_allclose(seen["pose_mm"][0], expected, rtol=1e-5, atol=1e-3)


def test_one_dataset_under_two_names_is_refused(two):
    folder, first, other = two
    shutil.copytree(folder / "synthetic_humans" / other.partition("/")[2], folder / "mine" / "config")
    text = "mine,mine/config"
    with pytest.raises(UserError, match=f"^dataset '{text}' names mine/config twice; give it one weight$"):
        open_mixture(text, folder, small.SIZE)
    third = 1 / 3
    opened = open_mixture(f"{first}={third!r},{other}=2", folder, small.SIZE)
    assert mixture_name(opened) == f"{first}={third!r},{other}=2"
    assert parse_mixture(mixture_name(opened)) == [(first, third), (other, 2.0)]


def test_a_mixture_trains_resumes_and_is_tested_on_its_first(two, tmp_path, monkeypatch):
    folder, first, other = two
    real, handed = train_module.training_data, []

    def recorded(config, datasets, *rest):
        handed.append([(opened.name, weight) for opened, weight in datasets])
        return real(config, datasets, *rest)

    monkeypatch.setattr(train_module, "training_data", recorded)
    mixture = f"{first}=3,{other}=1"
    config = small.config(steps=6, dataset=mixture)
    whole = train(config, folder, tmp_path / "whole", QUIET)
    train(config, folder, tmp_path / "parts", dataclasses.replace(QUIET, stop_after=3))
    parts = train(config, folder, tmp_path / "parts", QUIET)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert load_run(tmp_path / "parts")[0].dataset == mixture
    assert [part.dataset for part in load_seen(tmp_path / "parts")] == [first, other]
    assert handed == 3 * [[(first, 3.0), (other, 1.0)]]
    result = evaluate_run(tmp_path / "parts", batch_size=8)
    assert (result["dataset"], result["split"], result["name"]) == (first, "test", "test")
    assert result["protocol"]["training data"] == [first, other] and "warning" not in result["protocol"]


def test_batches_of_training_hold_both_datasets_by_their_weights(two):
    folder, first, other = two
    config = small.config(dataset=f"{first}=3,{other}=1", augment="none")
    datasets = open_mixture(config.dataset, folder, small.SIZE)
    known = [poses_of(opened, "train") for opened, _ in datasets]
    assert not known[0] & known[1]
    trained = trained_poses(config, datasets, 4)
    assert [sum(pose in poses for pose in trained) for poses in known] == [24, 8]


def test_training_on_everybody_has_validation_people_in_its_batches():
    opened = base_dataset()
    held_out, training = poses_of(opened, "validation"), poses_of(opened, "train")
    assert not held_out & training
    number = 2 * len(training) // 8
    trained = {
        split: set(trained_poses(small.config(augment="none", train_split=split), [(opened, 1.0)], number))
        for split in ("train", "train+validation")
    }
    assert trained["train"] == training
    assert trained["train+validation"] == training | held_out


def test_training_refuses_a_person_in_two_splits(tmp_path, monkeypatch):
    base = base_dataset()
    split_badly = dataclasses.replace(base, subjects={"train": ["S01", "S02"], "test": ["S02"]})
    cousin = dataclasses.replace(base, name="cousin/x", subjects={"train": ["S03"]})
    again = "prepare it again with splits that have nobody in common"
    for datasets, message in (
        ([split_badly], f"S02 is in both train of {base.name} and test of {base.name}; {again}"),
        ([base, cousin], f"S03 is in both test of {base.name} and train of cousin/x; {again}"),
    ):
        opened_as(monkeypatch, *datasets)
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            train(small.config(), small.data_dir(), tmp_path / "run", QUIET)
        assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("person, split", [("S02", "validation"), ("S03", "test")])
def test_training_refuses_to_go_on_from_who_had_seen_its_held_out_people(person, split, tmp_path, monkeypatch):
    base = base_dataset()
    before = Seen(base.name, base.family, False, (person,), {})
    monkeypatch.setattr(start_module, "init_from", lambda state, *_: (state, [before]))
    monkeypatch.setattr(start_module, "adopt_live", lambda config, *_: config)  # which reads that run as well
    message = (
        f"{person} of {base.name}'s {split} split was trained on (as {base.name}); a score on what training has seen "
        "says nothing. Test on another dataset, or train without them"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        train(small.config(init_from="x"), small.data_dir(), tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_dataset_without_2d_joints_makes_no_heatmaps():
    opened = base_dataset()
    examples = [opened.split("train")[n] for n in range(4)]
    dark = [example | {"valid2d": np.zeros(17, bool)} for example in examples]
    flat = base_dataset(name="dark/x", splits={"train": dark, "test": examples, "validation": []})
    check_trainable([opened, flat], H36M, "train")  # true heatmaps may be the dataset's own
    check_trainable([opened, open_live(small.SIZE, 0, 3)], H36M, "train", joints2d=True)
    for split in ("test", "validation"):
        check_joints2d(flat, split)
    with pytest.raises(UserError, match="^dark/x has no 2D joints in train; "):
        check_trainable([opened, flat], H36M, "train", joints2d=True)
    flat.splits["train"] = [*dark, examples[0]]
    check_trainable([flat], H36M, "train", joints2d=True)


def test_training_refuses_what_it_cannot_learn_from_before_it_begins(tmp_path, monkeypatch):
    flat = dataset(LSP, 100, 5, "flat/x", valid=np.zeros(14, bool))
    opened_as(monkeypatch, dataset(LSP, 100, 5, "solid/x"), flat)
    config = small.config(skeleton="lsp14")
    message = "flat/x has no 3D poses; it would only dilute the loss; leave it out of the mixture"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        train(config, small.data_dir(), tmp_path / "run", QUIET)
    opened_as(monkeypatch, base_dataset(), dataset(LSP, 100, 5, "solid/x"))
    with pytest.raises(UserError, match="^solid/x: cannot convert lsp14 joints to human36m17: .* spine, nose"):
        train(small.config(), small.data_dir(), tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "config.json").exists()


def test_doubts_on_who_is_seen_are_said_once(tmp_path, monkeypatch, capsys):
    base = base_dataset()
    nameless = dataclasses.replace(
        base, name="twin/x", subjects={}, provenance={}, splits={"train": base.split("train")}
    )
    opened_as(monkeypatch, base, nameless)
    train(small.config(steps=1), small.data_dir(), tmp_path / "run", dataclasses.replace(QUIET, show=True))
    doubt = f"cannot tell whether {base.name} and twin/x share people"
    assert capsys.readouterr().out.count(f"warning: {doubt}\n") == 1
    result = evaluate_run(tmp_path / "run", data_dir=small.data_dir(), batch_size=8)
    assert result["protocol"]["warning"] == doubt


def benchmark_of(monkeypatch, opened, seen, split="test", warnings=(), **fields):
    """What `score_protocol` is told of an evaluation."""
    monkeypatch.setattr(scoring, "score_protocol", lambda *_, **told: types.SimpleNamespace(**told))
    config = small.config(**fields)
    feed = evaluate_module.Feed(config, config, None, "", "")
    return evaluate_module._benchmark(PROTOCOLS["human36m"], {}, opened, split, seen, feed, warnings)


def test_the_protocol_counts_the_training_people_of_its_own_family(monkeypatch):
    parts = [Seen("a/x", "a", False, ("S1", "S7"), {}), Seen("b/x", "b", False, ("S5",), {})]
    parts += [Seen("a/y", "a", False, ("S6",), {})]
    told = benchmark_of(monkeypatch, base_dataset(family="a"), parts)
    assert told.training_subjects == ["S1", "S6", "S7"]


def test_the_protocol_is_told_what_was_done_otherwise(monkeypatch):
    own, strangers = [Seen("a/x", "a", False, ("S1",), {})], [Seen("b/x", "b", False, ("S1",), {})]
    opened = base_dataset(family="a", description={"boxes": "round"})
    given, without = (
        "the network is given the true 2D joints, as heatmaps",
        "trained without the held-out validation part",
    )
    told = benchmark_of(monkeypatch, opened, own, "validation", ["doubtful"])
    assert told.differs == [given, without] and (told.split, told.warnings) == ("validation", ["doubtful"])
    assert told.network_input == "16 px crops; heatmaps from true 2D joints" and told.description == {"boxes": "round"}
    assert benchmark_of(monkeypatch, opened, own, train_split="train+validation").differs == [given]
    assert benchmark_of(monkeypatch, opened, strangers).differs == [given]
    seeing = benchmark_of(monkeypatch, opened, strangers, strategy="image")
    assert seeing.differs == [] and seeing.network_input == "16 px crops; nothing else"
    stored = dataset(LSP, 100, 5, "stored", heatmap=np.ones((8, 8, 16), np.float32))
    told = benchmark_of(monkeypatch, dataclasses.replace(stored, splits={"test": stored.split("train")}), strangers)
    assert told.differs == [] and told.network_input == "16 px crops; heatmaps stored with the data"


def test_a_layout_that_the_protocol_cannot_score_is_refused_at_once(tmp_path, monkeypatch):
    save_run(tmp_path, small.config(), DatasetRecord("a", "b", "c"), [])
    monkeypatch.setattr(scoring, "open_dataset", lambda *_: base_dataset(name="lsp/x"))
    with pytest.raises(UserError, match="lsp scores neck, which skeleton human36m17 lacks"):
        evaluate_run(tmp_path, dataset="lsp")


def test_a_baseline_without_3d_to_average_is_unknown():
    flat = dataset(LSP, 100, 5, "flat", valid=np.arange(14) > 1)
    frames = {"valid": np.ones((2, 14), bool)}
    assert not evaluate_module._baseline(flat, frames, LSP)["valid"].any()


def test_each_example_is_read_once_with_its_labels():
    read, first = [], base_dataset().split("test")[0]

    class Counted:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            read.append(index)
            return first | {"camera_name": "abc"[: index + 1], "head_size_px": index}

    counted = base_dataset(splits={"test": Counted()})
    tell = lambda example: example_labels(example, enlarged=2.0)  # noqa: E731
    got = list(eval_batches(counted, "test", target=H36M, image_size=16, batch_size=3, labels=tell))
    labels = got[0]["labels"]
    assert labels["camera_name"].tolist() == ["a", "ab", "abc"] and labels["head_size_px"].tolist() == [0, 2, 4]
    assert sorted(read) == [0, 1, 2]


def test_training_on_everybody_says_so_and_is_not_validated(tmp_path, capsys):
    config = small.config(steps=1, train_split="train+validation")
    train(config, small.data_dir(), tmp_path / "run", LoopOptions())
    assert "no validation on the way" in capsys.readouterr().out
    result = evaluate_run(tmp_path / "run", "validation", batch_size=8)
    assert result["protocol"]["warning"] == "the network was trained on these frames"
    assert result["protocol"]["training subjects"] == ["S01", "S02"]
    assert "warning" not in evaluate_run(tmp_path / "run", batch_size=8)["protocol"]


def test_who_was_trained_on_elsewhere_is_refused_as_a_test_person(tmp_path, monkeypatch):
    """The same data under another name: its test person was a training person there."""
    config = small.config(steps=1)
    train(config, small.data_dir(), tmp_path / "run", LoopOptions(show=False, eval_every=0))
    base = open_dataset("synthetic_humans", small.data_dir(), small.SIZE)
    assert Seen.of(base, ["train"]).family == "synthetic_humans/seed0"
    swapped = dataclasses.replace(
        base, name="other/config", splits={"test": base.split("train")}, subjects={"test": base.subjects["train"]}
    )
    monkeypatch.setattr("fusion_jax.scoring.open_dataset", lambda *_: swapped)
    with pytest.raises(UserError, match="S01 of other/config's test split was trained on .as synthetic_humans/16px"):
        evaluate_run(tmp_path / "run", dataset="other")
