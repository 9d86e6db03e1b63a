"""Alignment against SciPy, its invariances, and its gradient, at the bad points too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from fusion_jax import alignment
from fusion_jax.alignment import similarity_align
from fusion_jax.metrics import aligned_distances_mm

SEEDS = st.integers(0, 2**32 - 1)


def pose(rng, *shape):
    return rng.normal(size=(*shape, 3)) * 300


def align_by_scipy(moving, fixed, valid, scale, reflection):
    """Orthogonal Procrustes (or Kabsch, without mirror images) by SciPy, and the scale from its normal equation."""
    mean_m, mean_f = moving[valid].mean(0), fixed[valid].mean(0)
    m, f = moving - mean_m, fixed - mean_f
    if reflection:
        turned = m @ orthogonal_procrustes(m[valid], f[valid])[0]
    else:
        turned = Rotation.align_vectors(f[valid], m[valid])[0].apply(m)
    factor = (turned[valid] * f[valid]).sum() / (turned[valid] ** 2).sum() if scale else 1
    return factor * turned + mean_f


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("reflection", [True, False])
@pytest.mark.parametrize("mirrored", [True, False])
def test_similarity_align_equals_scipy(scale, reflection, mirrored):
    rng = np.random.default_rng(4)
    moving, fixed, valid = pose(rng, 6, 8), pose(rng, 6, 8), rng.random((6, 8)) < 0.75
    if mirrored:  # close to a mirror image, so that the forbidden reflection would be the better fit
        fixed = moving * [-1, 1, 1] + fixed / 10
    got = similarity_align(moving, fixed, valid, scale=scale, reflection=reflection)
    want = [align_by_scipy(*args, scale, reflection) for args in zip(moving, fixed, valid, strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    all_joints = similarity_align(moving, fixed, scale=scale, reflection=reflection)
    want = [align_by_scipy(m, f, np.ones(8, bool), scale, reflection) for m, f in zip(moving, fixed, strict=True)]
    np.testing.assert_allclose(all_joints, want, atol=1e-6)


def test_mirror_images_need_reflection():
    fixed = pose(np.random.default_rng(5), 9)
    mirrored = fixed * [1, 1, -1] + 40
    np.testing.assert_allclose(similarity_align(mirrored, fixed, reflection=True), fixed, atol=1e-9)
    assert np.abs(similarity_align(mirrored, fixed) - fixed).max() > 50


def test_a_masked_joint_has_no_say():
    rng = np.random.default_rng(6)
    moving, fixed, valid = pose(rng, 7), pose(rng, 7), np.arange(7) != 3
    wild = fixed.copy()
    wild[3] = 1e5
    got = similarity_align(moving, wild, valid)
    np.testing.assert_allclose(got, similarity_align(moving, fixed, valid), atol=1e-6)
    alone = similarity_align(moving[valid], fixed[valid])
    np.testing.assert_allclose(got[valid], alone, atol=1e-9)


@pytest.mark.parametrize("function", [alignment.similarity_align, alignment.scale_align])
def test_a_masked_joint_may_be_nan(function):
    rng = np.random.default_rng(7)
    moving, fixed, valid = pose(rng, 7), pose(rng, 7), np.arange(7) != 3
    unknown = fixed.copy()
    unknown[3] = np.nan
    np.testing.assert_allclose(function(moving, unknown, valid), function(moving, fixed, valid), atol=1e-9)


@given(SEEDS)
def test_numpy_and_jax_align_alike(seed):
    rng = np.random.default_rng(seed)
    moving, fixed = pose(rng, 3, 6).astype(np.float32), pose(rng, 3, 6).astype(np.float32)
    valid = np.arange(6) < 5
    for options in ({}, {"reflection": True}, {"scale": False}):
        want = similarity_align(moving, fixed, np.tile(valid, (3, 1)), **options)
        assert isinstance(want, np.ndarray) and want.dtype == np.float32
        got = similarity_align(jnp.asarray(moving), jnp.asarray(fixed), jnp.tile(valid, (3, 1)), **options)
        np.testing.assert_allclose(got, want, atol=0.05, rtol=1e-4)
    want = alignment.scale_align(moving, fixed, np.tile(valid, (3, 1)))
    got = alignment.scale_align(jnp.asarray(moving), jnp.asarray(fixed), jnp.tile(valid, (3, 1)))
    np.testing.assert_allclose(got, want, atol=0.05, rtol=1e-4)


@given(SEEDS, st.floats(0.2, 5))
def test_pa_mpjpe_ignores_similarity_transforms(seed, factor):
    rng = np.random.default_rng(seed)
    pred, true = pose(rng, 2, 8).astype(np.float32), pose(rng, 2, 8).astype(np.float32)
    moved = factor * pred @ Rotation.random(rng=rng).as_matrix().T + rng.normal(size=3) * 500
    valid = jnp.ones((2, 8), bool)
    got = aligned_distances_mm(jnp.asarray(moved, jnp.float32), jnp.asarray(true), valid)
    want = aligned_distances_mm(jnp.asarray(pred), jnp.asarray(true), valid)
    # float32 on lengths of some 1000 mm, through an SVD of their products
    np.testing.assert_allclose(got["pa_mpjpe"], want["pa_mpjpe"], atol=0.5)
    mirrored = aligned_distances_mm(jnp.asarray(moved * [1, -1, 1], jnp.float32), jnp.asarray(true), valid)
    np.testing.assert_allclose(mirrored["pa_mpjpe_reflection"], want["pa_mpjpe_reflection"], atol=0.5)
    assert (want["pa_mpjpe_reflection"] ** 2).sum() <= (want["pa_mpjpe"] ** 2).sum() + 1


def test_n_mpjpe_ignores_scale_alone():
    rng = np.random.default_rng(8)
    pred, true, valid = (jnp.asarray(pose(rng, 2, 6)), jnp.asarray(pose(rng, 2, 6)), jnp.ones((2, 6), bool))
    want = aligned_distances_mm(pred, true, valid)["n_mpjpe"]
    np.testing.assert_allclose(aligned_distances_mm(pred * 3, true, valid)["n_mpjpe"], want, rtol=1e-4)

    def flat(x):
        return np.asarray(x, np.float64).reshape(2, -1)

    factor = (flat(pred) * flat(true)).sum(1) / (flat(pred) ** 2).sum(1)  # least squares by hand
    by_hand = np.linalg.norm(factor[:, None, None] * np.asarray(pred) - np.asarray(true), axis=-1)
    np.testing.assert_allclose(want, by_hand, rtol=1e-4)


DEGENERATE = {
    "prediction a point": (np.zeros((5, 3)) + 3, None),
    "prediction at 0": (np.zeros((5, 3)), None),
    "truth a point": (None, np.ones((5, 3))),
    "both a point": (np.ones((5, 3)), np.ones((5, 3)) * 4),
    "on a line": (np.arange(5)[:, None] * np.array([1.0, 2, 3]), None),
    "in a plane": (None, np.random.default_rng(9).normal(size=(5, 3)) * [1, 1, 0]),
    "equal": (np.vstack([np.eye(3), -np.eye(3)])[:5], np.vstack([np.eye(3), -np.eye(3)])[:5]),
}


@pytest.mark.parametrize("case", sorted(DEGENERATE))
@pytest.mark.parametrize("xp", [np, jnp])
def test_degenerate_poses_align_to_finite_ones(case, xp):
    other = pose(np.random.default_rng(10), 5)
    moving, fixed = (xp.asarray(other if x is None else x, dtype=np.float32) for x in DEGENERATE[case])
    for options in ({}, {"reflection": True}, {"scale": False}):
        got = similarity_align(moving, fixed, **options)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got.mean(0), fixed.mean(0), atol=1e-3)
    assert np.isfinite(alignment.scale_align(moving, fixed)).all()
    nobody = xp.zeros(5, dtype=bool)
    assert np.isfinite(similarity_align(moving, fixed, nobody)).all()


def test_alignment_gradient():
    rng = np.random.default_rng(11)
    moving = pose(rng, 5) / 300
    near = moving + pose(rng, 5) / 3000
    mirrored = near * [1, 1, -1]  # turns the weakest axis round

    def aligned(m, f):
        return [similarity_align(m, g, reflection=r) for g in (f, f * jnp.array([1, 1, -1])) for r in (False, True)]

    with jax.enable_x64(True):
        moving, near, mirrored = (jnp.asarray(x) for x in (moving, near, mirrored))
        assert (
            np.abs(similarity_align(moving, mirrored) - similarity_align(moving, mirrored, reflection=True)).max() > 0.1
        )
        check_grads(jax.jit(aligned), (moving, near), order=1, modes=("rev",))
        check_grads(jax.jit(alignment.scale_align), (moving, near), order=1, modes=("rev",))


def test_alignment_gradient_is_finite_at_bad_points():
    """All joints at one place, all at 0, and an octahedron, whose singular values are equal."""
    octahedron = np.vstack([np.eye(3), -np.eye(3)]).astype(np.float32)
    moving = jnp.asarray(np.stack([np.ones((6, 3)), np.zeros((6, 3)), octahedron]), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(12).normal(size=(6, 3)), jnp.float32)

    def loss(m):
        return (similarity_align(m, jnp.broadcast_to(octahedron, m.shape)) * weights).sum()

    gradient = jax.jit(jax.grad(loss))(moving)
    finite = dict(zip(("point", "zero", "octahedron"), np.isfinite(gradient).all((1, 2)).tolist(), strict=True))
    assert finite == {"point": True, "zero": True, "octahedron": True}
