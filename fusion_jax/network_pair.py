"""A fusion network and the 2D network that gives it heatmaps, loaded together and run on batches of fixed shapes."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from fusion_jax import sharding
from fusion_jax.batch import Batch, batch_extras
from fusion_jax.checkpoint import restore_run, weights_digest
from fusion_jax.config import HeatmapConfig
from fusion_jax.errors import UserError, check_field
from fusion_jax.heatmap_feed import open_feed, training_words
from fusion_jax.heatmaps import decode_heatmaps
from fusion_jax.inputs import predict_heatmaps
from fusion_jax.state import TrainState, heatmap_network_variables
from fusion_jax.steps import predict_step
from fusion_jax.work_folder import load_run


class Seen(NamedTuple):
    """One crop (S, S, 3) uint8, its heatmaps (h, w, K), their joints (K, 2) px of the crop, and their peaks (K,)."""

    crop: np.ndarray
    heatmap: np.ndarray
    joints_px: np.ndarray
    confidence: np.ndarray


class NetworkPair:
    """Two networks that go together.

    Attributes:
      config: of the fusion network's run.
      heatmap_inputs: of the 2D network: size of its crops, layout of its joints.
      pose_network, heatmap_network: which weights, in words.
      batch_size: crops at a time.
      notes: what a reader of the results has to know, a sentence each.
    """

    def __init__(self, workdir: pathlib.Path, heatmap_workdir: pathlib.Path | None, batch_size: int):
        """Loads the networks; arguments and errors as of `predictor.Predictor`."""
        check_field(1 <= batch_size <= 4096, "batch_size", batch_size, "in [1, 4096]")
        self.batch_size = batch_size
        self.config, _ = load_run(workdir)
        if self.config.task == "heatmaps":
            raise UserError(
                f"{workdir} holds a 2D network; give it as --heatmap-workdir, and a fusion network's run as --workdir"
            )
        if extras := batch_extras(self.config):
            raise UserError(
                f"the network of {workdir} also reads {' and '.join(extras)}, which a photo does not come with; take a "
                "run whose streams are image and heatmap"
            )
        own = self.config.heatmaps
        if own.in_step and heatmap_workdir is not None:
            raise UserError(
                f"this run has its own 2D network within ({own.mode}); leave --heatmap-workdir {heatmap_workdir} away"
            )
        mesh = sharding.data_mesh(jax.local_devices()[:1])
        state = restore_run(workdir, self.config, mesh)
        self.pose_network = f"{workdir}, step {int(state.step)}, weights {weights_digest(state)}"
        # The heatmaps will be there already, from whichever network: the state must not make them anew.
        self._state = state.replace(heatmap_network=None, heatmaps=HeatmapConfig())
        net = open_feed(self.config, "predicted", heatmap_workdir, mesh).net
        self.notes: list[str] = []
        self._network: nn.Module
        if net is None:
            assert own.net is not None and state.heatmap_network is not None
            self.heatmap_inputs, self.heatmap_network = own.net.inputs, f"within {self.pose_network}"
            self._network, self._variables = state.heatmap_network, heatmap_network_variables(state)
            self._flip = False  # as in training
            return
        self.heatmap_inputs, self.heatmap_network = net.config.inputs, net.identity
        self._network, self._variables = net.state.network, {"params": net.state.params, **net.state.constants}
        self._flip = True
        if own.net is not None and net.net.weights != own.net.weights:
            self.notes.append(
                f"the fusion network was trained on heatmaps of {own.net.workdir} (weights {own.net.weights}) and is "
                f"given those of {net.identity}"
            )
        if own.source != "predicted":
            self.notes.append(
                f"the fusion network was trained on heatmaps {training_words(own)}, and is given those of "
                f"{net.identity}, which it has never seen"
            )

    def heatmaps(self, crops: Sequence[np.ndarray]) -> list[Seen]:
        """What the 2D network sees in crops (S, S, 3) uint8 of its own input's size.

        Averaged with the mirrored crops, unless it was trained within the fusion network, which reads them without.

        Raises:
          UserError: its weights are damaged.
        """
        size, found = self.heatmap_inputs.image_size, []
        for chunk, count in _chunks(crops, self.batch_size):
            heatmaps = _heatmaps(self._network, self._variables, chunk, self.heatmap_inputs, flip=self._flip)
            _check_finite(np.asarray(heatmaps), self.heatmap_network)
            joints, peaks = _decode(heatmaps, size)
            rows = zip(chunk, *(np.asarray(value) for value in (heatmaps, joints, peaks)), strict=True)
            found += [Seen(*row) for row in rows][:count]
        return found

    def poses(self, crops: Sequence[np.ndarray], heatmaps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Poses (J, 3) mm, camera frame, of crops (S, S, 3) uint8 of the fusion network's size and their heatmaps.

        Raises:
          UserError: the fusion network's weights are damaged.
        """
        found: list[np.ndarray] = []
        chunks = zip(_chunks(crops, self.batch_size), _chunks(heatmaps, self.batch_size), strict=True)
        for (images, count), (maps, _) in chunks:
            poses = np.asarray(_pose(self._state, {"image": images, "heatmap": maps}))[:count]
            _check_finite(poses, self.pose_network)
            found += list(poses)
        return found


def _check_finite(values: np.ndarray, network: str) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"the network {network} gives numbers that are not finite; its weights are damaged, use others")


def _chunks(rows: Sequence[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """(batch, how many of it are real): of `size`, filled up by repeating the last one, or of one where that is all.

    With two sizes alone, no number of people makes the networks compile more than twice.
    """
    for start in range(0, len(rows), size):
        part = list(rows[start : start + size])
        yield np.stack(part + [part[-1]] * (0 if len(rows) == 1 else size - len(part))), len(part)


_heatmaps = jax.jit(predict_heatmaps, static_argnums=(0, 3), static_argnames="flip")


@functools.partial(jax.jit, static_argnums=1)
def _decode(heatmaps: jax.Array, image_size: int) -> tuple[jax.Array, jax.Array]:
    return decode_heatmaps(heatmaps, image_size)


@jax.jit
def _pose(state: TrainState, batch: Batch) -> jax.Array:
    return predict_step(state, batch)
