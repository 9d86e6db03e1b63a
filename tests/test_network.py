"""FusionNet against the method's equations and against each classical network, written out in plain jax.numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fusion_jax import fusion
from fusion_jax.conv import conv2d
from fusion_jax.errors import UserError
from fusion_jax.network import Conv, Dense, FusionNet, Stream, fusion_layers
from fusion_jax.presets import preset
from fusion_jax.state import create_state

pytestmark = pytest.mark.optimised

JOINTS = 4
# 12 px -> conv 11 -> pool 5 -> conv 5 (padded, not pooled) -> dense; every width differs between the streams.
IMAGE = Stream("image", (Conv(4, 2), Conv(5, 2, pool=1, padding="SAME"), Dense(6)))
HEATMAP = Stream("heatmap", (Conv(3, 2), Conv(2, 2, pool=1, padding="SAME"), Dense(7)))
FLOW = Stream("flow", (Conv(2, 2), Conv(3, 2, pool=1, padding="SAME"), Dense(2)))
L = 3


def net(strategy="learned", beta=None, streams=(IMAGE, HEATMAP), **fields):
    return FusionNet(streams, JOINTS, strategy, beta, **fields)


def inputs(names=("image", "heatmap"), batch=2, seed=0):
    rng, channels = np.random.default_rng(seed), {"image": 3, "heatmap": 5, "flow": 2}
    return {n: jnp.asarray(rng.uniform(size=(batch, 12, 12, channels[n])), jnp.float32) for n in names}


def filled(network, x, seed=0, scale=0.3):
    """Variables with every number drawn anew, biases too, so that nothing hides behind a zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)

    def draw(s):
        return jnp.asarray(rng.normal(0, scale, s.shape), s.dtype)

    variables = {"params": jax.tree.map(draw, shapes["params"])}
    variables["constants"] = {"pose_mean_mm": jnp.zeros((JOINTS, 3)), "pose_std_mm": jnp.ones((JOINTS, 3))}
    return variables


@functools.cache
def everything(streams=(IMAGE, HEATMAP)):
    """Parameters of the learned network, which has every layer."""
    return filled(net(streams=streams), inputs(tuple(s.name for s in streams)))


def run(network, variables, x, **kwargs):
    return jax.jit(lambda v, x: network.apply(v, x, **kwargs))(variables, x)


def run_with_shared(network, x, source):
    """The network's output with its own subset of `source`'s parameters."""
    wanted = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    params = {name: source["params"][name] for name in wanted}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, wanted)
    return run(network, {"params": params, "constants": source["constants"]}, x)


# --- the same mathematics without the library -----------------------------------------------------------------------


def plain_block(layer, params, x):
    if isinstance(layer, Dense):
        x = x.reshape(len(x), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]
        return jnp.maximum(x, 0)
    dims = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, params["kernel"], (layer.stride,) * 2, layer.padding, dimension_numbers=dims)
    x = x + params["bias"]
    if layer.pool > 1:
        window = (1, layer.pool, layer.pool, 1)
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return jnp.maximum(x, 0)


def plain_output(params, x):
    return (x.reshape(len(x), -1) @ params["kernel"] + params["bias"]).reshape(-1, JOINTS, 3)


def concat(xs):
    return jnp.concatenate(xs, -1)


def plain_fusion(variables, x, streams, weights):
    """Section by section: Z_0 = concat, M_l = (1 - w_l) concat + w_l Z_l, Z_{l+1} = layer(M_l)."""
    p, data = variables["params"], [x[s.name] for s in streams]
    mixed = concat(data)
    for l in range(1, L + 1):
        data = [plain_block(s.layers[l - 1], p[f"{s.name}_{l}"], d) for s, d in zip(streams, data, strict=True)]
        fused = plain_block(streams[0].layers[l - 1], p[f"fusion_{l}"], mixed)
        mixed = (1 - weights[l - 1]) * concat(data) + weights[l - 1] * fused
    return plain_output(p[f"fusion_{L + 1}"], mixed)


def plain_early(p, x):
    x = concat([x["image"], x["heatmap"]])
    for l in (1, 2, 3):
        x = plain_block(IMAGE.layers[l - 1], p[f"fusion_{l}"], x)
    return plain_output(p["fusion_4"], x)


def plain_middle(p, x):  # beta = 1
    image = plain_block(IMAGE.layers[0], p["image_1"], x["image"])
    heatmap = plain_block(HEATMAP.layers[0], p["heatmap_1"], x["heatmap"])
    x = concat([image, heatmap])
    for l in (2, 3):
        x = plain_block(IMAGE.layers[l - 1], p[f"fusion_{l}"], x)
    return plain_output(p["fusion_4"], x)


def plain_single(p, x, stream):
    x = x[stream.name]
    for l in (1, 2, 3):
        x = plain_block(stream.layers[l - 1], p[f"{stream.name}_{l}"], x)
    return x


def plain_late(p, x):
    return plain_output(p["fusion_4"], concat([plain_single(p, x, IMAGE), plain_single(p, x, HEATMAP)]))


def close(got, want):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5 * float(np.abs(want).max()))


# --- equations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta, plain", [(0, plain_early), (1, plain_middle), (3, plain_late)])
def test_fixed_strategies_equal_hand_built_networks(beta, plain):
    variables, x = everything(), inputs()
    close(run_with_shared(net("fixed", beta), x, variables), plain(variables["params"], x))


@pytest.mark.parametrize("stream", [IMAGE, HEATMAP])
def test_single_streams_equal_hand_built_networks(stream):
    network = net(stream.name)
    variables = filled(network, inputs((stream.name,)))  # the other input is not even needed
    p, x = variables["params"], inputs((stream.name,))
    close(run(network, variables, x), plain_output(p["fusion_4"], plain_single(p, x, stream)))
    assert sorted(p) == sorted([f"{stream.name}_{l}" for l in (1, 2, 3)] + ["fusion_4"])


@pytest.mark.parametrize("alpha, beta", [(0.1, 2.0), (1.3, 1.4), (-0.5, 2.0)])
def test_learned_network_follows_the_equations(alpha, beta):
    variables, x = everything(), inputs()
    variables = variables | {"params": variables["params"] | {"alpha": jnp.float32(alpha), "beta": jnp.float32(beta)}}
    weights = 1 / (1 + np.exp(-alpha * (np.arange(1, 4) - beta)))
    close(run(net(), variables, x), plain_fusion(variables, x, (IMAGE, HEATMAP), weights))


def test_free_network_follows_the_equations():
    network, x = net("free"), inputs()
    variables = filled(network, x, scale=0.5)
    logits = np.asarray(variables["params"]["mix_logits"])
    assert logits.shape == (L,)
    want = plain_fusion(variables, x, (IMAGE, HEATMAP), 1 / (1 + np.exp(-logits)))
    close(run(network, variables, x), want)


def test_three_streams_follow_the_equations():
    streams = (IMAGE, HEATMAP, FLOW)
    variables, x = everything(streams), inputs(("image", "heatmap", "flow"))
    weights = fusion.fusion_weights(*(variables["params"][n] for n in ("alpha", "beta")), L)
    close(run(net(streams=streams), variables, x), plain_fusion(variables, x, streams, weights))
    assert variables["params"]["fusion_1"]["kernel"].shape == (2, 2, 10, 9)


def test_vector_streams_follow_the_equations():
    streams = (Stream("image", (Dense(4), Dense(3), Dense(2))), Stream("pose", (Dense(5), Dense(2), Dense(3))))
    rng = np.random.default_rng(1)
    x = {"image": jnp.asarray(rng.normal(size=(3, 6))), "pose": jnp.asarray(rng.normal(size=(3, 9)))}
    network = net(streams=streams)
    variables = filled(network, x)
    weights = fusion.fusion_weights(*(variables["params"][n] for n in ("alpha", "beta")), L)
    close(run(network, variables, x), plain_fusion(variables, x, streams, weights))


@pytest.mark.parametrize("beta", [0.5, 1.5, 3.5])
def test_a_sharp_learned_network_is_the_fixed_one(beta):
    variables, x = everything(), inputs()
    sharp = variables["params"] | {"alpha": jnp.float32(1e4), "beta": jnp.float32(beta)}
    hard = run_with_shared(net("fixed", min(beta, L)), x, variables)
    close(run(net(), variables | {"params": sharp}, x), hard)


@pytest.mark.parametrize("beta", [0, 0.5, 1, 2, 3])
def test_fixed_strategies_build_live_layers_alone(beta):
    names = set(jax.eval_shape(net("fixed", beta).init, jax.random.key(0), inputs())["params"])
    reads = int(beta)  # layers 1 .. reads feed the mix
    want = {f"{s}_{l}" for s in ("image", "heatmap") for l in range(1, reads + 1)}
    assert names == want | {f"fusion_{l}" for l in range(reads + 1, L + 2)}


@pytest.mark.parametrize("beta", [0.5, 1.5, 2.5, 3.5])
def test_dead_layers_cannot_change_the_output(beta):
    """Poke each layer of a sharp learned network: the output moves exactly if live_layers calls the layer live."""
    x, network = inputs(), net()
    params = everything()["params"] | {"alpha": jnp.float32(1e4), "beta": jnp.float32(beta)}
    apply = jax.jit(lambda p: network.apply({"params": p, "constants": everything()["constants"]}, x))
    reference = np.asarray(apply(params))
    live = fusion.live_layers(np.asarray(fusion.fusion_weights(params["alpha"], params["beta"], L)))
    moved = {
        name: bool((apply(params | {name: jax.tree.map(lambda v: v + 0.5, params[name])}) != reference).any())
        for name in params.keys() - {"alpha", "beta"}
    }
    for name, moves in moved.items():
        stream, l = name.split("_")
        want = int(l) >= live.first_fusion if stream == "fusion" else int(l) <= live.last_data
        assert moves == want, name


# --- construction ---------------------------------------------------------------------------------------------------


def test_learned_starts_in_the_middle():
    def start(**fields):
        def init(key, x):
            return net(**fields).init(key, x)["params"]

        return jax.jit(lambda key, x: [init(key, x)[name] for name in ("alpha", "beta")])(jax.random.key(0), inputs())

    np.testing.assert_array_equal(start(alpha_init=0.3), np.float32([0.3, 2.0]))
    np.testing.assert_array_equal(start(beta=1.25), np.float32([0.1, 1.25]))


def test_fusion_stream_is_as_wide_as_all_streams():
    merged = fusion_layers((IMAGE, HEATMAP, FLOW))
    assert [layer.features for layer in merged] == [9, 10, 15]
    assert [dataclasses.replace(layer, features=1) for layer in merged] == [
        dataclasses.replace(layer, features=1) for layer in IMAGE.layers
    ]


@pytest.mark.parametrize(
    "streams, words",
    [
        ((), "streams"),
        ((IMAGE, IMAGE), "distinct names"),
        ((IMAGE, Stream("heatmap", HEATMAP.layers[:2])), "number of layers"),
        ((Stream("image", ()), Stream("heatmap", ())), "layers >= 1"),
        ((Stream("image", (Conv(4, 3),)), Stream("heatmap", (Conv(4, 5),))), "layer 1 .*heatmap: Conv"),
        ((Stream("image", (Conv(4, 3),)), Stream("heatmap", (Dense(4),))), "layer 1 .*heatmap: Dense"),
        ((Stream("image", (Dense(4),)), Stream("heatmap", (Dense(4, 0.5),))), "layer 1 .*dropout=0.5"),
    ],
)
def test_streams_that_do_not_match(streams, words):
    with pytest.raises(UserError, match=words):
        fusion_layers(streams)
    with pytest.raises(UserError, match=words):
        net(streams=streams).init(jax.random.key(0), inputs())


def test_errors_name_the_stream_or_beta():
    def message(network, x):
        with pytest.raises(UserError) as error:
            jax.eval_shape(network.init, jax.random.key(0), x)
        return str(error.value)

    assert "'heatmap'" in message(net(), inputs(("image",)))
    assert "beta" in message(net("fixed"), inputs()) and "[0, 3]" in message(net("fixed", 4), inputs())
    assert "'heatmap'" in message(net("heatmap", streams=(IMAGE, FLOW)), inputs(("image", "flow")))
    assert "unknown strategy" in message(net("late"), inputs())


@pytest.mark.parametrize(
    "layers, sizes, words",
    [
        ((Conv(2, 3),), (12, 8), "12.*8"),  # streams of different height and width
        ((Conv(2, 13),), (12, 12), "layer 1|image_1"),  # a kernel larger than the picture
        ((Conv(2, 12), Dense(2)), (12, 12), "layer 1|image_1"),  # pooled to nothing
        ((Dense(2), Conv(2, 1)), (12, 12), "layer 2|image_2"),  # a convolution of a flat vector
    ],
    ids=["sizes differ", "kernel too large", "pooled away", "conv after dense"],
)
def test_pictures_that_do_not_fit(layers, sizes, words):
    network = net(streams=(Stream("image", layers), Stream("heatmap", layers)))
    x = {name: jnp.zeros((1, size, size, 2)) for name, size in zip(("image", "heatmap"), sizes, strict=True)}
    with pytest.raises(UserError, match=words):
        jax.eval_shape(network.init, jax.random.key(0), x)


# --- dropout, types, constants --------------------------------------------------------------------------------------


def test_dropout_only_in_training():
    streams = tuple(Stream(name, (Dense(16, 0.5),)) for name in ("image", "heatmap"))
    network, x = net(streams=streams), {name: value[:, :2, :2] for name, value in inputs().items()}
    variables = filled(network, x)
    quiet = run(network, variables, x)
    np.testing.assert_array_equal(quiet, run(network, variables, x, train=False, rngs={"dropout": jax.random.key(0)}))
    noisy = jax.jit(lambda key: network.apply(variables, x, train=True, rngs={"dropout": key}))
    first, again, other = (noisy(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, quiet)


def test_dropout_keeps_the_mean():
    layers = (Dense(4000, 0.25),)
    network = net("image", streams=(Stream("image", layers),))
    x = {"image": jnp.ones((1, 1))}
    variables = filled(network, x)
    params = variables["params"] | {"image_1": {"dense": {"kernel": jnp.ones((1, 4000)), "bias": jnp.zeros(4000)}}}
    out = functools.partial(network.apply, {"params": params, "constants": variables["constants"]}, x)
    kept = out(train=True, rngs={"dropout": jax.random.key(0)}, mutable=["intermediates"])[1]["intermediates"]
    kept = np.asarray(kept["mixed_1"][0])
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((kept > 0).mean() - 0.75) < 0.03  # 4 standard deviations


def test_bfloat16_computes_close_to_float32():
    variables, x = everything(), inputs()
    low = run(net(dtype=jnp.bfloat16), variables, x)
    want = run(net(), variables, x)
    assert low.dtype == np.float32 and not np.array_equal(low, want)
    np.testing.assert_allclose(low, want, atol=0.03 * float(np.abs(want).max()))  # 8 bits, four layers
    shapes = jax.eval_shape(net(dtype=jnp.bfloat16).init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


def test_bfloat16_keeps_mix_weights_in_float32():
    """w = 0.999 is 1 in bfloat16, which would silently cut the data streams off."""
    data, fused = jnp.full((1, 2), 1000, jnp.bfloat16), jnp.zeros((1, 2), jnp.bfloat16)
    np.testing.assert_allclose(fusion.mix(jnp.float32(0.999), data, fused).astype(np.float32), 1.0, rtol=0.01)


def test_standardisation_scales_the_output():
    variables, x = everything(), inputs()
    rng = np.random.default_rng(2)
    mean, std = rng.normal(size=(JOINTS, 3)).astype(np.float32), rng.uniform(1, 300, (JOINTS, 3)).astype(np.float32)
    got = run(net(), variables | {"constants": {"pose_mean_mm": mean, "pose_std_mm": std}}, x)
    np.testing.assert_allclose(got, np.asarray(run(net(), variables, x)) * std + mean, rtol=1e-5, atol=1e-4)


def test_examples_do_not_see_each_other():
    variables, x = everything(), inputs(batch=2)
    alone = run(net(), variables, {name: value[1:] for name, value in x.items()})
    close(run(net(), variables, x)[1:], alone)


# --- initialisation and the published networks ----------------------------------------------------------------------


def test_initialisation_follows_the_release():
    layers = (Conv(60, 5, padding="SAME", pool=4), Dense(300, 0.5), Dense(200))
    network = FusionNet((Stream("image", layers),), 17, "image")
    params = jax.jit(network.init)(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 10))})["params"]
    conv, narrow, wide, last = (
        np.asarray(p["kernel"])
        for p in (params["image_1"], params["image_2"]["dense"], params["image_3"]["dense"], params["fusion_4"])
    )

    def fourth(w):
        return (w**4).mean() / (w**2).mean() ** 2  # 3 for a normal, 1.8 for a uniform distribution

    for w, std in ((conv, np.sqrt(2 / 250)), (narrow, 0.01)):
        assert abs(w.mean()) < 5 * std / np.sqrt(w.size)
        np.testing.assert_allclose(w.std(), std, rtol=0.03)
        np.testing.assert_allclose(fourth(w), 3, rtol=0.1)  # a truncated normal would have 2.3
        assert np.abs(w).max() > 3.2 * std
    for w, fan_in in ((wide, 300), (last, 200)):
        bound = np.sqrt(6 / fan_in)
        assert 0.99 * bound < np.abs(w).max() <= bound * 1.00001
        np.testing.assert_allclose(fourth(w), 1.8, rtol=0.05)
    biases = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "bias"]
    assert len(biases) == 4 and not any(np.any(bias) for bias in biases)


def conv_parameters(k, fan_in, features):
    return k * k * fan_in * features + features


def dense_parameters(*widths):
    return sum(a * b + b for a, b in zip(widths, widths[1:], strict=False))


def convs(channels, widen):
    widths = [36 * widen, 72 * widen, 72 * widen]
    return (
        conv_parameters(9, channels, widths[0])
        + conv_parameters(5, widths[0], widths[1])
        + conv_parameters(5, widths[1], widths[2])
    )


@pytest.mark.parametrize(
    "name, dense", [("paper", (2048, 2048, 512, 512)), ("paper-wide", (512, 2048, 4096, 512, 512))]
)
def test_parameters_of_the_published_networks(name, dense):
    """Ten by ten pixels of 72 channels a stream reach the dense layers; 17 x 3 numbers come out."""
    image, heatmap, fused = convs(3, 1), convs(16, 1), convs(3 + 16, 2)
    data_dense = dense_parameters(10 * 10 * 72, *dense)
    fused_dense = dense_parameters(10 * 10 * 144, *(2 * n for n in dense), 51)
    want = image + heatmap + fused + 2 * data_dense + fused_dense + 2  # alpha, beta
    state = jax.eval_shape(functools.partial(create_state, preset(name)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == want
    if name == "paper":
        assert abs(want - 120e6) < 4e6


def test_sizes_inside_the_published_network():
    network = FusionNet(preset("paper").network.streams)
    x = {"image": jax.ShapeDtypeStruct((1, 112, 112, 3), "float32")}
    x["heatmap"] = jax.ShapeDtypeStruct((1, 112, 112, 16), "float32")

    def apply(x):
        return network.init_with_output(jax.random.key(0), x, mutable=True)

    pose, variables = jax.eval_shape(apply, x)
    mixed = [variables["intermediates"][f"mixed_{l}"][0].shape for l in range(1, 8)]
    assert pose.shape == (1, 17, 3)
    assert mixed[:3] == [(1, 52, 52, 72), (1, 24, 24, 144), (1, 10, 10, 144)]
    assert mixed[3:] == [(1, 4096), (1, 4096), (1, 1024), (1, 1024)]

    def kernel(layer):
        return variables["params"][layer]["dense"]["kernel"].shape[0]

    assert (kernel("image_4"), kernel("heatmap_4"), kernel("fusion_4")) == (7200, 7200, 14400)
    before_pooling, x = [], jax.ShapeDtypeStruct((1, 112, 112, 19), "float32")
    for l in (1, 2, 3):
        k = variables["params"][f"fusion_{l}"]["kernel"]
        before_pooling.append(jax.eval_shape(conv2d, x, k).shape[1])
        x = jax.ShapeDtypeStruct(mixed[l - 1], "float32")
    assert before_pooling == [104, 48, 20]
