"""Titled grids of texts and numbers, and how a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from b2bench.leaderboard.rows import Context, Head
from b2bench.leaderboard.stats import Estimate

from b2bench.metrics import METRICS, of_kind

# the symbol says what the colour says
SYMBOLS: dict[str, str] = {
    "gain": "▲",
    "equivalent": "=",
    "mixed": "◇",
    "inconclusive": "≈",
    "loss": "▼",
    "untested": "?",
    "failed": "✗",
    "incomplete": "…",
    "not run": "·",
    "refused": "⊘",
}
MEASURES = {name: METRICS[name].described for name in of_kind("diversity")}
ALWAYS = 9
AREA_DIGITS = 4
"""Digits of an area of gain, the primary endpoint: some cells gain a few thousandths."""
OPEN = ("matrix", "learning", "compare", "gained", "lost", "differences")
"""Keys of the grids that a report shows at once, after its answers."""


@dataclass(frozen=True)
class Cell:
    """A text, and what it is of: ``estimate`` for files of numbers, ``sort`` to order by, ``kind`` to colour by.

    ``detectable``: the smallest difference that would have shown. ``note`` stands on a line of its own below the text.
    """

    text: str
    estimate: Estimate | None = None
    sort: float | None = None
    kind: str = ""
    detectable: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """``right`` aligns numbers. A narrow terminal leaves out the lowest ``keep`` first, and never ``ALWAYS``."""

    name: str
    right: bool = True
    keep: int = ALWAYS


@dataclass(frozen=True)
class Grid:
    """A table. ``key`` names it in files; ``legend`` explains what its cells say, or why there are no rows.

    A line of the legend that begins with a column's name and a colon is of that column alone. The first ``names``
    columns together name a row.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    legend: tuple[str, ...] = ()
    names: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure in files of its own: ``stem`` is their path without ``.svg`` or ``.pdf``."""

    caption: str
    stem: str


@dataclass(frozen=True)
class Answer:
    """A sentence that a report opens with: what it is about, what it says, and the ``kind`` that it is coloured by."""

    about: str
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """What belongs to one context: its head, what limits it, its tables, its figures where these are files.

    ``answers`` come first. In a section that has some, all grids but those of ``OPEN`` are folded.
    """

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    grids: tuple[Grid, ...]
    pictures: tuple[Picture, ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def opened(self) -> tuple[Grid, ...]:
        """The grids that are shown at once."""
        return tuple(grid for grid in self.grids if not self.answers or grid.key in OPEN)

    @property
    def folded(self) -> tuple[Grid, ...]:
        """The grids that are shown on demand."""
        return tuple(grid for grid in self.grids if self.answers and grid.key not in OPEN)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number at fixed digits, with a true minus sign; "-" for none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\u2212")


def count(value: float | None) -> str:
    """Return a count with its unit above ten thousand: 96k."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")  # so that 999,600 is 1M, and not 1,000k
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= 1e4 and rounded >= limit:
            return f"{rounded / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}"


def measured(value: Estimate | None, digits: int = 3, sign: bool = False) -> Cell:
    """Mean and half-width of the 95% interval, which Student's t makes symmetric."""
    if value is None or value.mean is None:
        return Cell("-", value)
    text = number(value.mean, digits, sign)
    if value.high is not None:
        text += f" ±{number(value.high - value.mean, digits)}"
    return Cell(text, value, value.mean)


def title(context: Context) -> str:
    """One line that names a context."""
    prompts = f"{context.prompts} ({context.prompts_hash[:8]})" if context.prompts_hash else context.prompts
    return " · ".join(
        [
            f"b2bench, benchmark version {context.benchmark_version}",
            context.backbone,
            f"reward {context.reward} {context.reward_settings}".rstrip(),
            prompts,
            "no training" if context.budget is None else f"{context.budget:,} reward queries",
        ]
    )


def facts(head: Head) -> tuple[str, ...]:
    """Return what the numbers of a context are of: seeds, the test set and its error, and inception scores' N and
    splits.
    """
    seeds = ", ".join(map(str, head.seeds)) or "none finished"
    images = " or ".join(f"{n:,}" for n in head.images) or "no"
    between = " or ".join(f"{n:,}" for n in head.between)
    found = [
        f"seeds {seeds}",
        f"test split, {images} images per evaluation" + (f", {between} between the first and the last" * bool(between)),
    ]
    if len(head.eval_seeds) == 1:
        found.append(f"one test set for all runs (eval_seed {head.eval_seeds[0]}): intervals over seeds are given it")
    if head.looks > 1:
        found.append(f"{head.looks} looks at these runs: each has a level of {head.alpha:g}")
    if head.error is not None:
        of = "the test set, which is in no interval" if head.eval_seeds else "an evaluation"
        found.append(f"standard error of {of}: {number(head.error)}")
    return (*found, *head.inception)
