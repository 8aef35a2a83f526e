"""The leaderboard's page: claims in words, results beside the paper's, the validity card, how to add a row.

The same rows give the same page, byte for byte, so that anybody can make it from the published Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.leaderboard.asked import Claim, claims_of_paper, in_short
from b2bench.leaderboard.cells import TUNED
from b2bench.leaderboard.columns import claimed
from b2bench.leaderboard.document import document
from b2bench.leaderboard.glossary import glossary
from b2bench.leaderboard.grid import Picture, title
from b2bench.leaderboard.paper import beside_paper, reported_grids
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.searches import Preset, searches
from b2bench.leaderboard.validity import Verdict, card, section
from b2bench.leaderboard.written import markdown, markdown_grid, markdown_text

FOLDER = Path(__file__).with_name("templates")
NOTHING = "There are no results of this benchmark version yet. They will be added here, whatever they say.\n"


def leaderboard_page(
    tables: Sequence[Tables],
    profiles: Iterable[Mapping[str, Any]] = (),
    pictures: Sequence[Sequence[Picture]] = (),
    version: str = "",
    presets: Sequence[Preset] = (),
) -> str:
    """Return the page as Markdown.

    ``profiles`` are rows of ``Store.profiles``, ``pictures`` those of each context, ``presets`` those of
    :func:`b2bench.leaderboard.searches.presets_in`.
    """
    profiled = list(profiles)
    parts, heads = [_text("introduction", version)], ""
    if not any(group.curves for group in tables):
        parts.append(NOTHING)
    else:
        claims = [(group, found) for group in tables if (found := claims_of_paper(group))]
        if claims:
            parts.append("## What the paper says, and what is seen here\n")
            parts += [_said(group, found) for group, found in claims]
        sections = document(tables, pictures)
        heads = " ".join(column.name for part in sections for grid in part.grids for column in grid.columns)
        parts.append(markdown(sections))
        if presets:
            parts += ["## How tuned cells were tuned\n", *_without_finals(presets, tables)]
            parts.append(markdown_grid(searches(presets), titled=False))
        parts += ["## Can this world be believed?\n", *(_card(group, profiled) for group in tables if group.curves)]
    parts += ["## The paper's numbers\n", _text("paper", version)]
    parts += [markdown_grid(grid) for grid in (*map(beside_paper, tables), *reported_grids()) if grid.rows]
    parts.append(_text("adding", version))
    if words := glossary(heads):
        parts += ["## Words\n", *(f"- **{markdown_text(name)}**: {meaning}" for name, meaning in words.items()), ""]
    return "\n".join(parts)


def _text(name: str, version: str) -> str:
    """Return a part of the page that results don't change."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8").replace("VERSION", version)


def _said(group: Tables, claims: Sequence[Claim]) -> str:
    """Return a sentence for each claim of the paper, and folded what each algorithm says of it."""
    head = group.head
    rule = (
        f"Intervals are of one contrast each, at 95%. Each p is of a difference, after Holm over all {claimed(head)} "
        "of the table *Verdicts*, and it decides whether there is one: an interval without zero is not enough. "
        "Equality has tests of its own."
    )
    lines = [f"**{markdown_text(title(head.context))}**. {_tuned(group)}\n", *in_short(claims)]
    lines += ["", "<details><summary>Each claim, algorithm by algorithm</summary>", "", rule]
    for said in dict.fromkeys(claim.said for claim in claims):
        mine = [claim for claim in claims if claim.said == said]
        lines += ["", f"{said} ({mine[0].contrast}):", "", *(claim.line for claim in mine)]
    return "\n".join([*lines, "", "</details>", ""])


def _without_finals(presets: Sequence[Preset], tables: Sequence[Tables]) -> list[str]:
    """Name the searches whose cells have no run on this page."""
    there = {
        (row.algorithm, cell.wrapper)
        for group in tables
        for row in group.compatibility
        for cell in row.cells
        if row.label.startswith(TUNED) and cell.gain is not None
    }
    names = [tuple(str(preset["options"][name]["value"]) for name in ("algo", "wrapper")) for preset in presets]
    absent = [markdown_text(" ".join(name)) for name in names if name not in there]
    return [f"Searched, and without runs on this page yet: {', '.join(absent)}.\n"] if absent else []


def _tuned(group: Tables) -> str:
    """Say whose settings were chosen for the cell itself, without which a contrast is also one of settings."""
    head = group.head
    (tuned, cells), protocols = head.tuned, head.protocols
    if tuned == cells and protocols == 1:
        return "Settings: tuned, by one protocol for each cell."
    if tuned == cells:
        return (
            f"Settings: tuned, but by {protocols} protocols, which differ in sampler, configurations, reward "
            "queries or prompts: a wrapper may stand high because its cell was searched for longer."
        )
    others = "the other cells have" if tuned else "all cells have"
    named = f" ({', '.join(markdown_text(name) for name in head.tuned_cells[:4])})" if 0 < tuned <= 4 else ""
    context = head.context
    judged = {row.algorithm for row in group.compatibility if row.planned}
    asked_of = PLAN.algorithms_on(context.prompts)
    told = (context.backbone, context.reward, context.reward_settings, context.budget)
    of_plan = told == ("pocket", "clipscore", "", PLAN.queries)
    asked = ""
    if of_plan and len(judged) < len(asked_of):
        some = f"{len(judged)} of its {len(asked_of)} algorithms" if judged else "none of its algorithms"
        have = "have" if len(judged) > 1 else "has"
        asked = f" The preregistered question is asked at equal tuning; of that, {some} {have} all runs here yet."
        if judged:
            asked += " What is said of these is provisional until all have: each that comes makes the levels harder."
    return (
        f"Settings: {tuned or 'none'} of {cells} cells tuned{named}; {others} their algorithm's defaults, which were "
        "chosen under vanilla, or what their names say. So a wrapper may stand low because nothing was chosen for it: "
        f"where it trains on fewer rollouts it takes fewer optimizer steps, at vanilla's learning rate.{asked}"
    )


OF_NO_TRAINING = (9, 11)
"""Signs about the pretrained model, and about which rows are there: that they pass says nothing of training."""
ASKED = 10
"""The sign that is the leaderboard's own question, on which B2's paper and the field disagree."""
VERDICTS: Mapping[Verdict, str] = {"pass": "pass", "fail": "fail", "undecided": "are undecided"}


def _card(group: Tables, profiles: Sequence[Mapping[str, Any]]) -> str:
    found = section(group, profiles)
    trained = [sign.verdict for sign in card(group, profiles) if sign.number not in (*OF_NO_TRAINING, ASKED)]
    told = ", ".join(f"{trained.count(verdict)} {name}" for verdict, name in VERDICTS.items())
    text = (
        "What a small world says of wrappers is easier to believe if training in it shows what larger models are known "
        f"to show. Of {len(trained)} signs of that, {told}. The others ask about the pretrained model, about what is "
        f"on this page, and (sign {ASKED}) the question of this leaderboard itself, on which the paper and the field "
        "disagree."
    )
    grids = "\n".join(markdown_grid(grid) for grid in found.grids)
    return f"**{markdown_text(found.title)}**. {text}\n\n{grids}"
