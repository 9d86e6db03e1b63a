"""From a picture to poses: the two networks together, places in the picture's px, fixed batch shapes, refusals."""

import numpy as np
import pytest
import trained_pair

from fusion_jax import network_pair
from fusion_jax import predictor as predictor_module
from fusion_jax.errors import UserError
from fusion_jax.geometry import apply_affine, crop_matrix
from fusion_jax.people import cut, person_crop
from fusion_jax.place import KnownCamera
from fusion_jax.pose_record import unplaced_notes
from fusion_jax.predictor import Predictor


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return trained_pair.make(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


ONES = np.ones((8, 16))
BOXES = [np.array([10.0, 5.0, 20.0, 50.0]), np.array([50.0, 8.0, 30.0, 40.0]), np.array([2.0, 2.0, 80.0, 50.0])]


def test_given_boxes_are_looked_at_and_told(pair, picture):
    people = Predictor(*pair, batch_size=2)(picture, BOXES)
    assert len(people) == 3
    for person, box in zip(people, BOXES, strict=True):
        np.testing.assert_array_equal(person.box, box)
        np.testing.assert_array_equal(person.crop, person_crop(box, (90, 60)))
        assert person.box_source == "given" and person.position_mm is None
        assert person.pose_mm.shape == (17, 3) and person.skeleton == "human36m17"
        assert person.joints2d_px.shape == (16, 2) and person.heatmap_skeleton == "mpii16"
        np.testing.assert_allclose(person.pose_mm[0], 0, atol=1e-4, err_msg="the root is the origin")
        assert str(pair[0]) in person.pose_network and str(pair[1]) in person.heatmap_network


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_person_comes_out_the_same_in_every_batch(pair, picture, batch_size):
    together = Predictor(*pair, batch_size=batch_size)(picture, BOXES)
    for person, box in zip(together, BOXES, strict=True):
        (alone,) = Predictor(*pair, batch_size=3)(picture, [box])
        np.testing.assert_allclose(person.pose_mm, alone.pose_mm, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(person.joints2d_px, alone.joints2d_px, rtol=1e-4, atol=1e-3)


def test_no_number_of_people_compiles_more_than_two_shapes(pair, picture, monkeypatch):
    shapes = set()
    real = network_pair._heatmaps

    def noted(network, variables, image, *args, **kwargs):
        shapes.add(image.shape)
        return real(network, variables, image, *args, **kwargs)

    monkeypatch.setattr(network_pair, "_heatmaps", noted)
    predict = Predictor(*pair, batch_size=2)
    for count in (1, 2, 3):
        predict(picture, BOXES[:count])
    assert {shape[0] for shape in shapes} == {1, 2}


def test_joints_come_back_to_the_pictures_pixels(pair, picture, monkeypatch):
    """A network that always says (3, 5) px of its crop: the place in the picture is the crop's map turned back."""
    monkeypatch.setattr(
        network_pair,
        "_decode",
        lambda maps, size: (np.full((len(maps), 16, 2), [3.0, 5.0]), np.ones((len(maps), 16))),
    )
    (person,) = Predictor(*pair)(picture, BOXES[:1])
    to_crop = crop_matrix(person.crop, trained_pair.HEATMAP_INPUT)
    np.testing.assert_allclose(apply_affine(to_crop, person.joints2d_px), np.full((16, 2), [3.0, 5.0]), atol=1e-4)


def test_what_the_networks_see_is_the_crop(pair, picture):
    predict = Predictor(*pair)
    (view,) = predict.look(predict.find(picture, BOXES[:1]))
    np.testing.assert_array_equal(view.crop, cut(picture, view.pose.crop, trained_pair.HEATMAP_INPUT))
    assert view.heatmap.shape == (trained_pair.HEATMAP_INPUT // 4,) * 2 + (16,)
    assert view.heatmap.min() >= 0 and view.heatmap.max() <= 1


def test_without_boxes_the_detector_and_else_the_whole_picture(pair, picture, monkeypatch):
    predict = Predictor(*pair, refine=False)
    monkeypatch.setattr(predictor_module, "find_people", lambda image: BOXES[:2])
    assert [p.box_source for p in predict(picture)] == ["detected", "detected"]
    monkeypatch.setattr(predictor_module, "find_people", lambda image: [])
    (person,) = predict(picture)
    assert person.box_source == "picture"
    np.testing.assert_array_equal(person.box, [-0.5, -0.5, 90, 60])
    np.testing.assert_array_equal(person.crop, [-0.5, -15.5, 90])
    monkeypatch.setattr(predictor_module, "find_people", lambda image: pytest.fail("asked"))
    assert Predictor(*pair, detect=False, refine=False)(picture)[0].box_source == "picture"


def test_a_crop_is_set_anew_around_sure_joints_alone(pair, picture, monkeypatch):
    """Joints on a circle of 8 of 32 px around the middle: the new square is 2 * 8 * (1 + 2 * 0.16) / 32 as wide."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = 15.5 + 8 * np.stack([np.cos(angle), np.sin(angle)], -1)
    sure = {"value": 0.9}
    monkeypatch.setattr(
        network_pair,
        "_decode",
        lambda maps, size: (np.tile(circle, (len(maps), 1, 1)), np.full((len(maps), 16), sure["value"])),
    )
    monkeypatch.setattr(predictor_module, "find_people", lambda image: [])
    predict = Predictor(*pair)
    (person,) = predict(picture)
    assert np.isclose(person.crop[2], 90 * 16 * 1.32 / 32)
    np.testing.assert_allclose(person.crop[:2] + person.crop[2] / 2, [44.5, 29.5], atol=1e-6)
    sure["value"] = 0.1
    assert predict(picture)[0].crop[2] == 90, "nothing sure to go by"
    sure["value"] = 0.9
    assert predict(picture, BOXES[:1])[0].crop[2] == person_crop(BOXES[0], (90, 60))[2], "a given box is taken as it is"


def test_with_a_camera_people_have_a_place(pair, picture, tmp_path, monkeypatch):
    from fusion_jax.geometry import Camera

    intrinsics = np.array([[100.0, 0, 44.5], [0, 100, 29.5], [0, 0, 1]])
    camera = Camera(np.eye(3), np.zeros(3), intrinsics, np.zeros(5))
    known = KnownCamera(tmp_path / "camera.json", camera, (90, 60), False)
    people = Predictor(*pair, camera=known)(picture, BOXES)
    for person in people:
        assert person.position_mm is None or (person.position_mm[2] > 0 and person.absolute_mm.shape == (17, 3))
    unsure = np.zeros((8, 16)), np.zeros((8, 16, 2))
    monkeypatch.setattr(network_pair, "_decode", lambda maps, size: (unsure[1][: len(maps)], unsure[0][: len(maps)]))
    predict = Predictor(*pair, camera=known)
    (view,) = predict.look(predict.find(picture, BOXES[:1]))
    assert view.pose.position_mm is None
    (note,) = unplaced_notes([view])
    assert note.startswith("person 1: position unknown: 0 joints are sure enough") and note.endswith("4 needed")
    with pytest.raises(UserError, match=r"60 x 90 px, but .*camera.json is the camera of pictures of 90 x 60"):
        Predictor(*pair, camera=known)(np.ascontiguousarray(picture.swapaxes(0, 1)), BOXES[:1])


@pytest.mark.parametrize(
    ("picture", "boxes", "message"),
    [
        (np.zeros((5, 5), np.uint8), None, r"\(H, W, 3\) uint8, RGB; got \(5, 5\) uint8"),
        (np.zeros((5, 5, 3)), None, "float64"),
        ("photo.jpg", None, "got str"),
        (np.zeros((50, 50, 3), np.uint8), [np.array([100.0, 0, 20, 20])], "box 100,0,20,20 in a picture of 50 x 50 px"),
    ],
)
def test_bad_pictures_and_boxes(pair, picture, boxes, message):
    with pytest.raises(UserError, match=message):
        Predictor(*pair)(picture, boxes)


@pytest.mark.parametrize(
    "boxes", [np.array([1, 2, 3, 4]), ["abcd"], [[1, 2, 3]], 5, [[10**400, 1, 2, 3]], [[1, 2, 30, 30]] * 1001]
)
def test_boxes_that_are_none(pair, picture, boxes):
    with pytest.raises(UserError, match=r"expected a list of \[x, y, width, height\]|expected at most 1000"):
        Predictor(*pair).find(picture, boxes)


@pytest.mark.parametrize(("step", "network"), [("_heatmaps", "hourglass"), ("_pose", "pose")])
def test_numbers_that_are_not_finite_are_refused(pair, picture, monkeypatch, step, network):
    real = getattr(network_pair, step)
    monkeypatch.setattr(network_pair, step, lambda *args, **kwargs: real(*args, **kwargs) * np.nan)
    with pytest.raises(UserError, match=f"{network}, .* not finite; its weights are damaged"):
        Predictor(*pair)(picture, BOXES[:1])


def test_networks_that_do_not_go_together_are_refused(pair, tmp_path):
    pose, hourglass = pair
    with pytest.raises(UserError, match="holds a 2D network; give it as --heatmap-workdir"):
        Predictor(hourglass)
    with pytest.raises(UserError, match="heatmaps that come with its data, .* --heatmap-workdir RUN"):
        Predictor(pose)
    with pytest.raises(UserError, match=r"holds a fusion network \(task pose\)"):
        Predictor(pose, pose)
    other = trained_pair.hourglass(tmp_path / "other", joints="lsp14")
    with pytest.raises(UserError, match="joints: mpii16 -> lsp14"):
        Predictor(pose, other)
    broad = trained_pair.hourglass(tmp_path / "broad", heatmap_sigma_px=2.0)
    with pytest.raises(UserError, match=r"sigma: 1 of 8 px \(12.50 % of the picture\) -> 2 of 8 px"):
        Predictor(pose, broad)


def test_a_note_says_that_true_heatmaps_were_trained_on(pair):
    (note,) = Predictor(*pair).notes
    assert "trained on heatmaps that come with its data" in note


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_network_with_its_own_2d_network_needs_no_other(pair, picture, tmp_path, mode):
    pose = trained_pair.pose(tmp_path / "pose", heatmaps=pair[1], mode=mode)
    (person,) = Predictor(pose)(picture, BOXES[:1])
    assert person.heatmap_network.startswith("within ") and not Predictor(pose).notes
    with pytest.raises(UserError, match="has its own 2D network within"):
        Predictor(pose, pair[1])
