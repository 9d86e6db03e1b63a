"""The stacked hourglass: its shapes, size, batch norm, gradient, and that a mesh changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
import small_hourglass as small
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.batch import fake_batch
from fusion_jax.config import InputConfig
from fusion_jax.errors import UserError
from fusion_jax.heatmap_steps import heatmap_train_step
from fusion_jax.heatmaps import gaussian_heatmaps
from fusion_jax.hourglass import Hourglass, check_size, mirrored, upsample
from fusion_jax.pooling import max_pool
from fusion_jax.presets import preset
from fusion_jax.sharding import data_mesh, global_batch, jit_train_step
from fusion_jax.state import make_hourglass

pytestmark = pytest.mark.optimised

MPII = small.MPII


@functools.cache
def applied(dtype="float32"):
    """A network of one stack, jitted: heatmaps of pictures, with other running statistics if they are given."""
    state = small.state(small.config(stacks=1, compute_dtype=dtype))
    network = small.quick_jit(
        lambda image, constants: state.network.apply({"params": state.params, **constants}, image)
    )
    return lambda image, constants=state.constants: np.asarray(network(image, constants))


def pictures(count, size=16):
    return np.random.default_rng(1).uniform(size=(count, size, size, 3)).astype(np.float32)


@functools.cache
def one_step():
    state, batch = small.state(small.config()), fake_batch(small.config(), 8)
    return state, batch, *small.STEP(state, batch)


# --- shapes and size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stacks", [1, 2, 8])
def test_heatmaps_of_every_stack_at_a_quarter_of_the_size(stacks):
    network = Hourglass(stacks, features=8, depth=2, num_joints=5)
    image = jax.ShapeDtypeStruct((3, 32, 48, 3), jnp.float32)
    got, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
    assert got.shape == (stacks, 3, 8, 12, 5) and got.dtype == jnp.float32
    merges = [name for name in variables["params"] if name.startswith("merge_")]
    assert len(merges) == 2 * (stacks - 1), "nothing goes on after the last stack"


# By hand, with two numbers for each channel of a batch norm:
#   residual of 256: 512 + (256 * 128 + 128) + 256 + (9 * 128 * 128 + 128) + 256 + (128 * 256 + 256) = 214_528
#   hourglass: 3 residuals at each of 4 sizes and one below: 13 * 214_528                            = 2_788_864
#   after it: a residual, 256 * 256 + 256, 512 of batch norm, 256 * 16 + 16                          =   284_944
#   back into the stream, all but the last: 256 * 256 + 256 + 16 * 256 + 256                         =    70_144
#   stem: 9_600 (7 x 7) + 58_112 (64 to 128) + 54_016 (128) + 230_912 (128 to 256)                   =   352_640
# The published files also store a skip layer for residuals that keep their width, which nothing reads.
@pytest.mark.parametrize(
    ("name", "count"),
    [("hourglass-2", 352_640 + 2 * 3_073_808 + 70_144), ("hourglass-8", 352_640 + 8 * 3_073_808 + 7 * 70_144)],
)
def test_parameters_of_the_published_networks(name, count):
    config = preset(name)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(make_hourglass(config.hourglass, config.inputs).init, jax.random.key(0), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert count == {"hourglass-2": 6_570_400, "hourglass-8": 25_434_112}[name]
    statistics = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    assert variables.keys() == {"params", "batch_stats"}
    assert {path[-1].key for path, _ in statistics} == {"mean", "var"}


@pytest.mark.parametrize(
    ("size", "depth", "ok"),
    [((8, 8), 1, True), ((64, 128), 4, True), ((12, 16), 1, False), ((16, 20), 2, False), ((0, 8), 1, False)],
)
def test_sizes_that_cannot_be_halved_are_refused(size, depth, ok):
    if ok:
        return check_size(size, depth)
    expected = f"depth {depth} needs pictures whose sides are multiples of {4 * 2**depth} px, got {size[0]} x {size[1]}"
    with pytest.raises(UserError, match=expected):
        check_size(size, depth)
    if all(size):
        image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        with pytest.raises(UserError, match=expected):
            jax.eval_shape(Hourglass(1, 8, depth).init, jax.random.key(0), image)


def test_a_run_of_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match="multiples of 8 px, got 20 x 20"):
        small.config().__class__("x", small.config().network, InputConfig(20, "mpii16", heatmap_size=5))
    with pytest.raises(UserError, match="heatmap_size is 8, expected 4, a quarter of the input"):
        small.config().__class__("x", small.config().network, InputConfig(16, "mpii16", heatmap_size=8))


# --- batch norm -----------------------------------------------------------------------------------------------------


def test_a_picture_alone_gives_what_it_gives_in_a_batch():
    image, network = pictures(8), applied()
    together = network(image)
    for i in range(0, 8, 3):
        np.testing.assert_allclose(network(image[i : i + 1])[:, 0], together[:, i], rtol=1e-4, atol=1e-5)


def test_running_statistics_move_by_a_tenth():
    """Of the first layer by hand: its 7 x 7 convolution with stride 2 and 3 px of padding, by SciPy."""
    state, batch, new, _ = one_step()
    conv = jax.tree.map(np.asarray, state.params["pre_0"]["conv"])
    image = np.pad(batch["image"] / 255, ((0, 0), (3, 3), (3, 3), (0, 0)))
    kernel = conv["kernel"][::-1, ::-1, ::-1]  # SciPy turns it round
    out = np.stack(
        [
            scipy.signal.convolve(picture, kernel[..., d], mode="valid")[::2, ::2, 0] + conv["bias"][d]
            for picture in image
            for d in range(kernel.shape[-1])
        ]
    ).reshape(len(image), kernel.shape[-1], -1)
    assert out.shape == (8, 2, 64)
    moved = new.constants["batch_stats"]["pre_0"]["bn"]
    np.testing.assert_allclose(moved["mean"], 0.9 * 0 + 0.1 * out.mean((0, 2)), rtol=1e-4)
    np.testing.assert_allclose(moved["var"], 0.9 * 1 + 0.1 * out.var((0, 2)), rtol=1e-4)


def test_every_running_statistic_moves_and_stays_float32():
    state, _, new, _ = one_step()
    assert jax.tree.structure(state.constants) == jax.tree.structure(new.constants)
    for before, after in zip(small.arrays(state.constants), small.arrays(new.constants), strict=True):
        assert (before != after).all() and after.dtype == np.float32


def test_running_statistics_serve_in_evaluation_alone():
    state, batch, _, measured = one_step()
    other = jax.tree.map(lambda leaf: np.asarray(2 * leaf + 1), state.constants)
    again = small.STEP(state.replace(constants=other), batch)[1]
    assert again["loss"] == measured["loss"] and again["grad_norm"] == measured["grad_norm"]
    image, constants = pictures(8), small.state(small.config(stacks=1)).constants
    changed = applied()(image, jax.tree.map(lambda leaf: np.asarray(2 * leaf + 1), constants))
    assert np.abs(changed - applied()(image)).max() > 0.1


# --- steps ----------------------------------------------------------------------------------------------------------


def first_gradient(state):
    """Adam's first moment after one step from nothing is a tenth of the gradient."""
    (moment,) = [m for _, m in optax.tree_utils.tree_get_all_with_path(state.opt_state, "mu") if jax.tree.leaves(m)]
    return [10 * m for m in small.arrays(moment)]


def norm(leaves):
    return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in leaves))


def test_gradient_by_differences():
    """Of the loss that other steps' metrics tell, along the gradient and along a direction with much else in it."""
    state, batch, new, measured = one_step()
    gradient = first_gradient(new)
    np.testing.assert_allclose(measured["grad_norm"], norm(gradient), rtol=1e-4)
    rng = np.random.default_rng(2)
    noise = [rng.normal(size=leaf.shape) for leaf in gradient]
    mixed = [g / norm(gradient) + 0.3 * n / norm(noise) for g, n in zip(gradient, noise, strict=True)]
    leaves, form = jax.tree.flatten(state.params)
    for direction in (gradient, mixed):
        unit = [d / norm(direction) for d in direction]

        def loss(step, unit=unit):
            moved = [np.asarray(p + step * u, np.float32) for p, u in zip(leaves, unit, strict=True)]
            return float(small.STEP(state.replace(params=form.unflatten(moved)), batch)[1]["loss"])

        slope = sum((g * u).sum() for g, u in zip(gradient, unit, strict=True))
        np.testing.assert_allclose((loss(2e-3) - loss(-2e-3)) / 4e-3, slope, rtol=0.03)


def test_a_step_on_a_mesh_equals_one_on_a_device():
    """Batch statistics too: of all the batch, not of a device's part.

    Parameters move alike where the gradient is more than rounding: a bias before a batch norm has none, and Adam's
    first step goes by the sign alone.
    """
    _, batch, want, want_measured = one_step()
    mesh = data_mesh()
    assert mesh.size == 4
    state = small.state(small.config()).replace(rng=np.zeros(()))
    copy = jax.tree.map(np.array, state).replace(rng=jax.random.key(0))  # for the step donates what it is given
    got, measured = jit_train_step(mesh, heatmap_train_step)(copy, global_batch(batch, mesh))
    for name, value in want_measured.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-3, err_msg=name)
    for a, b in zip(small.arrays(got.constants), small.arrays(want.constants), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    gradient, smallest = first_gradient(want), 1e-4 * norm(first_gradient(want))
    for a, b in zip(first_gradient(got), gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=smallest)
    moved = [(np.abs(g) > smallest).ravel() for g in gradient]
    both = [
        np.concatenate([leaf.ravel()[where] for leaf, where in zip(small.arrays(end.params), moved, strict=True)])
        for end in (got, want)
    ]
    assert len(both[0]) > 0.5 * sum(where.size for where in moved)
    np.testing.assert_allclose(*both, atol=1e-4)


def test_bfloat16_keeps_parameters_statistics_and_heatmaps_in_float32():
    config = small.config(compute_dtype="bfloat16")
    state = small.state(config)
    new, measured = jax.eval_shape(heatmap_train_step, state, fake_batch(config, 8))
    for leaf in jax.tree.leaves((new.params, new.constants, measured["loss"])):
        assert leaf.dtype == jnp.float32
    image = pictures(8)
    got, want = applied("bfloat16")(image), applied()(image)
    assert got.dtype == np.float32 and not np.array_equal(got, want)
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


# --- parts ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**16))
def test_pooling_undoes_upsampling(seed):
    rng = np.random.default_rng(seed)
    x, large = rng.normal(size=(2, 3, 2, 3)).astype(np.float32), rng.normal(size=(2, 6, 4, 3)).astype(np.float32)
    doubled = np.asarray(upsample(jnp.asarray(x)))
    assert doubled.shape == large.shape
    np.testing.assert_array_equal(doubled, x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(doubled), 2), x)
    pooled = np.asarray(upsample(max_pool(jnp.asarray(large), 2)))
    assert (pooled >= large).all() and (pooled == large).sum() == large.size / 4


@given(seed=st.integers(0, 2**16))
def test_mirroring_twice_is_the_identity(seed):
    maps = jnp.asarray(np.random.default_rng(seed).uniform(size=(2, 3, 5, 16)), jnp.float32)
    np.testing.assert_array_equal(mirrored(mirrored(maps, MPII.flip), MPII.flip), maps)


def test_mirroring_turns_the_picture_and_swaps_left_and_right():
    maps = np.zeros((1, 4, 6, 16), np.float32)
    maps[0, 1, 0, MPII.index("left_wrist")] = maps[0, 2, 2, MPII.index("thorax")] = 1
    got = np.asarray(mirrored(jnp.asarray(maps), MPII.flip))
    assert got[0, 1, 5, MPII.index("right_wrist")] == 1 and got[0, 2, 3, MPII.index("thorax")] == 1
    assert got.sum() == 2


def test_heatmaps_of_a_mirrored_person_mirrored_back():
    """Joints of a mirrored picture, x to 15 - x and left for right, give the maps of the picture once mirrored back."""
    make = jax.jit(
        lambda joints: gaussian_heatmaps(joints, jnp.ones((2, 16), bool), image_size=16, heatmap_size=8, sigma_px=1.0)
    )
    joints = np.random.default_rng(3).uniform(0, 15, (2, 16, 2)).astype(np.float32)
    swapped = np.float32(joints[:, list(MPII.flip)] * [-1, 1] + [15, 0])
    np.testing.assert_allclose(mirrored(make(swapped), MPII.flip), make(joints), atol=1e-5)
