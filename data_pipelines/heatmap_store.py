"""Predicted heatmaps on disk, a file for each split of a prepared dataset: written once, read by an example's index.

An array_record file. Its first record is the header, JSON, which says what the heatmaps are; then comes a record for
each example, in the split's order: the CRC-32 of the picture that the heatmaps were predicted from, the CRC-32 of that
number and of what follows, and the zlib-compressed levels, (K, h, w) uint8.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data_pipelines.prepared import Examples
from data_pipelines.samples import example_name
from fusion_jax.errors import UserError
from fusion_jax.records import differences

FORMAT = 1
"""Raised whenever what the bytes mean changes."""
LARGEST_ERROR = 1 / 510
"""Of a value in [0, 1] that went through one of 256 levels: half a level."""

_CHECKS = struct.Struct("<II")
_LEVEL = 1  # of zlib; 6 takes 2 to 10 times as long and saves a seventh to a third
_MOST_HEADER_BYTES = 65536
_FORGOTTEN_S = 3600  # a partial file nobody has written to for so long is a killed run's
_AGAIN = "delete that file and run the same command again, which makes it anew"


def pack(heatmap: np.ndarray, picture: int) -> bytes:
    """The record of one example's heatmaps.

    Args:
      heatmap: (h, w, K) float, finite; clipped to [0, 1] and rounded to the nearest of 256 levels, so that what comes
        back is at most LARGEST_ERROR off.
      picture: `picture_check` of the picture they are of.
    """
    levels = np.rint(np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    data = zlib.compress(levels.transpose(2, 0, 1).tobytes(), _LEVEL)  # joint by joint: a third smaller
    return _CHECKS.pack(picture, zlib.crc32(data, picture)) + data


def unpack(record: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, int]:
    """Heatmaps (h, w, K) float32 in [0, 1] of shape `shape`, and the `picture_check` of the picture they are of.

    Raises:
      ValueError: the record is not what `pack` made.
    """
    if len(record) < _CHECKS.size:
        raise ValueError(f"{len(record)} bytes are no record")
    (picture, check), data = _CHECKS.unpack_from(record), record[_CHECKS.size :]
    if zlib.crc32(data, picture) != check:
        raise ValueError("its bytes are not those that were written")
    h, w, k = shape
    unzip = zlib.decompressobj()
    try:
        levels = unzip.decompress(data, h * w * k + 1)  # never more than that in memory
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(levels) != h * w * k or not unzip.eof:
        raise ValueError(f"its levels are not {k} x {h} x {w}")
    values = np.frombuffer(levels, np.uint8).reshape(k, h, w) / np.float32(255)
    return values.transpose(1, 2, 0), picture


def picture_check(example: Mapping[str, Any]) -> int:
    """The CRC-32 of an example's stored picture: a fingerprint looks at some examples of a dataset, this at each."""
    return zlib.crc32(example["image"])


class WithHeatmaps:
    """A split's examples, each with its stored `heatmap` (h, w, K) float32 in [0, 1], marked `heatmap_predicted`.

    Safe to read from many threads, and it pickles: a copy opens the file when it first reads.

    Args:
      examples: the split.
      path: the file.
      header: what the file has to say of itself; of it `count`, `size_px` and `joints` are used.

    Raises:
      UserError: as `open_heatmaps`; and on reading, naming file and example, where a record is damaged or belongs to
        another picture.
    """

    def __init__(self, examples: Examples, path: pathlib.Path, header: dict[str, Any]):
        self._examples, self._path = examples, path
        self._records = open_heatmaps(path, header)
        self._shape = (header["size_px"], header["size_px"], len(header["joints"]))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # no damage: Python's own iteration ends so
            raise IndexError(index)
        example = self._examples[index]
        try:
            heatmap, picture = unpack(self._records[index + 1], self._shape)
        except Exception as error:  # ours, or array_record's own kinds
            raise UserError(
                f"{self._path}: the heatmaps of example {index}, {example_name(example)}, are damaged "
                f"({_reason(error)}); {_AGAIN}"
            ) from error
        if picture != picture_check(example):
            raise UserError(
                f"{self._path}: the heatmaps of example {index}, {example_name(example)}, are of a picture with the "
                f"CRC-32 {picture:08x}, the dataset's has {picture_check(example):08x}; {_AGAIN}"
            )
        return {**example, "heatmap": heatmap, "heatmap_predicted": True}


def open_heatmaps(path: pathlib.Path, header: dict[str, Any]) -> Any:
    """The file's records by index, the header among them, after all that it says was compared with `header`.

    Raises:
      UserError: it cannot be read, is cut off, or holds other heatmaps: every field that differs with both values.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        records = ArrayRecordDataSource([str(path)])
        first = records[0] if len(records) else b""
        found = json.loads(first) if len(first) <= _MOST_HEADER_BYTES else None
        if not isinstance(found, dict):
            raise ValueError("it has no header")
        lines = differences(found | {"records": len(records)}, header | {"records": header["count"] + 1})
    except Exception as error:  # JSON's and array_record's own kinds
        raise UserError(f"{path} is damaged or no file of heatmaps ({_reason(error)}); {_AGAIN}") from error
    if lines:
        raise UserError(f"{path} holds other heatmaps than are needed: {'; '.join(lines)} (file -> needed); {_AGAIN}")
    return records


def write_heatmaps(path: pathlib.Path, header: dict[str, Any], records: Iterable[bytes]) -> int:
    """Writes a file under its name only once it is whole; returns its size in bytes.

    Several processes may write the same file at once: each writes one of its own, and the last one stays.

    Args:
      path: where to; the folder is made.
      header: JSON data, with `count`, how many records there will be.
      records: of `pack`, in the split's order.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_killed(path)
        written = _write(partial, header, records)
        if written != header["count"]:
            raise ValueError(f"{written} records were written, the header says {header['count']}")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        size = partial.stat().st_size
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"cannot write heatmaps to {path.parent}: {error}; free space or choose another --data-dir; or when "
            "training: --heatmap-mode frozen, which keeps none"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return size


def _write(partial: pathlib.Path, header: dict[str, Any], records: Iterable[bytes]) -> int:
    from array_record.python import array_record_module

    def guarded(call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except RuntimeError as error:  # the library's, of a disk
            raise OSError(_reason(error)) from error

    writer = guarded(array_record_module.ArrayRecordWriter, str(partial), "group_size:1,uncompressed")
    written = 0
    try:
        guarded(writer.write, json.dumps(header, allow_nan=False).encode())
        for record in records:
            guarded(writer.write, record)
            written += 1
    except BaseException:
        with contextlib.suppress(OSError):
            guarded(writer.close)
        raise
    guarded(writer.close)
    return written


def _forget_killed(path: pathlib.Path) -> None:
    """Deletes what runs that were killed left of this file."""
    for stale in path.parent.glob(f".{path.name}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime > _FORGOTTEN_S:
                stale.unlink()


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
