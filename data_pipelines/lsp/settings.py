"""What can be chosen when Leeds Sports Pose is prepared. No heavy imports: the command line reads this."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fusion_jax.errors import check_field


@dataclasses.dataclass(frozen=True)
class LspSettings:
    """All that determines which pictures are written and how they are cut."""

    size: int = 128
    """Side of the crops, px."""
    kind: Literal["scaled", "original", "extended"] = "scaled"
    """LSP with people about 150 px tall, LSP in full size (the same people), or LSP extended (training only)."""
    validation_count: int = 100
    """The last this many of the training pictures become `validation`; 0 for none."""
    box_margin: float = 0.15
    """Share of the side of the labelled joints' square that is added at each side."""
    pixel_origin: Literal[0, 1] = 1
    """Label of the first pixel's centre; MATLAB's 1 is likely but unconfirmed, evidence against it is told."""

    def __post_init__(self):
        check_field(16 <= self.size <= 1024, "size", self.size, "16 to 1024 px")
        check_field(self.kind in ("scaled", "original", "extended"), "kind", self.kind, "scaled, original or extended")
        check_field(0 <= self.validation_count <= 500, "validation_count", self.validation_count, "0 to 500 pictures")
        check_field(0 <= self.box_margin <= 2, "box_margin", self.box_margin, "0 to 2")
        check_field(self.pixel_origin in (0, 1), "pixel_origin", self.pixel_origin, "0 or 1")

    def config_name(self) -> str:
        """Such as '128px_scaled_validation100_margin0.15', with '_origin0' behind it where that is chosen."""
        name = f"{self.size}px_{self.kind}_validation{self.validation_count}_margin{self.box_margin!r}"
        return name + ("_origin0" if self.pixel_origin == 0 else "")
