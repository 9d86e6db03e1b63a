"""One performance read whole: its motion capture, its subject's measures and the clock of its videos."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from data_pipelines.humaneva.files import find, find_offsets, mocap_name, offsets_name, params_name, static_name
from data_pipelines.humaneva.marker_params import read_shoulder_offsets
from data_pipelines.humaneva.mocap_file import read_points
from data_pipelines.humaneva.points import Points
from data_pipelines.humaneva.pose import Body, half_shoulders, poses
from data_pipelines.humaneva.sync import Clock, common_clock, read_offsets
from fusion_jax.errors import UserError


class Recording(NamedTuple):
    """What the joints of a performance at its videos' times are made from."""

    points: Points
    body: Body
    clock: Clock

    def joints(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (F, 15, 3) world mm at FRAMEs (F,) and the reasons (F,) of those without; see `pose.poses`."""
        return poses(self.points, self.clock.mocap_positions(frames), self.body)


def read_recording(manual_dir: pathlib.Path, subject: str, action: str, camera: str) -> Recording:
    """Trial 1 of an action, on a clock that knows `camera`.

    Raises:
      UserError: a file is missing or wrong.
    """
    return Recording(
        points=read_points(find(manual_dir, mocap_name(subject, action))),
        body=read_body(manual_dir, subject),
        clock=read_clock(manual_dir, subject, action, camera),
    )


def read_body(manual_dir: pathlib.Path, subject: str) -> Body:
    """A subject's measures. Raises UserError where a file is missing or wrong."""
    return Body(
        half_shoulders=half_shoulders(read_points(find(manual_dir, static_name(subject)))),
        shoulder_offsets=read_shoulder_offsets(find(manual_dir, params_name(subject))),
    )


def read_clock(manual_dir: pathlib.Path, subject: str, action: str, camera: str) -> Clock:
    """The clock of trial 1 from all `.ofs` files that are there; `camera`'s must be.

    Raises:
      UserError: it is not, or one of them is wrong.
    """
    paths = find_offsets(manual_dir, subject, action)
    if camera not in paths:
        expected = find(manual_dir, offsets_name(subject, action, camera))
        raise UserError(f"{expected} is missing; download it or correct --manual-dir")
    return common_clock({name: read_offsets(path) for name, path in paths.items()})


def beyond_mocap(clock: Clock, rows: int, last: int) -> str | None:
    """Words for how much motion capture a half lacks at its end, or None where it has a row after every time."""
    needed = int(np.floor(clock.mocap_positions(np.array(last)))) + 1
    return None if rows >= needed else f"{rows} rows, frame {last} needs {needed}"
