"""What a tuning says of a cell: what was chosen, what the defaults give, and what a user with few runs may expect.

A configuration's score is the mean reward of the last two rounds of training, on training prompts, at the full budget
of the tuning run: the last value, never the best one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from b2bench.leaderboard.collapse import COLLAPSE

BEST_OF = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Trial:
    """A run of a configuration: the mean reward of its first round, that of its last two, and its reward queries.

    Both are None of a run that failed before its first round was over. ``limit`` is how far below its first round a run
    has collapsed, by :func:`b2bench.leaderboard.collapse.limit_of`; without one only a run that failed has.
    """

    first: float | None
    last: float | None
    queries: int = 0
    failed: bool = False
    run_id: str = ""
    limit: float | None = COLLAPSE

    @property
    def collapsed(self) -> bool:
        """Whether it failed, or ended clearly below where it began."""
        if self.failed or self.last is None or self.first is None:
            return True
        return self.limit is not None and self.last < self.first - self.limit

    @property
    def below(self) -> bool:
        """Whether it failed, or ended below where it began, which is the pretrained model."""
        return self.failed or self.last is None or self.first is None or self.last < self.first


@dataclass(frozen=True)
class Tried:
    """A configuration and its trials by seed; ``kind`` is published, default or the sampler's name."""

    kind: str
    values: Mapping[str, Any]
    trials: Mapping[int, Trial] = field(default_factory=dict)

    def mean(self, seeds: Sequence[int] | None = None) -> float:
        """Return the mean score over ``seeds``, or over all that it has; minus infinity if a run has no score."""
        chosen = [self.trials[seed].last for seed in (self.trials if seeds is None else seeds)]
        if not chosen or any(value is None for value in chosen):
            return -math.inf
        return math.fsum(value for value in chosen if value is not None) / len(chosen)

    def failed(self, seeds: Sequence[int]) -> bool:
        """Whether a run with one of these seeds failed: what it had before says nothing of its end."""
        return any(self.trials[seed].failed for seed in seeds)


@dataclass(frozen=True)
class TuningRow:
    """A cell's tuning. ``gain`` is tuned minus default over the seeds that both have; ``queries`` were spent on it.

    ``best_of`` maps m to the expected best score of m configurations, None if fewer were tried. ``collapsed`` and
    ``below`` count configurations by their run with the first seed: those that collapsed, and those that ended below
    the pretrained model.
    """

    algorithm: str
    wrapper: str
    chosen: Tried
    default: Tried
    tuned_score: float
    default_score: float
    gain: float
    best_of: dict[int, float | None]
    configurations: int
    collapsed: int
    below: int
    queries: int

    @property
    def collapsed_share(self) -> float:
        """The share of configurations that collapsed."""
        return self.collapsed / self.configurations

    @property
    def below_share(self) -> float:
        """The share of configurations that ended below the pretrained model; collapsed ones are among them."""
        return self.below / self.configurations


def expected_best(scores: Sequence[float], m: int) -> float | None:
    """Return the mean of the best of ``m`` scores over all ways to draw ``m`` of them, each at most once.

    E = sum over i of v_i C(i - 1, m - 1) / C(n, m), with v_1 <= ... <= v_n. None if there are fewer than ``m`` scores.
    """
    n = len(scores)
    if not 1 <= m <= n:
        return None
    ways = math.comb(n, m)
    return math.fsum(value * (math.comb(i, m - 1) / ways) for i, value in enumerate(sorted(scores)))


def top_quarter(tried: Sequence[Tried], seed: int) -> list[int]:
    """Return the places of the best quarter by the score with ``seed``, at least one; of equals the earlier one.

    Those that failed come last.
    """
    order = sorted(range(len(tried)), key=lambda i: (tried[i].failed([seed]), -tried[i].mean([seed]), i))
    return order[: math.ceil(len(tried) / 4)]


def of_protocol(tried: Sequence[Tried], seeds: Sequence[int]) -> list[Tried]:
    """Leave out runs that this tuning did not ask for, with later seeds outside of the top quarter: another one did.

    So the choice does not depend on what else a store holds.
    """
    top = top_quarter(tried, seeds[0])
    return [
        one if i in top else replace(one, trials={seed: of for seed, of in one.trials.items() if seed == seeds[0]})
        for i, one in enumerate(tried)
    ]


def best(tried: Sequence[Tried], seeds: Sequence[int]) -> int:
    """Return the place of the best mean over ``seeds``, among those that ran with all of them.

    One of which a run failed is chosen only if all others have such a run, too.

    Raises:
        ValueError: none did, or none has a score.
    """
    whole = [i for i, one in enumerate(tried) if all(seed in one.trials for seed in seeds)]
    if not whole or all(tried[i].mean(seeds) == -math.inf for i in whole):
        raise ValueError("no configuration has a score")
    return max(whole, key=lambda i: (not tried[i].failed(seeds), tried[i].mean(seeds), -i))


def tuning_row(algorithm: str, wrapper: str, tried: Sequence[Tried], seeds: Sequence[int]) -> TuningRow:
    """Summarise the tuning of a cell; ``seeds`` are those of the final choice, and all ran with the first of them.

    A configuration without a score counts with the lowest score of the others in ``best_of``.

    Raises:
        ValueError: no configuration has a score.
    """
    tried = of_protocol(tried, seeds)
    chosen = tried[best(tried, seeds)]
    default = next(one for one in tried if one.kind == "default")
    scores = [one.mean(seeds[:1]) for one in tried]
    lowest = min(score for score in scores if math.isfinite(score))
    scores = [max(score, lowest) for score in scores]
    shared = [seed for seed in seeds if seed in default.trials]
    first = [one.trials[seeds[0]] for one in tried]
    return TuningRow(
        algorithm=algorithm,
        wrapper=wrapper,
        chosen=chosen,
        default=default,
        tuned_score=chosen.mean(seeds),
        default_score=default.mean(),
        gain=chosen.mean(shared) - default.mean(shared),
        best_of={m: expected_best(scores, m) for m in BEST_OF},
        configurations=len(tried),
        collapsed=sum(trial.collapsed for trial in first),
        below=sum(trial.below for trial in first),
        queries=sum(trial.queries for one in tried for trial in one.trials.values()),
    )
