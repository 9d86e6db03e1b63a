"""Members of a sweep trained together against the same runs alone, on one device and spread over four."""

import dataclasses

import jax
import numpy as np
import pytest

from fusion_jax.batch import fake_batch
from fusion_jax.network import Dense
from fusion_jax.presets import two_streams
from fusion_jax.sharding import data_mesh, jit_train_step, replicated
from fusion_jax.state import create_state
from fusion_jax.sweep_steps import jit_member_step, member_mesh, member_states, padded
from fusion_jax.switched import lone_state, shape_key

pytestmark = pytest.mark.optimised

STEPS = 3
MEAN, STD = np.full((17, 3), 7.0, np.float32), np.full((17, 3), 90.0, np.float32)


def with_strategy(config, strategy, beta=None, seed=0, weight=5000.0):
    network = dataclasses.replace(config.network, strategy=strategy, beta=beta)
    optim = dataclasses.replace(config.optim, alpha_penalty_weight=weight)
    return dataclasses.replace(config, network=network, optim=optim, seed=seed)


def members(configs, devices):
    mesh = member_mesh(len(configs), devices)
    return mesh, *member_states(configs, mesh, MEAN, STD)


def taken(config, states, place):
    return lone_state(config, jax.tree.map(lambda leaf: leaf[place], jax.device_get(states)))


def close(got, want, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, want)


def test_each_member_ends_where_it_would_alone(small_config):
    """Four members on four devices, and each of them by `train_step`, dead layers cut out, on one."""
    base = small_config(streams=two_streams((Dense(6, 0.5), Dense(4))), image_size=4, heatmap_size=4)
    configs = [
        with_strategy(base, "learned", beta=1.0, seed=3, weight=7.0),
        with_strategy(base, "learned", seed=2, weight=0.0),
        with_strategy(base, "free", seed=1),
        with_strategy(base, "fixed", beta=1, seed=1),
    ]
    assert len({shape_key(config) for config in configs}) == 1
    batches = [fake_batch(base, 4, seed) for seed in range(STEPS)]
    mesh, states, lambdas = members(configs, jax.devices())
    assert mesh.size == 4
    begun = [taken(config, states, i) for i, config in enumerate(configs)]
    for batch in batches:
        states, measured = jit_member_step(mesh)(states, lambdas, batch)
    one = data_mesh(jax.devices()[:1])
    for i, (config, start) in enumerate(zip(configs, begun, strict=True)):
        want = jax.device_put(start.replace(alpha_penalty_weight=float(lambdas[i])), replicated(one))
        for batch in batches:
            want, want_measured = jit_train_step(one)(want, batch)
        close(taken(config, states, i).params, want.params, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(measured["mpjpe_sum"][i], want_measured["mpjpe_sum"], rtol=1e-4)
        np.testing.assert_allclose(measured["loss"][i], want_measured["loss"], rtol=1e-4)


def test_members_start_as_they_would_alone(small_config):
    base = small_config(streams=two_streams((Dense(3), Dense(2))), image_size=4, heatmap_size=4)
    configs = [with_strategy(base, "learned"), with_strategy(base, "fixed", beta=1, seed=4)]
    _, states, lambdas = members(configs, jax.devices()[:1])
    np.testing.assert_array_equal(lambdas, [5000, 0])
    got = taken(configs[1], states, 1)
    want = jax.jit(create_state, static_argnums=0)(configs[1], jax.random.key(4), MEAN, STD)
    assert got.network == want.network
    close((got.params, got.constants, got.opt_state), (want.params, want.constants, want.opt_state), rtol=1e-6)
    assert jax.random.key_data(got.rng).tolist() == jax.random.key_data(want.rng).tolist()


def test_shapes_that_differ_are_told_apart(small_config):
    base = small_config()
    image = with_strategy(base, "image")
    sharpened = dataclasses.replace(base, optim=dataclasses.replace(base.optim, alpha_final=9.0))
    assert len({shape_key(c) for c in (base, image, sharpened, with_strategy(base, "heatmap"))}) == 4
    mesh = member_mesh(6, jax.devices())
    assert mesh.size == 4 and member_mesh(3, jax.devices()).size == 3
    assert padded([base] * 5 + [image], mesh) == [base] * 5 + [image] * 3
    assert padded([base] * 4, mesh) == [base] * 4
