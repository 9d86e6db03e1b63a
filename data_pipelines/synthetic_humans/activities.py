"""Actions on the spot, from key poses: each draws its own style, side and order of moves."""

from __future__ import annotations

import numpy as np

from data_pipelines.synthetic_humans.body import Angles
from data_pipelines.synthetic_humans.moves import Motion, Pose, arm, keyed, legs, on_the_spot, sides


def waving(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """One hand, at times both, beside or above the head."""
    lead, other = sides(rng)
    hands = (lead, other) if rng.uniform() < 0.25 else (lead,)
    wave = np.sin(2 * np.pi * rng.uniform(0.9, 1.9) * times + rng.uniform(0, 6))
    high = rng.uniform(70, 130)
    angles: Angles = {f"{other}_elbow_flex": rng.uniform(5, 30) + 0 * wave}
    for side in hands:
        angles[f"{side}_shoulder_abduct"] = high + 6 * wave
        angles[f"{side}_shoulder_flex"] = rng.uniform(0, 25) + 0 * wave
        angles[f"{side}_shoulder_rotate"] = -80 + rng.uniform(5, 15) * wave
        angles[f"{side}_elbow_flex"] = rng.uniform(40, 85) + rng.uniform(15, 30) * wave
    angles["spine_side"] = 3 * wave
    return on_the_spot(rng, times, angles)


def boxing(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """A guard on bent, staggered legs, and quick straight punches from either hand."""
    lead, other = sides(rng)
    reach = rng.uniform(75, 100)

    def draw(k: int) -> Pose:
        pose = {"lean": 8.0, "spine_flex": 10.0, "neck_flex": 6.0, "spine_twist": 0.0}
        pose |= {
            f"{lead}_hip_flex": 5.0,
            f"{lead}_knee_flex": 28.0,
            f"{other}_hip_flex": 38.0,
            f"{other}_knee_flex": 28.0,
        }
        pose |= arm("left", 42, 8, 25, 125) | arm("right", 42, 8, 25, 125)
        if k % 2:
            side = lead if rng.uniform() < 0.6 else other
            pose |= arm(side, reach + rng.uniform(-12, 12), rng.uniform(-5, 8), 15, rng.uniform(5, 20))
            pose["spine_twist"] = rng.uniform(18, 34) * (1 if side == "right" else -1)
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.15, 0.28), (0.02, 0.45)))


def reaching(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Takes things from shelves high, low and to the sides with one hand or both."""
    lead, other = sides(rng)

    def draw(k: int) -> Pose:
        if k % 3 == 2:
            return arm(lead) | arm(other) | {"spine_flex": 3.0}
        side = lead if rng.uniform() < 0.7 else other
        height, out = rng.uniform(35, 165), rng.uniform(-15, 60)
        pose = legs(0.12 * (110 - height), rng.uniform(0, 15)) | arm(side, height, out, 10, rng.uniform(5, 35))
        pose["spine_twist"] = rng.uniform(-5, 28) * (1 if side == "right" else -1)
        pose["spine_flex"] = 0.1 * (120 - height)
        pose["neck_flex"] = 0.25 * (90 - height)
        if rng.uniform() < 0.3:
            pose |= arm(lead if side == other else other, height, out, 10, rng.uniform(5, 35))
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.5, 1.1), (0.1, 0.8)))


def sitting(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Sits as on a chair (none is drawn), hands in the lap, gesturing or propped; at times gets up."""
    lead, other = sides(rng)
    thigh, apart, recline = rng.uniform(82, 95), rng.uniform(2, 16), rng.uniform(-12, 14)
    tucked = rng.uniform(-15, 18)
    gets_up = rng.uniform() < 0.4

    def draw(k: int) -> Pose:
        if gets_up and k % 5 == 4:
            return legs(4, 6)
        lean = recline + rng.uniform(-5, 8)
        pose: Pose = {"lean": lean, "spine_flex": rng.uniform(0, 22), "neck_flex": rng.uniform(-12, 15)}
        for side in ("left", "right"):
            pose |= {
                f"{side}_hip_flex": thigh + lean,
                f"{side}_knee_flex": thigh + tucked,
                f"{side}_hip_abduct": apart,
            }
            pose |= arm(side, rng.uniform(18, 34), rng.uniform(0, 8), rng.uniform(10, 40), rng.uniform(45, 80))
        if rng.uniform() < 0.5:
            pose |= arm(lead, rng.uniform(25, 75), rng.uniform(5, 40), rng.uniform(-20, 30), rng.uniform(50, 125))
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.6, 1.2), (0.3, 1.6)))


def bending(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Picks something up from the floor and stands again."""
    lead, other = sides(rng)
    knee = rng.uniform(10, 75)

    def draw(k: int) -> Pose:
        if k % 2 == 0:
            return legs(2, 5) | arm(lead, rng.uniform(0, 40), 5, 10, rng.uniform(15, 100)) | arm(other)
        lean = rng.uniform(48, 72)
        pose = legs(lean, knee, min(9.0, 112 - lean - 0.5 * knee)) | {
            "spine_flex": rng.uniform(30, 50),
            "neck_flex": -15.0,
        }
        pose |= arm(lead, lean + rng.uniform(15, 35), 0, 10, 8)
        pose |= arm(other, lean + 30, 0, 10, 12) if rng.uniform() < 0.5 else arm(other, 45, 15, 30, 50)
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.8, 1.5), (0.1, 0.6)))


def squatting(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Knee bends with the arms held out for balance."""
    out, abduct = rng.uniform(60, 95), rng.uniform(0, 25)
    apart = rng.uniform(6, 18)

    def draw(k: int) -> Pose:
        knee = rng.uniform(75, 115) if k % 2 else rng.uniform(3, 12)
        lean = 0.33 * knee
        pose = legs(lean, knee, min(6.0, 118 - lean - 0.5 * knee)) | {"spine_flex": 0.08 * knee}
        for side in ("left", "right"):
            pose |= arm(side, out * min(1.0, knee / 70), abduct, 10, 12) | {f"{side}_hip_abduct": apart}
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.7, 1.3), (0.05, 0.6)))


def stretching(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Arms overhead, side bends, arms spread, twists, and a hand to the opposite foot."""
    apart = rng.uniform(4, 16)

    def draw(k: int) -> Pose:
        sign, side = (1, "left") if rng.uniform() < 0.5 else (-1, "right")
        far = "right" if side == "left" else "left"
        kind = rng.integers(5)
        pose: Pose = {"lean": 0.0}
        if kind == 0:
            pose |= arm("left", 168, 8, 0, 8) | arm("right", 168, 8, 0, 8) | {"spine_flex": -12.0, "neck_flex": -15.0}
        elif kind == 1:
            pose |= arm(far, 20, 158, 0, 25) | arm(side, 5, 25, 40, 75) | {"spine_side": 30.0 * sign}
        elif kind == 2:
            pose |= arm("left", 0, 88, 0, 6) | arm("right", 0, 88, 0, 6) | {"spine_twist": 35.0 * sign}
        elif kind == 3:
            pose |= legs(58, 8, 9) | arm(far, 85, 0, 10, 5) | arm(side, 10, 85, 0, 10)
            pose |= {"spine_flex": 25.0, "spine_twist": 30.0 * sign}
        else:
            pose |= arm("left", 12, 62, -35, 110) | arm("right", 12, 62, -35, 110)
        return pose | {"left_hip_abduct": apart, "right_hip_abduct": apart}

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.8, 1.4), (0.3, 1.0)))


def phoning(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """One hand at the ear, the other idle or gesturing, small shifts of weight."""
    lead, other = sides(rng)
    ear = arm(lead, rng.uniform(72, 84), rng.uniform(-8, 2), rng.uniform(17, 27), rng.uniform(142, 148))

    def draw(k: int) -> Pose:
        pose = dict(ear) | legs(rng.uniform(-2, 5), rng.uniform(2, 14)) | {"neck_flex": rng.uniform(-8, 18)}
        if rng.uniform() < 0.5:
            return pose | arm(
                other, rng.uniform(10, 50), rng.uniform(5, 30), rng.uniform(-10, 50), rng.uniform(40, 110)
            )
        return pose | arm(other)

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.5, 1.0), (0.4, 1.6)))


def throwing(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Overarm throws from a staggered stance: wind up, release, follow through."""
    lead, other = sides(rng)
    sign = 1 if lead == "right" else -1
    stance = {
        f"{other}_hip_flex": 24.0,
        f"{other}_knee_flex": 16.0,
        f"{lead}_hip_flex": -8.0,
        f"{lead}_knee_flex": 14.0,
    }
    keys = (
        arm(lead, 15, 10, 0, 60) | arm(other, 25, 5, 10, 50),
        arm(lead, 0, 100, -85, 95) | arm(other, 70, 20, 0, 25) | {"spine_twist": -32.0 * sign, "spine_flex": -8.0},
        arm(lead, 120, 45, -20, 25) | arm(other, 20, 15, 0, 60) | {"spine_twist": 10.0 * sign, "spine_flex": 8.0},
        arm(lead, 45, -12, 20, 15) | arm(other, -15, 20, 0, 50) | {"spine_twist": 35.0 * sign, "spine_flex": 28.0},
    )

    def draw(k: int) -> Pose:
        return stance | keys[k % 4] | {"lean": (4.0, -3.0, 8.0, 20.0)[k % 4]}

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.2, 0.45), (0.0, 0.25)))


def kneeling(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """On one knee, as to tie a shoe or to look at something low; hands busy in front."""
    lead, other = sides(rng)

    def draw(k: int) -> Pose:
        lean = rng.uniform(0, 28)
        pose: Pose = {"lean": lean, "spine_flex": rng.uniform(0, 30), "neck_flex": rng.uniform(-5, 22)}
        pose |= {f"{lead}_hip_flex": 86 + lean, f"{lead}_knee_flex": 90.0}
        pose |= {f"{other}_hip_flex": lean - 4, f"{other}_knee_flex": 84.0}
        for side in ("left", "right"):
            pose |= arm(side, rng.uniform(15, 85), rng.uniform(0, 25), rng.uniform(0, 30), rng.uniform(15, 85))
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.6, 1.2), (0.2, 1.2)))


def gesturing(rng: np.random.Generator, times: np.ndarray) -> Motion:
    """Talks with both hands, points, folds or spreads the arms, shifts weight from leg to leg."""

    def draw(k: int) -> Pose:
        pose: Pose = {"spine_flex": rng.uniform(-4, 12), "neck_flex": rng.uniform(-10, 15)}
        rest, bent = ("left", "right") if rng.uniform() < 0.5 else ("right", "left")
        pose |= {f"{bent}_hip_flex": rng.uniform(5, 22), f"{bent}_knee_flex": rng.uniform(8, 34)}
        for side in (rest, bent):
            if rng.uniform() < 0.2:
                pose |= arm(side, rng.uniform(60, 100), rng.uniform(0, 50), 0, rng.uniform(4, 20))
            elif rng.uniform() < 0.8:
                pose |= arm(side, rng.uniform(0, 50), rng.uniform(0, 45), rng.uniform(-30, 50), rng.uniform(30, 120))
        return pose

    return on_the_spot(rng, times, keyed(rng, times, draw, (0.35, 0.8), (0.05, 0.8)))
