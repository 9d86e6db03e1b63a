"""The NPZ file of a model of the authors' release: found, looked over, and its one pickled list read safely."""

from __future__ import annotations

import pathlib
import re
import zipfile
from typing import IO

import numpy as np

from fusion_jax.bounded_file import BoundedFile, Refused, one_line_of
from fusion_jax.errors import UserError
from fusion_jax.release_pickle import MAX_BYTES, read_arrays
from fusion_jax.torch_pickle import shown

_MEMBER = "params.npy"
_MAX_LIST = 1 << 20  # bytes of an archive's list of members; numpy.savez of a model writes 60
_MAX_HEADER = 4096
_AGAIN = "download it again"


def read_release(path: pathlib.Path) -> list[np.ndarray]:
    """The arrays of a model that the authors' code saved: numpy.savez(file, params=[...]), by Python 2 or 3.

    Nothing of the file is run; memory stays within a small multiple of its size.

    Raises:
      UserError: the file is missing, damaged or of another kind, or holds anything but floating-point arrays.
    """
    try:
        if not path.is_file():
            raise Refused("is missing or is no file; give the path of the release's model, such as h36m_model_A_14.npz")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise Refused(f"is {size} bytes long, expected {MAX_BYTES} at most")
        with BoundedFile(path, _MAX_LIST) as file:
            _check_start(file.peek(512))
            with zipfile.ZipFile(file) as archive:
                file.limit = None
                return _read_member(archive)
    except Refused as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_line_of(error)})") from error
    except Exception as error:  # whatever a file's bytes make pickletools, zipfile and NumPy raise
        raise UserError(f"{path} is damaged or no model of the release ({one_line_of(error)}); {_AGAIN}") from error


def _read_member(archive: zipfile.ZipFile) -> list[np.ndarray]:
    members = {info.filename: info for info in archive.infolist()}
    if _MEMBER not in members:
        holds = ", ".join(shown(name) for name in list(members)[:3]) or "nothing"
        raise Refused(f"holds {holds}, expected {_MEMBER}; give the release's model, such as h36m_model_A_14.npz")
    info = members[_MEMBER]
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Refused(f"has a compressed {_MEMBER}, expected it as numpy.savez writes it; {_AGAIN}")
    with archive.open(info) as stream:
        _check_header(stream)
        arrays = read_arrays(stream)
        while stream.read(1 << 20):  # to the end, where the checksum is compared
            pass
    return arrays


def _check_header(stream: IO[bytes]) -> None:
    """Leaves the stream behind the header of an .npy file. Raises Refused where it is not of an object array."""
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY":
        raise Refused(f"has a {_MEMBER} that is no array of NumPy; {_AGAIN}")
    length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
    if length > _MAX_HEADER:
        raise Refused(f"has a {_MEMBER} with a header of {length} bytes, expected {_MAX_HEADER} at most; {_AGAIN}")
    kind = re.search(rb"'descr': '([^']{1,20})'", stream.read(length))
    if kind is None or not re.fullmatch(rb"\|?O[48]?", kind[1]):
        found = shown(kind[1].decode("latin-1")) if kind else "records"
        raise Refused(f"holds one array of {found}, expected a list of arrays (objects, 'O')")


def _check_start(start: bytes) -> None:
    """Raises Refused, saying what it is, where the first bytes are not those of an archive."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        raise Refused(f"is empty; {_AGAIN}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise Refused("is a web page saved under this name; the download needed a log-in or a newer address")
    if not start.startswith(b"PK"):
        raise Refused(f"is no file of numpy.savez (it begins with {start[:8]!r}); {_AGAIN}")
