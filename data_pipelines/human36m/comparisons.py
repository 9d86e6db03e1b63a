"""Our camera numbers against the released 2D poses and poses in camera frames, where these optional files lie there."""

from __future__ import annotations

import numpy as np

from data_pipelines.human36m.cameras import camera, project_published
from fusion_jax.errors import UserError
from fusion_jax.geometry import world_to_camera

_TOLERANCE_PX, _TOLERANCE_MM = 1.0, 1.0


def compare_pixels(world_mm: np.ndarray, released_px: np.ndarray, subject: str, camera_name: str) -> str:
    """How far released 2D joints (32, 2) px are from our projection of world joints (32, 3) mm, as a note.

    Raises:
      UserError: too far; the poses or our camera numbers are another subject's.
    """
    chosen = camera(subject, camera_name)
    ours = project_published(world_to_camera(world_mm, chosen), chosen)
    return _verdict(np.abs(ours - released_px).max(), _TOLERANCE_PX, "px", "the published projection")


def compare_camera_frame(world_mm: np.ndarray, released_mm: np.ndarray, subject: str, camera_name: str) -> str:
    """How far released camera-frame joints (32, 3) mm are from ours, as `compare_pixels`."""
    ours = world_to_camera(world_mm, camera(subject, camera_name))
    return _verdict(np.abs(ours - released_mm).max(), _TOLERANCE_MM, "mm", "the world poses in the camera's frame")


def _verdict(difference: float, tolerance: float, unit: str, what: str) -> str:
    if difference > tolerance:
        raise UserError(
            f"is up to {difference:.3g} {unit} from {what} in its first row, at most {tolerance:g} expected; the poses "
            "or our camera numbers are another subject's: check the archives (or remove this optional one)"
        )
    return f"first row within {difference:.2g} {unit} of {what}"
