"""``b2bench leaderboard``."""

from __future__ import annotations

import re
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
        bool,
        typer.Option("--check", help="Write no page; exit with 1 if it or its figures are not what the results give"),
    ] = False,
) -> None:
    """Write the leaderboard's page from published results. The same files give the same page, byte for byte.

    It also tells of the presets in the folder tuned beside them.
    """
    from b2bench.config.run import stored_hash
    from b2bench.describe.tables import tables_of
    from b2bench.files import write_whole
    from b2bench.leaderboard.files import KINDS, write_figures
    from b2bench.leaderboard.page import leaderboard_page
    from b2bench.leaderboard.searches import presets_in
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
        pictures, stale = [], []
        if found and (figures or "](figures/" in there):  # a page with figures is checked against one with figures
            beside = Path(folder) if check else out.parent
            kinds = ("svg",) if check else KINDS  # the page has no others
            pictures = write_figures(found, beside / "figures", beside=beside, kinds=kinds)
            stale = _stale(beside / "figures", out.parent / "figures") if check else []
        profiles = store.profiles() if store.path.exists() else []
    presets = presets_in(results.parent / "tuned", benchmark_version())
    text = leaderboard_page(found, profiles, pictures, benchmark_version(), presets)
    if check:
        if there != text:
            stderr().print(f"{out} is not what {results} gives; try b2bench leaderboard", soft_wrap=True, markup=False)
        elif stale:
            figures_there = f"{out.parent / 'figures'} is not what {results} gives ({', '.join(stale)})"
            stderr().print(f"{figures_there}; try b2bench leaderboard --figures", soft_wrap=True, markup=False)
        if there != text or stale:
            raise typer.Exit(1)
        stdout().print(f"{out} is what {results} gives", soft_wrap=True, markup=False)
        return
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    stdout().print(f"leaderboard in {out}", soft_wrap=True, highlight=False)


def _stale(drawn: Path, there: Path) -> list[str]:
    """Return the figures that are missing in ``there``, or are others than the ``drawn`` ones."""
    return [
        figure.name
        for figure in sorted(drawn.glob("*.svg"))
        if not (there / figure.name).is_file() or _differs(figure.read_bytes(), (there / figure.name).read_bytes())
    ]


def _differs(one: bytes, other: bytes) -> bool:
    """Tell whether two figures differ, unless two versions of matplotlib drew them: then they always do."""
    mine, theirs = (re.search(rb"Matplotlib v[\w.]+", figure) for figure in (one, other))
    of_two_versions = mine is not None and theirs is not None and mine[0] != theirs[0]
    return one != other and not of_two_versions
