"""Training that is killed again and again against training that is not: the same bits, no memory that grows.

python benchmarks/soak.py --steps 20000 --kills 20 --json soak.json

One run is left alone, and what it holds in memory and how many files it has open is watched. Another one is killed by
SIGKILL every few seconds, every third time in the middle of writing a checkpoint, and now and then stopped by SIGTERM,
until it is done. At the end both have to hold the same parameters, optimiser, key and step, bit for bit.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import tyro

_CHILD = """
import dataclasses, pathlib, sys
from fusion_jax.config import Config
from fusion_jax.errors import TrainingInterruptedError
from fusion_jax.network import Conv, Dense
from fusion_jax.presets import two_streams, with_overrides
from fusion_jax.train import LoopOptions, train
data, workdir, steps, every = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
base = with_overrides("tiny", steps=steps, batch_size=8)
network = dataclasses.replace(base.network, streams=two_streams((Conv(4, 3), Dense(8, 0.5))))
inputs = dataclasses.replace(base.inputs, image_size=16, heatmap_size=16)
config = dataclasses.replace(base, network=network, inputs=inputs)
options = LoopOptions(log_every=every, checkpoint_every=every, eval_every=20 * every, eval_frames=56)
try:
    train(config, data, workdir, options)
except TrainingInterruptedError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Kill a training until it is done, and compare it with one that was left alone."""

    steps: int = 20_000
    kills: int = 20
    """Fewer by SIGKILL than this, and it fails: give more --steps or fewer --seconds."""
    checkpoint_every: int = 100
    seconds: float = 4.0
    """About so long, once a process has begun to train, until it is killed; half to one and a half times that."""
    seed: int = 0
    """Draws when to kill."""
    out: pathlib.Path | None = None
    """Folder for data and runs, which are kept; none: a temporary one."""
    json: pathlib.Path | None = None
    """File for the numbers."""


class Child:
    """A process that trains in a work folder."""

    def __init__(self, args: Args, data: pathlib.Path, workdir: pathlib.Path, cache: pathlib.Path):
        self.workdir = workdir
        cached = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, "-c", _CHILD, data, workdir, str(args.steps), str(args.checkpoint_every)]
        self._said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stderr=self._said, env=os.environ | cached)
        self.kept = self.saved()

    def saved(self) -> int:
        """The newest step with a checkpoint."""
        folder = self.workdir / "checkpoints"
        return max((int(p.name) for p in folder.glob("[0-9]*") if p.name.isdigit()), default=0)

    def writing(self) -> bool:
        """Whether a checkpoint is being written right now."""
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, condition, seconds: float, pause: float = 0.02) -> bool:
        """Until a condition holds, the process ends, or time is up; whether it holds."""
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            if condition():
                return True
            time.sleep(pause)
        return False

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read()

    def end(self, number: int) -> int:
        """Sends a signal; the exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        return self.process.wait(timeout=120)


def alone(child: Child) -> dict:
    """Lets it train to its end; what it had in memory, MB, and how many open files, as medians of four quarters."""
    seen = []
    began = time.monotonic()
    while child.running():
        with contextlib.suppress(OSError, StopIteration, IndexError):
            status = pathlib.Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
            memory = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
            files = len(os.listdir(f"/proc/{child.process.pid}/fd"))
            threads = next(int(line.split()[1]) for line in status if line.startswith("Threads"))
            if child.saved() > 0:  # it trains
                seen.append((memory, files, threads))
        time.sleep(0.25)
    if child.process.returncode:
        sys.exit(f"the run that was left alone failed: {child.said()}")
    quarters = [seen[len(seen) * i // 4 : len(seen) * (i + 1) // 4] for i in range(4)]
    columns = [[statistics.median(column) for column in zip(*quarter, strict=True)] for quarter in quarters if quarter]
    names = ("memory_mb", "open_files", "threads")
    row = {name: [round(column[i]) for column in columns] for i, name in enumerate(names)}
    return {"what": "left alone", "seconds": round(time.monotonic() - began, 1), **row}


def killed(args: Args, start) -> dict:
    """Kills it until it is done; how often, and what that cost."""
    rng = random.Random(args.seed)
    kills = in_save = stops = restarts = repeated = 0
    began = time.monotonic()
    while True:
        child = start()
        restarts += 1
        first = child.kept
        more = min(args.steps - first, args.checkpoint_every)
        if not child.wait_for(lambda child=child, first=first, more=more: child.saved() >= first + more, 300):
            if child.process.wait() == 0:
                break
            sys.exit(f"a run that was killed before could not go on: {child.said()}")
        child.wait_for(lambda: False, args.seconds * rng.uniform(0.5, 1.5))
        if kills and kills % 5 == 0 and stops < kills // 5:
            stops += 1
            code = child.end(signal.SIGTERM)
            if code not in (0, 75):
                sys.exit(f"SIGTERM ended a run with {code}, expected 75: {child.said()}")
            if code == 0:
                break
            continue
        if kills % 3 == 2:
            child.wait_for(child.writing, 30, pause=0)
        if child.end(signal.SIGKILL) != -signal.SIGKILL:
            break  # it was done just before
        kills += 1
        in_save += child.writing()
        repeated += max(0, logged(child.workdir) - child.saved())
    row = {"kills": kills, "in_the_middle_of_a_save": in_save, "stops": stops, "starts": restarts}
    return {"what": "killed", "seconds": round(time.monotonic() - began, 1), **row, "logged_steps_done_again": repeated}


def logged(workdir: pathlib.Path) -> int:
    """The last step in the log; a kill may have cut the last line."""
    last = 0
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError):
            last = int(json.loads(line)["step"])
    return last


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Names of what two runs' last states do not have in common, bit for bit."""
    import jax
    import numpy as np

    from fusion_jax.checkpoint import restore_run
    from fusion_jax.sharding import data_mesh
    from fusion_jax.work_folder import load_run

    states = [restore_run(path, load_run(path)[0], data_mesh(jax.devices()[:1])) for path in (one, other)]
    leaves = []
    for state in states:
        found = jax.tree_util.tree_leaves_with_path(state.replace(rng=jax.random.key_data(state.rng)))
        leaves.append({jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in found})
    return [name for name in leaves[0].keys() | leaves[1].keys() if leaves[0].get(name) != leaves[1].get(name)]


def soak(args: Args, folder: pathlib.Path) -> list[dict]:
    """Both runs; exits with a message where they differ or too few kills came about."""
    from fusion_jax.prepare import prepare_synthetic_humans

    data = folder / "data"
    prepare_synthetic_humans(data, size=16, num_subjects=3, frames=1)
    rows = [alone(Child(args, data, folder / "alone", folder / "compiled"))]
    print(rows[-1], flush=True)
    rows.append(killed(args, lambda: Child(args, data, folder / "killed", folder / "compiled")))
    print(rows[-1], flush=True)
    wrong = differences(folder / "alone", folder / "killed")
    if wrong:
        sys.exit(f"not the same after all: {', '.join(wrong)}")
    print("both end with the same parameters, optimiser, key and step, bit for bit")
    if rows[-1]["kills"] < args.kills or not rows[-1]["in_the_middle_of_a_save"]:
        sys.exit(f"only {rows[-1]['kills']} kills, none in a save; give more --steps or fewer --seconds")
    return rows


def main(args: Args) -> None:
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        rows = soak(args, args.out)
    else:
        with tempfile.TemporaryDirectory(prefix="fusion_jax_soak_") as folder:
            rows = soak(args, pathlib.Path(folder))
    from timing import header, write_json  # touches a device, which the processes before would have shared

    print(header())
    write_json(args.json, rows)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
