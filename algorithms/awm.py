"""AWM: advantage-weighted matching, DDPO's surrogate with the denoising error as the log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import Finals


@algorithm
class AWM:
    """L = mean(max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))), ratio = exp(-(m - m_old)).

    m = |e_theta(x_t) - e|^2 / D of the final latents, noised with the harness's noise; m_old is that of the policy
    that sampled them, at the same noise and step. -m stands for the log-likelihood that ``ddpo`` takes from the
    sampler's transitions. At the behaviour policy the gradient is that of A m. eps = clip_nats / D, in the unit of
    ``ddpo`` (m has another scale than its log-probability: half of it times a weight of each step, which is 1 here).
    Source: Xue et al. 2025 (arXiv 2509.25050, advantage weighted matching), written for flow matching; here noise
    prediction, and uniform weights over the sampler's steps. Its public code also has penalties towards the pretrained
    model (weights 1e-4 to 0.003) and towards an average of earlier policies (1), and divides the advantage by 5.
    """

    pairs: ClassVar[bool] = False
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "forward process"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage",
        "importance ratio": "of denoising errors, clipped (PPO)",
        "reference model": "none",
        "source": "Xue et al. 2025",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 1)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}

    clip_nats: Annotated[float, Gt(0)] = 1.64
    """Clip range of m_old - m times the latent size D, as the joint log-ratio of ddpo"""

    def loss(self, policy: Policy, batch: Finals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean clipped surrogate; metrics ``log_ratio``, ``clipped`` and ``denoising_error`` [B]."""
        noised = policy.add_noise(batch.latents, batch.noise, batch.step)

        def error() -> Tensor:
            prediction = policy.noise(batch.cond, noised, batch.step, guided=False)
            return (prediction - batch.noise).square().flatten(1).mean(1)

        with policy.behaviour():
            old = error()
        m = error()
        log_ratio = old - m
        ratio = log_ratio.exp()
        eps = self.clip_nats / policy.latent_size
        inside = ratio.clamp(1 - eps, 1 + eps)
        loss = torch.maximum(-batch.advantage * ratio, -batch.advantage * inside).mean()
        return loss, {
            "log_ratio": log_ratio.detach(),
            "clipped": (ratio != inside).float(),
            "denoising_error": m.detach(),
        }
