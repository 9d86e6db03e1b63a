"""Boxes, squares and crops: what maps where, what is refused; and the detector on rendered people."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.crops import crop_picture
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax import people
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, crop_matrix, world_to_image
from fusion_jax.people import check_box, cut, find_people, parse_box, person_crop, whole_picture_box

SIZE = (640, 480)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def ramp(height, width):
    """A picture whose red rises with x and green with y, one a pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8)


def test_a_box_is_four_numbers():
    np.testing.assert_array_equal(parse_box("1,2.5, 30,-4e1"), [1, 2.5, 30, -40])


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1 2 3 4", "a,b,c,d", "1,2,3,nan", "1,2,inf,4", "1,,2,3"])
def test_other_texts_are_no_box(text):
    with pytest.raises(UserError, match="expected x,y,width,height"):
        parse_box(text)


@pytest.mark.parametrize(
    "box",
    [
        (700, 0, 50, 50),
        (0, -60, 50, 50),
        (10, 10, 0, 50),
        (10, 10, 50, -3),
        (10, 10, 0.5, 50),
        (10, np.nan, 5, 5),
        (0, 0, np.inf, 5),
        (400, 150, 520, 460),  # corners, not width and height
        (-1e9, -1e9, 2e9, 2e9),
        (0, 0, 1e308, 1e308),
    ],
)
def test_a_box_that_can_hold_nobody_is_refused_with_the_pictures_size(box):
    with pytest.raises(UserError, match="640 x 480") as caught:
        person_crop(np.array(box, float), SIZE)
    assert "\n" not in str(caught.value)


def test_a_person_cut_off_by_the_border_keeps_their_scale():
    box = np.array([560.0, 100, 150, 300])  # 80 of 150 px inside
    check_box(box, SIZE)
    np.testing.assert_allclose(person_crop(box, SIZE, 0.1), [635 - 180, 250 - 180, 360])


def test_the_whole_picture_is_a_box_and_its_square_is_around_it():
    box = whole_picture_box(SIZE)
    check_box(box, SIZE)
    np.testing.assert_array_equal(person_crop(box, SIZE, 0), [-0.5, -80.5, 640])


def test_a_whole_pixel_square_of_its_own_size_is_copied():
    image = noise(9, 12)
    np.testing.assert_array_equal(cut(image, np.array([2.5, 0.5, 7]), 7), image[1:8, 3:10])


@pytest.mark.parametrize(("side", "size"), [(24, 8), (30, 20), (21, 13), (40, 40)])
def test_shrinking_is_opencvs_mean_over_areas(side, size):
    square = np.array([1.5, 3.5, side])
    image = noise(50, 60)
    ours, theirs = cut(image, square, size).astype(int), crop_picture(image, square, size).astype(int)
    assert np.abs(ours - theirs).max() <= 1


@given(st.floats(-3, 40), st.floats(-3, 40), st.floats(0.5, 120), st.sampled_from([1, 5, 16]))
def test_a_pixel_shows_the_place_that_crop_matrix_names(left, top, side, size):
    """On a ramp a mean over any square is the value in its middle, so a crop's colours are its coordinates."""
    square = np.array([left, top, side])
    out = cut(ramp(200, 250), square, size)
    index = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)  # [y, x] = (x, y)
    place = apply_affine(np.linalg.inv(crop_matrix(square, size)), index.reshape(-1, 2)).reshape(size, size, 2)
    reach = max(side / size, 1) / 2
    inside = ((place - reach >= 0) & (place + reach <= [249, 199])).all(-1)
    assert np.abs(out[..., :2] - place)[inside].max(initial=0) <= 0.5 + 1e-3


def test_enlarging_is_linear_interpolation():
    image = noise(6, 7)
    square = np.array([0.7, 1.2, 3.1])
    size = 9
    places = np.linalg.inv(crop_matrix(square, size))
    expected = cv2.warpAffine(
        image.astype(np.float32), places[:2], (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    assert np.abs(cut(image, square, size) - expected).max() < 255 / 32  # OpenCV's places are in 32nds of a pixel


def test_fine_patterns_do_not_alias():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    out = cut(stripes, np.array([-0.5, -0.5, 128]), 32)
    assert (out == 128).all()


def test_beyond_the_picture_the_border_is_repeated_or_black(monkeypatch):
    image = noise(4, 5)
    around = np.array([-3.5, -3.5, 12])
    expected = np.pad(image, ((3, 5), (3, 4), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cut(image, around, 12), expected)
    monkeypatch.setattr(people, "REPEAT_BORDER", False)
    np.testing.assert_array_equal(cut(image, around, 12), np.pad(image, ((3, 5), (3, 4), (0, 0))))


def test_a_huge_or_tiny_or_far_square_costs_no_more():
    image = noise(30, 40)
    assert cut(image, np.array([-5e11, -5e11, 1e12]), 8).shape == (8, 8, 3)
    assert (cut(image, np.array([10.0, 20.0, 1e-9]), 8) == image[20, 10]).all()
    assert (cut(image, np.array([1e9, 1e9, 5.0]), 4) == image[-1, -1]).all()
    assert (cut(noise(1, 100_000), np.array([-0.5, -50_000, 100_000]), 4).astype(int) - 127).max() < 5


def test_a_large_part_is_worked_off_in_blocks_with_the_same_result(monkeypatch):
    image, square = noise(61, 83), np.array([1.3, -7.7, 75.2])
    whole = cut(image, square, 16)
    monkeypatch.setattr(people, "_BLOCK", 1000)
    assert np.abs(cut(image, square, 16).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("square", [(0, 0, 0), (0, 0, -1), (np.nan, 0, 1), (0, 0, np.inf)])
def test_no_square_no_crop(square):
    with pytest.raises(UserError, match="square"):
        cut(noise(4, 4), np.array(square, float), 4)


@pytest.fixture(scope="module")
def walker():
    """A picture of a rendered person who walks, (480, 640, 3), and their joints in it."""
    centre, target = np.array([3800.0, 1200, 1400]), np.array([0.0, 0, 900])
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0, 0, 1.0]) / np.linalg.norm(np.cross(forward, [0, 0, 1.0]))
    rotation = np.stack([right, np.cross(forward, right), forward])
    camera = Camera(rotation, centre, np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), np.zeros(5))
    person, joints = act("walking", 1, 1.0, 1)
    return next(film(person, joints, camera, SIZE, 0)), world_to_image(joints, camera)[0]


def holds(box, joints):
    """Whether a box is around most joints, not much larger than they and in the same place."""
    inside = ((joints >= box[:2]) & (joints <= box[:2] + box[2:])).all(-1)
    low, high = joints.min(0), joints.max(0)
    off = np.abs(box[:2] + box[2:] / 2 - (low + high) / 2) / (high - low)[1]
    return inside.mean() > 0.8 and box[3] < 1.4 * (high - low)[1] and off.max() < 0.1


def test_a_rendered_walker_is_found_again_and_again(walker):
    picture, joints = walker
    boxes = find_people(picture)
    assert holds(boxes[0], joints) and len(boxes) <= 2, "a dozen windows around one person are one box"
    for again in (find_people(picture) for _ in range(3)):
        np.testing.assert_array_equal(again, boxes)
    square = person_crop(boxes[0], SIZE)
    assert ((joints > square[:2]) & (joints < square[:2] + square[2])).all()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_boxes_are_in_the_pictures_own_pixels(walker, scale):
    picture, joints = walker
    size = (round(640 * scale), round(480 * scale))
    larger = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    assert holds(find_people(larger)[0], (joints + 0.5) * scale - 0.5)


def test_two_people_are_two_boxes(walker):
    picture, joints = walker
    around = picture[:, 120:520]
    boxes = find_people(np.concatenate([around, around[:, ::-1]], axis=1))
    first, second = joints - [120, 0], np.array([799, 0]) + (joints - [120, 0]) * [-1, 1]
    assert any(holds(box, first) for box in boxes) and any(holds(box, second) for box in boxes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (30, 2000), (2000, 30), (128, 64), (3, 3)])
def test_pictures_of_any_shape_can_be_searched(shape):
    assert all(np.isfinite(box).all() for box in find_people(noise(*shape)))
    assert find_people(np.full((*shape, 3), 90, np.uint8)) == []


def test_an_opencv_without_the_detector_is_named(monkeypatch):
    people._detector.cache_clear()
    monkeypatch.delattr(cv2, "HOGDescriptor")
    with pytest.raises(UserError, match="opencv-contrib-python-headless.*--box"):
        find_people(noise(100, 100))
