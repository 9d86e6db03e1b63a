"""The training and the evaluation step alone, on a batch that is already on the device.

python benchmarks/step.py --preset tiny --batch-size 32
"""

import dataclasses
import time

import jax
import tyro
from timing import header, measure

from fusion_jax.batch import fake_batch
from fusion_jax.presets import preset
from fusion_jax.sharding import data_mesh, global_batch, jit_eval_step, jit_train_step, replicated
from fusion_jax.state import create_state


@dataclasses.dataclass(frozen=True)
class Args:
    """Time one preset's steps."""

    preset: str = "tiny"
    batch_size: int = 32
    strategies: tuple[str, ...] = ("learned", "image", "heatmap")


def main(args: Args) -> None:
    mesh = data_mesh()
    print(header())
    print(f"{args.preset}, batch {args.batch_size}, float32")
    print(f"{'strategy':12s}{'params':>10s}{'compile s':>11s}{'train ms':>10s}{'images/s':>10s}{'eval images/s':>15s}")
    for strategy in args.strategies:
        config = preset(args.preset)
        config = dataclasses.replace(config, network=dataclasses.replace(config.network, strategy=strategy))
        create = jax.jit(create_state, static_argnums=0, out_shardings=replicated(mesh))
        state = create(config, jax.random.key(0))
        batch = global_batch(fake_batch(config, args.batch_size), mesh)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        evaluation = measure(jit_eval_step(mesh), state, batch)
        step = jit_train_step(mesh)
        began = time.perf_counter()
        state, measured = step(state, batch)
        jax.block_until_ready(measured)
        compiling = time.perf_counter() - began
        holder = [state]

        def train(step=step, holder=holder, batch=batch):
            holder[0], measured = step(holder[0], batch)  # the old state is donated
            return measured

        timing = measure(train)
        print(
            f"{strategy:12s}{parameters / 1e6:9.2f}M{compiling:11.1f}{timing.median * 1e3:10.1f}"
            f"{args.batch_size / timing.median:10.0f}{args.batch_size / evaluation.median:15.0f}"
        )


if __name__ == "__main__":
    main(tyro.cli(Args))
