"""What can be chosen when MPII Human Pose is prepared. No heavy imports: the command line reads this."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Literal

from fusion_jax.errors import UserError, check_field


@dataclasses.dataclass(frozen=True)
class MpiiSettings:
    """All that determines which people are written and how their pictures are cut."""

    size: int = 256
    """Side of the crops, px."""
    crop: Literal["hourglass", "joints"] = "hourglass"
    """Square around a person: the stacked hourglass's (annotated centre and scale) or around the labelled joints."""
    people: Literal["all", "separated"] = "all"
    """Training people: every one with joints, or only those who stand well apart. Test people are the list's."""
    validation_count: int = 300
    """Training people held out as `validation`, whole pictures at a time; 0 for none."""
    share_pictures: bool = False
    """Also train on people who share a picture with a test person, as is usual; the picture is then in both splits."""
    pixel_origin: Literal[0, 1] = 1
    """Label of the first pixel's centre; MATLAB's 1 is likely but unconfirmed, the evidence is told in the outcome."""
    left_edge_absent: bool = False
    """Count a label with x <= 1 as absent, as the hourglass's original code did."""
    test_list: str = ""
    """File of 'annolist annorect picture' lines, 0-based: people to test on; without one the published 2,958."""

    def __post_init__(self):
        check_field(16 <= self.size <= 1024, "size", self.size, "16 to 1024 px")
        check_field(self.crop in ("hourglass", "joints"), "crop", self.crop, "hourglass or joints")
        check_field(self.people in ("all", "separated"), "people", self.people, "all or separated")
        check_field(self.validation_count >= 0, "validation_count", self.validation_count, ">= 0 people")
        check_field(self.pixel_origin in (0, 1), "pixel_origin", self.pixel_origin, "0 or 1")
        if self.test_list and not pathlib.Path(self.test_list).is_file():
            raise UserError(f"test_list: {self.test_list} is no file; give one of 'annolist annorect picture' lines")

    def config_name(self) -> str:
        """Such as '256px_hourglass_validation300', with what differs from the usual behind it."""
        name = f"{self.size}px_{self.crop}_validation{self.validation_count}"
        name += "_separated" if self.people == "separated" else ""
        name += "_sharedpictures" if self.share_pictures else ""
        name += "_origin0" if self.pixel_origin == 0 else ""
        name += "_leftedgeabsent" if self.left_edge_absent else ""
        if self.test_list:
            digest = hashlib.sha256(pathlib.Path(self.test_list).read_bytes()).hexdigest()[:8]
            name += f"_testlist{digest}"
        return name
