"""How a round is cut into updates: one on all of its rollouts, or small ones of samples of the policy as it is."""

from __future__ import annotations

import math

from b2bench.config.run import RunConfig
from b2bench.minibatches import trained_steps, tree_share
from b2bench.types import Interval
from b2bench.wrappers import edges_of


class Pace:
    """How many prompt draws of a round are sampled before the next update: all, unless an update is to be on-policy.

    With ``updates`` (setting ``updates_per_round``) the policy is sampled anew after as many optimizer steps. Each of
    them then takes about ``transitions``: by what a draw has brought to the loss so far, as many draws are sampled as
    bring the round's transitions to the next multiple of updates * transitions. Where the optimizer steps of a round
    are ``fixed``, the draws are split evenly instead. What is left of a round joins its last update if it is less than
    half of one.

    ``kept`` are the rollouts of a draw that reach the loss, in the mean: a guess, then that of the latest round. Of
    ``processes`` that share a run each has a draw of every update.
    """

    def __init__(
        self, updates: int | None, transitions: int, fixed: int | None, kept: float, processes: int = 1
    ) -> None:
        self.updates, self.transitions, self.fixed, self.kept = updates, transitions, fixed, kept
        self.processes = processes

    def begin(self, draws: int, steps: float) -> None:
        """Begin a round of so many prompt draws, whose kept rollouts bring so many ``steps`` each."""
        self.left, self.steps = draws, steps
        self._sampled = self._kept = self._parts = self._updated = 0

    def next(self) -> int:
        """Return the draws to sample for the next update; 0 at the end of the round."""
        if self.updates is None:
            return self.left
        if self.fixed is not None:
            wanted, each = self.left, max(1, self.fixed // self.updates - self._parts)
            size = math.floor(wanted / each + 0.5)
        else:
            missing = (self._updated + 1) * self.updates * self.transitions - self._kept * self.steps
            size = math.floor(missing / (self.kept * self.steps) + 0.5) if self.kept else 1
        size = max(self.processes, size)
        return self.left if self.left - size < max(self.processes, size / 2) else size

    def took(self, draws: int, kept: int) -> None:
        """Count an update: the draws sampled for it, and the rollouts of them that were kept.

        One whose step fp16 skipped counts: the next one has a sample of its own.
        """
        self.left -= draws
        self._sampled += draws
        self._kept += kept
        self._parts += 1
        self._updated += kept > 0
        self.kept = self._kept / self._sampled


def pace_of(config: RunConfig, processes: int = 1) -> Pace:
    """Return the pace of a run, shared by ``processes``, which begins with the guess that all rollouts, or all pairs,
    are kept.
    """
    settings = config.settings
    most = min(2, settings.samples) if config.algorithm.pairs else settings.samples
    return Pace(settings.updates_per_round, settings.transitions_per_step, settings.fixed_steps, most, processes)


def steps_of(config: RunConfig, interval: Interval) -> float:
    """Return how many transitions a kept rollout brings in the mean: its trained steps, or its share of a tree's."""
    settings = config.settings
    steps = trained_steps(len(interval), settings.timestep_fraction)
    edges = edges_of(config.wrapper, settings.samples, interval)
    return steps if edges is None else steps * tree_share(config.algorithm, edges)
