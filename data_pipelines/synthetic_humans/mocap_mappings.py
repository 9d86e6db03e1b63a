"""Where the 17 `human36m17` joints lie on captured skeletons, by joint name. Data, and how to read it.

A mapping is chosen by the names in the file alone. The points follow anatomy, not the rig's own names: the
pelvis is the middle of the hip joints (the rig's `Hips` is higher), the thorax the base of the neck,
`head_top` the crown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.bvh import Bvh, joint_frames
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

JOINTS = skeleton("human36m17").joints
CMU_UNIT_MM = 25.4 / 0.45  # ASF files of CMU: inches, "length 0.45"
CROWN = 1.7  # crown above the head's joint, in lengths of neck base to head joint: about 190 mm to 110 mm


@dataclasses.dataclass(frozen=True)
class Point:
    """A point on a captured body: the mean of `names`, then up to one of two shifts.

    Attributes:
      names: source joints; end sites count, as `Head_end`.
      beyond: go on past the mean by this multiple of the way from the mean of `start`.
      start: source joints, where `beyond` is not 0.
      offset: in the frame of names[0], file units, added.
    """

    names: tuple[str, ...]
    beyond: float = 0.0
    start: tuple[str, ...] = ()
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def needs(self) -> tuple[str, ...]:
        """All source joints it is made of."""
        return self.names + self.start


@dataclasses.dataclass(frozen=True)
class JointMapping:
    """One naming scheme.

    Attributes:
      name: for messages and logs.
      points: for each of the 17 joints the ways to place it, best first.
      unit_mm: mm per file unit; None to tell from the stature.
      marks: joints that only this scheme has; without them it does not apply.
      drop_first_frame: the first frame is an added rest pose.
      cmu: file names are CMU's `<subject>_<trial>`, and frame times may be wrong as CMU's are.
    """

    name: str
    points: Mapping[str, tuple[Point, ...]]
    unit_mm: float | None = None
    marks: tuple[str, ...] = ()
    drop_first_frame: bool = False
    cmu: bool = False


def _points(
    left: str, right: str, limbs: Mapping[str, str], **middle: str | Sequence[Point]
) -> dict[str, tuple[Point, ...]]:
    """The points of a scheme: `limbs` holds the limb joints' names without the side's prefix."""
    points: dict[str, tuple[Point, ...]] = {}
    for joint, name in limbs.items():
        points[f"left_{joint}"] = (Point((left + name,)),)
        points[f"right_{joint}"] = (Point((right + name,)),)
    for joint, ways in middle.items():
        points[joint] = (Point((ways,)),) if isinstance(ways, str) else tuple(ways)
    hips = (left + limbs["hip"], right + limbs["hip"])
    points["pelvis"] = (Point(hips),)
    return points


_UP_LEG = dict(hip="UpLeg", knee="Leg", ankle="Foot", shoulder="Arm", elbow="ForeArm", wrist="Hand")
_BY_JOINT = dict(hip="Hip", knee="Knee", ankle="Ankle", shoulder="Shoulder", elbow="Elbow", wrist="Wrist")
_HEAD_FROM_NECK = Point(("Head",), CROWN, ("Neck",))

MAPPINGS = (
    # Neck and the shoulders lie on Spine1, far below the neck's base, which is Neck1. Head_end is inside the
    # skull, about as far above Head as the crown is above it.
    JointMapping(
        "CMU MotionBuilder-friendly",
        _points(
            "Left",
            "Right",
            _UP_LEG,
            spine="Spine",
            thorax="Neck1",
            nose="Head",
            head_top=[Point(("Head_end",), 1.0, ("Head",))],
        ),
        unit_mm=CMU_UNIT_MM,
        marks=("LHipJoint", "RHipJoint", "LowerBack"),
        drop_first_frame=True,
        cmu=True,
    ),
    # The head has no end site; the eyes are 80 mm above its joint and the crown some 120 mm above the eyes.
    JointMapping(
        "CMU Daz-friendly",
        _points(
            "l",
            "r",
            dict(hip="Thigh", knee="Shin", ankle="Foot", shoulder="Shldr", elbow="ForeArm", wrist="Hand"),
            spine="abdomen",
            thorax="neck",
            nose="head",
            head_top=[Point(("head",), offset=(0.0, 20.0, 1.2))],
        ),
        unit_mm=10.0,
        marks=("hip", "rButtock", "lButtock"),
        drop_first_frame=True,
        cmu=True,
    ),
    # MotionBuilder's own names: also Mixamo (mixamorig:Hips), LaFAN1, Rokoko, 3ds Max exports.
    JointMapping(
        "Hips/LeftUpLeg (MotionBuilder, Mixamo, LaFAN1)",
        _points(
            "Left",
            "Right",
            _UP_LEG,
            spine=[Point(("Spine1",)), Point(("Spine",))],
            thorax="Neck",
            nose="Head",
            head_top=[Point(("HeadTop_End",)), Point(("Head_end",)), _HEAD_FROM_NECK],
        ),
    ),
    JointMapping(
        "Hips/LeftHip (Biovision, Xsens)",
        _points(
            "Left",
            "Right",
            _BY_JOINT,
            spine=[Point(("Chest2",)), Point(("Chest",))],
            thorax="Neck",
            nose="Head",
            head_top=[Point(("Head_end",)), _HEAD_FROM_NECK],
        ),
    ),
    JointMapping(
        "Pelvis/L_Hip (SMPL)",
        _points(
            "L_",
            "R_",
            _BY_JOINT,
            spine="Spine2",
            thorax="Neck",
            nose="Head",
            head_top=[Point(("Head_end",)), _HEAD_FROM_NECK],
        ),
    ),
)


def source_index(bvh: Bvh) -> dict[str, int]:
    """Joint name -> index, by the file's names and by those without namespace (`mixamorig:Hips`: `Hips`).

    End sites on top of their joint mark nothing and are left out.
    """
    plain = [name.rpartition(":")[2].removeprefix("mixamorig").lstrip("_") for name in bvh.names]
    usable = [bool(names) or bool(np.any(offset)) for names, offset in zip(bvh.channels, bvh.offsets, strict=True)]
    index = {name: i for i, name in enumerate(plain) if usable[i] and plain.count(name) == 1}
    return index | {name: i for i, name in enumerate(bvh.names) if usable[i]}


def find_mapping(bvh: Bvh) -> JointMapping:
    """The first scheme in `MAPPINGS` that places all 17 joints on this skeleton.

    Raises:
      UserError: naming the joints that the nearest scheme misses, and how to describe the skeleton.
    """
    index = source_index(bvh)
    misses = [_missing(mapping, index) for mapping in MAPPINGS]
    for mapping, missing in zip(MAPPINGS, misses, strict=True):
        if not missing:
            return mapping
    missing, nearest = min(zip(misses, MAPPINGS, strict=True), key=lambda pair: len(pair[0]))
    raise UserError(
        f"{bvh.source}: expected joint names of a known scheme; the nearest, {nearest.name}, "
        f"needs {', '.join(missing)}, which the file lacks; "
        f'describe the skeleton in mapping.json beside it: {{"left_hip": ["LeftUpLeg"], ...}} for '
        f"{', '.join(JOINTS)} (pelvis, spine and head_top may be left out)"
    )


def _missing(mapping: JointMapping, index: Mapping[str, int]) -> list[str]:
    """Source joints which `mapping` would need and the file lacks."""
    missing = [name for name in mapping.marks if name not in index]
    for ways in mapping.points.values():
        if not any(set(way.needs) <= set(index) for way in ways):
            missing += [name for name in ways[-1].needs if name not in index]
    return list(dict.fromkeys(missing))


def place_joints(bvh: Bvh, mapping: JointMapping) -> tuple[np.ndarray, np.ndarray]:
    """The 17 joints (T, 17, 3) and all points of both feet (T, F, 3), in the file's unit and axes.

    A foot is the ankle and everything below it, end sites included.
    """
    positions, rotations = joint_frames(bvh)
    index = source_index(bvh)

    def mean(names: tuple[str, ...]) -> np.ndarray:
        return positions[:, [index[name] for name in names]].mean(1)

    joints = np.empty((len(positions), len(JOINTS), 3))
    for column, joint in enumerate(JOINTS):
        way = next(way for way in mapping.points[joint] if set(way.needs) <= set(index))
        point = mean(way.names)
        if way.beyond:
            point = point + way.beyond * (point - mean(way.start))
        joints[:, column] = point + rotations[:, index[way.names[0]]] @ np.array(way.offset)
    ankles = {index[name] for side in ("left", "right") for name in mapping.points[f"{side}_ankle"][0].names}
    return joints, positions[:, _with_descendants(bvh.parents, ankles)]


def _with_descendants(parents: Sequence[int], roots: set[int]) -> list[int]:
    inside = set(roots)
    for joint, parent in enumerate(parents):  # parents come first
        if parent in inside:
            inside.add(joint)
    return sorted(inside)
