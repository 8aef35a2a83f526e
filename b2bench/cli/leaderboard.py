"""``b2bench leaderboard``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from b2bench.cli.output import stderr, stdout
from b2bench.cli.stores import RESULTS
from b2bench.errors import UserError


def leaderboard(
    results: Annotated[Path, typer.Argument(help="Folder of Parquet files, as b2bench export writes them")] = RESULTS,
    out: Annotated[Path, typer.Option(help="Markdown file to write")] = Path("leaderboard") / "README.md",
    figures: Annotated[bool, typer.Option("--figures", help="Draw the figures, too, into figures/ beside it")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write no page; exit with 1 if the file is not what the results give")
    ] = False,
) -> None:
    """Write the leaderboard's page from published results. The same files give the same page, byte for byte."""
    from b2bench.config.run import stored_hash
    from b2bench.describe.tables import tables_of
    from b2bench.files import write_whole
    from b2bench.leaderboard.files import write_figures
    from b2bench.leaderboard.page import leaderboard_page
    from b2bench.store.parquet import import_results
    from b2bench.store.store import Store
    from b2bench.version import benchmark_version

    if not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; try creating it")
    there = out.read_text(encoding="utf-8", errors="replace") if check and out.is_file() else ""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results.duckdb")
        if (results / "runs.parquet").exists():
            import_results(store, results, stored_hash)
        found = [] if not store.path.exists() else tables_of(store)
        found = [group for group in found if group.head.context.benchmark_version == benchmark_version()]
        pictures = []
        if found and (figures or "](figures/" in there):  # a page with figures is checked against one with figures
            beside = Path(folder) if check else out.parent
            pictures = write_figures(found, beside / "figures", beside=beside)
        profiles = store.profiles() if store.path.exists() else []
    text = leaderboard_page(found, profiles, pictures, benchmark_version())
    if check:
        if there != text:
            stderr().print(f"{out} is not what {results} gives; try b2bench leaderboard", soft_wrap=True, markup=False)
            raise typer.Exit(1)
        stdout().print(f"{out} is what {results} gives", soft_wrap=True, markup=False)
        return
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    stdout().print(f"leaderboard in {out}", soft_wrap=True, highlight=False)
