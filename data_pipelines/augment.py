"""Random changes to one training picture and, in step with it, to its 2D joints and its pose. NumPy only.

All geometric changes of a picture are one affine map, so it is resampled once. Turning and mirroring the picture
turns and mirrors the camera frame about the optical axis; moving and zooming it is another camera looking at the
same pose.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from fusion_jax.augmentation import AugmentConfig
from fusion_jax.body_parts import FLIP
from fusion_jax.geometry import crop_matrix

_LEVELS = np.arange(256)[:, None]


class Change(NamedTuple):
    """One draw.

    Attributes:
      box: [left, top, side] cut out, as shares of the picture's side.
      flip: mirror left and right.
      zoom: > 1 enlarges.
      angle: radians, from image x (right) towards image y (down).
      gain: (3,) factor per colour channel.
      brightness: added, of the range [0, 1].
    """

    box: tuple[float, float, float] = (0.0, 0.0, 1.0)
    flip: bool = False
    zoom: float = 1.0
    angle: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    brightness: float = 0.0


def draw_change(rng: np.random.Generator, config: AugmentConfig) -> Change:
    """A random change; the number and order of draws never depends on what is switched on."""
    u = rng.random(11)
    side = config.crop_fraction if u[0] < config.crop_probability else 1.0
    signed = 2 * u - 1
    contrast = 1 + config.colour * signed[6]
    r, g, b = (float(contrast * (1 + config.colour * s)) for s in signed[7:10])
    return Change(
        box=(float(u[1] * (1 - side)), float(u[2] * (1 - side)), side),
        flip=bool(u[3] < config.flip_probability),
        zoom=float(1 + config.scale_range * signed[4]),
        angle=float(np.deg2rad(config.rotation_deg) * signed[5]),
        gain=(r, g, b),
        brightness=float(0.5 * config.colour * signed[10]),
    )


@functools.lru_cache(maxsize=64)  # asked for by a picture and then by its joints; loader threads take turns
def pixel_map(change: Change, size_in: int, size_out: int) -> np.ndarray:
    """The (3, 3) affine map from px of the stored picture to px of the network's input; not to be written to."""
    left, top, side = (share * size_in for share in change.box)
    crop = crop_matrix(np.array([left - 0.5, top - 0.5, side]), size_out)
    middle = (size_out - 1) / 2
    to_middle, back = np.eye(3), np.eye(3)
    to_middle[:2, 2], back[:2, 2] = -middle, middle
    turn = np.eye(3)
    turn[:2, :2] = change.zoom * frame_map(change)[:2, :2]
    whole = back @ turn @ to_middle @ crop
    whole.setflags(write=False)
    return whole


def frame_map(change: Change) -> np.ndarray:
    """The (3, 3) map of camera-frame poses that goes with the picture's change: mirror x, then turn about z."""
    c, s = np.cos(change.angle), np.sin(change.angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return turn @ np.diag([-1.0 if change.flip else 1.0, 1, 1])


def change_image(image: np.ndarray, change: Change, size: int) -> np.ndarray:
    """The picture (S, S, 3) uint8 changed and resampled (bilinear) to (size, size, 3) uint8."""
    matrix = pixel_map(change, image.shape[0], size)
    if image.shape[0] != size or not np.array_equal(matrix, np.eye(3)):
        image = cv2.warpAffine(image, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if change.brightness == 0 and change.gain == (1.0, 1.0, 1.0):
        return image
    levels = _LEVELS * np.asarray(change.gain) + 255 * change.brightness
    table = np.clip(levels + 0.5, 0, 255).astype(np.uint8)  # (256, 3): one look-up instead of float pictures
    return cv2.LUT(image, table[None])


def change_parts(parts: np.ndarray, change: Change, size: int) -> np.ndarray:
    """A label map (S, S) uint8 of body parts changed as its picture, (size, size) uint8.

    Each pixel takes the label of the nearest one; in a mirrored picture left parts become right ones.
    """
    matrix = pixel_map(change, parts.shape[0], size)
    if parts.shape[0] != size or not np.array_equal(matrix, np.eye(3)):
        parts = cv2.warpAffine(
            parts, matrix[:2], (size, size), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
        )
    return np.array(FLIP, np.uint8)[parts] if change.flip else parts
