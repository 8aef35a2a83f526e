"""What a tuning says of a cell: the choice, the expected best of a few tries, and who collapsed."""

import itertools
import math
import random

import pytest
from b2bench.leaderboard.tuning import Trial, Tried, best, expected_best, of_protocol, top_quarter, tuning_row

SEEDS = (1000, 1001, 1002)


def tried(*scores: float | None, kind: str = "sobol", first: float = 0.5) -> Tried:
    """A configuration with a score for each of the first seeds."""
    trials = {seed: Trial(first, score, 100) for seed, score in zip(SEEDS, scores, strict=False)}
    return Tried(kind, {"run.lr": scores[0]}, trials)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_expected_best_is_the_mean_over_all_ways_to_draw(n: int) -> None:
    numbers = random.Random(n)
    values = [numbers.gauss(0, 1) for _ in range(n)]
    values[-1] = values[0]  # a tie
    for m in range(1, n + 1):
        every = [max(drawn) for drawn in itertools.combinations(values, m)]
        assert expected_best(values, m) == pytest.approx(sum(every) / len(every), rel=1e-12)
    assert expected_best(values, n) == max(values)
    assert expected_best(values, n + 1) is None
    assert expected_best(values, 0) is None


def test_the_top_quarter_is_rounded_up_and_ties_go_to_the_earlier() -> None:
    assert top_quarter([tried(0.1), tried(0.3), tried(0.2)], 1000) == [1]
    assert top_quarter([tried(x) for x in (0.1, 0.3, 0.3, 0.2, 0.3)], 1000) == [1, 2]
    assert top_quarter([tried(x / 100) for x in range(32)], 1000) == [31, 30, 29, 28, 27, 26, 25, 24]
    assert top_quarter([tried(None), tried(0.1)], 1000) == [1]


def test_the_mean_of_three_seeds_decides_and_not_the_best_run() -> None:
    cell = [tried(0.9, 0.1, 0.1), tried(0.8, 0.7, 0.7), tried(0.95)]
    assert best(cell, SEEDS) == 1
    with pytest.raises(ValueError, match="no configuration"):
        best([tried(0.9)], SEEDS)
    with pytest.raises(ValueError, match="no configuration"):
        best([tried(None, None, None)], SEEDS)


def test_a_configuration_that_failed_is_chosen_last() -> None:
    """What it had before it failed may be the best of all: it never paid for the end."""
    lost = Tried("sobol", {"run.lr": 1}, {seed: Trial(0.5, 0.99, 40, failed=seed == 1001) for seed in SEEDS})
    assert best([lost, tried(0.6, 0.6, 0.6)], SEEDS) == 1
    assert best([lost, tried(0.6)], SEEDS) == 0
    early = Tried("sobol", {"run.lr": 1}, {1000: Trial(0.5, 0.99, 40, failed=True)})
    assert top_quarter([early, tried(0.6)], 1000) == [1]


def test_the_choice_does_not_depend_on_what_else_a_store_holds() -> None:
    """A longer search ran more configurations with three seeds, of which this one's top quarter has one."""
    mine = [tried(0.9, 0.5, 0.5), tried(0.8), tried(0.7), tried(0.6, kind="default")]
    others = [mine[0], tried(0.8, 0.8, 0.8), mine[2], tried(0.6, 0.9, 0.9, kind="default")]
    rows = [tuning_row("ddpo", "b2", cell, SEEDS) for cell in (mine, others)]
    assert rows[0] == rows[1]
    assert of_protocol(others, SEEDS) == mine
    assert rows[0].chosen is mine[0]


def test_a_run_collapses_that_ends_clearly_below_its_start() -> None:
    assert not Trial(0.5, 0.481).collapsed
    assert Trial(0.5, 0.481).below
    assert Trial(0.5, 0.479).collapsed
    assert not Trial(0.5, 0.5).below
    assert not Trial(50.0, 49.0, limit=2.5).collapsed  # a reward in another unit
    assert Trial(50.0, 47.0, limit=2.5).collapsed
    assert not Trial(50.0, 47.0, limit=None).collapsed
    for lost in (Trial(None, None), Trial(0.5, 0.6, failed=True)):
        assert lost.collapsed
        assert lost.below


def test_a_row_says_what_was_chosen_against_the_default() -> None:
    cell = [
        tried(0.60, kind="default"),
        tried(0.70, 0.60, 0.62),
        tried(0.69, 0.66, 0.66),
        tried(0.3),
        tried(None),
        *[tried(0.49)] * 3,
    ]
    row = tuning_row("ddpo", "b2", cell, SEEDS)
    assert row.chosen is cell[2]
    assert row.tuned_score == pytest.approx(0.67)
    assert row.default_score == pytest.approx(0.6)
    assert row.gain == pytest.approx(0.09)  # on the seed that both have
    assert (row.configurations, row.collapsed, row.below) == (8, 2, 5)
    assert (row.collapsed_share, row.below_share) == (0.25, 0.625)
    assert row.queries == 1200
    assert row.best_of[8] == 0.70
    assert row.best_of[16] is None
    scores = [0.60, 0.70, 0.69, 0.3, 0.3, 0.49, 0.49, 0.49]  # a run without a score counts as the lowest
    assert row.best_of[1] == pytest.approx(math.fsum(scores) / 8)
    with pytest.raises(ValueError, match="no configuration"):
        tuning_row("ddpo", "b2", [tried(None, None, None, kind="default")], SEEDS)
