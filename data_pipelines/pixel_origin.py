"""Whether labels in pixels count the first pixel as 0 or 1: what a dataset does not tell, its labels may betray."""

from __future__ import annotations

import numpy as np


def origin_warning(labels_px: np.ndarray, origin: int, size: tuple[int, int] | None = None) -> str | None:
    """Words about labels that lie half off the picture if its first pixel's centre is `origin`; None without any.

    Labels that lie a pixel or more off are people who are cut off by the picture's edge, and tell nothing.

    Args:
      labels_px: (N, 2) as stored in the dataset, before the origin is taken off; NaN counts for nothing.
      origin: 0 or 1.
      size: (W, H) px of all pictures, where they share one: without it the lower edges alone are looked at.
    """
    shifted = np.asarray(labels_px, np.float64) - origin
    off = int(((shifted < -0.5) & (shifted >= -1.5)).any(-1).sum())
    if size is not None:
        over = shifted - (np.asarray(size) - 1)
        off += int(((over > 0.5) & (over <= 1.5)).any(-1).sum())
    if not off:
        return None
    return (
        f"{off} of {len(shifted)} labels lie just off the picture if its first pixel is {origin}, which is "
        f"unconfirmed: pixel_origin {1 - origin} may be right"
    )
