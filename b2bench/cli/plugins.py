"""``b2bench check`` and ``new``."""

from __future__ import annotations

import shlex
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
    from b2bench.registry import import_plugin, key_of, kind_of

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
    if not as_json and file.is_file() and results:
        option = {"algorithm": "--algo", "wrapper": "--algo ddpo --wrapper", "reward": "--algo ddpo --reward"}
        for cls in import_plugin(file):
            command = (
                f"b2bench run {option[kind_of(cls)]} {key_of(cls)} --plugin {shlex.quote(str(file))} --queries 240"
            )
            stdout().print(f"run it    {command}", soft_wrap=True)


def new(
    kind: Annotated[str, typer.Argument(help="algorithm, wrapper or reward")],
    name: Annotated[str, typer.Argument(help="Name of the plugin; the file is NAME.py in the working folder")],
    batch: Annotated[
        str | None,
        typer.Option(help="What an algorithm learns from: transitions, pairs or finals  [transitions]"),
    ] = None,
) -> None:
    """Write a working plugin file to start from."""
    from b2bench.plugins.scaffold import write_plugin

    path = write_plugin(kind, name, Path.cwd(), batch)
    stdout().print(f"wrote {path.name}\ntest it   b2bench check {path.name}", soft_wrap=True)
