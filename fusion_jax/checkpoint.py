"""Saving and restoring a run: state and data position together in one Orbax checkpoint, config and dataset beside.

WORKDIR/config.json     the Config
WORKDIR/dataset.json    which data: name, folder, fingerprint
WORKDIR/trained_on.json whom the weights have seen, earlier runs they started from included
WORKDIR/checkpoints/N   state after N steps, the position of the training data, which layers its steps read where some
                        may be skipped, and the card of what the weights are
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fusion_jax.card import card, check_card
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.leakage import Seen, seen_from_json
from fusion_jax.records import differences, from_json, read_json, to_json, write_json
from fusion_jax.sharding import replicated
from fusion_jax.state import TrainState, create_state

_SEEN = "trained_on.json"
IMPORTED = "none, as its weights are imported"
"""In the place of the fingerprint of a run's training data where it was not trained here."""


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """Which data a run uses."""

    name: str
    data_dir: str
    fingerprint: str


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


def save_once(workdir: pathlib.Path, config: Config, step: int, state: TrainState) -> None:
    """Writes the only checkpoint of a run that was not trained in this folder; returns when it is on disk."""
    with contextlib.closing(Checkpoints(workdir, config)) as checkpoints:
        checkpoints.save(step, state, step)
        checkpoints.wait()


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


def check_run(workdir: pathlib.Path, config: Config, dataset: DatasetRecord) -> None:
    """Compares a run that is to go on with what its work folder says.

    Raises:
      UserError: the folder belongs to another run, naming every differing field with both values.
    """
    old_config, old_dataset = load_run(workdir)
    moved = dataclasses.replace(old_dataset, data_dir=dataset.data_dir)  # the same data may have moved
    for what, old, new in (("config", old_config, config), ("dataset", moved, dataset)):
        lines = differences(to_json(old), to_json(new))
        if lines:
            raise UserError(
                f"{workdir} holds a run with another {what}: {'; '.join(lines)}. Give the same settings to "
                "resume it, or another --workdir to start a new run"
            )


def load_run(workdir: pathlib.Path) -> tuple[Config, DatasetRecord]:
    """The config and dataset record of a work folder. Raises UserError where it holds no run."""
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds no run (no config.json); run: fusion-jax train --workdir {workdir}")
    config = from_json(Config, read_json(workdir / "config.json"), str(workdir / "config.json"))
    dataset = from_json(DatasetRecord, read_json(workdir / "dataset.json"), str(workdir / "dataset.json"))
    return config, dataset


def restore_run(workdir: pathlib.Path, config: Config, mesh: jax.sharding.Mesh) -> TrainState:
    """The newest checkpoint's state of a run of `config`, on the mesh; needs none of its data.

    Raises:
      UserError: there is no checkpoint, or it cannot be read.
    """
    if not (workdir / "checkpoints").is_dir():  # opening them would make the folder
        raise UserError(f"no finished checkpoint in {workdir / 'checkpoints'}; run: fusion-jax train")
    shapes = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))  # draws and compiles nothing
    checkpoints = Checkpoints(workdir, config)
    try:
        return checkpoints.restore(shapes, mesh)[0]
    finally:
        checkpoints.close()


class Checkpoints:
    """The checkpoints of one run of `config`, written in the background, the newest few kept."""

    def __init__(self, workdir: pathlib.Path, config: Config, keep: int = 3):
        self._config = config
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, next_batch: int, live: LiveLayers | None = None) -> None:
        """Starts writing state and data position; returns before the write is done. No-op if step is saved.

        Args:
          step: steps done.
          state: after them.
          next_batch: number of the next training batch.
          live: the layers that the next step reads, of a run that skips dead ones.
        """
        if step == self.latest_step:
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_arrays(state)),
            data=ocp.args.JsonSave({"next_batch": next_batch} | ({} if live is None else {"live": to_json(live)})),
            card=ocp.args.JsonSave(card(self._config)),
        )
        self._manager.save(step, args=args, force=True)

    def restore(self, state: TrainState, mesh: jax.sharding.Mesh) -> tuple[TrainState, int]:
        """The newest checkpoint in the place of `state`, on the mesh, and the number of the next training batch.

        Args:
          state: a state of the same config, or its shapes and types, which are all that is used.
          mesh: every device of it gets the whole state.

        Raises:
          UserError: there is no checkpoint, it cannot be read, it has no card, or one of weights of another kind.
        """
        step = self.latest_step
        if step is None:
            raise UserError(f"no finished checkpoint in {self._manager.directory}; run: fusion-jax train")
        everywhere = replicated(mesh)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            jax.eval_shape(_arrays, state),
        )
        folder = self._manager.directory / str(step)
        if (folder / "state").exists() and not (folder / "card").exists():  # no damage, so not to be deleted
            raise UserError(
                f"the checkpoint {folder} has no card of what its weights are, so it is of an older version of the "
                "program; train it anew"
            )
        found = self._read(step, ocp.args.Composite(card=ocp.args.JsonRestore()))
        check_card(found["card"], self._config, str(folder))  # before shapes can clash
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore())
        restored = self._read(step, items)
        fields = restored["state"]
        fields = {**fields, "rng": jax.random.wrap_key_data(fields["rng"])}
        return state.replace(**fields), int(restored["data"]["next_batch"])

    def live_layers(self) -> LiveLayers | None:
        """The `live` that the newest checkpoint was saved with. Raises UserError where it cannot be read."""
        step = self.latest_step
        data = {} if step is None else self._read(step, ocp.args.Composite(data=ocp.args.JsonRestore()))["data"]
        where = f"{self._manager.directory / str(step)}, data: live"
        return from_json(LiveLayers, data["live"], where) if "live" in data else None

    def _read(self, step: int, items: Any) -> Any:
        try:
            return self._manager.restore(step, args=items)
        except Exception as error:  # Orbax and TensorStore raise kinds of their own for missing and cut files
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            folder = self._manager.directory / str(step)
            raise UserError(
                f"the checkpoint {folder} is damaged or of another network ({type(error).__name__}: {reason}); "
                "delete that folder to go on from the one before"
            ) from error

    def wait(self) -> None:
        """Until every started write is on disk; raises what a writer raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for writers and frees them."""
        self._manager.close()


def weights_digest(state: TrainState) -> str:
    """16 hexadecimal digits that tell a network's weights from any others: of parameters and constants, by name."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": state.params, "constants": state.constants}):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _arrays(state: TrainState) -> dict[str, Any]:
    """The state's leaves as Orbax stores them; a typed key goes as its data."""
    fields = ("step", "params", "constants", "opt_state")
    return {name: getattr(state, name) for name in fields} | {"rng": jax.random.key_data(state.rng)}
