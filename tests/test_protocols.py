"""Protocols say what they mean, tell what differs from them, and published numbers fit their tables."""

import dataclasses

import numpy as np
import pytest

from fusion_jax.errors import UserError
from fusion_jax.protocols import ACTIONS, PROTOCOLS, protocol
from fusion_jax.published import PUBLISHED, published_for
from fusion_jax.skeletons import skeleton

HUMAN36M = protocol("human36m")


def labels(subjects=("S9", "S11"), cameras=HUMAN36M.cameras):
    pairs = [(s, c) for s in subjects for c in cameras]
    return {"subject": np.array([s for s, _ in pairs]), "camera_name": np.array([c for _, c in pairs])}


def differences(labels, training=HUMAN36M.train_subjects, layout="human36m17", **description):
    return HUMAN36M.differences(labels, skeleton(layout), training, description)


def test_registry():
    assert set(PROTOCOLS) == {"human36m", "humaneva", "kth_football2", "lsp", "mpii"}
    assert all(name == p.name and hash(p) for name, p in PROTOCOLS.items())
    with pytest.raises(UserError, match="Did you mean 'human36m'"):
        protocol("human36")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_words_say_everything_a_number_needs(name):
    words = PROTOCOLS[name].words()
    assert words["protocol"] == name and all(isinstance(text, str) and text for text in words.values())
    assert {"dataset", "train", "test", "frames", "joints", "root", "alignment", "mean", "source"} <= words.keys()
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS[name].train = "everybody"


def test_human36m_is_the_papers():
    assert set(HUMAN36M.train_subjects).isdisjoint(HUMAN36M.test_subjects)
    assert len(ACTIONS) == 15 and HUMAN36M.actions == ACTIONS and HUMAN36M.action_means == (("action mean", ACTIONS),)
    assert ACTIONS[0] == "Directions" and ACTIONS[12:] == ("WalkDog", "Walking", "WalkTogether")


def test_faulty_frames_are_exactly_these():
    """Recordings and cameras beside each of the four, so that a looser match would take one too many."""
    bad, good = "54138969", "55011271"
    cases = [
        ("S9/Greeting", good, True), ("S9/Greeting", bad, True), ("S9/Greeting 1", bad, False),
        ("S9/SittingDown 1", good, True), ("S9/SittingDown", good, False), ("S9/Sitting 1", good, False),
        ("S9/Waiting 1", good, True), ("S9/Waiting", good, False),
        ("S11/Directions", bad, True), ("S11/Directions", good, False), ("S11/Directions 1", bad, False),
        ("S11/Greeting", bad, False), ("S11/Waiting 1", bad, False), ("S9/Directions", bad, False),
    ]  # fmt: skip
    sequences, cameras, want = map(np.array, zip(*cases, strict=True))
    np.testing.assert_array_equal(HUMAN36M.faulty(sequences, cameras), want)


def test_the_protocol_itself_differs_in_nothing():
    assert differences(labels(), frame_step=5) == []
    assert differences(labels(), training=None) == [], "what is not known is not compared"
    assert differences(labels(), training=["S8", "S7", "S6", "S5", "S1"]) == [], "the order says nothing"


@pytest.mark.parametrize(
    "found, said",
    [
        (lambda: differences(labels(["S9"])), "test subjects S9 instead of S9, S11"),
        (lambda: differences(labels(), ["S1", "S9"]), "training subjects S1, S9 instead of S1, S5, S6, S7, S8"),
        (lambda: differences(labels(), []), "training subjects none instead of S1, S5, S6, S7, S8"),
        (lambda: differences(labels(cameras=["60457274"])), "cameras 60457274 instead of"),
        (lambda: differences(labels(), frame_step=64), "frame step 64 instead of 5"),
        (lambda: differences(labels(), layout="mpii16"), "skeleton mpii16 instead of human36m17"),
    ],
)
def test_each_difference_is_said(found, said):
    (sentence,) = found()
    assert sentence.startswith("differs from the protocol: ") and said in sentence


def test_another_root_is_said():
    kth = protocol("kth_football2")
    who = {"subject": np.array(["player2"]), "camera_name": np.array(["Camera 1"])}
    assert kth.differences(who, skeleton("lsp14"), ["player2"], {"frame_step": "1"}) == []
    (camera,) = kth.differences(who | {"camera_name": np.array(["Camera 2"])}, skeleton("lsp14"), ["player2"], {})
    assert camera == "differs from the protocol: cameras Camera 2 instead of Camera 1"
    (sentence,) = kth.differences(who, skeleton("human36m17"), ["player2"], {})
    assert "root pelvis instead of left_hip, right_hip" in sentence


def test_joints_that_a_skeleton_lacks_are_named():
    for name, layout in (("lsp", "lsp14"), ("mpii", "mpii16"), ("kth_football2", "human36m17"), ("human36m", "lsp14")):
        protocol(name).check_joints(skeleton(layout))
    with pytest.raises(UserError, match="lsp scores neck, which skeleton human36m17 lacks.*: lsp14"):
        protocol("lsp").check_joints(skeleton("human36m17"))
    with pytest.raises(UserError, match="mpii scores head_top, upper_neck, which skeleton humaneva15 lacks.*: mpii16"):
        protocol("mpii").check_joints(skeleton("humaneva15"))


def test_mpii_scores_neither_pelvis_nor_thorax():
    scored = {joint for _, joints in protocol("mpii").joint_groups for joint in joints}
    assert set(skeleton("mpii16").joints) - scored == {"pelvis", "thorax"}
    assert {j for _, joints in protocol("lsp").joint_groups for j in joints} == set(skeleton("lsp14").joints)


def test_published_numbers_have_sources_and_plausible_values():
    assert all(record.source and record.note and record.values for record in PUBLISHED)
    assert {record.protocol for record in PUBLISHED} <= set(PROTOCOLS)
    names = [(record.protocol, record.name) for record in PUBLISHED]
    assert len(names) == len(set(names)), "a table tells its rows apart by name"
    assert published_for("lsp") == () and len(published_for("human36m")) > 10


def test_the_papers_row_is_consistent():
    """Its 15 actions average to 69.7, so the row was copied whole and its average is over actions."""
    paper = published_for("human36m")[0].values
    assert tuple(paper) == (*ACTIONS, "action mean")
    assert np.mean([paper[action]["mpjpe_mm"] for action in ACTIONS]) == pytest.approx(69.7, abs=0.05)
    assert paper["action mean"]["mpjpe_mm"] == 69.7
