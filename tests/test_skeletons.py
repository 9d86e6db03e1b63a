"""Joint layouts: trees, mirrors, and conversions by name against index tables written by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from fusion_jax.errors import UserError
from fusion_jax.skeletons import SKELETONS, Skeleton, convert_joints, convert_valid, skeleton

ALL = sorted(SKELETONS)


def joints(name, seed=0, dims=3):
    shape = (2, SKELETONS[name].num_joints, dims)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ALL)
def test_flip_is_an_involution_that_swaps_sides(name):
    skel = skeleton(name)
    flip = np.array(skel.flip)
    np.testing.assert_array_equal(flip[flip], np.arange(skel.num_joints))
    for joint, mirror in enumerate(flip):
        here, there = skel.joints[joint], skel.joints[mirror]
        if skel.side(joint) == "middle":
            assert here == there and "left" not in here and "right" not in here
        else:
            assert {skel.side(joint), skel.side(mirror)} == {"left", "right"}
            assert here.removeprefix("left_").removeprefix("right_") == there[len(skel.side(mirror)) + 1 :]


def test_mpii_flip_pairs():  # the pairs of MPII's own tools
    pairs = {frozenset(p) for p in enumerate(skeleton("mpii16").flip) if p[0] != p[1]}
    assert pairs == {frozenset(p) for p in [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]}


@pytest.mark.parametrize("name", ALL)
def test_bones_form_one_tree(name):
    skel = skeleton(name)
    assert len(skel.bones) == skel.num_joints - 1
    reached = {skel.parents.index(-1)}
    for _ in range(skel.num_joints):
        reached |= {child for parent, child in skel.bones if parent in reached}
    assert reached == set(range(skel.num_joints))


@pytest.mark.parametrize("name", ALL)
def test_mirrored_bones_are_bones(name):
    skel = skeleton(name)
    mirrored = {frozenset((skel.flip[parent], skel.flip[child])) for parent, child in skel.bones}
    assert mirrored == {frozenset(bone) for bone in skel.bones}


def test_published_parents():
    assert skeleton("human36m17").parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert skeleton("humaneva15").parents == (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1)


def test_roots():
    assert skeleton("human36m17").root_indices == (0,)
    assert skeleton("mpii16").root_indices == (6,)
    assert skeleton("humaneva15").root_indices == (0,)
    assert skeleton("lsp14").root_indices == (2, 3)


# For each target joint the Human3.6M joints whose mean it is: the table of joint orders side by side, and MPII's
# upper neck, which lies between the neck base (8) and the nose (9).
FROM_HUMAN36M = {
    "mpii16": [[3], [2], [1], [4], [5], [6], [0], [8], [8, 9], [10], [16], [15], [14], [11], [12], [13]],
    "lsp14": [[3], [2], [1], [4], [5], [6], [16], [15], [14], [11], [12], [13], [8], [10]],
    "humaneva15": [[0], [8], [11], [12], [13], [14], [15], [16], [4], [5], [6], [1], [2], [3], [10]],
}


@pytest.mark.parametrize("target", sorted(FROM_HUMAN36M))
def test_conversion_from_human36m_by_hand(target):
    pose = joints("human36m17")
    want = np.stack([pose[:, group].mean(1) for group in FROM_HUMAN36M[target]], 1)
    got = convert_joints(pose, skeleton("human36m17"), skeleton(target))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_pelvis_of_lsp_is_between_the_hips():
    pose = joints("lsp14")
    got = convert_joints(pose, skeleton("lsp14"), skeleton("mpii16"))
    np.testing.assert_allclose(got[:, 6], (pose[:, 2] + pose[:, 3]) / 2, atol=1e-6)
    np.testing.assert_allclose(got[:, 7], pose[:, 12], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_conversion_to_itself_is_the_identity(name):
    np.testing.assert_array_equal(convert_joints(joints(name), skeleton(name), skeleton(name)), joints(name))


def test_round_trip_keeps_shared_joints():
    source, via = skeleton("humaneva15"), skeleton("lsp14")
    pose = joints("humaneva15")
    back = convert_joints(convert_joints(pose, source, via), via, source)
    want = pose.copy()
    want[:, 0] = (pose[:, 8] + pose[:, 11]) / 2  # LSP has no pelvis: between the hips
    np.testing.assert_allclose(back, want, atol=1e-6)


@pytest.mark.parametrize("target", ALL)
def test_conversion_commutes_with_translation_and_flip(target):
    source, target = skeleton("human36m17"), skeleton(target)
    pose = joints("human36m17")
    moved = convert_joints(pose + 7, source, target)
    np.testing.assert_allclose(moved, convert_joints(pose, source, target) + 7, atol=1e-5)
    flipped = convert_joints(pose[:, list(source.flip)], source, target)
    np.testing.assert_allclose(flipped, convert_joints(pose, source, target)[:, list(target.flip)], atol=1e-6)


def test_numpy_in_numpy_out_jax_in_jax_out():
    source, target = skeleton("human36m17"), skeleton("mpii16")
    got = convert_joints(joints("human36m17"), source, target)
    assert isinstance(got, np.ndarray) and got.dtype == np.float32
    on_device = convert_joints(jnp.asarray(joints("human36m17")), source, target)
    assert isinstance(on_device, jnp.ndarray)
    np.testing.assert_allclose(on_device, got, atol=1e-6)


@pytest.mark.parametrize("xp", [np, jnp])
def test_valid_needs_every_joint_it_is_made_of(xp):
    valid = np.ones((2, 17), bool)
    valid[0, 9], valid[1, 3] = False, False  # nose; right ankle
    got = np.asarray(convert_valid(xp.asarray(valid), skeleton("human36m17"), skeleton("mpii16")))
    want = np.ones((2, 16), bool)
    want[0, 8], want[1, 0] = False, False  # upper neck; right ankle
    np.testing.assert_array_equal(got, want)


def test_an_unknown_joint_stays_in_its_place():  # NaN marks a joint nobody annotated; the others must survive
    pose = joints("human36m17", dims=2)
    pose[0, 3] = np.nan
    got = convert_joints(pose, skeleton("human36m17"), skeleton("mpii16"))
    assert np.isfinite(got[0, 1:]).all()


def test_missing_joints_are_all_named():
    with pytest.raises(UserError, match="humaneva15.*human36m17.*nose") as error:
        convert_joints(joints("humaneva15"), skeleton("humaneva15"), skeleton("human36m17"))
    assert "spine" not in str(error.value)  # pelvis and thorax stand for it
    stub = Skeleton("stub", ("pelvis", "left_hip", "right_hip"), (-1, 0, 0), ("pelvis",))
    with pytest.raises(UserError) as error:
        convert_joints(np.zeros((1, 3, 3)), stub, skeleton("lsp14"))
    for name in set(skeleton("lsp14").joints) - set(stub.joints):
        assert name in str(error.value)


def test_unknown_names_list_the_known():
    with pytest.raises(UserError, match="human36m17.*human36m17, humaneva15, lsp14, mpii16"):
        skeleton("human36m")
    with pytest.raises(UserError, match="left_knee"):
        skeleton("lsp14").index("left_kneee")


@pytest.mark.parametrize(
    "fields",
    [
        (("a", "b"), (-1,), ("a",)),  # a parent missing
        (("a", "a"), (-1, 0), ("a",)),  # a name twice
        (("a", "b"), (-1, -1), ("a",)),  # two trees
        (("a", "b"), (1, 0), ("a",)),  # no root
        (("a", "b"), (-1, 0), ("c",)),  # a root it lacks
        (("a", "b", "c"), (-1, 2, 1), ("a",)),  # a cycle beside the root
        (("a", "b"), (-1, 7), ("a",)),  # a parent out of range
    ],
)
def test_broken_layouts_are_refused(fields):
    with pytest.raises(ValueError, match="broken"):
        Skeleton("broken", *fields)
