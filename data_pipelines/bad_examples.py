"""Examples that cannot be used: named and refused, or, where a run says so, replaced by others and counted."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.augment import Change
from data_pipelines.prepared import PoseDataset
from data_pipelines.samples import Sample
from fusion_jax.errors import UserError

Policy = Literal["stop", "skip"]
RECORD = "replaced"
"""The entry of a host batch, (B, 3) int32, that tells what was replaced: which dataset of a mixture, -1 for none; the
example's place in its split; how many examples in a row, that one first, could not be used."""

Gather = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""The rows of all processes: arrays (N, ...) by name, N of each process its own, to those of all of them."""

_TRIES = 16  # examples in the place of one; more bad ones in a row are no chance
_NAMED = 20  # bad examples that a run names; the rest is only counted
_RECENT, _MOST_SHARE = 1000, 0.1  # of so many examples at most this share may be bad
_GOOD = np.array([-1, 0, 0], np.int32)


def problem(dataset: PoseDataset, split: str, index: int, error: UserError) -> str:
    """Which example it is, and what is wrong with it."""
    return f"{dataset.name}, {split} example {index}: {error}"


class ExampleMaker:
    """Makes the sample of an example by its place in a split; pickles, and is safe to call from many threads.

    Args:
      number: which dataset of a mixture.
      dataset, split: where the examples are.
      make: an example's sample after a change. What it raises for a bad example is a UserError.
      policy: stop: the error names the example. skip: another one of the same split takes its place, always the same
        one, after the same change; the sample then has a RECORD.
    """

    def __init__(
        self,
        number: int,
        dataset: PoseDataset,
        split: str,
        make: Callable[[dict[str, Any], Change], Sample],
        policy: Policy,
    ):
        self._number, self._dataset, self._split = number, dataset, split
        self._examples, self._make, self._policy = dataset.split(split), make, policy

    def __call__(self, index: int, change: Change) -> Sample:
        """Raises UserError for a bad example, or, where those are skipped, for too many that follow one another."""
        if self._policy == "stop":
            try:
                return self._make(self._examples[index], change)
            except UserError as error:
                raise UserError(
                    f"{problem(self._dataset, self._split, index, error)}; or train on others in the place of such "
                    "examples: --bad-examples skip"
                ) from error
        bad: list[UserError] = []
        for place in replacements(index, len(self._examples)):
            try:
                sample = self._make(self._examples[place], change)
            except UserError as error:
                bad.append(error)
                continue
            record = np.array([self._number, index, len(bad)], np.int32) if bad else _GOOD
            return {**sample, RECORD: record}
        raise UserError(
            f"{problem(self._dataset, self._split, index, bad[0])}; nor can the {len(bad) - 1} others be used that "
            "were tried in its place"
        )

    def explain(self, index: int, count: int) -> Iterator[tuple[int, str]]:
        """(place, text) of each of the `count` examples that could not be used, from the one at `index` on."""
        for place, _ in zip(replacements(index, len(self._examples)), range(count), strict=False):
            error = UserError("another process could not read it, this one can; see whether its disk and memory hold")
            try:
                self._make(self._examples[place], Change())
            except UserError as found:
                error = found
            yield place, problem(self._dataset, self._split, place, error)


def replacements(index: int, count: int) -> Iterator[int]:
    """`index`, then the places, of `count`, of those that take its place one after the other: far away, none twice.

    Far away, because what is wrong with an example is often wrong with all of its sequence.
    """
    stride = max(1, round(0.618 * count))
    while math.gcd(stride, count) > 1:
        stride += 1
    for number in range(min(count, 1 + _TRIES)):
        yield (index + number * stride) % count


class BadExamples:
    """What a run does about bad examples, and its account of those that it met.

    Args:
      policy: see ExampleMaker.
      gather: brings together what processes that train together met; by default there is one.
    """

    def __init__(self, policy: Policy = "stop", gather: Gather = dict):
        if policy not in ("stop", "skip"):
            raise UserError(f"bad_examples is {policy!r}, expected stop or skip")
        self.policy: Policy = policy
        self._gather = gather
        self._known: set[tuple[int, int]] = set()
        self._untold: list[tuple[dict[str, int], str]] = []
        self._recent: collections.deque[tuple[int, int]] = collections.deque()  # (examples, bad ones) of batches
        self._since_row = 0
        self._unshared = 0
        self._unshared_names: list[tuple[int, int, str]] = []  # (dataset, place, problem)

    def take(self, batch: dict[str, Any], makers: Sequence[ExampleMaker]) -> dict[str, Any]:
        """A batch without its RECORD, which is entered here.

        Raises:
          UserError: too many of the last examples were bad.
        """
        batch = dict(batch)
        record = batch.pop(RECORD)
        rows = record[record[:, 0] >= 0]
        self._since_row += len(rows)
        self._unshared += len(rows)
        for number, index, count in rows.tolist():
            for place, text in makers[number].explain(index, count):
                if self._name(number, place, text):
                    self._unshared_names.append((number, place, text))
        self._check_share(len(record), len(rows))
        return batch

    def _name(self, number: int, place: int, text: str) -> bool:
        """Whether it is one that is to be told and was not known."""
        if (number, place) in self._known:
            return False
        self._known.add((number, place))
        if len(self._known) > _NAMED:
            return False
        more = "; further ones are only counted" if len(self._known) == _NAMED else ""
        self._untold.append(({"dataset": number, "example": place}, f"left out {text}{more}"))
        return True

    def _check_share(self, examples: int, bad: int) -> None:
        self._recent.append((examples, bad))
        while sum(n for n, _ in self._recent) - self._recent[0][0] >= _RECENT:
            self._recent.popleft()
        seen, found = (sum(column) for column in zip(*self._recent, strict=True))
        if found > _MOST_SHARE * max(seen, _RECENT):
            raise UserError(
                f"{found} of the last {seen} training examples could not be used, at most {_MOST_SHARE:.0%} may be "
                "skipped; the data is damaged or not what it says, prepare it again (the first of them are named above)"
            )

    def tell(self, event: Callable[[str, int, dict[str, int], str], None], step: int) -> None:
        """Hands what was newly met to `event(kind, step, numbers, text)`, as Progress has it."""
        for numbers, text in self._untold:
            event("bad_example", step, numbers, text)
        self._untold.clear()

    def share(self) -> None:
        """Brings together what all processes met; all of them call it after the same steps, before `row`.

        Each has then to tell what the others named, and its next row counts theirs too.
        """
        if self.policy == "stop":
            return
        own = [(-1, self._unshared, ""), *self._unshared_names]  # first the count
        columns = zip(("dataset", "example", "text"), zip(*own, strict=True), strict=True)
        rows = self._gather({name: np.array(values) for name, values in columns})
        counts = rows["dataset"] < 0
        self._since_row += int(rows["example"][counts].sum()) - self._unshared
        self._unshared, self._unshared_names = 0, []
        for number, place, text in zip(*(rows[name][~counts].tolist() for name in rows), strict=True):
            self._name(number, place, text)

    def row(self) -> dict[str, int]:
        """For a row of numbers: how many examples were replaced since the last one; nothing where none ever is.

        Of other processes those that they shared.
        """
        count, self._since_row = self._since_row, 0
        return {"bad_examples": count} if self.policy == "skip" else {}
