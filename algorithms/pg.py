"""PG: the score-function gradient (REINFORCE; DDPO_SF in Black et al. 2023, equation 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import Transitions


@algorithm
class PG:
    """L = -mean(A log_prob). No importance ratio: only a round's first optimizer step is unbiased.

    The harness takes as many optimizer steps a round here as in every other cell, which biases the later
    ones; ``--set optimizer_steps=1`` is the unbiased estimator, where PG coincides with DDPO.
    """

    pairs: ClassVar[bool] = False
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "none (biased after the first step)",
        "reference model": "none",
        "source": "Black et al. 2023",
    }

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean of -A log_prob; metric ``log_ratio`` [B], by which the bias can be watched."""
        log_prob = policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents)
        return -(batch.advantage * log_prob).mean(), {"log_ratio": (log_prob - batch.log_prob).detach()}
