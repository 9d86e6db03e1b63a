"""A video's frames in order, decoded once and never resampled in time."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from data_pipelines.picture_size import MAX_BYTES, MAX_PIXELS, UNDECODABLE, picture_fault
from fusion_jax.errors import UserError

# FFmpeg's own remarks on damaged files, thousands of them, would bury the one line that says what to do.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:  # OpenCV's own remarks too; it reads that variable on import alone
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class Video:
    """An open video file.

    Attributes:
      path: the file.
      size: (width, height) px, as decoded.
      num_frames: as the container says; the decoder has the last word.
      fps: frames a second, as the container says; 0 where it does not.
    """

    def __init__(self, path: pathlib.Path):
        """Opens a video. Raises UserError where it is missing, is something else, or holds no picture."""
        self.path = path
        check_not_text(path)
        # Absolute: FFmpeg takes what stands before a colon, as in 12:30.mp4, for a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise UserError(f"{path} cannot be opened as a video (truncated or of another kind); download it again")
        width, height, count = (
            int(self._capture.get(what))
            for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
        )
        if width < 1 or height < 1:
            self.close()
            raise UserError(f"{path} holds no picture; download it again")
        if width * height > MAX_PIXELS:
            self.close()
            raise UserError(f"{path} has frames of {width} x {height} px, more than {MAX_PIXELS} px; do not use it")
        self.size, self.num_frames = (width, height), count
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if 0 < fps < 10_000 else 0.0

    def frames(self, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, RGB (H, W, 3) uint8) of the wanted frames, rising and counted from 0, read from the start once.

        Ends early where the video does; frames that are not wanted are decoded but not converted.

        Raises:
          UserError: a frame is of a size or a kind that OpenCV breaks on.
        """
        position = 0
        for number in wanted:
            while position < number:
                if not self._capture.grab():
                    return
                position += 1
            try:
                done, picture = self._capture.read()
                if not done:
                    return
                picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            except cv2.error:
                raise UserError(
                    f"{self.path}: frame {position} cannot be decoded; it is too large or damaged"
                ) from None
            position += 1
            yield int(number), picture

    def decodes_fewer(self, position: int) -> int:
        """How many of the pictures that the header announces are lacking, decoded on to the end from `position`.

        In an AVI a damaged stretch is passed over, so that all later pictures move forward against their numbers; the
        count is what tells.
        """
        while self._capture.grab():
            position += 1
        return max(0, self.num_frames - position)

    def close(self) -> None:
        """Frees the decoder."""
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_picture(path: pathlib.Path) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a picture file of any usual kind, as stored (no turning by EXIF).

    Raises:
      UserError: it is missing, too large or does not decode.
    """
    check_not_text(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES)
    if fault := picture_fault(data):
        raise UserError(f"{path} {fault}")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        picture = None
    if picture is None:
        raise UserError(f"{path} {UNDECODABLE}")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def check_not_text(path: pathlib.Path) -> None:
    """Refuses what is under a file's name nothing of the kind, before a library breaks on it.

    Raises:
      UserError: the file is missing, cannot be read or is empty, its name is no text, or it is a web page or a list of
        other files, which FFmpeg would open.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV ends the process over such a name
        raise UserError(f"{str(path)!a} is no text in UTF-8, on which the picture library breaks; rename it") from None
    try:
        if not path.exists():
            raise UserError(f"{path} is missing; download it or correct the path")
        if not path.is_file():
            raise UserError(f"{path} is no ordinary file; correct the path")
        with path.open("rb") as file:
            start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not start:
        raise UserError(f"{path} is empty; download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path} is a web page saved under this name; the download needed a log-in or a newer address, fetch it "
            "again"
        )
    if start.startswith((b"ffconcat", b"#extm3u")):
        raise UserError(f"{path} is a list of other files and no video; give those files themselves")
