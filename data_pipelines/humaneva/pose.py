"""From segment frames to the 20 points of the dataset's body model, its two corrections, and the 15 joints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.segments import (
    Frame,
    between_rows,
    mean_distance,
    row_axes,
    straight_between_rows,
    turn_y,
)
from data_pipelines.humaneva.validity import AXES, CENTRES, reasons
from fusion_jax.errors import UserError

HEAD_MM = 316.103  # every head is as long
PELVIS_BACK_MM = -50.0
MARKER_RADIUS_MM = 7.0


class Body(NamedTuple):
    """What the corrections need to know of a subject, mm.

    Attributes:
      half_shoulders: half the width between the shoulder markers, less a marker's radius.
      shoulder_offsets: left and right, from the `.mp` file.
    """

    half_shoulders: float
    shoulder_offsets: tuple[float, float]


def half_shoulders(static: Points) -> float:
    """Half the mean distance of LSHO and RSHO in `Static.c3d`, less 7 mm.

    Raises:
      UserError: a marker is not in the file, or never both in one row.
    """
    width = np.linalg.norm(static.track("LSHO") - static.track("RSHO"), axis=-1)
    if np.isnan(width).all():
        raise UserError(f"{static.where} never shows LSHO and RSHO together; fetch the file again")
    return float(np.nanmean(width)) / 2 - MARKER_RADIUS_MM


def poses(points: Points, positions: np.ndarray, body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 15, 3), `humaneva15`, world mm, at 1-based motion capture positions (F,), and why some have none.

    Returns:
      joints, NaN where there is none, and (F,) reasons as of `validity.reasons`, '' where there is one.

    Raises:
      UserError: a needed point is not in the file at all.
    """
    positions = np.asarray(positions, np.float64)
    why = reasons(points, positions)
    good = why == ""
    joints = np.full((len(positions), 15, 3), np.nan)
    if good.any():
        times = positions[good]
        centres = {name: straight_between_rows(points.track(name), times) for name in CENTRES}
        axes = {name: between_rows(row_axes(points, name)[0], times) for name in AXES}
        joints[good] = fifteen(twenty(axes, centres, lengths(points, times), body))
    return joints, why


def lengths(points: Points, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Lengths (F,) mm of the trunk and, by side, of thigh, shin, upper arm and forearm, such as 'LThigh'."""

    def distance(one: str, other: str) -> np.ndarray:
        return mean_distance(points.track(one), points.track(other), positions)

    found = {"Torso": distance("PELO", "TRXO")}
    for side in "LR":
        found[f"{side}Thigh"] = distance(f"{side}FEP", f"{side}FEO")
        found[f"{side}Shin"] = distance(f"{side}FEO", f"{side}TIO")
        found[f"{side}UpperArm"] = distance(f"{side}CLO", f"{side}HUO")
        found[f"{side}Forearm"] = distance(f"{side}HUO", f"{side}RAO")
    return found


def twenty(
    axes: dict[str, np.ndarray], centres: dict[str, np.ndarray], length: dict[str, np.ndarray], body: Body
) -> dict[str, np.ndarray]:
    """The 20 points (F, 3) mm of the body model, by name.

    Args:
      axes: (F, 3, 3) of the segments AXES.
      centres: (F, 3) of the points CENTRES.
      length: (F,) as of `lengths`.
      body: the subject.
    """
    pelvis = corrected_pelvis(Frame(axes["PEL"], centres["PELO"]), length["Torso"], body.half_shoulders)
    head = Frame(axes["HED"], centres["TRXO"])
    points = {
        "TorsoDistal": pelvis.at(0, 0, 0),
        "TorsoProximal": pelvis.at(0, 0, length["Torso"]),
        "HeadProximal": head.at(0, 0, 0),
        "HeadDistal": head.at(0, 0, HEAD_MM),
    }
    half_turn = turn_y(np.pi)  # legs hang from their joints: z from hip to knee to ankle
    for side, offset in zip("LR", body.shoulder_offsets, strict=True):
        thigh = Frame(axes[f"{side}FE"], centres[f"{side}FEP"]).turned(half_turn)
        shin = Frame(axes[f"{side}TI"], centres[f"{side}FEO"]).turned(half_turn)
        upper = Frame(axes[f"{side}HU"], centres[f"{side}CLO"])
        lower = Frame(axes[f"{side}RA"], centres[f"{side}HUO"])
        upper, lower = corrected_arm(upper, lower, length[f"{side}UpperArm"], offset)
        for name, frame, along in (
            ("Thigh", thigh, length[f"{side}Thigh"]),
            ("Shin", shin, length[f"{side}Shin"]),
            ("UpperArm", upper, -length[f"{side}UpperArm"]),
            ("Forearm", lower, -length[f"{side}Forearm"]),
        ):
            points[f"{side}{name}Proximal"] = frame.at(0, 0, 0)
            points[f"{side}{name}Distal"] = frame.at(0, 0, along)
    return points


def corrected_pelvis(pelvis: Frame, torso: np.ndarray, half_shoulders_mm: float) -> Frame:
    """The toolbox's first correction: the pelvis 50 mm back along its x axis and tilted about its y axis.

    Args:
      torso: (F,) mm.
      half_shoulders_mm: of `Body`; 0 leaves the axes alone.
    """
    moved = pelvis._replace(origin=pelvis.at(PELVIS_BACK_MM, 0, 0))
    return moved.turned(turn_y(np.arctan2(half_shoulders_mm / 2, torso)))


def corrected_arm(upper: Frame, lower: Frame, upper_arm: np.ndarray, offset_mm: float) -> tuple[Frame, Frame]:
    """The toolbox's second correction: the upper arm turned by the shoulder's offset, the forearm carried along.

    The gap between the upper arm's end and the forearm's origin is kept.

    Args:
      upper_arm: (F,) mm.
      offset_mm: the side's ShoulderOffset; 0 changes nothing.
    """
    angle = np.arctan2(offset_mm / 2, upper_arm)
    gap = lower.origin - upper.at(0, 0, -upper_arm)
    upper = upper.turned(turn_y(-angle))
    lower = lower._replace(origin=upper.at(0, 0, -upper_arm) + gap)
    return upper, lower.turned(turn_y(angle))


def fifteen(points: dict[str, np.ndarray]) -> np.ndarray:
    """The 15 joints (F, 15, 3) in the order of `humaneva15` from the 20 points."""

    def mean(one: str, other: str) -> np.ndarray:
        return (points[one] + points[other]) / 2

    joints = [points["TorsoDistal"], mean("TorsoProximal", "HeadProximal")]
    for side in "LR":
        elbow = mean(f"{side}UpperArmDistal", f"{side}ForearmProximal")
        joints += [points[f"{side}UpperArmProximal"], elbow, points[f"{side}ForearmDistal"]]
    for side in "LR":
        knee = mean(f"{side}ThighDistal", f"{side}ShinProximal")
        joints += [points[f"{side}ThighProximal"], knee, points[f"{side}ShinDistal"]]
    return np.stack([*joints, points["HeadDistal"]], axis=1)
