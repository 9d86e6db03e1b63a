"""Laying one pose over another: orthogonal Procrustes, and scale alone. For NumPy and jax arrays alike.

The 3 x 3 algebra is written as sums of products, because a matrix unit would round float32 to bfloat16 (TPU) or TF32
(GPU), which is millimetres here.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # np.ndarray or jax.Array, whichever came in


def similarity_align(
    moving: Array, fixed: Array, valid: Array | None = None, *, scale: bool = True, reflection: bool = False
) -> Array:
    """`moving` (..., J, 3) after the least-squares similarity onto `fixed`: orthogonal Procrustes with scale.

    The transform minimises sum_j valid_j |s R m_j + t - f_j|^2 (Umeyama 1991); it is applied to all joints. Where
    either pose has no extent, rotation and scale are not determined; the result is finite then, and so is its
    gradient.

    Args:
      moving, fixed: (..., J, 3), any common unit.
      valid: (..., J) bool, joints that take part; all without it. The others may hold anything.
      scale: False fits a rigid motion only.
      reflection: True also admits mirror images (det R = -1), as the paper's own evaluation does; the field's
        usual pa_mpjpe forbids them.
    """
    xp = moving.__array_namespace__()
    known = xp.ones(moving.shape[:-1], dtype=bool) if valid is None else valid
    weight = known.astype(moving.dtype)
    weight = (weight / xp.maximum(weight.sum(-1, keepdims=True), 1))[..., None]  # (..., J, 1), sums to 1
    m, f = (xp.where(known[..., None], x, 0) for x in (moving, fixed))  # 0 * NaN would spoil the frame
    mean_m, mean_f = (weight * m).sum(-2, keepdims=True), (weight * f).sum(-2, keepdims=True)
    m, f = m - mean_m, f - mean_f
    covariance = _product((weight * m).swapaxes(-1, -2), f)  # row vectors: m @ rotation ~ f
    if isinstance(covariance, np.ndarray):
        rotation = _polar(covariance, reflection)[0]
    else:
        rotation = _nearest_rotation(covariance, reflection)
    aligned = _product(moving - mean_m, rotation)
    if scale:
        variance = (weight * m * m).sum((-2, -1))
        gain = (rotation * covariance).sum((-2, -1))  # the sum of the signed singular values
        aligned = aligned * (gain / xp.where(variance > 0, variance, 1))[..., None, None]
    return aligned + mean_f


def scale_align(moving: Array, fixed: Array, valid: Array | None = None) -> Array:
    """`moving` (..., J, 3) times the one factor that brings it closest to `fixed` (least squares; for n_mpjpe)."""
    xp = moving.__array_namespace__()
    known = True if valid is None else valid[..., None]
    square = xp.where(known, moving * moving, 0).sum((-2, -1))
    factor = xp.where(known, moving * fixed, 0).sum((-2, -1)) / xp.where(square > 0, square, 1)
    return moving * factor[..., None, None]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _nearest_rotation(matrix: jax.Array, reflection: bool) -> jax.Array:
    """The rotation (or, if admitted, mirror image) with the largest inner product with (..., 3, 3)."""
    return _polar(matrix, reflection)[0]


@_nearest_rotation.defjvp
def _nearest_rotation_jvp(reflection: bool, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """dR = U (skew part of U' dA V / (s_i + s_j)) V', which exists for equal singular values, unlike the SVD's own."""
    rotation, u, s, vt = _polar(primals[0], reflection)
    inner = _product(_product(u.swapaxes(-1, -2), tangents[0]), vt.swapaxes(-1, -2))
    total = s[..., :, None] + s[..., None, :]
    defined = jnp.abs(total) > 1e-30
    skew = jnp.where(defined, (inner - inner.swapaxes(-1, -2)) / jnp.where(defined, total, 1), 0)
    return rotation, _product(_product(u, skew), vt)


def _polar(matrix: Array, reflection: bool) -> tuple[Array, Array, Array, Array]:
    """(rotation, u, signed s, vt) of (..., 3, 3)."""
    xp = matrix.__array_namespace__()
    u, s, vt = xp.linalg.svd(matrix)
    if not reflection:
        # Turning the weakest axis round makes the best proper rotation (Umeyama 1991, eq. 40).
        sign = xp.where(_det(u) * _det(vt) < 0, -1.0, 1.0).astype(s.dtype)[..., None]
        last = xp.concat([xp.ones_like(sign), xp.ones_like(sign), sign], axis=-1)
        u, s = u * last[..., None, :], s * last
    return _product(u, vt), u, s, vt


def _det(m: Array) -> Array:
    xp = m.__array_namespace__()
    return (m[..., 0, :] * xp.linalg.cross(m[..., 1, :], m[..., 2, :])).sum(-1)


def _product(a: Array, b: Array) -> Array:
    """a @ b as sums of products."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)
