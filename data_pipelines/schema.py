"""The one feature schema of every prepared dataset. What a dataset lacks is masked, never invented."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

CameraModel = Literal["perspective", "affine", "none"]
"""How `camera` maps the world to the crop. perspective: geometry.Camera as it stands. affine: the same without the
division by depth, px = intrinsics[:2, :2] @ (x, y) + intrinsics[:2, 2] of the rotated point in mm. none: unknown, the
intrinsics are zeros."""
CAMERA_MODELS: tuple[str, ...] = get_args(CameraModel)


def pose_features(
    num_joints: int,
    image_size: int,
    *,
    encoding: str = "jpeg",
    heatmaps: tuple[int, int, int] | None = None,
    parts: bool = False,
) -> Any:
    """TFDS features of one frame: a square person crop and all that is known about it.

      image            JPEG (or PNG where `encoding` says so), (S, S, 3), the crop
      joints_world_mm  (J, 3) world frame; zeros where valid is False
      joints2d_px      (J, 2) px of the crop, (0, 0) the centre of its first pixel
      valid, valid2d   (J,) 3D and 2D joint known
      visible          (J,) joint in the picture and not hidden by the body or anything else
      camera           the crop's exact camera: geometry.Camera's fields, float64, and its `model` (CAMERA_MODELS)
      camera_name, subject, action, sequence, frame
      box              (3,) the crop in the full picture: left and top edge and side, px
      head_size_px     the head's length in px of the crop, MPII's unit of error; 0 where unknown
      heatmap          only with `heatmaps`: that many (h, w, C) float32 confidence maps of a 2D network, in the
                       order of `mpii16`
      parts            only with `parts`: PNG, (S, S, 1) uint8, the crop's label map, see fusion_jax.body_parts

    Pictures are handed over as encoded bytes; that is what keeps TensorFlow out.
    """
    import tensorflow_datasets as tfds

    def tensor(shape, dtype):
        return tfds.features.Tensor(shape=shape, dtype=dtype)

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(image_size, image_size, 3), encoding_format=encoding),
            "joints_world_mm": tensor((num_joints, 3), np.float32),
            "joints2d_px": tensor((num_joints, 2), np.float32),
            "valid": tensor((num_joints,), np.bool_),
            "valid2d": tensor((num_joints,), np.bool_),
            "visible": tensor((num_joints,), np.bool_),
            "camera": {
                "rot_world_to_cam": tensor((3, 3), np.float64),
                "cam_center_mm": tensor((3,), np.float64),
                "intrinsics": tensor((3, 3), np.float64),
                "distortion": tensor((5,), np.float64),
                "model": tfds.features.Text(),
            },
            "camera_name": tfds.features.Text(),
            "box": tensor((3,), np.float64),
            "subject": tfds.features.Text(),
            "action": tfds.features.Text(),
            "sequence": tfds.features.Text(),
            "frame": tfds.features.Scalar(np.int64),
            "head_size_px": tensor((), np.float32),
            **({} if heatmaps is None else {"heatmap": tensor(heatmaps, np.float32)}),
            **(
                {"parts": tfds.features.Image(shape=(image_size, image_size, 1), encoding_format="png")}
                if parts
                else {}
            ),
        }
    )
