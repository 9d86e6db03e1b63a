"""A pruned network against the whole one: forward pass on the same machine in one run, the two taking turns.

python benchmarks/prune.py --preset paper --beta 4.6 --alpha 20
"""

import dataclasses
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import header, write_json
from weights import random_state

from fusion_jax import cost
from fusion_jax.presets import preset
from fusion_jax.prune import alive, mixing_weights, removed_layers
from fusion_jax.state import make_network, network_variables


@dataclasses.dataclass(frozen=True)
class Args:
    """Time one preset's network before and after pruning."""

    preset: str = "paper"
    alpha: float = 20.0
    """Sharpness of the trained network."""
    beta: float = 4.6
    """Its fusion layer."""
    eps: float = 1e-3
    batch_sizes: tuple[int, ...] = (1, 16)
    repeats: int = 7
    json: pathlib.Path | None = None
    """File for the numbers."""


def main(args: Args) -> None:
    config = preset(args.preset)
    state = random_state(config, alpha=args.alpha, beta=args.beta)
    network, variables = state.network, network_variables(state)
    pruned, left = alive(config, variables["params"], args.eps)
    networks = {"whole": (network, variables)}
    networks["pruned"] = (make_network(pruned.fusion, pruned.inputs), {**variables, "params": left})
    weights = mixing_weights(config, variables["params"])
    numbers = {
        **{key: value for key, value in dataclasses.asdict(args).items() if key not in ("json", "batch_sizes")},
        "fusion_weights": [float(w) for w in weights],
        "removed": removed_layers(config, pruned),
        "parameters": {"whole": cost.parameters(config), "pruned": cost.parameters(pruned)},
        "gflops": {"whole": cost.gflops(config), "pruned": cost.gflops(pruned)},
        "xla_gflops": {"whole": cost.xla_gflops(config), "pruned": cost.xla_gflops(pruned)},
        "batches": [timed(networks, cost.example_shapes(config), size, args.repeats) for size in args.batch_sizes],
    }
    print(header())
    print(f"{args.preset}, alpha {args.alpha:g}, beta {args.beta:g}, float32; removed: {', '.join(numbers['removed'])}")
    for name in ("parameters", "gflops", "xla_gflops"):
        print(f"{name}: {numbers[name]['whole']:.7g} -> {numbers[name]['pruned']:.7g}")
    columns = {"batch": 5, "whole images/s": 16, "pruned images/s": 17, "faster": 8, "compile s": 16, "change mm": 11}
    print("".join(f"{name:>{width}s}" for name, width in columns.items()))
    for row in numbers["batches"]:
        whole, cut = (row["images_per_s"][name] for name in ("whole", "pruned"))
        compiling = " -> ".join(f"{row['compile_s'][name]:.1f}" for name in ("whole", "pruned"))
        print(
            f"{row['batch_size']:5d}{whole:16.2f}{cut:17.2f}{row['faster']:8.2f}{compiling:>16s}"
            f"{row['largest_change_mm']:11.2g}"
        )
    write_json(args.json, [numbers])


def timed(networks, shapes, batch_size: int, repeats: int) -> dict:
    """Images a second of each, the median of turns, its compilation apart; and how far the answers lie apart."""
    rng = np.random.default_rng(1)
    inputs = {name: jnp.asarray(rng.random((batch_size, *shape), np.float32)) for name, shape in shapes.items()}
    compiled, compiling, answers = {}, {}, {}
    for name, (network, variables) in networks.items():
        began = time.perf_counter()
        compiled[name] = jax.jit(network.apply).lower(variables, inputs).compile()
        compiling[name] = time.perf_counter() - began
        answers[name] = np.asarray(compiled[name](variables, inputs))  # warm
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats):
        for name, (_, variables) in networks.items():
            began = time.perf_counter()
            jax.block_until_ready(compiled[name](variables, inputs))
            seconds[name].append(time.perf_counter() - began)
    speeds = {name: batch_size / statistics.median(taken) for name, taken in seconds.items()}
    return {
        "batch_size": batch_size,
        "images_per_s": speeds,
        "faster": speeds["pruned"] / speeds["whole"],
        "seconds": seconds,
        "compile_s": compiling,
        "largest_change_mm": float(np.linalg.norm(answers["pruned"] - answers["whole"], axis=-1).max()),
    }


if __name__ == "__main__":
    main(tyro.cli(Args))
