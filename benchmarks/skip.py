"""A training step without its dead layers against the whole one, in one run on one machine, the two taking turns.

python benchmarks/skip.py --preset paper --beta 4.6 --alpha 20

Beside both stands what Adam would take for the weights of the dead layers, which rest instead.
"""

import dataclasses
import pathlib
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import optax
import tyro
from timing import header, write_json
from weights import random_state

from fusion_jax import fusion
from fusion_jax.batch import fake_batch
from fusion_jax.optim import make_optimizer
from fusion_jax.presets import preset
from fusion_jax.prune import mixing_weights, resting_layers
from fusion_jax.sharding import data_mesh, global_batch, jit_train_step, replicated


@dataclasses.dataclass(frozen=True)
class Args:
    """Time one preset's training step with and without its dead layers."""

    preset: str = "paper"
    alpha: float = 20.0
    """Sharpness reached."""
    beta: float = 4.6
    """Fusion layer reached."""
    eps: float = 1e-3
    """As --skip-dead."""
    batch_size: int = 16
    repeats: int = 5
    json: pathlib.Path | None = None
    """File for the numbers."""


def main(args: Args) -> None:
    config, mesh = preset(args.preset), data_mesh()
    start = random_state(config, alpha=args.alpha, beta=args.beta)
    live = fusion.live_layers(mixing_weights(config, start.params), args.eps)
    cut = start.network.clone(live=live)
    dead = sorted(resting_layers(cut))
    batch, step = global_batch(fake_batch(config, args.batch_size), mesh), jit_train_step(mesh)
    turns = {"whole": start, "skipped": start.replace(network=cut)}
    runs = {name: Run(lambda state: step(state, batch), state, mesh) for name, state in turns.items()}
    idle = {name: start.params[name] for name in dead}
    runs["Adam, idle"] = Run(adam(config), (idle, make_optimizer(config.optim, config.steps).init(idle)), mesh)
    for _ in range(args.repeats):
        for run in runs.values():
            run.turn()
    numbers = {
        **{key: value for key, value in dataclasses.asdict(args).items() if key != "json"},
        "dead": dead,
        "parameters": {"all": size(start.params), "idle": size(idle)},
        "steps": {name: run.numbers() for name, run in runs.items()},
        "loss": {name: float(runs[name].measured["loss"]) for name in turns},
        "change": change(*(runs[name].state.params for name in turns), dead),
    }
    print(header())
    print(
        f"{args.preset}, batch {args.batch_size}, alpha {args.alpha:g}, beta {args.beta:g}, eps {args.eps:g}, float32"
    )
    print(f"dead: {', '.join(dead)}: {size(idle) / 1e6:.1f} of {size(start.params) / 1e6:.1f} M parameters")
    print(f"{'':12s}{'compile s':>11s}{'median s':>10s}{'least s':>10s}{'CPU s':>8s}{'images/s':>10s}{'faster':>8s}")
    slow = numbers["steps"]["whole"]["median_s"]
    for name, row in numbers["steps"].items():
        speed = f"{args.batch_size / row['median_s']:10.2f}{slow / row['median_s']:8.2f}" if name in turns else ""
        seconds = f"{row['median_s']:10.2f}{row['least_s']:10.2f}{row['cpu_s']:8.2f}"
        print(f"{name:12s}{row['compile_s']:11.1f}{seconds}{speed}")
    print(
        f"loss of step {args.repeats + 1}: {numbers['loss']['whole']:.7g} whole, {numbers['loss']['skipped']:.7g} "
        f"skipped; parameters that are read lie at most {numbers['change']:.2g} apart"
    )
    write_json(args.json, [numbers])


class Run:
    """A state and the step that takes it on; seconds of every turn, by the clock and of this process's CPUs."""

    def __init__(self, step, state, mesh):
        self._step = step
        self.state = jax.device_put(state, replicated(mesh), may_alias=False)  # the step uses up what it is given
        self._clock: list[float] = []
        self._cpu: list[float] = []
        self.turn()
        self._first = self._clock.pop()
        self._cpu.clear()

    def turn(self) -> None:
        clock, cpu = time.perf_counter(), cpu_seconds()
        self.state, self.measured = jax.block_until_ready(self._step(self.state))
        self._clock.append(time.perf_counter() - clock)
        self._cpu.append(cpu_seconds() - cpu)

    def numbers(self) -> dict:
        median = statistics.median(self._clock)
        return {
            "compile_s": self._first - median,
            "median_s": median,
            "least_s": min(self._clock),
            "cpu_s": statistics.median(self._cpu),
            "seconds": self._clock,
        }


def adam(config):
    """A run's optimiser on gradients of zero, as the training step calls it."""
    tx = make_optimizer(config.optim, config.steps)

    def step(state):
        params, moments = state
        updates, after = tx.update(jax.tree.map(jnp.zeros_like, params), moments, params)
        return (optax.apply_updates(params, updates), after), None

    return jax.jit(step, donate_argnums=0)


def change(whole: dict, skipped: dict, dead: list[str]) -> float:
    """The largest difference between parameters that are read."""
    read = [name for name in whole if name not in dead]
    pairs = [pair for name in read for pair in zip(*map(jax.tree.leaves, (whole[name], skipped[name])), strict=True)]
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


def size(params: dict) -> int:
    """Numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def cpu_seconds() -> float:
    """Of this process so far; where others take turns on the same cores they say more than the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(tyro.cli(Args))
