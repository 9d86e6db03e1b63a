"""The little text files of HumanEva-I: read whole, bounded, as numbers."""

from __future__ import annotations

import math
import pathlib

from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

MAX_BYTES = 1_000_000  # the real ones hold a few hundred


def read_small_text(path: pathlib.Path) -> str:
    """The text of a file. Raises UserError: missing, empty, a web page, or far too large for one of these."""
    check_not_text(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is {path.stat().st_size} bytes, a text of numbers was expected; it is another file")
    return path.read_bytes().decode("latin-1")


def numbers(text: str, count: int, where: str, what: str) -> list[float]:
    """Exactly `count` finite numbers, split at any white space.

    Raises:
      UserError: naming `where` they stand, how many or which word came, and `what` was expected.
    """
    words = text.split()
    if len(words) != count:
        raise UserError(f"{where} holds {len(words)} words, expected {count} numbers ({what}); fetch the file again")
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise UserError(f"{where}: {word[:40]!r} is no finite number, expected {what}; fetch the file again")
    return found
