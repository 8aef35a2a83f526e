"""What a report shows after its answers: the matrix of gains, and how training went."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from b2bench.leaderboard.columns import algorithm_cell, aside, claimed, grid_of, name_cell, wrapper_name
from b2bench.leaderboard.grid import AREA_DIGITS, SYMBOLS, Cell, Grid, count, measured, number
from b2bench.leaderboard.rows import CompatibilityCell, CompatibilityRow, Curve, Tables
from b2bench.leaderboard.stats import MIN_SEEDS

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24
"""Characters of a curve in a terminal."""


def matrix(group: Tables) -> Grid:
    """Return algorithms by wrappers: what each cell gained over the pretrained model, and how it is to vanilla.

    Those under most wrappers come first, since the table is about these.
    """
    rows = sorted(group.compatibility, key=lambda row: -sum(cell.delta is not None for cell in row.cells))
    title = "Gain over the pretrained model"
    if not any(cell.delta is not None for row in rows for cell in row.cells):
        return grid_of("matrix", title, (), ())

    def gain(place: int) -> Callable[[CompatibilityRow], Cell]:
        return lambda row: _gain(row.cells[place])

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("algorithm", algorithm_cell),
        *((wrapper_name(cell.wrapper), gain(i)) for i, cell in enumerate(rows[0].cells)),
    ]
    cells = [cell for row in rows for cell in row.cells]
    legend = [
        "area of gain: the mean over the budget of the score above the start, ± half the 95% interval, which is "
        "of this one cell and not adjusted",
        f"colour and first symbol: the claim on it, at {100 * group.head.alpha:g}% after Holm over "
        f"{claimed(group.head)}{aside(group)}"
        if group.head.tests or group.head.tuned_tests
        else f"first symbol: the claim on it, which takes {MIN_SEEDS} seeds",
        ", ".join(
            f"{symbol} {name}"
            for name, symbol in SYMBOLS.items()
            if any(name in (cell.learned, cell.verdict) for cell in cells if name != "not run")
        ),
    ]
    some, total = group.head.straight
    if some:
        runs = "runs" if some == total else f"runs of {some} of {total} cells"
        legend.append(f"{runs} were evaluated at their start and end alone, so it is half of the gain at the end")
    if any(cell.baseline == "vanilla" for cell in cells):
        legend.append("Δ: the difference to vanilla, and its verdict")
    return grid_of("matrix", title, columns, rows, legend)


def _gain(found: CompatibilityCell) -> Cell:
    if found.gain is None or found.delta is None:
        return Cell(SYMBOLS[found.verdict], kind=found.verdict)
    value = measured(found.gain, AREA_DIGITS, sign=True)
    failed = f" {found.failed}†" if found.failed else ""
    note = ""
    if found.baseline == "vanilla" and found.delta.mean is not None:
        note = f"{SYMBOLS[found.verdict]} Δ{number(found.delta.mean, AREA_DIGITS, sign=True)}"
    text = f"{SYMBOLS[found.learned]} {value.text}{failed}"
    return Cell(text, found.gain, found.gain.mean, found.learned, found.gain_detectable, note)


def learning(group: Tables) -> Grid:
    """Return the training reward of each cell, round by round, as a line of characters: a mean over its seeds."""
    cells: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in group.curves:
        if len(curve.rewards) > 1:
            cells.setdefault((curve.algorithm, curve.wrapper, curve.label), []).append(curve)
    means = {name: mean_rewards(curves)[1] for name, curves in cells.items()}
    every = [value for values in means.values() for value in values]
    if not every:
        return grid_of("learning", "", (), ())
    low, high = axis(most(every))
    clipped = "; what lies below is drawn as the lowest bar" if min(every) < low else ""

    def line(name: tuple[str, str, str]) -> Cell:
        return Cell(sparkline(means[name], low, high))

    class Row:
        def __init__(self, name: tuple[str, str, str]) -> None:
            self.algorithm, self.wrapper, self.label = self.name = name

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("training reward by round", lambda row: line(row.name)),
        ("first", lambda row: Cell(number(means[row.name][0]), sort=means[row.name][0])),
        ("last", lambda row: Cell(number(means[row.name][-1]), sort=means[row.name][-1])),
        ("rounds", lambda row: Cell(count(len(means[row.name])), sort=len(means[row.name]))),
    ]
    legend = [
        "the reward of all images that each round drew, whether it trained on them or not, a mean over seeds; on "
        f"training prompts, as the policy changes; the lines run from {number(low)} to {number(high)}{clipped}"
    ]
    return grid_of("learning", "Training reward", columns, [Row(name) for name in cells], legend)


def mean_rewards(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """Return reward queries and the mean training reward over runs, as far as all of them came."""
    rounds = min(len(curve.rewards) for curve in curves)
    rewards = np.array([curve.rewards[:rounds] for curve in curves], dtype=np.float64)
    queries = np.array([curve.rounds[:rounds] for curve in curves], dtype=np.float64)
    return queries.mean(0).tolist(), rewards.mean(0).tolist()


def most(values: Sequence[float]) -> list[float]:
    """Leave out what lies far below the others: a run that collapsed would press all others into one line."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < 8:
        return finite
    low, high = np.percentile(finite, [25, 75])
    return [value for value in finite if value >= low - 3 * max(high - low, 1e-9)]


def axis(values: Sequence[float], error: float | None = None) -> tuple[float, float]:
    """Return the ends of an axis for these values, never so short that noise fills it.

    The least span is ten standard errors of an evaluation, or 5% of the values where the error isn't known.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    least = 10 * error if error is not None and error > 0 else 0.05 * max(abs(low), abs(high), 1e-6)
    room = max(0.05 * (high - low), (least - (high - low)) / 2)
    return low - room, high + room


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return values as bars between ``low`` and ``high``, at most ``WIDTH``; longer ones are averaged in parts."""
    parts = [
        part for part in np.array_split(np.asarray(values, dtype=np.float64), min(WIDTH, len(values))) if len(part)
    ]
    span = (high - low) or 1.0  # beyond the ends a bar is the lowest or the highest one
    places = [(float(part.mean()) - low) / span * (len(BARS) - 1) for part in parts]
    return "".join(BARS[max(0, min(len(BARS) - 1, round(place)))] for place in places)
