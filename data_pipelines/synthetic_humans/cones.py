"""Round cones, the hulls of two balls each, and where rays meet them, in closed form. Pure jax."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Body(NamedTuple):
    """P round cones, mm, world. Colours are linear RGB.

    Attributes:
      start, end: (P, 3) centres of the two balls.
      radius: (P, 2) their radii.
      color: (P, 2, 3) the first colour, and the one beyond the cut.
      cut: (P, 4) unit normal n and offset h: points p with (p - start) . n > h take the second colour.
    """

    start: Any
    end: Any
    radius: Any
    color: Any
    cut: Any


class Cone(NamedTuple):
    """A round cone relative to a ray's origin; fields broadcast against the rays."""

    start: Any  # 3 coordinates
    axis: Any  # end - start, 3 coordinates
    radius: Any  # at the start
    grow: Any  # radius at the end minus at the start


class Meeting(NamedTuple):
    """Rays against a cone."""

    distance: Any  # mm along the ray to the surface; to the closest approach just outside the silhouette
    along: Any  # where on the axis the touched ball sits, 0 .. 1
    inside_mm: Any  # how far inside the silhouette the ray passes; negative outside


def meet(cone: Cone, directions: Any) -> Meeting:
    """Where unit rays from the origin meet a round cone.

    The ball at s in [0, 1] sits at c(s) = start + s axis with radius r(s) = radius + s grow. The ray enters
    it at t(s) = c(s).d - sqrt(Q(s)), where Q(s) = r(s)^2 - |c(s) - (c(s).d) d|^2 = C + 2 B s - P s^2. The
    first entry over all s is the surface; t is convex where Q > 0, and dt/ds = 0 has a root in closed form.
    """
    start, axis, radius, grow = cone
    start_d, axis_d = dot(start, directions), dot(axis, directions)
    length2 = jnp.maximum(dot(axis, axis) - grow * grow, 1.0)  # < 1 only where one ball holds the other
    p = jnp.maximum(length2 - axis_d * axis_d, 1e-3 * length2)
    b = radius * grow - dot(start, axis) + start_d * axis_d
    c = radius * radius - dot(start, start) + start_d * start_d
    middle = b / p
    q_best = jnp.maximum(c + b * middle, 0.0)
    along = jnp.clip(middle - axis_d * jnp.sqrt(q_best / (p * length2)), 0.0, 1.0)
    q = jnp.maximum(c + along * (2 * b - p * along), 0.0)
    distance = start_d + along * axis_d - jnp.sqrt(q)
    widest = jnp.clip(middle, 0.0, 1.0)  # the ball whose silhouette reaches farthest around the ray
    r = radius + widest * grow
    off_axis = jnp.sqrt(jnp.maximum(r * r - (c + widest * (2 * b - p * widest)), 0.0))
    return Meeting(distance, along, r - off_axis)


def cone_of(body: Body, origin: Array, i: Any) -> Cone:
    """Cone i, or for an array i of pixels the cone of each pixel, seen from `origin`."""
    start, radius = (body.start - origin).T[:, i], body.radius.T[:, i]
    return Cone(start, (body.end - body.start).T[:, i], radius[0], radius[1] - radius[0])


def dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
