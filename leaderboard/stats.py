"""Statistics over training seeds.

The unit of replication is the seed: average over prompts and images first, then hand the per-seed means to this
module. Intervals are Student's t; below three seeds there is none, because it would say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats takes a second to import

MIN_SEEDS = 3
"""Fewer seeds give a mean without an interval and without a p-value."""


@dataclass(frozen=True)
class Estimate:
    """Mean over n seeds and its t-interval [low, high]; None where it cannot be had."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Paired(Estimate):
    """Mean difference over n shared seeds, its t-interval, and how sure one may be of its sign.

    ``p`` is the two-sided p-value of the paired t-test, ``p_adjusted`` that after Holm over a family;
    ``wins`` counts the seeds with a difference above zero.
    """

    p: float | None = None
    p_adjusted: float | None = None
    wins: int = 0


@dataclass(frozen=True)
class Effects:
    """The 2x2 factorial of wrappers, as differences per seed."""

    bpt: Paired
    bs: Paired
    interaction: Paired


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return mean and t-interval, mean -+ t_{n-1} s / sqrt(n), of one value per seed [R].

    A value that is not finite leaves no mean: a mean over the rest would flatter.
    """
    x = np.asarray(values, dtype=np.float64)
    n, seeds = len(x), tuple(float(value) for value in x)
    if n == 0 or not np.isfinite(x).all():
        return Estimate(None, None, None, n, seeds)
    mean = float(x.mean())
    if n < MIN_SEEDS:
        return Estimate(mean, None, None, n, seeds)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2) * x.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n, seeds)


def paired(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Paired:
    """Compare ``values - baseline`` of the same seeds in the same order, [R] each."""
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values cannot be paired with {len(baseline)}")
    delta = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    base = estimate(delta.tolist(), confidence)
    wins = int((delta > 0).sum())
    return Paired(base.mean, base.low, base.high, base.n, base.values, _p(base), None, wins)


def _p(delta: Estimate) -> float | None:
    if delta.mean is None or delta.n < MIN_SEEDS:
        return None
    error = float(np.std(delta.values, ddof=1)) / np.sqrt(delta.n)
    if error == 0:  # all seeds agree exactly: t is 0/0 or infinite
        return 1.0 if delta.mean == 0 else 0.0
    return float(2 * special.stdtr(delta.n - 1, -abs(delta.mean) / error))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm-adjusted p-values in the order given; None (nothing was tested) stays and counts for nothing.

    The i-th smallest of m is multiplied by m - i + 1, made monotone and capped at 1. The family is what
    the caller passes: pass the whole table, also if only a part of it is shown.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for place, (value, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - place) * value))
        adjusted[index] = highest
    return adjusted


def factorial(vanilla: Sequence[float], bpt: Sequence[float], bs: Sequence[float], b2: Sequence[float]) -> Effects:
    """Return main effects and interaction of BPT and BS, per seed [R], with a paired t-test.

    BPT = ((bpt - vanilla) + (b2 - bs)) / 2, BS = ((bs - vanilla) + (b2 - bpt)) / 2,
    interaction = (b2 - bpt) - (bs - vanilla).
    """
    if len({len(vanilla), len(bpt), len(bs), len(b2)}) != 1:
        raise ValueError("the four wrappers need the same seeds")
    v, p, s, b = (np.asarray(cell, dtype=np.float64) for cell in (vanilla, bpt, bs, b2))
    zero = [0.0] * len(v)
    return Effects(
        paired((((p - v) + (b - s)) / 2).tolist(), zero),
        paired((((s - v) + (b - p)) / 2).tolist(), zero),
        paired(((b - p) - (s - v)).tolist(), zero),
    )


def equivalent(delta: Paired, margin: float, alpha: float = 0.05) -> bool | None:
    """Tell whether a difference is shown to be within -+ ``margin``: its (1 - 2 alpha) t-interval lies inside.

    That is two one-sided t-tests at level ``alpha`` (Schuirmann 1987). None below three seeds. False is "not shown",
    and no difference at all is no reason to call two cells different.

    Raises:
        ValueError: ``margin`` is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"margin = {margin} is not above 0")
    found = estimate(delta.values, 1 - 2 * alpha)
    if found.low is None or found.high is None:
        return None
    return -margin < found.low and found.high < margin


def detectable(delta: Paired, comparisons: int = 1, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Return the smallest true difference that a two-sided paired t-test of these seeds finds with ``power``.

    With the standard deviation that the seeds had, and a level of ``alpha`` / ``comparisons``: what the hardest step of
    Holm asks. None below three seeds. An estimate, as the standard deviation is one.
    """
    if delta.mean is None or delta.n < MIN_SEEDS:
        return None
    error = float(np.std(delta.values, ddof=1)) / np.sqrt(delta.n)
    critical = float(special.stdtrit(delta.n - 1, 1 - alpha / comparisons / 2))
    # P(t > critical) of a noncentral t grows with the noncentrality, between these bounds from below to above power.
    low, high = 0.0, 20.0 * critical
    for _ in range(80):
        middle = (low + high) / 2
        missed = float(special.nctdtr(delta.n - 1, middle, critical))
        low, high = (middle, high) if not missed <= 1 - power else (low, middle)
    return error * high


def rank_ranges(values: Sequence[Sequence[float]], alpha: float = 0.05) -> list[tuple[int, int] | None]:
    """Return the ranks (1 is best) that each of the cells with values [C][R] on the same seeds may have.

    A cell stands behind those that are significantly better and before those that are significantly worse, by paired
    t-tests of all pairs with Holm over them. Cells that cannot be told apart share a range. None where there is no
    test: fewer than three seeds, or a value that is missing.
    """
    count = len(values)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    tests = [paired(values[i], values[j]) for i, j in pairs]
    better: dict[int, int] = dict.fromkeys(range(count), 0)
    worse: dict[int, int] = dict.fromkeys(range(count), 0)
    for (i, j), test, p in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
        if p is not None and p < alpha and test.mean is not None:
            first, second = (i, j) if test.mean > 0 else (j, i)
            better[second] += 1
            worse[first] += 1
    tested = [len(v) >= MIN_SEEDS and bool(np.isfinite(v).all()) for v in values]
    total = sum(tested)
    return [(1 + better[i], total - worse[i]) if tested[i] else None for i in range(count)]


def area_under_curve(queries: Sequence[float], values: Sequence[float], budget: float) -> float:
    """Return the mean of a curve over [0, budget], by trapezoids; the last value holds to the end.

    nan if there is no point at 0, or if a value is not finite.
    """
    order = np.argsort(queries)
    x, y = np.asarray(queries, dtype=np.float64)[order], np.asarray(values, dtype=np.float64)[order]
    if len(x) == 0 or x[0] != 0 or budget <= 0 or not np.isfinite(y).all():
        return float("nan")
    inside = x <= budget
    x, y = np.append(x[inside], budget), np.append(y[inside], np.interp(budget, x, y))
    return float(np.trapezoid(y, x) / budget)


def queries_to_target(queries: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """Return the queries at which a curve, straight between its points, first reaches ``target``, or None."""
    order = np.argsort(queries)
    x, y = np.asarray(queries, dtype=np.float64)[order], np.asarray(values, dtype=np.float64)[order]
    for place in range(len(x)):
        if y[place] >= target:
            if place == 0 or not np.isfinite(y[place - 1]):
                return float(x[place])
            share = (target - y[place - 1]) / (y[place] - y[place - 1])
            return float(x[place - 1] + share * (x[place] - x[place - 1]))
    return None


def over_optimised(trained: Paired, heldout: Paired) -> bool:
    """Tell whether the trained reward rose and the held-out score fell, both beyond their intervals.

    With fewer than three seeds there is no interval, and the signs decide.
    """
    if trained.mean is None or heldout.mean is None:
        return False
    up = trained.mean if trained.low is None else trained.low
    down = heldout.mean if heldout.high is None else heldout.high
    return up > 0 > down
