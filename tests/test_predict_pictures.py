"""Everybody is drawn where they are, the right way up, and what is not sure looks so."""

from __future__ import annotations

import itertools
import typing
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from views import BODY, CROP_PX, HEATMAP, waving

from fusion_jax.pictures import SIDE_COLORS, png_bytes
from fusion_jax.pose_record import BoxSource, PersonView
from fusion_jax.predict_pictures import MOST_ROWS, RGB, SOURCES, about, paint_joints, paint_person, picture_figure

PHOTO = np.full((160, 200, 3), 128, np.uint8)
WRIST, ANKLE = HEATMAP.index("left_wrist"), HEATMAP.index("right_ankle")


def markers(axis) -> list:
    """The dots of the 2D joints, in the order of the layout."""
    return [line for line in axis.get_lines() if line.get_marker() == "o" and len(line.get_xdata()) == 1]


def test_photo_shows_boxes_and_joints_where_they_are():
    views = [waving(), waving((140, 70), 0.04)]
    photo = picture_figure(PHOTO, views).subfigs[0].axes[0]
    assert (photo.get_xlim(), photo.get_ylim()) == ((-0.5, 199.5), (159.5, -0.5))
    drawn = [[*box.get_xy(), box.get_width(), box.get_height()] for box in photo.patches]
    np.testing.assert_allclose(drawn, [view.pose.box for view in views])
    places = np.concatenate([line.get_xydata() for line in markers(photo)])
    np.testing.assert_allclose(places, np.concatenate([view.pose.joints2d_px for view in views]))
    assert [text.get_text() for text in photo.texts] == ["1", "2"]


def test_low_confidence_is_hollow_and_dashed():
    photo = picture_figure(PHOTO, [waving(low=("left_wrist",))]).subfigs[0].axes[0]
    faces = [to_rgb(line.get_markerfacecolor()) for line in markers(photo)]
    assert faces[WRIST] == (1, 1, 1) and faces[ANKLE] == to_rgb(SIDE_COLORS["right"])
    solid = {
        tuple(map(tuple, line.get_xydata()))
        for line in photo.get_lines()
        if len(line.get_xdata()) == 2 and not line.is_dashed() and line.get_color() != "white"
    }
    assert len(solid) == 14  # of 15 bones


def test_each_person_has_a_line_of_panels_with_crop_joints_in_px_of_the_crop():
    # The crop's edges are 10 to 74 and 20 to 84, so its middle is (42, 52); of 32 px the middle is 15.5.
    joints = np.full((16, 2), (42, 52))
    joints[WRIST] = (10, 20)  # its upper left corner, half a pixel from the first pixel's centre
    figure = picture_figure(PHOTO, [waving(crop=[10, 20, 64], joints2d_px=joints)])
    crop, heat, front, side = figure.subfigs[1].axes
    assert crop.get_xlim() == (-0.5, CROP_PX - 0.5) == heat.get_xlim()
    np.testing.assert_allclose(markers(crop)[ANKLE].get_xydata(), [[15.5, 15.5]])
    np.testing.assert_allclose(markers(crop)[WRIST].get_xydata(), [[-0.5, -0.5]])
    for axis in (front, side):
        assert len(axis.get_lines()) == len(BODY.bones)  # the prediction alone
        assert axis.get_ylim()[0] > axis.get_ylim()[1] and axis.get_aspect() == 1
    wrist = front.get_lines()[BODY.bones.index((BODY.index("left_elbow"), BODY.index("left_wrist")))]
    assert wrist.get_xydata()[1].tolist() == [480, -860]  # right and up, as the camera saw it


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"box_source": "given"}, "box given by the user; mean 2D confidence 0.80"),
        ({"box_source": "picture"}, "no box: the whole picture; mean 2D confidence 0.80"),
        ({"low": ("left_wrist", "head_top")}, "box found by the detector; mean 2D confidence 0.71, 2 of 16 low"),
        ({"position_mm": [0, 3000, 4000]}, "0.80; pelvis 5.00 m from the camera"),
        (
            {"skeleton": "lsp14", "pose_mm": np.zeros((14, 3)), "position_mm": [0, 0, 2000]},
            "right hip and left hip 2.00 m from the camera",
        ),
    ],
)
def test_what_is_known_about_a_person_is_said(fields, words):
    view = waving(**fields)
    assert about(view.pose).endswith(words)
    assert picture_figure(PHOTO, [view]).subfigs[1].get_suptitle() == f"person 1: {about(view.pose)}"


def test_every_source_of_a_box_has_its_words():
    assert set(SOURCES) == set(typing.get_args(BoxSource))


def test_people_of_a_video_keep_their_numbers():
    figure = picture_figure(PHOTO, [waving(track=7), waving(track=0)])
    assert [text.get_text() for text in figure.subfigs[0].axes[0].texts] == ["7", "0"]
    assert [part.get_suptitle().split(":")[0] for part in figure.subfigs[1:]] == ["person 7", "person 0"]


def test_of_many_people_the_first_have_panels_and_the_figure_says_so():
    views = [waving((20.0 + 15 * n, 80)) for n in range(MOST_ROWS + 3)]
    figure = picture_figure(PHOTO, views)
    assert len(figure.subfigs) == 1 + MOST_ROWS
    assert len(figure.subfigs[0].axes[0].patches) == len(views)
    title = figure.subfigs[0].get_suptitle()
    assert title == "11 people; panels for the first 8 alone, all are in the JSON file"
    assert picture_figure(PHOTO, views[:1]).subfigs[0].get_suptitle() == "1 person"


def test_nobody():
    figure = picture_figure(PHOTO, [])
    assert [len(part.axes) for part in figure.subfigs] == [1]
    assert figure.subfigs[0].get_suptitle() == "nobody was found in this picture"
    assert png_bytes(figure)


def test_a_huge_photo_is_shown_small_in_its_own_pixels():
    photo = picture_figure(np.zeros((2000, 4000, 3), np.uint8), [waving()]).subfigs[0].axes[0]
    (shown,) = photo.get_images()
    assert shown.get_array().shape == (800, 1600, 3)
    assert shown.get_extent() == [-0.5, 3999.5, 1999.5, -0.5] and photo.get_xlim() == (-0.5, 3999.5)


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (2, 2)])
def test_odd_photos_and_far_joints_draw_without_a_warning(shape):
    far = waving(joints2d_px=np.full((16, 2), 1e9), box=[-1e6, -1e6, 3e6, 1e5], pose_mm=np.full((17, 3), 1e6))
    flat = waving(pose_mm=np.zeros((17, 3)), confidence=np.zeros(16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png_bytes(picture_figure(np.zeros((*shape, 3), np.uint8), [far, flat]), dpi=40)


def drawn_texts(figure: Figure) -> list[Text]:
    """All that is written outside of the panels; ticks beyond a panel's limits exist but are not drawn."""
    texts = [figure.subfigs[0].legends[0].get_texts()]
    for part in figure.subfigs:
        texts.append([part._suptitle])
        for axis in part.axes:
            texts.append([axis.title, axis.xaxis.label, axis.yaxis.label])
            for ticks, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
                inside = [t for t in ticks.get_major_ticks() if min(limits) <= t.get_loc() <= max(limits)]
                texts.append([tick.label1 for tick in inside])
    return [text for text in itertools.chain(*texts) if text.get_text().strip()]


@pytest.mark.parametrize("count", [1, 3])
def test_no_text_covers_another_or_leaves_the_figure(count):
    figure = picture_figure(PHOTO, [waving(position_mm=[0, 0, 4000]) for _ in range(count)])
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn_texts(figure)]
    assert len(boxes) > 20 * count
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), (text, other)


def test_painted_joints_have_their_side_s_colour_or_are_white():
    picture = np.full((160, 200, 3), 128, np.uint8)
    view = waving((100, 80), 0.08, low=("left_wrist",))
    paint_joints(picture, np.round(view.pose.joints2d_px), view.pose, thickness=2)

    def at(name: str) -> tuple[int, ...]:
        x, y = np.round(view.pose.joints2d_px[HEATMAP.index(name)]).astype(int)
        return tuple(picture[y, x].tolist())

    assert at("left_ankle") == RGB["left"] and at("right_wrist") == RGB["right"]
    assert at("head_top") == RGB["middle"] and at("left_wrist") == (255, 255, 255)


def test_a_painted_box_is_scaled_and_its_name_stays_in_the_picture():
    # 9.5 .. 49.5 across is, from the picture's edge at -0.5, 10 .. 50, at scale 2 20 .. 100: lines at 19.5 and 99.5.
    picture = np.zeros((80, 120, 3), np.uint8)
    view = waving(box=[9.5, 19.5, 40, 40], joints2d_px=np.full((16, 2), 1e7))
    paint_person(picture, view.pose, "1", np.array([2, 0.5]))
    rows, columns = np.nonzero(picture[..., 0] > 100)
    assert 19 <= columns.min() <= 20 and 99 <= columns.max() <= 100
    assert 9 <= rows.min() <= 10 and 29 <= rows.max() <= 30
    outside: PersonView = waving(box=[-900, -900, 20, 20], joints2d_px=np.full((16, 2), -1e7))
    picture[:] = 0
    paint_person(picture, outside.pose, "12", np.ones(2))
    assert picture[:12, :12].any() and not picture[40:, 60:].any()
