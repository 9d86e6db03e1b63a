"""Geometry of captured motion, as functions of joint arrays: stature, axes, floor, rate, place."""

from __future__ import annotations

import numpy as np

from data_pipelines.synthetic_humans.mocap_mappings import JOINTS

TOE_HEIGHT_MM = 25.0  # of the lowest foot point, toe tip or ball, of a person who stands on the floor
ANKLE_HEIGHT_MM = 80.0  # the same where the skeleton ends at the ankle
CENTRE_SECONDS = 0.5


def floor_height(feet: np.ndarray) -> float:
    """Height of the floor under foot points (T, F, 3), z up, mm: TOE_HEIGHT_MM below the lowest ones.

    Lowest is the 2nd percentile over time of each frame's lowest point: captures have single frames in which
    a foot dips by 200 mm, and people in them climb and jump, so neither minimum nor median would do.
    """
    lowest = feet[..., 2].min(1)
    height = TOE_HEIGHT_MM if feet.shape[1] > 2 else ANKLE_HEIGHT_MM
    return float(np.percentile(lowest, 2)) - height


def straight_stature(joints: np.ndarray) -> float:
    """Ankle to crown along the bones of joints (T, 17, 3), any unit; the median over time, legs averaged.

    Bones keep their length in every pose, so this needs no frame in which the person stands.
    """
    column = {name: i for i, name in enumerate(JOINTS)}

    def bone(start: str, end: str) -> float:
        return float(np.median(np.linalg.norm(joints[:, column[start]] - joints[:, column[end]], axis=-1)))

    legs = [bone(f"{side}_hip", f"{side}_knee") + bone(f"{side}_knee", f"{side}_ankle") for side in ("left", "right")]
    trunk = ("pelvis", "spine", "thorax", "nose", "head_top")
    return sum(legs) / 2 + sum(bone(a, b) for a, b in zip(trunk, trunk[1:], strict=False))


def y_up_to_z_up(points: np.ndarray) -> np.ndarray:
    """Points (..., 3) turned by +90 degrees about x: (x, y, z) -> (x, -z, y); handedness is kept."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def resample(joints_mm: np.ndarray, from_fps: float, to_fps: float) -> np.ndarray:
    """Joints (T, J, 3) at to_fps <= from_fps, the first frame kept.

    Frames are picked where the rates divide; else neighbours are mixed linearly, which at capture rates
    shortens bones by far less than the captured noise.
    """
    last = len(joints_mm) - 1
    times = np.arange(int(last * to_fps / from_fps + 1e-6) + 1) * (from_fps / to_fps)
    low = np.minimum(times.astype(int), last)
    share = (times - low)[:, None, None]
    return joints_mm[low] * (1 - share) + joints_mm[np.minimum(low + 1, last)] * share


def recentre(joints_mm: np.ndarray, fps: float) -> np.ndarray:
    """Joints (T, 17, 3) moved horizontally, frame by frame, so that the body stays around the origin.

    Subtracted is the pelvis's path smoothed by a Gaussian of CENTRE_SECONDS: a runner stays in view of
    cameras around the origin, steps and sways of under a second remain. Poses and heights are untouched;
    horizontal speed is no longer that of the capture. The path goes on by point reflection at both ends, so
    that even motion is removed exactly, ends included.
    """
    sigma = CENTRE_SECONDS * fps
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    path = joints_mm[:, JOINTS.index("pelvis"), :2]
    if len(path) == 1:
        smooth = path
    else:
        padded = np.pad(path, ((radius, radius), (0, 0)), mode="reflect", reflect_type="odd")
        smooth = np.stack([np.convolve(axis, kernel / kernel.sum(), "valid") for axis in padded.T], -1)
    return joints_mm - np.concatenate([smooth, np.zeros((len(path), 1))], -1)[:, None]
