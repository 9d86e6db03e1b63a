"""The training step as a pure function: what it computes, compiles, keeps and refuses to keep."""

import dataclasses
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusion_jax import fusion
from fusion_jax.alignment import similarity_align
from fusion_jax.batch import fake_batch
from fusion_jax.inputs import network_inputs, resize
from fusion_jax.network import Dense
from fusion_jax.skeletons import convert_joints, skeleton
from fusion_jax.state import create_state
from fusion_jax.steps import eval_step, fusion_state, predict_step, train_step

pytestmark = pytest.mark.optimised

KEY = jax.random.key(0)
# Compiled once for all tests that take the small config as it is.
STEP, PREDICT = jax.jit(train_step), jax.jit(predict_step)


def arrays(tree):
    """Leaves as NumPy; keys by their bits."""

    def is_key(x):
        return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)

    return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)


def with_dropout(small_config):
    layers = (Dense(8, 0.5),)
    return tuple(dataclasses.replace(stream, layers=layers) for stream in small_config().network.streams)


def batch_for(config, **changes):
    return fake_batch(config, config.batch_size) | changes


def test_step_computes_what_numpy_does(small_config, small_state):
    config = small_config()
    state, batch = small_state(config), batch_for(config)
    batch["valid"][2, 5] = batch["valid"][7] = False
    new, measured = STEP(state, batch)
    pred, valid = np.asarray(PREDICT(state, batch)), batch["valid"]
    square = (((pred - batch["pose_mm"]) ** 2).sum(-1) * valid).sum(1)
    distance = np.linalg.norm(pred - batch["pose_mm"], axis=-1)
    want = {
        "data_loss": square.mean(),
        "penalty": 5000 / 0.1**2,
        "loss": square.mean() + 5000 / 0.1**2,
        "mpjpe_sum": distance[valid].sum(),
        "mpjpe_count": valid.sum(),
        "alpha": 0.1,
        "beta": 1.5,
    }
    for name, value in want.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(measured["fusion_weights"], 1 / (1 + np.exp(-0.1 * np.array([-0.5, 0.5]))), rtol=1e-5)
    assert measured["finite"] and new.step == 1 and new.step.dtype == np.int32


def test_gradient_is_that_of_the_loss(small_config, small_state):
    """grad_norm, and one parameter's derivative by differences."""
    config = small_config()
    state, batch = small_state(config), batch_for(config)

    def loss(params):
        pred = predict_step(state.replace(params=params), batch)
        return ((pred - batch["pose_mm"]) ** 2).sum() / len(pred) + 5000 / params["alpha"] ** 2

    grads = jax.jit(jax.grad(loss))(state.params)
    norm = np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(grads)))
    measured = STEP(state, batch)[1]
    np.testing.assert_allclose(measured["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(measured["layer_grad_norms"]["alpha"], np.abs(grads["alpha"]), rtol=1e-5)
    np.testing.assert_allclose(grads["alpha"], -2 * 5000 / 0.1**3, rtol=0.05)  # the penalty outweighs the data


def test_jitted_equals_plain(small_config, small_state):
    config = small_config(streams=with_dropout(small_config), strategy="image")  # few operations: each compiles alone
    state, batch = small_state(config), batch_for(config)
    (got, got_measured), (want, want_measured) = STEP(state, batch), train_step(state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got_measured, want_measured)
    # Adam's first step is the learning rate times the gradient's sign: where rounding turns the sign of a gradient
    # of almost 0, a parameter may differ by twice the rate; all but a few agree to rounding.
    far = [np.abs(a - b) > 1e-6 for a, b in zip(arrays(got.params), arrays(want.params), strict=True)]
    assert sum(f.sum() for f in far) <= 0.002 * sum(f.size for f in far)
    assert all(np.abs(a - b).max() <= 2.1e-2 for a, b in zip(arrays(got.params), arrays(want.params), strict=True))


def test_same_seed_same_bits(small_config, small_state):
    config = small_config(streams=with_dropout(small_config))
    batch = batch_for(config)
    state = small_state(config)
    first, again = (STEP(STEP(small_state(config), batch)[0], batch) for _ in range(2))
    assert_same_bits(first, again)

    # Dropout differs from step to step and from run to run, with the same weights.
    def loss(state):
        return float(STEP(state, batch)[1]["data_loss"])

    assert len({loss(state), loss(state.replace(step=state.step + 1)), loss(state.replace(rng=jax.random.key(1)))}) == 3


@pytest.mark.parametrize("wild", [np.nan, np.inf, 1e30])
def test_a_batch_that_is_not_finite_changes_nothing(small_config, small_state, wild):
    config = small_config()
    state, batch = small_state(config), batch_for(config)
    batch["pose_mm"][3, 2, 1] = wild
    new, measured = STEP(state, batch)
    assert not measured["finite"]
    assert_same_bits((new.params, new.opt_state, new.rng), (state.params, state.opt_state, state.rng))
    assert new.step == 1
    # and the run goes on
    after, measured = STEP(new, batch_for(config))
    assert measured["finite"] and not np.array_equal(after.params["alpha"], state.params["alpha"])


def test_unknown_joints_may_hold_nan(small_config, small_state):
    """valid and valid2d say which joints are known; the others' values are nobody's business."""
    config = small_config()
    state, clean = small_state(config), batch_for(config)
    clean["valid"][1, 4] = clean["valid2d"][2, 3] = False
    spoilt = {name: value.copy() for name, value in clean.items()}
    spoilt["pose_mm"][1, 4] = spoilt["joints2d"][2, 3] = np.nan
    want, got = STEP(state, clean), STEP(state, spoilt)
    assert got[1]["finite"]
    np.testing.assert_allclose(got[1]["loss"], want[1]["loss"], rtol=1e-6)


def test_one_trace_for_many_steps(small_config):
    traces = []

    @jax.jit
    def counted(state, batch):
        traces.append(1)
        return train_step(state, batch)

    config = small_config(streams=with_dropout(small_config))
    create = jax.jit(functools.partial(create_state, config))
    state = create(KEY)
    for seed in range(3):
        state, _ = counted(state, fake_batch(config, 8, seed))
    counted(create(jax.random.key(1)), fake_batch(config, 8))  # another run of the same config
    assert len(traces) == 1 and state.step == 3


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_steps_lower_for_accelerators(small_config, platform):
    config = small_config(compute_dtype="bfloat16")
    shapes = jax.eval_shape(functools.partial(create_state, config), KEY)

    def lower(step):
        return jax.jit(step).trace(shapes, batch_for(config)).lower(lowering_platforms=(platform,)).as_text()

    text = lower(train_step)
    assert "stablehlo.convolution" in text and "bf16" in text
    assert "func.func public @main" in lower(eval_step)


def test_joints_reach_the_heatmaps_in_full_float32(small_config):
    """In bfloat16, a TPU's default, 100 px would be 0.4 px off after the change of layout."""
    config = small_config()
    inputs = jax.jit(lambda batch: network_inputs(batch, config.inputs))
    text = inputs.trace(batch_for(config)).lower(lowering_platforms=("tpu",)).as_text()
    sums = [line for line in text.splitlines() if "dot_general" in line and "contracting_dims = [] x []" not in line]
    assert not [line for line in sums if "DEFAULT" in line or "precision" not in line]


@pytest.mark.parametrize(
    "strategy, beta", [("learned", None), ("free", None), ("fixed", 1.0), ("image", None), ("heatmap", None)]
)
def test_every_strategy_learns_a_batch_by_heart(small_config, small_state, strategy, beta):
    config = small_config(strategy=strategy, beta=beta, learning_rate=0.05, alpha_penalty_weight=0.0)
    state, batch = small_state(config), fake_batch(config, 4)
    batch["pose_mm"] = batch["pose_mm"][:1].repeat(4, 0) / 100  # one pose for all: the bias alone can learn it
    losses = []
    for _ in range(40):
        new, measured = STEP(state, batch)
        assert measured["finite"]
        losses.append(float(measured["data_loss"]))
        before, state = state, new
    assert losses[-1] < 0.5 * losses[0], losses
    for name in state.params:
        pairs = zip(arrays(state.params[name]), arrays(before.params[name]), strict=True)
        assert any((a != b).any() for a, b in pairs), name
    assert measured.keys() >= {"loss", "data_loss", "penalty", "mpjpe_sum", "mpjpe_count", "grad_norm", "finite"}
    assert ("alpha" in measured, "fusion_weights" in measured) == (
        strategy == "learned",
        strategy in ("learned", "free"),
    )


def test_alpha_and_beta_move_at_their_own_rate(small_config, small_state):
    """Adam's first step is the learning rate, up to its epsilon."""
    config = small_config()
    state = small_state(config)
    new, _ = STEP(state, batch_for(config))
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), new.params, state.params)
    np.testing.assert_allclose([moved.pop("alpha"), moved.pop("beta")], 0.01, rtol=1e-3)
    assert 0.9e-3 < max(jax.tree.leaves(moved)) < 1.1e-3
    assert new.params["alpha"] > state.params["alpha"]  # the penalty wants it sharp


def test_alpha_of_the_wrong_sign_comes_back(small_config, small_state):
    config = small_config()
    state = small_state(config)
    state = state.replace(params=state.params | {"alpha": jnp.float32(-0.01)})
    for _ in range(4):
        state, measured = STEP(state, batch_for(config))
        assert measured["finite"]
    assert state.params["alpha"] > 0.02


# --- inputs and evaluation ------------------------------------------------------------------------------------------


def test_inputs_of_the_network(small_config):
    config = small_config().inputs
    batch = fake_batch(small_config(), 2)
    batch["joints2d"][:] = 100.0
    batch["joints2d"][0, 3] = [5.5, 3.5]  # the right ankle, in image px; 12 px picture, 8 px maps
    inputs = network_inputs(jax.tree.map(jnp.asarray, batch), config)
    np.testing.assert_allclose(inputs["image"], batch["image"] / 255, atol=1e-6)
    assert inputs["heatmap"].shape == (2, 12, 12, 16)
    small = network_inputs(batch, dataclasses.replace(config, image_size=8))["heatmap"][0]
    y, x = (3.5 + 0.5) * 8 / 12 - 0.5, (5.5 + 0.5) * 8 / 12 - 0.5
    ys, xs = np.mgrid[:8, :8]
    np.testing.assert_allclose(small[..., 0], np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 2), atol=1e-5)
    assert np.max(small[..., 1:]) < 1e-3
    joints = convert_joints(batch["joints2d"], skeleton("human36m17"), skeleton("mpii16"))
    np.testing.assert_array_equal(joints[0, 0], [5.5, 3.5])


def test_a_batch_may_bring_heatmaps_floats_and_more_streams(small_config):
    config, rng = small_config().inputs, np.random.default_rng(0)
    image, heat = (
        rng.uniform(size=(2, 12, 12, 3)).astype(np.float32),
        rng.uniform(size=(2, 12, 12, 16)).astype(np.float32),
    )
    inputs = network_inputs(
        {"image": jnp.asarray(image), "heatmap": jnp.asarray(heat), "flow": jnp.ones((2, 3))}, config
    )
    np.testing.assert_array_equal(inputs["image"], image)
    np.testing.assert_array_equal(inputs["heatmap"], heat)
    assert set(inputs) == {"image", "heatmap", "flow"}


@pytest.mark.parametrize("size, target", [(64, 112), (128, 112), (7, 5)])
def test_resize_equals_opencv(size, target):
    x = np.random.default_rng(1).uniform(size=(1, size, size, 2)).astype(np.float32)
    want = cv2.resize(x[0], (target, target), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(
        resize(jnp.asarray(x), (target, target))[0], want, atol=3e-5
    )  # OpenCV's weights are float32


def test_eval_step_scores_relative_to_the_root(small_config, small_state):
    config = small_config()
    state, batch = small_state(config), batch_for(config)
    batch["pose_mm"] -= batch["pose_mm"][:, :1]
    batch["valid"][1, 3] = False
    got = jax.jit(eval_step)(state, batch)
    pred = np.asarray(PREDICT(state, batch), np.float64)
    pred -= pred[:, :1]
    np.testing.assert_allclose(got["pred_mm"], pred, atol=1e-3)
    np.testing.assert_allclose(got["mpjpe"], np.linalg.norm(pred - batch["pose_mm"], axis=-1), rtol=1e-4)
    aligned = similarity_align(pred, batch["pose_mm"].astype(np.float64), batch["valid"])
    np.testing.assert_allclose(got["pa_mpjpe"], np.linalg.norm(aligned - batch["pose_mm"], axis=-1), rtol=1e-3)
    assert set(got) == {"pred_mm", "mpjpe", "pa_mpjpe", "pa_mpjpe_reflection", "n_mpjpe"}


def test_fusion_state_of_every_strategy(small_config, small_state):
    learned = fusion_state(small_state(small_config()))
    np.testing.assert_array_equal(
        learned["fusion_weights"], fusion.fusion_weights(learned["alpha"], learned["beta"], 2)
    )
    free = fusion_state(small_state(small_config(strategy="free")))
    assert set(free) == {"fusion_weights"} and free["fusion_weights"].shape == (2,)
    assert fusion_state(small_state(small_config(strategy="image"))) == {}


def test_statistics_scale_the_output(small_config):
    mean, std = np.full((17, 3), 7, np.float32), np.full((17, 3), 250, np.float32)

    def create(config):
        return jax.jit(lambda key: create_state(config, key, mean, std).constants)(KEY)

    np.testing.assert_array_equal(create(small_config())["pose_std_mm"], std)
    np.testing.assert_array_equal(create(small_config())["pose_mean_mm"], mean)
    off = create(small_config(standardise_targets=False))
    np.testing.assert_array_equal(off["pose_std_mm"], 1)
    np.testing.assert_array_equal(off["pose_mean_mm"], 0)
