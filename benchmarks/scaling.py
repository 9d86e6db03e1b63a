"""How the cost of a training step grows: with the batch, the picture's size, the streams and the devices.

python benchmarks/scaling.py --preset tiny

Devices are simulated on the CPU, so nothing of theirs is timed: the table says what a device would send in a step, read
from the compiled program, against the least that data parallelism can do, 2 (N - 1) / N times the parameters' bytes.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, Literal

import jax
import tyro
from collectives import collectives
from timing import header, limit_threads, measure, write_json
from weights import made_batch, random_state, without_dropout

from fusion_jax import cost
from fusion_jax.batch import STREAMS
from fusion_jax.config import Config
from fusion_jax.presets import with_overrides
from fusion_jax.sharding import batch_sharding, data_mesh, global_batch, jit_train_step, replicated

Section = Literal["batch", "image", "streams", "devices"]


@dataclasses.dataclass(frozen=True)
class Args:
    """Time one preset's training step along each axis, the others as they are by default."""

    preset: str = "tiny"
    sections: tuple[Section, ...] = ("batch", "image", "streams", "devices")
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    image_sizes: tuple[int, ...] = (64, 112, 160, 256)
    streams: tuple[int, ...] = (2, 3, 4)
    """How many: image, heatmap, parts, silhouette, in this order."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    batch_size: int = 16
    """Where it is not what grows; a multiple of the devices."""
    threads: int | None = None
    """Cores; none: all."""
    repeats: int = 5
    json: pathlib.Path | None = None
    """File for the numbers."""
    child: int | None = None
    """Used by itself: only count what so many devices send."""


def main(args: Args) -> None:
    if args.child is not None:
        print(json.dumps(sent(without_dropout(with_overrides(args.preset)), args.batch_size)))
        return
    limit_threads(args.threads)
    print(header())
    rows = []
    runs: dict[str, list[tuple[int, dict[str, Any], int]]] = {
        "batch": [(size, {}, size) for size in args.batch_sizes],
        "image": [(size, {"image_size": size}, args.batch_size) for size in args.image_sizes],
        "streams": [(count, {"streams": STREAMS[:count]}, args.batch_size) for count in args.streams],
    }
    for section in args.sections:
        if section == "devices":
            rows += devices_section(args)
            continue
        print(f"{args.preset}, float32, a training step; " + (f"batch {args.batch_size}" if section != "batch" else ""))
        columns = {section: 8, "M params": 10, "GFLOP": 8, "compile s": 11, "ms": 10, "images/s": 10, "GFLOP/s": 9}
        print("".join(f"{name:>{width}s}" for name, width in columns.items()) + f"{'scratch MB':>12s}")
        for value, overrides, size in runs[section]:
            row = {"section": section, "preset": args.preset, section: value, "batch_size": size}
            row |= timed(without_dropout(with_overrides(args.preset, **overrides)), size, args.repeats)
            rows.append(row)
            print(
                f"{value:8d}{row['parameters'] / 1e6:10.2f}{row['forward_gflop']:8.3f}{row['compile_s']:11.1f}"
                f"{row['seconds'] * 1e3:10.1f}{row['images_per_s']:10.1f}{row['gflops_per_s']:9.1f}"
                f"{row['scratch_bytes'] / 1e6:12.0f}",
                flush=True,
            )
    print("GFLOP: forward, of one example; GFLOP/s count three times that; scratch: beside state and batch, by XLA")
    write_json(args.json, rows)


def timed(config: Config, size: int, repeats: int) -> dict[str, Any]:
    """Of one training step: its parts' sizes and how long it takes, compilation apart."""
    jax.clear_caches()  # or a row like an earlier one would compile nothing
    mesh = data_mesh(jax.devices()[:1])
    state = jax.device_put(random_state(config), replicated(mesh))
    batch = global_batch(made_batch(config, size), mesh)
    began = time.perf_counter()
    step = jit_train_step(mesh).lower(state, batch).compile()
    compiling, holder = time.perf_counter() - began, [state]

    def run():
        holder[0], measured = step(holder[0], batch)  # the old state is donated
        return holder[0].params, measured

    timing, forward = measure(run, repeats=repeats), cost.gflops(config)
    return {
        "parameters": cost.parameters(config),
        "forward_gflop": forward,
        "compile_s": compiling,
        "seconds": timing.median,
        "least": timing.least,
        "most": timing.most,
        "images_per_s": size / timing.median,
        "gflops_per_s": 3 * forward * size / timing.median,
        "scratch_bytes": step.memory_analysis().temp_size_in_bytes,
    }


def devices_section(args: Args) -> list[dict[str, Any]]:
    """One row for each number of devices, counted in a process that has so many."""
    print(f"{args.preset}, float32, batch {args.batch_size}, bytes that each of N simulated devices sends in a step")
    print(f"{'devices':>8s}{'collectives':>13s}{'MB sent':>10s}{'ideal MB':>10s}{'times':>8s}  kinds")
    rows = []
    for count in args.devices:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
        command = [sys.executable, __file__, "--preset", args.preset, "--batch-size", str(args.batch_size)]
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        run = subprocess.run([*command, "--child", str(count)], env=environment, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"counting for {count} devices ended with {run.returncode}:\n{run.stderr}")
        row = {"section": "devices", "preset": args.preset, "batch_size": args.batch_size}
        row |= json.loads(run.stdout.splitlines()[-1])
        assert row["devices"] == count, "the simulated devices did not come"
        rows.append(row)
        kinds = ", ".join(f"{number} {kind}" for kind, number in row["kinds"].items())
        times = f"{row['sent_bytes'] / row['ideal_bytes']:8.3f}" if row["ideal_bytes"] else f"{'-':>8s}"
        total = sum(row["kinds"].values())
        print(f"{count:8d}{total:13d}{row['sent_bytes'] / 1e6:10.3f}{row['ideal_bytes'] / 1e6:10.3f}{times}  {kinds}")
    return rows


def sent(config: Config, size: int) -> dict[str, Any]:
    """What each device of this process sends in a training step, and the least there is; nothing is run."""
    mesh = data_mesh()
    state = jax.eval_shape(lambda: random_state(config))
    batch = made_batch(config, size)

    def placed(tree, sharding):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    compiled = (
        jit_train_step(mesh).lower(placed(state, replicated(mesh)), placed(batch, batch_sharding(mesh))).compile()
    )
    count = mesh.size
    found = collectives(compiled.as_text(), count)
    kinds: dict[str, int] = {}
    for one in found:
        kinds[one.kind] = kinds.get(one.kind, 0) + one.times
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    ideal = 2 * (count - 1) / count * parameters
    return {"devices": count, "sent_bytes": sum(one.sent for one in found), "ideal_bytes": ideal, "kinds": kinds}


if __name__ == "__main__":
    main(tyro.cli(Args))
