"""The known faults of Human3.6M, each with what is done about it where a setting asks for that."""

from __future__ import annotations

import numpy as np

from data_pipelines.human36m.cameras import Projection, project, unproject
from data_pipelines.human36m.sequences import Sequence
from fusion_jax.geometry import Camera, camera_to_world, world_to_camera

DISPLACED = ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
_SHIFT_MM = np.array([-200.0, 0.0, 0.0])  # world frame


def is_broken_video(sequence: Sequence, camera_name: str) -> bool:
    """Whether a video is S11 Directions (recording 2) of camera 54138969: missing or broken in many copies."""
    return (sequence.name, camera_name) == ("S11/Directions", "54138969")


def is_displaced(sequence: Sequence) -> bool:
    """Whether a sequence is one of S9's three whose joints and rectangles lie beside the person in the world."""
    return sequence.name in DISPLACED


def move_back(joints_mm: np.ndarray) -> np.ndarray:
    """World points (..., 3) of a displaced sequence where the person was: 200 mm less in x."""
    return joints_mm + _SHIFT_MM


def move_rectangle_back(
    rectangle: np.ndarray, pelvis_mm: np.ndarray, camera: Camera, projection: Projection
) -> np.ndarray:
    """A displaced sequence's rectangle [left, top, right, bottom] px where the person was.

    Its corners are taken at the pelvis' depth, moved in the world as the joints are, and projected again.

    Args:
      rectangle: as stored.
      pelvis_mm: (3,) as stored, world.
      camera: of the full picture.
      projection: lens model, both ways.
    """
    depth = world_to_camera(pelvis_mm[None], camera)[:, 2].repeat(2)
    corners = camera_to_world(unproject(rectangle.reshape(2, 2), depth, camera, projection), camera)
    return project(world_to_camera(move_back(corners), camera), camera, projection).reshape(4)
