"""A made-up LSP in its true formats: our own people, in small pictures that cut some of them off.

python -m data_pipelines.lsp.dummy_data FOLDER [scaled|original|extended]
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import sys
import zipfile
from typing import NamedTuple

import cv2
import numpy as np
import scipy.io

from data_pipelines.crops import encode_picture
from data_pipelines.lsp.labels import EXTENDED, KINDS, SETS
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_image
from fusion_jax.skeletons import convert_joints, skeleton

NAMES = {"scaled": "lsp_dataset", "original": "lsp_dataset_original", "extended": "hr-lspet"}
_POSES = 8  # different ones; pictures cut them out differently
_TALL = {"scaled": 150, "original": 330, "extended": 150}  # px
WRIST = skeleton("lsp14").index("right_wrist")


class Truth(NamedTuple):
    """What a tree was made from, in the order of the pictures.

    Attributes:
      joints2d_px: (N, 14, 2), (0, 0) the centre of the first pixel; also where a joint is not labelled.
      labelled, hidden: (N, 14).
      sizes: (N, 2) width and height, px.
      folder: holds `joints.mat` and `images`.
    """

    joints2d_px: np.ndarray
    labelled: np.ndarray
    hidden: np.ndarray
    sizes: np.ndarray
    folder: pathlib.Path


def write_dummy(
    folder: pathlib.Path,
    kind: str = "scaled",
    pictures: int | None = None,
    *,
    wrapper: bool = False,
    zipped: bool = False,
    pixel_origin: int = 1,
    mark: bool = False,
) -> Truth:
    """Writes a tree like an unpacked zip's, or that zip.

    Args:
      folder: the manual folder.
      kind: as in the settings.
      pictures: how many; None for as many as the true set has.
      wrapper: one folder more around all, as an older zip had it.
      zipped: as the zip alone.
      pixel_origin: the number of the first pixel in the labels.
      mark: a magenta disc on the right wrist.
    """
    known = SETS[KINDS[kind]]
    count = known.pictures if pictures is None else pictures
    root = pathlib.Path(folder) / NAMES[kind]
    inner = root / "inner" if wrapper else root
    (inner / "images").mkdir(parents=True, exist_ok=True)
    views, joints = _views(_TALL[kind], mark)
    rng = np.random.default_rng(0)
    px, sizes = np.empty((count, 14, 2)), np.empty((count, 2), np.int64)
    digits = 5 if kind == "extended" else 4
    for number in range(count):
        left, top, width, height = _cut(joints[number % _POSES], rng, feet_off=number % 5 == 2)
        px[number], sizes[number] = joints[number % _POSES] - [left, top], (width, height)
        cut = views[number % _POSES][top : top + height, left : left + width]
        (inner / "images" / f"im{number + 1:0{digits}d}.jpg").write_bytes(encode_picture(cut))
    labelled, hidden = np.ones((count, 14), bool), np.zeros((count, 14), bool)
    if known.name == EXTENDED:
        labelled[1::2, WRIST - 1] = False
    else:
        hidden[1::2, WRIST - 1] = True
    write_labels(inner / "joints.mat", px + pixel_origin, labelled, hidden, known.layout)
    (inner / "README.txt").write_text("Made up; no real data.\n")
    if zipped:
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as packed:
            for path in sorted(p for p in root.rglob("*") if p.is_file()):
                packed.write(path, path.relative_to(root).as_posix())
        shutil.rmtree(root)
    return Truth(px, labelled, hidden, sizes, inner)


def write_labels(
    path: pathlib.Path, px: np.ndarray, labelled: np.ndarray, hidden: np.ndarray, layout: tuple[int, int]
) -> None:
    """A `joints.mat` of labels (N, 14, 2); the flag of LSP is `hidden`, that of the extended set `labelled`."""
    if layout == (3, 14):
        joints = np.concatenate([px, hidden[..., None]], axis=-1).transpose(2, 1, 0)
    else:
        rows = np.concatenate([np.where(labelled[..., None], px, 0), labelled[..., None]], axis=-1)
        joints = rows.transpose(1, 2, 0)
    scipy.io.savemat(path, {"joints": joints.astype(np.float64)}, do_compression=True)


@functools.cache
def _views(tall_px: int, mark: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """(pictures (H, W, 3) with a person `tall_px` tall in the middle, their joints (N, 14, 2) px)."""
    person, joints_mm = act("throwing", _POSES, 3.0, seed=5)
    side = 3 * tall_px
    focal = tall_px * 7000 / 1750.0
    intrinsics = np.array([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    toward = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # along world x
    camera = Camera(toward, np.array([-7000.0, 0, 900]), intrinsics, np.zeros(5))
    px = world_to_image(convert_joints(joints_mm, skeleton("human36m17"), skeleton("lsp14")), camera)
    pictures = []
    for picture, wrist in zip(film(person, joints_mm, camera, (side, side), seed=6), px[:, WRIST], strict=True):
        drawn = np.ascontiguousarray(picture)
        if mark:
            where = tuple(int(v) for v in np.round(wrist * 16))
            cv2.circle(drawn, where, 16 * max(4, tall_px // 30), (255, 0, 255), -1, cv2.LINE_AA, shift=4)
        pictures.append(drawn)
    return pictures, px


def _cut(joints: np.ndarray, rng: np.random.Generator, *, feet_off: bool) -> tuple[int, int, int, int]:
    """[left, top, width, height] of a picture around joints (14, 2), with room that differs from picture to picture."""
    low, high = np.floor(joints.min(0)), np.ceil(joints.max(0))
    tall = high[1] - low[1]
    before, after = (rng.integers(0.08 * tall, 0.3 * tall, 2) for _ in range(2))
    start, stop = low - before, high + after
    if feet_off:
        stop[1] = high[1] - round(0.1 * tall)
    left, top, right, bottom = (int(v) for v in (*start, *stop))
    return left, top, right - left, bottom - top


if __name__ == "__main__":
    write_dummy(pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "scaled")
