"""Squared correlations from streamed moments: what NumPy finds on all data at once, whatever the batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.correlation import block_means, merge, moments, r_squared, update


def streamed(values, sizes):
    """Moments of (N, C) gathered in batches of these sizes."""
    found = None
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        found = update(found, part)
    return found


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.integers(2, 5),
    st.integers(0, 1000),
    st.sampled_from([0.0, 1.0, 1e7]),
)
def test_is_numpys_correlation_of_all_data_at_once(sizes, channels, seed, offset):
    """Also where the means are 1e7 times the spread, at which sums of squares would have lost every digit."""
    sizes = [*sizes, 3]
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sum(sizes), channels)) @ rng.normal(size=(channels, channels)) + offset
    found, alive = r_squared(streamed(values, sizes))
    np.testing.assert_array_equal(alive, np.arange(channels))
    np.testing.assert_allclose(found, np.corrcoef(values.T) ** 2, atol=1e-7)


@given(st.permutations(range(5)), st.integers(0, 1000))
def test_order_of_merging_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    parts = [moments(rng.normal(3, 2, (size, 3))) for size in (1, 4, 2, 9, 3)]
    one, other = parts[0], parts[order[0]]
    for part in parts[1:]:
        one = merge(one, part)
    for number in order[1:]:
        other = merge(parts[number], other)
    assert one.total == other.total == 19
    np.testing.assert_allclose(other.mean, one.mean, rtol=1e-12)
    np.testing.assert_allclose(other.scatter, one.scatter, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e9 + 0.7])
def test_channels_that_never_change_are_left_out(constant):
    """0.1 summed up is not 0.1 n: a variance by rounding must not make such a channel alive."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 4)).astype(np.float32).astype(np.float64)
    values[:, 1] = constant
    found, alive = r_squared(streamed(values, [7, 1, 12, 10]))
    np.testing.assert_array_equal(alive, [0, 2, 3])
    assert found.shape == (3, 3) and np.isfinite(found).all()
    np.testing.assert_allclose(found, np.corrcoef(values[:, [0, 2, 3]].T) ** 2, atol=1e-12)


def test_nothing_alive_gives_an_empty_matrix():
    found, alive = r_squared(moments(np.ones((5, 2))))
    assert found.shape == (0, 0) and alive.size == 0
    assert block_means(found, alive, 2) == [[None, None], [None, None]]


def test_tiny_spreads_do_not_underflow():
    """Spreads of 1e-90 have variances of 1e-180, whose product is no number any more."""
    x = np.array([[1.0], [2.0], [4.0]]) * 1e-90
    found, _ = r_squared(moments(np.hstack([x, 3 * x])))
    np.testing.assert_allclose(found, 1, rtol=1e-12)


def test_block_means_by_hand():
    """Groups 0 (rows 0, 1) and 1 (row 2): within 0 the pair (0, 1) twice, across four entries, within 1 no pair."""
    matrix = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]])
    means = block_means(matrix, np.array([0, 0, 1]), 3)
    assert means[0][0] == pytest.approx(0.5) and means[0][1] == means[1][0] == pytest.approx(0.3)
    assert means[1][1] is None and means[2] == [None, None, None]
