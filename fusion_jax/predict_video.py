"""A video of what was found: each frame with its 2D joints beside the 3D poses, which turn slowly, as an MP4 file."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pathlib
import subprocess
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.pose_pictures import usable_bones
from fusion_jax.pose_record import PersonPose, PersonView
from fusion_jax.predict_pictures import FONT, RGB, Color, paint_dot, paint_line, paint_person, person_number
from fusion_jax.skeletons import skeleton

MOST_POSES = 6
"""So many people's 3D poses are drawn beside a frame."""
_LOWEST, _HIGHEST = 360, 720  # px, height of the written frames
_NARROWEST, _WIDEST = 0.4, 2.5  # width of the picture in them, in heights; beyond that it stands in a grey frame
_FRAME, _PAPER = 60, 250  # greys
_INK, _SOFT, _GRID = (29, 39, 51), (91, 104, 119), (205, 213, 221)
_TILT_DEG = 12  # 3D poses are seen from a little above, so that the ground is an area and not a line
_SIDEWAYS_MM, _UP_MM, _DOWN_MM = 1060, 1300, 1150  # shown at least around a root: nobody shrinks as they stretch
_GROUND_MM = (-750, -250, 250, 750)  # where the grid's lines run


class PoseVideo:
    """An MP4 file being written; a context manager. At the end of the block the file appears under its name, whole.

    After an error or a kill there is none, and an older one stays as it was. With the `video` extra (imageio-ffmpeg)
    it is H.264, which browsers play; else MPEG-4 part 2 by OpenCV, for video players. The frames are the same.

    Attributes:
      path: the file.
      codec: which of the two.
      num_frames: written so far.
    """

    def __init__(self, path: pathlib.Path, size: tuple[int, int], fps: float):
        """Checks the arguments; nothing is opened yet.

        Args:
          path: ends in .mp4.
          size: (width, height) px, both even, see `frame_size`.
          fps: frames a second, 0.1 to 1000.

        Raises:
          UserError: an argument is out of its range.
        """
        if path.suffix.lower() != ".mp4":
            raise UserError(f"{path} does not end in .mp4; give a name that does")
        if any(n < 2 or n % 2 for n in size):
            raise UserError(f"{path}: frames of {size[0]} x {size[1]} px cannot be written, expected even numbers")
        if not 0.1 <= fps <= 1000:  # false of NaN too
            raise UserError(f"{path}: {fps} frames a second cannot be written, expected 0.1 to 1000")
        if not _is_text(str(path)):
            raise UserError(f"{str(path)!r} is no text in UTF-8, on which the video library breaks; give another name")
        self.path, self.size, self.fps, self.num_frames = path, size, float(fps), 0
        self.codec = "H.264" if importlib.util.find_spec("imageio_ffmpeg") else "MPEG-4 part 2"
        self._partial = path.absolute().with_name(f".{path.stem}.partial.mp4")

    def __enter__(self) -> PoseVideo:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        start = _start_h264 if self.codec == "H.264" else _start_mpeg4
        try:
            self._write, self._finish = start(self._partial, self.size, self.fps)
        except OSError:
            raise self._broken() from None
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame (H, W, 3) uint8, RGB. Raises UserError where it is of another size, or the disk is full."""
        width, height = self.size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise UserError(
                f"{self.path}: frame {self.num_frames} is {frame.shape} {frame.dtype}, expected "
                f"{(height, width, 3)} uint8"
            )
        try:
            self._write(np.ascontiguousarray(frame))
        except OSError:  # ffmpeg has ended; its own text on standard error says why
            raise self._broken() from None
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._finish()
            if kind is None:
                if not self.num_frames:
                    raise UserError(f"{self.path} is not written: there was no frame to write")
                if _count_frames(self._partial) != self.num_frames:  # OpenCV's writer reports no error
                    raise self._broken()
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _broken(self) -> UserError:
        return UserError(f"{self.path} could not be written as {self.codec}; see that its folder and disk have room")


Writer = tuple[Callable[[np.ndarray], object], Callable[[], object]]  # takes a frame; ends the file


def _start_h264(path: pathlib.Path, size: tuple[int, int], fps: float) -> Writer:
    import imageio_ffmpeg

    try:
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError("imageio-ffmpeg is installed but finds no ffmpeg; install ffmpeg or remove it") from None
    # Its own writer forks in a way that can hang beside jax's threads, so the program alone is taken from it.
    pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(fps), "-i", "-"]
    coding = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    process = subprocess.Popen(
        [ffmpeg, "-y", "-loglevel", "error", *pictures, *coding, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is ours to handle
    )
    frames = process.stdin
    assert frames is not None

    def finish() -> None:
        with contextlib.suppress(OSError):  # it has ended already; what it wrote is checked
            frames.close()
        process.wait()

    return lambda frame: frames.write(frame.data), finish


def _start_mpeg4(path: pathlib.Path, size: tuple[int, int], fps: float) -> Writer:
    out = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not out.isOpened():
        path.unlink(missing_ok=True)
        raise OSError
    return lambda frame: out.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)), out.release


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # a file's name need not be text
        return False


def _count_frames(path: pathlib.Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count


def frame_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px, both even, of the frames that `compose_frame` makes of width x height pictures."""
    left, side = _left_size(width, height)
    return left + side, side


def compose_frame(image: np.ndarray, views: Sequence[PersonView], turn_deg: float) -> np.ndarray:
    """A frame (H', W', 3) uint8, RGB, of the size that `frame_size` says; some milliseconds of work.

    Left is the picture with everybody's box and 2D joints (hollow, on thin pale bones, where the confidence is low),
    right a square with the 3D poses of the first `MOST_POSES` people without perspective, each around their own root
    and all at one scale. The grid is level with the camera, at the height of the lowest joint.

    Args:
      image: (H, W, 3) uint8, RGB.
      views: the people found in it; may be empty.
      turn_deg: by how much the 3D poses are turned about the vertical; 0 is as the camera sees them.
    """
    height, width = image.shape[:2]
    left, side = _left_size(width, height)
    frame = np.full((side, left + side, 3), _FRAME, np.uint8)
    scale = min(left / width, side / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (left - size[0]) // 2, (side - size[1]) // 2
    picture = frame[y : y + size[1], x : x + size[0]]
    if size == (width, height):
        picture[:] = image
    else:
        picture[:] = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    numbered = sorted((person_number(view.pose, place), view.pose) for place, view in enumerate(views, 1))
    for number, pose in numbered:
        paint_person(picture, pose, str(number), np.array(size) / (width, height))
    _draw_panel(frame[:, left:], numbered, turn_deg)
    return frame


def _left_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px of the picture's place in a frame, both even."""
    side = 2 * round(min(max(height, _LOWEST), _HIGHEST) / 2)
    return 2 * round(side * min(max(width / height, _NARROWEST), _WIDEST) / 2), side


def _draw_panel(panel: np.ndarray, numbered: Sequence[tuple[int, PersonPose]], turn_deg: float) -> None:
    """Fills the square `panel` with the 3D poses, each in a cell of its own."""
    side, letter = len(panel), len(panel) / 480
    panel[:] = _background(side)
    shown = numbered[:MOST_POSES]
    if not shown:
        _text(panel, "nobody was found in this frame", (side / 2, side / 2), 0.5 * letter, _SOFT, centred=True)
        return
    whom = f"{len(shown)} of the {len(numbered)}" if len(shown) < len(numbered) else f"{len(numbered)}"
    title = "3D pose" if len(numbered) == 1 else f"3D poses of {whom} people"
    _text(panel, f"{title}, seen from all sides", (10 * letter, 14 * letter), 0.5 * letter, _INK)
    rows, columns = 1 + (len(shown) > 3), min(3, len(shown))
    top, bottom = round(30 * letter), side - round(46 * letter)
    for place, (number, pose) in enumerate(shown):
        row, column = divmod(place, columns)
        across = slice(side * column // columns, side * (column + 1) // columns)
        down = slice(top + (bottom - top) * row // rows, top + (bottom - top) * (row + 1) // rows)
        cell = panel[down, across]
        _draw_pose(cell, pose, turn_deg)
        lines = [f"person {number}"] if len(numbered) > 1 else []
        if pose.position_mm is not None:
            lines.append(f"{np.linalg.norm(pose.position_mm) / 1000:.1f} m away")
        for number, line in enumerate(lines):
            _text(cell, line, (cell.shape[1] / 2, (12 + 15 * number) * letter), 0.4 * letter, _SOFT, centred=True)


@functools.lru_cache(maxsize=4)
def _background(side: int) -> np.ndarray:
    """The panel without a pose: what colours and grid mean."""
    panel, letter = np.full((side, side, 3), _PAPER, np.uint8), side / 480
    x, y = 10 * letter, side - 32 * letter
    for name, color in (("person's left", "left"), ("person's right", "right"), ("middle of the body", "middle")):
        paint_line(panel, np.array([[x, y], [x + 20 * letter, y]]), RGB[color], 3)
        x += 40 * letter + _text(panel, name, (x + 26 * letter, y), 0.42 * letter, _INK)
    grid = "grid of 0.5 m; its dark edge is on the side of the camera"
    _text(panel, grid, (10 * letter, side - 13 * letter), 0.42 * letter, _SOFT)
    panel.flags.writeable = False
    return panel


def _draw_pose(cell: np.ndarray, pose: PersonPose, turn_deg: float) -> None:
    """Draws one 3D pose, turned, over its grid."""
    height, width = cell.shape[:2]
    layout, pose_mm = skeleton(pose.skeleton), pose.pose_mm.astype(np.float64)
    # How far the pose reaches however it is turned, so that turning changes no scale.
    around = 1.05 * float(np.hypot(pose_mm[:, 0], pose_mm[:, 2]).max())
    tilted = around * np.sin(np.deg2rad(_TILT_DEG))
    sideways = max(_SIDEWAYS_MM, around)
    up, down = max(_UP_MM, tilted - 1.05 * pose_mm[:, 1].min()), max(_DOWN_MM, tilted + 1.05 * pose_mm[:, 1].max())
    scale = min(width / (2 * sideways), height / (up + down))
    turned = view_rotation(turn_deg).T * scale
    root = np.array([width / 2 - 0.5, height * up / (up + down) - 0.5, 0])

    ground, edge = float(pose_mm[:, 1].max()), _GROUND_MM[-1]
    for at in _GROUND_MM:
        along = np.array([[at, ground, -edge], [at, ground, edge]]), np.array([[-edge, ground, at], [edge, ground, at]])
        paint_line(cell, along[0] @ turned + root, _GRID, 1)
        paint_line(cell, along[1] @ turned + root, _SOFT if at == -edge else _GRID, 1)

    px = pose_mm @ turned + root
    thickness = max(2, round(27 * scale))
    bones = usable_bones(px, np.ones(len(px), bool), layout)
    for bone, side in sorted(bones, key=lambda found: -px[found[0], 2].mean()):
        # Far ones first, each with a rim that parts it from what it hides.
        paint_line(cell, px[bone], (_PAPER, _PAPER, _PAPER), thickness + 2)
        paint_line(cell, px[bone], RGB[side], thickness)
        for joint in bone:
            paint_dot(cell, px[joint], RGB[layout.side(joint)], thickness, hollow=False)


def view_rotation(turn_deg: float) -> np.ndarray:
    """The rotation (3, 3) from the camera frame to the panel: right, down and away from the viewer.

    About the vertical (camera y) by `turn_deg`, then tilted as if seen from a little above. Its determinant is 1, so
    nobody is mirrored.
    """
    turn, tilt = np.deg2rad([turn_deg, _TILT_DEG])
    about_y = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    return np.array(about_x) @ np.array(about_y)


def _text(
    picture: np.ndarray, text: str, at: tuple[float, float], letter: float, color: Color, *, centred: bool = False
) -> int:
    """Writes a line whose middle is at the height `at[1]`, and begins or, if `centred`, is in the middle at `at[0]`.

    Returns its width, px.
    """
    (width, height), _ = cv2.getTextSize(text, FONT, letter, 1)
    start = round(at[0] - (width / 2 if centred else 0)), round(at[1] + height / 2)
    cv2.putText(picture, text, start, FONT, letter, color, 1, cv2.LINE_AA)
    return width
