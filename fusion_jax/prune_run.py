"""The command `prune`: a run in, the proof, a run of the smaller network out, fine-tuned if asked for."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fusion_jax import fusion, sharding
from fusion_jax.checkpoint import restore_run, save_once, weights_digest
from fusion_jax.config import Config
from fusion_jax.errors import UserError, check_field
from fusion_jax.optim import make_optimizer
from fusion_jax.prune import TRAINED, alive, mixed_layers, mixing_weights, pruned_state, removed_layers
from fusion_jax.prune_proof import SOFT_EPS, Numbers, costs, prover
from fusion_jax.prune_text import eps_table, proof_text, softness
from fusion_jax.records import read_json, to_json, write_json
from fusion_jax.state import TrainState
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import DatasetRecord, load_run, load_seen, save_run, whole_folder

RECORD = "pruned.json"
"""In a pruned run's folder: which run it is from, and every number of the proof."""
_COPIED = ("metrics.jsonl", "imported.json")  # of the training that made the weights


class Outcome(NamedTuple):
    """What `prune_run` did.

    Attributes:
      written: whether there is a pruned run; False where nothing was dead, or nothing left to cut.
      hard: whether no layer mixes, before pruning or after.
      numbers: of the proof; empty where nothing was left to cut, without costs where nothing was dead.
    """

    written: bool
    hard: bool
    numbers: Numbers


def prune_run(
    workdir: pathlib.Path,
    out: pathlib.Path,
    eps: float = 1e-3,
    *,
    finetune_steps: int | None = None,
    data_dir: pathlib.Path | None = None,
    dataset: str | None = None,
    split: str = "test",
    frames: int = 2000,
    batch_size: int = 64,
    options: LoopOptions | None = None,
    show: bool = True,
) -> Outcome:
    """Prunes the newest weights of a run and writes what is left as a run of its own, `out`.

    `out` is complete or not there at all; every command takes it as any run. Beside what a training leaves there,
    pruned.json holds the proof. Without fine-tuning its training stands where the run's stood; with it, it starts anew
    from the pruned weights, and the same call goes on where it was stopped.

    Args:
      workdir: of a run of a fusion network.
      out: a new folder, or that of a fine-tuning that was stopped.
      eps: weights this close to 0 or 1 count as 0 or 1, in [0, 0.5).
      finetune_steps: optimiser steps to train the pruned network for; None for none.
      data_dir: where the data is now, if it moved since training.
      dataset: a prepared dataset for the proof; None for the run's own.
      split: part of the dataset for the proof.
      frames: at most this many of it, evenly spaced.
      batch_size: frames at a time.
      options: of the fine-tuning.
      show: the proof on the terminal.

    Raises:
      UserError: a run of a 2D network, a value out of range, a folder in use by another run, or as `evaluate_run`.
    """
    workdir, out = pathlib.Path(workdir), pathlib.Path(out)
    fusion.live_layers(np.zeros(1), eps)  # refuses an eps out of range before anything is read
    for name, value in (("finetune_steps", finetune_steps), ("frames", frames), ("batch_size", batch_size)):
        check_field(value is None or value >= 1, name, value, ">= 1")
    if finetune_steps is not None and dataset is not None:
        raise UserError(
            f"--dataset {dataset} is for the proof alone, and a fine-tuning needs the run's own data; leave one of the "
            "two away, or train on: fusion-jax train --init-from OUT"
        )
    config, record = load_run(workdir)
    _check_prunable(config, workdir)
    if config.fusion.strategy not in TRAINED or (config.fusion.live and not mixed_layers(config)):
        return Outcome(False, True, {})
    state = restore_run(workdir, config, sharding.data_mesh())
    pruned, _ = alive(config, state.params, eps)
    strict = min(eps, SOFT_EPS[0])
    soft = mixed_layers(alive(config, state.params, strict)[0])
    planned = dataclasses.replace(pruned, init_from=str(workdir.resolve()), steps=finetune_steps or config.steps)
    source = {"workdir": str(workdir.resolve()), "step": int(state.step), "weights": weights_digest(state)}
    origin = {"source": source, "eps": eps, "finetune_steps": finetune_steps}
    data_folder = data_dir or pathlib.Path(record.data_dir)
    if _in_use(out):
        _check_same(out, planned, origin)
        train(planned, data_folder, out, options)
        return Outcome(True, not mixed_layers(pruned), read_json(out / RECORD))
    proof = prover(
        workdir, config, record, state, data_dir=data_dir, dataset=dataset, split=split, limit=frames,
        batch_size=batch_size,
    )  # fmt: skip
    numbers: Numbers = {
        **origin,
        "fusion_weights": [float(w) for w in mixing_weights(config, state.params)],
        "live": to_json(pruned.fusion.live),
        "soft_layers": {"eps": strict, "layers": soft},
        "mixed_layers": mixed_layers(pruned),
        "removed": removed_layers(config, pruned),
        "frames": proof.frames_words(),
    }
    if soft:
        numbers["by_eps"] = proof.by_eps(eps)
    if not numbers["removed"]:
        _say(show, softness(numbers), eps_table(numbers["by_eps"]))
        return Outcome(False, False, numbers)
    small = pruned_state(state, pruned)
    numbers |= proof.compare(pruned) | costs((config, state), (pruned, small))
    _say(show, proof_text(numbers), *([eps_table(numbers["by_eps"])] if "by_eps" in numbers else []))
    if finetune_steps is not None:
        small = _fresh(small, planned)
    copied = _COPIED if finetune_steps is None else ()
    moved = dataclasses.replace(record, data_dir=str(data_folder.absolute())) if dataset is None else record
    _write(out, workdir, planned, moved, small, numbers, copied)
    if finetune_steps is not None:
        train(planned, data_folder, out, options)
    return Outcome(True, not mixed_layers(pruned), numbers)


def _check_prunable(config: Config, workdir: pathlib.Path) -> None:
    if config.task != "pose":
        raise UserError(f"{workdir} is a 2D network, which fuses nothing; give the run of a fusion network")


def _in_use(out: pathlib.Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _check_same(out: pathlib.Path, planned: Config, origin: dict[str, Any]) -> None:
    """Raises UserError unless `out` holds the fine-tuning of this very pruning."""
    found = read_json(out / RECORD) if (out / RECORD).is_file() else None
    same = isinstance(found, dict) and {name: found.get(name) for name in origin} == origin
    if origin["finetune_steps"] is None or not same or load_run(out)[0] != planned:
        raise UserError(
            f"{out} is in use by another run; give a new folder as --out"
            + ("" if origin["finetune_steps"] is None else ", or the same settings to go on with a fine-tuning")
        )


def _fresh(state: TrainState, config: Config) -> TrainState:
    """The state's weights at the start of a run of `config`, whose learning rates count from there."""
    tx = make_optimizer(config.optim, config.steps)
    return state.replace(step=jnp.zeros_like(state.step), tx=tx, opt_state=tx.init(state.params))


def _write(
    out: pathlib.Path,
    workdir: pathlib.Path,
    config: Config,
    record: DatasetRecord,
    state: TrainState,
    numbers: Numbers,
    copied: Sequence[str],
) -> None:
    with whole_folder(out) as folder:
        save_run(folder, config, record, load_seen(workdir))
        write_json(folder / RECORD, numbers)
        for name in copied:
            if (workdir / name).is_file():
                shutil.copyfile(workdir / name, folder / name)
        save_once(folder, config, int(state.step), state)


def _say(show: bool, *texts: str) -> None:
    if show:
        print("\n\n".join(texts))
