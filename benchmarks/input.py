"""The training data: each stage of an example, whole batches, a training step that waits for them, many examples.

python benchmarks/input.py --data-dir data --preset tiny --json input.json

CPU time of a stage is that of one thread; a loader's is that of all of this process, without worker processes.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import tyro
from timing import header, write_json

from data_pipelines.augment import Change, change_image, draw_change
from data_pipelines.loader import train_iterator
from data_pipelines.prepared import ChosenExamples, PoseDataset
from data_pipelines.samples import decode_image, make_sample
from fusion_jax.config import Config
from fusion_jax.datasets import LIVE, open_dataset
from fusion_jax.presets import preset
from fusion_jax.scoring import place_batch
from fusion_jax.sharding import data_mesh, jit_train_step, replicated
from fusion_jax.skeletons import skeleton
from fusion_jax.state import create_state

STAGED = 1000  # examples that a stage is timed with


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the training data."""

    data_dir: pathlib.Path = pathlib.Path("data")
    dataset: str = "synthetic_humans"
    preset: str = "tiny"
    batch_size: int = 32
    batches: int = 100
    workers: tuple[int, ...] = (0, 2)
    steps: int = 40
    """Training steps that are timed with and without input; 0 for none."""
    counts: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """How many examples to make the loader believe in."""
    json: pathlib.Path | None = None
    """Also write the numbers to this file."""


def stages(dataset: PoseDataset, config: Config) -> list[dict[str, Any]]:
    """What one example costs, part by part, then whole, microseconds of CPU."""
    source, size, rng = dataset.split("train"), config.inputs.image_size, np.random.default_rng(0)
    places = rng.integers(0, len(source), STAGED)
    rows = []

    def timed(name: str, function: Callable, items: Iterable) -> list:
        items = list(items)
        began = time.thread_time()
        made = [function(item) for item in items]
        rows.append({"stage": name, "us": (time.thread_time() - began) / len(items) * 1e6})
        return made

    examples = timed("read the record", lambda place: source[int(place)], places)
    images = timed("decode", lambda e: decode_image(e["image"], dataset.image_size, ""), examples)
    changes = timed("draw a change", lambda _: draw_change(rng, config.augment), places)
    timed("change the picture", lambda pair: change_image(*pair, size), zip(images, changes, strict=True))
    make = functools.partial(
        make_sample, source=dataset.skeleton, target=skeleton(config.inputs.skeleton),
        stored_size=dataset.image_size, size=size,
    )  # fmt: skip
    timed("sample, decoding included", lambda pair: make(pair[0], change=pair[1]), zip(examples, changes, strict=True))
    samples = [make(example, change=Change()) for example in examples[:32]]
    timed("stack 32, for one", lambda _: [np.stack([s[k] for s in samples]) for k in samples[0]], range(50))
    rows[-1]["us"] /= len(samples)
    return rows


def batches(dataset: PoseDataset, config: Config, batch_size: int, **options: Any) -> Any:
    return train_iterator(
        dataset,
        target=skeleton(config.inputs.skeleton),
        image_size=config.inputs.image_size,
        augment=config.augment,
        batch_size=batch_size,
        seed=0,
        **options,
    )


def loader_rate(dataset: PoseDataset, config: Config, batch_size: int, count: int, workers: int) -> dict[str, Any]:
    """First batch in s, then examples/s (median of 5) and CPU time of this process for one."""
    began = time.perf_counter()
    data = batches(dataset, config, batch_size, num_workers=workers)
    next(data)
    first, rates, cpu = time.perf_counter() - began, [], time.process_time()
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(max(1, count // 5)):
            next(data)
        rates.append(batch_size * max(1, count // 5) / (time.perf_counter() - began))
    cpu = (time.process_time() - cpu) / (5 * max(1, count // 5) * batch_size)
    data.close()
    return {"first_s": first, "examples_per_s": statistics.median(rates), "cpu_us": cpu * 1e6}


def step_waits(dataset: PoseDataset, config: Config, batch_size: int, steps: int, workers: int) -> dict[str, Any]:
    """A training step on one batch that stays on the device, against steps that are fed; in turns, medians.

    `wait_share`: time in which the loop waits for a batch and the device has nothing left to do, as `train` counts it.
    `host_ms`: what the loop needs to place a batch and to queue a step.
    """
    mesh = data_mesh()
    mean, std = np.zeros((17, 3), np.float32), np.ones((17, 3), np.float32)
    state = jax.jit(create_state, static_argnums=0, out_shardings=replicated(mesh))(
        config, jax.random.key(0), mean, std
    )
    step, data = jit_train_step(mesh), batches(dataset, config, batch_size, num_workers=workers)
    kept = place_batch(next(data), dataset, mesh)
    state, _ = step(state, kept)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    waited = host = 0.0
    turns, each = 4, max(1, steps // 4)
    for fed in [False, True] * turns:
        jax.block_until_ready(state)
        began = time.perf_counter()
        for _ in range(each):
            asked = time.perf_counter()
            batch = next(data) if fed else None
            got = time.perf_counter()
            waited += got - asked if fed and state.step.is_ready() else 0.0
            state, _ = step(state, place_batch(batch, dataset, mesh) if fed else kept)
            host += time.perf_counter() - got if fed else 0.0
        jax.block_until_ready(state)
        seconds[fed].append((time.perf_counter() - began) / each)
    data.close()
    alone, fed_s = (statistics.median(seconds[fed]) for fed in (False, True))
    return {
        "step_ms": alone * 1e3,
        "fed_step_ms": fed_s * 1e3,
        "wait_share": waited / (sum(seconds[True]) * each),
        "host_ms": host / (turns * each) * 1e3,
    }


def many(dataset: PoseDataset, config: Config, batch_size: int, count: int, number: int) -> dict[str, Any]:
    """The loader over `number` examples, those of the dataset again and again, and the most memory so far.

    Order and memory are those of so many, files and the page cache are not.
    """
    source = dataset.split("train")
    rows = np.resize(np.arange(len(source), dtype=np.int32), number)
    larger = dataclasses.replace(dataset, splits={"train": ChosenExamples(source, rows)})
    return {**loader_rate(larger, config, batch_size, count, 0), "most_memory_mb": _most_memory()}


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows of the same fields as a table."""
    print(f"\n{title}")
    if not rows:
        return
    widths = [max(len(name) + 2, *(len(_cell(row[name])) + 2 for row in rows)) for name in rows[0]]
    print("".join(name.rjust(width) for name, width in zip(rows[0], widths, strict=True)))
    for row in rows:
        print("".join(_cell(value).rjust(width) for value, width in zip(row.values(), widths, strict=True)))


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main(args: Args) -> None:
    config = preset(args.preset)
    dataset = open_dataset(args.dataset, args.data_dir, config.inputs.image_size)
    print(header())
    print(
        f"{dataset.name}, {dataset.image_size} -> {config.inputs.image_size} px, batch {args.batch_size}, "
        f"augmentation of {args.preset}"
    )
    tables: dict[str, list[dict[str, Any]]] = {}

    def table(title: str, rows: list[dict[str, Any]]) -> None:
        tables[title] = rows
        show(title, rows)

    stored, batch_size, count = args.dataset != LIVE, args.batch_size, args.batches
    if stored:
        table("stages of one example, CPU time", stages(dataset, config))
    fed_by = [{"workers": n, **loader_rate(dataset, config, batch_size, count, n)} for n in args.workers]
    table("batches", fed_by)
    if stored:
        numbers = sorted(args.counts)
        larger = [{"examples": n, **many(dataset, config, batch_size, count, n)} for n in numbers]
        table("more examples, threads", larger)
    if args.steps:
        waits = [{"workers": n, **step_waits(dataset, config, batch_size, args.steps, n)} for n in args.workers]
        table(f"a training step of {args.preset}, alone and fed", waits)
    rows = [{"table": title, **row} for title, rows in tables.items() for row in rows]
    write_json(
        args.json, [{"dataset": dataset.name, "preset": args.preset, "batch": args.batch_size, **r} for r in rows]
    )


if __name__ == "__main__":  # workers import this module again
    main(tyro.cli(Args))
