"""``b2bench vote``: human preference tests."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from b2bench.cli.options import DEFAULT_DB, AsJson, Db, beside
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.errors import UserError

Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders")]


class Show(StrEnum):
    """How many images a comparison shows."""

    pairs = "pairs"
    triples = "triples"


def make(
    cells: Annotated[
        list[str],
        typer.Option(help="pretrained, ALGORITHM/WRAPPER, or a run; several: a,b or repeat the option"),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("votes.html"),
    prompts: Annotated[str | None, typer.Option(help="Prompt set of the runs, where the store holds several")] = None,
    number: Annotated[int, typer.Option(min=1, help="Number of test prompts")] = 16,
    noises: Annotated[int, typer.Option(min=1, help="Noises of each prompt")] = 1,
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, such as 0-4  [those that all cells have]")] = "",
    show: Annotated[Show, typer.Option(help="Images of a comparison: pairs or triples of cells")] = Show.pairs,
    comparisons: Annotated[
        int | None, typer.Option(min=1, help="Comparisons besides the checks, evenly over the cells  [all]")
    ] = None,
    checks: Annotated[int, typer.Option(min=0, help="Checks of each kind: identical images, repeated comparisons")] = 6,
    question: Annotated[str, typer.Option(help="What raters are asked")] = "Which image do you prefer for this text?",
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the comparisons, and of order and places")
    ] = 0,
    kept: Annotated[bool, typer.Option("--kept", help="Take the sample images of the runs; draw none")] = False,
    size: Annotated[int, typer.Option(min=16, help="Largest width and height of an image, in pixels")] = 512,
    where: Annotated[
        list[str] | None, typer.Option(help="Narrow the runs: reward=clipscore; budget, version, ... as in report")
    ] = None,
    runs: Runs = Path("runs"),
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Make a page on which people compare images.

    They are of the same prompt and noise, and without names: the store keeps which image is whose. Give the page to
    raters, and add the files that come back.
    """
    from b2bench.config.given import check_text
    from b2bench.leaderboard.selection import parse_where
    from b2bench.store.store import Store
    from b2bench.studies.poll import chosen_cells, make_poll
    from b2bench.sweep.plan import parse_list, parse_seeds

    check_text("--question", question)
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; try creating it")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; try the name of a file in it, as {out / 'votes.html'}")
    conditions = parse_where([*(where or []), *([] if prompts is None else [f"prompts={prompts}"])])
    store = Store(db)
    store.check_exists()
    store.check()
    names = [name for text in cells for name in parse_list("cells", text)]
    chosen = chosen_cells(store, names, conditions, parse_seeds(seeds) if seeds else ())
    console = stderr()
    with console.status("reading") as status:
        from b2bench.studies import poll_images

        source = poll_images.Kept(store, chosen, runs) if kept else None
        if source is None:
            poll_images.check_weights(chosen, runs)
            status.update("importing torch")
        shown = source.shown(number, noises) if source else poll_images.to_draw(chosen, number, noises)
        images = 2 if show is Show.pairs else 3
        poll = make_poll(
            chosen, shown, size=images, checks=checks, most=comparisons, seed=seed, question=question.strip()
        )
        drawn = source.read(poll) if source else poll_images.draw(poll, runs, lambda text: status.update(Text(text)))
    _write_page(poll, poll_images.data_urls(drawn, size), out, store)
    kinds = [one.kind for one in poll.comparisons]
    counts = {kind: kinds.count(kind) for kind in ("cells", "identical", "repeat")}
    if as_json:
        print_json({"poll_id": poll.poll_id, "page": str(out), "db": str(db), "comparisons": counts})
        return
    stdout().print(
        f"{poll.poll_id}: {counts['cells']} comparisons of {', '.join(cell.name for cell in poll.cells)}, and "
        f"{counts['identical']} identical and {counts['repeat']} repeated ones as checks\n"
        f"page     {out} ({out.stat().st_size / 1e6:.1f} MB)\nkey      {db}\n"
        "next     give the page to raters; b2bench vote add FILE... takes what they download",
        soft_wrap=True,
    )


def _write_page(poll: Any, urls: Any, out: Path, store: Any) -> None:
    """Write the page beside its place, store the key, then put it there: no page is without its key, no key without."""
    from b2bench.files import write_whole
    from b2bench.studies.poll_page import page

    def key() -> None:
        store.record_votes([poll.row()], [])

    try:
        write_whole(out, page(poll, urls, "Comparing images").encode(), key)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None


def add(
    files: Annotated[list[Path], typer.Argument(help="Files that raters downloaded from a page of votes")],
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Add votes to the store. The same file twice adds nothing; if a file is damaged, none is added."""
    from b2bench.store.store import Store
    from b2bench.studies.ballots import differing, read_votes

    store = Store(db)
    polls, stored = store.ballots()
    known = {poll["poll_id"]: poll for poll in polls}
    found = {path: read_votes(path, known, db) for path in files}
    every = [row for rows in found.values() for row in rows]
    new = store.record_votes([], every)
    changed = differing(every, [*stored, *new])
    if as_json:
        counts = {str(path): len(rows) for path, rows in found.items()}
        print_json({"db": str(db), "votes": counts, "new": len(new), "changed": changed})
        return
    if changed:
        stderr().print(f"{changed} answers differ from those in {db}, which stay", soft_wrap=True)
    raters = {(row["poll_id"], row["rater"]) for row in new}
    stdout().print(
        f"{len(new)} new votes of {len(raters)} raters in {db}\nnext     "
        f"{shlex.join(['b2bench', 'report', *beside(db)])}, or {shlex.join(['b2bench', 'vote', 'show', *beside(db)])}",
        soft_wrap=True,
    )


def show(
    poll: Annotated[str | None, typer.Argument(help="Preference test, by its id or the start of it  [all]")] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Show what raters preferred.

    It shows rates, scores, pairs of cells, agreement, and what the checks left out.
    """
    from b2bench.files import finite
    from b2bench.leaderboard.preferences import preferences
    from b2bench.leaderboard.terminal import render_sections
    from b2bench.leaderboard.votes import polls_with_votes, section
    from b2bench.store.store import Store

    polls, votes = Store(db).ballots()
    chosen = [each for each in polls if poll is None or (poll and each["poll_id"].startswith(poll))]
    if poll is not None and not chosen:
        known = ", ".join(each["poll_id"] for each in polls[:8]) or "none"
        raise UserError(f"{db} holds no preference test {poll!r}; it holds {known}")
    found = [(each, preferences(each, rows)) for each, rows in polls_with_votes(chosen, votes)]
    if as_json:
        print_json([finite(result) for _, result in found])
        return
    render_sections([section(each, result) for each, result in found], stdout())
    voted = {each["poll_id"] for each, _ in found}
    for each in chosen:
        if each["poll_id"] not in voted:
            stdout().print(f"{each['poll_id']} has no votes yet; b2bench vote add FILE... adds them", soft_wrap=True)
    if not polls:
        stdout().print(f"no preference test in {db}; b2bench vote make makes one", soft_wrap=True)
