"""Analysing a run: how alike its streams' features are, how much it uses each stream, how its gradients went."""

from __future__ import annotations

import pathlib

import numpy as np

from fusion_jax import analysis_pictures, sharding
from fusion_jax.analysis_record import Analysis, analysis_markdown
from fusion_jax.checkpoint import restore_run
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.fed_data import feed_split
from fusion_jax.heatmap_feed import open_feed
from fusion_jax.network import active_streams
from fusion_jax.pictures import Curve, png_bytes
from fusion_jax.records import to_json, write_bytes, write_json, write_text
from fusion_jax.scoring import open_scored, save_arrays
from fusion_jax.stream_correlation import ChannelCorrelation, correlate_streams
from fusion_jax.stream_usage import Frames, choose_rows, stream_usage
from fusion_jax.training_log import read_log
from fusion_jax.work_folder import DatasetRecord, load_run

FOLDER = "analysis"


def analyze_run(
    workdir: pathlib.Path,
    split: str = "test",
    frames: int | None = None,
    data_dir: pathlib.Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    *,
    dataset: str | None = None,
) -> Analysis:
    """Analyses the newest checkpoint and writes WORKDIR/analysis: analysis.json and .md, the correlations, pictures.

    What does not apply to the run is told in a sentence in its place: correlation of one stream alone, errors of data
    without 3D poses, gradient norms that an older run did not log.

    Args:
      workdir: of a run of a fusion network that has saved a checkpoint.
      split: which part of the dataset.
      frames: at most this many, evenly spaced over the split; None for all.
      data_dir: where the data is now, if it moved since training.
      batch_size: frames at a time; does not change the result.
      seed: decides which frames exchange inputs, and the noise.
      dataset: name of another prepared dataset; None for the run's own.

    Raises:
      UserError: a value out of range, no run, one of a 2D network, no checkpoint, no such split, data that differs
        from what the run trained on, people of another split that it has seen, or a broken training log.
    """
    for name, value, least in (("frames", frames, 2), ("batch-size", batch_size, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}, expected >= {least}")
    workdir = pathlib.Path(workdir)
    config, record = load_run(workdir)
    if config.task == "heatmaps":
        raise UserError(
            f"{workdir} is a 2D network, which has no streams to analyse; give the run of a fusion network, or score "
            f"this one: fusion-jax evaluate --workdir {workdir}"
        )
    curves, gradient_words = _gradients(workdir)
    looked_at, warnings = _open(workdir, config, record, data_dir, dataset, split, frames, batch_size)
    correlation, correlation_words = correlate_streams(looked_at)
    mpjpe_mm, usage, usage_words = stream_usage(looked_at, seed)
    streams = active_streams(config.fusion.streams, config.fusion.strategy)
    if len(streams) == 1:
        usage_words += f" This network reads the stream {streams[0].name} alone; there is no other to fall back on."
    found = Analysis(
        dataset=looked_at.dataset.name,
        split=split,
        strategy=config.fusion.strategy,
        heatmaps=config.heatmaps.source,
        checkpoint_step=int(looked_at.state.step),
        frames=len(looked_at.rows),
        all_frames=len(looked_at.dataset.split(split)),
        seed=seed,
        mpjpe_mm=mpjpe_mm,
        usage=tuple(usage),
        usage_words=usage_words,
        correlation=correlation.found if correlation else None,
        correlation_words=correlation_words,
        gradient_words=gradient_words,
        warnings=tuple(warnings),
    )
    _write(workdir / FOLDER, found, correlation, curves)
    return found


def _gradients(workdir: pathlib.Path) -> tuple[dict[str, dict[str, Curve]], str]:
    """The curves of the training log, or none and why."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        return {}, f"No gradient norms: there is no training log {path.name}, the weights were not trained here."
    curves = analysis_pictures.gradient_curves(read_log(path)[0])
    if not curves:
        return {}, f"No gradient norms: {path.name} holds none; runs of an earlier version did not log them."
    return curves, ""


def _open(
    workdir: pathlib.Path,
    config: Config,
    record: DatasetRecord,
    data_dir: pathlib.Path | None,
    dataset: str | None,
    split: str,
    limit: int | None,
    batch_size: int,
) -> tuple[Frames, list[str]]:
    """Checkpoint and data, as for an evaluation, and warnings about them."""
    mesh, own = sharding.data_mesh(), dataset is None
    feed = open_feed(config, None, None, mesh)
    opened = open_scored(config, record, data_dir, dataset, workdir)
    opened, _, warnings = feed_split(feed, opened, split, workdir, record, mesh, data_dir=data_dir, own=own)
    rows = choose_rows(len(opened.split(split)), limit)
    state = feed.state(restore_run(workdir, config, mesh))
    return Frames(config, state, opened, split, rows, mesh, batch_size), warnings


def _write(
    folder: pathlib.Path, found: Analysis, correlation: ChannelCorrelation | None, curves: dict[str, dict[str, Curve]]
) -> None:
    """All files of an analysis, analysis.json last: while it is missing the folder holds no whole analysis."""
    for name in ("analysis.json", "analysis.md", "correlation.npz", "correlation.png", "usage.png", "grad_norms.png"):
        (folder / name).unlink(missing_ok=True)
    if correlation is not None:
        figure = analysis_pictures.correlation_matrix(correlation.matrix, correlation.found)
        write_bytes(folder / "correlation.png", png_bytes(figure))
        names = np.array(correlation.found.streams)[correlation.stream]
        arrays = {"r_squared": correlation.matrix, "stream": names, "channel": correlation.channel}
        save_arrays(folder / "correlation.npz", arrays)
    if found.usage:
        write_bytes(folder / "usage.png", png_bytes(analysis_pictures.usage_bars(found)))
    if curves:
        write_bytes(folder / "grad_norms.png", png_bytes(analysis_pictures.gradient_norms(curves)))
    write_text(folder / "analysis.md", analysis_markdown(found))
    write_json(folder / "analysis.json", to_json(found))
