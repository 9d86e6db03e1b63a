"""The record that every motion source hands over, whether procedural or captured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Clip(NamedTuple):
    """One performance: a body's joints over time.

    Attributes:
      performer: who moved; clips of one performer never stand on both sides of a split.
      action: what they do, for tables per action.
      name: unique within the motion source.
      fps: frames per second of `joints_mm`.
      joints_mm: (T, 17, 3) float32, `human36m17` order, world frame: mm, z up, floor at z = 0.
    """

    performer: str
    action: str
    name: str
    fps: float
    joints_mm: np.ndarray
