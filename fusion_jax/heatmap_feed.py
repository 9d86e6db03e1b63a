"""What a trained fusion network is fed when it is scored: the heatmaps it was trained with, or others to compare."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import NamedTuple

import jax

from fusion_jax.config import Config, HeatmapConfig
from fusion_jax.errors import UserError
from fusion_jax.heatmap_net import OpenNet, Source, check_net_fits, open_heatmap_net, reopen_heatmap_net
from fusion_jax.state import TrainState


class Feed(NamedTuple):
    """One way of feeding.

    Attributes:
      trained: the run's config as it was trained.
      config: the same with the heatmaps that it is fed.
      net: the 2D network whose heatmaps have to be worked out beforehand; None for all else.
      words: what the heatmaps are; empty where that is the dataset's matter.
      suffix: of the result's name; empty where it is fed as it was trained.
    """

    trained: Config
    config: Config
    net: OpenNet | None
    words: str
    suffix: str

    def state(self, state: TrainState) -> TrainState:
        """The trained state, told what it is fed."""
        if self.config.heatmaps == self.trained.heatmaps:
            return state
        return state.replace(heatmaps=self.config.heatmaps, heatmap_network=None)


def open_feed(config: Config, source: Source | None, workdir: pathlib.Path | None, mesh: jax.sharding.Mesh) -> Feed:
    """How to feed a run of `config`.

    Args:
      config: as trained.
      source: true, noisy or predicted; None for what it was trained with.
      workdir: of the 2D network that predicts; None for the one it was trained with.

    Raises:
      UserError: predicted heatmaps without a 2D network, one that is of no use, or one that does not fit.
    """
    own = config.heatmaps
    wanted = own.source if source is None else source
    if workdir is not None and wanted != "predicted":
        raise UserError(f"a 2D network ({workdir}) is of use for heatmaps 'predicted' alone; give --heatmaps predicted")
    if wanted != "predicted":
        fed = own if wanted == own.source else HeatmapConfig(wanted)
        words = "" if wanted == "true" else "from true 2D joints with errors as a 2D network makes them"
        return Feed(config, _fed(config, fed), None, words, "" if wanted == own.source else f"_{wanted}")
    if workdir is None and own.in_step and own.net is not None:
        trained_along = " and trained along" if own.mode == "finetune" else ""
        return Feed(config, config, None, f"predicted by a 2D network from {own.net.workdir}{trained_along}", "")
    if workdir is not None:
        net = open_heatmap_net(workdir, mesh)
    elif own.net is not None:
        net = reopen_heatmap_net(own.net, mesh)
    else:
        raise UserError(
            f"the fusion network was trained on heatmaps {training_words(own)}, so it has no 2D network of its own; "
            "give one: --heatmap-workdir RUN (made by fusion-jax train --task heatmaps)"
        )
    check_net_fits(config, net)
    same = own.net is not None and own.net.weights == net.net.weights and not own.in_step
    fed = own if same else HeatmapConfig("predicted", net=net.net)
    return Feed(
        config,
        _fed(config, fed),
        net,
        f"predicted by {net.identity}",
        "" if same else f"_predicted_{net.net.weights[:8]}",
    )


def training_words(heatmaps: HeatmapConfig) -> str:
    """Where a run's heatmaps came from that no 2D network of ours predicted."""
    return "that come with its data, of true joints or stored" if heatmaps.source == "true" else "of joints with noise"


def _fed(config: Config, heatmaps: HeatmapConfig) -> Config:
    return dataclasses.replace(config, heatmaps=heatmaps)
