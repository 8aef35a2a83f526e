"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Split(Enum):
    """The two parts of a prompt set."""

    train = "train"
    test = "test"


Db = Annotated[Path, typer.Option("--db", help="DuckDB file that holds the runs")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
BACKBONE = "pocket, sd14, a pipeline folder or .safetensors file, or a hub id"
DEFAULT_DB = Path("b2bench.duckdb")
