"""Columns of a report's tables: how a row is named, and which columns a table shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from b2bench.leaderboard.cells import CONTROLS, REFERENCES
from b2bench.leaderboard.grid import ALWAYS, Cell, Column, Grid, measured
from b2bench.leaderboard.rows import INCEPTION, Head, Tables

KEEP = {
    "rank": 8,
    "held-out": 8,
    "headroom": 6,
    "style entropy (nats)": 7,
    "style entropy (nats), change": 7,
    "style entropy (nats), matched": 7,
    "denoiser calls": 6,
    "optimizer steps": 5,
    "forward-equivalents": 5,
    "success": 6,
    "distance within a prompt": 5,
    "distance within a prompt, change": 5,
    "distance within a prompt, matched": 5,
    "queries to target": 5,
    **{f"{metric}{what}": 4 for metric in INCEPTION for what in ("", ", change", ", matched")},
    "held-out gain": 3,
    "against vanilla": 4,
    "rounds": 3,
    "area of gain": 7,
    "median": 3,
    "mean of the others": 4,
    "below the start": 4,
    "at the end": 3,
    "method": 4,
    "noise of images": 2,
    "spread of seeds": 2,
    "images needed": 2,
    "error of prompts": 2,
    "least effect": 3,
    "queries there": 3,
    "held-out \u2212 vanilla": 3,
    "diversity \u2212 vanilla": 2,
    "queries": 2,
    "queries an image": 2,
}
"""Which columns go first where a terminal is narrow: the lowest; a column that is not named stays."""
TEXTS = ("verdict", "in words", "contrast", "method")
"""Columns that are read, not compared."""


def name_cell(row: Any) -> Cell:
    """Name an algorithm under a wrapper, with what tells its settings apart."""
    parts = [algorithm_name(row.algorithm), "" if row.wrapper == "-" else wrapper_name(row.wrapper), row.label]
    return Cell(" ".join(filter(None, parts)), kind="reference" if getattr(row, "reference", False) else "")


def algorithm_name(name: str) -> str:
    """Name an algorithm, and say of an upper reference that it is one."""
    return f"{name} (upper reference)" if name in REFERENCES else name


def wrapper_name(name: str) -> str:
    """Name a wrapper, and say of a control that it is one."""
    return f"{name} (control)" if name in CONTROLS else name


def aside(group: Tables) -> str:
    """Say of the tests that are no claims, if there are any, over which Holm goes for them."""
    tested = any(
        test is not None and test.p is not None
        for row in group.compatibility
        for cell in row.cells
        if cell.wrapper in CONTROLS or row.algorithm in REFERENCES
        for test in (cell.gain, cell.delta)
    )
    return "; tests of controls and upper references are not among them, and Holm goes over them apart" * tested


def over(others: int, tuned: int, what: str = "") -> str:
    """Return what Holm goes over: "67 claims", or of two families "56 claims on the plan's cells or 67 on others"."""
    if not tuned or not others:
        return f"{tuned or others} {what}".rstrip()
    return f"{f'{tuned} {what}'.rstrip()} on the plan's cells or {others} on others"


def claimed(head: Head) -> str:
    """Return how many claims Holm goes over, of each family."""
    return over(head.tests, head.tuned_tests, "claims")


def algorithm_cell(row: Any) -> Cell:
    """Name an algorithm with what tells its settings apart."""
    return Cell(f"{algorithm_name(row.algorithm)} {row.label}".strip())


def grid_of(
    key: str,
    title: str,
    columns: Sequence[tuple[str, Callable[[Any], Cell]]],
    rows: Sequence[Any],
    legend: Iterable[str] = (),
) -> Grid:
    """Return a table. Columns of which every row has nothing to say are left out; a table without rows has none."""
    if not rows:
        return Grid(key, title, (), (), tuple(legend))
    filled = [(name, [cell(row) for row in rows]) for name, cell in columns]
    shown = [(name, cells) for name, cells in filled if any(cell.text not in ("", "-") for cell in cells)]
    heads = tuple(
        Column(name, place > 0 and name not in TEXTS, KEEP.get(name, ALWAYS)) for place, (name, _) in enumerate(shown)
    )
    return Grid(key, title, heads, tuple(zip(*(cells for _, cells in shown), strict=True)), tuple(legend))


def seeds_cell(row: Any) -> Cell:
    """Count seeds, those that are lacking, and failed runs."""
    if getattr(row, "reference", False) and len(row.seeds) == 1:  # one measurement, and no training
        return Cell("-", sort=0)
    lacking = len(getattr(row, "lacking", ()))
    text = f"{len(row.seeds)} of {len(row.seeds) + lacking}" if lacking else str(len(row.seeds))
    return Cell(f"{text} ({row.failed}†)" if getattr(row, "failed", 0) else text, sort=len(row.seeds))


def measure_cell(measures: str, metric: str, digits: int = 3, sign: bool = False) -> Callable[[Any], Cell]:
    """Return what makes the cell of one measure of those that a row has by name."""
    return lambda row: measured(getattr(row, measures).get(metric), digits, sign)
