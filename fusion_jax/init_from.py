"""Starting a run from another run's weights, joints matched by name where the two skeletons differ."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fusion_jax import sharding
from fusion_jax.batch import stream_channels
from fusion_jax.checkpoint import restore_run
from fusion_jax.config import Config, InputConfig
from fusion_jax.errors import UserError
from fusion_jax.init_hourglass import transfer_hourglass
from fusion_jax.leakage import Seen
from fusion_jax.network import active_streams
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.skeletons import Skeleton, skeleton, stand_ins
from fusion_jax.state import TrainState
from fusion_jax.work_folder import load_run, load_seen

Params = dict[tuple[str, ...], np.ndarray]


def init_from(
    state: TrainState, config: Config, workdir: pathlib.Path, mesh: jax.sharding.Mesh, show: bool = True
) -> tuple[TrainState, list[Seen]]:
    """A fresh state with the newest weights of the run in `workdir`, and what those were trained on.

    Says on the terminal what was taken over and what is left new. Optimiser and step stay fresh.

    Raises:
      UserError: no run or checkpoint there, or nothing of it fits this network.
    """
    old_config, _ = load_run(workdir)
    if old_config.task != config.task:
        raise UserError(
            f"init_from: {workdir} learned task {old_config.task}, this run learns {config.task}; they share no layers"
            + ("; a 2D network goes to --heatmap-workdir" if old_config.task == "heatmaps" else "")
        )
    old = restore_run(workdir, old_config, mesh)
    before, constants_before = jax.device_get((old.params, old.constants))
    after, new_constants = jax.device_get((state.params, state.constants))
    if config.task == "heatmaps":
        new_params, new_constants, lines = transfer_hourglass(
            before, constants_before, old_config, after, new_constants, config
        )
    else:
        new_params, lines = transfer(before, constants_before, old_config, after, new_constants, config)
    if show:
        print(f"starting from {workdir} after {int(old.step)} steps: " + "; ".join(lines))
    params, constants = jax.device_put((new_params, new_constants), sharding.replicated(mesh))
    return state.replace(params=params, constants=constants), load_seen(workdir)


def adopt_live(config: Config, workdir: pathlib.Path, began_as: Config | None = None) -> Config:
    """The config of a run in `workdir` that starts from a pruned one, cut down to the same layers.

    A run that has begun keeps the layers it began with, whatever became of the other. The config stays as it is where
    the run of init_from was not pruned, or the new one has another number of layers or a strategy that
    builds live layers alone.

    Args:
      config: of the run, as it was given.
      workdir: of the run.
      began_as: what it began with, where its work folder does not say.

    Raises:
      UserError: there is no run in the folder of init_from.
    """
    if config.init_from is None or config.task != "pose":
        return config
    begun = (workdir / "config.json").exists()
    old = began_as or load_run(workdir if begun else pathlib.Path(config.init_from))[0]
    network = config.fusion
    if old.task != "pose" or old.fusion.live is None or network.strategy not in ("learned", "free"):
        return config
    if network.live is not None or _depth(old) != _depth(config):
        return config
    return dataclasses.replace(config, network=dataclasses.replace(network, live=old.fusion.live))


def transfer(
    old: Mapping, old_constants: Mapping, old_config: Config, new: Mapping, new_constants: Mapping, config: Config
) -> tuple[Any, list[str]]:
    """(parameters, words on them): `new` with all that `old` can give, so that the network computes what it did.

    A layer of the same name and shape is copied. Where all of them could be, the output layer is rewritten by joint
    name: its poses are the old network's, converted as `skeletons.convert_joints` does, made relative to the new root
    and scaled for the new data; joints that the old layout cannot place stay new. First layers are rewritten by the
    names of the heatmaps' joints. alpha and beta start anew where the new config gives a beta or another L. A 2D
    network that is trained along stays the new run's, whole: half of one with the batch statistics of another is none.

    Args:
      old, new: parameter trees.
      old_constants, new_constants: pose_mean_mm and pose_std_mm, (J, 3) mm, of each.
      old_config, config: of the two runs.

    Raises:
      UserError: not one layer fits.
    """
    source, target = (_flat({k: v for k, v in tree.items() if k != HEATMAP_NETWORK}) for tree in (old, new))
    result, copied, fresh = dict(target), [], []
    depth, old_depth = (_depth(c) for c in (config, old_config))
    output, old_output = f"fusion_{depth + 1}", f"fusion_{old_depth + 1}"
    own = {"alpha", "beta"} if config.fusion.beta is not None or depth != old_depth else set()
    names, old_names = (_stream_names(c) for c in (config, old_config))
    channels = _input_channels(old_config.inputs, config.inputs, names)
    # The fusion stream's channels are the streams', one after another: of other streams they mean something else.
    fused_differently = names != old_names
    for path, value in target.items():
        if path[0] == output:
            continue
        left_out = path[0] in {old_output, *own} or (fused_differently and path[0].startswith("fusion_"))
        found = None if left_out else source.get(path)
        if found is not None and path[-1] == "kernel" and path[0] in channels and found.ndim == value.ndim == 4:
            found = _with_channels(found, value, channels[path[0]])
        if found is not None and found.shape == value.shape:
            result[path] = found
            copied.append(path[0])
        else:
            fresh.append(path[0])
    joints, unknown = "", "all"  # over a layer that is new the old output would mean nothing
    if not set(fresh) & {path[0] for path in target if path[-1] == "kernel"}:
        joints, unknown = _output_layer(
            result, source, output, old_output, old_constants, old_config, new_constants, config
        )
    if not copied:
        raise UserError(
            f"init_from: no layer fits; the run has {', '.join(_layers(source))}, this network "
            f"{', '.join(_layers(target))}"
        )
    lines = [f"took over {', '.join(dict.fromkeys(copied))}"]
    lines.append(f"output joints by name: {joints or 'none'}" + (f", new: {unknown}" if unknown else ""))
    left = [name for name in dict.fromkeys(fresh) if name not in own]
    if left:
        lines.append(f"left new: {', '.join(left)}")
    if own & set(fresh):
        lines.append("alpha, beta start anew")
    if HEATMAP_NETWORK in old:
        lines.append("its 2D network is not taken over; --heatmap-workdir says which one is used")
    theirs = {HEATMAP_NETWORK: new[HEATMAP_NETWORK]} if HEATMAP_NETWORK in new else {}
    return unflatten_dict(result) | theirs, lines


def pose_map(source: Skeleton, target: Skeleton) -> tuple[np.ndarray, list[str]]:
    """((J_target, J_source) float64, target joints that cannot be placed).

    Its product with a pose (J_source, 3) is that pose in the target layout, relative to the target's root; rows of
    joints that cannot be placed are zero. Where the root cannot be placed nothing can.
    """
    rows = np.zeros((target.num_joints, source.num_joints))
    unknown = []
    for row, (joint, group) in enumerate(zip(target.joints, stand_ins(source, target), strict=True)):
        if group:
            rows[row, list(group)] = 1 / len(group)
        else:
            unknown.append(joint)
    if set(unknown) & set(target.root):
        return np.zeros_like(rows), list(target.joints)
    placed = rows.any(1)
    rows[placed] -= rows[list(target.root_indices)].mean(0)
    return rows, unknown


def _output_layer(
    result, source, output, old_output, old_constants, old_config, new_constants, config
) -> tuple[str, str]:
    """Rewrites the output layer in `result`; returns the names of joints taken over and of those left new."""
    old_layout, layout = skeleton(old_config.inputs.skeleton), skeleton(config.inputs.skeleton)
    kernel, bias = (source.get((old_output, name)) for name in ("kernel", "bias"))
    new_kernel = result[(output, "kernel")]
    if kernel is None or bias is None or kernel.shape[0] != new_kernel.shape[0]:
        return "", "all"
    matrix, unknown = pose_map(old_layout, layout)
    old_mean, old_std = (np.asarray(old_constants[f"pose_{name}_mm"], np.float64) for name in ("mean", "std"))
    mean, std = (np.asarray(new_constants[f"pose_{name}_mm"], np.float64) for name in ("mean", "std"))
    in_mm = kernel.astype(np.float64).reshape(len(kernel), *old_std.shape) * old_std
    bias_mm = bias.astype(np.float64).reshape(old_std.shape) * old_std + old_mean
    placed = np.array([joint not in unknown for joint in layout.joints])
    columns = new_kernel.reshape(len(new_kernel), layout.num_joints, 3).copy()
    offsets = result[(output, "bias")].reshape(layout.num_joints, 3).copy()
    columns[:, placed] = (np.einsum("jk,ikc->ijc", matrix, in_mm) / std)[:, placed]
    offsets[placed] = ((matrix @ bias_mm - mean) / std)[placed]
    result[(output, "kernel")] = columns.reshape(new_kernel.shape)
    result[(output, "bias")] = offsets.reshape(-1)
    return ", ".join(j for j in layout.joints if j not in unknown), ", ".join(unknown)


def _input_channels(old: InputConfig, new: InputConfig, names: list[str]) -> dict[str, list[int | None]]:
    """For the first layers that read heatmaps: which old input channel each new one is; empty where all agree.

    Args:
      old, new: what the two networks read.
      names: of the streams, in the order in which the fusion stream reads them.
    """
    if old.heatmap_skeleton == new.heatmap_skeleton:
        return {}
    known = {name: index for index, name in enumerate(skeleton(old.heatmap_skeleton).joints)}
    heatmaps = [known.get(name) for name in skeleton(new.heatmap_skeleton).joints]
    counts, fused, before = stream_channels(old), list[int | None](), 0
    for name in names:
        own: list[int | None] = heatmaps if name == "heatmap" else list(range(counts.get(name, 0)))
        fused += [None if channel is None else before + channel for channel in own]
        before += counts.get(name, 0)
    return {"heatmap_1": heatmaps, "fusion_1": fused}


def _stream_names(config: Config) -> list[str]:
    return [stream.name for stream in active_streams(config.fusion.streams, config.fusion.strategy)]


def _with_channels(old: np.ndarray, new: np.ndarray, channels: list[int | None]) -> np.ndarray:
    """`new` (k, k, C, D) with the input channels that the old kernel has; `old` itself where they do not fit."""
    known = [index for index in channels if index is not None]
    fits = new.shape[2] == len(channels) and old.shape[2] > max(known, default=-1)
    if not fits or (*old.shape[:2], old.shape[3]) != (*new.shape[:2], new.shape[3]):
        return old
    kernel = new.copy()
    for index, channel in enumerate(channels):
        if channel is not None:
            kernel[:, :, index] = old[:, :, channel]
    return kernel


def _depth(config: Config) -> int:
    return len(active_streams(config.fusion.streams, config.fusion.strategy)[0].layers)


def _flat(tree: Mapping) -> Params:
    return {path: np.asarray(value) for path, value in flatten_dict(dict(tree)).items()}


def _layers(flat: Params) -> list[str]:
    return list(dict.fromkeys(f"{path[0]} {value.shape}" for path, value in flat.items() if path[-1] == "kernel"))
