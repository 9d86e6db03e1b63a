"""A whole sweep at toy size: forecast, training together, scores, runs, tables, figures; stopping and going on."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
import small

from fusion_jax import sweep as sweep_module
from fusion_jax import sweep_group
from fusion_jax.cli import main
from fusion_jax.errors import TrainingDivergedError, TrainingInterruptedError, UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.network import Dense
from fusion_jax.presets import two_streams
from fusion_jax.report import write_report
from fusion_jax.start import open_training_data
from fusion_jax.sweep import SweepOptions, run_sweep
from fusion_jax.sweep_plan import SweepConfig, groups, sweep_members
from fusion_jax.sweep_report import write_sweep_report
from fusion_jax.train import LoopOptions, train
from fusion_jax.training_log import read_log
from fusion_jax.work_folder import load_run
from fusion_jax.workdir_lock import workdir_lock

OPTIONS = SweepOptions(log_every=2, checkpoint_every=2, show=False)
FEW = SweepConfig(("learned", "fixed", "image"), seeds=2, lambdas=(), initial_betas=(), final_alphas=())


def base(**overrides):
    config = small.config(**{"steps": 4, "batch_size": 4, "image_size": 4, **overrides})
    streams = two_streams((Dense(6), Dense(4)))
    inputs = dataclasses.replace(config.inputs, image_size=4, heatmap_size=4)
    return dataclasses.replace(config, network=dataclasses.replace(config.network, streams=streams), inputs=inputs)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    members = sweep_members(base(), FEW)
    return out, members, run_sweep(members, small.data_dir(), out, OPTIONS)


def test_what_a_sweep_trains():
    members = sweep_members(base(), SweepConfig(seeds=2, final_alphas=(5.0,), lambdas=(0.0, 5000.0)))
    kinds = ["learned", "learned, lambda 0", "learned, from beta 1", "learned, from beta 2", "learned, alpha led to 5"]
    kinds += ["free", "fixed at 0", "fixed at 1", "fixed at 2", "image", "heatmap"]
    assert list(dict.fromkeys(m.label for m in members)) == kinds and len(members) == 2 * len(kinds)
    assert len({m.slug for m in members}) == len(members)
    assert {m.config.data_seed for m in members} == {0} and {m.config.seed for m in members} == {0, 1}
    assert [len(group) for group in groups(members)] == [16, 2, 2, 2]


def test_a_member_is_what_the_same_run_trained_alone_is(done, tmp_path):
    out, members, results = done
    member = next(m for m in members if m.label == "fixed at 1" and m.config.seed == 1)
    train(member.config, small.data_dir(), tmp_path / "alone", LoopOptions(eval_every=0, show=False))
    alone = evaluate_run(tmp_path / "alone")
    (result,) = [r for r in results if (r["label"], r["seed"]) == ("fixed at 1", 1)]
    np.testing.assert_allclose(result["mpjpe_mm"], alone["mpjpe_mm"], rtol=1e-4)
    np.testing.assert_allclose(result["pa_mpjpe_mm"], alone["pa_mpjpe_mm"], rtol=1e-3)


def test_results_runs_and_report(done):
    out, members, results = done
    assert [(r["label"], r["seed"]) for r in results] == [(m.label, m.config.seed) for m in members]
    assert all(r["images_per_s"] > 0 and r["mpjpe_mm"] > 0 for r in results)
    work = {r["label"]: r["alive"]["gflops"] for r in results}
    assert work["image"] < work["fixed at 2"] < work["learned"] and work["fixed at 0"] < work["learned"]
    config, _ = load_run(out / "runs" / "learned_seed0")  # a run as any
    assert config.data_seed == 0
    again = evaluate_run(out / "runs" / "learned_seed0")
    np.testing.assert_allclose(again["mpjpe_mm"], results[0]["mpjpe_mm"], rtol=1e-5)
    text = write_sweep_report(out, results)
    assert (out / "sweep.md").read_text() == text and text.count("| fixed at ") == 6
    for name in ("error_against_beta.png", "beta_over_steps.png"):
        assert name in text and (out / name).stat().st_size > 5000
    assert not (out / "groups" / "0" / "checkpoints").exists()


def test_a_finished_sweep_is_not_trained_again_and_another_is_refused(done, monkeypatch):
    out, members, results = done
    monkeypatch.setattr(sweep_module, "SweepGroup", None)
    assert run_sweep(members, small.data_dir(), out, OPTIONS) == results
    with pytest.raises(UserError, match="holds another sweep: .*steps"):
        run_sweep(sweep_members(base(steps=5), FEW), small.data_dir(), out, OPTIONS)


def test_a_stopped_sweep_ends_where_an_unbroken_one_does(done, tmp_path, monkeypatch):
    few, results = [m for m in done[1] if m.label == "image"], [r for r in done[2] if r["label"] == "image"]
    real, calls = sweep_group.SweepGroup._place, []

    def stop_in_the_third_step(self, batch):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch)

    real_mesh = sweep_group.member_mesh
    with monkeypatch.context() as patch:
        patch.setattr(sweep_group.SweepGroup, "_place", stop_in_the_third_step)
        patch.setattr(sweep_group, "member_mesh", lambda count: real_mesh(4, jax.devices()[:4]))  # padded
        with pytest.raises(TrainingInterruptedError, match="saved at step 3 of 4"):
            run_sweep(few, small.data_dir(), tmp_path / "out", OPTIONS)
    again = run_sweep(few, small.data_dir(), tmp_path / "out", OPTIONS)  # on two devices
    assert [r["mpjpe_mm"] for r in again] == [r["mpjpe_mm"] for r in results]


def test_the_forecast_counts_what_is_left(done, tmp_path, capsys):
    few = [m for m in done[1] if m.label == "image"]
    run_sweep(few, small.data_dir(), tmp_path / "out", dataclasses.replace(OPTIONS, show=True))
    assert "2 runs together (image): 4 steps of" in capsys.readouterr().out


def test_a_member_that_diverges_is_named(tmp_path):
    config = base()
    wild = dataclasses.replace(config, optim=dataclasses.replace(config.optim, learning_rate=1e30))
    with pytest.raises(TrainingDivergedError, match=r"image_seed\d, step \d: loss or gradient is not finite"):
        run_sweep(
            sweep_members(wild, dataclasses.replace(FEW, strategies=("image",))), small.data_dir(), tmp_path, OPTIONS
        )


@pytest.mark.parametrize(
    "options, words",
    [
        (["--strategies", "lerned"], "unknown strategy 'lerned'"),
        (["--lambdas", "0;5"], "--lambdas '0;5': expected numbers separated by commas"),
        (["--seeds", "0"], "seeds is 0, expected 1 to 1000"),
        (["--preset", "hourglass-tiny"], "a sweep is of fusion networks"),
        (["--lambdas", "-1"], "alpha_penalty_weight is -1"),
        (["--initial-betas", "9"], "beta is 9"),
        (["--streams", "image,parts", "--strategies", "heatmap"], "strategy 'heatmap' needs a stream of that name"),
        (["--dataset", "nowhere"], "unknown dataset 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(options, words, tmp_path, capsys):
    assert main(["sweep", "--out", str(tmp_path / "s"), "--data-dir", str(small.data_dir()), *options]) == 2
    message = capsys.readouterr().err.strip()
    assert words in message and len(message.splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_a_folder_with_other_things_is_left_alone(done, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="in use and holds no sweep"):
        run_sweep(done[1], small.data_dir(), tmp_path, OPTIONS)


def test_a_damaged_result_is_named_and_speeds_are_measured_again(done, tmp_path):
    out, members, results = done
    shutil.copytree(out, tmp_path / "out")
    for text in ("[]", "{}", '{"label": 3}', "nonsense"):
        (tmp_path / "out" / "speeds.json").write_text(text)
        again = run_sweep(members, small.data_dir(), tmp_path / "out", OPTIONS)
        assert all(r["images_per_s"] > 0 for r in again)
        (tmp_path / "out" / "members" / "image_seed0.json").write_text(text)
        with pytest.raises(UserError, match="image_seed0.json.*delete the file, and the same sweep command"):
            run_sweep(members, small.data_dir(), tmp_path / "out", OPTIONS)
        shutil.copy(out / "members" / "image_seed0.json", tmp_path / "out" / "members")


def test_a_member_is_reported_as_any_run(done):
    assert "Where the streams merge" in write_report(done[0] / "runs" / "learned_seed0").read_text()


def test_the_log_holds_every_member(done):
    rows = [json.loads(line) for line in (done[0] / "groups" / "0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4] and len(rows[-1]["members"]["beta"]) == 8


def test_a_save_that_failed_once_leaves_a_sweep_that_finishes(done, tmp_path, monkeypatch, capsys):
    few, results = [m for m in done[1] if m.label == "image"], [r for r in done[2] if r["label"] == "image"]
    told = iter(["no space left"])
    monkeypatch.setattr(sweep_group.Checkpoints, "poll", lambda self: next(told, None))
    again = run_sweep(few, small.data_dir(), tmp_path / "out", OPTIONS)
    assert [r["mpjpe_mm"] for r in again] == [r["mpjpe_mm"] for r in results]
    rows = [json.loads(line) for line in (tmp_path / "out" / "groups" / "0" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("unsaved", 1), ("train", 2), ("train", 4)]
    assert "image" in write_sweep_report(tmp_path / "out", again)


def test_a_training_record_of_a_sweep_without_members_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = '{"kind": "train", "step": 1, "members": {"loss": [1.0, 2.0]}}\n{"kind": "unsaved", "step": 2}\n'
    path.write_text(whole)
    assert [row["step"] for row in read_log(path, nested=True)[0]] == [1]
    path.write_text(whole + '{"kind": "train", "step": 2}\n')
    with pytest.raises(UserError, match="line 3: members is no object of equally long lists"):
        read_log(path, nested=True)


def test_two_sweeps_at_once_in_one_folder_are_refused(done):
    out, members, _ = done
    with workdir_lock(out), pytest.raises(UserError, match=f"another process trains in {out}; .* another --out$"):
        run_sweep(members, small.data_dir(), out, OPTIONS)


def test_members_come_to_the_host_without_a_program_of_many_devices(done, monkeypatch):
    """Such programs wait for all devices; many at once have made XLA end the process on a busy machine."""
    few = [m for m in done[1] if m.label in ("learned", "fixed at 1")][:3]
    group = sweep_group.SweepGroup(done[0], few, open_training_data(few[0].config, small.data_dir())[0], OPTIONS)
    states, _ = group._states()
    parted = [leaf for leaf in jax.tree.leaves(states) if len(leaf.sharding.device_set) > 1]
    assert len(parted) > 10
    with monkeypatch.context() as patch:
        patch.setattr(type(parted[0]), "__getitem__", lambda *_: pytest.fail("indexed on its devices"))
        mine = group._without_padding(states)
        padded = group._with_padding(mine)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((mine.params, mine.opt_state)))
    for one, other, back in zip(*map(jax.tree.leaves, (states.params, mine.params, padded.params)), strict=True):
        np.testing.assert_array_equal(one[:3], other)
        np.testing.assert_array_equal(back, one)
