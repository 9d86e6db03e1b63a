"""Rows of datasets in HDF5 files that came from outside: looked over before a byte is read, then read in blocks.

An HDF5 file can point at other files, announce more than it holds, and unpack a little into very much; none of these
is what the release does, and each is refused here.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

MAX_CHUNK_BYTES = 256 * 10**6  # a chunk is unpacked as a whole
_MAX_RATIO = 1100  # deflate packs 1032 to 1 at the very best
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}  # those that come with HDF5, and h5py's lzf
_BLOCK_ROWS, _BLOCK_BYTES = 32, 64 * 10**6


class Rows:
    """A dataset of N rows of one shape, stored flat or in that shape.

    Attributes:
      where: file and dataset, for messages.
      row_shape: of a row as it is handed out.
    """

    def __init__(self, dataset: Any, where: str, row_shape: tuple[int, ...]):
        self._dataset, self.where, self.row_shape = dataset, where, row_shape
        _check(dataset, where, row_shape)

    def __len__(self) -> int:
        return self._dataset.shape[0]

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows first to last, both included, (n, *row_shape) float32.

        Raises:
          UserError: the file is damaged there.
        """
        try:
            block = self._dataset[first : last + 1]
        except Exception as error:  # h5py passes on what HDF5 and its filters say, as OSError, RuntimeError and others
            raise UserError(
                f"{self.where}: rows {first} to {last} cannot be read ({_words(error)}); download it again"
            ) from error
        return np.asarray(block, np.float32).reshape(-1, *self.row_shape)

    @property
    def block_rows(self) -> int:
        """How many rows to read at a time: whole chunks where they are small, so that each is unpacked once."""
        row_bytes = 4 * math.prod(self.row_shape)
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        return max(1, min(max(chunk, _BLOCK_ROWS), _BLOCK_BYTES // row_bytes))


@contextlib.contextmanager
def open_hdf5(path: pathlib.Path) -> Iterator[Any]:
    """An HDF5 file to read. Raises UserError where it is missing, a web page, something else or cut off."""
    import h5py

    check_not_text(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start != _SIGNATURE:
        raise UserError(f"{path} is no HDF5 file (it starts with {start!r}); download it again")
    try:
        file = h5py.File(path, "r")
    except Exception as error:
        raise UserError(f"{path} is damaged or cut off ({_words(error)}); download it again") from error
    with file:
        yield file


def find_rows(file: Any, path: pathlib.Path, name: str, row_shape: tuple[int, ...]) -> Rows:
    """The dataset `name` at the top of an open file.

    Raises:
      UserError: it is not there, leads elsewhere, or has another shape or type.
    """
    import h5py

    where = f"{path}: {name}"
    try:
        names = list(file)
        if name not in names:
            has = ", ".join(sorted(names)[:6]) or "nothing"
            raise UserError(f"{path} holds no {name} but {has}; it is another file, download it again")
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{where} is a link to elsewhere; do not use this file")
        dataset = file[name]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is damaged ({_words(error)}); download it again") from error
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{where} is a {type(dataset).__name__.lower()}, expected a dataset; download it again")
    return Rows(dataset, where, row_shape)


def has_rows(file: Any, name: str) -> bool:
    """Whether an open file has something of that name at its top."""
    try:
        return name in list(file)
    except Exception as error:
        raise UserError(f"{file.filename} is damaged ({_words(error)}); download it again") from error


def _check(dataset: Any, where: str, row_shape: tuple[int, ...]) -> None:
    try:
        shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
        elsewhere = dataset.is_virtual or bool(dataset.external)
        properties = dataset.id.get_create_plist()
        filters = {properties.get_filter(n)[0] for n in range(properties.get_nfilters())}
        stored = dataset.id.get_storage_size()
    except Exception as error:
        raise UserError(f"{where} is damaged ({_words(error)}); download it again") from error
    if elsewhere:
        raise UserError(f"{where} has its values in other files; do not use this file")
    flat = math.prod(row_shape)
    if shape is None or tuple(shape[1:]) not in (row_shape, (flat,)) or not shape[0]:
        expected = ", ".join(str(n) for n in row_shape)
        raise UserError(f"{where} is {shape}, expected (N, {flat}) or (N, {expected}); it is another file")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise UserError(f"{where} holds {dtype}, expected float32; it is another file")
    if filters - _FILTERS:
        raise UserError(
            f"{where} is packed by an unknown filter {min(filters - _FILTERS)}; store it with gzip or unpacked"
        )
    if chunks and math.prod(chunks) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise UserError(f"{where} has chunks {chunks} of more than {MAX_CHUNK_BYTES} bytes; store it with smaller ones")
    if math.prod(shape) * dtype.itemsize > _MAX_RATIO * stored:
        raise UserError(
            f"{where} announces {shape[0]} rows, more than its {stored} stored bytes can hold; download it again"
        )


def _words(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
