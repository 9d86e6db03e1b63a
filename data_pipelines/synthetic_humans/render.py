"""Pictures of a body made of round cones in a room, by analytic ray casting. Pure jax: jit, vmap.

Rays meet the cones in closed form (see cones.meet), so nothing marches. Edges are smoothed
by the share of the pixel that the silhouette covers, which costs far less than supersampling.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from data_pipelines.synthetic_humans.backdrop import Backdrop, Surface, hit_backdrop
from data_pipelines.synthetic_humans.cones import Body, cone_of, dot, meet
from data_pipelines.synthetic_humans.flesh import cone_labels

_INDEX_BITS = 6  # a depth's low mantissa bits carry the cone's index: up to 64 cones, steps of ~0.03 mm
_NOTHING = 0x7F7FFFFF  # larger than every key
_CHUNK_PIXELS = 8 * 64 * 64
_UNROLL = 2  # more compiles longer and, measured on a CPU, runs slower
_EDGE_PENALTY_MM = 80.0  # a barely covered edge loses against a better covered neighbour this much deeper


class Light(NamedTuple):
    """One far lamp and a hemisphere of ambient light.

    Attributes:
      direction: (3,) unit, towards the lamp, z > 0.
      color: (3,) of the lamp.
      sky, ground: (3,) ambient light on surfaces that face up, down.
      softness_mm: () half-width of shadow edges.
    """

    direction: Any
    color: Any
    sky: Any
    ground: Any
    softness_mm: Any


class Scene(NamedTuple):
    """All that one picture needs, float32 arrays of fixed shapes, so that one compiled program serves all.

    Attributes:
      body: the person.
      rot_world_to_cam: (3, 3).
      cam_center_mm: (3,) world.
      intrinsics: (3, 3) px of this picture (of the crop, not of the full frame); no lens distortion.
      light, backdrop: see there.
    """

    body: Body
    rot_world_to_cam: Any
    cam_center_mm: Any
    intrinsics: Any
    light: Light
    backdrop: Backdrop


def render(scene: Scene, size: int) -> Array:
    """The picture (size, size, 3) through `scene.intrinsics`, display RGB in [0, 1].

    Pixel (0, 0) has its centre at the image point (0, 0), as in fusion_jax.geometry.
    """
    return render_with_parts(scene, size)[0]


def render_with_parts(scene: Scene, size: int) -> tuple[Array, Array]:
    """`render`'s picture, and its label map (size, size) uint8 of body parts, see fusion_jax.body_parts.

    A pixel that several things share has the label of the one that covers more than half of it.
    """
    origin = scene.cam_center_mm
    directions, spread = pixel_rays(scene, size)
    front, edge, edge_cover = _nearest(scene.body, origin, directions, spread)
    room = hit_backdrop(scene.backdrop, origin, directions, spread)
    solid = front < _NOTHING
    edge_wins = edge < front
    near = _body_surface(scene.body, origin, directions, edge)
    far = _body_surface(scene.body, origin, directions, front)
    alpha = jnp.where(edge_wins, edge_cover, 0.0)

    on_edge = alpha > 0.5
    on_body = on_edge | solid
    distance = jnp.where(on_edge, near.distance, jnp.where(solid, far.distance, room.distance))
    point = origin[:, None] + distance * directions
    lit = 1.0 - _shadow(scene.body, scene.light, point)
    lit_body, lit_room = jnp.where(on_body, lit, 1.0), jnp.where(on_body, 1.0, lit)

    behind = jnp.where(solid, _shade(scene.light, far, lit_body), _shade(scene.light, room, lit_room))
    color = behind + alpha * (_shade(scene.light, near, lit_body) - behind)
    display = jnp.sqrt(jnp.clip(color, 0.0, 1.0))  # gamma 2, close to sRGB's curve and cheap
    index = jnp.where(on_edge, edge, front) & ((1 << _INDEX_BITS) - 1)
    labels = jnp.where(on_body, jnp.asarray(cone_labels(), jnp.uint8)[index], jnp.uint8(0))
    return display.T.reshape(size, size, 3), labels.reshape(size, size)


@functools.partial(jax.jit, static_argnames=("size",))
def render_batch(scenes: Scene, size: int) -> Array:
    """Pictures (N, size, size, 3) of scenes whose fields lead with N; compiled once per N and size.

    In chunks of a few pictures: measured on a CPU this is a third faster than one vmap, whose arrays leave
    the cache.
    """
    return _in_chunks(render, scenes, size)


@functools.partial(jax.jit, static_argnames=("size",))
def render_batch_with_parts(scenes: Scene, size: int) -> tuple[Array, Array]:
    """`render_batch`'s pictures and their label maps (N, size, size) uint8."""
    return _in_chunks(render_with_parts, scenes, size)


def _in_chunks(draw: Callable, scenes: Scene, size: int) -> Any:
    chunk = max(1, _CHUNK_PIXELS // (size * size))
    return jax.lax.map(lambda scene: draw(scene, size), scenes, batch_size=chunk)


def pixel_rays(scene: Scene, size: int) -> tuple[Array, Array]:
    """Unit world directions (3, N) of all pixels, row by row, and pixel widths (N,) per mm of distance."""
    v, u = (grid.reshape(-1).astype(jnp.float32) for grid in jnp.mgrid[:size, :size])
    k = scene.intrinsics
    det = k[0, 0] * k[1, 1] - k[0, 1] * k[1, 0]
    du, dv = u - k[0, 2], v - k[1, 2]
    camera = jnp.stack([(k[1, 1] * du - k[0, 1] * dv) / det, (k[0, 0] * dv - k[1, 0] * du) / det, jnp.ones_like(u)])
    shrink = jax.lax.rsqrt(jnp.sum(camera * camera, axis=0))
    rot = scene.rot_world_to_cam
    world = jnp.stack([sum(rot[c, w] * camera[c] for c in range(3)) for w in range(3)])
    return world * shrink, shrink * jax.lax.rsqrt(jnp.abs(det))


def _nearest(body: Body, origin: Array, directions: Array, spread: Array) -> tuple[Array, Array, Array]:
    """Keys (N,) of the nearest fully covering cone and of the nearest edge, and the largest edge's cover.

    A key orders by depth and holds the cone's index in its low bits, so that one integer minimum finds both.
    """
    count = body.start.shape[0]
    mask = (1 << _INDEX_BITS) - 1

    def step(i: Any, best: tuple) -> tuple:
        front, edge, cover_max = best
        hit = meet(cone_of(body, origin, i), directions)
        cover = jnp.clip(0.5 + hit.inside_mm / (spread * hit.distance), 0.0, 1.0)
        cover = jnp.where(hit.distance > 1.0, cover, 0.0)
        depth = jnp.maximum(hit.distance, 1.0) + _EDGE_PENALTY_MM * (1.0 - cover)
        key = (jax.lax.bitcast_convert_type(depth, jnp.int32) & ~mask) | i
        front = jnp.minimum(front, jnp.where(cover >= 1.0, key, _NOTHING))
        edge = jnp.minimum(edge, jnp.where((cover > 0.0) & (cover < 1.0), key, _NOTHING))
        return front, edge, jnp.maximum(cover_max, jnp.where(cover < 1.0, cover, 0.0))

    nothing = jnp.full(spread.shape, _NOTHING, jnp.int32)
    front, edge, cover = jax.lax.fori_loop(0, count, step, (nothing, nothing, jnp.zeros_like(spread)), unroll=_UNROLL)
    return front, edge, cover


def _body_surface(body: Body, origin: Array, directions: Array, key: Array) -> Surface:
    """The surface of each pixel's cone (by key) along its ray."""
    index = jnp.minimum(key & ((1 << _INDEX_BITS) - 1), body.start.shape[0] - 1)
    cone = cone_of(body, origin, index)
    hit = meet(cone, directions)
    point = hit.distance * directions - cone.start  # from the cone's start
    normal = point - hit.along * cone.axis
    normal = normal * jax.lax.rsqrt(jnp.maximum(dot(normal, normal), 1e-6))
    cut = body.cut.T[:, index]
    color = body.color.transpose(1, 2, 0)[:, :, index]
    return Surface(hit.distance, normal, jnp.where(dot(point, cut) > cut[3], color[1], color[0]))


def _shadow(body: Body, light: Light, point: Array) -> Array:
    """Share (N,) of the lamp that the body hides from points (3, N), world.

    A ball counts when its centre lies towards the lamp. Points that face the lamp thus never shade
    themselves, and need no offset from their surface.
    """

    def step(i: Any, dark: Array) -> Array:
        start, axis, radius, grow = cone_of(body, jnp.zeros(3), i)
        axis_l = dot(axis, light.direction)
        to = [point[k] - start[k] for k in range(3)]
        to_l = dot(to, light.direction)
        flat2 = jnp.maximum(dot(axis, axis) - axis_l * axis_l, 1.0)
        s = jnp.clip((dot(to, axis) - to_l * axis_l) / flat2, 0.0, 1.0)
        ahead = s * axis_l - to_l  # mm from the point to the ball's centre, towards the lamp
        off = [to[k] - s * axis[k] for k in range(3)]
        off_axis = jnp.sqrt(jnp.maximum(dot(off, off) - ahead * ahead, 0.0))
        cover = jnp.clip(0.5 + 0.5 * (radius + s * grow - off_axis) / light.softness_mm, 0.0, 1.0)
        return jnp.maximum(dark, jnp.where(ahead > 0.0, cover, 0.0))

    return jax.lax.fori_loop(0, body.start.shape[0], step, jnp.zeros_like(point[0]), unroll=_UNROLL)


def _shade(light: Light, surface: Surface, lit: Array) -> Array:
    """Linear RGB (3, N): Lambert's law for the lamp, hemisphere ambient light for the rest."""
    facing = jnp.maximum(dot(surface.normal, light.direction), 0.0) * lit
    up = 0.5 + 0.5 * surface.normal[2]
    ambient = light.ground[:, None] + up * (light.sky - light.ground)[:, None]
    return surface.albedo * (ambient + facing * light.color[:, None])


def joint_visibility(scene: Scene, joints_mm: Array) -> Array:
    """Which of the world joints (J, 3) the camera sees, (J,) bool.

    Joints lie under the skin. One is seen when the first surface on its ray is no farther in front of it than
    twice its own depth under the nearest skin, plus 40 mm: a hip from the front and the side, not through the
    other hip.
    """
    rays = (joints_mm - scene.cam_center_mm).T  # (3, J)
    distance = jnp.sqrt(dot(rays, rays))
    count = scene.body.start.shape[0]
    cone = cone_of(scene.body, scene.cam_center_mm, jnp.arange(count)[:, None])  # fields (P, 1)
    hit = meet(cone, (rays / distance)[:, None, :])
    first = jnp.min(jnp.where((hit.inside_mm > 0) & (hit.distance > 0), hit.distance, jnp.inf), axis=0)
    to = rays[:, None, :] - cone.start
    s = jnp.clip(dot(to, cone.axis) / jnp.maximum(dot(cone.axis, cone.axis), 1.0), 0.0, 1.0)
    off = to - s * cone.axis
    depth = jnp.max(cone.radius + s * cone.grow - jnp.sqrt(dot(off, off)), axis=0)
    in_front = (scene.rot_world_to_cam @ rays)[2] > 0
    return in_front & (distance - first <= 2.0 * jnp.maximum(depth, 0.0) + 40.0)
