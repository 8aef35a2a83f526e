"""Runs that collapse: how many, how sure one may be, and what the others did.

A collapse isn't normal noise. A mean over runs of which one collapsed says neither what the others did nor how often
it happens, so both are counted beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from b2bench.leaderboard.stats import MIN_SEEDS
from scipy import special

COLLAPSE = 0.02
"""A run collapsed if it ended with a CLIPScore more than this below the pretrained model's on the same images.

Null changes of a mean over some hundreds of images are a few thousandths. It is about the score; the loss of style that
``b2bench show`` warns of is another thing, and happens while the score rises."""
IN_ITS_UNIT = ("clipscore", "bertscore")
"""Rewards of which ``COLLAPSE`` is told."""
OF_SPREAD = 0.25
"""Of any other reward: as a share of the pretrained model's standard deviation over images (a CLIPScore's is 0.08)."""
FAR = 3
"""The fall of the median seed, in these limits, above which a cell of which all seeds fell is a loss."""

_ROUNDING = 1e-12


def limit_of(reward: str, spreads: Iterable[float]) -> float | None:
    """Return how far below the pretrained model a run has collapsed; None if nothing says what is far.

    ``spreads`` are standard deviations of the pretrained model's reward over images.
    """
    if reward in IN_ITS_UNIT:
        return COLLAPSE
    known = [spread for spread in spreads if math.isfinite(spread) and spread > 0]
    return OF_SPREAD * float(np.median(known)) if known else None


@dataclass(frozen=True)
class Collapses:
    """``collapsed`` of ``n`` seeds, the 95% Wilson interval of their share, and what the seeds did at the end.

    ``below`` of the seeds ended below their start by any amount, and ``drop`` is the median of start minus end.
    ``others`` is the mean of those that didn't collapse, None where all did. ``limit`` is how far below the start a run
    has collapsed; without one none has.
    """

    n: int
    collapsed: int
    low: float | None
    high: float | None
    below: int
    median: float | None
    drop: float | None
    others: float | None
    limit: float | None = COLLAPSE

    @property
    def fell(self) -> bool:
        """Whether the cell lost whatever a t-test says: all seeds (3 or more) ended below the start, and far below.

        The t-test is blind to it, because a seed that falls much further than the others makes its interval wide. Far:
        ``FAR`` limits in the median. That all seeds fall, by however little, happens to one null cell of five seeds
        in 32.
        """
        if self.limit is None or self.drop is None or self.n < MIN_SEEDS:
            return False
        return self.below == self.n and self.drop > FAR * self.limit


def collapses(ends: Sequence[float], starts: Sequence[float], limit: float | None = COLLAPSE) -> Collapses:
    """Count in scores [R] at the end, and at the start of the same seeds. Values that are missing don't count."""
    pairs = [(y, x) for y, x in zip(ends, starts, strict=True) if math.isfinite(y) and math.isfinite(x)]
    n, below = len(pairs), sum(y < x for y, x in pairs)
    down = [limit is not None and x - y > limit + _ROUNDING for y, x in pairs]
    others = [y for (y, _), fallen in zip(pairs, down, strict=True) if not fallen]
    low, high = wilson(sum(down), n)
    median = float(np.median([y for y, _ in pairs])) if pairs else None
    drop = float(np.median([x - y for y, x in pairs])) if pairs else None
    return Collapses(n, sum(down), low, high, below, median, drop, float(np.mean(others)) if others else None, limit)


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Return Wilson's interval of a share of which k of n were seen; None for n = 0."""
    if n == 0:
        return None, None
    z = float(special.ndtri((1 + confidence) / 2))
    middle = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(k * (n - k) / n + z**2 / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def fisher(k: int, n: int, other_k: int, other_n: int) -> float | None:
    """Return the two-sided p-value of Fisher's exact test that k of n and k of n others come from one share.

    It sums the probabilities, given both margins, of all tables that are not more likely than the one seen.
    """
    if n == 0 or other_n == 0:
        return None
    total = k + other_k
    ways = math.comb(n + other_n, total)
    tables = [
        math.comb(n, i) * math.comb(other_n, total - i) for i in range(max(0, total - other_n), min(n, total) + 1)
    ]
    seen = math.comb(n, k) * math.comb(other_n, other_k)
    return sum(table for table in tables if table <= seen) / ways
