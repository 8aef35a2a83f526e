"""Flow-DPPO, written for DDIM: a policy gradient with a trust region by the exact KL of a transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import Transitions


@algorithm
class FlowDPPO:
    """L = -mean(mask A ratio), ratio = exp(log_prob - log_prob_old).

    mask is 0 for a transition whose policy is further than ``trust_nats`` from the one that sampled it, by the exact
    KL of the two normal distributions, and whose gradient would take it further the same way (A > 0 and ratio > 1, or
    A < 0 and ratio < 1); else 1. A ratio's range, as in ``ddpo``, says the same of single samples only, with their
    noise. The KL needs the old mean: a call of the denoiser without gradient for each transition.
    Source: Ping et al. 2026 (Flow-DPPO, arXiv 2606.11025), as in UniRL and verl-omni, for flow matching; here the
    transitions are DDIM's. Their threshold is 1e-5 of the mean over dimensions, as the default is at D = 1,024: in
    nats it is 66 times tighter than theirs at SD 3.5's D = 65,536.
    """

    key: ClassVar[str] = "flow_dppo"
    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "masked by the exact KL",
        "reference model": "none",
        "source": "Ping et al. 2026",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 1)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    trust_nats: Annotated[float, Gt(0)] = 0.01
    """KL of a transition from the policy that sampled it, in nats, up to which its gradient counts in any case"""

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over transitions; metrics ``log_ratio``, ``clipped`` (masked) and ``kl_old`` [B], nats a transition."""
        with policy.behaviour():
            old = policy.transition(batch.cond, batch.latents, batch.step)
        gaussian = policy.transition(batch.cond, batch.latents, batch.step)
        log_ratio = gaussian.log_prob(batch.next_latents) - batch.log_prob
        kl = gaussian.kl(old).detach() * policy.latent_size
        further = batch.advantage * log_ratio.detach() > 0
        mask = ~(further & (kl > self.trust_nats))
        loss = -(mask * batch.advantage * log_ratio.exp()).mean()
        return loss, {"log_ratio": log_ratio.detach(), "clipped": 1 - mask.float(), "kl_old": kl}
