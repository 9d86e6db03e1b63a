"""Over the frames of a video: the same person under the same number, and less jitter, with state that never grows."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OneEuro:
    """The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass whose cutoff rises with speed.

    At rest the cutoff is `min_cutoff_hz`, which takes jitter away; a joint that moves at v has the cutoff
    `min_cutoff_hz + beta |v|`, so that it hardly lags behind. Here v is a joint's speed in space and not along each
    axis alone, so that turning the axes turns the result; and it is taken between the values as they came in (some
    implementations take the last smoothed one, which counts the filter's own lag as speed).

    Attributes:
      min_cutoff_hz: > 0; lower is calmer at rest.
      beta: >= 0, Hz per (unit of the values per second); higher lags less in motion. The default is for mm: 1000 mm/s
        add 5 Hz.
      speed_cutoff_hz: > 0, of the filter of the speed itself.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 0.005
    speed_cutoff_hz: float = 1.0

    def __post_init__(self):
        for name, low in (("min_cutoff_hz", 0.0), ("beta", None), ("speed_cutoff_hz", 0.0)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or value == low:
                expected = "a finite number above 0" if low == 0 else "a finite number from 0"
                raise UserError(f"OneEuro: {name} is {value!r}, expected {expected}")

    def start(self, values: np.ndarray) -> Smoothed:
        """The state after the first values (..., D), which come out unchanged. Raises UserError if not finite."""
        values = np.array(values, np.float64)
        if not np.isfinite(values).all():
            raise UserError("OneEuro: the first values are not finite")
        return Smoothed(values, np.zeros_like(values), values)

    def step(self, state: Smoothed, values: np.ndarray, dt: float) -> Smoothed:
        """The state after values (..., D), `dt` seconds after the last ones; its `values` are the smoothed ones.

        Raises:
          UserError: `dt` is not above 0, or the values are not finite or of another shape.
        """
        values = np.array(values, np.float64)
        if not (math.isfinite(dt) and dt > 0):
            raise UserError(f"OneEuro: time step is {dt!r} s, expected a finite number above 0")
        if values.shape != state.values.shape or not np.isfinite(values).all():
            raise UserError(f"OneEuro: expected finite values {state.values.shape}, got {values.shape} or not finite")
        share = _share(self.speed_cutoff_hz, dt)
        velocity = share * (values - state.raw) / dt + (1 - share) * state.velocity
        speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
        share = _share(self.min_cutoff_hz + self.beta * speed, dt)
        return Smoothed(share * values + (1 - share) * state.values, velocity, values)


class Smoothed(NamedTuple):
    """A One-Euro filter's state.

    Attributes:
      values: (..., D) smoothed.
      velocity: (..., D) a second, smoothed.
      raw: (..., D) the values as they came in.
    """

    values: np.ndarray
    velocity: np.ndarray
    raw: np.ndarray


class Tracks:
    """Gives each box of a frame the number of the person it was in the frames before.

    Boxes are paired with the people's last boxes so that the sum of the overlaps (intersection over union) is largest,
    and only where they overlap enough: first with those of the last frame, then, for the boxes that are left, with
    those of people who are missing since, so that nobody takes the number of somebody they pass by. A new box gets a
    new number, none is used twice; who has not been seen for too long is forgotten.
    """

    def __init__(self, min_overlap: float = 0.3, max_missed: int = 15):
        """A pair overlaps at least `min_overlap`; a person is remembered over `max_missed` frames without a box."""
        if not 0 < min_overlap <= 1 or max_missed < 0:
            raise UserError(
                f"Tracks: expected 0 < min_overlap <= 1 and max_missed >= 0, got {min_overlap!r} and {max_missed!r}"
            )
        self._min_overlap, self._max_missed = min_overlap, max_missed
        self._numbers: list[int] = []
        self._boxes = np.zeros((0, 4))
        self._missed: list[int] = []
        self._next = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Everybody who is remembered; what is kept for others may be let go."""
        return tuple(self._numbers)

    def update(self, boxes: np.ndarray) -> list[int]:
        """The numbers of the next frame's boxes (N, 4), [x, y, width, height] px; N may be 0."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] <= 0).any():
            raise UserError(f"Tracks: expected finite boxes [x, y, width, height] with an area, got {boxes.tolist()}")
        found: dict[int, int] = {}
        overlap = _overlaps(boxes, self._boxes)
        overlap[overlap < self._min_overlap] = 0
        missed = np.array(self._missed, np.int64)
        for known in (missed == 0, missed > 0):
            pairs = np.where(known, overlap, 0)
            pairs[list(found)] = 0
            for new, old in zip(*linear_sum_assignment(pairs, maximize=True), strict=True):
                if pairs[new, old] > 0:
                    found[int(new)] = self._numbers[old]
        for new in range(len(boxes)):
            if new not in found:
                found[new], self._next = self._next, self._next + 1
        numbers = [found[new] for new in range(len(boxes))]
        lost = [
            i
            for i, number in enumerate(self._numbers)
            if number not in numbers and self._missed[i] + 1 <= self._max_missed
        ]
        self._boxes = np.concatenate([boxes, self._boxes[lost]])
        self._missed = [0] * len(numbers) + [self._missed[i] + 1 for i in lost]
        self._numbers = numbers + [self._numbers[i] for i in lost]
        return numbers


def _share(cutoff_hz: float | np.ndarray, dt: float) -> float | np.ndarray:
    """How much of a new value a first-order low-pass takes on in `dt` seconds: 1 / (1 + tau / dt)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * dt))


def _overlaps(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, :2] + ones[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    both = np.maximum(high - low, 0).prod(-1)
    return both / (ones[:, None, 2:].prod(-1) + others[None, :, 2:].prod(-1) - both)
