"""Which example comes when: whatever the number of processes and of files, and wherever a run goes on."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import small
from array_record.python import array_record_module
from array_record.python.array_record_data_source import ArrayRecordDataSource

from data_pipelines.augment import Change
from data_pipelines.loader import train_iterator
from data_pipelines.prepared import open_prepared
from data_pipelines.samples import make_sample
from data_pipelines.synthetic_humans import live as live_module
from data_pipelines.synthetic_humans.live import open_live
from fusion_jax import train as train_module
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.skeletons import skeleton
from fusion_jax.train import LoopOptions, train

H36M = skeleton("human36m17")
SIZE, BATCH, EXAMPLES = small.SIZE, 8, 56  # an epoch is 7 batches


@pytest.fixture(scope="module")
def dataset():
    return open_prepared("synthetic_humans", small.data_dir())


@pytest.fixture(scope="module")
def place_of(dataset):
    """An example's place by its pose, which no other has."""
    examples = [dataset.split("train")[i] for i in range(EXAMPLES)]
    poses = [make_sample(example, H36M, H36M, SIZE, SIZE, Change())["pose_mm"].tobytes() for example in examples]
    assert len(set(poses)) == EXAMPLES
    return {pose: place for place, pose in enumerate(poses)}


def batches(data, start, stop, *, processes=1, augment="none", batch_size=BATCH):
    """Batches start .. stop - 1, each a list of every process's part."""
    parts = [
        train_iterator(
            data, target=H36M, image_size=SIZE, augment=AUGMENTATIONS[augment], batch_size=batch_size, seed=3,
            process_index=index, process_count=processes, start=start,
        )
        for index in range(processes)
    ]  # fmt: skip
    found = [[next(part) for part in parts] for _ in range(start, stop)]
    for part in parts:
        part.close()
    return found


def samples(batch):
    """A global batch's samples, process after process: their order counts, as dropout belongs to a place."""
    return [
        picture.tobytes() + pose.tobytes()
        for part in batch
        for picture, pose in zip(part["image"], part["pose_mm"], strict=True)
    ]


@pytest.mark.parametrize("plan", [[(1, 2), (4, 5), (2, 7)], [(4, 1), (1, 6), (8, 7)], [(2, 7)], [(4, 7)]])
def test_t15_processes_that_come_and_go_lose_and_repeat_no_example(dataset, place_of, plan):
    """`plan`: (processes, up to which batch), one after the other, over two epochs."""
    alone = batches(dataset, 0, 14)
    for epoch in (0, 7):
        start, seen = epoch, []
        for processes, stop in plan:
            for number, batch in enumerate(batches(dataset, start, epoch + stop, processes=processes), start=start):
                places = [place_of[pose.tobytes()] for part in batch for pose in part["pose_mm"]]
                assert sorted(places) == sorted(place_of[pose.tobytes()] for pose in alone[number][0]["pose_mm"])
                assert {len(part["pose_mm"]) for part in batch} == {BATCH // processes}
                seen += places
            start = epoch + stop
        assert sorted(seen) == list(range(EXAMPLES)), "every example of the epoch exactly once"


@pytest.mark.parametrize("augment", ["full", "paper"])
@pytest.mark.parametrize("mixed", [False, True])
def test_t15_a_batch_holds_the_same_changed_samples_for_any_number_of_processes(dataset, augment, mixed):
    other = dataclasses.replace(dataset, name="other")
    data = [(dataset, 1.0), (other, 2.0)] if mixed else dataset
    alone = [samples(batch) for batch in batches(data, 3, 6, augment=augment)]
    for processes in (2, 4):
        assert [samples(batch) for batch in batches(data, 3, 6, processes=processes, augment=augment)] == alone


@pytest.mark.parametrize("together", [3, 8, 128])
def test_t15_live_batches_are_the_same_for_any_number_of_processes(monkeypatch, together):
    monkeypatch.setattr(live_module, "_TOGETHER", together)
    live = open_live(SIZE, seed=0, num_subjects=3)
    alone = [batch for (batch,) in batches(live, 1, 3)]
    for processes in (2, 4, 8):
        for batch, whole in zip(batches(live, 1, 3, processes=processes), alone, strict=True):
            joined = jax.tree.map(lambda *parts: np.concatenate(parts), *batch)
            jax.tree.map(np.testing.assert_array_equal, joined, whole)
    assert len({scene.tobytes() for batch in alone for scene in batch["scene"].cam_center_mm}) == 2 * BATCH


def test_t15_the_number_of_files_changes_no_order(dataset, tmp_path):
    source = next((small.data_dir() / "synthetic_humans").glob("16px*"))
    folder = tmp_path / "synthetic_humans" / source.name
    shutil.copytree(source, folder)
    (folder,) = folder.iterdir()
    (path,) = folder.glob("*-train.array_record-00000-of-00001")
    records = ArrayRecordDataSource([str(path)])
    lengths = [20, 1, 35]
    stored = iter([records[i] for i in range(EXAMPLES)])
    for number, length in enumerate(lengths):
        name = path.name.replace("00000-of-00001", f"{number:05d}-of-{len(lengths):05d}")
        writer = array_record_module.ArrayRecordWriter(str(folder / name), "group_size:1")
        for _ in range(length):
            writer.write(next(stored))
        writer.close()
    path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (split,) = (split for split in info["splits"] if split["name"] == "train")
    split["shardLengths"] = [str(length) for length in lengths]
    (folder / "dataset_info.json").write_text(json.dumps(info))

    several = open_prepared("synthetic_humans", tmp_path)
    assert len(list(folder.glob("*-train.array_record-*"))) == 3 and several.fingerprint == dataset.fingerprint
    for place in range(EXAMPLES):
        assert several.split("train")[place]["image"] == dataset.split("train")[place]["image"]
    for (one,), (other,) in zip(
        batches(dataset, 5, 9, augment="full"), batches(several, 5, 9, augment="full"), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_t16_a_resumed_run_goes_on_with_the_next_batch(tmp_path, monkeypatch):
    real, taken = train_module.training_data, []

    def watched(*args):
        data = real(*args)

        class Watched:
            def __next__(self):
                batch = next(data)
                taken.append(batch["image"].tobytes())
                return batch

            def close(self):
                data.close()

        return Watched()

    monkeypatch.setattr(train_module, "training_data", watched)
    config, options = small.config(steps=9, strategy="image"), LoopOptions(show=False, eval_every=0)

    def run(folder, stop=None):
        """The batches that one call of train steps on."""
        taken.clear()
        train(config, small.data_dir(), tmp_path / folder, dataclasses.replace(options, stop_after=stop))
        return list(taken)

    whole = run("whole")
    assert len(set(whole)) == 9
    assert [run("parts", stop) for stop in (2, 3, 8, None)] == [whole[:2], whole[2:3], whole[3:8], whole[8:]]
    assert run("parts") == []


def test_t16_an_iterator_made_before_others_were_used_starts_where_it_was_told(dataset):
    def iterator(start):
        return train_iterator(
            dataset, target=H36M, image_size=SIZE, augment=AUGMENTATIONS["full"], batch_size=BATCH, seed=3, start=start
        )

    early, first = iterator(4), iterator(0)
    run = [next(first)["image"] for _ in range(6)]
    late = iterator(4)
    for images in run[4:]:
        np.testing.assert_array_equal(next(early)["image"], images)
        np.testing.assert_array_equal(next(late)["image"], images)
    for data in (early, first, late):
        data.close()
