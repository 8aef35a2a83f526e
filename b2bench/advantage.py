"""From scores to advantages and pairs: the same rule in every cell, so that cells differ in one thing."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Literal

import torch
from torch import Tensor

from b2bench.types import Trajectories


class PromptAdvantage:
    """Per-prompt z-score over this round and up to ``history`` earlier rounds of the same prompt.

    A = clip((r - mean) / (std + epsilon), +-clip), population std over the prompt's rewards of these rounds;
    with fewer than two of them the statistics of the whole round serve. epsilon = min(1e-8, 1e-5 std), so that
    an advantage changes by 1e-5 of itself at most if rewards are given in another unit. ``history`` counts the
    earlier rounds that drew the prompt.
    Source: B2-DiffuRL (arXiv 2503.11240), appendix D.1, and its public code. Differs from that code, whose
    standard deviation divides by n - 1, and whose history is the last 8 rounds, whether or not they drew the
    prompt; and from ddpo-pytorch, which buffers 16 or 32 rewards.
    """

    def __init__(self, history: int, clip: float) -> None:
        self.history = history
        self.clip = clip
        self._past: dict[str, deque[list[float]]] = defaultdict(lambda: deque(maxlen=history))

    def __call__(self, reward: Tensor, prompts: list[str], groups: Tensor | None = None) -> Tensor:
        """Return advantages [N] of rewards [N]; the round then joins the history. ``groups`` play no part."""
        reward = reward.double()
        drawn: dict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            drawn[prompt].append(row)
        advantage = torch.zeros_like(reward)
        for prompt, rows in drawn.items():
            now = reward[rows].tolist()
            past = [value for values in self._past.get(prompt, ()) for value in values]
            known = torch.tensor([*now, *past], dtype=torch.float64)
            if len(known) < 2:
                known = reward
            if known.min() < known.max():  # not std > 0: rounding gives equal rewards one, of some 1e-17
                std = known.std(correction=0)
                advantage[rows] = (reward[rows] - known.mean()) / (std + min(1e-8, 1e-5 * float(std)))
            if self.history:
                self._past[prompt].append(now)
        return advantage.clamp(-self.clip, self.clip).float()

    def state(self) -> dict[str, list[list[float]]]:
        """Return the history, for a checkpoint."""
        return {prompt: list(values) for prompt, values in self._past.items()}

    def load_state(self, state: dict[str, list[list[float]]]) -> None:
        self._past.clear()
        for prompt, values in state.items():
            self._past[prompt].extend(values)


class GroupAdvantage:
    """Advantage within the comparison group of a rollout: its prompt draw, or its branch. No history of the prompt.

    ``group``: A = (r - mean) / (std + epsilon), both over the K rewards of the group, population std (GRPO: Shao et
    al. 2024; for flow models Liu et al. 2025, arXiv 2505.05470). ``loo``: A = (r - mean of the other K - 1) / s
    (RLOO; LOOP, Gupta et al. 2025, arXiv 2503.00897). s is one number for all rollouts, the standard deviation of
    rewards within their groups over the latest ``groups`` groups: LOOP has none, and without it a threshold of a
    wrapper, and the weight of a KL, would depend on the unit of the reward. epsilon = min(1e-8, 1e-5 std). A group of
    one, or of equal rewards, has advantage 0. Advantages are clipped to +-``clip``.
    """

    def __init__(self, rule: Literal["group", "loo"], clip: float, groups: int) -> None:
        self.rule, self.clip = rule, clip
        self._spread: deque[list[float]] = deque(maxlen=groups)  # [sum of squares, rewards] of a group

    def __call__(self, reward: Tensor, prompts: list[str], groups: Tensor) -> Tensor:
        """Return advantages [N] of rewards [N] in ``groups`` [N]."""
        reward = reward.double()
        centred, std = torch.zeros_like(reward), torch.zeros_like(reward)
        for group in groups.unique():
            rows = groups == group
            here, n = reward[rows], int(rows.sum())
            if here.min() == here.max():
                self._spread.append([0.0, float(n)])
                continue
            centred[rows], std[rows] = here - here.mean(), here.std(correction=0)
            self._spread.append([float(centred[rows].square().sum()), float(n)])
            if self.rule == "loo":
                centred[rows] *= n / (n - 1)  # r - mean of the others
        if self.rule == "loo":
            squares, rewards = (sum(kind) for kind in zip(*self._spread, strict=True))
            std.fill_((squares / rewards) ** 0.5)
        advantage = centred / (std + (1e-5 * std).clamp(max=1e-8)).where(std > 0, 1.0)
        return advantage.clamp(-self.clip, self.clip).float()

    def state(self) -> dict[str, list[list[float]]]:
        """Return the spread of the latest groups, for a checkpoint."""
        return {"spread": [list(values) for values in self._spread]}

    def load_state(self, state: dict[str, list[list[float]]]) -> None:
        self._spread.clear()
        self._spread.extend(list(values) for values in state["spread"])


def advantage_rule(rule: str, *, history: int, clip: float, draws: int) -> PromptAdvantage | GroupAdvantage:
    """Return the rule of setting ``advantage``; ``draws`` are the prompt draws of a round."""
    if rule == "history":
        return PromptAdvantage(history, clip)
    assert rule in ("group", "loo")
    return GroupAdvantage("group" if rule == "group" else "loo", clip, (history + 1) * draws)


def best_and_worst(trajectories: Trajectories) -> tuple[Tensor, Tensor]:
    """Return rows of the best and the worst rollout of each comparison group, [n] each; ties are skipped.

    The wrapper's selection thresholds play no part: they would drop one side of a pair.
    """
    reward = trajectories.reward
    assert reward is not None
    best, worst = [], []
    for group in trajectories.group.unique():
        rows = (trajectories.group == group).nonzero().squeeze(1)
        high, low = rows[reward[rows].argmax()], rows[reward[rows].argmin()]
        if reward[high] > reward[low]:
            best.append(int(high))
            worst.append(int(low))
    return torch.tensor(best, dtype=torch.long), torch.tensor(worst, dtype=torch.long)
