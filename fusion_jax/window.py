"""The steps since a run's last row of numbers: what they measured, and what to do about those that are not finite."""

from __future__ import annotations

import pathlib
import time
from typing import Any, Literal

import jax
import numpy as np

from fusion_jax.batch import named_leaves
from fusion_jax.errors import TrainingDivergedError
from fusion_jax.progress import Progress

OnNonfinite = Literal["stop", "skip"]
MAX_IN_ROW = 20
"""So many steps after one another that are not finite are no accident, whatever the policy."""
LOOK_EVERY = 25
"""Steps after which what they measured is looked at, at the latest; their batches are held until then."""
_MAX_KEPT = 10  # batches of skipped steps of a run


class Window:
    """Metrics of the last steps, still on the device, and their batches, for replay."""

    def __init__(
        self,
        batch_size: int,
        workdir: pathlib.Path,
        on_nonfinite: OnNonfinite = "stop",
        nonfinite: tuple[int, int] = (0, 0),
    ):
        """
        Args:
          batch_size: examples in a step.
          workdir: of the run; batches that made a step not finite are kept in its `replay`.
          on_nonfinite: `stop` the run at such a step, or `skip` it: nothing is learned from it in either case.
          nonfinite: see the attribute; of the checkpoint from which the run goes on.

        Attributes:
          nonfinite: steps that were skipped so far, and how many of them were the last ones.
        """
        self._unseen: list[tuple[int, dict[str, jax.Array]]] = []
        self._seen: list[dict[str, Any]] = []
        self._batches: dict[int, dict[str, Any]] = {}
        self._batch_size, self._workdir, self._skips = batch_size, workdir, on_nonfinite == "skip"
        self._skipped, self._in_row = nonfinite
        self._waited, self._clock = 0.0, time.perf_counter()

    def add(self, step: int, batch: dict[str, Any], measured: dict[str, jax.Array], waited: float) -> None:
        """One more step: its batch on the host, what it measured, and the seconds that it waited for the batch."""
        self._unseen.append((step, measured))
        self._batches[step] = batch
        self._waited += waited

    @property
    def full(self) -> bool:
        """Whether it is time to `check`."""
        return len(self._unseen) >= LOOK_EVERY

    @property
    def nonfinite(self) -> tuple[int, int]:
        return self._skipped, self._in_row

    def restart_clock(self) -> None:
        """From now on time counts."""
        self._waited, self._clock = 0.0, time.perf_counter()

    def check(self, progress: Progress) -> None:
        """Looks at all steps so far, which then are done.

        Raises:
          TrainingDivergedError: one is not finite and the policy is to stop, or too many in a row are.
        """
        unseen, self._unseen = self._unseen, []
        for step, on_device in unseen:
            measured = jax.device_get(on_device)
            if measured["finite"]:
                self._in_row = 0
                self._seen.append(measured)
                continue
            self._skipped, self._in_row = self._skipped + 1, self._in_row + 1
            what = (
                f"loss {measured['loss']:.6g} or gradient norm {measured['grad_norm']:.6g} is not finite; "
                "nothing was learned from it"
            )
            if not self._skips or self._in_row >= MAX_IN_ROW:
                many = f", nor were the {self._in_row - 1} steps before it" if self._in_row > 1 else ""
                raise TrainingDivergedError(
                    f"step {step}: {what}{many}. {self._keep(step)}. Look at it with fusion-jax replay, lower the "
                    "learning rate, or clip gradients"
                )
            kept = self._keep(step) if self._skipped <= _MAX_KEPT else f"Only {_MAX_KEPT} batches are kept"
            progress.event("nonfinite", step, {"skipped": self._skipped}, f"{what}. {kept}")
        self._batches.clear()

    def close(self, progress: Progress) -> dict[str, Any] | None:
        """One row of numbers over the finite steps of the window, which is then empty; None where there are none.

        Raises:
          TrainingDivergedError: as `check`.
        """
        self.check(progress)
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        steps, self._seen = self._seen, []
        row = None if not steps else self._row(steps, seconds)
        self.restart_clock()
        return row

    def _row(self, steps: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        means = [name for name in ("loss", "data_loss", "penalty", "grad_norm") if name in steps[-1]]
        row: dict[str, Any] = {name: float(np.mean([m[name] for m in steps])) for name in means}
        for name, of in (("mpjpe_mm", "mpjpe"), ("joint_error_px", "joint_error_px")):
            if f"{of}_sum" in steps[-1]:
                row[name] = float(sum(m[f"{of}_sum"] for m in steps) / max(1, sum(m[f"{of}_count"] for m in steps)))
        for name in ("alpha", "beta"):
            if name in steps[-1]:
                row[name] = float(steps[-1][name])
        if "layer_grad_norms" in steps[-1]:
            norms = [m["layer_grad_norms"] for m in steps]
            row["layer_grad_norms"] = {name: float(np.mean([n[name] for n in norms])) for name in norms[-1]}
        if "fusion_weights" in steps[-1]:
            row["fusion_weights"] = [round(float(w), 6) for w in steps[-1]["fusion_weights"]]
        if self._skipped:
            row["skipped_steps"] = self._skipped
        return row | {
            "examples_per_s": self._batch_size * len(steps) / seconds,
            "input_wait_share": self._waited / seconds,
            "seconds": seconds,
        }

    def _keep(self, step: int) -> str:
        """Writes the step's batch for `fusion-jax replay`; where it is, in words."""
        whose = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""  # each has a share of the batch
        path = self._workdir / "replay" / f"step_{step}{whose}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **named_leaves(self._batches[step]))
        except OSError as error:  # what happened in the step matters more
            return f"Its batch could not be kept in {path} ({error.strerror or error})"
        return f"Its batch is kept in {path}"
