"""Human preference tests in a report: a section for each, as grids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from b2bench.leaderboard.grid import Cell, Column, Grid, Section, number
from b2bench.leaderboard.preferences import FEW_RATERS, MIN_RATERS, MIN_REPEATS, Checks, Preferences, preferences
from b2bench.leaderboard.selection import CELL_KEYS, CONTEXT_KEYS
from b2bench.leaderboard.stats import Estimate

from b2bench.text import visible

Row = Mapping[str, Any]
REASONS = {"": "kept", "identical": "left out by identical images", "repeats": "left out by repeats"}
RULE = (
    "left out by identical images: who preferred one of them on more than half of those checks, of at least 2",
    f"left out by repeats: who contradicted every repeated comparison, of at least {MIN_REPEATS}",
    "contradicted: another image was preferred than before, with the places changed; a change from or to no preference "
    "is none",
)


def polls_with_votes(polls: Iterable[Row], votes: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    """Each preference test that has votes, with them."""
    of_poll: dict[str, list[Row]] = defaultdict(list)
    for vote in votes:
        of_poll[vote["poll_id"]].append(vote)
    return [(poll, of_poll[poll["poll_id"]]) for poll in polls if of_poll[poll["poll_id"]]]


def fits(poll: Row, where: Mapping[str, set[str]]) -> bool:
    """Whether a test is of what ``where`` asks for; a test is shown whole if one of its cells fits."""
    of_test = {name: key for name, key in CONTEXT_KEYS.items() if key in ("benchmark_version", "backbone", "prompts")}
    if any(str(poll[key]) not in where[name] for name, key in of_test.items() if name in where):
        return False
    asked = {name: where[name] for name in (*CELL_KEYS, *CONTEXT_KEYS) if name in where and name not in of_test}
    if not asked:
        return True
    return any(all(str(cell.get(name)) in values for name, values in asked.items()) for cell in _cells_of(poll))


def _cells_of(poll: Row) -> list[Row]:
    """Return what a test says of its cells; others may have written its row."""
    return [cell for cell in poll["cells"].values() if isinstance(cell, Mapping)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def vote_sections(
    polls: Iterable[Row], votes: Iterable[Row], where: Mapping[str, set[str]] | None = None
) -> list[Section]:
    """Make a section of every preference test with votes, from rows of ``Store.ballots``."""
    return [
        section(poll, preferences(poll, rows))
        for poll, rows in polls_with_votes(polls, votes)
        if fits(poll, where or {})
    ]


def section(poll: Row, found: Preferences) -> Section:
    """Return the tables of one test: cells, pairs, and what the checks left out."""
    prompts = visible(poll["prompts"]) + (f" ({visible(poll['prompts_hash'])[:8]})" if poll["prompts_hash"] else "")
    title = " · ".join(
        (
            f"Human preferences, test {visible(found.poll_id)}",
            f"benchmark version {visible(poll['benchmark_version'])}",
            visible(poll["backbone"]),
            prompts,
        )
    )
    repeats = sum(checks.repeats for checks in found.checks if not checks.reason)
    alike = sum(checks.alike for checks in found.checks if not checks.reason)
    facts = [
        f"“{visible(poll['question'])}”",
        f"{found.raters} raters" + (f" and {len(found.left_out)} left out" if found.left_out else ""),
        f"{found.votes:,} answers to {found.comparisons} comparisons",
    ]
    seeds = sorted({seed for cell in _cells_of(poll) for seed in _list(cell.get("seeds")) if isinstance(seed, int)})
    if seeds:
        facts.append(f"runs of seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    if found.same is not None:
        facts.append(f"two raters agree on {found.same:.0%}; Krippendorff's alpha {number(found.alpha, 2)}")
    if repeats:
        facts.append(f"repeats answered as before: {alike / repeats:.0%} of {repeats}")
    notes = []
    if len(seeds) < 2:
        notes.append("images of one training seed: they say nothing of the cells' other runs")
    if found.raters < MIN_RATERS:
        notes.append(f"fewer than {MIN_RATERS} raters: no intervals")
    elif found.raters < FEW_RATERS:
        notes.append(f"fewer than {FEW_RATERS} raters: bootstrap intervals are too narrow")
    return Section(title, tuple(facts), tuple(notes), (_cells(found), _pairs(found), _checks(found)))


def _bounds(value: Estimate, digits: int = 3, sign: bool = False, kind: str = "") -> Cell:
    """Return a number with its interval, which need not be symmetric."""
    text = number(value.mean, digits, sign)
    if value.low is not None:
        text += f" [{number(value.low, digits, sign)}, {number(value.high, digits, sign)}]"
    return Cell(text, value, value.mean, kind)


def _cells(found: Preferences) -> Grid:
    columns = (
        Column("cell", right=False),
        Column("preferred"),
        Column("score"),
        Column("chosen", keep=5),
        Column("shown", keep=4),
    )
    ordered = sorted(found.cells, key=lambda cell: -(cell.score.mean or 0.0))
    rows = [
        (
            Cell(cell.cell),
            _bounds(cell.rate),
            _bounds(cell.score, 2, sign=True),
            Cell(f"{cell.chosen:,}", sort=cell.chosen),
            Cell(f"{cell.shown:,}", sort=cell.shown),
        )
        for cell in ordered
    ]
    if rows:
        ties = round((found.ties.mean or 0.0) * found.votes)
        shown = Cell(f"{found.votes:,}", sort=found.votes)
        rows.append(
            (
                Cell("no preference", kind="reference"),
                _bounds(found.ties),
                Cell("-"),
                Cell(f"{ties:,}", sort=ties),
                shown,
            )
        )
    legend = (
        "preferred: share of the answers to comparisons that showed the cell",
        "score: Bradley-Terry, in log-odds with mean 0: of two cells one is preferred with 1 / (1 + exp(−difference)); "
        "no preference counts as an equal share for each image shown, and one such answer is added for each pair",
        "[ ]: 95% interval, bootstrap over raters, given these images",
    )
    return Grid("votes", "Preferences of raters", columns, tuple(rows), legend if rows else ("no answers are left",))


def _pairs(found: Preferences) -> Grid:
    columns = (
        Column("pair", right=False),
        Column("prefer the first"),
        Column("no preference", keep=6),
        Column("answers", keep=5),
    )

    def share(differs: bool | None, value: Estimate) -> Cell:
        above = (value.mean or 0.0) > 0.5
        return _bounds(
            value, kind="" if differs is None else "inconclusive" if not differs else "gain" if above else "loss"
        )

    rows = tuple(
        (
            Cell(f"{pair.first} over {pair.second}"),
            share(pair.differs, pair.share),
            Cell(f"{pair.ties:,}", sort=pair.ties),
            Cell(f"{pair.votes:,}", sort=pair.votes),
        )
        for pair in found.pairs
    )
    legend = ["prefer the first: share of answers for one of the two; no preference counts as a half"]
    if any(pair.differs is not None for pair in found.pairs):
        unclear = [f"{pair.first} over {pair.second}" for pair in found.pairs if pair.differs is False]
        of = f"5% / {len(found.pairs)} pairs" if len(found.pairs) > 1 else "5%"
        legend.append(
            f"by a sign-flip test over raters at {of}, "
            + (f"not told apart: {', '.join(unclear)}" if unclear else "every pair differs from a half")
        )
    return Grid("votes_pairs", "Pairs", columns, rows, tuple(legend) if rows else ())


def _checks(found: Preferences) -> Grid:
    columns = (
        Column("raters", right=False),
        Column("number"),
        Column("answers"),
        Column("identical images preferred", keep=7),
        Column("repeats contradicted", keep=6),
    )

    def row(name: str, members: Sequence[Checks]) -> tuple[Cell, ...]:
        votes, chose, identical = (sum(getattr(c, key) for c in members) for key in ("votes", "chose", "identical"))
        contradicted, repeats = (sum(getattr(c, key) for c in members) for key in ("contradicted", "repeats"))
        return (
            Cell(name),
            Cell(str(len(members)), sort=len(members)),
            Cell(f"{votes:,}", sort=votes),
            Cell(f"{chose}/{identical}", sort=chose),
            Cell(f"{contradicted}/{repeats}", sort=contradicted),
        )

    rows = tuple(
        row(text, members) for key, text in REASONS.items() if (members := [c for c in found.checks if c.reason == key])
    )
    ids = ", ".join(visible(checks.rater)[:8] for checks in found.left_out)
    legend = (*RULE, f"left out: {ids}") if ids else RULE
    return Grid("votes_checks", "What the checks left out", columns, rows, legend)
