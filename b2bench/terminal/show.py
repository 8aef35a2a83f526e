"""The lists of ``b2bench ls`` and the pages of ``b2bench show``, drawn for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from b2bench.describe.listing import Row
from b2bench.terminal.chart import chart

SHOWN_PROMPTS = 10
OUTSIDE = "outside the ranking"


def listing_table(what: str, rows: Sequence[Row]) -> RenderableType:
    """Return the rows of :func:`listing` for a terminal."""
    if not rows:
        return Text(f"no {what} yet; b2bench run makes one" if what == "runs" else f"no {what}")
    if what == "runs":
        return _runs_table(rows)
    plugins = what in ("algorithms", "wrappers", "rewards")
    left_out = {"hyperparameters", "settings"} | ({"summary"} if plugins else set())
    if all(row.get("from") == "built in" for row in rows):
        left_out.add("from")
    if what == "algorithms":  # b2bench show has them
        left_out |= {"learns from", "source", "selection", OUTSIDE}
    shown = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
    table = _rows_table([{**row, "from": _from_here(row["from"])} if "from" in row else row for row in shown])
    if not plugins:
        return table
    # A summary is a sentence or an equation: too long for a column beside the properties.
    lines = (Text(f"{row['name']}  ", "bold").append(_aside(row) + row["summary"], "not bold") for row in rows)
    return Group(table, *lines)


def _aside(row: Row) -> str:
    """Return what is true of one algorithm in a dozen, and would be a column of nothing."""
    return f"({OUTSIDE}) " if row.get(OUTSIDE) else ""


def _from_here(where: str) -> str:
    """Return a path below the current folder as a relative one: a whole one folds in the middle of a file's name."""
    path = Path(where)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else where


def _runs_table(rows: Sequence[Row]) -> RenderableType:
    """Runs, with what is the same in all of them below the table instead of in it; baselines in a line below it."""
    baselines = [row for row in rows if row["algorithm"] == "baseline"]
    if baselines:
        names = ", ".join(dict.fromkeys(str(row["wrapper"]) for row in baselines))
        seeds = sorted({row["seed"] for row in baselines})
        count = f"{len(baselines)} baseline{'s' * (len(baselines) > 1)}, not trained: {names}"
        which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        text = Text(f"{count}; {which}; --json lists each", "dim")
        trained = [row for row in rows if row["algorithm"] != "baseline"]
        return Group(_runs_table(trained), text) if trained else text
    alike = [key for key in ("reward", "backbone", "prompts") if len({row[key] for row in rows}) == 1]
    left_out = {"queries", "budget", "started", "error", *alike}
    if all(row["name"] in (row["run"], None) for row in rows):
        left_out.add("name")
    shown = [
        {
            **{key: value for key, value in row.items() if key not in left_out},
            # an unnamed run goes by its id, which is long and stands before it
            **({} if "name" in left_out else {"name": "" if row["name"] in (row["run"], None) else row["name"]}),
            "queries": f"{row['queries']}/{row['budget'] or 0}",
            "started": str(row["started"])[:16],
        }
        for row in rows
    ]
    # what an id says of its own is the first to go where the terminal is narrow: an id cut into lines cannot be copied
    told = all(row["run"].startswith(f"{row['algorithm']}-{row['wrapper']}-s{row['seed']}-") for row in rows)
    own = ("started", "algorithm", "wrapper", "seed") if told else ("started",)
    steps: list[tuple[str, ...]] = [(), ("started",), own, (*own, "queries"), (*own, "queries", "status")]
    table = _Fitted(
        [
            _rows_table([{key: row[key] for key in row if key not in without} for row in shown], ("seed", "queries"))
            for without in steps
        ]
    )
    return Group(table, Text(f"all: {', '.join(f'{key} {rows[0][key]}' for key in alike)}", "dim")) if alike else table


def render_description(found: Mapping[str, Any], console: Console) -> None:
    """Print what :func:`description` found. Text of users and plugins is never read as markup."""
    head = Text(str(found["name"]), style="bold")
    console.print(head.append(f"  {found['kind']}", style="dim"))
    if found.get("error"):
        console.print(Text(f"error: {found['error']}", style="red"))
    if found.get("doc"):
        console.print(Text(f"\n{_reflowed(found['doc'])}"))
    if found.get("properties"):
        console.print()
        console.print(_facts(found["properties"]))
    if "hyperparameters" in found:
        _section("Hyperparameters", console)
        if found["hyperparameters"]:
            console.print(_Hyperparameters(found["hyperparameters"]))
            example = found["hyperparameters"][0]
            assignment = shlex.quote(f"{example['name']}={_value(example['default'])}")
            console.print(Text(f"set one with --set {assignment}", style="dim"))
        else:
            console.print(Text("none", style="dim"))
    if found["kind"] == "algorithm" and found.get("settings"):
        _section("Settings that it has its own default of", console)
        console.print(_Hyperparameters(found["settings"]))
    if found.get("searched"):
        _section("What b2bench tune searches", console)
        console.print(_rows_table(found["searched"], right=("low", "high", "published")))
    for split in ("train", "test"):
        if split in found:
            _prompt_list(split, found[split], console)
    for name, words in found.get("vocabulary", {}).items():
        _section(name.capitalize(), console)
        console.print(Text(words if isinstance(words, str) else ", ".join(words)))
    if found["kind"] == "preset":
        _render_preset(found, console)
    if found["kind"] == "run":
        _render_run(found, console)


def _render_preset(found: Mapping[str, Any], console: Console) -> None:
    _section("Values", console)
    table = _table(("section", "name", "value", "source"), right=("value",))
    for row in found["values"]:
        source = f"{row['source']}: {row['why']}" if row["why"] else row["source"]
        table.add_row(*map(_text, (row["section"], row["name"], row["value"], source)))
    console.print(table)
    if found["notes"]:
        _section("Notes", console)
    for note in found["notes"]:
        console.print(Text(f"- {note}"))
    console.print(Text(f"take it with b2bench run --preset {found['name']}", style="dim"))


def _render_run(found: Mapping[str, Any], console: Console) -> None:
    if found["versions"]:
        _section("Versions", console)
        console.print(Text(", ".join(f"{name} {version}" for name, version in found["versions"].items())))
    _section("Differs from the defaults in", console)
    if found["differences"]:
        table = _table(("name", "value", "default"), right=("value", "default"))
        for row in found["differences"]:
            table.add_row(*map(_text, row.values()))
        console.print(table)
    else:
        console.print(Text("nothing", style="dim"))
    if found["preset"]:
        _section(f"Differs from preset {found['preset']['name']} in", console)
        if found["preset"]["deviations"]:
            console.print(_rows_table(found["preset"]["deviations"], right=("preset", "value")))
        else:
            console.print(Text("nothing", style="dim"))
    _section("How it went", console)
    for finding in found["findings"]:
        style = "bold red" if finding["level"] == "failed" else "yellow"
        console.print(Text.assemble((finding["level"], style), f"  {finding['text']}"))
    if not found["findings"]:
        console.print(Text("nothing conspicuous by the rules of docs/health.md", "dim"))
    if found["curves"]:
        console.print()
        console.print(chart(found["curves"], width=max(24, min(72, console.width - 12)), unit="reward queries"))
    _section("Evaluations", console)
    if found["evaluations"]:
        rows = [{**row, "change": _change(row)} for row in found["evaluations"]]
        names = ("split", "metric", "before", "after", "change", "queries", "images")
        console.print(_rows_table([{name: row[name] for name in names} for row in rows], right=names[2:]))
    else:
        console.print(Text("none yet", style="dim"))
    _section("Rounds", console)
    if found["rounds"]:
        console.print(_rounds_table(found["rounds"]))
        own = [{"round": row["round"], **row["metrics"]} for row in found["rounds"] if row.get("metrics")]
        if own:
            console.print(Text("what the loss reports besides, means of each round", "dim"))
            console.print(_rows_table(own))
        note = (
            "updates: optimizer steps; equivalents: calls, those with a backward pass counted as three; "
            "equal: share of prompt draws whose rewards are all equal; "
            "steps: trained interval, first and after last; "
            "ratio, clipped, kl, grad: means of the round"
        )
        console.print(Text(note, style="dim"))
    else:
        console.print(Text("none yet", style="dim"))


LEAST = ("loss", "metrics")
NARROW = (("kl",), ("calls",), ("equivalents", "updates"), ("seconds",), ("equal",), ("clipped",))
"""Columns of the rounds that are left out, one after the other, until the rest fits into the terminal."""


def _rounds_table(rounds: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the rounds in as many columns as the terminal has room for: a number cut into lines is none."""
    tables, without = [], LEAST
    for more in ((), *NARROW):
        without = (*without, *more)
        shown = [{name: value for name, value in row.items() if name not in without} for row in rounds]
        tables.append(_rows_table(shown, right=tuple(shown[0])))
    return _Fitted(tables)


def _reflowed(doc: str) -> str:
    """Paragraphs on one line each, for a terminal of any width; tables and lists stay as they are."""
    paragraphs = doc.split("\n\n")
    laid_out = [any(line[:1] in (" ", "|", "-") for line in part.splitlines()) for part in paragraphs]
    return "\n\n".join(
        part if keep else " ".join(part.split()) for part, keep in zip(paragraphs, laid_out, strict=True)
    )


def _change(row: Mapping[str, Any]) -> float | None:
    return None if row["before"] is None or row["after"] is None else row["after"] - row["before"]


def _section(title: str, console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _prompt_list(split: str, prompts: Sequence[str], console: Console) -> None:
    _section(f"{split.capitalize()}: {len(prompts)} prompts", console)
    for prompt in prompts[:SHOWN_PROMPTS]:
        console.print(Text(f"  {prompt}"))
    if len(prompts) > SHOWN_PROMPTS:
        console.print(Text(f"  and {len(prompts) - SHOWN_PROMPTS} more; --json prints all", style="dim"))


class _Hyperparameters:
    """Hyperparameters as a table; where it would leave no room for what they are, each as a paragraph."""

    READABLE = 32
    """Columns that a description takes at least to be read as one"""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [self._cells(row) for row in rows]

    @staticmethod
    def _cells(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        own = ", ".join(f"{name} {_value(value)}" for name, value in row.get("algorithms", {}).items())
        doc = f"{row['doc']}. Default of an algorithm: {own}" if own else str(row["doc"])
        return str(row["name"]), f"{row['type']} {row['range']}".rstrip(), _value(row["default"]), doc

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        names = ("name", "type", "default", "what it is")
        wide = sum(max(len(cells[i]) for cells in (names, *self.rows)) + 2 for i in range(3)) if self.rows else 0
        if options.max_width - wide >= self.READABLE:
            table = _table(names, right=("default",))
            for cells in self.rows:
                table.add_row(*map(Text, cells))
            yield table
            return
        for name, kind, default, doc in self.rows:
            yield Text.assemble((name, "bold"), "  ", (kind, "dim"), "  default ", default)
            yield Padding(Text(doc), (0, 0, 0, 4))


def _facts(facts: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        cell = _text(value)
        if name == "status":
            cell.stylize(_status_style(str(value)))
        table.add_row(Text(str(name)), cell)
    return table


class _Fitted:
    """The first of some tables that the terminal is wide enough for, or the last."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        unbounded = options.update(max_width=10_000)
        widths = [Measurement.get(console, unbounded, table).maximum for table in self.tables]
        fitting = [table for table, width in zip(self.tables, widths, strict=True) if width <= options.max_width]
        yield fitting[0] if fitting else self.tables[-1]


def _rows_table(rows: Sequence[Mapping[str, Any]], right: Sequence[str] = ()) -> Table:
    """Rows under all the names that any of them has; numbers to four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [name for name in names if all(isinstance(row.get(name, 0), int | float) for row in rows)]
    table = _table(names, (*right, *numbers))
    for row in rows:
        cells = [_text(row.get(name, ""), digits=4) for name in names]
        if "status" in row:
            cells[names.index("status")].stylize(_status_style(row["status"]))
        table.add_row(*cells)
    return table


def _table(names: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        justify: Any = "right" if name in right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=name in ("name", "type"), overflow="fold")
    return table


def _text(value: Any, digits: int = 6) -> Text:
    """Return a cell; Text, so that brackets in it are not markup."""
    return Text(_value(value, digits))


def _value(value: Any, digits: int = 6) -> str:
    if value is None:
        return "-" if digits == 4 else "none"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _status_style(status: str) -> str:
    return {"done": "green", "failed": "red", "running": "cyan"}.get(status, "yellow")
