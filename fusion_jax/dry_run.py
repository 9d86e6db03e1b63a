"""What a training step costs and whether it fits, before anything is trained: the step is compiled and never run.

No weights are drawn and no data is read: JAX needs shapes alone. The program is the one that training runs, so where
compiled programs are kept, training then finds it.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fusion_jax import sharding
from fusion_jax.batch import fake_batch
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.heatmap_steps import training_step
from fusion_jax.host_memory import ram
from fusion_jax.scoring import loaded_size
from fusion_jax.skeletons import skeleton
from fusion_jax.state import state_shapes

_AMPLE = 0.85  # of the limit


class StepCost(NamedTuple):
    """What `measure_step` found; bytes are for one device.

    Attributes:
      parameters: numbers that are trained.
      state_bytes: of the whole state: parameters, the optimiser's moments, constants.
      arguments, outputs, reused, temporaries, code: XLA's memory analysis; `reused` are outputs written over arguments.
      gflops: 1e9 operations of one step over the whole batch as XLA counts them before it optimises.
      compile_s: seconds to compile; little where the program was kept from before.
      devices: how many share the batch.
      device_kind: what they are.
    """

    parameters: int
    state_bytes: int
    arguments: int
    outputs: int
    reused: int
    temporaries: int
    code: int
    gflops: float
    compile_s: float
    devices: int
    device_kind: str

    @property
    def needed(self) -> int:
        """Bytes of one device that a running step takes, beside what libraries take for themselves.

        Measured on a CPU with preset paper, batch 16: 2.18 GB told, 2.46 to 2.50 GB taken.
        """
        return self.arguments + self.outputs - self.reused + self.temporaries + self.code


def batch_shapes(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a training batch of all hosts, as prepared data or live rendering gives it to the step."""
    size, side, own = config.batch_size, loaded_size(config), config.inputs
    shapes = {}
    for name, value in fake_batch(config, 1).items():
        pixels = (side, side) if name in ("image", "parts") else value.shape[1:3]
        shapes[name] = jax.ShapeDtypeStruct((size, *pixels, *value.shape[3:]), value.dtype)
    if config.heatmaps.source == "predicted" and not config.heatmaps.in_step:  # which come with the examples
        maps = (size, own.heatmap_size, own.heatmap_size, skeleton(own.heatmap_skeleton).num_joints)
        shapes["heatmap"] = jax.ShapeDtypeStruct(maps, np.float32)
    return shapes


def measure_step(config: Config, mesh: jax.sharding.Mesh, shard_params: bool = False) -> StepCost:
    """Compiles the training step of a run for a mesh and asks XLA what it costs.

    With `shard_params` the state is split over the mesh as `sharding.state_shardings` says.

    Raises:
      UserError: the batch does not divide over the devices, or the compiler itself runs out of a device's memory.
    """
    if config.batch_size % mesh.size:
        raise UserError(
            f"a batch of {config.batch_size} does not divide over {mesh.size} devices; choose a multiple of {mesh.size}"
        )
    state = state_shapes(config)
    if shard_params:
        places = sharding.state_shardings(mesh, state, True)
        state = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places)
    step: Any = sharding.jit_train_step(mesh, training_step(config), shard_params)
    traced = step.trace(state, batch_shapes(config))
    # For a TPU, whose convolutions are plain ones: a CPU's loops over tiles would be counted as one turn each.
    counted: Any = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    lowered = traced.lower()
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        why = str(error).splitlines()[0][:300]
        raise UserError(
            f"the step does not fit in the memory of {_kind(mesh)} ({why}); {_advice(config, mesh, shard_params)}"
        ) from error
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    leaves = jax.tree.leaves((state.params, state.constants, state.opt_state))
    return StepCost(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        reused=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        gflops=float(counted["flops"]) / 1e9,
        compile_s=seconds,
        devices=mesh.size,
        device_kind=_kind(mesh),
    )


def device_limit(mesh: jax.sharding.Mesh) -> tuple[int | None, str]:
    """Bytes that JAX may take of one device, and what that number is; None where nobody tells.

    Devices of a CPU share the RAM that is free now.
    """
    device = mesh.local_devices[0]
    told = device.memory_stats() or {}
    if "bytes_limit" in told:
        return int(told["bytes_limit"]), f"what JAX may take of one {device.device_kind}"
    memory = ram() if device.platform == "cpu" else None
    if memory is None:
        return None, "unknown"
    local = len(mesh.local_devices)
    return memory.available // local, "of free RAM" + (f" for each of {local} devices" if local > 1 else "")


def dry_run(
    config: Config, mesh: jax.sharding.Mesh, memory_limit: float | None = None, shard_params: bool = False
) -> str:
    """What the step costs, as text; nothing is written anywhere but where compiled programs are kept.

    Args:
      config: of the run.
      mesh: the devices to compile for.
      memory_limit: GB (1e9 bytes) of one device, to plan for another than those of the mesh; none: theirs.
      shard_params: whether the state is split over them.

    Raises:
      UserError: the step does not fit, with both numbers and what makes it smaller; the text is printed before.
    """
    if memory_limit is not None and not 0 < memory_limit < math.inf:
        raise UserError(f"--memory-limit is {memory_limit}, expected a positive number of GB")
    cost = measure_step(config, mesh, shard_params)
    limit, what = device_limit(mesh)
    if memory_limit is not None:
        limit, what = round(memory_limit * 1e9), "--memory-limit"
    lines = [*_cost_lines(config, cost), f"limit        {_size(limit)}, {what}" if limit else "limit        unknown"]
    if limit is not None and cost.needed > limit:
        print("\n".join(lines))
        raise UserError(
            f"a step of {config.batch_size} examples needs {_size(cost.needed)} of each of {cost.devices} "
            f"{cost.device_kind}, and the limit is {_size(limit)} ({what}); {_advice(config, mesh, shard_params)}"
        )
    if limit is None:
        return "\n".join(lines)
    word = "fits" if cost.needed < _AMPLE * limit else "fits, with little to spare for the libraries below the step"
    return "\n".join([*lines, f"{word}: {100 * cost.needed / limit:.1f} % of the limit; nothing was trained"])


def _cost_lines(config: Config, cost: StepCost) -> list[str]:
    share = config.batch_size // cost.devices
    return [
        f"{config.preset}: a step of {config.batch_size} examples on {cost.devices} x {cost.device_kind}, {share} each",
        f"parameters   {cost.parameters:,}",
        f"state        {_size(cost.state_bytes)}: parameters, the optimiser's moments, constants",
        f"a device     {_size(cost.needed)} while a step runs, as compiled for {cost.device_kind}:",
        f"             {_size(cost.arguments)} arguments, {_size(cost.temporaries)} temporaries,",
        f"             {_size(cost.outputs)} results ({_size(cost.reused)} in the place of arguments),",
        f"             {_size(cost.code)} program",
        f"work         {cost.gflops:,.2f} GFLOP a step, all devices together",
        f"compiling    {cost.compile_s:.1f} s",
    ]


def _advice(config: Config, mesh: jax.sharding.Mesh, shard_params: bool) -> str:
    """What makes a step smaller, what is left to try of it."""
    ways = ["a smaller --batch-size"]
    if config.network.compute_dtype != "bfloat16":
        ways.append("--compute-dtype bfloat16")
    if mesh.size > 1 and not shard_params:
        ways.append("--shard-params")
    return f"try {', '.join(ways)} or more devices"


def _kind(mesh: jax.sharding.Mesh) -> str:
    return mesh.devices.flat[0].device_kind


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
