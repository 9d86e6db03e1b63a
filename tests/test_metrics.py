"""Errors by hand; masks, NaN and splits of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusion_jax import metrics


def poses(seed=0, batch=4, joints=6):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=(batch, joints, 3)) * 200, jnp.float32) for _ in range(2))


def test_distance_by_hand():
    pred = jnp.array([[[3.0, 4, 0], [1, 1, 1]]])
    true = jnp.array([[[0.0, 0, 0], [1, 1, 1]]])
    np.testing.assert_array_equal(metrics.joint_distance_mm(pred, true), [[5, 0]])
    total, count = metrics.mpjpe_mm(pred, true, jnp.ones((1, 2), bool))
    assert (total, count) == (5, 2)


def test_distance_has_a_gradient_where_it_is_zero():
    point = jnp.array([[[1.0, 2, 3], [4, 5, 6]]])
    other = point.at[0, 1, 0].set(0.0)
    gradient = jax.grad(lambda p: metrics.joint_distance_mm(p, other).sum())(point)
    np.testing.assert_array_equal(gradient, [[[0, 0, 0], [1, 0, 0]]])
    with jax.enable_x64(True):
        pred, true = (jnp.asarray(np.asarray(x), jnp.float64) / 200 for x in poses())
        check_grads(metrics.joint_distance_mm, (pred, true), order=1, modes=("rev",))


def test_masks_equal_leaving_out():
    pred, true = poses()
    valid = jnp.asarray(np.random.default_rng(1).random((4, 6)) < 0.6)
    keep = np.asarray(valid)
    total, count = metrics.mpjpe_mm(pred, true, valid)
    left = np.linalg.norm(np.asarray(pred)[keep] - np.asarray(true)[keep], axis=-1)
    np.testing.assert_allclose([total, count], [left.sum(), keep.sum()], rtol=1e-6)


def test_masks_equal_leaving_out_under_every_alignment():
    pred, true = poses()
    keep = np.array([True, True, False, True, True, True])
    got = metrics.aligned_distances_mm(pred, true, jnp.tile(keep, (4, 1)))
    want = metrics.aligned_distances_mm(pred[:, keep], true[:, keep], jnp.ones((4, 5), bool))
    for name, distance in got.items():
        np.testing.assert_allclose(distance[:, keep], want[name], atol=0.02, err_msg=name)


def test_splits_of_a_batch_merge_exactly():
    # Whole millimetres along one axis: sums of integers are exact in float32, in any order.
    distance = jnp.asarray(np.random.default_rng(2).integers(0, 1000, (12, 5)), jnp.float32)
    true, valid = jnp.zeros((12, 5, 3)), distance % 7 != 0
    pred = true.at[..., 1].set(distance)
    whole = metrics.mpjpe_mm(pred, true, valid)
    parts = [metrics.mpjpe_mm(pred[a:b], true[a:b], valid[a:b]) for a, b in ((0, 1), (1, 7), (7, 12))]
    np.testing.assert_array_equal(np.sum(parts, axis=0), whole)
    padded = [jnp.concatenate([x, jnp.zeros_like(x[:3])]) for x in (pred + 1, true, valid)]
    padded[0] = jnp.concatenate([pred, jnp.full_like(pred[:3], 999)])
    np.testing.assert_array_equal(metrics.mpjpe_mm(*padded), whole)


def test_nan_in_an_invalid_joint_counts_nothing():
    pred, true = poses()
    valid = jnp.ones((4, 6), bool).at[1, 2].set(False)
    want = metrics.mpjpe_mm(pred, true, valid)
    np.testing.assert_array_equal(metrics.mpjpe_mm(pred, true.at[1, 2].set(jnp.nan), valid), want)
    np.testing.assert_array_equal(metrics.mpjpe_mm(pred.at[1, 2].set(jnp.nan), true, valid), want)


def test_a_network_that_predicts_nan_has_no_perfect_score():
    pred, true = poses()
    distance = metrics.joint_distance_mm(pred.at[0, 0].set(jnp.nan), true)
    assert np.isnan(distance[0, 0]) and np.isfinite(distance[1:]).all()
    assert np.isnan(metrics.mpjpe_mm(jnp.full_like(pred, jnp.nan), true, jnp.ones((4, 6), bool))[0])
    gradient = jax.grad(lambda p: metrics.mpjpe_mm(p, true, jnp.ones((4, 6), bool))[0])(true)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", ["mpjpe", "pa_mpjpe", "pa_mpjpe_reflection", "n_mpjpe"])
def test_nan_in_an_invalid_joint_spoils_no_alignment(name):
    pred, true = poses()
    valid = jnp.ones((4, 6), bool).at[1, 2].set(False)
    want = metrics.masked_sum(metrics.aligned_distances_mm(pred, true, valid)[name], valid)
    spoilt = metrics.aligned_distances_mm(pred, true.at[1, 2].set(jnp.nan), valid)[name]
    np.testing.assert_allclose(metrics.masked_sum(spoilt, valid), want, rtol=1e-6)


def test_nothing_valid_counts_nothing():
    pred, true = poses()
    nobody = jnp.zeros((4, 6), bool)
    assert metrics.mpjpe_mm(pred, true, nobody) == (0, 0)
    assert all(np.isfinite(d).all() for d in metrics.aligned_distances_mm(pred, true, nobody).values())


def test_alignments_only_help():
    """The sum of squares, which each alignment minimises; more freedom, less of it."""
    pred, true = poses()
    distances = metrics.aligned_distances_mm(pred, true, jnp.ones((4, 6), bool))
    square = {name: np.asarray((d**2).sum(-1)) for name, d in distances.items()}
    assert (square["n_mpjpe"] <= square["mpjpe"]).all() and (square["pa_mpjpe"] <= square["mpjpe"]).all()
    assert (square["pa_mpjpe_reflection"] <= square["pa_mpjpe"] * 1.00001).all()


def test_pck_by_hand():
    np.testing.assert_array_equal(metrics.pck(jnp.array([0.0, 149, 150, 150.01, jnp.nan])), [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(metrics.pck(jnp.array([0.0, 49.9, 51]), 50.0), [1, 1, 0])


def test_auc_by_hand():
    # Thresholds 0, 5, .., 150: 0 mm passes all 31; 12 mm passes 15 .. 150, 28 of them; 150 mm the last alone.
    got = metrics.auc(jnp.array([0.0, 12.0, 150.0, 151.0, 5.0]))
    np.testing.assert_allclose(got, np.array([31, 28, 1, 0, 30]) / 31, rtol=1e-6)
    assert metrics.auc(jnp.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_metrics_are_computed_in_full_float32(platform):
    """At default precision a TPU multiplies in bfloat16 and a GPU in TF32: 500 mm would be 2 mm or 0.2 mm off."""
    traced = jax.jit(metrics.aligned_distances_mm).trace(*poses(), jnp.ones((4, 6), bool))
    products = [
        line for line in traced.lower(lowering_platforms=(platform,)).as_text().splitlines() if "dot_general" in line
    ]
    assert not [line for line in products if "DEFAULT" in line or "precision" not in line]
