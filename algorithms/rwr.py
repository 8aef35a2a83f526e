"""RWR: reward-weighted regression of the denoiser on its own images (Lee et al. 2023; Black et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Gt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import Finals


@algorithm
class RWR:
    """L = mean(w m), w = exp(A / beta - 1 / (2 beta^2)) cut at ``max_weight``, m = |e_theta(x_t) - e|^2 / D.

    m is the error of the noise prediction for the prompt alone, without guidance, as a diffusion model is trained.
    The public code of DDPO's authors trains the guided prediction (``train_cfg``), with which images are sampled:
    ``guided``. The default rate was chosen without it.
    Before the cut the mean of w is 1 for a standard normal A, whatever beta is; with it 0.998 at beta 1, 0.82 at 0.5.
    Under noise_weighted A is weighed, within the exponent: late steps then imitate, whatever the reward.
    Differs from DDPO's RWR, whose weights are a softmax over the whole batch and whose finished images are noised to
    any of 1,000 timesteps: here to those of the sampler, of which the wrapper's interval chooses. Selection by a
    wrapper drops rollouts before they are weighted.
    Source: Black et al. 2023 (arXiv 2305.13301), section 4.1; Lee et al. 2023 (arXiv 2302.12192).
    """

    pairs: ClassVar[bool] = False
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "weighted regression"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "exponential of the advantage",
        "importance ratio": "none",
        "reference model": "none",
        "source": "Black et al. 2023",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 0)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-5}

    beta: Annotated[float, Gt(0)] = 1.0
    """Standard deviations of the reward by which a weight grows e-fold; small imitates only the best"""
    max_weight: Annotated[float, Gt(0)] = 20.0
    """Weights are cut here, so that one lucky rollout cannot outweigh the rest"""
    guided: bool = False
    """Train the guided noise prediction, as DDPO's authors do; without it that for the prompt alone"""

    def loss(self, policy: Policy, batch: Finals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean of w m; metrics ``weight`` and ``denoising_error`` [B]."""
        noised = policy.add_noise(batch.latents, batch.noise, batch.step)
        error = policy.noise(batch.cond, noised, batch.step, guided=self.guided) - batch.noise
        m = error.square().flatten(1).mean(1)
        weight = (batch.advantage / self.beta - 0.5 / self.beta**2).exp().clamp(max=self.max_weight)
        return (weight * m).mean(), {"weight": weight, "denoising_error": m.detach()}
