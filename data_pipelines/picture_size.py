"""How large a picture says it is, told by its header: decoding a trap of a few kilobytes would take gigabytes."""

from __future__ import annotations

import io
import struct
import warnings

from PIL import Image

MAX_PIXELS = 100_000_000
"""Of a picture or of a video's frame; no dataset's has a tenth."""
MAX_BYTES = 10**9  # of a picture's file
UNDECODABLE = "cannot be decoded as a picture (truncated or of another kind); download it again"
_KINDS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_MOVING = (b"acTL", b"fcTL", b"fdAT")  # of animations, with sizes of their own
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers of a frame, which holds the size
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without contents


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) px of the bytes of a JPEG or PNG; None where they are neither, or do not tell."""
    if data.startswith(_PNG):
        return _png_size(data)
    at = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in (0xFF, 0x00):  # padding
            at += 1
        elif marker in (0xD9, 0xDA):  # the end, or the picture itself before its size
            return None
        else:
            at += 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Of a PNG whose pieces are all there: OpenCV makes room for one of 2 GB where a length of four bytes says so."""
    size, at = None, len(_PNG)
    while at < len(data):
        if at + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data) or kind in _MOVING or (kind == b"IHDR") != (size is None):
            return None
        if kind == b"IHDR":
            if length != 13:
                return None
            size = struct.unpack_from(">II", data, at + 8)
        if kind == b"IEND":
            return size
        at += 12 + length
    return None


def picture_fault(data: bytes) -> str | None:
    """What is wrong with a picture's bytes, in words behind its name: none, or too large; None where nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_KINDS) as picture:
                width, height = picture.size
    except Image.DecompressionBombError:
        return f"has more than the {MAX_PIXELS} pixels that are admitted; do not use it"
    except Exception:  # of what is no picture, or a damaged one, Pillow raises nearly anything
        return UNDECODABLE
    if data.startswith(_PNG) and _png_size(data) is None:
        return UNDECODABLE
    if width * height > MAX_PIXELS:
        return f"has {width} x {height} pixels, more than the {MAX_PIXELS} that are admitted; do not use it"
    return None
