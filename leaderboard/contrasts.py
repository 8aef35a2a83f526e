"""Planned contrasts of wrappers, their common error, and which cells may be the best.

The values of an algorithm's wrappers on common seeds make a block: wrapper by seed. Two errors can be had for a
contrast. The paired t-test takes the spread of that contrast over seeds. The blocked analysis takes the residuals of
the additive model

    value[wrapper, seed] = wrapper + seed + residual,

which pool the spread of all wrappers. That gives (W - 1) times the degrees of freedom, and is right only if all
wrappers spread alike. ``RATIO`` decides, before anything is tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from b2bench.leaderboard.stats import ALPHA, MIN_SEEDS, Paired, difference, paired, with_error
from numpy.typing import NDArray

CONTRASTS: dict[str, dict[str, int]] = {
    "bpt": {"bpt": 1, "vanilla": -1},
    "bs": {"bs": 1, "vanilla": -1},
    "interaction": {"b2": 1, "bpt": -1, "bs": -1, "vanilla": 1},
    "b2": {"b2": 1, "vanilla": -1},
}
"""The contrasts that are asked of an algorithm, as weights of its wrappers: no others are claimed."""
RATIO = 2.5
"""Largest to smallest variance of the differences between two wrappers, up to which the blocked analysis is used.

Chosen by simulation (docs/statistics.md): at 3 the family-wise error exceeds 6% where one wrapper spreads half as much
again as the others."""

Values = Mapping[int, float]
"""One value for each seed."""


def variance_ratio(block: NDArray[np.float64]) -> float:
    """Return the largest variance over seeds of a difference of two rows of a block [W, R], over the smallest.

    inf if a difference has no variance at all, unless none has any.
    """
    rows = len(block)
    differences = [block[i] - block[j] for i in range(rows) for j in range(i + 1, rows)]
    variances = np.array([difference.var(ddof=1) for difference in differences])
    if variances.max() == 0:
        return 1.0
    return float(variances.max() / variances.min()) if variances.min() > 0 else float("inf")


def residual_variance(block: NDArray[np.float64]) -> tuple[float, int]:
    """Return the mean square of the residuals of the additive model of a block [W, R], and its degrees of freedom."""
    rest = block - block.mean(0) - block.mean(1, keepdims=True) + block.mean()
    df = (block.shape[0] - 1) * (block.shape[1] - 1)
    return float((rest**2).sum() / df), df


def block_of(cells: Mapping[str, Values]) -> NDArray[np.float64] | None:
    """Return the values of wrappers as a block [W, R] if the blocked analysis is allowed, else None.

    It needs three wrappers or more (for two it is the paired t-test), the same three seeds or more for each, finite
    values, and ``RATIO``.
    """
    seeds = {tuple(sorted(values)) for values in cells.values()}
    if len(cells) < 3 or len(seeds) != 1 or len(next(iter(seeds))) < MIN_SEEDS:
        return None
    block = np.array([[values[seed] for seed in sorted(values)] for values in cells.values()], dtype=np.float64)
    return block if np.isfinite(block).all() and variance_ratio(block) <= RATIO else None


def planned(cells: Mapping[str, Values]) -> dict[str, Paired]:
    """Return each of ``CONTRASTS`` for whose wrappers there are values, over the seeds that these wrappers share.

    ``method`` of a contrast says which analysis it had.
    """
    known = {wrapper for weights in CONTRASTS.values() for wrapper in weights}
    cells = {wrapper: values for wrapper, values in cells.items() if wrapper in known}
    block = block_of(cells)
    found = {}
    for name, weights in CONTRASTS.items():
        if not weights.keys() <= cells.keys():
            continue
        seeds = sorted(set.intersection(*(set(cells[wrapper]) for wrapper in weights)))
        if not seeds:
            continue
        sides = [
            np.sum([weight * np.array([cells[name][s] for s in seeds]) for name, weight in side], axis=0)
            for side in (
                [(name, weight) for name, weight in weights.items() if weight > 0],
                [(name, -weight) for name, weight in weights.items() if weight < 0],
            )
        ]
        delta = difference(*sides)
        if block is None:
            found[name] = paired(delta.tolist(), [0.0] * len(seeds))
            continue
        variance, df = residual_variance(block)
        error = float(np.sqrt(variance * sum(weight**2 for weight in weights.values()) / len(seeds)))
        found[name] = with_error(delta, error, df, "blocked")
    return found


def behind_the_best(cells: Sequence[Values]) -> list[float | None]:
    """Return for each of C cells how surely some other cell is better, each pair over the seeds that both have.

    The p-value of a cell is the smallest one of one-sided paired t-tests of the others against it, times their number
    C - 1 (multiple comparisons with the best, Hsu 1984, by Bonferroni instead of a common variance). The truly best
    cell has a value below alpha in at most that share of experiments, so the cells above alpha are a confidence set for
    the best. None where there is no test: fewer than three seeds, or a value that is missing. Two cells that share
    fewer than three seeds are not told apart.
    """
    there = [i for i, cell in enumerate(cells) if len(cell) >= MIN_SEEDS and all(map(math.isfinite, cell.values()))]
    found: list[float | None] = [None] * len(cells)
    for i in there:
        tests = [_better(cells[j], cells[i]) for j in there if j != i]
        found[i] = min(1.0, len(tests) * min(tests)) if tests else 1.0
    return found


def _better(one: Values, other: Values) -> float:
    """Return the one-sided p-value of ``one`` above ``other``."""
    seeds = sorted(one.keys() & other.keys())
    delta = paired([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    if delta.p is None:
        return 1.0
    return delta.p / 2 if delta.mean is not None and delta.mean > 0 else 1 - delta.p / 2


def rank_ranges(
    cells: Sequence[Values], alpha: float = ALPHA, fell: Sequence[bool] | None = None
) -> list[tuple[int, int] | None]:
    """Return the ranks (1 is best) that each of C cells may have, by :func:`behind_the_best`.

    A cell that may be the best has ranks 1 to C, one that may not has 2 to C. If one cell alone may be the best, its
    rank is 1. Cells behind the best are not compared with each other. Those that ``fell`` are not the best, whatever
    their intervals, unless all did: seeds that collapse by different amounts make an interval that reaches anywhere.
    """
    behind = behind_the_best(cells)
    total = sum(p is not None for p in behind)
    fallen = [False] * len(cells) if fell is None else list(fell)
    if all(out for p, out in zip(behind, fallen, strict=True) if p is not None):
        fallen = [False] * len(cells)
    tested = [p is not None and p >= alpha for p in behind]
    open_ = [not_behind and not out for not_behind, out in zip(tested, fallen, strict=True)]
    if not any(open_):  # all that no test puts behind another one fell: of the others any may be the best
        open_ = [p is not None and not out for p, out in zip(behind, fallen, strict=True)]
    alone = sum(tested) == 1 and tested == open_  # what is left over because others fell is not shown to be better
    return [
        None if p is None else (1, 1 if alone else total) if may_be_best else (2, total)
        for p, may_be_best in zip(behind, open_, strict=True)
    ]
