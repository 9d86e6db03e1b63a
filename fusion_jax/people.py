"""Where the people are in a picture, the square the networks see of each, and that square cut out. No jax.

Pixels as in geometry.py: (0, 0) is the centre of the top left pixel, so that a W x H picture is the box
[-0.5, -0.5, W, H]. A box is [x, y, width, height], a square [left, top, side]; both give edges.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from scipy import sparse

from fusion_jax.errors import UserError

MARGIN = 0.09
"""Share of a box's longer side added at each side: the middle of what the synthetic people are trained with."""
REPEAT_BORDER = True
"""What a crop shows beyond the picture: its border repeated, as augmentation does in training; else black."""
WORKING_SIZE = 640
"""px; the longer side of the picture in which people are looked for. They must be about 100 px tall there."""
MIN_SCORE = 0.5
"""Of the detector's linear classifier. Lower finds more people, and more where nobody is; see `find_people`."""
MAX_OVERLAP = 0.5
"""Of two boxes that share more than this of the smaller one, the less certain one is dropped."""
# The people the detector was trained on fill three quarters of its window's height. Medians on rendered people.
_WIDTH_IN_WINDOW, _HEIGHT_IN_WINDOW = 0.63, 0.73
MOST_BOXES = 1000
"""So many boxes may be given for a picture; more is a mistake that would take hours."""
_BLOCK = 2**21  # values of a picture that are converted at a time


def parse_box(text: str) -> np.ndarray:
    """The box (4,) float64 of 'x,y,width,height'. Raises UserError where it is none."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise UserError(f"box {text!r}: expected x,y,width,height in px, such as 120,40,200,380")
    return np.array(numbers)


def check_box(box: np.ndarray, image_size: tuple[int, int]) -> None:
    """Refuses a box that can hold no person of the picture; `image_size` is (width, height) px.

    A box may stick out of the picture, as that of a person who is cut off does, and is never clipped, so that the
    person's scale stays right. But at least half of its area must lie in the picture; two corners in place of a corner
    and a size often give a box that does not.

    Raises:
      UserError: naming the box and the picture's size.
    """
    width, height = image_size
    shown = f"box {','.join(f'{float(v):.6g}' for v in box)} in a picture of {width} x {height} px"
    if not np.isfinite(box).all():
        raise UserError(f"{shown}: expected finite numbers x,y,width,height")
    x, y, w, h = (float(v) for v in box)
    if w < 1 or h < 1:
        raise UserError(f"{shown}: expected a width and a height of at least 1 px, as in x,y,width,height")
    across, down = min(x + w, width - 0.5) - max(x, -0.5), min(y + h, height - 0.5) - max(y, -0.5)
    if max(across, 0.0) / w * (max(down, 0.0) / h) < 0.5:
        raise UserError(f"{shown}: less than half of it lies in the picture; expected x,y,width,height in px")


def whole_picture_box(image_size: tuple[int, int]) -> np.ndarray:
    """The box (4,) float64 of a whole picture of (width, height) px."""
    return np.array([-0.5, -0.5, *image_size], np.float64)


def person_crop(box: np.ndarray, image_size: tuple[int, int], margin: float = MARGIN) -> np.ndarray:
    """The square [left, top, side] (3,) float64 that the networks see of a person in a box (4,).

    Its middle is the box's, its side `(1 + 2 margin)` times the box's longer side.

    Raises:
      UserError: see `check_box`.
    """
    check_box(box, image_size)
    x, y, width, height = (float(v) for v in box)
    side = max(width, height) * (1 + 2 * margin)
    return np.array([x + width / 2 - side / 2, y + height / 2 - side / 2, side])


def cut(image: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
    """The square [left, top, side] of a picture (H, W, 3) uint8 as (size, size, 3) uint8; any real numbers will do.

    A pixel of the crop is the mean over a square of the picture around its own place in it, which is exactly where
    `geometry.crop_matrix(square, size)` says. The mean is over what the pixel covers, so that fine patterns do not
    alias, and over at least 1 x 1 px, which is linear interpolation. Beyond the picture see REPEAT_BORDER. Memory and
    time depend on the crop and on the part of the picture inside the square, not on its side.

    Raises:
      UserError: the square is not finite or its side is not above 0.
    """
    if not np.isfinite(square).all() or square[2] <= 0:
        raise UserError(f"square {np.asarray(square).tolist()}: expected finite left, top and a side above 0")
    left, top, side = (float(v) for v in square)
    rows, first_row = _averages(top, side, size, image.shape[0])
    columns, first_column = _averages(left, side, size, image.shape[1])
    inside = image[first_row : first_row + rows.shape[1], first_column : first_column + columns.shape[1]]
    # The longer axis first, block by block: a float copy of the whole picture could take gigabytes.
    if inside.shape[0] >= inside.shape[1]:
        return _shrink(inside, rows, columns)
    return np.ascontiguousarray(_shrink(inside.swapaxes(0, 1), columns, rows).swapaxes(0, 1))


def _shrink(image: np.ndarray, first: sparse.csr_array, second: sparse.csr_array) -> np.ndarray:
    """(size, size, 3) uint8: weights (size, H) along the first axis of (H, W, 3), then (size, W) along the second."""
    length, width = image.shape[:2]
    step = max(1, _BLOCK // (3 * width))
    lines = np.zeros((first.shape[0], width * 3), np.float32)
    for start in range(0, length, step):
        block = image[start : start + step].astype(np.float32)
        lines += first[:, start : start + step] @ block.reshape(len(block), -1)
    turned = lines.reshape(-1, width, 3).swapaxes(0, 1).reshape(width, -1)
    out = (second @ turned).reshape(second.shape[0], first.shape[0], 3).swapaxes(0, 1)
    return np.ascontiguousarray(np.clip(np.rint(out), 0, 255).astype(np.uint8))


def _averages(start: float, side: float, size: int, length: int) -> tuple[sparse.csr_array, int]:
    """Along one axis: (size, n) weights of the n picture px from the returned one on, of `length` px in all."""
    scale = side / size
    width = max(scale, 1.0)
    middle = start + (np.arange(size) + 0.5) * scale
    low, high = middle - width / 2, middle + width / 2
    first = np.clip(np.floor(low + 0.5), 0, length - 1).astype(np.int64)
    last = np.clip(np.ceil(high - 0.5), 0, length - 1).astype(np.int64)
    count = last - first + 1
    row = np.repeat(np.arange(size), count)
    column = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    pixel_low, pixel_high = column - 0.5, column + 0.5
    if REPEAT_BORDER:
        pixel_low[column == 0] = -np.inf
        pixel_high[column == length - 1] = np.inf
    overlap = np.minimum(high[row], pixel_high) - np.maximum(low[row], pixel_low)
    weight = (np.maximum(overlap, 0) / width).astype(np.float32)
    shape = (size, int(last.max() - first.min()) + 1)
    return sparse.csr_array((weight, (row, column - first.min())), shape), int(first.min())


def find_people(image: np.ndarray) -> list[np.ndarray]:
    """Boxes (4,) float64 around the people in a picture (H, W, 3) uint8 RGB, the most certain one first.

    OpenCV's histograms of oriented gradients with its linear classifier of people who stand or walk (Dalal and
    Triggs, CVPR 2005). It misses most who lie or are cut off, and all who are less than a seventh as tall as the
    picture's longer side. The same picture gives the same boxes.

    Measured on 448 pictures of 640 x 480 px of one rendered person each, others than those that gave the sizes above; a
    box counts as right where the square of `person_crop` has 0.8 to 1.25 times the true side and its middle is within
    0.15 sides of the true one. Of 256 people who stand, walk or run 80 % were found (walking 81 %, running 41 %), and
    in 10 % of these pictures there was no box at all; of 192 who sit, kneel, bend, squat, stretch or jump 62 % were
    found (sitting 47 %). There was one wrong box in four pictures. The middle of all boxes near a person had 0.97 times
    the true width and 1.01 times the true height; their squares, eight in ten, 0.91 to 1.08 times the true side. How
    it does on photos has not been measured.

    Raises:
      UserError: this OpenCV has no such detector.
    """
    height, width = image.shape[:2]
    scale = WORKING_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    detector = _detector()
    if size[1] < detector.winSize[1] * _HEIGHT_IN_WINDOW or size[0] < detector.winSize[0] * _WIDTH_IN_WINDOW:
        return []  # too narrow a strip for the smallest person it knows
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    windows, scores = detector.detectMultiScale(
        small, hitThreshold=MIN_SCORE, winStride=(8, 8), padding=(16, 16), scale=1.05, groupThreshold=0
    )
    if not len(windows):
        return []
    x, y, w, h = np.asarray(windows, np.float64).T
    middle_x, middle_y, w, h = x + w / 2, y + h / 2, w * _WIDTH_IN_WINDOW, h * _HEIGHT_IN_WINDOW
    # A window's first pixel is a number; its edge is half a pixel before. Then from the working size to the picture.
    factor = np.array([width / size[0], height / size[1]] * 2)
    boxes = np.stack([middle_x - w / 2, middle_y - h / 2, w, h], axis=1) * factor - [0.5, 0.5, 0, 0]
    # Threads find windows in any order: sorting by all numbers makes the choice between equals the same every time.
    order = np.lexsort((*boxes.T, -np.asarray(scores).ravel()))
    return [box for box in _without_repeats(boxes[order]) if _mostly_inside(box, (width, height))]


def _without_repeats(boxes: np.ndarray) -> list[np.ndarray]:
    """Of boxes (N, 4), the best first, those that share at most MAX_OVERLAP with every better one."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if all(_shared(box, other) <= MAX_OVERLAP for other in kept):
            kept.append(box)
    return kept


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """How much of the smaller of two boxes lies in both."""
    size = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(size, 0)) / min(np.prod(one[2:]), np.prod(other[2:])))


def _mostly_inside(box: np.ndarray, image_size: tuple[int, int]) -> bool:
    try:
        check_box(box, image_size)
    except UserError:
        return False
    return True


@functools.cache
def _detector() -> cv2.HOGDescriptor:
    if not hasattr(cv2, "HOGDescriptor"):
        raise UserError(
            f"OpenCV {cv2.__version__} has no people detector; install opencv-contrib-python-headless in place of "
            "opencv-python-headless, or say with --box where the person is"
        )
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return detector
