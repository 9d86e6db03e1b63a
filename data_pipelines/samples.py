"""One stored example to one network sample: decode, check, camera frame, root-relative, augmentation. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from data_pipelines.augment import Change, change_image, change_parts, frame_map, pixel_map
from fusion_jax.body_parts import PARTS
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, root_relative, world_to_camera
from fusion_jax.skeletons import Skeleton, convert_joints, convert_valid, skeleton

Sample = dict[str, np.ndarray]


def decode_image(data: bytes, size: int, name: str) -> np.ndarray:
    """RGB (size, size, 3) uint8 of JPEG or PNG bytes.

    Raises:
      UserError: naming the example, where the bytes do not decode or the picture has another size.
    """
    image = _decoded(data, cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{name}: its image does not decode ({len(data)} bytes); prepare the dataset again")
    if image.shape != (size, size, 3):
        raise UserError(f"{name}: its image is {image.shape}, expected ({size}, {size}, 3)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_parts(data: bytes, size: int, name: str) -> np.ndarray:
    """The label map (size, size) uint8 of body parts of PNG bytes.

    Raises:
      UserError: naming the example, where the bytes do not decode or are no such map.
    """
    parts = _decoded(data, cv2.IMREAD_UNCHANGED)
    if parts is None:
        raise UserError(f"{name}: its body parts do not decode ({len(data)} bytes); prepare the dataset again")
    if parts.shape != (size, size) or parts.dtype != np.uint8 or parts.max() > len(PARTS):
        raise UserError(
            f"{name}: its body parts are {parts.shape} {parts.dtype} up to {parts.max()}, expected ({size}, {size}) "
            f"uint8 up to {len(PARTS)}; prepare the dataset again"
        )
    return parts


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # a header that claims more pixels than OpenCV admits
        return None


def example_name(example: Mapping[str, Any]) -> str:
    """'sequence/camera/frame' of a stored example, for messages."""
    return f"{text(example['sequence'])}/{text(example['camera_name'])}/{int(example['frame']):06d}"


def text(value: bytes | str) -> str:
    """TFDS hands text back as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def camera_of(example: Mapping[str, Any]) -> Camera:
    """The crop's exact camera."""
    return Camera(**{field: np.asarray(example["camera"][field], np.float64) for field in Camera._fields})


def camera_pose_mm(example: Mapping[str, Any], skeleton: Skeleton, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(pose (J, 3) float32 root-relative in the camera frame, mm; valid (J,) bool), zeros where not valid.

    Raises:
      UserError: wrong joint count, or a joint that is marked valid and is not finite.
    """
    joints = np.asarray(example["joints_world_mm"], np.float64)
    valid = np.asarray(example["valid"], bool)
    if joints.shape != (skeleton.num_joints, 3):
        raise UserError(f"{name}: joints_world_mm is {joints.shape}, expected ({skeleton.num_joints}, 3)")
    if not np.isfinite(joints[valid]).all():
        joint = skeleton.joints[int(np.flatnonzero(valid & ~np.isfinite(joints).all(-1))[0])]
        raise UserError(f"{name}: 3D joint {joint} is not finite but marked valid; prepare the dataset again")
    pose = world_to_camera(np.where(valid[:, None], joints, 0), camera_of(example))
    if not valid[list(skeleton.root_indices)].all():
        valid = np.zeros_like(valid)  # without its root a relative pose is unknown
    return np.where(valid[:, None], root_relative(pose, skeleton.root_indices), 0).astype(np.float32), valid


def change_heatmap(heatmap: np.ndarray, change: Change, name: str) -> np.ndarray:
    """Stored heatmaps (h, w, 16) of `mpii16` after the picture's change, h x w as they were, float32.

    Raises:
      UserError: other channels, or a value that is not finite.
    """
    layout = skeleton("mpii16")
    heatmap = np.asarray(heatmap, np.float32)
    if heatmap.ndim != 3 or heatmap.shape[2] != layout.num_joints or heatmap.shape[0] != heatmap.shape[1]:
        raise UserError(f"{name}: its heatmap is {heatmap.shape}, expected (h, h, {layout.num_joints})")
    if not np.isfinite(heatmap).all():
        raise UserError(f"{name}: its heatmap holds values that are not finite; prepare the dataset again")
    matrix = pixel_map(change, heatmap.shape[0], heatmap.shape[0])
    if not np.array_equal(matrix, np.eye(3)):  # OpenCV warps at most 4 channels at once
        warped = [cv2.warpAffine(heatmap[..., c], matrix[:2], heatmap.shape[:2]) for c in range(heatmap.shape[2])]
        heatmap = np.stack(warped, axis=-1)
    return heatmap[..., list(layout.flip)] if change.flip else heatmap


def make_sample(
    example: Mapping[str, Any],
    source: Skeleton,
    target: Skeleton,
    stored_size: int,
    size: int,
    change: Change,
    extras: tuple[str, ...] = (),
) -> Sample:
    """The arrays of steps.py's batch for one example (without B), after `change`.

    Args:
      example: a dict of schema.pose_features, its picture as bytes.
      source, target: the dataset's and the network's layout; joints are matched by name.
      stored_size, size: side of the stored picture and of the network's input, px.
      change: the augmentation; Change() for none.
      extras: what else the sample is to hold: `parts`, the label map of body parts.
    """
    name = example_name(example)
    pose, valid = camera_pose_mm(example, source, name)
    joints2d = np.asarray(example["joints2d_px"], np.float64)
    valid2d = np.asarray(example["valid2d"], bool)
    if joints2d.shape != (source.num_joints, 2) or not np.isfinite(joints2d[valid2d]).all():
        raise UserError(f"{name}: joints2d_px {joints2d.shape} must be finite ({source.num_joints}, 2)")
    joints2d = apply_affine(pixel_map(change, stored_size, size), np.where(valid2d[:, None], joints2d, 0))
    pose = pose @ frame_map(change).T
    joints2d, pose = convert_joints(joints2d, source, target), convert_joints(pose, source, target)
    valid, valid2d = convert_valid(valid, source, target), convert_valid(valid2d, source, target)
    if source is not target:
        pose = root_relative(pose, target.root_indices)
    if change.flip:
        order = list(target.flip)
        joints2d, pose, valid, valid2d = joints2d[order], pose[order], valid[order], valid2d[order]
    image = decode_image(example["image"], stored_size, name)
    stored = {"heatmap": change_heatmap(example["heatmap"], change, name)} if "heatmap" in example else {}
    if "parts" in extras:
        parts = decode_parts(example.get("parts", b""), stored_size, name)
        stored["parts"] = change_parts(parts, change, size)
    return {
        **stored,
        "image": change_image(image, change, size),
        "joints2d": joints2d.astype(np.float32),
        "valid2d": valid2d,
        "pose_mm": np.where(valid[:, None], pose, 0).astype(np.float32),
        "valid": valid,
    }
