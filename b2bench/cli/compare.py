"""``b2bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from b2bench.cli.options import DEFAULT_DB, AsJson, Db
from b2bench.cli.output import print_json, stdout
from b2bench.errors import UserError


def compare(
    first: Annotated[
        str, typer.Argument(help="A run, pretrained, or a cell: ddpo/b2, of several settings ddpo/b2:lr=0.001")
    ],
    second: Annotated[str, typer.Argument(help="What is compared with it: the second minus the first")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write, with images side by side")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Narrow the runs of cells: prompts=template1; budget, version, ...")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the run folders, for sample images")] = Path("runs"),
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Compare two runs or two cells.

    It shows the difference with its interval, the settings that differ, and the prompts that gained and lost most, on
    images of the same prompt and noise.
    """
    from b2bench.describe.compared import sides
    from b2bench.files import finite
    from b2bench.leaderboard import compare as comparing
    from b2bench.leaderboard.selection import parse_where
    from b2bench.store.store import Store

    conditions = parse_where(where or [])
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; try creating it")
    store = Store(db)
    store.check_exists()
    found = comparing.compare(*store.together(lambda: sides(store, (first, second), conditions)))
    section = comparing.section(found)
    if out is not None:
        from b2bench.files import write_whole
        from b2bench.leaderboard.html import alone, page

        text = page("b2bench compare", [alone(section, comparing.samples(found, runs))])
        try:
            write_whole(out, text.encode())
        except OSError as error:
            raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    if as_json:
        content = {name: value for name, value in vars(found).items() if name != "pairs"}
        pairs = [[a.row["run_id"], b.row["run_id"]] for a, b in found.pairs]
        print_json(finite({**content, "runs": pairs, "verdict": vars(comparing.verdict(found))}))
        return
    from b2bench.leaderboard.terminal import render_sections

    render_sections([section], stdout())
    if out is not None:
        stdout().print(f"comparison in {out}", soft_wrap=True, highlight=False)
