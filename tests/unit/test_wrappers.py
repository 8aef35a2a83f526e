"""The four wrappers and two controls: which steps they train, where they branch, and what reaches the loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from b2bench.leaderboard.cells import CONTROLS, WRAPPERS

from b2bench.advantage import PromptAdvantage
from b2bench.errors import UserError
from b2bench.hyperparameters import build
from b2bench.registry import Registry
from b2bench.seeding import generator
from b2bench.types import Interval, Trajectories
from b2bench.update import update
from b2bench.wrappers import B2, BPT, BS, Random2, Spread, Vanilla, selected

Scored = Callable[..., Trajectories]


@pytest.mark.parametrize("wrapper", [BPT(), B2()])
def test_the_schedule_is_the_published_one(wrapper: Any) -> None:
    found = [wrapper.interval(i, 100, 20) for i in range(100)]
    taus = [14 + 7 * i // 100 for i in range(100)]  # B2-DiffuRL's code
    assert found == [Interval(20 - tau, 20) for tau in taus]
    assert [i for i in range(1, 100) if len(found[i]) > len(found[i - 1])] == [15, 29, 43, 58, 72, 86]


@pytest.mark.parametrize("steps", [5, 20, 50])
@pytest.mark.parametrize("rounds", [7, 14, 100, 128])
def test_all_steps_are_trained_in_the_last_seventh_and_not_before(rounds: int, steps: int) -> None:
    found = [BPT().interval(i, rounds, steps) for i in range(rounds)]
    assert all(interval.stop == steps for interval in found)
    assert all(found[i] == Interval(0, steps) for i in range(rounds) if 7 * i >= 6 * rounds)
    assert all(len(found[i]) < steps for i in range(rounds) if 7 * i < 6 * rounds)
    assert len(found[0]) == int(0.7 * steps + 1e-9)
    assert [len(interval) for interval in found] == sorted(len(interval) for interval in found)


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_few_rounds_start_at_the_last_steps_and_never_leave_the_trajectory(rounds: int) -> None:
    taus = [len(BPT().interval(i, rounds, 20)) for i in range(rounds)]
    assert taus[0] == 14
    assert taus == sorted(taus)
    assert taus[-1] <= 20


@pytest.mark.parametrize("wrapper", [Vanilla(), BS()])
def test_without_bpt_all_steps_are_trained(wrapper: Any) -> None:
    assert {wrapper.interval(i, 9, 20) for i in range(9)} == {Interval(0, 20)}


def test_a_schedule_of_one_part_stays_as_it_starts_and_says_nothing() -> None:
    once = BPT(rises=1)
    assert {once.interval(i, 10, 20) for i in range(10)} == {Interval(6, 20)}
    assert once.notice(10, 20) is None
    assert "tau never reaches T" in str(BPT(rises=7).notice(5, 20))


def test_leaves() -> None:
    assert [wrapper().leaves(5) for wrapper in (Vanilla, BPT, BS, B2)] == [1, 1, 5, 5]


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01])
def test_a_share_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"tau_start = .* is outside \(0, 1\]"):
        build(BPT, {"tau_start": value})
    with pytest.raises(UserError, match="rises = 0 is below 1"):
        build(BPT, {"rises": 0})


@pytest.mark.parametrize("wrapper", [Vanilla(), BPT(), BS(keep="all"), B2(keep="all")])
def test_without_selection_everything_is_kept(wrapper: Any, scored: Scored) -> None:
    assert wrapper.select(scored([0.0, 0.0, 1.0], [0, 0, 1])).tolist() == [True, True, True]


@pytest.mark.parametrize("wrapper", [BS(), B2()])
@pytest.mark.parametrize(
    ("advantage", "kept"),
    [
        ([0.1, 2.0, -2.0, 1.9], [1, 2]),  # both extremes, nothing between them however extreme
        ([0.5, -0.5, 0.0, 0.1], [0]),  # +0.5 is enough, -0.5 is not
        ([0.49, -0.51, 0.0, 0.1], [1]),
        ([0.49, -0.5, 0.0, 0.1], []),
        ([3.0, 0.6, 1.0, 2.0], [0]),  # a branch that is good throughout: its worst leaf is not bad
        ([-3.0, -0.6, -1.0, -2.0], [0]),
    ],
)
def test_thresholds(wrapper: Any, advantage: list[float], kept: list[int], scored: Scored) -> None:
    assert wrapper.select(scored(advantage, [0] * 4)).nonzero().flatten().tolist() == kept


def test_thresholds_are_on_the_advantage_extremes_on_the_reward(scored: Scored) -> None:
    trajectories = scored([5.0, 6.0, 7.0], [0, 0, 0], advantage=[-0.6, 0.0, 0.6])
    assert BS().select(trajectories).tolist() == [True, False, True]
    assert BS(best=0.7, worst=-0.7).select(trajectories).tolist() == [False, False, False]
    assert BS(best=0.0, worst=-0.6).select(trajectories).tolist() == [False, False, True]


def test_each_branch_for_itself_gives_none_one_or_two(scored: Scored) -> None:
    rewards = [1.0, -1.0, 0.0, 0.1, 0.2, 0.0, 0.9, 0.8, 0.7]
    kept = BS().select(scored(rewards, [0, 0, 0, 1, 1, 1, 2, 2, 2]))
    assert kept.reshape(3, 3).sum(1).tolist() == [2, 0, 1]
    assert kept.nonzero().flatten().tolist() == [0, 1, 6]


def test_ties(scored: Scored) -> None:
    assert BS().select(scored([0.0] * 3, [0] * 3)).sum() == 0
    # Equal leaves of a branch far from the prompt's mean: one of them stands for the branch.
    assert BS().select(scored([2.0] * 3, [0] * 3)).sum() == 1
    assert BS().select(scored([2.0, 2.0, -2.0, -2.0], [0] * 4)).sum() == 2


@pytest.mark.parametrize("wrapper", [BPT, B2, Random2])
def test_too_few_rounds_for_the_schedule_are_said(wrapper: type[B2]) -> None:
    for rounds in range(1, 30):
        reached = wrapper().interval(rounds - 1, rounds, 20) == Interval(0, 20)
        assert reached == (rounds >= 7) == (wrapper().notice(rounds, 20) is None)
    text = wrapper().notice(6, 20) or ""
    assert "the last of 6 rounds trains 19 of 20 steps; try at least 7 rounds" in text
    assert wrapper(tau_start=1.0).notice(1, 20) is None
    assert wrapper(schedule_rounds=100).notice(1, 20) is None  # as asked for


def test_the_first_draw_of_a_prompt_keeps_all_extremes(scored: Scored) -> None:
    """What the docstring says: with five rewards the thresholds of the public code hold nothing back."""
    for round in range(20):
        n, draw = 240, generator(0, "heavy tails", round)
        rewards = torch.randn(n, generator=draw) ** 3
        prompts = [str(i // 5) for i in range(n)]
        found = scored(rewards.tolist(), [i // 5 for i in range(n)])
        found.advantage = PromptAdvantage(8, 5.0)(rewards, prompts)
        assert B2().select(found).sum() == 2 * n // 5


def test_a_longer_schedule_is_done_in_part() -> None:
    for rounds in (1, 20, 100):
        whole = [B2().interval(i, 100, 20) for i in range(rounds)]
        assert [B2(schedule_rounds=100).interval(i, rounds, 20) for i in range(rounds)] == whole
    assert B2(schedule_rounds=3).interval(90, 100, 20) == Interval(0, 20)  # beyond its end it stays at T
    with pytest.raises(UserError, match="schedule_rounds = 0 is below 1"):
        build(B2, {"schedule_rounds": 0})


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True])
def test_nothing_kept_is_a_round_without_a_step(
    pairs: bool, make_policy: Any, roll: Any, adapter_vector: Any, algorithm: Any
) -> None:
    policy = make_policy(num_steps=2)
    trajectories = roll(policy, draws=2, samples=2, leaves=2, reward=[0.5] * 4)
    before = adapter_vector(policy)
    report = update(
        policy,
        algorithm("dpo" if pairs else "ddpo"),
        torch.optim.SGD(policy.parameters(), lr=1.0),
        trajectories,
        BS().select(trajectories),
        optimizer_steps=3,
        micro_batch=8,
        max_grad_norm=1.0,
        generator=torch.Generator(),
    )
    assert report.optimizer_steps == 0
    assert report.kept.tolist() == [False] * 4
    assert torch.equal(adapter_vector(policy), before)


# -- controls ----------------------------------------------------------------------------------------------


def made_up(scored: Scored, round: int, draws: int = 48, samples: int = 5) -> Trajectories:
    n = draws * samples
    rewards = torch.randn(n, generator=generator(0, "made up", round))
    return scored(rewards.tolist(), [i // samples for i in range(n)])


def test_random2_keeps_as_many_as_b2_would_and_others(scored: Scored) -> None:
    for round in range(5):
        found, rule = made_up(scored, round), B2(best=0.3, worst=-0.7)
        kept = selected(Random2(best=0.3, worst=-0.7), found, generator(0, "selection", round))
        assert kept.sum() == rule.select(found).sum() > 0
        assert not torch.equal(kept, rule.select(found))
    assert selected(Random2(keep="all"), found, generator(0, "selection", 0)).all()


def test_what_random2_chooses_depends_on_seed_and_round_alone(scored: Scored) -> None:
    def kept(rewards: int, seed: int, round: int, **values: float) -> set[int]:
        found = selected(Random2(**values), made_up(scored, rewards), generator(seed, "selection", round))
        return set(found.nonzero().flatten().tolist())

    assert kept(0, 0, 0) == kept(0, 0, 0)
    one, other = sorted((kept(0, 0, 0), kept(1, 0, 0)), key=len)  # other rewards: only how many are kept differs
    assert one <= other
    assert kept(0, 0, 0, best=2.0) < kept(0, 0, 0)
    assert len({frozenset(kept(0, seed, round)) for seed in (0, 1) for round in (0, 1)}) == 4


def test_random2_branches_and_trains_as_b2_and_spread_selects_as_bs_without_branching(scored: Scored) -> None:
    assert (Random2().leaves(5), Spread().leaves(5)) == (5, 1)
    assert [Random2().interval(i, 10, 20) for i in range(10)] == [B2().interval(i, 10, 20) for i in range(10)]
    assert Spread().interval(0, 10, 20) == Interval(0, 20)
    found = made_up(scored, 0)
    assert torch.equal(Spread().select(found), BS().select(found))
    assert 0 < Spread().select(found).sum() < len(found)
    with pytest.raises(ValueError, match="generator"):
        Random2().select(found)


def test_a_select_that_takes_no_generator_goes_on_working(scored: Scored) -> None:
    class Old:
        def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
            return Interval(0, num_steps)

        def leaves(self, samples: int) -> int:
            return 1

        def select(self, trajectories: Trajectories) -> torch.Tensor:
            return torch.ones(len(trajectories), dtype=torch.bool)

    assert selected(Old(), made_up(scored, 0), generator(0, "selection")).all()


def test_a_report_knows_the_controls() -> None:
    registry = Registry("wrapper")
    controls = [name for name in registry.names() if getattr(registry.get(name), "control", "")]
    assert sorted(controls) == sorted(CONTROLS)
    assert sorted(WRAPPERS) == sorted(set(registry.names()) - set(controls))
