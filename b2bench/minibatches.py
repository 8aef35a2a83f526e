"""How many minibatches a round is dealt into: what is planned and counted without torch."""

from __future__ import annotations

import math


def trained_steps(steps: int, fraction: float) -> int:
    """Return how many of ``steps`` steps a rollout is trained on: ``fraction`` of them, rounded up."""
    return math.ceil(round(fraction * steps, 9))  # 0.35 * 20 is 7.000000000000001


def minibatch_count(items: int, width: float, *, transitions_per_step: int, optimizer_steps: int | None = None) -> int:
    """Return how many minibatches an epoch deals ``items`` into; an item is ``width`` transitions, two of a pair.

    As many as bring the transitions of one nearest to ``transitions_per_step``, and one at least; or
    ``optimizer_steps`` where it is given. Never more than there are items, and 0 for none.
    """
    wanted = optimizer_steps
    if wanted is None:
        wanted = max(1, math.floor(items * width / transitions_per_step + 0.5))
    return min(wanted, items)
