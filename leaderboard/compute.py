"""Cells at equal compute: what each had when it had spent as many forward-equivalents as every other cell spent.

At equal queries a wrapper that trains on less costs less. A table of its own compares cells at equal cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from b2bench.leaderboard.cells import Cell, Run
from b2bench.leaderboard.rows import ComputeRow, Context
from b2bench.leaderboard.stats import estimate, gained, paired
from b2bench.leaderboard.variants import Variant, vanilla_of


def common_compute(cells: Sequence[Cell]) -> float | None:
    """Return the forward-equivalents that every whole run of these cells spent: the total of the cheapest one.

    None if the compute of one is not known, or if all spent the same.
    """
    runs = [run for cell in cells for run in cell.runs.values() if not run.failed]
    totals = [max(run.equivalents_at.values(), default=0) for run in runs]
    if not totals or min(totals) <= 0 or min(totals) == max(totals):
        return None
    return float(min(totals))


def compute_rows(
    context: Context, cells: Sequence[Cell], variants: Sequence[Variant], compute: float | None
) -> tuple[ComputeRow, ...]:
    """Return each cell at ``compute`` forward-equivalents, the best first; none without such a number."""
    if compute is None:
        return ()
    vanilla = vanilla_of(variants)

    def values(cell: Cell, seeds: Sequence[int]) -> list[float]:
        return [_at(cell, seed, context.reward, compute) for seed in seeds]

    rows = []
    for cell in cells:
        seeds, delta = cell.seeds, None
        if (other := vanilla.get(id(cell))) is not None and (shared := sorted(set(cell.runs) & set(other.runs))):
            delta = paired(values(cell, shared), values(other, shared))
        mine = values(cell, seeds)
        rows.append(
            ComputeRow(
                cell.algorithm,
                cell.wrapper,
                cell.label,
                estimate(mine),
                gained(mine, cell.start(context.reward, seeds)),
                estimate([_queries(cell.runs[seed], compute) for seed in seeds]),
                delta,
            )
        )
    return tuple(sorted(rows, key=lambda row: -math.inf if row.alignment.mean is None else row.alignment.mean)[::-1])


def _queries(run: Run, compute: float) -> float:
    """Return the queries at which a run had spent so much; nan for one that never did."""
    queries, spent = list(run.equivalents_at), list(run.equivalents_at.values())
    return float(np.interp(compute, spent, queries)) if spent and spent[-1] >= compute else math.nan


def _at(cell: Cell, seed: int, metric: str, compute: float) -> float:
    """Return the score at so much compute. A run that failed before has the value that counts for it."""
    run = cell.runs[seed]
    queries = _queries(run, compute)
    if run.failed and not math.isfinite(queries):
        return cell.final(metric, [seed])[0]
    return run.where(metric, queries) if math.isfinite(queries) else math.nan
