"""What a user can choose of HumanEva-I. No heavy imports: the command line reads this."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from data_pipelines.humaneva.tables import ACTIONS, COLOUR_CAMERAS, SUBJECTS
from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class HumanevaSettings:
    """HumanEva-I: 15 joints of trial 1 of S1 to S3 at video time, from the raw motion capture files."""

    size: int = 128
    """Side of the crops, px."""
    cameras: tuple[str, ...] = COLOUR_CAMERAS
    """Colour cameras to prepare."""
    actions: tuple[str, ...] = ACTIONS
    """Actions to prepare."""
    frame_step: int = 1
    """Keeps each half's first frame and every N-th after it."""
    box_margin: float = 0.15
    """Room around the joints' tight square at each side, as a share of that square."""
    validation_subjects: tuple[str, ...] = ("S3",)
    """Whose training halves are held out to select models by; none: all of them are for training."""
    damaged: Literal["drop", "keep"] = "drop"
    """What to do with S3 ThrowCatch 1, whose motion capture is damaged."""
    head_check: bool = True
    """Masks the head joint in S3 Walking 1 where it lies below the thorax: its head point is on the chest there."""

    def __post_init__(self):
        _check(16 <= self.size <= 1024, "size", self.size, "16 to 1024 px")
        _check(self.frame_step >= 1, "frame_step", self.frame_step, "at least 1")
        finite = math.isfinite(self.box_margin)
        _check(finite and 0 <= self.box_margin <= 2, "box_margin", self.box_margin, "0 to 2")
        _check(self.damaged in ("drop", "keep"), "damaged", self.damaged, "drop or keep")
        _check_names("cameras", self.cameras, COLOUR_CAMERAS)
        _check_names("actions", self.actions, ACTIONS)
        _check_names("validation_subjects", self.validation_subjects, SUBJECTS, empty=True)
        if set(self.validation_subjects) == set(SUBJECTS):
            raise UserError(
                "humaneva: validation_subjects holds everybody, which leaves nobody to train on; leave one out"
            )

    def config_name(self) -> str:
        """Such as '128px_step1_C1-C2-C3_valS3'; what is not the default is added."""
        default = {field.name: field.default for field in dataclasses.fields(self)}
        words = [f"{self.size}px", f"step{self.frame_step}", "-".join(self.cameras)]
        words += ["-".join(self.actions)] if self.actions != default["actions"] else []
        words += ["val" + ("-".join(self.validation_subjects) or "none")]
        words += [f"margin{self.box_margin!r}"] if self.box_margin != default["box_margin"] else []
        words += ["damagedkept"] if self.damaged == "keep" else []
        words += [] if self.head_check else ["headsunchecked"]
        return "_".join(words)


def _check(ok: bool, field: str, value: object, expected: str) -> None:
    if not ok:
        raise UserError(f"humaneva: {field} is {value!r}, expected {expected}")


def _check_names(field: str, names: tuple[str, ...], known: tuple[str, ...], empty: bool = False) -> None:
    fitting = set(names) <= set(known) and len(set(names)) == len(names) and (empty or bool(names))
    _check(fitting, field, names, f"{'some, none or all' if empty else 'some'} of {', '.join(known)}, each once")
