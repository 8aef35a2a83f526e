"""Who watches a run."""

from __future__ import annotations

from typing import Protocol

from b2bench.evaluation.evaluate import Evaluation
from b2bench.update import UpdateReport


class Listener(Protocol):
    """Who watches a run. Every call is progress only; none changes the run."""

    def stage(self, text: str) -> None:
        """Hear what the run does now, in a few words."""

    def advanced(self, work: int, within: str) -> None:
        """Hear of ``work`` done, in forward-equivalents, and how far the present stage is, in words; "" if unknown."""

    def begins(self, run_id: str) -> None:
        """All is loaded; from now on there is something of the run to keep."""

    def resumed(self, queries: int) -> None:
        """Hear that the run goes on after so many reward queries, which an earlier process made."""

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None:
        """Hear that a round is in the store."""

    def evaluated(self, queries: int, evaluation: Evaluation) -> None:
        """Hear that a milestone is in the store."""

    def warned(self, text: str) -> None:
        """Something is not as it should be, and the run goes on."""


class Silent:
    """A listener that says nothing."""

    def stage(self, text: str) -> None: ...
    def advanced(self, work: int, within: str) -> None: ...
    def begins(self, run_id: str) -> None: ...
    def resumed(self, queries: int) -> None: ...
    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None: ...
    def evaluated(self, queries: int, evaluation: Evaluation) -> None: ...
    def warned(self, text: str) -> None: ...


class Several:
    """Listeners that hear the same, one after the other."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def stage(self, text: str) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.stage(text)

    def advanced(self, work: int, within: str) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.advanced(work, within)

    def begins(self, run_id: str) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.begins(run_id)

    def resumed(self, queries: int) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.resumed(queries)

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.round_done(round, rounds, queries, reward, report)

    def evaluated(self, queries: int, evaluation: Evaluation) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.evaluated(queries, evaluation)

    def warned(self, text: str) -> None:
        """Tell all of them."""
        for one in self.listeners:
            one.warned(text)
