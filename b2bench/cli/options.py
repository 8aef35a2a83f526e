"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from b2bench.cli.completion import rewards


class Split(Enum):
    """The two parts of a prompt set."""

    train = "train"
    test = "test"


class Purpose(Enum):
    """What a run is for."""

    final = "final"
    tuning = "tuning"


Db = Annotated[Path, typer.Option("--db", help="DuckDB file of the runs")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
DEFAULT_DB = Path("b2bench.duckdb")


def beside(db: str | Path) -> list[str]:
    """Return ``--db`` for a command that is printed, unless it would find the store without."""
    return [] if Path(db) == DEFAULT_DB else ["--db", str(db)]


Backbone = Annotated[
    str | None, typer.Option(help="pocket, sd14, a pipeline folder, a .safetensors file or a hub id  [pocket]")
]
Reward = Annotated[
    str | None,
    typer.Option(
        help="clipscore, jpeg, mix, ... (b2bench ls rewards) or a plugin's  [clipscore]", autocompletion=rewards
    ),
]
Queries = Annotated[int | None, typer.Option(help="Budget in reward queries  [2400]")]
EvalSeed = Annotated[int | None, typer.Option(min=0, help="Seed of the evaluation noise (eval_seed)  [0]")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any hyperparameter, name=value (b2bench show settings, show ALGORITHM)"),
]
Plugin = Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Runs at once, each with a part of the cores  [1; on Ray: as many as fit]"),
]
Ray = Annotated[str | None, typer.Option(help="Run on a Ray cluster: auto or HOST:PORT (docs/scale.md)")]
CpusPerRun = Annotated[int, typer.Option(min=1, help="On Ray: CPUs (and threads) of a run")]
GpusPerRun = Annotated[
    float | None, typer.Option(min=0, max=1, help="On Ray: GPUs of a run, or a share of one  [1 if there are any]")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads  [all cores, or OMP_NUM_THREADS]")]
