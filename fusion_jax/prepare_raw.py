"""Raw datasets that a user downloaded: checking what is there, and preparing it."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.archives import unpack, unpacked_folder
from data_pipelines.inventory import Inventory, take_inventory
from data_pipelines.registry import builder_class, settings_class, source_class
from data_pipelines.source import Source, waiting_archives
from fusion_jax.errors import UserError

_SHOWN = 10  # of the lines on what is broken


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
      UserError: files are missing or broken, naming the first; or data_dir cannot be written or its name is no text.
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
    from data_pipelines.readable import check_name

    check_name(Path(data_dir))
    manual_dir, data_dir, name = Path(manual_dir), Path(data_dir), builder_type.name
    config, default = PoseConfig.of(settings), builder_type.BUILDER_CONFIGS[0]
    if settings == default.settings:
        config = default
    folder = data_dir / name / config.name / str(builder_type.VERSION)
    if folder.exists():
        return _reused(folder, data_dir, partial)
    source = builder_type.source_class(manual_dir, settings)
    problems = [*_unpack_archives(source, partial), *_missing(source, partial)]
    tfds.disable_progress_bar()  # it knows no totals; ours does
    began = time.perf_counter()
    try:
        builder = builder_type(data_dir=str(data_dir), config=config, file_format="array_record")
        builder.workers, builder.strict, builder.problems = workers, not partial, tuple(problems)
        options = tfds.download.DownloadConfig(manual_dir=str(manual_dir))
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare(download_config=options)
    except OSError as error:
        raise _disk_error(error, manual_dir, data_dir) from error
    _remove_if_empty(data_dir / "downloads")
    print(_outcome(folder, builder.info, time.perf_counter() - began))
    return folder


def _reused(folder: Path, data_dir: Path, partial: bool) -> Path:
    """A dataset that is there already. Raises UserError where it is damaged, or lacks what is asked for now."""
    from data_pipelines.prepared import open_prepared
    from fusion_jax.records import read_json

    open_prepared(f"{folder.parent.parent.name}/{folder.parent.name}", data_dir)
    faults = read_json(folder / "metadata.json").get("faults", [])
    if faults and not partial:
        raise UserError(
            f"{folder} was prepared with --partial, without {len(faults)} pieces (first: {faults[0]}); delete that "
            "folder to prepare it whole, or say --partial again to keep it"
        )
    print(f"{folder} is there already; reusing it")
    return folder


def _unpack_archives(source: Source, partial: bool) -> list[str]:
    """Unpacks the archives that the settings need; returns what is wrong with those that cannot be, where `partial`."""
    problems = []
    for archive in waiting_archives(source) if source.manual_dir.is_dir() else []:
        item = source.archive_item(archive)
        try:
            if item.problem:
                raise UserError(f"{archive}: {item.problem}")
            with tqdm(desc=f"unpacking {archive.name}", unit="B", unit_scale=True, disable=None) as bar:
                unpack(archive, unpacked_folder(archive), bar.update)
        except UserError as error:
            if not partial:
                raise
            problems.append(str(error))
        except OSError as error:
            raise _disk_error(error, Path(), source.manual_dir) from error
    return problems


def _missing(source: Source, partial: bool) -> list[str]:
    """What the inventory finds wrong, where `partial`; else UserError names the first."""
    found = take_inventory(source)
    lines = [f"{found.root / item.path}: {item.problem}" for item in found.problems]
    if lines and not partial:
        raise UserError(
            f"{found.summary()}. See them all with fusion-jax check-data {source.name} --manual-dir "
            f"{shlex.quote(str(source.manual_dir))} and the same settings; --partial prepares the good part alone"
        )
    return lines


def _disk_error(error: OSError, manual_dir: Path, data_dir: Path) -> UserError:
    """Whose fault an OSError is: of a file that was read, or of the disk that is written to."""
    name = str(error.filename or "")
    if name and manual_dir != Path() and Path(name).is_relative_to(manual_dir):
        return UserError(f"{name} cannot be read ({error.strerror}); see whether the disk and the file are whole")
    return UserError(f"cannot write to {data_dir}: {error}; free space or choose another place")


def _remove_if_empty(folder: Path) -> None:
    """TFDS leaves folders for downloads, of which there are none."""
    for path in (folder / "extracted", folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def _outcome(folder: Path, info: Any, seconds: float) -> str:
    counts = {name: split.num_examples for name, split in info.splits.items()}
    frames = sum(counts.values())
    lines = [
        f"written {folder}: {', '.join(f'{n} {count}' for n, count in counts.items())} frames in {seconds:.0f} s "
        f"({frames / max(seconds, 1e-9):.0f} frames/s)"
    ]
    lines += [f"left out: {count} {reason}" for reason, count in info.metadata["skipped"].items()]
    lines += [f"note: {note}" for note in info.metadata["notes"]]
    faults = info.metadata["faults"]
    lines += [f"broken or missing: {fault}" for fault in faults[:_SHOWN]]
    lines += [f"... and {len(faults) - _SHOWN} more, in metadata.json"] if len(faults) > _SHOWN else []
    return "\n".join(lines)


def default_workers() -> int:
    """One process a core, at most 6: each takes about 250 MB, and all together are to stay below 2 GB."""
    return min(6, os.cpu_count() or 1)
