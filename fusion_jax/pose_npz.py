"""People's poses of many pictures, or of a long video, as one .npz. NumPy only."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import typing
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.pose_record import FRAME, PIXELS, UNIT, BoxSource, PersonPose
from fusion_jax.skeletons import Skeleton
from fusion_jax.skeletons import skeleton as find_skeleton


class NpzStream:
    """All people of many pictures or of a long video as one .npz, row by row, in memory that does not grow.

    A context manager. Rows wait in unnamed temporary files beside `path`; at the end of the block the .npz appears
    under its name at once. After an error or a kill there is none, and an older one stays as it was. For N people it
    holds, to be read with `np.load(path, allow_pickle=False)`:

      pose_mm (N, J, 3) float32 mm, camera frame, relative to the root; joints (J,) names; root (1 or 2,) names
      joints2d_px (N, K, 2) float32 px of the original picture; confidence (N, K) float32; joints2d (K,) names
      box (N, 4) float64 [x, y, width, height] px; box_source (N,); crop (N, 3) float64 [left, top, side] px
      position_mm (N, 3) float32, the root in the camera frame, NaN where position_known (N,) bool is False
      picture (N,) names; frame (N,) int64, the number in a video, from 0; track (N,) int64, -1 where not followed
      skeleton, heatmap_skeleton, pose_network, heatmap_network, unit, pose_frame, pixels: () texts
    """

    def __init__(
        self, path: pathlib.Path, *, skeleton: str, heatmap_skeleton: str, pose_network: str, heatmap_network: str
    ):
        """`path` and what all people share, see PersonPose. Raises UserError where a skeleton is not known."""
        self.path, self.rows = path, 0
        self._shared = {
            "skeleton": skeleton,
            "heatmap_skeleton": heatmap_skeleton,
            "pose_network": pose_network,
            "heatmap_network": heatmap_network,
        }
        self._layouts = find_skeleton(skeleton), find_skeleton(heatmap_skeleton)
        self._columns = _columns(*self._layouts)
        self._files = contextlib.ExitStack()
        self._spools: dict[str, IO[bytes]] = {}
        self._longest_name = 1

    def __enter__(self) -> NpzStream:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for name in (*self._columns, "picture"):
            spool = tempfile.TemporaryFile(dir=self.path.parent)  # the system removes it, however we end
            self._spools[name] = self._files.enter_context(spool)
        return self

    def append(self, picture: str, frame: int, person: PersonPose) -> None:
        """Adds a person.

        Args:
          picture: name of the picture's or the video's file.
          frame: number in the video, from 0; 0 of a picture.
          person: of the skeletons and networks that the stream was opened with.

        Raises:
          UserError: the person is of another skeleton or network.
          OSError: the disk is full.
        """
        for name, expected in self._shared.items():
            if getattr(person, name) != expected:
                raise UserError(f"{self.path}: {name} is {getattr(person, name)!r}, all before it {expected!r}")
        known = person.position_mm is not None
        row = {
            **{name: getattr(person, name) for name in self._columns if hasattr(person, name)},
            "position_mm": person.position_mm if known else np.nan,
            "position_known": known,
            "frame": frame,
            "track": -1 if person.track is None else person.track,
        }
        for name, (dtype, shape) in self._columns.items():
            self._spools[name].write(np.broadcast_to(np.asarray(row[name], dtype), shape).tobytes())
        # One name a line, escaped, until the longest is known: an array of texts gives each the same room.
        self._spools["picture"].write(json.dumps(picture).encode("ascii") + b"\n")
        self._longest_name = max(self._longest_name, len(picture))
        self.rows += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._files:
            if kind is None:
                self._write()

    def _write(self) -> None:
        layout, layout2d = self._layouts
        texts = {**self._shared, "unit": UNIT, "pose_frame": FRAME, "pixels": PIXELS}
        names = {"joints": layout.joints, "joints2d": layout2d.joints, "root": layout.root}
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                for name, value in {**texts, **names}.items():
                    with archive.open(f"{name}.npy", "w") as file:
                        np.lib.format.write_array(file, np.array(value), allow_pickle=False)
                for name, (dtype, shape) in self._columns.items():
                    with self._member(archive, name, np.dtype(dtype), shape) as file:
                        self._spools[name].seek(0)
                        shutil.copyfileobj(self._spools[name], file)
                text = np.dtype(f"<U{self._longest_name}")
                with self._member(archive, "picture", text, ()) as file:
                    self._spools["picture"].seek(0)
                    for line in self._spools["picture"]:
                        file.write(np.array(json.loads(line), text).tobytes())
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _member(
        self, archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
    ) -> Iterator[IO[bytes]]:
        """The archive's array of that name, its header written, to be filled with the bytes of all rows."""
        header = {"descr": dtype.str, "fortran_order": False, "shape": (self.rows, *shape)}
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            yield file


def write_npz(path: pathlib.Path, people: Iterable[tuple[str, int, PersonPose]], **shared: str) -> None:
    """Writes people, each with picture and frame number, as one .npz; arguments, arrays and errors as of NpzStream."""
    with NpzStream(path, **shared) as stream:
        for picture, frame, person in people:
            stream.append(picture, frame, person)


def _columns(layout: Skeleton, layout2d: Skeleton) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of a person's entry in each array of an .npz; `picture` apart, whose names vary in length."""
    j, k = layout.num_joints, layout2d.num_joints
    return {
        "pose_mm": ("<f4", (j, 3)),
        "joints2d_px": ("<f4", (k, 2)),
        "confidence": ("<f4", (k,)),
        "box": ("<f8", (4,)),
        "box_source": (f"<U{max(map(len, typing.get_args(BoxSource)))}", ()),
        "crop": ("<f8", (3,)),
        "position_mm": ("<f4", (3,)),
        "position_known": ("|b1", ()),
        "frame": ("<i8", ()),
        "track": ("<i8", ()),
    }
