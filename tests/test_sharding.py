"""The step on a mesh of four pretend devices equals the step on one, whole or split over them, and under pmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusion_jax import sharding
from fusion_jax.batch import fake_batch
from fusion_jax.errors import UserError
from fusion_jax.network import Dense, Stream
from fusion_jax.presets import preset
from fusion_jax.sharding import (
    batch_sharding,
    data_mesh,
    global_batch,
    jit_eval_step,
    jit_train_step,
    pmap_train_step,
    replicated,
    state_shardings,
)
from fusion_jax.state import create_state
from fusion_jax.steps import eval_step, train_step

pytestmark = pytest.mark.optimised


def test_four_devices():
    assert len(jax.devices()) == 4  # or every test below would pass on one
    mesh = data_mesh()
    assert mesh.shape == {"data": 4}
    assert data_mesh(jax.devices()[:2]).shape == {"data": 2}


def split_leaves(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if not leaf.sharding.is_fully_replicated]


@pytest.mark.parametrize("shard_params", [False, True])
def test_sharded_training_equals_one_device(small_config, small_state, monkeypatch, shard_params):
    """Three steps, the second of them skipped as not finite.

    Devices add up their own examples first, so float32 sums differ in their last bits; Adam's first steps then
    differ where a gradient is almost 0 and its sign is decided by rounding. Metrics agree to 1e-4, and all but a few
    parameters to 1e-5.
    """
    monkeypatch.setattr(sharding, "SPLIT_FROM", 64)
    config = small_config()
    batches = [fake_batch(config, 8, seed) for seed in range(3)]
    batches[1]["pose_mm"][6, 0, 0] = np.nan  # on the last device alone
    mesh, plain = data_mesh(), jax.jit(train_step)
    one, many = small_state(config), small_state(config)
    many = jax.device_put(many, state_shardings(mesh, many, shard_params))
    places = [leaf.sharding for leaf in jax.tree.leaves(many)]
    for step, batch in enumerate(batches):
        one, want = plain(one, batch)
        many, got = jit_train_step(mesh, shard_params=shard_params)(many, global_batch(batch, mesh))
        assert got["finite"] == want["finite"] == (step != 1)
        norms, want_norms = got.pop("layer_grad_norms"), want.pop("layer_grad_norms")
        for name in norms:  # a part's gradient may be all rounding beside the whole one
            np.testing.assert_allclose(norms[name], want_norms[name], rtol=1e-3, atol=1e-4 * want["grad_norm"])
        for name in got:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-4, err_msg=f"{name} of step {step}")
    assert many.step == 3
    assert_close(many.params, one.params)
    assert all(a.sharding.is_equivalent_to(b, a.ndim) for a, b in zip(jax.tree.leaves(many), places, strict=True))
    assert len(split_leaves(many.opt_state)) == 2 * len(split_leaves(many.params)) >= 8 * shard_params
    batch = fake_batch(config, 8)
    got, want = jit_eval_step(mesh)(many, global_batch(batch, mesh)), jax.jit(eval_step)(one, batch)
    np.testing.assert_allclose(got["pred_mm"], want["pred_mm"], rtol=1e-3, atol=0.1)  # mm
    assert (shard_params and split_leaves(many.params)) or not split_leaves(many)


def assert_close(params, others):
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True))
    far = [np.abs(np.asarray(a) - np.asarray(b)) > 1e-5 for a, b in pairs]
    assert sum(f.sum() for f in far) <= 0.005 * sum(f.size for f in far)


def test_large_leaves_are_split_along_their_longest_axis_that_divides():
    mesh = data_mesh()
    shapes = {"longest": (512, 1024), "divides": (4096, 1023), "square": (512, 512), "none": (511, 1023), "few": (8, 8)}
    leaves = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    got = {name: tuple(place.spec) for name, place in state_shardings(mesh, leaves, True).items()}
    assert got == {"longest": (None, "data"), "divides": ("data",), "square": (None, "data"), "none": (), "few": ()}
    assert not any(place.spec for place in state_shardings(mesh, leaves, False).values())


def test_split_a_device_holds_a_quarter_of_the_papers_network_and_moments():
    """1475 MB of parameters and Adam's two moments, float32; by their shapes alone."""
    mesh, shapes = data_mesh(), shapes_of(preset("paper"))
    shapes = (shapes.params, shapes.opt_state)
    places = [jax.tree.leaves(state_shardings(mesh, shapes, shard_params)) for shard_params in (False, True)]
    whole, split = (
        sum(
            4 * np.prod(place.shard_shape(leaf.shape))
            for leaf, place in zip(jax.tree.leaves(shapes), each, strict=True)
        )
        for each in places
    )
    assert 1.4e9 < whole < 1.5e9 and split < 0.26 * whole


def test_under_pmap_the_step_equals_the_jitted_one(small_config, small_state):
    """Though the devices know different numbers of joints; a step that is not finite on one is skipped on all."""
    config, mesh = small_config(), data_mesh()
    state = small_state(config)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), state)
    step = jax.pmap(pmap_train_step("devices"), axis_name="devices")
    for seed in range(3):
        batch = fake_batch(config, 8, seed)
        batch["valid"][:3, 4:] = False  # on the first device none of these, on the second one half
        if seed == 1:
            batch["pose_mm"][6, 0, 0] = np.nan
        states, got = step(states, {name: x.reshape(4, 2, *x.shape[1:]) for name, x in batch.items()})
        state, want = jit_train_step(mesh)(state, global_batch(batch, mesh))
        assert got.keys() == want.keys()
        for name in want.keys() - {"layer_grad_norms"}:
            for device in range(4):
                np.testing.assert_allclose(got[name][device], want[name], rtol=1e-4, err_msg=f"{name} of {seed}")
    for device in range(4):
        assert_close(jax.tree.map(lambda leaf, device=device: leaf[device], states.params), state.params)


def shapes_of(config):
    return jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))


@pytest.mark.parametrize("shard_params", [False, True])
@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_the_whole_step_lowers_for_tpus_on_four_devices(name, shard_params):
    config, mesh = preset(name), data_mesh()
    shapes, batch = shapes_of(config), fake_batch(config, 8)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        state_shardings(mesh, shapes, shard_params),
    )
    given = {
        key: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=batch_sharding(mesh))
        for key, value in batch.items()
    }
    traced = jit_train_step(mesh, shard_params=shard_params).trace(state, given)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "mhlo.num_partitions = 4" in text and text.count("stablehlo.convolution") >= 20
    large = sum(not place.is_fully_replicated for place in jax.tree.leaves(state_shardings(mesh, state, shard_params)))
    assert (large > 0) == shard_params and text.count("sdy.sharding_constraint") >= large


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
