"""NPZ files of arrays, read without pickles and without believing the sizes that they announce."""

from __future__ import annotations

import math
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from fusion_jax.bounded_file import BoundedFile, Refused, one_line_of
from fusion_jax.errors import UserError

MAX_BYTES = 2**30
"""Of all arrays together, unpacked: a deflated zero takes a thousandth of its room."""
_MAX_LIST = 1 << 20  # bytes of the archive's list of members
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = "fiubUS"  # numbers and texts; never objects, which are pickles


def read_npz(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `names` of a file of numpy.savez or savez_compressed.

    Raises:
      UserError: the file is missing, damaged or of another kind, lacks one of them, holds objects in one, or holds more
        than MAX_BYTES.
    """
    try:
        if not path.is_file():
            raise Refused("is missing or is no file")
        with BoundedFile(path, _MAX_LIST) as file, zipfile.ZipFile(file) as archive:
            file.limit = None
            left, found = MAX_BYTES, {}
            for name in names:
                found[name] = _read(archive, name, left)
                left -= found[name].nbytes
            return found
    except Refused as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # whatever a file's bytes make zipfile and NumPy raise
        raise UserError(f"{path} cannot be read ({one_line_of(error)})") from error


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise Refused(f"cannot be read: it holds no array {name}") from None
    if info.compress_type not in _METHODS:
        raise Refused(f"holds {name} packed in an unusual way; save it with numpy.savez_compressed")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise Refused(f"holds {name} in the version {version} of NumPy's format, expected 1.0 or 2.0")
        shape, by_columns, dtype = read_header[version](file, max_header_size=10_000)
        if dtype.kind not in _KINDS or dtype.itemsize > 4096:
            raise Refused(f"cannot be read: {name} is of {str(dtype)[:80]}, expected numbers or short texts")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > limit:
            raise Refused(f"holds more than {MAX_BYTES} bytes of numbers ({name} is {str(shape)[:80]} of {dtype})")
        data = bytearray()
        while len(data) <= size and (part := file.read(min(size + 1 - len(data), 1 << 20))):
            data += part
        if len(data) != size:
            raise Refused(f"cannot be read: {name} is {str(shape)[:80]} of {dtype} and holds other than {size} bytes")
        return np.ndarray(shape, dtype, buffer=data, order="F" if by_columns else "C")
