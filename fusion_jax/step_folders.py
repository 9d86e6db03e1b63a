"""The folders of a run's checkpoints: which count, which are sound, which is best, which stay. Nothing of their arrays.

N                       a checkpoint after N steps: it counts once its list of checksums is in it
N/late_score.json       its error on people held out, where that was worked out later
N.orbax-checkpoint-tmp  one that is being written, or was when the run was killed
N.damaged               one that is not as it was written, kept for people to look at
N.deleting              one that is being removed
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import pathlib
import re
import sys
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from fusion_jax import checksums
from fusion_jax.checkpoint_place import is_bucket
from fusion_jax.distributed import gather_rows, writes
from fusion_jax.errors import UserError
from fusion_jax.records import read_json, write_json

_STEP = re.compile("0|[1-9][0-9]{0,17}")
_DELETING = ".deleting"
COMMITTED = "commit_success.txt"
_LATE_SCORE = "late_score.json"
_SIDE_FILES = ("_sharding",)
"""Files that a restore does without, but which have to be as they were written."""


class StepFolders:
    """The checkpoints that a folder holds. Each is compared with its list of checksums before it is used, once.

    Attributes:
      folder: which holds one folder for each.
    """

    def __init__(self, folder: epath.Path, keep: int):
        """
        Args:
          folder: need not be there.
          keep: so many newest ones stay, and the best.
        """
        self.folder, self._keep = folder, keep
        self._sound: dict[int, bool] = {}
        self._wrong: dict[int, str] = {}
        self._scores: dict[int, float] = {}

    @property
    def steps(self) -> list[int]:
        """The steps of all finished checkpoints, rising; whether they are sound is not looked at."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        left = {p: counts(p) for p in found if _STEP.fullmatch(p.name)}
        if not all(counted or p.exists() for p, counted in left.items()):
            return self.steps  # one was removed since they were listed, and a newer one may not have been there yet
        return sorted(int(p.name) for p, counted in left.items() if counted)

    @property
    def latest_step(self) -> int | None:
        """The newest sound checkpoint's step, None where there is none; what is not sound is said on the terminal."""
        found = None
        if writes():
            newest = max(self.steps, default=-1)
            for path in self._unlisted():
                if int(path.name) > newest and int(path.name) not in self._sound:
                    self._refuse(int(path.name), checksums.damage(path) or f"is not finished: it has no {COMMITTED}")
            found = self.newest()
        return _of_first(found)

    def agreed_step(self, best: bool) -> int | None:
        """`best_step` or `latest_step`, chosen by process 0 for all of them: the others may see another folder."""
        return _of_first(self.best_step if writes() else None) if best else self.latest_step

    def agreed_is_there(self, step: int) -> bool:
        """Whether process 0, which chooses, still finds a checkpoint's folder; all processes get its answer."""
        return _of_first(int((self.folder / str(step)).exists())) == 1

    def unreadable(self, step: int) -> str:
        """Why not all processes can read one and the same checkpoint; empty where they can. All of them ask, and all
        get the same answer: one that went another way than the others would let them wait for it without end.
        """
        told = {"wrong": "", "list": ""}
        try:
            self._chosen(step)
            listed = (self.folder / str(step) / checksums.NAME).read_bytes()
            told["list"] = hashlib.sha256(listed).hexdigest()[:16]
        except (UserError, OSError) as error:
            told["wrong"] = (str(error).splitlines() or [type(error).__name__])[0]
        rows = gather_rows({name: np.array([text]) for name, text in told.items()})
        advice = "give all of them a --workdir in a folder that they share"
        for index, (wrong, listed) in enumerate(zip(rows["wrong"], rows["list"], strict=True)):
            if wrong:
                return f"process {index}: {wrong}; {advice}"
            if listed != rows["list"][0]:
                return (
                    f"{self.folder / str(step)} holds another checkpoint for process {index} (checksums {listed}) than "
                    f"for process 0 ({rows['list'][0]}); {advice}"
                )
        return ""

    def require_sound(self) -> None:
        """For who is about to begin anew because there is nothing to go on from.

        Raises:
          UserError: there is something, and all of it is damaged: beginning anew would bury it.
        """
        if self._wrong and not (is_bucket(self.folder) and not self.steps):
            self._chosen(None)

    def newest(self, at_most: int | None = None) -> int | None:
        """The newest sound checkpoint, of at most that step, None where there is none. For one process."""
        left = [step for step in self.steps if at_most is None or step <= at_most]
        while left:
            step = left.pop()
            if self._is_sound(step):
                return step
            if step not in self._sound:  # it was removed just now, as there are newer ones
                return self.newest(at_most)
        return None

    @property
    def best_step(self) -> int | None:
        """The step of the sound checkpoint with the lowest error on people held out; None where none was scored."""
        steps = self.steps
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        best = min((step for step in scores if self._is_sound(step)), key=lambda step: scores[step], default=None)
        if not {*steps} <= {*self.steps}:  # one was removed just now, as there is a better one
            return self.best_step
        return best

    def is_scored(self, step: int) -> bool:
        """Whether a checkpoint's error on people held out is known; all processes get the first one's answer."""
        return _of_first(int(self._score(step) is not None)) == 1

    def add_score(self, step: int, score: float) -> None:
        """Notes the error on people held out of a checkpoint that was written before it was known, as by a stop.

        Beside its listed files, which stay as they are. Where it cannot be written that is said, and nothing is lost
        but this.
        """
        self._scores[step] = score
        path = self.folder / str(step) / _LATE_SCORE
        if not writes():
            return
        try:
            if is_bucket(path):
                path.write_text(json.dumps(score))
            else:
                write_json(pathlib.Path(path), score)
        except Exception as error:  # of the file system's own kinds
            print(f"warning: {path} cannot be written ({error}); this step is not known as scored", file=sys.stderr)

    def is_best(self, score: float) -> bool:
        """Whether an error on people held out is lower than those of all checkpoints, the one under way too."""
        kept = [self._score(step) for step in {*self.steps, *self._scores}]
        return all(other is None or score < other for other in kept)

    def tidy(self) -> None:
        """For the process that is to write here, before it does: what was begun and not finished is removed.

        A damaged checkpoint is kept, under another name, so that a new one of its step has its place.
        """
        if writes() and self.folder.is_dir():
            for path in [*self.folder.glob("*.orbax-checkpoint-tmp*"), *self.folder.glob(f"*{_DELETING}")]:
                self._remove(path)
            unlisted = self._unlisted()
            if is_bucket(self.folder):  # where they have their name from the beginning, a kill leaves them like this
                for path in unlisted:
                    self._remove(path)
                unlisted = []
            for path in [self.folder / str(step) for step in self.steps if not self._is_sound(step)] + unlisted:
                names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
                path.rename(next(aside for name in names if not (aside := path.with_name(name)).exists()))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("tidied checkpoints")

    def _chosen(self, step: int | None) -> int:
        """The step to read. Raises UserError where there is none, or it is damaged."""
        if step is None:
            newest = self.latest_step
            if newest is None:
                wrong = "".join(f"; {step} {words}" for step, words in sorted(self._wrong.items()))
                advice = "bring a copy back, or train anew in another --workdir" if wrong else "run: fusion-jax train"
                raise UserError(f"no finished checkpoint in {self.folder}{wrong}; {advice}")
            return newest
        if step not in self.steps:
            there = ", ".join(map(str, self.steps)) or "none"
            raise UserError(f"no finished checkpoint of step {step} in {self.folder}; there are: {there}")
        if writes() and not self._is_sound(step):  # of several processes one reads all of it
            raise UserError(f"the checkpoint {self.folder / str(step)} {self._wrong[step]}; choose another step")
        return step

    def _is_sound(self, step: int) -> bool:
        """Whether every file of a finished checkpoint is as it was written; looked at once, and said if not.

        Raises:
          OSError: it cannot be read, which says nothing about what it holds: no reason to go on from an older one.
        """
        if step not in self._sound:
            folder = self.folder / str(step)
            wrong = checksums.damage(folder, _SIDE_FILES)
            try:
                told = step if wrong else self._data(step).get("step", step)
            except UserError as error:
                wrong = str(error)
            if wrong and not folder.exists():
                return False  # a run that trains here removed it just now
            if not wrong and told != step:
                wrong = f"is of step {str(told)[:20]}, not of the step that it is called"
            self._sound[step] = not wrong
            if wrong:
                self._refuse(step, wrong)
        return self._sound[step]

    def _refuse(self, step: int, wrong: str) -> None:
        self._sound[step], self._wrong[step] = False, wrong
        print(f"warning: the checkpoint {self.folder / str(step)} {wrong}; it is not used", file=sys.stderr)

    def _unlisted(self) -> list[epath.Path]:
        """Folders of steps that have no list of checksums, and so do not count."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return [p for p in found if _STEP.fullmatch(p.name) and p.is_dir() and not counts(p)]

    def _score(self, step: int) -> float | None:
        if step not in self._scores:
            try:
                sound = self._is_sound(step)
                score = self._data(step).get("score") if sound else None
                if sound and score is None and (late := self.folder / str(step) / _LATE_SCORE).exists():
                    score = read_json(late)
            except UserError:
                if (self.folder / str(step)).exists():
                    raise
                return None  # a run that trains here removed it just now
            known = isinstance(score, int | float) and not isinstance(score, bool) and abs(score) < 1e300
            self._scores[step] = float(score or 0) if known else math.nan
        return None if math.isnan(self._scores[step]) else self._scores[step]

    def _data(self, step: int) -> dict[str, Any]:
        path = self.folder / str(step) / "data" / "metadata"  # as Orbax writes JSON
        found = read_json(path, finite=False)  # a score may be none
        return found if isinstance(found, dict) else {}

    def _kept_words(self) -> str:
        kept = self.steps
        return f"step {kept[-1]} is kept" if kept else "no step is saved yet"

    def _forget_old(self) -> None:
        """Removes all but the newest few and the best; first that they count, so that a kill leaves none half."""
        if not writes():
            return
        steps = self.steps
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        best = min(scores, key=lambda step: scores[step], default=None)
        for step in steps[: -self._keep]:
            if step != best:
                doomed = self.folder / str(step)
                if is_bucket(doomed):  # where renaming is copying
                    (doomed / checksums.NAME).unlink(missing_ok=True)
                else:
                    doomed = doomed.rename(doomed.with_name(f"{step}{_DELETING}"))
                self._remove(doomed)

    def _remove(self, path: epath.Path) -> None:
        """Removes a folder that does not count, or says why it stays: it is tried again when the run starts again."""
        try:
            path.rmtree(missing_ok=True)
        except OSError as error:
            print(f"warning: {path} cannot be removed ({error.strerror or error}); it is left", file=sys.stderr)


def counts(path: epath.Path) -> bool:
    """Whether a folder of a step is finished: its list is there and, in a bucket, what Orbax writes after that."""
    return (path / checksums.NAME).exists() and (not is_bucket(path) or (path / COMMITTED).exists())


def _of_first(step: int | None) -> int | None:
    """What process 0 gives, in every process."""
    if jax.process_count() == 1:
        return step
    told = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if told < 0 else told
