"""The tables in a terminal, and as plain objects for JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from b2bench.leaderboard.answers import answers
from b2bench.leaderboard.document import document
from b2bench.leaderboard.grid import ALWAYS, SYMBOLS, Cell, Grid, Section, number
from b2bench.leaderboard.openness import Measure, Profile
from b2bench.leaderboard.rows import Tables
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from b2bench.files import finite

STYLES = {
    "gain": "green",
    "equivalent": "yellow",
    "mixed": "magenta",
    "inconclusive": "yellow",
    "loss": "red",
    "untested": "cyan",
    "failed": "bold red",
    "incomplete": "blue",
    "not run": "dim",
    "refused": "magenta",
}
LONGEST_WORD = 20
"""Characters of a word, such as ``advantage=group``, that a narrow terminal does not break."""


def render(tables: Sequence[Tables], console: Console, everything: bool = True) -> None:
    """Print every context's answers and tables, each without the columns that the terminal has no room for.

    Those are named. Without ``everything`` the tables that other formats fold are named instead of printed.
    """
    if not tables:
        console.print("No runs yet. Start one: b2bench run --algo dpok --wrapper b2", markup=False)
    for group, section in zip(tables, document(tables), strict=True):
        _head(section, console)
        if not group.leaderboard:
            what = "no run was evaluated like these yet" if group.headroom else "no finished run here yet"
            console.print(f"  {what}\n", style="dim")
        folded = section.folded if not everything else ()
        for grid in section.grids:
            if grid not in folded:
                _grid(grid, console)
        if folded:
            names = ", ".join(grid.title for grid in folded)
            console.print(Text(f"further tables: b2bench report --all ({names})\n", style="dim"))


def render_sections(sections: Sequence[Section], console: Console) -> None:
    """Print sections of which there are no rows but those of their grids."""
    for section in sections:
        _head(section, console)
        for grid in section.grids:
            _grid(grid, console)


def _head(section: Section, console: Console) -> None:
    console.rule(style="dim")
    console.print(Text(section.title, style="bold"))
    console.print(Text(" \u00b7 ".join(section.facts), style="dim"))
    if section.answers:
        console.print()
    for answer in section.answers:
        symbol = SYMBOLS.get(answer.kind, " ")
        line = Text(f"{symbol} {answer.about}: ", style=f"bold {STYLES.get(answer.kind, '')}".strip())
        console.print(line.append(Text(answer.text, style="not bold default")))
    if section.answers and section.notes:
        console.print()
    for note in section.notes:
        console.print(Text(f"! {note}", style="yellow"))
    console.print()


def _grid(grid: Grid, console: Console) -> None:
    """The columns that there is room for, the most wanted ones; below them, what the cells say in words."""
    legend = list(grid.legend)
    console.print(Text(grid.title, style="bold"))
    if grid.rows:
        places, broken = list(range(len(grid.columns))), False
        unbounded = console.options.update(max_width=10_000)
        while Measurement.get(console, unbounded, _table_of(grid, places)).maximum > console.width:
            lowest = min(places, key=lambda place: grid.columns[place].keep)
            if broken := grid.columns[lowest].keep == ALWAYS:
                break
            places.remove(lowest)
        console.print(_table_of(grid, places, broken=broken))
        hidden = [column.name for place, column in enumerate(grid.columns) if place not in places]
        legend = [line for line in legend if not line.startswith(tuple(f"{name}:" for name in hidden))]
        if hidden:
            legend.append(f"in a wider terminal: {', '.join(hidden)}")
    if legend:
        console.print(Text("; ".join(legend), style="dim"))
    console.print()


def _table_of(grid: Grid, places: Sequence[int], *, broken: bool = False) -> Table:
    """Return the columns at ``places``; ``broken``: with what is in brackets in cells on a line of its own."""
    table = _table()
    for place in places:
        column = grid.columns[place]
        longest = max(cell_len(line) for row in grid.rows for line in (row[place].text, row[place].note))
        words = max(map(cell_len, column.name.split()))
        head = "\n".join(textwrap.wrap(column.name, max(longest, words)))
        whole = max((cell_len(word) for row in grid.rows for word in row[place].text.split()), default=0)
        table.add_column(
            Text(head),
            justify="right" if column.right else "left",
            overflow="fold",
            min_width=min(whole, LONGEST_WORD),
        )
    for row in grid.rows:
        dim = row[0].kind == "reference"
        table.add_row(*(_text(row[place], broken=broken) for place in places), style="dim" if dim else None)
    return table


def _text(cell: Cell, *, broken: bool) -> Text:
    """Return a cell in the colour of its kind, with half-widths and p-values less bright than what they are of."""
    words = f"{cell.text}\n{cell.note}" if cell.note else cell.text
    text = Text(
        words.replace(" (", "\n(") if broken else words,
        style=STYLES.get(cell.kind, "dim" if cell.text == "-" else ""),
    )
    text.highlight_regex(r" (\u00b1|p=)\S+", "dim")
    return text


def profile_table(profile: Profile, reward: str) -> Table:
    """Return what the branches of each tau say; the shares with their intervals."""
    sizes = {f"{point.branches} branches of {point.leaves} leaves" for point in profile.points}
    table = _table(f"{profile.prompts}: {reward}, T = {profile.num_steps}, {' or '.join(sorted(sizes))} at each tau")
    for name in ("tau", "share open", "sd\nwithin", "sd\ntotal", "best\u2212worst", "same style"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in profile.points:
        found = point.measures
        table.add_row(
            str(point.tau),
            _bounds(found["open_share"]),
            *(number(found[name].value) for name in ("within_sd", "total_sd", "range")),
            _bounds(found.get("same_style")),
        )
    return table


def _bounds(share: Measure | None) -> Text:
    """Return a share with its interval, which need not be symmetric."""
    if share is None or not math.isfinite(share.value):
        return Text("-", style="dim")
    text = Text(number(share.value, 2))
    if math.isfinite(share.low):
        text.append(f" [{number(share.low, 2)}, {number(share.high, 2)}]", style="dim")
    return text


def to_json(tables: Sequence[Tables]) -> list[dict[str, Any]]:
    """Return the tables as dicts, lists, numbers and strings; a value that is not finite is None.

    ``answers`` are the sentences that a report opens with.
    """
    return [{**finite(group), "answers": [vars(answer) for answer in answers(group)]} for group in tables]


def _table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
