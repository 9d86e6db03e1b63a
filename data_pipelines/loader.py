"""Datasets to NumPy batches through Grain: deterministic, sharded by process, resumable at the exact example."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import cv2
import grain
import numpy as np
from absl import flags

from data_pipelines.augment import Change, draw_change
from data_pipelines.bad_examples import BadExamples, ExampleMaker, problem
from data_pipelines.prepared import Examples, LiveExamples, PoseDataset
from data_pipelines.samples import Sample, camera_pose_mm, example_name, make_sample
from data_pipelines.workers import WorkerBatches, end_with_parent
from fusion_jax.augmentation import AugmentConfig
from fusion_jax.errors import UserError
from fusion_jax.geometry import root_relative
from fusion_jax.skeletons import Skeleton, convert_joints, convert_valid

_LIVE_FIELDS = ("scene", "joints2d", "valid2d", "pose_mm", "valid")
cv2.setNumThreads(0)  # pictures are small and Grain already runs many of these calls side by side


class MissingPosesError(UserError):
    """A dataset without the 3D joints that were to be learned."""


class Batches(Iterator[dict[str, Any]], Protocol):
    """Batches, from whatever threads or processes make them."""

    def close(self) -> None:
        """Ends these."""
        ...


def train_iterator(
    datasets: PoseDataset | Sequence[tuple[PoseDataset, float]],
    *,
    target: Skeleton,
    image_size: int,
    augment: AugmentConfig,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    start: int = 0,
    split: str = "train",
    bad_examples: BadExamples | None = None,
) -> Batches:
    """An endless iterator over shuffled, augmented batches, from any batch on; close it when done.

    Args:
      datasets: an opened dataset, or several with their weights: of every batch about that share is of each, and a
        small dataset is gone through as often as it takes.
      target: the network's skeleton.
      image_size: side of the network's input, px.
      augment: what to vary.
      batch_size: over all processes; this process yields its share.
      seed: order and augmentation depend on it alone, not on workers.
      process_index, process_count: this process among those that train together.
      num_workers: worker processes; 0 prepares batches on threads.
      start: how many batches to skip, at no cost. Batch n is the same whatever came before, with any workers.
      split: of each dataset; several may be joined by '+'.
      bad_examples: what to do about examples that cannot be used, and the account of them; by default the first is an
        error.

    Raises:
      UserError: batch_size does not divide over the processes, a split is empty, or datasets do not go together. The
        iterator raises it for examples that cannot be used, and for worker processes that end or hang.
    """
    bad_examples = bad_examples or BadExamples()
    weighted = [(datasets, 1.0)] if isinstance(datasets, PoseDataset) else list(datasets)
    for dataset, _ in weighted:
        if not len(dataset.split(split)):
            raise UserError(f"{dataset.name} has no {split} examples")
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not divide over {process_count} processes")
    local, share = batch_size // process_count, slice(process_index, None, process_count)
    first = weighted[0][0]
    makers: list[ExampleMaker] = []
    if first.render is not None:
        indices = grain.MapDataset.range(len(first.split(split))).seed(seed).shuffle().repeat(None)
        own = slice(process_index * local, (process_index + 1) * local)
        draw = functools.partial(cast(LiveExamples, first.split(split)).part, own=own)
        batches = indices.batch(batch_size).random_map(draw, seed=seed)
        batches = batches.map(functools.partial(_converted, source=first.skeleton, target=target))
    else:
        makers = [
            ExampleMaker(number, dataset, split, _maker(dataset, target, image_size), bad_examples.policy)
            for number, (dataset, _) in enumerate(weighted)
        ]
        data = _shuffled(weighted, split, seed)
        # Shuffled and augmented before the processes take their shares, each a run of neighbours: a batch holds the
        # same samples in the same order however many processes there are, and so has the same dropout.
        if augment.shared_crop:
            shared = functools.partial(_shared, makers=makers, config=augment, seed=seed, batch_size=batch_size)
            data = data.map_with_index(shared)
        else:
            drawn_by = {"seed": seed} if len(weighted) > 1 else {}  # a mixture has no one seed to draw from
            data = data.random_map(functools.partial(_drawn, makers=makers, config=augment), **drawn_by)
        # Not all of sys.maxsize: Grain counts the batches in floats, which gives one too many if they are of one.
        batches = data[: 2**60].batch(local)[share]
    stream = batches[start:].to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16))
    if num_workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read flags that only absl programs parse
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers), end_with_parent)
    made: Batches = WorkerBatches(iter(stream), num_workers) if num_workers else iter(stream)
    return _Accounted(made, makers, bad_examples) if makers and bad_examples.policy == "skip" else made


class _Accounted(Iterator[dict[str, Any]]):
    """Batches whose records of replaced examples are taken off and entered in the run's account."""

    def __init__(self, batches: Batches, makers: Sequence[ExampleMaker], bad_examples: BadExamples):
        self._batches, self._makers, self._bad_examples = batches, makers, bad_examples

    def __next__(self) -> dict[str, Any]:
        return self._bad_examples.take(next(self._batches), self._makers)

    def close(self) -> None:
        self._batches.close()


def eval_batches(
    dataset: PoseDataset,
    split: str,
    *,
    target: Skeleton,
    image_size: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    limit: int | None = None,
    labels: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Every example of a split once, in order, in batches of one size.

    A batch also has `index` (B,) int32, the example's place in the split, and `mask` (B,) bool, False for the
    padding of the last batches; every process gets the same number of batches.

    An example that cannot be used is a UserError that names it, from the iterator: no frame is left out.

    Args:
      batch_size: of all processes together, each with its equal share; rounded up to a multiple of their number.
      limit: at most this many examples, evenly spaced over the split.
      labels: what an example says of itself; each comes as an array (B,) in the batch's `labels`, for the host alone.
    """
    source = dataset.split(split)
    wanted = _evenly(len(source), len(source) if limit is None else limit)
    local = math.ceil(batch_size / process_count)  # rounded up: what a frame scores does not depend on it
    per_process = local * math.ceil(len(wanted) / (local * process_count))
    mine = np.full(per_process, -1)
    share = wanted[process_index::process_count]
    mine[: len(share)] = share
    make = _maker(dataset, target, image_size)

    def load(index: int) -> dict[str, Any]:
        place = max(int(index), 0)
        try:
            return loaded(place) | {"index": np.int32(index), "mask": np.bool_(index >= 0)}
        except UserError as error:
            raise UserError(
                f"{problem(dataset, split, place, error)}; no frame may be left out where a split is gone through"
            ) from error

    def loaded(place: int) -> dict[str, Any]:
        example = source[place]
        if dataset.render is not None:
            fields = {name: example[name] for name in _LIVE_FIELDS}
            sample = _converted(fields, source=dataset.skeleton, target=target)
        else:
            sample = make(example, Change())
        return {**sample} if labels is None else {**sample, "labels": labels(example)}

    data = grain.MapDataset.source(mine).map(load).batch(local)
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)))


def pose_statistics(dataset: PoseDataset, target: Skeleton, limit: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (J, 3) mm of the training poses, root-relative, camera frame.

    Over at most `limit` examples, evenly spaced, without those whose pose cannot be used, which training then meets.
    A deviation below 1 mm (the root's is 0) counts as 1 mm.

    Raises:
      MissingPosesError: a joint that none of them has in 3D.
    """
    poses, valids = _some_poses(dataset, target, "train", limit)
    known = valids[..., None]
    count = known.sum(0)
    if (count == 0).any():
        missing = [target.joints[j] for j in np.flatnonzero(count[:, 0] == 0)]
        raise MissingPosesError(
            f"{dataset.name}: no training example has a 3D {', '.join(missing)}; nothing to learn from"
        )
    poses = poses.astype(np.float64)
    mean = (poses * known).sum(0) / count
    std = np.sqrt((((poses - mean) ** 2) * known).sum(0) / count)
    return mean.astype(np.float32), np.maximum(std, 1.0).astype(np.float32)


def has_poses(dataset: PoseDataset, target: Skeleton, split: str, limit: int = 64) -> bool:
    """Whether any of at most `limit` examples, evenly spaced, has a 3D joint of the target layout."""
    return bool(_some_poses(dataset, target, split, limit)[1].any())


def has_joints2d(dataset: PoseDataset, split: str, limit: int = 64) -> bool:
    """Whether any of at most `limit` examples, evenly spaced, has a 2D joint."""
    source = dataset.split(split)
    known = _usable(source, _evenly(len(source), limit), lambda example: np.asarray(example["valid2d"]).any())
    return any(known)


def _some_poses(dataset: PoseDataset, target: Skeleton, split: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Root-relative poses (N, J, 3) mm in the camera frame and valid (N, J) of at most `limit` examples."""
    source = dataset.split(split)
    indices = _evenly(len(source), limit)
    if dataset.render is not None:
        batch = cast(LiveExamples, source).batch(indices, np.random.default_rng(0))
        poses, valids = batch["pose_mm"], batch["valid"]
    else:

        def pose_of(example: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
            return camera_pose_mm(example, dataset.skeleton, example_name(example))

        poses, valids = (np.stack(column) for column in zip(*_usable(source, indices, pose_of), strict=True))
    poses = root_relative(convert_joints(poses, dataset.skeleton, target), target.root_indices)
    return poses, convert_valid(valids, dataset.skeleton, target)


def _usable(source: Examples, indices: np.ndarray, look: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    """`look` of the examples that can be used. Raises the first one's UserError where none can."""
    found, first = False, None
    for index in indices:
        try:
            yield look(source[int(index)])
            found = True
        except UserError as error:
            first = first or error
    if first is not None and not found:
        raise first


def _evenly(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the places 0 .. count - 1, evenly spaced, the first and the last among them."""
    if limit >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).astype(int))


def _shuffled(weighted: Sequence[tuple[PoseDataset, float]], split: str, seed: int) -> grain.MapDataset:
    """(which dataset, example's place) without end: each dataset shuffled anew every time round, mixed by weight."""
    kinds = {dataset.name: _brings_heatmaps(dataset.split(split)) for dataset, _ in weighted}
    if len(set(kinds.values())) > 1:
        stored = ", ".join(name for name, has in kinds.items() if has)
        raise UserError(f"{stored} brings heatmaps of its own, the others do not; they cannot share a batch")
    parts = [
        grain.MapDataset.source(_Places(number, len(dataset.split(split)))).seed(seed + number).shuffle().repeat(None)
        for number, (dataset, _) in enumerate(weighted)
    ]
    if len(parts) == 1:
        return parts[0]
    return grain.MapDataset.mix(parts, weights=[weight for _, weight in weighted])


def _brings_heatmaps(source: Examples) -> bool:
    """Whether its examples do, by the first that can be read."""
    return next(_usable(source, _evenly(len(source), 64), lambda example: "heatmap" in example))


class _Places:
    """The places of a dataset's examples, with its number in a mixture; the examples are read where they are made."""

    def __init__(self, number: int, count: int):
        self._number, self._count = number, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._number, int(index)


def _maker(dataset: PoseDataset, target: Skeleton, size: int) -> Callable[[dict[str, Any], Change], Sample]:
    fixed = {"source": dataset.skeleton, "target": target, "stored_size": dataset.image_size, "size": size}
    return functools.partial(_augmented, **fixed, extras=dataset.extras)


def _augmented(example, change, **fixed):
    return make_sample(example, change=change, **fixed)


def _drawn(place, rng: np.random.Generator, *, makers, config):
    number, index = place
    return makers[number](index, draw_change(rng, config))


def _shared(position, place, *, makers, config, seed, batch_size):
    number, index = place
    return makers[number](index, draw_change(np.random.default_rng((seed, position // batch_size)), config))


def _converted(sample, *, source, target):
    """Live samples, which come in the renderer's layout, in the network's."""
    if source is target:
        return sample
    pose = root_relative(convert_joints(sample["pose_mm"], source, target), target.root_indices)
    return {
        **sample,
        "joints2d": convert_joints(sample["joints2d"], source, target),
        "valid2d": convert_valid(sample["valid2d"], source, target),
        "pose_mm": pose,
        "valid": convert_valid(sample["valid"], source, target),
    }
