"""The body parts of a part segmentation: their names, their labels in a label map, and which is whose mirror image.

A label map is (H, W) uint8: 0 where nobody is, n where the n-th of `PARTS` is seen, counted from 1.
"""

from __future__ import annotations

_PAIRED = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot")
PARTS: tuple[str, ...] = ("head", "torso", *(f"{side}_{part}" for side in ("right", "left") for part in _PAIRED))
"""Left and right are the person's own. The head has the neck and the hair, the torso reaches down to the hips."""


def part_label(name: str) -> int:
    """The label of a part, 1 .. P."""
    return PARTS.index(name) + 1


def _mirrored(name: str) -> str:
    side, _, rest = name.partition("_")
    return f"{'left' if side == 'right' else 'right'}_{rest}" if rest else name


FLIP: tuple[int, ...] = (0, *(part_label(_mirrored(name)) for name in PARTS))
"""For each label 0 .. P that of its mirror image."""
