"""Made-up errors of a 2D network: each kind does what it says, as often as it says, whoever else is in the batch."""

import dataclasses
import functools
import math
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.errors import UserError
from fusion_jax.heatmap_noise import HeatmapNoise, noisy_heatmaps
from fusion_jax.heatmaps import decode_heatmaps, gaussian_heatmaps
from fusion_jax.skeletons import skeleton

MPII = skeleton("mpii16")
FLIP = np.array(MPII.flip)
NONE = HeatmapNoise(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
COUNT = 600
SIZES = {"image_size": 32, "heatmap_size": 16, "sigma_px": 1.0}


@jax.jit
def traced(keys, joints, valid, fields):
    noise = types.SimpleNamespace(**fields)  # its numbers not constants: compiled once for all settings
    return noisy_heatmaps(keys, joints, valid, flip=MPII.flip, noise=noise, **SIZES)


def noisy(keys, joints, valid, noise):
    return np.asarray(traced(keys, joints, valid, dataclasses.asdict(noise)))


clean = jax.jit(functools.partial(gaussian_heatmaps, **SIZES))
decode = jax.jit(functools.partial(decode_heatmaps, image_size=32))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def on_pixels(count, seed=0):
    """Joints (count, 16, 2) px of the 32 px picture, on the centres of px of the 16 px maps, away from the edge."""
    rng = np.random.default_rng(seed)
    return (2 * rng.integers(5, 11, (count, 16, 2)) + 0.5).astype(np.float32)


def known(count):
    return np.ones((count, 16), bool)


def changed(**fields):
    return dataclasses.replace(NONE, **fields)


def test_no_noise_is_no_noise():
    joints = np.random.default_rng(0).uniform(-4, 36, (COUNT, 16, 2)).astype(np.float32)
    valid = np.random.default_rng(1).uniform(size=(COUNT, 16)) < 0.7
    np.testing.assert_allclose(noisy(keys(COUNT), joints, valid, NONE), clean(joints, valid), atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_missing_joints_have_empty_maps(share):
    """Each by itself, as often as said; the others are as they were."""
    joints, valid = on_pixels(COUNT), known(COUNT)
    valid[:, 4] = False
    got, want = (np.asarray(noisy(keys(COUNT), joints, valid, n)) for n in (changed(missing_probability=share), NONE))
    empty = (got == 0).all((1, 2))
    assert empty[:, 4].all()
    gone, count = empty[valid], valid.sum()
    assert abs(gone.mean() - share) < 5 * math.sqrt(share * (1 - share) / count) + 1e-9
    kept = ~empty[:, None, None] & (got >= 0)
    np.testing.assert_array_equal(got[kept], want[kept])
    if share == 0.5:  # no joint goes with another
        table = np.corrcoef(empty[:, np.arange(16) != 4].T.astype(float))
        assert np.abs(table - np.eye(15)).max() < 0.25


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_swap_is_of_both_of_a_pair(share):
    joints, valid = on_pixels(COUNT), known(COUNT)
    valid[:, MPII.index("left_wrist")] = False  # its map is empty, then its mirror image's
    got = np.asarray(noisy(keys(COUNT), joints, valid, changed(swap_probability=share)))
    want = np.asarray(clean(joints, valid))
    exchanged = np.asarray(clean(joints[:, FLIP], valid[:, FLIP]))
    is_same, is_other = (np.isclose(got, maps, atol=1e-6).all((1, 2)) for maps in (want, exchanged))
    middle = np.flatnonzero(FLIP == np.arange(16))
    assert is_same[:, middle].all() and len(middle) == 4
    pairs = [(one, other) for one, other in enumerate(FLIP) if one < other]
    swapped = []
    for one, other in pairs:
        told = (want[:, :, :, one] != want[:, :, :, other]).any((1, 2))  # else nobody can say
        both = is_other[:, one] & is_other[:, other]
        neither = is_same[:, one] & is_same[:, other]
        assert (both ^ neither)[told].all()
        swapped.append(both[told])
    found = np.concatenate(swapped)
    assert len(pairs) == 6 and len(found) > 2000
    assert abs(found.mean() - share) < 5 * math.sqrt(share * (1 - share) / len(found)) + 1e-9


@pytest.mark.parametrize(
    ("fields", "spread"),
    [
        ({"jitter": 0.03}, 1),
        ({"jitter": 0.015, "outlier_probability": 1.0, "outlier_factor": 2.0}, 2),
        ({"jitter": 0.015, "outlier_probability": 0.25, "outlier_factor": 3.0}, math.sqrt(0.75 + 0.25 * 9)),
        ({"jitter": 0.03, "outlier_probability": 1.0, "outlier_factor": 0.0}, 0),
    ],
)
def test_joints_are_off_by_a_share_of_the_picture(fields, spread):
    """In x and y alike, without leaning anywhere: 0.03 of 32 px are 0.96 px."""
    joints = np.full((COUNT, 16, 2), 15.5, np.float32)
    maps = noisy(keys(COUNT), joints, known(COUNT), changed(**fields))
    off = np.asarray(decode(maps)[0]) - 15.5
    expected = spread * fields["jitter"] * 32
    np.testing.assert_allclose(off.std((0, 1)), expected, rtol=0.06, atol=1e-3)
    assert np.abs(off.mean((0, 1))).max() < 5 * expected / math.sqrt(COUNT * 16) + 1e-3
    if spread:
        assert abs(np.corrcoef(off[..., 0].ravel(), off[..., 1].ravel())[0, 1]) < 0.06


def test_an_outlier_is_a_joint_not_a_coordinate():
    noise = changed(jitter=0.001, outlier_probability=0.5, outlier_factor=99.0)
    joints = np.full((COUNT, 16, 2), 15.5, np.float32)
    off = np.abs(np.asarray(decode(noisy(keys(COUNT), joints, known(COUNT), noise))[0]) - 15.5)
    near = off < 4 * 0.032
    assert (near.all(-1) | (near.sum(-1) == 0)).mean() > 0.9  # an outlier's coordinate is near by chance at 3 %
    assert 0.45 < near.all(-1).mean() < 0.55


@pytest.mark.parametrize("lowest", [0.25, 0.9])
def test_peaks_are_spread_evenly_over_their_range(lowest):
    joints = on_pixels(COUNT)
    got = np.asarray(noisy(keys(COUNT), joints, known(COUNT), changed(lowest_peak=lowest)))
    peaks = got.max((1, 2))
    assert lowest <= peaks.min() + 1e-6 and peaks.max() <= 1
    shares, _ = np.histogram(peaks, bins=4, range=(lowest, 1))
    np.testing.assert_allclose(shares / peaks.size, 0.25, atol=0.03)
    want = np.asarray(clean(joints, known(COUNT)))
    np.testing.assert_allclose(got, want * peaks[:, None, None], atol=1e-5)  # lower, not of another form


@given(order=st.permutations(range(8)))
def test_errors_belong_to_the_example(order):
    """Nothing of an example depends on its place or on who else is in the batch."""
    joints, valid, noise = on_pixels(8), known(8), HeatmapNoise()
    whole = np.asarray(noisy(keys(8), joints, valid, noise))
    order = np.array(order)
    np.testing.assert_array_equal(noisy(keys(8)[order], joints[order], valid[order], noise), whole[order])


def test_errors_do_not_depend_on_the_batchs_size():
    joints, valid, noise = on_pixels(8), known(8), HeatmapNoise()
    whole = noisy(keys(8), joints, valid, noise)
    np.testing.assert_allclose(noisy(keys(8)[2:5], joints[2:5], valid[2:5], noise), whole[2:5], atol=1e-6)
    other = noisy(keys(8, seed=1), joints, valid, noise)
    assert (np.asarray(other) != np.asarray(whole)).any((1, 2)).mean() > 0.9


def test_unknown_joints_may_hold_nan():
    joints, valid = on_pixels(COUNT), known(COUNT)
    valid[:, [0, 7]] = False
    spoilt = np.where(valid[..., None], joints, np.nan).astype(np.float32)
    got = np.asarray(noisy(keys(COUNT), spoilt, valid, HeatmapNoise()))
    assert np.isfinite(got).all() and (got[..., 7] == 0).all()
    np.testing.assert_array_equal(got, noisy(keys(COUNT), joints, valid, HeatmapNoise()))


def test_settings_may_be_whole_numbers_and_it_lowers_for_accelerators():
    noise = HeatmapNoise(jitter=0, missing_probability=1, swap_probability=0, lowest_peak=1)
    make = jax.jit(functools.partial(noisy_heatmaps, flip=MPII.flip, noise=noise, **SIZES))
    for platform in ("tpu", "cuda"):
        assert make.trace(keys(8), on_pixels(8), known(8)).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("missing_probability", 1.5, r"a share in \[0, 1\]"),
        ("swap_probability", -0.1, r"a share in \[0, 1\]"),
        ("outlier_probability", float("nan"), r"a share in \[0, 1\]"),
        ("jitter", -1.0, r"in \[0, 100\)"),
        ("outlier_factor", float("inf"), r"in \[0, 100\)"),
        ("lowest_peak", 0.0, r"in \(0, 1\]"),
    ],
)
def test_settings_out_of_range(field, value, expected):
    with pytest.raises(UserError, match=rf"noise\.{field} is {value}, expected {expected}"):
        dataclasses.replace(HeatmapNoise(), **{field: value})
