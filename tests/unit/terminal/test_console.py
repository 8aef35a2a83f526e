"""What others wrote is printed, and a terminal obeys none of it."""

import io

import pytest
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from b2bench.terminal.console import SafeConsole

HOSTILE = "na\x1b[31mme\x1b]0;title\x07 [bold]x[/bold] :smile: \x9b2J\x08"


def table() -> Table:
    found = Table("name")
    found.add_row(Text(HOSTILE))
    return found


@pytest.mark.parametrize("colours", [None, "truecolor"])
@pytest.mark.parametrize(
    "what", [HOSTILE, Text(HOSTILE, style="red"), Panel(Text(HOSTILE)), Group(Text(HOSTILE)), table()]
)
def test_control_characters_are_written_out(what: object, colours: str | None) -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, width=200, color_system=colours, force_terminal=colours is not None)
    console.print(what)
    shown = stream.getvalue()
    # rich itself takes some out of a Text, and writes no other sequence than its colours
    for obeyed in ("\x1b[31mme", "\x1b]0", "\x07", "\x9b", "\x08"):
        assert obeyed not in shown
    assert r"na\x1b[31mme\x1b]0;title" in shown
    assert "[bold]x[/bold] :s" in shown  # rich counted no width for what is written out, so a table cuts its end off


def test_lines_and_colours_stay() -> None:
    stream = io.StringIO()
    SafeConsole(file=stream, width=80, color_system="standard", force_terminal=True).print(
        Text("one\ntwo", style="red")
    )
    assert stream.getvalue() == "\x1b[31mone\x1b[0m\n\x1b[31mtwo\x1b[0m\n"
