"""Checkpoints: what counts as one, what a damaged or unfinished one does, which are kept, what a failing write does."""

import json
import os
import shutil
import subprocess
import sys
import threading

import golden
import jax
import numpy as np
import pytest
import small

from fusion_jax import checkpoint as checkpoint_module
from fusion_jax import checksums, step_folders
from fusion_jax.checkpoint import Checkpoints, weights_digest
from fusion_jax.errors import CheckpointError, UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.sharding import data_mesh
from fusion_jax.state import create_state
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import load_run, load_seen


@pytest.fixture(scope="module")
def config():
    return small.config(strategy="image")


@pytest.fixture
def states(config, small_state):
    """A state after any number of steps: each with parameters of its own."""
    first = small_state(config)
    return lambda step: first.replace(step=np.int32(step), params=jax.tree.map(lambda x: x + step, first.params))


@pytest.fixture
def folder(tmp_path, config, states):
    """The checkpoints of steps 1 and 2."""
    written(tmp_path, config, states, 1, 2)
    return tmp_path / "checkpoints"


def written(workdir, config, states, *steps, **options):
    with closing(Checkpoints(workdir, config, **options)) as checkpoints:
        for step in steps:
            checkpoints.save(step, states(step), step)


class closing:
    def __init__(self, checkpoints):
        self.checkpoints = checkpoints

    def __enter__(self):
        return self.checkpoints

    def __exit__(self, *_):
        self.checkpoints.close()


def restored(workdir, config, states, step=None):
    with closing(Checkpoints(workdir, config)) as checkpoints:
        return checkpoints.restore(states(0), data_mesh(), step=step)


def assert_is(state, expected):
    assert int(state.step) == int(expected.step)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_array_equal(a, b)


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def test_t04_what_was_not_finished_is_ignored_and_removed_by_the_next_writer_alone(folder, config, states, capsys):
    """A folder under Orbax's temporary name; one with its name and without its list, as a copy that was cut leaves it;
    one that was being deleted."""
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    shutil.copytree(folder / "2", folder / "4")
    (folder / "4" / checksums.NAME).unlink()
    (folder / "1").rename(folder / "1.deleting")
    there = listed(folder)
    state, next_batch = restored(folder.parent, config, states)
    assert_is(state, states(2))
    assert next_batch == 2 and listed(folder) == there, "whoever reads removes nothing"
    assert f"{folder / '4'} is not finished" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no finished checkpoint of step 4 in .*; there are: 2"):
        restored(folder.parent, config, states, 4)
    with closing(Checkpoints(folder.parent, config)) as checkpoints:
        checkpoints.tidy()
        assert listed(folder) == ["2", "4.damaged"]
        checkpoints.save(4, states(4), 4)
    assert_is(restored(folder.parent, config, states)[0], states(4))


@pytest.mark.parametrize("part", ["state", "state/manifest.ocdbt", "state/_METADATA", "data", "card", "state/d"])
def test_t07_without_a_folder_or_manifest_the_step_before_is_taken(folder, config, states, capsys, part):
    path = folder / "2" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    state, next_batch = restored(folder.parent, config, states)
    assert_is(state, states(1))
    told = capsys.readouterr().err
    assert next_batch == 1 and told.count("\n") == 1 and f"{folder / '2'} lacks its file {part}" in told
    with pytest.raises(UserError, match=f"2 lacks its file {part}.*; choose another step"):
        restored(folder.parent, config, states, 2)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "longer"])
def test_t08_one_flipped_bit_or_a_cut_file_is_noticed(folder, config, states, capsys, harm):
    """In every file, one at a time: the step before is taken; where the file tells only times, it does not matter."""
    for path in sorted(p for p in (folder / "2").rglob("*") if p.is_file()):
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
        harmed = {"flip": flipped, "cut": content[:-1], "empty": b"", "longer": content + b"\0"}[harm]
        path.write_bytes(harmed)
        state, _ = restored(folder.parent, config, states)
        told = capsys.readouterr().err
        times = path.name in ("_CHECKPOINT_METADATA", "commit_success.txt")
        assert_is(state, states(2 if times else 1))
        assert (str(folder / "2") in told) != times, path
        path.write_bytes(content)
    assert_is(restored(folder.parent, config, states)[0], states(2))


def test_t08_where_nothing_is_sound_every_step_is_told(folder, config, states):
    for step in (1, 2):
        (folder / str(step) / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"no finished checkpoint .*; 1 is damaged: .*manifest.*; 2 is damaged: .*manif"
    ):
        restored(folder.parent, config, states)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 1}', '{"format": 2, "files": {}}', '{"format": 1, "files": {"x": 1}}', "[" * 10**5]
    + ['{"format": 1, "files": {"../1/card/metadata": [1, "0"]}}', "\xff"],
)
def test_a_list_of_checksums_that_is_none(folder, config, states, content):
    (folder / "2" / checksums.NAME).write_text(content, encoding="latin-1")
    assert_is(restored(folder.parent, config, states)[0], states(1))


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "state/_sharding", "commit_success.txt"])
def test_t09_without_side_files_it_still_loads(folder, config, states, capsys, name):
    (folder / "2" / name).unlink()
    assert_is(restored(folder.parent, config, states)[0], states(2))
    assert not capsys.readouterr().err


def test_the_newest_and_the_best_are_kept(tmp_path, config, states):
    with closing(Checkpoints(tmp_path, config, keep=2)) as checkpoints:
        for step, score in ((1, 9.0), (2, 3.0), (3, None), (4, 5.0), (5, 4.0)):
            assert checkpoints.is_best(4.5) == (step < 3), "1 has 9, 2 has 3"
            checkpoints.save(step, states(step), step, score=score)
    with closing(Checkpoints(tmp_path, config)) as checkpoints:
        assert checkpoints.steps == [2, 4, 5] and checkpoints.best_step == 2 and checkpoints.latest_step == 5


def test_best_of_none(folder, config):
    with closing(Checkpoints(folder.parent, config)) as checkpoints:
        assert checkpoints.best_step is None and checkpoints.is_best(1e9)


# Failing writes


QUIET = {"show": False, "log_every": 1, "eval_every": 0, "checkpoint_every": 2}


def failing(monkeypatch, *numbers):
    """Makes the writes of these numbers, from 0, fail in the background, as a disk may; returns the steps tried."""
    tried, real = [], checksums.write_checksums

    def write(folder, **options):
        tried.append(int(folder.name.split(".")[0]))
        if len(tried) - 1 in numbers:
            raise OSError(28, "No space left on device")
        real(folder, **options)

    monkeypatch.setattr(checksums, "write_checksums", write)
    return tried


def events(workdir, kind):
    return [
        row
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
        if (row := json.loads(line))["kind"] == kind
    ]


def slow_steps(monkeypatch):
    """Steps that take their time: a background write has failed before the next one begins."""
    real = Checkpoints.poll

    def poll(self):
        if self._writing is not None:
            thread = self._checkpointer._async_manager._thread
            thread.join() if thread else None
        return real(self)

    monkeypatch.setattr(Checkpoints, "poll", poll)


def test_t05_a_writer_that_fails_is_told_at_the_next_step_and_tried_again(tmp_path, config, monkeypatch):
    slow_steps(monkeypatch)
    tried = failing(monkeypatch, 0)
    state = train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET))
    assert tried == [2, 3, 4, 6], "2 failed, which was noticed at 3 and done there"
    (told,) = events(tmp_path, "unsaved")
    assert told["step"] == 3
    assert int(state.step) == 6 and listed(tmp_path / "checkpoints") == ["3", "4", "6"]


def test_t05_a_writer_that_fails_twice_stops_the_run(tmp_path, config, monkeypatch):
    slow_steps(monkeypatch)
    train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET, stop_after=2))
    failing(monkeypatch, 0, 1)
    with pytest.raises(CheckpointError, match=r"checkpoints/5 could not be written .*No space left.*; step 2 is kept"):
        train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET))
    assert listed(tmp_path / "checkpoints") == ["2"], "what was half written is gone"
    monkeypatch.undo()
    assert int(train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET)).step) == 6


def test_t05_at_the_last_step_too(tmp_path, config, monkeypatch):
    tried = failing(monkeypatch, 0)
    train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET | {"checkpoint_every": 100}))
    assert tried == [6, 6] and listed(tmp_path / "checkpoints") == ["6"]


def test_t06_a_write_that_hangs_is_bounded_and_named(folder, config, states, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(checksums, "write_checksums", lambda *_, **__: go_on.wait(60))
    checkpoints = Checkpoints(folder.parent, config, timeout_s=0.2)
    try:
        checkpoints.save(3, states(3), 3)
        with pytest.raises(
            CheckpointError, match=r"writing .*checkpoints/3 is not done after 0.2 s.*step 2 is kept"
        ) as e:
            checkpoints.save(4, states(4), 4)
        assert e.value.hung and e.value.final
        checkpoints.close()  # does not wait either
    finally:
        go_on.set()


def test_t06_the_program_ends_while_the_write_hangs(tmp_path):
    """Python itself would wait for the thread that writes."""
    script = (
        "import pathlib, sys, threading\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import small\n"
        "from fusion_jax import checksums, cli, cli_train, train\n"
        "checksums.write_checksums = lambda *_, **__: threading.Event().wait()\n"
        "data, workdir = map(pathlib.Path, sys.argv[2:])\n"
        "options = train.LoopOptions(save_timeout_s=0.5, eval_every=0)\n"
        "config = small.config(strategy='image', steps=1)\n"
        "cli_train.Train.run = lambda self: train.train(config, data, workdir, options)\n"
        "sys.argv[1:] = ['train']\n"
        "sys.exit(cli.main())\n"
    )
    args = [sys.executable, "-c", script, os.path.dirname(__file__), str(small.data_dir()), str(tmp_path)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=200)
    assert done.returncode == 4, done.stderr
    assert "checkpoints/1 is not done after 0.5 s" in done.stderr and "Traceback" not in done.stderr


def test_t13_a_full_disk_leaves_older_steps_as_they_are(folder, config, states, tmp_path):
    """The system itself refuses to write more than a few bytes to a file, as a quota or a full disk does."""
    script = (
        "import pathlib, resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import jax, small\n"
        "from fusion_jax.checkpoint import Checkpoints\n"
        "from fusion_jax.errors import CheckpointError\n"
        "from fusion_jax.state import create_state\n"
        "config = small.config(strategy='image')\n"
        "state = jax.eval_shape(lambda: create_state(config, jax.random.key(0)))\n"
        "checkpoints = Checkpoints(pathlib.Path(sys.argv[2]), config)\n"
        "from fusion_jax.sharding import data_mesh\n"
        "state, _ = checkpoints.restore(state, data_mesh())\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    checkpoints.save_and_wait(3, state, 3)\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
        "    sys.exit(error.exit_code)\n"
    )
    before = {path: path.read_bytes() for step in "12" for path in (folder / step).rglob("*") if path.is_file()}
    args = [sys.executable, "-c", script, os.path.dirname(__file__), str(folder.parent)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=200)
    assert done.returncode == 4, done.stderr
    assert f"{folder / '3'} could not be written" in done.stdout and "step 2 is kept" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    with closing(Checkpoints(folder.parent, config)) as checkpoints:
        checkpoints.tidy()
    assert listed(folder) == ["1", "2"], "nothing half written is left"
    assert_is(restored(folder.parent, config, states)[0], states(2))


def test_t13_a_folder_that_cannot_be_written(folder, config, states):
    before = listed(folder)
    checkpoints = Checkpoints(folder.parent, config)
    folder.rename(folder.with_name("aside"))
    folder.write_text("a file where the folder was: also root cannot write here")
    with pytest.raises(CheckpointError, match=r"checkpoints/3 could not be written \(.*; no step is saved yet"):
        checkpoints.save_and_wait(3, states(3), 3)
    checkpoints.close()
    folder.unlink()
    folder.with_name("aside").rename(folder)
    assert listed(folder) == before
    assert_is(restored(folder.parent, config, states)[0], states(2))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights, which nobody else has")
def test_t13_a_read_only_folder(tmp_path_factory, config, states):
    workdir = tmp_path_factory.mktemp("read_only")
    written(workdir, config, states, 1)
    os.chmod(workdir / "checkpoints", 0o555)
    checkpoints = Checkpoints(workdir, config)
    os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match=r"could not be written \(.*[Pp]ermission denied"):
            checkpoints.save_and_wait(2, states(2), 2)
    finally:
        os.seteuid(0)
    checkpoints.close()
    assert_is(restored(workdir, config, states)[0], states(1))


def test_what_could_not_be_logged_does_not_stop_a_run_nor_hang_it(tmp_path, config, monkeypatch, capsys):
    """As on a full disk: 60 rows, more than any queue holds."""
    from fusion_jax import progress as progress_module

    def full(*_):
        raise OSError(28, "No space left on device")

    with progress_module.Progress(tmp_path, start=0, total=60, label="", show=False) as progress:
        monkeypatch.setattr(progress._board, "write_event", full)
        for step in range(1, 61):
            progress.row("train", step, {"loss": 1.0})
    assert capsys.readouterr().err.count("No space left") == 1
    assert len(events(tmp_path, "train")) == 60, "the log itself could be written"


def test_two_trainings_in_one_folder_are_refused(tmp_path, config):
    from fusion_jax.workdir_lock import workdir_lock

    with workdir_lock(tmp_path), pytest.raises(UserError, match=f"another process trains in {tmp_path}; wait"):
        train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET))
    assert listed(tmp_path) == [".lock"]


def test_a_lock_that_is_no_ordinary_file_is_refused(tmp_path):
    from fusion_jax.workdir_lock import workdir_lock

    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):  # opening a pipe would wait for ever
        (tmp_path / name).mkdir()
        make(tmp_path / name / ".lock")
        with (
            pytest.raises(UserError, match=r"\.lock is no ordinary file, .* another --workdir"),
            workdir_lock(tmp_path / name),
        ):
            pass


def test_checkpoints_of_another_version_of_the_list(folder, config, states, monkeypatch):
    monkeypatch.setattr(checkpoint_module.checksums, "_FORMAT", 2)
    with pytest.raises(UserError, match="format 1; this version of the program reads 2"):
        restored(folder.parent, config, states)


@pytest.mark.parametrize("version", sorted(path.name for path in golden.FOLDER.iterdir()))
def test_t10_a_run_of_every_version_is_read(version, tmp_path):
    """To add one: python tests/golden.py VERSION"""
    shutil.copytree(golden.FOLDER / version, tmp_path, dirs_exist_ok=True)
    expected = json.loads((tmp_path / "expected.json").read_text())
    config, record = load_run(tmp_path)
    assert record.fingerprint == "0123456789abcdef" and load_seen(tmp_path)[0].subjects == ("S01",)
    with closing(Checkpoints(tmp_path, config)) as checkpoints:
        shapes = jax.eval_shape(lambda: create_state(config, jax.random.key(0)))
        state, next_batch = checkpoints.restore(shapes, data_mesh())
        assert weights_digest(state) == expected["weights"] and int(state.step) == next_batch == 5
        for a, b in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(golden.state(config).opt_state), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(jax.random.key_data(state.rng), jax.random.key_data(jax.random.key(9)))
        assert checkpoints.live_layers(5) == LiveLayers(2, 2) and checkpoints.best_step == 5
        assert checkpoints.record_of(5).config == config


# Nothing is buried, and nobody waits


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path, config):
    """It would overwrite its own log and config, and look like a run that went well."""
    train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET, stop_after=4))
    for step in ("2", "4"):
        (tmp_path / "checkpoints" / step / "state" / "manifest.ocdbt").write_bytes(b"")
    log = (tmp_path / "metrics.jsonl").read_bytes()
    other = small.config(strategy="image", seed=9)
    for again in (config, other):
        with pytest.raises(
            UserError, match=r"no finished checkpoint .*; 2 is damaged.*; 4 is damaged.*another --workdir"
        ):
            train(again, small.data_dir(), tmp_path, LoopOptions(**QUIET))
    assert (tmp_path / "metrics.jsonl").read_bytes() == log and listed(tmp_path / "checkpoints") == ["2", "4"]


def test_a_damaged_checkpoint_is_kept_however_often_that_happens(folder, config, states):
    for number in range(3):
        (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
        with closing(Checkpoints(folder.parent, config)) as checkpoints:
            checkpoints.tidy()
            checkpoints.save(2, states(2), 2)
        assert len(listed(folder)) == 3 + number
    assert listed(folder) == ["1", "2", "2.damaged", "2.damaged1", "2.damaged2"]


def test_a_disk_that_cannot_be_read_is_no_damage(folder, config, states, monkeypatch):
    """To go on from an older step because of it would lose work."""

    def broken(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "_about", broken)
        with pytest.raises(OSError, match="Input/output"):
            restored(folder.parent, config, states)
    assert_is(restored(folder.parent, config, states)[0], states(2))


def test_a_checkpoint_by_another_name_than_its_step_does_not_count(folder, config, states, capsys):
    shutil.copytree(folder / "1", folder / "900")
    assert_is(restored(folder.parent, config, states)[0], states(2))
    assert "900 is of step 1, not of the step that it is called" in capsys.readouterr().err


def test_what_cannot_be_removed_stays_and_stops_nothing(folder, config, states, monkeypatch, capsys):
    """As on NFS while somebody reads a file of it."""
    from etils import epath

    real = epath.Path.rmtree

    def busy(path, *args, **kwargs):
        if path.name.endswith(".deleting"):
            raise OSError(39, "Directory not empty")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(type(Checkpoints(folder.parent, config).folder), "rmtree", busy)
    with closing(Checkpoints(folder.parent, config, keep=1)) as checkpoints:
        checkpoints.save(3, states(3), 3)
        checkpoints.wait()
        checkpoints.tidy()
    assert listed(folder) == ["1.deleting", "2.deleting", "3"]
    assert "cannot be removed (Directory not empty)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["card/metadata", checksums.NAME])
def test_a_pipe_or_an_endless_file_in_a_checkpoint_is_not_read(folder, config, states, name):
    path = folder / "2" / name
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink()
        make(path)
        assert_is(restored(folder.parent, config, states)[0], states(1))


@pytest.mark.parametrize("score", [10**400, True, "1", [1], None, float("nan")])
def test_a_score_that_is_none_counts_as_none(folder, config, score):
    path = folder / "2" / "data" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": score}))
    checksums.write_checksums(type(Checkpoints(folder.parent, config).folder)(folder / "2"))
    with closing(Checkpoints(folder.parent, config)) as checkpoints:
        assert checkpoints.best_step is None and checkpoints.latest_step == 2


def test_reading_the_newest_reads_no_other(folder, config, capsys):
    (folder / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    assert int(checkpoint_module.restore_run(folder.parent, config, data_mesh()).step) == 2
    assert not capsys.readouterr().err


def test_a_checkpoint_that_goes_while_it_is_read_gives_way_to_a_newer_one(folder, config, states, monkeypatch, capsys):
    """A training run that goes on removes old ones; that is no damage."""
    real = checksums.damage

    def slow(path, *args):
        found = real(path, *args)
        if path.name == "2":
            shutil.rmtree(path)
            monkeypatch.setattr(checksums, "damage", real)
            written(folder.parent, config, states, 3)
        return found

    monkeypatch.setattr(checksums, "damage", slow)
    assert int(checkpoint_module.restore_run(folder.parent, config, data_mesh()).step) == 3
    assert not capsys.readouterr().err


def test_the_best_that_goes_while_it_is_read_gives_way_to_a_better_one(tmp_path, config, states, monkeypatch):
    """Also where it goes once its folder was listed; as in a run that keeps one, where each is better."""
    with closing(Checkpoints(tmp_path, config)) as checkpoints:
        checkpoints.save_and_wait(1, states(1), 1, None, 9.0)

    def replaced(module, name, old):
        real = getattr(module, name)

        def slow(path, *args):
            if path.name == str(old):
                monkeypatch.setattr(module, name, real)
                shutil.rmtree(path)
                with closing(Checkpoints(tmp_path, config)) as checkpoints:
                    checkpoints.save_and_wait(old + 1, states(old + 1), old + 1, None, 9.0 - old)
            return real(path, *args)

        monkeypatch.setattr(module, name, slow)
        assert int(checkpoint_module.restore_run(tmp_path, config, data_mesh(), "best").step) == old + 1

    replaced(checksums, "damage", 1)
    replaced(step_folders, "counts", 2)


def test_t06_a_file_system_that_hangs_at_once_is_bounded_too(folder, config, states, monkeypatch):
    go_on = threading.Event()
    checkpoints = Checkpoints(folder.parent, config, timeout_s=0.2)
    monkeypatch.setattr(checkpoints._checkpointer, "save", lambda *_, **__: go_on.wait(60))
    try:
        with pytest.raises(CheckpointError, match=r"writing .*/3 is not done after 0.2 s.*step 2 is kept"):
            checkpoints.save(3, states(3), 3)
    finally:
        go_on.set()


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_to_save_in_that_is_none(seconds):
    with pytest.raises(UserError, match="save_timeout_s is .*, expected > 0 and at most"):
        LoopOptions(save_timeout_s=seconds)


def test_a_divergence_is_told_even_if_a_write_fails_meanwhile(tmp_path, config, monkeypatch, capsys):
    from fusion_jax import train as train_module
    from fusion_jax.errors import TrainingDivergedError

    real = train_module.training_data

    def poisoned(*args):
        for number, batch in enumerate(real(*args), start=1):
            if number == 3:
                batch["pose_mm"] = np.full_like(batch["pose_mm"], np.inf)
            yield batch

    monkeypatch.setattr(train_module, "training_data", poisoned)
    monkeypatch.setattr(Checkpoints, "poll", lambda self: None)
    failing(monkeypatch, 0)
    with pytest.raises(TrainingDivergedError, match="step 3"):
        train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET))
    assert "checkpoints/2 could not be written" in capsys.readouterr().err


def test_bad_data_costs_no_step_that_was_done(tmp_path, config, monkeypatch):
    from fusion_jax import train as train_module

    real = train_module.training_data

    def ends(*args):
        data = real(*args)
        yield from (next(data) for _ in range(3))
        raise UserError("example 7 is bad")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "training_data", ends)
        with pytest.raises(UserError, match="example 7 is bad") as refused:
            train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET | {"checkpoint_every": 100}))
    assert refused.value.__notes__ == ["what was learned until step 3 is saved"]
    assert listed(tmp_path / "checkpoints") == ["3"]
    monkeypatch.setattr(train_module, "_validate", lambda *_: (_ for _ in ()).throw(UserError("a held-out one is bad")))
    with pytest.raises(UserError, match="held-out"):
        train(config, small.data_dir(), tmp_path, LoopOptions(**QUIET | {"checkpoint_every": 5, "eval_every": 5}))
    assert listed(tmp_path / "checkpoints") == ["3", "5"]


def test_a_stop_does_not_wait_for_a_validation(tmp_path, config, monkeypatch):
    import contextlib

    from fusion_jax import train as train_module
    from fusion_jax.errors import TrainingInterruptedError

    @contextlib.contextmanager
    def stopped(_):
        yield lambda step: 15 if step == 4 else None

    evaluating = LoopOptions(**QUIET | {"eval_every": 4})
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "stop_requests", stopped)
        with pytest.raises(TrainingInterruptedError, match="saved at step 4") as stop:
            train(config, small.data_dir(), tmp_path / "a", evaluating)
    assert stop.value.exit_code == 75 and not events(tmp_path / "a", "validation")
    # It is made up for when the run goes on, so that the best is the same as of a run that was not stopped.
    for name in "ab":
        train(config, small.data_dir(), tmp_path / name, evaluating)
    train(config, small.data_dir(), tmp_path / "a", evaluating)
    assert [row["step"] for row in events(tmp_path / "a", "validation")] == [4, 6]
    assert events(tmp_path / "a", "validation") == events(tmp_path / "b", "validation")
    scores = []
    for name in "ab":
        with closing(Checkpoints(tmp_path / name, config)) as checkpoints:
            scores.append({step: checkpoints._score(step) for step in checkpoints.steps} | {0: checkpoints.best_step})
    assert scores[0] == scores[1] and scores[0][4] is not None
