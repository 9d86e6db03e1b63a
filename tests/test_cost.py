"""Parameters and operations: layers counted by hand, XLA's own count, and the parameters that a network really has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusion_jax import cost, fusion
from fusion_jax.network import Conv, Dense, FusionNet, Stream
from fusion_jax.presets import preset

IMAGE = Stream("image", (Conv(4, 3), Conv(5, 2, 2, pool=1, padding="SAME"), Dense(6)))
HEATMAP = Stream("heatmap", (Conv(3, 3), Conv(2, 2, 2, pool=1, padding="SAME"), Dense(7)))
PARTS = Stream("parts", (Conv(2, 3), Conv(3, 2, 2, pool=1, padding="SAME"), Dense(2)))
SHAPES = {"image": (15, 15, 3), "heatmap": (15, 15, 5), "parts": (15, 15, 2)}


def test_one_layer_by_hand():
    """13 px, convolution to 11 px, pooled to 5; then 100 numbers to two joints."""
    network = FusionNet((Stream("image", (Conv(4, 3),)),), 2, "image")
    conv, bias, pool, relu = 2 * 11 * 11 * 9 * 3 * 4, 11 * 11 * 4, 4 * (10 * 5 + 5 * 5) * 4, 5 * 5 * 4
    output = 2 * 100 * 6 + 3 * 6
    parameters = (27 + 1) * 4 + (100 + 1) * 6
    assert cost.network_cost(network, {"image": (13, 13, 3)}) == (parameters, conv + bias + pool + relu + output)
    flat = FusionNet((Stream("a", (Dense(7),)), Stream("b", (Dense(2),))), 1)
    layers = [(3, 7), (4, 2), (7, 9)]
    flops = sum(2 * i * o + 2 * o for i, o in layers) + (3 * 9 + 1) + 2 * 9 * 3 + 3 * 3
    parameters = sum((i + 1) * o for i, o in layers) + 10 * 3 + 2
    assert cost.network_cost(flat, {"a": (3,), "b": (4,)}) == (parameters, flops)


@pytest.mark.parametrize(
    "network",
    [
        FusionNet((IMAGE, HEATMAP), 4),
        FusionNet((IMAGE, HEATMAP, PARTS), 4, "free"),
        FusionNet((IMAGE, HEATMAP), 4, "fixed", 1),
        FusionNet((IMAGE, HEATMAP), 4, "heatmap"),
        FusionNet((IMAGE, HEATMAP, PARTS), 4, live=fusion.LiveLayers(2, 2)),
        FusionNet((IMAGE, HEATMAP), 4, live=fusion.LiveLayers(0, 1)),
    ],
    ids=["learned", "free", "fixed", "heatmap", "pruned to a band", "pruned to early fusion"],
)
def test_xla_counts_the_same_and_the_parameters_are_there(network):
    wanted = {stream.name for stream in network.streams}
    shapes = {name: shape for name, shape in SHAPES.items() if name in wanted}
    counted = cost.network_cost(network, shapes)
    inputs = {name: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for name, shape in shapes.items()}
    params = jax.eval_shape(network.init, jax.random.key(0), inputs)["params"]
    assert counted.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(counted.flops, cost.xla_flops(network, shapes), rtol=2e-3)


def test_the_papers_network_and_what_late_fusion_leaves_of_it():
    config = preset("paper")
    assert cost.parameters(config) == 122_909_833
    assert np.isclose(cost.gflops(config), 6.26, atol=0.005)
    np.testing.assert_allclose(cost.gflops(config), cost.xla_gflops(config), rtol=1e-3)
    late = dataclasses.replace(config, network=dataclasses.replace(config.fusion, live=fusion.LiveLayers(4, 5)))
    np.testing.assert_allclose(cost.gflops(late), cost.xla_gflops(late), rtol=1e-3)
    assert cost.gflops(late) < 0.4 * cost.gflops(config)


def test_speed_is_measured_for_each_network(small_config, small_state):
    config = small_config()
    state = small_state(config)
    speeds = cost.images_per_s([(config, state.params, state.constants)] * 2, batch_size=2, repeats=1)
    assert len(speeds) == 2 and all(speed > 0 for speed in speeds)
