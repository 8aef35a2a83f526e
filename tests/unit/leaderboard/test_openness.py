"""Shares of variance by branch: against loops, numbers worked out by hand, and simulations with known truth."""

import itertools
import math

import numpy as np
import pytest
from b2bench.leaderboard.openness import default_taus, openness

from b2bench.leaderboard import openness as module

RANDOM = np.random.default_rng(0)
REWARDS = 100 + RANDOM.normal(size=(7, 1)) + 0.5 * RANDOM.normal(size=(7, 4))
STYLES = RANDOM.integers(3, size=(7, 4))


def slowly(rewards: list[list[float]], styles: list[list[int]]) -> dict[str, float]:
    """The definitions, written out with loops."""

    def variance(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / (len(values) - 1)

    branches, leaves = len(rewards), len(rewards[0])
    within = sum(map(variance, rewards)) / branches
    between = variance([sum(leaf) / leaves for leaf in rewards]) - within / leaves
    pairs = [[a == b for a, b in itertools.combinations(branch, 2)] for branch in styles]
    return {
        "open_share": min(1, within / (within + between)),
        "within_sd": within**0.5,
        "total_sd": (within + between) ** 0.5,
        "range": sum(max(branch) - min(branch) for branch in rewards) / branches,
        "same_style": sum(sum(pair) / len(pair) for pair in pairs) / branches,
    }


def test_the_measures_are_their_definitions() -> None:
    found = openness(REWARDS, STYLES)
    expected = slowly(REWARDS.tolist(), STYLES.tolist())
    assert list(found) == ["open_share", "within_sd", "total_sd", "range", "same_style"]
    assert {name: measure.value for name, measure in found.items()} == pytest.approx(expected, rel=1e-9)


def test_by_hand() -> None:
    # s^2 = 2 and 8, so within = 5; means 1 and 7, var 18, between = 18 - 5/2 = 15.5
    found = openness([[0.0, 2.0], [5.0, 9.0]], [[1, 1], [0, 1]])
    assert found["open_share"].value == pytest.approx(5 / 20.5)
    assert found["total_sd"].value == pytest.approx(math.sqrt(20.5))
    assert (found["range"].value, found["same_style"].value) == (3.0, 0.5)


def test_the_interval_is_that_of_resampled_branches() -> None:
    """The same draws, but each resample built and measured as if it were the data."""
    branches = len(REWARDS)
    draws = np.random.default_rng(3).multinomial(branches, np.full(branches, 1 / branches), size=module.RESAMPLES)
    chosen = [np.repeat(np.arange(branches), counts) for counts in draws]
    values = [slowly(REWARDS[rows].tolist(), STYLES[rows].tolist()) for rows in chosen]
    for name, measure in openness(REWARDS, STYLES, seed=3).items():
        expected = np.nanquantile([value[name] for value in values], [0.025, 0.975])
        assert (measure.low, measure.high) == pytest.approx(tuple(expected), rel=1e-6), name


def test_the_seed_decides_the_interval_and_not_the_value() -> None:
    one, same, other = openness(REWARDS), openness(REWARDS), openness(REWARDS, seed=1)
    assert one == same
    assert one["open_share"].value == other["open_share"].value
    assert one["open_share"].low != other["open_share"].low


def test_neither_unit_nor_zero_point_of_the_reward_matters_to_the_share() -> None:
    share = openness(REWARDS)["open_share"]
    for scaled in (1e-9 * REWARDS, REWARDS - 100, -3 * REWARDS):
        found = openness(scaled)["open_share"]
        assert (found.value, found.low, found.high) == pytest.approx((share.value, share.low, share.high), rel=1e-6)


@pytest.mark.parametrize("reward", [0.0, 0.3, -1e9])
def test_a_reward_that_never_varies_has_no_share(reward: float) -> None:
    found = openness(np.full((5, 3), reward))
    assert all(math.isnan(part) for part in vars(found["open_share"]).values())
    assert (found["within_sd"].value, found["total_sd"].value, found["range"].value) == (0, 0, 0)


def test_extremes() -> None:
    decided = openness(np.repeat([[1.0], [2.0], [4.0]], 4, axis=1))["open_share"]
    assert (decided.value, decided.low, decided.high) == (0, 0, 0)
    undecided = openness(np.tile([[0.0, 1.0]], (6, 1)))["open_share"]  # between is below 0: cut off at 1
    assert (undecided.value, undecided.low, undecided.high) == (1, 1, 1)


def test_a_rare_success_has_an_interval_all_the_same() -> None:
    """Most resamples hold it; those that don't have no variance, and no share."""
    rewards = np.zeros((20, 5))
    rewards[3, 1] = 1
    share = openness(rewards)["open_share"]
    assert share.value == share.low == share.high == 1


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_branch_or_one_leaf_says_nothing_about_shares(shape: tuple[int, int]) -> None:
    found = openness(np.arange(5.0).reshape(shape), np.zeros(shape, dtype=int))
    assert math.isnan(found["open_share"].value)
    assert math.isnan(found["open_share"].low)


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [[1.0, math.nan]], np.empty((0, 5))])
def test_what_is_no_table_of_numbers_is_refused(rewards: object) -> None:
    with pytest.raises(ValueError, match="rewards"):
        openness(rewards)


def simulated(share: float, branches: int, leaves: int, seed: int) -> np.ndarray:
    """Rewards whose total variance is 1, of which ``share`` is within branches."""
    random = np.random.default_rng(seed)
    between = random.normal(scale=math.sqrt(1 - share), size=(branches, 1))
    return between + random.normal(scale=math.sqrt(share), size=(branches, leaves))


@pytest.mark.slow
def test_both_variances_are_unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 1)
    found = [openness(simulated(0.4, 6, 3, seed)) for seed in range(4000)]
    for name, truth in (("within_sd", 0.4), ("total_sd", 1.0)):
        variances = np.array([measures[name].value ** 2 for measures in found])
        assert abs(variances.mean() - truth) < 4 * variances.std() / len(variances) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.65])
def test_the_interval_of_48_branches_covers_the_true_share(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 95% is promised, 91% to 95% is what the docstring owns up to; three standard errors beside that."""
    monkeypatch.setattr(module, "RESAMPLES", 500)
    found = [openness(simulated(share, 48, 5, seed), seed=seed)["open_share"] for seed in range(500)]
    covered = np.mean([measure.low <= share <= measure.high for measure in found])
    assert 0.91 - 0.035 < covered < 0.95 + 0.03


def test_default_taus() -> None:
    assert default_taus(20) == [20, 17, 14, 10, 6, 3]
    assert default_taus(50) == [50, 42, 35, 25, 15, 8]
    assert default_taus(2) == [2, 1]
    assert default_taus(1) == [1]
