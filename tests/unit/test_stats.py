"""Statistics over seeds, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from b2bench.leaderboard.stats import estimate, factorial, holm, paired
from scipy import stats as scipy_stats

VALUES = [0.66, 0.71, 0.64, 0.69]
BASELINE = [0.65, 0.66, 0.65, 0.66]


def test_estimate_is_the_t_interval_of_scipy() -> None:
    found = estimate(VALUES)
    expected = scipy_stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.675)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 4


def test_estimate_by_hand() -> None:
    # s = 1, n = 3, t at 97.5% with two degrees of freedom is 4.3027
    found = estimate([1.0, 2.0, 3.0])
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_no_p(n: int) -> None:
    found = paired(VALUES[:n], BASELINE[:n])
    assert found.mean == pytest.approx(np.mean(VALUES[:n]) - np.mean(BASELINE[:n]))
    assert (found.low, found.high, found.p) == (None, None, None)


def test_a_missing_seed_leaves_no_mean() -> None:
    assert estimate([0.6, math.nan, 0.7]).mean is None
    assert estimate([]).mean is None


def test_paired_is_the_paired_t_test_of_scipy() -> None:
    found, expected = paired(VALUES, BASELINE), scipy_stats.ttest_rel(VALUES, BASELINE)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low)
    assert (found.wins, found.n) == (3, 4)


def test_paired_without_any_spread() -> None:
    assert paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).p == 0.0


def test_paired_refuses_different_seeds() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired([1.0, 2.0], [1.0])


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, then max(0.06, 0.03 x 2), then max(0.06, 0.5)
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_holm_leaves_out_what_was_not_tested_and_stops_at_one() -> None:
    assert holm([None, 0.6, 0.7]) == [None, 1.0, 1.0]
    assert holm([]) == []


def test_factorial_by_hand() -> None:
    found = factorial([1.0, 2.0], [3.0, 3.0], [2.0, 2.0], [8.0, 5.0])
    assert found.bpt.values == pytest.approx((4.0, 2.0))  # ((3-1)+(8-2))/2, ((3-2)+(5-2))/2
    assert found.bs.values == pytest.approx((3.0, 1.0))  # ((2-1)+(8-3))/2, ((2-2)+(5-3))/2
    assert found.interaction.values == pytest.approx((4.0, 2.0))  # (8-3)-(2-1), (5-3)-(2-2)


def test_a_95_percent_interval_of_three_seeds_covers_95_percent() -> None:
    draws = np.random.default_rng(0).normal(0.7, 0.02, size=(2000, 3))
    found = [estimate(row) for row in draws.tolist()]
    covered = np.mean([cell.low <= 0.7 <= cell.high for cell in found])
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors of 2,000 draws
