"""Smoothing: hand-computed steps, less jitter, little lag; people keep their numbers and memory does not grow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.errors import UserError
from fusion_jax.smooth import OneEuro, Tracks


def run(filter_, values, dt=1 / 30):
    state = filter_.start(values[0])
    out = [state.values]
    for value in values[1:]:
        state = filter_.step(state, value, dt)
        out.append(state.values)
    return np.array(out)


def test_two_steps_by_hand():
    """With 2 pi f dt = 1 a new value counts one half; the speed is 3 / dt halved, then halved with the next one's 0."""
    dt = 0.5
    f = 1 / (2 * math.pi * dt)
    out = run(OneEuro(f, 0.0, f), [[0.0], [3.0], [3.0]], dt)
    np.testing.assert_allclose(out[:, 0], [0, 1.5, 2.25])
    # beta raises the cutoff to f (1 + |v| dt / 3): first |v| = 3, so 1.5 f and 1.5 / 2.5; then |v| = 1.5, 1.25 / 2.25.
    out = run(OneEuro(f, f * dt / 3, f), [[0.0], [3.0], [3.0]], dt)
    np.testing.assert_allclose(out[:, 0], [0, 1.8, 1.8 + 1.2 * 1.25 / 2.25])


def test_what_stands_still_stays():
    values = np.broadcast_to(np.array([[1.0, -2, 3000], [5, 6, 7]]), (9, 2, 3))
    np.testing.assert_allclose(run(OneEuro(), values), values)


@given(st.integers(0, 2**32), st.floats(0.2, 5), st.floats(0, 0.05))
def test_turning_and_moving_the_axes_turns_and_moves_the_result(seed, cutoff, beta):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 100, (6, 4, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    filter_ = OneEuro(cutoff, beta)
    np.testing.assert_allclose(run(filter_, values @ turn + 50), run(filter_, values) @ turn + 50, atol=1e-8)


@given(st.integers(0, 2**32), st.floats(1e-3, 1))
def test_each_value_lies_between_the_last_smoothed_and_the_new_one(seed, dt):
    values = np.random.default_rng(seed).normal(0, 300, (8, 3, 1))
    out = run(OneEuro(), values, dt)
    low, high = np.minimum(out[:-1], values[1:]), np.maximum(out[:-1], values[1:])
    assert ((out[1:] >= low - 1e-9) & (out[1:] <= high + 1e-9)).all()


def test_jitter_goes_and_motion_stays():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10, (300, 17, 3))
    assert run(OneEuro(), noise)[100:].std() < 0.45 * noise.std()
    moving = np.cumsum(np.full((60, 1, 3), 40.0), axis=0)  # 40 mm a frame along each axis, 2 m/s
    lag = (moving - run(OneEuro(), moving))[-1].max()
    slow_lag = (moving - run(OneEuro(beta=0.0), moving))[-1].max()
    assert lag < 40 < 180 < slow_lag  # less than a frame behind, against about 1 / (2 pi) s


def test_a_longer_step_takes_on_more_of_the_new_value():
    filter_ = OneEuro(beta=0.0)
    start = filter_.start(np.zeros(3))
    parts = [filter_.step(start, np.ones(3), dt).values[0] for dt in (0.01, 0.1, 1.0, 100.0)]
    assert parts == sorted(parts) and 0 < parts[0] < 0.1 and parts[-1] > 0.99


def test_a_state_is_never_changed():
    filter_ = OneEuro()
    values = np.zeros((2, 3))
    state = filter_.start(values)
    values += 5
    later = filter_.step(state, values, 0.1)
    assert not state.values.any() and not state.raw.any() and (later.raw == 5).all()


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan, math.inf])
def test_time_goes_on(dt):
    filter_ = OneEuro()
    with pytest.raises(UserError, match="time step"):
        filter_.step(filter_.start(np.zeros(3)), np.zeros(3), dt)


def test_values_are_finite_and_keep_their_shape():
    filter_ = OneEuro()
    for bad in (np.full(3, np.nan), np.zeros(4)):
        with pytest.raises(UserError, match="finite"):
            filter_.step(filter_.start(np.zeros(3)), bad, 0.1)
    with pytest.raises(UserError, match="finite"):
        filter_.start([np.inf])


@pytest.mark.parametrize("fields", [{"min_cutoff_hz": 0.0}, {"beta": -1.0}, {"speed_cutoff_hz": math.nan}])
def test_a_filter_that_cannot_be_is_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        OneEuro(**fields)


def box(x, y=0.0, size=10.0):
    return [x, y, size, 2 * size]


def test_people_keep_their_numbers_in_whatever_order_they_come():
    tracks = Tracks()
    assert tracks.update([box(0), box(100), box(200)]) == [0, 1, 2]
    assert tracks.update([box(201), box(2), box(99)]) == [2, 0, 1]
    assert tracks.update([box(4), box(98)]) == [0, 1]
    assert tracks.numbers == (0, 1, 2)


def test_pairs_are_best_together_and_not_one_by_one():
    """The box at 4 overlaps most with the person at 3, but then the one at 7 would be left without anybody."""
    tracks = Tracks(min_overlap=0.2)
    assert tracks.update([box(0), box(3)]) == [0, 1]
    assert tracks.update([box(4), box(7)]) == [0, 1]


def test_who_comes_back_soon_is_known_and_who_does_not_is_forgotten():
    tracks = Tracks(max_missed=2)
    assert tracks.update([box(0), box(50)]) == [0, 1]
    assert tracks.update([box(50)]) == [1]
    assert tracks.update([box(50)]) == [1]
    assert tracks.update([box(1), box(50)]) == [0, 1]
    for _ in range(3):
        assert tracks.update([box(50)]) == [1]
    assert tracks.numbers == (1,)
    assert tracks.update([box(1), box(50)]) == [2, 1], "numbers are not used twice"


def test_who_passes_by_a_lost_one_keeps_their_number():
    tracks = Tracks()
    assert tracks.update([box(0), box(20)]) == [0, 1]
    assert [tracks.update([box(x)]) for x in range(4, 44, 4)] == [[0]] * 10


def test_frames_without_anybody():
    tracks = Tracks(max_missed=1)
    assert tracks.update([]) == []
    assert tracks.update([box(0)]) == [0]
    assert tracks.update(np.zeros((0, 4))) == []
    assert tracks.update([box(0)]) == [0]


def test_a_jump_is_somebody_else():
    tracks = Tracks()
    assert tracks.update([box(0)]) == [0]
    assert tracks.update([box(8)]) == [1], "overlap 2 / 18"
    assert Tracks(min_overlap=0.1).update([box(0)]) == [0]


@given(st.integers(0, 2**32))
def test_numbers_differ_within_a_frame_and_memory_is_bounded(seed):
    rng = np.random.default_rng(seed)
    tracks = Tracks(max_missed=3)
    for _ in range(30):
        boxes = np.concatenate([rng.uniform(0, 60, (rng.integers(0, 5), 2)), np.zeros((0, 2))])
        numbers = tracks.update(np.concatenate([boxes, np.full_like(boxes, 20)], axis=1))
        assert len(set(numbers)) == len(numbers) == len(boxes)
        assert set(numbers) <= set(tracks.numbers) and len(tracks.numbers) <= 4 * 4


@pytest.mark.parametrize("boxes", [[[0, 0, 0, 5]], [[0, 0, 5, np.nan]], [[0, 0, np.inf, 5]]])
def test_boxes_without_an_area_are_refused(boxes):
    with pytest.raises(UserError, match="finite boxes"):
        Tracks().update(boxes)


@pytest.mark.parametrize("limits", [(0, 3), (1.5, 3), (0.3, -1)])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(UserError, match="min_overlap"):
        Tracks(*limits)
