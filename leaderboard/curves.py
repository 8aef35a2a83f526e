"""How training went, as small multiples: a figure for each algorithm, with the same axes.

The line is the mean reward of the images that every round drew: it costs nothing and has many points. The dots are
evaluations, on test prompts and from fixed noise, with their standard error. The two are of other prompts, so a line
need not run through its dots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from b2bench.leaderboard.cells import wrapper_order
from b2bench.leaderboard.grid import count
from b2bench.leaderboard.matrix import axis, mean_rewards, most
from b2bench.leaderboard.rows import Curve, Tables

WRAPPER_COLOURS = {"vanilla": "#555555", "bpt": "#e69f00", "bs": "#009e73", "b2": "#0072b2"}
OTHERS = ("#cc79a7", "#56b4e9", "#d55e00", "#8c564b", "#bcbd22", "#17becf")
STYLES = ("-", "--", ":", "-.")

WITHIN = 6
"""Lines whose names have room within the axes"""
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 7, "handlelength": 3.4, "columnspacing": 0.9}

LEARNING = "learning of "
"""How the names of these figures begin."""

Name = tuple[str, str, str]


def learning_makers(group: Tables) -> dict[str, Callable[[], Any]]:
    """Return what makes a matplotlib figure for each algorithm that has curves, by its name; all have the same axes."""
    metric = group.head.context.reward
    cells: dict[Name, list[Curve]] = {}
    for curve in group.curves:
        if len(curve.rewards) > 1 or len(curve.queries) > 1:
            cells.setdefault((curve.algorithm, curve.wrapper, curve.label), []).append(curve)
    if not cells:
        return {}
    every = [curve for curves in cells.values() for curve in curves]
    shown = [end for curve in every for end in _ends(curve, metric)]
    shown += [value for curves in cells.values() for value in _line(curves)[1]]
    known = [error for curve in every for error in curve.errors if math.isfinite(error)]
    limits = axis(most(shown), float(np.median(known)) if known else None)
    last = max((x for curve in every for x in (*curve.rounds, *curve.queries)), default=1.0)
    colours = _colours(sorted({wrapper for _, wrapper, _ in cells}, key=wrapper_order))
    names = sorted({algorithm for algorithm, _, _ in cells})
    return {
        algorithm: partial(
            _panel, group, algorithm, {n: c for n, c in cells.items() if n[0] == algorithm}, colours, limits, last
        )
        for algorithm in names
    }


def _ends(curve: Curve, metric: str) -> list[float]:
    """Both ends of the error bar of each evaluation, or the value where its error isn't known."""
    values = curve.values.get(metric, ())
    errors = [error if math.isfinite(error) else 0.0 for error in curve.errors] or [0.0] * len(values)
    # without values of this metric there are no ends, however many evaluations have an error
    return [value + sign * error for value, error in zip(values, errors, strict=False) for sign in (-1, 1)]


def _colours(wrappers: Sequence[str]) -> dict[str, str]:
    others = [name for name in wrappers if name not in WRAPPER_COLOURS]
    return WRAPPER_COLOURS | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def _line(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    known = [curve for curve in curves if len(curve.rewards) > 1]
    return mean_rewards(known) if known else ([], [])


def _panel(
    group: Tables,
    algorithm: str,
    cells: dict[Name, list[Curve]],
    colours: dict[str, str],
    limits: tuple[float, float],
    last: float,
) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.7, 2.6))
    figure.subplots_adjust(left=0.17, bottom=0.18, right=0.97, top=0.9)
    axes = figure.add_subplot()
    metric, labels = group.head.context.reward, sorted({label for _, _, label in cells})
    for (_, wrapper, label), curves in sorted(cells.items(), key=lambda item: (wrapper_order(item[0][1]), item[0])):
        style = STYLES[labels.index(label) % len(STYLES)]
        name = wrapper if wrapper != "-" else algorithm
        _draw(axes, f"{name} {label}".strip(), curves, metric, colours[wrapper], style)
    if group.head.start is not None:
        axes.axhline(group.head.start, color="0.5", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.set_ylim(*limits)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: count(value))
    axes.set_title(_plain(algorithm), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("reward queries", fontsize=8)
    axes.set_ylabel(_plain(metric), fontsize=8)
    axes.tick_params(labelsize=8)
    handles, names = axes.get_legend_handles_labels()
    if len(handles) <= WITHIN:
        columns = 2 if max(map(len, names), default=0) <= 14 else 1
        axes.legend(ncols=columns, loc="upper left", **LEGEND)
    else:
        _legend_below(figure, handles, names)
    return figure


def _legend_below(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Name the lines below the axes, which keep their size."""
    columns = 2 if max(map(len, names)) <= 24 else 1
    (width, height), more = figure.get_size_inches(), 0.15 * math.ceil(len(names) / columns) + 0.1
    bottom, top = figure.subplotpars.bottom * height + more, figure.subplotpars.top * height + more
    figure.set_size_inches(width, height + more)
    figure.subplots_adjust(bottom=bottom / (height + more), top=top / (height + more))
    figure.legend(handles, names, ncols=columns, loc="lower left", bbox_to_anchor=(0.02, 0.0), **LEGEND)


def _draw(axes: Any, name: str, curves: Sequence[Curve], metric: str, colour: str, style: str) -> None:
    """The mean over runs: a line of training rewards, dots of evaluations with their standard error."""
    from b2bench.leaderboard.lines import draw_lines

    queries, rewards = _line(curves)
    if len(curves) > 1:
        draw_lines(axes, ((c.rounds, c.rewards) for c in curves), color=colour, linewidth=0.4, alpha=0.3)
    line = axes.plot(queries, rewards, color=colour, linewidth=1.5, linestyle=style)[0] if rewards else None
    shared = sorted(set.intersection(*(set(curve.queries) for curve in curves)))
    points, bars = [], []
    for at in shared:
        places = [curve.queries.index(at) for curve in curves]
        values = [c.values.get(metric, (math.nan,) * len(c.queries))[i] for c, i in zip(curves, places, strict=True)]
        errors = [c.errors[i] if c.errors else math.nan for c, i in zip(curves, places, strict=True)]
        points.append(float(np.mean(values)))
        # all runs draw the same test images, so more seeds don't make this error smaller
        bars.append(float(np.mean(errors)))
    known = [bar if math.isfinite(bar) else 0.0 for bar in bars]
    axes.errorbar(
        shared, points, yerr=known, fmt="o", color=colour, markersize=4, elinewidth=1, capsize=2,
        label=_plain(name) if line is None else None,
    )  # fmt: skip
    if line is not None:
        line.set_label(_plain(name))


def _plain(text: str, longest: int = 40) -> str:
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")
