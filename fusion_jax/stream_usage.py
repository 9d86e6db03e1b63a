"""How much a network uses each of its streams: its error when one stream's input is changed and all else is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.loader import eval_batches
from data_pipelines.prepared import ChosenExamples, PoseDataset
from data_pipelines.samples import text
from fusion_jax import sharding
from fusion_jax.analysis_record import WAYS, StreamUse
from fusion_jax.batch import Batch
from fusion_jax.config import Config
from fusion_jax.correlation import Moments, update
from fusion_jax.errors import UserError
from fusion_jax.geometry import root_relative
from fusion_jax.inputs import network_inputs, with_heatmaps
from fusion_jax.metrics import joint_distance_mm
from fusion_jax.network import active_streams
from fusion_jax.scoring import loaded_size, place_batch
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, network_variables
from fusion_jax.tables import frame_mean


class Frames(NamedTuple):
    """The frames of one split that a network is tried on, and with what.

    Attributes:
      rows: (N,) their places in the split, distinct.
      batch_size: frames at a time; changes no result.
    """

    config: Config
    state: TrainState
    dataset: PoseDataset
    split: str
    rows: np.ndarray
    mesh: jax.sharding.Mesh
    batch_size: int


class InputBatch(NamedTuple):
    """What the streams read of B frames, on the host.

    Attributes:
      inputs: by stream, (B, H, W, C) or (B, D).
      pose_mm, valid: (B, J, 3) and (B, J), as of a batch.
      mask: (B,) bool, False for padding.
      place: (B,) int, in the split.
      subject: (B,) str, '' where the data does not tell.
    """

    inputs: dict[str, np.ndarray]
    pose_mm: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    place: np.ndarray
    subject: np.ndarray


def choose_rows(count: int, limit: int | None) -> np.ndarray:
    """All places 0 .. count - 1, or at most `limit` of them, evenly spaced, the first and the last among them."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).astype(int))


def stream_inputs(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """What each stream that the strategy reads is given of a batch, by the stream's name."""
    inputs = network_inputs(with_heatmaps(state, batch), state.inputs)
    streams = active_streams(state.network.streams, state.network.strategy)
    return {stream.name: inputs[stream.name] for stream in streams}


def pose_errors(state: TrainState, batch: dict[str, Any]) -> jax.Array:
    """Joint distances (B, J), mm, for a batch of `inputs` by stream and `pose_mm`, as an evaluation measures them."""
    pose = state.network.apply(network_variables(state), batch["inputs"])
    pose = root_relative(pose, skeleton(state.inputs.skeleton).root_indices)
    return joint_distance_mm(pose, batch["pose_mm"])


def read_inputs(frames: Frames, order: np.ndarray | None = None) -> Iterator[InputBatch]:
    """The streams' inputs of all frames, in batches.

    Args:
      order: (N,) which frame to take at each place; None for each in its own.
    """
    rows = frames.rows if order is None else frames.rows[order]
    # A view, so that no more examples are in memory than the loader reads ahead.
    view = dataclasses.replace(
        frames.dataset, splits={"view": ChosenExamples(frames.dataset.split(frames.split), rows)}
    )
    read = sharding.jit_eval_step(frames.mesh, stream_inputs)
    batches = eval_batches(
        view,
        "view",
        target=skeleton(frames.config.inputs.skeleton),
        image_size=loaded_size(frames.config),
        batch_size=frames.batch_size,
        labels=lambda example: {"subject": np.str_(text(example.get("subject", "")))},
    )
    for batch in batches:
        labels = batch.pop("labels")
        place = rows[batch["index"]].astype(np.int32)  # by which noise on heatmaps is drawn, as in an evaluation
        pose_mm, valid, mask = (np.asarray(batch[name]) for name in ("pose_mm", "valid", "mask"))
        inputs = jax.device_get(read(frames.state, place_batch(batch | {"index": place}, view, frames.mesh)))
        yield InputBatch(inputs, pose_mm, valid, mask, place, np.asarray(labels["subject"]))


def other_people(subject: np.ndarray, seed: int) -> np.ndarray:
    """A permutation (N,) that gives every frame another frame, of another person wherever that is possible.

    It is possible for all where nobody has more than half the frames; otherwise for all but as few as can be. Where
    all frames are of one person every frame gets another one of that person.

    Args:
      subject: (N,) who is in a frame; N >= 2.
      seed: decides among the permutations.
    """
    rng, count = np.random.default_rng(seed), len(subject)
    _, person = np.unique(subject, return_inverse=True)
    if person.max() == 0:
        person = np.arange(count)
    sizes = np.bincount(person)
    # Side by side, person after person, nobody reaches as far as the largest share of frames.
    lined_up = np.lexsort((rng.permutation(count), rng.permutation(len(sizes))[person]))
    other = np.empty(count, int)
    other[lined_up] = np.roll(lined_up, -sizes.max())
    for _ in range(20):  # so far one person gets the frames of one or two others; exchange them at random
        a, b = rng.permutation(count)[: count // 2 * 2].reshape(2, -1)
        fine = (person[other[a]] != person[b]) & (person[other[b]] != person[a])
        a, b = a[fine], b[fine]
        other[a], other[b] = other[b], other[a]
    return other


def noisy(
    values: np.ndarray, index: np.ndarray, seed: tuple[int, ...], std: float, low: float, high: float
) -> np.ndarray:
    """Inputs (B, ...) with Gaussian noise of deviation `std`, clipped to [low, high].

    A frame's noise is drawn from `seed` and its place `index` (B,) in the split, so batches do not matter.
    """
    noise = [np.random.default_rng((*seed, int(i))).standard_normal(values.shape[1:], np.float32) for i in index]
    return np.clip(values + np.float32(std) * np.stack(noise), low, high).astype(values.dtype)


def stream_usage(frames: Frames, seed: int) -> tuple[float | None, list[StreamUse], str]:
    """The error with untouched inputs, mpjpe in mm, the errors with each stream's changed, and whose were exchanged.

    None and nothing where no frame's pose is known in 3D.

    Raises:
      UserError: fewer than two frames, or a prediction that is not finite.
    """
    if len(frames.rows) < 2:
        raise UserError(
            f"{frames.dataset.name} {frames.split}: {len(frames.rows)} frames chosen, expected at least 2 to exchange "
            "inputs between; choose more --frames"
        )
    errors, valid, subjects = [], [], []
    summaries: dict[str, _Summary] = {}
    for batch in read_inputs(frames):
        errors.append(_errors(frames, batch, {}))
        valid.append(batch.valid[batch.mask])
        subjects.append(batch.subject[batch.mask])
        for name, values in batch.inputs.items():
            summaries[name] = _summary(values[batch.mask], summaries.get(name))
    known, subject = np.concatenate(valid), np.concatenate(subjects)
    untouched = frame_mean(np.concatenate(errors), known)
    if untouched is None:
        return None, [], f"No pose of {frames.dataset.name} {frames.split} is known in 3D, so there is no error."
    order = other_people(subject, seed)
    streams = active_streams(frames.state.network.streams, frames.state.network.strategy)
    changed: dict[str, dict[str, list[np.ndarray]]] = {s.name: {way: [] for way in WAYS} for s in streams}
    for batch, others in zip(read_inputs(frames), read_inputs(frames, order), strict=True):
        for number, name in enumerate(changed):
            of, values = summaries[name], batch.inputs[name]
            mean = (of.over_frames / len(frames.rows)).astype(values.dtype)
            ways = {
                "mean": np.broadcast_to(mean, values.shape),
                "other": others.inputs[name],
                "noise": noisy(values, batch.place, (seed, number), of.std, of.low, of.high),
            }
            for way, instead in ways.items():
                changed[name][way].append(_errors(frames, batch, {name: instead}))
    usage = []
    for name, ways_found in changed.items():
        mean_mm, other_mm, noise_mm = (_known_mean(ways_found[way], known) for way in WAYS)
        of = summaries[name]
        usage.append(StreamUse(name, mean_mm, other_mm, noise_mm, of.std, of.low, of.high))
    return untouched, usage, _exchange_words(subject, order)


def _exchange_words(subject: np.ndarray, order: np.ndarray) -> str:
    people = sorted(set(subject.tolist()))
    if len(people) == 1:
        who = f"all are of {people[0]}" if people[0] else "the data does not tell who is in them"
        return f"Another person's: frames exchange inputs with each other, each goes to one other frame; {who}."
    same = int((subject == subject[order]).sum())
    but = f", but for {same} of {len(subject)} frames, of a person with more than half of them" if same else ""
    return (
        "Another person's: frames exchange inputs with each other, each goes to one frame of another of the "
        f"{len(people)} people{but}."
    )


class _Summary(NamedTuple):
    """Of one stream's inputs so far: their sum over frames (H, W, C), and of all values moments and range."""

    over_frames: np.ndarray
    values: Moments
    low: float
    high: float

    @property
    def std(self) -> float:
        return float(np.sqrt(self.values.scatter[0, 0] / self.values.total))


def _summary(values: np.ndarray, before: _Summary | None) -> _Summary:
    total, moments = values.sum(0, dtype=np.float64), update(before and before.values, values.reshape(-1, 1))
    low, high = float(values.min()), float(values.max())
    if before is None:
        return _Summary(total, moments, low, high)
    return _Summary(before.over_frames + total, moments, min(low, before.low), max(high, before.high))


def _errors(frames: Frames, batch: InputBatch, instead: dict[str, np.ndarray]) -> np.ndarray:
    """Joint distances (n, J), mm, of the frames that are no padding, with some streams' inputs replaced."""
    score = sharding.jit_eval_step(frames.mesh, pose_errors)
    given = {"inputs": batch.inputs | instead, "pose_mm": batch.pose_mm}
    errors = jax.device_get(score(frames.state, sharding.global_batch(given, frames.mesh)))[batch.mask]
    if not np.isfinite(errors[batch.valid[batch.mask]]).all():
        raise UserError("the network predicted joints that are not finite; its checkpoint is damaged")
    return errors


def _known_mean(parts: Sequence[np.ndarray], valid: np.ndarray) -> float:
    mean = frame_mean(np.concatenate(parts), valid)
    assert mean is not None  # the untouched error of the same frames is not
    return mean
