"""The leaderboard's page: claims in words, results beside the paper's, the validity card, how to add a row.

The same rows give the same page, byte for byte, so that anybody can make it from the published Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.leaderboard.answers import measure_name
from b2bench.leaderboard.cells import PAIRED
from b2bench.leaderboard.claims import direction
from b2bench.leaderboard.columns import claimed
from b2bench.leaderboard.document import document
from b2bench.leaderboard.glossary import glossary
from b2bench.leaderboard.grid import MEASURES, Picture, number, title
from b2bench.leaderboard.paper import reported_grids
from b2bench.leaderboard.rows import CompatibilityCell, ContrastRow, Head, PlannedContrast, Tables
from b2bench.leaderboard.searches import Preset, searches
from b2bench.leaderboard.sheets import contrast_name
from b2bench.leaderboard.stats import Paired
from b2bench.leaderboard.validity import Verdict, card, section
from b2bench.leaderboard.written import markdown, markdown_grid, markdown_text

EXPECTED = {
    "bpt": "backward progressive training improves alignment at equal queries",
    "bs": "branch-based sampling improves alignment at equal queries",
    "b2": "B2 improves alignment at equal queries",
}
"""What B2's paper says of contrasts; of the interaction it says nothing."""
IGNORES = "it ignores what is selected, so that of branches the shared prefix alone is tested"
KEEPS = "B2 keeps more diversity at equal queries"
"""What its tables 1 and 2 say, by inception scores."""
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
        claims = [(group, claim) for group in tables for row in group.contrasts for claim in _claims(group, row)]
        if claims:
            parts += ["## What the paper says, and what is seen here\n", *_lines(claims)]
        sections = document(tables, pictures)
        heads = " ".join(column.name for part in sections for grid in part.grids for column in grid.columns)
        parts.append(markdown(sections))
        if presets:
            parts += ["## How tuned cells were tuned\n", markdown_grid(searches(presets), titled=False)]
        parts += ["## Can this world be believed?\n", *(_card(group, profiled) for group in tables if group.curves)]
    parts += ["## The paper's numbers\n", _text("paper", version), *(markdown_grid(grid) for grid in reported_grids())]
    parts.append(_text("adding", version))
    if words := glossary(heads):
        parts += ["## Words\n", *(f"- **{markdown_text(name)}**: {meaning}" for name, meaning in words.items()), ""]
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
            found.append(
                f"Intervals are of one contrast each, at 95%. Each p is of a difference, after Holm over all "
                f"{claimed(group.head)} of the table *Verdicts*, and it decides whether there is one: an interval "
                "without zero is not enough. Equality has tests of its own.\n"
            )
        found.append(f"- {claim}")
    return [*found, ""]


def _tuned(head: Head) -> str:
    """Say whose settings were chosen for the cell itself, without which a contrast is also one of settings."""
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
    return (
        f"Settings: {tuned or 'none'} of {cells} cells tuned{named}; {others} their algorithm's defaults, which were "
        "chosen under vanilla, or what their names say. So a wrapper may stand low because nothing was chosen for it: "
        "where it trains on fewer rollouts it takes fewer optimizer steps, at vanilla's learning rate."
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
        notes = []
        if row.algorithm in PAIRED and name in ("bs", "b2"):
            notes.append(IGNORES)
        vanilla = _cell(group, row, "vanilla")
        if vanilla is not None and vanilla.learned != "gain":
            notes.append("vanilla itself is not shown to learn")
        aside = f" ({'; '.join(notes)})" if notes else ""
        found.append(
            f"*{markdown_text(algorithm)}*: {claim} ({contrast_name(name)}): **{verdict}**, {why}"
            f"{_beside(_cell(group, row, name))}{aside}."
        )
        if name == "b2" and (kept := _kept(_cell(group, row, name))):
            ignores = f" ({IGNORES})" if row.algorithm in PAIRED else ""
            found.append(f"*{markdown_text(algorithm)}*: {KEEPS} ({contrast_name(name)}): {kept}{ignores}.")
    return found


def _kept(cell: CompatibilityCell | None) -> str:
    """Return the verdict on the diversity that is left at the end, and what it rests on; "" if none was measured."""
    for other in cell.beside if cell else ():
        if other.name != "diversity":
            continue
        delta = other.delta
        verdict = {"better": "supported here", "open": "undecided"}.get(other.verdict, "not supported")
        why = {"worse": "the opposite is shown, ", "equal": "shown to be equal, "}.get(other.verdict, "")
        bounds = "" if delta.low is None else f" [{number(delta.low, sign=True)}, {number(delta.high, sign=True)}]"
        seen = f"{number(delta.mean, sign=True)}{bounds} in {MEASURES.get(other.metric, other.metric)} at the end"
        tested = _p(delta, other.equal if other.verdict == "equal" else None)
        trained = cell.delta.mean if cell is not None and cell.delta is not None else None
        less = (delta.mean or 0.0) > 0 and (trained or 0.0) < 0
        aside = "; it gained less of the reward, too, so that this is no comparison at equal gain" if less else ""
        return f"**{verdict}**, {why}{seen}, {_seeds(delta.n)}, {tested}{aside}"
    return ""


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _cell(group: Tables, row: ContrastRow, wrapper: str) -> CompatibilityCell | None:
    return next(
        (
            cell
            for other in group.compatibility
            if (other.algorithm, other.label) == (row.algorithm, row.label)
            for cell in other.cells
            if cell.wrapper == wrapper
        ),
        None,
    )


def _beside(cell: CompatibilityCell | None) -> str:
    """Say what is shown of the measures beside the trained reward: diversity is half of what the paper is about."""
    parts = [
        f"{other.verdict} in {measure_name(other.name)} ({number(other.delta.mean, sign=True)}, "
        f"{_p(other.delta, other.equal if other.verdict == 'equal' else None)})"
        for other in (cell.beside if cell else ())
        if other.verdict != "open"
    ]
    return f"; beside it {' and '.join(parts)}" if parts else ""


def _p(delta: Paired, equal: float | None = None) -> str:
    """Write the p-value of a difference, or of ``equal``: that of no difference beyond the margin."""
    p, of = (delta.p_adjusted, "p") if equal is None else (equal, "p of equality")
    return "untested" if p is None else f"{of} < 0.0001" if p < 1e-4 else f"{of} = {p:.2g}"


def judged(group: Tables, row: ContrastRow, contrast: PlannedContrast) -> tuple[str, str]:
    """Return supported here, not supported or undecided, and why, by the rules of docs/preregistration.md."""
    delta, cell = contrast.delta, _cell(group, row, contrast.name)
    if delta.mean is None:
        return "undecided", "a value is missing"
    bounds = "" if delta.low is None else f" [{number(delta.low, sign=True)}, {number(delta.high, sign=True)}]"
    found = direction(delta, None if cell is None else cell.equal, group.head.alpha)
    p = _p(delta, cell.equal if cell is not None and found == "equal" else None)
    seen = f"{number(delta.mean, sign=True)}{bounds} in the area of gain, {_seeds(delta.n)}, {p}"
    if found == "equal":
        seen += ", shown to be equal"
    if cell is not None and cell.fell:
        seen += ", and its seeds fell below the pretrained model"
    if cell is not None and cell.verdict == "mixed":
        # in what it is worse stands beside it
        return "undecided" if found == "better" else "not supported", f"{seen}, and worse in another measure"
    if found != "open":
        opposite = "the opposite is shown, " * (found == "worse")
        return "supported here" if found == "better" else "not supported", f"{opposite}{seen}"
    least = contrast.detectable
    power = "" if least is None else f"; a true {number(least)} would show in four experiments of five"
    return "undecided", f"{seen}{power}"


OF_NO_TRAINING = (9, 11)
"""Signs about the pretrained model, and about which rows are there: that they pass says nothing of training."""
VERDICTS: Mapping[Verdict, str] = {"pass": "pass", "fail": "fail", "undecided": "are undecided"}


def _card(group: Tables, profiles: Sequence[Mapping[str, Any]]) -> str:
    found = section(group, profiles)
    trained = [sign.verdict for sign in card(group, profiles) if sign.number not in OF_NO_TRAINING]
    told = ", ".join(f"{trained.count(verdict)} {name}" for verdict, name in VERDICTS.items())
    text = (
        "What a small world says of wrappers is easier to believe if training in it shows what larger models are known "
        f"to show. Of the {len(trained)} signs about training {told}; the others ask about the pretrained model and "
        "about what stands on this page."
    )
    grids = "\n".join(markdown_grid(grid) for grid in found.grids)
    return f"**{markdown_text(found.title)}**. {text}\n\n{grids}"
