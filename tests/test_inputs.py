"""Where a fusion network's heatmaps come from, and what of a 2D network in the step is trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_hourglass as small

from fusion_jax.batch import fake_batch
from fusion_jax.config import (
    Config,
    HeatmapConfig,
    HeatmapNet,
    HourglassConfig,
    InputConfig,
    NetworkConfig,
    OptimConfig,
)
from fusion_jax.errors import UserError
from fusion_jax.heatmap_noise import HeatmapNoise, noisy_heatmaps
from fusion_jax.inputs import joint_heatmaps, network_inputs, predict_heatmaps, with_heatmaps
from fusion_jax.network import Dense, Stream
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.skeletons import convert_joints, skeleton
from fusion_jax.state import create_state, heatmap_network_variables
from fusion_jax.steps import eval_step, predict_step, train_step

pytestmark = pytest.mark.optimised

H36M, MPII = skeleton("human36m17"), skeleton("mpii16")
NET = HeatmapNet("runs/net", "0123456789abcdef", HourglassConfig(1, 4, 1), small.INPUTS)
NOISE = HeatmapNoise(jitter=0.05, missing_probability=0.2)


@functools.cache
def config(source, mode="cache", noise=NOISE):
    """A network of one dense layer that reads heatmaps alone, so that all it learns goes through them."""
    layers = (Dense(4),)
    network = NetworkConfig((Stream("image", layers), Stream("heatmap", layers)), strategy="heatmap")
    optim = OptimConfig(
        schedule="constant", warmup_steps=0, learning_rate=1e-3, heatmap_learning_rate=1e-5, alpha_penalty_weight=0.0
    )
    inputs = InputConfig(image_size=16, heatmap_size=4)
    heatmaps = HeatmapConfig(source, mode, noise, NET if source == "predicted" else None)
    return Config("small", network, inputs, optim, heatmaps=heatmaps, batch_size=8)


def batch_for(**changes):
    batch = fake_batch(config("true"), 8)
    batch["pose_mm"] /= 100  # gradients of a size that float32 likes
    return batch | changes


def pair_of(source, mode="cache"):
    """The state before and after a step."""
    state = small.state(config(source, mode))
    return state, *jax.jit(train_step)(state, batch_for())


frozen = functools.cache(functools.partial(pair_of, "predicted", "frozen"))
finetuned = functools.cache(functools.partial(pair_of, "predicted", "finetune"))


def other_than_the_2d_network(tree):
    return {name: value for name, value in tree.items() if name != HEATMAP_NETWORK}


def all_moved(a, b):
    return all((x != y).any() for x, y in zip(small.arrays(a), small.arrays(b), strict=True))


# --- true and noisy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "kept"), [("true", False), ("true", True), ("predicted", True)])
def test_a_batch_that_needs_no_heatmaps_stays_as_it_is(source, kept):
    """From true joints the network's inputs are made later; kept ones come with the batch."""
    state, batch = small.state(config(source)), batch_for()
    batch |= {"heatmap": np.zeros((8, 4, 4, 16), np.float32)} if kept else {}
    assert with_heatmaps(state, batch) is batch and state.heatmap_network is None
    assert HEATMAP_NETWORK not in state.params and HEATMAP_NETWORK not in state.constants


def test_true_heatmaps_never_stand_in_for_predicted_ones():
    with pytest.raises(UserError, match="no 'heatmap', which the run's 2D network has to have predicted"):
        jax.eval_shape(eval_step, small.state(config("predicted")), batch_for())


def test_noisy_heatmaps_by_the_key_of_the_step():
    state, batch, key = small.state(config("noisy")), batch_for(), jax.random.key(5)
    got = small.quick_jit(with_heatmaps)(state, batch, key=key)
    assert got.keys() == batch.keys() | {"heatmap"}
    want = jax.jit(
        functools.partial(noisy_heatmaps, flip=MPII.flip, noise=NOISE, image_size=16, heatmap_size=4, sigma_px=1.0)
    )
    joints = convert_joints(batch["joints2d"], H36M, MPII)
    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(8)])
    np.testing.assert_allclose(got["heatmap"], want(keys, joints, np.ones((8, 16), bool)), atol=1e-6)


def test_noise_of_training_differs_from_step_to_step():
    """The weights are the same; only the key, which the step takes from its number, is not."""
    state, batch, step = small.state(config("noisy")), batch_for(), jax.jit(train_step)
    losses = {float(step(state.replace(step=jnp.int32(n)), batch)[1]["loss"]) for n in (0, 1, 0)}
    assert len(losses) == 2


def test_noise_of_an_evaluation_belongs_to_the_example():
    """Whatever its place, and however many there are: the same frame has the same error for every batch size."""
    state, predict = small.state(config("noisy")), small.quick_jit(predict_step)
    batch = batch_for(index=np.arange(100, 108, dtype=np.int32))
    whole = np.asarray(predict(state, batch))
    order = np.array([3, 1, 7, 5, 0, 2, 6, 4])
    np.testing.assert_allclose(
        predict(state, {n: v[order] for n, v in batch.items()}), whole[order], rtol=1e-4, atol=1e-3
    )
    part = predict(state, {n: v[2:5] for n, v in batch.items()})
    np.testing.assert_allclose(part, whole[2:5], rtol=1e-4, atol=1e-3)
    elsewhere = predict(state, batch | {"index": batch["index"] + 8})
    assert np.abs(elsewhere - whole).max() > 0.01


def test_no_noise_gives_the_true_heatmaps():
    silent = HeatmapNoise(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    state, batch = small.state(config("noisy", noise=silent)), batch_for()
    batch["valid2d"][3, H36M.index("left_wrist")] = False
    got = small.quick_jit(with_heatmaps)(state, batch)["heatmap"]
    want = small.quick_jit(functools.partial(joint_heatmaps, config=state.inputs))(batch)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert (got[3, :, :, MPII.index("left_wrist")] == 0).all()


def test_noise_needs_joints():
    batch = batch_for()
    del batch["joints2d"]
    with pytest.raises(UserError, match="no 'joints2d', on which noise is put"):
        with_heatmaps(small.state(config("noisy")), batch)


# --- predicted ------------------------------------------------------------------------------------------------------


def test_predicted_heatmaps_are_those_of_the_2d_network():
    """Of its last stack, in [0, 1], with running statistics; and the fusion network reads them."""
    state, batch = small.state(config("predicted", "frozen")), batch_for()
    variables = heatmap_network_variables(state)

    @small.quick_jit
    def both(state, batch):
        by_hand = state.heatmap_network.apply(variables, batch["image"].astype(jnp.float32) / 255)[-1]
        got = with_heatmaps(state, batch)
        return got["heatmap"], by_hand, network_inputs(got, state.inputs)["heatmap"]

    got, by_hand, read = both(state, batch)
    assert got.shape == (8, 4, 4, 16) and by_hand.min() < 0, "or clipping is not seen"
    np.testing.assert_allclose(got, np.clip(by_hand, 0, 1), atol=1e-5)
    assert read.shape == (8, 16, 16, 16)
    np.testing.assert_allclose(read.mean((1, 2)), got.mean((1, 2)), atol=0.1)


@dataclasses.dataclass(frozen=True)
class Sees:
    """Stands in for a 2D network: writes down which pictures it is given."""

    seen: list = dataclasses.field(default_factory=list, hash=False)

    def apply(self, variables, picture):
        self.seen.append(picture)
        return jnp.stack([jnp.full((len(picture), 4, 4, 16), v) for v in (0.25, 0.75)])


@pytest.mark.parametrize("size", [16, 48])
def test_the_2d_network_sees_pictures_of_its_own_size(size):
    image = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    network = Sees()
    got = predict_heatmaps(network, {}, jnp.asarray(image), small.INPUTS, flip=True)
    np.testing.assert_array_equal(got, np.full((2, 4, 4, 16), 0.75, np.float32))
    plain, turned = network.seen
    assert plain.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(turned, plain[:, :, ::-1])
    middle = image[:, size // 32 :: size // 16, size // 32 :: size // 16]  # 3 px become one: the middle of the three
    np.testing.assert_allclose(plain, middle / 255, atol=1e-5)
    predict_heatmaps(network, {}, jnp.asarray(image), small.INPUTS)
    assert len(network.seen) == 3, "once without flipping"


def test_jitted_equals_plain():
    state = small.state(config("predicted", "frozen")).replace(heatmap_network=small.Brightness())
    batch = batch_for()
    plain = with_heatmaps(state, batch)["heatmap"]
    np.testing.assert_allclose(small.quick_jit(with_heatmaps)(state, batch)["heatmap"], plain, atol=1e-6)
    red = batch["image"][5, 4:8, 8:12, 0].mean() / 255
    np.testing.assert_allclose(plain[5, 1, 2, 15], red, rtol=1e-5)


def test_prediction_needs_a_picture():
    batch = batch_for()
    del batch["image"]
    with pytest.raises(UserError, match="no 'image', in which the 2D network looks for joints"):
        with_heatmaps(small.state(config("predicted", "frozen")), batch)


def test_a_frozen_2d_network_stays_as_it_was():
    state, new, measured = frozen()
    assert measured["finite"] and measured["grad_norm"] > 0
    assert HEATMAP_NETWORK not in state.params, "no gradient, no optimiser's moments"
    assert jax.tree.structure(state.constants) == jax.tree.structure(new.constants)
    assert {"params", "batch_stats"} == new.constants[HEATMAP_NETWORK].keys()
    small.assert_same_bits(new.constants, state.constants)
    assert all_moved(new.params, state.params)


def test_a_finetuned_2d_network_moves_at_its_own_rate():
    """Adam's first step is the learning rate; statistics stay, for the batch's never serve."""
    state, new, measured = finetuned()
    assert measured["finite"]
    small.assert_same_bits(new.constants, state.constants)
    assert new.constants[HEATMAP_NETWORK].keys() == {"batch_stats"}
    pairs = zip(*(small.arrays(s.params[HEATMAP_NETWORK]) for s in (new, state)), strict=True)
    moved = [np.abs(a - b).max() for a, b in pairs]
    assert np.mean([m > 0 for m in moved]) > 0.9  # what only feeds maps that are clipped has no gradient
    np.testing.assert_allclose(max(moved), 1e-5, rtol=0.05)
    rest = [other_than_the_2d_network(s.params) for s in (new, state)]
    assert all_moved(*rest)
    moved = [np.abs(a - b).max() for a, b in zip(*map(small.arrays, rest), strict=True)]
    np.testing.assert_allclose(max(moved), 1e-3, rtol=0.01)


def test_frozen_and_finetuned_begin_alike():
    """The same weights give the same loss and poses, wherever the state keeps them."""
    (ours, _, _), (theirs, _, measured) = frozen(), finetuned()
    placed = ours.replace(
        params=other_than_the_2d_network(theirs.params),
        constants=theirs.constants | {HEATMAP_NETWORK: heatmap_network_variables(theirs)},
    )
    _, got = jax.jit(train_step)(placed, batch_for())
    assert got.keys() == measured.keys()
    np.testing.assert_allclose(got["loss"], measured["loss"], rtol=1e-5)
    assert got["grad_norm"] < measured["grad_norm"], "of the 2D network there is none"


def test_a_step_without_its_2d_network_is_refused():
    broken = dataclasses.replace(config("predicted", "frozen"), heatmaps=HeatmapConfig("predicted", "frozen"))
    with pytest.raises(UserError, match="heatmaps.net is missing"):
        jax.eval_shape(functools.partial(create_state, broken), jax.random.key(0))
