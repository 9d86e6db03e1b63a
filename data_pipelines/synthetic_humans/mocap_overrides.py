"""`mapping.json`: what a user says about the BVH files beside it, checked field by field.

    {"left_hip": ["LeftUpLeg"], ..., "unit_mm": 10.0, "up": "y", "drop_first_frame": true, "fps": {"60": 60}}

Every field may be left out. Joint fields hold the source joints whose mean is the joint; they come all
together, save for pelvis, spine and head_top, which can be told from the others. With joint fields no naming
scheme applies: unless said here too, the unit is told from the stature, every frame is motion, and the rate
is the header's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.bvh import Bvh
from data_pipelines.synthetic_humans.mocap_mappings import CROWN, JOINTS, JointMapping, Point, source_index
from fusion_jax.bounded_file import Refused, read_ordinary
from fusion_jax.errors import UserError, unknown_name
from fusion_jax.records import parse_json

_SETTINGS = ("unit_mm", "up", "drop_first_frame", "fps")
_DERIVED = ("pelvis", "spine", "head_top")
MAX_MAPPING_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Overrides:
    """What the user's file says; None or empty where it is silent.

    Attributes:
      mapping: where the 17 joints lie, in place of the known schemes.
      unit_mm: mm per file unit.
      up: 'y' or 'z', the file's vertical axis.
      drop_first_frame: whether the first frame is an added rest pose.
      fps: true frames per second by clip name or by performer.
    """

    mapping: JointMapping | None = None
    unit_mm: float | None = None
    up: str | None = None
    drop_first_frame: bool | None = None
    fps: Mapping[str, float] = dataclasses.field(default_factory=dict)


def read_overrides(path: Path) -> Overrides:
    """The overrides in the JSON file at `path`. Raises UserError naming file and field."""
    try:
        fields = parse_json(read_ordinary(path, MAX_MAPPING_BYTES), finite=False)  # their field is named below
    except Refused as error:
        raise UserError(f"{path}: expected a JSON object, came what {error}; repair it") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not JSON, 5000 digits
        raise UserError(f"{path}: expected a JSON object, came an unreadable file ({error}); repair it") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path}: expected a JSON object, came {_show(fields)}; write {{...}}")
    for field in fields:
        if field not in JOINTS + _SETTINGS:
            raise UserError(f"{path}: {unknown_name('field', field, JOINTS + _SETTINGS)}")
    _check_settings(path, fields)
    return Overrides(
        _read_mapping(path, {name: value for name, value in fields.items() if name in JOINTS}),
        fields.get("unit_mm"),
        fields.get("up"),
        fields.get("drop_first_frame"),
        fields.get("fps", {}),
    )


def check_names(mapping: JointMapping, bvh: Bvh) -> None:
    """Raise UserError unless every source joint of a user's mapping is in the file."""
    index = source_index(bvh)
    for joint, (point,) in mapping.points.items():
        for name in point.needs:
            if name not in index:
                raise UserError(f"{bvh.source}: {mapping.name}, field {joint}: {unknown_name('joint', name, index)}")


def _check_settings(path: Path, fields: dict[str, Any]) -> None:
    fps = fields.get("fps", {})
    if not isinstance(fps, dict):
        raise _bad(path, "fps", "an object from clip or performer to frames per second", fps)
    for key, rate in fps.items():
        _check_number(path, f"fps.{key}", rate, 1e4)
    if "unit_mm" in fields:
        _check_number(path, "unit_mm", fields["unit_mm"], 1e6)
    if fields.get("up", "y") not in ("y", "z"):
        raise _bad(path, "up", '"y" or "z"', fields["up"])
    if not isinstance(fields.get("drop_first_frame", True), bool):
        raise _bad(path, "drop_first_frame", "true or false", fields["drop_first_frame"])


def _read_mapping(path: Path, fields: dict[str, object]) -> JointMapping | None:
    if not fields:
        return None
    for joint, names in fields.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise _bad(path, joint, "a list of one or more joint names of the BVH files", names)
    missing = [joint for joint in JOINTS if joint not in fields and joint not in _DERIVED]
    if missing:
        raise UserError(f"{path}: expected all joints or none, {', '.join(missing)} are missing; add them")
    names = {joint: tuple(value) for joint, value in fields.items() if isinstance(value, list)}
    points = {joint: Point(value) for joint, value in names.items()}
    hips, thorax = names["left_hip"] + names["right_hip"], names["thorax"]
    points.setdefault("pelvis", Point(hips))
    # Repeats weight the means so that hips and thorax count alike.
    points.setdefault("spine", Point(hips * len(thorax) + thorax * len(hips)))
    points.setdefault("head_top", Point(names["nose"], CROWN, thorax))
    return JointMapping(path.name, {joint: (point,) for joint, point in points.items()})


def _check_number(path: Path, field: str, value: object, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= high:
        raise _bad(path, field, f"a number above 0, at most {high:g}", value)


def _bad(path: Path, field: str, expected: str, came: object) -> UserError:
    return UserError(f"{path}: field {field}: expected {expected}, came {_show(came)}; correct it")


def _show(value: object) -> str:
    return repr(value)[:60]
