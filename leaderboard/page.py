"""The leaderboard's page: claims in words, results beside the paper's, the validity card, how to add a row.

The same rows give the same page, byte for byte, so that anybody can make it from the published Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.leaderboard.claims import direction
from b2bench.leaderboard.document import document
from b2bench.leaderboard.grid import Picture, number, title
from b2bench.leaderboard.paper import reported_grids
from b2bench.leaderboard.rows import ContrastRow, Head, PlannedContrast, Tables
from b2bench.leaderboard.sheets import contrast_name
from b2bench.leaderboard.validity import section as card
from b2bench.leaderboard.written import markdown, markdown_grid, markdown_text

EXPECTED = {
    "bpt": "backward progressive training improves alignment at equal queries",
    "bs": "branch-based sampling improves alignment at equal queries",
    "b2": "B2 improves alignment at equal queries",
}
"""What B2's paper says of contrasts; of the interaction it says nothing."""
FOLDER = Path(__file__).with_name("templates")
NOTHING = "There are no results of this benchmark version yet. They will be added here, whatever they say.\n"


def leaderboard_page(
    tables: Sequence[Tables],
    profiles: Iterable[Mapping[str, Any]] = (),
    pictures: Sequence[Sequence[Picture]] = (),
    version: str = "",
) -> str:
    """Return the page as Markdown. ``profiles`` are rows of ``Store.profiles``, ``pictures`` those of each context."""
    profiled = list(profiles)
    parts = [_text("introduction", version)]
    if not any(group.curves for group in tables):
        parts.append(NOTHING)
    else:
        claims = [(group, claim) for group in tables for row in group.contrasts for claim in _claims(group, row)]
        if claims:
            parts += ["## What the paper says, and what is seen here\n", *_lines(claims)]
        parts.append(markdown(document(tables, pictures)))
        parts += ["## Validity card\n", *(_card(group, profiled) for group in tables if group.curves)]
    parts += ["## The paper's numbers\n", _text("paper", version), *(markdown_grid(grid) for grid in reported_grids())]
    parts.append(_text("adding", version))
    return "\n".join(parts)


def _text(name: str, version: str) -> str:
    """Return a part of the page that results don't change."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8").replace("VERSION", version)


def _lines(claims: Sequence[tuple[Tables, str]]) -> list[str]:
    found: list[str] = []
    context = None
    for group, claim in claims:
        if group.head.context != context:
            context = group.head.context
            found += [""] * bool(found)
            found.append(f"**{markdown_text(title(context))}**. {_tuned(group.head)}\n")
        found.append(f"- {claim}")
    return [*found, ""]


def _tuned(head: Head) -> str:
    """Say whose settings were chosen for the cell itself, without which a contrast is also one of settings."""
    (tuned, cells), protocols = head.tuned, head.protocols
    if tuned == cells and protocols == 1:
        return "Settings: tuned, by one protocol for each cell."
    if tuned == cells:
        return (
            f"Settings: tuned, but by {protocols} protocols, which differ in sampler, configurations or reward "
            "queries: a wrapper may stand high because its cell was searched for longer."
        )
    others = "the other cells have" if tuned else "all cells have"
    return (
        f"Settings: {tuned or 'none'} of {cells} cells tuned; {others} their algorithm's defaults or what their names "
        "say, and a wrapper may stand low because nothing was chosen for it."
    )


def _claims(group: Tables, row: ContrastRow) -> list[str]:
    """Return a sentence for each claim of the paper on an algorithm that its cells can test."""
    found = []
    for name, claim in EXPECTED.items():
        contrast = row.of(name)
        if contrast is None:
            continue
        algorithm = f"{row.algorithm} {row.label}".strip()
        verdict, why = judged(group, row, contrast)
        text = f"*{markdown_text(algorithm)}*: {claim} ({contrast_name(name)}): **{verdict}**, {why}."
        found.append(text)
    return found


def judged(group: Tables, row: ContrastRow, contrast: PlannedContrast) -> tuple[str, str]:
    """Return supported here, not supported or undecided, and why, by the rules of docs/preregistration.md."""
    delta, name = contrast.delta, contrast.name
    cell = next(
        (
            cell
            for other in group.compatibility
            if (other.algorithm, other.label) == (row.algorithm, row.label)
            for cell in other.cells
            if cell.wrapper == name
        ),
        None,
    )
    if delta.mean is None:
        return "undecided", "a value is missing"
    bounds = "" if delta.low is None else f" [{number(delta.low, sign=True)}, {number(delta.high, sign=True)}]"
    seen = f"{number(delta.mean, sign=True)}{bounds} in the area of gain, {delta.n} seed{'s' * (delta.n != 1)}"
    found = direction(delta, None if cell is None else cell.equal, group.head.alpha)
    if found == "equal":
        seen += ", shown to be equal"
    if cell is not None and cell.fell:
        seen += ", and its seeds fell below the pretrained model"
    if cell is not None and cell.verdict == "mixed":
        return (
            "undecided" if found == "better" else "not supported",
            f"{seen}, and worse in the held-out score or in diversity",
        )
    if found != "open":
        return "supported here" if found == "better" else "not supported", seen
    least = "" if contrast.detectable is None else f"; {number(contrast.detectable)} would have shown"
    return "undecided", f"{seen}{least}"


def _card(group: Tables, profiles: Sequence[Mapping[str, Any]]) -> str:
    found = card(group, profiles)
    return f"**{markdown_text(found.title)}**\n\n" + "\n".join(markdown_grid(grid) for grid in found.grids)
