"""The commands, in the order in which help lists them, by what a person wants to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from b2bench.cli.compare import compare
from b2bench.cli.examples import epilog
from b2bench.cli.leaderboard import leaderboard
from b2bench.cli.look import doctor, estimate, list_names, show
from b2bench.cli.plugins import check, new
from b2bench.cli.pocket import build, gallery, verify
from b2bench.cli.report import report
from b2bench.cli.run import run
from b2bench.cli.stores import export, import_, merge
from b2bench.cli.studies import baseline, evaluate, profile
from b2bench.cli.sweep import sweep
from b2bench.cli.tune import tune
from b2bench.cli.validity import validity
from b2bench.cli.vote import add, make
from b2bench.cli.vote import show as show_votes
from b2bench.version import both_versions

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Run and compare": {
        "run": run,
        "report": report,
        "compare": compare,
        "validity": validity,
        "evaluate": evaluate,
        "baseline": baseline,
        "profile": profile,
    },
    "Look": {"ls": list_names, "show": show, "estimate": estimate, "doctor": doctor},
    "Extend": {"new": new, "check": check},
    "Many runs": {
        "sweep": sweep,
        "tune": tune,
        "merge": merge,
        "export": export,
        "import": import_,
        "leaderboard": leaderboard,
    },
}
POCKET: dict[str, Callable[..., None]] = {"build": build, "verify": verify, "gallery": gallery}
VOTE: dict[str, Callable[..., None]] = {"make": make, "add": add, "show": show_votes}
GROUPS = {"Ask people": ("vote",), "The embedded world": ("pocket",)}


class Panels(TyperGroup):
    """List commands by panel, in plain text: Typer's own panels need the boxes, which are slow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for panel, names in {**PANELS, **GROUPS}.items():
            with formatter.section(panel):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in names])


app = typer.Typer(
    cls=Panels,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the boxes would import rich.markdown: half of the time that --help takes
    help="Which RL algorithm and sampling wrapper fine-tunes a text-to-image diffusion model best per reward query?",
    context_settings={"help_option_names": ["-h", "--help"]},
)
pocket = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Rebuild, measure or draw the embedded model.",
)
vote = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Ask people which images they prefer.",
)


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the package's version and the benchmark's")] = False,
) -> None:
    """Print the versions, or run a command."""
    if version:
        typer.echo(both_versions())
        raise typer.Exit


for panel in PANELS.values():
    for name, command in panel.items():
        app.command(name=name, epilog=epilog(name))(command)
app.add_typer(vote, name="vote")
for name, command in VOTE.items():
    vote.command(name=name, epilog=epilog(f"vote {name}"))(command)
app.add_typer(pocket, name="pocket")
for name, command in POCKET.items():
    pocket.command(name=name)(command)
