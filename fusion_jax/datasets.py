"""Dataset names of the command line, and mixtures of them, to opened datasets."""

from __future__ import annotations

import collections
import math
import pathlib
from collections.abc import Sequence

from data_pipelines.loader import has_joints2d, has_poses
from data_pipelines.prepared import PoseDataset, open_prepared
from data_pipelines.registry import RAW_DATASETS
from fusion_jax.errors import UserError, unknown_name
from fusion_jax.skeletons import Skeleton, joint_sources

LIVE = "synthetic_humans/live"
MOST_WEIGHT = 1e3
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

    Grain mixes by whole percents of the smallest weight, cut off: 1 and 1.009 are mixed like 1 and 1.

    Raises:
      UserError: an empty or repeated name, or a weight that is no number in [1e-3, 1e3].
    """
    found: list[tuple[str, float]] = []
    for entry in text.split(","):
        name, _, weight = (part.strip() for part in entry.partition("="))
        try:
            share = float(weight) if weight else 1.0
        except ValueError:
            share = math.nan
        if not name or not 1 / MOST_WEIGHT <= share <= MOST_WEIGHT:
            raise UserError(
                f"dataset {text!r}: expected NAME or NAME=WEIGHT with a weight in [1e-3, 1e3], separated by commas"
            )
        found.append((name, share))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise UserError(f"dataset {text!r} names {max(names, key=names.count)} twice; give it one weight")
    return found


def open_mixture(text: str, data_dir: pathlib.Path, image_size: int, seed: int = 0) -> list[tuple[PoseDataset, float]]:
    """The datasets of `parse_mixture`, opened as by `open_dataset`, with their weights.

    Raises:
      UserError: also where live data is to be mixed with files: its pictures are made elsewhere; or where two names
        open the same dataset.
    """
    wanted = parse_mixture(text)
    if len(wanted) > 1 and LIVE in (name for name, _ in wanted):
        raise UserError(
            f"dataset {text!r}: {LIVE} cannot be mixed with prepared data; prepare synthetic_humans instead"
        )
    opened = [(open_dataset(name, data_dir, image_size, seed), weight) for name, weight in wanted]
    (most, times), *_ = collections.Counter(dataset.name for dataset, _ in opened).most_common(1)
    if times > 1:
        raise UserError(f"dataset {text!r} names {most} twice; give it one weight")
    return opened


def check_trainable(
    datasets: Sequence[PoseDataset], target: Skeleton, split: str, poses: bool = True, joints2d: bool = False
) -> None:
    """Raises UserError, naming the dataset, where one cannot be learned from.

    That is where it lacks joints of the target layout or, in a mixture, all 3D; or all 2D where that is needed.

    Args:
      poses: whether poses are learned; a 2D network needs none.
      joints2d: whether heatmaps have to be made from 2D joints: to train a 2D network, or for noisy heatmaps.
    """
    for dataset in datasets:
        try:
            joint_sources(dataset.skeleton, target)
        except UserError as error:
            raise UserError(f"{dataset.name}: {error}") from error
        if poses and len(datasets) > 1 and not has_poses(dataset, target, split):
            raise UserError(
                f"{dataset.name} has no 3D poses; it would only dilute the loss; leave it out of the mixture"
            )
        if joints2d:
            check_joints2d(dataset, split)


def check_joints2d(dataset: PoseDataset, split: str) -> None:
    """Raises UserError where a split has no 2D joints, so that heatmaps made from them would all be black."""
    if len(dataset.split(split)) and not has_joints2d(dataset, split):
        raise UserError(
            f"{dataset.name} has no 2D joints in {split}; the heatmaps of a 2D network's training and noisy ones are "
            "made from them; take a dataset that has them, or feed a fusion network other heatmaps"
        )


def mixture_name(datasets: list[tuple[PoseDataset, float]]) -> str:
    """The text that opens these again, each by its full name."""
    if len(datasets) == 1:
        return datasets[0][0].name
    return ",".join(f"{dataset.name}={repr(weight).removesuffix('.0')}" for dataset, weight in datasets)
