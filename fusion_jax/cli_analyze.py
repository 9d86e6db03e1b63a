"""The command line of `analyze`. Heavy imports wait until it runs."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Analyze:
    """See what a run's streams contribute: how alike their features are, and what the error is without each.

    fusion-jax analyze --workdir runs/learned

    fusion-jax analyze --workdir runs/human36m --frames 2000 --data-dir data

    Writes WORKDIR/analysis: squared correlations between all channels of the data streams at the last convolution
    (correlation.png and .npz), the error when one stream's input is its mean, another person's, or noisy (usage.png),
    gradient norms of all layers over the training (grad_norms.png), and the numbers as analysis.json and .md.
    fusion-jax report shows them. What does not apply to the run is told in one line.
    """

    workdir: pathlib.Path
    """Folder of the run of a fusion network."""
    split: str = "test"
    """Part of the dataset: test people were never seen in training."""
    dataset: str | None = None
    """Another prepared dataset; none: the run's own. A run of imported weights has none of its own here."""
    frames: int | None = None
    """At most this many frames, evenly spaced over the split; none: all."""
    data_dir: pathlib.Path | None = None
    """Where the data is now, if it moved since training."""
    batch_size: int = 64
    """Frames at a time; does not change the result."""
    seed: int = 0
    """Decides which frames exchange inputs, and the noise."""

    def run(self) -> None:
        from fusion_jax.analysis_record import analysis_markdown
        from fusion_jax.analyze import FOLDER, analyze_run

        found = analyze_run(
            self.workdir, self.split, self.frames, self.data_dir, self.batch_size, self.seed, dataset=self.dataset
        )
        print(analysis_markdown(found))
        print(f"written to {self.workdir / FOLDER}")
