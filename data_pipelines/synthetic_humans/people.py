"""Random bodies and clothes: who is in the picture. Proportions of adults, drawn from one seed per subject.

Segment lengths are fractions of stature after Drillis and Contini, Body Segment Parameters (1966), as
reprinted in Winter, Biomechanics and Motor Control of Human Movement, fig. 4.1: ankle 0.039, knee 0.285, hip
0.530, shoulder 0.818 high; upper arm 0.186, forearm 0.146, hand 0.108, foot 0.152 long; chest 0.174 and hips
0.191 wide. Joint centres lie inside those breadths. Radii are ours, set so that rendered breadths match.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusion_jax.skeletons import skeleton

SKELETON = skeleton("human36m17")

# Joint positions of a standing body of stature 1: x forward, y to its left, z up from the floor.
_STANDING: dict[str, tuple[float, float, float]] = {
    "pelvis": (0, 0, 0.530),
    "right_hip": (0, -0.050, 0.530),
    "right_knee": (0, -0.050, 0.285),
    "right_ankle": (-0.004, -0.050, 0.039),
    "left_hip": (0, 0.050, 0.530),
    "left_knee": (0, 0.050, 0.285),
    "left_ankle": (-0.004, 0.050, 0.039),
    "spine": (-0.002, 0, 0.665),
    "thorax": (0, 0, 0.826),
    "nose": (0.062, 0, 0.922),
    "head_top": (0.016, 0, 1.0),
    "left_shoulder": (0, 0.104, 0.814),
    "left_elbow": (-0.006, 0.110, 0.628),
    "left_wrist": (0, 0.111, 0.482),
    "right_shoulder": (0, -0.104, 0.814),
    "right_elbow": (-0.006, -0.110, 0.628),
    "right_wrist": (0, -0.111, 0.482),
}
STANDING = np.array([_STANDING[name] for name in SKELETON.joints])  # (17, 3)
REST_OFFSETS = np.array([STANDING[c] - STANDING[p] for p, c in SKELETON.bones])  # (16, 3), stature 1
ANKLE_HEIGHT = 0.039

# Radius of each body part as a fraction of stature, and how strongly a heavy build widens it.
_GIRTHS: dict[str, tuple[float, float]] = {
    "skull": (0.0495, 0.1),
    "neck": (0.0300, 0.5),
    "shoulder": (0.0300, 0.5),
    "chest": (0.0560, 0.7),
    "waist": (0.0500, 1.1),
    "belly": (0.0500, 1.5),
    "hips": (0.0550, 0.9),
    "upper_arm": (0.0290, 0.9),
    "elbow": (0.0235, 0.7),
    "forearm": (0.0225, 0.6),
    "wrist": (0.0160, 0.4),
    "hand": (0.0200, 0.3),
    "thigh": (0.0490, 0.9),
    "knee": (0.0330, 0.7),
    "calf": (0.0310, 0.7),
    "ankle": (0.0210, 0.4),
    "foot": (0.0230, 0.2),
}
PARTS = tuple(_GIRTHS)

_SKINS = np.array([[244, 208, 184], [226, 184, 152], [198, 148, 112], [160, 112, 80], [118, 80, 58], [84, 58, 44]])
_HAIRS = np.array([[30, 24, 22], [62, 42, 30], [104, 72, 44], [176, 140, 84], [150, 148, 146], [120, 54, 30]])


class Person(NamedTuple):
    """A body and its clothes; float32 arrays, each may carry a leading batch axis (see `stack_people`).

    Attributes:
      stature_mm: () standing height.
      bone_lengths_mm: (16,) in the order of `human36m17`'s bones.
      girths_mm: (17,) radii in the order of `PARTS`.
      build: () from -1, thin, to 1, heavy.
      colors: (5, 3) display RGB in [0, 1] of skin, hair, shirt, trousers, shoes.
      sleeves, trousers: () share of arm and leg that the clothes cover, 0 to 1.
      hair: (2,) hairline (how far the hair comes into the face, in skull radii), and length from 0 to 1.
      beard: () 1 with, 0 without.
    """

    stature_mm: Any
    bone_lengths_mm: Any
    girths_mm: Any
    build: Any
    colors: Any
    sleeves: Any
    trousers: Any
    hair: Any
    beard: Any


def sample_person(seed: int, subject: int) -> Person:
    """The person number `subject` of the population `seed`; the same two numbers give the same person."""
    rng = np.random.default_rng((seed, subject))
    broad = rng.uniform()  # 0: narrow shoulders and wide hips, 1: the reverse; men tend to 1, women to 0
    stature = float(np.clip(rng.normal(1620 + 140 * broad, 65), 1500, 1950))
    build = float(np.clip(rng.normal(0.0, 0.5), -1, 1))
    hair_length = rng.choice([0.0, 0.0, 0.35, 1.0]) if broad > 0.5 else rng.choice([0.0, 0.35, 1.0, 1.0])
    fields = Person(
        stature_mm=stature,
        bone_lengths_mm=_bone_lengths(rng, stature, broad),
        girths_mm=_girths(rng, stature, build, broad),
        build=build,
        colors=_colors(rng),
        sleeves=rng.choice([0.0, 0.28, 0.35, 0.5, 1.0, 1.0]),
        trousers=rng.choice([0.3, 0.45, 0.75, 1.0, 1.0, 1.0]),
        hair=np.array([rng.uniform(-0.1, 0.25), hair_length]),
        beard=float(broad > 0.55 and rng.uniform() < 0.35),
    )
    return Person(*(np.asarray(field, np.float32) for field in fields))


def stack_people(people: list[Person]) -> Person:
    """One Person whose fields lead with a batch axis, for batches of frames that show different people."""
    return Person(*(np.stack(field) for field in zip(*people, strict=True)))


def girth(person: Person, part: str) -> np.ndarray:
    """The radius (...) in mm of one of `PARTS`."""
    return person.girths_mm[..., PARTS.index(part)]


def _bone_lengths(rng: np.random.Generator, stature: float, broad: float) -> np.ndarray:
    """(16,) mm, both sides alike; short bodies get relatively larger heads, as children have."""
    lengths = np.linalg.norm(REST_OFFSETS, axis=-1)
    scale: dict[str, float] = {}
    for _, child in SKELETON.bones:
        part = SKELETON.joints[child].split("_")[-1]
        scale.setdefault(part, 1 + np.clip(rng.normal(0, 0.025), -0.06, 0.06))
    scale["shoulder"] *= 0.91 + 0.17 * broad
    scale["hip"] *= 1.10 - 0.14 * broad
    short = np.clip((1650 - stature) / 150, 0, 1)
    scale["nose"] *= 1 + 0.05 * short
    scale["top"] *= 1 + 0.05 * short
    factor = [scale[SKELETON.joints[child].split("_")[-1]] for _, child in SKELETON.bones]
    lengths = lengths * np.array(factor)
    # Jitter also changes the height a little: scale back to the stature.
    rest = np.linalg.norm(REST_OFFSETS, axis=-1)
    return lengths * (stature * _standing_height(rest) / _standing_height(lengths))


def _standing_height(lengths: np.ndarray) -> float:
    """Height of the head top above the ankles with these bone lengths in the standing pose."""
    directions = REST_OFFSETS / np.linalg.norm(REST_OFFSETS, axis=-1, keepdims=True)
    height = np.zeros(17)
    for (parent, child), drop in zip(SKELETON.bones, directions[:, 2] * lengths, strict=True):
        height[child] = height[parent] + drop
    return height[SKELETON.index("head_top")] - height[SKELETON.index("left_ankle")]


def _girths(rng: np.random.Generator, stature: float, build: float, broad: float) -> np.ndarray:
    radii = np.array([share * (1 + 0.22 * build * effect) for share, effect in _GIRTHS.values()])
    radii *= 1 + np.clip(rng.normal(0, 0.03, len(radii)), -0.06, 0.06)
    for part, low, high in (("chest", 0.93, 1.06), ("shoulder", 0.88, 1.08), ("neck", 0.86, 1.08)):
        radii[PARTS.index(part)] *= low + (high - low) * broad
    for part, low, high in (("hips", 1.08, 0.95), ("thigh", 1.06, 0.97), ("waist", 0.94, 1.03)):
        radii[PARTS.index(part)] *= low + (high - low) * broad
    return radii * stature


def _colors(rng: np.random.Generator) -> np.ndarray:
    skin = _SKINS[rng.integers(len(_SKINS))] / 255 * rng.uniform(0.93, 1.05)
    hair = _HAIRS[rng.integers(len(_HAIRS))] / 255 * rng.uniform(0.8, 1.2)
    shirt = cloth(rng, rng.uniform(0.15, 0.98))
    trousers = cloth(rng, rng.uniform(0.12, 0.75), 0.6)
    shoes = cloth(rng, rng.choice([0.12, 0.3, 0.85]), 0.4)
    return np.clip(np.stack([skin, hair, shirt, trousers, shoes]), 0.02, 1)


def cloth(rng: np.random.Generator, value: float, saturation: float = 0.85) -> np.ndarray:
    """A random display colour (3,) of brightness `value` and up to this saturation."""
    hue = (np.arange(3) / 3 + rng.uniform()) % 1
    wheel = np.clip(2 - 6 * np.abs(hue - 0.5), 0, 1)  # hue 0.5 is the pure primary, neighbours fade in
    return value * (1 - saturation * rng.uniform() * (1 - wheel))
