"""The pickled list of arrays in the authors' release, read without running the pickle.

A pickle is a program. Here the few instructions that Python 2 and NumPy need to say "an object array of arrays of
floating-point numbers" are followed, and those of Python 3 from protocol 3 on; everything else is refused. The names
that such a pickle calls stand for functions of this file.
"""

from __future__ import annotations

import codecs
import math
import pickletools
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from fusion_jax.bounded_file import Refused
from fusion_jax.torch_pickle import expect, shown

MAX_INSTRUCTIONS = 20_000  # a model of the release has some 1,500
MAX_BYTES = 2 * 10**9  # of all arrays; a model of the release has 0.5 * 10^9
_MAX_DIMS = 32
_FLOATS = ("f2", "f4", "f8")
_AGAIN = "download it again"

# Bytes are read here: pickletools would make texts of them, in more memory. The sizes are of the length in front.
_BYTES = {"SHORT_BINSTRING": 1, "BINSTRING": 4, "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_VALUES = (
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", *_BYTES),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Type:
    """What a NumPy type is pickled as: made of its code, told its byte order afterwards."""

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = _text(code), "="

    def build(self, state: Any) -> None:
        order, *parts = expect(state, tuple)[1:5]
        self.order = _text(order)
        if parts != [None] * 3:
            raise Refused(f"holds an array of records, expected floating-point numbers; {_AGAIN}")

    @property
    def holds_objects(self) -> bool:
        return self.code in ("O", "O4", "O8")

    def dtype(self) -> np.dtype:
        if self.code not in _FLOATS or self.order not in "<>=":
            raise Refused(f"holds numbers of type {shown(self.code)}, expected one of {', '.join(_FLOATS)}")
        return np.dtype(self.order + self.code)


class _Array:
    """What an array is pickled as: empty at first, told its contents afterwards."""

    def __init__(self, kind: Any, *_: Any):
        if kind is not _ndarray:
            raise Refused(f"holds Python objects where an array is expected; {_AGAIN}")
        self.contents: np.ndarray | list | None = None

    def build(self, state: Any) -> None:
        _, shape, kind, by_columns, contents = expect(state, tuple)
        count = _count(shape)
        if not isinstance(kind, _Type):
            raise Refused(f"holds an array without a type; {_AGAIN}")
        if kind.holds_objects:
            if len(shape) != 1 or len(expect(contents, list)) != count:
                raise Refused(f"holds objects of shape {_dims(shape)}, expected one list of arrays; {_AGAIN}")
            self.contents = contents
        else:
            self.contents = _numbers(kind, contents, count).reshape(shape, order="F" if by_columns else "C")


def _numbers(kind: _Type, contents: Any, count: int) -> np.ndarray:
    dtype = kind.dtype()
    data = expect(contents, bytes)
    if len(data) != count * dtype.itemsize:
        raise Refused(f"holds {len(data)} bytes for {count} numbers of type {dtype}; {_AGAIN}")
    return np.frombuffer(data, dtype)


def _scalar(kind: Any, contents: Any) -> np.ndarray:
    if not isinstance(kind, _Type):
        raise Refused(f"holds a number without a type; {_AGAIN}")
    return _numbers(kind, contents, 1).reshape(())


def _ndarray(*_: Any) -> None:
    """Stands for the class, which is named and never called."""
    raise Refused(f"makes an array in an unknown way; {_AGAIN}")


_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
_NAMES: dict[tuple[str, str], Callable] = {
    **{(core, "_reconstruct"): _Array for core in _CORES},
    **{(core, "scalar"): _scalar for core in _CORES},
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Type,
}


def read_arrays(stream: IO[bytes]) -> list[np.ndarray]:
    """The arrays of the pickled object array at a stream's position.

    They are read-only, of float16, 32 or 64 in either byte order; what was pickled as a number is an array without
    axes.

    Raises:
      Refused: it holds anything else, or is far longer than a model of the release.
      Exception: of several kinds, where it is damaged.
    """
    value = _build(stream)
    if not isinstance(value, _Array) or not isinstance(value.contents, list):
        raise Refused("holds something else than a list of arrays")
    arrays = []
    for number, item in enumerate(value.contents):
        array = item.contents if isinstance(item, _Array) else np.array(item) if type(item) is float else item
        if not isinstance(array, np.ndarray):
            raise Refused(f"has no array of numbers in place {number} of its list, expected arrays alone")
        arrays.append(array)
    total = sum(array.nbytes for array in arrays)  # the same bytes may be named many times
    if total > MAX_BYTES:
        raise Refused(f"holds arrays of {total} bytes, expected {MAX_BYTES} at most")
    return arrays


def _build(stream: IO[bytes]) -> Any:
    """The value of the pickle: of containers, numbers, texts, bytes, `_Array` and `_Type`."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under the marks
    memo: dict[int, Any] = {}

    def popped(count: int) -> list[Any]:
        return [stack.pop() for _ in range(count)][::-1]

    def popped_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    for name, argument in _instructions(stream):
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append([] if name == "EMPTY_LIST" else ())
        elif name in ("LIST", "TUPLE"):
            items = popped_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name in _TUPLES:
            stack.append(tuple(popped(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            items = popped_mark() if name == "APPENDS" else popped(1)
            expect(stack[-1], list).extend(items)
        elif name == "GLOBAL":
            stack.append(_find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_find(*popped(2)))
        elif name == "REDUCE":
            function, arguments = popped(2)  # nothing that can be called gets here but from `_NAMES`
            stack.append(function(*expect(arguments, tuple)))
        elif name == "BUILD":
            (state,) = popped(1)
            if not isinstance(stack[-1], _Type | _Array):
                raise Refused(f"sets attributes of a {type(stack[-1]).__name__}, which is not done for safety")
            stack[-1].build(state)
        elif name == "STOP":
            (value,) = stack
            return value
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"holds Python objects that are not read for safety ({name}), expected arrays alone")
    raise Refused("has a pickle far longer than a model of the release")


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each instruction, at most MAX_INSTRUCTIONS; bytes as bytes."""
    for _ in range(MAX_INSTRUCTIONS):
        code = _exactly(stream, 1)
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise Refused(f"has a pickle with the unknown instruction {code!r}; {_AGAIN}")
        if opcode.name in _BYTES:
            length = int.from_bytes(_exactly(stream, _BYTES[opcode.name]), "little")
            yield opcode.name, _exactly(stream, length)
        elif opcode.name == "STRING":
            quoted = stream.readline().rstrip(b"\n")
            if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[:1] != quoted[-1:]:
                raise Refused(f"has a text without an end in its pickle; {_AGAIN}")
            yield opcode.name, codecs.escape_decode(quoted[1:-1])[0]
        else:
            yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None


def _exactly(stream: IO[bytes], length: int) -> bytes:
    if length > MAX_BYTES:
        raise Refused(f"announces {length} bytes in a row, expected {MAX_BYTES} at most; {_AGAIN}")
    data = stream.read(length)
    if len(data) != length:
        raise Refused(f"is cut off in its pickle; {_AGAIN}")
    return data


def _find(module: Any, name: Any) -> Callable:
    found = _NAMES.get((_text(module), _text(name)))
    if found is None:
        raise Refused(
            f"holds the Python object {shown(f'{_text(module)}.{_text(name)}')}, which is not read for safety"
        )
    return found


def _text(value: Any) -> str:
    """A short name, which Python 2 writes as bytes."""
    return value.decode("latin-1") if type(value) is bytes else expect(value, str)


def _count(shape: Any) -> int:
    """How many elements an array of a shape has."""
    fits = type(shape) is tuple and len(shape) <= _MAX_DIMS
    if not fits or any(type(n) is not int or not 0 <= n < 1 << 40 for n in shape):
        raise Refused(f"holds an array of impossible shape; {_AGAIN}")
    return math.prod(shape)


def _dims(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(n) for n in shape[:4])}{', ...' if len(shape) > 4 else ''})"
