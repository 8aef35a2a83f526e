"""stdout is the result, stderr is progress; JSON where it is asked for."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

from b2bench.files import finite


def stdout() -> Console:
    """Make a console for the user's paths and names: no bracket or colon in them is markup."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """JSON on stdout; what is not a finite number is null, because JSON knows no NaN."""
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))
