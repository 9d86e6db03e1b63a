"""The fusion network over named streams, as a linen module described by data. No loss, no heatmaps, no devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fusion_jax import fusion
from fusion_jax.conv import conv_pool_relu
from fusion_jax.errors import UserError, check_field
from fusion_jax.mixing import Mixing, declare_mixing, fuse

MAX_STREAMS, MAX_LAYERS = 32, 1000


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution, then max pooling, then ReLU (method order of the authors' release)."""

    features: int
    kernel: int
    stride: int = 1
    pool: int = 2
    """Max-pool window and stride, remainder dropped; 1 for none."""
    padding: str = "VALID"
    """VALID or SAME, as in jax.lax."""

    def __post_init__(self):
        for name, most in (("features", 2**16), ("kernel", 1024), ("stride", 1024), ("pool", 1024)):
            value = getattr(self, name)
            check_field(1 <= value <= most, f"Conv.{name}", value, f">= 1 and at most {most}")
        check_field(self.padding in ("VALID", "SAME"), "Conv.padding", self.padding, "'VALID' or 'SAME'")


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense layer on flattened features, then ReLU, then dropout."""

    features: int
    dropout: float = 0.0
    """Probability of dropping a feature while training."""

    def __post_init__(self):
        ok = 1 <= self.features <= 2**20
        check_field(ok, "Dense.features", self.features, f">= 1 and at most {2**20}")
        check_field(0 <= self.dropout < 1, "Dense.dropout", self.dropout, "in [0, 1)")


Layer = Conv | Dense


@dataclasses.dataclass(frozen=True)
class Stream:
    """A named data stream: the key of its input and its layers 1 .. L."""

    name: str
    layers: tuple[Layer, ...]


def fusion_layers(streams: tuple[Stream, ...]) -> tuple[Layer, ...]:
    """The fusion stream's layers 1 .. L: the streams' own, as wide as all of them together.

    Raises:
      UserError: naming the layer and the streams, where two streams differ in anything but width.
    """
    depths = {stream.name: len(stream.layers) for stream in streams}
    if any(len(name) > 100 for name in depths):
        raise UserError("a stream's name is longer than 100 letters; it becomes the name of its parameters")
    if not streams or 0 in depths.values() or len(set(depths.values())) != 1 or len(depths) != len(streams):
        raise UserError(f"streams need distinct names and one common number of layers >= 1, got {depths}")
    if len(depths) > MAX_STREAMS or max(depths.values()) > MAX_LAYERS:
        raise UserError(
            f"{len(depths)} streams of {max(depths.values())} layers; expected at most {MAX_STREAMS} of {MAX_LAYERS}"
        )
    if "fusion" in depths:
        raise UserError("no stream may be called 'fusion'; that is the fusion stream's name")
    merged = []
    for l, layers in enumerate(zip(*(stream.layers for stream in streams), strict=True), start=1):
        kinds = {dataclasses.replace(layer, features=1) for layer in layers}
        if len(kinds) != 1:
            described = ", ".join(f"{s.name}: {layer}" for s, layer in zip(streams, layers, strict=True))
            raise UserError(f"layer {l} may differ between streams only in its features, got {described}")
        merged.append(dataclasses.replace(layers[0], features=sum(layer.features for layer in layers)))
    return tuple(merged)


class Block(nn.Module):
    """One layer record as a module: (B, H, W, C) -> (B, h, w, D), or anything -> (B, D) for Dense."""

    layer: Layer
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B *F"], *, train: bool = False) -> Float[Array, "B *G"]:
        layer = self.layer
        if isinstance(layer, Conv):
            _check_fits(layer, x.shape, self.name)
            shape = (layer.kernel, layer.kernel, x.shape[-1], layer.features)
            kernel = self.param("kernel", _HE_NORMAL, shape)
            bias = self.param("bias", nn.initializers.zeros, (layer.features,))
            kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
            return conv_pool_relu(x, kernel, bias, stride=layer.stride, padding=layer.padding, pool=layer.pool)
        # The release draws dense layers with dropout from a narrow normal, the others from He's uniform.
        init = nn.initializers.normal(0.01) if layer.dropout else _HE_UNIFORM
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(layer.features, dtype=self.dtype, kernel_init=init, name="dense")(x))
        return nn.Dropout(layer.dropout, deterministic=not train)(x)


def _check_fits(layer: Conv, shape: tuple[int, ...], name: str | None) -> None:
    """Raises UserError where the features are no pictures, or too small for the convolution and its pooling."""
    if len(shape) != 4:
        raise UserError(f"layer {name}: {layer} needs pictures (B, H, W, C), got features {shape}")
    shrink = layer.kernel - 1 if layer.padding == "VALID" else 0
    sides = [(side - shrink - 1) // layer.stride + 1 for side in shape[1:3]]
    if min(sides) < layer.pool:
        raise UserError(f"layer {name}: {layer} leaves nothing of features {shape}; use fewer or smaller layers")


_HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_HE_UNIFORM = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


class FusionNet(nn.Module):
    """Root-relative pose from named inputs, fused at layers that training finds or a strategy fixes.

    Layers that a fixed strategy never reads are not built: early and late fusion and single streams cost what they
    should and hold no idle parameters. Parameters are `<stream>_<l>`, `fusion_<l>` (l = L + 1 is the output) and,
    by strategy, scalars `alpha` and `beta` or the vector `mix_logits`. The collection `constants` holds the
    target's mean and standard deviation, (J, 3) mm, by which the last layer's output is scaled.

    Attributes:
      streams: the data streams; inputs are looked up by their names.
      num_joints: J.
      strategy: one of fusion.STRATEGIES; `image` and `heatmap` use that stream alone.
      beta: for `fixed` the fusion layer, for `learned` its start (None: the middle of 1 .. L).
      alpha_init: start of the sharpness.
      live: of a pruned network, the layers that are left.
      dtype: of the computation; parameters, mix weights and the output stay float32.
    """

    streams: tuple[Stream, ...]
    num_joints: int = 17
    strategy: str = "learned"
    beta: float | None = None
    alpha_init: float = 0.1
    live: fusion.LiveLayers | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Mapping[str, Float[Array, "B *F"]], *, train: bool = False) -> Float[Array, "B J 3"]:
        """Pose in mm. Each input is (B, H, W, C) with the same H and W, or (B, D) for streams of Dense layers."""
        streams = active_streams(self.streams, self.strategy)
        layers = fusion_layers(streams)

        def block(layer: Layer, name: str):
            return functools.partial(Block(layer, self.dtype, name=name), train=train)

        output = functools.partial(self._output, name=f"fusion_{len(layers) + 1}")
        return fuse(
            [x.astype(self.dtype) for x in _read_inputs(inputs, streams)],
            [[block(x, f"{stream.name}_{l}") for l, x in enumerate(stream.layers, start=1)] for stream in streams],
            [*(block(x, f"fusion_{l}") for l, x in enumerate(layers, start=1)), output],
            self.mixing(len(layers)),
            lambda name, value: self.sow("intermediates", name, value),
        )

    def mixing(self, num_layers: int) -> Mixing:
        """How the L layers are mixed, by parameters of this module or constants."""
        fusion.check_strategy(self.strategy)
        single = self.strategy in fusion.SINGLE_STREAM
        strategy, beta = ("fixed", num_layers) if single else (self.strategy, self.beta)
        return declare_mixing(self, num_layers, strategy, beta=beta, alpha_init=self.alpha_init, live=self.live)

    def _output(self, mixed: jax.Array, name: str) -> jax.Array:
        shape = (self.num_joints, 3)
        mean = self.variable("constants", "pose_mean_mm", jnp.zeros, shape).value
        std = self.variable("constants", "pose_std_mm", jnp.ones, shape).value
        dense = nn.Dense(self.num_joints * 3, dtype=self.dtype, kernel_init=_HE_UNIFORM, name=name)
        raw = dense(mixed.reshape(mixed.shape[0], -1)).astype(jnp.float32)
        return raw.reshape(-1, *shape) * std + mean


def active_streams(streams: tuple[Stream, ...], strategy: str) -> tuple[Stream, ...]:
    """The streams a strategy reads. Raises UserError where a single-stream strategy names a missing stream."""
    if strategy not in fusion.SINGLE_STREAM:
        return streams
    chosen = tuple(stream for stream in streams if stream.name == strategy)
    if not chosen:
        raise UserError(f"strategy {strategy!r} needs a stream of that name, got {[s.name for s in streams]}")
    return chosen


def _read_inputs(inputs: Mapping[str, jax.Array], streams: tuple[Stream, ...]) -> list[jax.Array]:
    missing = [stream.name for stream in streams if stream.name not in inputs]
    if missing:
        raise UserError(f"the network has a stream {missing[0]!r} but its inputs are {sorted(inputs)}")
    shapes = {stream.name: inputs[stream.name].shape for stream in streams}
    if len({shape[:-1] for shape in shapes.values()}) != 1:
        raise UserError(f"the streams' inputs must agree in batch, height and width, got {shapes}")
    return [inputs[stream.name] for stream in streams]
