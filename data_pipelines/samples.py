"""One stored example to one network sample: decode, check, camera frame, root-relative, augmentation. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from data_pipelines.augment import Change, change_image, change_parts, frame_map, pixel_map
from data_pipelines.picture_marks import lacks_end
from data_pipelines.picture_size import encoded_size
from fusion_jax.body_parts import PARTS
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, root_relative, world_to_camera
from fusion_jax.skeletons import Skeleton, convert_joints, convert_valid, skeleton

Sample = dict[str, np.ndarray]


def decode_image(data: bytes, size: int, name: str) -> np.ndarray:
    """RGB (size, size, 3) uint8 of JPEG or PNG bytes.

    Raises:
      UserError: naming the example, where the bytes are cut off or do not decode, or the picture has another size.
    """
    image = _decoded(data, size, cv2.IMREAD_COLOR, f"{name}: its image")
    if image.shape != (size, size, 3):
        raise UserError(f"{name}: its image is {image.shape}, expected ({size}, {size}, 3)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_parts(data: bytes, size: int, name: str) -> np.ndarray:
    """The label map (size, size) uint8 of body parts of PNG bytes.

    Raises:
      UserError: naming the example, where the bytes are cut off, do not decode or are no such map.
    """
    parts = _decoded(data, size, cv2.IMREAD_UNCHANGED, f"{name}: its map of body parts")
    if parts.shape != (size, size) or parts.dtype != np.uint8 or parts.max() > len(PARTS):
        raise UserError(
            f"{name}: its map of body parts is {parts.shape} {parts.dtype} up to {parts.max()}, expected "
            f"({size}, {size}) uint8 up to {len(PARTS)}; prepare the dataset again"
        )
    return parts


def _decoded(data: bytes, size: int, flags: int, what: str) -> np.ndarray:
    """The picture in the bytes of a JPEG or PNG.

    Raises:
      UserError: `what` is cut off or does not decode, or its header says another size; that is looked at first, since
        decoding a trap takes gigabytes.
    """
    announced, kind, picture = encoded_size(data), lacks_end(data), None
    if announced not in (None, (size, size)):
        depth = ", 3" if flags == cv2.IMREAD_COLOR else ""
        came = f"({announced[1]}, {announced[0]}{depth})"
        raise UserError(f"{what} is {came}, expected ({size}, {size}{depth})")
    if announced is not None and kind is None:
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            pass
    if picture is None:
        why = f", cut off: it lacks {kind}'s end mark" if kind else ""
        raise UserError(f"{what} does not decode ({len(data)} bytes{why}); prepare the dataset again")
    return picture


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
      UserError: wrong joint count, a joint that is marked valid and is not finite, or a camera that is not finite.
    """
    joints, valid = _known(example, "joints_world_mm", "valid", (skeleton.num_joints, 3), name)
    if not np.isfinite(joints[valid]).all():
        joint = skeleton.joints[int(np.flatnonzero(valid & ~np.isfinite(joints).all(-1))[0])]
        raise UserError(f"{name}: 3D joint {joint} is not finite but marked valid; prepare the dataset again")
    pose = world_to_camera(np.where(valid[:, None], joints, 0), camera_of(example))
    if not valid[list(skeleton.root_indices)].all():
        valid = np.zeros_like(valid)  # without its root a relative pose is unknown
    pose = np.where(valid[:, None], root_relative(pose, skeleton.root_indices), 0).astype(np.float32)
    if not math.isfinite(pose.sum()):
        raise UserError(f"{name}: its joints before its camera are not finite; prepare the dataset again")
    return pose, valid


def _known(
    example: Mapping[str, Any], joints: str, valid: str, shape: tuple[int, int], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The fields `joints`, float64 of `shape`, and `valid`, (J,) bool. Raises UserError for other shapes."""
    values, known = np.asarray(example[joints], np.float64), np.asarray(example[valid], bool)
    for field, found, expected in ((joints, values.shape, shape), (valid, known.shape, shape[:1])):
        if found != expected:
            raise UserError(f"{name}: {field} is {found}, expected {expected}; prepare the dataset again")
    return values, known


def _check_crop(example: Mapping[str, Any], name: str) -> None:
    """Raises UserError where the crop's box is empty or a size is no number."""
    box, head = np.asarray(example.get("box", (0, 0, 1))).tolist(), float(example.get("head_size_px", 0))
    if not (all(map(math.isfinite, box)) and box[-1] > 0):  # lists: NumPy takes longer for three numbers
        raise UserError(f"{name}: its box {box} (left, top, side) is empty; prepare the dataset again")
    if not 0 <= head < np.inf:
        raise UserError(f"{name}: head_size_px is {head}, expected a finite number >= 0; prepare the dataset again")


def change_heatmap(heatmap: np.ndarray, change: Change, name: str, *, predicted: bool = False) -> np.ndarray:
    """Stored heatmaps (h, w, 16) of `mpii16` after the picture's change, h x w as they were, float32.

    Args:
      predicted: whether a 2D network of ours made them, which may well have found nobody.

    Raises:
      UserError: other channels, a value that is not finite, or zeros alone that nobody predicted.
    """
    layout = skeleton("mpii16")
    heatmap = np.asarray(heatmap, np.float32)
    if heatmap.ndim != 3 or heatmap.shape[2] != layout.num_joints or heatmap.shape[0] != heatmap.shape[1]:
        raise UserError(f"{name}: its heatmap is {heatmap.shape}, expected (h, h, {layout.num_joints})")
    if not np.isfinite(heatmap).all():
        raise UserError(f"{name}: its heatmap holds values that are not finite; prepare the dataset again")
    if not predicted and not heatmap.any():
        raise UserError(f"{name}: its heatmap is zero everywhere; prepare the dataset again")
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
      example: a dict of schema.pose_features, its picture as bytes; `heatmap_predicted` beside a `heatmap` of ours.
      source, target: the dataset's and the network's layout; joints are matched by name.
      stored_size, size: side of the stored picture and of the network's input, px.
      change: the augmentation; Change() for none.
      extras: what else the sample is to hold: `parts`, the label map of body parts.

    Raises:
      UserError: naming the example, where any of it is not what the schema says.
    """
    name = example_name(example)
    _check_crop(example, name)
    pose, valid = camera_pose_mm(example, source, name)
    joints2d, valid2d = _known(example, "joints2d_px", "valid2d", (source.num_joints, 2), name)
    if not np.isfinite(joints2d[valid2d]).all():
        joint = source.joints[int(np.flatnonzero(valid2d & ~np.isfinite(joints2d).all(-1))[0])]
        raise UserError(f"{name}: 2D joint {joint} is not finite but marked valid; prepare the dataset again")
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
    stored = {}
    if "heatmap" in example:
        predicted = bool(example.get("heatmap_predicted", False))
        stored["heatmap"] = change_heatmap(example["heatmap"], change, name, predicted=predicted)
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
