"""Heatmaps of a frozen 2D network, predicted once for a prepared dataset and kept beside it."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.heatmap_store import FORMAT, WithHeatmaps, pack, picture_check, write_heatmaps
from data_pipelines.loader import eval_batches
from data_pipelines.prepared import PoseDataset
from data_pipelines.samples import example_name
from fusion_jax import sharding
from fusion_jax.errors import UserError
from fusion_jax.heatmap_net import OpenNet
from fusion_jax.heatmap_steps import heatmap_predict_step
from fusion_jax.records import to_json
from fusion_jax.skeletons import skeleton

_LAYOUT = "mpii16"  # in which the loader takes stored heatmaps
_BATCH = 32  # always, so that on the same devices the same pictures give the same bits


def with_cache(
    dataset: PoseDataset,
    data_dir: pathlib.Path,
    net: OpenNet,
    splits: Collection[str],
    mesh: jax.sharding.Mesh,
    show: bool = True,
) -> PoseDataset:
    """The dataset whose examples carry `heatmap` (h, w, K) float32 in [0, 1] as a 2D network predicts it.

    Predicted from the stored picture without augmentation and averaged with the mirrored picture's; the loader then
    moves the heatmaps as it moves the picture. Kept, to 1/510, in
    DATA_DIR/<dataset>/heatmaps/<weights>_<fingerprint>_v<format>/<split>.array_record; other networks' and other
    data's lie beside them under names of their own.

    Args:
      dataset: prepared, without heatmaps of its own.
      data_dir: the folder it was opened from.
      net: the 2D network, with the joints of mpii16.
      splits: names of splits; those the dataset does not have, or has no example of, are passed over, and its other
        splits stay as they are.
      mesh: devices that predict.
      show: progress on the terminal.

    Raises:
      UserError: live data, data with heatmaps of its own, or another joint layout; a file that is damaged or holds
        other heatmaps, by the fields that differ; heatmaps that are not finite; a folder that cannot be written; or
        heatmaps that are not there yet while several processes run.
    """
    if dataset.render is not None:
        raise UserError(
            f"{dataset.name} is rendered anew in every step, so its heatmaps cannot be kept; take prepared data; "
            "or when training: --heatmap-mode frozen"
        )
    layout = net.net.inputs.heatmap_skeleton
    if layout != _LAYOUT:
        raise UserError(
            f"the 2D network of {net.net.workdir} predicts joints of {layout}, kept heatmaps have to be of {_LAYOUT}; "
            f"take a 2D network of {_LAYOUT}; or when training: --heatmap-mode frozen"
        )
    wanted = [split for split in dataset.splits if split in splits and len(dataset.split(split))]
    for split in wanted:
        if "heatmap" in dataset.split(split)[0]:
            raise UserError(
                f"{dataset.name} brings heatmaps of its own in {split}, which a 2D network's would hide; use those "
                "without a 2D network; or when training: --heatmap-mode frozen"
            )
    folder = pathlib.Path(data_dir) / dataset.name / "heatmaps" / cache_key(dataset, net)
    cached: dict[str, Any] = {}
    for split in wanted:
        header, path = _header(dataset, split, net), folder / f"{split}.array_record"
        if not path.exists():
            _make(dataset, split, net, mesh, path, header, show)
        cached[split] = WithHeatmaps(dataset.split(split), path, header)
    return dataclasses.replace(dataset, splits={**dataset.splits, **cached})


def cache_key(dataset: PoseDataset, net: OpenNet) -> str:
    """The folder's name: which weights, which data, which format."""
    return f"{net.net.weights}_{dataset.fingerprint}_v{FORMAT}"


def _header(dataset: PoseDataset, split: str, net: OpenNet) -> dict[str, Any]:
    """All that a file of heatmaps has to agree in."""
    inputs = net.net.inputs
    return {
        "format": FORMAT,
        "values": "256 levels of [0, 1], averaged with the mirrored picture's",
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "count": len(dataset.split(split)),
        "weights": net.net.weights,
        "network": to_json(net.net.network),
        "input_px": inputs.image_size,
        "size_px": inputs.heatmap_size,
        "joints": list(skeleton(inputs.heatmap_skeleton).joints),
    }


def _make(
    dataset: PoseDataset,
    split: str,
    net: OpenNet,
    mesh: jax.sharding.Mesh,
    path: pathlib.Path,
    header: dict[str, Any],
    show: bool,
) -> None:
    if jax.process_count() > 1:
        raise UserError(
            f"{path} is not there yet, and {jax.process_count()} processes would make it at once; run the same "
            "command in a single process first; when training: with --stop-after 1"
        )
    count = header["count"]
    if show:
        tqdm.write(f"heatmaps of {count} {split} examples of {dataset.name} by {net.identity}, once", file=sys.stderr)
    began = time.perf_counter()
    with tqdm(total=count, unit="example", desc=f"heatmaps {split}", disable=None if show else True) as bar:
        size = write_heatmaps(path, header, _records(dataset, split, net, mesh, bar))
    seconds = time.perf_counter() - began
    if show:
        tqdm.write(
            f"written {path}: {count} examples in {seconds:.0f} s ({count / seconds:.0f} examples/s), "
            f"{size / 1e6:.1f} MB",
            file=sys.stderr,
        )


def _records(dataset: PoseDataset, split: str, net: OpenNet, mesh: jax.sharding.Mesh, bar: tqdm) -> Iterator[bytes]:
    """The record of each example in order; the devices predict a batch while the host packs the one before."""
    local = len(mesh.local_devices)
    batches = eval_batches(
        dataset,
        split,
        target=dataset.skeleton,  # the joints are not looked at
        image_size=net.net.inputs.image_size,
        batch_size=local * math.ceil(_BATCH / local),
        labels=_told,
    )
    predict = sharding.jit_eval_step(mesh, heatmap_predict_step)
    packed = functools.partial(_packed, net=net, bar=bar)
    before: tuple[dict[str, Any], jax.Array] | None = None
    for batch in batches:
        heatmaps = predict(net.state, sharding.global_batch({"image": batch["image"]}, mesh))
        if before is not None:
            yield from packed(*before)
        before = (batch, heatmaps)
    if before is not None:
        yield from packed(*before)


def _told(example: dict[str, Any]) -> dict[str, Any]:
    return {"picture": np.uint32(picture_check(example)), "name": np.str_(example_name(example))}


def _packed(batch: dict[str, Any], heatmaps: jax.Array, net: OpenNet, bar: tqdm) -> Iterator[bytes]:
    """The records of the examples of a batch that are no padding."""
    told = batch["labels"]
    for row, heatmap in zip(np.flatnonzero(batch["mask"]), np.asarray(heatmaps)[batch["mask"]], strict=True):
        if not np.isfinite(heatmap).all():
            raise UserError(
                f"the 2D network of {net.identity} predicts heatmaps that are not finite of {told['name'][row]}; its "
                "training diverged or its weights are damaged, train it again"
            )
        yield pack(heatmap, int(told["picture"][row]))
        bar.update()
