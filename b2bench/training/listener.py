"""Who watches a run."""

from __future__ import annotations

from typing import Protocol

from b2bench.evaluation.evaluate import Evaluation
from b2bench.update import UpdateReport


class Listener(Protocol):
    """Who watches a run. Every call is progress only; none changes the run."""

    def stage(self, text: str) -> None:
        """Hear what the run does now, in a few words."""

    def begins(self, run_id: str) -> None:
        """All is loaded; from now on there is something of the run to keep."""

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None:
        """Hear that a round is in the store."""

    def evaluated(self, queries: int, evaluation: Evaluation) -> None:
        """Hear that a milestone is in the store."""

    def warned(self, text: str) -> None:
        """Something is not as it should be, and the run goes on."""


class Silent:
    """A listener that says nothing."""

    def stage(self, text: str) -> None: ...
    def begins(self, run_id: str) -> None: ...
    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None: ...
    def evaluated(self, queries: int, evaluation: Evaluation) -> None: ...
    def warned(self, text: str) -> None: ...
