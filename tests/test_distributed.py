"""Real processes over loopback, two pretend devices each, that train as one; and the ways in which one can fail."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small
import trained_pair

from fusion_jax import distributed, sharding
from fusion_jax import train as train_module
from fusion_jax.checkpoint import restore_run
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.records import read_json
from fusion_jax.sharding import data_mesh
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import load_run

ROOT = pathlib.Path(__file__).parent.parent
QUIET = LoopOptions(show=False, log_every=1, eval_every=3, checkpoint_every=100)
LIKE_QUIET = ["--log-every", "1", "--eval-every", "3", "--checkpoint-every", "100"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(devices=2, **more):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), **more}


def explicit(index, count, port):
    return ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count), "--process-id", str(index)]


def processes(faults, workdir, *options, steps=6, env=lambda index: {}, who=explicit):
    """One process for each fault that trains; whatever happens none is left."""
    script = str(ROOT / "tests" / "one_of_several.py")
    given = [small.data_dir(), workdir, str(steps), *options]
    return together_started([[script, fault, *given] for fault in faults], env, who)


@contextlib.contextmanager
def together_started(commands, env=lambda index: {}, who=explicit):
    """One process for each of Python's command lines; whatever happens none is left."""
    port, started = free_port(), []
    try:
        for index, command in enumerate(commands):
            piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            more = environment(**{"JAX_COORDINATOR_PORT": str(port), **env(index)})
            whole = [sys.executable, *command, *who(index, len(commands), port)]
            started.append(subprocess.Popen(whole, env=more, **piped))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def outputs(started, timeout=150):
    return [process.communicate(timeout=timeout)[0] for process in started]


def in_slurm(index):
    """As srun sets it on one machine; the second variable is the list of machines."""
    names = {"JOB_ID": "7", "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": str(index), "LOCALID": str(index)}
    return {f"SLURM_{name}": value for name, value in names.items()}


def rows(workdir, kind):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row["kind"] == kind]


def state_of(workdir):
    return restore_run(workdir, load_run(workdir)[0], data_mesh(jax.devices()[:1]))


def run_here(workdir, devices, monkeypatch, **options):
    """The same run in this process on some of its devices."""
    mesh = data_mesh(jax.devices()[:devices])
    with monkeypatch.context() as patch:
        patch.setattr(train_module.sharding, "data_mesh", lambda: mesh)
        patch.setattr(sharding, "SPLIT_FROM", 64)
        return train(small.config(), small.data_dir(), workdir, dataclasses.replace(QUIET, **options))


def assert_same_run(workdir, other, validated=True):
    """Losses to 1e-5 of themselves, parameters to 1e-6: devices and processes add up in orders of their own."""
    kinds = [("train", "loss"), ("train", "mpjpe_mm")] + [("validation", "mpjpe_mm")] * validated
    for kind, name in kinds:
        got, want = ([(row["step"], row[name]) for row in rows(each, kind)] for each in (workdir, other))
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"{kind} {name}")
    got, want = state_of(workdir), state_of(other)
    assert got.step == want.step
    for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one_device")
    with pytest.MonkeyPatch.context() as patch:
        run_here(workdir, 1, patch)
    return workdir


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """(work folder, outputs) of two processes as Slurm starts them, the second four seconds late."""
    workdir = tmp_path_factory.mktemp("together")
    with processes(["none", "late"], workdir, *LIKE_QUIET, env=in_slurm, who=lambda *_: []) as started:
        said = outputs(started)
    assert [process.returncode for process in started] == [0, 0], said
    return workdir, said


def test_two_processes_train_as_one_device_does(together, one_device):
    assert_same_run(together[0], one_device)


def test_t17_one_process_writes_and_a_late_one_hangs_nobody(together):
    workdir, (first, second) = together
    assert [row["step"] for row in rows(workdir, "train")] == [1, 2, 3, 4, 5, 6], "each row once"
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    assert "step 6/6" in first and "6 of 6 steps done" in first
    assert "step" not in second, "one alone tells people"
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "6"], "3 was best"


@pytest.mark.slow
def test_t20_processes_score_each_frame_once_and_agree(together, tmp_path):
    """56 frames in batches of 20, the last one not full. What two processes saved is also evaluated by one."""
    workdir = tmp_path / "run"
    shutil.copytree(together[0], workdir)
    written = evaluated_by_two(workdir)
    (workdir / "eval").rename(tmp_path / "eval")
    again = evaluate_run(workdir)
    assert written["num_frames"] == again["num_frames"] == 56
    for name in ("mpjpe_mm", "pa_mpjpe_mm"):
        for action, row in again["per_action"].items():
            np.testing.assert_allclose(written["per_action"][action][name], row[name], rtol=1e-4)
    with (
        np.load(tmp_path / "eval" / "test_samples.npz") as one,
        np.load(workdir / "eval" / "test_samples.npz") as other,
    ):
        np.testing.assert_array_equal(one["sequence"], other["sequence"])
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.slow
def test_t20_processes_score_a_2d_network_as_one_does(tmp_path):
    workdir = trained_pair.hourglass(tmp_path / "run")
    written = evaluated_by_two(workdir)
    (workdir / "eval").rename(tmp_path / "eval")
    again = evaluate_run(workdir)
    assert written["num_frames"] == again["num_frames"] == 56
    np.testing.assert_allclose(written["joint_error_px"], again["joint_error_px"], rtol=1e-4)
    np.testing.assert_allclose(written["pckh_0.5"], again["pckh_0.5"])
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {path.name for path in (workdir / "eval").iterdir()}


GOES_WHILE_IT_IS_READ = """
import pathlib, shutil, sys, time
from fusion_jax import cli, step_folders
from fusion_jax.distributed import writes
real = step_folders.StepFolders._chosen

def chosen(self, step):
    newest = self.folder / "2"
    found = real(self, step) if writes() else None
    if writes():
        shutil.rmtree(newest, ignore_errors=True)
    while newest.exists():
        time.sleep(0.01)
    return found or real(self, step)

step_folders.StepFolders._chosen = chosen
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_checkpoint_that_is_removed_before_one_reads_it_is_given_up_by_all_together(tmp_path):
    options = LoopOptions(show=False, log_every=1, eval_every=0, checkpoint_every=1)
    train(small.config(steps=2), small.data_dir(), tmp_path, options)
    command = ["-c", GOES_WHILE_IT_IS_READ, "evaluate", "--distributed", "--workdir", tmp_path]
    with together_started([command, command]) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [0, 0], said
    assert read_json(tmp_path / "eval" / "test.json")["checkpoint_step"] == 1


@pytest.mark.slow
def test_a_checkpoint_that_one_does_not_find_is_refused_by_all(tmp_path):
    workdir, lacking = trained_pair.pose(tmp_path / "run"), tmp_path / "lacking"
    shutil.copytree(workdir, lacking, ignore=shutil.ignore_patterns("checkpoints"))
    commands = [["-m", "fusion_jax", "evaluate", "--distributed", "--workdir", folder] for folder in (workdir, lacking)]
    with together_started(commands) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert f"process 1: no finished checkpoint of step 1 in {lacking / 'checkpoints'}; there are: none" in text
        assert "give all of them a --workdir in a folder that they share" in text


@pytest.mark.slow
@pytest.mark.parametrize("network", [trained_pair.pose, trained_pair.hourglass])
def test_processes_that_are_asked_to_score_different_things_refuse(tmp_path, network):
    """What would score half of each: the split, and how many frames at a time, which decides who has which."""
    workdir = network(tmp_path / "run")
    options = [["--split", "test", "--batch-size", "20"], ["--split", "validation", "--batch-size", "40"]]
    commands = [["-m", "fusion_jax", "evaluate", "--distributed", "--workdir", workdir, *each] for each in options]
    with together_started(commands) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert 'process 0 and process 1 do not agree on batch_size: 20 -> 40; split: "test" -> "validation"' in text
    assert not (workdir / "eval").exists()


@pytest.mark.slow
@pytest.mark.parametrize("network", [trained_pair.pose, trained_pair.hourglass])
def test_processes_with_different_data_refuse_to_score(tmp_path, network):
    """Each data is what its own copy of the run was trained on."""
    workdirs = [network(tmp_path / name) for name in ("run", "other")]
    code = (
        "import sys; from fusion_jax import cli, scoring\n"
        "import dataclasses; real = scoring.open_dataset\n"
        "scoring.open_dataset = lambda *given: dataclasses.replace(real(*given), fingerprint='elsewhere')\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    record = read_json(workdirs[1] / "dataset.json")
    (workdirs[1] / "dataset.json").write_text(json.dumps(record | {"fingerprint": "elsewhere"}))
    commands = [["-m", "fusion_jax"], ["-c", code]]
    given = zip(commands, workdirs, strict=True)
    with together_started([[*c, "evaluate", "--distributed", "--workdir", w] for c, w in given]) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert "do not agree on dataset: " in text and "elsewhere" in text and record["fingerprint"] in text


WRITES_FOR_LONG = """
import sys, time
from fusion_jax import cli, distributed, evaluate, evaluate_heatmaps
distributed.SHUTDOWN_S = 2

def late(*_):
    time.sleep(6)
    raise OSError(28, "No space left on device", "samples.npz")

evaluate.write_samples = evaluate_heatmaps._write_samples = late
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("network", [trained_pair.pose, trained_pair.hourglass])
def test_who_has_nothing_to_write_waits_for_who_writes_and_the_tables_come_first(tmp_path, network):
    """Longer than jax lets them wait at their end; an error of the one is then told to the other."""
    workdir = network(tmp_path / "run")
    command = ["-c", WRITES_FOR_LONG, "evaluate", "--distributed", "--workdir", workdir]
    with together_started([command, command]) as started:
        first, second = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, distributed.PEER_FAILED], (first, second)
    assert "samples.npz: No space left" in first and "another process failed: process 0: OSError" in second
    assert read_json(workdir / "eval" / "test.json")["num_frames"] == 56


def evaluated_by_two(workdir):
    """What two processes of the command wrote, one of which alone tells it."""
    command = ["-m", "fusion_jax", "evaluate", "--distributed", "--workdir", workdir, "--batch-size", "20"]
    with together_started([command, command]) as started:
        said = outputs(started)
    assert [process.returncode for process in started] == [0, 0], said
    assert "written to" in said[0] and "written to" not in said[1], said
    return read_json(workdir / "eval" / "test.json")


@pytest.mark.parametrize("service", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_t17_t18_sigterm_to_one_saves_and_stops_all_at_one_step(tmp_path, service):
    """T18 is the case in which jax's preemption service is off: they agree at the next row of the log."""
    fault = {"on": "none", "off": "no_service"}[service]
    with processes([fault, fault], tmp_path, "--log-every", "5", "--eval-every", "0", steps=100000) as started:
        wait_for_rows(tmp_path, started)
        os.kill(started[1].pid, signal.SIGTERM)
        said = outputs(started)
    assert [process.returncode for process in started] == [75, 75], said
    steps = [int(text.split("saved at step ")[1].split()[0]) for text in said]
    assert steps[0] == steps[1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [str(steps[0])]
    assert int(state_of(tmp_path).step) == steps[0]
    if service == "off":
        assert steps[0] % 5 == 0


def wait_for_rows(workdir, started, count=1):
    deadline = time.monotonic() + 120
    log = workdir / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= count):
        ended = [process for process in started if process.poll() is not None]
        assert not ended and time.monotonic() < deadline, [process.communicate()[0] for process in ended]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_process_that_fails_ends_all_and_is_named(tmp_path):
    with processes(["none", "breaks"], tmp_path, "--log-every", "1", "--eval-every", "0", steps=1000) as started:
        first, second = outputs(started, timeout=60)
    assert [process.returncode for process in started] == [distributed.PEER_FAILED, 2], (first, second)
    assert "fusion-jax: a picture of this process cannot be read" in second
    assert "another process failed: process 1: UserError: a picture of this process cannot be read" in first


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_by_the_heartbeat(tmp_path, killed):
    """Within HEARTBEAT_S, which one_of_several.py sets to 10 s, and jax's check of it; the abort is jax's own."""
    with processes(["none", "none"], tmp_path, "--log-every", "1", "--eval-every", "0", steps=100000) as started:
        wait_for_rows(tmp_path, started)
        started[killed].kill()
        said = outputs(started, timeout=60)[1 - killed]
    assert started[1 - killed].returncode in (distributed.PEER_FAILED, -signal.SIGABRT), said
    assert "another task died" in said
    if killed == 1:
        assert "stopped sending heartbeats):\n1\n" in said, "which one it was"


@pytest.mark.slow
def test_a_collective_that_fails_counts_as_a_failed_peer(tmp_path):
    """As gloo tells it where another process was killed, unless it still waits until the heartbeat is missed."""
    faults = ["none", "collective"]
    with processes(faults, tmp_path, "--log-every", "1", "--eval-every", "0", steps=1000) as started:
        first, second = outputs(started, timeout=60)
    assert [process.returncode for process in started] == [distributed.PEER_FAILED] * 2, (first, second)
    (line,) = [text for text in second.splitlines() if text.startswith("fusion-jax: ")]
    assert "process 1: a collective of all processes failed, most likely as another one is gone: FAILED" in line
    assert "Traceback" not in second and "another process failed: process 1: PeerFailedError" in first


@pytest.mark.parametrize(
    "text, several, failed",
    [
        ("FAILED_PRECONDITION: Gloo AllGather failed: Connection closed by peer", 2, True),
        ("INVALID_ARGUMENT: Gloo AllReduce failed: Connection reset by peer", 2, True),
        ("FAILED_PRECONDITION: Gloo AllGather failed: Connection closed by peer", 1, False),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes", 2, False),
    ],
)
def test_which_errors_of_the_runtime_are_another_process(monkeypatch, text, several, failed):
    monkeypatch.setattr(jax, "process_count", lambda: several)
    assert distributed.collective_failed(jax.errors.JaxRuntimeError(text)) == failed
    assert not distributed.collective_failed(RuntimeError(text))


@pytest.mark.slow
def test_divergence_stops_all_at_one_step_and_each_keeps_its_share_of_the_batch(tmp_path):
    with processes(["none", "poisoned"], tmp_path, "--log-every", "3", "--eval-every", "0") as started:
        said = outputs(started)
    assert [process.returncode for process in started] == [3, 3], said
    for index, text in enumerate(said):
        assert "step 4: loss inf" in text and f"step_4_process_{index}.npz" in text
        kept = np.load(tmp_path / "replay" / f"step_4_process_{index}.npz")
        assert kept["image"].shape == (4, 16, 16, 3) and np.isinf(kept["pose_mm"]).any() == (index == 1)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_processes_that_are_told_different_things_refuse(tmp_path):
    with processes(["none", "another_seed"], tmp_path) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert "process 0 and process 1 do not agree on config.seed: 0 -> 5. Give all of them the same command" in text
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
def test_processes_that_do_not_share_a_place_refuse_at_the_start(tmp_path):
    """Their first save would wait for each other; with a place for checkpoints that they share they train."""
    script = str(ROOT / "tests" / "one_of_several.py")
    commands = [[script, "none", small.data_dir(), tmp_path / name, "2", "--eval-every", "0"] for name in "ab"]
    with together_started(commands) as started:
        said = outputs(started, timeout=90)
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert (
            f"process 1 does not see what process 0 writes in {tmp_path}/a, where checkpoints are to be; give" in text
        )
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]
    with together_started([[*command, "--checkpoint-dir", tmp_path / "kept"] for command in commands]) as started:
        said = outputs(started)
    assert [process.returncode for process in started] == [0, 0], said
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["2"]
    assert sorted(path.name for path in tmp_path.iterdir()) in (["a", "b", "kept"], ["a", "kept"])


@pytest.mark.slow
def test_split_parameters_in_two_processes_and_resumed_by_them(one_device, tmp_path, monkeypatch):
    """Begun by one process with whole parameters, gone on with split ones by two, ended split by one."""
    run_here(tmp_path, 1, monkeypatch, stop_after=2)
    with processes(["none", "none"], tmp_path, *LIKE_QUIET, "--shard-params", "--stop-after", "4") as started:
        said = outputs(started)
    assert [process.returncode for process in started] == [0, 0], said
    run_here(tmp_path, 4, monkeypatch, shard_params=True)
    assert_same_run(tmp_path, one_device)


@pytest.fixture(scope="module")
def saved_on_four(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("saved_on_four")
    with pytest.MonkeyPatch.context() as patch:
        run_here(workdir, 4, patch, stop_after=2, eval_every=0)
    return workdir


@pytest.mark.parametrize("devices", [1, 2, pytest.param(8, marks=pytest.mark.slow)])
def test_t11_a_run_saved_on_four_devices_goes_on_elsewhere_alike(
    one_device, saved_on_four, tmp_path, monkeypatch, devices
):
    shutil.copytree(saved_on_four, tmp_path, dirs_exist_ok=True)
    if devices <= 4:
        run_here(tmp_path, devices, monkeypatch, eval_every=0)
    else:  # of a process of its own
        code = (
            "import sys, pathlib, small, jax; from fusion_jax.train import LoopOptions, train\n"
            f"assert len(jax.devices()) == {devices}\n"
            "options = LoopOptions(show=False, log_every=1, eval_every=0)\n"
            "train(small.config(), pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), options)\n"
        )
        given = [sys.executable, "-c", code, small.data_dir(), tmp_path]
        subprocess.run(given, env=environment(devices), check=True)
    assert_same_run(tmp_path, one_device, validated=False)


class TestJoining:
    def command(self, *options, timeout=60):
        given = [sys.executable, "-m", "fusion_jax", "train", *options]
        return subprocess.run(given, env=environment(), capture_output=True, text=True, timeout=timeout, cwd=ROOT)

    def test_no_cluster(self):
        done = self.command("--distributed")
        assert done.returncode == 2, done.stderr
        assert "found no cluster" in done.stderr and "--coordinator HOST:PORT" in done.stderr

    @pytest.mark.parametrize(
        "index, reason", [(0, "others have not come"), (1, "nobody answers there: is process 0 running")]
    )
    def test_who_does_not_come_is_not_waited_for_without_end(self, index, reason):
        done = self.command("--distributed", "--join-timeout", "2", *explicit(index, 2, free_port()))
        assert done.returncode == 2 and "not all there after 2 s" in done.stderr and reason in done.stderr

    @pytest.mark.parametrize(
        "given, reason",
        [
            (("host:1234", 2, None), "either nothing or all three"),
            (("host", 2, 0), "expected HOST:PORT"),
            (("host:70000", 2, 0), "expected HOST:PORT"),
            (("host:1234", 2, 2), "--process-id is 2 of --num-processes 2, expected 0 to 1"),
        ],
    )
    def test_arguments_that_do_not_fit(self, given, reason):
        with pytest.raises(UserError, match=reason), distributed.joined(*given):
            pass


def test_alone_everything_is_free():
    rows = {"index": np.arange(3), "name": np.array(["a", "bc", "d"])}
    assert distributed.gather_rows(rows, order_by="index")["name"] is rows["name"]
    distributed.check_agreed({"seed": 0})
    assert distributed.writes() and not distributed.preemption_service()
