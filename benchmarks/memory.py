"""Peak memory of one network, trained or applied, in a process of its own; step.py starts it.

python benchmarks/memory.py --side ours --preset paper --batch-size 16

Prints one line of JSON, bytes: `imported` before any parameter is there, `ready` before the first step with the
compiled step, parameters, optimiser state and batch in place (PyTorch makes its optimiser's state in the first step),
`peak` of the steps, `process` with all that went before, compilation included.
"""

import dataclasses
import json
import pathlib
import resource
import sys
from typing import Any, Literal

import jax
import tyro

from fusion_jax.presets import with_overrides


@dataclasses.dataclass(frozen=True)
class Args:
    """Run a few steps and say what they took."""

    side: Literal["ours", "torch"]
    what: Literal["train", "inference"] = "train"
    preset: str = "tiny"
    strategy: str = "learned"
    beta: float | None = None
    batch_size: int = 16
    dtype: str = "float32"
    steps: int = 3


def main(args: Args) -> None:
    from weights import without_dropout

    overrides: dict[str, Any] = {"strategy": args.strategy, "beta": args.beta, "compute_dtype": args.dtype}
    config = without_dropout(with_overrides(args.preset, **overrides))
    print(json.dumps((ours if args.side == "ours" else theirs)(config, args)))


def ours(config, args: Args) -> dict[str, int]:
    from weights import made_batch, random_state

    from fusion_jax.sharding import data_mesh, global_batch, jit_eval_step, jit_train_step, replicated
    from fusion_jax.steps import predict_step

    device, mesh = jax.devices()[0], data_mesh()
    jax.block_until_ready(jax.numpy.zeros(1) + 1)  # the backend is there
    imported = resident()
    state = jax.device_put(random_state(config), replicated(mesh))
    batch = global_batch(made_batch(config, args.batch_size), mesh)
    train = args.what == "train"
    step = (jit_train_step(mesh) if train else jit_eval_step(mesh, predict_step)).lower(state, batch).compile()
    before, ready = peak(), resident()
    forget_peak()
    for _ in range(args.steps):
        if train:
            state, measured = step(state, batch)
        else:
            measured = step(state, batch)
        jax.block_until_ready(measured)
    if device.platform == "cpu":
        return {"imported": imported, "ready": ready, "peak": peak(), "process": max(before, peak())}
    used = (device.memory_stats() or {})["peak_bytes_in_use"]
    return {"imported": 0, "ready": 0, "peak": used, "process": used}


def theirs(config, args: Args) -> dict[str, int]:
    """PyTorch, eager: compiling would add the compiler's own memory."""
    import torch
    from timing import usable_cores
    from twin import Trainer, Twin

    from fusion_jax import cost

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(usable_cores())
    torch.zeros(1, device=device) + 1
    imported = resident()
    twin = Twin(config).to(device)
    shapes, size, joints = cost.example_shapes(config), args.batch_size, len(twin.pose_mean_mm)
    inputs = {name: torch.rand(size, *shape, device=device).permute(0, 3, 1, 2) for name, shape in shapes.items()}
    labels = torch.rand(size, joints, 3, device=device), torch.ones(size, joints, dtype=torch.bool, device=device)
    trainer = Trainer(twin, config)
    before, ready = peak(), resident()
    forget_peak()
    for _ in range(args.steps):
        if args.what == "train":
            trainer.step(inputs, *labels)
        else:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
                twin(inputs)
    if device == "cpu":
        return {"imported": imported, "ready": ready, "peak": peak(), "process": max(before, peak())}
    return dict.fromkeys(("imported", "ready"), 0) | dict.fromkeys(
        ("peak", "process"), torch.cuda.max_memory_allocated()
    )


def resident() -> int:
    """Bytes of this process in memory now; where the kernel does not say, the most there have been."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most bytes since `forget_peak`.

    Linux' ru_maxrss would not do: a child begins with its parent's, as the two are one until the child's program
    starts.
    """
    found = _status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found or most * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Begins a new peak, on Linux; elsewhere the old one goes on."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _status(name: str) -> int | None:
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    main(tyro.cli(Args))
