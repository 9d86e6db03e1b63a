"""Actions that go by a cycle: walking, running, jumping."""

from __future__ import annotations

import numpy as np

from data_pipelines.synthetic_humans.body import Angles
from data_pipelines.synthetic_humans.moves import Motion, bump, circling, on_the_spot

_GRAVITY = 9810.0  # mm / s^2


def walking(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """About 1.3 m/s at 1.8 steps/s. Hip and knee curves after the normal gait data in Winter's book."""
    pace = rng.uniform(0.82, 1.12)
    cycle = 0.9 * pace * times + rng.uniform()
    speed = 1320 * pace**2
    angles: Angles = {"turn": circling(rng, times, speed, rng.uniform(900, 1200))}
    swing, bent = rng.uniform(14, 28), rng.uniform(12, 35)
    for side, phase in (("left", cycle), ("right", cycle + 0.5)):
        wave = np.cos(2 * np.pi * (phase + 0.006))
        # Constants fitted so that the standing foot keeps its place on the floor at this speed.
        angles[f"{side}_hip_flex"] = 8.6 + 22.6 * pace * (wave + 0.03 * np.cos(6 * np.pi * (phase + 0.006)))
        angles[f"{side}_knee_flex"] = 4 + 8 * bump(phase, 0.13, 0.08) + 55 * bump(phase, 0.71, 0.098)
        angles[f"{side}_shoulder_flex"] = -4 - swing * wave
        angles[f"{side}_elbow_flex"] = bent - 0.5 * swing * wave
    wave = np.cos(2 * np.pi * cycle)
    angles |= {"lean": 3 + 0 * wave, "spine_twist": 8 * wave, "tilt": 3 * np.sin(2 * np.pi * cycle)}
    return Motion(angles, np.zeros(len(times)), speed)


def running(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """About 3 m/s at 2.7 steps/s with both feet in the air between the steps."""
    pace = rng.uniform(0.9, 1.1)
    cycle = 1.35 * pace * times + rng.uniform()
    speed = 2900 * pace
    turn = circling(rng, times, speed, rng.uniform(1250, 1500))
    angles: Angles = {"turn": turn}
    swing = rng.uniform(25, 42)
    for side, phase in (("left", cycle), ("right", cycle + 0.5)):
        wave = np.cos(2 * np.pi * (phase + 0.06))
        angles[f"{side}_hip_flex"] = 22 + 32 * wave
        angles[f"{side}_knee_flex"] = 22 + 16 * bump(phase, 0.15, 0.07) + 75 * bump(phase, 0.64, 0.11)
        angles[f"{side}_shoulder_flex"] = -8 - swing * wave
        angles[f"{side}_elbow_flex"] = 92 - 15 * wave
        angles[f"{side}_shoulder_rotate"] = 20 + 0 * wave
    wave = np.cos(2 * np.pi * cycle)
    inward = np.sign(turn[-1] - turn[0]) * 10
    angles |= {"lean": 9 + 0 * wave, "spine_twist": 11 * wave, "tilt": inward + 0 * wave}
    flight = 80 * np.maximum(0, np.sin(2 * np.pi * (2 * cycle + 0.30)) - 0.35) / 0.65
    return Motion(angles, flight, speed)


def jumping(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Crouch, leap, land, with arms that swing up; the height fits the time in the air."""
    air, period = rng.uniform(0.34, 0.5), rng.uniform(1.3, 2.0)
    star = rng.uniform() < 0.4  # legs and arms spread in the air
    t = (times + rng.uniform(0, period)) % period
    leap = 0.45 * period
    u = np.clip((t - leap) / air, 0, 1)
    flight = np.where((t > leap) & (t < leap + air), _GRAVITY / 2 * air**2 * u * (1 - u), 0.0)
    crouch = np.exp(-(((t - leap + 0.2) / 0.13) ** 2)) + 0.8 * np.exp(-(((t - leap - air - 0.12) / 0.13) ** 2))
    aloft = np.clip((t - leap + 0.12) / 0.15, 0, 1) * np.clip((leap + air + 0.15 - t) / 0.25, 0, 1)
    knee = 10 + 70 * crouch + rng.uniform(0, 35) * 4 * u * (1 - u)
    lean = 4 + 32 * crouch
    angles: Angles = {"lean": lean, "spine_flex": 8 * crouch}
    reach = rng.uniform(90, 165)
    for side in ("left", "right"):
        angles[f"{side}_hip_flex"] = lean + 0.5 * knee + 4 * crouch
        angles[f"{side}_knee_flex"] = knee
        angles[f"{side}_shoulder_flex"] = -30 * crouch + (15 if star else reach) * aloft
        angles[f"{side}_shoulder_abduct"] = (130 if star else 12) * aloft
        angles[f"{side}_hip_abduct"] = (24 if star else 2) * aloft
        angles[f"{side}_elbow_flex"] = 20 + 15 * crouch
    return on_the_spot(rng, times, angles)._replace(flight_mm=flight)
