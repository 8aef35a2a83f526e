"""stdout is the result, stderr is progress; JSON where it is asked for."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

from b2bench.files import finite
from b2bench.terminal.console import SafeConsole


def stdout() -> Console:
    """Make a console for the user's paths and names: nothing in them is markup, and nothing is obeyed."""
    return SafeConsole()


def stderr() -> Console:
    return SafeConsole(stderr=True)


def print_json(value: Any) -> None:
    """JSON on stdout; what is not a finite number is null, because JSON knows no NaN."""
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))
