"""A split as a fusion network is fed it: whether that is fair, and the heatmaps that a 2D network predicts."""

from __future__ import annotations

import pathlib

import jax

from data_pipelines.prepared import PoseDataset
from fusion_jax.datasets import check_joints2d
from fusion_jax.heatmap_cache import with_cache
from fusion_jax.heatmap_feed import Feed
from fusion_jax.leakage import Seen, check_test, unknown_overlap
from fusion_jax.scoring import other_parts, seen_before
from fusion_jax.work_folder import DatasetRecord


def feed_split(
    feed: Feed,
    opened: PoseDataset,
    split: str,
    workdir: pathlib.Path,
    record: DatasetRecord,
    mesh: jax.sharding.Mesh,
    *,
    data_dir: pathlib.Path | None,
    own: bool,
) -> tuple[PoseDataset, list[Seen], list[str]]:
    """(the data with the heatmaps that are fed, what both networks were trained on, warnings about their scores).

    Predicting the heatmaps of a whole dataset may take hours: what is cheap to refuse is to be refused before.

    Args:
      feed: what the network is fed.
      opened: the data, of `scoring.open_scored`.
      split: the part of it.
      workdir, record: of the run.
      data_dir: where predicted heatmaps are kept; None for where the run's data was.
      own: whether it is the run's own dataset.

    Raises:
      UserError: training has seen frames or people of the split, or the data has no joints to put noise on.
    """
    if feed.config.heatmaps.source == "noisy":
        check_joints2d(opened, split)
    seen, warnings = seen_before(feed.config, workdir, opened, split, own=own)
    if feed.net is not None:
        for part in other_parts(feed.config, split, own=own):
            check_test(feed.net.seen, opened, part)
        warnings += filter(None, [unknown_overlap(feed.net.seen, opened, split)])
        seen = seen + [part for part in feed.net.seen if part not in seen]
        folder = data_dir or pathlib.Path(record.data_dir)
        opened = with_cache(opened, folder, feed.net, set(split.split("+")), mesh)
    return opened, seen, warnings
