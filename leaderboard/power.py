"""What seeds can show: the spread of results over seeds, and the smallest effects that so many seeds would find."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from b2bench.leaderboard.contrasts import CONTRASTS
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.stats import ALPHA, MIN_SEEDS, Paired, detectable


@dataclass(frozen=True)
class Spread:
    """The area of gain and the gain at the end of each seed of a cell."""

    cell: str
    areas: tuple[float, ...]
    ends: tuple[float, ...]


def spreads(tables: Iterable[Tables]) -> list[Spread]:
    """Return the values of every cell that has three seeds or more and no failed run, of any context."""
    found = []
    for group in tables:
        context = group.head.context
        for row in group.leaderboard:
            if row.reference or row.failed or row.area is None or row.gain is None or len(row.seeds) < MIN_SEEDS:
                continue
            if all(map(math.isfinite, (*row.area.values, *row.gain.values))):
                where = f"{context.prompts}, {context.budget} queries, {row.config_hash[:6]}"
                name = f"{row.algorithm} {row.wrapper} ({where})"
                found.append(Spread(name, row.area.values, row.gain.values))
    return found


def pooled(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the pooled standard deviation over seeds of several cells, and its degrees of freedom.

    Raises:
        ValueError: there is no sample of two values or more.
    """
    known = [np.asarray(values, dtype=np.float64) for values in samples if len(values) > 1]
    df = sum(len(values) - 1 for values in known)
    if not df:
        raise ValueError("no cell has two seeds")
    return math.sqrt(sum(((values - values.mean()) ** 2).sum() for values in known) / df), df


def least_effect(sd: float, contrast: str, seeds: int, tests: int = 1, alpha: float = ALPHA) -> float | None:
    """Return the smallest true value of a planned contrast that ``seeds`` find in four experiments of five.

    ``sd`` is the standard deviation over seeds within a cell, the same for all. Wrappers are taken as independent: what
    pairing by seed takes away is not counted, so with pairing less is enough. ``tests`` is Holm's hardest step.
    """
    weights = CONTRASTS[contrast].values()
    error = sd * math.sqrt(sum(weight**2 for weight in weights) / seeds)
    return detectable(Paired(0.0, None, None, seeds, error=error, df=seeds - 1), tests, alpha)
