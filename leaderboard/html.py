"""A report as one HTML file that works offline: tables that sort, figures inside, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.leaderboard.document import document
from b2bench.leaderboard.figures import report_figures, written_figure
from b2bench.leaderboard.grid import Section
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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    # Beside this file, which in a checkout is not a folder of the package.
    source = Path(__file__).with_name("templates").joinpath("report.html").read_text(encoding="utf-8")
    sections: list[tuple[Section, dict[str, str], SampleGrid | None, list[dict[str, object]]]] = [
        (section, _figures(group), sample_grid(group, samples, runs), [_detail(detail) for detail in group.details])
        for section, group in zip(document(tables), tables, strict=True)
    ]
    sections += [(section, {}, None, []) for section in more]
    return environment.from_string(source).render(heading=heading, sections=sections, nothing=NOTHING)


def _figures(group: Tables) -> dict[str, str]:
    return {
        name: base64.b64encode(written_figure(figure, "svg")).decode() for name, figure in report_figures(group).items()
    }


def _detail(detail: Detail) -> dict[str, object]:
    return vars(detail) | {"failed": sum(status == "failed" for _, _, status, _ in detail.runs)}
