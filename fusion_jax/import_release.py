"""The model that the paper's authors published, trained in Theano, made a run that every command accepts."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.imported_run import check_unused, file_source, write_imported_run
from fusion_jax.leakage import Seen
from fusion_jax.network import Conv, Dense, Stream, fusion_layers
from fusion_jax.presets import preset
from fusion_jax.release_file import read_release
from fusion_jax.skeletons import skeleton
from fusion_jax.state import input_shapes

TYPES = ("paper", "paper-wide")
"""The presets that are the release's networks, its types 1 and 2."""

JOINTS = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("spine", "thorax", "nose", "head_top"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
)
"""What the release predicts, three numbers each, in this order: that of our human36m17."""

_ACTIONS, _EVERY_ROW = range(1, 16), [0, 10**9]
TRAINED_ON = Seen(
    "tekin_release",
    "human36m",
    True,
    ("S1", "S5", "S6", "S7", "S8"),
    {f"A_{n}/train": [_EVERY_ROW] for n in _ACTIONS} | {f"A_{n}/val": [] for n in _ACTIONS},
)
"""The training people of Human3.6M, and the train part of the released data whatever its action. Of the val part
nothing was trained on, though the authors chose the epoch by its score."""

_SHOWN = 3
_LARGEST = float(np.finfo(np.float32).max)


class _Layer(NamedTuple):
    """One layer as the release stores it: a kernel and a bias.

    Attributes:
      name: of ours, such as fusion_1.
      words: such as 'fusion stream, layer 1'.
      kernel: shape, (out, in, k, k) or (in, out).
      maps: (channels, height, width) that a dense layer flattens; None for vectors.
      kept: share of the features that dropout leaves in training.
    """

    name: str
    words: str
    kernel: tuple[int, ...]
    maps: tuple[int, int, int] | None
    kept: float

    @property
    def width(self) -> int:
        return self.kernel[0] if len(self.kernel) == 4 else self.kernel[1]


def import_release(path: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Makes a run of the task `pose` of the authors' published model; returns its folder, `out`.

    Beside what a training leaves there, imported.json says which file the weights are from. The run has done 0 steps
    here; it counts as trained on Human3.6M's training people.

    Args:
      path: the NPZ file, such as h36m_model_A_14.npz.
      out: a folder that is new or empty. It is complete or not there at all.

    Raises:
      UserError: the file cannot be read or is of another network, or the folder is in use.
    """
    check_unused(out)
    params = read_release(path)
    try:
        name, variables = release_variables(params)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    config = dataclasses.replace(preset(name), dataset="tekin_release", train_split="train+validation")
    fusion = {scalar: float(variables["params"][scalar]) for scalar in ("alpha", "beta")}
    source: dict[str, Any] = {**file_source(path), "preset": name, **fusion}
    write_imported_run(out, config, variables["params"], variables["constants"], [TRAINED_ON], source)
    return out


def release_variables(params: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]]:
    """(preset, the variables of its `network.FusionNet` that compute what a model of the release does).

    Args:
      params: as the release saves them, see `converted`.

    Raises:
      UserError: they fit neither preset; the one is named that they were compared with.
    """
    configs = {len(_release_layers(config)) * 2 + 2: config for config in map(preset, TYPES)}
    if len(params) not in configs:
        expected = " or ".join(f"{count} (preset {config.preset})" for count, config in configs.items())
        raise UserError(f"holds {len(params)} arrays, expected {expected}")
    config = configs[len(params)]
    return config.preset, converted(params, config)


def converted(params: Sequence[np.ndarray], config: Config) -> dict[str, Any]:
    """The variables of the `FusionNet` of a config that compute what the release does with its arrays, as float32.

    The release is Theano's, channels first, and differs in what it stores:
      - its convolutions flip their kernels, (out, in, k, k): flipped back, (k, k, in, out) here;
      - its first dense layers read (c, h, w) in this order: their rows are brought to (h, w, c);
      - its dropout leaves the test to multiply what comes out by the share kept, 0.5: taken into that layer's kernel
        and bias, which ReLU lets through;
      - its fusion stream begins with (1 - w_0) * concat(image, heatmaps): taken into the first kernel;
      - its weights are sigmoid(alpha^2 (l - beta)): alpha here is alpha squared.

    Args:
      params: kernel and bias of each layer of the config's data streams in their order, then of the fusion stream's
        1 .. L + 1, then alpha and beta without axes.
      config: of convolutions without padding and stride, then dense layers.

    Raises:
      UserError: an array has another shape or type or is not finite; the first few are named, with the preset.
    """
    layers = _release_layers(config)
    named = [(f"{layer.words}, {part}", shape) for layer in layers for part, shape in _parts(layer)]
    named += [("alpha", ()), ("beta", ())]
    if len(params) != len(named):
        raise UserError(f"holds {len(params)} arrays, expected {len(named)} (preset {config.preset})")
    wrong = [
        f"array {place} ({name}) is {array.dtype} {array.shape}, expected {shape} of floats"
        for place, ((name, shape), array) in enumerate(zip(named, params, strict=True))
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating)
    ]
    wrong = wrong or [
        f"array {place} ({name}) holds numbers that are not finite"
        for place, ((name, _), array) in enumerate(zip(named, params, strict=True))
        if not np.isfinite(array).all() or float(np.abs(array).max()) > _LARGEST
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(f"does not fit preset {config.preset}: {'; '.join(wrong[:_SHOWN])}{more}")
    alpha, beta = float(params[-2]) ** 2, float(params[-1])
    if alpha > _LARGEST:
        raise UserError(f"has alpha {float(params[-2]):g}, whose square is no float32; download it again")
    unfused = 1 / (1 + math.exp(min(-alpha * beta, 700.0)))  # 1 - w_0
    made: dict[str, Any] = {"alpha": np.float32(alpha), "beta": np.float32(beta)}
    for number, layer in enumerate(layers):
        kernel, bias = (np.asarray(array, np.float32) * np.float32(layer.kept) for array in params[2 * number :][:2])
        if layer.name == "fusion_1":
            kernel = kernel * np.float32(unfused)
        if len(layer.kernel) == 4:
            kernel = kernel[:, :, ::-1, ::-1].transpose(2, 3, 1, 0)
        elif layer.maps:
            kernel = kernel.reshape(*layer.maps, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
        arrays = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
        inner = len(layer.kernel) == 2 and layer is not layers[-1]
        made[layer.name] = {"dense": arrays} if inner else arrays
    shape = (skeleton(config.inputs.skeleton).num_joints, 3)
    constants = {"pose_mean_mm": np.zeros(shape, np.float32), "pose_std_mm": np.ones(shape, np.float32)}
    return {"params": made, "constants": constants}


def _parts(layer: _Layer) -> list[tuple[str, tuple[int, ...]]]:
    return [("kernel", layer.kernel), ("bias", (layer.width,))]


def _release_layers(config: Config) -> list[_Layer]:
    """The layers of a config's network as the release would store them, in its order."""
    streams, channels = config.fusion.streams, {k: shape[-1] for k, shape in input_shapes(config.inputs).items()}
    channels["fusion"] = sum(channels[stream.name] for stream in streams)  # in the streams' order
    output = Dense(3 * skeleton(config.inputs.skeleton).num_joints)
    everything = (*streams, Stream("fusion", (*fusion_layers(streams), output)))
    found = []
    for stream in everything:
        width, side = channels[stream.name], config.inputs.image_size
        for l, layer in enumerate(stream.layers, start=1):
            name, words = f"{stream.name}_{l}", f"{stream.name} stream, layer {l}"
            if isinstance(layer, Conv):
                kernel: tuple[int, ...] = (layer.features, width, layer.kernel, layer.kernel)
                found.append(_Layer(name, words, kernel, None, 1.0))
                side = (side - layer.kernel + 1) // layer.pool
            else:
                maps = (width, side, side) if side else None
                rows = width * side**2 if maps else width
                found.append(_Layer(name, words, (rows, layer.features), maps, 1 - layer.dropout))
                side = 0  # vectors from here on
            width = layer.features
    return found
