"""What a work folder says of its run, beside the checkpoints: its config, its data, whom it was trained on.

WORKDIR/config.json     the Config
WORKDIR/dataset.json    which data: name, folder, fingerprint
WORKDIR/trained_on.json whom the weights have seen, earlier runs they started from included
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen, seen_from_json
from fusion_jax.records import differences, from_json, read_json, to_json, write_json

_SEEN = "trained_on.json"
IMPORTED = "none, as its weights are imported"
"""In the place of the fingerprint of a run's training data where it was not trained here."""


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """Which data a run uses."""

    name: str
    data_dir: str
    fingerprint: str


class OwnRecord(NamedTuple):
    """What a run says of itself: in the files of its work folder, and in its checkpoints.

    Attributes:
      config: of the run.
      dataset: which data.
      seen: everything that its weights were ever trained on.
    """

    config: Config
    dataset: DatasetRecord
    seen: list[Seen]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `own_record_from_json` reads it."""
        seen = [part.to_json() for part in self.seen]
        return {"config": to_json(self.config), "dataset": to_json(self.dataset), "trained_on": seen}


def own_record_from_json(data: Any, where: str) -> OwnRecord:
    """What `OwnRecord.to_json` made. Raises UserError naming `where` where the data is something else."""
    if not isinstance(data, dict) or data.keys() != {"config", "dataset", "trained_on"}:
        raise UserError(f"{where}: expected an object of config, dataset and trained_on, got {str(data)[:100]}")
    return OwnRecord(
        from_json(Config, data["config"], f"{where}, config"),
        from_json(DatasetRecord, data["dataset"], f"{where}, dataset"),
        seen_from_json(data["trained_on"], f"{where}, trained_on"),
    )


def save_run(workdir: pathlib.Path, config: Config, dataset: DatasetRecord, seen: list[Seen]) -> None:
    """Writes the config, the dataset's record and what is trained on of a run that begins."""
    save_seen(workdir, seen)
    write_json(workdir / "dataset.json", to_json(dataset))
    write_json(workdir / "config.json", to_json(config))


@contextlib.contextmanager
def whole_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill in the block that is `out` at its end, or not there at all; an empty `out` gives way."""
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_seen(workdir: pathlib.Path, seen: list[Seen]) -> None:
    """Writes what the weights of a run are trained on."""
    write_json(workdir / _SEEN, [part.to_json() for part in seen])


def has_seen(workdir: pathlib.Path) -> bool:
    """Whether a run tells what it was trained on."""
    return (workdir / _SEEN).exists()


def load_seen(workdir: pathlib.Path) -> list[Seen]:
    """Everything that the weights of a run were ever trained on.

    Raises:
      UserError: the record is missing or broken.
    """
    path = workdir / _SEEN
    if not has_seen(workdir):
        raise UserError(
            f"{path} is missing: this run cannot tell whom it was trained on; resume it with the same "
            "fusion-jax train command, which writes it"
        )
    return seen_from_json(read_json(path), str(path))


def has_run(workdir: pathlib.Path) -> bool:
    """Whether a work folder says which run it holds."""
    return (workdir / "config.json").exists()


def check_run(
    workdir: pathlib.Path, config: Config, dataset: DatasetRecord, saved: tuple[OwnRecord, str] | None = None
) -> None:
    """Compares a run that is to go on with what its work folder says.

    Args:
      workdir: of the run.
      config, dataset: what it is to go on with.
      saved: what a checkpoint says, and its name, where the work folder says nothing.

    Raises:
      UserError: the folder belongs to another run, naming every differing field with both values.
    """
    old_config, old_dataset = load_run(workdir) if saved is None else saved[0][:2]
    where, option = (workdir, "--workdir") if saved is None else (saved[1], "--checkpoint-dir")
    moved = dataclasses.replace(old_dataset, data_dir=dataset.data_dir)  # the same data may have moved
    for what, old, new in (("config", old_config, config), ("dataset", moved, dataset)):
        lines = differences(to_json(old), to_json(new))
        if lines:
            raise UserError(
                f"{where} holds a run with another {what}: {'; '.join(lines)}. Give the same settings to "
                f"resume it, or another {option} to start a new run"
            )


def load_run(workdir: pathlib.Path) -> tuple[Config, DatasetRecord]:
    """The config and dataset record of a work folder. Raises UserError where it holds no run."""
    if not has_run(workdir):
        raise UserError(f"{workdir} holds no run (no config.json); run: fusion-jax train --workdir {workdir}")
    config = from_json(Config, read_json(workdir / "config.json"), str(workdir / "config.json"))
    dataset = from_json(DatasetRecord, read_json(workdir / "dataset.json"), str(workdir / "dataset.json"))
    return config, dataset
