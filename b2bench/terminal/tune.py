"""What a terminal shows of a tuning: what it will cost, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from b2bench.leaderboard.tuning import BEST_OF, TuningRow
from b2bench.tuning.stages import SEEDS, Plan, brief


def cost_rows(plans: Sequence[Plan], throughput: float | None) -> list[dict[str, Any]]:
    """Return what the tuning of each cell takes: runs, reward queries, and hours, the least and the most.

    Hours are those of ``b2bench estimate``, at ``throughput`` denoiser calls a second or the one that it assumes.
    """
    from b2bench.estimate.calls import assumed_throughput, check_throughput, count_calls, follows_reward, hours
    from b2bench.estimate.footprint import measure

    check_throughput(throughput)
    found = []
    for cell in plans:
        config = replace(cell.config, queries=cell.jobs[0][0].config.queries)
        footprint = measure(config)
        speed = assumed_throughput(config, footprint) if throughput is None else throughput
        calls = count_calls(config).later
        how = {"checkpointing": config.settings.gradient_checkpointing, "reward_gradient": follows_reward(config)}
        least, most = hours(calls, footprint, speed, **how)
        first, second = cell.count, cell.second_runs
        found.append(
            {
                "algorithm": config.algorithm_name,
                "wrapper": config.wrapper_name,
                "searched": {one.name: [one.search.low, one.search.high] for one in cell.space},
                "configurations": first,
                "unknown": cell.unknown,
                "runs": first + second,
                "queries": (first + second) * config.queries,
                "hours": [(first + second) * least, (first + second) * most],
            }
        )
    return found


def cost_table(rows: Sequence[dict[str, Any]]) -> Group:
    """Return the cost of each cell, and of all."""
    table = _table("algorithm", "wrapper", "searched", "configurations", "runs", "queries", "hours", words=3)
    for row in rows:
        searched = ", ".join(
            f"{name.partition('.')[2]} {low:g} to {high:g}" for name, (low, high) in row["searched"].items()
        )
        numbers = (f"{row[name]:,}" for name in ("configurations", "runs", "queries"))
        table.add_row(row["algorithm"], row["wrapper"], searched, *numbers, _hours(row["hours"]))
    runs, queries = (sum(row[name] for row in rows) for name in ("runs", "queries"))
    total = [math.fsum(row["hours"][i] for row in rows) for i in (0, 1)]
    text = f"{runs:,} runs, {queries:,} reward queries, {_hours(total)} hours one after the other, an estimate: "
    return Group(table, Text(f"{text}see b2bench estimate for what it rests on"), Text())


def _hours(hours: Sequence[float]) -> str:
    low, high = (f"{value:,.1f}" for value in hours)
    return low if low == high else f"up to {high}"


def result_table(rows: Sequence[TuningRow]) -> Group:
    """Return what came of each cell, by the mean reward of the last two rounds of training."""
    chosen = _table("cell", "chosen", "tuned", "default", "n", "tuning queries", words=2)
    for row in rows:
        numbers = (_number(row.tuned_score), _number(row.default_score), str(len(row.default.trials)))
        values = f"{brief(row.chosen.values)} ({row.chosen.kind})"
        chosen.add_row(f"{row.algorithm} {row.wrapper}", values, *numbers, f"{row.queries:,}")
    several = [m for m in BEST_OF if any(row.best_of[m] is not None for row in rows)]
    tries = _table(
        "cell",
        *(f"{'best ' if i == 0 else ''}of {m}" for i, m in enumerate(several)),
        "collapsed",
        "below",
        words=1,
    )
    for row in rows:
        best_of = (_number(row.best_of[m]) for m in several)
        shares = (f"{count} of {row.configurations}" for count in (row.collapsed, row.below))
        tries.add_row(f"{row.algorithm} {row.wrapper}", *best_of, *shares)
    note = (
        "Scores are mean rewards of the last two rounds of training, on training prompts. tuned: mean of "
        f"{len(SEEDS)} seeds, which also chose it, so it flatters; n: seeds of the default. best of m: expected best "
        "score of m configurations with one seed. Collapsed or below their start: of the configurations, with that seed"
    )
    return Group(chosen, tries, Text(note, "dim"))


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _table(*headings: str, words: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(
            heading, justify="left" if i < words else "right", overflow="fold", no_wrap=i >= words or i == 0
        )
    return table
