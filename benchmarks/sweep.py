"""Fusion at every layer trained together in one program, against the same runs one after the other.

python benchmarks/sweep.py --preset tiny --batch-size 32 --steps 40
"""

import dataclasses
import json
import os
import time

import jax
import numpy as np
import tyro
from timing import header

from fusion_jax.batch import fake_batch
from fusion_jax.presets import preset
from fusion_jax.sharding import data_mesh, jit_train_step, replicated
from fusion_jax.skeletons import skeleton
from fusion_jax.state import create_state
from fusion_jax.sweep_steps import jit_member_step, member_mesh, member_states


@dataclasses.dataclass(frozen=True)
class Args:
    """Time both ways on a batch that is on the device already."""

    preset: str = "tiny"
    batch_size: int = 32
    steps: int = 40
    """Timed steps of each run, after the first, which compiles."""


def timed(step, state, *rest, steps: int) -> tuple[float, float]:
    """Seconds of the first call, compilation included, and of `steps` further ones."""
    began = time.perf_counter()
    state, measured = step(state, *rest)
    jax.block_until_ready(measured)
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(steps):
        state, measured = step(state, *rest)
    jax.block_until_ready((state, measured))
    return first, time.perf_counter() - began


def main(args: Args) -> None:
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)  # as `fusion-jax sweep` does
    base = preset(args.preset)
    depth = len(base.fusion.streams[0].layers)
    networks = [dataclasses.replace(base.fusion, strategy="fixed", beta=float(beta)) for beta in range(depth + 1)]
    configs = [dataclasses.replace(base, network=network) for network in networks]
    joints = (skeleton(base.inputs.skeleton).num_joints, 3)
    mean, std = np.zeros(joints, np.float32), np.ones(joints, np.float32)
    batch = fake_batch(base, args.batch_size)

    mesh = member_mesh(len(configs))
    states, lambdas = member_states(configs, mesh, mean, std)
    placed = jax.device_put(batch, replicated(mesh))
    first, rest = timed(jit_member_step(mesh), states, lambdas, placed, steps=args.steps)
    rows = [("together", first, rest)]

    one = data_mesh(jax.devices()[:1])
    create = jax.jit(create_state, static_argnums=0, out_shardings=replicated(one))
    placed = jax.device_put(batch, replicated(one))
    each = []
    for config in configs:
        state = create(config, jax.random.key(0), mean, std)
        each.append(timed(jit_train_step(one), state, placed, steps=args.steps))
    rows.append(("one after the other", sum(first for first, _ in each), sum(rest for _, rest in each)))

    print(header())
    print(f"{args.preset}, batch {args.batch_size}, fixed at 0 .. {depth}: {len(configs)} runs of {args.steps} steps")
    print(f"{'':22s}{'compile s':>11s}{'steps s':>10s}{'in all s':>10s}{'ms a run and step':>20s}")
    for name, first, rest in rows:
        per_step = 1e3 * rest / args.steps / len(configs)
        print(f"{name:22s}{first:11.1f}{rest:10.1f}{first + rest:10.1f}{per_step:20.1f}")
    (_, first, rest), (_, firsts, rests) = rows
    equal = (firsts - first) / max(rest - rests, 1e-9) * args.steps
    if rest > rests:
        print(
            f"together is the faster way up to about {equal:.0f} steps: what it saves compiling, its dead layers cost"
        )
    print(json.dumps({name: {"compile_s": first, "steps_s": rest} for name, first, rest in rows}))


if __name__ == "__main__":
    main(tyro.cli(Args))
