"""From the command to something to see: help, and training up to the end of its first step, in fresh processes.

python benchmarks/startup.py --preset tiny --json startup.json

`fresh` starts with an empty folder for compiled programs, `cached` with what an earlier run of the same command left.
"""

import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import tyro
from timing import header

from fusion_jax.prepare import prepare_synthetic_humans

COMMANDS = ("", "prepare", "train", "sweep", "evaluate", "report", "predict", "prune", "analyze", "demo")
# The program as it is run, and what JAX says of its own work until it ends, which is after the first step.
TRAIN = """
import json, sys, time
from fusion_jax.cli import main
from fusion_jax.compile_cache import use_compilation_cache
began = float(sys.argv.pop(1))
use_compilation_cache()
import fusion_jax.train, jax
spent = {"start and imports": time.time() - began}
names = {"jaxpr_trace": "trace", "jaxpr_to_mlir_module": "lower", "backend_compile": "compile"}
def add(event, seconds, **_):
    name = names.get(event.split("/")[-1].removesuffix("_duration"))
    if name:
        spent[name] = spent.get(name, 0) + seconds
jax.monitoring.register_event_duration_secs_listener(add)
code = main()
print(json.dumps(spent))
sys.exit(code)
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Time how long the program takes to start."""

    preset: str = "tiny"
    data_dir: pathlib.Path | None = None
    """Prepared data; none: eight people are prepared in a folder of their own first."""
    repeats: int = 5
    """Of all but the fresh trainings."""
    fresh: int = 3
    """Trainings that compile everything."""
    json: pathlib.Path | None = None
    """File for the numbers."""


def help_seconds(command: str) -> float:
    began = time.perf_counter()
    words = [command] if command else []
    subprocess.run([sys.executable, "-m", "fusion_jax", *words, "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def cpu_of_children() -> float:
    """Seconds of all cores: what others do on the machine changes it less than it changes the time on the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_step(preset: str, data_dir: pathlib.Path, cache: pathlib.Path) -> dict[str, float]:
    """Seconds until the row of the first step is printed, in all and by stage. `compile` is fetching what is cached."""
    with tempfile.TemporaryDirectory() as workdir:
        options = ["--preset", preset, "--data-dir", data_dir, "--workdir", workdir, "--log-every", "1"]
        words = ["train", *map(str, options), "--stop-after", "1", "--eval-every", "0"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        before, began = cpu_of_children(), time.time()
        child = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(began), *words],
            env=environ | {"XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None and child.stdout is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if line.startswith("train "):
                break
        else:
            sys.exit("".join(lines))
        total = time.time() - began
        out, _ = child.communicate()
        spent = json.loads(out.splitlines()[-1])
        spent |= {"data, state, step": total - sum(spent.values())}
        return {"total": total, **spent, "CPU time, to the end": cpu_of_children() - before}


def medians(run: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    """The median of every stage."""
    runs = [run() for _ in range(repeats)]
    return {stage: statistics.median(spent[stage] for spent in runs) for stage in runs[0]}


def main(args: Args) -> None:
    print(words := header())
    helps = {}
    print(f"\n{'help':32s}{'s':>8s}   median of {args.repeats}")
    help_seconds("")  # the files are in memory from here on
    for command in COMMANDS:
        helps[command] = statistics.median(help_seconds(command) for _ in range(args.repeats))
        print(f"{f'fusion-jax {command} --help'.replace('  ', ' '):32s}{helps[command]:8.2f}")
    with tempfile.TemporaryDirectory() as folder:
        data_dir, root = args.data_dir, pathlib.Path(folder)
        if data_dir is None:
            data_dir = root / "data"
            prepare_synthetic_humans(data_dir, num_subjects=8, frames=4)
        caches = iter(root / f"cache{n}" for n in range(args.fresh))
        fresh = medians(lambda: first_step(args.preset, data_dir, next(caches)), args.fresh)
        cached = medians(lambda: first_step(args.preset, data_dir, root / "cache0"), args.repeats)
    print(f"\n{f'train to the first step, {args.preset}':32s}{'fresh s':>10s}{'cached s':>10s}")
    for stage in fresh:
        print(f"{stage:32s}{fresh[stage]:10.2f}{cached[stage]:10.2f}")
    print(f"medians of {args.fresh} and {args.repeats}; load at the end {os.getloadavg()[0]:.1f}")
    if args.json:
        record = {"machine": words, "preset": args.preset, "help_s": helps, "fresh_s": fresh, "cached_s": cached}
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
