"""The trained 2D network that gives a fusion network its heatmaps: found, known by its weights, put in place."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal, NamedTuple

import jax

from fusion_jax.card import check_heatmaps_fit
from fusion_jax.checkpoint import restore_run, weights_digest
from fusion_jax.config import Config, HeatmapConfig, HeatmapNet, InputConfig
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.state import TrainState
from fusion_jax.work_folder import load_run, load_seen

Source = Literal["true", "noisy", "predicted"]
Mode = Literal["cache", "frozen", "finetune"]


class OpenNet(NamedTuple):
    """A 2D network that is ready to be used.

    Attributes:
      net: what a config says of it.
      config: of its own run.
      state: of its newest checkpoint.
      seen: everything it was trained on.
    """

    net: HeatmapNet
    config: Config
    state: TrainState
    seen: list[Seen]

    @property
    def identity(self) -> str:
        """Which weights, in words."""
        return f"{self.net.workdir}, step {int(self.state.step)}, weights {self.net.weights}"


def open_heatmap_net(workdir: pathlib.Path, mesh: jax.sharding.Mesh) -> OpenNet:
    """The newest weights of the 2D network that was trained in `workdir`.

    Raises:
      UserError: no run, no checkpoint, or a run of a fusion network.
    """
    workdir = pathlib.Path(workdir)
    config, _ = load_run(workdir)
    if config.task != "heatmaps":
        raise UserError(
            f"{workdir} holds a fusion network (task pose), a 2D network is needed to predict heatmaps; "
            "train one: fusion-jax train --task heatmaps"
        )
    state = restore_run(workdir, config, mesh)
    net = HeatmapNet(str(workdir.resolve()), weights_digest(state), config.hourglass, config.inputs)
    return OpenNet(net, config, state, load_seen(workdir))


def heatmap_source(config: Config, source: Source, mode: Mode = "cache", workdir: pathlib.Path | None = None) -> Config:
    """The config of a fusion network's run whose heatmaps come from elsewhere than true joints.

    Args:
      config: of the run.
      source: true, noisy or predicted.
      mode: how predicted ones are made, see HeatmapConfig.
      workdir: of the run of the 2D network that predicts them. Its weights are told apart when training begins.

    Raises:
      UserError: no 2D network for predicted heatmaps, or one for others.
    """
    _ = config.fusion
    if source != "predicted":
        if workdir is not None:
            raise UserError(f"a 2D network ({workdir}) is of use for heatmaps 'predicted' alone, not for {source!r}")
        return dataclasses.replace(config, heatmaps=HeatmapConfig(source))
    if workdir is None:
        raise UserError("heatmaps 'predicted' need the 2D network that predicts them: --heatmap-workdir RUN")
    theirs, _ = load_run(workdir)
    net = HeatmapNet(str(pathlib.Path(workdir).resolve()), "", theirs.hourglass, theirs.inputs)
    inputs = read_inputs(config.inputs, theirs.inputs)
    return dataclasses.replace(config, heatmaps=HeatmapConfig(source, mode, net=net), inputs=inputs)


def reopen_heatmap_net(net: HeatmapNet, mesh: jax.sharding.Mesh, workdir: pathlib.Path | None = None) -> OpenNet:
    """The 2D network that a config names, looked for in `workdir` if it was moved.

    Raises:
      UserError: as `open_heatmap_net`, or the folder holds other weights now.
    """
    folder = pathlib.Path(net.workdir) if workdir is None else workdir
    if not (folder / "config.json").exists():
        raise UserError(f"the 2D network is no longer in {folder}; say where it is now: --heatmap-workdir RUN")
    opened = open_heatmap_net(folder, mesh)
    if net.weights and opened.net.weights != net.weights:
        raise UserError(
            f"the 2D network in {opened.net.workdir} has other weights now ({opened.net.weights} after step "
            f"{int(opened.state.step)}) than those this run was trained with ({net.weights}); heatmaps of one are "
            "not those of the other: bring the old weights back, or train the fusion network anew"
        )
    return opened


def read_inputs(inputs: InputConfig, net: InputConfig) -> InputConfig:
    """A fusion network's inputs, made to read the heatmaps of a 2D network as that predicts them."""
    return dataclasses.replace(
        inputs,
        heatmap_skeleton=net.heatmap_skeleton,
        heatmap_size=net.heatmap_size,
        heatmap_sigma_px=net.heatmap_sigma_px,
    )


def check_net_fits(config: Config, opened: OpenNet) -> None:
    """Raises UserError, with both values, where a fusion network cannot read what the 2D network predicts."""
    check_heatmaps_fit(config, opened.config, opened.net.workdir)


def place_heatmap_net(state: TrainState, opened: OpenNet) -> TrainState:
    """The state of a fusion network with the trained weights where its own 2D network is still fresh."""
    params, constants = dict(state.params), dict(state.constants)
    placed: dict[str, Any] = dict(opened.state.constants)
    if HEATMAP_NETWORK in params:
        params[HEATMAP_NETWORK] = opened.state.params
    else:
        placed["params"] = opened.state.params
    constants[HEATMAP_NETWORK] = placed
    return state.replace(params=params, constants=constants)
