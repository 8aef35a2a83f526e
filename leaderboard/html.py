"""A report as one HTML file that works offline: tables that sort, figures inside, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from b2bench.leaderboard.curves import LEARNING
from b2bench.leaderboard.document import document
from b2bench.leaderboard.drawn import written_figures
from b2bench.leaderboard.figures import figure_makers
from b2bench.leaderboard.glossary import explained, glossary
from b2bench.leaderboard.grid import SYMBOLS, Cell, Grid, Section
from b2bench.leaderboard.grids import SampleGrid, sample_grid
from b2bench.leaderboard.rows import Detail, Tables
from b2bench.leaderboard.written import NOTHING
from jinja2 import Environment, StrictUndefined


def html(
    tables: Sequence[Tables],
    heading: str = "b2bench report",
    samples: Sequence[Mapping[str, Any]] = (),
    runs: Path = Path("runs"),
    more: Sequence[Section] = (),
) -> str:
    """Return the whole file. Everything from the store is escaped; figures are images, in which no script runs.

    ``samples`` are rows of ``Store.samples``; the images that they name are in the run folders under ``runs``.
    ``more`` are sections that follow those of the tables: preference tests.
    """
    sections: list[Shown] = [
        (
            section,
            _figures(group),
            sample_grid(group, samples, runs),
            [_detail(detail) for detail in group.details],
            group.settings,
        )
        for section, group in zip(document(tables), tables, strict=True)
    ]
    return page(heading, [*sections, *(alone(section) for section in more)])


def alone(section: Section, samples: SampleGrid | None = None) -> Shown:
    """Return a section that has no figures and no runs' settings, as :func:`page` takes it."""
    return section, {"learning": {}, "others": {}}, samples, [], {}


def page(heading: str, sections: Sequence[Shown]) -> str:
    """Return the whole file from sections with their figures, samples, runs and common settings."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"heat": _heat, "symbol": lambda kind: SYMBOLS.get(kind, ""), "explained": explained}
    # Beside this file, which in a checkout is not a folder of the package.
    source = Path(__file__).with_name("templates").joinpath("report.html").read_text(encoding="utf-8")
    heads = " ".join(column.name for section, *_ in sections for grid in section.grids for column in grid.columns)
    return (
        environment.from_string(source)
        .render(heading=heading, sections=sections, nothing=NOTHING, words=glossary(heads), few=FEW)
        .lstrip()
    )


FEW = 6
"""Columns of a table that are shown at once."""
Shown: TypeAlias = tuple[
    Section, dict[str, dict[str, str]], SampleGrid | None, list[dict[str, object]], Mapping[str, str]
]


def _figures(group: Tables) -> dict[str, dict[str, str]]:
    """Return the small multiples of how training went, and the others, as base64 of SVG."""
    found: dict[str, dict[str, str]] = {"learning": {}, "others": {}}
    makers = figure_makers(group)
    for name, files in zip(makers, written_figures(list(makers.values())), strict=True):
        if files:
            part = "learning" if name.startswith(LEARNING) else "others"
            found[part][name] = base64.b64encode(files["svg"]).decode()
    return found


def _heat(cell: Cell, grid: Grid) -> str:
    """How much a cell is coloured, 0 to 1: its size among those of the table."""
    sizes = [abs(other.sort) for row in grid.rows for other in row if other.sort is not None]
    return f"{abs(cell.sort or 0.0) / (max(sizes, default=0.0) or 1.0):.2f}"


def _detail(detail: Detail) -> dict[str, object]:
    return vars(detail) | {"failed": sum(status == "failed" for _, _, status, _ in detail.runs)}
