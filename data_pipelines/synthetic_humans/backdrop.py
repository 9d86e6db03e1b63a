"""What stands behind the person: a textured room with furniture boxes and painted panels.

The room is an axis-aligned box in its own frame (turned about the vertical, floor at z = 0). Rays take its
far side, so a camera outside the room looks through the near wall, as in a doll's house.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

Array = Any  # np.ndarray on the host, jax.Array inside render
_FAR_MM = 1e6


class Backdrop(NamedTuple):
    """A room. Lengths in mm, colours linear RGB; K painted panels, M boxes.

    Attributes:
      turn: (2,) cos and sin of the room's heading: x_room = cos x + sin y, y_room = cos y - sin x.
      low, high: (3,) the room's corners in the room frame, low[2] = 0.
      colors: (4, 2, 3) two texture colours each of floor, x walls, y walls, ceiling.
      textures: (4, 5) cycles per mm along both surface axes, shear, mix of the two waves in [0, 1],
        sharpness.
      panel_center, panel_half: (K, 3) a panel colours every surface point inside this box.
      panel_round: (K,) 0 for rectangles, 1 for ellipses.
      panel_color: (K, 3).
      box_center, box_half: (M, 3) furniture.
      box_color: (M, 3).
    """

    turn: Array
    low: Array
    high: Array
    colors: Array
    textures: Array
    panel_center: Array
    panel_half: Array
    panel_round: Array
    panel_color: Array
    box_center: Array
    box_half: Array
    box_color: Array


class Surface(NamedTuple):
    """Where rays end on the backdrop; fields over pixels."""

    distance: Array  # (N,) mm along the unit ray
    normal: Array  # (3, N) world
    albedo: Array  # (3, N) linear RGB


def hit_backdrop(room: Backdrop, origin: Array, directions: Array, spread: Array) -> Surface:
    """The backdrop along rays from `origin` (3,) mm, world, in unit `directions` (3, N).

    spread: (N,) mm of picture pixel per mm of distance; textures finer than a pixel fade to their mean.
    """
    o, d = to_room(room, origin), to_room(room, directions)
    inverse = 1.0 / jnp.where(jnp.abs(d) > 1e-6, d, 1e-6)
    exits = jnp.maximum((room.low - o)[:, None] * inverse, (room.high - o)[:, None] * inverse)
    distance = jnp.min(exits, axis=0)
    axis_hit = exits <= distance
    normal = jnp.where(axis_hit, -jnp.sign(d), 0.0)
    point = o[:, None] + distance * d
    # Seen at a slant a pixel covers more of the surface.
    slant = jnp.maximum(jnp.sum(jnp.where(axis_hit, jnp.abs(d), 0.0), axis=0), 0.05)
    albedo = _textured(room, point, normal, spread * distance / slant)
    distance, normal, albedo = _add_boxes(room, o, d, inverse, (distance, normal, albedo))
    albedo = _add_panels(room, o[:, None] + distance * d, albedo, spread * distance)
    return Surface(distance, from_room(room, normal), albedo)


def to_room(room: Backdrop, v: Array) -> Array:
    """World vectors (3, ...) in the room frame."""
    c, s = room.turn[0], room.turn[1]
    return jnp.stack([c * v[0] + s * v[1], c * v[1] - s * v[0], v[2]])


def from_room(room: Backdrop, v: Array) -> Array:
    """Room vectors (3, ...) in the world frame."""
    c, s = room.turn[0], room.turn[1]
    return jnp.stack([c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]])


def _wave(phase: Array) -> Array:
    """Triangle wave of period 1 in [-1, 1]; far cheaper than a sine on a CPU."""
    return jnp.abs(4.0 * (phase - jnp.floor(phase)) - 2.0) - 1.0


def _textured(room: Backdrop, point: Array, normal: Array, pixel_mm: Array) -> Array:
    on_floor, on_x, on_y = normal[2] > 0.5, jnp.abs(normal[0]) > 0.5, jnp.abs(normal[1]) > 0.5

    def pick(values: Array) -> Array:  # (4,) per surface -> (N,)
        walls = jnp.where(on_x, values[1], jnp.where(on_y, values[2], values[3]))
        return jnp.where(on_floor, values[0], walls)

    rate_u, rate_v, shear, mix, sharp = (pick(room.textures[:, i]) for i in range(5))
    u = jnp.where(on_x, point[1], point[0])
    v = jnp.where(on_x | on_y, point[2], point[1])
    pattern = mix * _wave(rate_u * (u + shear * v)) + (1 - mix) * _wave(rate_v * (v - shear * u))
    fade = jnp.clip(1.6 - 4.0 * pixel_mm * jnp.maximum(rate_u, rate_v), 0.0, 1.0)
    share = 0.5 + 0.5 * fade * jnp.clip(sharp * pattern, -1.0, 1.0)
    first, second = (jnp.stack([pick(room.colors[:, i, c]) for c in range(3)]) for i in (0, 1))
    return first + share * (second - first)


def _add_boxes(room: Backdrop, o: Array, d: Array, inverse: Array, seen: tuple) -> tuple:
    distance, normal, albedo = seen
    for i in range(room.box_center.shape[-2]):
        centre, half = room.box_center[i] - o, room.box_half[i]
        middle, reach = centre[:, None] * inverse, half[:, None] * jnp.abs(inverse)
        enter, leave = middle - reach, jnp.min(middle + reach, axis=0)
        near = jnp.max(enter, axis=0)
        hit = (near < leave) & (near > 0) & (near < distance)
        face = jnp.where(enter >= near, -jnp.sign(d), 0.0)
        distance = jnp.where(hit, near, distance)
        normal = jnp.where(hit, face, normal)
        albedo = jnp.where(hit, room.box_color[i][:, None], albedo)
    return distance, normal, albedo


def _add_panels(room: Backdrop, point: Array, albedo: Array, pixel_mm: Array) -> Array:
    for i in range(room.panel_center.shape[-2]):
        half = room.panel_half[i]
        offset = jnp.abs(point - room.panel_center[i][:, None])
        inside = jnp.min(half[:, None] - offset, axis=0)  # mm to the rectangle's edge
        ratio = jnp.sqrt(jnp.sum((offset / half[:, None]) ** 2, axis=0))
        inside = jnp.where(room.panel_round[i] > 0.5, (1.0 - ratio) * jnp.min(half), inside)
        cover = jnp.clip(0.5 + inside / pixel_mm, 0.0, 1.0)
        albedo = albedo + cover * (room.panel_color[i][:, None] - albedo)
    return albedo
