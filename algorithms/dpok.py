"""DPOK: policy gradient with a KL penalty to the pretrained model (Fan et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from b2bench.protocols import Policy, Wrapper
from b2bench.registry import algorithm
from b2bench.search import Search
from b2bench.types import Transitions


@algorithm
class DPOK:
    """L = -reward_weight mean(A clamp(ratio, 1 - eps, 1 + eps)) + kl_weight mean(KL to pretrained).

    A plain clamp, not PPO's maximum, as in the published code. ``kl``: "gaussian" is the exact KL between
    the two transitions, |mean - mean_ref|^2 / (2 sigma^2) per dimension; "eps_mse" is the published code's
    stand-in, the squared difference of the guided noise predictions, the same weight at every step.
    A is the harness's advantage, or reward - V(x, text, k) with ``value_net``, as published.

    The price of KL: log-probabilities and KL are means over D alike, so with "gaussian" a nat of a transition's KL
    costs kl_weight / reward_weight standard deviations of advantage, whatever D is (units of the reward with
    ``value_net``). "eps_mse" is KL / r_k, r_k =
    0.07 to 0.52 at 49 of 50 steps and 5.4 at one, so the published weights, reward 10 and KL 0.01 (one prompt),
    cost 0.0105 a nat in the mean over steps; 1000 and 0.1 (many prompts) a tenth of it. The default costs 0.01, that of
    one prompt: of 0.01, 0.03 and 0.1 it gains most on pocket's training prompts (docs/pocket.md).

    Differs from DPOK's code: with ``value_net`` the value takes a step with each of the policy's, on the same
    transitions and with the same weight decay, there one step on five batches of 256 transitions before the policy's
    five; transitions are of this round, there of a replay buffer of 1,000. Differs from the re-write in d3po, whose
    categorical "KL" over the minibatch is zero at its default batch of 1.
    """

    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "advantage (or reward - V)",
        "importance ratio": "clamped",
        "reference model": "KL to adapter off",
        "source": "Fan et al. 2023",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 1)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(1e-4, 1e-2, published=1e-5, source="DPOK code")}

    reward_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the policy gradient"""
    kl_weight: Annotated[float, Ge(0), Search(1e-3, 1, published=0.01, source="DPOK code, one prompt")] = 0.01
    """Weight of the KL to the pretrained model; gaussian, reward_weight 1: standard deviations of advantage a nat"""
    kl: Literal["gaussian", "eps_mse"] = "gaussian"
    """Exact Gaussian KL of the transition, or the published code's squared noise difference"""
    clip_nats: Annotated[float, Gt(0)] = 1.64
    """Clip range of the ratio as a joint log-ratio in nats; divided by the latent size D"""
    value_net: bool = False
    """Learn V(x, text, step) and use reward - V as the advantage"""
    value_lr: Annotated[float, Gt(0)] = 1e-4
    """Learning rate of the value network"""
    value: Any = field(default=None, init=False, repr=False, compare=False)

    def refuses(self, wrapper: Wrapper) -> str | None:
        """Say that a wrapper which weighs or averages the harness's advantage does not reach reward - V."""
        if self.value_net and (hasattr(wrapper, "step_weights") or hasattr(wrapper, "edges")):
            return "with value_net its advantage is reward - V, which the wrapper does not weigh; try value_net=false"
        return None

    def setup(self, policy: Policy, generator: torch.Generator) -> None:
        """Make the value network, if it is wanted."""
        if self.value_net:
            cond = policy.encode([""])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator.initial_seed())
                from b2bench.value_net import ValueNet

                self.value = ValueNet(policy.latent_size, cond.table.shape[-1], policy.num_steps)
            self.value.to(cond.table.device)

    def networks(self) -> Iterable[tuple[nn.Module, float]]:
        """Return the networks that are trained besides the adapter, each with its learning rate."""
        return [(self.value, self.value_lr)] if self.value is not None else []

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over transitions; metrics ``log_ratio``, ``clipped`` and ``kl`` [B]."""
        noise = policy.noise(batch.cond, batch.latents, batch.step)
        gaussian = policy.denoise(noise, batch.latents, batch.step)
        with policy.reference():
            noise_ref = policy.noise(batch.cond, batch.latents, batch.step)
        if self.kl == "gaussian":
            kl = gaussian.kl(policy.denoise(noise_ref, batch.latents, batch.step))
        else:
            kl = (noise - noise_ref).square().flatten(1).mean(1)
        advantage, value_loss = batch.advantage, torch.zeros((), device=kl.device)
        if self.value is not None:
            value = self.value(batch.cond, batch.latents, batch.step)
            advantage = batch.reward - value.detach()
            value_loss = F.mse_loss(value, batch.reward)
        log_ratio = gaussian.log_prob(batch.next_latents) - batch.log_prob
        ratio = log_ratio.exp()
        eps = self.clip_nats / policy.latent_size
        inside = ratio.clamp(1 - eps, 1 + eps)
        loss = -self.reward_weight * (advantage * inside).mean() + self.kl_weight * kl.mean() + value_loss
        return loss, {
            "log_ratio": log_ratio.detach(),
            "clipped": (ratio != inside).float(),
            "kl": kl.detach(),
            "value_loss": value_loss.detach(),
        }
