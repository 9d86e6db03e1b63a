"""Made-up people as a predictor finds them, with places that can be worked out by hand."""

import numpy as np

from fusion_jax.geometry import apply_affine, crop_matrix
from fusion_jax.pose_record import PersonPose, PersonView
from fusion_jax.skeletons import SKELETONS, convert_joints

BODY, HEATMAP = SKELETONS["human36m17"], SKELETONS["mpii16"]
# human36m17, mm, camera frame, relative to the pelvis: a person who faces the camera and raises their left arm, which
# the camera sees on the right.
WAVING_MM = np.array(
    [
        *([0, 0, 0], [-120, 0, 0], [-130, 420, -20], [-140, 830, 40]),
        *([120, 0, 0], [130, 420, -20], [140, 830, 40], [0, -240, 10], [0, -480, 20], [0, -560, -60]),
        *([0, -690, 10], [160, -460, 20], [420, -560, 30], [480, -860, -60]),
        *([-160, -460, 20], [-260, -220, 30], [-330, 10, -60]),
    ],
    float,
)  # fmt: skip
CROP_PX = 32


def waving(center=(60.0, 80.0), px_per_mm: float = 0.06, low: tuple[str, ...] = (), **fields) -> PersonView:
    """A person whose pelvis is at `center` px of the picture.

    Args:
      low: 2D joints with confidence 0.1 instead of 0.8.
      fields: of PersonPose, instead of the made-up ones.
    """
    joints_px = convert_joints(WAVING_MM[:, :2] * px_per_mm + center, BODY, HEATMAP)
    side = 2000 * px_per_mm
    corner = np.array(center) - side / 2
    known = {
        "skeleton": "human36m17", "pose_mm": WAVING_MM, "heatmap_skeleton": "mpii16", "joints2d_px": joints_px,
        "confidence": [0.1 if name in low else 0.8 for name in HEATMAP.joints],
        "box": [corner[0] + side / 4, *corner[1:], side / 2, side], "box_source": "detected",
        "crop": [*corner, side], "pose_network": "runs/learned, step 1000", "heatmap_network": "runs/hourglass, step 2",
    }  # fmt: skip
    pose = PersonPose(**(known | fields))
    place = apply_affine(crop_matrix(pose.crop, 16), pose.joints2d_px)
    away = np.arange(16)[:, None] - place.T[:, None]  # (2, 16, K)
    heatmap = np.exp(-(away[0][None] ** 2 + away[1][:, None] ** 2) / 2) * pose.confidence
    crop = np.full((CROP_PX, CROP_PX, 3), (90, 120, 60), np.uint8)
    return PersonView(pose, crop, heatmap.astype(np.float32))
