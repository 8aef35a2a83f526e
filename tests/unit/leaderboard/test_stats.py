"""Statistics over seeds, against scipy, numbers worked out by hand, and simulated experiments.

Every figure that docs/statistics.md states, but for those marked *once*, comes from a simulation here. They are
vectorised, and written out once more from the formulas: what the module does to one experiment must be what the
simulation does to thousands.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from b2bench.leaderboard.collapse import COLLAPSE, FAR, collapses, fisher, limit_of, wilson
from b2bench.leaderboard.contrasts import (
    CONTRASTS,
    RATIO,
    behind_the_best,
    planned,
    rank_ranges,
    residual_variance,
    variance_ratio,
)
from b2bench.leaderboard.noise import images_needed, noise, stacked
from b2bench.leaderboard.stats import (
    ALPHA,
    LOOK,
    SHARE,
    area_under_curve,
    detectable,
    equivalence,
    equivalent,
    estimate,
    gained,
    holm,
    over_optimised,
    paired,
    queries_to_target,
)
from numpy.typing import NDArray
from scipy import special
from scipy import stats as scipy_stats
from synthetic import Rows

VALUES = [0.66, 0.71, 0.64, 0.69]
BASELINE = [0.65, 0.66, 0.65, 0.66]
Array = NDArray[np.float64]


# -- means, pairs, gains ----------------------------------------------------------------------------------


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
    for found in (paired(VALUES[:n], BASELINE[:n]), gained(VALUES[:n], BASELINE[:n])):
        assert found.mean == pytest.approx(np.mean(VALUES[:n]) - np.mean(BASELINE[:n]))
        assert (found.low, found.high, found.p) == (None, None, None)


def test_a_missing_seed_leaves_no_mean() -> None:
    assert estimate([0.6, math.nan, 0.7]).mean is None
    assert estimate([]).mean is None
    assert gained([0.6, math.nan, 0.7], [0.5] * 3).mean is None
    assert paired([], []).mean is None


def test_paired_is_the_paired_t_test_of_scipy() -> None:
    found, expected = paired(VALUES, BASELINE), scipy_stats.ttest_rel(VALUES, BASELINE)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low)
    assert (found.wins, found.n, found.df) == (3, 4, 3)


def test_paired_without_any_spread() -> None:
    assert paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).p == 0.0


@pytest.mark.parametrize("compare", [paired, gained])
def test_different_seeds_are_refused(compare: object) -> None:
    with pytest.raises(ValueError, match=r"paired|compared"):
        compare([1.0, 2.0], [1.0])  # type: ignore[operator]


def test_a_gain_from_one_start_is_the_one_sample_t_test() -> None:
    found, expected = gained(VALUES, [0.65] * 4), scipy_stats.ttest_1samp(VALUES, 0.65)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(v - 0.65 for v in scipy_interval(VALUES)))


def scipy_interval(values: list[float]) -> tuple[float, float]:
    found = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(found.low), float(found.high)


def test_a_gain_from_several_starts_is_the_intercept_of_a_regression() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0.65, 0.01, 8)
    y = 0.4 + 0.5 * x + rng.normal(0, 0.004, 8)
    found, fit = gained(y.tolist(), x.tolist()), scipy_stats.linregress(x - x.mean(), y)
    assert found.mean == pytest.approx(fit.intercept - x.mean())
    assert found.error == pytest.approx(fit.intercept_stderr)
    assert (found.df, found.method) == (6, "start")
    assert found.values == pytest.approx(tuple(y - x))
    few = gained(y[:4].tolist(), x[:4].tolist())  # too few for a slope: the spread of the values alone
    assert few.error == pytest.approx(y[:4].std(ddof=1) / 2)
    assert few.df == 3


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, then max(0.06, 0.03 x 2), then max(0.06, 0.5)
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_holm_leaves_out_what_was_not_tested_and_stops_at_one() -> None:
    assert holm([None, 0.6, 0.7]) == [None, 1.0, 1.0]
    assert holm([]) == []


# -- planned contrasts --------------------------------------------------------------------------------------

WRAPPERS = ("vanilla", "bpt", "bs", "b2")
WEIGHTS = np.array([[weights.get(name, 0) for name in WRAPPERS] for weights in CONTRASTS.values()], dtype=np.float64)
FOUR = {"vanilla": [1.0, 2.0, 4.0], "bpt": [3.0, 3.0, 5.0], "bs": [2.0, 2.0, 5.0], "b2": [8.0, 5.0, 7.0]}


def by_seed(cells: dict[str, list[float]]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in cells.items()}


def test_contrasts_by_hand() -> None:
    found = planned(by_seed(FOUR))
    assert found["bpt"].values == (2.0, 1.0, 1.0)
    assert found["bs"].values == (1.0, 0.0, 1.0)
    assert found["b2"].values == (7.0, 3.0, 3.0)
    assert found["interaction"].values == (4.0, 2.0, 1.0)  # (8 - 3 - 2 + 1), (5 - 3 - 2 + 2), (7 - 5 - 5 + 4)
    assert list(planned(by_seed({name: FOUR[name] for name in ("vanilla", "b2")}))) == ["b2"]
    assert planned(by_seed({"bpt": FOUR["bpt"]})) == {}
    assert found["bpt"].p == pytest.approx(scipy_stats.ttest_rel(FOUR["bpt"], FOUR["vanilla"]).pvalue)
    assert {test.method for test in found.values()} == {"paired"}


def alike(seeds: int = 8, spread: float = 1.0) -> Array:
    """A block whose differences spread alike, with a large seed effect; ``spread`` is the factor of b2's."""
    rng = np.random.default_rng(10)
    rest = rng.normal(0, 1, (4, seeds)) * np.array([1, 1, 1, spread])[:, None]
    return np.asarray(rest + rng.normal(0, 10, seeds) + np.array([0, 1, 2, 4])[:, None])


def test_the_blocked_analysis_is_the_two_way_analysis_of_variance() -> None:
    """Least squares with a column for each wrapper and each seed, by numpy alone."""
    block = alike()
    assert variance_ratio(block) <= RATIO
    wrappers, seeds = np.indices(block.shape).reshape(2, -1)
    design = np.column_stack([np.eye(4)[wrappers], np.eye(8)[seeds][:, 1:]])
    fit, rest, _, _ = np.linalg.lstsq(design, block.ravel(), rcond=None)
    df = 32 - design.shape[1]
    variance = float(rest[0]) / df
    covariance = variance * np.linalg.inv(design.T @ design)
    found = planned({name: dict(enumerate(row)) for name, row in zip(WRAPPERS, block, strict=True)})
    for (name, test), weights in zip(found.items(), WEIGHTS, strict=True):
        error = math.sqrt(weights @ covariance[:4, :4] @ weights)
        assert test.mean == pytest.approx(weights @ fit[:4]), name
        assert (test.error, test.df, test.method) == (pytest.approx(error), df, "blocked")
        assert test.p == pytest.approx(2 * scipy_stats.t.sf(abs(test.mean or 0) / error, df))
    assert residual_variance(block) == (pytest.approx(variance), df)


def test_the_ratio_decides_which_error_a_contrast_has() -> None:
    for spread, method in ((1.0, "blocked"), (20.0, "paired")):
        block = alike(spread=spread)
        found = planned({name: dict(enumerate(row)) for name, row in zip(WRAPPERS, block, strict=True)})
        assert {test.method for test in found.values()} == {method}
        variances = [(block[i] - block[j]).var(ddof=1) for i, j in combinations(range(4), 2)]
        assert variance_ratio(block) == pytest.approx(max(variances) / min(variances))
    assert variance_ratio(np.zeros((3, 4))) == 1.0
    assert variance_ratio(np.array([[0.0, 0, 0], [1, 1, 1], [1, 2, 4]])) == math.inf
    holes = {name: dict(enumerate(row)) for name, row in zip(WRAPPERS, alike(), strict=True)}
    del holes["bs"][2]
    assert {test.method for test in planned(holes).values()} == {"paired"}
    assert planned(holes)["bs"].n == 7


# -- the family, by simulation --------------------------------------------------------------------------------

SMALL = 3_000
"""Experiments of a simulation: a share of 5% has a standard error of 0.4% then."""


def p_of(mean: Array, error: Array, df: int) -> Array:
    return np.asarray(2 * special.stdtr(df, -np.abs(mean) / error))


def contrast_tests(y: Array) -> tuple[Array, Array]:
    """p-values [E, 4] of the contrasts of blocks [E, 4, R] under the rule, and which were analysed as blocks [E]."""
    seeds = y.shape[-1]
    each = np.einsum("cw,ews->ecs", WEIGHTS, y)
    mean = each.mean(-1)
    own = p_of(mean, each.std(-1, ddof=1) / math.sqrt(seeds), seeds - 1)
    rest = y - y.mean(1, keepdims=True) - y.mean(2, keepdims=True) + y.mean((1, 2), keepdims=True)
    df = 3 * (seeds - 1)
    error = np.sqrt((rest**2).sum((1, 2))[:, None] / df * (WEIGHTS**2).sum(1) / seeds)
    variances = np.stack([(y[:, i] - y[:, j]).var(-1, ddof=1) for i, j in combinations(range(4), 2)])
    blocked = variances.max(0) <= RATIO * variances.min(0)
    return np.where(blocked[:, None], p_of(mean, error, df), own), blocked


def test_the_simulation_does_what_the_module_does() -> None:
    y = np.stack([alike(spread=spread) for spread in (1.0, 20.0)])
    p, blocked = contrast_tests(y)
    assert blocked.tolist() == [True, False]
    for block, expected in zip(y, p, strict=True):
        found = planned({name: dict(enumerate(row)) for name, row in zip(WRAPPERS, block, strict=True)})
        assert [test.p for test in found.values()] == pytest.approx(expected)


SPREADS = {
    "alike": (1, 1, 1, 1),
    "b2 twice": (1, 1, 1, 2),
    "vanilla twice": (2, 1, 1, 1),
    "vanilla half again": (1.5, 1, 1, 1),
    "b2 three times": (1, 1, 1, 3),
    "b2 half": (1, 1, 1, 0.5),
    "all differ": (1, 1.5, 2, 3),
}


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spreads", SPREADS.values(), ids=SPREADS)
def test_a_report_without_effects_makes_a_false_claim_in_at_most_six_percent(
    seeds: int, spreads: tuple[float, ...]
) -> None:
    """Four algorithms, four contrasts each, Holm over all: one claim or more where nothing is to be claimed."""
    rng = np.random.default_rng(seeds)
    p = [contrast_tests(rng.normal(0, 1, (SMALL, 4, seeds)) * np.array(spreads)[:, None])[0] for _ in range(4)]
    wrong = (np.concatenate(p, 1).min(1) * 16 < ALPHA).mean()  # Holm's first step: without it there is no second
    assert wrong <= 0.06


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_whole_family_makes_a_false_claim_in_at_most_six_percent(seeds: int, learned: bool) -> None:
    """All 56 claims of four algorithms under four wrappers: gains, contrasts, held-out scores and diversity.

    If all cells learned, Holm takes their sixteen gains first, and there are 40 claims left to be wrong about.
    """
    rng = np.random.default_rng(200 + seeds)
    p = []
    for _ in range(4):
        trained, held_out, diverse = rng.normal(0, 1, (3, SMALL, 4, seeds))
        if not learned:
            p.append(p_of(trained.mean(-1), trained.std(-1, ddof=1) / math.sqrt(seeds), seeds - 1))
        p.append(contrast_tests(trained)[0])
        p += [contrast_tests(measure)[0][:, [0, 1, 3]] for measure in (held_out, diverse)]
    every = np.concatenate(p, 1)
    assert every.shape[1] == (40 if learned else 56)
    assert (every.min(1) * every.shape[1] < ALPHA).mean() <= 0.06


@pytest.mark.parametrize("wrapper", [0, 3])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_one_collapse_makes_no_false_claim_in_more_than_six_percent(seeds: int, wrapper: int) -> None:
    """One run of one of the sixteen cells ends 15 standard deviations below the others."""
    rng = np.random.default_rng(10 + seeds)
    blocks = [rng.normal(0, 1, (SMALL, 4, seeds)) for _ in range(4)]
    blocks[0][:, wrapper, 0] -= 15
    tests = [contrast_tests(block) for block in blocks]
    wrong = (np.concatenate([p for p, _ in tests], 1).min(1) * 16 < ALPHA).mean()
    assert wrong <= 0.06
    assert tests[0][1].mean() == 0  # the collapsed block is never analysed as one


@pytest.mark.parametrize(("seeds", "stated"), [(5, 0.06), (10, 0.32), (15, 0.59)])
def test_how_often_variances_that_are_equal_pass_the_rule(seeds: int, stated: float) -> None:
    _, blocked = contrast_tests(np.random.default_rng(seeds).normal(0, 1, (SMALL, 4, seeds)))
    assert blocked.mean() == pytest.approx(stated, abs=0.03)


def test_always_blocking_would_err_where_vanilla_spreads_more() -> None:
    """Why there is a rule: vanilla is in every contrast."""
    rng = np.random.default_rng(1)
    y = rng.normal(0, 1, (4, SMALL, 4, 10)) * np.array([3, 1, 1, 1])[:, None]
    rest = y - y.mean(2, keepdims=True) - y.mean(3, keepdims=True) + y.mean((2, 3), keepdims=True)
    error = np.sqrt((rest**2).sum((2, 3))[..., None] / 27 * (WEIGHTS**2).sum(1) / 10)
    p = p_of(np.einsum("cw,aews->aecs", WEIGHTS, y).mean(-1), error, 27)
    assert (p.min((0, 2)) * 16 < ALPHA).mean() == pytest.approx(0.14, abs=0.015)


def power(effect: float, residual: float, seeds: int, tests: int) -> float:
    """The share of experiments in which bpt - vanilla = ``effect`` is claimed at Holm's hardest level of ``tests``."""
    y = np.random.default_rng(seeds).normal(0, residual, (SMALL, 4, seeds))
    y[:, 1] += effect
    p, _ = contrast_tests(y)
    return float((p[:, 0] * tests < ALPHA).mean())


RESIDUAL = 0.0025
"""Measured: what is left of ddpo's scores after wrapper and seed, at the end of the 60 runs of b2bench 0.2.0.dev5."""


@pytest.mark.parametrize(
    ("seeds", "tests", "effect", "stated"),
    [
        (5, 1, 0.0060, 0.81),
        (5, 56, 0.0180, 0.83),
        (10, 1, 0.0035, 0.81),
        (10, 16, 0.0055, 0.83),
        (10, 56, 0.0065, 0.83),
    ],
)
def test_the_power_of_a_planned_contrast_with_the_measured_variance(
    seeds: int, tests: int, effect: float, stated: float
) -> None:
    assert power(effect, RESIDUAL, seeds, tests) == pytest.approx(stated, abs=0.03)


def test_what_is_called_detectable_is_detected_as_often() -> None:
    rng = np.random.default_rng(7)
    scale = paired((np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) / np.std([-1, -0.5, 0, 0.5, 1], ddof=1)).tolist(), [0.0] * 5)
    for comparisons in (1, 56):
        effect = detectable(scale, comparisons)
        assert effect is not None
        draws = rng.normal(effect, 1.0, (SMALL, 5))
        p = p_of(draws.mean(1), draws.std(1, ddof=1) / math.sqrt(5), 4)
        assert (p < 0.05 / comparisons).mean() == pytest.approx(0.8, abs=0.03)
    assert detectable(paired(VALUES[:2], BASELINE[:2])) is None


@pytest.mark.parametrize(("seeds", "tests", "stated"), [(10, 1, 1.0), (10, 56, 1.9), (5, 56, 4.9)])
def test_how_many_standard_deviations_are_detected(seeds: int, tests: int, stated: float) -> None:
    unit = np.random.default_rng(0).normal(0, 1, seeds)
    unit = (unit - unit.mean()) / unit.std(ddof=1)
    assert detectable(paired(unit.tolist(), [0.0] * seeds), tests) == pytest.approx(stated, rel=0.02)


def test_two_looks_err_as_often_as_one() -> None:
    """Five seeds, then the same and five more, each look at the level of two looks."""
    draws = np.random.default_rng(3).normal(0, 1, (40_000, 10))
    first, both = (
        p_of(x.mean(1), x.std(1, ddof=1) / math.sqrt(x.shape[1]), x.shape[1] - 1) for x in (draws[:, :5], draws)
    )
    assert ((first < LOOK) | (both < LOOK)).mean() == pytest.approx(0.051, abs=0.004)
    assert ((first < ALPHA) | (both < ALPHA)).mean() == pytest.approx(
        0.087, abs=0.005
    )  # why each has a level of its own


# -- which may be the best ----------------------------------------------------------------------------------


def test_the_cells_behind_the_best_by_hand() -> None:
    values = [[1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 3.5, 5.0], [0.0, 0.5, 1.0, 0.7]]
    found = behind_the_best([seeded(row) for row in values])

    def one_sided(i: int, j: int) -> float:
        return float(scipy_stats.ttest_rel(values[j], values[i], alternative="greater").pvalue)

    for i in range(3):
        others = [one_sided(i, j) for j in range(3) if j != i]
        assert found[i] == pytest.approx(min(1.0, 2 * min(others)))


def seeded(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_cell_of_few_seeds_takes_no_seed_from_a_comparison_of_two_others() -> None:
    best, second = seeded([0.700, 0.702, 0.701, 0.703, 0.702]), seeded([0.690, 0.693, 0.690, 0.694, 0.692])
    few = {0: 0.65, 1: 0.66, 2: 0.655}
    assert behind_the_best([best, second, few])[1] == pytest.approx(2 * behind_the_best([best, second])[1] or 0.0)
    apart = behind_the_best([best, {seed + 3: value for seed, value in second.items()}])  # two seeds are shared
    assert apart == [1.0, 1.0]


def test_a_cell_of_which_all_seeds_fell_far_is_not_among_the_best() -> None:
    cells = [seeded([0.74, 0.75, 0.74]), seeded([0.74, 0.74, 0.75]), seeded([0.2, 0.6, 0.1])]
    assert rank_ranges(cells) == [(1, 3), (1, 3), (1, 3)]  # its spread lets its interval reach anywhere
    assert rank_ranges(cells, fell=[False, False, True]) == [(1, 3), (1, 3), (2, 3)]
    assert rank_ranges(cells, fell=[True] * 3) == [(1, 3), (1, 3), (1, 3)]
    # of two that are told apart by no test, the one whose seeds did not fall is not shown to be better
    wide = seeded([0.2, 0.72, 0.1])
    assert rank_ranges([cells[0], wide]) == [(1, 2), (1, 2)]
    assert rank_ranges([cells[0], wide], fell=[False, True]) == [(1, 2), (2, 2)]
    # the only one that no test puts behind another fell, by shares of seeds that the others lack
    ahead = seeded([0.9, 0.9001, 0.9002])
    assert rank_ranges([*cells[:2], ahead], fell=[False, False, True]) == [(1, 3), (1, 3), (2, 3)]
    unknown = seeded([0.74, math.nan, 0.75])
    assert rank_ranges([*cells[:2], unknown], fell=[True, True, False]) == [(1, 2), (1, 2), None]


def test_ranks_come_from_comparisons_with_the_best_alone() -> None:
    noise_ = np.random.default_rng(3).normal(0, 0.001, (4, 5))
    values = [(level + row).tolist() for level, row in zip((0.7, 0.6, 0.6, 0.5), noise_, strict=True)]
    cells = [seeded(row) for row in values]
    assert rank_ranges(cells) == [(1, 1), (2, 4), (2, 4), (2, 4)]
    assert rank_ranges(cells[1:]) == [(1, 3), (1, 3), (2, 3)]
    assert rank_ranges([seeded(row[:2]) for row in values]) == [None] * 4
    assert rank_ranges([seeded([0.5, math.nan, 0.5]), seeded([0.6, 0.6, 0.61])]) == [None, (1, 1)]
    assert rank_ranges([]) == []


def best_excluded(values: Array, best: int) -> Array:
    """Of experiments [E, C, R]: whether some other cell is significantly better than the best one."""
    cells, seeds = values.shape[1:]
    delta = np.delete(values, best, 1) - values[:, best : best + 1]
    t = delta.mean(-1) / (delta.std(-1, ddof=1) / math.sqrt(seeds))
    return np.asarray(special.stdtr(seeds - 1, -t).min(1) * (cells - 1) < ALPHA)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_best_of_sixteen_cells_is_said_not_to_be_in_at_most_six_percent(seeds: int) -> None:
    """Hardest where all are equal: then every cell is a best one."""
    y = np.random.default_rng(20 + seeds).normal(0, 1, (SMALL, 16, seeds))
    assert best_excluded(y, 0).mean() <= 0.06
    # the module says what this simulation does, of an experiment that leaves the best cell out and of one that does not
    excluded = best_excluded(y, 0)
    for experiment in (int(np.argmax(excluded)), int(np.argmin(excluded))):
        behind = behind_the_best([seeded(row) for row in y[experiment]])[0]
        assert behind is not None
        assert (behind < ALPHA) == bool(excluded[experiment])
    assert excluded.any()
    assert not excluded.all()


# -- equality -------------------------------------------------------------------------------------------------


def test_equality_by_hand() -> None:
    # mean 0, s = 1, n = 3: the 90% interval reaches 2.92 / sqrt(3) = 1.686
    delta = paired([-1.0, 0.0, 1.0], [0.0] * 3)
    assert equivalent(delta, 1.69) is True
    assert equivalent(delta, 1.68) is False
    assert equivalent(paired([1.0], [1.0]), 1.0) is None
    with pytest.raises(ValueError, match="margin"):
        equivalent(delta, 0.0)


def test_equality_is_two_one_sided_tests_of_scipy() -> None:
    delta, margin = [0.1, -0.2, 0.05, 0.0, 0.1], [0.3, 0.5, 0.4, 0.2, 0.6]
    above = scipy_stats.ttest_1samp(np.add(delta, margin), 0, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(np.subtract(delta, margin), 0, alternative="less").pvalue
    assert equivalence(delta, margin) == pytest.approx(max(above, below))
    assert equivalence([0.0] * 3, 0.1) == 0.0
    assert equivalence([math.nan, 0, 0], 0.1) is None


def called_equal(vanilla: Array, other: Array) -> Array:
    """Of experiments [E, R] of gains of vanilla and of another cell: whether they are called equal, as in claims.py."""
    seeds = vanilla.shape[1]
    mean, error = vanilla.mean(1), vanilla.std(1, ddof=1) / math.sqrt(seeds)
    shown = (mean > 0) & (p_of(mean, error, seeds - 1) < ALPHA)
    delta, margin = other - vanilla, SHARE * vanilla

    def above(x: Array) -> Array:
        return np.asarray(special.stdtr(seeds - 1, -x.mean(1) / (x.std(1, ddof=1) / math.sqrt(seeds))))

    return np.asarray(shown & (np.maximum(above(delta + margin), above(margin - delta)) < ALPHA))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_cells_that_differ_by_the_margin_are_called_equal_in_at_most_six_percent(seeds: int) -> None:
    """At the margin itself, where the tests err most often; the margin is an estimate, too."""
    rng = np.random.default_rng(30 + seeds)
    vanilla = 1 + 0.05 * rng.normal(0, 1, (SMALL, seeds))
    for factor in (0.75, 1.25):
        other = factor + 0.05 * rng.normal(0, 1, (SMALL, seeds))
        assert called_equal(vanilla, other).mean() <= 0.06
    same = 1 + 0.05 * rng.normal(0, 1, (SMALL, seeds))
    if seeds > 3:
        assert called_equal(vanilla, same).mean() > 0.95


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_report_calls_equal_what_the_simulation_does(seeds: int) -> None:
    """Of experiments around the margin, and of vanillas around no gain: some are equal, and some are not."""
    rng = np.random.default_rng(35 + seeds)
    vanilla = rng.choice([0.01, 0.1], (12, 1)) + 0.004 * rng.normal(0, 1, (12, seeds))
    other = vanilla.mean(1, keepdims=True) * rng.choice([0.8, 1.0], (12, 1)) + 0.004 * rng.normal(0, 1, (12, seeds))
    found = []
    for mine, theirs in zip(vanilla, other, strict=True):
        rows = Rows()
        for wrapper, gains in (("vanilla", mine), ("b2", theirs)):
            for seed, gain in enumerate(gains):
                rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.6 + 2 * gain})  # the area is half of the end
        (row,) = rows.one().compatibility
        (cell,) = [cell for cell in row.cells if cell.wrapper == "b2"]
        found.append(cell.equal is not None and cell.equal < ALPHA)
    assert found == called_equal(vanilla, other).tolist()
    assert {True, False} == set(found)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_null_cells_are_not_called_equal(seeds: int) -> None:
    """Neither gained: their difference is 0, and so is what could be a margin."""
    rng = np.random.default_rng(40 + seeds)
    vanilla, other = rng.normal(0, 1, (2, SMALL, seeds))
    assert called_equal(vanilla, other).mean() <= 0.005


# -- collapse -------------------------------------------------------------------------------------------------


def test_wilson_by_scipy() -> None:
    for k, n in ((0, 5), (1, 5), (5, 5), (3, 10)):
        expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((expected.low, expected.high))
    assert wilson(0, 0) == (None, None)


def test_fisher_by_scipy() -> None:
    for k, n, other_k, other_n in ((0, 5, 5, 5), (1, 5, 3, 10), (2, 3, 2, 3), (0, 4, 0, 4), (7, 10, 1, 9)):
        expected = scipy_stats.fisher_exact([[k, n - k], [other_k, other_n - other_k]]).pvalue
        assert fisher(k, n, other_k, other_n) == pytest.approx(expected)
    assert fisher(0, 0, 1, 2) is None
    assert (fisher(5, 5, 1, 5) or 0) < ALPHA < (fisher(5, 5, 2, 5) or 0)  # as docs/statistics.md says


def test_collapses_by_hand() -> None:
    found = collapses([0.60, 0.631, 0.10, 0.70], [0.65, 0.65, 0.65, 0.65])
    assert (found.n, found.collapsed, found.below) == (4, 2, 3)
    assert found.median == pytest.approx((0.60 + 0.631) / 2)
    assert found.others == pytest.approx((0.631 + 0.70) / 2)
    assert (found.low, found.high) == pytest.approx(wilson(2, 4))
    assert not found.fell
    assert collapses([0.1, 0.6, 0.5], [0.65] * 3).fell
    assert not collapses([0.1, 0.6], [0.65] * 2).fell
    assert not collapses([0.649, 0.648, 0.64, 0.1], [0.65] * 4).fell  # all fell, most by next to nothing
    found = collapses([0.649, 0.60, 0.1], [0.65] * 3)
    assert (found.drop, found.fell) == (pytest.approx(0.05), False)
    assert collapses([0.649, 0.58, 0.1], [0.65] * 3).fell
    assert collapses([0.1, math.nan, 0.2], [0.65] * 3).n == 2
    assert collapses([0.1] * 3, [0.65] * 3).others is None


def test_how_far_a_collapse_is_follows_the_rewards_unit() -> None:
    """JPEG's kilobytes spread over images by some units, and a change of one is nothing."""
    assert limit_of("clipscore", []) == limit_of("clipscore", [5.0]) == COLLAPSE
    assert limit_of("jpeg", [2.0, 4.0, math.nan]) == 0.75
    assert limit_of("jpeg", []) is None
    ends, starts = [-8.5, -8.4, -9.0], [-8.0] * 3
    assert collapses(ends, starts).fell
    for limit in (0.75, None):
        found = collapses(ends, starts, limit)
        assert (found.fell, found.below) == (False, 3)
    assert [collapses(ends, starts, limit).collapsed for limit in (0.75, None)] == [1, 0]


@pytest.mark.parametrize("start", [0.7910885061964363, 0.1, 1 / 3, 27.3])
def test_a_curve_that_never_moves_is_no_evidence(start: float) -> None:
    """The area of a constant differs from it by rounding, which all seeds share."""
    area = area_under_curve([0, 800, 1600, 2400], [start] * 4, 2400)
    found = gained([area] * 5, [start] * 5)
    assert (found.mean, found.p) == (0.0, 1.0)
    (delta,) = planned({"vanilla": dict.fromkeys(range(5), start), "b2": dict.fromkeys(range(5), area)}).values()
    assert (delta.mean, delta.p, delta.wins) == (0.0, 1.0, 0)
    assert paired([area] * 5, [start] * 5).p == 1.0


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_losses_by_test_or_by_rule_err_in_at_most_six_percent(seeds: int, spread: float) -> None:
    """Sixteen null cells with up to four times the spread that was measured: one or more a loss, by Holm or as it fell.

    That all seeds fall, by however little, is no verdict by itself: one of sixteen does in 39% of experiments.
    """
    ends = np.random.default_rng(50 + seeds).normal(0, spread, (SMALL, 16, seeds))

    def fallen(values: Array) -> Array:
        return np.asarray((values < 0).all(-1) & (np.median(values, -1) < -FAR * COLLAPSE))

    below, fell = (ends < 0).all(-1), fallen(ends)
    p = p_of(ends.mean(-1), ends.std(-1, ddof=1) / math.sqrt(seeds), seeds - 1)
    wrong = ((p.min(1) * 16 < ALPHA) | fell.any(1)).mean()
    assert wrong <= 0.06
    lower = ends[0] - FAR * COLLAPSE  # about half of these fell: the module says which, too
    assert [collapses(row.tolist(), [0.0] * seeds).fell for row in lower] == fallen(lower).tolist()
    assert {True, False} == set(fallen(lower).tolist())
    if seeds == 5:
        assert below.any(1).mean() == pytest.approx(0.39, abs=0.03)


@pytest.mark.parametrize(("seeds", "stated"), [(3, 0.769), (5, 0.580), (10, 0.654)])
def test_where_one_run_in_ten_collapses_an_interval_covers_less(seeds: int, stated: float) -> None:
    """The coverage of the mean that docs/statistics.md states: a collapsed run lies 0.3 below, 15 deviations."""
    assert coverage(collapsing(seeds, 60), 0.67) == pytest.approx(stated, abs=0.03)


@pytest.mark.parametrize(("seeds", "stated"), [(3, 0.97), (5, 0.92), (10, 0.93)])
def test_wilson_covers_the_share_that_collapses(seeds: int, stated: float) -> None:
    k = np.random.default_rng(70 + seeds).binomial(seeds, 0.1, SMALL)
    low, high = np.array([wilson(int(i), seeds) for i in range(seeds + 1)], dtype=np.float64)[k].T
    assert ((low <= 0.1) & (high >= 0.1)).mean() == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize(("seeds", "stated"), [(5, 0.95), (10, 0.95)])
def test_the_mean_of_those_that_did_not_collapse_is_covered(seeds: int, stated: float) -> None:
    """Of experiments with three such seeds or more; they are fewer than the seeds, so their interval is wider."""
    draws = collapsing(seeds, 80)
    found = [estimate(row[row > 0.5].tolist()) for row in draws[:1_500]]
    held = [e.low <= 0.7 <= e.high for e in found if e.low is not None and e.high is not None]
    assert np.mean(held) == pytest.approx(stated, abs=0.02)


def collapsing(seeds: int, seed: int) -> Array:
    rng = np.random.default_rng(seed + seeds)
    collapsed = rng.random((SMALL, seeds)) < 0.1
    return np.asarray(rng.normal(0.7, 0.02, (SMALL, seeds)) - 0.3 * collapsed)


def coverage(draws: Array, true: float) -> float:
    """The share of experiments [E, R] whose 95% interval holds the true mean."""
    n = draws.shape[1]
    half = special.stdtrit(n - 1, 0.975) * draws.std(1, ddof=1) / math.sqrt(n)
    first = estimate(draws[0].tolist())
    assert first.high == pytest.approx(draws[0].mean() + half[0])
    return float((np.abs(draws.mean(1) - true) <= half).mean())


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_95_percent_interval_covers_95_percent(seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(0.7, 0.02, (SMALL, seeds))
    assert 0.94 <= coverage(draws, 0.7) <= 0.96


# -- the start as a covariate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seeds", [4, 5, 10])
def test_a_gain_is_covered_whatever_is_left_of_the_start(seeds: int, slope: float) -> None:
    """The true gain at the mean start of an experiment; with four seeds the slope is not estimated."""
    rng = np.random.default_rng(90 + seeds)
    x = rng.normal(0, 0.006, (SMALL // 2, seeds))
    y = 0.02 + slope * x + rng.normal(0, 0.004, x.shape)
    away = x - x.mean(1, keepdims=True)
    rest = y - y.mean(1, keepdims=True)
    df = seeds - 1
    if seeds >= 5:
        rest, df = rest - away * ((away * rest).sum(1) / (away**2).sum(1))[:, None], seeds - 2
    half = special.stdtrit(df, 0.975) * np.sqrt((rest**2).sum(1) / df / seeds)
    true = 0.02 + (slope - 1) * x.mean(1)
    covered = (np.abs((y - x).mean(1) - true) <= half).mean()
    assert covered >= 0.935
    first = gained(y[0].tolist(), x[0].tolist())
    assert (first.high or 0.0) - (first.mean or 0.0) == pytest.approx(half[0])


def test_a_slope_that_is_estimated_is_more_exact_than_one_fixed_at_1() -> None:
    """What was measured: the end keeps a third of the start. Ten seeds, mean half-widths of 95% intervals."""
    rng = np.random.default_rng(6)
    x = rng.normal(0, 0.006, (500, 10))
    y = 0.3 * x + rng.normal(0, 0.004, x.shape)
    estimated = [gained(a.tolist(), b.tolist()) for a, b in zip(y, x, strict=True)]
    fixed = [paired(a.tolist(), b.tolist()) for a, b in zip(y, x, strict=True)]
    ratio = np.mean([e.error or 0.0 for e in estimated]) / np.mean([f.error or 0.0 for f in fixed])
    assert ratio == pytest.approx(0.68, abs=0.04)


# -- noise of evaluations ---------------------------------------------------------------------------------------


def images(seeds: int, count: int, of_seed: float, of_image: float, common: float, shared: bool) -> Array:
    """A contrast [R, N]: seeds, images that are alike in all seeds or not, and what is of both."""
    rng = np.random.default_rng(11)
    per_image = rng.normal(0, common, (1 if shared else seeds, count))
    return np.asarray(rng.normal(0, of_seed, (seeds, 1)) + per_image + rng.normal(0, of_image, (seeds, count)))


def test_noise_of_images_and_spread_of_seeds_are_told_apart() -> None:
    z = images(400, 300, 0.02, 0.5, 2.0, shared=True)
    found = noise(z, shared=True)
    assert found is not None
    assert found.evaluation == pytest.approx(0.5 / math.sqrt(300), rel=0.05)
    assert found.seed == pytest.approx(0.02, rel=0.15)
    assert found.images == 300
    assert found.needed == pytest.approx(4 * (0.5 / 0.02) ** 2, rel=0.3)
    assert not found.enough
    apart = noise(images(400, 300, 0.2, 0.5, 2.0, shared=False), shared=False)
    assert apart is not None
    assert apart.evaluation == pytest.approx(math.sqrt((0.5**2 + 2.0**2) / 300), rel=0.05)
    assert apart.seed == pytest.approx(0.2, rel=0.15)


def test_noise_by_hand() -> None:
    # means 1, 2, 6 with variance 7; residuals of image and seed: +-1, +-1, -+2 with 2 degrees of freedom
    found = noise([[0.0, 2.0], [1.0, 3.0], [8.0, 4.0]], shared=True)
    assert found is not None
    rest = np.array([[-1.0, 1.0], [-1.0, 1.0], [2.0, -2.0]])
    of_image = float((rest**2).sum()) / 2
    assert found.evaluation == pytest.approx(math.sqrt(of_image / 2))
    assert found.seed == pytest.approx(math.sqrt(7 - of_image / 2))
    assert found.prompts is None
    by_prompt = noise([[0.0, 2.0, 1.0, 3.0], [2.0, 4.0, 3.0, 5.0], [1.0, 3.0, 8.0, 4.0]], shared=True, prompts=2)
    assert by_prompt is not None  # of the mean over seeds, 1 3 4 4, two prompts have 2 and 4: sd sqrt(2), over sqrt(2)
    assert by_prompt.prompts == pytest.approx(1.0)
    assert noise([[0.0, 2.0], [1.0, 3.0]], shared=True) is None
    assert noise(np.tile(np.arange(5.0), (3, 1)), shared=True).needed is None  # type: ignore[union-attr]


def test_how_many_images_are_needed() -> None:
    assert images_needed(4.0, 0.01) == 1600  # 4 / 1600 is a quarter of 0.01
    assert images_needed(4.0, 0.0) is None
    assert stacked([[[1.0, 2.0]], [[3.0, 5.0]]], [1, -1]).tolist() == [[-2.0, -3.0]]


# -- curves -------------------------------------------------------------------------------------------------------


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
