"""``b2bench merge``, ``export`` and ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from b2bench.cli.options import DEFAULT_DB, AsJson, Db
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.errors import UserError
from b2bench.text import visible


def merge(
    stores: Annotated[list[Path], typer.Argument(help="DuckDB files to copy runs from")],
    into: Annotated[Path, typer.Option("--into", help="DuckDB file to copy them into; made if it does not exist")],
    as_json: AsJson = False,
) -> None:
    """Copy the runs of other stores into one. Runs that are done there stay as they are."""
    from b2bench.config.run import stored_hash
    from b2bench.store.store import Store

    for path in stores:
        Store(path).check_exists()
    target = Store(into)
    found = {str(path): target.merge(path, hash_of=stored_hash) for path in stores}
    for path in stores:
        if others := target.differing(path):
            names = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            text = f"{path}: {len(others)} runs ended otherwise than in {into}, which stays as it is: {visible(names)}"
            stderr().print(text, soft_wrap=True, markup=False)
    if as_json:
        print_json({"into": str(into), "new": found})
        return
    for name, new in found.items():
        stdout().print(f"{name}: {len(new)} new runs", soft_wrap=True)
    stdout().print(f"{into} holds {len(target.runs()) if into.exists() else 0} runs", soft_wrap=True)


RESULTS = Path("leaderboard") / "results"
Folder = Annotated[Path, typer.Argument(help="Folder of Parquet files, one for each table")]


def export(
    folder: Folder = RESULTS,
    db: Db = DEFAULT_DB,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Export some runs only: algorithm=ddpo,pg; wrapper, prompts, reward, ..."),
    ] = None,
    tuning: Annotated[bool, typer.Option("--tuning", help="Tuning runs, too")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV files instead of Parquet")] = False,
    card: Annotated[
        str | None,
        typer.Option(help="A run, by id or name: write its LoRA, a model card, settings and samples into --out"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --card: folder to write")] = None,
    runs: Annotated[Path, typer.Option(help="With --card: folder that holds the run folders")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write finished runs as Parquet files. Publish them, or keep them beside code; or write a run's model card."""
    if card is not None:
        _export_card(card, db, runs, out, as_json, others=bool(as_csv or where or tuning or folder != RESULTS))
        return
    if out is not None:
        raise UserError("--out is the folder of a model card; try --card RUN, or the folder without --out")
    from b2bench.leaderboard.selection import CONTEXT_KEYS, parse_where
    from b2bench.store.parquet import export_results
    from b2bench.store.store import Store

    wanted = {CONTEXT_KEYS.get(name, name): values for name, values in parse_where(where or []).items()}
    ids = export_results(Store(db), folder, wanted, "csv" if as_csv else "parquet", tuning)
    if as_json:
        print_json({"folder": str(folder), "runs": ids})
    else:
        stdout().print(f"{len(ids)} runs in {folder}", soft_wrap=True)


def _export_card(card: str, db: Path, runs: Path, out: Path | None, as_json: bool, *, others: bool) -> None:
    """Write the model card of a run."""
    from b2bench.describe.card import FILL_IN, write_card
    from b2bench.store.store import Store

    if out is None:
        raise UserError(f"--card {visible(card)} needs a folder to write; try --out FOLDER")
    if others:
        raise UserError("--card writes one run, and takes --out, --runs and --db alone; try without the others")
    files = write_card(Store(db), card, runs, out)
    if as_json:
        print_json({"folder": str(out), "files": files})
        return
    stdout().print(f"{len(files)} files in {out}", soft_wrap=True)
    stdout().print(f'next     search README.md for "{FILL_IN}": licence, intended use, contact', soft_wrap=True)


def import_(folder: Folder = RESULTS, db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Read exported runs into the store. Runs that are done there stay as they are."""
    from b2bench.config.run import stored_hash
    from b2bench.store.parquet import import_results
    from b2bench.store.store import Store

    ids = import_results(Store(db), folder, stored_hash)
    if as_json:
        print_json({"db": str(db), "new": ids})
    else:
        stdout().print(f"{len(ids)} new runs in {db}", soft_wrap=True)
