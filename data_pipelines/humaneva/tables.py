"""What is published about HumanEva-I: frame ranges, where videos start, where cameras stand. Data only."""

from __future__ import annotations

import math

SUBJECTS = ("S1", "S2", "S3")  # S4's motion is withheld altogether
ACTIONS = ("Walking", "Jog", "ThrowCatch", "Gestures", "Box")  # Combo has a withheld second trial only
COLOUR_CAMERAS = ("C1", "C2", "C3")
CLOCK_CAMERAS = (*COLOUR_CAMERAS, "BW1", "BW2", "BW3", "BW4")  # in the order in which the toolbox reads them

FPS = 60.0
MOCAP_HZ = 120.0
COLOUR_SIZE = (640, 480)  # px

Interval = tuple[int, int]

# Trial 1 by (subject, action): the validation half, then the training half; 1-based frames, both ends included.
# The first begins at 6: the codec repeats its first picture, so that frames 1 to 5 show the wrong moment.
RANGES: dict[tuple[str, str], tuple[Interval, Interval]] = {
    ("S1", "Walking"): ((6, 590), (591, 1203)),
    ("S1", "Jog"): ((6, 367), (368, 740)),
    ("S1", "ThrowCatch"): ((6, 473), (474, 945)),
    ("S1", "Gestures"): ((6, 395), (396, 801)),
    ("S1", "Box"): ((6, 385), (386, 789)),
    ("S2", "Walking"): ((6, 438), (439, 876)),
    ("S2", "Jog"): ((6, 398), (399, 795)),
    ("S2", "ThrowCatch"): ((6, 550), (551, 1128)),
    ("S2", "Gestures"): ((6, 500), (501, 901)),
    ("S2", "Box"): ((6, 382), (383, 734)),
    ("S3", "Walking"): ((6, 448), (449, 939)),
    ("S3", "Jog"): ((6, 401), (402, 842)),
    ("S3", "ThrowCatch"): ((6, 493), (494, 1027)),
    ("S3", "Gestures"): ((6, 533), (534, 1102)),
    ("S3", "Box"): ((6, 512), (513, 1021)),
}

# Which frame of each video is FRAME 1 of trial 1, 1-based, for C1, C2, C3, as others worked out from the .ofs files.
STARTS: dict[tuple[str, str], tuple[int, int, int]] = {
    ("S1", "Walking"): (82, 81, 82),
    ("S1", "Jog"): (51, 51, 50),
    ("S1", "ThrowCatch"): (61, 61, 60),
    ("S1", "Gestures"): (45, 45, 44),
    ("S1", "Box"): (57, 57, 56),
    ("S2", "Walking"): (115, 115, 114),
    ("S2", "Jog"): (100, 100, 99),
    ("S2", "ThrowCatch"): (127, 127, 127),
    ("S2", "Gestures"): (122, 122, 121),
    ("S2", "Box"): (119, 119, 117),
    ("S3", "Walking"): (80, 80, 80),
    ("S3", "Jog"): (65, 65, 65),
    ("S3", "ThrowCatch"): (79, 79, 79),
    ("S3", "Gestures"): (83, 83, 82),
    ("S3", "Box"): (1, 1, 1),
}

Quaternion = tuple[float, float, float, float]
Pose = tuple[Quaternion, tuple[float, float, float]]

# By calibration and camera: orientation in the world (w, x, y, z; camera to world) and centre in mm.
_S1_AND_S3: dict[str, Pose] = {
    "C1": ((0.424207, -0.4983646, -0.5802981, 0.4847012), (4062.227, 663.2477, 1528.397)),
    "C2": ((0.6503354, -0.7481602, -0.0919284, 0.0941766), (844.8131, -3805.2092, 1504.9929)),
    "C3": ((0.0664734, -0.0690535, 0.7416416, -0.6639132), (-797.6738, 3916.3174, 1433.6602)),
}
_S2: dict[str, Pose] = {
    "C1": ((0.4214752, -0.4961493, -0.5838273, 0.4851187), (4112.9121, 626.4929, 1545.2988)),
    "C2": ((0.6501393, -0.7476588, -0.0954617, 0.0959808), (923.5740, -3877.9243, 1504.5518)),
    "C3": ((0.0699353, -0.0712403, 0.7421637, -0.662742), (-781.4915, 3838.8853, 1444.9929)),
}
EXTRINSICS: dict[str, dict[str, Pose]] = {"S1": _S1_AND_S3, "S2": _S2, "S3": _S1_AND_S3}


def recording(subject: str, action: str) -> str:
    """'S1/Walking_1': a performance, whichever camera sees it. Only trial 1 has video with known motion."""
    return f"{subject}/{action}_1"


def halves(subject: str, action: str) -> tuple[Interval, Interval]:
    """FRAMEs of the validation and of the training half of trial 1."""
    return RANGES[subject, action]


def published_start(subject: str, action: str, camera: str) -> int | None:
    """The published start frame of a colour video of trial 1; None for grey cameras, where there is none."""
    if camera not in COLOUR_CAMERAS:
        return None
    return STARTS[subject, action][COLOUR_CAMERAS.index(camera)]


def frames_kept(first: int, last: int, step: int) -> range:
    """The FRAMEs of a half that are kept: the first and every `step`-th after it."""
    return range(first, last + 1, step)


def count_kept(first: int, last: int, step: int) -> int:
    """How many `frames_kept` there are."""
    return math.ceil((last + 1 - first) / step)
