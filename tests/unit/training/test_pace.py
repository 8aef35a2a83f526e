"""How a round is cut into updates, from what a draw brings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig, check_shares
from b2bench.errors import UserError
from b2bench.training.pace import Pace, pace_of


def config(algorithm: str, **values: Any) -> RunConfig:
    return resolve(
        algorithm=algorithm, wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0, values=values
    )


def cut(pace: Pace, draws: int, steps: int, kept_of: int) -> list[int]:
    """The draws of each update of a round in which every draw keeps so many rollouts."""
    pace.begin(draws, steps)
    sizes = []
    while size := pace.next():
        sizes.append(size)
        pace.took(size, size * kept_of)
    assert sum(sizes) == draws
    return sizes


def test_without_a_word_of_the_algorithm_a_round_is_one_update() -> None:
    for name in ("ddpo", "dpo", "dpok"):
        assert cut(pace_of(config(name)), 48, 20, 5) == [48]
    assert cut(pace_of(config("pg", updates_per_round="none")), 48, 20, 5) == [48]


def test_pg_takes_a_step_on_each_sample_of_its_policy() -> None:
    assert cut(pace_of(config("pg")), 48, 20, 5) == [1] * 48  # vanilla: 100 transitions are one draw
    for steps, kept in ((14, 5), (17, 5), (20, 2), (14, 2), (14, 1)):
        pace = pace_of(config("pg"))
        for number in range(3):
            sizes = cut(pace, 48, steps, kept)
            brought = [sum(sizes[: i + 1]) * steps * kept for i in range(len(sizes))]
            met = [abs(total - 100 * (i + 1)) <= steps * kept / 2 for i, total in enumerate(brought[:-1])]
            assert all(met if number else met[1:])  # the first round begins with a guess
            assert 48 * steps * kept / len(sizes) == pytest.approx(100, rel=0.1)


def test_two_updates_a_round_are_twice_the_draws() -> None:
    assert cut(pace_of(config("pg", updates_per_round=2)), 48, 20, 5) == [2] * 24


def test_where_steps_are_equal_draws_are_split_evenly() -> None:
    sizes = cut(pace_of(config("pg", equal="steps", optimizer_steps=10)), 48, 14, 2)
    assert len(sizes) == 10
    assert max(sizes) - min(sizes) <= 1
    assert cut(pace_of(config("pg", equal="steps", optimizer_steps=48)), 6, 14, 2) == [1] * 6


def test_a_round_ends_whatever_is_kept() -> None:
    for kept in (0, 1):
        sizes = cut(pace_of(config("pg", transitions_per_step=7)), 13, 3, kept)
        assert sizes
    sizes = cut(pace_of(config("pg", transitions_per_step=60)), 10, 20, 1)
    assert all(last >= size / 2 for size, last in pairwise(sizes))  # no update of a remainder


def test_an_update_that_fp16_skipped_has_had_its_sample() -> None:
    """The next one begins with a sample of its own, and not with what is missing to two of them."""
    pace = Pace(1, 2560, None, 5)
    pace.begin(256, 20)
    sizes = []
    while size := pace.next():
        sizes.append(size)
        pace.took(size, size * 5)  # whether a step followed is the loss scale's affair
    assert min(sizes) >= 24


def test_steps_of_a_round_that_are_equal_are_so_in_its_updates_too() -> None:
    for updates in (1, 2, 48):
        config("ddpo", equal="steps", updates_per_round=updates)
    for updates in (5, 64, 96):
        with pytest.raises(UserError, match="no whole number of updates"):
            config("ddpo", equal="steps", updates_per_round=updates)


def test_each_process_has_a_draw_of_every_update() -> None:
    """Also after one of which nothing was kept, and of what is left of a round."""
    for kept in (0, 1, 5):
        for draws in (3, 7, 48):
            pace = pace_of(config("pg", transitions_per_step=700), processes=3)
            assert min(cut(pace, draws, 20, kept)) >= 3


def test_what_a_draw_brings_is_remembered_over_rounds() -> None:
    pace = pace_of(config("pg"))
    assert cut(pace, 48, 14, 2)[0] == 1  # as if all five rollouts were kept, for 70 transitions
    assert pace.kept == 2
    assert cut(pace, 48, 14, 2)[0] == 4  # 28 of a draw


def test_more_processes_than_an_update_has_draws_are_refused() -> None:
    pg = config("pg")
    assert pg.settings.draws_per_update == 1
    with pytest.raises(
        UserError, match=r"2 processes are too many for pg.*try at most 1, or more transitions_per_step"
    ):
        check_shares(pg, 2)
    check_shares(pg, 1)
    check_shares(config("ddpo"), 2)
    check_shares(config("pg", transitions_per_step=400), 2)
