"""The step on a mesh of four pretend devices equals the step on one."""

import functools

import jax
import numpy as np
import pytest

from fusion_jax.batch import fake_batch
from fusion_jax.errors import UserError
from fusion_jax.network import Dense, Stream
from fusion_jax.sharding import batch_sharding, data_mesh, global_batch, jit_eval_step, jit_train_step, replicated
from fusion_jax.state import create_state
from fusion_jax.steps import eval_step, train_step

pytestmark = pytest.mark.optimised


def test_four_devices():
    assert len(jax.devices()) == 4  # or every test below would pass on one
    mesh = data_mesh()
    assert mesh.shape == {"data": 4}
    assert data_mesh(jax.devices()[:2]).shape == {"data": 2}


def test_sharded_training_equals_one_device(small_config, small_state):
    """Three steps, the second of them skipped as not finite.

    Devices add up their own examples first, so float32 sums differ in their last bits; Adam's first steps then
    differ where a gradient is almost 0 and its sign is decided by rounding. Metrics agree to 1e-4, and all but a few
    parameters to 1e-5.
    """
    config = small_config()
    batches = [fake_batch(config, 8, seed) for seed in range(3)]
    batches[1]["pose_mm"][6, 0, 0] = np.nan  # on the last device alone
    mesh, plain = data_mesh(), jax.jit(train_step)
    one, many = small_state(config), small_state(config)
    for step, batch in enumerate(batches):
        one, want = plain(one, batch)
        many, got = jit_train_step(mesh)(many, global_batch(batch, mesh))
        assert got["finite"] == want["finite"] == (step != 1)
        norms, want_norms = got.pop("layer_grad_norms"), want.pop("layer_grad_norms")
        for name in norms:  # a part's gradient may be all rounding beside the whole one
            np.testing.assert_allclose(norms[name], want_norms[name], rtol=1e-3, atol=1e-4 * want["grad_norm"])
        for name in got:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-4, err_msg=f"{name} of step {step}")
    assert many.step == 3
    pairs = list(zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True))
    far = [np.abs(np.asarray(a) - np.asarray(b)) > 1e-5 for a, b in pairs]
    assert sum(f.sum() for f in far) <= 0.005 * sum(f.size for f in far)
    assert all(a.sharding.is_fully_replicated for a, _ in pairs)


def test_sharded_evaluation_equals_one_device(small_config, small_state):
    config = small_config()
    state, batch, mesh = small_state(config), fake_batch(config, 8), data_mesh()
    batch["valid"][5, 2] = False
    got, want = jit_eval_step(mesh)(state, global_batch(batch, mesh)), jax.jit(eval_step)(state, batch)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].sharding.is_fully_replicated
        np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=1e-2, err_msg=name)  # mm, through an SVD


def test_state_is_donated_and_traced_once(small_config):
    traces = []

    def counted(state, batch):
        traces.append(1)
        return train_step(state, batch)

    mesh = data_mesh()
    layers = (Dense(4),)
    config = small_config(streams=(Stream("image", layers), Stream("heatmap", layers)))
    create = jax.jit(functools.partial(create_state, config), out_shardings=replicated(mesh))
    first = state = create(jax.random.key(0))
    for seed in range(3):
        state, _ = jit_train_step(mesh, counted)(state, global_batch(fake_batch(config, 8, seed), mesh))
    assert len(traces) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))


def test_batches_are_split_in_order(small_config):
    mesh, batch = data_mesh(), fake_batch(small_config(), 8)
    split = global_batch(batch, mesh)
    for name, value in split.items():
        assert value.sharding.is_equivalent_to(batch_sharding(mesh), value.ndim)
        np.testing.assert_array_equal(value, batch[name])
        shards = sorted(value.addressable_shards, key=lambda shard: shard.device.id)
        assert [shard.data.shape[0] for shard in shards] == [2, 2, 2, 2]
        np.testing.assert_array_equal(shards[3].data, batch[name][6:])


@pytest.mark.parametrize("size", [1, 6])
def test_batches_that_do_not_divide(small_config, size):
    with pytest.raises(UserError, match=f"batch of {size} does not divide over 4 devices.*multiple of 4"):
        global_batch(fake_batch(small_config(), size), data_mesh())
