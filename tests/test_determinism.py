"""What docs/reliability.md promises of equal results: same keys, same bits; and how far apart device counts may be."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import small
import small_hourglass
from jax.errors import KeyReuseError
from jax.experimental.key_reuse._core import (
    check_key_reuse,
)  # what jax.debug_key_reuse runs, without running the program

from data_pipelines.synthetic_humans.live import open_live
from fusion_jax.batch import fake_batch
from fusion_jax.config import HeatmapConfig, HeatmapNet
from fusion_jax.dry_run import batch_shapes
from fusion_jax.heatmap_steps import heatmap_eval_step, heatmap_train_step
from fusion_jax.network import Dense
from fusion_jax.presets import two_streams
from fusion_jax.sharding import data_mesh, global_batch, jit_eval_step, jit_train_step, map_split, replicated
from fusion_jax.state import create_state, state_shapes
from fusion_jax.steps import eval_step
from fusion_jax.sweep_steps import _lone, _switched, jit_member_step, member_mesh
from fusion_jax.switched import switch, switched_state

pytestmark = pytest.mark.optimised

ROOT = pathlib.Path(__file__).parent.parent
SCALE = (np.zeros((17, 3), np.float32), np.ones((17, 3), np.float32))


@pytest.fixture
def drops(small_config):
    """Config of small networks with dropout; keywords as of small_config."""
    layers = (Dense(16, 0.5), Dense(8, 0.5))
    return functools.partial(small_config, streams=two_streams(layers))


def in_step(config, mode):
    inputs = dataclasses.replace(small_hourglass.INPUTS, heatmap_size=4)
    net = HeatmapNet("nowhere", "", small_hourglass.config(stacks=1).hourglass, inputs)
    fed = dataclasses.replace(config.inputs, heatmap_size=4)
    return dataclasses.replace(config, inputs=fed, heatmaps=HeatmapConfig("predicted", mode, net=net))


class TestKeysAreUsedOnce:
    """A key that is drawn from twice gives numbers that go together. Programs are traced, none is compiled."""

    def test_the_check_sees_a_key_used_twice(self):
        """Also within a jitted step that is split over devices and mapped."""

        def twice(key):
            return jax.random.normal(key) + jax.random.uniform(key)

        spread = map_split(jax.vmap(twice), data_mesh())
        for function in (jax.vmap(twice), spread):
            with pytest.raises(KeyReuseError):
                check_key_reuse(function, jax.random.split(jax.random.key(0), 4))

    @pytest.mark.parametrize("kind", ["learned", "free", "image", "noisy", "frozen", "finetune"])
    def test_states_steps_and_evaluation(self, drops, kind):
        config = drops(strategy=kind if kind in ("free", "image") else "learned")
        if kind == "noisy":
            config = dataclasses.replace(config, heatmaps=HeatmapConfig("noisy"))
        if kind in ("frozen", "finetune"):
            config = in_step(config, kind)
        state, batch = state_shapes(config), batch_shapes(config)
        check_key_reuse(functools.partial(create_state, config), jax.random.key(0), *SCALE)
        check_key_reuse(jit_train_step(data_mesh()), state, batch)
        index = {"index": jax.ShapeDtypeStruct((config.batch_size,), np.int32)}
        check_key_reuse(jit_eval_step(data_mesh(), eval_step), state, batch | index)

    def test_the_2d_network(self):
        config = small_hourglass.config(stacks=1)
        check_key_reuse(functools.partial(create_state, config), jax.random.key(0))
        state, batch = state_shapes(config), batch_shapes(config)
        check_key_reuse(heatmap_train_step, state, batch)
        check_key_reuse(heatmap_eval_step, state, batch)

    def test_the_members_of_a_sweep(self, drops):
        """States that are drawn for all of them at once, and the step of all."""
        config, mesh = drops(), member_mesh(4)
        switches = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * 4), switch(config))
        check_key_reuse(functools.partial(_switched, config), switches, *SCALE)
        keys = jax.random.split(jax.random.key(0), 4)
        check_key_reuse(functools.partial(_lone, drops(strategy="image")), keys, *SCALE)
        one = jax.eval_shape(functools.partial(switched_state, config), switch(config))
        states = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), one)
        check_key_reuse(jit_member_step(mesh), states, np.zeros(4, np.float32), batch_shapes(config))

    def test_live_pictures(self):
        """With the maps of body parts, of which the pictures alone are a part."""
        live = open_live(16, 0)
        scene = live.split("train").batch(np.arange(4), np.random.default_rng(0))["scene"]
        check_key_reuse(map_split(live.render_with_parts, data_mesh()), scene)


@pytest.fixture
def losses(drops, small_state):
    """(losses, parameters) of six steps on so many devices, from the same weights, with keys of a seed."""
    noisy = HeatmapConfig("noisy")
    config = dataclasses.replace(drops(strategy="heatmap", learning_rate=0.01), heatmaps=noisy)

    def run(devices, seed=0, steps=6):
        mesh, found = data_mesh(jax.devices()[:devices]), []
        state = jax.device_put(small_state(config).replace(rng=jax.random.key(seed)), replicated(mesh))
        for number in range(steps):
            batch = fake_batch(config, 8, number)
            batch["pose_mm"] /= 300  # as large as what the network says, so that this counts
            state, measured = jit_train_step(mesh)(state, global_batch(batch, mesh))
            found.append(jax.device_get(measured["loss"]))
        return np.array(found), jax.device_get(state.params)

    return run


def test_device_counts_agree_to_rounding_with_dropout_and_noise_on(losses):
    """On 1, 2 and 4 devices dropout masks and heatmap noise are the same; sums are added up in another order."""
    one, first = losses(1)
    again, same = losses(1)
    np.testing.assert_array_equal(again, one)
    jax.tree.map(np.testing.assert_array_equal, same, first)
    assert np.abs(losses(1, seed=1)[0] / one - 1).max() > 0.01, "other draws would be seen"
    for count in (2, 4):
        many, params = losses(count)
        np.testing.assert_allclose(many, one, rtol=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), params, first)
        jax.tree.map(np.testing.assert_array_equal, losses(count)[1], params)


@pytest.mark.slow
def test_new_processes_that_compile_anew_end_with_the_same_bits_with_any_workers(tmp_path):
    """Dropout and augmentation on. Slow because interpreters start, workers among them, and each compiles all."""
    script = tmp_path / "trains.py"
    script.write_text(
        "import hashlib, pathlib, sys\n"
        "if __name__ == '__main__':\n"  # Grain's workers import this file
        "    sys.path[:0] = sys.argv[1:3]\n"
        "    import jax, numpy as np, small\n"
        "    from fusion_jax.checkpoint import weights_digest\n"
        "    from fusion_jax.evaluate import evaluate_run\n"
        "    from fusion_jax.train import LoopOptions, train\n"
        "    run, workers = pathlib.Path(sys.argv[4]), int(sys.argv[5])\n"
        "    options = LoopOptions(show=False, eval_every=0, workers=workers)\n"
        "    config = small.config()\n"
        "    assert config.augment.flip_probability > 0 and config.fusion.streams[0].layers[1].dropout\n"
        "    state = train(config, pathlib.Path(sys.argv[3]), run, options)\n"
        "    moments = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.opt_state)]\n"
        "    scores = evaluate_run(run)\n"
        "    print(weights_digest(state), hashlib.sha256(b''.join(moments)).hexdigest(), scores['mpjpe_mm'])\n"
    )
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    found = []
    for number, workers in enumerate((0, 0, 2)):
        args = [script, ROOT, ROOT / "tests", small.data_dir(), tmp_path / str(number), workers]
        ended = subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, cwd=ROOT, env=env)
        assert ended.returncode == 0, ended.stderr
        found.append(ended.stdout.splitlines()[-1])
    assert len(found[0].split()) == 3 and found == found[:1] * 3
