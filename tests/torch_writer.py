"""Files of torch.save written by hand, instruction by instruction, so that tests of reading them need no PyTorch."""

import pickle
import struct
import warnings
import zipfile
from typing import Any, NamedTuple

import numpy as np
import pytest

KINDS = {
    "f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte",
    "b1": "Bool",
}  # fmt: skip


class Storage(NamedTuple):
    key: str
    kind: str
    data: bytes
    size: int


class Tensor(NamedTuple):
    """A tensor's view of a storage, as torch._utils._rebuild_tensor_v2 is told of it."""

    storage: Storage
    offset: Any
    shape: Any
    strides: Any
    parameter: bool = False


class OrderedDict(NamedTuple):
    """Of `items`, with the attribute that a module's state_dict bears."""

    items: dict


def storage(key: str, array: np.ndarray, kind: str | None = None) -> Storage:
    array = np.ascontiguousarray(array)
    return Storage(key, kind or KINDS[array.dtype.str[1:]], array.tobytes(), array.size)


def tensor(key: str, array: np.ndarray, kind: str | None = None) -> Tensor:
    """A whole array as a tensor with a storage of its own."""
    strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
    return Tensor(storage(key, array, kind), 0, array.shape, strides[: array.ndim])


def pickled(value: Any, legacy: bool = False) -> tuple[bytes, dict[str, Storage]]:
    """A pickle of protocol 2 and the storages that it names, by key."""
    storages: dict[str, Storage] = {}
    texts: dict[str, int] = {}

    def text(value: str) -> bytes:
        if value in texts:
            return b"h" + bytes([texts[value]])
        data = value.encode()
        made = b"X" + struct.pack("<I", len(data)) + data
        if len(texts) < 256:
            texts[value] = len(texts)
            made += b"q" + bytes([texts[value]])
        return made

    def items(pairs: dict) -> bytes:
        return b"(" + b"".join(body(key) + body(item) for key, item in pairs.items()) + b"u"

    def body(value: Any) -> bytes:
        if isinstance(value, Storage):
            storages[value.key] = value
            kind = f"ctorch\n{value.kind}Storage\n".encode()
            return (
                b"(" + text("storage") + kind + text(value.key) + text("cpu") + body(value.size) + b"N" * legacy + b"tQ"
            )
        if isinstance(value, Tensor):
            made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + body(value.storage)
            made += b"".join(body(part) for part in value[1:4]) + b"\x89ccollections\nOrderedDict\n)RtR"
            return b"ctorch._utils\n_rebuild_parameter\n" + made + b"\x88N\x87R" if value.parameter else made
        if isinstance(value, OrderedDict):
            attributes = {"_metadata": {"": {"version": 1}}}
            return b"ccollections\nOrderedDict\n)R" + items(value.items) + body(attributes) + b"b"
        if isinstance(value, dict):
            return b"}" + items(value)
        if isinstance(value, list):
            return b"](" + b"".join(map(body, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(body, value)) + b"t"
        return text(value) if isinstance(value, str) else pickle.dumps(value, 2)[2:-1]

    return b"\x80\x02" + body(value) + b".", storages


def write_zip(path, body: bytes, storages: dict[str, Storage], compression=zipfile.ZIP_STORED, extra=None):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", body)
        members = {"byteorder": "little", "version": "3\n", **(extra or {})}
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
        for key, stored in storages.items():
            archive.writestr(f"archive/data/{key}", stored.data)
    return path


def write_legacy(path, body: bytes, storages: dict[str, Storage]):
    start = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    data = b"".join(pickle.dumps(part, 2) for part in start) + body + pickle.dumps(sorted(storages), 2)
    for key in sorted(storages):
        data += struct.pack("<q", int(storages[key].size)) + storages[key].data
    path.write_bytes(data)
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def write(path, value: Any, form: str):
    """`value`, with Tensors and OrderedDicts in it, as torch.save writes it in that format."""
    return WRITERS[form](path, *pickled(value, form == "legacy"))


def import_torch():
    """PyTorch, or the test is skipped: it serves to check against and is no dependency."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch", reason="PyTorch is not installed; this test compares with it")
