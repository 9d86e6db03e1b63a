"""What a check of the doctor found, and how checks are run so that none of them can stop the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
      name: of what was looked at.
      status: ok; warning: works, but look; problem: will not work.
      text: what was found.
      advice: what to do, empty where there is nothing to do.
    """

    name: str
    status: Status
    text: str
    advice: str = ""


def run_check(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What a check finds; an exception in it is a finding as well."""
    try:
        found = check()
    except Exception as error:
        advice = "mend the problems above first; without any, report this line"
        return [Finding(name, "problem", f"this check failed: {_words(error)}", advice)]
    return found if isinstance(found, list) else [found]


def _words(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
