"""Figures, drawn by matplotlib without a display. It is imported where a figure is drawn: it takes a second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from b2bench.leaderboard.openness import Profile

from b2bench.errors import UserError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all eyes
MARKERS = ("o", "s", "^", "D", "v", "P")


def check_png(path: Path) -> None:
    """Before the work: whether a figure can be written there.

    Raises:
        UserError: it is no name of a PNG file, or its folder does not exist.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: the figure is a PNG file, give it a name that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: the folder {path.parent} does not exist")


def draw_openness(profiles: Mapping[str, Profile], out: Path, title: str = "") -> None:
    """Share of the reward's variance that is open, against the steps to go, as PNG; a line per name, with intervals.

    Denoising runs from left to right: all T steps to go at the left, none at the right.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    steps = max(profile.num_steps for profile in profiles.values())
    taus = sorted({point.tau for profile in profiles.values() for point in profile.points} | {0, steps})
    for place, (name, profile) in enumerate(profiles.items()):
        points = [(p.tau, p.measures["open_share"]) for p in profile.points]
        points = [(tau, measure) for tau, measure in points if math.isfinite(measure.value)]
        shift = (place - (len(profiles) - 1) / 2) * 0.012 * steps  # or the bars of several would hide each other
        where = [tau + shift for tau, _ in points]
        values = [measure.value for _, measure in points]
        # A percentile interval need not hold its value, and a bar has no negative length.
        below = [max(0.0, m.value - m.low) if math.isfinite(m.low) else 0.0 for _, m in points]
        above = [max(0.0, m.high - m.value) if math.isfinite(m.high) else 0.0 for _, m in points]
        axes.errorbar(
            where,
            values,
            yerr=[below, above],
            label=name,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.5,
            elinewidth=1.2,
            capsize=3,
        )
    axes.set_xlim(steps * 1.04, -0.02 * steps)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(taus)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("steps to go at the branch point, tau")
    axes.set_ylabel("share of the reward's variance still open")
    if title:
        axes.set_title(title, fontsize=10)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(profiles) > 1:
        axes.legend(frameon=False)
    figure.savefig(out, format="png")
