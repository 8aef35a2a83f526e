"""The examples of help are commands: each is read as the command line reads it, and none is run."""

import shlex

import click
import pytest
import typer

from b2bench.cli.app import app
from b2bench.cli.examples import EXAMPLES

ROOT = typer.main.get_command(app)
LINES = [(command, line) for command, lines in EXAMPLES.items() for line in lines]


@pytest.mark.parametrize(("command", "line"), LINES, ids=[line for _, line in LINES])
def test_an_example_is_a_command(command: str, line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "b2bench"
    group = ROOT
    for name in command.split():
        assert words.pop(0) == name
        group = group.commands[name]
    with click.Context(group) as parent:
        group.make_context(command, words, parent=parent)


def test_help_shows_them_line_by_line() -> None:
    with click.Context(ROOT.commands["run"]) as context:
        text = ROOT.commands["run"].get_help(context)
    assert all(f"\n    {line}\n" in f"{text}\n" for line in EXAMPLES["run"])


def test_every_command_that_is_named_has_examples() -> None:
    named = {name for name in ROOT.commands if name not in ("vote", "pocket", "doctor")}
    assert named <= EXAMPLES.keys()
