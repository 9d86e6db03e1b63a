"""Gaussian heatmaps and their decoding, in the px of heatmap and image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.heatmaps import decode_heatmaps, gaussian_heatmaps

SIZE = 16


def maps(joints, valid=None, image_size=SIZE, sigma_px=1.0):
    joints = jnp.asarray(joints, jnp.float32).reshape(1, -1, 2)
    valid = jnp.ones(joints.shape[:2], bool) if valid is None else jnp.asarray(valid)[None]
    return gaussian_heatmaps(joints, valid, image_size=image_size, heatmap_size=SIZE, sigma_px=sigma_px)


def test_peak_is_one_at_integer_joints():
    got = maps([[3, 5], [0, 0], [15, 15]])
    assert got.shape == (1, SIZE, SIZE, 3)
    # (x, y) is [row y, column x].
    assert got[0, 5, 3, 0] == got[0, 0, 0, 1] == got[0, 15, 15, 2] == 1
    np.testing.assert_array_equal(got.max((1, 2)), 1)


def test_values_by_definition():
    ys, xs = np.mgrid[:SIZE, :SIZE]
    want = np.exp(-((xs - 6.3) ** 2 + (ys - 9.8) ** 2) / (2 * 1.7**2))
    np.testing.assert_allclose(maps([[6.3, 9.8]], sigma_px=1.7)[0, :, :, 0], want, atol=1e-6)


@given(st.floats(3, 12), st.floats(3, 12), st.sampled_from([1.0, 1.5]))
def test_decoding_undoes_encoding(x, y, sigma_px):
    joints, peak = decode_heatmaps(maps([[x, y]], sigma_px=sigma_px), SIZE)
    np.testing.assert_allclose(joints[0, 0], [x, y], atol=0.01)
    assert np.exp(-0.25 / sigma_px**2) - 1e-3 <= peak[0, 0] <= 1  # at most half a pixel away on either axis


@pytest.mark.parametrize("image_size", [8, 40, 112])
def test_maps_and_image_cover_the_same_square(image_size):
    ratio = image_size / SIZE
    inside = np.random.default_rng(0).uniform(4 * ratio, 12 * ratio, (5, 2)).astype(np.float32)
    joints, _ = decode_heatmaps(maps(inside, image_size=image_size), image_size)
    np.testing.assert_allclose(joints[0], inside, atol=0.01 * ratio)
    # Pixel centres: the middle of the picture is the middle of the map; the map's first pixel is ratio px wide.
    middle = maps([[(image_size - 1) / 2] * 2], image_size=image_size)[0, :, :, 0]
    np.testing.assert_allclose(middle, middle[::-1, ::-1], atol=1e-6)
    first = maps([[ratio / 2 - 0.5] * 2], image_size=image_size)
    np.testing.assert_allclose(first[0, 0, 0], 1, atol=1e-6)


def test_flipping_the_picture_flips_the_map():
    joints = np.array([[2.25, 7.5], [9.0, 4.0]])
    flipped = maps(joints * [-1, 1] + [SIZE - 1, 0])
    np.testing.assert_allclose(flipped, maps(joints)[:, :, ::-1], atol=1e-6)


@pytest.mark.parametrize("joint", [[0.0, 7.0], [15.0, 7.0], [7.0, 0.0], [7.0, 15.0], [0.3, 0.2], [15.4, 14.6]])
def test_a_peak_on_the_border_stays_within_a_pixel(joint):
    decoded, peak = decode_heatmaps(maps([joint]), SIZE)
    np.testing.assert_allclose(decoded[0, 0], joint, atol=0.5)
    assert peak[0, 0] > 0.75


def test_a_joint_outside_leaves_only_its_tail():
    got = maps([[-2.0, 7.0], [200.0, 7.0]])
    np.testing.assert_allclose(got[0, 7, 0, 0], np.exp(-2), rtol=1e-5)
    assert got[0, :, :, 1].max() == 0
    decoded, peak = decode_heatmaps(got, SIZE)
    assert np.isfinite(decoded).all() and peak[0, 1] == 0
    assert decoded.min() >= 0 and decoded.max() <= SIZE - 1


def test_invalid_joints_are_zero_whatever_their_place():
    got = maps([[3.0, 5.0], [4.0, 4.0], [np.nan, np.inf]], valid=[True, False, False])
    np.testing.assert_array_equal(got[..., 1:], 0)
    np.testing.assert_array_equal(got[..., 0], maps([[3.0, 5.0]])[..., 0])


def test_decode_finds_the_highest_of_many_and_accepts_jit():
    heat = maps([[4.0, 4.0], [10.0, 11.0]])
    both = heat[..., :1] + 0.5 * heat[..., 1:]
    decoded, peak = jax.jit(decode_heatmaps, static_argnums=1)(both, SIZE)
    np.testing.assert_allclose(decoded[0, 0], [4, 4], atol=0.01)
    np.testing.assert_allclose(peak, [[1]], atol=1e-6)


def test_flat_and_negative_maps_stay_finite():
    for fill in (0.0, 1.0, -1.0):
        decoded, _ = decode_heatmaps(jnp.full((1, 5, 7, 1), fill), 7)
        assert np.isfinite(decoded).all()


def test_decode_reads_rectangular_maps():
    heat = jnp.zeros((1, 6, 9, 1)).at[0, 4, 7, 0].set(1.0)
    decoded, _ = decode_heatmaps(heat, 9)
    np.testing.assert_allclose(decoded[0, 0, 0], 7, atol=1e-5)  # 9 px wide, 9 columns


def test_gradient_reaches_the_joints():
    def loss(p):
        return (maps(p)[0, 5, :, 0] * jnp.arange(SIZE)).sum()

    gradient = jax.grad(loss)(jnp.array([[[7.0, 5.0]]]))
    # The row through the joint sums to x sqrt(2 pi), and its height has its maximum there.
    np.testing.assert_allclose(gradient[0, 0], [np.sqrt(2 * np.pi), 0], atol=1e-3)
