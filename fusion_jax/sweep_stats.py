"""What the results of a sweep carry: means with intervals, paired differences, and a verdict on each of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from fusion_jax.sweep_plan import FREE, LEARNED

Result = Mapping[str, Any]
Verdict = Literal["holds", "does not hold", "cannot be told at this budget"]
CONFIDENCE = 0.95
_FROM = "learned, from beta "
LOW_R2 = 0.1
"""Below this mean squared correlation two streams count as decorrelated; the paper says near zero."""


class Interval(NamedTuple):
    """A mean over so many seeds, and the interval that holds the true one with 95 % confidence; none for one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {(self.high - self.low) / 2:.1f}"


class Claim(NamedTuple):
    """One of the paper's claims, what the numbers say to it, and the numbers."""

    statement: str
    verdict: Verdict
    why: str


def interval(values: Sequence[float], comparisons: int = 1) -> Interval:
    """Student's interval of the mean of independent values.

    Args:
      values: (N,), one for each seed; N = 1 has no interval.
      comparisons: how many intervals have to hold together; each is made wider (Bonferroni).
    """
    x = np.asarray(values, np.float64)
    mean, count = float(x.mean()), len(x)
    if count < 2:
        return Interval(mean, None, None, count)
    quantile = stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * comparisons), count - 1)
    half = float(quantile * x.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def by_seed(results: Sequence[Result], label: str, column: str = "mpjpe_mm") -> dict[int, float]:
    """Seed -> value of one kind of run; empty where there is none."""
    return {r["seed"]: r[column] for r in results if r["label"] == label and r[column] is not None}


def difference(
    results: Sequence[Result], label: str, minus: str, column: str = "mpjpe_mm", comparisons: int = 1
) -> Interval | None:
    """The mean of `label` - `minus`, paired by seed; None where no seed has both."""
    one, other = (by_seed(results, name, column) for name in (label, minus))
    seeds = sorted(one.keys() & other.keys())
    return interval([one[s] - other[s] for s in seeds], comparisons) if seeds else None


def labels(results: Sequence[Result]) -> list[str]:
    """The kinds of run, in the order in which they come."""
    return list(dict.fromkeys(r["label"] for r in results))


def claims(results: Sequence[Result]) -> list[Claim]:
    """A verdict on each claim that the sweep has runs for; never more than the intervals say."""
    found = labels(results)
    if LEARNED not in found:
        return []
    fixed = [r["label"] for r in results if r["strategy"] == "fixed"]
    single = dict.fromkeys(r["label"] for r in results if r["strategy"] in ("image", "heatmap"))
    alone = f"Trainable fusion has a lower error than {' and '.join(single)} alone"
    made = [
        _beats(results, "Trainable fusion has a lower error than every hand-chosen layer", list(dict.fromkeys(fixed))),
        _beats(results, alone, list(single)),
        _settles_late(results),
        _beats(results, "The penalty lowers the error against none", _present(found, "learned, lambda 0")),
        _beats(results, "The penalty lowers the error against free weights", _present(found, FREE)),
        _cheaper(results, _present(found, "learned, lambda 0") + _present(found, FREE)),
        _decorrelated(results),
    ]
    return [claim for claim in made if claim is not None]


def notes(results: Sequence[Result]) -> list[str]:
    """What else the sweep shows, a sentence each: what sharpening costs, what a further stream adds."""
    found = []
    for label in labels(results):
        for begin, tell in (("learned, alpha led to ", _sharpened), ("learned, without ", _without)):
            change = difference(results, label, LEARNED)
            if label.startswith(begin) and change is not None:
                found.append(tell(results, label, label.removeprefix(begin), change))
    return found


def _present(found: list[str], label: str) -> list[str]:
    return [label] if label in found else []


def _span(change: Interval, unit: str = "mm") -> str:
    if change.low is None:
        return f"{change.mean:+.1f} {unit} (one seed, no interval)"
    return f"{change.mean:+.1f} {unit} ({change.low:+.1f} to {change.high:+.1f}, {change.seeds} seeds)"


def _beats(results: Sequence[Result], statement: str, others: list[str]) -> Claim | None:
    """Whether `learned` has the lower error than all of `others`, whose intervals have to hold together."""
    changes = {other: difference(results, other, LEARNED, comparisons=len(others)) for other in others}
    known = {other: change for other, change in changes.items() if change is not None}
    if not known:
        return None
    together = " for all together" if len(known) > 1 else ""
    told = f"difference to trainable fusion, {100 * CONFIDENCE:.0f} %{together}: " + "; ".join(
        f"{other} {_span(change)}" for other, change in known.items()
    )
    return Claim(statement, _verdict(list(known.values())), told)


def _verdict(changes: Sequence[Interval]) -> Verdict:
    """Of differences that the claim wants above 0."""
    if any(change.high is not None and change.high < 0 for change in changes):
        return "does not hold"
    if all(change.low is not None and change.low > 0 for change in changes):
        return "holds"
    return "cannot be told at this budget"


def _settles_late(results: Sequence[Result]) -> Claim:
    """Whether beta ends beyond the middle layer wherever it started, below the middle too."""
    depth = max(len(r["weights"]) for r in results)
    middle = (depth + 1) / 2
    starts = {LEARNED: middle}
    for name in labels(results):
        if name.startswith(_FROM):
            starts[name] = float(name.removeprefix(_FROM))
    ends = {name: interval(list(by_seed(results, name, "beta").values()), len(starts)) for name in starts}
    told = f"beta at the end, of {depth} layers with {middle:g} in the middle: " + "; ".join(
        f"{name} {end.mean:.2f}" + ("" if end.low is None or end.high is None else f" ± {(end.high - end.low) / 2:.2f}")
        for name, end in ends.items()
    )
    means = [end.mean for end in ends.values()]
    verdict: Verdict = "cannot be told at this budget"
    if max(means) - min(means) > 1:
        told += "; where it ends still depends on where it started"
    elif any(end.high is not None and end.high < middle for end in ends.values()):
        verdict = "does not hold"
    elif min(starts.values()) >= middle:
        told += "; no run started below the middle, so nothing shows that beta is drawn there"
    elif all(end.low is not None and end.low > middle for end in ends.values()):
        verdict = "holds"
    return Claim("Fusion settles late, beyond the middle layer", verdict, told)


def _cheaper(results: Sequence[Result], others: list[str]) -> Claim | None:
    """Whether `learned`, cut down to its live layers, needs fewer operations than runs without the penalty."""
    if not others:
        return None
    rows = [{**r, "alive_gflops": r["alive"]["gflops"]} for r in results if r["label"] in (LEARNED, *others)]
    changes = {name: difference(rows, name, LEARNED, "alive_gflops", len(others)) for name in others}
    known = {name: change for name, change in changes.items() if change is not None}
    told = "GFLOPs alive more than with the penalty: " + "; ".join(f"{n} {c.mean:+.4f}" for n, c in known.items())
    verdict = _verdict(list(known.values()))
    same = all(change.low == change.high == 0 for change in known.values())  # of several seeds: one has no interval
    if known and same:
        verdict = "does not hold"
        nothing_cut = all(r["alive"]["gflops"] == r["whole"]["gflops"] for r in rows)
        told += "; none of them has a layer to cut at so short a training" if nothing_cut else "; they are cut alike"
    return Claim("The penalty makes the pruned network cheaper", verdict, told)


def _decorrelated(results: Sequence[Result]) -> Claim | None:
    """Whether streams' features correlate little across streams, and less than within them."""
    rows = [r for r in results if r["label"] == LEARNED and r.get("r_squared")]
    if not rows:
        return None
    across, within = (interval([r["r_squared"][k] for r in rows], 2) for k in ("across", "within"))
    gap = interval([r["r_squared"]["within"] - r["r_squared"]["across"] for r in rows], 2)
    counted = f"{len(rows)} seed{'s' * (len(rows) > 1)}"
    told = f"mean R^2 of channels {across.mean:.4f} across the streams, {within.mean:.4f} within them ({counted})"
    low = across.high is not None and across.high < LOW_R2
    verdict: Verdict = "cannot be told at this budget"
    if low and gap.low is not None and gap.low > 0:
        verdict = "holds"
    elif (across.low is not None and across.low > LOW_R2) or (gap.high is not None and gap.high < 0):
        verdict = "does not hold"
    means = f"mean R^2 across them below {LOW_R2:g}, and below that within them"
    return Claim(f"The streams' last convolutions are decorrelated ({means})", verdict, told)


def _sharpened(results: Sequence[Result], label: str, what: str, change: Interval) -> str:
    after, before = (np.mean([r["alive"]["gflops"] for r in results if r["label"] == n]) for n in (label, LEARNED))
    return (
        f"Leading alpha to {what} changes the error by {_span(change)}, and leaves {after:.4f} GFLOPs alive in place "
        f"of {before:.4f}."
    )


def _without(results: Sequence[Result], label: str, what: str, change: Interval) -> str:
    return f"Without the stream {what} the error changes by {_span(change)}."
