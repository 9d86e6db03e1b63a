"""The articulated body: joint limits, forward kinematics, fitting captured motion to other bone lengths.

Body frame: x forward, y to the person's left, z up. Angles in degrees; missing ones are 0, the standing pose.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.synthetic_humans.people import ANKLE_HEIGHT, REST_OFFSETS, SKELETON, Person, girth
from fusion_jax.errors import UserError, unknown_name

Angles = dict[str, np.ndarray]  # name in LIMITS -> (T,) degrees

_MIDDLE: dict[str, tuple[float, float]] = {
    "turn": (-np.inf, np.inf),  # of the whole body, to its left
    "lean": (-90, 110),  # of the pelvis, forward
    "tilt": (-45, 45),  # of the pelvis, to its left
    "spine_flex": (-25, 80),
    "spine_side": (-35, 35),  # to the left
    "spine_twist": (-45, 45),  # to the left
    "neck_flex": (-45, 45),
    "neck_side": (-45, 45),
    "neck_twist": (-60, 60),
}
_SIDE: dict[str, tuple[float, float]] = {
    "shoulder_flex": (-60, 180),  # forward and up
    "shoulder_abduct": (-30, 180),  # outward and up
    "shoulder_rotate": (-90, 70),  # inward
    "elbow_flex": (0, 150),
    "hip_flex": (-30, 120),
    "hip_abduct": (-30, 45),
    "hip_rotate": (-45, 45),  # inward
    "knee_flex": (0, 150),
}
# Degrees, low and high: about the normal ranges of the American Academy of Orthopaedic Surgeons (Joint
# Motion, 1965); the knee goes further, for deep squats. Knees and elbows are hinges that only bend one way.
LIMITS: dict[str, tuple[float, float]] = _MIDDLE | {
    f"{side}_{name}": limit for side in ("left", "right") for name, limit in _SIDE.items()
}


def clamp(angles: Angles) -> Angles:
    """The angles, each within its anatomical limits. Raises UserError for a name that is not in `LIMITS`."""
    for name in angles:
        if name not in LIMITS:
            raise unknown_name("joint angle", name, LIMITS)
    return {name: np.clip(value, *LIMITS[name]) for name, value in angles.items()}


def rotation(axis: str, degrees: np.ndarray) -> np.ndarray:
    """Right-handed rotations (..., 3, 3) about 'x', 'y' or 'z'."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., i, i] = matrix[..., j, j] = cos
    matrix[..., i, j], matrix[..., j, i] = -sin, sin
    matrix[..., 3 - i - j, 3 - i - j] = 1
    return matrix


def forward(angles: Angles, bone_lengths_mm: np.ndarray) -> np.ndarray:
    """Joints (T, 17, 3) mm of clamped angles, the pelvis at the origin."""
    num_frames = max((np.size(v) for v in angles.values()), default=1)
    zero = np.zeros(num_frames)
    a = {name: zero + np.asarray(angles.get(name, 0.0)) for name in LIMITS}
    frames = _joint_frames(a)
    rest = REST_OFFSETS / np.linalg.norm(REST_OFFSETS, axis=-1, keepdims=True)
    joints = np.zeros((num_frames, 17, 3))
    for (parent, child), direction, length in zip(SKELETON.bones, rest, bone_lengths_mm, strict=True):
        frame = frames[SKELETON.joints[child]]
        joints[:, child] = joints[:, parent] + float(length) * (frame @ direction)
    return joints


def _joint_frames(a: Angles) -> dict[str, np.ndarray]:
    """The frame (T, 3, 3) that carries the bone ending in each joint."""
    root = rotation("z", a["turn"]) @ rotation("y", a["lean"]) @ rotation("x", -a["tilt"])
    half = root @ _bend(0.5 * a["spine_twist"], 0.5 * a["spine_flex"], 0.5 * a["spine_side"])
    chest = root @ _bend(a["spine_twist"], a["spine_flex"], a["spine_side"])
    head = chest @ _bend(a["neck_twist"], a["neck_flex"], a["neck_side"])
    frames = {"spine": half, "thorax": chest, "nose": head, "head_top": head}
    for side, sign in (("left", 1), ("right", -1)):
        frames[f"{side}_hip"], frames[f"{side}_shoulder"] = root, chest
        thigh = root @ _ball(a, f"{side}_hip", sign)
        upper_arm = chest @ _ball(a, f"{side}_shoulder", sign)
        frames[f"{side}_knee"], frames[f"{side}_elbow"] = thigh, upper_arm
        frames[f"{side}_ankle"] = thigh @ rotation("y", a[f"{side}_knee_flex"])
        frames[f"{side}_wrist"] = upper_arm @ rotation("y", -a[f"{side}_elbow_flex"])
    return frames


def _bend(twist: np.ndarray, flex: np.ndarray, side: np.ndarray) -> np.ndarray:
    return rotation("z", twist) @ rotation("y", flex) @ rotation("x", -side)


def _ball(a: Angles, joint: str, sign: int) -> np.ndarray:
    """A ball joint: first abduction, then flexion, with rotation about the limb inmost."""
    flex, abduct = rotation("y", -a[f"{joint}_flex"]), rotation("x", sign * a[f"{joint}_abduct"])
    return flex @ abduct @ rotation("z", -sign * a[f"{joint}_rotate"])


def clearance_mm(person: Person) -> np.ndarray:
    """(17,) how high each joint's centre stays above what its flesh rests on; head and arms never carry."""
    clear = np.zeros(17)
    for name, height in (
        ("ankle", ANKLE_HEIGHT * person.stature_mm),
        ("knee", girth(person, "knee")),
        ("wrist", girth(person, "hand")),
        ("hip", 1.1 * girth(person, "hips")),
    ):
        for side in ("left", "right"):
            clear[SKELETON.index(f"{side}_{name}")] = float(height)
    return clear


def stand(joints_mm: np.ndarray, person: Person, flight_mm: np.ndarray | float = 0.0) -> np.ndarray:
    """Joints (T, 17, 3) moved vertically: each frame's lowest flesh is `flight_mm` (T,) above the floor."""
    height = (joints_mm[:, :, 2] - clearance_mm(person)).min(axis=1)
    moved = joints_mm.copy()
    moved[:, :, 2] += (flight_mm - height)[:, None]
    return moved


def planted_velocity(joints_mm: np.ndarray) -> np.ndarray:
    """Steps (T, 2) in mm per frame that the pelvis takes when the lower foot stands still; the first is 0.

    joints_mm: (T, 17, 3) relative to the pelvis, turned as in the world.
    """
    feet = joints_mm[:, [SKELETON.index("left_ankle"), SKELETON.index("right_ankle")]]  # (T, 2, 3)
    height = feet[:, :, 2] - feet[:, :, 2].min(axis=1, keepdims=True)
    weight = np.exp(-height / 15.0)  # both feet share where both are on the floor
    weight = (weight / weight.sum(axis=1, keepdims=True))[..., None]
    step = np.diff(feet[:, :, :2], axis=0, prepend=feet[:1, :, :2])
    return -(weight * step).sum(axis=1)


def retarget(joints_mm: np.ndarray, bone_lengths_mm: np.ndarray) -> np.ndarray:
    """Captured joints (T, 17, 3) mm, z up, on another body: same bone directions, its bone lengths (16,).

    The pelvis path is scaled by the ratio of leg lengths, and the clip is moved vertically as a whole so that
    its lowest ankle is at ankle height; jumps stay jumps.

    Raises:
      UserError: for a wrong shape, a joint that is not finite, or a bone without length.
    """
    joints_mm, lengths = np.asarray(joints_mm, np.float64), np.asarray(bone_lengths_mm, np.float64)
    if joints_mm.ndim != 3 or joints_mm.shape[1:] != (17, 3) or not len(joints_mm):
        raise UserError(f"retarget: joints_mm must be (T, 17, 3) with T > 0, got {joints_mm.shape}")
    if not np.isfinite(joints_mm).all():
        raise UserError("retarget: joints_mm holds values that are not finite; drop those frames first")
    parents, children = (list(side) for side in zip(*SKELETON.bones, strict=True))
    bones = joints_mm[:, children] - joints_mm[:, parents]
    old = np.linalg.norm(bones, axis=-1)
    if old.min() < 1e-3:
        frame, bone = np.argwhere(old < 1e-3)[0]
        raise UserError(f"retarget: frame {frame}: bone to {SKELETON.joints[children[bone]]} has no length")
    bones *= (lengths / old)[..., None]
    out = np.zeros_like(joints_mm)
    out[:, 0] = joints_mm[:, 0] * (_leg(lengths) / _leg(old.mean(axis=0)))
    for (parent, child), bone in zip(SKELETON.bones, bones.transpose(1, 0, 2), strict=True):
        out[:, child] = out[:, parent] + bone
    ankles = out[:, [SKELETON.index("left_ankle"), SKELETON.index("right_ankle")], 2]
    out[:, :, 2] += _ankle_height(lengths) - ankles.min()
    return out


def _bone(child: str) -> int:
    return [c for _, c in SKELETON.bones].index(SKELETON.index(child))


def _leg(lengths: np.ndarray) -> float:
    return sum(float(lengths[_bone(f"{s}_{j}")]) for s in ("left", "right") for j in ("knee", "ankle"))


def _ankle_height(lengths: np.ndarray) -> float:
    """Of a body known only by its bones: in proportion to its legs."""
    return ANKLE_HEIGHT * _leg(lengths) / _leg(np.linalg.norm(REST_OFFSETS, axis=-1))
