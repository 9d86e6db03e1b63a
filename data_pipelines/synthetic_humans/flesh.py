"""Round cones around a skeleton: limbs, torso, head, hands and feet from the 17 joints alone. NumPy.

Directions that joints do not tell (where the toes point, where the back is) follow from hip and shoulder
lines, shins and the nose, so that captured motion can be dressed like procedural motion.
"""

from __future__ import annotations

import functools

import numpy as np

from data_pipelines.synthetic_humans.cones import Body
from data_pipelines.synthetic_humans.people import ANKLE_HEIGHT, SKELETON, STANDING, Person, girth, sample_person
from fusion_jax.body_parts import part_label

_ALL = 1e6  # a cut beyond every point
_SKIN, _HAIR, _SHIRT, _TROUSERS, _SHOES = range(5)
_EYES = 5  # pseudo colour


class _Cones:
    """Collects cones of one batch; every value broadcasts to (N, ...)."""

    def __init__(self, num_frames: int, palette: np.ndarray):
        self.num_frames, self.palette = num_frames, palette
        self.fields: list[tuple[np.ndarray, ...]] = []
        self.labels: list[int] = []

    def add(self, part: str, start, end, radii, colors, cut=None) -> None:
        """part: of body_parts.PARTS. colors: palette indices (before, beyond the cut). cut: normal (N, 3) and offset
        (N,), or none."""
        n = self.num_frames
        normal, offset = (np.zeros((n, 3)), _ALL) if cut is None else cut
        plane = np.concatenate([normal, np.broadcast_to(np.asarray(offset, float), n)[:, None]], axis=-1)
        radius = np.stack([np.broadcast_to(r, n) for r in radii], axis=-1)
        self.fields.append((start, end, radius, self.palette[:, list(colors)], plane))
        self.labels.append(part_label(part))

    def limb(self, part: str, start, end, radii, colors, covered) -> None:
        """A cone whose clothes end at the share `covered` (N,) of its axis."""
        axis = end - start
        length = np.linalg.norm(axis, axis=-1)
        offset = np.where(covered >= 1, _ALL, np.where(covered <= 0, -_ALL, covered * length))
        self.add(part, start, end, radii, colors, (unit(axis), offset))

    def body(self) -> Body:
        fields = (np.stack(field, axis=1) for field in zip(*self.fields, strict=True))
        return Body(*(np.ascontiguousarray(field, np.float32) for field in fields))


def capsules(joints_mm: np.ndarray, person: Person) -> Body:
    """The body (N, P, ...) of joints (N, 17, 3) mm, world, floor at z = 0.

    person: fields unbatched, for one person in all frames, or batched (N, ...).
    """
    return _whole(joints_mm, person).body()


@functools.cache
def cone_labels() -> tuple[int, ...]:
    """The label (see body_parts) of each of the P cones of `capsules`' body; the same for everybody."""
    person = sample_person(0, 0)
    return tuple(_whole(STANDING[None] * float(person.stature_mm), person).labels)


def _whole(joints_mm: np.ndarray, person: Person) -> _Cones:
    cones, j = _empty(joints_mm, person)
    _torso(cones, j, person)
    _head(cones, j, person)
    _hair_and_neck(cones, j, person)
    for side in ("left", "right"):
        _arm(cones, j, person, side)
        _leg(cones, j, person, side)
    return cones


def head(joints_mm: np.ndarray, person: Person) -> Body:
    """The head (N, 5, ...) of `capsules`' body, from crown to chin: without neck and hanging hair."""
    cones, j = _empty(joints_mm, person)
    _head(cones, j, person)
    return cones.body()


def _empty(joints_mm: np.ndarray, person: Person) -> tuple[_Cones, dict[str, np.ndarray]]:
    """No cones yet, and the joints (N, 3) by name."""
    joints = np.asarray(joints_mm, np.float64)
    num_frames = len(joints)
    palette = np.broadcast_to(person.colors, (num_frames, 5, 3)) ** 2  # display to linear
    palette = np.concatenate([palette, np.full((num_frames, 1, 3), 0.004)], axis=1)
    return _Cones(num_frames, palette), dict(zip(SKELETON.joints, np.moveaxis(joints, 1, 0), strict=True))


def unit(v: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) of length 1; a zero vector stays zero."""
    return v / np.maximum(np.sqrt((v * v).sum(axis=-1, keepdims=True)), 1e-9)


def _mm(person: Person, part: str) -> np.ndarray:
    return np.asarray(girth(person, part), np.float64)


def _column(value) -> np.ndarray:
    """A (...) radius or share as (..., 1), to scale vectors."""
    return np.asarray(value, np.float64)[..., None]


def _torso(cones: _Cones, j: dict[str, np.ndarray], person: Person) -> None:
    h = _column(person.stature_mm)
    chest, waist, hips, belly = (_mm(person, part) for part in ("chest", "waist", "hips", "belly"))
    across_hips, across_chest = (
        unit(j["left_hip"] - j["right_hip"]),
        unit(j["left_shoulder"] - j["right_shoulder"]),
    )
    up_low, up_high = unit(j["spine"] - j["pelvis"]), unit(j["thorax"] - j["spine"])
    front_low = unit(np.cross(across_hips, up_low))
    front_high = unit(np.cross(across_chest, up_high))
    across, front = unit(across_hips + across_chest), unit(front_low + front_high)
    belt = (up_low, 0.045 * np.asarray(person.stature_mm, np.float64))  # above the pelvis joint
    chest_mid = j["thorax"] - 0.062 * h * up_high + 0.004 * h * front_high
    shoulder_half = 0.5 * np.linalg.norm(j["left_shoulder"] - j["right_shoulder"], axis=-1)[:, None]
    for sign, side in ((1, "left"), (-1, "right")):
        top = chest_mid + sign * 0.33 * shoulder_half * across_chest
        middle = j["spine"] + sign * 0.45 * _column(waist) * across
        low = j["pelvis"] + sign * 0.68 * _column(hips) * across_hips - 0.006 * h * front_low
        cones.add("torso", top, middle, (chest, waist), (_SHIRT, _SHIRT))
        cones.add("torso", low, middle, (hips, waist), (_TROUSERS, _SHIRT), belt)
        yoke = _mm(person, "shoulder")
        nape = j["thorax"] - 0.004 * h * up_high - 0.008 * h * front_high
        cones.add("torso", nape, j[f"{side}_shoulder"], (1.15 * yoke, 0.98 * yoke), (_SHIRT, _SHIRT))
        breast = chest_mid + sign * 0.36 * shoulder_half * across_chest + 0.012 * h * front_high
        if side == "left":
            first = breast
        else:
            cones.add("torso", first, breast, (0.94 * chest, 0.94 * chest), (_SHIRT, _SHIRT))
    seat = j["pelvis"] - 0.020 * h * front_low - 0.012 * h * up_low
    reach = 0.62 * _column(hips) * across_hips
    cones.add("torso", seat - reach, seat + reach, (hips, hips), (_TROUSERS, _SHIRT), belt)
    paunch = j["spine"] - 0.045 * h * up_low + front * _column(0.010 * h[..., 0] + 0.25 * (belly - waist))
    cones.add(
        "torso",
        j["pelvis"] + 0.02 * h * up_low,
        paunch,
        (0.98 * hips, belly),
        (_TROUSERS, _SHIRT),
        (up_low, belt[1] - 0.02 * h[..., 0]),
    )


def _head_axes(j: dict[str, np.ndarray], person: Person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 3) each: unit vectors up and to the front of the head, and the middle of the skull."""
    r = _column(_mm(person, "skull"))
    across = unit(j["left_shoulder"] - j["right_shoulder"])
    spine_up = unit(j["thorax"] - j["spine"])
    up = unit(j["head_top"] - j["thorax"])
    torso_front = unit(np.cross(across, spine_up))
    ahead = j["nose"] - j["thorax"]
    ahead = ahead - (ahead * up).sum(axis=-1, keepdims=True) * up
    # A nose (almost) on the neck's line, as in some captured skeletons, tells nothing: the chest decides.
    front = unit(ahead + 0.02 * r * unit(torso_front - (torso_front * up).sum(axis=-1, keepdims=True) * up))
    return up, front, j["head_top"] - 0.97 * r * up


def _head(cones: _Cones, j: dict[str, np.ndarray], person: Person) -> None:
    """Skull, jaw, nose and eyes."""
    skull = _mm(person, "skull")
    r = _column(skull)
    up, front, crown = _head_axes(j, person)
    left = np.cross(up, front)
    back, brow = crown - 0.30 * r * front, crown + 0.22 * r * front - 0.04 * r * up
    chin = crown + 0.52 * r * front - 1.22 * r * up
    hairline = np.asarray(person.hair[..., 0], np.float64)
    over = unit(0.80 * up - 0.60 * front)  # hair grows on this side of the skull
    cones.add("head", back, brow, (skull, 0.95 * skull), (_SKIN, _HAIR), (over, (0.12 - hairline) * skull))
    stubble = np.where(np.asarray(person.beard) > 0.5, 0.42 * skull, _ALL)
    cones.add(
        "head",
        crown + 0.25 * r * front - 0.30 * r * up,
        chin,
        (0.80 * skull, 0.44 * skull),
        (_SKIN, _HAIR),
        (unit(-up - 0.2 * front), stubble + 0.3 * skull),
    )
    tip = crown + 1.22 * r * front - 0.42 * r * up
    cones.add("head", crown + 1.02 * r * front - 0.08 * r * up, tip, (0.10 * skull, 0.17 * skull), (_SKIN, _SKIN))
    for sign in (1, -1):
        eye = crown + 0.98 * r * front - 0.10 * r * up + sign * 0.36 * r * left
        cones.add("head", eye, eye + sign * 0.10 * r * left, (0.15 * skull, 0.13 * skull), (_EYES, _EYES))


def _hair_and_neck(cones: _Cones, j: dict[str, np.ndarray], person: Person) -> None:
    skull = _mm(person, "skull")
    r = _column(skull)
    up, front, crown = _head_axes(j, person)
    hair_length = np.asarray(person.hair[..., 1], np.float64)
    nape = crown - 0.42 * r * front - 0.15 * r * up
    fall = nape - _column(hair_length) * (1.75 * r * up + 0.12 * r * front)
    cones.add("head", nape, fall, (0.92 * skull, (0.92 - 0.25 * hair_length) * skull), (_HAIR, _HAIR))
    neck = _mm(person, "neck")
    cones.add(
        "head",
        j["thorax"] - 0.2 * r * up,
        crown - 0.75 * r * up - 0.05 * r * front,
        (1.15 * neck, neck),
        (_SKIN, _SKIN),
    )


def _arm(cones: _Cones, j: dict[str, np.ndarray], person: Person, side: str) -> None:
    shoulder, elbow, wrist = (j[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
    sleeves = np.asarray(person.sleeves, np.float64)
    cloth = (_SHIRT, _SKIN)
    cones.limb(
        f"{side}_upper_arm",
        shoulder,
        elbow,
        (_mm(person, "upper_arm"), _mm(person, "elbow")),
        cloth,
        0.12 + 2 * sleeves,
    )
    cones.limb(f"{side}_forearm", elbow, wrist, (_mm(person, "forearm"), _mm(person, "wrist")), cloth, 2 * sleeves - 1)
    # A slightly bent hand: on in the forearm's direction, curling towards the inside of the elbow.
    forearm, upper = unit(wrist - elbow), unit(elbow - shoulder)
    curl = unit(forearm - 0.25 * upper)
    palm = wrist + 0.032 * _column(person.stature_mm) * forearm
    tips = palm + 0.052 * _column(person.stature_mm) * curl
    hand = _mm(person, "hand")
    cones.add(f"{side}_hand", palm, tips, (hand, 0.58 * hand), (_SKIN, _SKIN))


def _leg(cones: _Cones, j: dict[str, np.ndarray], person: Person, side: str) -> None:
    hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    covered = np.asarray(person.trousers, np.float64)
    cloth = (_TROUSERS, _SKIN)
    knee_r, ankle_r = _mm(person, "knee"), _mm(person, "ankle")
    front = _toe_direction(j, side)
    cones.limb(f"{side}_thigh", hip, knee, (_mm(person, "thigh"), 1.02 * knee_r), cloth, 2 * covered)
    cones.limb(f"{side}_shin", knee, ankle, (knee_r, ankle_r), cloth, 2 * covered - 1)
    shin = ankle - knee
    calf = knee + 0.30 * shin - 0.25 * _column(knee_r) * front
    cones.limb(
        f"{side}_shin",
        calf,
        knee + 0.75 * shin,
        (0.98 * _mm(person, "calf"), 1.05 * ankle_r),
        cloth,
        (2 * covered - 1.3) / 0.45,
    )
    foot, h = _mm(person, "foot"), _column(person.stature_mm)
    sole = -unit(shin - (shin * front).sum(axis=-1, keepdims=True) * front)  # up from the sole
    drop = _column(ANKLE_HEIGHT * np.asarray(person.stature_mm, np.float64) - foot)
    heel = ankle - drop * sole - 0.016 * h * front
    toes = ankle - (drop + _column(0.22 * foot)) * sole + 0.100 * h * front
    for point, radius in ((heel, foot), (toes, 0.78 * foot)):
        point[:, 2] = np.maximum(point[:, 2], radius)
    cones.add(f"{side}_foot", heel, toes, (foot, 0.78 * foot), (_SHOES, _SHOES))


def _toe_direction(j: dict[str, np.ndarray], side: str) -> np.ndarray:
    """Unit (N, 3): square to the shin, forward as hips and knee bend say; level for a foot on the floor."""
    hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    across = unit(j["left_hip"] - j["right_hip"])
    shin_up = unit(knee - ankle)
    leg = unit(ankle - hip)
    bend = knee - hip
    bend = bend - (bend * leg).sum(axis=-1, keepdims=True) * leg  # the knee's offset from the hip-ankle line
    bend = bend / np.maximum(np.linalg.norm(knee - hip, axis=-1, keepdims=True), 1e-6)
    front = np.cross(across, shin_up)
    front = front + 2.0 * bend
    front = unit(front - (front * shin_up).sum(axis=-1, keepdims=True) * shin_up)
    flat = unit(front * [1, 1, 0])
    shin = np.maximum(np.linalg.norm(knee - ankle, axis=-1, keepdims=True), 1e-6)
    # An ankle is about 0.16 shins above the sole; within the next quarter shin the foot leaves the floor.
    lifted = np.clip((ankle[:, 2:] / shin - 0.18) / 0.25, 0, 1)
    upright = np.clip(3.0 * shin_up[:, 2:], 0, 1)  # a lying shin's foot cannot be flat
    return unit(front + (flat - front) * (1 - lifted) * upright)
