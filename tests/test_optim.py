"""Adam in two groups against Adam written in NumPy; the schedule by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fusion_jax.config import OptimConfig
from fusion_jax.optim import learning_rate_schedule, led_to, make_optimizer

FLAT = {"schedule": "constant", "warmup_steps": 0}
PARAMS = {
    "image_1": {"kernel": np.array([1.0, -2.0, 0.5]), "bias": np.array([0.1])},
    "fusion_2": {"dense": {"kernel": np.array([0.3, 0.4])}},
    "alpha": np.array(0.1),
    "beta": np.array(3.0),
}


def gradients(step):
    """The weights' norm lies below 1 and then above; the fusion group's far above, then far below."""
    scale, huge = (0.2, 1e7) if step % 2 == 0 else (30.0, 0.01)
    return {
        "image_1": {"kernel": scale * np.array([0.3, -0.1, 0.2]), "bias": scale * np.array([0.5])},
        "fusion_2": {"dense": {"kernel": scale * np.array([-0.4, 0.6])}},
        "alpha": np.array(-huge),
        "beta": np.array(huge / 2),
    }


def numpy_adam(leaves, grads_by_step, learning_rate, clip_norm):
    """Kingma and Ba's Adam over a list of arrays whose gradients are clipped by their common norm."""
    leaves = [np.array(leaf, np.float64) for leaf in leaves]
    first, second = [np.zeros_like(x) for x in leaves], [np.zeros_like(x) for x in leaves]
    for t, grads in enumerate(grads_by_step, start=1):
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        grads = [g * min(1, clip_norm / norm) for g in grads] if clip_norm else grads
        first = [0.9 * m + 0.1 * g for m, g in zip(first, grads, strict=True)]
        second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, grads, strict=True)]
        leaves = [
            x - learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            for x, m, v in zip(leaves, first, second, strict=True)
        ]
    return leaves


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_groups_have_their_own_rate_and_clipping(clip_norm):
    config = OptimConfig(learning_rate=0.01, fusion_learning_rate=0.5, clip_norm=clip_norm, **FLAT)
    tx = make_optimizer(config, steps=100)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(4):
        updates, state = update(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradients(step)), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for names, rate in ((("image_1", "fusion_2"), 0.01), (("alpha", "beta"), 0.5)):

        def part(tree, names=names):
            return jax.tree.leaves({name: tree[name] for name in names})

        want = numpy_adam(part(PARAMS), [part(gradients(step)) for step in range(4)], rate, clip_norm)
        for got, expected in zip(part(params), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_free_logits_belong_to_the_fusion_group():
    config = OptimConfig(learning_rate=0.01, fusion_learning_rate=0.5, **FLAT)
    tx = make_optimizer(config, 10)
    params = {"mix_logits": jnp.zeros(3), "image_1": {"kernel": jnp.zeros(2)}}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["mix_logits"], -0.5, rtol=1e-4)
    np.testing.assert_allclose(updates["image_1"]["kernel"], -0.01, rtol=1e-4)


def test_networks_without_fusion_parameters_train_too():
    tx = make_optimizer(OptimConfig(clip_norm=1.0, **FLAT), 10)
    params = {"image_1": {"kernel": jnp.zeros(2)}}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["image_1"]["kernel"], -1e-3, rtol=1e-3)


def test_alpha_is_trained_then_led_to_its_final_value():
    """Half of 10 steps of Adam, then equal factors up to 8; beta and the weights never notice."""
    free, led = (
        make_optimizer(OptimConfig(fusion_learning_rate=0.5, alpha_final=final, **FLAT), 10) for final in (None, 8.0)
    )
    params = {"alpha": jnp.float32(0.1), "beta": jnp.float32(2.0), "image_1": {"kernel": jnp.ones(2)}}
    paths = []
    for tx in (free, led):
        now, state, path = params, tx.init(params), []
        for step in range(12):
            gradient = jax.tree.map(lambda x, step=step: jnp.full_like(x, np.cos(step) - 2), now)
            updates, state = tx.update(gradient, state, now)
            now = jax.tree.map(jnp.add, now, updates)
            path.append(now)
        paths.append(path)
    for step, (a, b) in enumerate(zip(*paths, strict=True)):
        same = [name for name in a if name != "alpha" or step < 5]
        jax.tree.map(np.testing.assert_array_equal, {n: a[n] for n in same}, {n: b[n] for n in same})
    alphas = np.array([float(b["alpha"]) for b in paths[1]])
    np.testing.assert_allclose(alphas[5:10] / alphas[4:9], (8 / alphas[4]) ** (1 / 5), rtol=1e-5)
    np.testing.assert_allclose(alphas[9:], 8, rtol=1e-5)  # and it stays there


def test_alpha_of_the_wrong_sign_is_led_back():
    tx = led_to(optax.sgd(0.0), 4.0, 0, 3)
    alpha, state = jnp.float32(-1.0), tx.init(jnp.float32(-1.0))
    for _ in range(3):
        update, state = tx.update(jnp.float32(0.0), state, alpha)
        alpha = alpha + update
    np.testing.assert_allclose(alpha, 4, rtol=1e-5)


def test_schedule_by_hand():
    """Warm-up over 4 steps from a quarter; then 20 steps of cosine, half way at (1 + 0.01) / 2, 1% at the end."""
    rate = learning_rate_schedule(OptimConfig(schedule="cosine", warmup_steps=4), 2.0, 24)
    by_hand = {0: 0.5, 2: 1.25, 4: 2.0, 9: 2 * (0.01 + 0.99 * (1 + np.cos(np.pi / 4)) / 2), 14: 1.01, 24: 0.02}
    for step, want in by_hand.items():
        np.testing.assert_allclose(rate(step), want, rtol=1e-5, err_msg=str(step))
    np.testing.assert_allclose(rate(1000), 0.02, rtol=1e-5)
    assert (np.diff([rate(step) for step in range(5)]) > 0).all()


def test_constant_schedule_and_short_runs():
    rate = learning_rate_schedule(OptimConfig(schedule="constant", warmup_steps=2), 1.0, 100)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 2, 3, 99, 1000)], [0.5, 0.75, 1, 1, 1, 1])
    short = learning_rate_schedule(OptimConfig(schedule="cosine", warmup_steps=100), 1.0, 6)
    np.testing.assert_allclose([short(0), short(3), short(6)], [1 / 3, 1.0, 0.01], rtol=1e-5)
    np.testing.assert_allclose(learning_rate_schedule(OptimConfig(warmup_steps=100), 1.0, 1)(0), 1.0)
