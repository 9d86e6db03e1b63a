"""Named actions performed by a person: angles to joints in the world, on the floor, near the origin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_pipelines.synthetic_humans import activities, gaits
from data_pipelines.synthetic_humans.body import Angles, clamp, forward, planted_velocity, stand
from data_pipelines.synthetic_humans.clips import Clip
from data_pipelines.synthetic_humans.moves import Motion, wander
from data_pipelines.synthetic_humans.people import Person
from fusion_jax.errors import UserError, unknown_name

ACTIONS: dict[str, Callable[[np.random.Generator, np.ndarray], Motion]] = {
    "walking": gaits.walking,
    "running": gaits.running,
    "jumping": gaits.jumping,
    "waving": activities.waving,
    "boxing": activities.boxing,
    "reaching": activities.reaching,
    "sitting": activities.sitting,
    "bending": activities.bending,
    "squatting": activities.squatting,
    "stretching": activities.stretching,
    "phoning": activities.phoning,
    "throwing": activities.throwing,
    "kneeling": activities.kneeling,
    "gesturing": activities.gesturing,
}

_FINE_FPS = 50.0


def perform(
    action: str,
    person: Person,
    rng: np.random.Generator,
    num_frames: int,
    fps: float,
    *,
    performer: str = "",
    name: str = "",
) -> Clip:
    """One clip of a named action of `ACTIONS`, near the world's origin, heading anywhere on the full circle.

    Args:
      person: whose bone lengths to use.
      rng: the clip's own generator; the same state gives the same clip.
      num_frames: T > 0, at `fps` frames per second.
      performer, name: copied into the clip.

    Raises:
      UserError: for an unknown action, or no frames.
    """
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    if num_frames < 1 or fps <= 0:
        raise UserError(f"perform: num_frames and fps must be positive, got {num_frames} and {fps}")
    # Feet change too fast for a slow frame rate to tell where they stood: move finely, then keep every k-th.
    skip = max(1, int(np.ceil(_FINE_FPS / fps)))
    times = np.arange((num_frames - 1) * skip + 1) / (fps * skip)
    motion = ACTIONS[action](rng, times)
    angles = _with_life(rng, times, motion.angles)
    joints = forward(clamp(angles), person.bone_lengths_mm)
    path = _path(joints, motion, fps * skip)
    joints = stand(joints, person, motion.flight_mm)
    joints[:, :, :2] += path[:, None]
    return Clip(performer, action, name, float(fps), joints[::skip].astype(np.float32))


def _path(joints: np.ndarray, motion: Motion, fps: float) -> np.ndarray:
    """Pelvis positions (T, 2) mm on the floor; the middle of their extent is the origin."""
    if motion.speed_mm is None:
        step = _smooth(planted_velocity(joints), max(1, round(0.12 * fps)))  # feet hand over within 0.12 s
    else:
        heading = np.deg2rad(np.broadcast_to(motion.angles["turn"], len(joints)))
        step = motion.speed_mm / fps * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    path = np.cumsum(step, axis=0)
    return path - (path.min(axis=0) + path.max(axis=0)) / 2


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean of (T, D) over `width` frames."""
    padded = np.pad(values, ((width, width), (0, 0)), mode="edge")
    kernel = np.ones(width) / width
    columns = [np.convolve(column, kernel, mode="same")[width:-width] for column in padded.T]
    return np.stack(columns, axis=-1)


def _with_life(rng: np.random.Generator, times: np.ndarray, angles: Angles) -> Angles:
    """The angles with a personal posture, small sway and a head that looks about."""
    spread: dict[str, float] = {
        "spine_flex": 5,
        "spine_side": 2,
        "spine_twist": 3,
        "neck_flex": 7,
        "neck_side": 4,
        "neck_twist": 16,
    }
    for side in ("left", "right"):
        spread |= {f"{side}_shoulder_flex": 4, f"{side}_shoulder_abduct": 4, f"{side}_shoulder_rotate": 8}
        spread |= {f"{side}_elbow_flex": 6, f"{side}_hip_rotate": 3}
    out: Angles = dict(angles)
    for name, size in spread.items():
        change = 0.7 * np.clip(rng.normal(), -2, 2) + 0.5 * wander(rng, times)
        out[name] = np.asarray(out.get(name, 0.0)) + size * change
    for side in ("left", "right"):  # arms hang clear of the hips and feet stand apart
        out[f"{side}_shoulder_abduct"] = out[f"{side}_shoulder_abduct"] + 9.0
        out[f"{side}_hip_abduct"] = np.asarray(out.get(f"{side}_hip_abduct", 0.0)) + 2.0
    return out
