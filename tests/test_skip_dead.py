"""Dead layers left out of training: the step equals the whole one, is compiled once per set, and resumes alike."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from fusion_jax import train as train_module
from fusion_jax.batch import fake_batch
from fusion_jax.errors import UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.network import Conv, Dense
from fusion_jax.presets import two_streams
from fusion_jax.sharding import data_mesh, global_batch, jit_train_step, replicated
from fusion_jax.skip_dead import Skipping
from fusion_jax.steps import train_step
from fusion_jax.sweep_plan import SweepConfig, sweep_members
from fusion_jax.train import LoopOptions, train

CUT = LiveLayers(last_data=1, first_fusion=2)


def bits(tree):
    typed = jax.dtypes.prng_key
    return [
        np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, typed) else x)
        for x in jax.tree.leaves(tree)
    ]


def test_a_step_without_dead_layers_is_the_whole_step(small_config, small_state):
    """On four devices, with dropout, once Adam has moved every layer: what is read is trained alike, the rest rests.

    The weights are exactly 0 and 1, so that no term is left out.
    """
    config = small_config(streams=two_streams((Conv(4, 2), Dense(8, 0.5))))
    mesh = data_mesh()
    step = jit_train_step(mesh)
    batches = [global_batch(fake_batch(config, 8, seed), mesh) for seed in range(3)]
    soft, _ = step(jax.device_put(small_state(config), replicated(mesh)), batches[0])
    sharp = soft.replace(params=soft.params | {"alpha": jnp.full_like(soft.params["alpha"], 1e3)})
    whole, cut = (jax.tree.map(jnp.copy, sharp.replace(network=sharp.network.clone(live=live))) for live in (None, CUT))
    for batch in batches[1:]:
        (whole, want), (cut, got) = step(whole, batch), step(cut, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), got, want)
        assert got["layer_grad_norms"]["fusion_1"] == got["layer_grad_norms"]["image_2"] == 0
    rested = set()
    for path, now in jax.tree_util.tree_leaves_with_path((cut.params, cut.opt_state)):
        name = jax.tree_util.keystr(path)
        before, other = leaf((sharp.params, sharp.opt_state), path), leaf((whole.params, whole.opt_state), path)
        dead = {layer for layer in ("fusion_1", "image_2", "heatmap_2") if layer in name}
        rested |= dead
        if dead:
            np.testing.assert_array_equal(now, before, err_msg=name)
        else:
            np.testing.assert_allclose(now, other, rtol=1e-4, atol=1e-5, err_msg=name)
            assert not np.array_equal(now, before), name
    assert len(rested) == 3


def leaf(tree, path):
    """The leaf of a tree at the path of another of its structure."""
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]


@pytest.fixture(scope="module")
def sharpening():
    """A run whose alpha doubles with every step, 1 to 64: at eps 0.05 layers die above 5.9, so after step 3."""
    return small.config(
        alpha_init=1.0, alpha_final=64.0, anneal_from=0.0, fusion_learning_rate=1e-6, skip_dead=0.05, skip_every=2
    )


def test_the_set_is_decided_at_fixed_steps_and_a_resumed_run_ends_alike(sharpening, tmp_path, monkeypatch, capsys):
    """Stopped at 3 the layers are dead already, but not yet decided to be; at 5 they are."""
    traced, read, validated = [], [], []

    def counted(state, batch):
        traced.append(state.network.live)
        return train_step(state, batch)

    def looked_at(config, options, state, *_):
        validated.append(state.network.live)
        return {}

    monkeypatch.setattr(train_module, "training_step", lambda _: counted)
    monkeypatch.setattr(train_module, "_validate", looked_at)
    compiled = train_module.sharding.jit_train_step

    def recording(*args):
        return lambda state, batch: read.append(state.network.live) or compiled(*args)(state, batch)

    monkeypatch.setattr(train_module.sharding, "jit_train_step", recording)

    def run(folder, **options):
        options = LoopOptions(**{"log_every": 4, "eval_every": 0, "show": False} | options)
        return train(sharpening, small.data_dir(), tmp_path / folder, options)

    whole = run("unbroken", eval_every=5, show=True)
    assert traced == [None, CUT] and read == [None] * 4 + [CUT] * 2
    assert validated == [None, None] and whole.network.live is None
    log = [json.loads(line) for line in (tmp_path / "unbroken" / "metrics.jsonl").read_text().splitlines()]
    assert [row for row in log if row["kind"] == "skip"] == [
        {"kind": "skip", "step": 4, "last_data": 1, "first_fusion": 2}
    ]
    assert "step 4/6  no longer count and are skipped: fusion layer 1 and data layer 2\n" in capsys.readouterr().err
    for stop in (3, 5):
        run("stopped", stop_after=stop, log_every=1)
    resumed = run("stopped")
    for a, b in zip(bits(resumed), bits(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read[6:] == read[:6] and len(traced) == 2


class Told:
    """In the place of Progress."""

    def __init__(self):
        self.texts = []

    def event(self, kind, step, values, text):
        self.texts.append(text)


def test_layers_come_back_and_pruned_networks_are_cut_further(small_config, small_state):
    layers = (Dense(4), Dense(4), Dense(4), Dense(4))
    config = small_config(streams=two_streams(layers), strategy="free", skip_dead=0.01, live=LiveLayers(4, 2))
    network, told = small_state(small_config()).network.clone(live=LiveLayers(4, 2)), Told()
    skipping = Skipping(config, network)
    for logits, live in (
        ([0, 0, 0, 0], LiveLayers(4, 2)),
        ([0, -9, 0, 9], LiveLayers(3, 3)),
        ([0, -4, 0, 4], LiveLayers(4, 2)),
        ([-9, 9, 9, 9], LiveLayers(1, 2)),
    ):
        skipping.decide({"mix_logits": np.float32(logits)}, 100, told)
        assert skipping.live == skipping.network.live == live
    assert told.texts == [
        "no longer count and are skipped: fusion layer 2 and data layer 4",
        "all layers count again",
        "no longer count and are skipped: data layers 2-4",
    ]
    assert [step for step in range(301) if skipping.due(step)] == [0, 100, 200, 300]


def test_a_run_that_does_not_ask_skips_nothing(small_config, small_state):
    state, told = small_state(small_config()), Told()
    skipping = Skipping(small_config(), state.network)
    skipping.decide({"alpha": np.float32(99), "beta": np.float32(1.5)}, 0, told)
    assert skipping.network is state.network and skipping.live is None and not skipping.due(0) and not told.texts


def test_sweeps_do_not_skip(sharpening):
    with pytest.raises(UserError, match="leave skip_dead away"):
        sweep_members(dataclasses.replace(sharpening, dataset="synthetic_humans"), SweepConfig())
