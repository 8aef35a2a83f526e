"""Statistics over training seeds: means, paired differences, gains, Holm and equivalence.

The unit of replication is the training seed: average over prompts and images first, then hand the per-seed means to
this module. Intervals are Student's t. Below three seeds there is none, because it would say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes a second to import

_ROUNDING = 1e-9  # relative to a value, what differs by less is equal

MIN_SEEDS = 3
"""Fewer seeds give a mean without an interval and without a p-value."""
MIN_SLOPE = 5
"""Fewer seeds give no estimate of how much of a start is still there at the end."""
ALPHA = 0.05
LOOK = 0.029
"""The level of each of two looks at the same runs, at half of the seeds and at all: together they err in 5%."""
SHARE = 0.25
"""The margin within which two cells are equal, as a share of what the reference gained."""


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

    ``p`` is the two-sided p-value of the t-test, ``p_adjusted`` that after Holm over a family. ``wins`` counts the
    seeds with a difference above zero. ``error`` is the standard error of the mean and ``df`` its degrees of freedom.
    ``method`` says where the error comes from: "paired" for these differences alone, "blocked" for the residuals of
    seed and wrapper, "start" for the residuals of a regression on the start.
    """

    p: float | None = None
    p_adjusted: float | None = None
    wins: int = 0
    error: float | None = None
    df: int = 0
    method: str = "paired"


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
    delta = difference(values, baseline)
    error, df = None, max(0, len(delta) - 1)
    if len(delta) >= MIN_SEEDS and np.isfinite(delta).all():
        error = float(delta.std(ddof=1) / np.sqrt(len(delta)))
    return with_error(delta, error, df, "paired", confidence)


def difference(values: Sequence[float], baseline: Sequence[float]) -> NDArray[np.float64]:
    """Return ``values - baseline`` [R], of which rounding errors are 0: an area is a sum, and no evidence by itself."""
    y, x = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    found = y - x
    found[np.abs(found) <= _ROUNDING * np.maximum(np.abs(y), np.abs(x))] = 0.0
    return found


def with_error(
    values: NDArray[np.float64], error: float | None, df: int, method: str = "paired", confidence: float = 0.95
) -> Paired:
    """Return the mean of per-seed differences [R], with the interval and the t-test that an error of it gives."""
    seeds = tuple(float(value) for value in values)
    wins = int((values > 0).sum())
    if len(values) == 0 or not np.isfinite(values).all():
        return Paired(None, None, None, len(values), seeds, wins=wins, method=method)
    mean = float(values.mean())
    if error is None or len(values) < MIN_SEEDS:
        return Paired(mean, None, None, len(values), seeds, wins=wins, method=method)
    half = float(special.stdtrit(df, (1 + confidence) / 2)) * error
    p = two_sided(mean, error, df)
    return Paired(mean, mean - half, mean + half, len(values), seeds, p, None, wins, error, df, method)


def two_sided(mean: float, error: float, df: int) -> float:
    """Return the p-value of a t-test of mean 0."""
    if error <= _ROUNDING * abs(mean):  # all seeds agree: t is 0/0 or infinite
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(df, -abs(mean) / error))


def gained(values: Sequence[float], starts: Sequence[float]) -> Paired:
    """Compare values [R] with the starts [R] of the same seeds, the start as a covariate.

    The mean is mean(values) - mean(starts). Its error comes from the residuals of the regression

        value_s = a + b (start_s - mean start) + e_s,

    with b estimated: a difference ``value - start`` would fix it at 1, which adds noise where training forgets its
    start. If the starts are one number (all runs of an ``eval_seed``), b drops out. Fewer than ``MIN_SLOPE`` seeds
    don't give b either, and then it is 0: the error is that of the values alone. The interval is given these starts.
    ``values`` of the result are the plain differences of each seed.
    """
    if len(values) != len(starts):
        raise ValueError(f"{len(values)} values cannot be compared with {len(starts)} starts")
    y, x = np.asarray(values, dtype=np.float64), np.asarray(starts, dtype=np.float64)
    n, delta = len(y), difference(values, starts)
    if n < MIN_SEEDS or not (np.isfinite(y).all() and np.isfinite(x).all()):
        return with_error(delta, None, 0, "start")
    away, df = x - x.mean(), n - 1
    rest = y - y.mean()
    if n >= MIN_SLOPE and np.ptp(x) > _ROUNDING * max(1.0, float(np.abs(x).max())):
        rest, df = rest - away * (away @ rest) / (away @ away), n - 2
    return with_error(delta, float(np.sqrt(rest @ rest / df / n)), df, "start")


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


def equivalence(delta: Sequence[float], margin: float | Sequence[float]) -> float | None:
    """Return the p-value of the claim that the mean of differences [R] lies within -+ ``margin``.

    None below three seeds. It is the larger one of two one-sided t-tests (Schuirmann 1987). ``margin`` is a number, or
    one for each seed [R]: of a share of what a reference gained, which is itself an estimate. Then the tests are of
    delta + margin > 0 and delta - margin < 0, seed by seed, so that the error of the margin counts.
    """
    d = np.asarray(delta, dtype=np.float64)
    m = np.broadcast_to(np.asarray(margin, dtype=np.float64), d.shape)
    if len(d) < MIN_SEEDS or not (np.isfinite(d).all() and np.isfinite(m).all()):
        return None
    return max(_above(d + m), _above(m - d))


def _above(x: NDArray[np.float64]) -> float:
    """Return the one-sided p-value of a mean above 0."""
    error, mean = float(x.std(ddof=1)) / np.sqrt(len(x)), float(x.mean())
    if error <= _ROUNDING * abs(mean):
        return 0.0 if mean > 0 else 1.0
    return float(special.stdtr(len(x) - 1, -mean / error))


def equivalent(delta: Paired, margin: float, alpha: float = ALPHA) -> bool | None:
    """Tell whether a difference is shown to be within -+ ``margin``, by :func:`equivalence`. None below three seeds.

    False is "not shown", and a reason neither to call two cells different.

    Raises:
        ValueError: ``margin`` is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"margin = {margin} is not above 0")
    p = equivalence(delta.values, margin)
    return None if p is None else p < alpha


def detectable(delta: Paired, comparisons: int = 1, alpha: float = ALPHA, power: float = 0.8) -> float | None:
    """Return the smallest true difference that a two-sided t-test of these seeds finds with ``power``.

    It takes the standard error that the seeds gave, and a level of ``alpha`` / ``comparisons``: what the hardest step
    of Holm asks. None below three seeds. It is an estimate, as the standard error is one.
    """
    if delta.mean is None or delta.error is None:
        return None
    critical = float(special.stdtrit(delta.df, 1 - alpha / comparisons / 2))
    return delta.error * float(special.nctdtrinc(delta.df, 1 - power, critical))


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
