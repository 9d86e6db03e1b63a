"""What a CDF file announces, held to what a pose file can be, before a reader acts on it.

A damaged or hostile file can announce billions of variables, dimensions or records, chains that never end and blocks
that inflate without limit; a reader then loops or fills the memory. Here every count and place is checked against
the file's own bytes first. Covers CDF 2.6 to 3.x, one variable; values are left to cdflib.
"""

from __future__ import annotations

import zlib

MAX_BYTES = 64 * 2**20  # the largest pose file holds 6343 rows of 96 doubles, 5 MB
_MAX_VARIABLES, _MAX_DIMENSIONS, _MAX_BLOCKS = 64, 10, 20_000
_REALS = {21: 4, 44: 4, 22: 8, 45: 8}  # the format's numbers for its 4 and 8 byte reals
_PACKED = 4  # of a variable's flags
_GDR, _RVDR, _ZVDR, _VXR, _VVR, _CCR, _CPR, _CVVR = 2, 3, 8, 6, 7, 10, 11, 13


class _Record:
    """One record of a CDF: its kind, and its big-endian integers one after another."""

    def __init__(self, data: bytes, start: int, word: int, kinds: tuple[int, ...]):
        self._data, self._at, self._word, self._end = data, start, word, len(data)
        if start < 8:
            raise ValueError(f"a record is said to be at byte {start}")
        size = self.offset()
        if size < word + 4 or start + size > len(data):
            raise ValueError(f"cut off: {len(data)} bytes, and the record at byte {start} needs {size}")
        self._end = start + size
        self.kind = self.number()
        if self.kind not in kinds:
            raise ValueError(f"record of kind {self.kind} at byte {start}, expected {' or '.join(map(str, kinds))}")

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size < 0 or self._at + size > self._end:
            raise ValueError(f"cut off: the record around byte {self._at} ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        """The next 4-byte integer."""
        return int.from_bytes(self.take(4), "big", signed=True)

    def offset(self) -> int:
        """The next place or size, 4 or 8 bytes by the file's version."""
        return int.from_bytes(self.take(self._word), "big", signed=True)

    def numbers(self, count: int, limit: int) -> list[int]:
        """The next `count` 4-byte integers."""
        if not 0 <= count <= limit:
            raise ValueError(f"announces {count} entries, at most {limit} expected")
        return [self.number() for _ in range(count)]


def check_structure(data: bytes, variable: str) -> None:
    """Checks that a CDF holds `variable`, as reals of a sane size that are all in the file.

    Args:
      data: the whole file.
      variable: its name; capitals count as small letters, as for cdflib.

    Raises:
      ValueError: it does not; says what it holds.
    """
    magic, packed = data[:4].hex(), data[4:8].hex()
    if magic not in ("cdf30001", "cdf26002"):
        raise ValueError(f"it starts with {data[:4]!r}, no CDF of version 2.6 or later")
    word, name_size = (8, 256) if magic == "cdf30001" else (4, 64)
    if packed != "0000ffff":
        data = data[:8] + _unpacked_file(data, word)
    first = _Record(data, 8, word, (1,))
    del first
    start = 8 + int.from_bytes(data[8 : 8 + word], "big")
    top = _Record(data, start, word, (_GDR,))
    heads = {_RVDR: top.offset(), _ZVDR: top.offset()}
    top.take(2 * word)
    counts = {_RVDR: top.number()}
    top.take(8)
    num_dims = top.number()
    counts[_ZVDR] = top.number()
    top.take(word + 12)
    r_sizes = top.numbers(num_dims, _MAX_DIMENSIONS)
    names = []
    for kind, at in heads.items():
        if not 0 <= counts[kind] <= _MAX_VARIABLES:
            raise ValueError(f"announces {counts[kind]} variables")
        for _ in range(counts[kind]):
            vdr = _Record(data, at, word, (kind,))
            at = vdr.offset()
            name = _check_variable(data, vdr, word, name_size, r_sizes, variable)
            names.append(name)
    if variable.lower() not in [name.strip().lower() for name in names]:
        raise ValueError(f"it holds {', '.join(names)[:80] or 'no variable'}, not the variable {variable}")


def _check_variable(data: bytes, vdr: _Record, word: int, name_size: int, r_sizes: list[int], wanted: str) -> str:
    """Checks a variable's record, and its data if it is the wanted one; returns its name."""
    data_type, last_record, index = vdr.number(), vdr.number(), vdr.offset()
    vdr.take(word)
    flags, sparse = vdr.number(), vdr.number()
    vdr.take(12)
    elements = vdr.number()
    vdr.take(4)
    packing = vdr.offset()
    vdr.take(4)
    if flags & _PACKED:
        _Record(data, packing, word, (_CPR,))  # a reader asks for as many bytes as it says
    name = vdr.take(name_size).split(b"\0")[0].decode("ascii", "replace")
    if name.strip().lower() != wanted.lower():
        return name
    sizes = vdr.numbers(vdr.number(), _MAX_DIMENSIONS) if vdr.kind == _ZVDR else r_sizes
    varies = vdr.numbers(len(sizes), _MAX_DIMENSIONS)
    if data_type not in _REALS or sparse or elements != 1:
        raise ValueError(f"{name} is of type {data_type} (sparse {sparse}), expected 4 or 8 byte reals")
    total = (last_record + 1) * _REALS[data_type]
    for size, vary in zip(sizes, varies, strict=True):
        total *= size if vary else 1
    if not 0 < total <= MAX_BYTES or min([1, *sizes]) < 1:
        raise ValueError(f"{name} announces {last_record + 1} records of {sizes} values")
    if _data_bytes(data, index, word) < total:
        raise ValueError(f"cut off: the data of {name} are fewer than the {total} bytes announced")
    return name


def _data_bytes(data: bytes, index: int, word: int) -> int:
    """How many bytes of values the blocks below an index record hold, inflated."""
    todo: list[tuple[int, tuple[int, ...]]] = [(index, (_VXR,))]
    seen = total = 0
    while todo:
        start, kinds = todo.pop()
        seen += 1
        record = _Record(data, start, word, kinds)
        if record.kind == _VXR:
            following, entries = record.offset(), record.number()
            used = record.number()
            record.numbers(2 * entries, 2 * _MAX_BLOCKS)
            if not 0 <= used <= entries:
                raise ValueError(f"an index uses {used} of {entries} entries")
            todo += [(record.offset(), (_VXR, _VVR, _CVVR)) for _ in range(used)]
            todo += [(following, (_VXR,))] if following else []
        elif record.kind == _CVVR:
            record.take(4)
            total += len(_inflated(record.take(record.offset())))
        else:
            total += record._end - start - word - 4
        if seen + len(todo) > _MAX_BLOCKS or total > MAX_BYTES:
            raise ValueError("its data blocks are too many or too large, or lead in a circle")
    return total


def _unpacked_file(data: bytes, word: int) -> bytes:
    """What follows the first 8 bytes of a CDF that is compressed as a whole."""
    whole = _Record(data, 8, word, (_CCR,))
    method = _Record(data, whole.offset(), word, (_CPR,)).number()
    if method != 5:
        raise ValueError(f"compressed by method {method}; only gzip is known")
    whole.take(word + 4)
    return _inflated(whole.take(whole._end - whole._at))


def _inflated(packed: bytes) -> bytes:
    """A gzip stream unpacked, at most MAX_BYTES."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"a compressed block is damaged ({error})") from error
    if len(data) > MAX_BYTES or not unpacker.eof or unpacker.unused_data.strip(b"\0"):
        raise ValueError("a compressed block is cut off or unpacks to more than a pose file holds")
    return data
