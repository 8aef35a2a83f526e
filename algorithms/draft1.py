"""DRaFT-1: the reward's own gradient through the last denoising step (Clark et al. 2024). An upper reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from b2bench.protocols import Policy, Wrapper
from b2bench.registry import algorithm, key_of
from b2bench.search import Search
from b2bench.types import LastSteps


@algorithm
class DRaFT1:
    """L = -mean(r(decode(x_0), prompt)), x_0 = mean_theta(x_1) + sigma z, with a gradient through mean_theta alone.

    The image is followed from the reward back through the decoder and the last denoising step to the adapter. x_1
    and the noise z are those of the rollout, without gradient (K = 1 of the paper's K last steps). No advantage, no
    ratio, no likelihood. A query tells the others one number, and this one a number for each pixel: so it says what
    there is to be had, stands outside of the ranking, and cannot be had of a reward without gradient. It samples anew
    before each optimizer step, because a reward at another image than the one that was counted would be a query too.
    The last step has the sampler's noise, whatever the paper's sampler has (not checked), and a step's minibatch is one
    prompt draw. Values that the decoder gives beyond [0, 1] are cut off and have no gradient.
    Source: Clark et al. 2024 (arXiv 2309.17400), DRaFT-K at K = 1.
    """

    key: ClassVar[str] = "draft1"
    pairs: ClassVar[bool] = False
    reward_gradient: ClassVar[bool] = True
    upper_reference: ClassVar[str] = "it follows the reward's gradient, and the others its value"
    family: ClassVar[str] = "reward gradient"
    queries: ClassVar[str] = "1, with its gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "the reward's gradient",
        "importance ratio": "none (on-policy)",
        "reference model": "none",
        "source": "Clark et al. 2024",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 0)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-3, "updates_per_round": 1}
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(1e-4, 1e-2)}

    def refuses(self, wrapper: Wrapper) -> str | None:
        """Say that there is nothing for another wrapper than vanilla to choose or to weigh."""
        if key_of(type(wrapper)) == "vanilla":
            return None
        return "it trains the last step of every rollout, by the reward's gradient; try vanilla"

    def loss(self, policy: Policy, batch: LastSteps) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Minus the mean reward of the images; metric ``reward`` [B], of the images that were followed."""
        mean = policy.transition(batch.cond, batch.latents, batch.step).mean
        final = batch.next_latents + (mean - mean.detach())  # the rollout's own x_0, noise included
        reward = batch.judge(policy.decode(final), batch.prompts)
        return -reward.mean(), {"reward": reward.detach()}
