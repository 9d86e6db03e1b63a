"""Files of torch.save, old and new format, read without PyTorch and without running the pickles in them."""

from __future__ import annotations

import io
import math
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fusion_jax.bounded_file import BoundedFile, Refused, one_line_of
from fusion_jax.errors import UserError
from fusion_jax.torch_pickle import Names, build, expect, shown

MAX_BYTES = 8 * 10**9  # of a file; the largest published hourglass with its optimiser has a twentieth
MAX_LIST = 1 << 24  # bytes of a pickle, or of an archive's list; eight hourglasses and their optimiser need 1 MB
_MAX_DIMS = 32
_MAX_GROWTH = 4  # bytes of tensors to bytes of file: bfloat16 doubles, views repeat
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_AGAIN = "download it again"
# The types that storages are named after. bfloat16 is the upper half of a float32.
_DTYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": "<u2",
    "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1", "Byte": "<u1", "Bool": "<u1",
}  # fmt: skip


def read_torch_file(path: pathlib.Path) -> Any:
    """What torch.save wrote, of plain Python containers, with a NumPy array in the place of each tensor.

    Dictionaries of any kind come as dict; lists, tuples, numbers, texts and None as themselves. Arrays own their
    memory, one for each tensor; bfloat16 comes as float32. Only the storages that tensors refer to are read.

    Raises:
      UserError: the file is missing, damaged or of another kind; it holds anything but the above, such as a whole
        pickled model; or it says of itself what its size belies.
    """
    try:
        if not path.is_file():
            raise Refused("is missing or is no file; give the path of a file of torch.save")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise Refused(f"is {size} bytes long, expected {MAX_BYTES} at most; in PyTorch save the state_dict() alone")
        with BoundedFile(path, MAX_LIST) as file:
            contents = _Contents(size)
            start = file.read(512)
            file.seek(0)
            if start.startswith(b"PK"):
                return _read_zip(file, contents)
            _check_legacy(start)
            return _read_legacy(file, contents)
    except Refused as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_line_of(error)})") from error
    except Exception as error:  # whatever a file's bytes make pickletools, zipfile and NumPy raise
        raise UserError(f"{path} is damaged or no file of torch.save ({one_line_of(error)}); {_AGAIN}") from error


class _StorageKind(NamedTuple):
    name: str


class _Storage(NamedTuple):
    """Numbers in a row that tensors are views of."""

    kind: str
    key: str
    size: int

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(_DTYPES[self.kind]).itemsize


class _View(NamedTuple):
    """An array that is to be filled with a tensor's part of its storage; offset and strides count elements."""

    array: np.ndarray
    offset: int
    strides: tuple[int, ...]


class _Contents:
    """The storages and tensors that a file's pickle names, held against the file's size before anything is read."""

    def __init__(self, file_size: int):
        self.storages: dict[str, _Storage] = {}
        self._views: dict[str, list[_View]] = {}
        self._file_size, self._stored, self._needed = file_size, 0, 0

    def names(self) -> Names:
        """For `torch_pickle.build`."""
        known: dict[tuple[str, str], Callable] = {
            ("collections", "OrderedDict"): _ordered_dict,
            ("torch", "Size"): lambda sizes: expect(sizes, tuple),
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, grad, hooks: expect(tensor, np.ndarray),
        }
        return Names(lambda module, name: known.get((module, name)) or _storage_kind(module, name), self._storage,
                     (np.ndarray,))  # fmt: skip

    def _storage(self, reference: Any) -> _Storage:
        """The storage of a persistent id ("storage", kind, key, device, size[, view])."""
        if type(reference) is not tuple or type(reference[0]) is not str or reference[0] != "storage":
            raise Refused("holds a whole pickled model; in PyTorch save its state_dict() alone")
        kind, key, _, size = reference[1:5]
        if len(reference) > 5 and reference[5] is not None:
            raise Refused("holds views of storages as PyTorch wrote before 0.4; load and save it with a newer one")
        if type(kind) is not _StorageKind or type(key) is not str or type(size) is not int or size < 0:
            raise Refused(f"names a storage that cannot be; {_AGAIN}")
        found = _Storage(kind.name, key, size)
        if key not in self.storages:
            self.storages[key], self._views[key] = found, []
            self._stored += found.nbytes
        if self.storages[key] != found:
            raise Refused(f"gives storage {shown(key)} two types or sizes; {_AGAIN}")
        if self._stored > self._file_size:
            raise Refused(f"is cut off: its tensors alone would be larger than its {self._file_size} bytes; {_AGAIN}")
        return found

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, bits: Any = None
    ) -> np.ndarray:
        """An array for a tensor; `fill` copies its numbers."""
        fits = type(storage) is _Storage and len(shape) == len(strides) <= _MAX_DIMS
        if not fits or any(type(n) is not int or not 0 <= n < 1 << 62 for n in (offset, *shape, *strides)):
            raise Refused(f"holds a tensor of impossible shape; {_AGAIN}")
        if bits:
            raise Refused("holds tensors that are stored negated or conjugated; in PyTorch save them resolved")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if math.prod(shape) and last >= storage.size:
            raise Refused(f"holds a tensor that reaches beyond its storage {shown(storage.key)}; {_AGAIN}")
        dtype = np.dtype({"BFloat16": "<f4", "Bool": "?"}.get(storage.kind, _DTYPES[storage.kind])).newbyteorder("=")
        self._needed += math.prod(shape) * dtype.itemsize
        if self._needed > _MAX_GROWTH * self._file_size:
            raise Refused(f"holds tensors of more than {_MAX_GROWTH} times its own size; it is no usual checkpoint")
        array = np.empty(tuple(shape), dtype)
        if array.size:
            self._views[storage.key].append(_View(array, offset, tuple(strides)))
        return array

    def used(self, key: str) -> bool:
        """Whether any tensor holds numbers of that storage."""
        return bool(self._views[key])

    def fill(self, key: str, data: bytes) -> None:
        """Copies a storage's numbers to the tensors that are views of it."""
        storage = self.storages[key]
        if len(data) != storage.nbytes:
            raise Refused(f"is cut off in storage {shown(key)}: {len(data)} of {storage.nbytes} bytes; {_AGAIN}")
        numbers: np.ndarray = np.frombuffer(data, _DTYPES[storage.kind])
        if storage.kind == "BFloat16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        for array, offset, strides in self._views[key]:  # `_tensor` has checked the bounds
            steps = [stride * numbers.itemsize for stride in strides]
            array[...] = np.lib.stride_tricks.as_strided(numbers[offset:], array.shape, steps, writeable=False)


def _storage_kind(module: str, name: str) -> _StorageKind:
    kind = name.removesuffix("Storage")
    if module != "torch" or kind == name:
        raise Refused(
            f"holds the Python object {shown(f'{module}.{name}')}, which is not read for safety; in PyTorch save the "
            "model's state_dict() alone"
        )
    if kind not in _DTYPES:
        raise Refused(f"holds tensors of type {shown(kind)}, expected {', '.join(_DTYPES)}; convert them in PyTorch")
    return _StorageKind(kind)


def _ordered_dict(*pairs: Any) -> dict:
    if pairs:  # one list of them could be given to many calls, and multiply
        raise Refused("was written by Python 2; load and save it with Python 3")
    return {}


def _read_zip(file: BoundedFile, contents: _Contents) -> Any:
    """Of PyTorch 1.6 on: an archive of NAME/data.pkl and a member NAME/data/KEY for each storage."""
    with zipfile.ZipFile(file) as archive:
        file.limit = None
        members = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
        if any("/code/" in name or name.endswith("/constants.pkl") for name in members):
            raise Refused("is a TorchScript model (torch.jit.save); in PyTorch save its state_dict() with torch.save")
        if len(roots) != 1:
            raise Refused("is a zip archive without one data.pkl, so not of torch.save; give the checkpoint itself")

        def read(name: str, limit: int) -> bytes:
            info = members.get(f"{roots[0]}/{name}")
            if info is None:
                raise Refused(f"lacks its member {shown(name)}; {_AGAIN}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"has a compressed member {shown(name)}, which torch.save does not write; {_AGAIN}")
            if info.file_size > limit:
                raise Refused(f"has a member {shown(name)} of {info.file_size} bytes, expected {limit} at most")
            return archive.read(info)

        if f"{roots[0]}/byteorder" in members and read("byteorder", 16) != b"little":
            raise Refused("was saved on a big-endian machine; load and save it on a little-endian one")
        value = build(io.BytesIO(read("data.pkl", MAX_LIST)), contents.names())
        for key, storage in contents.storages.items():
            if contents.used(key):
                contents.fill(key, read(f"data/{key}", storage.nbytes))
    return value


def _read_legacy(file: BoundedFile, contents: _Contents) -> Any:
    """Before PyTorch 1.6: five pickles, then each storage's count of elements and its bytes.

    PyTorch writes these little-endian on any machine.
    """
    pickles = io.BytesIO(file.read(MAX_LIST))
    file.limit = None
    if build(pickles) != _MAGIC:
        raise Refused("is a pickle but not of torch.save; in PyTorch save the state_dict() with torch.save")
    version = build(pickles)
    if version != _PROTOCOL:
        raise Refused(f"is of format {shown(version)}, expected {_PROTOCOL}; save it with another PyTorch")
    build(pickles)  # about the machine
    value = build(pickles, contents.names())
    keys = build(pickles)
    if type(keys) is not list or {type(k) for k in keys} - {str} or sorted(keys) != sorted(contents.storages):
        raise Refused(f"lists other storages than its tensors name; {_AGAIN}")
    file.seek(pickles.tell())
    for key in keys:
        storage = contents.storages[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.size:
            raise Refused(f"has {count} numbers in storage {shown(key)}, expected {storage.size}; {_AGAIN}")
        contents.fill(key, file.read(storage.nbytes))
    return value


def _check_legacy(start: bytes) -> None:
    """Raises Refused, saying what it is, where the first bytes are not those of a pickle."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        raise Refused(f"is empty; {_AGAIN}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise Refused("is a web page saved under this name; the download needed a log-in or a newer address")
    if start[257:262] == b"ustar":
        raise Refused("is a tar archive; unpack it and give the checkpoint in it")
    if start.startswith(b"\x1f\x8b"):
        raise Refused("is packed with gzip; unpack it first")
    if start[8:9] == b"{":
        raise Refused("is a safetensors file; in PyTorch load it and save the dictionary with torch.save")
    if not start.startswith(b"\x80"):
        raise Refused(f"begins with neither a zip archive nor a pickle, so is no file of torch.save; {_AGAIN}")
