"""Who acts out what: splits of people and of performers, and captured motion from files to prepared data."""

import pathlib

import numpy as np
import pytest

from data_pipelines.prepared import open_prepared
from data_pipelines.samples import text
from data_pipelines.synthetic_humans.clips import Clip
from data_pipelines.synthetic_humans.mocap import load_clips
from data_pipelines.synthetic_humans.sequences import (
    SyntheticSettings,
    motion_digest,
    overlapping_performers,
    sequences,
    split_clips,
    split_subjects,
)
from fusion_jax.errors import UserError
from fusion_jax.prepare import prepare_synthetic_humans
from fusion_jax.skeletons import skeleton

MOCAP = pathlib.Path(__file__).parent.parent.parent / "shared" / "mocap"
needs_mocap = pytest.mark.skipif(not MOCAP.is_dir(), reason="real motion-capture clips are not beside the project")


def clip(performer, name="x", frames=5):
    return Clip(performer, name, f"{performer}_{name}", 5.0, np.zeros((frames, 17, 3), np.float32))


@pytest.mark.parametrize("count", [3, 4, 5, 8, 16, 33])
def test_everybody_is_in_one_split(count):
    splits = split_subjects(count)
    assert sorted(n for numbers in splits.values() for n in numbers) == list(range(count))
    assert all(splits.values())


def test_performers_are_split_too():
    clips = [clip(p, n) for p in ("01", "02", "14", "60", "135") for n in "ab"]
    uneven = [*clips, clip("99", "short", frames=1), clip("98", "long", frames=40)]
    by_default = split_clips(uneven, ())  # 91 frames: 99 alone holds no tenth of them, with 01 it does
    assert {c.performer for c in by_default["test"]} == {"99", "01"} and not overlapping_performers(by_default)
    chosen = split_clips(clips, ("02", "135"))
    assert {c.performer for c in chosen["test"]} == {"02", "135"}
    assert {c.performer for c in chosen["train"]} == {"01", "14", "60"} and len(chosen["train"]) == 6


def test_performers_that_cannot_be_split():
    assert overlapping_performers(split_clips([clip("01", "a"), clip("01", "b")], ())) == ["01"]
    with pytest.raises(UserError, match="test performer '7' is in no clip; the clips have 01"):
        split_clips([clip("01")], ("7",))
    with pytest.raises(UserError, match="leave at least one to train on"):
        split_clips([clip("01"), clip("01", "b")], ("01",))
    with pytest.raises(UserError, match="leave at least one to train on"):
        split_clips([clip("01"), clip("02")], ("01", "02"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 8), ("num_subjects", 2), ("frames", 0), ("fps", 0), ("fps", float("inf")), ("test_performers", ("02",))],
)
def test_bad_settings(field, value):
    with pytest.raises(UserError, match=field):
        SyntheticSettings(**{field: value})


def test_sequences_do_not_depend_on_each_other():
    """The same person does the same whether or not others are there."""
    few, many = (SyntheticSettings(num_subjects=n, frames=3) for n in (3, 8))
    first = {s.name: s.joints_mm for s in sequences(few, "train", None)}
    for sequence in sequences(many, "train", None):
        if sequence.subject == "S01":
            np.testing.assert_array_equal(sequence.joints_mm, first[sequence.name])


@needs_mocap
def test_captured_motion_keeps_directions_and_takes_the_persons_bones():
    settings = SyntheticSettings(num_subjects=3, frames=4, motion=str(MOCAP))
    bones = skeleton("human36m17").bones
    clips = split_clips(load_clips(MOCAP, 5.0), ("02", "135"))
    for split, names in (("train", 8), ("test", 3)):
        drawn = list(sequences(settings, split, clips))
        assert len(drawn) == names
        for sequence in drawn:
            lengths = np.array([np.linalg.norm(sequence.joints_mm[:, c] - sequence.joints_mm[:, p], axis=-1)
                                for p, c in bones])  # fmt: skip
            np.testing.assert_allclose(lengths, sequence.person.bone_lengths_mm[:, None] + 0 * lengths, atol=0.1)
            assert np.abs(sequence.joints_mm[:, 0, :2]).max() < 1500 and sequence.joints_mm[..., 2].min() > -150


@needs_mocap
def test_prepare_from_real_motion(tmp_path):
    chosen = ("02", "135")
    prepare_synthetic_humans(
        tmp_path, size=16, num_subjects=3, frames=1, motion=str(MOCAP), test_performers=chosen
    )  # fmt: skip
    dataset = open_prepared("synthetic_humans", tmp_path)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 32, "validation": 32, "test": 12}
    assert dataset.description["test performers"] == ["02", "135"]
    assert not {text(dataset.split("test")[i]["action"]) for i in range(12)} & {
        text(dataset.split("train")[i]["action"]) for i in range(32)
    }
    assert motion_digest(str(MOCAP)) in str(next((tmp_path / "synthetic_humans").iterdir()))


def test_a_bad_clip_writes_nothing(tmp_path):
    motion, data = tmp_path / "motion", tmp_path / "data"
    motion.mkdir()
    with pytest.raises(UserError, match=r"expected \.bvh files"):
        prepare_synthetic_humans(data, motion=str(motion))
    (motion / "01_a.bvh").write_text("HIERARCHY\nROOT Hips\n{\n")
    with pytest.raises(UserError, match="01_a.bvh"):
        prepare_synthetic_humans(data, motion=str(motion))
    assert not data.exists()
