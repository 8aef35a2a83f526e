"""DGPO: direct group preference optimisation of denoising errors (Luo et al. 2025)."""

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
class DGPO:
    """L = mean(s A m) / D, s = sigmoid(beta / K sum over the group of A (m - m_ref)) without gradient.

    m = |e_theta(x_t) - e|^2. The group is what a wrapper keeps of a prompt draw, or of a branch, K rollouts at one
    step with one noise; s falls towards 0 once its good images are denoised better than by the pretrained model, and
    its bad ones worse. With equal errors s is 1/2, and the gradient that of A m / 2. A group of one is compared with
    the reference alone.
    Source: Luo et al. 2025 (direct group preference optimization, arXiv 2510.08425). Differs: all steps of the
    wrapper's interval, and the harness's advantage. Its public code also clips against the old policy (0.01) and has
    a KL to the pretrained model (0.02).
    """

    pairs: ClassVar[bool] = False
    finals: ClassVar[bool] = True
    whole_groups: ClassVar[bool] = True
    family: ClassVar[str] = "preference"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage, against the group",
        "importance ratio": "none",
        "reference model": "adapter off",
        "source": "Luo et al. 2025",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 1)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}

    beta: Annotated[float, Gt(0)] = 0.3
    """How strongly the policy is held to the reference: by how much a unit of squared error, summed over D, counts"""

    def loss(self, policy: Policy, batch: Finals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over rows; metrics ``held`` (1 - s) and ``denoising_error`` [B]. Groups must be whole at each step."""
        noised = policy.add_noise(batch.latents, batch.noise, batch.step)

        def error() -> Tensor:
            prediction = policy.noise(batch.cond, noised, batch.step, guided=False)
            return (prediction - batch.noise).square().flatten(1).mean(1)

        with policy.reference():
            reference = error()
        m = error()
        places = torch.stack([batch.group, batch.step], 1)
        _, group = places.unique(dim=0, return_inverse=True)
        gaps = batch.advantage * (m.detach() - reference)
        sums = torch.zeros(int(group.max()) + 1, device=m.device).index_add_(0, group, gaps)
        sizes = torch.zeros_like(sums).index_add_(0, group, torch.ones_like(gaps))
        still = torch.sigmoid(self.beta * policy.latent_size * sums / sizes)[group]
        return (still * batch.advantage * m).mean(), {"held": 1 - still, "denoising_error": m.detach()}
