"""Folders of BVH motion capture as clips of the 17 joints: units, true rates, z up, the floor, resampling.

What a file does not say is taken from, in this order, `mapping.json` beside it, the naming scheme of its
joints, and for the unit the stature; which of them it was is logged and returned. Facts about the CMU files
(mocap.cs.cmu.edu, converted to BVH by B. Hahne): the first frame is an added rest pose, and the header says
120 fps everywhere although some subjects were captured at 60.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.bvh import Bvh, read_bvh
from data_pipelines.synthetic_humans.clips import Clip
from data_pipelines.synthetic_humans.mocap_mappings import (
    CMU_UNIT_MM,
    JOINTS,
    JointMapping,
    find_mapping,
    place_joints,
)
from data_pipelines.synthetic_humans.mocap_motion import (
    floor_height,
    recentre,
    resample,
    straight_stature,
    y_up_to_z_up,
)
from data_pipelines.synthetic_humans.mocap_overrides import Overrides, check_names, read_overrides
from fusion_jax.errors import UserError

MAPPING_FILE = "mapping.json"
# Ankle to crown along the bones. High is under 2 times low and the units below are farther apart: one fits.
STATURE_MM = (1250.0, 2300.0)
MAX_FPS = 1000.0

_UNITS_MM = {"mm": 1.0, "cm": 10.0, "inch": 25.4, "CMU's 2.54/0.45 cm": CMU_UNIT_MM, "m": 1000.0}
_CMU_60_FPS = ("60", "61")  # the salsa couple
_CMU_ACTIONS = {
    "01_01": "jumping",
    "01_03": "climbing",
    "02_01": "walking",
    "14_03": "boxing",
    "14_06": "exercises",
    "14_08": "reaching",
    "60_05": "salsa",
    "60_10": "salsa",
    "135_04": "front_kicks",
    "135_07": "roundhouse_kicks",
}

_log = logging.getLogger(__name__)


class ClipSource(NamedTuple):
    """How a file was read.

    Attributes:
      path: the file.
      mapping: the naming scheme, or mapping.json.
      unit_mm: mm per file unit; `unit_from`: 'mapping.json', 'naming scheme' or 'stature'.
      true_fps: of the capture; `fps_from`: 'mapping.json', 'CMU subject' or 'header'.
      stature_mm: ankle to crown along the bones.
    """

    path: str
    mapping: str
    unit_mm: float
    unit_from: str
    true_fps: float
    fps_from: str
    stature_mm: float


def load_clips(folder: str | os.PathLike[str], fps: float = 10.0) -> list[Clip]:
    """Every *.bvh file of `folder` (not of its subfolders), by name, as a clip at `fps` frames per second.

    performer is the file name up to its first underscore; action CMU's own where known, else the file name.

    Raises:
      UserError: no such folder, nothing in it, a file that is broken or not understood, bad mapping.json.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of .bvh files, but there is no such folder; check the path")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".bvh")
    if not paths:
        raise UserError(f"{folder}: expected .bvh files, came none; put the motion capture clips there")
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UserError(f"{folder}: two files are called {twice}; rename one, clip names must differ")
    overrides = Overrides()
    if (folder / MAPPING_FILE).exists():
        overrides = read_overrides(folder / MAPPING_FILE)
    for key in overrides.fps:
        if key not in stems and key not in map(performer_of, stems):
            raise UserError(f"{folder / MAPPING_FILE}: fps.{key} names no clip or performer here; remove it")
    clips = []
    for path in paths:
        clip, source = load_clip(path, fps, overrides)
        _log.info("%s: %d frames; %s", clip.name, len(clip.joints_mm), source)
        clips.append(clip)
    return clips


def load_clip(
    path: str | os.PathLike[str], fps: float = 10.0, overrides: Overrides | None = None
) -> tuple[Clip, ClipSource]:
    """One file as (Clip, ClipSource): `read_world`, resampled, then kept around the origin by `recentre`."""
    if not 0 < fps <= MAX_FPS:
        raise UserError(f"fps: expected a number above 0, at most {MAX_FPS:g}, came {fps}; the default is 10")
    joints_mm, source = read_world(path, overrides)
    name = Path(path).stem
    if fps > source.true_fps * 1.002:
        raise UserError(
            f"{path}: expected fps up to the capture's {source.true_fps:g}, came {fps:g}; ask for fewer "
            f"(or correct the capture's rate under fps in {MAPPING_FILE})"
        )
    joints_mm = recentre(resample(joints_mm, source.true_fps, fps), fps)
    action = _CMU_ACTIONS.get(name, name) if source.mapping.startswith("CMU") else name
    return Clip(performer_of(name), action, name, float(fps), joints_mm.astype(np.float32)), source


def performer_of(name: str) -> str:
    """The clip name up to the first underscore (CMU's subject), all of it where there is none."""
    return name.partition("_")[0] or name


def read_world(path: str | os.PathLike[str], overrides: Overrides | None = None) -> tuple[np.ndarray, ClipSource]:
    """Joints (T, 17, 3) float64 of a BVH file: world frame, mm, z up, on the floor, at the capture's rate.

    Raises:
      UserError: the file is broken, its skeleton unknown, no unit makes it a person, it is not upright.
    """
    overrides = overrides or Overrides()
    bvh = read_bvh(path)
    mapping = overrides.mapping or find_mapping(bvh)
    if overrides.mapping is not None:
        check_names(overrides.mapping, bvh)
    true_fps, fps_from = _true_fps(bvh, mapping, Path(path).stem, overrides)
    bvh = _without_rest_pose(bvh, mapping, overrides)
    joints, feet = place_joints(bvh, mapping)
    stature = straight_stature(joints)
    unit_mm, unit_from = _unit(stature, bvh.source, mapping, overrides)
    joints, feet = joints * unit_mm, feet * unit_mm
    if overrides.up is None:
        _check_upright(joints, bvh.source)
    if overrides.up != "z":
        joints, feet = y_up_to_z_up(joints), y_up_to_z_up(feet)
    joints[..., 2] -= floor_height(feet)
    return joints, ClipSource(bvh.source, mapping.name, unit_mm, unit_from, true_fps, fps_from, stature * unit_mm)


def _true_fps(bvh: Bvh, mapping: JointMapping, name: str, overrides: Overrides) -> tuple[float, str]:
    for key in (name, performer_of(name)):
        if key in overrides.fps:
            return float(overrides.fps[key]), MAPPING_FILE
    if mapping.cmu and performer_of(name) in _CMU_60_FPS:
        return 60.0, "CMU subject"
    rate = 1 / bvh.frame_time
    whole = max(round(rate), 1)  # headers round the time: .0083333 means 120
    return (float(whole) if abs(rate - whole) < 1e-4 * rate else rate), "header"


def _without_rest_pose(bvh: Bvh, mapping: JointMapping, overrides: Overrides) -> Bvh:
    drop = mapping.drop_first_frame if overrides.drop_first_frame is None else overrides.drop_first_frame
    if drop and len(bvh.values) == 1:
        raise UserError(
            f"{bvh.source}: expected motion after the rest pose in the first frame, came one frame only; "
            f'remove the file, or set "drop_first_frame": false in {MAPPING_FILE}'
        )
    return bvh._replace(values=bvh.values[int(drop) :])


def _unit(stature: float, source: str, mapping: JointMapping, overrides: Overrides) -> tuple[float, str]:
    """mm per file unit and who says so. Raises UserError unless it makes the body as tall as a person."""
    low, high = STATURE_MM
    fits = {name: unit for name, unit in _UNITS_MM.items() if low <= stature * unit <= high}
    unit, said_by = overrides.unit_mm, MAPPING_FILE
    if unit is None:
        unit, said_by = mapping.unit_mm, "naming scheme"
    if unit is None:
        unit, said_by = next(iter(fits.values()), None), "stature"
    if unit is None:
        raise UserError(
            f"{source}: expected {low:g} to {high:g} mm from ankle to crown, came {stature:.4g} file units, "
            f"which fits no known unit ({', '.join(_UNITS_MM)}); "
            f'set "unit_mm" in {MAPPING_FILE}, or check the joints there'
        )
    if not low <= stature * unit <= high:
        better = f" ({', '.join(fits)} would fit)" if fits else ""
        raise UserError(
            f"{source}: expected {low:g} to {high:g} mm from ankle to crown, came {stature * unit:.4g} mm "
            f'with {unit:g} mm per unit ({said_by}){better}; set "unit_mm" in {MAPPING_FILE}'
        )
    return float(unit), said_by


def _check_upright(joints: np.ndarray, source: str) -> None:
    """Raise UserError if the trunk mostly points along another axis than +y: the file may be z up."""
    trunk = joints[:, JOINTS.index("thorax")] - joints[:, JOINTS.index("pelvis")]
    direction = np.median(trunk / np.maximum(np.linalg.norm(trunk, axis=-1, keepdims=True), 1e-9), axis=0)
    if direction[1] < 0.5 and np.abs(direction).max() > 0.8:
        axis = "xyz"[int(np.abs(direction).argmax())]
        raise UserError(
            f"{source}: expected a person upright along y, came one along {axis}; write into {MAPPING_FILE} "
            '"up": "z" if that is the file\'s vertical, "up": "y" if the person really lies'
        )
