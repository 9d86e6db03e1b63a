"""The loader alone: decoded, augmented batches per second, without any training.

python benchmarks/input.py --data-dir data
"""

import dataclasses
import pathlib
import statistics
import time

import tyro
from timing import header

from data_pipelines.loader import train_iterator
from data_pipelines.prepared import open_prepared
from fusion_jax.augmentation import AUGMENTATIONS
from fusion_jax.skeletons import skeleton


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the training data."""

    data_dir: pathlib.Path = pathlib.Path("data")
    dataset: str = "synthetic_humans"
    batch_size: int = 32
    batches: int = 200
    workers: tuple[int, ...] = (0, 2)


def main(args: Args) -> None:
    print(header())
    dataset = open_prepared(args.dataset, args.data_dir)
    print(f"{dataset.name}, {dataset.image_size} px, batch {args.batch_size}, full augmentation")
    for workers in args.workers:
        data = train_iterator(
            dataset,
            target=skeleton("human36m17"),
            image_size=dataset.image_size,
            augment=AUGMENTATIONS["full"],
            batch_size=args.batch_size,
            seed=0,
            num_workers=workers,
        )
        began = time.perf_counter()
        next(data)
        first, rates = time.perf_counter() - began, []
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(args.batches // 5):
                next(data)
            rates.append(args.batch_size * (args.batches // 5) / (time.perf_counter() - began))
        print(f"workers {workers}: first batch {first:.2f} s, then {statistics.median(rates):.0f} examples/s")


if __name__ == "__main__":
    main(tyro.cli(Args))
