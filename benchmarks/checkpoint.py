"""What a checkpoint costs: how long training waits for it, how long it takes to be whole, to be checked, to be read.

python benchmarks/checkpoint.py --preset paper
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

import jax
import tyro
from timing import header, write_json
from weights import random_state

from fusion_jax import checksums
from fusion_jax.checkpoint import Checkpoints
from fusion_jax.presets import with_overrides
from fusion_jax.sharding import data_mesh, replicated


@dataclasses.dataclass(frozen=True)
class Args:
    """Time saving, checking and restoring."""

    preset: str = "tiny"
    repeats: int = 5
    out: pathlib.Path | None = None
    """Folder on the disk to be measured, which is emptied again; none: the system's for temporary files."""
    json: pathlib.Path | None = None
    """File for the numbers."""


def main(args: Args) -> None:
    config = with_overrides(args.preset)
    mesh = data_mesh()
    state = jax.device_put(random_state(config), replicated(mesh))
    seconds: dict[str, list[float]] = {name: [] for name in ("training waits", "until whole", "check", "restore")}
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), config, keep=1)
        for step in range(1, args.repeats + 2):  # the first one warms up and does not count
            began = time.perf_counter()
            checkpoints.save(step, state, step)
            waited = time.perf_counter() - began
            checkpoints.wait()
            whole = time.perf_counter() - began
            path = checkpoints.folder / str(step)
            began = time.perf_counter()
            assert checksums.damage(path) is None
            checked = time.perf_counter() - began
            began = time.perf_counter()
            jax.block_until_ready(checkpoints.restore(state, mesh, step=step)[0].params)
            restored = time.perf_counter() - began - checked  # it checks once more
            for name, value in zip(seconds, (waited, whole, checked, restored), strict=True):
                if step > 1:
                    seconds[name].append(value)
            size = sum(p.stat().st_size for p in pathlib.Path(path).rglob("*") if p.is_file())
        checkpoints.close()
    print(header())
    print(f"{args.preset}: {size / 1e6:.0f} MB on disk; medians of {args.repeats} (least to most), s")
    for name, values in seconds.items():
        print(f"  {name:15s} {statistics.median(values):7.3f} ({min(values):.3f} to {max(values):.3f})")
    rows = [{"what": name, "median_s": statistics.median(values), "all_s": values} for name, values in seconds.items()]
    write_json(args.json, [{"preset": args.preset, "bytes": size, **row} for row in rows])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
