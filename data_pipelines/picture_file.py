"""Whether a picture file is whole, by its first and last bytes: a look that is quick enough for every file."""

from __future__ import annotations

import pathlib

from data_pipelines.picture_marks import MARKS, TAIL_BYTES
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError


def picture_problem(path: pathlib.Path, kind: str, remedy: str, *, look_at_end: bool = True) -> str | None:
    """What is wrong with a picture file, without its name; None where it begins and ends as its kind does.

    Of a file that was cut off OpenCV makes a picture with a grey rest.

    Args:
      kind: JPEG or PNG.
      remedy: what to do, such as 'unpack its zip again'.
      look_at_end: whether it must have its kind's end mark.
    """
    if not path.is_file():
        return f"missing; {remedy}"
    try:
        check_not_text(path)
    except UserError as error:
        return str(error).removeprefix(f"{path} ")
    begin, mark = MARKS[kind]
    with path.open("rb") as file:
        start = file.read(len(begin))
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        end = file.read(TAIL_BYTES) if look_at_end else mark
    if start != begin:
        return f"no {kind} (it starts with {start!r}); {remedy}"
    return None if mark in end else f"cut off, it lacks {kind}'s end mark; {remedy}"
