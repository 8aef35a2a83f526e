"""Where ``b2bench tune`` looks for a hyperparameter, declared beside it; and which training seeds are tuning's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

FIRST_TUNING_SEED = 1000
"""Training seeds from here on are for tuning. Seeds below are for the runs that a report compares."""
QUICK, FULL = 8, 32
"""Configurations of ``b2bench tune --quick``, each with half of the queries, and of ``--full``."""
DIMENSIONS = 3
"""The most that a cell may have searched: few runs say nothing about more."""
GENERATION = 4
"""Configurations that a sampler which looks at scores proposes at a time, however many processes there are."""


class Sampler(StrEnum):
    """Who says which points ``b2bench tune`` tries: ``sobol`` is the protocol, the others are classes of Optuna."""

    sobol = "sobol"
    tpe = "tpe"
    gp = "gp"
    random = "random"

    @property
    def described(self) -> str:
        """What it is, and of which package."""
        return {
            Sampler.sobol: "scrambled Sobol points, scipy.stats.qmc",
            Sampler.tpe: "TPESampler of Optuna",
            Sampler.gp: "GPSampler of Optuna",
            Sampler.random: "RandomSampler of Optuna",
        }[self]


@dataclass(frozen=True)
class Search:
    """Search from ``low`` to ``high``, by default on a log scale: ``lr: Annotated[float, Search(1e-4, 1e-2)] = 1e-3``.

    ``published`` is the value of the method's authors, and ``source`` the place where it was read. It is tried even if
    it lies outside of the range.

    Raises:
        ValueError: the range is empty, or is not of numbers that the scale has.
    """

    low: float
    high: float
    log: bool = True
    published: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Search({self.low}, {self.high}) is not a range; try a low end below the high one")
        if self.log and self.low <= 0:
            raise ValueError(f"Search({self.low}, {self.high}) has no logarithm; try a low end above 0, or log=False")
        if self.published is not None and not self.source:
            raise ValueError(f"Search(..., published={self.published}) has no source; try source='where it was read'")

    def at(self, share: float) -> float:
        """Return the value at a share of the way from low to high, to four significant digits."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def share(self, value: float | None) -> float | None:
        """Return how far from low to high a value lies, as :meth:`at` takes it; None if it lies outside."""
        if value is None or not self.low <= value <= self.high:
            return None
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)
