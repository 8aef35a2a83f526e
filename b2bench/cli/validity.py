"""``b2bench validity``."""

from __future__ import annotations

from typing import Annotated

import typer

from b2bench.cli.options import DEFAULT_DB, AsJson, Db
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.errors import UserError


def validity(
    db: Db = DEFAULT_DB,
    where: Annotated[
        list[str] | None, typer.Option(help="Use some runs only: prompts=template1; reward, budget, version, ...")
    ] = None,
    looks: Annotated[int, typer.Option(help="2 if you look at these runs twice: level .029 each")] = 1,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the validity card: signs that the results should show.

    Each sign is known from larger models and is tested on the cells in the store: pass, fail or undecided
    (docs/preregistration.md).
    """
    from b2bench.describe.tables import tables_of
    from b2bench.files import finite
    from b2bench.leaderboard.selection import CONTEXT_KEYS, held, parse_where, select
    from b2bench.leaderboard.terminal import render_sections
    from b2bench.leaderboard.validity import card, section
    from b2bench.leaderboard.written import markdown as as_markdown
    from b2bench.store.store import Store

    conditions = parse_where(where or [])
    if unknown := sorted(conditions.keys() - CONTEXT_KEYS.keys()):
        raise UserError(f"--where {unknown[0]}: a card takes all cells of a context; try {', '.join(CONTEXT_KEYS)}")
    if markdown and as_json:
        raise UserError("--markdown and --json are two formats; try one of them")
    store = Store(db)
    store.check_exists()
    every = tables_of(store, looks=looks)
    found, profiles = [group for group in select(every, conditions) if group.curves], store.profiles()
    if not found:
        stderr().print(f"no finished run fits; {held(every)}", soft_wrap=True, markup=False)
        raise typer.Exit(1)
    if as_json:
        print_json(
            [
                {
                    "context": finite(group.head.context),
                    "signs": [{**finite(sign), "verdict": sign.verdict} for sign in card(group, profiles)],
                }
                for group in found
            ]
        )
        return
    sections = [section(group, profiles) for group in found]
    if markdown:
        typer.echo(as_markdown(sections), nl=False)
    else:
        render_sections(sections, stdout())
