"""Saving and restoring a run: state and data position together in one Orbax checkpoint.

WORKDIR/checkpoints/N   state after N steps, the position of the training data, which layers its steps read where some
                        may be skipped, the card of what the weights are, and the files of work_folder.py once more

They may be elsewhere (checkpoint_place.py), and a lost work folder is made again from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import pathlib
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from fusion_jax import checksums
from fusion_jax.card import card, check_card
from fusion_jax.checkpoint_place import check_reachable, checkpoint_folder, is_bucket, is_default
from fusion_jax.config import Config
from fusion_jax.distributed import collective_failed
from fusion_jax.errors import CheckpointError, UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.records import from_json, read_json, to_json
from fusion_jax.sharding import state_shardings
from fusion_jax.state import TrainState, state_shapes
from fusion_jax.step_folders import COMMITTED, StepFolders, counts
from fusion_jax.stored_state import check_stored, position
from fusion_jax.transfers import any_transfers
from fusion_jax.work_folder import OwnRecord, load_run, load_seen, own_record_from_json

MAX_TIMEOUT_S = 10**6
_UNLISTED = ("_CHECKPOINT_METADATA", COMMITTED)
"""Files that Orbax writes on after a checkpoint has its name: times. A restore does without."""


def save_once(workdir: pathlib.Path, config: Config, step: int, state: TrainState) -> None:
    """Writes the only checkpoint of a run that was not trained in this folder; returns when it is on disk."""
    with contextlib.closing(Checkpoints(workdir, config)) as checkpoints:
        checkpoints.own_record = OwnRecord(*load_run(workdir), load_seen(workdir))
        checkpoints.save_and_wait(step, state, step)


def restore_run(
    workdir: pathlib.Path, config: Config, mesh: jax.sharding.Mesh, which: int | Literal["latest", "best"] = "latest"
) -> TrainState:
    """A checkpoint's state of a run of `config`, on the mesh; needs none of its data.

    Args:
      workdir: of the run.
      config: of the run.
      mesh: every device of it gets the whole state.
      which: the newest that is sound, the best on people held out, or a step.

    Raises:
      UserError: there is no such checkpoint, or it cannot be read.
    """
    checkpoints = Checkpoints(workdir, config)
    several, named = jax.process_count() > 1, isinstance(which, str)
    try:
        while True:
            step = which if isinstance(which, int) else checkpoints.agreed_step(best=which == "best")
            if which == "best" and step is None:
                raise UserError(f"no checkpoint in {checkpoints.folder} was scored on people held out; take the latest")
            if several and step is not None:
                wrong = checkpoints.unreadable(step)
                if wrong and named and not checkpoints.agreed_is_there(step):
                    continue  # all of them together: a run that trains here has just removed it, as it has newer ones
                if wrong:
                    raise UserError(wrong)
            try:
                return checkpoints.restore(state_shapes(config), mesh, step=step)[0]
            except UserError as error:
                if not named or step is None or (checkpoints.folder / str(step)).exists():
                    raise  # else a run that trains here has just removed it, as it has newer ones
                if several:  # never tried again alone: the others may still wait within Orbax for this one
                    folder = checkpoints.folder / str(step)
                    raise UserError(f"{folder} was removed while it was read; start the same command again") from error
    finally:
        checkpoints.close()


class Checkpoints(StepFolders):
    """The checkpoints of one run of `config`, written in the background, the newest few and the best kept.

    A checkpoint counts once it is whole: its files are listed with their checksums, and it has its name. Before one is
    restored every file is compared with that list; where it is damaged, the one before is taken, and that is said.

    Attributes:
      folder: which holds one folder for each.
      elsewhere: its name, where it is not the work folder's own.
      config: of the run; what was found out since may be set until the first is written or read.
      own_record: kept in each that is written from now on; None for none.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: Config,
        keep: int = 3,
        timeout_s: float = 1200,
        checkpoint_dir: str | None = None,
    ):
        """
        Args:
          workdir: of the run.
          config: of the run.
          keep: this many newest ones stay, and the best.
          timeout_s: how long a write may take before it counts as hung.
          checkpoint_dir: where they are; none: where the work folder says.

        Raises:
          UserError: they are elsewhere, or cannot be looked at.
        """
        super().__init__(checkpoint_folder(pathlib.Path(workdir), checkpoint_dir), keep)
        self.config, self._timeout_s = config, min(timeout_s, MAX_TIMEOUT_S)
        self.own_record: OwnRecord | None = None
        self.elsewhere = None if is_default(pathlib.Path(workdir), self.folder) else str(self.folder)
        check_reachable(self.folder)
        self._writing: int | None = None
        self._failed: CheckpointError | None = None
        self._failed_before = self._hung = False
        options = ocp.options.AsyncOptions(
            timeout_secs=max(1, math.ceil(self._timeout_s)),
            create_directories_asynchronously=False,  # or a folder that cannot be made is a wait to the time limit
        )
        composite = ocp.CompositeOptions(async_options=options)
        self._checkpointer = ocp.AsyncCheckpointer(_Listed(composite_options=composite), async_options=options)

    @any_transfers  # Orbax fetches arrays in its own way
    def save(
        self,
        step: int,
        state: TrainState,
        next_batch: int,
        live: LiveLayers | None = None,
        score: float | None = None,
        nonfinite: Sequence[int] = (),
    ) -> None:
        """Starts writing state and data position; returns before the write is done. No-op if step is saved.

        Args:
          step: steps done.
          state: after them.
          next_batch: number of the next training batch.
          live: the layers that the next step reads, of a run that skips dead ones.
          score: error on people held out after this step, the lower the better, where it is known.
          nonfinite: how many steps were skipped as not finite so far, and how many of them were the last ones.

        A write that fails, at once or later, is told by `poll` and `wait`.

        Raises:
          CheckpointError: the write before this one hangs, or failed and so did the one before that.
        """
        self._settle()
        if told := self.poll():
            print(f"warning: {told}; trying again now", file=sys.stderr)
        if step in self.steps:
            return
        data: dict[str, Any] = {"step": step, "next_batch": next_batch}
        data |= {"nonfinite": list(nonfinite)} if any(nonfinite) else {}
        data |= {} if live is None else {"live": to_json(live)}
        data |= {} if score is None else {"score": score}
        own = {} if self.own_record is None else {"run": ocp.args.JsonSave(self.own_record.to_json())}
        args = _ListedArgs(
            state=ocp.args.StandardSave(_arrays(state)),
            data=ocp.args.JsonSave(data),
            card=ocp.args.JsonSave(card(self.config)),
            **own,
        )
        self._writing, self._scores[step] = step, math.nan if score is None else score
        self._sound.pop(step, None)  # what was there before
        self._wrong.pop(step, None)
        error = self._bounded(lambda: self._checkpointer.save(self.folder / str(step), args=args))
        if error is not None:  # of TensorStore's and Orbax's own kinds as well as the system's
            self._failed = self._failure(error)

    def poll(self) -> str | None:
        """Whether a write has failed: None, or what happened, the first time, to be tried again at once.

        Raises:
          CheckpointError: it failed, and so did the one before it.
        """
        try:
            self._checkpointer.check_for_errors()
        except Exception as error:
            self._failed = self._failure(error)
        if self._failed is None:
            return None
        failed, self._failed = self._failed, None
        if failed.final:
            raise failed
        return str(failed)

    def wait(self) -> None:
        """Until the write that was started is on disk and counts; older ones then go.

        Raises:
          CheckpointError: it failed, or is not done after the time it may take.
        """
        self._settle()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def _settle(self) -> None:
        """Waits for the write under way; how it failed is kept for `poll`. Raises CheckpointError where it hangs."""
        if self._writing is None:
            return
        error = self._bounded(self._checkpointer.wait_until_finished)
        if error is not None:
            self._failed = self._failure(error)
        else:
            self._writing, self._failed_before = None, False
            self._forget_old()

    def _bounded(self, function: Callable[[], Any]) -> BaseException | None:
        """What a function raised, None where it did not. Raises CheckpointError where it does not return in time."""
        done = threading.Event()
        raised: list[BaseException] = []

        def call() -> None:
            try:
                function()
            except BaseException as error:
                raised.append(error)
            done.set()

        kept = self._kept_words()  # a file system that hangs could not be asked later
        threading.Thread(target=call, name="checkpoint", daemon=True).start()
        if not done.wait(self._timeout_s):
            self._hung = True
            raise CheckpointError(
                f"writing {self.folder / str(self._writing)} is not done after {self._timeout_s:g} s; is the disk or "
                f"the file system hung? {kept}; the same command resumes there",
                hung=True,
            )
        return raised[0] if raised else None

    def save_and_wait(self, step: int, state: TrainState, next_batch: int, *rest: Any) -> None:
        """`save`, and returns once it is on disk; tried twice.

        Raises:
          CheckpointError: it failed both times, or hangs.
        """
        self.save(step, state, next_batch, *rest)
        try:
            self.wait()
        except CheckpointError as error:
            if error.final:
                raise
            print(f"warning: {error}; trying again now", file=sys.stderr)
            self.save(step, state, next_batch, *rest)
            self.wait()

    def close(self) -> None:
        """Waits for the write under way, unless it hangs, and frees what writes. Raises what `wait` does."""
        if self._hung:
            return
        try:
            self.wait()
        finally:
            if not self._hung:
                self._checkpointer.close()

    def restore(
        self, state: TrainState, mesh: jax.sharding.Mesh, shard_params: bool = False, step: int | None = None
    ) -> tuple[TrainState, int]:
        """A checkpoint in the place of `state`, on the mesh, and the number of the next training batch.

        Args:
          state: a state of the same config, or its shapes and types, which are all that is used.
          mesh: where it is to lie.
          shard_params: whether it is split there as `sharding.state_shardings` says; if not, every device has it all.
          step: which one; none: the newest that is sound.

        Raises:
          UserError: there is no checkpoint, it cannot be read, it has no card, or one of weights of another kind.
        """
        step = self._chosen(step)
        shapes = jax.eval_shape(_arrays, state)
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            state_shardings(mesh, shapes, shard_params),
        )
        folder = self.folder / str(step)
        found = self._read(step, _ListedArgs(card=ocp.args.JsonRestore()))
        check_card(found["card"], self.config, str(folder))  # before shapes can clash
        check_stored(folder, target)
        next_batch = position(self._data(step), str(folder))
        fields = self._read(step, _ListedArgs(state=ocp.args.StandardRestore(target)))["state"]
        fields = {**fields, "rng": jax.random.wrap_key_data(fields["rng"])}
        return state.replace(**fields), next_batch

    def nonfinite(self, step: int) -> tuple[int, int]:
        """The `nonfinite` that a checkpoint was saved with. Raises UserError where it cannot be read."""
        found = self._data(step).get("nonfinite", [0, 0])
        whole = isinstance(found, list) and len(found) == 2 and all(type(n) is int and 0 <= n < 2**62 for n in found)
        if not whole:
            raise UserError(f"{self.folder / str(step)}, data: nonfinite is {str(found)[:80]}, expected two counts")
        return found[0], found[1]

    def live_layers(self, step: int) -> LiveLayers | None:
        """The `live` that a checkpoint was saved with. Raises UserError where it cannot be read."""
        data = self._data(step)
        return from_json(LiveLayers, data["live"], f"{self.folder / str(step)}, data: live") if "live" in data else None

    def has_record(self, step: int) -> bool:
        """Whether a checkpoint tells which run it is of; those of older versions do not."""
        return (self.folder / str(step) / "run").exists()

    def record_of(self, step: int) -> OwnRecord:
        """What the run said of itself when a checkpoint was written. Raises UserError where it does not tell."""
        folder = self.folder / str(step)
        if not self.has_record(step):
            raise UserError(
                f"the checkpoint {folder} is of an older version of the program, which did not keep in it which run it "
                "is of; bring back the work folder's config.json, dataset.json and trained_on.json"
            )
        return own_record_from_json(read_json(folder / "run" / "metadata"), f"{folder}, run")

    def _read(self, step: int, items: Any) -> Any:
        try:
            return self._checkpointer.restore(self.folder / str(step), args=items)
        except Exception as error:  # Orbax and TensorStore raise kinds of their own for missing and cut files
            if collective_failed(error):
                raise  # which says nothing about the checkpoint
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            folder = self.folder / str(step)
            raise UserError(
                f"the checkpoint {folder} is of another network or version ({type(error).__name__}: {reason}); "
                "delete that folder to go on from the one before"
            ) from error

    def _failure(self, error: BaseException) -> CheckpointError:
        """The error of a write that failed, whose remains are removed: they may be what fills the disk."""
        # Several processes save together or not at all, and the others do not know that this one would try again.
        final, self._failed_before = self._failed_before or jax.process_count() > 1, True
        path = self.folder / str(self._writing)
        self._scores.pop(self._writing or 0, None)
        self._writing = None
        with contextlib.suppress(Exception):
            for left in self.folder.glob(f"{path.name}.orbax-checkpoint-tmp*"):
                left.rmtree(missing_ok=True)
            if is_bucket(path) and path.exists() and not counts(path):
                path.rmtree(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:500]
        return CheckpointError(
            f"{path} could not be written ({type(error).__name__}: {reason}); {self._kept_words()}. Look at free space "
            "and rights; the same command resumes there",
            final=final,
        )


class _Listed(ocp.CompositeCheckpointHandler):
    """Lists a checkpoint's files with their checksums once they are written, before it gets its name and counts."""

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        checksums.write_checksums(directory, without=_UNLISTED)


@ocp.args.register_with_handler(_Listed, for_save=True, for_restore=True)
class _ListedArgs(ocp.args.Composite, ocp.args.CheckpointArgs):
    """The items of a checkpoint: state, data, card and run."""


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
