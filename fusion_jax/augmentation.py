"""What augmentation may do, as a frozen record, and its named settings. No jax: loader processes read it."""

from __future__ import annotations

import dataclasses

from fusion_jax.errors import check_field


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training examples; every one keeps picture, 2D joints and pose consistent."""

    crop_probability: float = 1.0
    """How often a window of crop_fraction of the picture is cut out, at a random place, instead of all of it."""
    crop_fraction: float = 0.875
    """Side of that window; 112 / 128 in the paper."""
    shared_crop: bool = False
    """One crop for a whole batch, as the authors' release does, instead of one for each picture."""
    flip_probability: float = 0.5
    """How often the person is mirrored; left and right swap in every label."""
    scale_range: float = 0.1
    """Zoom by a factor in [1 - s, 1 + s]."""
    rotation_deg: float = 15.0
    """Turn in the image plane by up to this angle; the pose turns alike."""
    colour: float = 0.2
    """Contrast and each channel's gain in [1 - c, 1 + c], brightness in [-c, c] of half the range."""

    def __post_init__(self):
        for name in ("crop_probability", "flip_probability"):
            check_field(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "a share in [0, 1]")
        check_field(0 < self.crop_fraction <= 1, "augment.crop_fraction", self.crop_fraction, "in (0, 1]")
        check_field(0 <= self.scale_range < 1, "augment.scale_range", self.scale_range, "in [0, 1)")
        check_field(0 <= self.colour < 1, "augment.colour", self.colour, "in [0, 1)")
        check_field(0 <= self.rotation_deg <= 180, "augment.rotation_deg", self.rotation_deg, "in [0, 180]")


AUGMENTATIONS: dict[str, AugmentConfig] = {
    "full": AugmentConfig(),
    "light": AugmentConfig(crop_probability=0.7, scale_range=0.0, rotation_deg=0.0, colour=0.1),
    "paper": AugmentConfig(0.7, 112 / 128, True, 0.0, 0.0, 0.0, 0.0),
    "hourglass": AugmentConfig(0.0, 1.0, False, 0.5, 0.25, 30.0, 0.2),
    "none": AugmentConfig(0.0, 1.0, False, 0.0, 0.0, 0.0, 0.0),
}
