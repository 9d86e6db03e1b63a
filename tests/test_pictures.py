"""Figures show the numbers they were given, the right way up."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imread

from fusion_jax import pictures, pose_pictures
from fusion_jax.pictures import Curve
from fusion_jax.run_record import Samples
from fusion_jax.skeletons import SKELETONS

LAYOUT = SKELETONS["human36m17"]
STEPS = np.array([10, 20, 40])
EMPTY = Curve(np.array([], int), np.array([]))


def curve(*values: float) -> Curve:
    return Curve(STEPS, np.array(values))


def line_values(axis) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axis.get_lines()]


def upright_pose() -> np.ndarray:
    """(17, 3) mm, camera frame: head above, ankles below the pelvis, left hand far from the camera."""
    pose = np.random.default_rng(0).normal(0, 30, (17, 3))
    pose[LAYOUT.index("head_top")] = [0, -700, 0]
    pose[LAYOUT.index("left_ankle")] = [100, 850, 0]
    pose[LAYOUT.index("left_wrist")] = [300, 0, 500]
    return pose


def samples(n: int = 2) -> Samples:
    rng = np.random.default_rng(1)
    true = np.stack([upright_pose()] * n)
    words = np.array(["x"] * n)
    return Samples(
        image=rng.integers(0, 255, (n, 20, 20, 3)).astype(np.uint8), joints2d=rng.uniform(0, 19, (n, 17, 2)),
        heatmap=rng.uniform(0, 1, (n, 8, 8, 16)).astype(np.float16), true_mm=true,
        pred_mm=true + rng.normal(0, 40, true.shape), valid=np.ones((n, 17), bool),
        valid2d=np.ones((n, 17), bool), mpjpe_mm=np.arange(n) + 0.25,
        kind=np.array(["best", "worst"] * n)[:n], subject=words, action=words, sequence=words, frame=np.arange(n),
    )  # fmt: skip


def test_curve_takes_only_records_that_have_the_field():
    records = [{"step": 1, "alpha": 0.5}, {"step": 2}, {"step": 4, "alpha": 2}]
    steps, values = Curve.of(records, "alpha")
    assert steps.tolist() == [1, 4] and values.tolist() == [0.5, 2.0]
    assert not Curve.of(records, "beta") and Curve.of(records, "alpha")


@pytest.mark.parametrize(("penalty", "panels"), [(curve(9, 4, 1), 3), (curve(0, 0, 0), 2), (EMPTY, 2)])
def test_learning_curves_show_a_penalty_only_where_there_is_one(penalty, panels):
    figure = pictures.learning_curves(curve(300, 30, 3), penalty, curve(90, 60, 50), EMPTY, 188.0)
    assert len(figure.axes) == panels
    assert line_values(figure.axes[0]) == [[300, 30, 3]] and figure.axes[0].get_yscale() == "log"
    assert line_values(figure.axes[-1]) == [[90, 60, 50], [188.0, 188.0]]
    labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert labels == ["training batches", "mean training pose"]


@pytest.mark.parametrize("beta", [(1.5, 2, 2.5), (-1.4, 0, 1), (3, 5, 6.2)])
def test_beta_is_inside_an_axis_that_counts_all_layers(beta):
    axis = pictures.fusion_parameters(curve(0.1, 0.4, 2), curve(*beta), 4).axes[1]
    low, high = axis.get_ylim()
    assert low < min(beta) and high > max(beta)
    assert set(range(0, 5)) <= set(axis.get_yticks())


def test_weight_map_and_last_weights_show_the_numbers():
    layers = np.arange(1, 5)
    alpha, beta = 2.0, 2.25
    last = 1 / (1 + np.exp(-alpha * (layers - beta)))
    weights = np.stack([np.full(4, 0.5), last])
    left, right = pictures.weight_history(np.array([10, 30]), weights, alpha, beta).axes[:2]
    np.testing.assert_array_equal(left.collections[0].get_array(), weights.T)
    assert left.get_xlim() == (0, 40) and left.get_ylim() == (0.5, 4.5)
    np.testing.assert_allclose(right.collections[0].get_offsets(), np.stack([layers, last], 1))
    smooth = right.get_lines()[0]
    np.testing.assert_allclose(np.interp(layers, *smooth.get_data()), last, atol=1e-3)


def test_weight_colours_are_those_that_the_text_names():
    red, _, blue, _ = colormaps[pictures.WEIGHT_COLORS](0.1)
    assert red > blue + 0.3  # orange reads the streams
    red, _, blue, _ = colormaps[pictures.WEIGHT_COLORS](0.9)
    assert blue > red + 0.1  # purple keeps the fusion stream


def test_pictures_of_extreme_numbers_draw_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = np.array([5])
        pictures.png_bytes(pictures.weight_history(one, np.array([[0.0, 1.0]]), 1e4, 1.5))
        pictures.png_bytes(pictures.learning_curves(Curve(one, one), EMPTY, EMPTY, Curve(one, one)))
        pictures.png_bytes(pictures.fusion_parameters(Curve(one, -one), Curve(one, one), 8))
        pictures.png_bytes(pictures.action_bars({"co$t$_{": {"mpjpe_mm": 3.0}}))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True))
@settings(deadline=None, max_examples=30)
def test_each_step_lies_in_its_own_cell(steps):
    steps = sorted(steps)
    edges = pictures.step_edges(np.array(steps))
    assert len(edges) == len(steps) + 1
    assert all(a < s < b for a, s, b in zip(edges, steps, edges[1:], strict=False))


def test_step_edges_by_hand():
    np.testing.assert_allclose(pictures.step_edges(STEPS), [5, 15, 30, 50])


def test_actions_are_sorted_with_the_hardest_on_top():
    scores = {
        "walk": {"mpjpe_mm": 50.0, "num_frames": 1200},
        "sit": {"mpjpe_mm": 90.0},
        "run": {"mpjpe_mm": 60.0},
    }
    axis = pictures.action_bars(scores, 66.7).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["walk (1,200)", "run", "sit"]
    assert [bar.get_width() for bar in axis.containers[0]] == [50, 60, 90]
    assert len(axis.containers) == 1  # no second bars where the alignment's scores are not known
    both = {name: entry | {"pa_mpjpe_mm": 40.0} for name, entry in scores.items()}
    assert len(pictures.action_bars(both).axes[0].containers) == 2


def test_joints_keep_their_order_from_the_top_and_have_their_side_s_colour():
    errors = {name: float(i) for i, name in enumerate(LAYOUT.joints)}
    axis = pictures.joint_bars(errors, {n: LAYOUT.side(i) for i, n in enumerate(LAYOUT.joints)}).axes[0]
    labels = [t.get_text() for t in axis.get_yticklabels()]
    assert labels[-1] == "pelvis" and labels[0] == "right wrist"
    drawn = {labels[round(bar.get_y() + bar.get_height() / 2)]: bar.get_width() for bar in axis.patches}
    assert drawn == {name.replace("_", " "): error for name, error in errors.items()}


def test_views_stand_upright_at_one_scale():
    front, side = Figure().subplots(1, 2)
    pose = upright_pose()
    pose_pictures.draw_views((front, side), pose, pose + 5, np.ones(17, bool), LAYOUT)
    for axis in (front, side):
        assert axis.get_aspect() == 1
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # y grows downwards
        head, foot = axis.transData.transform([[0, -700], [0, 850]])
        assert head[1] > foot[1]
        assert len(axis.get_lines()) == 2 * 16
    assert np.ptp(front.get_xlim()) == pytest.approx(np.ptp(side.get_xlim()))
    assert side.get_xlim()[0] < side.get_xlim()[1]  # away from the camera is to the right
    bone = LAYOUT.bones.index((LAYOUT.index("left_elbow"), LAYOUT.index("left_wrist")))
    assert front.get_lines()[bone].get_xdata()[1] == 300 and side.get_lines()[bone].get_xdata()[1] == 500


def test_invalid_joints_are_not_drawn():
    front, side = Figure().subplots(1, 2)
    pose, valid = upright_pose(), np.ones(17, bool)
    wrist, thorax = LAYOUT.index("left_wrist"), LAYOUT.index("thorax")
    pose[[wrist, thorax]] = np.nan
    valid[[wrist, thorax]] = False
    pose_pictures.draw_views((front, side), pose, upright_pose(), valid, LAYOUT)
    assert len(front.get_lines()) == 2 * (16 - 1 - 4)  # the lower arm; spine, nose and both shoulders
    assert np.isfinite([*front.get_xlim(), *front.get_ylim()]).all()
    pose_pictures.draw_views((front, side), pose, pose, np.zeros(17, bool), LAYOUT)


def test_crop_and_heatmaps_cover_the_same_picture():
    crop, heat = Figure().subplots(1, 2)
    shown = samples(1)
    outside = shown.joints2d[0] + 15
    pose_pictures.draw_crop(crop, shown.image[0], outside, shown.valid[0], LAYOUT)
    pose_pictures.draw_heatmaps(heat, shown.image[0], shown.heatmap[0])
    pose_pictures.draw_heatmaps(heat, shown.image[0], 0 * shown.heatmap[0])
    for axis in (crop, heat):
        assert axis.get_xlim() == (-0.5, 19.5) and axis.get_ylim() == (19.5, -0.5)
    np.testing.assert_allclose(crop.get_lines()[0].get_xydata(), outside[list(LAYOUT.bones[0])])


def test_heatmap_glows_where_its_peak_is():
    axis = Figure().subplots()
    heatmap = np.zeros((8, 8, 3), np.float16)
    heatmap[2, 6, 1] = 0.4
    pose_pictures.draw_heatmaps(axis, np.full((16, 16, 3), 128, np.uint8), heatmap)
    alpha = np.asarray(axis.get_images()[1].get_array())[..., 3]
    assert np.argwhere(alpha > 0).tolist() == [[2, 6]]


def test_sample_figure_has_a_line_of_panels_a_sample():
    figure = pose_pictures.sample_figure(samples(2), [1, 0], LAYOUT)
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == ["worst: 1.2 mm (x, x, x, frame 1)", "best: 0.2 mm (x, x, x, frame 0)"]
    assert [len(part.axes) for part in figure.subfigs] == [4, 4]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"person's left", "person's right", "middle of the body"} < set(labels)


def test_rows_of_kind_are_the_first_of_that_kind():
    assert pose_pictures.rows_of_kind(samples(6), "worst") == [1, 3, 5]
    assert pose_pictures.rows_of_kind(samples(6), "best", most=2) == [0, 2]
    assert pose_pictures.rows_of_kind(samples(6), "median") == []


def test_viewer_turns_the_camera_frame_upright_without_mirroring():
    turn = pose_pictures.CAMERA_TO_SCREEN
    np.testing.assert_allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)  # a mirror image would have -1
    down, away = np.array([0, 1, 0]), np.array([0, 0, 1])
    assert (turn @ down).tolist() == [0, 0, -1] and (turn @ away).tolist() == [0, 1, 0]


def test_viewer_holds_true_and_predicted_pose_of_each_sample():
    shown = samples(3)
    figure = pose_pictures.pose_viewer(shown, LAYOUT)
    traces, scene = figure["data"], figure["layout"]["scene"]
    assert len(traces) == 3 * pose_pictures.TRACES_PER_SAMPLE
    assert [t["visible"] for t in traces] == 4 * [True] + 8 * [False]
    ranges = [np.ptp(scene[f"{axis}axis"]["range"]) for axis in "xyz"]
    assert scene["aspectmode"] == "cube" and np.ptp(ranges) < 1e-6
    true, left = traces[4], traces[5]
    assert len(true["x"]) == 3 * 16 and left["name"] == "predicted, left"
    assert max(v for v in true["z"] if v is not None) == 700  # the head, up
    limbs = [bone for bone in LAYOUT.bones if LAYOUT.side(bone[1]) == "left"]
    expected = [shown.pred_mm[1, joint, 0] for bone in limbs for joint in bone]
    np.testing.assert_allclose([v for v in left["x"] if v is not None], expected, atol=0.051)
    json.dumps(figure, allow_nan=False)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_cube_holds_all_points_and_is_a_cube(seed, n):
    points = np.random.default_rng(seed).normal(0, 300, (n, 3))
    low, high = pose_pictures.cube(np.concatenate([points, np.full((1, 3), np.nan)]))
    assert (points > low).all() and (points < high).all()
    np.testing.assert_allclose(high - low, (high - low)[0])


def test_cube_without_points_is_finite():
    low, high = pose_pictures.cube(np.zeros((0, 3)))
    assert (low < high).all()


def test_pixels_come_back_from_the_png():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    back = imread(io.BytesIO(pictures.pixels_png(image)))
    np.testing.assert_array_equal(np.round(back[..., :3] * 255), image)
