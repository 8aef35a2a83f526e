"""Human preferences: statistics against independent computations, what the checks drop, and how reports show them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from datetime import datetime
from math import exp
from typing import Any

import numpy as np
import pytest
from b2bench.leaderboard.html import html
from b2bench.leaderboard.preferences import agreement, bradley_terry, checks_of, preferences, sign_flip_p
from b2bench.leaderboard.terminal import render_sections
from b2bench.leaderboard.votes import fits, vote_sections
from b2bench.leaderboard.written import csv_text, latex, markdown
from rich.console import Console
from scipy.optimize import minimize

POLL: dict[str, Any] = {
    "poll_id": "poll-1",
    "made": datetime(2026, 1, 1),
    "benchmark_version": "3",
    "backbone": "pocket",
    "prompts": "template1",
    "prompts_hash": "abcdef0123",
    "eval_seed": 0,
    "seed": 0,
    "question": "Which one?",
    "cells": {
        "pretrained": {},
        "ddpo b2": {"algorithm": "ddpo", "wrapper": "b2", "reward": "clipscore", "budget": 1000, "seeds": [0, 1]},
    },
    "comparisons": {},
}


def vote(rater: str, comparison: str, shown: Sequence[str], chosen: str | None, **more: Any) -> dict[str, Any]:
    return {
        "poll_id": "poll-1",
        "rater": rater,
        "comparison": comparison,
        "kind": "cells",
        "repeat_of": None,
        "prompt": "a cat",
        "noise_index": 0,
        "shown": {str(place): name for place, name in enumerate(shown)},
        "chosen": chosen,
        "place": None if chosen is None else list(shown).index(chosen),
        "position": 0,
        "milliseconds": 900,
        **more,
    }


PAIR = ("pretrained", "ddpo b2")


def likelihood(wins: Any, sets: Any, times: Any, prior: float) -> Any:
    """The maximum of the log-likelihood, by a general optimiser that knows nothing of the model."""
    cells = len(wins)

    def loss(scores: Any) -> float:
        value = -float(wins @ scores)
        for members, n in zip(sets, times, strict=True):
            value += n * float(np.log(np.exp(scores[list(members)]).sum()))
        for i, j in itertools.combinations(range(cells), 2):
            value += prior * float(np.log(np.exp(scores[[i, j]]).sum()) - scores[[i, j]].mean())
        return value

    found = minimize(loss, np.zeros(cells), method="BFGS", options={"gtol": 1e-8}).x
    return found - found.mean()


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_scores_maximise_the_likelihood_of_pairs_and_triples(prior: float) -> None:
    draws = np.random.default_rng(1)
    sets = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 1, 2), (1, 2, 3)]
    times = draws.integers(5, 60, size=(3, len(sets))).astype(float)
    wins = np.zeros((3, 4))
    for row, column in np.ndindex(times.shape):
        members = list(sets[column])
        wins[row, members] += draws.multinomial(int(times[row, column]), draws.dirichlet(np.ones(len(members)) * 3))
    found = bradley_terry(wins, sets, times, prior)
    for row in range(3):
        assert found[row] == pytest.approx(likelihood(wins[row], sets, times[row], prior), abs=1e-4)


def test_two_cells_have_the_log_odds_and_who_always_wins_a_finite_score() -> None:
    wins, times = np.array([[30.0, 10.0]]), np.array([[40.0]])
    (scores,) = bradley_terry(wins, [(0, 1)], times, prior=0.0)
    assert scores[0] - scores[1] == pytest.approx(np.log(3))
    (scores,) = bradley_terry(np.array([[40.0, 0.0]]), [(0, 1)], times)
    assert scores[0] - scores[1] == pytest.approx(np.log(40.5 / 0.5))  # half a win is added to each


def test_the_bootstrap_covers_what_raters_of_known_preferences_prefer() -> None:
    """In 40 experiments of 12 raters; an interval at 95% that misses more than six times is not one."""
    truth, missed = {"a": -0.6, "b": 0.0, "c": 0.6}, 0
    draws = np.random.default_rng(3)
    for _ in range(40):
        votes = []
        for rater, (place, shown) in itertools.product(range(12), enumerate(itertools.permutations(truth, 2))):
            odds = exp(truth[shown[0]] - truth[shown[1]])
            chosen = shown[int(draws.random() > odds / (1 + odds))]
            votes.append(vote(f"{rater:08x}", str(place), shown, chosen))
        found = preferences(POLL | {"cells": dict.fromkeys(truth)}, votes, resamples=300)
        (last,) = [cell.score for cell in found.cells if cell.cell == "c"]
        assert last.low is not None
        assert last.high is not None
        missed += not last.low < truth["c"] < last.high
    assert missed <= 6


def test_agreement_of_krippendorffs_own_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), C: four observers, twelve units, nominal: 0.743."""
    observers = (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    )
    answers = [(str(unit), value) for row in observers for unit, value in enumerate(row.split()) if value != "."]
    same, alpha = agreement(answers)
    assert alpha == pytest.approx(0.743, abs=5e-4)
    assert same is not None
    assert agreement([("1", "a"), ("2", "b")]) == (None, None)  # nobody answered what another did
    assert agreement([("1", "a"), ("1", "a")]) == (1.0, None)  # without another answer chance has no meaning
    assert agreement([("1", None), ("1", None), ("2", "a"), ("2", "a")]) == (1.0, 1.0)


def repeated(rater: str, pairs: Sequence[tuple[str | None, str | None]]) -> list[dict[str, Any]]:
    """Comparisons, and their repeats with the places changed."""
    rows = []
    for place, (before, now) in enumerate(pairs):
        rows.append(vote(rater, str(place), PAIR, before))
        rows.append(vote(rater, f"again {place}", PAIR[::-1], now, kind="repeat", repeat_of=str(place)))
    return rows


def test_what_the_checks_leave_out() -> None:
    same = ("ddpo b2", "ddpo b2")
    identical = [vote("a", f"i{place}", same, "ddpo b2", kind="identical") for place in range(3)]
    none = [vote("a", f"n{place}", same, None, kind="identical") for place in range(3)]
    assert checks_of("a", [*identical, *none]).reason == ""  # half of them
    assert checks_of("a", [*identical, *none[:2]]).reason == "identical"
    assert checks_of("a", identical[:1]).reason == ""  # one is no habit
    changed = ("pretrained", "ddpo b2")
    assert checks_of("a", repeated("a", [changed] * 4)).reason == "repeats"
    assert checks_of("a", repeated("a", [changed] * 3)).reason == ""
    found = checks_of("a", repeated("a", [changed] * 4 + [("pretrained", None), (None, None)]))
    assert (found.reason, found.repeats, found.alike, found.contradicted) == ("", 6, 1, 4)
    lone = vote("a", "again", PAIR, "ddpo b2", kind="repeat", repeat_of="never answered")
    assert checks_of("a", [lone]).repeats == 0


def votes_of(raters: int, share: float = 0.75, each: int = 8) -> list[dict[str, Any]]:
    """Every rater prefers ``ddpo b2`` in ``share`` of the pairs, and once neither."""
    found = []
    for rater in range(raters):
        for place in range(each):
            chosen = PAIR[int((place + rater) % each < share * each)]
            found.append(vote(f"{rater:08x}", str(place), PAIR[:: 1 - 2 * (rater % 2)], chosen))
        found.append(vote(f"{rater:08x}", "tie", PAIR, None))
    return found


def test_rates_count_what_was_chosen_and_ties_are_a_row_of_their_own() -> None:
    clicker = [vote("ff" * 4, f"i{place}", ("pretrained",) * 2, "pretrained", kind="identical") for place in range(3)]
    clicker += [vote("ff" * 4, str(place), PAIR, "pretrained") for place in range(8)]
    found = preferences(POLL, [*votes_of(12), *clicker])
    assert (found.raters, found.votes, [checks.rater for checks in found.left_out]) == (12, 108, ["ff" * 4])
    rates = {cell.cell: cell.rate.mean for cell in found.cells}
    assert rates == pytest.approx({"pretrained": 2 / 9, "ddpo b2": 6 / 9})
    assert sum(rates.values()) + found.ties.mean == pytest.approx(1)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.votes, pair.ties, pair.differs) == ("ddpo b2", "pretrained", 108, 12, True)
    assert pair.share.mean == pytest.approx(6.5 / 9)
    first, second = (cell.score.mean for cell in found.cells)
    assert second - first == pytest.approx(np.log((6.5 * 12 + 0.5) / (2.5 * 12 + 0.5)))


def test_without_three_raters_there_is_no_interval_and_without_votes_no_section() -> None:
    found = preferences(POLL, votes_of(2))
    assert all(cell.score.low is None and cell.rate.low is None for cell in found.cells)
    assert found.pairs[0].differs is None
    (section,) = vote_sections([POLL], votes_of(2))
    assert section.notes == ("fewer than 3 raters: no intervals",)
    # who has left after a check, or was only shown checks, says nothing of the cells
    for more in (
        [vote("cc" * 4, "i", ("x", "x"), "x", kind="identical")],
        [vote("cc" * 4, "i", PAIR, None, kind="repeat")],
    ):
        found = preferences(POLL, [*votes_of(2), *more])
        assert (found.raters, found.pairs[0].differs, found.pairs[0].share.low) == (2, None, None)
    (section,) = vote_sections([POLL], votes_of(4))
    assert section.notes == ("fewer than 10 raters: bootstrap intervals are too narrow",)
    assert vote_sections([POLL], []) == []
    one = POLL | {"cells": {"pretrained": 1, "ddpo b2": {"seeds": [3]}}}
    (section,) = vote_sections([one], votes_of(12))
    assert section.notes == ("images of one training seed: they say nothing of the cells' other runs",)
    assert "runs of seed 3" in section.facts
    left_out = [vote("a" * 8, f"i{place}", ("x", "x"), "x", kind="identical") for place in range(3)]
    (section,) = vote_sections([POLL], left_out)
    assert section.grids[0].legend == ("no answers are left",)


def test_what_one_rater_saw_has_no_interval_however_many_there_are() -> None:
    votes = votes_of(12)
    votes.append(vote(votes[0]["rater"], "third", ("pretrained", "ddpo vanilla"), "ddpo vanilla"))
    found = preferences(POLL, votes)
    (third,) = [cell for cell in found.cells if cell.cell == "ddpo vanilla"]
    assert (third.rate.mean, third.rate.low, third.rate.n) == (1.0, None, 1)
    assert (third.score.low, third.score.n) == (None, 1)
    (pair,) = [pair for pair in found.pairs if "ddpo vanilla" in (pair.first, pair.second)]
    assert (pair.share.low, pair.differs) == (None, None)
    (known,) = [other for other in found.pairs if other is not pair]
    assert (known.share.n, known.share.low is None, known.differs is None) == (12, False, False)


def test_the_flips_of_a_few_raters_are_counted_one_by_one() -> None:
    assert sign_flip_p(np.array([2.0, 1.0, -0.5])) == 4 / 8  # 3.5, 2.5 and their negatives reach 2.5
    assert sign_flip_p(np.ones(5)) == 2 / 2**5
    assert sign_flip_p(np.zeros(4)) == 1.0
    assert sign_flip_p(np.ones(30)) == pytest.approx(1 / 20_000)  # the answers as they are, and none of those drawn


@pytest.mark.parametrize(("raters", "answers"), [(3, 1), (4, 16), (8, 16), (14, 9)])
def test_raters_who_prefer_nothing_are_seldom_said_to(raters: int, answers: int) -> None:
    """Of answers a fifth are ties, the others a coin's: at most 5% of tests may call the pair different."""
    draws = np.random.default_rng(1)
    found = [
        sign_flip_p(draws.choice([0.5, -0.5, 0.0], p=[0.4, 0.4, 0.2], size=(raters, answers)).sum(1)) <= 0.05
        for _ in range(400)
    ]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert any(found) or raters < 6  # of eight and fourteen some are


def test_three_raters_who_agree_show_no_pair() -> None:
    (pair,) = preferences(POLL, votes_of(3)).pairs
    assert (pair.share.low is not None, pair.differs) == (True, False)


def test_the_bootstrap_is_the_same_every_time() -> None:
    assert preferences(POLL, votes_of(5)) == preferences(POLL, votes_of(5))


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ({}, True),
        ({"prompts": {"template1"}, "version": {"3"}}, True),
        ({"prompts": {"template2"}}, False),
        ({"algorithm": {"ddpo"}, "budget": {"1000"}}, True),
        ({"wrapper": {"vanilla"}}, False),
    ],
)
def test_where_chooses_tests(where: dict[str, set[str]], shown: bool) -> None:
    assert fits(POLL, where) is shown


HOSTILE = "<script>alert(1)</script>|\x1b[31m$x$ {{7*7}}"


def test_every_format_shows_a_test_and_nothing_in_it_is_markup() -> None:
    poll = POLL | {"question": HOSTILE, "cells": {HOSTILE: {}, "ddpo b2": {}}}
    votes = [
        vote(f"{r:08x}", str(p), ("ddpo b2", HOSTILE), ["ddpo b2", HOSTILE][p % 2]) for r in range(3) for p in range(4)
    ]
    sections = vote_sections([poll], votes)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    render_sections(sections, console)
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    page = html([], more=sections)
    for text in (terminal, page, markdown(sections), latex(sections), csv_text(sections)):
        assert "poll-1" in text
        assert "Bradley-Terry" in text
        assert "\x1b" not in text
    assert "<script>alert" not in page
    assert "<script>alert" not in markdown(sections)
    assert "No runs yet" not in page
    assert "0.500 [" in terminal
