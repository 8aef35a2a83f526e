"""DDPO: importance sampling with a clipped ratio (Black et al. 2023, equation 5; PPO's surrogate)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.search import Search
from b2bench.types import Transitions


@algorithm
class DDPO:
    """L = mean(max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))), ratio = exp(log_prob - log_prob_old).

    No KL term unless it is asked for, and no value network. eps = clip_nats / D: log-probabilities are means over D
    latent dimensions, so a range is only comparable between backbones as a joint log-ratio. Published: 1e-4 at
    D = 16,384 (ddpo-pytorch), which is 1.64 nats. Differs from B2-DiffuRL's code, whose eps of 0.1
    switches clipping off in effect.

    With ``kl_weight`` w the loss has a penalty, w mean(KL) / D, as in Flow-GRPO (Liu et al. 2025, arXiv 2505.05470).
    KL, in nats, is that of the policy's transition from the pretrained model's, two normal distributions of equal
    sigma: |mean - mean_ref|^2 / (2 sigma^2), exact, not an estimate from samples. It is divided by D as the
    log-probability is, so that a nat costs w standard deviations of advantage on any backbone. It takes one more
    call of the denoiser for a transition, without gradient. Differs from ``dpok``, which has the same KL, in the clip.
    """

    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "clipped (PPO)",
        "reference model": "none, or exact KL to adapter off",
        "source": "Black et al. 2023",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(1e-4, 1e-2, published=3e-4, source="ddpo-pytorch")}

    clip_nats: Annotated[float, Gt(0), Search(0.2, 20, published=1.64, source="ddpo-pytorch")] = 1.64
    """Clip range of the ratio as a joint log-ratio in nats; divided by the latent size D"""
    kl_weight: Annotated[float, Ge(0)] = 0.0
    """Price of a nat of a transition's KL from the pretrained model, in standard deviations of advantage; 0: no KL"""

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean clipped surrogate; metrics ``log_ratio``, ``clipped`` and, with a KL, ``kl_nats``, each [B]."""
        gaussian = policy.transition(batch.cond, batch.latents, batch.step)
        log_ratio = gaussian.log_prob(batch.next_latents) - batch.log_prob
        ratio = log_ratio.exp()
        eps = self.clip_nats / policy.latent_size
        inside = ratio.clamp(1 - eps, 1 + eps)
        loss = torch.maximum(-batch.advantage * ratio, -batch.advantage * inside).mean()
        metrics = {"log_ratio": log_ratio.detach(), "clipped": (ratio != inside).float()}
        if self.kl_weight:
            with policy.reference():
                pretrained = policy.transition(batch.cond, batch.latents, batch.step)
            kl = gaussian.kl(pretrained)
            loss = loss + self.kl_weight * kl.mean()
            metrics["kl_nats"] = kl.detach() * policy.latent_size
        return loss, metrics
