"""Rendering synthetic people: pictures alone, and whole examples (pose, scene, picture, JPEG).

python benchmarks/render.py --size 64
"""

import dataclasses
import itertools
import pathlib
import time

import jax
import numpy as np
import tyro
from timing import header, measure, write_json

from data_pipelines.synthetic_humans.frames import BATCH, examples, shots
from data_pipelines.synthetic_humans.render import render_batch
from data_pipelines.synthetic_humans.sequences import SyntheticSettings, sequences


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the renderer."""

    size: int = 64
    count: int = 1024
    """Whole examples to make."""
    json: pathlib.Path | None = None
    """Also write the numbers to this file."""


def main(args: Args) -> None:
    print(header())
    settings = SyntheticSettings(size=args.size)
    everything = (shot for sequence in sequences(settings, "train", None) for shot in shots(sequence, settings))
    drawn = list(itertools.islice(everything, BATCH + args.count))
    scenes = jax.tree.map(lambda *rows: np.stack(rows), *(shot.scene for shot in drawn[:BATCH]))
    timing = measure(lambda: render_batch(scenes, args.size))
    print(f"compile {timing.first:.1f} s; {BATCH} pictures {args.size} px: {BATCH / timing.median:.0f} frames/s")
    for _ in examples(drawn[:BATCH], args.size):
        pass  # compiles
    began = time.perf_counter()
    everything = (shot for sequence in sequences(settings, "train", None) for shot in shots(sequence, settings))
    count = sum(1 for _ in examples(itertools.islice(everything, args.count), args.size))
    whole = count / (time.perf_counter() - began)
    print(f"whole examples: {whole:.0f} frames/s")
    row = {"size_px": args.size, "batch": BATCH, "compile_s": timing.first, "pictures_per_s": BATCH / timing.median}
    write_json(args.json, [{**row, "examples_per_s": whole}])


if __name__ == "__main__":
    main(tyro.cli(Args))
