"""conv2d by patches and lowered for accelerators, against XLA's own convolution; max_pool against linen.

Large convolutions are in test_winograd.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fusion_jax.conv import conv2d
from fusion_jax.pooling import max_pool

pytestmark = pytest.mark.optimised

# batch, height, width, channels, kernel, features, stride, padding
CASES = [
    (2, 9, 9, 3, 3, 4, 1, "VALID"),
    (1, 11, 8, 2, 5, 3, 2, "VALID"),
    (2, 7, 10, 3, 3, 2, 2, "SAME"),
    (1, 8, 8, 1, 4, 2, 3, "SAME"),
    (2, 5, 6, 4, 1, 3, 1, "SAME"),
    (1, 5, 5, 2, 5, 3, 1, "VALID"),  # as large as the picture
    (1, 6, 6, 2, 1, 2, 2, "VALID"),
]


def native(x, kernel, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(function, x, kernel, cotangent):
    out, pull = jax.vjp(function, x, kernel)
    return out, *pull(cotangent(out))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conv2d_equals_xla(case, dtype):
    batch, height, width, c, k, d, stride, padding = case
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(batch, height, width, c)), rng.normal(size=(k, k, c, d))
    weight = rng.normal(size=(batch, height, width, d))

    def cotangent(out):
        return jnp.asarray(weight[:, : out.shape[1], : out.shape[2]], out.dtype)

    @jax.jit
    def both(x, kernel):
        def ours(x, kernel):
            return conv2d(x, kernel, stride=stride, padding=padding)

        def theirs(x, kernel):
            return native(x, kernel, stride, padding)

        return [value_and_gradients(f, x, kernel, cotangent) for f in (ours, theirs)]

    with jax.enable_x64(dtype == np.float64):
        ours, theirs = both(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))
    for got, want in zip(ours, theirs, strict=True):
        assert got.shape == want.shape and got.dtype == dtype
        # Sums of up to 200 products of about 1: a few float32 roundings apart.
        np.testing.assert_allclose(got, want, atol=5e-5 if dtype == np.float32 else 1e-12)


def test_convolution_by_hand():
    """Cross-correlation: the kernel is not turned round."""
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.array([[1.0, 10], [100, 1000]]).reshape(2, 2, 1, 1)
    want = [[0 + 10 + 300 + 4000, 1 + 20 + 400 + 5000], [3 + 40 + 600 + 7000, 4 + 50 + 700 + 8000]]
    np.testing.assert_array_equal(conv2d(x, kernel)[0, :, :, 0], want)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_get_their_own_convolution(platform):
    loss = jax.grad(lambda x, kernel: conv2d(x, kernel).sum(), (0, 1))
    traced = jax.jit(loss).trace(jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 2)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text and "dot_general" not in text


def test_bfloat16_stays_bfloat16():
    got = conv2d(jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(np.float32), 18)


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (1, 7, 9, 2), (1, 5, 4, 1)])
@pytest.mark.parametrize("window", [2, 3])
def test_max_pool_equals_linen(shape, window):
    x = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    pools = (lambda x: max_pool(x, window), lambda x: nn.max_pool(x, (window, window), (window, window)))
    (got, got_gradient), (want, want_gradient) = (
        jax.jit(jax.value_and_grad(lambda x, p=p: (p(x) ** 2).sum()))(x) for p in pools
    )
    np.testing.assert_array_equal(max_pool(x, window), pools[1](x))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(got_gradient, want_gradient, rtol=1e-6)


@pytest.mark.parametrize("window", [2, 3])
def test_max_pool_passes_nan_on_from_every_place(window):
    for place in range(window**2):
        x = np.ones((1, 2 * window, window, 1), np.float32)
        x[0, place // window, place % window, 0] = np.nan
        np.testing.assert_array_equal(max_pool(jnp.asarray(x), window)[0, :, 0, 0], [np.nan, 1])


def test_of_tied_maxima_the_first_gets_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x, 2).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[1, 0], [0, 0]])
