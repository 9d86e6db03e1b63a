"""The loop: bit-exact resume, refusals, divergence, signals; and what evaluation makes of its checkpoints."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small
import small_hourglass

from fusion_jax import sharding
from fusion_jax import start as start_module
from fusion_jax import train as train_module
from fusion_jax.datasets import open_dataset
from fusion_jax.errors import TrainingDivergedError, UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.leakage import check_splits
from fusion_jax.records import read_json
from fusion_jax.sharding import data_mesh
from fusion_jax.state import create_state
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import DatasetRecord, check_run, load_run, save_run

ROOT = pathlib.Path(__file__).parent.parent
QUIET = LoopOptions(show=False, log_every=2, eval_every=0, checkpoint_every=100)


def run(workdir, config=None, **options):
    return train(config or small.config(), small.data_dir(), workdir, dataclasses.replace(QUIET, **options))


def assert_same(a, b):
    """Every leaf bit for bit, the key included."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    return workdir, run(workdir, eval_every=3)


def test_same_seed_same_bits_and_another_seed_differs(unbroken, tmp_path):
    assert_same(unbroken[1], run(tmp_path / "again"))
    other = run(tmp_path / "other", small.config(seed=1))
    assert not np.array_equal(other.params["fusion_1"]["kernel"], unbroken[1].params["fusion_1"]["kernel"])


def test_t22_every_program_is_traced_and_compiled_once(tmp_path, caplog, monkeypatch):
    """Training, validation with a last batch that is not full, saving, resuming. No other test has this batch size."""
    config = small.config(steps=6, batch_size=12, strategy="image")
    compiled, real = [], train_module.Progress.step

    def counted(self):
        compiled.append(caplog.text.count("Finished XLA compilation"))
        real(self)

    monkeypatch.setattr(train_module.Progress, "step", counted)
    with jax.log_compiles():
        for stop in (2, None):
            run(tmp_path, config, stop_after=stop, eval_every=2, checkpoint_every=1)
    for step in ("train_step", "eval_step"):
        for event in (f"Finished tracing {step} for jit", f"Finished XLA compilation of jit({step})"):
            assert caplog.text.count(event) == 1, (event, caplog.text)
    assert caplog.text.count("Finished XLA compilation of jit(create_state)") <= 1, "a resumed run draws no weights"
    assert len(compiled) == 6 and compiled[2:] == compiled[2:3] * 4, "by step 3 all of the loop's programs are there"
    assert caplog.text.count("Finished XLA compilation") == compiled[2], "nor are there others after the last step"


def test_t22_an_implicit_transfer_is_an_error_once_the_step_is_compiled(tmp_path, monkeypatch):
    """In step 1 JAX places the step's constants; from step 2 on a batch left on the host is refused, and so is a
    number of the host that meets one of the devices; explicit transfers, validation and saving go on as they do."""
    real, placed = train_module.place_batch, []

    def left_on_the_host(batch, dataset, mesh):
        placed.append(1)
        return real(batch, dataset, mesh) | ({"valid": batch["valid"]} if len(placed) in (1, 4) else {})

    monkeypatch.setattr(train_module, "place_batch", left_on_the_host)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Disallowed host-to-device transfer.*bool\[8,17\]"):
        run(tmp_path, eval_every=2, checkpoint_every=2)
    assert len(placed) == 4 and (tmp_path / "checkpoints" / "2").is_dir()
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "validation"] == [2]

    def computed(self, step, measured):
        return measured["loss"] * 2.0

    monkeypatch.undo()
    monkeypatch.setattr(train_module.Profile, "after", computed)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        run(tmp_path / "other")


@pytest.fixture
def as_users_compile():
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)  # as conftest.py has it for this module
    jax.clear_caches()


@pytest.mark.usefixtures("as_users_compile")
def test_the_first_state_is_drawn_alike_however_little_its_program_is_optimised():
    config = small.config(strategy="image")
    dataset = open_dataset("synthetic_humans", small.data_dir(), small.SIZE)
    quick = start_module.initial_state(config, dataset, data_mesh())
    scale = quick.constants["pose_mean_mm"], quick.constants["pose_std_mm"]
    assert_same(quick, jax.jit(create_state, static_argnums=0)(config, jax.random.key(config.seed), *scale))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_t01_stopped_and_resumed_ends_bit_for_bit_where_unbroken_does(unbroken, tmp_path, stop):
    """Parameters, optimiser, alpha, beta, key and step, with dropout and augmentation on; a kill's is test_t02."""
    half = run(tmp_path, stop_after=stop)
    assert int(half.step) == stop
    assert_same(run(tmp_path), unbroken[1])


def test_t02_killed_in_the_middle_of_a_save_it_goes_on_bit_for_bit(unbroken, tmp_path):
    """SIGKILL while step 3 is being written; 20 kills at random points are benchmarks/soak.py's, below."""
    script = (
        "import sys, pathlib, time; sys.path[:0] = sys.argv[1:3]\n"
        "import jax; jax.config.update('jax_num_cpu_devices', 4)\n"
        "import small; from fusion_jax import checksums, train as t\n"
        "real = checksums.write_checksums\n"
        "def write(folder, **options):\n"
        "    real(folder, **options)\n"
        "    if folder.name.startswith('3.'): print('writing', flush=True); time.sleep(600)\n"
        "checksums.write_checksums = write\n"
        "options = t.LoopOptions(show=False, log_every=2, eval_every=0, checkpoint_every=1)\n"
        "t.train(small.config(), pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4]), options)\n"
    )
    args = [sys.executable, "-c", script, ROOT, ROOT / "tests", small.data_dir(), tmp_path]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    there = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert there == ["1", "2", "3.orbax-checkpoint-tmp"]
    assert_same(run(tmp_path), unbroken[1])
    assert "3.orbax-checkpoint-tmp" not in {path.name for path in (tmp_path / "checkpoints").iterdir()}


@pytest.mark.slow
def test_t02_killed_twenty_times_it_ends_where_one_that_was_left_alone_does():
    """Minutes. The full length, 20,000 steps: python benchmarks/soak.py"""
    soak = [sys.executable, ROOT / "benchmarks" / "soak.py", "--steps", "4000", "--kills", "20", "--seconds", "0.5"]
    done = subprocess.run([*soak, "--checkpoint-every", "20"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit for bit" in done.stdout


@pytest.mark.slow
def test_resuming_with_another_number_of_workers(unbroken, tmp_path):
    """Slow because worker processes start as new interpreters."""
    run(tmp_path, stop_after=3)
    assert_same(run(tmp_path, workers=2), unbroken[1])


def test_a_finished_run_is_left_as_it_is(unbroken):
    workdir, state = unbroken
    before = rows(workdir)
    assert_same(run(workdir), state)
    assert rows(workdir) == before


def test_metrics_are_written(unbroken):
    workdir, state = unbroken
    train_rows = [row for row in rows(workdir) if row["kind"] == "train"]
    assert [row["step"] for row in train_rows] == [2, 4, 6]
    for row in train_rows:
        assert np.isclose(row["loss"], row["data_loss"] + row["penalty"], rtol=1e-5)
        assert {"alpha", "beta", "mpjpe_mm", "examples_per_s", "grad_norm", "input_wait_share"} <= row.keys()
        assert len(row["fusion_weights"]) == 2
    assert [row["step"] for row in rows(workdir) if row["kind"] == "validation"] == [3, 6]
    assert float(state.params["alpha"]) != 0.1 and list((workdir / "tensorboard").iterdir())


def test_a_trace_of_steps_changes_nothing_and_is_where_it_says(unbroken, tmp_path, capsys):
    assert_same(run(tmp_path, profile=2, show=True), unbroken[1])
    assert f"steps 4 to 5 are traced in {tmp_path / 'profile'}" in capsys.readouterr().out
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz")) and list(tmp_path.rglob("*.xplane.pb"))
    with pytest.raises(UserError, match="--profile 4 traces steps 4 to 7.* ends at step 6"):
        run(tmp_path / "short", profile=4)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"strategy": "image"}, {"strategy": "heatmap"}, 'network.strategy: "image" -> "heatmap"'),
        ({"strategy": "fixed", "beta": 1.0}, {"strategy": "fixed", "beta": 2.0}, "network.beta: 1.0 -> 2.0"),
        ({"skeleton": "human36m17"}, {"skeleton": "lsp14"}, 'inputs.skeleton: "human36m17" -> "lsp14"'),
        ({"steps": 6}, {"steps": 7}, "steps: 6 -> 7"),
    ],
)
def test_t12_another_fusion_or_other_joints_are_refused_with_both_values(tmp_path, old, new, words):
    """Before any weights are read or drawn."""
    before, after = (small.config(**fields) for fields in (old, new))
    dataset = open_dataset("synthetic_humans", small.data_dir(), small.SIZE)
    record = DatasetRecord("synthetic_humans", str(small.data_dir()), dataset.fingerprint)
    save_run(tmp_path, before, record, [])
    with pytest.raises(UserError, match=f"{re.escape(words)}.*another --workdir"):
        check_run(tmp_path, after, record)


def test_t12_another_number_of_stacks_is_refused_with_both_values(tmp_path):
    before, after = (small_hourglass.config(stacks=n) for n in (1, 2))
    record = DatasetRecord("synthetic_humans", str(small.data_dir()), "")
    save_run(tmp_path, before, record, [])
    with pytest.raises(UserError, match="network.stacks: 1 -> 2"):
        check_run(tmp_path, after, record)


def test_another_config_in_the_same_folder_is_refused(unbroken):
    config = small.config(learning_rate=0.5, seed=7)
    with pytest.raises(UserError, match=r"optim.learning_rate: 0.002 -> 0.5; seed: 0 -> 7"):
        run(unbroken[0], config)
    kept = load_run(unbroken[0])[0]
    assert kept.dataset.startswith("synthetic_humans/16px_3s_1f"), "the name stays clear when others are prepared"
    assert dataclasses.replace(kept, dataset="synthetic_humans") == small.config()


def test_other_data_in_the_same_folder_is_refused(unbroken, monkeypatch):
    real = start_module.open_mixture

    def changed(*args):
        return [(dataclasses.replace(opened, fingerprint="changed"), weight) for opened, weight in real(*args)]

    monkeypatch.setattr(start_module, "open_mixture", changed)
    with pytest.raises(UserError, match='another dataset: fingerprint: .* -> "changed"'):
        run(unbroken[0])


def test_rows_of_unsaved_steps_are_forgotten(tmp_path):
    """A kill after step 4 with a checkpoint at 2: rows 3 and 4 come again, once, and a cut line is gone."""
    run(tmp_path, stop_after=2)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "train", "step": 4, "loss": 1.0}\n{"kind": "tra')
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "train"] == [2, 4, 6]
    assert all("mpjpe_mm" in row for row in rows(tmp_path))


def test_a_broken_line_amid_the_log_is_not_thrown_away(tmp_path):
    """Only the last line can have been cut by a kill; anything else is for the report to name."""
    run(tmp_path, stop_after=2)
    log = tmp_path / "metrics.jsonl"
    log.write_text("damaged\n" + log.read_text())
    run(tmp_path)
    assert log.read_text().startswith("damaged\n")


def test_a_run_that_never_saved_leaves_its_folder_free(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise UserError("no such data")

    with monkeypatch.context() as patch:
        patch.setattr(start_module, "initial_state", broken)
        with pytest.raises(UserError, match="no such data"):
            run(tmp_path, small.config(seed=5))
    assert int(run(tmp_path, small.config(seed=6, steps=1)).step) == 1


@pytest.mark.parametrize("field", ["log_every", "checkpoint_every", "stop_after", "eval_frames"])
def test_options_out_of_range(field):
    with pytest.raises(UserError, match=f"{field} is 0, expected >= 1"):
        LoopOptions(**{field: 0})


def test_people_in_two_splits_are_refused():
    dataset = open_dataset("synthetic_humans", small.data_dir(), 16)
    mixed = dataclasses.replace(dataset, subjects={"train": ["S01", "S02"], "test": ["S02"]})
    with pytest.raises(UserError, match="S02 is in both train of synthetic_humans/16px.* and test"):
        check_splits([mixed])


def test_divergence_stops_names_the_step_and_keeps_the_batch(tmp_path, monkeypatch):
    real = train_module.training_data

    def poisoned(*args):
        for number, batch in enumerate(real(*args), start=1):
            if number == 4:
                batch["pose_mm"][2, 5] = np.inf
            yield batch

    monkeypatch.setattr(train_module, "training_data", poisoned)
    with pytest.raises(TrainingDivergedError, match=r"step 4: loss inf .* not finite.*step_4\.npz"):
        run(tmp_path, log_every=3)
    kept = np.load(tmp_path / "replay" / "step_4.npz")
    assert np.isinf(kept["pose_mm"][2, 5]).all() and kept["image"].shape == (8, 16, 16, 3)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*")), "nothing after the bad step is saved"


def test_live_data_trains_and_resumes(tmp_path):
    config = small.config(dataset="synthetic_humans/live", steps=3)
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, stop_after=2)
    assert_same(run(tmp_path / "parts", config), whole)


@pytest.mark.parametrize("strategy", ["free", "image", "heatmap", "fixed"])
def test_every_strategy_trains_and_is_scored(tmp_path, strategy):
    beta = 1.0 if strategy == "fixed" else None
    run(tmp_path, small.config(strategy=strategy, beta=beta, steps=2))
    assert evaluate_run(tmp_path)["strategy"] == strategy


class TestEvaluate:
    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, unbroken):
        return evaluate_run(unbroken[0])

    def test_the_file_holds_what_is_promised(self, unbroken, result):
        written = read_json(unbroken[0] / "eval" / "test.json")
        assert written == result
        promised = ("mpjpe_mm", "pa_mpjpe_mm", "pa_mpjpe_reflection_mm", "n_mpjpe_mm", "pck_150mm", "auc")
        assert all(isinstance(result[name], float) for name in promised)
        assert result["num_frames"] == 56 and result["checkpoint_step"] == 6
        assert len(result["per_action"]) == 14 and len(result["per_joint"]) == 17
        assert result["protocol"]["subjects"] == ["S03"]
        for name in ("md", "csv"):
            assert (unbroken[0] / "eval" / f"test.{name}").read_text().count("walking") == 1

    def test_relations_between_the_numbers(self, result):
        assert result["per_joint"]["pelvis"]["mpjpe_mm"] == 0
        joints = [row["mpjpe_mm"] for row in result["per_joint"].values()]
        assert np.isclose(np.mean(joints), result["mpjpe_mm"], rtol=1e-5)
        actions = [row["mpjpe_mm"] for row in result["per_action"].values()]
        assert np.isclose(np.mean(actions), result["action_mean_mpjpe_mm"])

    @pytest.mark.parametrize(("devices", "batch_size"), [(1, 9), (2, 20), (4, 100)])
    def test_t20_every_frame_counts_once_for_any_batch_size_and_devices(
        self, unbroken, result, monkeypatch, devices, batch_size
    ):
        """56 frames: last batches of 2, of 16, and one that is more padding than frames; the result is of 4 devices.

        To float rounding: another batch size may add a matrix product's terms in another order.
        """
        some = jax.devices()[:devices]
        monkeypatch.setattr(sharding, "data_mesh", lambda given=None: data_mesh(some if given is None else given))
        again = evaluate_run(unbroken[0], batch_size=batch_size)
        assert again["num_frames"] == result["num_frames"] == 56

        def numbers(table):
            names = ("mpjpe_mm", "pa_mpjpe_mm", "n_mpjpe_mm", "pck_150mm", "auc", "action_mean_mpjpe_mm")
            rows = [*table["per_action"].values(), *table["per_joint"].values()]
            counts = [row["num_frames"] for row in table["per_action"].values()]
            return [table[name] for name in names] + [row["mpjpe_mm"] for row in rows] + counts

        np.testing.assert_allclose(numbers(again), numbers(result), rtol=1e-5)

    def test_samples_open_without_pickle(self, unbroken, result):
        with np.load(unbroken[0] / "eval" / "test_samples.npz", allow_pickle=False) as samples:
            assert set(samples["kind"]) == {"best", "median", "worst"}
            error = np.linalg.norm(samples["pred_mm"] - samples["true_mm"], axis=-1).mean(1)
            np.testing.assert_allclose(error, samples["mpjpe_mm"], rtol=1e-4)
            best, worst = (samples["mpjpe_mm"][samples["kind"] == kind] for kind in ("best", "worst"))
            assert best.max() <= worst.min()

    def test_a_folder_without_a_run_and_a_run_without_a_checkpoint(self, tmp_path):
        with pytest.raises(UserError, match="holds no run .* fusion-jax train"):
            evaluate_run(tmp_path)
        run(tmp_path, small.config(steps=1))
        for step in (tmp_path / "checkpoints").iterdir():
            step.rename(tmp_path / "moved")
        with pytest.raises(UserError, match="no finished checkpoint"):
            evaluate_run(tmp_path)

    @pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
    def test_a_damaged_checkpoint_is_one_clear_error(self, tmp_path, harm):
        run(tmp_path, small.config(steps=1))
        files = [p for p in (tmp_path / "checkpoints" / "1" / "state").rglob("*") if p.is_file()]
        for path in files:
            data = path.read_bytes()
            if harm == "delete":
                path.unlink()
            else:
                path.write_bytes(data[: len(data) // 2] if harm == "truncate" else bytes(b ^ 255 for b in data))
        with pytest.raises(
            UserError, match=r"no finished checkpoint in .*; 1 (lacks its|is damaged).*state/"
        ) as refused:
            evaluate_run(tmp_path)
        assert len(str(refused.value)) < 600

    def test_an_unknown_split(self, unbroken):
        with pytest.raises(UserError, match="no split 'val'; it has"):
            evaluate_run(unbroken[0], split="val")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_t03_a_signal_saves_the_current_step_and_the_next_call_goes_on(tmp_path, number, code):
    script = (
        "import sys, pathlib; sys.path[:0] = sys.argv[1:3]\n"
        "import small; import fusion_jax.train as t\n"
        "small.data_dir = lambda: pathlib.Path(sys.argv[3])\n"
        "from fusion_jax import cli, cli_train\n"
        "config, workdir = small.config(steps=100000, strategy='image'), pathlib.Path(sys.argv[4])\n"
        "options = t.LoopOptions(log_every=1, eval_every=0)\n"
        "cli_train.Train.run = lambda self: t.train(config, small.data_dir(), workdir, options)\n"
        "sys.exit(cli.main(['train']))\n"
    )
    args = [sys.executable, "-c", script, ROOT, ROOT / "tests", small.data_dir(), tmp_path]
    process = subprocess.Popen(args, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    os.kill(process.pid, number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == code and "saved at step" in message and "Traceback" not in message
    step = int(message.split("saved at step ")[1].split()[0])
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert saved == [str(step)] and rows(tmp_path)[-1]["step"] == step
