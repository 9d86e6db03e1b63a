"""The one feature schema of every prepared dataset. What a dataset lacks is masked, never invented."""

from __future__ import annotations

from typing import Any

import numpy as np


def pose_features(num_joints: int, image_size: int) -> Any:
    """TFDS features of one frame: a square person crop and all that is known about it.

      image            JPEG, (S, S, 3), the crop
      joints_world_mm  (J, 3) world frame; zeros where valid is False
      joints2d_px      (J, 2) px of the crop, (0, 0) the centre of its first pixel
      valid, valid2d   (J,) 3D and 2D joint known
      visible          (J,) joint in the picture and not hidden by the body or anything else
      camera           the crop's exact camera: geometry.Camera's fields, float64
      camera_name, subject, action, sequence, frame
      box              (3,) the crop in the full picture: left and top edge and side, px

    Pictures are handed over as encoded bytes; that is what keeps TensorFlow out.
    """
    import tensorflow_datasets as tfds

    def tensor(shape, dtype):
        return tfds.features.Tensor(shape=shape, dtype=dtype)

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(image_size, image_size, 3), encoding_format="jpeg"),
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
            },
            "camera_name": tfds.features.Text(),
            "box": tensor((3,), np.float64),
            "subject": tfds.features.Text(),
            "action": tfds.features.Text(),
            "sequence": tfds.features.Text(),
            "frame": tfds.features.Scalar(np.int64),
        }
    )
