"""The proof that a pruned network answers as before: both on the same real frames, their costs, and the bound."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from data_pipelines.prepared import PoseDataset
from fusion_jax import cost, metrics, sharding
from fusion_jax.batch import Batch, check_batch
from fusion_jax.config import Config
from fusion_jax.fed_data import feed_split
from fusion_jax.fusion import LiveLayers
from fusion_jax.geometry import root_relative
from fusion_jax.heatmap_feed import Feed, open_feed
from fusion_jax.inputs import network_inputs, with_heatmaps
from fusion_jax.network import active_streams, fusion_layers
from fusion_jax.prune import alive, mixed_layers, mixing_weights, pruned_state, removed_layers
from fusion_jax.prune_bound import change_bound_mm, gaps, joint_norms, lipschitz_constants
from fusion_jax.scoring import open_scored, score_split
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, network_variables
from fusion_jax.tables import frame_mean
from fusion_jax.work_folder import DatasetRecord

SOFT_EPS = (1e-3, 1e-2, 0.05, 0.1, 0.25, 0.49)
"""For which a run that is still soft is told what pruning would do."""
TIMED_BATCH = 16

Numbers = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Frames:
    """Real frames that networks before and after pruning are given alike.

    Attributes:
      feed: the heatmaps that the run was trained with.
      dataset, split: where they are from; at most `limit` of them, evenly spaced.
      warnings: what casts doubt on scores on them.
    """

    feed: Feed
    dataset: PoseDataset
    split: str
    limit: int
    batch_size: int
    mesh: jax.sharding.Mesh
    warnings: tuple[str, ...]

    def score(self, state: TrainState) -> dict[str, np.ndarray]:
        """`scoring.score_split` of these frames by `observed_step`."""
        return score_split(
            self.feed.trained,
            self.feed.state(state),
            self.dataset,
            self.split,
            self.mesh,
            step=observed_step,
            batch_size=self.batch_size,
            limit=self.limit,
        )


def open_frames(
    workdir: pathlib.Path,
    config: Config,
    record: DatasetRecord,
    *,
    data_dir: pathlib.Path | None,
    dataset: str | None,
    split: str,
    limit: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> Frames:
    """The frames of a split as `evaluate` gives them to a run's network.

    Raises:
      UserError: as of `evaluate.evaluate_run`.
    """
    feed, own = open_feed(config, None, None, mesh), dataset is None
    opened = open_scored(config, record, data_dir, dataset, workdir)
    opened, _, warnings = feed_split(feed, opened, split, workdir, record, mesh, data_dir=data_dir, own=own)
    return Frames(feed, opened, split, limit, batch_size, mesh, tuple(warnings))


def observed_step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """`pred_mm` (B, J, 3) and distances `mpjpe` (B, J) mm as `steps.eval_step`, and `gaps` (B, L) of prune_bound."""
    check_batch(batch, state.inputs)
    inputs = network_inputs(with_heatmaps(state, batch), state.inputs)
    pred, sown = state.network.apply(network_variables(state), inputs, mutable=["intermediates"])
    assert isinstance(pred, jax.Array)
    pred = root_relative(pred, skeleton(state.inputs.skeleton).root_indices)
    num_layers = len(active_streams(state.network.streams, state.network.strategy)[0].layers)
    return {
        "pred_mm": pred,
        "mpjpe": metrics.joint_distance_mm(pred, batch["pose_mm"]),
        "gaps": gaps(sown["intermediates"], num_layers),
    }


class Prover:
    """A run's network on real frames, ready to be compared with what pruning leaves of it."""

    def __init__(self, config: Config, state: TrainState, frames: Frames):
        self.config, self._state, self._frames = config, state, frames
        self._before = frames.score(state)
        self._compared: dict[Any, Numbers] = {}
        self._constants: dict[int, float] = {}

    def compare(self, pruned: Config) -> Numbers:
        """What changes on the frames, and its bound: `change_mm`, `bound_mm`, `mpjpe_mm`, JSON data.

        Changes are of joints relative to the root, as every command writes them; means over frames and joints.
        """
        key = pruned.fusion.live
        if key not in self._compared:
            cut = key != self.config.fusion.live
            after = self._frames.score(pruned_state(self._state, pruned)) if cut else self._before
            change = np.linalg.norm(after["pred_mm"] - self._before["pred_mm"], axis=-1)
            bound = np.zeros_like(change) if key is None or not cut else self._bound(key)
            self._compared[key] = {
                "change_mm": {"max": float(change.max()), "mean": float(change.mean())},
                "bound_mm": {"max": float(bound.max()), "mean": float(bound.mean())},
                "mpjpe_mm": {
                    name: frame_mean(frames["mpjpe"], frames["valid"])
                    for name, frames in (("before", self._before), ("after", after))
                },
            }
        return self._compared[key]

    def by_eps(self, eps: float) -> list[Numbers]:
        """What pruning would do at `eps` and at SOFT_EPS, one entry each."""
        rows = []
        for value in sorted({eps, *SOFT_EPS}):
            pruned, _ = alive(self.config, self._state.params, value)
            rows.append(
                {
                    "eps": value,
                    "removed": removed_layers(self.config, pruned),
                    "mixed_layers": mixed_layers(pruned),
                    "parameters": cost.parameters(pruned),
                    **self.compare(pruned),
                }
            )
        return rows

    def frames_words(self) -> Numbers:
        """Which frames they are, JSON data."""
        frames = self._frames
        return {
            "dataset": frames.dataset.name,
            "split": frames.split,
            "frames": len(self._before["index"]),
            "of": len(frames.dataset.split(frames.split)),
            "heatmaps": self.config.heatmaps.source,
            "warnings": list(frames.warnings),
        }

    def _bound(self, live: LiveLayers) -> np.ndarray:
        """(N, J) mm."""
        layers = fusion_layers(self.config.fusion.streams)
        params, constants = jax.device_get((self._state.params, self._state.constants))
        known = min(self._constants, default=len(layers) + 1)
        if live.first_fusion < known:  # only those that were not worked out yet: of a wide layer it takes seconds
            shapes = list(cost.example_shapes(self.config).values())
            shape = (*shapes[0][:-1], sum(s[-1] for s in shapes))
            wanted = lipschitz_constants(layers[: known - 1], params, shape, live.first_fusion)
            self._constants |= wanted
        root = skeleton(self.config.inputs.skeleton).root_indices
        joints = joint_norms(params[f"fusion_{len(layers) + 1}"]["kernel"], constants["pose_std_mm"], root)
        weights = mixing_weights(self.config, params)
        return change_bound_mm(weights, live, self._before["gaps"], self._constants, joints)


def costs(before: tuple[Config, TrainState], after: tuple[Config, TrainState]) -> Numbers:
    """Parameters, operations and measured speed of two runs' fusion networks, JSON data."""
    names = ("before", "after")
    configs = dict(zip(names, (before[0], after[0]), strict=True))
    speeds = cost.images_per_s([(c, s.params, s.constants) for c, s in (before, after)], TIMED_BATCH)
    return {
        "parameters": {name: cost.parameters(config) for name, config in configs.items()},
        "gflops": {name: cost.gflops(config) for name, config in configs.items()},
        "xla_gflops": {name: cost.xla_gflops(config) for name, config in configs.items()},
        "images_per_s": dict(zip(names, speeds, strict=True)),
        "timed": {"batch_size": TIMED_BATCH, "device": jax.local_devices()[0].device_kind},
    }


def prover(workdir: pathlib.Path, config: Config, record: DatasetRecord, state: TrainState, **frames: Any) -> Prover:
    """A Prover on the frames that `open_frames` opens."""
    return Prover(config, state, open_frames(workdir, config, record, mesh=sharding.data_mesh(), **frames))
