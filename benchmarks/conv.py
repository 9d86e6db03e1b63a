"""fusion_jax's convolution against XLA's own, forward and with gradients, on the `tiny` network's layers.

python benchmarks/conv.py
"""

import jax
import jax.numpy as jnp
from timing import header, measure

from fusion_jax.conv import conv2d
from fusion_jax.network import Block, Conv, fusion_layers
from fusion_jax.presets import preset

BATCH = 32


def native(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def main() -> None:
    print(header())
    print(f"{'fusion layer, batch 32':44s}{'forward ms':>22s}{'forward + backward ms':>26s}")
    config, channels = preset("tiny"), 3 + 16
    x = jax.ShapeDtypeStruct((BATCH, config.inputs.image_size, config.inputs.image_size, channels), jnp.float32)
    for layer in fusion_layers(config.network.streams):
        if not isinstance(layer, Conv):
            break
        kernel = jnp.ones((layer.kernel, layer.kernel, x.shape[-1], layer.features)) * 0.01
        pictures = jax.random.normal(jax.random.key(0), x.shape)
        cells = []
        for run in (lambda x, k, s=layer.stride: native(x, k, s), lambda x, k, s=layer.stride: conv2d(x, k, stride=s)):
            gradient = jax.jit(jax.grad(lambda x, k, run=run: (run(x, k) ** 2).sum(), (0, 1)))
            cells.append([measure(jax.jit(run), pictures, kernel), measure(gradient, pictures, kernel)])
        (nf, nb), (of, ob) = cells
        name = f"{layer.kernel} x {layer.kernel} / {layer.stride}, {x.shape[1]} px, {x.shape[-1]} -> {layer.features}"
        print(f"{name:44s}{_pair(nf, of):>22s}{_pair(nb, ob):>26s}")
        x = jax.eval_shape(lambda x, layer=layer: Block(layer).init_with_output(jax.random.key(0), x)[0], x)
    print("each cell: XLA's -> ours (XLA's / ours)")


def _pair(theirs, ours) -> str:
    return f"{theirs.median * 1e3:.1f} -> {ours.median * 1e3:.1f} ({theirs.median / ours.median:.1f}x)"


if __name__ == "__main__":
    main()
