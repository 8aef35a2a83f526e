"""Statistics over seeds, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from b2bench.leaderboard.stats import (
    area_under_curve,
    detectable,
    equivalent,
    estimate,
    factorial,
    holm,
    over_optimised,
    paired,
    queries_to_target,
    rank_ranges,
)
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


# -- what the promises are worth, by simulation ----------------------------------------------------------

EXPERIMENTS = 2_000


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_95_percent_interval_covers_95_percent(seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(0.7, 0.02, (EXPERIMENTS, seeds))
    found = [estimate(row) for row in draws.tolist()]
    covered = np.mean([e.low <= 0.7 <= e.high for e in found if e.low is not None and e.high is not None])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("seeds", "stated"), [(3, 0.769), (5, 0.580), (10, 0.654)])
def test_where_one_run_in_ten_collapses_it_covers_less(seeds: int, stated: float) -> None:
    """The coverage of the mean that docs/statistics.md states: a collapsed run lies 0.3 below, 15 deviations."""
    rng = np.random.default_rng(seeds)
    collapsed = rng.random((EXPERIMENTS, seeds)) < 0.1
    draws = rng.normal(0.7, 0.02, (EXPERIMENTS, seeds)) - 0.3 * collapsed
    found = [estimate(row) for row in draws.tolist()]
    covered = np.mean([e.low <= 0.67 <= e.high for e in found if e.low is not None and e.high is not None])
    assert covered == pytest.approx(stated, abs=0.03)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_table_of_null_effects_has_a_false_one_in_at_most_six_percent(seeds: int) -> None:
    """Twelve cells against the vanilla of their algorithm, three of each, by Holm: the whole compatibility table."""
    rng = np.random.default_rng(100 + seeds)
    wrong = 0
    for _ in range(EXPERIMENTS):
        cells = rng.normal(0.7, 0.02, (4, 4, seeds))
        p = [paired(cells[a, w].tolist(), cells[a, 0].tolist()).p for a in range(4) for w in (1, 2, 3)]
        wrong += any(value is not None and value < 0.05 for value in holm(p))
    assert wrong / EXPERIMENTS <= 0.06


def test_what_is_called_detectable_is_detected_as_often() -> None:
    rng = np.random.default_rng(7)
    zero, seeds = [0.0] * 5, 5
    scale = paired((np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) / np.std([-1, -0.5, 0, 0.5, 1], ddof=1)).tolist(), zero)
    for comparisons in (1, 12):
        effect = detectable(scale, comparisons)
        assert effect is not None
        draws = rng.normal(effect, 1.0, (EXPERIMENTS, seeds))
        found = [paired(row, zero).p for row in draws.tolist()]
        assert np.mean([p is not None and p < 0.05 / comparisons for p in found]) == pytest.approx(0.8, abs=0.03)
    assert detectable(paired(VALUES[:2], BASELINE[:2])) is None


def test_different_cells_are_called_equivalent_in_at_most_five_percent() -> None:
    """At the margin itself, where two one-sided tests err most often."""
    rng = np.random.default_rng(8)
    draws = rng.normal(0.01, 0.002, (EXPERIMENTS, 5))
    called = np.mean([equivalent(paired(row, [0.0] * 5), 0.01) is True for row in draws.tolist()])
    assert 0.02 < called <= 0.06
    near = rng.normal(0.0, 0.002, (EXPERIMENTS, 5))
    assert np.mean([equivalent(paired(row, [0.0] * 5), 0.01) is True for row in near.tolist()]) > 0.95


def test_equivalence_by_hand() -> None:
    # mean 0, s = 1, n = 3: the 90% interval reaches 2.92 / sqrt(3) = 1.686
    delta = paired([-1.0, 0.0, 1.0], [0.0] * 3)
    assert equivalent(delta, 1.69) is True
    assert equivalent(delta, 1.68) is False
    assert equivalent(paired([1.0], [1.0]), 1.0) is None
    with pytest.raises(ValueError, match="margin"):
        equivalent(delta, 0.0)


def test_cells_that_cannot_be_told_apart_share_their_ranks() -> None:
    noise = np.random.default_rng(3).normal(0, 0.001, (4, 5))
    values = [(level + row).tolist() for level, row in zip((0.7, 0.6, 0.6, 0.5), noise, strict=True)]
    assert rank_ranges(values) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert rank_ranges([row[:2] for row in values]) == [None] * 4
    assert rank_ranges([[0.5, math.nan, 0.5], [0.6, 0.6, 0.61]]) == [None, (1, 1)]
    assert rank_ranges([]) == []


def test_ranks_of_equal_cells_are_open_in_95_percent() -> None:
    rng = np.random.default_rng(9)
    closed = sum(
        any(ranks != (1, 4) for ranks in rank_ranges(rng.normal(0.7, 0.02, (4, 5)).tolist())) for _ in range(1_000)
    )
    assert closed / 1_000 <= 0.06


def test_area_under_curve_by_hand() -> None:
    # trapezoids: 0.5 x (0 + 1) / 2 + 0.5 x 1
    assert area_under_curve([0, 50, 100], [0.0, 1.0, 1.0], 100) == pytest.approx(0.75)
    assert area_under_curve([50, 0], [1.0, 0.0], 100) == pytest.approx(0.75)  # the last value holds
    assert area_under_curve([0, 200], [0.0, 2.0], 100) == pytest.approx(0.5)  # what lies beyond does not count
    assert math.isnan(area_under_curve([50, 100], [1.0, 1.0], 100))
    assert math.isnan(area_under_curve([0, 100], [1.0, math.nan], 100))


def test_queries_to_target_by_hand() -> None:
    assert queries_to_target([0, 100, 200], [0.5, 0.7, 0.6], 0.6) == pytest.approx(50)
    assert queries_to_target([0, 100], [0.5, 0.6], 0.5) == 0
    assert queries_to_target([0, 100], [0.5, 0.6], 0.61) is None
    assert queries_to_target([0, 100], [math.nan, 0.6], 0.6) == 100


def test_over_optimisation_needs_both_signs_beyond_their_intervals() -> None:
    up, down = paired([0.115, 0.12, 0.125], [0.1] * 3), paired([0.08, 0.085, 0.075], [0.1] * 3)
    flat = paired([0.09, 0.13, 0.08], [0.1] * 3)
    assert over_optimised(up, down)
    assert not over_optimised(up, flat)
    assert not over_optimised(flat, down)
    assert not over_optimised(down, up)
    assert over_optimised(paired([0.2], [0.1]), paired([0.05], [0.1]))
