"""Correct parts and keypoints by hand, and the pose laid over 2D joints: exact where it can be, defined where not."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.parts import LIMB_JOINTS, LIMBS, pck2d, pcp_correct, scaled_orthographic
from fusion_jax.skeletons import skeleton

SEEDS = st.integers(0, 2**32 - 1)


def row_of_points(*x):
    """(1, J, 2): points on the x axis."""
    return np.stack([np.array(x, float), np.zeros(len(x))], -1)[None]


def test_pcp_forms_by_hand():
    """One part from 0 to 10, so each form allows 5: ends (0, 10), (5, 5), (4, 6), (0, 10.5) and (5.5, 5.5) off."""
    true = np.repeat(row_of_points(0, 10), 5, axis=0)
    off = np.array([(0, 10), (5, 5), (4, 6), (0, 10.5), (5.5, 5.5)], float)
    pred = true + np.stack([np.zeros((5, 2)), off], -1)  # off sideways, so no end comes near the other
    valid = np.ones((5, 2), bool)
    averaged, known = pcp_correct(pred, true, valid, [(0, 1)])
    strict, _ = pcp_correct(pred, true, valid, [(0, 1)], strict=True)
    assert known.all()
    # Mean of the ends: 5, 5, 5, 5.25, 5.5. Larger of the ends: 10, 5, 6, 10.5, 5.5.
    np.testing.assert_array_equal(averaged[:, 0], [True, True, True, False, False])
    np.testing.assert_array_equal(strict[:, 0], [False, True, False, False, False])


def test_pcp_measures_against_the_true_length_in_3d():
    true = np.array([[[0.0, 0, 0], [2, 3, 6]]])  # 7 long: 3.5 allowed
    pred = true + np.array([0, 0, 3.4])
    assert pcp_correct(pred, true, np.ones((1, 2), bool), [(0, 1)])[0].all()
    assert not pcp_correct(pred, true, np.ones((1, 2), bool), [(0, 1)], threshold=0.4)[0].any()
    long = np.concatenate([pred[:, :1], true[:, 1:] * 100], 1)  # a long prediction allows no more
    assert not pcp_correct(long, true, np.ones((1, 2), bool), [(0, 1)])[0].any()


def test_a_part_without_length_is_right_only_where_hit():
    true = np.ones((2, 2, 3))
    pred = true + np.array([0, 1e-9])[:, None, None]
    np.testing.assert_array_equal(pcp_correct(pred, true, np.ones((2, 2), bool), [(0, 1)])[0][:, 0], [True, False])


def test_unknown_ends_are_neither_known_nor_correct_and_may_hold_anything():
    true = np.repeat(row_of_points(0, 1, 2), 2, axis=0)
    valid = np.array([[True, True, True], [True, True, False]])
    spoilt = true.copy()
    spoilt[1, 2] = np.inf
    for strict in (False, True):
        correct, known = pcp_correct(spoilt, spoilt, valid, [(0, 1), (1, 2)], strict=strict)
        np.testing.assert_array_equal(known, [[True, True], [True, False]])
        np.testing.assert_array_equal(correct, known)


@given(SEEDS, st.floats(0, 2))
def test_strict_parts_are_a_subset(seed, threshold):
    """Both ends within the bound put their mean within it; the reverse fails."""
    rng = np.random.default_rng(seed)
    true, pred = rng.normal(size=(2, 20, 4, 3))
    valid = rng.random((20, 4)) < 0.8
    parts = [(0, 1), (1, 2), (3, 0)]
    averaged, known = pcp_correct(pred, true, valid, parts, threshold=threshold)
    strict, _ = pcp_correct(pred, true, valid, parts, strict=True, threshold=threshold)
    assert (strict <= averaged).all() and (averaged <= known).all()


def test_pck_by_hand():
    """Joints 0, 4, 4.1 and 100 off, the last of them unknown; a scale of 20 px at 0.2 allows 4 px."""
    true, pred = row_of_points(0, 0, 0, 0), row_of_points(0, 4, 4.1, np.nan)
    valid = np.array([[True, True, True, False]])
    correct, known = pck2d(pred, true, valid, np.array([20.0]), 0.2)
    np.testing.assert_array_equal(correct, [[True, True, False, False]])
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(pck2d(pred, true, valid, np.array([20.0]), 0.205)[0], [[True, True, True, False]])


def test_a_person_without_scale_does_not_count():
    true = np.zeros((3, 2, 2))
    correct, known = pck2d(true, true, np.ones((3, 2), bool), np.array([0.0, 10, np.nan]), 0.5)
    np.testing.assert_array_equal(known.all(1), [False, True, False])
    np.testing.assert_array_equal(correct, known)


def laid_over(rng, scale, shift, people=3, joints=6):
    pose = rng.normal(size=(people, joints, 3)) * 300
    return pose, pose[..., :2] * scale + shift


def test_an_exact_picture_is_met_exactly_from_any_depth():
    pose, px = laid_over(np.random.default_rng(0), 0.1, [40, 60])
    got = scaled_orthographic(pose, px, np.ones(px.shape[:2], bool))
    np.testing.assert_allclose(got, px, atol=1e-9)
    assert got.shape == px.shape
    np.testing.assert_array_equal(got, scaled_orthographic(pose * [1, 1, -7], px, np.ones(px.shape[:2], bool)))


def test_the_fit_by_hand():
    """x only: moving -1, 0, 1 onto 0, 0, 3. Mean 1, scale (1 * 1 + 1 * 2) / (1 + 1) = 1.5, so -0.5, 1, 2.5."""
    pose = np.concatenate([row_of_points(-1, 0, 1), np.zeros((1, 3, 1))], -1)
    got = scaled_orthographic(pose, row_of_points(0, 0, 3), np.ones((1, 3), bool))
    np.testing.assert_allclose(got, row_of_points(-0.5, 1, 2.5), atol=1e-12)


def test_a_turned_pose_stays_turned():
    """A quarter turn cannot be undone by scale and shift: the best scale is 0, so all lies on the mean."""
    cross = np.array([[[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]]])
    px = np.array([[[0.0, 3], [0, -3], [0, 0]]]) + 20
    np.testing.assert_allclose(scaled_orthographic(cross, px, np.ones((1, 3), bool)), np.full((1, 3, 2), 20))


@given(SEEDS, st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_size_and_place_of_the_pose_change_nothing(seed, scale, shift):
    rng = np.random.default_rng(seed)
    pose, px = rng.normal(size=(4, 6, 3)) * 300, rng.normal(size=(4, 6, 2)) * 30
    valid = rng.random((4, 6)) < 0.7
    want = scaled_orthographic(pose, px, valid)
    np.testing.assert_allclose(scaled_orthographic(pose * scale + shift, px, valid), want, atol=1e-6)


@given(SEEDS)
def test_no_other_scale_and_shift_fit_better(seed):
    rng = np.random.default_rng(seed)
    pose, px = rng.normal(size=(1, 6, 3)) * 300, rng.normal(size=(1, 6, 2)) * 30
    valid = np.array([[True, True, False, True, True, False]])
    best = ((scaled_orthographic(pose, px, valid) - px)[valid] ** 2).sum()
    for _ in range(20):
        scale, shift = rng.uniform(0, 0.3), px[valid].mean(0) + rng.normal(size=2) * 5
        assert best <= ((pose[..., :2] * scale + shift - px)[valid] ** 2).sum() + 1e-9


def test_joints_unknown_in_2d_have_no_say_but_are_placed():
    pose, px = laid_over(np.random.default_rng(1), 0.1, [40, 60])
    valid = np.ones(px.shape[:2], bool)
    valid[:, 2] = False
    unknown = np.where(valid[..., None], px, np.nan)
    np.testing.assert_allclose(scaled_orthographic(pose, unknown, valid), px, atol=1e-9)


def test_degenerate_pictures_are_finite_and_as_documented():
    pose, px = laid_over(np.random.default_rng(2), 0.1, [40, 60], people=4)
    valid = np.zeros((4, 6), bool)
    valid[1, 3] = True
    valid[2:] = True
    pose[2] = 5.0  # no extent
    pose[3] *= -1  # upside down
    got = scaled_orthographic(pose, np.where(valid[..., None], px, np.nan), valid)
    want = np.stack([[0, 0], px[1, 3], px[2].mean(0), px[3].mean(0)])
    np.testing.assert_allclose(got, np.broadcast_to(want[:, None], got.shape), atol=1e-9)


def test_numpy_and_jax_agree():
    rng = np.random.default_rng(3)
    pose, px = (rng.normal(size=(3, 6, d)).astype(np.float32) for d in (3, 2))
    valid, scale = rng.random((3, 6)) < 0.7, np.array([2.0, 0, 1], np.float32)
    flat = scaled_orthographic(pose, px, valid)
    np.testing.assert_allclose(scaled_orthographic(*map(jnp.asarray, (pose, px, valid))), flat, atol=1e-5)
    arrays = [x.astype(np.float32) for x in (flat, px)]
    both = pck2d(*arrays, valid, scale, 0.5), pck2d(*map(jnp.asarray, (*arrays, valid, scale)), 0.5)
    both += pcp_correct(*arrays, valid, [(0, 1)]), pcp_correct(*map(jnp.asarray, (*arrays, valid)), [(0, 1)])
    for ours, theirs in (both[:2], both[2:]):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["human36m17", "mpii16", "humaneva15", "lsp14"])
def test_limbs_are_bones_with_a_right_and_a_left(name):
    layout = skeleton(name)
    for _, parts in LIMBS:
        bones = [{layout.index(a), layout.index(b)} for a, b in parts]
        assert all(tuple(sorted(bone)) in {tuple(sorted(b)) for b in layout.bones} for bone in bones)
        assert {layout.flip[joint] for joint in bones[0]} == bones[1] and bones[0] != bones[1]
    assert [layout.side(layout.index(joint)) for _, pair in LIMB_JOINTS for joint in pair] == ["right", "left"] * 6
