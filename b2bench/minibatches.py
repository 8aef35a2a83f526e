"""How many minibatches a round is dealt into: what is planned and counted without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


def tree_share(algorithm: object, edges: Tensor) -> float:
    """Return how many of the (rollout, step) of a tree are trained on: [K, S] ``edges`` of one draw, all leaves kept.

    A step of an edge is one transition, whatever leaves it leads to; final latents are of each leaf.
    """
    if getattr(algorithm, "finals", False):
        return 1.0
    return sum(int((of_leaf == leaf).sum()) for leaf, of_leaf in enumerate(edges)) / edges.numel()
