"""Cutting a person out of a picture and describing the cut: whole-pixel boxes, exact cameras, schema examples."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from data_pipelines.schema import CameraModel
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, crop_matrix

JPEG_QUALITY = 95
MAX_SIDE = 20_000  # px; a larger box is a damaged label, and cutting it would take gigabytes
_NO_CAMERA = Camera(np.eye(3), np.zeros(3), np.zeros((3, 3)), np.zeros(5))


def whole_pixel_box(box: np.ndarray) -> np.ndarray:
    """The square [left, top, side] nearest to `box` whose edges lie between pixels, so that cutting it is exact.

    Edges between pixels are at k - 0.5: `left` and `top` come out as whole numbers minus a half, `side` whole.
    """
    left, top, side = np.asarray(box, np.float64)
    whole = max(1.0, float(np.round(side)))
    middle = np.array([left, top]) + side / 2
    return np.array([*(np.round(middle - whole / 2 + 0.5) - 0.5), whole])


def crop_picture(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The whole-pixel box of a picture (H, W, 3) uint8 as (size, size, 3); what lies outside is black.

    Shrinking averages over areas, so that fine patterns do not alias.
    """
    if not np.isfinite(box).all() or box[2] > MAX_SIDE:
        raise UserError(f"box {np.asarray(box).tolist()} is not a square of at most {MAX_SIDE} px")
    left, top = (round(float(v) + 0.5) for v in box[:2])
    side = int(box[2])
    height, width = image.shape[:2]
    inside = image[max(0, top) : max(0, min(height, top + side)), max(0, left) : max(0, min(width, left + side))]
    if not inside.size:
        raise UserError(f"box {np.asarray(box).tolist()} lies outside the {width} x {height} picture")
    pads = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    if any(pads):
        inside = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_CONSTANT)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(inside, (size, size), interpolation=method)


def encode_picture(image: np.ndarray, encoding: str = ".jpg") -> bytes:
    """RGB (S, S, 3) uint8 as JPEG (quality 95) or PNG bytes."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if encoding == ".jpg" else []
    done, data = cv2.imencode(encoding, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture {image.shape} as {encoding}")
    return data.tobytes()


def person_example(
    image: np.ndarray,
    box: np.ndarray,
    size: int,
    *,
    joints_world_mm: np.ndarray,
    valid: np.ndarray,
    joints2d_px: np.ndarray,
    valid2d: np.ndarray,
    visible: np.ndarray | None = None,
    camera: Camera | None = None,
    camera_model: CameraModel = "perspective",
    head_size_px: float = 0.0,
    camera_name: str,
    subject: str,
    action: str,
    sequence: str,
    frame: int,
) -> dict[str, Any]:
    """One example of `schema.pose_features`: the crop of `box`, with everything brought to its pixels.

    Args:
      image: the full picture (H, W, 3) uint8, RGB.
      box: [left, top, side] px of the full picture; snapped to whole pixels.
      size: S, px.
      joints_world_mm, valid: (J, 3) and (J,); what is not valid is stored as zeros.
      joints2d_px, valid2d: (J, 2) px of the full picture and (J,); likewise.
      visible: (J,), known to be in sight; by default each joint known in 2D that lies in the picture. Never true
        outside the crop.
      camera: of the full picture; None where unknown.
      camera_model: of `camera`.
      head_size_px: in the full picture; 0 where unknown.

    Raises:
      UserError: a joint marked valid is not finite, or the box lies outside the picture.
    """
    name = f"{sequence}/{camera_name}/{frame:06d}"
    box = whole_pixel_box(box)
    to_crop = crop_matrix(box, size)
    valid, valid2d = np.asarray(valid, bool), np.asarray(valid2d, bool)
    for joints, known, what in ((joints_world_mm, valid, "3D"), (joints2d_px, valid2d, "2D")):
        if not np.isfinite(np.asarray(joints)[known]).all():
            raise UserError(f"{name}: a {what} joint is not finite")
    full2d = np.where(valid2d[:, None], joints2d_px, 0.0)
    crop2d = np.where(valid2d[:, None], apply_affine(to_crop, full2d), 0.0)
    low, high = np.full(2, -0.5), np.array(image.shape[1::-1]) - 0.5
    in_picture = ((full2d >= low) & (full2d <= high)).all(-1)
    in_crop = ((crop2d >= -0.5) & (crop2d <= size - 0.5)).all(-1)
    seen = valid2d & in_picture if visible is None else np.asarray(visible, bool)
    model = "none" if camera is None else camera_model
    exact = _NO_CAMERA if camera is None else camera._replace(intrinsics=to_crop @ camera.intrinsics)
    return {
        "image": encode_picture(crop_picture(image, box, size)),
        "joints_world_mm": np.where(valid[:, None], joints_world_mm, 0).astype(np.float32),
        "joints2d_px": crop2d.astype(np.float32),
        "valid": valid,
        "valid2d": valid2d,
        "visible": seen & in_crop & valid2d,
        "camera": {**{k: np.asarray(v, np.float64) for k, v in exact._asdict().items()}, "model": model},
        "box": box,
        "head_size_px": np.float32(head_size_px * size / box[2]),
        "camera_name": camera_name,
        "subject": subject,
        "action": action,
        "sequence": sequence,
        "frame": np.int64(frame),
    }
