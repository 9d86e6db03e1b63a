"""What the release's evaluation scores: which frames, by hand, and distances without moving the pelvis."""

import numpy as np
import pytest

import fusion_jax.release_protocol as release_protocol
from data_pipelines.prepared import PoseDataset
from fusion_jax.presets import preset
from fusion_jax.release_protocol import release_rows, release_step, release_text, score_release
from fusion_jax.skeletons import skeleton


@pytest.mark.parametrize("count", [0, 1, 127])
def test_no_whole_batch_no_frame(count):
    assert not len(release_rows(count))


@pytest.mark.parametrize(
    ("count", "runs"),
    [
        (128, [(0, 128)]),
        (511, [(0, 128)]),
        (512, [(0, 128)]),
        (639, [(0, 128)]),  # the fifth batch lacks one frame
        (640, [(0, 128), (512, 640)]),
        (1151, [(0, 128), (512, 640)]),
        (1152, [(0, 128), (512, 640), (1024, 1152)]),
    ],
)
def test_every_fourth_whole_batch(count, runs):
    assert release_rows(count).tolist() == [row for first, stop in runs for row in range(first, stop)]


def test_distances_by_hand(monkeypatch):
    true = np.array([[[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 5]]], np.float32)
    away = true + np.array([0, 3, 4], np.float32)  # 5 mm off, the pelvis too
    mirrored = true * np.array([-2, 2, 2], np.float32)
    for pred, mpjpe in ((away, [5, 5, 5, 5]), (mirrored, [0, 9, 2, 5])):
        monkeypatch.setattr(release_protocol, "predict_step", lambda state, batch, pred=pred: pred)
        found = release_step(None, {"pose_mm": true, "valid": np.ones((1, 4), bool)})
        np.testing.assert_array_equal(found["pred_mm"], pred)
        np.testing.assert_allclose(found["mpjpe"], [mpjpe], rtol=1e-6)
        np.testing.assert_allclose(found["pa_mpjpe_reflection"], np.zeros((1, 4)), atol=1e-5)


def dataset(count):
    return PoseDataset(
        name="any", skeleton=skeleton("human36m17"), image_size=128, splits={"test": range(count)}, subjects={},
        description={}, fingerprint="",
    )  # fmt: skip


def test_only_those_frames_are_scored_and_averaged(monkeypatch):
    def score_split(config, state, chosen, split, mesh, *, step, batch_size):
        assert config.inputs.image_size == 128  # as stored: the device brings them to 112
        assert (state, mesh, step, batch_size) == ("state", "mesh", release_step, 64)
        rows = np.array([chosen.split(split)[place] for place in range(len(chosen.split(split)))])
        assert rows.tolist() == [*range(128), *range(512, 640)]
        distances = np.stack([rows, rows + 2.0], axis=1)
        valid = np.array([[True, True]] * 128 + [[True, False]] * 128)
        return {"mpjpe": distances, "pa_mpjpe_reflection": distances / 2, "valid": valid}

    monkeypatch.setattr(release_protocol, "score_split", score_split)
    found = score_release(preset("paper"), "state", dataset(700), "test", "mesh", 64)
    assert found["num_frames"] == 256
    assert found["mpjpe_mm"] == pytest.approx((63.5 + 1 + 575.5) / 2)
    assert found["pa_mpjpe_reflection_mm"] == pytest.approx((63.5 + 1 + 575.5) / 4)
    assert "from 128 px to 112 px" in found["protocol"]["pictures"]
    ours = {"mpjpe_mm": 80.04, "pa_mpjpe_reflection_mm": None, "num_frames": 700}
    lines = release_text(ours | {"release": found}).splitlines()
    assert lines[2:4] == ["| as the release scores | 320.0 | 160.0 | 256 |", "| as we score | 80.0 | n/a | 700 |"]
    assert (
        "- the release's root: the predicted pelvis is left where it is, and its distance counts. Ours: moved"
        in "\n".join(lines)
    )


def test_too_few_frames_for_one_batch_give_no_number():
    found = score_release(preset("paper"), None, dataset(127), "test", None, 64)
    assert found["num_frames"] == 0 and found["mpjpe_mm"] is None and found["pa_mpjpe_reflection_mm"] is None
    ours = {"mpjpe_mm": 80.0, "pa_mpjpe_reflection_mm": 60.0, "num_frames": 127, "release": found}
    assert "| as the release scores | n/a | n/a | 0 |" in release_text(ours)
