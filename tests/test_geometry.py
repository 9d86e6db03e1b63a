"""Cameras against OpenCV, crops against their own definition, alignment against SciPy."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from fusion_jax import geometry
from fusion_jax.geometry import Camera

LENS = np.array([-0.2, 0.24, -0.0025, -0.0015, 0.007])  # as strong as Human3.6M's
SEEDS = st.integers(0, 2**32 - 1)


def camera(rng, distortion=LENS):
    rotation = Rotation.random(rng=rng).as_matrix()
    intrinsics = np.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    return Camera(rotation, rng.normal(size=3) * 3000, intrinsics, distortion)


def pixels(rng, n=20, size=1000):
    return rng.uniform(0, size, (n, 2)), rng.uniform(2000, 8000, n)


def pose(rng, *shape):
    return rng.normal(size=(*shape, 3)) * 300


# --- cameras ----------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_world_to_camera_round_trip(seed):
    rng = np.random.default_rng(seed)
    cam, points = camera(rng), pose(rng, 10)
    there = geometry.world_to_camera(points, cam)
    np.testing.assert_allclose(geometry.camera_to_world(there, cam), points, atol=1e-8)
    want = (cam.rot_world_to_cam @ (points - cam.cam_center_mm).T).T
    np.testing.assert_allclose(there, want, atol=1e-8)


@given(SEEDS, st.booleans())
def test_projection_undoes_back_projection(seed, lens):
    rng = np.random.default_rng(seed)
    cam, (points_px, depth_mm) = camera(rng), pixels(rng)
    distortion = LENS if lens else None
    points_mm = geometry.image_to_camera(points_px, depth_mm, cam.intrinsics, distortion)
    np.testing.assert_array_equal(points_mm[:, 2], depth_mm)
    again_px = geometry.camera_to_image(points_mm, cam.intrinsics, distortion)
    np.testing.assert_allclose(again_px, points_px, atol=1e-6, rtol=0)
    again_mm = geometry.image_to_camera(again_px, depth_mm, cam.intrinsics, distortion)
    np.testing.assert_allclose(again_mm, points_mm, atol=1e-5, rtol=0)


@given(SEEDS)
def test_projection_equals_opencv(seed):
    rng = np.random.default_rng(seed)
    cam, (points_px, depth_mm) = camera(rng), pixels(rng)
    in_camera = geometry.image_to_camera(points_px, depth_mm, cam.intrinsics, LENS)
    world = geometry.camera_to_world(in_camera, cam)
    rvec, _ = cv2.Rodrigues(cam.rot_world_to_cam)
    tvec = -cam.rot_world_to_cam @ cam.cam_center_mm
    want, _ = cv2.projectPoints(world, rvec, tvec, cam.intrinsics, LENS)
    np.testing.assert_allclose(geometry.world_to_image(world, cam), want[:, 0], atol=1e-6, rtol=0)


def test_batched_cameras_equal_one_at_a_time():
    rng = np.random.default_rng(0)
    cams, points = [camera(rng, LENS * scale) for scale in (1, 0.5, 0)], pose(rng, 3, 7)
    stacked = Camera(*(np.stack(field) for field in zip(*cams, strict=True)))
    in_camera = geometry.world_to_camera(points, stacked)
    in_camera[..., 2] = np.abs(in_camera[..., 2]) + 1000
    got = geometry.camera_to_image(in_camera, stacked.intrinsics, stacked.distortion)
    back = geometry.image_to_camera(got, in_camera[..., 2], stacked.intrinsics, np.zeros((3, 5)))
    for i, cam in enumerate(cams):
        want = geometry.camera_to_image(in_camera[i], cam.intrinsics, cam.distortion)
        np.testing.assert_allclose(got[i], want, rtol=1e-12)
    assert back.shape == points.shape
    np.testing.assert_allclose(back[2], in_camera[2], rtol=1e-9)


def test_jax_projects_as_numpy_does():
    rng = np.random.default_rng(1)
    cam, (points_px, depth_mm) = camera(rng), pixels(rng)
    points = geometry.camera_to_world(geometry.image_to_camera(points_px, depth_mm, cam.intrinsics, LENS), cam)
    got = jax.jit(geometry.world_to_image)(*jax.tree.map(jnp.asarray, (points, cam)))
    np.testing.assert_allclose(got, geometry.world_to_image(points, cam), atol=0.01, rtol=0)


def test_projection_gradient():
    rng = np.random.default_rng(2)
    cam, (points_px, depth_mm) = camera(rng), pixels(rng, 4)
    points = geometry.image_to_camera(points_px, depth_mm, cam.intrinsics, LENS) / 1000  # metres: even scales
    with jax.enable_x64(True):

        def f(p, d):
            return geometry.camera_to_image(p, jnp.asarray(cam.intrinsics), d) / 1000

        check_grads(jax.jit(f), (jnp.asarray(points), jnp.asarray(LENS)), order=1, modes=("rev",))


@pytest.mark.parametrize("lens", [False, True])
def test_points_behind_the_camera_stay_finite(lens):
    points = jnp.array([[1000.0, -700.0, z] for z in (0.0, -1.0, -5000.0, 1e-3)])
    intrinsics = jnp.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    distortion = jnp.asarray(LENS, jnp.float32) if lens else None
    f = jax.jit(lambda p: geometry.camera_to_image(p, intrinsics, distortion))
    assert np.isfinite(f(points)).all() and (np.abs(f(points)) > 1e4).all()
    assert np.isfinite(jax.jit(jax.grad(lambda p: f(p).sum()))(points)).all()


# --- crops ------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_crop_keeps_the_camera_exact(seed):
    rng = np.random.default_rng(seed)
    cam, (points_px, depth_mm) = camera(rng), pixels(rng)
    points_mm = geometry.image_to_camera(points_px, depth_mm, cam.intrinsics, LENS)
    crop = geometry.crop_matrix(np.array([*rng.uniform(-50, 400, 2), rng.uniform(100, 900)]), 112)
    want = geometry.apply_affine(crop, geometry.camera_to_image(points_mm, cam.intrinsics, LENS))
    got = geometry.camera_to_image(points_mm, crop @ cam.intrinsics, LENS)
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_crop_corners_are_pixel_edges():
    left, top, side, size = 10.0, -4.0, 56.0, 112
    crop = geometry.crop_matrix(np.array([left, top, side]), size)
    edges = np.array([[left, top], [left + side, top + side], [left + side / 2, top + side / 2]])
    want = [[-0.5, -0.5], [size - 0.5, size - 0.5], [size / 2 - 0.5, size / 2 - 0.5]]
    np.testing.assert_allclose(geometry.apply_affine(crop, edges), want, atol=1e-9)
    # The whole picture, not resized, is no change.
    np.testing.assert_allclose(geometry.crop_matrix(np.array([-0.5, -0.5, 64]), 64), np.eye(3), atol=1e-12)


def test_crop_agrees_with_opencv_resampling():
    """On a picture whose value is its own x (or y), each cropped pixel shows where it came from."""
    ys, xs = np.mgrid[:80, :80].astype(np.float32)
    crop = geometry.crop_matrix(np.array([12.25, 20.5, 40.0]), 16)
    source = geometry.apply_affine(np.linalg.inv(crop), np.stack(np.mgrid[:16, :16][::-1], -1).reshape(-1, 2))
    for axis, ramp in enumerate((xs, ys)):
        got = cv2.warpAffine(ramp, crop[:2], (16, 16), flags=cv2.INTER_LINEAR)
        np.testing.assert_allclose(got.reshape(-1), source[:, axis], atol=0.04)  # OpenCV rounds to 1/32 px
    # Halving the size averages 2 x 2 pixels, as cv2.resize does: the first one's centre lies at 0.5.
    half = geometry.crop_matrix(np.array([-0.5, -0.5, 80.0]), 40)
    np.testing.assert_allclose(geometry.apply_affine(half, np.array([[0.5, 0.5]])), [[0, 0]], atol=1e-12)
    assert cv2.resize(xs, (40, 40), interpolation=cv2.INTER_LINEAR)[0, 0] == 0.5


@given(SEEDS, st.floats(0, 0.5))
def test_square_box_contains_the_points(seed, margin):
    rng = np.random.default_rng(seed)
    points, keep = rng.normal(size=(9, 2)) * rng.uniform(1, 300, 2), np.arange(9) < 6
    left, top, side = geometry.square_box(points, margin, keep)
    tight = np.ptp(points[keep], axis=0).max()
    low, high = points[keep].min(0) - [left, top], [left + side, top + side] - points[keep].max(0)
    assert min(low.min(), high.min()) >= margin * tight - 1e-9
    np.testing.assert_allclose(low, high, atol=1e-9)  # centred
    np.testing.assert_allclose(side, max(tight, 1) * (1 + 2 * margin), rtol=1e-12)


def test_square_box_of_one_point_has_a_size():
    left, top, side = geometry.square_box(np.array([[5.0, 7.0]]), margin=0)
    assert (left, top, side) == (4.5, 6.5, 1.0)


# --- root and alignment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("xp", [np, jnp])
def test_root_relative(xp):
    poses = pose(np.random.default_rng(3), 2, 5).astype(np.float32)
    np.testing.assert_allclose(geometry.root_relative(xp.asarray(poses), (2,))[:, 2], 0, atol=1e-4)
    got = geometry.root_relative(xp.asarray(poses), (1, 3))
    np.testing.assert_allclose(got, poses - (poses[:, 1:2] + poses[:, 3:4]) / 2, atol=1e-3)
