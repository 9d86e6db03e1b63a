"""More than two streams: body parts, from the dataset through the loader to a third stream of the network."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from joint_parts import on_their_parts

from data_pipelines import samples
from data_pipelines.augment import Change, change_image, change_parts, draw_change
from data_pipelines.loader import eval_batches, train_iterator
from data_pipelines.prepared import open_prepared
from data_pipelines.synthetic_humans.live import open_live
from fusion_jax import sharding
from fusion_jax.augmentation import AugmentConfig
from fusion_jax.batch import STREAMS, batch_extras, fake_batch, stream_channels
from fusion_jax.body_parts import FLIP, PARTS, part_label
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.inputs import network_inputs
from fusion_jax.network import Conv, Dense, Stream
from fusion_jax.network_pair import NetworkPair
from fusion_jax.scoring import place_batch
from fusion_jax.skeletons import skeleton
from fusion_jax.state import input_shapes
from fusion_jax.steps import train_step
from fusion_jax.train import LoopOptions, train

H36M = skeleton("human36m17")
_PNG_OF_10_GIGAPIXELS = b"\x89PNG\r\n\x1a\n" + bytes.fromhex(
    "0000000d49484452000186a0000186a008000000008d395414"  # the header
    "000000004944415435af061e0000000049454e44ae426082"
)
ANY_CHANGE = AugmentConfig(rotation_deg=40, scale_range=0.3, colour=0.0)
FLIPPED = np.array(FLIP, np.uint8)


@pytest.fixture(scope="module")
def dataset():
    return open_prepared("synthetic_humans", small.data_dir())


# --- the dataset and the loader -------------------------------------------------------------------------------------


def test_stored_parts_are_those_of_the_picture(dataset):
    assert dataset.offers == ("parts",) and dataset.extras == ()
    right, found = [], set()
    for example in (dataset.split("train")[i] for i in range(0, 56, 5)):
        parts = samples.decode_parts(example["parts"], small.SIZE, "x")
        right += on_their_parts(parts, example["joints2d_px"], example["visible"])
        found |= set(parts.ravel().tolist())
    assert len(right) > 100 and np.mean(right) > 0.9 and found == set(range(15))


def test_a_flip_mirrors_parts_and_swaps_sides(dataset):
    example = dataset.split("train")[9]
    plain, flipped = (
        samples.make_sample(example, H36M, H36M, 16, 16, Change(flip=flip), ("parts",))["parts"]
        for flip in (False, True)
    )
    np.testing.assert_array_equal(flipped, FLIPPED[plain[:, ::-1]])
    assert len(np.unique(plain)) > 5
    assert [PARTS[label - 1] for label in FLIP[1:3]] == ["head", "torso"]
    assert FLIP[part_label("left_hand")] == part_label("right_hand") and FLIPPED[FLIPPED].tolist() == list(range(15))


@pytest.mark.parametrize("seed", range(4))
def test_parts_move_as_the_picture(seed):
    """A picture of one part in white, changed, is white where the changed map has that part."""
    parts = np.kron(np.random.default_rng(seed).integers(0, 15, (4, 4)), np.ones((16, 16))).astype(np.uint8)
    change = draw_change(np.random.default_rng(seed), ANY_CHANGE)
    moved = change_parts(parts, change, 48)
    for label in range(15):
        white = np.repeat(np.uint8(255 * (parts == label))[..., None], 3, axis=2)
        share = change_image(white, change, 48)[..., 0] / 255
        expected = moved == (FLIP[label] if change.flip else label)
        assert (expected == (share > 0.5))[np.abs(share - 0.5) > 0.25].all()


def test_asking_for_parts_changes_nothing_else(dataset):
    options = {"target": H36M, "image_size": 24, "augment": ANY_CHANGE, "batch_size": 4, "seed": 3}
    plain, more = (train_iterator(d, **options) for d in (dataset, dataset.with_extras(("parts",))))
    pairs = [(next(plain), next(more)) for _ in range(3)]
    ways = (dataset, dataset.with_extras(("parts",)))
    pairs.append(tuple(next(eval_batches(d, "test", target=H36M, image_size=24, batch_size=4)) for d in ways))
    for one, other in pairs:
        assert other["parts"].shape == (4, 24, 24) and other["parts"].dtype == np.uint8 and other["parts"].any()
        assert other.keys() - one.keys() == {"parts"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, r"does not decode \(0 bytes\)"),
        (b"\x89PNG cut", r"does not decode \(8 bytes, cut off"),
        (_PNG_OF_10_GIGAPIXELS, r"is \(100000, 100000\), expected \(16, 16\)"),
        (np.zeros((8, 8), np.uint8), r"is \(8, 8\), expected \(16, 16\)"),
        (np.zeros((16, 16, 3), np.uint8), r"is \(16, 16, 3\)"),
        (np.zeros((16, 16), np.uint16), r"is \(16, 16\) uint16"),
        (np.full((16, 16), 15, np.uint8), "is .* up to 15, expected .* up to 14"),
    ],
)
def test_broken_parts_are_refused_where_they_are_asked_for(dataset, parts, message):
    example = {**dataset.split("train")[0]}
    example["parts"] = cv2.imencode(".png", parts)[1].tobytes() if isinstance(parts, np.ndarray) else parts
    if parts is None:
        del example["parts"]
    samples.make_sample(example, H36M, H36M, 16, 16, Change())
    with pytest.raises(UserError, match=f"S01/.*/cam1/000000: its map of body parts {message}"):
        samples.make_sample(example, H36M, H36M, 16, 16, Change(), ("parts",))


def test_data_without_parts_is_refused(dataset):
    bare = dataclasses.replace(dataset, offers=())
    assert bare.with_extras(()).extras == ()
    with pytest.raises(
        UserError, match="has no 'parts', which a stream .* from version 1.3.0 on .* synthetic_humans/live"
    ):
        bare.with_extras(("parts",))


def test_live_pictures_bring_their_parts():
    live = open_live(32, seed=0, num_subjects=3)
    mesh = sharding.data_mesh(jax.local_devices()[:1])
    batch = live.split("train").batch([0, 20, 40, 50], np.random.default_rng(0))
    placed = place_batch(batch, live.with_extras(("parts",)), mesh)
    assert placed["parts"].shape == (4, 32, 32) and placed["parts"].dtype == np.uint8 and "scene" not in placed
    right = [
        on_their_parts(*row, np.ones(17, bool))
        for row in zip(np.asarray(placed["parts"]), batch["joints2d"], strict=True)
    ]
    assert np.mean(right) > 0.75, "some joints are hidden"
    assert placed["image"].shape == (4, 32, 32, 3) and placed["image"].dtype == np.uint8


# --- inputs and networks --------------------------------------------------------------------------------------------


def test_inputs_of_a_label_map_by_hand(small_config):
    labels = np.zeros((1, 12, 12), np.uint8)
    labels[0, 3, 5], labels[0, 7, 2] = part_label("head"), part_label("left_foot")
    inputs = small_config().inputs
    got = network_inputs({"parts": jnp.asarray(labels)}, inputs)
    assert {name: array.shape for name, array in got.items()} == {
        name: shape for name, shape in input_shapes(inputs).items() if name in ("parts", "silhouette")
    }
    expected = np.zeros((12, 12, 14))
    expected[3, 5, 0] = expected[7, 2, 13] = 1
    np.testing.assert_array_equal(got["parts"][0], expected)
    np.testing.assert_array_equal(got["silhouette"][0, ..., 0], expected.sum(-1))
    larger = network_inputs({"parts": jnp.asarray(np.kron(labels, np.ones((1, 2, 2), np.uint8)))}, inputs)
    for name in got:
        np.testing.assert_allclose(larger[name], got[name], atol=1e-6)  # halved: the mean of 2 x 2 alike


def test_streams_have_their_channels(small_config):
    assert stream_channels(small_config().inputs) == {"image": 3, "heatmap": 16, "parts": 14, "silhouette": 1}
    assert tuple(stream_channels(small_config().inputs)) == STREAMS


def streams(*names):
    return tuple(Stream(name, (Conv(4, 2), Dense(8))) for name in names)


@pytest.mark.parametrize(
    ("names", "strategy", "extras"),
    [
        (("image", "heatmap"), "learned", ()),
        (("image", "heatmap", "parts"), "learned", ("parts",)),
        (("silhouette",), "free", ("parts",)),
        (("image", "parts"), "image", ()),
    ],
)
def test_a_run_asks_for_what_its_active_streams_read(small_config, names, strategy, extras):
    config = small_config(streams=streams(*names), strategy=strategy)
    assert batch_extras(config) == extras
    assert ("parts" in fake_batch(config, 2)) == bool(extras)


def test_three_streams_learn(small_config, small_state):
    config = small_config(streams=streams("image", "heatmap", "parts"))
    state, batch = small_state(config), fake_batch(config, 8)
    new, measured = jax.jit(train_step)(state, batch)
    assert measured["finite"] and measured["loss"] > 0
    assert state.params["parts_1"]["kernel"].shape == (2, 2, 14, 4)
    assert state.params["fusion_1"]["kernel"].shape == (2, 2, 3 + 16 + 14, 12)
    moved = new.params["parts_1"]["kernel"] != state.params["parts_1"]["kernel"]
    assert moved.mean() > 0.9, "every part has its own weights, and all are seen in noise"
    without = {name: value for name, value in batch.items() if name != "parts"}
    with pytest.raises(UserError, match="a stream 'parts'"):
        jax.eval_shape(train_step, state, without)


def test_a_run_with_parts_trains_is_scored_and_reads_no_photos(tmp_path):
    base, run = small.config(steps=2), tmp_path / "run"
    two = tuple(Stream(name, (Dense(8),)) for name in ("heatmap", "silhouette"))
    config = dataclasses.replace(base, network=dataclasses.replace(base.fusion, streams=two))
    train(config, small.data_dir(), run, LoopOptions(eval_every=0, show=False))
    result = evaluate_run(run, batch_size=8)
    assert result["num_frames"] == 56 and np.isfinite(result["mpjpe_mm"])
    with pytest.raises(UserError, match="also reads parts, which a photo does not come with"):
        NetworkPair(run, None, 1)
