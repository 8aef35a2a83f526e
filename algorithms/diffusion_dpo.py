"""Diffusion-DPO, online: preference pairs by denoising error (Wallace et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import FinalPair, Finals


@algorithm
class DiffusionDPO:
    """L = -log sigmoid(-beta / 2 [(m_w - m_w,ref) - (m_l - m_l,ref)]), m = |e_theta(x_t) - e|^2.

    w and l are the best and the worst rollout of a comparison group, noised with one noise to one step; the reference
    is the pretrained model. It is what people mean by DPO for diffusion: it needs finished images and no trajectory.
    ``dpo`` (D3PO) compares log-probabilities of denoising steps instead. m is a sum over the D latent dimensions, so
    that beta means the same on every backbone: the published code's 5,000 is of means, 0.3 at its D of 16,384. Its
    pairs are offline and people's; here they are the policy's own. At equal errors the loss is log 2. Whatever else a
    wrapper selects plays no part.
    Source: Wallace et al. 2024 (arXiv 2311.12908), equation 14.
    """

    key: ClassVar[str] = "diffusion_dpo"
    pairs: ClassVar[bool] = True
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "preference"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "best against worst of a group",
        "importance ratio": "none",
        "reference model": "adapter off",
        "source": "Wallace et al. 2024",
    }
    row_calls: ClassVar[tuple[int, int]] = (2, 2)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}

    beta: Annotated[float, Gt(0)] = 0.3
    """How strongly the policy is held to the reference: by how much a unit of squared error, summed over D, counts"""

    @staticmethod
    def _error(policy: Policy, rows: Finals, noised: Tensor) -> Tensor:
        prediction = policy.noise(rows.cond, noised, rows.step, guided=False)
        return (prediction - rows.noise).square().flatten(1).mean(1)

    def loss(self, policy: Policy, batch: FinalPair) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over pairs; metrics ``accuracy`` [B] and ``denoising_error`` [2B]."""
        sides = (batch.winner, batch.loser)
        noised = [policy.add_noise(rows.latents, rows.noise, rows.step) for rows in sides]
        with policy.reference():
            reference = [self._error(policy, rows, x) for rows, x in zip(sides, noised, strict=True)]
        winner, loser = (self._error(policy, rows, x) for rows, x in zip(sides, noised, strict=True))
        margin = -self.beta * policy.latent_size / 2 * ((winner - reference[0]) - (loser - reference[1]))
        return -F.logsigmoid(margin).mean(), {
            "accuracy": (margin > 0).float(),
            "denoising_error": torch.cat([winner, loser]).detach(),
        }
