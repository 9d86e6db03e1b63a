"""Fusion weights, mix, penalty and live layers against pencil, definition and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from fusion_jax import fusion
from fusion_jax.errors import UserError

BAD_ALPHAS = [0.0, 1e-30, -1e-30, 1e-3, -1e-3, -0.1, -50.0, 50.0, 1e6, -1e6, 1e30, -1e30]


def test_weights_golden():
    # sigmoid(2 (l - 1)), l = 1, 2, 3: 1 / (1 + e^0), 1 / (1 + e^-2), 1 / (1 + e^-4)
    np.testing.assert_allclose(
        fusion.fusion_weights(jnp.float32(2), jnp.float32(1), 3), [0.5, 0.880797, 0.982014], rtol=1e-5
    )
    # The start of training at L = 7: alpha 0.1, beta 4; sigmoid of -0.3, -0.2, .., 0.3
    want = [0.425557, 0.450166, 0.475021, 0.5, 0.524979, 0.549834, 0.574443]
    np.testing.assert_allclose(fusion.fusion_weights(0.1, 4.0, 7), want, rtol=1e-5)


def test_weights_of_the_authors_release():
    """Theirs: sigmoid(a^2 (l - beta)); so alpha = a^2, and l = 1 here is the one they call 1."""
    a, beta = 0.7, 4.6
    want = 1 / (1 + np.exp(-(a**2) * (np.arange(8) - beta)))
    np.testing.assert_allclose(fusion.fusion_weights(a**2, beta, 7), want[1:], rtol=1e-5)


def test_weights_take_python_and_integer_numbers():
    want = fusion.fusion_weights(jnp.float32(2), jnp.float32(1), 3)
    np.testing.assert_allclose(fusion.fusion_weights(2, 1, 3), want)
    np.testing.assert_allclose(fusion.fusion_weights(2, 1.0, 3), want)


@given(alpha=st.floats(0.125, 16), beta=st.floats(-2, 10))
def test_weights_rise_with_depth(alpha, beta):
    w = np.asarray(fusion.fusion_weights(jnp.float32(alpha), jnp.float32(beta), 8))
    assert (np.diff(w) >= 0).all() and (w >= 0).all() and (w <= 1).all()
    falling = np.asarray(fusion.fusion_weights(jnp.float32(-alpha), jnp.float32(beta), 8))
    np.testing.assert_allclose(falling, 1 - w, atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.25, 2.5, 3.9])
def test_a_sharp_alpha_is_the_switch(beta):
    for alpha in (1e4, 1e30):
        sharp = fusion.fusion_weights(jnp.float32(alpha), jnp.float32(beta), 4)
        np.testing.assert_array_equal(sharp, fusion.fixed_weights(beta, 4))


def test_fixed_weights_by_hand():
    np.testing.assert_array_equal(fusion.fixed_weights(0, 3), [1, 1, 1])  # early
    np.testing.assert_array_equal(fusion.fixed_weights(1, 3), [0, 1, 1])
    np.testing.assert_array_equal(fusion.fixed_weights(2, 3), [0, 0, 1])
    np.testing.assert_array_equal(fusion.fixed_weights(3, 3), [0, 0, 0])  # late
    assert fusion.fixed_weights(1, 3).dtype == np.float32
    for beta in (-0.1, 3.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"beta .* \[0, 3\]"):
            fusion.fixed_weights(beta, 3)


def test_zero_alpha_mixes_half_and_half():
    np.testing.assert_array_equal(fusion.fusion_weights(0.0, 2.0, 5), 0.5)


def test_free_weights():
    got = fusion.free_weights(jnp.array([0.0, np.log(3.0), -200.0, 200.0]))
    np.testing.assert_allclose(got, [0.5, 0.75, 0, 1], atol=1e-6)


@jax.jit
def weights_and_gradients(alpha, beta):
    w = fusion.fusion_weights(alpha, beta, 4)
    return w, jax.jacrev(fusion.fusion_weights, (0, 1))(alpha, beta, 4)


@pytest.mark.parametrize("beta", [-3.0, 2.0, 2.5, 1e6])
def test_weights_are_finite_everywhere(beta):
    for alpha in BAD_ALPHAS:
        w, gradients = weights_and_gradients(jnp.float32(alpha), jnp.float32(beta))
        assert all(np.isfinite(x).all() for x in (w, *gradients)), alpha
        assert ((w >= 0) & (w <= 1)).all()


@pytest.mark.parametrize("alpha", [0.7, 0.0, 1e-6, -0.4, 30.0])
def test_gradients_of_weights_and_mix(alpha):
    rng = np.random.default_rng(0)

    def mixed(alpha, beta, data, fused):
        return fusion.mix(fusion.fusion_weights(alpha, beta, 3)[1], data, fused)

    with jax.enable_x64(True):
        data, fused = (jnp.asarray(rng.normal(size=(2, 3))) for _ in range(2))
        args = (jnp.float64(alpha), jnp.float64(1.3), data, fused)
        check_grads(jax.jit(mixed), args, order=1, modes=("rev",))
        check_grads(jax.jit(fusion.free_weights), (jnp.array([0.0, -3.0, 2.0]),), order=1, modes=("rev",))


def test_gradient_of_weights_by_hand():
    """dw/dalpha = (l - beta) w (1 - w), dw/dbeta = -alpha w (1 - w)."""
    alpha, beta, l = 0.7, 1.3, np.arange(1, 5)
    w = 1 / (1 + np.exp(-alpha * (l - beta)))
    _, (by_alpha, by_beta) = weights_and_gradients(jnp.float32(alpha), jnp.float32(beta))
    np.testing.assert_allclose(by_alpha, (l - beta) * w * (1 - w), rtol=1e-5)
    np.testing.assert_allclose(by_beta, -alpha * w * (1 - w), rtol=1e-5)


def test_mix_by_hand():
    data, fused = jnp.array([[1.0, 2.0]]), jnp.array([[5.0, -2.0]])
    np.testing.assert_allclose(fusion.mix(0.25, data, fused), [[2.0, 1.0]])
    np.testing.assert_array_equal(fusion.mix(0.0, data, fused), data)
    np.testing.assert_array_equal(fusion.mix(1.0, data, fused), fused)


def test_mix_names_shapes_that_differ():
    with pytest.raises(UserError, match=r"\(1, 2\).*\(1, 1\).*as wide as all data streams"):
        fusion.mix(0.5, jnp.ones((1, 2)), jnp.ones((1, 1)))  # would broadcast


# --- penalty ----------------------------------------------------------------------------------------------------


def test_penalty_is_the_inverse_square():
    for alpha in (0.02, 0.1, 1.0, 7.0):
        np.testing.assert_allclose(fusion.alpha_penalty(jnp.float32(alpha)), alpha**-2, rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 5000.0])
def test_slope_of_the_penalty_is_exact_at_every_sharpness(weight):
    """-2 lambda / alpha^3. A sum with the tangent's slope, 1e10, would round all of it away for a sharp alpha."""
    alpha = np.float32([0.0101, 0.1, 0.3, 1.0, 5.0, 50.0])
    slope = jax.jit(jax.vmap(jax.grad(lambda a: weight * fusion.alpha_penalty(a))))(alpha)
    np.testing.assert_allclose(slope, -2 * weight / alpha.astype(np.float64) ** 3, rtol=1e-5)


def test_penalty_continues_along_its_tangent():
    value, slope = jax.value_and_grad(fusion.alpha_penalty)(jnp.float32(0.01))
    np.testing.assert_allclose([value, slope], [1e4, -2e6], rtol=1e-5)
    np.testing.assert_allclose(fusion.alpha_penalty(jnp.float32(-0.02)), 1e4 + 2e6 * 0.03, rtol=1e-5)
    wide = fusion.alpha_penalty(jnp.float32(0.0), alpha_min=0.5)
    np.testing.assert_allclose(wide, 4 + 16 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("alpha", BAD_ALPHAS)
def test_penalty_is_finite_and_pushes_alpha_up(alpha):
    value, slope = jax.value_and_grad(fusion.alpha_penalty)(jnp.float32(alpha))
    assert np.isfinite(value) and np.isfinite(slope) and value >= 0
    assert slope <= 0  # descent never lowers alpha
    if alpha < 0.01:
        assert slope < -1e6


@pytest.mark.parametrize("alpha", [0.7, 0.02, 0.005, -0.3])
def test_gradient_of_the_penalty(alpha):
    with jax.enable_x64(True):
        check_grads(fusion.alpha_penalty, (jnp.float64(alpha),), order=1, modes=("rev",), eps=1e-7)


# --- live layers ------------------------------------------------------------------------------------------------


def scalar_network(weights, data_gain, fusion_gain):
    """The method's recursion with layers that multiply by a number: M_0 = 1, M_l = (1 - w) I + w Z, Z' = f M."""
    features = mixed = 1.0
    for w, d, f in zip(weights, data_gain, fusion_gain, strict=False):
        features, fused = features * d, mixed * f
        mixed = (1 - w) * features + w * fused
    return mixed * fusion_gain[-1]


@pytest.mark.parametrize("weights", list(itertools.product([0.0, 0.3, 1.0], repeat=4)))
def test_live_layers_by_brute_force(weights):
    num_layers = len(weights)
    data, fused = np.array([1.1, 0.7, 1.3, 0.9]), np.array([0.8, 1.2, 0.6, 1.4, 1.5])
    reference = scalar_network(weights, data, fused)

    def matters(gains, other, swap):
        for l in range(len(gains)):
            poked = gains.copy()
            poked[l] *= 2
            yield scalar_network(weights, *((other, poked) if swap else (poked, other))) != reference

    live_data = [l + 1 for l, live in enumerate(matters(data, fused, False)) if live]
    live_fused = [l + 1 for l, live in enumerate(matters(fused, data, True)) if live]
    live = fusion.live_layers(np.array(weights))
    assert live_data == list(range(1, live.last_data + 1))
    assert live_fused == list(range(live.first_fusion, num_layers + 2))
    assert fusion.live_layers(np.abs(np.array(weights) - 0.01), eps=0.02) == live  # 0.01 counts as 0, 0.99 as 1


def test_live_layers_of_the_strategies():
    # early: no data layer; in the middle; late: only the output layer fuses
    for beta, live in ((0, (0, 1)), (2, (2, 3)), (3, (3, 4))):
        assert fusion.live_layers(fusion.fixed_weights(beta, 3)) == fusion.LiveLayers(*live)
    assert fusion.live_layers(np.array([0.4, 0.5, 0.6])) == fusion.LiveLayers(3, 1)


@pytest.mark.parametrize("eps", [-0.1, 0.5, float("nan")])
def test_eps_outside_its_range(eps):
    with pytest.raises(UserError, match="eps"):
        fusion.live_layers(np.array([0.5]), eps)


def test_unknown_strategy_lists_the_known():
    with pytest.raises(UserError, match="'lerned'.*learned.*fixed, free, heatmap, image, learned"):
        fusion.check_strategy("lerned")
    for name in fusion.STRATEGIES:
        fusion.check_strategy(name)
