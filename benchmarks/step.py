"""Training step and inference, ours against a PyTorch twin of the same network, in turns, on inputs made already.

python benchmarks/step.py --preset paper --batch-size 16 64

Before anything is timed the twin's poses and gradients are compared with ours, see twin.py. PyTorch runs channels_last,
eager and compiled, and counts at its faster. Without PyTorch our column is printed alone.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, Literal

import jax
import tyro
from timing import Timing, header, limit_threads, take_turns, usable_cores, write_json
from weights import made_batch, random_state, without_dropout

from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.presets import with_overrides
from fusion_jax.prune import alive, removed_layers
from fusion_jax.sharding import data_mesh, global_batch, jit_eval_step, jit_train_step, replicated
from fusion_jax.state import TrainState, make_network
from fusion_jax.steps import predict_step

INSTALL = "PyTorch is not here, so our column stands alone: pip install -e '.[benchmarks]'"


@dataclasses.dataclass(frozen=True)
class Args:
    """Time one preset's steps."""

    preset: str = "tiny"
    batch_size: tuple[int, ...] = (16, 64)
    strategies: tuple[str, ...] = ("learned",)
    beta: float | None = None
    """Fusion layer of `fixed`, start of `learned`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations; PyTorch's by autocast."""
    threads: int | None = None
    """Cores for both; none: all."""
    repeats: int = 7
    compiled: bool = True
    """Time PyTorch compiled as well."""
    pruned: bool = True
    """Also our network pruned after sharp late fusion against PyTorch's soft one, inference, strategy `learned`."""
    pruned_alpha: float = 20.0
    pruned_beta: float = 4.6
    memory: bool = True
    """Peak memory of each side, in processes of their own."""
    json: pathlib.Path | None = None
    """File for the numbers."""


def main(args: Args) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared by both
    limit_threads(args.threads)
    rows = []
    print(header())
    for strategy in args.strategies:
        overrides: dict[str, Any] = {"strategy": strategy, "compute_dtype": args.dtype}
        overrides["beta"] = args.beta if strategy in ("fixed", "learned") else None
        config = without_dropout(with_overrides(args.preset, **overrides))
        rows += of_strategy(config, args)
    print("images/s: median (least - most) of turns; times: ours / PyTorch's better one")
    print("memory, MB: parameters, optimiser, activations and compiled code / the whole process, compiling included")
    write_json(args.json, rows)


def of_strategy(config: Config, args: Args) -> list[dict[str, Any]]:
    """Rows of one strategy, printed as they come."""
    state = random_state(config).replace(opt_state=None)  # whose moments would only take memory here
    twin = checked_twin(config, state)
    rows = []
    name = f"{args.preset}, {config.fusion.strategy}, {args.dtype}"
    print(f"{name}; {sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1e6:.2f} M parameters")
    columns = {"": 18, "batch": 6, "first s": 24, "ours": 28, "PyTorch eager": 28, "compiled": 28, "times": 7}
    print("".join(f"{column:>{width}s}" for column, width in columns.items()) + f"{'ours MB':>14s}{'PyTorch MB':>14s}")
    for size in args.batch_size:
        batch = made_batch(config, size)
        contests = {"training": train_contest, "inference": inference_contest}
        if args.pruned and config.fusion.strategy == "learned":
            contests["inference, pruned"] = pruned_contest
        for what, contest in contests.items():
            ours, note = contest(config, args, batch)
            theirs = {} if twin is None else their_turns(twin, config, state, batch, what == "training", args)
            timings = take_turns({"ours": ours, **theirs}, args.repeats)
            row = {"preset": args.preset, "strategy": config.fusion.strategy, "dtype": args.dtype, "what": what}
            row |= {"batch_size": size, "threads": args.threads, **note, **numbers(timings, size)}
            if args.memory and what in ("training", "inference"):
                kind = "train" if what == "training" else "inference"
                sides = ("ours", "torch") if twin is not None else ("ours",)
                row["memory"] = {side: memory(side, kind, config, args, size) for side in sides}
            rows.append(row)
            print_row(row)
            del ours, theirs  # and what they hold
    return rows


def checked_twin(config: Config, state: TrainState) -> Any:
    """PyTorch's network with the same weights, once it is known to compute the same; None without PyTorch."""
    try:
        import torch
    except ModuleNotFoundError:
        print(INSTALL)
        return None
    from twin import Twin, check_equal, copy_weights

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if (jax.default_backend() == "cpu") != (device == "cpu"):
        print(f"PyTorch runs on {device} and JAX on {jax.default_backend()}: nothing to compare, our column alone")
        return None
    torch.set_num_threads(usable_cores())
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # its helpers would be forks of a process with threads
    twin = Twin(config).to(device)
    copy_weights(twin, state)
    exact = state.replace(
        network=make_network(dataclasses.replace(config.fusion, compute_dtype="float32"), config.inputs)
    )
    began = time.perf_counter()
    found = check_equal(twin, exact, [made_batch(config, 2, seed) for seed in range(3)])
    worst = max(found, key=lambda name: found[name])
    print(
        f"the same weights give the same poses (to {found['pose_mm']:.1g} of their norm) and gradients (to "
        f"{found[worst]:.1g}, {worst}); {time.perf_counter() - began:.0f} s"
    )
    if device == "cuda":  # as XLA does by default
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return twin


def train_contest(config: Config, args: Args, batch: dict) -> tuple[Any, dict]:
    """Our training step, as a function that returns when it is done, and what the row has to say of it."""
    mesh = data_mesh()
    step, holder = jit_train_step(mesh), [jax.device_put(random_state(config), replicated(mesh))]
    given = global_batch(batch, mesh)

    def run() -> None:
        holder[0], measured = step(holder[0], given)  # the old state is donated
        jax.block_until_ready((holder[0].params, measured))

    return run, {}


def inference_contest(config: Config, args: Args, batch: dict) -> tuple[Any, dict]:
    return predict(random_state(config), batch), {}


def pruned_contest(config: Config, args: Args, batch: dict) -> tuple[Any, dict]:
    """A network of sharp late fusion without its dead layers."""
    depth = len(config.fusion.streams[0].layers)
    if not 0 < args.pruned_beta <= depth:
        raise UserError(f"--pruned-beta {args.pruned_beta}: expected in (0, {depth}], or --no-pruned")
    sharp = random_state(config, alpha=args.pruned_alpha, beta=args.pruned_beta)
    pruned, left = alive(config, sharp.params)
    state = sharp.replace(params=left, network=make_network(pruned.fusion, pruned.inputs), opt_state=None)
    note = {"alpha": args.pruned_alpha, "beta": args.pruned_beta, "removed": removed_layers(config, pruned)}
    return predict(state, batch), note


def predict(state: TrainState, batch: dict) -> Any:
    mesh = data_mesh()
    state = jax.device_put(state.replace(opt_state=None), replicated(mesh))
    given = global_batch({name: batch[name] for name in batch if name not in ("pose_mm", "valid")}, mesh)
    step = jit_eval_step(mesh, predict_step)
    return lambda: jax.block_until_ready(step(state, given))


def their_turns(
    twin: Any, config: Config, state: TrainState, batch: dict, training: bool, args: Args
) -> dict[str, Any]:
    """PyTorch's functions by how they run; compiled is left out, with a note, where it cannot be."""
    import torch
    from twin import Trainer, compiler_fault, copy_weights, twin_inputs

    device = twin.output.weight.device.type
    inputs, *labels = twin_inputs(state, batch, device)
    copy_weights(twin, state)  # of the same start for every row
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def infer(network) -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            network(inputs)
        sync()

    def train(trainer) -> None:
        trainer.step(inputs, *labels)
        sync()

    fault = compiler_fault(twin, inputs) if args.compiled else None
    if fault:
        print(f"PyTorch eager alone, its compiler does not work here: {fault}")
    ways = {"eager": False, "compiled": True} if args.compiled and not fault else {"eager": False}
    if training:
        return {name: functools.partial(train, Trainer(twin, config, way)) for name, way in ways.items()}
    return {name: functools.partial(infer, torch.compile(twin) if way else twin) for name, way in ways.items()}


def numbers(timings: dict[str, Timing], size: int) -> dict[str, Any]:
    """Of a row: seconds and images/s of each side, and how many times PyTorch's better one ours is."""
    speeds = {name: size / timing.median for name, timing in timings.items()}
    found: dict[str, Any] = {"images_per_s": speeds, "seconds": {n: t._asdict() for n, t in timings.items()}}
    theirs = {name: speed for name, speed in speeds.items() if name != "ours"}
    if theirs:
        found["torch_best"] = max(theirs, key=lambda name: theirs[name])
        found["times"] = speeds["ours"] / theirs[found["torch_best"]]
    return found


def memory(side: str, what: str, config: Config, args: Args, size: int) -> dict[str, int]:
    """What memory.py says in a process of its own."""
    command = [sys.executable, str(pathlib.Path(__file__).parent / "memory.py"), "--side", side, "--what", what]
    command += ["--preset", args.preset, "--strategy", config.fusion.strategy, "--dtype", args.dtype]
    command += ["--batch-size", str(size)] + ([] if config.fusion.beta is None else ["--beta", str(config.fusion.beta)])
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def print_row(row: dict[str, Any]) -> None:
    def speed(name: str) -> str:
        if name not in row["seconds"]:
            return "-"
        taken, size = row["seconds"][name], row["batch_size"]
        return f"{size / taken['median']:.1f} ({size / taken['most']:.1f} - {size / taken['least']:.1f})"

    def megabytes(side: str) -> str:
        if side not in row.get("memory", {}):
            return "-"
        found = row["memory"][side]
        return f"{(found['peak'] - found['imported']) / 1e6:.0f} / {found['process'] / 1e6:.0f}"

    first = " / ".join(f"{taken['first']:.1f}" for taken in row["seconds"].values())
    times = f"{row['times']:.2f}" if "times" in row else "-"
    print(
        f"{row['what']:>18s}{row['batch_size']:6d}{first:>24s}"
        + "".join(f"{speed(name):>28s}" for name in ("ours", "eager", "compiled"))
        + f"{times:>7s}{megabytes('ours'):>14s}{megabytes('torch'):>14s}",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
