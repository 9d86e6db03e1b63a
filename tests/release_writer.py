"""Models as the paper's authors' code saves them, and what its network makes of them, written from its description."""

import dataclasses
import io
import zipfile

import numpy as np
from scipy.signal import convolve2d

from fusion_jax.presets import preset, two_streams

SIDE, KERNELS, CONVS = 29, (5, 3, 2), (3, 4, 5)
FLAT = 5 * 2 * 2  # 29 -> 25 -> 12 -> 10 -> 5 -> 4 -> 2
DENSE = {"paper": (6, 7, 6, 5), "paper-wide": (6, 5, 8, 7, 5)}
DROPOUT = {"paper": (4, 5), "paper-wide": (4, 5, 6)}  # layers, from 1
CHANNELS = {"image": 3, "heatmap": 16}
OUTPUTS = 51


def config(name):
    """A preset with narrow layers and small pictures."""
    base = preset(name)
    layers = list(base.network.streams[0].layers)
    for place, (features, kernel) in enumerate(zip(CONVS, KERNELS, strict=True)):
        layers[place] = dataclasses.replace(layers[place], features=features, kernel=kernel)
    for place, features in enumerate(DENSE[name], start=3):
        layers[place] = dataclasses.replace(layers[place], features=features)
    network = dataclasses.replace(base.network, streams=two_streams(tuple(layers)))
    inputs = dataclasses.replace(base.inputs, image_size=SIDE, heatmap_size=8)
    return dataclasses.replace(base, network=network, inputs=inputs)


def shapes(name, kernels=KERNELS, convs=CONVS, dense=None, flat=FLAT):
    """Of every saved array, in order."""
    found = []
    for channels, wider in ((3, 1), (16, 1), (19, 2)):
        width = channels
        for kernel, features in zip(kernels, convs, strict=True):
            found += [(features * wider, width, kernel, kernel), (features * wider,)]
            width = features * wider
        width = flat * wider
        for features in dense or DENSE[name]:
            found += [(width, features * wider), (features * wider,)]
            width = features * wider
        if wider == 2:
            found += [(width, OUTPUTS), (OUTPUTS,)]
    return [*found, (), ()]


def params(name, alpha=0.8, beta=2.4, seed=0):
    """Random weights under which every layer counts, float32."""
    rng = np.random.default_rng(seed)
    drawn = []
    for shape in shapes(name)[:-2]:
        fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        drawn.append(rng.normal(0, np.sqrt(2 / fan_in) if len(shape) > 1 else 0.3, shape).astype(np.float32))
    return [*drawn, np.array(alpha, np.float32), np.array(beta, np.float32)]


def forward(name, params, image, heatmap):
    """The pose (B, 51) of pictures (B, 3, H, W) and heatmaps (B, 16, H, W), in float64."""
    depth = len(KERNELS) + len(DENSE[name])
    pairs = [(np.float64(params[i]), np.float64(params[i + 1])) for i in range(0, len(params) - 2, 2)]
    alpha, beta = np.float64(params[-2]), np.float64(params[-1])
    images, heatmaps, fusion = pairs[:depth], pairs[depth : 2 * depth], pairs[2 * depth :]
    i, x, z = np.float64(image), np.float64(heatmap), 0.0
    for l in range(depth + 1):
        weight = 1 / (1 + np.exp(-(alpha**2) * (l - beta)))
        mixed = weight * z + (1 - weight) * np.concatenate([i, x], axis=1)
        if l == depth:
            return mixed @ fusion[l][0] + fusion[l][1]
        i, x, z = (_layer(name, l + 1, a, *pair) for a, pair in ((i, images[l]), (x, heatmaps[l]), (mixed, fusion[l])))


def _layer(name, l, x, kernel, bias):
    if kernel.ndim == 2:
        return np.maximum(x @ kernel + bias, 0) * (0.5 if l in DROPOUT[name] else 1.0)
    maps = np.stack(
        [
            [sum(convolve2d(plane, k, mode="valid") for plane, k in zip(one, out, strict=True)) for out in kernel]
            for one in x
        ]
    )
    maps += bias[:, None, None]
    h, w = maps.shape[2] // 2, maps.shape[3] // 2
    pooled = np.maximum(maps[:, :, : 2 * h, : 2 * w].reshape(len(x), -1, h, 2, w, 2).max((3, 5)), 0)
    return pooled.reshape(len(x), -1) if l == len(KERNELS) else pooled


def write_params(path, arrays):
    """As numpy.savez of this Python does it."""
    objects = np.empty(len(arrays), object)
    for place, array in enumerate(arrays):
        objects[place] = array
    np.savez(path, params=objects)
    return path


def write_pickle(path, data, member="params.npy", header=None, **how):
    """An archive of an object array whose pickle is `data`."""
    header = header or b"{'descr': '|O', 'fortran_order': False, 'shape': (6,), }"
    header += b" " * (-(len(header) + 11) % 16) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:
        archive.writestr(member, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    path.write_bytes(buffer.getvalue())
    return path
