"""The released files in small, made up: our own rendered people in the same datasets, names, shapes and types.

python -m data_pipelines.tekin_release.dummy_data FOLDER
"""

from __future__ import annotations

import functools
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, root_relative, world_to_camera, world_to_image
from fusion_jax.skeletons import convert_joints, skeleton

SIZE = 128
HEATMAP_SIZE = 64
CAMERA = Camera(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),
    np.array([-4800.0, 0, 1000]),
    np.array([[240.0, 0, 63.5], [0, 240, 66], [0, 0, 1]]),
    np.zeros(5),
)


class Truth(NamedTuple):
    """What a part of the release was made of.

    Attributes:
      images: (N, 128, 128, 3) uint8.
      poses_mm: (N, 17, 3) float32, `human36m17`, camera frame, relative to the pelvis.
      heatmaps: (N, 64, 64, 16) float32, `mpii16`.
      joints_px: (N, 16, 2) px of the pictures, `mpii16`.
      camera: that the people stood before.
    """

    images: np.ndarray
    poses_mm: np.ndarray
    heatmaps: np.ndarray
    joints_px: np.ndarray
    camera: Camera


def write_dummy(
    folder: pathlib.Path, *, rows: tuple[int, int] = (24, 8), flat: bool = True, one_file: bool = False
) -> dict[str, Truth]:
    """Writes the release of action 14 into `folder`; returns what it was made of by part, 'train' and 'val'.

    Args:
      rows: of train and of val.
      flat: (N, 3*128*128) and so on, as the authors' loader reads them; else (N, 3, 128, 128).
      one_file: the pictures and poses of both parts in one file.
    """
    import h5py

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truth = {part: _perform(count, seed) for seed, (part, count) in enumerate(zip(("train", "val"), rows, strict=True))}
    for part, made in truth.items():
        name = "h36m_data_imgs_A_14.h5" if one_file else f"h36m_data_imgs_A_14_{part}.h5"
        with h5py.File(folder / name, "a") as file:
            for key, values in arrays(made, part, flat).items():
                file.create_dataset(key, data=values)
        with h5py.File(folder / f"h36m_data_hg_preds_A_14_{part}.h5", "w") as file:
            maps = made.heatmaps.transpose(0, 3, 1, 2)
            values = maps.reshape(len(maps), -1) if flat else maps
            file.create_dataset("heatmaps", data=values, chunks=(2, *values.shape[1:]), compression="gzip")
    return truth


def arrays(made: Truth, part: str, flat: bool = True) -> dict[str, Any]:
    """The datasets of the file of pictures and poses."""
    pictures = made.images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    shaped = pictures.reshape(len(pictures), -1) if flat else pictures
    return {f"{part}_x": shaped, f"{part}_y3d": made.poses_mm.reshape(len(pictures), -1)}


@functools.cache
def _perform(count: int, seed: int) -> Truth:
    person, joints = act("walking", count, 2.0, seed)
    joints[..., :2] -= joints[:, :1, :2]  # on the spot, so that the crops need not follow
    images = np.stack(list(film(person, joints, CAMERA, (SIZE, SIZE), seed)))
    poses = root_relative(world_to_camera(joints, CAMERA), (0,)).astype(np.float32)
    px = world_to_image(convert_joints(joints, skeleton("human36m17"), skeleton("mpii16")), CAMERA)
    return Truth(images, poses, _gaussians(px), px, CAMERA)


def _gaussians(joints_px: np.ndarray) -> np.ndarray:
    """(N, 64, 64, 16) float32, peak 1, one heatmap pixel wide, of joints (N, 16, 2) in px of the pictures."""
    places = (joints_px + 0.5) * HEATMAP_SIZE / SIZE - 0.5
    grid = np.arange(HEATMAP_SIZE)
    x, y = (np.exp(-((grid[None, :, None] - places[:, None, :, axis]) ** 2) / 2) for axis in (0, 1))
    return (y[:, :, None] * x[:, None]).astype(np.float32)


if __name__ == "__main__":
    write_dummy(pathlib.Path(sys.argv[1]))
    print(
        f"written {sys.argv[1]}; go on with: fusion-jax prepare tekin_release --manual-dir {sys.argv[1]} --data-dir DIR"
    )
