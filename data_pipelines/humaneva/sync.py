"""The clock that videos and motion capture share: `.ofs` text, the toolbox's four steps, and the published starts."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_pipelines.humaneva.small_text import numbers, read_small_text
from data_pipelines.humaneva.tables import CLOCK_CAMERAS, published_start
from fusion_jax.errors import UserError

UPDATE = "Critical_Update_OFS_files.zip"
_MAX_OFFSET = 1e6  # frames; four hours, so that no damaged number overflows later


class Offsets(NamedTuple):
    """An `.ofs` file: mocap index = mc_st + (image - im_st) * mc_sc, all counted from 1."""

    im_st: float
    mc_st: float
    mc_sc: float


class Clock(NamedTuple):
    """FRAME 1, 2, ... of a trial in videos and motion capture.

    Attributes:
      common: mocap position of FRAME 1, counted from 1, with a fraction.
      scale: mocap rows per FRAME.
      starts: by camera, the video frame that is FRAME 1, counted from 1.
    """

    common: float
    scale: float
    starts: Mapping[str, int]

    def mocap_positions(self, frames: np.ndarray) -> np.ndarray:
        """1-based positions with fractions, of the shape of `frames`."""
        return self.common + (np.asarray(frames) - 1) * self.scale

    def video_frames(self, camera: str, frames: np.ndarray) -> np.ndarray:
        """Video frames counted from 0, of the shape of `frames`."""
        return (self.starts[camera] - 1) + (np.asarray(frames) - 1)


def read_offsets(path: pathlib.Path) -> Offsets:
    """The numbers of an `.ofs` file. Raises UserError as `parse_ofs`, or where there is no such file."""
    return parse_ofs(read_small_text(path), str(path))


def parse_ofs(text: str, where: str) -> Offsets:
    """The three numbers im_st, mc_st, mc_sc.

    Raises:
      UserError: not three finite numbers, absurd ones, or a scale far from 2 (120 Hz over 60).
    """
    offsets = Offsets(*numbers(text, 3, where, "im_st mc_st mc_sc"))
    if max(abs(offsets.im_st), abs(offsets.mc_st)) > _MAX_OFFSET:
        raise UserError(f"{where}: offsets {offsets.im_st:g} and {offsets.mc_st:g} frames are absurd; apply {UPDATE}")
    if not 1.5 < offsets.mc_sc < 2.5:
        raise UserError(f"{where}: mc_sc is {offsets.mc_sc:g}, expected about 2 mocap rows a frame; apply {UPDATE}")
    return offsets


def common_clock(offsets: Mapping[str, Offsets]) -> Clock:
    """The clock of a trial from the `.ofs` numbers of its cameras, at least one, worked out as the toolbox does.

    The cameras count in the order of CLOCK_CAMERAS: the first one present lends its mocap start, all of them
    their mean scale, and the earliest one is moved to its first picture.
    """
    present = [(camera, offsets[camera]) for camera in CLOCK_CAMERAS if camera in offsets]
    common = present[0][1].mc_st
    starts = {present[0][0]: present[0][1].im_st}
    for camera, (im_st, mc_st, mc_sc) in present[1:]:
        starts[camera] = im_st + (common - mc_st) / mc_sc
    scale = sum(numbers.mc_sc for _, numbers in present) / len(present)
    early = min(starts.values()) - 1
    common -= scale * early
    starts = {camera: start - early for camera, start in starts.items()}
    if common < 1:  # videos began before the motion capture: wait for its first row
        wait = (common - 1) / scale
        common, starts = 1.0, {camera: start - wait for camera, start in starts.items()}
    return Clock(common, scale, {camera: _matlab_round(start) for camera, start in starts.items()})


def _matlab_round(value: float) -> int:
    """Halves away from zero, as MATLAB; Python's own rounding takes halves to even numbers."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def check_start(clock: Clock, subject: str, action: str, camera: str) -> str | None:
    """What is odd about a video's start, in one clause, or None where it is the published one."""
    published, found = published_start(subject, action, camera), clock.starts[camera]
    if published is None or found == published:
        return None
    return (
        f"{camera} starts at frame {found}, the published start is {published}: picture and pose may not belong "
        f"together; apply {UPDATE} and keep the .ofs files of all seven cameras"
    )
