"""One row of the released files: what is checked, and how it is brought to our layout. Plain arrays."""

from __future__ import annotations

import numpy as np

from fusion_jax.skeletons import skeleton

IMAGE_SHAPE = (3, 128, 128)
POSE_SHAPE = (17, 3)  # joint by joint, stored as 51 numbers
HEATMAP_SHAPE = (16, 64, 64)
_WHOLE = 1e-3  # of a 255th: float32 keeps whole ones to a hundredth of this
_ROOT_MM = 1.0
_REACH_MM = (200.0, 3000.0)  # the joint farthest from the pelvis: between a small child's and nobody's
_SKELETON = skeleton("human36m17")
_HEAD, _ANKLES = _SKELETON.index("head_top"), [_SKELETON.index("right_ankle"), _SKELETON.index("left_ankle")]


def picture(row: np.ndarray, rounded: bool = False) -> np.ndarray:
    """RGB (128, 128, 3) uint8 of a picture (3, 128, 128) in [0, 1].

    Args:
      row: channels first.
      rounded: take the nearest 255ths where the values are none.

    Raises:
      ValueError: a value is not finite, outside [0, 1], or no whole 255th.
    """
    if not np.isfinite(row).all():
        raise ValueError("the picture is not finite")
    values = row.astype(np.float64) * 255
    whole = np.round(values)
    if whole.min() < 0 or whole.max() > 255:
        raise ValueError(f"the picture's values are {row.min():.4g} to {row.max():.4g}, expected 0 to 1")
    off = float(np.abs(values - whole).max())
    if off > _WHOLE and not rounded:
        raise ValueError(
            f"a picture value is {off:.3g} of a 255th off a whole one; --round-pictures stores the nearest"
        )
    return whole.astype(np.uint8).transpose(1, 2, 0)


def pose(row: np.ndarray) -> np.ndarray:
    """The pose (17, 3) mm as it is.

    Raises:
      ValueError: it is not finite, the pelvis is not at 0, or it is not as large as a person.
    """
    if not np.isfinite(row).all():
        raise ValueError("the pose is not finite")
    off = float(np.linalg.norm(row[_SKELETON.index("pelvis")].astype(np.float64)))
    if off > _ROOT_MM:
        raise ValueError(f"the pelvis is {off:.1f} mm from the origin, expected poses relative to it")
    reach = float(np.linalg.norm(row.astype(np.float64), axis=-1).max())
    if not _REACH_MM[0] <= reach <= _REACH_MM[1]:
        raise ValueError(
            f"the farthest joint is {reach:.4g} from the pelvis, expected {_REACH_MM[0]:g} to {_REACH_MM[1]:g} mm"
        )
    return row


def heatmap(row: np.ndarray) -> np.ndarray:
    """The heatmaps (64, 64, 16) of (16, 64, 64), values unchanged. Raises ValueError where they are not finite."""
    if not np.isfinite(row).all():
        raise ValueError("the heatmaps are not finite")
    return np.ascontiguousarray(row.transpose(1, 2, 0))


def upside_down(poses: np.ndarray) -> bool:
    """Whether most poses (N, 17, 3) have the head below the ankles where y points down, as in a camera's frame.

    Then y points up in this file, or it is no camera's frame at all.
    """
    return bool(np.mean(poses[:, _HEAD, 1] > poses[:, _ANKLES, 1].mean(-1)) > 0.5)
