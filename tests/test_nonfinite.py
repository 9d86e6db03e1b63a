"""Steps that are not finite: flagged, skipped or stopping, kept, taken again; and the watch on alpha and beta."""

import json

import jax
import numpy as np
import pytest
import small

from fusion_jax import train as train_module
from fusion_jax import window
from fusion_jax.cli import main
from fusion_jax.errors import TrainingDivergedError, UserError
from fusion_jax.fusion_watch import FusionWatch, fusion_concerns
from fusion_jax.replay import replay_run, replay_words
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import load_run

SKIP = LoopOptions(show=False, log_every=2, eval_every=0, checkpoint_every=2, on_nonfinite="skip")


def rows(workdir, kind):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for line in lines if (row := json.loads(line))["kind"] == kind]


def poison(monkeypatch, *numbers):
    """Makes a joint of example 2 infinite in the batches of these steps."""
    real = train_module.training_data

    def poisoned(config, datasets, start, *args):
        for number, batch in enumerate(real(config, datasets, start, *args), start=start + 1):
            if number in numbers:
                batch["pose_mm"] = batch["pose_mm"].copy()
                batch["pose_mm"][2, 5] = np.inf
                batch["valid"][2, 5] = True
            yield batch

    monkeypatch.setattr(train_module, "training_data", poisoned)


@pytest.fixture(scope="module")
def skipped(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("skipped")
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, 4)
        state = train(small.config(), small.data_dir(), workdir, SKIP)
    return workdir, state


def test_skipped_steps_are_counted_kept_and_teach_nothing(skipped):
    workdir, state = skipped
    (event,) = rows(workdir, "nonfinite")
    assert event == {"kind": "nonfinite", "step": 4, "skipped": 1}
    assert [row.get("skipped_steps") for row in rows(workdir, "train")] == [None, 1, 1]
    assert int(state.step) == 6 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == () and leaf.dtype == np.int32]
    assert {int(count) for count in counts} == {5}, "Adam took five steps of six"
    assert np.isinf(np.load(workdir / "replay" / "step_4.npz")["pose_mm"][2, 5]).all()


def test_skipping_resumes_bit_for_bit(skipped, tmp_path, monkeypatch):
    poison(monkeypatch, 4)
    options = {"show": False, "log_every": 2, "eval_every": 0, "checkpoint_every": 2, "on_nonfinite": "skip"}
    train(small.config(), small.data_dir(), tmp_path, LoopOptions(**options, stop_after=5))
    state = train(small.config(), small.data_dir(), tmp_path, LoopOptions(**options))
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(skipped[1].params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_many_in_a_row_stop_whatever_the_policy(tmp_path, monkeypatch):
    monkeypatch.setattr(window, "MAX_IN_ROW", 3)
    poison(monkeypatch, 2, 4, 5, 6)
    with pytest.raises(TrainingDivergedError, match=r"step 6: loss inf .*, nor were the 2 steps before it\..*replay"):
        train(small.config(), small.data_dir(), tmp_path, SKIP)


def test_t21_a_nan_in_one_gradient_harms_neither_weights_nor_alpha_and_beta(small_config, small_state):
    """The loss is finite; one number of one gradient is not: nothing of the state moves but the step's number."""
    from fusion_jax.batch import fake_batch
    from fusion_jax.steps import train_step

    @jax.custom_jvp
    def spoilt(x):
        return x

    @spoilt.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return x, dx * np.nan

    from fusion_jax import steps

    real = steps.fusion_loss

    def loss(pred, *args):
        return real(pred.at[0, 0, 0].set(spoilt(pred[0, 0, 0])), *args)

    config = small_config()
    state, batch = small_state(config), fake_batch(config, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "fusion_loss", loss)
        after, measured = jax.jit(lambda s, b: train_step(s, b))(state, batch)
    assert np.isfinite(measured["loss"]) and not np.isfinite(measured["grad_norm"]) and not measured["finite"]
    for part in ("params", "opt_state", "constants"):
        for a, b in zip(*(jax.tree.leaves(getattr(s, part)) for s in (after, state)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert after.step == 1 and after.params["alpha"] == state.params["alpha"]


def test_replay_names_the_example_the_layers_and_what_changed(skipped, capsys):
    workdir, _ = skipped
    found = replay_run(workdir)
    assert (found.step, found.checkpoint, found.finite) == (4, 2, False)
    assert found.alone == [2] and set(found.odd_inputs) == {("pose_mm", 2)} and set(found.differs) >= {"pose_mm"}
    assert "fusion_3" in found.odd_layers and np.isinf(found.numbers["loss"])
    assert main(["replay", "--workdir", str(workdir)]) == 0
    told = capsys.readouterr().out
    assert replay_words(found) in told and "not finite on its own: example 2" in told
    assert (workdir / "replay" / "step_4.png").read_bytes().startswith(b"\x89PNG")


def test_replay_of_a_step_that_the_data_does_not_explain(skipped, tmp_path):
    """The batch is what the data gives, and the step is finite: as it would be after a bit flipped in memory."""
    import shutil

    from fusion_jax.start import ready, training_data
    from fusion_jax.work_folder import load_run

    workdir = tmp_path / "run"
    shutil.copytree(skipped[0], workdir)
    with ready(load_run(workdir)[0], small.data_dir(), workdir, LoopOptions(show=False), at_most=2) as run:
        data = training_data(run.config, run.datasets, 2)
        batch = next(data)
        data.close()
    np.savez(workdir / "replay" / "step_3.npz", **batch)
    found = replay_run(workdir)
    assert found.finite and found.step == 3 and not found.differs and not found.alone
    assert found.numbers["loss"] > 0 and "finite this time" in replay_words(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no batch"), (b"", "cannot be read"), (b"PK\x03\x04" + bytes(40), "cannot be read")],
)
def test_batches_that_cannot_be_replayed(skipped, tmp_path, content, message):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(skipped[0], workdir)
    kept = workdir / "replay" / "step_4.npz"
    kept.unlink() if content is None else kept.write_bytes(content)
    with pytest.raises(UserError, match=message):
        replay_run(workdir)


def test_a_kept_batch_of_another_run_or_a_pickle(skipped, tmp_path):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(skipped[0], workdir)
    with np.load(workdir / "replay" / "step_4.npz") as kept:
        arrays = dict(kept)
    np.savez(workdir / "replay" / "step_4.npz", **arrays | {"image": arrays["image"][:, :8]})
    with pytest.raises(UserError, match=r"image is \(8, 8, 16, 3\) uint8, this run's are \(8, 16, 16, 3\)"):
        replay_run(workdir)
    np.savez(workdir / "replay" / "step_4.npz", **arrays | {"image": np.array([{}], object)})
    with pytest.raises(UserError, match="cannot be read"):
        replay_run(workdir)
    with pytest.raises(UserError, match=r"step 5 is not in .*; there are: 4"):
        replay_run(workdir, 5)


def test_a_batch_beyond_the_runs_steps_is_not_trained_for(skipped, tmp_path):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(skipped[0], workdir)
    steps = load_run(workdir)[0].steps
    for step in (steps + 1, 10**30):
        shutil.copy(workdir / "replay" / "step_4.npz", workdir / "replay" / f"step_{step}.npz")
        with pytest.raises(UserError, match=f"holds a batch of step {step}, but this run has {steps} steps"):
            replay_run(workdir, step)


def test_concerns_of_alpha_and_beta():
    assert fusion_concerns(0.1, 2.0, 7, 0.1) == fusion_concerns(50.0, 0.0, 7, 0.1) == {}
    assert "fell to 0.04 from 0.1" in fusion_concerns(0.04, 7.0, 7, 0.1)["alpha"]
    assert "weights fall with depth" in fusion_concerns(-0.1, 3.0, 7, 0.1)["alpha"]
    assert "before the first layer" in fusion_concerns(1.0, -0.01, 7, 0.1)["beta"]
    assert "behind the last of 7 layers" in fusion_concerns(1.0, 7.01, 7, 0.1)["beta"]


def test_a_concern_is_told_when_it_begins():
    watch = FusionWatch(0.1)
    told = [len(watch.look({"alpha": 1.0, "beta": beta, "fusion_weights": [0.5] * 3})) for beta in (1, 4, 5, 3, 4)]
    assert told == [0, 1, 0, 0, 1]
    assert watch.look({"loss": 1.0, "fusion_weights": [0.5]}) == [], "free weights have no beta"


def test_training_tells_a_beta_that_leaves_the_network(tmp_path, capsys):
    options = LoopOptions(log_every=1, eval_every=0, checkpoint_every=100)
    train(small.config(steps=2, beta=1.9, fusion_learning_rate=0.3), small.data_dir(), tmp_path, options)
    (event, *more) = rows(tmp_path, "watch")
    assert not more or event["step"] < more[0]["step"]
    assert "beta is 2." in capsys.readouterr().err


def test_what_was_skipped_is_remembered_over_a_restart(tmp_path, monkeypatch):
    """Else a run that is started again and again would never reach the number that stops it."""
    monkeypatch.setattr(window, "MAX_IN_ROW", 4)
    poison(monkeypatch, *range(3, 60))
    options = {"show": False, "log_every": 1, "eval_every": 0, "checkpoint_every": 1, "on_nonfinite": "skip"}
    train(small.config(), small.data_dir(), tmp_path, LoopOptions(**options, stop_after=4))
    with pytest.raises(TrainingDivergedError, match="step 6: .*, nor were the 3 steps before it"):
        train(small.config(), small.data_dir(), tmp_path, LoopOptions(**options))


def test_a_window_holds_few_batches_however_rarely_it_is_closed(tmp_path):
    from fusion_jax.progress import Progress

    seen = window.Window(8, tmp_path)
    with Progress(tmp_path, start=0, total=100, label="", show=False) as progress:
        for step in range(1, 100):
            seen.add(step, {"x": step}, {"finite": np.bool_(True), "loss": np.float32(step)}, 0.0)
            if seen.full:
                seen.check(progress)
            assert len(seen._batches) < window.LOOK_EVERY
        assert seen.close(progress)["loss"] == 50


def test_divergence_is_told_before_a_validation_meets_it(tmp_path, monkeypatch):
    poison(monkeypatch, 2)
    options = LoopOptions(show=False, log_every=100, eval_every=3, checkpoint_every=100)
    with pytest.raises(TrainingDivergedError, match="step 2: loss inf"):
        train(small.config(), small.data_dir(), tmp_path, options)
    assert (tmp_path / "replay" / "step_2.npz").exists() and not rows(tmp_path, "validation")
