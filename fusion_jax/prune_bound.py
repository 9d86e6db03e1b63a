"""How far pruning can move a joint at most, worked out from the weights that are dropped.

A network with weights w_l loses fusion layers 1 .. a, a = first_fusion - 1, and data layers above b = last_data: w_l
counts as 0 up to a and as 1 above b. With D_l = concat(data_l), features before (M_l) and after (M'_l) differ by

    M_a - M'_a = w_a (Z_a - D_a)                       0 for a = 0; of M_l, l < a, nothing is read
    M_l - M'_l = w_l (Z_l - Z'_l)                      a < l <= b, where both read the same D_l
    M_l - M'_l = (1 - w_l) (D_l - Z_l) + (Z_l - Z'_l)  l > b
    |Z_{l+1} - Z'_{l+1}| <= K_{l+1} |M_l - M'_l|       K: Lipschitz constant of the fusion layer

in the Euclidean norm of one example's features. Biases cancel; ReLU and the maxima of tiles that do not overlap move
two inputs no further apart, so K is the spectral norm of the convolution or dense layer. Joint j is read from M_L by
its own three columns, times the poses' deviation in mm; minus the root's where poses are made relative to it. |D_l -
Z_l| is measured on the very examples, everything else is in the weights. Exact arithmetic is meant: floating point adds
its rounding, which is all that is left where the dropped weights are exactly 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from fusion_jax.cost import Shape, layer_shape
from fusion_jax.fusion import LiveLayers
from fusion_jax.network import Conv, Layer


def gaps(intermediates: Mapping[str, tuple[jax.Array, ...]], num_layers: int) -> Float[Array, "B L"]:
    """|D_l - Z_l| of each example at each layer, 0 where the network does not have both.

    Args:
      intermediates: what a FusionNet sows, of B examples.
      num_layers: L.
    """
    columns: list[Any] = []
    for l in range(1, num_layers + 1):
        pair = [intermediates[name][0] for name in (f"data_{l}", f"fused_{l}") if name in intermediates]
        if len(pair) == 2:
            difference = pair[0].astype(jnp.float32) - pair[1].astype(jnp.float32)
            columns.append(jnp.sqrt((difference**2).sum(tuple(range(1, difference.ndim)))))
        else:
            columns.append(0.0)
    batch = next(iter(intermediates.values()))[0].shape[0]
    return jnp.stack([jnp.broadcast_to(column, (batch,)) for column in columns], axis=1)


def lipschitz_constants(
    layers: Sequence[Layer], params: Mapping[str, Any], shape: Shape, first: int
) -> dict[int, float]:
    """K_l of fusion layers l = first .. L, in the Euclidean norm.

    Args:
      layers: the fusion stream's, 1 .. L.
      params: of the network, with the entries fusion_l.
      shape: of one example's Z_0, (H, W, C) or (D,).
      first: the first fusion layer whose constant is wanted.
    """
    found = {}
    for l, layer in enumerate(layers, start=1):
        if l >= first:
            block = params[f"fusion_{l}"]
            if isinstance(layer, Conv):
                found[l] = conv_norm(np.asarray(block["kernel"]), shape[0], shape[1], layer.stride, layer.padding)
            else:
                found[l] = spectral_norm(np.asarray(block["dense"]["kernel"]))
        shape = layer_shape(layer, shape)
    return found


def joint_norms(kernel: np.ndarray, std_mm: np.ndarray, root: Sequence[int] = ()) -> np.ndarray:
    """(J,) mm: how far each joint moves at most for a change of M_L by 1.

    Args:
      kernel: (F, 3J) of the output layer.
      std_mm: (J, 3) by which its result is scaled.
      root: joints whose mean is taken off the pose; none for the network's output as it is.
    """
    columns = np.asarray(kernel, np.float64).reshape(len(kernel), *np.shape(std_mm)) * np.asarray(std_mm, np.float64)
    if root:
        columns = columns - columns[:, list(root)].mean(1, keepdims=True)
    return np.array([spectral_norm(columns[:, j]) for j in range(columns.shape[1])])


def change_bound_mm(
    weights: np.ndarray, live: LiveLayers, gap: np.ndarray, constants: Mapping[int, float], joints: np.ndarray
) -> np.ndarray:
    """(N, J) mm: no joint of an example moves further than this when a network is cut down to `live`.

    Args:
      weights: (L,) w_l of the network before, 0 and 1 where it was cut down already.
      live: what is left.
      gap: (N, L) of `gaps`, of the network before.
      constants: of `lipschitz_constants`, for layers live.first_fusion .. L.
      joints: (J,) of `joint_norms`.
    """
    weights, gap = np.asarray(weights), np.asarray(gap, np.float64)
    share = 1 - weights  # in the weights' own precision, as the network does
    dropped = live.first_fusion - 1
    moved = weights[dropped - 1] * gap[:, dropped - 1] if dropped else np.zeros(len(gap))
    for l in range(live.first_fusion, len(weights) + 1):
        moved = constants[l] * moved
        moved = weights[l - 1] * moved if l <= live.last_data else moved + share[l - 1] * gap[:, l - 1]
    return moved[:, None] * joints


def conv_norm(kernel: np.ndarray, height: int, width: int, stride: int, padding: str) -> float:
    """An upper bound of a convolution's spectral norm on pictures of one size; the smaller of two.

    The outputs are some of those of a periodic convolution on a torus that holds the picture, padding included, and
    that one's norm is the largest over its frequencies of the norm of the kernel's Fourier transform (Sedghi et al.
    2019). And no pixel is in more than ceil(k / stride)^2 windows, each multiplied by one matrix; that is exact for
    windows that do not overlap.

    Args:
      kernel: (k, k, C, D).
      height, width: of the input, px.
      stride, padding: as of network.Conv.
    """
    kernel = np.asarray(kernel, np.float64)
    k = len(kernel)
    grow = k - 1 if padding == "SAME" else 0
    windows = math.ceil(k / stride) * spectral_norm(kernel.reshape(-1, kernel.shape[-1]))
    if stride >= k:
        return windows
    return min(windows, _torus_norm(kernel, height + grow, width + grow))


def spectral_norm(matrix: np.ndarray) -> float:
    """The largest singular value of a matrix."""
    matrix = np.asarray(matrix, np.float64)
    gram = matrix.T @ matrix if matrix.shape[1] <= matrix.shape[0] else matrix @ matrix.T
    last = len(gram) - 1
    return float(math.sqrt(max(0.0, scipy.linalg.eigvalsh(gram, subset_by_index=(last, last))[0])))


def _torus_norm(kernel: np.ndarray, height: int, width: int) -> float:
    k, _, c, d = kernel.shape
    across = np.exp(-2j * np.pi * np.outer(np.arange(width // 2 + 1), np.arange(k)) / width)  # the rest is conjugate
    largest = 0.0
    for row in range(height):  # one at a time: all frequencies of a wide layer would fill the memory
        down = np.exp(-2j * np.pi * row * np.arange(k) / height)
        parts = np.tensordot(across, np.tensordot(down, kernel, axes=1), axes=1)  # (frequencies, C, D)
        flipped = parts.conj().transpose(0, 2, 1)
        gram = parts @ flipped if c <= d else flipped @ parts
        largest = max(largest, float(np.linalg.eigvalsh(gram)[:, -1].max()))
    return math.sqrt(largest)
