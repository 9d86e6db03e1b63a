"""The work folder of a network whose weights were imported: complete, or not there at all."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fusion_jax.checkpoint import save_once
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.leakage import Seen
from fusion_jax.records import write_json
from fusion_jax.state import TrainState, create_state
from fusion_jax.work_folder import IMPORTED, DatasetRecord, save_run, whole_folder


def check_unused(out: pathlib.Path) -> None:
    """Raises UserError unless a folder is new or empty."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is in use; give a new folder for the imported run")


def write_imported_run(
    out: pathlib.Path,
    config: Config,
    variables: Mapping[str, Any],
    constants: Mapping[str, Any],
    seen: Sequence[Seen],
    source: Mapping[str, Any],
) -> None:
    """Writes a run that has done 0 steps here, as a training leaves it, and imported.json.

    Args:
      out: a folder that is new or empty.
      config: of the run; its dataset is told as "none" in the place of the training data's fingerprint.
      variables, constants: the state's `params` and `constants`.
      seen: what the weights were trained on.
      source: JSON data, where they are from.
    """
    with whole_folder(out) as folder:
        save_run(folder, config, DatasetRecord(config.dataset, "data", IMPORTED), list(seen))
        write_json(folder / "imported.json", dict(source))
        save_once(folder, config, 0, _state(config, variables, constants))


def file_source(path: pathlib.Path) -> dict[str, str]:
    """Name and SHA-256 of a file, for imported.json."""
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _state(config: Config, params: Mapping[str, Any], constants: Mapping[str, Any]) -> TrainState:
    """A run's state with these weights and an optimiser that has done nothing yet."""
    key = jax.random.key(config.seed)
    empty = jax.eval_shape(lambda key: create_state(config, key), key)  # without drawing weights first
    params, constants = jax.device_put((dict(params), dict(constants)))
    return empty.replace(
        step=jnp.zeros((), jnp.int32), params=params, constants=constants, opt_state=empty.tx.init(params), rng=key
    )
