"""Scoring a network on a split: on which data, whether that is fair, every frame once, with what its example says."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.loader import eval_batches
from data_pipelines.prepared import PoseDataset
from data_pipelines.samples import text
from fusion_jax import sharding
from fusion_jax.batch import batch_extras
from fusion_jax.config import Config
from fusion_jax.datasets import open_dataset, parse_mixture
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen, check_test, unknown_overlap
from fusion_jax.protocol_tables import score_protocol
from fusion_jax.protocol_text import protocol_csv, protocol_markdown
from fusion_jax.protocols import Protocol
from fusion_jax.records import write_text
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState
from fusion_jax.steps import eval_step
from fusion_jax.tables import score_batches
from fusion_jax.work_folder import IMPORTED, DatasetRecord, load_seen


def loaded_size(config: Config) -> int:
    """Side in px at which pictures are loaded: the larger of the networks' inputs; the steps bring them to each."""
    net = config.heatmaps.net
    return max(config.inputs.image_size, net.inputs.image_size if net and config.heatmaps.in_step else 0)


def place_batch(batch: dict[str, Any], dataset: PoseDataset, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """A host batch on the mesh, split along B; live scenes are rendered there, with the dataset's extras."""
    placed = sharding.global_batch(batch, mesh)
    if dataset.render_with_parts is not None and "parts" in dataset.extras:
        placed["image"], placed["parts"] = sharding.map_split(dataset.render_with_parts, mesh)(placed.pop("scene"))
    elif dataset.render is not None:
        placed["image"] = sharding.map_split(dataset.render, mesh)(placed.pop("scene"))
    return placed


def score_split(
    config: Config,
    state: TrainState,
    dataset: PoseDataset,
    split: str,
    mesh: jax.sharding.Mesh,
    *,
    step: Callable = eval_step,
    batch_size: int,
    limit: int | None = None,
    labels: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, np.ndarray]:
    """`tables.score_batches` of a split's frames, each once, by `step`, with the `labels` of its examples."""
    batches = eval_batches(
        dataset,
        split,
        target=skeleton(config.inputs.skeleton),
        image_size=loaded_size(config),
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        limit=limit,
        labels=labels,
    )
    compiled = sharding.jit_eval_step(mesh, step)

    def score(batch: dict[str, Any]) -> dict[str, np.ndarray]:
        on_device = {name: array for name, array in batch.items() if name != "labels"}
        scores = jax.device_get(compiled(state, place_batch(on_device, dataset, mesh)))  # of all processes' frames
        return {name: value[sharding.local_rows(mesh, len(value))] for name, value in scores.items()}

    return score_batches(score, batches)


def example_labels(example: Mapping[str, Any], enlarged: float) -> dict[str, Any]:
    """What an example says of itself: texts, '' where it does not, and `head_size_px`, 0 if unknown.

    Args:
      enlarged: px of the network's input for each px of the stored picture; the head's size is told in the former,
        as the 2D joints that are scored.
    """
    names = ("subject", "action", "sequence", "camera_name")
    texts = {name: np.str_(text(example.get(name, ""))) for name in names}
    return {**texts, "head_size_px": np.float64(enlarged * float(example.get("head_size_px", 0)))}


def open_scored(
    config: Config, record: DatasetRecord, data_dir: pathlib.Path | None, dataset: str | None, workdir: pathlib.Path
) -> PoseDataset:
    """The dataset to score, by name, or a run's own, the first of a mixture; its batches hold what the network reads.

    Raises:
      UserError: no such data, or without what the network reads; or the run's own is not what it was trained on.
    """
    folder = data_dir or pathlib.Path(record.data_dir)
    if dataset is not None:
        return open_dataset(dataset, folder, loaded_size(config), config.drawn_by).with_extras(batch_extras(config))
    name = parse_mixture(config.dataset)[0][0]
    if record.fingerprint.startswith(IMPORTED):
        raise UserError(f"{workdir} was not trained here, so it has no data of its own; name some: --dataset {name}")
    opened = open_dataset(name, folder, loaded_size(config), config.drawn_by)
    expected = record.fingerprint.split("+")[0]
    if opened.fingerprint != expected:
        raise UserError(
            f"the data in {folder} is not what {workdir} was trained on (fingerprint {opened.fingerprint}, expected "
            f"{expected}); prepare it alike or give --data-dir"
        )
    return opened.with_extras(batch_extras(config))


def seen_before(
    config: Config, workdir: pathlib.Path, dataset: PoseDataset, split: str, *, own: bool
) -> tuple[list[Seen], list[str]]:
    """What a run was trained on, and warnings about its scores on a split of its own or of another dataset.

    Raises:
      UserError: training has seen frames or people of the split, which is not the very split that it was trained on.
    """
    seen = load_seen(workdir)
    others = other_parts(config, split, own=own)
    for part in others:
        check_test(seen, dataset, part)
    warnings = ["the network was trained on these frames"] if others != split.split("+") else []
    return seen, warnings + list(filter(None, [unknown_overlap(seen, dataset, split)]))


def other_parts(config: Config, split: str, *, own: bool) -> list[str]:
    """The parts of a split that a run was not trained on as such; all of them of a dataset that is not its own."""
    return [part for part in split.split("+") if not (own and part in config.train_split.split("+"))]


def scored_name(dataset: PoseDataset, split: str, *, own: bool) -> str:
    """What a scored split's files are called: as the split, with the dataset in front where it is not the run's own."""
    return split if own else re.sub("[/=]", "_", f"{dataset.name}_{split}")


def data_words(dataset: PoseDataset, split: str, seen: Sequence[Seen], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a table's protocol that tells of the data: who and which frames were scored and trained on.

    Args:
      warnings: what casts doubt on the scores, beside the dataset's own warning.
    """
    people = [name for part in split.split("+") for name in dataset.subjects.get(part, [])]
    doubts = [*warnings, *filter(None, [dataset.description.get("warning")])]
    return {
        "dataset": dataset.name,
        "split": split,
        "subjects": people or "unknown",
        "training data": [part.dataset for part in seen],
        "training subjects": sorted({name for part in seen for name in part.subjects}) or "unknown",
        **dataset.description,
        **({"warning": "; ".join(doubts)} if doubts else {}),
        "scoring": "every frame of the split once, no batch dropped",
    }


def score_benchmark(
    protocol: Protocol,
    frames: dict[str, np.ndarray],
    dataset: PoseDataset,
    split: str,
    seen: Sequence[Seen],
    config: Config,
    *,
    network_input: str,
    differs: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """`score_protocol` of scored frames, told whom the run was trained on and what of the dataset it left out."""
    people = sorted({name for part in seen if part.family == dataset.family for name in part.subjects})
    trained_on_it = any(part.family == dataset.family for part in seen)
    held_out = trained_on_it and config.train_split == "train" and "validation" in dataset.splits
    return score_protocol(
        protocol,
        frames,
        frames,
        skeleton(config.inputs.skeleton),
        training_subjects=people,
        description=dict(dataset.description),
        split=split,
        network_input=network_input,
        differs=[*differs, *(["trained without the held-out validation part"] if held_out else [])],
        warnings=warnings,
    )


def write_benchmark(folder: pathlib.Path, name: str, benchmark: dict[str, Any]) -> None:
    """Writes `score_benchmark`'s tables as <name>_protocol.md and .csv."""
    write_text(folder / f"{name}_protocol.md", protocol_markdown(benchmark))
    write_text(folder / f"{name}_protocol.csv", protocol_csv(benchmark))


def load_samples(
    config: Config, dataset: PoseDataset, split: str, index: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The frames of a split at `index` (N,): their batch, on one device, and which they are, as a report names them.

    The latter are `subject`, `action`, `sequence` (with the camera) and `frame`, (N,) each.
    """
    examples = [dataset.split(split)[int(i)] for i in index]
    (batch,) = eval_batches(
        dataclasses.replace(dataset, splits={"samples": examples}),
        "samples",
        target=skeleton(config.inputs.skeleton),
        image_size=loaded_size(config),
        batch_size=len(examples),
    )
    names = {name: np.array([text(e[name]) for e in examples]) for name in ("subject", "action")}
    names["sequence"] = np.array(
        ["/".join(text(e[k]) for k in ("sequence", "camera_name") if k in e) for e in examples]
    )
    names["frame"] = np.array([int(e["frame"]) for e in examples])
    return place_batch(batch, dataset, sharding.data_mesh(jax.local_devices()[:1])), names


def save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a whole .npz file or, if interrupted, leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    os.replace(partial, path)
