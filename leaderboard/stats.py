"""Statistics over training seeds.

The replicate is the seed: average over prompts and images first, then hand the per-seed means to this
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
    """Mean and t-interval, mean -+ t_{n-1} s / sqrt(n), of one value per seed [R].

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
    """Differences ``values - baseline`` of the same seeds in the same order, [R] each."""
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
    """Holm-adjusted p-values in the order given; None (nothing was tested) stays and counts for nothing.

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
    """Main effects and interaction of BPT and BS, per seed [R], then a paired t-test.

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
