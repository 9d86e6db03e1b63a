"""Which pictures and videos are meant by files and folders, and a picture of any usual kind as RGB numbers."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import logging
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fusion_jax.errors import UserError

MAX_PIXELS = 100_000_000
"""A picture of more pixels is refused by its header, undecoded: decoding takes gigabytes, and it may be a trap."""
MAX_SIDE = 65_535
"""px along one side, as JPEG itself has it; strips of millions of px cost much and show nobody."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
UNREADABLE_SUFFIXES = (".heic", ".heif", ".avif", ".raw", ".cr2", ".nef", ".dng", ".psd", ".jp2", ".svg")
"""Pictures of kinds that cannot be read; a folder's are passed over, and said so."""
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts")
# Pillow knows fifty more; some of them start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_KINDS = "JPEG, PNG, WebP, BMP, TIFF or GIF"
_RESERVED = ("poses", "index")  # what the results of all pictures together are called
_LONGEST = 200  # bytes of a result's name; file systems take 255, and suffixes come to it


class Input(NamedTuple):
    """A file to read.

    Attributes:
      path: as given, or as found in a given folder.
      stem: what to call its results, different for all inputs, also where a file system ignores case.
      label: what results call it: its file name or, where several inputs have that, the path as given.
    """

    path: pathlib.Path
    stem: str
    label: str


class Inputs(NamedTuple):
    """Pictures and videos, each kind in the order of the arguments, a folder's files in natural order.

    `passed_over` are pictures in given folders that are of a kind that cannot be read.
    """

    pictures: tuple[Input, ...]
    videos: tuple[Input, ...]
    passed_over: tuple[pathlib.Path, ...] = ()


def find_inputs(paths: Sequence[pathlib.Path]) -> Inputs:
    """The pictures and videos that files and folders stand for.

    A folder stands for its own pictures and videos, known by their suffix and sorted as people count (2 before 10);
    its subfolders and hidden files (a leading dot) are left out. A file that is given twice counts once.

    Results are called after the file's name without suffix, `a` for `x/a.jpg`. Inputs that would share that name are
    called after their whole name, `a.jpg` and `a.png`; those that share that too also after the folder, `x_a.jpg` and
    `y_a.jpg`, and so on; in the end after a hash of their path, as is a name that is very long. `poses` and `index` are
    kept for the results of all. The names depend on which inputs there are and not on their order, so that the same
    command finds its results again.

    Raises:
      UserError: a path is missing or of a kind that is not known, or a folder holds nothing.
    """
    if not paths:
        raise UserError("no input: expected pictures, videos or folders of them")
    found: dict[str, pathlib.Path] = {}
    passed_over: dict[str, pathlib.Path] = {}
    for path in paths:
        for file in _files_of(path):
            kind = passed_over if file.suffix.lower() in UNREADABLE_SUFFIXES else found
            kind.setdefault(os.path.abspath(file), file)
    count = collections.Counter(file.name for file in found.values())
    both = [
        Input(file, stem, file.name if count[file.name] == 1 else str(file))
        for file, stem in zip(found.values(), _distinct_names(list(found)), strict=True)
    ]
    return Inputs(
        tuple(one for one in both if one.path.suffix.lower() in PICTURE_SUFFIXES),
        tuple(one for one in both if one.path.suffix.lower() in VIDEO_SUFFIXES),
        tuple(passed_over.values()),
    )


def read_photo(path: pathlib.Path) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a JPEG, PNG, WebP, BMP, TIFF or GIF (its first frame), upright as its EXIF says.

    What is transparent is laid on white. 16 bits are scaled to 8, 65535 becoming 255. CMYK is taken to be Adobe's,
    as in practically all such JPEG files, and converted without a colour profile; all profiles are ignored.

    Raises:
      UserError: the file is missing, empty, no such picture, damaged or cut off, holds numbers of no known scale
        (32 bits or floating point), or has more than MAX_PIXELS pixels or MAX_SIDE along a side.
    """
    _check_start(path)
    try:
        # Not by its name: Pillow would map the file into memory, and garble a TIFF that lies on its side (13.0).
        with _quiet_pillow(), path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise UserError(
                    f"{path} has {width} x {height} pixels, more than the {MAX_PIXELS} in all or {MAX_SIDE} along a "
                    "side that are admitted; save it smaller"
                )
            return _to_rgb(path, image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture of a kind that can be read; expected {_KINDS}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than the {MAX_PIXELS} pixels that are admitted; save it smaller") from None
    except Exception as error:  # of damaged files Pillow's decoders raise nearly anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} cannot be decoded ({reason}); it is damaged or cut off, copy it again") from None


def _to_rgb(path: pathlib.Path, image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        # Pillow hands on 12 bits, and numbers that fall with brightness, as if they were the usual 16.
        if tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
            raise UserError(f"{path} is a TIFF of an unusual kind (12 bits, or 0 is white); save it as a usual PNG")
        values = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint32)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise UserError(
            f"{path} holds 32-bit or floating-point numbers, whose scale is not known; save it with 8 or 16 bits"
        )
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _check_start(path: pathlib.Path) -> None:
    """Refuses, in words of its own, what is no picture file at all."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, expected a picture")
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if not path.is_file():  # a pipe would wait for ever
            raise UserError(f"{path} is no ordinary file, expected a picture")
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not start:
        raise UserError(f"{path} is empty; copy it again")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        raise UserError(f"{path} is a web page or a drawing in text under a picture's name; expected {_KINDS}")
    if start[4:8] == b"ftyp":
        raise UserError(f"{path} is a HEIC, AVIF or video file; save it as JPEG or, if it is a video, with its suffix")


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keeps Pillow's remarks on damaged metadata from the one line that says what is wrong."""
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """A file itself; a folder's pictures, those that cannot be read included, and videos."""
    known = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    try:
        if not path.is_dir():
            if not path.exists():
                raise UserError(f"{path} does not exist; expected a picture, a video or a folder")
            if path.suffix.lower() not in known:
                raise UserError(f"{path} has no suffix of a picture or a video; known are {' '.join(known)}")
            return [path]
        wanted = (*known, *UNREADABLE_SUFFIXES)
        files = [file for file in path.iterdir() if file.suffix.lower() in wanted and not file.name.startswith(".")]
        files = [file for file in files if not file.is_dir()]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if all(file.suffix.lower() in UNREADABLE_SUFFIXES for file in files):
        raise UserError(f"{path} holds no picture and no video; known are {' '.join(known)}")
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key by which frame2 comes before frame10; of names that are equal but for case or zeros any, but always."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def _distinct_names(files: list[str]) -> list[str]:
    """For absolute paths, all different: the shortest names of the kinds told in `find_inputs` that differ."""
    parts = [pathlib.Path(file).parts for file in files]
    depth = [0] * len(files)

    def name(i: int) -> str:
        own, n = parts[i], depth[i]
        text = pathlib.Path(own[-1]).stem if n == 0 else "_".join(part.strip(os.sep) for part in own[-n:])
        long = len(os.fsencode(text)) > _LONGEST
        if n <= len(own) and not long:
            return text
        start = os.fsencode(text)[:150].decode("utf-8", "ignore") if long else own[-1]
        return f"{start}_{hashlib.sha256(os.fsencode(files[i])).hexdigest()[:8]}"  # or a.jpg and a.JPG in one folder

    while True:
        names = [name(i) for i in range(len(files))]
        count = collections.Counter([*_RESERVED, *(one.casefold() for one in names)])
        repeated = [i for i, one in enumerate(names) if count[one.casefold()] > 1]
        if not repeated:
            return names
        for i in repeated:
            depth[i] += 1
