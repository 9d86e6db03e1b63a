"""Our people filmed by somebody else's camera: full pictures of any size, lens distortion included.

For made-up raw data in the true formats of real datasets, where a picture, its 2D and its 3D have to agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import jax
import numpy as np

from data_pipelines.synthetic_humans.actions import perform
from data_pipelines.synthetic_humans.frames import draw
from data_pipelines.synthetic_humans.people import Person, sample_person
from data_pipelines.synthetic_humans.scenes import make_scenes
from fusion_jax.geometry import Camera, apply_affine, crop_matrix, undistort

_BATCH = 8
_DETAIL = 128  # px across the person's square, before it is enlarged into the picture
_GRID = 8  # px between the points at which the lens is worked out; it is smooth


def act(action: str, num_frames: int, fps: float, seed: int) -> tuple[Person, np.ndarray]:
    """A made-up person and their joints (T, 17, 3), `human36m17`, world mm, z up, floor at 0, near the origin."""
    person = sample_person(seed, 0)
    rng = np.random.default_rng(seed)
    return person, perform(action, person, rng, num_frames, fps).joints_mm.astype(np.float64)


def film(
    person: Person, joints_mm: np.ndarray, camera: Camera, size: tuple[int, int], seed: int
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8, RGB, of a performance (T, 17, 3) world mm, one by one.

    The person is drawn where `geometry.world_to_image` says, to within a pixel or two of detail; around them the
    picture repeats its border.

    Args:
      camera: of the full picture, with its lens.
      size: (W, H) px.
    """
    ideal = camera._replace(distortion=np.zeros(5))
    places = _undistorted_px(camera, size)
    for start in range(0, len(joints_mm), _BATCH):
        chunk = joints_mm[start : start + _BATCH]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], _BATCH - len(chunk), axis=0)])
        rng = np.random.default_rng(seed)  # the same room in every batch
        scenes, views = make_scenes(person, padded, ideal, _DETAIL, rng, one_room=True)
        pictures = np.asarray(draw(jax.tree.map(np.asarray, scenes), padded.astype(np.float32), _DETAIL)[0])
        for picture, box in zip(pictures[: len(chunk)], views.box, strict=False):
            where = apply_affine(crop_matrix(box, _DETAIL), places).astype(np.float32)
            yield cv2.remap(picture, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _undistorted_px(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """For each pixel (H, W, 2) of the real picture its place in the picture of a camera without a lens."""
    width, height = size
    xs, ys = np.arange(0, width + _GRID, _GRID), np.arange(0, height + _GRID, _GRID)
    px = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float64)
    xy = undistort(apply_affine(np.linalg.inv(camera.intrinsics), px), camera.distortion)
    coarse = apply_affine(np.asarray(camera.intrinsics, np.float64), xy).reshape(len(ys), len(xs), 2)
    x, y = np.meshgrid(np.arange(width) / _GRID, np.arange(height) / _GRID)
    return cv2.remap(coarse.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
