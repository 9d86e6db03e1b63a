"""Variables of MATLAB v5 files that came from outside, read by ourselves and trusted in nothing.

scipy's reader takes what a file says of itself at its word: single damaged bytes crash the process, and a cell array
may announce billions of entries. Here nothing is made that is larger than the bytes that are there.
"""

from __future__ import annotations

import math
import pathlib
import struct
import zlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

MAX_BYTES = 2 * 10**9  # of a file, and of a variable unpacked
_HEADER = 128
_PREFIX = 4096  # bytes that hold the flags, dimensions and name of any variable a person would write
_MAX_DEPTH = 32  # MPII's annotations nest five deep
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_COMPLEX = 0x0800
_MIN_ELEMENT = 8  # bytes of the tag that even an empty element has
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_LETTERS = {1: "utf-8", 2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}


class MatVariable(NamedTuple):
    """What the file says of a variable: `kind` is 'cell', 'struct', 'char', 'numeric' or 'other'."""

    name: str
    kind: str
    shape: tuple[int, ...]


class MatStruct(SimpleNamespace):
    """One MATLAB struct, its fields as attributes, like `scipy.io.matlab.mat_struct`."""

    @property
    def _fieldnames(self) -> list[str]:
        return list(vars(self))


class _Damaged(ValueError):
    """What is wrong, in words that go behind the file's name."""


class _Matrix(NamedTuple):
    matrix_class: int
    complex: bool
    shape: tuple[int, ...]
    name: bytes
    at: int  # where the values begin


def list_mat_variables(path: pathlib.Path) -> list[MatVariable]:
    """The variables of a MATLAB v5 file by their headers alone, in the file's order: quick for any size.

    Raises:
      UserError: it is missing, a web page, of another version, or damaged.
    """
    check_not_text(path)
    try:
        with path.open("rb") as file:
            order = _byte_order(path, file.read(_HEADER))
            found, position, end = [], _HEADER, path.stat().st_size
            while position < end:
                file.seek(position)
                kind, size = _tag(order, file.read(8))
                start = file.read(min(size, _PREFIX))
                found.append(_variable(order, start if kind == _MATRIX else _inflate(start, _PREFIX)[8:]))
                position += 8 + size
            if position != end:
                raise _Damaged("it is cut off")
            return found
    except UserError:
        raise
    except (ValueError, struct.error, zlib.error) as error:
        raise _as_user_error(path, error) from error


def load_mat_variable(path: pathlib.Path, name: str, *, squeeze_me: bool = False) -> Any:
    """The variable `name` of a MATLAB v5 file.

    Numbers come as an array of MATLAB's shape, letters as str, cells as an array of objects, structs as an array of
    `MatStruct`, all as in `scipy.io.loadmat(..., struct_as_record=False)`.

    Args:
      squeeze_me: as scipy's option: on every level axes of length one go, an array of one becomes its element, and an
        empty array has the shape (0,).

    Raises:
      UserError: the file is missing, a web page, of another version, too large or damaged, or lacks the variable.
    """
    names = [variable.name for variable in list_mat_variables(path)]
    if name not in names:
        raise UserError(
            f"{path} holds no variable {name!r} but {', '.join(map(repr, names[:5])) or 'nothing'}; it is another file"
        )
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size} bytes, more than any file of a dataset; it is another file")
    data = path.read_bytes()
    try:
        order = _byte_order(path, data[:_HEADER])
        matrix = memoryview(_top_element(order, data, names.index(name)))
        return _Reader(order, matrix, squeeze_me).element(0, len(matrix), 0)[0]
    except UserError:
        raise
    except (ValueError, struct.error, zlib.error) as error:
        raise _as_user_error(path, error) from error


def as_numbers(values: Any, where: str) -> np.ndarray:
    """A loaded variable as float64. Raises UserError, naming `where`, if it is no array of numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{where} holds no numbers; it is another file")
    return array.astype(np.float64)


class _Reader:
    """Turns elements of one unpacked variable into values."""

    def __init__(self, order: str, data: memoryview, squeeze: bool):
        self._order, self._data, self._squeeze = order, data, squeeze

    def element(self, at: int, end: int, depth: int) -> tuple[Any, int]:
        """(the value of the matrix whose tag is at `at`, where the next begins)."""
        kind, size = struct.unpack_from(self._order + "II", self._data, at)
        start, stop = at + 8, at + 8 + size
        if kind != _MATRIX or stop > end:
            raise _Damaged("a cell or field holds no whole matrix")
        if depth > _MAX_DEPTH:
            raise _Damaged(f"it nests deeper than {_MAX_DEPTH}")
        value = self._value(start, stop, depth) if size else np.zeros((0, 0))
        return (_squeezed(value) if self._squeeze else value), stop

    def _value(self, start: int, stop: int, depth: int) -> np.ndarray:
        matrix = _matrix_header(self._order, self._data, start, stop)
        if matrix.matrix_class == _CELL:
            return self._cells(matrix, stop, depth)
        if matrix.matrix_class == _STRUCT:
            return self._structs(matrix, stop, depth)
        if matrix.matrix_class == _CHAR:
            return self._letters(matrix, stop)
        if matrix.matrix_class not in _CLASSES or matrix.complex:
            raise _Damaged(f"a value has the class {matrix.matrix_class}: no real numbers, letters, cells or structs")
        return self._numbers(matrix, stop)

    def _numbers(self, matrix: _Matrix, stop: int) -> np.ndarray:
        kind, start, size, _ = _element(self._order, self._data, matrix.at, stop)
        if kind not in _STORED:
            raise _Damaged(f"numbers are stored as the unknown type {kind}")
        stored = np.dtype(self._order + _STORED[kind])
        if size != math.prod(matrix.shape) * stored.itemsize:
            raise _Damaged(f"an array announces {matrix.shape} and holds {size} bytes")
        values = np.frombuffer(self._data[start : start + size], stored)
        with np.errstate(invalid="ignore"):
            return values.astype(_CLASSES[matrix.matrix_class]).reshape(matrix.shape, order="F")

    def _letters(self, matrix: _Matrix, stop: int) -> np.ndarray:
        """Rows of text as an array of str; rows are stored letter by letter down the columns."""
        kind, start, size, _ = _element(self._order, self._data, matrix.at, stop)
        if kind not in _LETTERS:
            raise _Damaged(f"letters are stored as the unknown type {kind}")
        ending = "" if kind in (1, 2, 16) else "-le" if self._order == "<" else "-be"
        text = bytes(self._data[start : start + size]).decode(_LETTERS[kind] + ending)
        if not text:
            return np.zeros(0, "U1")
        if len(matrix.shape) != 2 or math.prod(matrix.shape) != len(text):
            raise _Damaged(f"a text announces {matrix.shape} and holds {len(text)} letters")
        rows = matrix.shape[0]
        return np.array([text[row::rows] for row in range(rows)])

    def _cells(self, matrix: _Matrix, stop: int, depth: int) -> np.ndarray:
        return self._objects(matrix.shape, 1, matrix.at, stop, depth, lambda values: values[0])

    def _structs(self, matrix: _Matrix, stop: int, depth: int) -> np.ndarray:
        _, start, size, at = _element(self._order, self._data, matrix.at, stop)
        length = struct.unpack_from(self._order + "i", self._data, start)[0] if size == 4 else 0
        _, start, size, at = _element(self._order, self._data, at, stop)
        if length < 1 or size % length:
            raise _Damaged("a struct does not tell its field names")
        names = [
            bytes(self._data[k : k + length]).split(b"\0")[0].decode("latin-1")
            for k in range(start, start + size, length)
        ]
        return self._objects(
            matrix.shape, len(names), at, stop, depth, lambda values: MatStruct(**dict(zip(names, values, strict=True)))
        )

    def _objects(self, shape, fields: int, at: int, stop: int, depth: int, make) -> np.ndarray:
        """An array of what `make` makes of `fields` values each; they follow each other, the first axis fastest."""
        count = math.prod(shape)
        if (count - 1) * max(fields, 1) * _MIN_ELEMENT > stop - at:
            raise _Damaged(f"a cell or struct array announces {shape}, more than it holds")
        made = np.empty(count, object)
        for number in range(count):
            values = []
            for _ in range(fields):
                value, at = self.element(at, stop, depth + 1)
                values.append(value)
            made[number] = make(values)
        return made.reshape(shape, order="F")


def _squeezed(value: np.ndarray) -> Any:
    if not value.size:
        return np.zeros(0, value.dtype)
    return value.item() if value.size == 1 else value.squeeze()


def _top_element(order: str, data: bytes, number: int) -> bytes:
    """The element, tag and all, of the variable with that number, unpacked where it was packed."""
    at = _HEADER
    for _ in range(number):
        at += 8 + _tag(order, data[at : at + 8])[1]
    kind, size = _tag(order, data[at : at + 8])
    element = data[at : at + 8 + size]
    if kind != _COMPRESSED:
        return element
    unpacked = _inflate(element[8:], MAX_BYTES + 1)
    if len(unpacked) > MAX_BYTES:
        raise _Damaged(f"it unpacks to more than {MAX_BYTES} bytes")
    return unpacked


def _as_user_error(path: pathlib.Path, error: Exception) -> UserError:
    words = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return UserError(f"{path} is damaged ({words}); download it again")


def _byte_order(path: pathlib.Path, header: bytes) -> str:
    """'<' or '>'. Raises UserError for whatever is no MATLAB v5 file."""
    if header.startswith((b"\x89HDF", b"MATLAB 7.3")):
        raise UserError(f"{path} is a MATLAB v7.3 (HDF5) file, expected v5; download it again or save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if order is None or struct.unpack(order + "H", header[124:126])[0] != 0x0100:
        raise UserError(f"{path} is no MATLAB v5 file (it starts with {header[:12]!r}); download it again")
    return order


def _tag(order: str, data: bytes) -> tuple[int, int]:
    kind, size = struct.unpack(order + "II", data)
    if kind not in (_MATRIX, _COMPRESSED):
        raise _Damaged(f"a variable has the unknown type {kind}")
    return kind, size


def _inflate(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a zlib stream's beginning."""
    return zlib.decompressobj().decompress(data, limit)


def _variable(order: str, matrix: bytes) -> MatVariable:
    found = _matrix_header(order, memoryview(matrix), 0, len(matrix))
    kinds = {_CELL: "cell", _STRUCT: "struct", _CHAR: "char", **dict.fromkeys(_CLASSES, "numeric")}
    return MatVariable(found.name.decode("latin-1"), kinds.get(found.matrix_class, "other"), found.shape)


def _matrix_header(order: str, data: memoryview, at: int, end: int) -> _Matrix:
    """What the matrix whose contents are data[at:end] says of itself."""
    if end - at < 16:
        raise _Damaged("a variable is cut off")
    if end - at >= 40:  # annotations hold millions of small nameless matrices, all laid out like this
        _, _, flags, _, kind, size, rows, columns, _, length = struct.unpack_from(order + "6I2i2I", data, at)
        if kind == 5 and size == 8 and length == 0 and min(rows, columns) >= 0:
            return _Matrix(flags & 0xFF, bool(flags & _COMPLEX), (rows, columns), b"", at + 40)
    flags = struct.unpack_from(order + "I", data, at + 8)[0]
    _, start, size, at = _element(order, data, at + 16, end)
    if size % 4 or not 8 <= size <= 4 * 32:
        raise _Damaged(f"a variable has {size} bytes of dimensions")
    shape = struct.unpack_from(f"{order}{size // 4}i", data, start)
    if min(shape) < 0:
        raise _Damaged(f"a variable has the dimensions {shape}")
    _, start, size, at = _element(order, data, at, end)
    return _Matrix(flags & 0xFF, bool(flags & _COMPLEX), shape, bytes(data[start : start + size]), at)


def _element(order: str, data: memoryview, at: int, end: int) -> tuple[int, int, int, int]:
    """(type, start, size, where the next begins) of the element at `at`, padded to 8 bytes.

    Up to four bytes lie within the tag itself, whose upper half is then their number.
    """
    first, size = struct.unpack_from(order + "II", data, at)
    if first >> 16:
        kind, start, size, following = first & 0xFFFF, at + 4, min(first >> 16, 4), at + 8
    else:
        kind, start, following = first, at + 8, at + 8 + size + -size % 8
    if start + size > end:
        raise _Damaged("an element is larger than what holds it")
    return kind, start, size, following
