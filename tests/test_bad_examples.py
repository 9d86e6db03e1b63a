"""Examples that cannot be used: named and refused, or replaced alike in every run, counted and named."""

import concurrent.futures
import dataclasses
import itertools
import json
import re
import shutil
import threading

import cv2
import jax
import numpy as np
import pytest
import small

from data_pipelines import bad_examples as bad_examples_module
from data_pipelines.augment import Change
from data_pipelines.bad_examples import BadExamples, replacements
from data_pipelines.loader import eval_batches, has_joints2d, has_poses, pose_statistics, train_iterator
from data_pipelines.prepared import open_prepared
from data_pipelines.samples import make_sample
from fusion_jax import start as start_module
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton
from fusion_jax.train import LoopOptions, train

H36M = skeleton("human36m17")
SIZE = small.SIZE


def jpeg(size=SIZE):
    rng = np.random.default_rng(0)
    return cv2.imencode(".jpg", rng.integers(0, 255, (size, size, 3), np.uint8))[1].tobytes()


def png(size=SIZE):
    rng = np.random.default_rng(0)
    return cv2.imencode(".png", rng.integers(0, 255, (size, size, 3), np.uint8))[1].tobytes()


def with_value(field, place, value):
    def change(example):
        array = np.array(example[field])
        array[place] = value
        return {field: array}

    return change


def with_camera(field, value):
    return lambda example: {"camera": {**example["camera"], field: np.full_like(example["camera"][field], value)}}


FAULTS = {
    "jpeg cut in the middle": (lambda _: {"image": jpeg()[: len(jpeg()) // 2]}, "cut off: it lacks JPEG's end mark"),
    "jpeg without its last byte": (lambda _: {"image": jpeg()[:-1]}, "cut off: it lacks JPEG's end mark"),
    "png cut in the middle": (lambda _: {"image": png()[: len(png()) // 2]}, "cut off: it lacks PNG's end mark"),
    "empty picture": (lambda _: {"image": b""}, r"its image does not decode \(0 bytes\)"),
    "no picture": (lambda _: {"image": b"<html>"}, r"its image does not decode \(6 bytes\)"),
    "picture of another size": (lambda _: {"image": jpeg(8)}, r"its image is \(8, 8, 3\), expected \(16, 16, 3\)"),
    "NaN joint": (with_value("joints_world_mm", 13, np.nan), "3D joint left_wrist is not finite but marked valid"),
    "infinite joint": (with_value("joints_world_mm", (3, 2), np.inf), "3D joint right_ankle is not finite"),
    "NaN 2D joint": (with_value("joints2d_px", 13, np.nan), "2D joint left_wrist is not finite but marked valid"),
    "wrong joint count": (
        lambda e: {"joints_world_mm": e["joints_world_mm"][:16]},
        r"joints_world_mm is \(16, 3\), expected \(17, 3\)",
    ),
    "wrong 2D joint count": (lambda e: {"joints2d_px": e["joints2d_px"][:16]}, r"joints2d_px is \(16, 2\), expected"),
    "flat joints": (lambda e: {"joints_world_mm": e["joints_world_mm"].ravel()}, r"joints_world_mm is \(51,\)"),
    "wrong count of valid": (lambda e: {"valid": e["valid"][:5]}, r"valid is \(5,\), expected \(17,\)"),
    "wrong count of valid2d": (lambda e: {"valid2d": e["valid2d"][:5]}, r"valid2d is \(5,\), expected \(17,\)"),
    "NaN camera": (with_camera("rot_world_to_cam", np.nan), "joints before its camera are not finite"),
    "empty box": (with_value("box", 2, 0), r"its box \[.*, 0.0\] \(left, top, side\) is empty"),
    "NaN box": (with_value("box", 0, np.nan), "its box .* is empty"),
    "NaN head": (lambda _: {"head_size_px": np.float32(np.nan)}, "head_size_px is nan, expected a finite number"),
    "heatmaps of zeros": (lambda _: {"heatmap": np.zeros((8, 8, 16))}, "its heatmap is zero everywhere"),
    "NaN heatmap": (lambda _: {"heatmap": np.full((8, 8, 16), np.nan)}, "its heatmap holds values that are not finite"),
    "heatmaps of other joints": (lambda _: {"heatmap": np.ones((8, 8, 15))}, r"its heatmap is \(8, 8, 15\)"),
}


@pytest.fixture(scope="module")
def dataset():
    return open_prepared("synthetic_humans", small.data_dir())


class Harmed:
    """The examples of a split, some of them changed; pickles."""

    def __init__(self, examples, harms):
        self.examples, self.harms = examples, harms

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        example = self.examples[index]
        return {**example, **self.harms.get(index, {})}


NO_PICTURE = {"image": b"no picture"}


def harmed(dataset, *places, split="train", **harm):
    harms = dict.fromkeys(places, harm or NO_PICTURE)
    return dataclasses.replace(dataset, splits={**dataset.splits, split: Harmed(dataset.split(split), harms)})


def batches(dataset, number, bad=None, *, augment="none", **options):
    iterator = train_iterator(
        dataset, target=H36M, image_size=SIZE, augment=AUGMENTATIONS[augment], batch_size=8, seed=3,
        bad_examples=bad, **options,
    )  # fmt: skip
    try:
        return [next(iterator) for _ in range(number)]
    finally:
        iterator.close()


def poses(dataset):
    train_split = dataset.split("train")
    samples = (make_sample(train_split[i], H36M, H36M, SIZE, SIZE, Change()) for i in range(len(train_split)))
    return {sample["pose_mm"].tobytes(): index for index, sample in enumerate(samples)}


def told(bad):
    lines = []
    bad.tell(lambda kind, step, numbers, text: lines.append((kind, numbers, text)), 1)
    return lines


@pytest.mark.parametrize("fault", FAULTS)
def test_t19_a_bad_example_is_named_with_what_is_wrong(dataset, fault):
    harm, message = FAULTS[fault]
    example = dataset.split("train")[5]
    name = f"{dataset.name}, (train|test) example 5: S0./[a-z_]+/cam2/000000: .*{message}"
    for split in ("train", "test"):
        values = harm(example)
        if "heatmap" in values:  # that the others have, too
            whole = Harmed(dataset.split(split), {i: {"heatmap": np.ones((8, 8, 16))} for i in range(56)})
            broken = dataclasses.replace(dataset, splits={split: Harmed(whole, {5: values})})
        else:
            broken = harmed(dataset, 5, split=split, **values)
        if split == "train":
            with pytest.raises(UserError, match=name) as refused:
                batches(broken, 7)
            assert "--bad-examples skip" in str(refused.value)
        else:
            with pytest.raises(UserError, match=f"{name}.*no frame may be left out"):
                list(eval_batches(broken, split, target=H36M, image_size=SIZE, batch_size=8))


def test_t19_what_nobody_claims_to_know_may_hold_anything(dataset):
    example = dataset.split("train")[0]
    unknown = np.arange(17) != 13
    values = {"joints_world_mm": np.array(example["joints_world_mm"]), "joints2d_px": np.array(example["joints2d_px"])}
    for joints in values.values():
        joints[13] = np.nan
    sample = make_sample({**example, **values, "valid": unknown, "valid2d": unknown}, H36M, H36M, 16, 16, Change())
    assert all(np.isfinite(sample[field]).all() for field in ("pose_mm", "joints2d"))
    found_nobody = {"heatmap": np.zeros((8, 8, 16)), "heatmap_predicted": True}
    assert not make_sample({**example, **found_nobody}, H36M, H36M, 16, 16, Change())["heatmap"].any()


def test_t19_a_record_damaged_on_disk_is_named(tmp_path):
    """One flipped bit, at several places: the file's own checksums find it, or it is where nothing is stored."""
    source = next((small.data_dir() / "synthetic_humans").glob("16px*"))
    shutil.copytree(source, tmp_path / "synthetic_humans" / source.name)
    dataset = open_prepared("synthetic_humans", tmp_path)
    epoch = -(-len(dataset.split("train")) // 8)
    whole = batches(dataset, epoch)
    (path,) = (tmp_path / "synthetic_humans").glob("*/*/*-train.array_record-*")  # heatmaps may be kept further below
    content, found = path.read_bytes(), 0
    match = rf"{dataset.name}, train example (\d+): the dataset in .* is damaged"
    for place in range(len(content) // 7, len(content) - 1000, len(content) // 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        bad = BadExamples("skip")
        run = batches(dataset, epoch, bad)
        lines = told(bad)
        if not lines:
            for one, other in zip(run, whole, strict=True):
                jax.tree.map(np.testing.assert_array_equal, one, other)
            continue
        found += 1
        with pytest.raises(UserError, match=match) as refused:
            batches(dataset, epoch)
        damaged = int(re.search(match, str(refused.value))[1])
        assert [numbers for _, numbers, _ in lines] == [{"dataset": 0, "example": damaged}]
    assert found


@pytest.mark.parametrize("augment", ["none", "full", "paper"])
def test_t19_skipping_leaves_every_other_sample_as_it_was(dataset, augment):
    bad, places = BadExamples("skip"), (2, 30, 31)
    run, whole = (batches(d, 14, b, augment=augment) for d, b in ((harmed(dataset, *places), bad), (dataset, None)))
    assert all(batch.keys() == other.keys() for batch, other in zip(run, whole, strict=True)), "no record is left"
    differ = sum((a["image"] != b["image"]).any(axis=(1, 2, 3)).sum() for a, b in zip(run, whole, strict=True))
    assert differ == 2 * len(places), "in each of two epochs"
    assert bad.row() == {"bad_examples": 2 * len(places)} and bad.row() == {"bad_examples": 0}
    lines = told(bad)
    assert sorted(numbers["example"] for _, numbers, _ in lines) == list(places), "each once"
    for kind, numbers, text in lines:
        frame = (
            rf"left out {dataset.name}, train example {numbers['example']}: S01/[a-z_]+/cam\d/000000: its image does"
        )
        assert kind == "bad_example" and re.match(frame, text)
    assert told(bad) == []


def test_t19_the_same_ones_take_their_place_from_anywhere_and_in_any_share(dataset):
    broken = harmed(dataset, 2, 30, 31)
    run = batches(broken, 9, BadExamples("skip"), augment="full")
    again = batches(broken, 2, BadExamples("skip"), augment="full", start=7)
    for a, b in zip(again, run[7:], strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    shares = [
        batches(broken, 9, BadExamples("skip"), augment="full", process_index=p, process_count=2) for p in range(2)
    ]
    for batch, *parts in zip(run, *shares, strict=True):
        np.testing.assert_array_equal(batch["image"], np.concatenate([part["image"] for part in parts]))


def test_t19_a_replacement_that_is_bad_is_named_too_and_the_next_one_taken(dataset):
    first, second, third = itertools.islice(replacements(2, 56), 3)
    bad, broken = BadExamples("skip"), harmed(dataset, first, second)
    seen = np.concatenate([batch["pose_mm"] for batch in batches(broken, 7, bad)])
    by_pose = poses(dataset)
    counts = np.bincount([by_pose[pose.tobytes()] for pose in seen], minlength=56)
    assert counts[first] == counts[second] == 0 and counts[third] == 3
    assert sorted(numbers["example"] for _, numbers, _ in told(bad)) == sorted([first, second])
    assert bad.row() == {"bad_examples": 2}


@pytest.mark.parametrize("count", [1, 2, 3, 10, 56, 100_000])
def test_replacements_are_far_away_and_none_comes_twice(count):
    for index in (0, count // 2, count - 1):
        places = list(replacements(index, count))
        assert places[0] == index and len(set(places)) == len(places) == min(count, 17)
        assert all(0 <= place < count for place in places)
    if count > 1000:
        assert min(abs(a - b) for a, b in itertools.combinations(places, 2)) > 1000


def test_t19_rubbish_ends_the_run_whatever_the_policy(dataset, monkeypatch):
    with pytest.raises(UserError, match=r"example \d+: .* does not decode .*nor can the 16 others be used"):
        batches(harmed(dataset, *range(56)), 1, BadExamples("skip"))
    few = harmed(dataset, *range(0, 56, 8))  # an eighth
    with pytest.raises(UserError, match=r"10\d of the last \d+ training examples could not be used, .* 10%"):
        batches(few, 200, BadExamples("skip"))
    monkeypatch.setattr(bad_examples_module, "_RECENT", 16)
    with pytest.raises(UserError, match=r"of the last (16|8) training examples"):
        batches(few, 40, BadExamples("skip"))
    batches(harmed(dataset, 3), 100, BadExamples("skip"))  # a 56th


def test_t19_processes_share_what_each_of_them_met(dataset):
    """Two epochs, in each of which one or the other process meets them."""
    places, meeting, brought = (2, 9, 17, 30, 31), threading.Barrier(2, timeout=60), {}
    broken = harmed(dataset, *places)

    def run(process):
        def gather(rows):
            brought[process] = rows
            meeting.wait()
            both = {name: np.concatenate([brought[p][name] for p in range(2)]) for name in rows}
            meeting.wait()
            return both

        bad, found = BadExamples("skip", gather), []
        for start in (0, 7):
            batches(broken, 7, bad, start=start, process_index=process, process_count=2)
            own = told(bad)
            bad.share()
            found.append((own, told(bad), bad.row()))
            bad.share()  # nothing new, as where a row is not written
        return found

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, range(2)))
    for (own, others, row), (own_again, others_again, row_again) in runs:
        assert own and others, "each met some of them"
        assert sorted(numbers["example"] for _, numbers, _ in own + others) == list(places)
        assert row == row_again == {"bad_examples": len(places)} and own_again == others_again == []
    assert runs[0][0][1] == runs[1][0][0], "as the other one names them"


def test_t19_only_the_first_twenty_are_named(dataset):
    bad = BadExamples("skip")
    larger = dataclasses.replace(dataset, splits={"train": [dataset.split("train")[i % 56] for i in range(560)]})
    batches(harmed(larger, *range(0, 560, 16)), 70, bad)  # 35 of them
    lines = [text for _, _, text in told(bad)]
    assert len(lines) == 20 and lines[-1].endswith("; further ones are only counted")
    assert not any("further" in text for text in lines[:-1]) and bad.row()["bad_examples"] >= 35


def test_t19_a_mixture_names_and_replaces_within_its_own_dataset(dataset):
    other = dataclasses.replace(harmed(dataset, 7), name="other")
    bad = BadExamples("skip")
    batches([(dataset, 1.0), (other, 1.0)], 14, bad)
    ((_, numbers, text),) = told(bad)
    assert numbers == {"dataset": 1, "example": 7} and text.startswith("left out other, train example 7: ")


def test_t19_a_bad_example_does_not_keep_a_run_from_beginning(dataset):
    nan = np.full((17, 3), np.nan)
    broken = harmed(dataset, 0, 9, joints_world_mm=nan)
    assert has_poses(broken, H36M, "train") and has_joints2d(broken, "train")
    mean, _ = pose_statistics(broken, H36M)
    good = [i for i in range(56) if i not in (0, 9)]
    rest = dataclasses.replace(dataset, splits={"train": [dataset.split("train")[i] for i in good]})
    np.testing.assert_array_equal(mean, pose_statistics(rest, H36M)[0])
    with pytest.raises(UserError, match="3D joint pelvis is not finite"):
        pose_statistics(harmed(dataset, *range(56), joints_world_mm=nan), H36M)


def test_t19_train_stops_or_skips_and_writes_the_count(tmp_path, monkeypatch, capfd):
    real = start_module.open_mixture

    def opened(*args):
        return [(harmed(opened, 2, 30), weight) for opened, weight in real(*args)]

    monkeypatch.setattr(start_module, "open_mixture", opened)
    config = small.config(steps=8, strategy="image")
    options = LoopOptions(log_every=2, eval_every=0, checkpoint_every=100)

    def run(folder, **changes):
        return train(config, small.data_dir(), tmp_path / folder, dataclasses.replace(options, **changes))

    with pytest.raises(UserError, match=r"synthetic_humans/16px.*, train example (2|30): S01/.* does not decode"):
        run("stop", show=False)
    state = run("skip", bad_examples="skip")
    rows = [json.loads(line) for line in (tmp_path / "skip" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["bad_examples"] for row in rows if row["kind"] == "train") == 2
    assert sorted(row["example"] for row in rows if row["kind"] == "bad_example") == [2, 30]
    assert capfd.readouterr().err.count("left out synthetic_humans/16px") == 2
    run("parts", bad_examples="skip", show=False, stop_after=3)
    again = run("parts", bad_examples="skip", show=False)
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_policies_that_there_are_not():
    for make in (BadExamples, lambda policy: LoopOptions(bad_examples=policy)):
        with pytest.raises(UserError, match="bad_examples is 'warn', expected stop or skip"):
            make("warn")
