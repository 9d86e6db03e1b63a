"""Limb-based and 2D measures: correct parts and keypoints, and a 3D pose laid over 2D joints. NumPy and jax alike.

Each measure returns what is correct and what is known, both boolean, so that shares are divided once, by the caller,
over the frames, parts or joints that its protocol asks for. What is not known may hold anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Array = Any  # np.ndarray or jax.Array, whichever came in
Groups = tuple[tuple[str, tuple[str, ...]], ...]  # (group, its joints)
Parts = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (class, its pairs of joints)


def _sides(joint: str) -> tuple[str, str]:
    return f"right_{joint}", f"left_{joint}"


def _limbs(upper: str, lower: str) -> tuple[tuple[str, str], ...]:
    return tuple(zip(_sides(upper), _sides(lower), strict=True))


LIMBS: Parts = (
    ("upper arms", _limbs("shoulder", "elbow")),
    ("lower arms", _limbs("elbow", "wrist")),
    ("upper legs", _limbs("hip", "knee")),
    ("lower legs", _limbs("knee", "ankle")),
)
LIMB_JOINTS: Groups = tuple((joint, _sides(joint)) for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))


def pcp_correct(
    pred: Array,
    true: Array,
    valid: Array,
    parts: Sequence[tuple[int, int]],
    *,
    strict: bool = False,
    threshold: float = 0.5,
) -> tuple[Array, Array]:
    """(correct, known), both (N, P) bool: body parts in the right place (PCP, percentage of correct parts).

    A part with true ends a, b and predicted ends a', b' is right where

      (|a' - a| + |b' - b|) / 2 <= threshold |a - b|

    which is the averaged form, scored on KTH Multiview Football II; the strict form wants |a' - a| and |b' - b| each
    within that bound. A part of no true length is right only where it is hit exactly. Known are parts whose two ends
    are; nothing else is correct.

    Args:
      pred, true: (N, J, D), D = 2 (px) or 3 (mm), in one frame and relative to one root.
      valid: (N, J) bool.
      parts: P pairs of joint indices.
      strict: the strict form.
      threshold: share of the part's true length.
    """
    a, b = [first for first, _ in parts], [second for _, second in parts]
    xp = true.__array_namespace__()
    true, pred = (xp.where(valid[..., None], x, 0) for x in (true, pred))
    off = _length(pred - true)
    bound = threshold * _length(true[:, a] - true[:, b])
    known = valid[:, a] & valid[:, b]
    if strict:
        return (off[:, a] <= bound) & (off[:, b] <= bound) & known, known
    return ((off[:, a] + off[:, b]) / 2 <= bound) & known, known


def pck2d(pred_px: Array, true_px: Array, valid: Array, scale_px: Array, threshold: float) -> tuple[Array, Array]:
    """(correct, known), both (N, J) bool: joints at most `threshold` times the person's own scale off (PCK).

    With the torso (right shoulder to left hip) and 0.2 this is LSP's PCK@0.2; with the head's length (0.6 of the
    diagonal of the head box) and 0.5 it is MPII's PCKh@0.5.

    Args:
      pred_px, true_px: (N, J, 2) px of one picture.
      valid: (N, J) bool.
      scale_px: (N,) px; 0 where unknown, and then no joint of that person counts.
      threshold: share of the scale.
    """
    known = valid & (scale_px > 0)[:, None]
    xp = true_px.__array_namespace__()
    pred_px, true_px = (xp.where(known[..., None], x, 0) for x in (pred_px, true_px))
    off = _length(pred_px - true_px)
    return (off <= threshold * scale_px[:, None]) & known, known


def scaled_orthographic(pose_mm: Array, joints2d_px: Array, valid2d: Array) -> Array:
    """x and y of a 3D pose laid over the true 2D joints, (N, J, 2) px: one scale and shift per picture, no rotation.

    This is how a network that predicts nothing but 3D gets a score in 2D. It takes the size and the place from the
    truth, so such a score says less than that of a network which finds the person by itself. Scale s >= 0 and shift t
    minimise sum_j |s m_j + t - q_j|^2 over the joints known in 2D; they apply to all joints.

    Where the best s would be negative (the pose is upside down), or nothing determines it (fewer than two known
    joints, or a pose without extent in x and y), s is 0: all joints lie on the mean of the known 2D joints, or on
    (0, 0) where there is none.

    Args:
      pose_mm: (N, J, 3) camera frame (x right, y down), any root.
      joints2d_px: (N, J, 2) px.
      valid2d: (N, J) bool, the joints known in 2D.
    """
    xp = pose_mm.__array_namespace__()
    known = valid2d[..., None]
    count = xp.maximum(known.sum(-2, keepdims=True), 1)
    xy = pose_mm[..., :2]
    moving, fixed = xp.where(known, xy, 0), xp.where(known, joints2d_px, 0)
    mean_m, mean_f = (x.sum(-2, keepdims=True) / count for x in (moving, fixed))
    moving, fixed = xp.where(known, moving - mean_m, 0), xp.where(known, fixed - mean_f, 0)
    square = (moving * moving).sum((-2, -1))
    product = xp.maximum((moving * fixed).sum((-2, -1)), 0)
    scale = product / xp.where(square > 0, square, 1)
    return (xy - mean_m) * scale[..., None, None] + mean_f


def _length(vectors: Array) -> Array:
    return (vectors**2).sum(-1) ** 0.5
