"""The page on frames: its code runs as it stands, on files as `predict` writes them, and its numbers are the code's."""

import json
import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fusion_jax.geometry import camera_to_image, root_relative
from fusion_jax.place import root_position_mm
from fusion_jax.pose_record import PersonPose
from fusion_jax.skeletons import convert_joints, skeleton

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "frames.md").read_text()
CROPS, PLACES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(CAMERA,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
LAYOUT, LAYOUT2D = skeleton("human36m17"), skeleton("mpii16")
INTRINSICS = np.array([[800.0, 0, 319.5], [0, 800, 239.5], [0, 0, 1]])
NO_LENS = np.zeros(5)


def person(place_mm, height_mm, depth_mm=200.0):
    """A random pose `height_mm` from its highest to its lowest joint with a 2D name, and its 2D joints."""
    pose = np.random.default_rng(0).normal(0, [200, 450, depth_mm], (17, 3))
    named = [j for j, name in enumerate(LAYOUT.joints) if name in LAYOUT2D.joints]
    pose = root_relative(pose * height_mm / np.ptp(pose[named, 1]), LAYOUT.root_indices)
    return pose, convert_joints(camera_to_image(pose + place_mm, INTRINSICS), LAYOUT, LAYOUT2D), named


def place(pose_mm, joints2d_px, intrinsics=INTRINSICS):
    return root_position_mm(pose_mm, LAYOUT, joints2d_px, LAYOUT2D, np.ones(16), intrinsics, NO_LENS).position_mm


def test_between_crop_and_picture():
    names = {}
    exec(CROPS, names)  # its last line compares the crop's own camera with the picture's
    np.testing.assert_array_equal(names["square"], [208.5, 38.5, 413])
    np.testing.assert_allclose(names["in_picture"], [[209.3, 39.3], [415, 245]], atol=0.05)
    assert "[208.5, 38.5, 413]" in CROPS and "[[209.3, 39.3], [415, 245]]" in CROPS
    np.testing.assert_array_equal(names["intrinsics"], INTRINSICS)


@pytest.mark.parametrize("world", [False, True])
def test_from_pose_to_picture_and_world(tmp_path, monkeypatch, world):
    where = np.array([400.0, 30, 4000])
    pose, joints2d, _ = person(where, 1600)
    result = PersonPose(
        skeleton="human36m17",
        pose_mm=pose,
        heatmap_skeleton="mpii16",
        joints2d_px=joints2d,
        confidence=np.ones(16),
        box=np.array([335.0, 70, 160, 350]),
        box_source="given",
        crop=np.array([208.5, 38.5, 413]),
        pose_network="runs/learned, step 1000",
        heatmap_network="runs/hourglass, step 2",
        position_mm=place(pose, joints2d),
    )
    camera = json.loads(CAMERA)
    if world:  # the camera looks along the world's y from 1.5 m above the floor: its down is the world's -z
        camera |= {"rotation": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "center_mm": [0, -5000, 1500]}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.json").write_text(json.dumps({"people": [result.to_json()]}))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(PLACES, names)
    np.testing.assert_allclose(names["joints_mm"], pose + where, atol=1)
    np.testing.assert_allclose(convert_joints(names["joints_px"], LAYOUT, LAYOUT2D), joints2d, atol=0.2)
    np.testing.assert_allclose(names["metres"], np.hypot(np.hypot(0.4, 0.03), 4), atol=1e-3)
    if world:
        np.testing.assert_allclose(names["world_mm"][0], [400, -5000 + 4000, 1500 - 30], atol=1)
    else:
        assert names["world_mm"] is None


def test_the_worked_example():
    """A flat pose 1600 mm long, seen 320 px long, is 4 m away; what was a child of 1200 mm then stood at 3 m."""
    assert "800 * 1600 / 320 = 4000 mm" in PAGE and "true place is at 3000 mm" in PAGE
    adult, seen, named = person([400, 0, 4000], 1600, depth_mm=0)
    heights = camera_to_image(adult[named] + [400, 0, 4000], INTRINSICS)[:, 1]
    np.testing.assert_allclose(np.ptp(heights), 320)
    child, same, _ = person([300, 0, 3000], 1200, depth_mm=0)
    np.testing.assert_allclose(same, seen, err_msg="one picture")
    np.testing.assert_allclose(place(adult, same), [400, 0, 4000], atol=1e-3)
    np.testing.assert_allclose(place(child, same), [300, 0, 3000], atol=1e-3)


@pytest.mark.parametrize("factor", [0.75, 1.2])
def test_an_error_in_size_or_focal_length_is_one_in_distance(factor):
    pose, seen, _ = person([400, -100, 4000], 1700)
    seen += np.random.default_rng(1).normal(0, 3, seen.shape)
    true = place(pose, seen)
    np.testing.assert_allclose(place(pose * factor, seen), true * factor, rtol=1e-6)
    zoomed = place(pose, seen, INTRINSICS * [[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    np.testing.assert_allclose(zoomed / true, [1, 1, factor], rtol=0.05)


def test_the_angle_at_the_edge_of_the_picture():
    angle = np.arctan(320 / 800)
    assert f"that is {np.degrees(angle):.0f} degrees" in PAGE
    assert f"by {2 * 500 * np.sin(angle / 2):.0f} mm" in PAGE  # a chord of a circle of 500 mm


def test_links_and_drawing():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (DOCS / target).exists(), target
    drawing = ElementTree.parse(DOCS / "frames.svg")
    assert not [e for e in drawing.iter() if e.tag.endswith(("script", "foreignObject", "image"))]  # GitHub drops them
