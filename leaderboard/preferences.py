"""Statistics of human preferences: what the checks leave out, rates, Bradley-Terry scores, agreement of raters.

The unit of replication is the rater: intervals are percentiles of a bootstrap that draws whole raters with replacement,
given the images that all of them saw. An answer is a choice of one of the images shown, or no preference. Of a repeated
comparison the first answer counts.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from b2bench.leaderboard.stats import Estimate
from numpy.typing import NDArray

from b2bench.text import visible

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
RESAMPLES = 2000
MIN_RATERS = 3
"""Fewer raters give rates and scores without intervals."""
FEW_RATERS = 10
"""Below so many, percentiles of a bootstrap are too narrow."""
EXACT, FLIPS = 12, 20_000
"""Up to so many raters a sign-flip test takes all flips, of more raters so many at random."""
MIN_REPEATS = 4
"""A rater is judged by repeats only if there are so many: an honest one without preferences may contradict some."""
TIE = None


@dataclass(frozen=True)
class Checks:
    """What a rater's checks say: counts of identical and of repeated comparisons, and of what was answered to them.

    ``chose`` counts identical images of which one was preferred, ``alike`` repeats that were answered as before,
    ``contradicted`` those where another image was preferred than before.
    """

    rater: str
    votes: int
    identical: int
    chose: int
    repeats: int
    alike: int
    contradicted: int

    @property
    def reason(self) -> str:
        """Why the rater is left out, "" if not. The rule is stated in docs/vote.md."""
        if self.identical >= 2 and self.chose > self.identical / 2:
            return "identical"
        if self.repeats >= MIN_REPEATS and self.contradicted == self.repeats:
            return "repeats"
        return ""


@dataclass(frozen=True)
class Preference:
    """A cell: how often it was preferred where it was shown, and its Bradley-Terry score in log-odds, with mean 0."""

    cell: str
    rate: Estimate
    score: Estimate
    chosen: int
    shown: int


@dataclass(frozen=True)
class Pair:
    """Two cells: the share of answers for ``first``, half a share for no preference, and whether it is not a half.

    ``differs`` is by a sign-flip test over raters at 5% divided by the number of pairs; None without intervals.
    ``votes`` are answers that tell the two apart or say that nothing does: of a triple, not those for the third.
    """

    first: str
    second: str
    share: Estimate
    ties: int
    votes: int
    differs: bool | None


@dataclass(frozen=True)
class Preferences:
    """What raters said in one preference test. ``alpha`` is Krippendorff's, of nominal answers.

    ``ties`` is the share of answers without a preference; ``same`` the share of pairs of raters that gave the same
    answer to a comparison. ``left_out`` are the checks of raters that count for nothing.
    """

    poll_id: str
    raters: int
    votes: int
    comparisons: int
    cells: tuple[Preference, ...]
    pairs: tuple[Pair, ...]
    ties: Estimate
    same: float | None
    alpha: float | None
    checks: tuple[Checks, ...]
    left_out: tuple[Checks, ...] = field(default=())


def preferences(poll: Row, votes: Iterable[Row], resamples: int = RESAMPLES) -> Preferences:
    """Make the statistics of a test from its row of ``polls`` and its rows of ``votes``."""
    of_rater: dict[str, list[Row]] = defaultdict(list)
    for vote in votes:
        of_rater[vote["rater"]].append(vote)
    checks = [checks_of(rater, rows) for rater, rows in sorted(of_rater.items())]
    kept = [
        found.rater  # one who left before the first comparison of cells says nothing of them
        for found in checks
        if not found.reason and any(vote["kind"] == "cells" for vote in of_rater[found.rater])
    ]
    answers = [[vote for vote in of_rater[rater] if vote["kind"] == "cells"] for rater in kept]
    names = list(dict.fromkeys([*(poll["cells"] or {}), *sorted({name for rows in answers for name in _seen(rows)})]))
    tally = _Tally(names, answers)
    rng = np.random.default_rng(abs(int(poll["seed"])))
    draws = None
    if len(kept) >= MIN_RATERS:
        draws = rng.multinomial(len(kept), [1 / len(kept)] * len(kept), size=resamples).astype(np.float64)
    same, alpha = agreement([(vote["comparison"], vote["chosen"]) for rows in answers for vote in rows])
    return Preferences(
        poll["poll_id"],
        len(kept),
        sum(map(len, answers)),
        len({vote["comparison"] for rows in answers for vote in rows}),
        tuple(tally.cell(place, draws) for place in range(len(names)) if tally.shown[:, place].any()),
        tuple(tally.pairs(draws)),
        _ratio(tally.ties, tally.answered, draws),
        same,
        alpha,
        tuple(checks),
        tuple(found for found in checks if found.reason),
    )


def checks_of(rater: str, rows: Sequence[Row]) -> Checks:
    """Count what a rater answered to the checks; a repeat of what was never answered is none."""
    first = {row["comparison"]: row["chosen"] for row in rows if row["kind"] == "cells"}
    identical = [row["chosen"] is not TIE for row in rows if row["kind"] == "identical"]
    again = [
        (row["chosen"], first[row["repeat_of"]])
        for row in rows
        if row["kind"] == "repeat" and row["repeat_of"] in first
    ]
    return Checks(
        rater,
        sum(row["kind"] == "cells" for row in rows),
        len(identical),
        sum(identical),
        len(again),
        sum(now == before for now, before in again),
        sum(now != before and TIE not in (now, before) for now, before in again),
    )


def _seen(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows for name in _shown(row)}


def _shown(row: Row) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in (row["shown"] or {}).values()}))


class _Tally:
    """Counts of answers per rater [R] and cell [R, K], and of the sets of cells that were shown."""

    def __init__(self, names: Sequence[str], answers: Sequence[Sequence[Row]]) -> None:
        self.names, place = names, {name: i for i, name in enumerate(names)}
        sets = sorted({tuple(place[name] for name in _shown(row)) for rows in answers for row in rows})
        self.sets = [found for found in sets if len(found) > 1]
        of_set = {found: i for i, found in enumerate(self.sets)}
        raters, cells = len(answers), len(names)
        self.chosen, self.shown = np.zeros((raters, cells)), np.zeros((raters, cells))
        self.wins, self.times = np.zeros((raters, cells)), np.zeros((raters, len(self.sets)))
        self.over = np.zeros((raters, cells, cells))  # [r, i, j]: i was chosen where j was shown, too
        self.even = np.zeros((raters, cells, cells))  # no preference where both were shown
        self.ties, self.answered = np.zeros(raters), np.zeros(raters)
        for rater, rows in enumerate(answers):
            for row in rows:
                here = tuple(place[name] for name in _shown(row))
                if here not in of_set:
                    continue
                members = list(here)
                self.answered[rater] += 1
                self.shown[rater, members] += 1
                self.times[rater, of_set[here]] += 1
                if row["chosen"] is TIE or row["chosen"] not in place:
                    self.ties[rater] += 1
                    self.wins[rater, members] += 1 / len(members)
                    self.even[rater][np.ix_(members, members)] += 1
                else:
                    winner = place[row["chosen"]]
                    self.chosen[rater, winner] += 1
                    self.wins[rater, winner] += 1
                    self.over[rater, winner, members] += 1
        self._scores: tuple[Floats, Floats | None] | None = None

    def scores(self, draws: Floats | None) -> tuple[Floats, Floats | None]:
        """Bradley-Terry scores [K], and those of every resample [B, K]."""
        if self._scores is None:
            point = bradley_terry(self.wins.sum(0)[None], self.sets, self.times.sum(0)[None])[0]
            drawn = None if draws is None else bradley_terry(draws @ self.wins, self.sets, draws @ self.times)
            self._scores = point, drawn
        return self._scores

    def cell(self, place: int, draws: Floats | None) -> Preference:
        point, drawn = self.scores(draws)
        n = int((self.shown[:, place] > 0).sum())
        return Preference(
            visible(self.names[place]),
            _ratio(self.chosen[:, place], self.shown[:, place], draws),
            _estimate(float(point[place]), None if drawn is None or n < MIN_RATERS else drawn[:, place], n),
            int(self.chosen[:, place].sum()),
            int(self.shown[:, place].sum()),
        )

    def pairs(self, draws: Floats | None) -> list[Pair]:
        """Every pair that was shown together, the one with the higher score first."""
        order = np.argsort(-self.scores(draws)[0], kind="stable").tolist()
        together = [
            (i, j)
            for i, j in itertools.combinations(order, 2)
            if (self.over[:, i, j] + self.over[:, j, i] + self.even[:, i, j]).sum() > 0
        ]
        found = []
        for i, j in together:
            whole = self.over[:, i, j] + self.over[:, j, i] + self.even[:, i, j]
            half = self.over[:, i, j] + self.even[:, i, j] / 2
            share = _ratio(half, whole, draws)
            differs = None if share.low is None else sign_flip_p(half - whole / 2) <= 0.05 / len(together)
            names = visible(self.names[i]), visible(self.names[j])
            found.append(Pair(*names, share, int(self.even[:, i, j].sum()), int(whole.sum()), differs))
        return found


def sign_flip_p(excess: Floats) -> float:
    """Two-sided p of Fisher's randomisation test (1935): each rater's ``excess`` [R] is answers beyond a half of them.

    The hypothesis is that each rater might as well have preferred the other as often, so that the sign of any excess
    could be the other one. It is exact for any number of answers a rater, where the percentiles of a bootstrap over
    five raters miss a half in one case of six. Five raters can show nothing at 5% (2 / 2^5).
    """
    moved = excess[excess != 0]
    if len(moved) <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(moved)))).reshape(2 ** len(moved), len(moved))
    else:  # with the answers as they are for one of them, so that no p is 0
        drawn = np.random.default_rng(0).choice((-1.0, 1.0), size=(FLIPS - 1, len(moved)))
        signs = np.concatenate([np.ones((1, len(moved))), drawn])
    flipped = np.abs(signs @ moved)
    return float((flipped >= np.abs(moved.sum()) - 1e-9).mean())


def _ratio(part: Floats, whole: Floats, draws: Floats | None) -> Estimate:
    """Sum of ``part`` over that of ``whole``, per rater [R], with its interval; none of fewer than three raters."""
    total, n = float(whole.sum()), int((whole > 0).sum())
    if total == 0:
        return Estimate(None, None, None, n)
    drawn = None
    if draws is not None and n >= MIN_RATERS:
        below = draws @ whole
        drawn = (draws @ part)[below > 0] / below[below > 0]  # a resample may lack everybody who saw the cell
    return _estimate(float(part.sum()) / total, drawn, n)


def _estimate(mean: float, drawn: Floats | None, n: int) -> Estimate:
    if drawn is None or not len(drawn):
        return Estimate(mean, None, None, n)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(mean, float(low), float(high), n)


def bradley_terry(wins: Floats, sets: Sequence[tuple[int, ...]], times: Floats, prior: float = 1.0) -> Floats:
    """Return scores s [B, K] with mean 0 that maximise sum_i wins_i s_i - sum_S times_S log sum_{i in S} exp s_i.

    P(i is chosen of S) = exp s_i / sum_{j in S} exp s_j, which is Bradley and Terry's model of pairs (1952) and
    Luce's choice (1959) of more. ``wins`` [B, K] counts choices, an answer without preference as 1 / |S| for each of
    its set; ``times`` [B, S] how often each of ``sets`` was shown. ``prior``: so many answers without preference to
    each pair are added, so that a cell that always won has a finite score. By Newton's method: the function is concave.
    """
    resamples, cells = wins.shape
    pairs = list(itertools.combinations(range(cells), 2)) if prior else []
    every = [*sets, *pairs]
    weights = np.concatenate([times, np.full((resamples, len(pairs)), prior)], axis=1)
    total = wins + prior * (cells - 1) / 2
    scores = np.zeros((resamples, cells))
    for _ in range(100):
        gradient, curvature = total.copy(), np.full((resamples, cells, cells), 1 / max(cells, 1))
        for place, members in enumerate(every):
            chosen = list(members)
            share = np.exp(scores[:, chosen] - scores[:, chosen].max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            n = weights[:, place, None]
            gradient[:, chosen] -= n * share
            inner = n[..., None] * (share[:, :, None] * np.eye(len(chosen)) - share[:, :, None] * share[:, None])
            curvature[np.ix_(range(resamples), chosen, chosen)] += inner
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0] if cells else gradient
        scores += np.clip(step, -2, 2)  # far from the maximum a whole step goes too far
        if np.abs(step).max(initial=0) < 1e-9:
            break
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def agreement(answers: Iterable[tuple[str, str | None]]) -> tuple[float | None, float | None]:
    """Return the share of pairs of raters with the same answer, and Krippendorff's alpha of (unit, answer).

    alpha = 1 - D_o / D_e with nominal answers, no preference being one: 1 is full agreement, 0 that of answers drawn by
    chance. Alpha and not Fleiss' kappa, which needs as many raters for every unit: raters stop when they like. None
    where no unit has two answers, or, of alpha, where all answers are equal.
    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    of_unit: dict[str, Counter[str | None]] = defaultdict(Counter)
    for unit, answer in answers:
        of_unit[unit][answer] += 1
    several = [counts for counts in of_unit.values() if counts.total() > 1]
    pairs = sum(counts.total() * (counts.total() - 1) for counts in several)
    if not pairs:
        return None, None
    same = sum(n * (n - 1) for counts in several for n in counts.values()) / pairs
    agreed = sum(sum(n * (n - 1) for n in counts.values()) / (counts.total() - 1) for counts in several)
    marginal = sum(several, Counter[str | None]())
    total = marginal.total()
    expected = total * (total - 1) - sum(n * (n - 1) for n in marginal.values())
    if expected == 0:
        return same, None
    alpha = 1 - (total - agreed) * (total - 1) / expected
    return same, alpha if math.isfinite(alpha) else None
