"""Numbers that others published, with their source and what differs from ours. They stand under our rows in a table.

Copied from the named papers and pages, never measured here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
      name: who or what.
      protocol: key in `protocols.PROTOCOLS`.
      values: row of our table -> column -> value, as printed at the source.
      source: where it stands.
      note: what differs from our protocol, or is not said there.
    """

    name: str
    protocol: str
    values: Mapping[str, Mapping[str, float]]
    source: str
    note: str


def published_for(protocol: str) -> tuple[Published, ...]:
    """What is known under a protocol; empty where nothing is."""
    return tuple(record for record in PUBLISHED if record.protocol == protocol)


_PAPER_MM = {
    "Directions": 54.2, "Discussion": 61.4, "Eating": 60.2, "Greeting": 61.2, "Phoning": 79.4, "Photo": 78.3,
    "Posing": 63.1, "Purchases": 81.6, "Sitting": 70.1, "SittingDown": 107.3, "Smoking": 69.3, "Waiting": 70.3,
    "WalkDog": 74.3, "Walking": 51.8, "WalkTogether": 63.2, "action mean": 69.7,
}  # fmt: skip
_HOURGLASS_TEST_PERCENT = {
    "head": 98.2, "shoulder": 96.3, "elbow": 91.2, "wrist": 87.1, "hip": 90.1, "knee": 87.4, "ankle": 83.6,
    "total": 90.9,
}  # fmt: skip


def _human36m(name: str, source: str, note: str, mpjpe_mm: float, pa_mpjpe_mm: float | None = None) -> Published:
    values = {"mpjpe_mm": mpjpe_mm} | ({} if pa_mpjpe_mm is None else {"pa_mpjpe_mm": pa_mpjpe_mm})
    return Published(name, "human36m", {"action mean": values}, source, note)


def _mpii(name: str, source: str, note: str, total_percent: float) -> Published:
    return Published(name, "mpii", {"total": {"pckh_0.5_percent": total_percent}}, source, note)


_KIND = "the source at hand does not say whether its mean runs over actions or frames"
_EVERY = "every frame tested, mean over actions"
_VIDEOPOSE3D = "VideoPose3D (Pavllo et al., CVPR 2019): paper and README"
_MMPOSE = "open-mmlab/mmpose: configs/body_3d_keypoint"
_MMPOSE_VIDEO = f"{_MMPOSE}/video_pose_lift/h36m/videopose3d_h36m.md"
_MOTIONBERT = f"{_MMPOSE}/motionbert/h36m/motionbert_h36m.md"
_MOTIONBERT_NOTE = f"true 2D joints, 243 frames; the data's preparation alone moves it by 5 to 11 mm; {_KIND}"
_KARFLY = "karfly/learnable-triangulation-pytorch: README"
_KARFLY_NOTE = f"one view; that code leaves out S9's three shifted sequences, whether here is not said; {_KIND}"
_POSENET = "mks0601/3DMPPE_POSENET_RELEASE: issue 10"
_POSENET_NOTE = f"a reader's quote that the authors left uncorrected; also trained on MPII; {_KIND}"
_METRABS = "isarandi/metrabs: docs/MODELS_6_DATASETS.md"
_METRABS_NOTE = f"trained on six datasets, mean of five crops at test time; {_KIND}"
_MODULATED = "ZhimingZo/Modulated-GCN: README"
_MODULATED_NOTE = f"true 2D joints, no picture; 16 joints; {_KIND}"
_NEWELL = "Newell, Yang, Deng, ECCV 2016"
_VALIDATION = "a 2D network's own joints on the validation people"

PUBLISHED: tuple[Published, ...] = (
    Published(
        "Tekin et al. 2017, trainable fusion",
        "human36m",
        {row: {"mpjpe_mm": value} for row, value in _PAPER_MM.items()},
        "Tekin, Márquez-Neila, Salzmann, Fua, ICCV 2017 (arXiv 1611.05708)",
        "the paper; its average equals the mean of its 15 actions",
    ),
    _human36m("VideoPose3D, 1 frame", _VIDEOPOSE3D, f"2D joints from CPN, no picture; {_EVERY}", 51.8, 40.0),
    _human36m("VideoPose3D, 243 frames", _VIDEOPOSE3D, f"2D joints from CPN, 243 frames; {_EVERY}", 46.8, 36.5),
    _human36m("mmpose VideoPose3D, 1 frame", _MMPOSE_VIDEO, f"2D joints from CPN, no picture; {_KIND}", 53.0, 41.3),
    _human36m("mmpose VideoPose3D, 243 frames", _MMPOSE_VIDEO, f"2D joints from CPN, 243 frames; {_KIND}", 47.9, 38.0),
    _human36m(
        "mmpose SimpleBaseline3D",
        f"{_MMPOSE}/image_pose_lift/h36m/simplebaseline3d_h36m.md",
        f"true 2D joints, no picture; {_KIND}",
        43.4,
        34.3,
    ),
    _human36m("MotionBERT, mmpose's data", _MOTIONBERT, _MOTIONBERT_NOTE, 34.5),
    _human36m("MotionBERT finetuned, mmpose's data", _MOTIONBERT, _MOTIONBERT_NOTE, 26.9),
    _human36m("MotionBERT, official data", _MOTIONBERT, _MOTIONBERT_NOTE, 39.8),
    _human36m("MotionBERT finetuned, official data", _MOTIONBERT, _MOTIONBERT_NOTE, 37.7),
    _human36m("Integral regression, ResNet", _KARFLY, _KARFLY_NOTE, 49.6),
    _human36m("Volumetric, single view", _KARFLY, _KARFLY_NOTE, 49.9),
    _human36m("3DMPPE PoseNet, true box and root", _POSENET, _POSENET_NOTE, 53.3),
    _human36m("3DMPPE PoseNet", _POSENET, _POSENET_NOTE, 54.4),
    _human36m(
        "3DMPPE PoseNet, a user's run",
        "mks0601/3DMPPE_POSENET_RELEASE: issue 34",
        f"without MPII, which its author took for the reason; {_KIND}",
        74.2,
    ),
    _human36m("MeTRAbs, EfficientNetV2-L", _METRABS, _METRABS_NOTE, 41.1),
    _human36m("MeTRAbs, ResNet-50", _METRABS, _METRABS_NOTE, 48.7),
    _human36m("MeTRAbs, ResNet-18", _METRABS, _METRABS_NOTE, 52.5),
    _human36m("MeTRAbs, MobileNetV3-Small", _METRABS, _METRABS_NOTE, 68.3),
    _human36m("Modulated GCN, 1 frame", _MODULATED, _MODULATED_NOTE, 38.25, 30.06),
    _human36m("SemGCN, 1 frame", _MODULATED, _MODULATED_NOTE, 42.14, 33.53),
    Published(
        "VideoPose3D, 27 frames",
        "humaneva",
        {"mean of Walking, Jog, Box": {"mpjpe_mm": 33.0}},
        "VideoPose3D: README",
        "27 frames of video, cameras C1 to C3; given without its alignment, taken for none",
    ),
    Published(
        "VideoPose3D, 27 frames, a user's run",
        "humaneva",
        {"S1 Walking": {"mpjpe_mm": 17.4}, "S1 Jog": {"mpjpe_mm": 44.4}, "S1 Box": {"mpjpe_mm": 30.0}},
        "facebookresearch/VideoPose3D: issue 98",
        "27 frames of video, cameras C1 to C3; a user's, not the authors'",
    ),
    Published(
        "Stacked hourglass",
        "mpii",
        {row: {"pckh_0.5_percent": value} for row, value in _HOURGLASS_TEST_PERCENT.items()},
        _NEWELL,
        "a 2D network's own joints on the test people, whose truth is withheld, not on the validation people",
    ),
    _mpii("Hourglass, 2 stacks", _NEWELL, f"{_VALIDATION}; all three sizes with equally many weights", 87.4),
    _mpii("Hourglass, 4 stacks", _NEWELL, f"{_VALIDATION}; all three sizes with equally many weights", 87.8),
    _mpii("Hourglass, 8 stacks", _NEWELL, f"{_VALIDATION}; all three sizes with equally many weights", 88.1),
    _mpii("Hourglass, 2 stacks, half depth", _NEWELL, f"{_VALIDATION}; after half of the network", 84.6),
    _mpii("Hourglass, 4 stacks, half depth", _NEWELL, f"{_VALIDATION}; after half of the network", 86.5),
    _mpii("Hourglass, 8 stacks, half depth", _NEWELL, f"{_VALIDATION}; after half of the network", 87.1),
    _mpii("Princeton PyTorch, 2 stacks", "princeton-vl/pytorch_stacked_hourglass: README", _VALIDATION, 88.3),
    _mpii("Princeton PyTorch, 8 stacks", "princeton-vl/pytorch_stacked_hourglass: README", _VALIDATION, 90.2),
    _mpii(
        "Princeton PyTorch, batch norm corrected",
        "princeton-vl/pytorch_stacked_hourglass: pull request 45",
        f"{_VALIDATION}; a re-run",
        90.1,
    ),
    _mpii("pytorch-pose, 2 stacks", "bearpaw/pytorch-pose: README", f"{_VALIDATION}; the best epoch on them", 86.95),
    _mpii("pytorch-pose, 8 stacks", "bearpaw/pytorch-pose: README", f"{_VALIDATION}; the best epoch on them", 88.78),
    _mpii(
        "mmpose Hourglass-52, 256 px",
        "open-mmlab/mmpose: topdown_heatmap/mpii/hourglass_mpii.md",
        f"{_VALIDATION}; 1 stack",
        88.9,
    ),
    _mpii(
        "mmpose Hourglass-52, 384 px",
        "open-mmlab/mmpose: topdown_heatmap/mpii/hourglass_mpii.md",
        f"{_VALIDATION}; 1 stack",
        89.4,
    ),
)
