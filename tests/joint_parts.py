"""Which body parts a joint may be seen on, for the tests of label maps."""

import numpy as np

from fusion_jax.body_parts import part_label
from fusion_jax.skeletons import skeleton

_H36M = skeleton("human36m17")
_LIMBS = {
    "shoulder": ("torso", "upper_arm"), "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"),
    "hip": ("torso", "thigh"), "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
}  # fmt: skip


def labels_at(joint: str) -> set[int]:
    """Of the parts that meet at a joint of human36m17."""
    side, _, name = joint.partition("_")
    if name in _LIMBS:
        return {part_label(part if part == "torso" else f"{side}_{part}") for part in _LIMBS[name]}
    return {part_label(part) for part in (("head",) if joint in ("nose", "head_top") else ("torso", "head"))}


def on_their_parts(parts, joints2d, visible) -> list[bool]:
    """For each visible joint whether one of its parts is at most a pixel away in a label map (H, W)."""
    found = []
    for joint in np.flatnonzero(visible):
        u, v = np.rint(joints2d[joint]).astype(int)
        around = parts[max(0, v - 1) : v + 2, max(0, u - 1) : u + 2]
        found.append(bool(labels_at(_H36M.joints[joint]) & set(around.ravel().tolist())))
    return found
