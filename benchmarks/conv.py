"""Every convolution of some presets: XLA's own, ours, PyTorch's, beside the machine's rate of matrix products.

python benchmarks/conv.py --presets tiny paper hourglass-2

GFLOP/s count a convolution's own products and sums, 2 k k C D for each output pixel, however it is computed; backward
twice that, once where nobody wants the gradient of the input, as in a network's first layers. PyTorch runs
channels_last and is left out where it is not installed.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import linen as nn
from jax import lax
from step import INSTALL
from timing import header, limit_threads, take_turns, usable_cores, write_json

from fusion_jax.conv import conv2d
from fusion_jax.hourglass import Conv2d
from fusion_jax.network import Block, Conv
from fusion_jax.presets import preset
from fusion_jax.state import make_hourglass, make_network

try:
    import torch
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the convolutions."""

    presets: tuple[str, ...] = ("tiny", "paper", "hourglass-2")
    batch_size: int = 16
    threads: int | None = None
    """Cores for both; none: all."""
    repeats: int = 5
    matmul: int = 2048
    """Side of the matrices whose product is timed beside."""
    json: pathlib.Path | None = None
    """File for the numbers."""


class Case(NamedTuple):
    """One convolution of a network: a (side, side, channels) picture, padded, to `features` channels."""

    side: int
    channels: int
    kernel: int
    stride: int
    pad: int
    features: int
    first: bool
    """Whether it reads the network's input, toward which there is no gradient."""

    def __str__(self) -> str:
        padded = f" + {self.pad}" if self.pad else ""
        shape = f"{self.side} px{padded}, {self.channels} -> {self.features}"
        return f"{self.kernel} x {self.kernel} / {self.stride}, {shape}"

    @property
    def flops(self) -> int:
        """Forward, of one picture."""
        out = (self.side + 2 * self.pad - self.kernel) // self.stride + 1
        return 2 * self.kernel**2 * self.channels * self.features * out**2


# By JAX, of x (B, H, W, C) and kernel (k, k, C, D); a further one to compare is a further entry here.


def native(x: jax.Array, kernel: jax.Array, case: Case) -> jax.Array:
    pads = [(case.pad, case.pad)] * 2
    strides = (case.stride, case.stride)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def ours(x: jax.Array, kernel: jax.Array, case: Case) -> jax.Array:
    pads = (case.pad, case.pad)
    return conv2d(jnp.pad(x, ((0, 0), pads, pads, (0, 0))) if case.pad else x, kernel, stride=case.stride)


IN_JAX: dict[str, Callable[[jax.Array, jax.Array, Case], jax.Array]] = {"XLA": native, "ours": ours}


def main(args: Args) -> None:
    limit_threads(args.threads)
    print(header())
    if torch is None:
        print(INSTALL)
    else:
        torch.set_num_threads(usable_cores())
    rows = [matmul_row(args)]
    names = [*IN_JAX, *(["PyTorch"] if torch is not None else [])]
    print(f"float32; a {args.matmul} x {args.matmul} matrix product: {rates(rows[0]['gflops_per_s'])} GFLOP/s")
    print(
        f"{f'GFLOP/s, batch {args.batch_size}':34s}" + "".join(f"{name:>10s}" for name in names * 2) + f"{'error':>10s}"
    )
    print(f"{'':34s}{'forward':>{10 * len(names)}s}{'forward + backward':>{10 * len(names)}s}")
    for case in dict.fromkeys(case for name in args.presets for case in convolutions(name)):
        row = timed(case, args)
        rows.append(row)
        cells = [row[way][name] for way in ("forward_gflops_per_s", "gflops_per_s") for name in names]
        print(f"{str(case):34s}" + "".join(f"{cell:10.1f}" for cell in cells) + f"{row['error']:10.1g}", flush=True)
    print(
        "error: largest difference of ours from float64, batch 1, of value and gradients, by the largest number there"
    )
    write_json(args.json, rows)


def convolutions(name: str) -> list[Case]:
    """A preset's convolutions as its network calls them; nothing is compiled."""
    config, found = preset(name), []

    def note(call, args, kwargs, context):
        module, x = context.module, args[0] if args else None
        if isinstance(module, Block) and isinstance(module.layer, Conv):
            layer, first = module.layer, module.name.endswith("_1")
            assert layer.padding == "VALID", "no preset pads here"
            found.append(Case(x.shape[1], x.shape[-1], layer.kernel, layer.stride, 0, layer.features, first))
        elif isinstance(module, Conv2d):
            k, first = module.kernel, module.path[0] == "pre_0"
            found.append(Case(x.shape[1], x.shape[-1], k, module.stride, (k - 1) // 2, module.features, first))
        return call(*args, **kwargs)

    side = config.inputs.image_size
    with nn.intercept_methods(note):
        if config.task == "heatmaps":
            network: nn.Module = make_hourglass(config.hourglass, config.inputs)
            inputs: Any = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        else:
            from fusion_jax.cost import example_shapes

            network = make_network(config.fusion, config.inputs)
            shapes = example_shapes(config)
            inputs = {n: jax.ShapeDtypeStruct((1, *shape), jnp.float32) for n, shape in shapes.items()}
        jax.eval_shape(network.init, jax.random.key(0), inputs)
    return found


def timed(case: Case, args: Args) -> dict[str, Any]:
    """The row of a convolution: all contestants' rates, forward and with gradients, and the error of ours."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch_size, case.side, case.side, case.channels), np.float32)
    kernel = rng.standard_normal((case.kernel, case.kernel, case.channels, case.features), np.float32)
    wanted = (1,) if case.first else (0, 1)
    forward, both = {}, {}
    for name, function in IN_JAX.items():
        given = jnp.asarray(x), jnp.asarray(kernel)
        out = jax.eval_shape(functools.partial(function, case=case), *given)
        cotangent = jnp.ones(out.shape)
        run, train = jax.jit(functools.partial(function, case=case)), with_gradients(function, case, wanted)
        forward[name] = functools.partial(_ready, run, *given)
        both[name] = functools.partial(_ready, train, *given, cotangent)
    if torch is not None:
        forward["PyTorch"], both["PyTorch"] = in_torch(x, kernel, case)
    flops, factor = case.flops * args.batch_size, 1 + len(wanted)
    row: dict[str, Any] = {**case._asdict(), "batch_size": args.batch_size, "gflop": flops / 1e9}
    for key, functions, work in (("forward_", forward, flops), ("", both, flops * factor)):
        timings = take_turns(functions, args.repeats)
        row[f"{key}gflops_per_s"] = {name: work / timing.median / 1e9 for name, timing in timings.items()}
        row[f"{key}seconds"] = {name: timing._asdict() for name, timing in timings.items()}
    return row | {"error": error(case)}


def with_gradients(function: Callable, case: Case, wanted: tuple[int, ...]) -> Callable:
    """(x, kernel, cotangent) -> the value and the wanted gradients, compiled."""

    def run(x, kernel, cotangent):
        out, pull = jax.vjp(functools.partial(function, case=case), x, kernel)
        return out, [pull(cotangent)[i] for i in wanted]

    return jax.jit(run)


def in_torch(x: np.ndarray, kernel: np.ndarray, case: Case) -> tuple[Callable, Callable]:
    """PyTorch's forward, and forward and backward, channels_last."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = torch.from_numpy(x).to(device).permute(0, 3, 1, 2).requires_grad_(not case.first)
    weight = torch.from_numpy(kernel).to(device).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    weight.requires_grad_()

    def conv():
        return torch.nn.functional.conv2d(pictures, weight, stride=case.stride, padding=case.pad)

    def forward():
        with torch.inference_mode():
            conv()
        _synchronise(device)

    cotangent = torch.ones_like(conv().detach())

    def both():
        torch.autograd.grad(conv(), [weight] if case.first else [pictures, weight], cotangent)
        _synchronise(device)

    return forward, both


def error(case: Case) -> float:
    """Largest difference of ours from XLA's in float64, over value and both gradients, one picture."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, case.side, case.side, case.channels))
    kernel = rng.standard_normal((case.kernel, case.kernel, case.channels, case.features))
    shape = jax.eval_shape(functools.partial(native, case=case), x, kernel).shape
    cotangent = rng.standard_normal(shape)
    with jax.enable_x64(True):
        exact = jax.tree.leaves(with_gradients(native, case, (0, 1))(x, kernel, cotangent))
    single = [value.astype(np.float32) for value in (x, kernel, cotangent)]
    # The inputs are rounded to float32 for ours alone; that is part of what a user of float32 gets.
    found = jax.tree.leaves(with_gradients(ours, case, (0, 1))(*single))
    pairs = [(np.asarray(a, np.float64), np.asarray(b)) for a, b in zip(found, exact, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def matmul_row(args: Args) -> dict[str, Any]:
    """How fast both frameworks multiply matrices, which is about the most that a convolution can reach."""
    n = args.matmul
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    product, given = jax.jit(jnp.matmul), jnp.asarray(a)
    functions: dict[str, Callable] = {"XLA": functools.partial(_ready, product, given, given)}
    if torch is not None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        theirs = torch.from_numpy(a).to(device)
        functions["PyTorch"] = lambda: (torch.matmul(theirs, theirs), _synchronise(device))
    timings = take_turns(functions, args.repeats)
    rate = {name: 2 * n**3 / timing.median / 1e9 for name, timing in timings.items()}
    return {"matmul": n, "gflops_per_s": rate, "seconds": {name: t._asdict() for name, t in timings.items()}}


def rates(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.0f}" for name, rate in found.items())


def _ready(function: Callable, *args) -> None:
    jax.block_until_ready(function(*args))


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(tyro.cli(Args))
