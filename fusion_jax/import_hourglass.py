"""Published PyTorch weights of the stacked hourglass, made a run that every command accepts as trained here."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from data_pipelines.mpii.splits import PUBLISHED_TEST
from fusion_jax.config import Config, HourglassConfig
from fusion_jax.errors import UserError
from fusion_jax.hourglass import STRIDE, Hourglass
from fusion_jax.imported_run import check_unused, file_source, write_imported_run
from fusion_jax.leakage import Seen
from fusion_jax.presets import preset
from fusion_jax.skeletons import skeleton
from fusion_jax.torch_file import read_torch_file

PREFIXES = ("model.module.", "module.", "model.", "")
"""What PyTorch's wrappers put in front of every name."""
_STEM, _OUTPUT = "pre.0.conv.weight", "outs.{}.conv.weight"
_TOP = (
    (r"pre_(\d+)", r"pre.\1"),
    (r"hourglass_(\d+)", r"hgs.\1.0"),
    (r"features_(\d+)_residual", r"features.\1.0"),
    (r"features_(\d+)_conv", r"features.\1.1"),
    (r"out_(\d+)", r"outs.\1"),
    (r"merge_(features|preds)_(\d+)", r"merge_\1.\2.conv"),
)
_BATCH_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_CONVOLUTION = {"kernel": "weight", "bias": "bias"}
_MOST = 16  # stacks and depth that a config admits
_SHOWN = 3

TRAINED_ON = Seen("mpii", "mpii", False, (), {"people": [[PUBLISHED_TEST, 99_999]]})
"""MPII's people are numbered, those of the usual list that everybody tests on first. All others count as trained on."""

Place = tuple[str, ...]


def import_hourglass(checkpoint: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Makes a run of the task `heatmaps` of a file of published PyTorch weights; returns its folder, `out`.

    Beside what a training leaves there, imported.json says which file the weights are from. The run has done 0 steps
    here; it counts as trained on MPII's training people, so that nobody of them is tested.

    Args:
      checkpoint: of torch.save: a state_dict, or a dictionary with `state_dict` in it.
      out: a folder that is new or empty. It is complete or not there at all.

    Raises:
      UserError: the file cannot be read or is of another network, or the folder is in use.
    """
    check_unused(out)
    contents = read_torch_file(checkpoint)
    try:
        state_dict = _state_dict(contents)
        network, joints = hourglass_config(state_dict)
        config = _config(network, joints)
        variables = hourglass_variables(state_dict)
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from error
    source: dict[str, Any] = file_source(checkpoint)
    epoch = contents.get("epoch")
    if type(epoch) is int and abs(epoch) < 1 << 53:
        source["epoch"] = epoch
    constants = {"batch_stats": variables["batch_stats"]}
    write_imported_run(out, config, variables["params"], constants, [TRAINED_ON], source)
    return out


def hourglass_config(state_dict: Mapping[str, np.ndarray]) -> tuple[HourglassConfig, int]:
    """(the network, its number of joints) of a published state_dict, by its names and shapes.

    Raises:
      UserError: it is of no stacked hourglass.
    """
    arrays = _arrays(state_dict)
    stacks = next((n for n in range(_MOST + 1) if _OUTPUT.format(n) not in arrays), 0)
    depth = next((n for n in range(_MOST + 1) if f"hgs.0.0.{'low2.' * n}up1.bn1.weight" not in arrays), 0)
    if not stacks or not depth or arrays[_OUTPUT.format(0)].ndim != 4:
        raise UserError(
            f"the state_dict is of no stacked hourglass: expected 1 to {_MOST} stacks, the first with "
            f"{_OUTPUT.format(0)} (joints, features, 1, 1) and hgs.0.0.up1.bn1.weight"
        )
    joints, features = arrays[_OUTPUT.format(0)].shape[:2]
    return HourglassConfig(stacks=stacks, features=features, depth=depth), joints


def hourglass_variables(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of `hourglass.Hourglass` that compute what a published network does, as float32.

    Kernels (O, I, k, k) become (k, k, I, O). Only two things are left out: `num_batches_tracked`, which nothing uses,
    and the `skip_layer` that the published code stores and passes by where a residual's widths agree.

    Args:
      state_dict: arrays by PyTorch's names, all behind one of PREFIXES.

    Returns:
      {"params": ..., "batch_stats": ...}.

    Raises:
      UserError: a name is missing, left over or of another shape, or a number is not finite.
    """
    config, joints = hourglass_config(state_dict)
    left = _arrays(state_dict)
    found: dict[Place, np.ndarray] = {}
    wrong: list[str] = []
    for path, shape in _expected(config, joints).items():
        name = torch_name(path)
        stored = tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else shape
        array = left.pop(name, None)
        if array is None:
            wrong.append(f"{name} {stored} is missing")
        elif array.shape != stored:
            wrong.append(f"{name} is {array.shape}, expected {stored}")
        else:
            found[path] = _numbers(name, array)
    widths = {torch_name(path).rpartition(".")[0]: array.shape[-1] for path, array in found.items()}
    wrong += [
        f"{name[:80]!r} {array.shape} is unknown" for name, array in left.items() if not _unused(name, array, widths)
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"the state_dict does not fit {config.stacks} hourglasses of depth {config.depth} with {config.features} "
            f"features and {joints} joints: {'; '.join(wrong[:_SHOWN])}{more}"
        )
    return unflatten_dict(found)


def torch_name(path: Place) -> str:
    """What the published code calls one of our arrays, such as hgs.0.0.up1.conv1.conv.weight.

    Args:
      path: collection, modules, array, such as ("params", "hourglass_0", "up1", "conv1", "kernel").
    """
    _, top, *inner, kind = path
    begin = next(match.expand(name) for pattern, name in _TOP if (match := re.fullmatch(pattern, top)))
    modules = [begin, *("skip_layer" if name == "skip" else name for name in inner)]
    if inner and inner[-1].startswith("bn"):
        return ".".join([*modules, _BATCH_NORM[kind]])
    if inner[-1:] != ["conv"]:  # the published code wraps each convolution in a module
        modules.append("conv")
    return ".".join([*modules, _CONVOLUTION[kind]])


def _state_dict(contents: Any) -> dict:
    """The state_dict in what a file holds. Raises UserError where there is none."""
    found = contents.get("state_dict", contents) if type(contents) is dict else contents
    if type(found) is not dict:
        raise UserError(
            f"holds a {type(found).__name__}, expected a dictionary of tensors or one with state_dict in it"
        )
    return found


def _config(network: HourglassConfig, joints: int) -> Config:
    """Of the preset with the published training, whatever the number of stacks."""
    base = preset("hourglass-2")
    layout = skeleton(base.inputs.heatmap_skeleton)
    if joints != layout.num_joints:
        raise UserError(f"predicts {joints} joints, expected the {layout.num_joints} of {layout.name}")
    side = max(base.inputs.image_size, STRIDE * 2**network.depth)
    inputs = dataclasses.replace(base.inputs, image_size=side, heatmap_size=side // STRIDE)
    name = f"hourglass-{network.stacks}"
    return dataclasses.replace(base, preset=name, network=network, inputs=inputs, train_split="train+validation")


def _arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state_dict without its prefix. Raises UserError where that, or a value, is of another kind."""
    for name, array in state_dict.items():
        if type(name) is not str or not isinstance(array, np.ndarray):
            raise UserError(f"the state_dict holds {str(name)[:80]!r} of type {type(array).__name__}, expected tensors")
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}{_STEM}" in state_dict), None)
    if prefix is None:
        first = ", ".join(f"{name[:80]!r}" for name in list(state_dict)[:_SHOWN]) or "nothing"
        raise UserError(f"the state_dict is of no stacked hourglass: it lacks {_STEM}; it holds {first}")
    return {name.removeprefix(prefix): array for name, array in state_dict.items()}


def _expected(config: HourglassConfig, joints: int) -> dict[Place, tuple[int, ...]]:
    """Shape of each of our arrays."""
    network = Hourglass(config.stacks, config.features, config.depth, joints)
    side = STRIDE * 2**config.depth
    picture = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), picture)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """An array as ours holds it, in memory of its own. Raises UserError where its numbers cannot be weights."""
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} is of type {array.dtype}, expected floating-point numbers")
    with np.errstate(over="ignore"):
        made = array.astype(np.float32)
    if not np.isfinite(made).all() or (name.endswith("running_var") and (made < 0).any()):
        raise UserError(f"{name} holds numbers that are not finite, or negative variances; download the weights again")
    return np.ascontiguousarray(made.transpose(2, 3, 1, 0)) if made.ndim == 4 else made


def _unused(name: str, array: np.ndarray, widths: Mapping[str, int]) -> bool:
    """Whether an array is one that the published code stores and never reads.

    Args:
      widths: channels of the modules that are read, by their published names.
    """
    module, _, kind = name.rpartition(".")
    if kind == "num_batches_tracked":
        return module in widths and not array.shape
    block, found, rest = name.rpartition(".skip_layer.")
    width = widths.get(f"{block}.conv3.conv")
    return bool(found) and array.shape == {"conv.weight": (width, width, 1, 1), "conv.bias": (width,)}.get(rest)
