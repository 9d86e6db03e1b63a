"""Nobody is tested whom training has seen: in one dataset, across datasets, and through weights started from."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.prepared import PoseDataset
from data_pipelines.provenance import check_provenance, merge, overlap
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen, check_splits, check_test, seen_from_json, unknown_overlap
from fusion_jax.skeletons import skeleton


def dataset(name="toy/a", *, family="toy", train=("A", "B"), test=("C",), frames=None, people_shared=False):
    return PoseDataset(
        name=name, skeleton=skeleton("lsp14"), image_size=8, splits={}, description={}, fingerprint="",
        subjects={"train": list(train), "test": list(test)}, family=family, provenance=frames or {},
        people_shared=people_shared,
    )  # fmt: skip


intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=5)


@given(one=intervals, other=intervals)
def test_overlap_says_what_sets_of_frames_say(one, other):
    def frames(pairs):
        return {n for first, length in pairs for n in range(first, first + length + 1)}

    def provenance(pairs):
        return merge(("walk", first, first + length) for first, length in pairs)

    merged = provenance(one)["walk"]
    assert frames([(a, b - a) for a, b in merged]) == frames(one)
    assert all(b + 1 < c for (_, b), (c, _) in zip(merged, merged[1:], strict=False))
    assert (overlap(provenance(one), provenance(other)) is None) == (not frames(one) & frames(other))


def test_recordings_of_other_names_never_meet():
    assert overlap({"A/walk": [[0, 9]]}, {"B/walk": [[0, 9]]}) is None
    assert overlap({"A/walk": [[0, 9]]}, {"A/walk": [[20, 30], [5, 6]]}) == "A/walk frames 5-6"


def test_a_person_in_training_and_test_is_refused():
    check_splits([dataset()])
    with pytest.raises(UserError, match="B is in both train of toy/a and test of toy/a"):
        check_splits([dataset(test=("B", "C"))])
    with pytest.raises(UserError, match="C is in both test of toy/a and train of toy/b"):
        check_splits([dataset(), dataset("toy/b", train=("C",), test=("D",))])
    check_splits([dataset(), dataset("other/b", family="other", train=("C",), test=("D",))])


def test_where_people_are_shared_the_frames_decide():
    halves = {"train": {"A/walk": [[0, 49]]}, "test": {"A/walk": [[50, 99]]}}
    shared = dataset(train=("A",), test=("A",), frames=halves, people_shared=True)
    check_splits([shared])
    check_test([Seen.of(shared, ["train"])], shared, "test")
    late = dataset(
        "toy/b", train=("A",), test=("A",), frames={**halves, "train": {"A/walk": [[0, 50]]}}, people_shared=True
    )
    with pytest.raises(UserError, match="A/walk frames 50-50 of toy/a's test split was trained on .as toy/b."):
        check_test([Seen.of(late, ["train"])], shared, "test")


def test_the_record_survives_json_and_damage_is_named():
    seen = Seen.of(dataset(frames={"train": {"A/walk": [[0, 9]]}}), ["train"])
    assert seen_from_json([seen.to_json()], "x") == [seen]
    good = seen.to_json()
    for broken in ({}, [1], [{}], [{**good, "subjects": "A"}], [{**good, "provenance": {"A": [[1, 2, 3]]}}]):
        with pytest.raises(UserError, match="trained_on.json"):
            seen_from_json(broken, "trained_on.json")
    with pytest.raises(UserError, match="must map recordings"):
        check_provenance({"A": [["1", "2"]]}, "x")


def test_two_splits_joined_are_all_seen():
    both = Seen.of(dataset(), ["train", "test"])
    assert both.subjects == ("A", "B", "C")
    with pytest.raises(UserError, match="C of toy/a's test split was trained on"):
        check_test([both], dataset(), "test")


def test_every_part_of_joined_splits_is_checked():
    own = dataset(frames={"test": {"C/walk": [[0, 9]]}})
    for seen, both in (
        (Seen.of(dataset("toy/b", train=("C",)), ["train"]), "C"),
        (Seen("toy/b", "toy", True, (), {"C/walk": [[5, 20]]}), "C/walk frames 5-9"),
    ):
        with pytest.raises(UserError, match=f"^{both} of toy/a's validation.test split was trained on .as toy/b.;"):
            check_test([seen], own, "validation+test")


def test_where_nobody_is_named_the_doubt_is_said():
    frames = {"train": {"A/walk": [[0, 9]]}, "test": {"C/walk": [[0, 9]]}}
    known, nameless = dataset(frames=frames), dataset("toy/b", train=(), test=(), frames={"train": {"row": [[0, 9]]}})
    doubt = "cannot tell whether toy/a and toy/b share people"
    assert unknown_overlap([Seen.of(nameless, ["train"])] * 2, known, "test") == doubt
    assert unknown_overlap([Seen.of(known, ["train"])], nameless, "test") == (
        "cannot tell whether toy/b and toy/a share people"
    )
    comparable = dataset("toy/b", train=(), test=(), frames={"train": {"C/walk": [[20, 29]]}})
    told = {
        "both name their people": dataset("toy/b", train=("X",)),
        "frames of one recording can be compared": comparable,
        "another family": dataclasses.replace(nameless, family="other"),
        "its own splits": dataclasses.replace(nameless, name="toy/a"),
    }
    for why, other in told.items():
        assert unknown_overlap([Seen.of(other, ["train"])], known, "test") is None, why


def test_joined_splits_read_one_after_another():
    parts = {"train": [{"n": 0}, {"n": 1}], "validation": [{"n": 2}], "test": [{"n": 3}]}
    joined = dataclasses.replace(dataset(), splits=parts).split("train+validation")
    assert len(joined) == 3
    assert [joined[i]["n"] for i in np.arange(3)] == [0, 1, 2]
    with pytest.raises(IndexError):
        joined[3]
    with pytest.raises(UserError, match="split 'test.train.test' names test twice"):
        dataclasses.replace(dataset(), splits=parts).split("test+train+test")
    with pytest.raises(UserError, match="no split 'val'"):
        dataclasses.replace(dataset(), splits=parts).split("train+val")
