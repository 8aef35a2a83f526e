"""RAFT: fine-tune on the best of each group, as on any data (Dong et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from b2bench.protocols import Policy
from b2bench.registry import algorithm
from b2bench.types import FinalPair


@algorithm
class RAFT:
    """L = mean(m_w), m_w = |e_theta(x_t) - e|^2 / D of the best rollout of a comparison group.

    Nothing is learned from the others of the group, so nothing is pushed away. The group is the wrapper's: a prompt
    draw, or a branch. Whatever else a wrapper selects plays no part. Differs from RAFT's own code, which generates a
    data set of the best images and trains on it for several epochs: here it is a round's. A step takes as many pairs
    as that of other algorithms on pairs, of which the worse halves go unused: half of the rows that others train on.
    Source: Dong et al. 2023 (arXiv 2304.06767).
    """

    pairs: ClassVar[bool] = True
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "weighted regression"
    queries: ClassVar[str] = "K"
    properties: ClassVar[Mapping[str, str]] = {
        "learns from": "best of a group",
        "importance ratio": "none",
        "reference model": "none",
        "source": "Dong et al. 2023",
    }
    row_calls: ClassVar[tuple[int, int]] = (1, 0)
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-4}

    def loss(self, policy: Policy, batch: FinalPair) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean of m over the winners; metric ``denoising_error`` [B]."""
        best = batch.winner
        noised = policy.add_noise(best.latents, best.noise, best.step)
        m = (policy.noise(best.cond, noised, best.step, guided=False) - best.noise).square().flatten(1).mean(1)
        return m.mean(), {"denoising_error": m.detach()}
