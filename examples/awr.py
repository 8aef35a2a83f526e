"""AWR: advantage-weighted regression on transitions, a user's algorithm in one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from b2bench import Policy, Search, Transitions, algorithm


@algorithm
class AWR:
    """L = -mean(w log_prob), w = min(exp(A / temperature - 1 / (2 temperature^2)), max_weight).

    Imitate every rollout, the better ones more. The second term of the exponent makes the mean weight 1
    for normal advantages; a softmax over the batch would do so exactly, but the loss of a row would
    then depend on the other rows of its micro-batch. Differs from ``rwr``, which weights the denoising error
    of finished images (Black et al. 2023, Lee et al. 2023): this one regresses the transitions of the rollout itself.
    Source: Peng et al. 2019 (arXiv 1910.00177), of which the cap on weights is; here the advantage is the harness's.
    """

    pairs: ClassVar[bool] = False
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "exponential of the advantage",
        "importance ratio": "none (biased after the first step)",
        "reference model": "none",
        "source": "Peng et al. 2019",
    }

    temperature: Annotated[float, Gt(0), Search(0.2, 5)] = 1.0
    """Standard deviations of the reward by which a weight grows e-fold; small imitates only the best"""
    max_weight: Annotated[float, Gt(0)] = 20.0
    """Weights are cut here, so that one lucky rollout cannot outweigh the rest"""

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean of -w log_prob; metrics ``log_ratio`` and ``weight`` [B]."""
        log_prob = policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents)
        weight = (batch.advantage / self.temperature - 0.5 / self.temperature**2).exp().clamp(max=self.max_weight)
        log_ratio = (log_prob - batch.log_prob).detach()
        return -(weight * log_prob).mean(), {"log_ratio": log_ratio, "weight": weight}
