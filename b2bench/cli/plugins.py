"""``b2bench check`` and ``new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from b2bench.cli.options import AsJson
from b2bench.cli.output import print_json, stdout


def check(
    file: Annotated[Path, typer.Argument(help="Plugin file, or the name of a built-in algorithm, wrapper or reward")],
    as_json: AsJson = False,
) -> None:
    """Test a plugin against the contract.

    What it gives is finite and reaches the adapter; it changes nothing else, repeats itself, and learns a toy task.
    """
    from b2bench.plugins.check import check_file

    results = check_file(file)
    if as_json:
        print_json([vars(result) for result in results])
    else:
        console = stdout()
        for result in results:
            mark = ("ok    ", "green") if result.passed else ("FAILED", "red")
            console.print(Text.assemble(mark, f" {result.plugin}: {result.name}"), soft_wrap=True)
            if not result.passed:
                console.print(f"       {result.reason}", soft_wrap=True)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def new(
    kind: Annotated[str, typer.Argument(help="algorithm, wrapper or reward")],
    name: Annotated[str, typer.Argument(help="Name of the plugin; the file is NAME.py in the working folder")],
) -> None:
    """Write a working plugin file to start from."""
    from b2bench.plugins.scaffold import write_plugin

    path = write_plugin(kind, name, Path.cwd())
    stdout().print(f"wrote {path.name}\ntest it   b2bench check {path.name}", soft_wrap=True)
