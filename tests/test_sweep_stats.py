"""Verdicts of a sweep on made-up results: intervals by hand, and nothing said that the numbers do not carry."""

import numpy as np
import pytest
from scipy import stats

from fusion_jax.sweep_pictures import beta_over_steps, error_against_beta
from fusion_jax.sweep_report import differences_table, results_table
from fusion_jax.sweep_stats import claims, difference, interval, notes

NOISE = np.array([-1.0, 0.0, 1.0])


def runs(label, errors, strategy=None, beta=None, gflops=1.0, **more):
    strategy = strategy or label.split(",")[0].split(" ")[0]
    alive, whole = {"parameters": 10, "gflops": gflops}, {"parameters": 10, "gflops": 1.0}
    row = {
        "label": label,
        "strategy": strategy,
        "weights": [0.2, 0.8, 0.9],
        "alive": alive,
        "whole": whole,
        "alpha": 1.0,
    }
    betas = np.broadcast_to(np.float64(beta if beta is not None else 2.5), len(errors))
    return [
        {**row, "seed": seed, "mpjpe_mm": e, "pa_mpjpe_mm": e / 2, "beta": b, "images_per_s": 5.0, **more}
        for seed, (e, b) in enumerate(zip(errors, betas.tolist(), strict=True))
    ]


def verdicts(results):
    return {claim.statement: claim.verdict for claim in claims(results)}


FIXED = "Trainable fusion has a lower error than every hand-chosen layer"
LATE = "Fusion settles late, beyond the middle layer"


def test_the_interval_is_students():
    got = interval([3.0, 5.0, 10.0])
    low, high = stats.t.interval(0.95, 2, loc=6, scale=np.std([3, 5, 10], ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([got.mean, got.low, got.high], [6, low, high])
    wider = interval([3.0, 5.0, 10.0], comparisons=4)
    low, high = stats.t.interval(1 - 0.05 / 4, 2, loc=6, scale=np.std([3, 5, 10], ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([wider.low, wider.high], [low, high])
    assert interval([4.0]) == (4.0, None, None, 1) and str(interval([4.0])) == "4.0"


def test_differences_are_paired_by_seed():
    results = runs("learned", 50 + 10 * NOISE) + runs("free", 52 + 10 * NOISE)
    assert difference(results, "free", "learned")[:3] == pytest.approx((2, 2, 2))  # the noise is common to both
    shuffled = [r | {"seed": (r["seed"] + 1) % 3} if r["label"] == "free" else r for r in results]
    assert difference(shuffled, "free", "learned").low < 0
    assert difference(results, "image", "learned") is None


def test_a_claim_holds_only_where_every_interval_says_so():
    learned = runs("learned", 50 + NOISE)
    worse, better, alike = (runs(f"fixed at {n}", 50 + d + NOISE, "fixed", n) for n, d in enumerate((9, -9, 0)))
    unclear = runs("fixed at 3", [49.0, 58.0, 50.0], "fixed", 3)
    assert verdicts(learned + worse)[FIXED] == "holds"
    assert verdicts(learned + worse + better)[FIXED] == "does not hold"
    assert verdicts(learned + worse + unclear)[FIXED] == "cannot be told at this budget"
    assert verdicts(learned + worse + alike)[FIXED] == "cannot be told at this budget"
    assert verdicts(learned[:1] + worse[:1])[FIXED] == "cannot be told at this budget"  # one seed carries nothing
    assert FIXED not in verdicts(learned) and verdicts(worse) == {}


def test_many_comparisons_need_more_than_one():
    learned = runs("learned", 50 + NOISE)
    close = [runs(f"fixed at {n}", 50 + np.array([0.5, 3.0, 1.5]) + NOISE, "fixed", n) for n in range(4)]
    single = difference(learned + close[0], "fixed at 0", "learned")
    assert single.low < 0 < single.mean
    near = [runs(f"fixed at {n}", 50 + np.array([1.0, 2.0, 1.5]) + NOISE, "fixed", n) for n in range(4)]
    assert verdicts(learned + near[0])[FIXED] == "holds"
    assert verdicts(learned + sum(near, []))[FIXED] == "cannot be told at this budget"


def test_where_fusion_settles():
    spread = 0.05 * NOISE

    def verdict(middle, low=None):
        low = middle if low is None else low
        rows = runs("learned", 50 + NOISE, beta=middle + spread)
        return verdicts(rows + runs("learned, from beta 1", 50 + NOISE, beta=low + spread))[LATE]

    assert verdict(2.8) == "holds" and verdict(1.2) == "does not hold"
    assert verdict(2.05) == "cannot be told at this budget"
    assert verdict(2.8, 1.9) == "cannot be told at this budget"
    (claim,) = [c for c in claims(runs("learned", 50 + NOISE, beta=2.8 + spread)) if c.statement == LATE]
    assert claim.verdict == "cannot be told at this budget" and "no run started below the middle" in claim.why
    both = runs("learned", 50 + NOISE, beta=2.9 + spread) + runs("learned, from beta 3", 50 + NOISE, beta=4.1 + spread)
    (claim,) = [c for c in claims(both) if c.statement == LATE]
    assert claim.verdict == "cannot be told at this budget" and "depends on where it started" in claim.why


def test_the_penalty_and_what_it_saves():
    cheaper = "The penalty makes the pruned network cheaper"
    learned, free = runs("learned", 50 + NOISE, gflops=0.5), runs("free", 55 + NOISE, gflops=1.0)
    found = verdicts(learned + free)
    assert found[cheaper] == "holds" and found["The penalty lowers the error against free weights"] == "holds"
    (same,) = [c for c in claims(runs("learned", 50 + NOISE) + free) if c.statement == cheaper]
    assert same.verdict == "does not hold" and "none of them has a layer to cut" in same.why
    (alike,) = [c for c in claims(learned + runs("free", 55 + NOISE, gflops=0.5)) if c.statement == cheaper]
    assert alike.verdict == "does not hold" and "cut alike" in alike.why
    assert verdicts(learned[:1] + free[:1])[cheaper] == "cannot be told at this budget"
    soft = runs("learned, lambda 0", 45 + NOISE)
    assert verdicts(learned + soft)["The penalty lowers the error against none"] == "does not hold"


def test_claims_name_the_streams_that_were_tried():
    results = runs("learned", 50 + NOISE) + runs("heatmap", 60 + NOISE)
    assert verdicts(results)["Trainable fusion has a lower error than heatmap alone"] == "holds"
    both = results + runs("image", 60 + NOISE)
    assert "Trainable fusion has a lower error than heatmap and image alone" in verdicts(both)


def test_decorrelated_streams():
    def made(across, within):
        rows = runs("learned", 50 + NOISE)
        return [r | {"r_squared": {"across": across + 0.001 * r["seed"], "within": within}} for r in rows]

    (name,) = [statement for statement in verdicts(made(0.02, 0.1)) if "decorrelated" in statement]
    assert verdicts(made(0.02, 0.1))[name] == "holds"
    assert verdicts(made(0.05, 0.03))[name] == "does not hold"
    assert verdicts(made(0.3, 0.5))[name] == "does not hold"
    assert verdicts(made(0.09, 0.09))[name] == "cannot be told at this budget"


def test_notes_tables_and_figures_hold_every_kind():
    results = runs("learned", 50 + NOISE) + runs("learned, alpha led to 20", 51 + NOISE, gflops=0.5)
    results += runs("learned, without parts", 53 + NOISE) + runs("fixed at 1", 60 + NOISE, "fixed", 1.0)
    results += runs("image", 90 + NOISE) + runs("free", 52 + NOISE)
    sharpened, without = notes(results)
    assert "20 changes the error by +1.0 mm" in sharpened and "0.5000 GFLOPs alive in place of 1.0000" in sharpened
    assert "parts the error changes by +3.0 mm" in without
    assert len(results_table(results)) == 2 + 6 and "| learned | 50.0 ± 2.5 |" in results_table(results)[2]
    assert len(differences_table(results)) == 2 + 5 and "+40.0" in "".join(differences_table(results))
    axis = error_against_beta(results).axes[0]
    assert len(axis.get_legend().get_texts()) == 5
    curve = (np.array([1, 2]), np.array([2.0, 2.5]))
    assert len(beta_over_steps({"learned": [curve, curve]}, 3).axes[0].lines) == 3
