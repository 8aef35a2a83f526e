"""Every command of docs/paper.md is one that the command line takes: parsed and resolved, never run."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from b2bench.cli.app import app
from b2bench.config.choices import Choices, grid, with_file

PAGE = Path(__file__).parents[3] / "docs" / "paper.md"


def commands(text: str) -> Iterator[str]:
    """Command lines of the sh blocks, with every value of the loops around them, and those in running text."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        loops: list[tuple[str, list[str]]] = []
        for line in map(str.strip, block.splitlines()):
            if match := re.fullmatch(r"for (\w+) in (.+); do", line):
                loops.append((match[1], match[2].split()))
            elif line == "done":
                loops.pop()
            elif line:
                for values in itertools.product(*(values for _, values in loops)):
                    filled = line
                    for (name, _), value in zip(loops, values, strict=True):
                        filled = filled.replace(f"${name}", value)
                    yield filled
        assert not loops
    yield from re.findall(r"`(b2bench [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


FOUND = sorted(set(commands(PAGE.read_text(encoding="utf-8"))))


def test_the_page_has_the_papers_runs() -> None:
    runs = [command for command in FOUND if command.startswith("b2bench run ") and "--seed" in command]
    assert len(runs) == 18 + 18 + 12


@pytest.mark.slow
@pytest.mark.parametrize("text", FOUND)
def test_a_command_of_the_page_resolves(text: str) -> None:
    words = shlex.split(text, comments=True)
    assert words[0] == "b2bench"
    assert "$" not in text
    group: Any = get_command(app)
    command = group.commands[words[1]]
    given = command.make_context(words[1], words[2:]).params
    if words[1] not in ("run", "estimate"):
        return
    names = ("algo", "wrapper", "backbone", "reward", "prompts", "queries", "seed")
    options = {name: given.get(name) for name in names}
    configs, seeds = grid(with_file(Choices(**options, preset=given["preset"]), None, given["set_"] or []))
    assert seeds == 3
    if words[1] == "run":
        (config,) = configs
        assert (config.algorithm_name, config.wrapper_name) == (options["algo"], options["wrapper"])
        assert config.queries == 25_600
        assert {row["name"] for row in config.preset["deviations"]} <= {"prompts", "prompts.hash", "reward"}
