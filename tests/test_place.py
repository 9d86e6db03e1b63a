"""Camera files say what they mean or are refused by field; a pose stands where its own image says it does."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.errors import UserError
from fusion_jax.geometry import camera_to_image
from fusion_jax.place import MIN_CONFIDENCE, read_camera, root_position_mm
from fusion_jax.skeletons import SKELETONS, convert_joints

H36M, MPII = SKELETONS["human36m17"], SKELETONS["mpii16"]
K = np.array([[900.0, 3, 330], [0, 1000, 250], [0, 0, 1]])
LENS = np.array([-0.2, 0.1, 1e-3, -2e-3, 0.01])
NO_LENS = np.zeros(5)
# 2D joints that no 3D joint has the name of: human36m17 has no upper neck.
UNNAMED = MPII.joints.index("upper_neck")


def scene(seed, x=300.0, y=-200.0, z=4000.0, lens=NO_LENS, layout=H36M, layout2d=MPII):
    """A random pose, roughly a person's size, at a place, and its image's 2D joints."""
    pose = np.random.default_rng(seed).normal(0, [200, 450, 200], (layout.num_joints, 3))
    pose -= pose[list(layout.root_indices)].mean(0)
    place = np.array([x, y, z])
    seen = convert_joints(camera_to_image(pose + place, K, lens), layout, layout2d)
    return pose, seen, np.linspace(0.3, 1, layout2d.num_joints), place


def found(pose, seen, confidence, lens=NO_LENS, layout=H36M, layout2d=MPII, intrinsics=K):
    return root_position_mm(pose, layout, seen, layout2d, confidence, intrinsics, lens)


@given(
    st.integers(0, 2**32),
    st.floats(-1500, 1500),
    st.floats(-1000, 1000),
    st.floats(2500, 12_000),
    st.sampled_from([NO_LENS, LENS]),
    st.sampled_from([(H36M, MPII), (MPII, SKELETONS["lsp14"]), (SKELETONS["lsp14"], SKELETONS["lsp14"])]),
)
def test_exact_images_give_the_exact_place(seed, x, y, z, lens, layouts):
    layout, layout2d = layouts
    pose, seen, confidence, place = scene(seed, x, y, z, lens, layout, layout2d)
    result = found(pose, seen, confidence, lens, layout, layout2d)
    assert result.reason == ""
    np.testing.assert_allclose(result.position_mm, place, atol=0.5)


@given(st.integers(0, 2**32), st.sampled_from([NO_LENS, LENS]), st.integers(0, 2))
def test_one_or_two_wrong_joints_do_not_count(seed, lens, wrong):
    pose, seen, confidence, place = scene(seed, lens=lens)
    rng = np.random.default_rng(seed)
    named = [k for k in range(16) if k != UNNAMED]
    rows = rng.choice(named, wrong, replace=False)
    seen[rows] += rng.uniform(-250, 250, (wrong, 2))
    np.testing.assert_allclose(found(pose, seen, confidence, lens).position_mm, place, atol=2)


def test_a_lens_matters_and_is_taken_into_account():
    pose, seen, confidence, place = scene(0, 1200, 700, 3000, LENS)
    with_it, without = found(pose, seen, confidence, LENS), found(pose, seen, confidence)
    assert np.abs(with_it.position_mm - place).max() < 0.5 < 50 < np.abs(without.position_mm - place).max()


def test_noise_in_the_image_gives_the_place_that_projects_best():
    """Against the minimum over a fine grid of the sum of squares in px, which the method never forms."""
    pose, seen, _, place = scene(3)
    seen += np.random.default_rng(1).normal(0, 2, seen.shape)
    named = [(H36M.joints.index(name), k) for k, name in enumerate(MPII.joints) if k != UNNAMED]
    a, b = np.array(named).T

    def cost(where):
        return ((camera_to_image(pose[a] + where, K) - seen[b]) ** 2).sum()

    ours = found(pose, seen, np.ones(16)).position_mm
    around = [ours + [dx, dy, dz] for dx in (-8, 0, 8) for dy in (-8, 0, 8) for dz in (-60, 0, 60)]
    assert min(map(cost, around)) == cost(ours)
    assert np.abs(ours - place)[2] < 150


def test_joints_are_matched_by_name_and_unnamed_or_unsure_ones_ignored():
    pose, seen, confidence, place = scene(5)
    seen[UNNAMED] = 1e5
    seen[2], confidence[2] = -1e5, MIN_CONFIDENCE - 1e-6
    np.testing.assert_allclose(found(pose, seen, confidence).position_mm, place, atol=0.5)


def test_more_confident_joints_count_more():
    pose, seen, _, place = scene(6)
    off = seen.copy()
    off[:8] += 12
    errors = []
    for trust in (1.0, 0.3, 0.12):
        confidence = np.where(np.arange(16) < 8, trust, 1.0)
        errors.append(np.linalg.norm((found(pose, off, confidence).position_mm - place)[:2]))
    assert errors[0] > errors[1] > errors[2]


def test_a_crops_intrinsics_serve_as_well():
    """Shrinking a picture changes its px and its camera alike, and so nothing about the place."""
    pose, seen, confidence, place = scene(7)
    shrink = np.array([[0.25, 0, -20], [0, 0.25, 3], [0, 0, 1]])
    seen = seen @ shrink[:2, :2].T + shrink[:2, 2]
    np.testing.assert_allclose(found(pose, seen, confidence, intrinsics=shrink @ K).position_mm, place, atol=0.5)


def test_where_no_place_can_be_told_there_is_a_reason():
    pose, seen, confidence, _ = scene(8)
    few = np.where(np.arange(16) < 3, confidence, 0.0)
    cases = {
        "3 joints are sure enough": found(pose, seen, few),
        "0 joints are sure enough": found(pose, seen, np.zeros(16)),
        "too close to tell": found(pose, np.full((16, 2), 100.0) + np.arange(32).reshape(16, 2) * 1e-3, confidence),
        "no distance": found(-pose, seen, confidence),  # upside down and mirrored: only a camera behind it fits
        "the lens's range": found(pose, seen * 1e6, confidence, LENS),
        "no distance before": found(np.zeros_like(pose), seen, confidence),
    }
    for text, result in cases.items():
        assert result.position_mm is None and text in result.reason


GOOD = {"fx": 900, "fy": 1000.5, "cx": 320, "cy": 240}
TURN = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]


def written(tmp_path, data):
    path = tmp_path / "camera.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_four_numbers_are_a_camera(tmp_path):
    known = read_camera(written(tmp_path, GOOD))
    np.testing.assert_array_equal(known.camera.intrinsics, [[900, 0, 320], [0, 1000.5, 240], [0, 0, 1]])
    np.testing.assert_array_equal(known.camera.distortion, np.zeros(5))
    np.testing.assert_array_equal(known.camera.rot_world_to_cam, np.eye(3))
    assert known.image_size is None and not known.knows_world
    known.check_size("a.jpg", (3, 4))


def test_everything_else_that_a_camera_file_may_say(tmp_path):
    data = {
        "intrinsics": K.tolist(),
        "distortion": LENS.tolist(),
        "image_size": [640, 480],
        "rotation": TURN,
        "center_mm": [1, 2, 3000],
    }
    known = read_camera(written(tmp_path, data))
    np.testing.assert_array_equal(known.camera.intrinsics, K)
    np.testing.assert_array_equal(known.camera.distortion, LENS)
    np.testing.assert_array_equal(known.camera.rot_world_to_cam, TURN)
    np.testing.assert_array_equal(known.camera.cam_center_mm, [1, 2, 3000])
    assert known.knows_world and known.image_size == (640, 480)
    known.check_size("a.jpg", (640, 480))
    with pytest.raises(UserError, match="a.jpg is 480 x 640 px.*camera.json.* 640 x 480 px"):
        known.check_size("a.jpg", (480, 640))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"fx": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ([1, 2], "expected an object with fx, fy, cx, cy"),
        ({}, "missing field 'fx'"),
        ({"fx": 1, "fy": 1, "cx": 1}, "missing field 'cy'"),
        ({**GOOD, "skew": 0}, "unknown field 'skew'"),
        ({**GOOD, "intrinsics": K.tolist()}, "unknown field 'cx'"),
        ({**GOOD, "fx": "900"}, "fx: expected a number, got '900'"),
        ({**GOOD, "fx": True}, "fx: expected a number, got True"),
        ({**GOOD, "cx": math.nan}, "cx: expected a number"),
        ({**GOOD, "cx": math.inf}, "cx: expected a number"),
        ({**GOOD, "cx": 10**400}, "cx: expected a number"),
        ({**GOOD, "fy": 0}, "focal lengths of at least 1 px, got 900 and 0"),
        ({**GOOD, "fy": -1000}, "focal lengths"),
        ({"intrinsics": [[1, 2], [3, 4]]}, "intrinsics: expected a list of 3 lists of 3 numbers"),
        ({"intrinsics": [[9, 0, 1], [0, 9, 1], 7]}, r"intrinsics\[2\]: expected a list of 3 numbers, got 7"),
        ({"intrinsics": [[9, 0, 1], [1, 9, 1], [0, 0, 1]]}, "intrinsics: expected"),
        ({"intrinsics": [[9, 0, 1], [0, 9, 1], [0, 0, 2]]}, "intrinsics: expected"),
        ({"intrinsics": [[9, 0, 0], [0, 9, 0], [1, 1, 1]]}, "intrinsics: expected"),
        ({**GOOD, "distortion": [0, 0, 0, 0]}, "distortion: expected a list of 5 numbers"),
        ({**GOOD, "distortion": [0, 0, None, 0, 0]}, r"distortion\[2\]: expected a number, got None"),
        ({**GOOD, "image_size": [640.0, 480]}, "image_size: expected .width, height."),
        ({**GOOD, "image_size": [0, 480]}, "image_size"),
        ({**GOOD, "image_size": 640}, "image_size"),
        ({**GOOD, "rotation": TURN}, "missing field 'center_mm'"),
        ({**GOOD, "center_mm": [0, 0, 0]}, "missing field 'rotation'"),
        ({**GOOD, "center_mm": [0, 0, 0], "rotation": np.diag([1, 1, -1]).tolist()}, "rotation: expected a rotation"),
        ({**GOOD, "center_mm": [0, 0, 0], "rotation": np.diag([2, 1, 1]).tolist()}, "rotation: expected a rotation"),
    ],
)
def test_a_camera_file_is_refused_by_field(tmp_path, data, text):
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=text) as caught:
        read_camera(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_no_camera_file_is_refused(tmp_path):
    (tmp_path / "big.json").write_bytes(b" " * 1_000_001)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("big.json", "bytes.json", "none.json", ".", "n" * 300):
        with pytest.raises(UserError, match="does not exist|cannot be read|no camera file"):
            read_camera(tmp_path / name)
