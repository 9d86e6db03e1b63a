"""A folder of numbered pictures in a video's place, with the face of `Video`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from data_pipelines.humaneva.files import stand_in
from data_pipelines.video import Video, read_picture
from fusion_jax.errors import UserError

SUFFIXES = (".bmp", ".png", ".tif", ".tiff")


def open_pictures(path: pathlib.Path) -> Video | PictureFolder:
    """The pictures of a video `<name>.avi`, or of the folder `<name>` beside it where there is one.

    Raises:
      UserError: neither is there or it cannot be opened.
    """
    folder = stand_in(path)
    return Video(path) if folder is None else PictureFolder(folder)


class PictureFolder:
    """Numbered pictures; the one with the lowest number is frame 0.

    Attributes:
      path: the folder.
      size: (width, height) px of the first picture.
      num_frames: how many there are.
    """

    def __init__(self, path: pathlib.Path):
        """Lists a folder. Raises UserError where it holds no pictures or their numbers tell no clear order."""
        self.path = path
        self._files = ordered_pictures(path)
        height, width = read_picture(self._files[0]).shape[:2]
        self.size, self.num_frames = (width, height), len(self._files)

    def frames(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number, RGB (H, W, 3) uint8) of the wanted frames, counted from 0; ends where the pictures do.

        Raises:
          UserError: a picture does not decode, or differs from the first in size.
        """
        for number in wanted:
            if number >= len(self._files):
                return
            picture = read_picture(self._files[number])
            if picture.shape[1::-1] != self.size:
                found, first = (" x ".join(map(str, size)) for size in (picture.shape[1::-1], self.size))
                raise UserError(
                    f"{self._files[number]} is {found} px, the folder's first picture {first}; fetch it again"
                )
            yield int(number), picture

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> PictureFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ordered_pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """The pictures of a folder by the last number in their names.

    Which number a folder begins with is not known, so that 0 and 1 both mean the video's first frame; any other
    start, and any gap, would shift every picture and is refused.

    Raises:
      UserError: there is none, a number is missing, used twice, or they begin elsewhere.
    """
    numbered: dict[int, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        digits = re.findall(r"\d+", path.stem)
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or not digits:
            continue
        number = int(digits[-1][-18:])
        if number in numbered:
            raise UserError(f"{folder}: {numbered[number].name} and {path.name} have one number; keep one of them")
        numbered[number] = path
    if not numbered:
        raise UserError(f"{folder} holds no numbered bmp, png or tif pictures; fill it, or remove it to use the video")
    numbers = sorted(numbered)
    if numbers[0] > 1:
        raise UserError(f"{folder}: the first picture is number {numbers[0]}, expected 0 or 1; add those before it")
    gaps = [n for n, following in zip(numbers, numbers[1:], strict=False) if following != n + 1]
    if gaps:
        raise UserError(f"{folder}: after picture {gaps[0]} number {gaps[0] + 1} is missing; fetch it")
    return [numbered[number] for number in numbers]
