"""Writes single files in Human3.6M's formats: pose CDF, MP4, MATLAB 7.3 masks. For made-up data only."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import cv2
import h5py
import numpy as np
from cdflib.cdfwrite import CDF

FPS = 50
_CDF_TYPES = {"CDF_FLOAT": 44, "CDF_DOUBLE": 45}


def write_cdf(
    path: pathlib.Path,
    values: np.ndarray,
    *,
    variable: str = "Pose",
    kind: str = "zVariable",
    reals: str = "CDF_FLOAT",
    compress: int = 0,
    whole_file: bool = False,
) -> None:
    """Writes an array (records, ...) as one variable of a CDF.

    Args:
      path: of the new file.
      values: the records.
      variable: its name.
      kind: zVariable or rVariable.
      reals: CDF_FLOAT or CDF_DOUBLE.
      compress: gzip level of the variable; 0 for none.
      whole_file: compress the file as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sizes = list(values.shape[1:])
    r_sizes = sizes if kind == "rVariable" else []
    out = CDF(path, cdf_spec={"rDim_sizes": r_sizes, "Compressed": 6 if whole_file else 0})
    spec = {
        "Variable": variable, "Data_Type": _CDF_TYPES[reals], "Num_Elements": 1, "Rec_Vary": True, "Var_Type": kind,
        "Dim_Sizes": sizes, "Dim_Vary": [True] * len(sizes), "Compress": compress,
    }  # fmt: skip
    out.write_var(spec, var_data=values.astype(np.float32 if reals == "CDF_FLOAT" else np.float64))
    out.close()


def write_video(path: pathlib.Path, pictures: Iterable[np.ndarray], size: tuple[int, int]) -> None:
    """Writes RGB pictures (H, W, 3) as MP4 of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    for picture in pictures:
        out.write(np.ascontiguousarray(picture[..., ::-1]))
    out.release()


def write_masks(path: pathlib.Path, rectangles: np.ndarray, size: tuple[int, int], *, row: bool = False) -> None:
    """Writes rectangles (N, 4) [left, top, right, bottom], edges in px, as MATLAB 7.3 masks; all zero where empty.

    Args:
      path: of the new file.
      rectangles: the boxes; right <= left leaves a mask empty.
      size: (width, height) px.
      row: the list as (1, N) instead of (N, 1).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        references = np.empty((1, len(rectangles)) if row else (len(rectangles), 1), h5py.ref_dtype)
        for n, (left, top, right, bottom) in enumerate(np.clip(rectangles, -0.5, np.tile(size, 2) - 0.5) + 0.5):
            mask = np.zeros(size, np.uint8)
            mask[int(left) : int(right), int(top) : int(bottom)] = 1
            target = file.create_dataset(f"#refs#/m{n}", data=mask, compression="gzip", compression_opts=1)
            references.reshape(-1)[n] = target.ref
        file.create_dataset("Masks", data=references, dtype=h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, made up".ljust(124) + b"\x00\x02IM")
