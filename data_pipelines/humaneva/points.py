"""Labelled points over time, whatever file they came from."""

from __future__ import annotations

import numpy as np

from fusion_jax.errors import UserError


class Points:
    """Motion capture: markers and the modelled points among them.

    Attributes:
      where: the file, for messages.
      labels: P names as in the file; a subject prefix may precede.
      xyz: (T, P, 3) world mm; a missing point is NaN.
      rate: rows a second.
    """

    def __init__(self, where: str, labels: list[str], xyz: np.ndarray, rate: float):
        """Takes over the arrays. Raises UserError where there are fewer labels than points."""
        if len(labels) < xyz.shape[1]:
            raise UserError(f"{where} names {len(labels)} of its {xyz.shape[1]} points; it is damaged, fetch it again")
        self.where, self.rate = where, rate
        self.labels, self.xyz = [label.strip() for label in labels[: xyz.shape[1]]], xyz

    def __len__(self) -> int:
        return len(self.xyz)

    def index(self, *names: str) -> int:
        """The first point whose label contains one of `names`, tried in their order.

        Matched as part of the label, as the toolbox does: files put the subject before it.

        Raises:
          UserError: no label does.
        """
        for name in names:
            for index, label in enumerate(self.labels):
                if name in label:
                    return index
        raise UserError(
            f"{self.where} has no point {' or '.join(names)} among its {len(self.labels)}; it is another kind of file"
        )

    def track(self, *names: str) -> np.ndarray:
        """(T, 3) world mm of the point `index` finds; NaN where missing."""
        return self.xyz[:, self.index(*names)]


def mark_missing(xyz: np.ndarray, missing: np.ndarray | None, where: str) -> np.ndarray:
    """(T, P, 3) with NaN for what is missing: (0, 0, 0), or true in `missing` (T, P).

    Raises:
      UserError: a point that is not said to be missing is not finite.
    """
    gone = (xyz == 0).all(-1)
    if missing is not None:
        gone |= missing
    bad = ~np.isfinite(xyz).all(-1) & ~gone
    if bad.any():
        row, point = (int(v) for v in np.argwhere(bad)[0])
        raise UserError(
            f"{where}: point {point + 1} of row {row + 1} is not finite ({xyz[row, point].tolist()}); fetch it again"
        )
    return np.where(gone[..., None], np.nan, xyz)
