"""Actions: real timing, feet on the floor, hinges, variety, determinism."""

import numpy as np
import pytest

from data_pipelines.synthetic_humans.actions import ACTIONS, perform
from data_pipelines.synthetic_humans.body import clearance_mm
from data_pipelines.synthetic_humans.people import SKELETON, sample_person
from fusion_jax.errors import UserError

PERSON = sample_person(0, 5)
J = {name: i for i, name in enumerate(SKELETON.joints)}


def clip_of(action, seed=0, frames=150, fps=50.0):
    return perform(action, PERSON, np.random.default_rng(seed), frames, fps, performer="p", name="n")


@pytest.mark.parametrize("action", ACTIONS)
def test_clips_are_bodies_on_the_floor_near_the_origin(action):
    for seed in range(3):
        clip = clip_of(action, seed)
        joints = clip.joints_mm
        assert joints.shape == (150, 17, 3) and joints.dtype == np.float32
        assert (clip.performer, clip.action, clip.name, clip.fps) == ("p", action, "n", 50.0)
        parents, children = (list(side) for side in zip(*SKELETON.bones, strict=True))
        lengths = np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)
        np.testing.assert_allclose(lengths, np.tile(PERSON.bone_lengths_mm, (150, 1)), rtol=1e-3)
        lowest = (joints[:, :, 2] - clearance_mm(PERSON)).min(axis=1)
        assert lowest.min() > -0.1
        if action not in ("running", "jumping"):
            np.testing.assert_allclose(lowest, 0, atol=0.1)
        assert np.abs(joints[:, 0, :2]).max() < 1800
        assert joints[:, J["head_top"], 2].min() > 350
        assert (np.linalg.norm(np.diff(joints, axis=0), axis=-1) * 50).max() < 14000  # mm/s, a fast punch


@pytest.mark.parametrize("action", ACTIONS)
def test_knees_and_elbows_never_bend_backwards(action):
    joints = clip_of(action, 1).joints_mm.astype(np.float64)
    left = joints[:, J["left_hip"]] - joints[:, J["right_hip"]]
    for side in ("left", "right"):
        hip, knee, ankle = (joints[:, J[f"{side}_{name}"]] for name in ("hip", "knee", "ankle"))
        # Seen from the left, the shin turns backwards out of the thigh's line; thighs that point sideways
        # turn the knee's axis away from the hips' line and tell nothing.
        turn = np.einsum("ti,ti->t", np.cross(ankle - knee, knee - hip), left)
        size = np.linalg.norm(ankle - knee, axis=1) * np.linalg.norm(knee - hip, axis=1) * np.linalg.norm(left, axis=1)
        assert (turn / size).max() < 0.06


@pytest.mark.parametrize("fps", [50.0, 5.0])
def test_walking_and_running_speeds(fps):
    def speed(action, seed):
        root = clip_of(action, seed, int(4 * fps), fps).joints_mm[:, 0, :2].astype(np.float64)
        step = np.linalg.norm(np.diff(root, axis=0), axis=1)
        return step.mean() * fps / 1000

    walks, runs = [speed("walking", s) for s in range(6)], [speed("running", s) for s in range(6)]
    assert 1.0 < np.mean(walks) < 1.6 and 0.6 < min(walks) and max(walks) < 2.0
    assert 2.2 < np.mean(runs) < 3.6


def test_walking_step_rate_is_about_1_8_per_second():
    ankles = clip_of("walking", 0, 500).joints_mm[:, [J["left_ankle"], J["right_ankle"]]]
    ahead = ankles[:, 0, 2] > ankles[:, 1, 2]
    steps = np.count_nonzero(np.diff(ahead.astype(int)))
    assert 1.3 < steps / 10 < 2.4


def test_walking_feet_hardly_slide():
    joints = clip_of("walking", 2).joints_mm.astype(np.float64)
    feet = joints[:, [J["left_ankle"], J["right_ankle"]]]
    low = feet[1:, :, 2].argmin(axis=1)
    slide = np.linalg.norm(np.diff(feet[..., :2], axis=0), axis=-1)[np.arange(len(low)), low] * 50
    assert np.median(slide) < 350  # mm/s, of a body that moves at 1300


def test_running_and_jumping_leave_the_floor():
    for action, least in (("running", 30), ("jumping", 120)):
        joints = clip_of(action, 3, 200).joints_mm
        height = (joints[:, :, 2] - clearance_mm(PERSON)).min(axis=1)
        assert height.max() > least and height.min() < 0.1


def test_jump_height_fits_its_time_in_the_air():
    joints = clip_of("jumping", 4, 300, 200.0).joints_mm
    height = (joints[:, :, 2] - clearance_mm(PERSON)).min(axis=1)
    flying = np.flatnonzero(np.diff((height > 0.5).astype(int)))
    starts = [a for a in flying if height[a + 1] > height[a]]
    ends = [b for b in flying if b > starts[0] and height[b + 1] < height[b]]
    seconds = (ends[0] - starts[0]) / 200
    np.testing.assert_allclose(height[starts[0] : ends[0] + 1].max(), 9810 * seconds**2 / 8, rtol=0.08)


def test_sitting_is_low_and_headings_cover_the_circle():
    sitting = np.concatenate([clip_of("sitting", s).joints_mm[:, 0, 2] for s in range(4)])
    assert 0.2 < np.median(sitting) / PERSON.stature_mm < 0.36
    headings = []
    for seed in range(24):
        joints = clip_of("waving", seed, 1).joints_mm[0].astype(np.float64)
        left = joints[J["left_hip"]] - joints[J["right_hip"]]
        headings.append(np.arctan2(-left[0], left[1]))
    assert len(np.unique((np.array(headings) // (np.pi / 4)).astype(int))) >= 7


def test_deterministic_and_styles_differ():
    assert np.array_equal(clip_of("boxing", 9).joints_mm, clip_of("boxing", 9).joints_mm)
    a, b = (clip_of("boxing", s).joints_mm for s in (1, 2))
    assert np.abs((a - a[:, :1]) - (b - b[:, :1])).mean() > 30


def test_bad_requests_are_explained():
    with pytest.raises(UserError, match="Did you mean 'walking'"):
        clip_of("walkin")
    with pytest.raises(UserError, match="num_frames"):
        clip_of("walking", frames=0)
