"""Random light and rooms for batches of pictures. NumPy; colours are chosen as seen and stored linear."""

from __future__ import annotations

import numpy as np

from data_pipelines.synthetic_humans.backdrop import Backdrop
from data_pipelines.synthetic_humans.render import Light

_PANELS, _BOXES = 10, 4


def draw_light(rng: np.random.Generator, num: int) -> Light:
    """N lights: from dull to sunny, warm or cold, from any side, 28 to 78 degrees above the horizon."""
    azimuth, height = rng.uniform(0, 2 * np.pi, num), np.deg2rad(rng.uniform(28, 78, num))
    flat = np.cos(height)
    lamp = rng.uniform(0.35, 1.1, (num, 1))
    warmth = rng.uniform(-1, 1, (num, 1)) * [0.14, 0.0, -0.16]
    sky = np.clip(rng.uniform(0.95, 1.35, (num, 1)) - 0.62 * lamp, 0.3, 0.9)  # exposure evens out most of the lamp
    return Light(
        direction=np.stack([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(height)], axis=-1),
        color=lamp * (1 + warmth),
        sky=sky * (1 - 0.4 * warmth),
        ground=sky * rng.uniform(0.35, 0.65, (num, 1)) * np.ones(3),
        softness_mm=rng.uniform(8, 60, num),
    )


def draw_backdrop(rng: np.random.Generator, root_mm: np.ndarray, cam_center_mm: np.ndarray) -> Backdrop:
    """N rooms around people at root_mm (N, 3), with nothing between them and the cameras."""
    num = len(root_mm)
    heading = rng.uniform(0, 2 * np.pi, num)
    turn = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    middle, half = _to_room(turn, root_mm[:, :2]), rng.uniform(2300, 6000, (num, 2))
    low = np.concatenate([middle - half, np.zeros((num, 1))], axis=-1)
    high = np.concatenate([middle + half, rng.uniform(2500, 4500, (num, 1))], axis=-1)
    colors, textures = _draw_textures(rng, num)
    panel_center, panel_half = _draw_panels(rng, low, high)
    box_center, box_half = _draw_boxes(rng, turn, root_mm, cam_center_mm)
    return Backdrop(
        turn=turn,
        low=low,
        high=high,
        colors=colors,
        textures=textures,
        panel_center=panel_center,
        panel_half=panel_half,
        panel_round=(rng.uniform(size=(num, _PANELS)) < 0.25).astype(float),
        panel_color=_tints(rng, (num, _PANELS), 0.15, 0.95, 0.4),
        box_center=box_center,
        box_half=box_half,
        box_color=_tints(rng, (num, _BOXES), 0.15, 0.85, 0.35),
    )


def _draw_textures(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 4, 2, 3) and textures (N, 4, 5) of the surfaces; a third of them are (almost) plain."""
    first = _tints(rng, (num, 4), 0.25, 0.9, 0.2)
    contrast = rng.uniform(0, 1, (num, 4, 1)) * (rng.uniform(size=(num, 4, 1)) < 0.67)
    darker = 1 - contrast * rng.uniform(0.05, 0.75, (num, 4, 1)) * rng.uniform(0.7, 1.0, (num, 4, 3))
    period_mm = 10 ** rng.uniform(2.1, 3.4, (num, 4, 2))
    shear = rng.uniform(-0.8, 0.8, (num, 4)) * rng.integers(0, 2, (num, 4))
    mix, sharp = rng.choice([0.0, 0.5, 1.0], (num, 4)), rng.choice([0.7, 1.5, 12.0], (num, 4))
    textures = np.stack([1 / period_mm[..., 0], 1 / period_mm[..., 1], shear, mix, sharp], axis=-1)
    return np.stack([first, first * darker], axis=2), textures


def _draw_panels(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and half sizes (N, K, 3): flat boxes around points of walls and, more rarely, of the floor."""
    shape = (len(low), _PANELS)
    center = low[:, None] + rng.uniform(0.05, 0.95, (*shape, 3)) * (high - low)[:, None]
    flat_axis = rng.choice([0, 1, 2, 0, 1], shape)[..., None] == np.arange(3)
    surface = np.where(rng.integers(0, 2, (*shape, 1)).astype(bool), low[:, None], high[:, None])
    surface[..., 2] = 0.0
    half = rng.uniform(120, 900, (*shape, 3))
    return np.where(flat_axis, surface, center), np.where(flat_axis, 5.0, half)


def _draw_boxes(
    rng: np.random.Generator, turn: np.ndarray, root_mm: np.ndarray, cam_center_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres and half sizes (N, M, 3), room frame, of boxes on the floor beyond the person."""
    shape = (len(root_mm), _BOXES)
    away = root_mm[:, :2] - cam_center_mm[:, :2]
    angle = np.arctan2(away[:, 1], away[:, 0])[:, None] + rng.uniform(-0.75, 0.75, shape)
    distance = rng.uniform(1900, 4200, shape)[..., None]
    place = root_mm[:, None, :2] + distance * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    half = rng.uniform([120, 120, 60], [650, 650, 900], (*shape, 3))
    return np.concatenate([_to_room(turn, place), half[..., 2:]], axis=-1), half


def _tints(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float, chroma: float) -> np.ndarray:
    """Linear colours (*shape, 3): a grey of display brightness low..high with up to this much colour."""
    grey = rng.uniform(low, high, (*shape, 1))
    return np.clip(grey * (1 + chroma * rng.uniform(-1, 1, (*shape, 3))), 0.02, 1) ** 2


def _to_room(turn: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """World floor points (N, 2) or (N, M, 2) in room axes; the same map as backdrop.to_room."""
    c, s = (turn[:, k].reshape(-1, *([1] * (xy.ndim - 2))) for k in (0, 1))
    return np.stack([c * xy[..., 0] + s * xy[..., 1], c * xy[..., 1] - s * xy[..., 0]], axis=-1)
