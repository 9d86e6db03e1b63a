"""The 2D network's steps: what they compute, learn, refuse to learn from, and tell in which pixels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_hourglass as small

from fusion_jax.batch import fake_batch
from fusion_jax.config import InputConfig
from fusion_jax.errors import UserError
from fusion_jax.heatmap_steps import heatmap_eval_step, heatmap_predict_step, heatmap_train_step
from fusion_jax.inputs import joint_heatmaps
from fusion_jax.losses import heatmap_loss
from fusion_jax.state import TrainState

MPII = small.MPII


def batch_for(**changes):
    return fake_batch(small.config(), 8) | changes


@dataclasses.dataclass(frozen=True)
class Shows:
    """Stands in for a 2D network: shows `maps` for a picture that is dark on the left, else `other`, plus a bias."""

    maps: tuple
    other: tuple = ()

    def apply(self, variables, picture, train=False, mutable=()):
        maps = jnp.asarray(np.array(self.maps, np.float32)) + variables["params"]["bias"]
        if self.other:
            bright = picture[:, 0, 0, 0] > 0.5
            maps = jnp.where(bright[:, None, None, None], jnp.asarray(np.array(self.other, np.float32)), maps)
        stacks = jnp.stack([maps * 0, maps])  # only the last counts
        return (stacks, {"batch_stats": {"mean": jnp.float32(7)}}) if train else stacks


def fake_state(network, image_size, heatmap_size):
    params, tx = {"bias": jnp.float32(0)}, optax.sgd(1.0)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        constants={"batch_stats": {"mean": jnp.float32(0)}},
        opt_state=tx.init(params),
        rng=jax.random.key(0),
        network=network,
        tx=tx,
        inputs=InputConfig(image_size=image_size, skeleton="mpii16", heatmap_size=heatmap_size),
        alpha_penalty_weight=0.0,
    )


def nested(array):
    """An array as tuples, which can be hashed."""
    return tuple(map(nested, array)) if np.ndim(array) else float(array)


def gaussians(joints, size):
    """Maps (B, size, size, K) with peak 1 at joints (B, K, 2) in px of the maps, by NumPy."""
    x, y = (np.exp(-0.5 * (np.arange(size) - joints[..., axis, None]) ** 2) for axis in (0, 1))
    return np.einsum("bkh,bkw->bhwk", y, x)


# --- training -------------------------------------------------------------------------------------------------------


def test_a_batch_is_learned_by_heart_without_tracing_again():
    state, batch = small.state(small.config()), batch_for()
    state, first = small.STEP(state, batch)
    traces = len(small.TRACES)
    losses = [float(first["loss"])]
    for _ in range(25):
        state, measured = small.STEP(state, batch)
        losses.append(float(measured["loss"]))
    assert losses[-1] < 0.5 * losses[0], losses
    assert state.step == 26 and state.step.dtype == jnp.int32 and measured["finite"]
    assert len(small.TRACES) == traces


def test_a_batch_that_is_not_finite_changes_nothing():
    state, batch = small.state(small.config()), batch_for()
    state, _ = small.STEP(state, batch)  # so that the optimiser has something to lose
    batch["joints2d"][3, 2, 1] = np.nan
    new, measured = small.STEP(state, batch)
    assert not measured["finite"] and not np.isfinite(measured["loss"])
    small.assert_same_bits((new.params, new.constants, new.opt_state), (state.params, state.constants, state.opt_state))
    assert new.step == 2
    after, measured = small.STEP(new, batch_for())
    assert measured["finite"]
    for part in ("params", "constants"):
        pairs = zip(small.arrays(getattr(after, part)), small.arrays(getattr(new, part)), strict=True)
        assert all((a != b).any() for a, b in pairs)


def test_weights_that_are_not_finite_are_noticed():
    state = small.state(small.config())
    broken = state.replace(params=state.params | {"out_1": jax.tree.map(lambda p: p * np.nan, state.params["out_1"])})
    new, measured = small.STEP(broken, batch_for())
    assert not measured["finite"]
    small.assert_same_bits(new.constants, state.constants)


def test_unknown_joints_have_empty_maps_and_may_hold_anything():
    batch = batch_for()
    batch["valid2d"][2, 3] = batch["valid2d"][5] = False
    spoilt = batch | {"joints2d": np.where(batch["valid2d"][..., None], batch["joints2d"], np.nan)}
    maps = np.asarray(jax.jit(functools.partial(joint_heatmaps, config=small.INPUTS))(spoilt))
    assert (maps[2, :, :, 3] == 0).all() and (maps[5] == 0).all()
    peaks = maps.max((1, 2))
    assert (peaks[batch["valid2d"]] > 0.5).all()
    state = small.state(small.config())
    (want, want_measured), (got, measured) = small.STEP(state, batch), small.STEP(state, spoilt)
    small.assert_same_bits((got.params, measured), (want.params, want_measured))


def test_what_a_step_measures_by_hand():
    """A picture of 64 px, a network with 32 px input and 8 px maps, which sees every joint at x 3, y 4 of its maps."""
    maps = gaussians(np.full((1, 16, 2), [3.0, 4.0]), 8)
    state = fake_state(Shows(nested(maps)), 32, 8)
    joints = np.full((2, 16, 2), [27.5, 35.5], np.float32)  # px of the picture: exactly there
    joints[0, 5] += [6, 8]  # 10 px of the picture, 5 of the input
    joints[1, 2] = [-0.6, 10]  # just outside the picture
    joints[1, 3] = [63.4, 35.5]  # just inside, 35.9 px away, 17.95 of the input
    valid = np.ones((2, 16), bool)
    valid[1, 9] = False
    batch = {"image": np.zeros((2, 64, 64, 3), np.uint8), "joints2d": joints, "valid2d": valid}
    new, measured = jax.jit(heatmap_train_step)(state, batch)
    assert measured["joint_error_px_count"] == 30
    np.testing.assert_allclose(measured["joint_error_px_sum"], 5 + 17.95, rtol=1e-4)
    true = gaussians((joints + 0.5) / 8 - 0.5, 8) * valid[:, None, None]
    np.testing.assert_allclose(measured["loss"], (true**2).mean() + ((maps - true) ** 2).mean(), rtol=1e-4)
    slope = 2 * (maps - true).mean()
    np.testing.assert_allclose([new.params["bias"], measured["grad_norm"]], [-slope, abs(slope)], rtol=1e-3)
    assert new.constants == {"batch_stats": {"mean": 7}}


def test_loss_by_hand():
    pred, true = np.zeros((2, 1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    pred[0, 0, 0, 0, 0], pred[1, 0, 1, 1, 2], true[0, 1, 1, 2] = 2, 3, 1
    np.testing.assert_allclose(heatmap_loss(jnp.asarray(pred), jnp.asarray(true)), (4 + 1) / 12 + 4 / 12, rtol=1e-6)


def test_a_batch_of_another_layout_is_refused():
    batch = batch_for(joints2d=np.zeros((8, 17, 2), np.float32))
    with pytest.raises(UserError, match=r"batch\['joints2d'\] is \(8, 17, 2\), expected \(B, 16, 2\)"):
        jax.eval_shape(heatmap_train_step, small.state(small.config()), batch)


# --- prediction and evaluation --------------------------------------------------------------------------------------


def test_joints_come_in_px_of_the_batchs_picture():
    """Exact Gaussians, of which decoding is exact: pictures of 48 px, maps of 8 px whose px are 6 of the picture's."""
    rng = np.random.default_rng(4)
    joints = rng.uniform(1.5, 5.5, (2, 16, 2))
    mirror = joints[:, list(MPII.flip)] * [-1, 1] + [7, 0]
    state = fake_state(Shows(nested(gaussians(joints, 8)), nested(gaussians(mirror, 8))), 32, 8)
    image = np.zeros((2, 48, 48, 3), np.uint8)
    image[:, :, 24:] = 255  # the mirrored one is bright on the left
    got = jax.jit(heatmap_eval_step)(state, {"image": image})
    assert got.keys() == {"pred2d_px", "confidence"}
    np.testing.assert_allclose(got["pred2d_px"], (joints + 0.5) * 6 - 0.5, atol=0.02)
    off = joints - np.round(joints)
    np.testing.assert_allclose(got["confidence"], np.exp(-0.5 * (off**2).sum(-1)), atol=1e-5)


def test_the_mirrored_picture_has_half_a_say():
    """Each picture shows one wrist at a place and height of its own; above 1 and below 0 is cut off after the mean."""
    left, right = MPII.index("left_wrist"), MPII.index("right_wrist")
    plain, other = np.zeros((1, 4, 4, 16)), np.zeros((1, 4, 4, 16))
    plain[0, 1, 0, left], other[0, 2, 0, right] = 0.8, 0.6
    plain[0, 3, 1, left], other[0, 3, 2, right] = 1.5, 0.7  # of the same place
    plain[0, 0, 1, left], other[0, 0, 2, right] = -0.5, 0.1
    state = fake_state(Shows(nested(plain), nested(other)), 16, 4)
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, 8:] = 255
    want = np.zeros((1, 4, 4, 16))
    want[0, 1, 0, left], want[0, 2, 3, left], want[0, 3, 1, left] = 0.4, 0.3, 1
    predict = jax.jit(heatmap_predict_step, static_argnames="flip")
    np.testing.assert_allclose(predict(state, {"image": image}), want, atol=1e-6)
    np.testing.assert_allclose(predict(state, {"image": image}, flip=False), np.clip(plain, 0, 1), atol=1e-6)
