"""From scores to advantages and pairs: the same rule in every cell, so that cells differ in one thing."""

from __future__ import annotations

from collections import defaultdict, deque

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

    def __call__(self, reward: Tensor, prompts: list[str]) -> Tensor:
        """Return advantages [N] of rewards [N]; the round then joins the history."""
        reward = reward.double()
        groups: dict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            groups[prompt].append(row)
        advantage = torch.zeros_like(reward)
        for prompt, rows in groups.items():
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
