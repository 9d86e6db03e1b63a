"""Named skeletons and conversions between them by joint name. Frozen records and NumPy; no jax.

"Left" and "right" are the person's own. Orders follow the datasets: `human36m17` the usual 17 of Human3.6M's
32 joints, `mpii16` MPII and the stacked hourglass, `humaneva15` the 15 joints common for HumanEva-I, `lsp14`
Leeds Sports Pose and KTH Multiview Football II.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from fusion_jax.errors import UserError, unknown_name

# How to place a joint that the source layout lacks: the mean of the joints of one of these groups, the first
# group that the source has in full. Only anatomically near points stand in for each other.
_STAND_INS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pelvis": (("right_hip", "left_hip"),),
    "thorax": (("neck",), ("right_shoulder", "left_shoulder")),
    "neck": (("thorax",), ("upper_neck",)),
    "upper_neck": (("thorax", "nose"), ("neck",), ("thorax", "head")),
    "head": (("head_top",),),
    "head_top": (("head",),),
    "spine": (("pelvis", "thorax"),),
}


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A joint layout: order, tree, mirror pairs and root.

    Attributes:
      name: the key in `SKELETONS`.
      joints: J names in storage order.
      parents: J indices into `joints`; -1 marks the tree's root.
      root: the joints whose mean is the origin of root-relative poses. One name where the layout has a pelvis,
        else both hips.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    root: tuple[str, ...]

    def __post_init__(self):
        if len(self.parents) != len(self.joints) or len(set(self.joints)) != len(self.joints):
            raise ValueError(f"skeleton {self.name}: need one parent per joint and unique joint names")
        if self.parents.count(-1) != 1 or not set(self.root) <= set(self.joints):
            raise ValueError(f"skeleton {self.name}: need one tree root and a root made of its own joints")
        for joint in range(len(self.joints)):
            steps = 0
            while joint >= 0 and steps <= len(self.joints):
                joint, steps = (self.parents[joint] if joint < len(self.joints) else joint), steps + 1
            if joint != -1:
                raise ValueError(f"skeleton {self.name}: parents {self.parents} form no tree")

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.joints)

    def index(self, joint: str) -> int:
        """The storage index of `joint`. Raises UserError, listing the layout's joints."""
        if joint not in self.joints:
            raise unknown_name(f"joint of {self.name}", joint, self.joints)
        return self.joints.index(joint)

    @property
    def root_indices(self) -> tuple[int, ...]:
        """Indices of the joints whose mean is the root."""
        return tuple(self.index(name) for name in self.root)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) index pairs, J - 1 of them."""
        return tuple((p, c) for c, p in enumerate(self.parents) if p >= 0)

    @functools.cached_property
    def flip(self) -> tuple[int, ...]:
        """For each joint the index of its mirror image (itself on the midline): `pose[..., flip, :]`."""
        swap = {"left": "right", "right": "left"}
        names = []
        for joint in self.joints:
            side, _, rest = joint.partition("_")
            names.append(f"{swap[side]}_{rest}" if side in swap else joint)
        return tuple(self.index(name) for name in names)

    def side(self, joint: int) -> str:
        """'left', 'right' or 'middle' for a joint index."""
        first = self.joints[joint].partition("_")[0]
        return first if first in ("left", "right") else "middle"


_HUMAN36M17 = Skeleton(
    "human36m17",
    (
        *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("spine", "thorax", "nose", "head_top"),
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    ),
    (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    ("pelvis",),
)
_MPII16 = Skeleton(
    "mpii16",
    (
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    (1, 2, 6, 6, 3, 4, -1, 6, 7, 8, 11, 12, 7, 7, 13, 14),
    ("pelvis",),
)
_HUMANEVA15 = Skeleton(
    "humaneva15",
    (
        *("pelvis", "thorax", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
        *("left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "head"),
    ),
    (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
    ("pelvis",),
)
_LSP14 = Skeleton(
    "lsp14",
    (
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
        *("neck", "head_top"),
    ),
    (1, 2, 12, 12, 3, 4, 7, 8, 12, 12, 9, 10, -1, 12),
    ("right_hip", "left_hip"),
)

SKELETONS: dict[str, Skeleton] = {s.name: s for s in (_HUMAN36M17, _MPII16, _HUMANEVA15, _LSP14)}


def skeleton(name: str) -> Skeleton:
    """The skeleton called `name`. Raises UserError, listing the known names."""
    if name not in SKELETONS:
        raise unknown_name("skeleton", name, SKELETONS)
    return SKELETONS[name]


def stand_ins(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], ...]:
    """As `joint_sources`, with () for a target joint that the source cannot place."""
    found = []
    for joint in target.joints:
        groups = ((joint,), *_STAND_INS.get(joint, ()))
        found.append(next((group for group in groups if set(group) <= set(source.joints)), ()))
    return tuple(tuple(source.index(name) for name in group) for group in found)


@functools.cache
def joint_sources(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], ...]:
    """For each target joint the source joints whose mean it is: one of the same name, or its named stand-ins.

    Stand-ins are such as the hips for a pelvis, thorax and nose for MPII's upper neck.

    Raises:
      UserError: naming every target joint that the source cannot place.
    """
    found = stand_ins(source, target)
    missing = [joint for joint, group in zip(target.joints, found, strict=True) if not group]
    if missing:
        raise UserError(
            f"cannot convert {source.name} joints to {target.name}: nothing in {source.name} stands for "
            f"{', '.join(missing)}; choose a target layout without them"
        )
    return found


def conversion_matrix(source: Skeleton, target: Skeleton) -> np.ndarray:
    """The (J_target, J_source) float32 matrix whose product with (..., J_source, D) joints is the target layout.

    Each row sums to 1. Raises UserError as `joint_sources`.
    """
    matrix = np.zeros((target.num_joints, source.num_joints), np.float32)
    for row, group in enumerate(joint_sources(source, target)):
        matrix[row, list(group)] = 1.0 / len(group)
    return matrix


def convert_joints(joints, source: Skeleton, target: Skeleton):
    """Joints (..., J_source, D) in another layout, (..., J_target, D); NumPy in, NumPy out, jax in, jax out.

    By indexing rather than a matrix product: a joint that nothing is made of may hold NaN.
    """
    if source == target:
        return joints
    rows = [joints[..., list(group), :].mean(-2) for group in joint_sources(source, target)]
    return joints.__array_namespace__().stack(rows, axis=-2)


def convert_valid(valid, source: Skeleton, target: Skeleton):
    """Mask (..., J_source) bool in another layout: a target joint is valid iff all it is made of are."""
    if source == target:
        return valid
    rows = [valid[..., list(group)].all(-1) for group in joint_sources(source, target)]
    return valid.__array_namespace__().stack(rows, axis=-1)
