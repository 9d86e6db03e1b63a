"""Dataset names of the command line, and mixtures of them, to opened datasets."""

from __future__ import annotations

import math
import pathlib

from data_pipelines.prepared import PoseDataset, open_prepared
from data_pipelines.registry import RAW_DATASETS
from fusion_jax.errors import UserError, unknown_name

LIVE = "synthetic_humans/live"
KNOWN = ("synthetic_humans", LIVE, *RAW_DATASETS)


def open_dataset(name: str, data_dir: pathlib.Path, image_size: int, seed: int = 0) -> PoseDataset:
    """The dataset called `name`: prepared in `data_dir`, or rendered while training (`synthetic_humans/live`).

    Args:
      name: '<dataset>', '<dataset>/<config>' or 'synthetic_humans/live'.
      data_dir: where `fusion-jax prepare` wrote; not read for live data.
      image_size: side of live pictures, px; prepared ones have their own and are resampled by the loader.
      seed: of live scenes.

    Raises:
      UserError: an unknown name, or nothing prepared.
    """
    if name == LIVE:
        from data_pipelines.synthetic_humans.live import open_live

        return open_live(image_size, seed)
    family, data_dir = name.partition("/")[0], pathlib.Path(data_dir)
    if family not in KNOWN and not (family and (data_dir / family).is_dir()):  # a user's own dataset is a folder there
        raise unknown_name("dataset", name, KNOWN)
    return open_prepared(name, data_dir)


def parse_mixture(text: str) -> list[tuple[str, float]]:
    """(name, weight) of each dataset in 'human36m=3,synthetic_humans=1'; a single name has the weight 1.

    Raises:
      UserError: an empty or repeated name, or a weight that is no positive number.
    """
    found: list[tuple[str, float]] = []
    for entry in text.split(","):
        name, _, weight = (part.strip() for part in entry.partition("="))
        try:
            share = float(weight) if weight else 1.0
        except ValueError:
            share = math.nan
        if not name or not 0 < share < math.inf:
            raise UserError(f"dataset {text!r}: expected NAME or NAME=WEIGHT with a weight > 0, separated by commas")
        found.append((name, share))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise UserError(f"dataset {text!r} names {max(names, key=names.count)} twice; give it one weight")
    return found


def open_mixture(text: str, data_dir: pathlib.Path, image_size: int, seed: int = 0) -> list[tuple[PoseDataset, float]]:
    """The datasets of `parse_mixture`, opened as by `open_dataset`, with their weights.

    Raises:
      UserError: also where live data is to be mixed with files: its pictures are made elsewhere.
    """
    wanted = parse_mixture(text)
    if len(wanted) > 1 and LIVE in (name for name, _ in wanted):
        raise UserError(
            f"dataset {text!r}: {LIVE} cannot be mixed with prepared data; prepare synthetic_humans instead"
        )
    return [(open_dataset(name, data_dir, image_size, seed), weight) for name, weight in wanted]


def mixture_name(datasets: list[tuple[PoseDataset, float]]) -> str:
    """The text that opens these again, each by its full name."""
    if len(datasets) == 1:
        return datasets[0][0].name
    return ",".join(f"{dataset.name}={weight:g}" for dataset, weight in datasets)
