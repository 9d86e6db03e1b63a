"""What can be chosen when the authors' released files are prepared. No heavy imports: the command line reads this."""

from __future__ import annotations

import dataclasses

from fusion_jax.errors import check_field

# Human3.6M's own order without its first entry, "Misc": the published 14 is WalkDog, the other numbers are concluded
# from it. (The paper's table has another order.)
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TekinReleaseSettings:
    """All that determines which rows of the released files are written."""

    size: int = 128
    """Side of the pictures, px; the release's own, which are kept bit for bit."""
    action: int = 14
    """Number of the action in the files' names, 1 to 15; the published files are of 14, WalkDog."""
    validation_count: int = 200
    """Rows at the end of the training file that are held out as `validation`, at most a quarter; 0 for none."""
    round_pictures: bool = False
    """Admit pictures whose values are no whole 255ths, and store the nearest; without it such a picture is an error."""

    def __post_init__(self):
        check_field(self.size == 128, "size", self.size, "128: the released pictures are stored as they are")
        check_field(1 <= self.action <= len(ACTIONS), "action", self.action, f"1 to {len(ACTIONS)}")
        check_field(self.validation_count >= 0, "validation_count", self.validation_count, ">= 0 rows")

    @property
    def action_name(self) -> str:
        """Such as 'WalkDog'."""
        return ACTIONS[self.action - 1]

    def config_name(self) -> str:
        """Such as '128px_A14_validation200'."""
        return f"{self.size}px_A{self.action}_validation{self.validation_count}" + "_rounded" * self.round_pictures
