"""Who watches a run, and what is said of it at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from b2bench.evaluation.evaluate import Evaluation
from b2bench.update import UpdateReport


class Listener(Protocol):
    """Who watches a run. Every call is progress only; none changes the run."""

    def stage(self, text: str) -> None:
        """What the run does now, in a few words."""

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None:
        """A round is in the store."""

    def evaluated(self, queries: int, evaluation: Evaluation) -> None:
        """A milestone is in the store."""

    def warned(self, text: str) -> None:
        """Something is not as it should be, and the run goes on."""


class Silent:
    """A listener that says nothing."""

    def stage(self, text: str) -> None: ...
    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None: ...
    def evaluated(self, queries: int, evaluation: Evaluation) -> None: ...
    def warned(self, text: str) -> None: ...


@dataclass(frozen=True)
class Summary:
    """What a finished run says of itself. ``before`` and ``after`` map metric -> value on the test split."""

    run_id: str
    queries: int
    seconds: float
    queries_per_second: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    weights: str
