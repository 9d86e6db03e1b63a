"""A watch on alpha and beta: values that training can reach and that hardly anybody wants, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLLAPSED = 0.5
"""Of where alpha began: the penalty pushes it up, so less than this is odd."""


def fusion_concerns(alpha: float, beta: float, num_layers: int, alpha_init: float) -> dict[str, str]:
    """What is odd about w_l = sigmoid(alpha * (l - beta)), l = 1 .. L: by kind, in words.

    Args:
      alpha, beta: sharpness and fusion layer now.
      num_layers: L.
      alpha_init: sharpness at the start of the run, > 0.
    """
    found = {}
    if alpha <= 0:
        found["alpha"] = (
            f"alpha is {alpha:.3g}, so weights fall with depth: the streams are mixed back instead of fused. Lower "
            "--fusion-learning-rate, or raise --alpha-penalty-weight"
        )
    elif alpha < _COLLAPSED * alpha_init:
        found["alpha"] = (
            f"alpha fell to {alpha:.3g} from {alpha_init:g}: all weights go to one half, there is no layer where "
            "fusion happens, and none can be pruned. Raise --alpha-penalty-weight, or lower --fusion-learning-rate"
        )
    if beta < 0:
        found["beta"] = (
            f"beta is {beta:.3g}, before the first layer: fusion is as early as can be, and a beta further out changes "
            "little. --strategy fixed --beta 0 is the same network for less"
        )
    elif beta > num_layers:
        found["beta"] = (
            f"beta is {beta:.3g}, behind the last of {num_layers} layers: the streams are not fused before the end, "
            f"and a beta further out changes little. --strategy fixed --beta {num_layers} is the same network for less"
        )
    return found


class FusionWatch:
    """Tells each concern when it begins, not at every row that it lasts."""

    def __init__(self, alpha_init: float):
        self._alpha_init, self._told = alpha_init, set[str]()

    def look(self, row: Mapping[str, Any]) -> list[str]:
        """What is new in a row of numbers; nothing of a strategy that has no alpha and beta."""
        if "alpha" not in row or "beta" not in row:
            return []
        found = fusion_concerns(row["alpha"], row["beta"], len(row["fusion_weights"]), self._alpha_init)
        new = [text for kind, text in found.items() if kind not in self._told]
        self._told = set(found)
        return new
