"""How alike the features of a network's data streams are at its last convolution (Tekin et al. 2017, figure 7)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from fusion_jax import fusion, sharding
from fusion_jax.analysis_record import Correlation
from fusion_jax.correlation import Moments, block_means, r_squared, update
from fusion_jax.errors import UserError
from fusion_jax.network import Conv, FusionNet, active_streams
from fusion_jax.prune import mixing_weights
from fusion_jax.state import TrainState, network_variables
from fusion_jax.stream_usage import Frames, read_inputs


class ChannelCorrelation(NamedTuple):
    """The numbers to show and the matrix they are made of.

    Attributes:
      matrix: (K, K) R^2 of all pairs of channels that change at all, the streams one after another.
      stream: (K,) int, the number of a channel's stream.
      channel: (K,) int, its number within the stream.
    """

    found: Correlation
    matrix: np.ndarray
    stream: np.ndarray
    channel: np.ndarray


def feature_layer(network: FusionNet) -> tuple[int | None, str]:
    """The last convolution layer l at which data streams meet, and words on it; None and why where there is none."""
    streams = active_streams(network.streams, network.strategy)
    if len(streams) < 2:
        return None, f"Strategy {network.strategy} reads one stream, so there is no other stream to compare it with."
    layers = streams[0].layers
    convolutions = [l for l, layer in enumerate(layers, start=1) if isinstance(layer, Conv)]
    if not convolutions:
        return None, "The data streams have no convolution, so there are no feature maps to compare."
    last_data = _last_data_layer(network, len(layers))
    built = [l for l in convolutions if l <= last_data]
    if not built:
        return None, (
            "No data stream of this network has a convolution of its own that is read: it fuses its inputs before the "
            "first layer, so there are no separate features to compare."
        )
    if built[-1] == convolutions[-1]:
        return built[-1], f"Layer {built[-1]} is the last convolution."
    return built[-1], (
        f"Layer {built[-1]} is the last convolution that the data streams have of their own in this network; behind "
        f"layer {last_data} they are not read, so its last convolution, layer {convolutions[-1]}, is of the fusion "
        "stream alone."
    )


def _last_data_layer(network: FusionNet, num_layers: int) -> int:
    if network.live is not None:
        return network.live.last_data
    if network.strategy == "fixed":
        return fusion.live_layers(fusion.fixed_weights(network.beta, num_layers)).last_data
    return num_layers


def layer_features(state: TrainState, inputs: dict[str, Any]) -> jax.Array:
    """The data streams' features side by side at the layer of `feature_layer`, (B, h, w, C), of inputs by stream."""
    assert isinstance(state.network, FusionNet)
    layer, why = feature_layer(state.network)
    if layer is None:
        raise UserError(why)
    _, kept = state.network.apply(network_variables(state), inputs, mutable=["intermediates"])
    return kept["intermediates"][f"data_{layer}"][0]


def correlate_streams(frames: Frames) -> tuple[ChannelCorrelation | None, str]:
    """R^2 between all channels of the data streams, over all frames and positions, and words on the layer.

    Features are as the next layer reads them, after pooling and ReLU.

    Raises:
      UserError: features that are not finite.
    """
    network = frames.state.network
    assert isinstance(network, FusionNet)
    layer, words = feature_layer(network)
    if layer is None:
        return None, words
    look = sharding.jit_eval_step(frames.mesh, layer_features)
    gathered: Moments | None = None
    positions = 0
    for batch in read_inputs(frames):
        features = jax.device_get(look(frames.state, sharding.global_batch(batch.inputs, frames.mesh)))[batch.mask]
        positions = features[0, ..., 0].size
        gathered = update(gathered, features.reshape(-1, features.shape[-1]))
    if gathered is None:
        raise UserError("there is no frame to analyse; the split is empty")
    if not np.isfinite(gathered.scatter).all():
        raise UserError(f"the network's features at layer {layer} are not finite; its checkpoint is damaged")
    streams = active_streams(network.streams, network.strategy)
    widths = [stream.layers[layer - 1].features for stream in streams]
    matrix, alive = r_squared(gathered)
    stream = np.repeat(np.arange(len(streams)), widths)[alive]
    counts = np.bincount(stream, minlength=len(streams))
    found = Correlation(
        layer,
        positions,
        tuple(s.name for s in streams),
        tuple(int(count) for count in counts),
        tuple(int(width - count) for width, count in zip(widths, counts, strict=True)),
        tuple(map(tuple, block_means(matrix, stream, len(streams)))),
    )
    if network.strategy in ("learned", "free"):
        weight = mixing_weights(frames.config, frames.state.params)[layer - 1]
        words += f" There w = {weight:.2f}: 0 reads these features, 1 does not."
    channel = np.concatenate([np.arange(width) for width in widths])[alive]
    return ChannelCorrelation(found, matrix, stream, channel), words
