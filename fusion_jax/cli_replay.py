"""The command line of `replay`. Heavy imports wait until it runs."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Replay:
    """Take a training step that was not finite once more, and see why.

    fusion-jax replay --workdir runs/learned

    Goes from the checkpoint before it through the same data to the same weights, and runs the step on the batch that
    the training kept. Tells the loss, which layers' gradients and which examples are infinite or NaN, and whether the
    batch is still what the data gives. Writes WORKDIR/replay/step_<N>.png, the batch's pictures, guilty ones framed.
    """

    workdir: pathlib.Path
    """Folder of the run."""
    step: int | None = None
    """Which step; none: the first whose batch was kept."""
    data_dir: pathlib.Path | None = None
    """Where the data is now, if it moved since training."""

    def run(self) -> None:
        from fusion_jax.pictures import batch_figure, png_bytes
        from fusion_jax.records import write_bytes
        from fusion_jax.replay import replay_run, replay_words

        found = replay_run(self.workdir, self.step, self.data_dir)
        print(replay_words(found))
        guilty = {*found.alone, *(row for _, row in found.odd_inputs)}
        path = self.workdir / "replay" / f"step_{found.step}.png"
        write_bytes(path, png_bytes(batch_figure(found.image, guilty)))
        print(f"written to {path}")
