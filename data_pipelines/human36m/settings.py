"""What can be chosen when Human3.6M is prepared. No heavy imports."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Literal

from data_pipelines.human36m.sequences import SUBJECTS, TEST_SUBJECTS, TRAIN_SUBJECTS, table_bytes
from fusion_jax.errors import UserError, unknown_name

_BOX_NAMES = {"joints": "jointboxes", "masks": "maskboxes", "room": "roomboxes"}


@dataclasses.dataclass(frozen=True)
class Human36mSettings:
    """Human3.6M as single views: which people and frames, how the person is cut out, which known faults are mended."""

    size: int = 128
    """Side of the pictures, px."""
    frame_step: int = 5
    """Every which frame is kept, from the first; 5 is 10 per second and the usual choice, 1 keeps all."""
    subjects: tuple[str, ...] = SUBJECTS
    """Who is prepared; S1 S5 S6 S7 S8 are for training, S9 S11 for testing."""
    validation_subjects: tuple[str, ...] = ("S8",)
    """Training people who become the split `validation`, by which a network is chosen; none where empty."""
    boxes: Literal["joints", "masks", "room"] = "joints"
    """joints: around the projected joints. masks: the dataset's rectangles (archive Segments_mat_gt_bb), the joints'
    where a mask is empty. room: 2 m x 2 m around the pelvis."""
    margin: float = 0.15
    """With boxes around joints: share of the tight square's side that is added on each side."""
    projection: Literal["opencv", "published"] = "opencv"
    """Lens model of the 2D joints. opencv: agrees exactly with the stored camera. published: the form of the released
    2D poses, up to 1.4 px of the full picture away from it in the corners."""
    shift_s9: bool = False
    """Move S9's three displaced sequences back by 200 mm; most published numbers include them as they are."""
    broken_video: Literal["drop", "keep"] = "drop"
    """The video S11 Directions 54138969, which is missing or broken in many copies."""
    table: str = ""
    """File that lists other sequences and row counts than the dataset's; for made-up data."""

    def __post_init__(self):
        for field, low, high in (("size", 8, 2000), ("frame_step", 1, 10_000), ("margin", 0, 2)):
            if not low <= getattr(self, field) <= high:
                raise UserError(f"human36m: {field} is {getattr(self, field)}, expected {low} to {high}")
        for field, known in (("subjects", SUBJECTS), ("validation_subjects", TRAIN_SUBJECTS)):
            chosen = getattr(self, field)
            for subject in chosen:
                if subject not in known:
                    raise unknown_name(f"{field.replace('_', ' ')[:-1]} of human36m", subject, known)
            if len(set(chosen)) < len(chosen):
                raise UserError(f"human36m: {field} names someone twice ({' '.join(chosen)})")
        if not self.subjects:
            raise UserError(f"human36m: subjects is empty, expected some of {' '.join(SUBJECTS)}")

    def split(self, subject: str) -> str:
        """The split a subject belongs to."""
        if subject in TEST_SUBJECTS:
            return "test"
        return "validation" if subject in self.validation_subjects else "train"

    def config_name(self) -> str:
        """Such as '128px_step5_jointboxes'; whatever is not the default adds a word."""
        default = type(self)
        words = [f"{self.size}px", f"step{self.frame_step}", _BOX_NAMES[self.boxes]]
        if self.margin != default.margin and self.boxes != "room":
            words.append(f"margin{self.margin!r}")
        if self.subjects != default.subjects:
            words.append("".join(self.subjects))
        if self.validation_subjects != default.validation_subjects:
            words.append("val" + ("".join(self.validation_subjects) or "none"))
        words += ["published2d"] if self.projection == "published" else []
        words += ["shiftS9"] if self.shift_s9 else []
        words += ["allvideos"] if self.broken_video == "keep" else []
        words += [f"table{hashlib.sha256(table_bytes(pathlib.Path(self.table))).hexdigest()[:8]}"] if self.table else []
        return "_".join(words)
