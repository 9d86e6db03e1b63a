"""Dead layers in training: which layers the steps of a run leave out, and when that is decided.

Where w_l lies within eps of 0 or 1 it counts as exactly that, and layers that nothing reads any more
(`fusion.live_layers`) are left out of the compiled step. Their weights and Adam's moments rest in the state, as they
were when the layer was last read. Decided after every optim.skip_every steps, counted from step 0, and remembered by
checkpoints, so that a run decides alike whether or not it was stopped on the way.

What a run without skipping would have done otherwise: terms of size eps are missing from the gradients, those of beta
among them, and Adam, which divides a gradient by its usual size, would in time have made full steps even of these. Once
no layer mixes, beta stands still, and alpha follows its penalty alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from fusion_jax import fusion
from fusion_jax.config import Config
from fusion_jax.cost import live_of
from fusion_jax.optim import FUSION_PARAMETERS
from fusion_jax.progress import Progress
from fusion_jax.prune import mixing_weights
from fusion_jax.transfers import any_transfers


class Skipping:
    """The layers that a run's steps read now.

    Attributes:
      network: what the step is compiled for; equal ones are compiled once.
      live: what a checkpoint has to remember; None for a run that skips nothing, ever.
    """

    def __init__(self, config: Config, whole: nn.Module, live: fusion.LiveLayers | None = None):
        """
        Args:
          config: of the run; optim.skip_dead none skips nothing.
          whole: its network, as the config says.
          live: what the checkpoint says from which the run goes on; None to begin with everything.
        """
        self._config, self._whole = config, whole
        self.network: nn.Module = whole
        self.live: fusion.LiveLayers | None = None
        if config.optim.skip_dead is not None:
            self._take(live or live_of(config.fusion))

    def _take(self, live: fusion.LiveLayers) -> None:
        everything = live == live_of(self._config.fusion)
        self.network = self._whole if everything else self._whole.clone(live=live)
        self.live = live

    def due(self, step: int) -> bool:
        """Whether it is decided anew once `step` steps are done."""
        return self.live is not None and step % self._config.optim.skip_every == 0

    @any_transfers  # a few numbers of the host, through functions that compute on a device
    def decide(self, params: Mapping[str, Any], step: int, progress: Progress | None = None) -> None:
        """Takes the layers that `params`, after `step` steps, leave alive; tells `progress` where that is a change."""
        eps = self._config.optim.skip_dead
        if eps is None:
            return
        host = {name: jax.device_get(params[name]) for name in FUSION_PARAMETERS if name in params}
        live = fusion.live_layers(mixing_weights(self._config, host), eps)
        if live != self.live:
            self._take(live)
            if progress is not None:
                progress.event("skip", step, dataclasses.asdict(live), self._words(live))

    def _words(self, live: fusion.LiveLayers) -> str:
        whole = live_of(self._config.fusion)
        dead = [
            f"{kind} {_span(first, last)}"
            for kind, first, last in (
                ("fusion", whole.first_fusion, live.first_fusion - 1),
                ("data", live.last_data + 1, whole.last_data),
            )
            if first <= last
        ]
        return f"no longer count and are skipped: {' and '.join(dead)}" if dead else "all layers count again"


def _span(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first}-{last}"
