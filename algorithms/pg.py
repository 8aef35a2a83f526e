"""PG: the score-function gradient (REINFORCE; DDPO_SF in Black et al. 2023, equation 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.search import Search
from b2bench.types import Transitions


@algorithm
class PG:
    """L = -mean(A log_prob). No importance ratio, so it is right on samples of the current policy alone.

    So it names its own update protocol, ``updates_per_round`` = 1: one optimizer step, then the policy is sampled
    anew. A stored round holds many such updates, of as many transitions each as a step has in every other cell, from
    as many reward queries in all. At a single step its gradient is DDPO's. ``--set updates_per_round=none`` takes all
    steps of a round on the same rollouts, which biases all but the first: with 48 of them training collapses. Nothing
    holds the policy: on pocket one of five seeds collapsed late at 1e-3, three times the default rate (docs/pocket.md).
    """

    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "none (on-policy: a step, then new samples)",
        "reference model": "none",
        "source": "Black et al. 2023",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 0)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4, "updates_per_round": 1}
    search: ClassVar[Mapping[str, Search]] = {
        "lr": Search(1e-4, 1e-2, published=1e-4, source="B2-DiffuRL code, of its DDPO: none is published for PG")
    }

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean of -A log_prob; metric ``log_ratio`` [B], by which the bias can be watched."""
        log_prob = policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents)
        return -(batch.advantage * log_prob).mean(), {"log_ratio": (log_prob - batch.log_prob).detach()}
