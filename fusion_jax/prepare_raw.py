"""Raw datasets that a user downloaded: checking what is there, and preparing it."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from typing import Any

from data_pipelines.archives import unpack_all
from data_pipelines.inventory import Inventory, take_inventory
from data_pipelines.registry import builder_class, settings_class, source_class
from fusion_jax.errors import UserError


def check_data(name: str, manual_dir: Path, settings: Any = None) -> Inventory:
    """What of a dataset is in `manual_dir`: every file it needs, and what is wrong with it.

    Raises:
      UserError: an unknown dataset, or no such folder.
    """
    chosen = settings_class(name)() if settings is None else settings
    return take_inventory(source_class(name)(Path(manual_dir), chosen))


def prepare_raw(
    name: str, manual_dir: Path, data_dir: Path, settings: Any = None, *, workers: int = 0, partial: bool = False
) -> Path:
    """Builds a dataset from the files in `manual_dir` unless it is in `data_dir`; returns the dataset's folder.

    Archives in `manual_dir` are unpacked there, each into a folder of its own name. After a kill the same call goes
    on; finished parts are kept.

    Args:
      name: of the dataset.
      manual_dir: folder with the downloaded files.
      data_dir: folder of prepared datasets.
      settings: of the dataset's own settings class; None for its defaults.
      workers: processes that decode; 0 for this one.
      partial: prepare what is good where something is missing or broken, and list the rest, instead of refusing.

    Raises:
      UserError: files are missing or broken, naming the first; or data_dir cannot be written.
    """
    settings = settings_class(name)() if settings is None else settings
    return prepare_with(builder_class(name), manual_dir, data_dir, settings, workers=workers, partial=partial)


def prepare_with(
    builder_type: Any, manual_dir: Path, data_dir: Path, settings: Any, *, workers: int = 0, partial: bool = False
) -> Path:
    """`prepare_raw` with any subclass of `pose_builder.PoseBuilder`, such as one of your own.

    With `workers` above 0 its `source_class` has to be in a module that other processes can import.
    """
    import tensorflow_datasets as tfds

    from data_pipelines.pose_builder import PoseConfig
    from data_pipelines.prepared import open_prepared

    manual_dir, data_dir, name = Path(manual_dir), Path(data_dir), builder_type.name
    config, default = PoseConfig.of(settings), builder_type.BUILDER_CONFIGS[0]
    if config.name == default.name:
        config = default
    folder = data_dir / name / config.name / str(builder_type.VERSION)
    if folder.exists():
        open_prepared(f"{name}/{config.name}", data_dir)  # refuses a damaged one
        print(f"{folder} is there already; reusing it")
        return folder
    if manual_dir.is_dir():
        for made in unpack_all(manual_dir):
            print(f"unpacked {made}")
    found = take_inventory(builder_type.source_class(manual_dir, settings))
    if found.problems:
        if not partial:
            raise UserError(
                f"{found.summary()}. See them all with: fusion-jax check-data {name} --manual-dir {manual_dir}; "
                "prepare the good part alone with --partial"
            )
        print(f"--partial: going on without {len(found.problems)} missing or broken items; first: {found.summary()}")
    tfds.disable_progress_bar()  # it knows no totals; ours does
    began = time.perf_counter()
    try:
        builder = builder_type(data_dir=str(data_dir), config=config, file_format="array_record")
        builder.workers, builder.strict = workers, not partial
        options = tfds.download.DownloadConfig(manual_dir=str(manual_dir))
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare(download_config=options)
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}; free space or choose another --data-dir") from error
    print(_outcome(folder, builder.info, time.perf_counter() - began))
    return folder


def _outcome(folder: Path, info: Any, seconds: float) -> str:
    counts = {name: split.num_examples for name, split in info.splits.items()}
    frames = sum(counts.values())
    lines = [
        f"written {folder}: {', '.join(f'{n} {count}' for n, count in counts.items())} frames in {seconds:.0f} s "
        f"({frames / max(seconds, 1e-9):.0f} frames/s)"
    ]
    lines += [f"left out: {count} {reason}" for reason, count in info.metadata["skipped"].items()]
    faults = info.metadata["faults"]
    lines += [f"not prepared: {fault}" for fault in faults[:10]]
    lines += [f"... and {len(faults) - 10} more, in metadata.json"] if len(faults) > 10 else []
    return "\n".join(lines)


def default_workers() -> int:
    """One process a core, at most 6: each takes about 250 MB, and all together are to stay below 2 GB."""
    return min(6, os.cpu_count() or 1)
