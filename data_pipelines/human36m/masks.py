"""The dataset's person rectangles: a MATLAB 7.3 (HDF5) file a video, a 0/1 picture a frame."""

from __future__ import annotations

import pathlib
from typing import Any

import h5py
import numpy as np

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

_MAX_MASKS = 100_000


class Masks:
    """An open file of masks.

    Attributes:
      path: the file.
      size: (width, height) px of the video.
    """

    def __init__(self, path: pathlib.Path, size: tuple[int, int]):
        """Opens a file. Raises UserError where it is missing, no HDF5 or has no list `Masks`."""
        self.path, self.size = path, size
        check_not_text(path)
        try:
            self._file = h5py.File(path, "r")
        except Exception as error:  # h5py's kinds vary with the damage
            raise self._unreadable(error) from error
        try:
            self._references = self._list()
        except BaseException:
            self.close()
            raise

    def _list(self) -> np.ndarray:
        try:
            found = self._file.get("Masks")
            sound = isinstance(found, h5py.Dataset) and h5py.check_ref_dtype(found.dtype) is h5py.Reference
            if not sound or max(found.shape) != found.size or not 0 < found.size <= _MAX_MASKS:
                what = "no such list" if found is None else f"{found!r}"[:120]
                raise UserError(f"{self.path}: Masks is {what}, expected (N, 1) references; download it again")
            _check_storage(found, f"{self.path}: Masks")
            return found[()].reshape(-1)
        except UserError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def __len__(self) -> int:
        return len(self._references)

    def rectangle(self, frame: int) -> np.ndarray | None:
        """[left, top, right, bottom] px of a frame, edges between pixels (first pixel's left edge -0.5); None if empty.

        MATLAB's columns come first in HDF5, so a stored mask is (width, height).

        Raises:
          UserError: no mask of the video's size.
        """
        try:
            mask = self._file[self._references[frame]]
            if not isinstance(mask, h5py.Dataset) or mask.shape != self.size or mask.dtype.kind not in "bui":
                raise UserError(
                    f"{self.path}: mask {frame} is {mask!r}"[:300]
                    + f", expected (width, height) = {self.size} of 0 and 1; it is another camera's, download it again"
                )
            _check_storage(mask, f"{self.path}: mask {frame}")
            return edges(mask[()].T)
        except UserError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return UserError(f"{self.path} cannot be read as masks ({reason}); download it again")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Masks:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _check_storage(dataset: h5py.Dataset, where: str) -> None:
    """Raises UserError where reading would open another file or unpack more than the dataset's size."""
    if dataset.external or dataset.is_virtual or np.prod(dataset.chunks or (1,)) > 2 * dataset.size + 1024:
        raise UserError(f"{where} is stored as no MATLAB file stores it; do not use this archive")


def edges(mask: np.ndarray) -> np.ndarray | None:
    """[left, top, right, bottom] px around the ones of a mask (H, W), between pixels; None where there is none."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
