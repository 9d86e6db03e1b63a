"""The objective by hand, its masks and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusion_jax.losses import fusion_loss, pose_loss


def poses(seed=0, batch=3, joints=4):
    rng = np.random.default_rng(seed)
    pred, true = rng.normal(size=(2, batch, joints, 3)).astype(np.float32) * 100
    return jnp.asarray(pred), jnp.asarray(true), jnp.ones((batch, joints), bool)


def test_loss_by_hand():
    """Two poses of two joints: (1 + 4 + 4) + 9 and 0; their mean is 9. Not half of it, not per joint."""
    pred = jnp.array([[[1.0, 2, 2], [0, 3, 0]], [[5.0, 5, 5], [1, 1, 1]]])
    true = jnp.array([[[0.0, 0, 0], [0, 0, 0]], [[5.0, 5, 5], [1, 1, 1]]])
    valid = jnp.ones((2, 2), bool)
    assert pose_loss(pred, true, valid) == 9
    loss, terms = fusion_loss(pred, true, valid, jnp.float32(0.5), 5000.0)
    np.testing.assert_allclose([loss, terms["data_loss"], terms["penalty"]], [20009, 9, 20000], rtol=1e-6)


def test_strategies_without_alpha_pay_no_penalty():
    loss, terms = fusion_loss(*poses(), None, 5000.0)
    assert terms["penalty"] == 0 and loss == terms["data_loss"]


def test_masked_joints_add_nothing():
    pred, true, valid = poses()
    valid = valid.at[1, 2].set(False).at[2].set(False)
    want = sum(((pred - true)[b, j] ** 2).sum() for b, j in np.argwhere(valid)) / 3
    for wild in (1e6, jnp.nan, jnp.inf):
        value, gradient = jax.value_and_grad(pose_loss)(pred, true.at[1, 2].set(wild).at[2].set(wild), valid)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        assert np.isfinite(gradient).all() and not np.any(gradient[2]) and not np.any(gradient[1, 2])


def test_gradient_by_hand():
    pred, true, valid = poses()
    gradient = jax.grad(pose_loss)(pred, true, valid)
    np.testing.assert_allclose(gradient, 2 / 3 * (pred - true), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(pose_loss)(true, true, valid), 0)


@pytest.mark.parametrize("alpha", [0.1, 2.0, -0.3])
def test_gradient_numerically(alpha):
    pred, true, valid = poses()
    with jax.enable_x64(True):

        def f(p, a):
            return fusion_loss(p, jnp.asarray(true, jnp.float64), valid, a, 3.0)[0]

        args = (jnp.asarray(pred, jnp.float64), jnp.float64(alpha))
        check_grads(f, args, order=1, modes=("rev",), rtol=1e-4, eps=1e-5)
