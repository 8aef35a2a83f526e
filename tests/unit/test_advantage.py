"""Advantages against numpy, and the pairs that preference algorithms learn from."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from b2bench.advantage import GroupAdvantage, PromptAdvantage, advantage_rule, best_and_worst
from b2bench.types import Pair, Trajectories
from b2bench.update import update
from b2bench.wrappers import BS

Scored = Callable[..., Trajectories]


@pytest.mark.parametrize("history", [0, 1, 8])
def test_z_score_over_this_round_and_the_earlier_ones_of_the_prompt(history: int) -> None:
    draws = np.random.default_rng(0)
    ours, seen = PromptAdvantage(history, clip=100.0), defaultdict(list)
    reached = 0
    for _ in range(24):
        prompts = [str(p) for p in draws.choice(["a", "b", "c"], size=2) for _ in range(4)]
        rewards = draws.normal(draws.uniform(-5, 5), 1.0, size=8).astype(np.float32)
        found = ours(torch.tensor(rewards), prompts)
        for prompt in set(prompts):
            rows = [i for i, p in enumerate(prompts) if p == prompt]
            earlier = seen[prompt][max(0, len(seen[prompt]) - history) :] if history else []
            reached = max(reached, len(seen[prompt]))
            known = np.concatenate([rewards[rows], *earlier]).astype(np.float64)
            expected = (rewards[rows] - known.mean()) / known.std()
            np.testing.assert_allclose(found[rows].numpy(), expected, rtol=1e-5, atol=1e-6)
            seen[prompt].append(rewards[rows])
    assert reached > 8  # a prompt's oldest rounds slid out of a history of 8


def test_a_prompt_with_one_reward_takes_the_statistics_of_the_round() -> None:
    rewards = np.array([1.0, 2.0, 3.0, 10.0])
    found = PromptAdvantage(8, 5.0)(torch.tensor(rewards), ["a", "a", "a", "alone"])
    np.testing.assert_allclose(found[3].item(), (10 - rewards.mean()) / rewards.std(), rtol=1e-6)
    np.testing.assert_allclose(found[:3].numpy(), np.array([-1, 0, 1]) / np.std([1, 2, 3]), rtol=1e-6, atol=1e-7)


def test_with_a_history_one_reward_is_enough() -> None:
    ours = PromptAdvantage(8, 5.0)
    ours(torch.tensor([1.0, 3.0]), ["a", "a"])
    known = np.array([1.0, 3.0, 5.0])
    assert ours(torch.tensor([5.0, 0.0]), ["a", "b"])[0] == pytest.approx((5 - known.mean()) / known.std())


def test_a_single_image_has_no_advantage() -> None:
    assert PromptAdvantage(8, 5.0)(torch.tensor([3.0]), ["a"]).tolist() == [0.0]


def test_equal_rewards_have_no_advantage() -> None:
    ours = PromptAdvantage(8, 5.0)
    for _ in range(3):
        found = ours(torch.tensor([0.1] * 3 + [0.7] * 2), ["a"] * 3 + ["b"] * 2)
        assert found.tolist() == [0.0] * 5  # not nan


@pytest.mark.parametrize("unit", [1e-20, 1e-9, 1e-6, 1e6])
def test_advantages_do_not_depend_on_the_unit_of_the_reward(unit: float) -> None:
    rewards, prompts = torch.rand(12, generator=torch.Generator().manual_seed(0)), ["a", "b"] * 6
    plain, other = PromptAdvantage(8, 5.0)(rewards, prompts), PromptAdvantage(8, 5.0)(rewards * unit, prompts)
    np.testing.assert_allclose(other, plain, rtol=2e-5)
    assert plain.abs().min() > 0.01


def test_equal_rewards_whose_mean_rounds_have_no_advantage() -> None:
    equal = torch.tensor([0.1] * 11)
    known = equal.double()
    assert PromptAdvantage(8, 5.0)(equal, ["a"] * 11).tolist() == [0.0] * 11
    assert PromptAdvantage(8, 5.0)(known + 1e-12 * torch.arange(11), ["a"] * 11).abs().max() > 1  # next to equal


def test_advantages_are_clipped_on_both_sides() -> None:
    rewards = torch.tensor([0.0] * 99 + [1.0])
    assert PromptAdvantage(0, 5.0)(rewards, ["a"] * 100).max() == 5.0  # sqrt(99) without
    assert PromptAdvantage(0, 5.0)(-rewards, ["a"] * 100).min() == -5.0
    assert PromptAdvantage(0, 20.0)(rewards, ["a"] * 100).max() == pytest.approx(99**0.5, rel=1e-5)


def test_the_history_survives_a_checkpoint() -> None:
    draws = torch.Generator().manual_seed(0)
    ours, other = PromptAdvantage(2, 5.0), PromptAdvantage(2, 5.0)
    for _ in range(4):
        ours(torch.randn(4, generator=draws), ["a", "a", "b", "b"])
    other(torch.ones(1), ["stale"])
    other.load_state(ours.state())
    for _ in range(3):
        rewards = torch.randn(5, generator=draws)
        prompts = ["a", "a", "b", "b", "stale"]
        assert torch.equal(ours(rewards, prompts), other(rewards, prompts))


def rounds_of(sizes: list[int], count: int) -> list[tuple[np.ndarray, list[int]]]:
    """Rewards of groups of these sizes, whose means differ more than rewards within a group."""
    draws = np.random.default_rng(0)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [(draws.normal(5 * draws.normal(size=len(sizes))[groups], 1.0), groups) for _ in range(count)]


def test_group_advantages_are_z_scores_within_the_group() -> None:
    ours = GroupAdvantage("group", 100.0, 9)
    for rewards, groups in rounds_of([5, 5, 2, 1], 3):
        found = ours(torch.tensor(rewards), ["one prompt"] * 13, torch.tensor(groups)).numpy()
        for group in range(3):
            rows = [i for i, g in enumerate(groups) if g == group]
            np.testing.assert_allclose(
                found[rows], (rewards[rows] - rewards[rows].mean()) / rewards[rows].std(), rtol=1e-5
            )
        assert found[12] == 0  # alone in its group


def test_leave_one_out_advantages_are_against_the_others_in_one_unit_for_all() -> None:
    reach = 5  # groups: those of the latest round, and the last of the one before
    ours, seen = GroupAdvantage("loo", 100.0, reach), []
    for rewards, groups in rounds_of([5, 5, 3, 2], 4):
        found = ours(torch.tensor(rewards), [""] * 15, torch.tensor(groups)).numpy()
        expected = np.zeros(15)
        for group in range(4):
            rows = [i for i, g in enumerate(groups) if g == group]
            seen.append(rewards[rows] - rewards[rows].mean())
            for i in rows:
                expected[i] = rewards[i] - np.mean([rewards[j] for j in rows if j != i])
        latest = np.concatenate(seen[-reach:])
        np.testing.assert_allclose(found, expected / np.sqrt((latest**2).mean()), rtol=1e-5)


@pytest.mark.parametrize("rule", ["group", "loo"])
def test_group_advantages_do_not_depend_on_the_unit_of_a_reward_and_are_clipped(rule: Any) -> None:
    rewards, groups = rounds_of([5, 5, 4], 1)[0]
    plain, other = (GroupAdvantage(rule, 1.0, 9) for _ in range(2))
    found = plain(torch.tensor(rewards), [""] * 14, torch.tensor(groups))
    assert float(found.max()) == 1.0
    same = other(torch.tensor(1e-9 * rewards), [""] * 14, torch.tensor(groups))
    np.testing.assert_allclose(same.numpy(), found.numpy(), rtol=1e-4)
    equal = GroupAdvantage(rule, 1.0, 9)(torch.full((4,), 0.1), [""] * 4, torch.tensor([0, 0, 1, 1]))
    assert equal.tolist() == [0.0] * 4


def test_the_spread_of_groups_survives_a_checkpoint() -> None:
    ours, other = (GroupAdvantage("loo", 5.0, 6) for _ in range(2))
    *before, (rewards, groups) = rounds_of([5, 5], 5)
    for earlier, named in before:
        ours(torch.tensor(earlier), [""] * 10, torch.tensor(named))
    other.load_state(ours.state())
    given = torch.tensor(rewards), [""] * 10, torch.tensor(groups)
    assert torch.equal(ours(*given), other(*given))


def test_the_rule_is_the_setting() -> None:
    usual = {"history": 8, "clip": 5.0, "draws": 48}
    assert isinstance(advantage_rule("history", **usual), PromptAdvantage)
    assert [advantage_rule(rule, **usual).rule for rule in ("group", "loo")] == ["group", "loo"]  # type: ignore[union-attr]


def test_pairs_are_best_and_worst_of_each_group_and_ties_are_skipped(scored: Scored) -> None:
    rewards = [0.2, 0.9, 0.1, 0.5, 0.5, 0.5, -1.0, -3.0, -2.0, 0.7]
    best, worst = best_and_worst(scored(rewards, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]))
    assert best.tolist() == [1, 6]
    assert worst.tolist() == [2, 7]


def test_thresholds_play_no_part_in_pairs(scored: Scored) -> None:
    trajectories = scored([0.1, 0.2, 5.1, 5.2], [0, 0, 1, 1], advantage=[0.0, 0.1, 4.0, 4.1])
    assert BS().select(trajectories).tolist() == [False, False, False, True]
    best, worst = best_and_worst(trajectories)
    assert (best.tolist(), worst.tolist()) == ([1, 3], [0, 2])


def test_no_pair_at_all(scored: Scored) -> None:
    best, worst = best_and_worst(scored([1.0, 1.0], [0, 0]))
    assert (best.tolist(), worst.tolist()) == ([], [])


class Probe:
    """An algorithm on pairs that notes what it is given."""

    pairs: ClassVar[bool] = True

    def __init__(self) -> None:
        self.seen: list[Pair] = []

    def loss(self, policy: Any, batch: Pair) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.seen.append(batch)
        return sum(p.sum() for p in policy.parameters()), {}


def test_under_bs_a_pair_is_best_and_worst_leaf_of_one_branch(make_policy: Any, roll: Any) -> None:
    """What the loss sees, of trajectories that were branched: pairs of one branch, at one step."""
    policy = make_policy(num_steps=3)
    rewards = [0.3, 0.1, 0.2, 7.0, 7.0, 7.0, 0.4, 0.6, 0.5]  # the second branch is a tie
    trajectories = roll(policy, draws=3, samples=3, leaves=BS().leaves(3), reward=rewards)
    trajectories.advantage = torch.zeros(9)  # below every threshold
    probe = Probe()
    report = update(
        policy,
        probe,
        torch.optim.SGD(policy.parameters(), lr=0.0),
        trajectories,
        BS().select(trajectories),
        optimizer_steps=2,
        micro_batch=2,
        max_grad_norm=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert report.kept.nonzero().flatten().tolist() == [0, 1, 6, 7]
    items = []
    for pair in probe.seen:
        assert torch.equal(pair.winner.step, pair.loser.step)
        assert torch.equal(pair.winner.cond.index, pair.loser.cond.index)
        for i, (k, high, low) in enumerate(
            zip(pair.winner.step.tolist(), pair.winner.reward.tolist(), pair.loser.reward.tolist(), strict=True)
        ):
            items.append((k, round(high, 4), round(low, 4)))
            # The leaves of a branch of BS share x_T, and nothing after it.
            assert torch.equal(pair.winner.latents[i], pair.loser.latents[i]) == (k == 0)
            assert not torch.equal(pair.winner.next_latents[i], pair.loser.next_latents[i])
    expected = [(k, high, low) for k in range(3) for high, low in ((0.3, 0.1), (0.6, 0.4))]
    assert sorted(items) == sorted(expected)
