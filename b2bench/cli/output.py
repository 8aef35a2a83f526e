"""stdout is the result, stderr is progress; JSON where it is asked for."""

from __future__ import annotations

import json
import math
from typing import Any

import typer
from rich.console import Console


def stdout() -> Console:
    """What is printed are the user's paths and names: no bracket or colon in them is markup."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """JSON on stdout; what is not a finite number is null, because JSON knows no NaN."""

    def finite(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))
