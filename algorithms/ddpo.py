"""DDPO: importance sampling with a clipped ratio (Black et al. 2023, equation 5; PPO's surrogate)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.search import Search
from b2bench.types import Transitions


@algorithm
class DDPO:
    """L = mean(max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))), ratio = exp(log_prob - log_prob_old).

    No KL term and no value network. eps = clip_nats / D: log-probabilities are means over D latent
    dimensions, so a range is only comparable between backbones as a joint log-ratio. Published: 1e-4 at
    D = 16,384 (ddpo-pytorch), which is 1.64 nats. Differs from B2-DiffuRL's code, whose eps of 0.1
    switches clipping off in effect.
    """

    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "clipped (PPO)",
        "reference model": "none",
        "source": "Black et al. 2023",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(1e-4, 1e-2, published=3e-4, source="ddpo-pytorch")}

    clip_nats: Annotated[float, Gt(0), Search(0.2, 20, published=1.64, source="ddpo-pytorch")] = 1.64
    """Clip range of the ratio as a joint log-ratio in nats; divided by the latent size D"""

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean clipped surrogate; metrics ``log_ratio`` [B] and ``clipped`` [B]."""
        gaussian = policy.transition(batch.cond, batch.latents, batch.step)
        log_ratio = gaussian.log_prob(batch.next_latents) - batch.log_prob
        ratio = log_ratio.exp()
        eps = self.clip_nats / policy.latent_size
        inside = ratio.clamp(1 - eps, 1 + eps)
        loss = torch.maximum(-batch.advantage * ratio, -batch.advantage * inside).mean()
        return loss, {"log_ratio": log_ratio.detach(), "clipped": (ratio != inside).float()}
