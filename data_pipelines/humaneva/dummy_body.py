"""Motion capture of made-up people: 39 markers and the body model's segments around given joints."""

from __future__ import annotations

import numpy as np

from data_pipelines.humaneva.pose import HEAD_MM
from data_pipelines.humaneva.validity import MARKERS
from fusion_jax.skeletons import skeleton

# Segment: its origin and the joint that its z axis points to.
_SEGMENTS = {
    "PEL": ("pelvis", "thorax"),
    "TRX": ("thorax", "nose"),
    "HED": ("thorax", "head_top"),
    "LFE": ("left_knee", "left_hip"),
    "RFE": ("right_knee", "right_hip"),
    "LTI": ("left_ankle", "left_knee"),
    "RTI": ("right_ankle", "right_knee"),
    "LCL": ("left_shoulder", "left_elbow"),
    "RCL": ("right_shoulder", "right_elbow"),
    "LHU": ("left_elbow", "left_shoulder"),
    "RHU": ("right_elbow", "right_shoulder"),
    "LRA": ("left_wrist", "left_elbow"),
    "RRA": ("right_wrist", "right_elbow"),
}
_JOINT_OF_MARKER = {
    **{"SI": "pelvis", "BAK": "spine", "T10": "spine", "C7": "thorax", "CLAV": "thorax", "STRN": "spine"},
    **{"SHO": "shoulder", "UPA": "elbow", "ELB": "elbow", "FRM": "wrist", "WRA": "wrist", "WRB": "wrist"},
    **{"FIN": "wrist", "THI": "hip", "KNE": "knee", "TIB": "ankle", "ANK": "ankle", "HEE": "ankle", "TOE": "ankle"},
    **{"FHD": "head_top", "BHD": "head_top"},
}
MARKER_LABELS = tuple(names[0] for names in MARKERS)
LABELS = (*MARKER_LABELS, *(f"{segment}{end}" for segment in _SEGMENTS for end in "OPAL"))


def capture(joints_mm: np.ndarray) -> np.ndarray:
    """Points (T, P, 3) world mm in the order of LABELS, float32 numbers, of joints (T, 17, 3), `human36m17`."""
    markers = [_joint(joints_mm, _joint_of(label)) + _offset(label) for label in MARKER_LABELS]
    segments = [point for name in _SEGMENTS for point in _segment(joints_mm, name)]
    return np.stack([*markers, *segments], axis=1).astype(np.float32).astype(np.float64)


def _segment(joints_mm: np.ndarray, name: str) -> list[np.ndarray]:
    """The four points (T, 3): origin, and one on the z, the x and the y axis."""
    start, end = (_joint(joints_mm, joint) for joint in _SEGMENTS[name])
    length = np.linalg.norm(end - start, axis=-1, keepdims=True)
    z = (end - start) / length
    x = carried_across(z)
    return [start, start + (HEAD_MM if name == "HED" else length) * z, start + 90 * x, start + 90 * np.cross(z, x)]


def carried_across(axis: np.ndarray) -> np.ndarray:
    """Unit vectors (T, 3) at right angles to unit vectors (T, 3), turning about them as little as can be."""
    aside = np.empty_like(axis)
    last = np.cross(axis[0], [0.3, -0.2, 0.9] if abs(axis[0, 0]) > 0.6 else [1.0, 0.1, 0.2])
    for row, along in enumerate(axis):
        last = last - along * (along @ last)
        last = aside[row] = last / np.linalg.norm(last)
    return aside


def _joint(joints_mm: np.ndarray, name: str) -> np.ndarray:
    return joints_mm[:, skeleton("human36m17").index(name)]


def _joint_of(label: str) -> str:
    joint = next(name for ending, name in _JOINT_OF_MARKER.items() if ending in label)
    side = (
        {"L": "left", "R": "right"}[label[0]] if joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") else ""
    )
    return f"{side}_{joint}" if side else joint


def _offset(label: str) -> np.ndarray:
    """Somewhere on the skin, 30 mm off, different for every marker."""
    direction = np.random.default_rng(list(label.encode())).normal(size=3)
    return 30 * direction / np.linalg.norm(direction)
