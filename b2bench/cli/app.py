"""The commands, in the order in which help lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from b2bench import both_versions
from b2bench.cli.look import doctor, estimate, list_names, show
from b2bench.cli.plugins import check, new
from b2bench.cli.pocket import build, gallery, verify
from b2bench.cli.report import report
from b2bench.cli.run import run
from b2bench.cli.stores import export, import_, merge
from b2bench.cli.studies import baseline, evaluate, profile
from b2bench.cli.sweep import sweep

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the boxes would import rich.markdown: half of the time that --help takes
    help="Which RL algorithm and sampling wrapper fine-tunes a text-to-image diffusion model best per reward query?",
)
pocket = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The embedded model: rebuild its weights, look at its images."
)
app.add_typer(pocket, name="pocket")


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the package's version and the benchmark's")] = False,
) -> None:
    if version:
        typer.echo(both_versions())
        raise typer.Exit


for command in (run, sweep, report, merge, export):
    app.command()(command)
app.command(name="import")(import_)
app.command(name="ls")(list_names)
for command in (show, doctor, estimate, check, new, evaluate, profile, baseline):
    app.command()(command)
for command in (build, verify, gallery):
    pocket.command()(command)
