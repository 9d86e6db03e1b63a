"""Steps on a mesh: which arrays are split, which are copied, and how host batches become global arrays.

The jitted functions are cached by mesh: a second run in one process compiles nothing that the first one has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusion_jax.errors import UserError
from fusion_jax.steps import eval_step, train_step


def data_mesh(devices: list | None = None) -> Mesh:
    """A one-axis mesh `data` over the devices (all of them without an argument)."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: the compiler places what the step does not pin; Explicit ones refuse the network's reshapes.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Split along the first axis, B."""
    return NamedSharding(mesh, PartitionSpec("data"))


@functools.cache
def jit_train_step(mesh: Mesh, step: Callable = train_step) -> Callable:
    """`train_step`, or another step like it, compiled for the mesh: state replicated and donated, batch split along B.

    Put the first state on the mesh (`jax.device_put(state, replicated(mesh))`): a state that is not there yet
    compiles the step a second time.
    """
    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, split), out_shardings=(whole, whole), donate_argnums=0)


@functools.cache
def jit_eval_step(mesh: Mesh, step: Callable = eval_step) -> Callable:
    """`eval_step`, or another like it, compiled for the mesh: state replicated, batch split, results on every host."""
    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, split), out_shardings=whole)


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
    return jax.tree.map(lambda value: jax.make_array_from_process_local_data(split, value), dict(batch))
