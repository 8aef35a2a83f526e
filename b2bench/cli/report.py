"""``b2bench report``."""

from __future__ import annotations

import json
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from b2bench.cli.garbage import unsearched
from b2bench.cli.options import DEFAULT_DB, AsJson, Db
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.errors import UserError
from b2bench.text import visible


class ReportFormat(StrEnum):
    """How a report is written."""

    terminal = "terminal"
    markdown = "markdown"
    html = "html"
    json = "json"
    csv = "csv"
    latex = "latex"


def report(
    db: Db = DEFAULT_DB,
    written_as: Annotated[ReportFormat, typer.Option("--format", help="Format of the report")] = ReportFormat.terminal,
    out: Annotated[
        Path | None, typer.Option(help="File to write; Markdown goes between the markers, if the file has them")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Show some runs only: algorithm=ddpo,pg; wrapper, prompts, reward, ..."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Area of gain within which two cells are equal  [a quarter of what vanilla gained]"),
    ] = None,
    looks: Annotated[
        int,
        typer.Option(help="2 if you look at these runs twice, with half of the seeds and with all: level .029 each"),
    ] = 1,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write the figures into, as SVG and PDF; Markdown and LaTeX show them")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the report")] = "",
    columns: Annotated[
        str,
        typer.Option(
            help="Of a written report: columns to show, such as rank,clipscore,headroom  [all of every table]"
        ),
    ] = "",
    standalone: Annotated[
        bool, typer.Option("--standalone", help="With --format latex: a whole document, not tables to \\input")
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder that holds the run folders, for sample images")] = Path("runs"),
    seeds: Annotated[
        str, typer.Option(help="Seeds that every cell should have, such as 0-4  [the seeds that any cell has]")
    ] = "",
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 if seeds or values lack, a run is not done or versions mix"),
    ] = False,
    tuning: Annotated[bool, typer.Option("--tuning", help="Show tuning runs, too, which are left out")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print the further tables in the terminal, too")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the runs in the store.

    It says what learned, what collapsed and what is open, and shows the gain of each cell and how training went.
    Further tables: leaderboard, verdicts, planned contrasts, compatibility, collapses, equal compute, generalisation
    and diversity.
    """
    from b2bench.describe.tables import tables_of
    from b2bench.leaderboard.selection import check_held, held, parse_where, problems, select
    from b2bench.leaderboard.votes import vote_sections
    from b2bench.store.store import Store
    from b2bench.sweep.plan import parse_seeds

    if as_json and written_as not in (ReportFormat.terminal, ReportFormat.json):
        raise UserError(f"--json and --format {written_as.value} are two formats; try one of them")
    conditions, planned = parse_where(where or []), parse_seeds(seeds) if seeds else []
    store = Store(db)
    with unsearched():
        every = tables_of(store, margin, planned, looks, tuning)
    check_held(every, conditions)
    found = select(every, conditions)
    votes = vote_sections(*store.ballots(), conditions)
    if every and not found:
        stderr().print(f"no run fits --where; {held(every)}", soft_wrap=True, markup=False)
    if found or votes or not every or written_as is not ReportFormat.terminal or as_json:
        form = ReportFormat.json if as_json else written_as
        wanted = [name.strip() for name in columns.split(",") if name.strip()]
        if form is ReportFormat.terminal and not wanted and not standalone:
            _print_report(found, votes, out, store, runs, figures, visible(title), everything)
        else:
            _write_report(found, votes, form, out, store, runs, figures, visible(title), wanted, standalone)
    if check and (wrong := problems(found)):
        for line in wrong:
            stderr().print(line, soft_wrap=True, markup=False)
        raise typer.Exit(1)


def _print_report(
    found: Any, votes: Any, out: Path | None, store: Any, runs: Path, figures: Path | None, title: str, everything: bool
) -> None:
    from b2bench.leaderboard.terminal import render, render_sections

    if out is not None:
        raise UserError("--out writes a file, which needs a format; try --format markdown, html, json, csv or latex")
    if figures is not None:
        _write_figures(found, ReportFormat.terminal, out, store, runs, figures)
    if title:
        stdout().print(title, style="bold", markup=False)
    if found or not votes:
        render(found, stdout(), everything)
    render_sections(votes, stdout())


def _write_report(
    found: Any,
    votes: Any,
    written_as: ReportFormat,
    out: Path | None,
    store: Any,
    runs: Path,
    figures: Path | None,
    title: str,
    columns: list[str],
    standalone: bool,
) -> None:
    from b2bench.leaderboard.document import document
    from b2bench.leaderboard.terminal import to_json

    if title and written_as in (ReportFormat.json, ReportFormat.csv):
        raise UserError(f"--title heads a page, and {written_as.value} has no place for it; try without --title")
    if columns and written_as not in (ReportFormat.markdown, ReportFormat.csv, ReportFormat.latex):
        raise UserError(f"--columns goes with --format markdown, csv or latex, not with {written_as.value}")
    if standalone and written_as is not ReportFormat.latex:
        raise UserError(f"--standalone goes with --format latex, not with {written_as.value}")
    pictures = [] if figures is None else _write_figures(found, written_as, out, store, runs, figures)
    if written_as is ReportFormat.json and out is None:
        print_json(to_json(found))
        return
    from b2bench.leaderboard import written

    if written_as is ReportFormat.html:
        from b2bench.leaderboard.html import html

        text = html(found, heading=title or "b2bench report", samples=store.samples(), runs=runs, more=votes)
    elif written_as is ReportFormat.json:
        text = json.dumps(to_json(found), indent=2, default=str, allow_nan=False) + "\n"
    else:
        sections = [*document(found, pictures), *votes]
        if columns:
            sections = written.with_columns(sections, columns)
        if written_as is ReportFormat.csv:
            text = written.csv_text(sections)
        elif written_as is ReportFormat.markdown:
            text = written.markdown(sections, title)
        else:
            text = written.latex(sections, title, standalone=standalone)
    if out is None:
        typer.echo(text, nl=False)
        return
    _write_file(out, text, between=written_as is ReportFormat.markdown)


def _write_figures(
    found: Any, written_as: ReportFormat, out: Path | None, store: Any, runs: Path, folder: Path
) -> list[list[Any]]:
    from b2bench.leaderboard.files import write_figures

    beside = Path() if out is None else out.parent
    if written_as is ReportFormat.latex and re.search(r"[^\w./ -]", os.path.relpath(folder, beside)):
        raise UserError(f"--figures {folder}: TeX reads characters of this name as commands; try another name")
    try:
        pictures = write_figures(found, folder, store.samples(), runs, beside)
    except OSError as error:
        raise UserError(f"--figures {folder} cannot be written: {error.strerror}") from None
    stderr().print(f"{sum(map(len, pictures))} figures as SVG and PDF in {folder}", soft_wrap=True, markup=False)
    return pictures


def _write_file(out: Path, text: str, *, between: bool) -> None:
    """Write ``text``, whole or not at all; ``between`` the markers of a file that has them."""
    from b2bench.files import write_whole
    from b2bench.leaderboard.written import BEGIN, between_markers

    try:
        if between and out.is_file() and BEGIN in (old := out.read_text(encoding="utf-8")):
            text = between_markers(old, text)
        write_whole(out, text.encode())
    except ValueError as error:
        raise UserError(f"--out {out}: {error}") from None
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    stdout().print(f"report in {out}", soft_wrap=True, highlight=False)
