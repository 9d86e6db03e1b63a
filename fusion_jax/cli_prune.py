"""The command that makes a trained network smaller: `prune`."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Prune:
    """Cut the layers out of a trained network that its fusion weights leave unread, and prove that it answers alike.

    fusion-jax prune --workdir runs/learned --out runs/learned-pruned

    Writes OUT, a run that evaluate, predict, report and train take as any other, with the proof in OUT/pruned.json:
    the largest change of any joint on real frames and its bound, mpjpe, parameters, operations and images/s before and
    after. Of a run that is still soft it also shows what larger eps would do. Where nothing is dead nothing is written.
    """

    workdir: pathlib.Path
    """Folder of a trained fusion network."""
    out: pathlib.Path
    """Folder for the pruned run; new, or that of a fine-tuning that was stopped."""
    eps: float = 1e-3
    """Fusion weights this close to 0 or 1 count as 0 or 1; in [0, 0.5)."""
    finetune_steps: int | None = None
    """Train the pruned network for so many steps more; the same command resumes that. None: not at all."""
    data_dir: pathlib.Path | None = None
    """Where the data is now, if it moved since training."""
    dataset: str | None = None
    """Another prepared dataset for the proof; none: the run's own."""
    split: str = "test"
    """Part of the dataset for the proof."""
    frames: int = 2000
    """At most this many frames of it, evenly spaced."""
    batch_size: int = 64
    """Frames at a time; does not change the result."""

    def run(self) -> int:
        from fusion_jax.prune_run import prune_run

        outcome = prune_run(
            self.workdir,
            self.out,
            self.eps,
            finetune_steps=self.finetune_steps,
            data_dir=self.data_dir,
            dataset=self.dataset,
            split=self.split,
            frames=self.frames,
            batch_size=self.batch_size,
        )
        if outcome.written:
            other = f" --dataset {self.dataset}" if self.dataset else ""
            print(f"written {self.out}; next: fusion-jax evaluate --workdir {self.out}{other}")
            return 0
        if outcome.hard:
            print(f"nothing is left to cut: {self.workdir} holds only layers that are read, and no layer mixes streams")
            return 0
        print(
            f"no layer is dead at eps {self.eps:g}, so nothing is written; give a larger --eps of the table, with "
            "--finetune-steps to win back what it costs, or train with --alpha-final, which ends sharp"
        )
        return 1
