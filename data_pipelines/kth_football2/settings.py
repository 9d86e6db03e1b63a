"""What can be chosen when KTH Multiview Football II is prepared. No heavy imports: the command line reads this."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fusion_jax.errors import check_field

CAMERAS = ("Camera 1", "Camera 2", "Camera 3")


@dataclasses.dataclass(frozen=True)
class KthFootball2Settings:
    """All that determines which frames are written and how their pictures are cut."""

    size: int = 128
    """Side of the crops, px."""
    player: int = 2
    """Whose recording, 1 or 2; the paper: player 2."""
    sequence: int = 1
    """Which of the player's two sequences; which one the paper used is unconfirmed."""
    cameras: tuple[str, ...] = ("Camera 1",)
    """Views that are prepared, such as 'Camera 1'; the paper: camera 1 alone."""
    validation_share: float = 0.2
    """Share of the training half, its last frames, that becomes `validation`; 0 for none."""
    box_margin: float = 0.15
    """Share of the side of the labelled joints' square that is added at each side."""
    unit_mm: float = 1000.0
    """Length of the poses' unit; metres are likely but unconfirmed, limbs of impossible length are refused."""
    pixel_origin: Literal[0, 1] = 1
    """Label of the first pixel's centre; MATLAB's 1 is likely but unconfirmed, evidence against it is told."""

    def __post_init__(self):
        check_field(16 <= self.size <= 1024, "size", self.size, "16 to 1024 px")
        check_field(self.player in (1, 2), "player", self.player, "1 or 2")
        check_field(self.sequence in (1, 2), "sequence", self.sequence, "1 or 2")
        known = bool(self.cameras) and set(self.cameras) <= set(CAMERAS)
        check_field(known, "cameras", self.cameras, f"some of {', '.join(CAMERAS)}")
        check_field(len(set(self.cameras)) == len(self.cameras), "cameras", self.cameras, "each camera once")
        check_field(0 <= self.validation_share < 1, "validation_share", self.validation_share, "0 to less than 1")
        check_field(0 <= self.box_margin <= 2, "box_margin", self.box_margin, "0 to 2")
        check_field(0 < self.unit_mm < 1e6, "unit_mm", self.unit_mm, "a length in mm")
        check_field(self.pixel_origin in (0, 1), "pixel_origin", self.pixel_origin, "0 or 1")

    def config_name(self) -> str:
        """Such as '128px_player2_sequence1_camera1_validation0.2_margin0.15_unit1000.0', cameras in their order."""
        views = "-".join(name.removeprefix("Camera ") for name in self.cameras)
        name = f"{self.size}px_player{self.player}_sequence{self.sequence}_camera{views}"
        name += f"_validation{self.validation_share!r}_margin{self.box_margin!r}_unit{self.unit_mm!r}"
        return name + ("_origin0" if self.pixel_origin == 0 else "")
