"""The bytes that a picture's file begins and ends with, and whether the latter are there."""

from __future__ import annotations

MARKS = {"JPEG": (b"\xff\xd8\xff", b"\xff\xd9"), "PNG": (b"\x89PNG\r\n\x1a\n", b"IEND")}
"""By kind."""
TAIL_BYTES = 4096
"""In which the end mark must be; some programs write a little behind it."""

_USUAL_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")


def lacks_end(data: bytes) -> str | None:
    """The kind of a picture that was cut off, None where it is whole or of a kind that is not known here.

    Some decoders make a picture with a grey rest of what is left.
    """
    if data.endswith(_USUAL_ENDS):  # at once, for nearly all
        return None
    for kind, (begin, end) in MARKS.items():
        if data.startswith(begin[:3]):
            return kind if data.rfind(end, -TAIL_BYTES) < 0 else None
    return None
