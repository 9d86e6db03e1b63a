"""Checkpoints elsewhere than in the work folder: found again, also where the work folder is lost; in a bucket."""

import itertools
import json
import pathlib
import shutil

import fake_bucket
import jax
import numpy as np
import pytest
import small

from fusion_jax import checkpoint_place, checksums
from fusion_jax.checkpoint import Checkpoints, restore_run
from fusion_jax.checkpoint_place import check_reachable, check_shared, checkpoint_folder
from fusion_jax.errors import CheckpointError, UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.records import read_json
from fusion_jax.sharding import data_mesh
from fusion_jax.stored_state import check_stored
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import load_run, load_seen, own_record_from_json

QUIET = {"show": False, "log_every": 1, "eval_every": 0, "checkpoint_every": 2}
FILES = ("config.json", "dataset.json", "trained_on.json", "checkpoint_dir.json")
_RUNS = itertools.count(1)


@pytest.fixture(scope="module")
def config():
    return small.config(strategy="image")


@pytest.fixture(scope="module", autouse=True)
def buckets():
    with fake_bucket.buckets():
        yield


@pytest.fixture
def in_bucket():
    return f"gs://bucket/run{next(_RUNS)}"


def run(config, workdir, checkpoint_dir=None, **options):
    return train(config, small.data_dir(), workdir, LoopOptions(**QUIET, checkpoint_dir=checkpoint_dir, **options))


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory):
    return run(config, tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(scope="module")
def begun(config, tmp_path_factory):
    """(work folder, checkpoints in a folder elsewhere) of a run after 4 of 6 steps; to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    run(config, folder / "work", str(folder / "kept"), stop_after=4)
    return folder / "work", folder / "kept"


@pytest.fixture
def stopped(begun, tmp_path):
    """A copy of `begun` that may be written to."""
    for folder in begun:
        shutil.copytree(folder, tmp_path / folder.name)
    place = tmp_path / "work" / "checkpoint_dir.json"
    place.write_text(json.dumps({"checkpoint_dir": str(tmp_path / "kept")}))
    return tmp_path / "work", tmp_path / "kept"


def assert_same(state, expected):
    for a, b in zip(jax.tree.leaves(arrays(state)), jax.tree.leaves(arrays(expected)), strict=True):
        np.testing.assert_array_equal(a, b)


def arrays(state):
    return state.step, state.params, state.constants, state.opt_state, jax.random.key_data(state.rng)


def test_a_run_goes_on_where_its_work_folder_says(config, stopped, unbroken):
    work, kept = stopped
    assert not (work / "checkpoints").exists()
    assert sorted(path.name for path in kept.iterdir()) == ["2", "4"]
    assert_same(run(config, work), unbroken)
    assert int(restore_run(work, config, data_mesh()).step) == 6


def test_a_lost_work_folder_goes_on_bit_for_bit(config, stopped, unbroken, tmp_path):
    work, kept = stopped
    assert_same(run(config, tmp_path / "new", str(kept)), unbroken)
    for name in FILES:
        assert read_json(tmp_path / "new" / name) == read_json(work / name)


def test_a_lost_work_folder_goes_on_from_a_bucket(config, unbroken, tmp_path, in_bucket):
    """By Orbax's and TensorStore's own ways of gs://, and so that `evaluate` finds it."""
    run(config, tmp_path / "lost", in_bucket, stop_after=4)
    assert_same(run(config, tmp_path / "new", in_bucket, keep=1), unbroken)
    names = [name.removeprefix(in_bucket[5:]) for name in fake_bucket.OBJECTS if name.startswith(in_bucket[5:])]
    assert {name.split("/")[1] for name in names} == {"6"}, "older ones are gone, and nothing else is left"
    assert load_run(tmp_path / "new") == load_run(tmp_path / "lost")
    assert load_seen(tmp_path / "new") == load_seen(tmp_path / "lost")
    assert evaluate_run(tmp_path / "new")["num_frames"] == 56


def test_a_work_folder_that_was_lost_with_its_files_alone(config, tmp_path, unbroken):
    """Checkpoints within the work folder hold the run's record too."""
    run(config, tmp_path, stop_after=4)
    for name in FILES[:3]:
        (tmp_path / name).unlink()
    assert_same(run(config, tmp_path), unbroken)


def test_another_place_than_remembered_is_refused_with_both(config, stopped, tmp_path):
    work, kept = stopped
    with pytest.raises(UserError, match=f"{work} has its checkpoints in {kept}, --checkpoint-dir says {tmp_path}/b;"):
        run(config, work, str(tmp_path / "b"))
    (work / "checkpoint_dir.json").unlink()
    kept.rename(work / "checkpoints")
    with pytest.raises(UserError, match=f"has its checkpoints in {work}/checkpoints, --checkpoint-dir says gs://b/a;"):
        run(config, work, "gs://b/a")
    assert not (tmp_path / "b").exists()
    assert checkpoint_folder(work, str(work / "checkpoints")) == checkpoint_folder(work)


@pytest.mark.parametrize("remains", ["nothing", "an empty mount point"])
def test_a_run_whose_place_is_gone_does_not_begin_anew(config, stopped, remains):
    work, kept = stopped
    kept.rename(kept.with_name("away"))
    if remains != "nothing":
        kept.mkdir()
        with (work / "metrics.jsonl").open("a") as log:
            log.write('{"kind": "train", "step": 5}\n')
    log = (work / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=rf"{work} got to step [45], .* no checkpoint in {kept}; mount .*--workdir to"):
        run(config, work)
    assert (work / "metrics.jsonl").read_bytes() == log
    with pytest.raises(UserError, match=f"says {work}/other; {kept} is not there: bring it back, or say where they we"):
        run(config, work, str(work / "other"))


def test_a_run_whose_own_checkpoints_are_gone_does_not_begin_anew(config, tmp_path, unbroken):
    run(config, tmp_path, stop_after=1)
    (tmp_path / "checkpoints").rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"got to step 1, .* no checkpoint in {tmp_path}/checkpoints; mount or bring"):
        run(config, tmp_path)
    (tmp_path / "checkpoints").mkdir()  # as a run has it that was killed before its first checkpoint
    assert_same(run(config, tmp_path), unbroken)


def test_checkpoints_that_were_moved_are_accepted_where_they_are_now(config, stopped, unbroken):
    work, kept = stopped
    moved = kept.rename(kept.with_name("moved"))
    with pytest.raises(UserError, match="another config"):
        run(small.config(strategy="image", seed=1), work, str(moved))
    assert_same(run(config, work, str(moved)), unbroken)
    assert read_json(work / "checkpoint_dir.json") == {"checkpoint_dir": str(moved)}


def test_checkpoints_that_were_moved_home_are_found_there_by_all_that_read(config, stopped, unbroken):
    work, kept = stopped
    home = kept.rename(work / "checkpoints")
    assert_same(run(config, work, str(home)), unbroken)
    assert checkpoint_folder(work) == checkpoint_folder(work, str(home))
    assert int(restore_run(work, load_run(work)[0], data_mesh()).step) == 6


def test_checkpoints_of_another_run_are_refused(stopped, tmp_path):
    with pytest.raises(
        UserError, match="kept/4 holds a run with another config: .*seed: 0 -> 1.* another --checkpoint-dir to start"
    ):
        run(small.config(strategy="image", seed=1), tmp_path / "new", str(stopped[1]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"], "it is not this run's now"


def test_checkpoints_of_before_this_record(config, stopped, unbroken, tmp_path):
    """They lack it, and load where the work folder has its files."""
    work, kept = stopped
    for step in ("2", "4"):
        shutil.rmtree(kept / step / "run")
        listed = json.loads((kept / step / checksums.NAME).read_text())
        listed["files"] = {name: about for name, about in listed["files"].items() if not name.startswith("run/")}
        (kept / step / checksums.NAME).write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"kept/4 is of an older version .* config.json, dataset.json and trained_on"):
        run(config, tmp_path / "new", str(kept))
    assert_same(run(config, work), unbroken)


@pytest.mark.parametrize(
    "given", ["s3://a/b", "file:///tmp/a", "gs://bucket", "gs:/bucket/a", "gs://", "", "a\0b", "x:/y"]
)
def test_places_that_are_none(given, tmp_path):
    with pytest.raises(UserError, match="--checkpoint-dir is .*, expected a folder or gs://BUCKET/FOLDER; mount"):
        checkpoint_folder(tmp_path, given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object"),
        ("{}", "missing field 'checkpoint_dir'"),
        ('{"checkpoint_dir": 3}', "expected str, got 3"),
        ('{"checkpoint_dir": "/a", "b": 1}', "unknown field 'b'"),
        ('{"checkpoint_dir": "s3://a/b"}', "checkpoint_dir is 's3://a/b', expected a folder or gs://"),
    ],
)
def test_what_a_work_folder_remembers_is_read_strictly(content, message, tmp_path):
    (tmp_path / "checkpoint_dir.json").write_text(content)
    with pytest.raises(UserError, match=message) as refused:
        checkpoint_folder(tmp_path)
    assert str(tmp_path / "checkpoint_dir.json") in str(refused.value)


@pytest.mark.parametrize(
    "data", [None, [], {}, {"config": {}, "dataset": {}}, {"config": 1, "dataset": 1, "trained_on": 1}]
)
def test_a_record_that_is_none(data):
    with pytest.raises(UserError, match="^here"):
        own_record_from_json(data, "here")


def test_a_work_folder_in_a_bucket_is_refused(config):
    with pytest.raises(UserError, match="--workdir is 'gs:/bucket/run', .*: --checkpoint-dir gs://BUCKET/FOLDER"):
        run(config, pathlib.Path("gs://bucket/run"))
    assert not pathlib.Path("gs:").exists()


def test_a_place_that_cannot_be_written(config, tmp_path, in_bucket, unbroken):
    (tmp_path / "file").write_text("also root cannot make a folder of it")
    with pytest.raises(UserError, match=f"place {tmp_path}/file/a cannot be written .*; look at rights and free space"):
        run(config, tmp_path / "work", str(tmp_path / "file" / "a"))
    fake_bucket.READ_ONLY.set()
    with pytest.raises(UserError, match=rf"place {in_bucket} cannot be written \(HttpError: 403.*objects.create"):
        run(config, tmp_path / "work", in_bucket)
    fake_bucket.READ_ONLY.clear()
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".lock"]


def test_a_bucket_that_cannot_be_reached(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise fake_bucket.HttpError("no credentials")

    monkeypatch.setattr(fake_bucket.Files, "ls", refuse)
    with pytest.raises(UserError, match=r"gs://a/b cannot be reached \(HttpError: no credentials\).*fusion-jax\[gcs\]"):
        check_reachable(checkpoint_folder(tmp_path, "gs://a/b"))


@pytest.mark.parametrize("kind", ["bucket", "folder", "no folder yet"])
def test_a_place_that_all_share_is_left_as_it_was(kind, tmp_path, in_bucket, monkeypatch):
    """Of one process that stands for two; real ones are test_distributed's."""
    place = checkpoint_folder(tmp_path, in_bucket if kind == "bucket" else str(tmp_path / "kept"))
    if kind == "folder":
        place.mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(checkpoint_place, "gather_rows", dict)
    check_shared(tmp_path, place)
    monkeypatch.setattr(checkpoint_place, "_reads", lambda *_: False)
    with pytest.raises(UserError, match="process 0 does not see what .*; give all a --workdir that they share, or a "):
        check_shared(tmp_path, place)
    assert sorted(tmp_path.rglob("*")) == before
    assert not [name for name in fake_bucket.OBJECTS if "shared" in name]


# How a bucket differs from a folder: a checkpoint has its name before it is whole.


@pytest.fixture
def states(config, small_state):
    first = small_state(config)
    return lambda step: first.replace(step=np.int32(step), params=jax.tree.map(lambda x: x + step, first.params))


def opened(config, workdir, place):
    return Checkpoints(workdir, config, checkpoint_dir=place, timeout_s=30)


def test_t04_in_a_bucket_what_was_not_finished_is_ignored_and_removed(config, states, tmp_path, in_bucket, capsys):
    checkpoints = opened(config, tmp_path, in_bucket)
    for step in (1, 2, 3):
        checkpoints.save_and_wait(step, states(step), step)
    checkpoints.close()
    top = in_bucket[5:]
    fake_bucket.OBJECTS.pop(f"{top}/2/{checksums.NAME}")
    fake_bucket.OBJECTS.pop(f"{top}/3/commit_success.txt")
    checkpoints = opened(config, tmp_path, in_bucket)
    assert checkpoints.steps == [1]
    assert_same(checkpoints.restore(states(0), data_mesh())[0], states(1))
    assert f"{in_bucket}/2 is not finished: it has no checksums.json" in (told := capsys.readouterr().err)
    assert f"{in_bucket}/3 is not finished: it has no commit_success.txt" in told
    checkpoints.tidy()
    assert {name.split("/")[2] for name in fake_bucket.OBJECTS if name.startswith(top)} == {"1"}
    checkpoints.save_and_wait(2, states(2), 2)
    assert_same(checkpoints.restore(states(0), data_mesh())[0], states(2))
    checkpoints.close()


def test_t08_in_a_bucket_one_flipped_bit_is_noticed(config, states, tmp_path, in_bucket, capsys):
    checkpoints = opened(config, tmp_path, in_bucket)
    for step in (1, 2):
        checkpoints.save_and_wait(step, states(step), step)
    checkpoints.close()
    name = max(
        (n for n in fake_bucket.OBJECTS if n.startswith(f"{in_bucket[5:]}/2/state")),
        key=lambda n: len(fake_bucket.OBJECTS[n][1]),
    )
    content = fake_bucket.OBJECTS[name][1]
    fake_bucket.put(name, content[:100] + bytes([content[100] ^ 4]) + content[101:])
    checkpoints = opened(config, tmp_path, in_bucket)
    assert_same(checkpoints.restore(states(0), data_mesh())[0], states(1))
    assert f"{in_bucket}/2 is damaged: state/" in capsys.readouterr().err
    checkpoints.tidy()
    assert {n.split("/")[2] for n in fake_bucket.OBJECTS if n.startswith(in_bucket[5:])} == {"1", "2.damaged"}
    checkpoints.close()


def test_t05_in_a_bucket_a_write_that_fails_is_tried_again(config, states, tmp_path, in_bucket, monkeypatch, capsys):
    real, failures = checksums.write_checksums, [OSError("a bucket that is gone"), None, *2 * [OSError("gone again")]]

    def write(folder, **options):
        if error := failures.pop(0):
            raise error
        real(folder, **options)

    monkeypatch.setattr(checksums, "write_checksums", write)
    checkpoints = opened(config, tmp_path, in_bucket)
    checkpoints.save_and_wait(1, states(1), 1)
    assert f"{in_bucket}/1 could not be written (OSError: a bucket that is gone)" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="2 could not be written .*gone again.*; step 1 is kept"):
        checkpoints.save_and_wait(2, states(2), 2)
    assert {n.split("/")[2] for n in fake_bucket.OBJECTS if n.startswith(in_bucket[5:])} == {"1"}
    assert_same(checkpoints.restore(states(0), data_mesh())[0], states(1))
    checkpoints.close()


def test_in_a_bucket_a_checkpoint_of_announced_zeros_is_not_read(in_bucket):
    fake_bucket.put(f"{in_bucket[5:]}/1/state/manifest", b"\0" * 100_000)
    weights = {"w": jax.ShapeDtypeStruct((2**15, 2**16), np.float32)}
    with pytest.raises(UserError, match="holds 100000 bytes, its config announces a state of 8589934592"):
        check_stored(f"{in_bucket}/1", weights)
