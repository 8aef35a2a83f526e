"""The leaderboard's rows: alignment, ranks, generalisation and diversity of each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from b2bench.leaderboard.cells import Cell, usual_ways
from b2bench.leaderboard.claims import gain as area_of_gain
from b2bench.leaderboard.collapse import collapses
from b2bench.leaderboard.contrasts import rank_ranges
from b2bench.leaderboard.headroom import headroom
from b2bench.leaderboard.rows import DIVERSITY, INCEPTION, Context, DiversityRow, GeneralisationRow, LeaderboardRow
from b2bench.leaderboard.stats import (
    MIN_SEEDS,
    Estimate,
    Paired,
    estimate,
    gained,
    over_optimised,
    paired,
    queries_to_target,
)

from b2bench.metrics import HELDOUT, SUCCESS

ROUNDING = 1e-12
"""What start + (end - start) may miss of end."""


def place(row: LeaderboardRow) -> tuple[bool, bool, float]:
    """Return what rows are ordered by. Those of too few seeds for an interval stand below: one lucky seed is not the
    best.

    Controls stand below all others.
    """
    mean = row.alignment.mean
    return not row.control, row.alignment.high is not None, -math.inf if mean is None else mean


def levels(context: Context, cells: Sequence[Cell]) -> tuple[float | None, float | None]:
    """``Head.target`` and ``Head.matched``, both gains over the start; None if no cell gains."""
    gains, reached = [], []
    for cell in cells:
        end, start = estimate(cell.final(context.reward, cell.seeds)), estimate(cell.start(context.reward, cell.seeds))
        if end.mean is not None and start.mean is not None:
            gains.append(end.mean - start.mean)
            reached.append(reached_by_all(context, cell))
    if not gains or max(gains) <= 0:
        return None, None
    # a cell that hardly gained would put the level at the pretrained model's, where all are alike
    return max(gains) / 2, min((gain for gain in reached if gain >= max(gains) / 4), default=None)


def reached_by_all(context: Context, cell: Cell) -> float:
    """Return the largest gain over its own start that every seed of the cell had somewhere, failed ones aside."""
    best = []
    for seed in (seed for seed in cell.seeds if not cell.runs[seed].failed):
        start = cell.start(context.reward, [seed])[0]
        had = [value - start for value in cell.runs[seed].curve(context.reward)[1]]
        best.append(max((gain for gain in had if math.isfinite(gain)), default=0.0))
    return min(best, default=0.0)


def first_with(context: Context, cell: Cell, seed: int, gain: float) -> float | None:
    """Return the queries at which a seed first had this gain over its own start, or None."""
    (start,) = cell.start(context.reward, [seed])
    if not math.isfinite(start):
        return None
    queries, values = cell.runs[seed].curve(context.reward)
    if 0 not in queries:
        queries, values = [0, *queries], [start, *values]
    return queries_to_target(queries, values, start + gain - ROUNDING)


def ranks_of(context: Context, cells: Sequence[Cell], alpha: float) -> dict[int, tuple[int, int] | None]:
    """Return the rank range by the cell's id, of the cells with three seeds or more that were evaluated as most were.

    Two cells are compared over the seeds that both have; none has a rank where one cell alone has values.
    """
    ways = usual_ways(cells)
    ranked = [cell for cell in cells if cell.ways == ways and len(cell.runs) >= MIN_SEEDS]
    if len(ranked) < 2:
        return {}
    ends = [dict(zip(cell.seeds, cell.final(context.reward, cell.seeds), strict=True)) for cell in ranked]
    starts = [cell.start(context.reward, cell.seeds) for cell in ranked]
    fell = [
        collapses(list(end.values()), start, cell.limit).fell
        for cell, end, start in zip(ranked, ends, starts, strict=True)
    ]
    ranges = rank_ranges(ends, alpha, fell)
    if sum(ranks is not None for ranks in ranges) < 2:
        return {}
    return {id(cell): ranks for cell, ranks in zip(ranked, ranges, strict=True)}


def generalisation_row(context: Context, cell: Cell) -> GeneralisationRow:
    seeds, metric = cell.seeds, context.reward
    unseen = gained(cell.final(metric, seeds), cell.start(metric, seeds))
    starts = {seed: cell.runs[seed].seen.get(0, {}).get(metric, math.nan) for seed in seeds}
    known = {cell.runs[seed].drawn: start for seed, start in starts.items() if math.isfinite(start)}
    ends = []
    for seed in seeds:
        run = cell.runs[seed]
        end = run.final(metric, seen=True)
        if run.failed and not math.isfinite(end):  # it counts with the pretrained model's score
            starts[seed] = end = known.get(run.drawn, math.nan)
        ends.append(end)
    seen = gained(ends, list(starts.values()))
    gap = paired(unseen.values, seen.values)
    return GeneralisationRow(cell.algorithm, cell.wrapper, cell.label, seen, unseen, gap)


def diversity_row(context: Context, cell: Cell, matched: float | None) -> DiversityRow:
    seeds = cell.seeds
    present = {metric for run in cell.runs.values() for at in run.values.values() for metric in at}
    measures = [metric for part in measures_of(present) for metric in part]

    gain = gained(cell.final(context.reward, seeds), cell.start(context.reward, seeds))
    places: dict[int, float | None] = {}
    for seed, run in cell.runs.items():
        # what was evaluated at its end alone (anybody's LoRA) has no value on the way there
        at = None if matched is None or 0 not in run.values else first_with(context, cell, seed, matched)
        if at is not None or (matched is not None and run.failed):
            places[seed] = at

    reached = len(places) == len(seeds) and any(at is not None for at in places.values())

    def at_match(metric: str) -> Estimate:
        """Of a failed run that never had it: what it counts with."""
        found = []
        for seed, at in places.items():
            found.append(cell.final(metric, [seed])[0] if at is None else cell.runs[seed].where(metric, at))
        return estimate(found)

    return DiversityRow(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        gain,
        {metric: gained(cell.final(metric, seeds), cell.start(metric, seeds)) for metric in measures},
        {metric: at_match(metric) for metric in measures} if reached else {},
    )


def leaderboard_row(
    context: Context,
    cell: Cell,
    oracle: float | None,
    target: float | None,
    ranks: tuple[int, int] | None,
    usual: bool = True,
) -> LeaderboardRow:
    seeds = cell.seeds
    alignment = cell.final(context.reward, seeds)

    def gain(metric: str) -> Paired:
        return gained(cell.final(metric, seeds), cell.start(metric, seeds))

    measures = measures_of({metric for run in cell.runs.values() for at in run.values.values() for metric in at})
    calls = [run.calls for run in cell.runs.values() if run.calls is not None]
    steps = [run.optimizer_steps for run in cell.runs.values() if run.optimizer_steps is not None]
    equivalents = [run.equivalents for run in cell.runs.values() if run.equivalents is not None]
    reached = [] if target is None else [first_with(context, cell, seed, target) for seed in seeds]
    trained, heldout = gain(context.reward), gain(HELDOUT)
    return LeaderboardRow(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        cell.config_hash,
        estimate(alignment),
        trained,
        headroom(alignment, cell.start(context.reward, seeds), oracle),
        estimate(cell.final(HELDOUT, seeds)),
        heldout,
        estimate(cell.final(SUCCESS, seeds)),
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[0]},
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[1]},
        seeds,
        cell.failed,
        sum(run.last for run in cell.runs.values()) / len(cell.runs),
        sum(calls) / len(calls) if len(calls) == len(cell.runs) else None,
        ranks=ranks,
        usual=usual,
        area=area_of_gain(context, cell),
        to_target=None if target is None else estimate([(context.budget or 0) if q is None else q for q in reached]),
        reached=sum(queries is not None for queries in reached),
        over_optimised=over_optimised(trained, heldout),
        control=cell.control,
        forward_equivalents=sum(equivalents) / len(equivalents) if len(equivalents) == len(cell.runs) else None,
        optimizer_steps=sum(steps) / len(steps) if len(steps) == len(cell.runs) else None,
        planned=cell.planned,
    )


def measures_of(present: set[str]) -> tuple[list[str], list[str]]:
    return [metric for metric in INCEPTION if metric in present], [m for m in DIVERSITY if m in present]


def reference_row(
    context: Context, pretrained: Mapping[int, Mapping[str, float]], oracle: float | None
) -> LeaderboardRow:
    """Return the pretrained model, over the test sets that it was measured on: one, unless noise was by seed or by
    choice.
    """
    seeds = tuple(sorted(pretrained))
    alignment = [pretrained[seed].get(context.reward, math.nan) for seed in seeds]

    def value(metric: str) -> Estimate:
        return estimate([pretrained[seed].get(metric, math.nan) for seed in seeds])

    inception, diversity = measures_of({metric for at in pretrained.values() for metric in at})
    return LeaderboardRow(
        "pretrained",
        "-",
        "",
        "",
        value(context.reward),
        None,
        headroom(alignment, alignment, oracle),
        value(HELDOUT),
        None,
        value(SUCCESS),
        {metric: value(metric) for metric in inception},
        {metric: value(metric) for metric in diversity},
        seeds,
        0,
        0.0,
        0.0,
        reference=True,
        forward_equivalents=0.0,
    )
