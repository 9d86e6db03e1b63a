"""`S1.mp`: a subject's measures, as lines `$Name = value`, mm."""

from __future__ import annotations

import math
import pathlib
import re

from data_pipelines.humaneva.small_text import read_small_text
from fusion_jax.errors import UserError

_LINE = re.compile(r"^[ \t]*\$([^=\s]+)[ \t]*=[ \t]*(\S+)", re.MULTILINE)
MAX_OFFSET_MM = 500.0


class MarkerParams:
    """The lines of one file; names are matched as parts of a name, and the first line that matches wins."""

    def __init__(self, text: str, where: str):
        self._lines: list[tuple[str, str]] = _LINE.findall(text)
        self._where = where
        if not self._lines:
            raise UserError(f"{where} holds no line '$Name = value'; put the subject's own .mp file here")

    def value(self, name: str) -> float:
        """The value in mm of the first name that contains `name`.

        Raises:
          UserError: there is none, or it is no finite number of a body's size.
        """
        for found, word in self._lines:
            if name in found:
                try:
                    value = float(word)
                except ValueError:
                    value = math.nan
                if not math.isfinite(value) or abs(value) > MAX_OFFSET_MM:
                    raise UserError(
                        f"{self._where}: ${found[:60]} is {word[:40]!r}, expected a length in mm of at most "
                        f"{MAX_OFFSET_MM:g}; fetch the file again"
                    )
                return value
        raise UserError(f"{self._where} has no ${name}; put the subject's own .mp file here")


def read_shoulder_offsets(path: pathlib.Path) -> tuple[float, float]:
    """LShoulderOffset and RShoulderOffset, mm. Raises UserError as MarkerParams."""
    params = MarkerParams(read_small_text(path), str(path))
    return params.value("LShoulderOffset"), params.value("RShoulderOffset")
