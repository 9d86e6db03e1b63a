"""What a fusion network costs, forward: parameters and operations from its layer records, XLA's count, images a second.

A 2D network that runs in front of it does not count.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusion_jax import fusion
from fusion_jax.batch import stream_channels
from fusion_jax.config import Config, NetworkConfig
from fusion_jax.network import Conv, FusionNet, Layer, active_streams, fusion_layers
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.state import make_network

Shape = tuple[int, ...]
"""Of one example's features: (H, W, C), or (D,)."""


class Cost(NamedTuple):
    """Numbers in the parameters, and floating-point operations for one example; a multiply-add is two."""

    parameters: int
    flops: int

    def __add__(self, other: tuple) -> Cost:  # type: ignore[override]  # of tuples it would join them
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def parameters(config: Config) -> int:
    """Numbers that a run's fusion network holds, alpha and beta or mix logits among them."""
    return network_cost(make_network(config.fusion, config.inputs), example_shapes(config)).parameters


def gflops(config: Config) -> float:
    """1e9 floating-point operations for one example, counted by hand."""
    return network_cost(make_network(config.fusion, config.inputs), example_shapes(config)).flops / 1e9


def xla_gflops(config: Config) -> float:
    """As `gflops`, as XLA's cost analysis counts them; nothing is compiled."""
    return xla_flops(make_network(config.fusion, config.inputs), example_shapes(config)) / 1e9


def example_shapes(config: Config) -> dict[str, Shape]:
    """Shapes of one example's inputs, by the names of the streams that the network reads."""
    network, channels = config.fusion, stream_channels(config.inputs)
    side = config.inputs.image_size
    return {s.name: (side, side, channels[s.name]) for s in active_streams(network.streams, network.strategy)}


def live_of(network: FusionNet | NetworkConfig) -> fusion.LiveLayers:
    """The layers that a network is built of."""
    depth = len(active_streams(network.streams, network.strategy)[0].layers)
    if network.strategy in fusion.SINGLE_STREAM:
        return fusion.LiveLayers(last_data=depth, first_fusion=depth + 1)
    if network.strategy == "fixed":
        return fusion.live_layers(fusion.fixed_weights(network.beta, depth))
    return network.live or fusion.LiveLayers(last_data=depth, first_fusion=1)


def network_cost(network: FusionNet, shapes: Mapping[str, Shape]) -> Cost:
    """Parameters and operations of one example's forward pass, from the layer records alone.

    Counted as XLA counts the network: products and sums of convolutions and dense layers, one operation for each bias,
    ReLU and scaling of a number, four for each comparison of the pooling, three for each number that is mixed. A padded
    convolution counts as if its border were numbers.

    Args:
      network: any strategy, pruned or not.
      shapes: of one example's inputs, by the streams' names.
    """
    streams = active_streams(network.streams, network.strategy)
    live, merged = live_of(network), fusion_layers(streams)
    data = [shapes[stream.name] for stream in streams]
    fused = _side_by_side(data)
    total = Cost({"learned": 2, "free": len(merged)}.get(network.strategy, 0), 0)
    for l, layer in enumerate(merged, start=1):
        if l <= live.last_data:
            for s, stream in enumerate(streams):
                total += _layer_cost(stream.layers[l - 1], data[s])
        data = [layer_shape(stream.layers[l - 1], shape) for stream, shape in zip(streams, data, strict=True)]
        if l >= live.first_fusion:
            total += _layer_cost(layer, fused)
        fused = layer_shape(layer, fused)
        if live.first_fusion <= l <= live.last_data:
            total += Cost(0, 3 * math.prod(fused) + 1)
    inputs, outputs = math.prod(fused), 3 * network.num_joints
    return total + Cost((inputs + 1) * outputs, 2 * inputs * outputs + 3 * outputs)  # bias, deviation and mean


def layer_shape(layer: Layer, shape: Shape) -> Shape:
    """Shape of one example's features (H, W, C) or (D,) after a layer."""
    if not isinstance(layer, Conv):
        return (layer.features,)
    return (*(side // layer.pool for side in _convolved(layer, shape)), layer.features)


def xla_flops(network: FusionNet, shapes: Mapping[str, Shape]) -> float:
    """Operations of one example's forward pass as XLA counts them before it optimises, convolutions as they are
    defined; nothing is compiled."""
    inputs = {name: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for name, shape in shapes.items()}
    variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
    traced = _forward.trace(network, variables, inputs)
    # For a TPU, whose convolutions are plain ones: a CPU's loops over tiles would be counted as one turn each.
    analysis: Any = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    return float(analysis["flops"])


def images_per_s(
    runs: Sequence[tuple[Config, Mapping[str, Any], Mapping[str, Any]]], batch_size: int = 16, repeats: int = 7
) -> list[float]:
    """Examples a second through each fusion network, forward, on the first device.

    The median of `repeats` calls, compiled and warmed up before, until the result is ready. The networks take turns, so
    that whatever else the machine does meets all of them.

    Args:
      runs: (config, params, constants) each, as in a TrainState.
      batch_size: random examples at a time, on the device already.
    """
    device = jax.local_devices()[0]
    calls = []
    for config, params, constants in runs:
        network = make_network(config.fusion, config.inputs)
        variables = {"params": _own(params), "constants": _own(constants)}
        rng = np.random.default_rng(0)
        inputs = {n: rng.random((batch_size, *shape), np.float32) for n, shape in example_shapes(config).items()}
        calls.append((network, *jax.device_put((variables, inputs), device)))
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 2):  # two to compile and warm up
        for place, call in enumerate(calls):
            began = time.perf_counter()
            jax.block_until_ready(_forward(*call))
            if repeat >= 2:
                seconds[place].append(time.perf_counter() - began)
    return [batch_size / statistics.median(times) for times in seconds]


@functools.partial(jax.jit, static_argnums=0)
def _forward(network: FusionNet, variables: Any, inputs: Any) -> Any:
    return network.apply(variables, inputs)


def _own(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != HEATMAP_NETWORK}


def _layer_cost(layer: Layer, shape: Shape) -> Cost:
    if not isinstance(layer, Conv):
        inputs, outputs = math.prod(shape), layer.features
        return Cost((inputs + 1) * outputs, 2 * inputs * outputs + 2 * outputs)  # bias, ReLU
    height, width = _convolved(layer, shape)
    read, channels, pool = layer.kernel**2 * shape[-1], layer.features, layer.pool
    h, w = height // pool, width // pool
    flops = (2 * read + 1) * height * width * channels  # with the bias
    flops += 4 * (pool - 1) * (h * pool * w + h * w) * channels  # along the width, then the height
    return Cost((read + 1) * channels, flops + h * w * channels)


def _convolved(layer: Conv, shape: Shape) -> tuple[int, int]:
    """Height and width between convolution and pooling."""
    shrink = layer.kernel - 1 if layer.padding == "VALID" else 0
    height, width = ((side - shrink - 1) // layer.stride + 1 for side in shape[:2])
    return height, width


def _side_by_side(shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
