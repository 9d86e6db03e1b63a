"""Steps on a mesh: which arrays are split, which are copied, and how host batches become global arrays.

The jitted functions are cached by mesh: a second run in one process compiles nothing that the first one has.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusion_jax.errors import UserError
from fusion_jax.state import TrainState
from fusion_jax.steps import eval_step, train_step


def data_mesh(devices: list | None = None) -> Mesh:
    """A one-axis mesh `data` over the devices (all of them without an argument)."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: the compiler places what the step does not pin; Explicit ones refuse the network's reshapes.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def on_one_device(tree: Any) -> Any:
    """Arrays that every device has whole, on this host's first one."""
    if jax.process_count() > 1:  # what also lies on other hosts cannot be moved by one alone
        tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
    return jax.device_put(tree, jax.local_devices()[0])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Split along the first axis, B."""
    return NamedSharding(mesh, PartitionSpec("data"))


SPLIT_FROM = 2**16
"""Elements from which an array of the state is worth splitting: a smaller one costs more to collect than to keep."""


def state_shardings(mesh: Mesh, shapes: Any, shard_params: bool) -> Any:
    """Where the leaves of a state lie, as a tree like it of NamedSharding.

    Args:
      mesh: its devices.
      shapes: a state, or a part of one: arrays, or their shapes as of `jax.eval_shape`.
      shard_params: whether large leaves, which are parameters and Adam's two moments, are split along their largest
        axis that divides by the number of devices (the last of equal ones). All else is on every device.
    """

    def place(leaf: Any) -> NamedSharding:
        fit = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not shard_params or mesh.size == 1 or math.prod(leaf.shape) < SPLIT_FROM or not fit:
            return replicated(mesh)
        longest = max(fit, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "data"))

    return jax.tree.map(place, shapes)


@functools.cache
def jit_train_step(mesh: Mesh, step: Callable = train_step, shard_params: bool = False) -> Callable:
    """`train_step`, or another step like it, compiled for the mesh: state donated, batch split along B.

    Put the first state on the mesh (`jax.device_put(state, state_shardings(mesh, state, shard_params))`): a state that
    is not there yet compiles the step a second time.

    Args:
      shard_params: whether the state is split as `state_shardings` says; if not, every device has all of it.
    """
    whole, split = replicated(mesh), batch_sharding(mesh)
    if not shard_params:
        return jax.jit(step, in_shardings=(whole, split), out_shardings=(whole, whole), donate_argnums=0)

    def sharded_step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        state, measured = step(state, batch)
        return jax.lax.with_sharding_constraint(state, state_shardings(mesh, state, True)), measured

    # The state's own places are pinned within: out here they would need its shapes.
    return jax.jit(sharded_step, in_shardings=(None, split), out_shardings=(None, whole), donate_argnums=0)


def pmap_train_step(axis_name: str = "batch", step: Callable = train_step) -> Callable:
    """`train_step`, or another that takes an `axis_name`, for a trainer of your own that runs under `jax.pmap`.

        step = jax.pmap(fj.pmap_train_step("batch"), axis_name="batch")
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (devices, *x.shape)), state)
        states, measured = step(states, batches)  # batches: (devices, B / devices, ...)

    Loss and gradients are means over the devices, which have equal shares of the batch: as the loss is a mean over
    examples, joints that are not known included, they are those of `jit_train_step` on the whole batch, and all
    devices hold the same state. Metrics are global and the same on each. Dropout and noise on heatmaps are drawn by
    each device for itself, so they are others than on a mesh.
    """
    return functools.partial(step, axis_name=axis_name)


@functools.cache
def jit_eval_step(mesh: Mesh, step: Callable = eval_step) -> Callable:
    """`eval_step`, or another like it, compiled for the mesh: the state as it lies there, whole or split, the batch
    split, results on every host."""
    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(None, split), out_shardings=whole)


@functools.cache
def map_split(function: Callable, mesh: Mesh) -> Callable:
    """`function` of batched arrays run by each device on its own part of the batch."""
    spec = PartitionSpec("data")
    # The function's loops start from constants, which the check of varying axes would want cast.
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def global_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """This host's part of a batch as global arrays, split over the mesh along B.

    Raises:
      UserError: the batch does not divide over the local devices.
    """
    local = len(mesh.local_devices)
    size = len(jax.tree.leaves(batch)[0])
    if size % local:
        raise UserError(f"a host batch of {size} does not divide over {local} devices; choose a multiple of {local}")
    split = batch_sharding(mesh)
    with jax.transfer_guard("allow"):  # of several processes' batches JAX itself takes this for an implicit transfer
        return jax.tree.map(lambda value: jax.make_array_from_process_local_data(split, value), dict(batch))


def local_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Which rows of a global batch of `size` are those that this host gave to `global_batch`, in its own order."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    return np.sort(np.concatenate([np.arange(size)[part] for part in parts if part is not None]))
