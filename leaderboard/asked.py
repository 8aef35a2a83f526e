"""What B2's paper says, claim by claim, and what an algorithm's cells say of it (docs/preregistration.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from b2bench.leaderboard.answers import joined, measure_name
from b2bench.leaderboard.cells import PAIRED
from b2bench.leaderboard.claims import direction
from b2bench.leaderboard.grid import AREA_DIGITS, MEASURES, number
from b2bench.leaderboard.rows import CompatibilityCell, ContrastRow, PlannedContrast, Tables
from b2bench.leaderboard.sheets import contrast_name
from b2bench.leaderboard.stats import Paired
from b2bench.leaderboard.written import markdown_text

EXPECTED = {
    "bpt": "Backward progressive training improves alignment at equal queries",
    "bs": "Branch-based sampling improves alignment at equal queries",
    "b2": "B2 improves alignment at equal queries",
}
"""What the paper says of contrasts; of the interaction it says nothing."""
KEEPS = "B2 keeps more diversity at equal queries"
"""What its tables 1 and 2 say, by inception scores."""
IGNORES = "it ignores what is selected, so that of branches the shared prefix alone is tested"

Judged = Literal["supported here", "not supported", "undecided"]
Reason = Literal["", "the opposite is shown", "shown to be equal"]
VERDICTS: dict[str, tuple[Judged, Reason]] = {
    "better": ("supported here", ""),
    "worse": ("not supported", "the opposite is shown"),
    "equal": ("not supported", "shown to be equal"),
    "open": ("undecided", ""),
}
"""What a difference that is shown, or is not, says of a claim that there is one above zero."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper on one algorithm: the verdict, its reason, and the ``figures`` that it rests on.

    ``steps`` are the wrapper's optimizer steps as a share of vanilla's, None where they are unknown; ``less`` says that
    the wrapper gained less of the reward than vanilla; ``planned`` that the cells are the plan's.
    """

    said: str
    contrast: str
    algorithm: str
    verdict: Judged
    reason: Reason
    figures: str
    steps: float | None = None
    less: bool = False
    planned: bool = False

    @property
    def name(self) -> str:
        """The algorithm, in a list of several."""
        return f"{self.algorithm} (the plan's)" if self.planned else self.algorithm

    @property
    def line(self) -> str:
        """The claim on this algorithm, as an item of a list in Markdown."""
        why = f"{self.reason}, " if self.reason else ""
        return f"- *{markdown_text(self.algorithm)}*: **{self.verdict}**, {why}{self.figures}."


def claims_of_paper(group: Tables) -> list[Claim]:
    """Return each claim of the paper on each algorithm whose cells can test it."""
    return [claim for row in group.contrasts for claim in _of_row(group, row)]


def _of_row(group: Tables, row: ContrastRow) -> list[Claim]:
    found = []
    for name, said in EXPECTED.items():
        contrast = row.of(name)
        if contrast is None:
            continue
        algorithm = f"{row.algorithm} {row.label}".strip()
        cell, vanilla = _cell(group, row, name), _cell(group, row, "vanilla")
        verdict, reason, figures = judged(group, cell, contrast, vanilla)
        steps, taken = _steps(group, cell, vanilla)
        notes = [IGNORES] if row.algorithm in PAIRED and name in ("bs", "b2") else []
        if vanilla is not None and vanilla.learned != "gain":
            notes.append("vanilla itself is not shown to learn")
        notes += [taken] if taken else []
        aside = f" ({'; '.join(notes)})" if notes else ""
        figures += f"{_beside(cell)}{aside}"
        place = contrast_name(name)
        planned = any(
            other.planned and (other.algorithm, other.label) == (row.algorithm, row.label)
            for other in group.compatibility
        )
        found.append(Claim(said, place, algorithm, verdict, reason, figures, steps, planned=planned))
        if name == "b2" and (kept := _kept(cell)) is not None:
            ignores = f" ({IGNORES})" if row.algorithm in PAIRED else ""
            verdict, reason, figures, less = kept
            found.append(Claim(KEEPS, place, algorithm, verdict, reason, figures + ignores, steps, less, planned))
    return found


def in_short(claims: Sequence[Claim]) -> list[str]:
    """Return a sentence for each claim of the paper, as items of a list in Markdown: which algorithms say what, those
    of the plan first.
    """
    lines = []
    for said in dict.fromkeys(claim.said for claim in claims):
        mine = sorted((claim for claim in claims if claim.said == said), key=lambda claim: not claim.planned)
        parts = []
        for verdict, reason in VERDICTS.values():
            named = [claim for claim in mine if (claim.verdict, claim.reason) == (verdict, reason)]
            if not named:
                continue
            why = f", {reason}" if reason else ""
            less = [claim.name for claim in named if claim.less and verdict == "supported here"]
            aside = f" (B2 gained less there: {markdown_text(joined(less))})" if less else ""
            names = joined([claim.name for claim in named])
            parts.append(f"**{verdict}**{why}: {markdown_text(names)}{aside}")
        lines.append(f"- {said} ({mine[0].contrast}): {'; '.join(parts)}.{_shares(mine)}")
    return lines


def _shares(claims: Sequence[Claim]) -> str:
    """Say how many of vanilla's optimizer steps the wrapper took, over algorithms."""
    known = [claim.steps for claim in claims if claim.steps is not None]
    if not known or claims[0].said == KEEPS or all(abs(share - 1) < 0.01 for share in known):
        return ""
    low, high = f"{min(known):.0%}", f"{max(known):.0%}"
    return f" The wrapper took {low if low == high else f'{low} to {high}'} of vanilla's optimizer steps."


def _steps(
    group: Tables, cell: CompatibilityCell | None, vanilla: CompatibilityCell | None
) -> tuple[float | None, str]:
    """Return the optimizer steps of a cell as a share of vanilla's, and in words where they differ.

    Not of one with a failed run, which may have stopped early.
    """
    rows = [row for row in group.leaderboard if not row.reference and not row.failed]
    known = {row.identity: row.optimizer_steps for row in rows}
    mine, theirs = (known.get(found.identity) if found is not None else None for found in (cell, vanilla))
    if not mine or not theirs:
        return None, ""
    differ = round(mine) != round(theirs)
    return mine / theirs, f"{mine:,.0f} of vanilla's {theirs:,.0f} optimizer steps" * differ


def _kept(cell: CompatibilityCell | None) -> tuple[Judged, Reason, str, bool] | None:
    """Return the verdict on the diversity that is left at the end, and what it rests on; None if none was measured."""
    for other in cell.beside if cell else ():
        if other.name != "diversity":
            continue
        delta = other.delta
        verdict, reason = VERDICTS[other.verdict]
        tested = _p(delta, other.equal if other.verdict == "equal" else None)
        measure = MEASURES.get(other.metric, other.metric)
        seen = f"{_interval(delta, 3)} in {measure} at the end, {_seeds(delta.n)}, {tested}"
        trained = cell.delta.mean if cell is not None and cell.delta is not None else None
        less = (delta.mean or 0.0) > 0 and (trained or 0.0) < 0
        aside = "; it gained less of the reward, too, so that this does not compare cells at equal gain" if less else ""
        return verdict, reason, f"{seen}{aside}", less
    return None


def _interval(delta: Paired, digits: int) -> str:
    """Write a mean and its interval."""
    low, mean, high = (number(value, digits, sign=True) for value in (delta.low, delta.mean, delta.high))
    return mean if delta.low is None else f"{mean} [{low}, {high}]"


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


def judged(
    group: Tables, cell: CompatibilityCell | None, contrast: PlannedContrast, vanilla: CompatibilityCell | None
) -> tuple[Judged, Reason, str]:
    """Return supported here, not supported or undecided, its reason, and what it rests on, by docs/preregistration.md.

    ``cell`` and ``vanilla`` are those of the contrast.
    """
    delta = contrast.delta
    if delta.mean is None:
        return "undecided", "", "a value is missing"
    found = direction(delta, None if cell is None else cell.equal, group.head.alpha)
    p = _p(delta, cell.equal if cell is not None and found == "equal" else None)
    seen = f"{_interval(delta, AREA_DIGITS)} in the area of gain, {_seeds(delta.n)}, {p}"
    verdict, reason = VERDICTS[found]
    if cell is not None and cell.fell:
        # less of a loss than another is no gain, and more of one shows the opposite all the same
        seen += ", and its seeds fell below the pretrained model"
        return "undecided" if found == "better" else verdict, reason, seen
    if found in ("better", "equal") and cell is not None and any(other.verdict == "worse" for other in cell.beside):
        # in what it is worse stands beside it
        return "undecided" if found == "better" else verdict, reason, f"{seen}, and worse in another measure"
    if found != "open":
        return verdict, reason, seen
    least = contrast.detectable
    if least is None:
        return verdict, reason, seen
    power = f"; a true {number(least, AREA_DIGITS)} would show in four experiments of five"
    gained = vanilla.gain.mean if vanilla is not None and vanilla.gain is not None else None
    if gained is not None and 0 < gained < least:
        power += f", which is more than all that vanilla gained ({number(gained, AREA_DIGITS, sign=True)})"
    return verdict, reason, f"{seen}{power}"
