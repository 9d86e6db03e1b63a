"""Training on several datasets at once: shares, order, layouts, and what cannot go together."""

import dataclasses

import numpy as np
import pytest
import small

from data_pipelines.augment import Change
from data_pipelines.loader import eval_batches, train_iterator
from data_pipelines.samples import change_heatmap
from data_pipelines.synthetic_humans.live import open_live
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.datasets import open_dataset, open_mixture, parse_mixture
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.geometry import root_relative
from fusion_jax.leakage import Seen
from fusion_jax.skeletons import convert_joints, skeleton
from fusion_jax.train import LoopOptions, train

H36M, LSP = skeleton("human36m17"), skeleton("lsp14")


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
            interleaved = np.stack([share[name] for share in shares], axis=1).reshape(late[name].shape)
            np.testing.assert_array_equal(late[name], interleaved)
    assert not np.array_equal(batches(pair, 1, seed=1)[0]["pose_mm"], batches(pair, 1)[0]["pose_mm"])


def test_stored_heatmaps_do_not_mix_with_made_ones():
    plain = dataset(LSP, 100, 5, "plain")
    stored = dataset(LSP, 100, 5, "stored", heatmap=np.zeros((8, 8, 16), np.float32))
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


@pytest.mark.parametrize("text", ["", "a=0", "a=x", "a,", "a=nan", "a=-1", "a=inf", "=2"])
def test_texts_that_name_no_mixture(text):
    with pytest.raises(UserError, match="expected NAME or NAME=WEIGHT"):
        parse_mixture(text)


def test_texts_that_do():
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


def test_a_mixture_trains_resumes_and_is_tested_on_its_first(tmp_path):
    config = small.config(steps=2, dataset="synthetic_humans=3")
    quiet = LoopOptions(show=False, eval_every=0)
    train(config, small.data_dir(), tmp_path / "run", quiet)
    with pytest.raises(UserError, match="S03 of synthetic_humans.* test split was trained on|holds a run"):
        train(small.config(steps=4, dataset="synthetic_humans=3", seed=1), small.data_dir(), tmp_path / "run", quiet)
    assert evaluate_run(tmp_path / "run", batch_size=8)["protocol"]["training subjects"] == ["S01"]


def test_training_on_everybody_says_so_and_is_not_validated(tmp_path, capsys):
    config = small.config(steps=1, train_split="train+validation")
    train(config, small.data_dir(), tmp_path / "run", LoopOptions(show=False))
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
    monkeypatch.setattr("fusion_jax.evaluate.open_dataset", lambda *_: swapped)
    with pytest.raises(UserError, match="S01 of other/config's test split was trained on .as synthetic_humans/16px"):
        evaluate_run(tmp_path / "run", dataset="other")
