"""What nobody could confirm, asked of the numbers themselves: unit, up, handedness, and what belongs together."""

from __future__ import annotations

import numpy as np

from data_pipelines.kth_football2.affine import project
from data_pipelines.kth_football2.numbers import Numbers
from data_pipelines.pixel_origin import origin_warning
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

PICTURE_SIZE = (480, 640)  # width and height, px
MAX_DISTANCE_PX = 60.0  # about 6 in the true files; more than this is another recording's camera
_HUMAN_MM = {
    "thigh": (300, 600, ("hip", "knee")),
    "shin": (300, 600, ("knee", "ankle")),
    "upper arm": (200, 450, ("shoulder", "elbow")),
}
_LAYOUT = skeleton("lsp14")


def check_unit(joints3d: np.ndarray, unit_mm: float) -> None:
    """Raises UserError where the median limb of poses (T, 14, 3) is no human's with this unit."""
    lengths = {}
    for limb, (_, _, (upper, lower)) in _HUMAN_MM.items():
        ends = [[_LAYOUT.index(f"{side}_{joint}") for side in ("left", "right")] for joint in (upper, lower)]
        with np.errstate(all="ignore"):  # damaged numbers may be enormous
            length = np.linalg.norm(joints3d[:, ends[0]] - joints3d[:, ends[1]], axis=-1) * unit_mm
        lengths[limb] = float(np.nanmedian(length)) if np.isfinite(length).any() else np.nan
    wrong = [limb for limb, (low, high, _) in _HUMAN_MM.items() if not low <= lengths[limb] <= high]
    if wrong:
        seen = ", ".join(f"{limb} {length:.4g}" for limb, length in lengths.items())
        bounds = ", ".join(f"{limb} {low}-{high}" for limb, (low, high, _) in _HUMAN_MM.items())
        raise UserError(
            f"median lengths in mm with unit_mm {unit_mm:g}: {seen}; people's are {bounds}; set --unit-mm to the "
            "poses' unit (1000 for metres, 10 for cm)"
        )


def label_distance_px(numbers: Numbers, view: int) -> np.ndarray:
    """(T, 14) px between the projected pose and the labels of a camera (0-based); NaN where either is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = project(numbers.joints3d, numbers.cameras[:, view]) - numbers.joints2d[:, view]
        distance = np.linalg.norm(difference, axis=-1)
    return np.where(np.isfinite(distance), distance, np.nan)


def check_together(numbers: Numbers, view: int) -> float:
    """Median px between projected poses and labels. Raises UserError where the files cannot belong together."""
    distance = label_distance_px(numbers, view)
    median = float(np.nanmedian(distance)) if np.isfinite(distance).any() else np.inf
    if not median <= MAX_DISTANCE_PX:
        raise UserError(
            f"poses projected by camera {view + 1} lie {median:.0f} px from its labels in median, expected about 6: "
            "the three text files are not of one recording (two zips unpacked over each other?), unpack this one "
            "again into a new folder"
        )
    return median


def bend_of_knees(joints3d: np.ndarray) -> float:
    """Mean of how far knees lie before the line from hip to ankle, as a share of the leg, for poses (T, 14, 3).

    Before: along up x right (= forward in a right-handed world) of the body's own up, and from its left to its right
    hip. Knees bend forward only, so this is positive unless the world is left handed or left and right are swapped.
    """
    at = {name: joints3d[:, _LAYOUT.index(name)] for name in _LAYOUT.joints}
    up = at["neck"] - (at["left_hip"] + at["right_hip"]) / 2
    forward = np.cross(up, at["right_hip"] - at["left_hip"])
    forward /= np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-12)
    bends = []
    for side in ("left", "right"):
        hip, knee, ankle = (at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        leg = ankle - hip
        length2 = np.maximum((leg**2).sum(-1, keepdims=True), 1e-12)
        off = knee - hip - leg * (((knee - hip) * leg).sum(-1, keepdims=True) / length2)
        bends.append((off * forward).sum(-1) / np.sqrt(length2[:, 0]))
    return float(np.nanmean(bends))


def doubts(numbers: Numbers, view: int, pixel_origin: int) -> list[str]:
    """A sentence for each thing about a camera (0-based) that the numbers speak against."""
    with np.errstate(all="ignore"):  # damaged numbers may be enormous
        return _doubts(numbers, view, pixel_origin)


def _doubts(numbers: Numbers, view: int, pixel_origin: int) -> list[str]:
    good = np.isfinite(numbers.joints3d).all((1, 2)) & np.isfinite(numbers.cameras[:, view]).all((1, 2))
    joints, cameras = numbers.joints3d[good], numbers.cameras[good, view]
    found = []
    ankles = [_LAYOUT.index("left_ankle"), _LAYOUT.index("right_ankle")]
    if len(joints) and np.median(joints[:, _LAYOUT.index("head_top"), 2] - joints[:, ankles, 2].mean(-1)) <= 0:
        found.append("heads are below ankles in z, which was taken to be up")
    if len(joints) and np.median(cameras[:, 1, 2]) >= 0:
        found.append(f"camera {view + 1}: image down does not oppose z, which was taken to be up")
    if len(joints) and bend_of_knees(joints) < 0:
        found.append(
            "knees bend backwards: the world is left handed or left and right are swapped, so that depth has the "
            "wrong sign"
        )
    origin = origin_warning(numbers.joints2d[:, view].reshape(-1, 2), pixel_origin, PICTURE_SIZE)
    return found + ([f"camera {view + 1}: {origin}"] if origin else [])
