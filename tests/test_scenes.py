"""Scenes: exact crops, cameras, determinism, batches."""

import jax
import numpy as np
import pytest

from data_pipelines.synthetic_humans.actions import ACTIONS, perform
from data_pipelines.synthetic_humans.flesh import capsules
from data_pipelines.synthetic_humans.people import SKELETON, sample_person, stack_people
from data_pipelines.synthetic_humans.scenes import camera_ring, make_scene, make_scenes, stack_cameras
from fusion_jax.errors import UserError
from fusion_jax.geometry import camera_to_image, crop_matrix, world_to_camera, world_to_image

PERSON = sample_person(0, 2)
J = {name: i for i, name in enumerate(SKELETON.joints)}


def frames(count=4, seed=0):
    rng = np.random.default_rng(seed)
    joints = np.stack([perform(a, PERSON, rng, 1, 50.0).joints_mm[0] for a in list(ACTIONS)[:count]])
    return joints, stack_cameras([camera_ring(rng)[i % 4] for i in range(count)]), rng


def test_ring_looks_at_the_middle_from_four_sides():
    for seed in range(10):
        ring = camera_ring(np.random.default_rng(seed))
        assert len(ring) == 4
        for camera in ring:
            np.testing.assert_allclose(camera.rot_world_to_cam @ camera.rot_world_to_cam.T, np.eye(3), atol=1e-5)
            assert np.linalg.det(camera.rot_world_to_cam) > 0.99
            assert 3900 < np.linalg.norm(camera.cam_center_mm[:2]) < 5600
            assert 1200 <= camera.cam_center_mm[2] <= 1900
            middle, above = world_to_image(np.array([[0, 0, 900.0], [0, 0, 1700]], np.float32), camera)
            assert np.abs(middle - 499.5).max() < 130
            assert above[1] < middle[1]  # up in the world is up in the picture
        places = np.sort([np.arctan2(*c.cam_center_mm[1::-1]) for c in ring])
        assert np.diff([*places, places[0] + 2 * np.pi]).min() > 0.9


def test_crop_camera_box_and_joints_agree():
    joints, cameras, rng = frames()
    scenes, views = make_scenes(PERSON, joints, cameras, 64, rng)
    for i in range(4):
        full = type(cameras)(*(field[i] for field in cameras))
        crop = crop_matrix(views.box[i], 64)
        np.testing.assert_allclose(views.camera.intrinsics[i], crop @ full.intrinsics, rtol=1e-4)
        pixels = camera_to_image(world_to_camera(joints[i], full), full.intrinsics)
        np.testing.assert_allclose(views.joints2d[i], pixels @ crop[:2, :2].T + crop[:2, 2], atol=0.01)
        np.testing.assert_array_equal(scenes.intrinsics[i], views.camera.intrinsics[i])


def test_crops_hold_the_whole_body_with_room_to_spare():
    joints, cameras, rng = frames(14)
    _, views = make_scenes(PERSON, joints, cameras, 64, rng)
    assert views.joints2d.min() > 0 and views.joints2d.max() < 63
    extent = (views.joints2d.max(1) - views.joints2d.min(1)).max(-1)
    assert extent.min() > 30  # and do not lose it in the picture


def test_same_seed_same_scene_and_fields_are_float32():
    joints, cameras, _ = frames()
    first, second = (make_scenes(PERSON, joints, cameras, 64, np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a.dtype == np.float32 and np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    other = make_scenes(PERSON, joints, cameras, 64, np.random.default_rng(6))[0]
    assert not np.array_equal(first[0].light.direction, other.light.direction)


def test_one_room_repeats_light_and_room_only():
    joints, cameras, rng = frames()
    scenes, _ = make_scenes(PERSON, joints, cameras, 64, rng, one_room=True)
    for field in (*scenes.light, *scenes.backdrop):
        np.testing.assert_array_equal(field, np.broadcast_to(field[:1], field.shape))
    assert not np.array_equal(scenes.body.start[0], scenes.body.start[1])


def test_stacked_people_dress_each_frame_as_alone():
    people = [sample_person(1, i) for i in range(3)]
    joints = np.stack(
        [perform("walking", p, np.random.default_rng(i), 1, 50.0).joints_mm[0] for i, p in enumerate(people)]
    )
    together = capsules(joints, stack_people(people))
    for i, person in enumerate(people):
        alone = capsules(joints[i : i + 1], person)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], rtol=1e-5, atol=1e-3)


def test_single_scene_is_a_batch_of_one():
    joints, cameras, _ = frames()
    camera = jax.tree.map(lambda x: x[0], cameras)
    scene, view = make_scene(PERSON, joints[0], camera, 64, np.random.default_rng(1))
    scenes, views = make_scenes(PERSON, joints[:1], camera, 64, np.random.default_rng(1))
    for a, b in zip(jax.tree.leaves((scene, view)), jax.tree.leaves((scenes, views)), strict=True):
        np.testing.assert_array_equal(a, b[0])


def test_flesh_rests_on_the_floor_and_faces_forward():
    for action in ACTIONS:
        joints = perform(action, PERSON, np.random.default_rng(3), 20, 10.0).joints_mm
        body = capsules(joints, PERSON)
        lowest = np.minimum(body.start[..., 2] - body.radius[..., 0], body.end[..., 2] - body.radius[..., 1]).min(1)
        assert lowest.min() > -25  # mm, kneeling shins and hands may press a little into the floor
        if action in ("waving", "gesturing", "phoning"):
            assert lowest.max() < 5
    standing = perform("waving", PERSON, np.random.default_rng(0), 1, 50.0).joints_mm
    body = capsules(standing, PERSON)
    left = standing[0, J["left_hip"]] - standing[0, J["right_hip"]]
    front = np.cross(left, [0, 0, 1.0])
    shoes = np.all(body.color[0, :, 0] == body.color[0, -1, 0], axis=-1)  # the last cone is a shoe
    assert shoes.sum() >= 2
    assert (((body.end - body.start)[0, shoes] @ front) > 0).all()


def test_bad_cameras_are_explained():
    joints, cameras, rng = frames()
    with pytest.raises(UserError, match="distortion"):
        make_scenes(PERSON, joints, cameras._replace(distortion=cameras.distortion + 0.1), 64, rng)
    with pytest.raises(UserError, match="camera plane"):
        make_scenes(PERSON, joints, cameras._replace(cam_center_mm=joints[:, 0]), 64, rng)
