"""Many runs of one shape in one compiled step: vmapped over members, spread over devices, one batch for all."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fusion_jax.batch import Batch
from fusion_jax.config import Config
from fusion_jax.sharding import data_mesh
from fusion_jax.state import TrainState, create_state
from fusion_jax.steps import Metrics, train_step
from fusion_jax.switched import MIXED, Switch, switch, switched_state


def member_step(states: TrainState, lambdas: jax.Array, batch: Batch) -> tuple[TrainState, Metrics]:
    """`train_step` of M runs on one and the same batch; states and metrics have a first axis M, `lambdas` is (M,)."""

    def step(state: TrainState, weight: jax.Array) -> tuple[TrainState, Metrics]:
        after, measured = train_step(state.replace(alpha_penalty_weight=weight), batch)
        return after.replace(alpha_penalty_weight=state.alpha_penalty_weight), measured

    return jax.vmap(step)(states, lambdas)


def member_mesh(count: int, devices: list | None = None) -> Mesh:
    """A mesh over this process's devices, or as many of them as there are members; see `padded`."""
    devices = jax.local_devices() if devices is None else devices
    return data_mesh(devices[: min(count, len(devices))])


def padded(configs: list[Config], mesh: Mesh) -> list[Config]:
    """The members with the last one again as often as it takes to give every device equally many."""
    return [*configs, *configs[-1:] * (-len(configs) % mesh.size)]


def member_sharding(mesh: Mesh) -> NamedSharding:
    """Split along the first axis, M."""
    return NamedSharding(mesh, PartitionSpec("data"))


@functools.cache
def jit_member_step(mesh: Mesh) -> Callable:
    """`member_step` compiled for the mesh: each device has its own members and the whole batch. States are donated."""
    split, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        member_step, mesh=mesh, in_specs=(split, split, whole), out_specs=(split, split), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def member_states(
    configs: list[Config], mesh: Mesh, pose_mean_mm: np.ndarray, pose_std_mm: np.ndarray
) -> tuple[TrainState, jax.Array]:
    """(states before the first step, lambdas) of M runs of one shape, on the mesh, split along M.

    Args:
      configs: of equal `switched.shape_key`.
      mesh: of a number of devices that divides M, see `padded`.
      pose_mean_mm, pose_std_mm: (J, 3) of the training poses.
    """
    split, first = member_sharding(mesh), configs[0]
    if first.fusion.strategy in MIXED:
        switches: Switch = jax.tree.map(lambda *leaves: _stack(leaves), *map(switch, configs))
        lambdas = switches.alpha_penalty_weight
        create = functools.partial(_switched, first)
        states = jax.jit(create, out_shardings=split)(switches, pose_mean_mm, pose_std_mm)
    else:
        keys = _stack([jax.random.key(config.seed) for config in configs])
        lambdas = np.zeros(len(configs), np.float32)
        create = functools.partial(_lone, first)
        states = jax.jit(create, out_shardings=split)(keys, pose_mean_mm, pose_std_mm)
    return states, jax.device_put(lambdas, split)


def _switched(config: Config, switches: Switch, mean: np.ndarray, std: np.ndarray) -> TrainState:
    return jax.vmap(functools.partial(switched_state, config), (0, None, None))(switches, mean, std)


def _lone(config: Config, keys: jax.Array, mean: np.ndarray, std: np.ndarray) -> TrainState:
    return jax.vmap(functools.partial(create_state, config), (0, None, None))(keys, mean, std)


def _stack(leaves):
    return jax.numpy.stack(leaves) if isinstance(leaves[0], jax.Array) else np.stack(leaves)
