"""NFT: negative-aware fine-tuning on the forward process (DiffusionNFT, Zheng et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import Finals


@algorithm
class NFT:
    """L = mean(r m+ + (1 - r) m-), m+- = |e+- - e|^2 / D, r = 1/2 + clip(A / scale, -1, 1) / 2.

    e+ = (1 - beta) e_old + beta e_theta and e- = (1 + beta) e_old - beta e_theta, where e_old is the policy that
    sampled the images: good ones pull the prediction towards the noise that they were given, bad ones push the same
    change the other way. At beta 1 e+ is e_theta and e- its mirror image in e_old. No likelihood and no ratio.
    Differs from the published code: noise prediction instead of velocity, no division by the error itself, e_old is
    of this round (there an average over rounds), and no KL.
    Source: Zheng et al. 2025 (arXiv 2509.16117).
    """

    pairs: ClassVar[bool] = False
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "forward process"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage, as a probability",
        "importance ratio": "none (old and new prediction mixed)",
        "reference model": "none",
        "source": "Zheng et al. 2025",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 1)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-3}

    beta: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the new prediction in e+; small takes large steps"""
    scale: Annotated[float, Gt(0)] = 5.0
    """Advantage, in standard deviations, at which an image counts as wholly good or wholly bad"""

    def loss(self, policy: Policy, batch: Finals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over rows; metrics ``optimality`` (r) and ``denoising_error`` [B]."""
        noised = policy.add_noise(batch.latents, batch.noise, batch.step)
        with policy.behaviour():
            old = policy.noise(batch.cond, noised, batch.step, guided=False)
        new = policy.noise(batch.cond, noised, batch.step, guided=False)

        def error(prediction: Tensor) -> Tensor:
            return (prediction - batch.noise).square().flatten(1).mean(1)

        good = error((1 - self.beta) * old + self.beta * new)
        bad = error((1 + self.beta) * old - self.beta * new)
        r = 0.5 + (batch.advantage / self.scale).clamp(-1, 1) / 2
        return (r * good + (1 - r) * bad).mean(), {"optimality": r, "denoising_error": error(new).detach()}
