"""Large convolutions on a CPU, tile by tile, against XLA's own in float64: values, gradients, pooling in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from fusion_jax import conv, winograd
from fusion_jax.conv import conv2d, conv_pool_relu
from fusion_jax.pooling import max_pool
from fusion_jax.sharding import data_mesh
from fusion_jax.toom_cook import matrices

pytestmark = pytest.mark.optimised


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Every convolution counts as large, and as two pictures at a time."""
    monkeypatch.setattr(conv, "_MAX_PATCH_BYTES", 0)
    monkeypatch.setattr(winograd, "_CHUNK", 300)
    jax.clear_caches()  # what was traced with other settings


@pytest.mark.parametrize("outputs, taps", [(4, 5), (4, 4), (4, 3), (2, 5), (1, 3)])
def test_matrices_give_a_correlation(outputs, taps):
    rng = np.random.default_rng(0)
    found, signal, kernel = matrices(outputs, taps), rng.normal(size=outputs + taps - 1), rng.normal(size=taps)
    got = found.out @ ((found.taps @ kernel) * (found.data @ signal))
    np.testing.assert_allclose(got, np.correlate(signal, kernel, "valid"), rtol=1e-12, atol=1e-12)


def test_more_points_than_float32_bears_are_refused():
    with pytest.raises(ValueError, match="m \\+ r - 1 within"):
        matrices(6, 5)


# batch, height, width, channels, kernel, features, stride, padding
CASES = [
    (4, 13, 14, 3, 5, 4, 1, "VALID"),  # pictures in two turns; the last tiles hang over
    (2, 15, 12, 2, 9, 3, 1, "VALID"),  # a kernel of two blocks
    (3, 9, 9, 2, 3, 2, 1, "SAME"),
    (1, 17, 16, 3, 7, 2, 2, "VALID"),  # as the hourglass begins
    (1, 11, 11, 2, 4, 3, 3, "SAME"),
]


def native(x, kernel, stride=1, padding="VALID"):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def drawn(case):
    batch, height, width, c, k, d, *_ = case
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, height, width, c)), rng.normal(size=(k, k, c, d))


def both_ways(function, *args):
    """Value, and the gradients of a weighted sum of it toward every argument."""
    out, pull = jax.vjp(function, *args)
    return out, *pull(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))


def assert_close(got, want):
    """Within a few roundings of float32, seen from the spread of what is computed."""
    got, want = np.asarray(got, np.float64), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=5e-5 * want.std(), rtol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_xla_in_float64(case):
    x, kernel = drawn(case)
    sizes = {"stride": case[-2], "padding": case[-1]}
    text = jax.jit(lambda x, k: conv2d(x, k, **sizes)).lower(np.float32(x), np.float32(kernel)).as_text()
    assert "stablehlo.convolution" not in text and "while" in text
    got = jax.jit(lambda *a: both_ways(lambda x, k: conv2d(x, k, **sizes), *a))(np.float32(x), np.float32(kernel))
    with jax.enable_x64(True):
        want = jax.jit(lambda *a: both_ways(lambda x, k: native(x, k, *case[-2:]), *a))(x, kernel)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == np.float32
        assert_close(ours, theirs)


def plain(x, kernel, bias, pool):
    return jax.nn.relu(max_pool(native(x, kernel) + bias, pool))


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("pool", [1, 2])
def test_a_layer_in_one_pass_equals_its_parts(monkeypatch, pool, accelerator):
    """The accelerators' way runs on a CPU as well, when it is told to."""
    if accelerator:
        monkeypatch.setattr(lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    x, kernel = (np.float32(v) for v in drawn((2, 13, 11, 2, 5, 3)))  # 9 x 7 outputs: pooling drops the last
    bias = np.float32([-5, -9, 0])
    got = jax.jit(lambda *a: both_ways(lambda *a: conv_pool_relu(*a, pool=pool), *a))(x, kernel, bias)
    want = jax.jit(lambda *a: both_ways(lambda *a: plain(*a, pool), *a))(x, kernel, bias)
    assert 0.2 < np.mean(np.asarray(want[0]) > 0) < 0.95  # both sides of ReLU
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs)


def test_a_window_that_does_not_divide_the_tile_goes_the_plain_way():
    x, kernel = (np.float32(v) for v in drawn((1, 10, 10, 2, 3, 2)))
    bias = np.float32([0.5, -1])
    assert_close(conv_pool_relu(x, kernel, bias, pool=3), plain(x, kernel, bias, 3))


def test_the_gradient_toward_pictures_is_left_out_where_nobody_asks():
    x, kernel = (np.float32(v) for v in drawn((2, 8, 8, 2, 3, 2)))
    bias = np.zeros(2, np.float32)

    def loss(x, kernel):
        return conv_pool_relu(x, kernel, bias).sum() + (conv2d(x, kernel) ** 2).sum()

    def products(argnums):
        return jax.jit(jax.grad(loss, argnums)).lower(x, kernel).as_text().count("stablehlo.dot_general")

    assert products(1) < products((0, 1))
    assert_close(jax.jit(jax.grad(loss, 1))(x, kernel), jax.jit(jax.grad(loss, (0, 1)))(x, kernel)[1])


def test_nan_is_passed_on():
    x, kernel = (np.float32(v) for v in drawn((1, 8, 8, 1, 3, 1)))
    x[0, 2, 2] = np.nan
    found = np.asarray(conv_pool_relu(x, kernel, np.zeros(1, np.float32)))[0, :, :, 0]
    want = np.asarray(plain(x, kernel, np.zeros(1, np.float32), 2))[0, :, :, 0]
    assert np.isnan(found[np.isnan(want)]).all() and np.isnan(want).any()


def test_members_side_by_side_equal_each_alone():
    """vmap over kernels, as a sweep of networks does."""
    x, kernel = (np.float32(v) for v in drawn((2, 8, 8, 2, 3, 2)))
    kernels, bias = np.stack([kernel, 2 * kernel]), np.zeros(2, np.float32)
    gradient = jax.grad(lambda kernel: conv_pool_relu(x, kernel, bias).sum())
    for got, one in zip(jax.jit(jax.vmap(gradient))(kernels), kernels, strict=True):
        assert_close(got, jax.jit(gradient)(one))


def test_bfloat16_is_computed_in_float32_and_stays_bfloat16():
    x, kernel = jnp.ones((1, 8, 8, 2), jnp.bfloat16), jnp.full((5, 5, 2, 2), 1.0, jnp.bfloat16)
    got, pull = jax.vjp(conv2d, x, kernel)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(np.float32), 50)
    dx, dkernel = pull(jnp.ones_like(got))
    assert (dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(dkernel.astype(np.float32), 16)


def test_what_tiles_cannot_do_goes_another_way():
    """No pictures, any number of them, whole numbers: as XLA's own."""
    kernel = np.ones((3, 3, 2, 2), np.float32)
    assert conv_pool_relu(np.zeros((0, 8, 8, 2), np.float32), kernel, np.zeros(2, np.float32)).shape == (0, 3, 3, 2)
    (batch,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((batch, 8, 8, 2), kernel.shape)]
    exported = jax.export.export(jax.jit(conv2d))(*shapes)
    np.testing.assert_allclose(exported.call(np.ones((2, 8, 8, 2), np.float32), kernel), 18)
    counts = np.arange(128).reshape(1, 8, 8, 2)
    np.testing.assert_array_equal(conv2d(counts, kernel.astype(int)), native(counts, kernel.astype(int)))


def test_each_device_takes_its_own_turns():
    """Within shard_map, gradients of shared weights are summed over the devices."""
    x, kernel = (np.float32(v) for v in drawn((4, 8, 8, 2, 3, 2)))
    bias, mesh = np.zeros(2, np.float32), data_mesh(jax.devices()[:2])

    def gradient(x, kernel):
        return jax.grad(lambda kernel: conv_pool_relu(x, kernel, bias).sum() + (conv2d(x, kernel) ** 2).sum())(kernel)

    split = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P("data"), P()), out_specs=P()))
    assert_close(split(x, kernel), jax.jit(gradient)(x, kernel))
