"""What actions are made of: key poses, smooth moves between them, bells over a cycle, headings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.synthetic_humans.body import Angles

Pose = dict[str, float]  # angle name -> degrees


class Motion(NamedTuple):
    """Angles over time before the body stands on the floor.

    Attributes:
      angles: degrees, see body.LIMITS.
      flight_mm: (T,) height of the lowest flesh above the floor.
      speed_mm: per second along the heading; None: go where the planted feet take the body. A gait needs its
        own speed: ankles without toes push off too early to carry it.
    """

    angles: Angles
    flight_mm: np.ndarray
    speed_mm: float | None = None


def wander(rng: np.random.Generator, times: np.ndarray, hertz: float = 0.5) -> np.ndarray:
    """(T,) smooth noise of unit variance around this frequency."""
    rates, phases = hertz * rng.uniform(0.3, 1.5, 4), rng.uniform(0, 2 * np.pi, 4)
    return np.sqrt(0.5) * np.sin(2 * np.pi * rates * times[:, None] + phases).sum(axis=-1)


def keyed(
    rng: np.random.Generator,
    times: np.ndarray,
    draw: Callable[[int], Pose],
    move_s: tuple[float, float],
    hold_s: tuple[float, float],
) -> Angles:
    """Angles that go from key pose to key pose, resting at each.

    Moves follow the minimum-jerk profile 10 s^3 - 15 s^4 + 6 s^5 of human reaching (Flash and Hogan 1985).

    Args:
      draw: gives the k-th key pose.
      move_s, hold_s: ranges of the durations of moves and rests, seconds.
    """
    moves, end = [], -rng.uniform(0, move_s[1] + hold_s[1])  # the clip cuts in anywhere
    poses = [draw(0)]
    while end < times[-1]:
        start = end + rng.uniform(*hold_s)
        end = start + rng.uniform(*move_s)
        moves.append((start, end))
        poses.append(draw(len(poses)))
    names = sorted({name for pose in poses for name in pose})
    angles = {name: np.full(len(times), float(poses[0].get(name, 0.0))) for name in names}
    for (start, end), before, after in zip(moves, poses, poses[1:], strict=False):
        s = np.clip((times - start) / (end - start), 0, 1)
        ease = s**3 * (10 - 15 * s + 6 * s * s)
        for name in names:
            angles[name] += ease * (after.get(name, 0.0) - before.get(name, 0.0))
    return angles


def bump(phase: np.ndarray, centre: float, width: float) -> np.ndarray:
    """A periodic bell of height 1 around `centre` of a cycle of length 1."""
    return np.exp((np.cos(2 * np.pi * (phase - centre)) - 1) / (2 * np.pi * width) ** 2)


def circling(rng: np.random.Generator, times: np.ndarray, speed_mm: float, radius_mm: float) -> np.ndarray:
    """Headings (T,) in degrees of a walk along a circle."""
    rate = np.rad2deg(speed_mm / radius_mm) * rng.choice([-1, 1])
    return rng.uniform(-180, 180) + rate * times


def on_the_spot(rng: np.random.Generator, times: np.ndarray, angles: Angles) -> Motion:
    """A motion on the spot, facing a random way, turning a little."""
    turn = rng.uniform(-180, 180) + 12 * wander(rng, times, 0.15)
    return Motion({**angles, "turn": turn + angles.get("turn", 0.0)}, np.zeros(len(times)))


def sides(rng: np.random.Generator) -> tuple[str, str]:
    """The leading and the other side; most people are right-handed."""
    return ("right", "left") if rng.uniform() < 0.7 else ("left", "right")


def arm(side: str, flex: float = 0, abduct: float = 0, rotate: float = 0, elbow: float = 15) -> Pose:
    names = ("shoulder_flex", "shoulder_abduct", "shoulder_rotate", "elbow_flex")
    return {f"{side}_{n}": v for n, v in zip(names, (flex, abduct, rotate, elbow), strict=True)}


def legs(lean: float = 0, knee: float = 0, balance: float = 0.0) -> Pose:
    """Both legs under a leaning pelvis: feet below the hips, moved forward by `balance` degrees."""
    pose: Pose = {"lean": lean}
    for side in ("left", "right"):
        pose |= {f"{side}_hip_flex": lean + 0.5 * knee + balance, f"{side}_knee_flex": knee}
    return pose
