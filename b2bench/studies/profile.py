"""Where a reward is decided: leaves of branches that are made at several steps, and how far they differ.

A branch at tau is what branch-based sampling makes when it trains the last tau of T steps (see
``b2bench.rollout.rollout``): one trajectory of T - tau steps, then K leaves with noise of their own. At
tau = T the leaves share the prompt and the initial latent x_T, as under wrapper ``bs``, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from b2bench.evaluation.judges import checked_scores
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import Policy, Reward
from b2bench.rollout import Noise, rollout
from b2bench.seeding import generator, normal
from b2bench.types import Interval, micro_batches

# styles(images [N, 3, h, w]) -> class indices [N], int64
Styles = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leaves:
    """The leaves of B branches that were made with ``tau`` steps to go: rewards [B, K], float32; styles [B, K]."""

    tau: int
    prompts: tuple[str, ...]
    rewards: Tensor
    styles: Tensor | None


def pocket_styles(device: torch.device) -> Styles:
    """The style that pocket's classifier sees in an image: its most likely class."""
    from b2bench.pocket.judges import Classifier

    classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors", device)
    return lambda images: classifier(images.to(device))["style"].argmax(1)


def branch_noise(policy: Policy, seed: int, first: int, leaves: int, tau: int) -> Noise:
    """Noise of a rollout whose first row is leaf 0 of branch ``first``.

    Before the branch point it depends on (seed, branch, step), so that the branches of every tau leave the same
    trajectories: differences between tau are paired. After it, on (seed, branch, leaf, tau, step): no leaf
    repeats one of another tau.
    """

    def draw(rows: Sequence[int], step: int) -> Tensor:
        places = [(first + row // leaves, row % leaves) for row in rows]
        if step < policy.num_steps - tau:
            return normal(policy.latent_shape, seed, "profile-stem", [(branch, step) for branch, _ in places])
        return normal(policy.latent_shape, seed, "profile-leaf", [(*place, tau, step) for place in places])

    return draw


@torch.no_grad()
def sample_leaves(
    policy: Policy,
    reward: Reward,
    reward_name: str,
    prompts: Sequence[str],
    *,
    tau: int,
    branches: int,
    leaves: int,
    seed: int,
    micro_batch: int = 48,
    styles: Styles | None = None,
    progress: Callable[[int], None] = lambda queries: None,
) -> Leaves:
    """Sample ``branches`` branches of ``leaves`` leaves at ``tau`` and score every leaf: one reward query each.

    The prompts are drawn as a training round draws them, uniformly and with replacement, so branches are
    independent draws; the same ones at every tau of a seed. ``progress`` is told of queries as they are made.

    Raises:
        RunFailed: the reward answers with something else than finite numbers.
    """
    drawn = torch.randint(len(prompts), (branches,), generator=generator(seed, "profile-prompts"))
    names = [prompts[i] for i in drawn]
    rewards, classes = [], []
    for part in micro_batches(branches, max(1, micro_batch // leaves)):
        found = rollout(
            policy,
            names[part],
            samples=leaves,
            leaves=leaves,
            interval=Interval(policy.num_steps - tau, policy.num_steps),
            noise=branch_noise(policy, seed, part.start, leaves, tau),
            micro_batch=micro_batch,
        )
        rewards.append(checked_scores(reward(found.images, found.prompts), len(found), reward_name))
        if styles is not None:
            classes.append(styles(found.images).cpu())
        progress(len(found))
    return Leaves(
        tau=tau,
        prompts=tuple(names),
        rewards=torch.cat(rewards).reshape(branches, leaves),
        styles=torch.cat(classes).reshape(branches, leaves) if classes else None,
    )
