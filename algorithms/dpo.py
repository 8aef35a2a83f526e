"""DPO on denoising steps (D3PO, Yang et al. 2024): preference pairs instead of advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.search import Search
from b2bench.types import Pair, Transitions


@algorithm
class DPO:
    """L = -log sigmoid(beta (log rho_w - log rho_l)), rho = exp(log_prob - log_prob_ref), clamped.

    Winner w and loser l are the best and worst rollout of a comparison group at the same step, whatever the
    wrapper selects: selection would drop one side of a pair. So vanilla, too, trains on two rollouts of each
    group, and what bs changes is the prefix that a group shares. The reference is the pretrained model (adapter
    off). The clamp is |log rho| <= clip_nats / D, or where ``clip_nats`` is None 1 +- eps as in D3PO's code.
    Log-probabilities are means over D latent dimensions, so eps = 0.1 is a joint log-ratio of 0.1 D nats: 1,638
    at D = 16,384 and 102 at D = 1,024. By construction the loss stays within log(1 + exp(-+ beta width)), width
    the one of the clamp in log rho: watch accuracy and clamp fraction, not the loss.
    Differs from Diffusion-DPO (Wallace et al. 2024), which compares noise errors and needs no trajectory.
    """

    pairs: ClassVar[bool] = True
    family: ClassVar[str] = "preference"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "best against worst of a group",
        "importance ratio": "to the reference, clamped",
        "reference model": "adapter off",
        "source": "Yang et al. 2024 (D3PO)",
    }
    row_calls: ClassVar[tuple[int, int]] = (2, 2)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(1e-4, 1e-2, published=3e-5, source="D3PO code")}

    beta: Annotated[float, Gt(0)] = 0.1
    """Temperature of the preference model; log-probabilities are per dimension, so D scales it too"""
    eps: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Clamp of the ratio to the reference, per dimension, as in D3PO's code; clip_nats takes its place"""
    # Not beta: while margins are far below 1 it scales the gradient alone, which AdamW takes out.
    clip_nats: Annotated[float | None, Gt(0), Search(1, 100)] = 1.64
    """Clamp of the ratio to the reference as a joint log-ratio in nats, divided by the latent size D; none: eps"""

    def _range(self, policy: Policy) -> tuple[float, float]:
        """Return the least and the greatest log rho, in nats per dimension."""
        if self.clip_nats is None:
            return math.log1p(-self.eps), math.log1p(self.eps)
        return -self.clip_nats / policy.latent_size, self.clip_nats / policy.latent_size

    def _log_ratio(self, policy: Policy, rows: Transitions) -> tuple[Tensor, Tensor]:
        with policy.reference():
            reference = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
        log_prob = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
        return log_prob - reference, log_prob

    def loss(self, policy: Policy, batch: Pair) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over pairs; metrics ``log_ratio`` (to the behaviour policy), ``clipped``, ``accuracy``."""
        winner, winner_log_prob = self._log_ratio(policy, batch.winner)
        loser, loser_log_prob = self._log_ratio(policy, batch.loser)
        # log rho, clamped as a logarithm: the same value, and no overflow of exp whose gradient is nan.
        log_ratio = torch.cat([winner, loser])
        log_rho = log_ratio.clamp(*self._range(policy))
        log_rho_winner, log_rho_loser = log_rho.chunk(2)
        margin = self.beta * (log_rho_winner - log_rho_loser)
        behaviour = torch.cat([batch.winner.log_prob, batch.loser.log_prob])
        return -F.logsigmoid(margin).mean(), {
            "log_ratio": (torch.cat([winner_log_prob, loser_log_prob]) - behaviour).detach(),
            "clipped": (log_ratio != log_rho).float(),
            "accuracy": (winner > loser).float(),
        }
