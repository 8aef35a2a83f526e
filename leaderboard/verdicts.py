"""A verdict for each algorithm under each wrapper, from all that is claimed of it, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from b2bench.leaderboard.cells import WRAPPERS, Cell, Run, names_of, wrapper_order
from b2bench.leaderboard.claims import GAIN, INTERACTION, TRAINED, Claims, direction
from b2bench.leaderboard.collapse import Collapses, collapses, fisher
from b2bench.leaderboard.rows import (
    Beside,
    CollapseRow,
    CompatibilityCell,
    CompatibilityRow,
    Context,
    Verdict,
)
from b2bench.leaderboard.stats import Paired, detectable, estimate
from b2bench.leaderboard.variants import Variant, vanilla_of

OUTSIDE = "external"
"""Algorithm of somebody's LoRA: nobody knows the wrapper it was trained under, so that it goes with none or all."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict looks at.

    ``gain`` is against the pretrained model and ``delta`` against vanilla, both on the area of gain and after Holm;
    ``delta`` is None for vanilla, or if vanilla was not run. ``margin`` and ``equal`` are those of equality to vanilla.
    """

    gain: Paired
    counts: Collapses
    alpha: float
    delta: Paired | None = None
    margin: float | None = None
    equal: float | None = None
    beside: tuple[Beside, ...] = ()


def judge(evidence: Evidence) -> tuple[Verdict, str]:
    """Return a verdict and its words.

    A cell of which all seeds fell below the pretrained model, and far, is a loss whatever it is compared
    with. Else vanilla is judged by its gain, and a wrapper by its difference to vanilla. A wrapper that is better or
    equal on the trained reward, but worse in the held-out score or in diversity, is mixed.
    """
    learned, words = _learned(evidence)
    if evidence.counts.fell or evidence.delta is None:
        return learned, words
    delta, beside = evidence.delta, evidence.beside
    if delta.p_adjusted is None or delta.mean is None:
        return "untested", words
    trained = direction(delta, evidence.equal, evidence.alpha)
    verdicts: dict[str, Verdict] = {"better": "gain", "worse": "loss", "equal": "equivalent", "open": "inconclusive"}
    verdict = verdicts[trained]
    if verdict in ("gain", "equivalent") and any(other.verdict == "worse" for other in beside):
        verdict = "mixed"
    return verdict, f"{words}; {_beside_vanilla([('trained reward', trained), *((b.name, b.verdict) for b in beside)])}"


_TOLD = {
    "better": "better than vanilla in",
    "worse": "worse than vanilla in",
    "equal": "equal to vanilla in",
    "open": "not told apart from vanilla in",
}


def _beside_vanilla(measures: Sequence[tuple[str, str]]) -> str:
    """Say "equal to vanilla in trained reward, worse than vanilla in held-out"."""
    found: dict[str, list[str]] = {}
    for name, verdict in measures:
        found.setdefault(verdict, []).append(name)
    if list(found) == ["open"]:
        return "not told apart from vanilla"
    return ", ".join(f"{_TOLD[verdict]} {' and '.join(names)}" for verdict, names in found.items())


def _learned(evidence: Evidence) -> tuple[Verdict, str]:
    gain, counts = evidence.gain, evidence.counts
    if counts.fell:
        return (
            "loss",
            f"lost: all {counts.n} seeds fell below the pretrained model, the median one by {counts.drop:.2f}",
        )
    if gain.p_adjusted is None or gain.mean is None:
        return "untested", "untested: too few seeds, or a value is missing"
    some = f", {counts.collapsed} of {counts.n} seeds collapsed" if counts.collapsed else ""
    if counts.below == counts.n:
        some = f", all {counts.n} seeds ended below the pretrained model{some}"
    if gain.p_adjusted < evidence.alpha:
        return ("gain", f"learned{some}") if gain.mean > 0 else ("loss", f"lost{some}")
    return "inconclusive", f"no gain shown{some}"


def compatibility(
    context: Context,
    variants: Sequence[Variant],
    claims: Claims,
    incomplete: Sequence[Run],
    refused: Mapping[tuple[str, str], str],
) -> tuple[CompatibilityRow, ...]:
    """Return a row for each algorithm: each wrapper against vanilla, vanilla against the pretrained model.

    If vanilla was not run, all are against the pretrained model.
    """
    running = [(names, run) for run in incomplete if (names := names_of(run.row))[0] != OUTSIDE]
    started = {names for names, _ in running}
    shown = [
        (place, variant)
        for place, variant in enumerate(variants)
        if set(variant.cells) != {"-"} and variant.algorithm != OUTSIDE
    ]
    others = {name for _, variant in shown for name in variant.cells} | {name for _, name in (*started, *refused)}
    wrappers = sorted({*WRAPPERS, *(others - {"-"})}, key=wrapper_order)
    known = {variant.algorithm for _, variant in shown}
    for algorithm in sorted({name for name, _ in (*started, *refused)} - known):
        shown.append((-1, Variant(algorithm, "", {})))

    def cell_of(place: int, variant: Variant, wrapper: str) -> CompatibilityCell:
        cell = variant.cells.get(wrapper)
        if cell is not None:
            return _judged(context, claims, place, variant, wrapper, cell)
        pair = (variant.algorithm, wrapper)
        reason = refused.get(pair, "")
        here = any(names == pair and variant.is_of(run) for names, run in running)
        without: Verdict = "incomplete" if here else "refused" if reason else "not run"
        return CompatibilityCell(wrapper, without, None, "", 0, reason=reason)

    return tuple(
        CompatibilityRow(
            variant.algorithm,
            variant.label,
            tuple(cell_of(place, variant, wrapper) for wrapper in wrappers),
            variant.planned,
        )
        for place, variant in shown
    )


def counts_of(context: Context, cell: Cell) -> Collapses:
    """Count the collapsed runs of a cell by the trained reward at the end."""
    return collapses(cell.final(context.reward, cell.seeds), cell.start(context.reward, cell.seeds), cell.limit)


def _judged(
    context: Context, claims: Claims, place: int, variant: Variant, wrapper: str, cell: Cell
) -> CompatibilityCell:
    against = wrapper not in ("vanilla", INTERACTION) and "vanilla" in variant.cells
    nothing = Paired(None, None, None, 0)
    gain = claims.of((place, wrapper, GAIN)) or nothing
    delta = (claims.of((place, wrapper, TRAINED)) or nothing) if against else None
    margin, equal = claims.equal.get((place, wrapper, TRAINED), (None, None))
    beside = claims.beside(place, wrapper) if against else ()
    evidence = Evidence(gain, counts_of(context, cell), claims.rules.alpha, delta, margin, equal, beside)
    verdict, words = judge(evidence)
    learned, _ = _learned(evidence)
    if cell.failed == len(cell.runs):
        verdict, learned, words = "failed", "failed", "every run failed"
    tests = claims.beside_whom(place, wrapper)
    shown = gain if delta is None else delta
    return CompatibilityCell(
        wrapper,
        verdict,
        shown,
        "vanilla" if against else "pretrained",
        cell.failed,
        detectable(shown, tests, claims.rules.alpha),
        words=words,
        gain=gain,
        margin=margin,
        equal=equal,
        beside=beside,
        fell=evidence.counts.fell,
        learned=learned,
        gain_detectable=detectable(gain, tests, claims.rules.alpha),
        below=evidence.counts.below == evidence.counts.n,
        config_hash=cell.config_hash,
        planned=cell.planned,
    )


def collapse_rows(context: Context, cells: Sequence[Cell], variants: Sequence[Variant]) -> tuple[CollapseRow, ...]:
    """Return how many runs of each cell collapsed, and whether it is another share than vanilla's."""
    vanilla = vanilla_of(variants)
    rows = []
    for cell in cells:
        counts = counts_of(context, cell)
        p = None
        if (other := vanilla.get(id(cell))) is not None:
            base = counts_of(context, other)
            p = fisher(counts.collapsed, counts.n, base.collapsed, base.n)
        mean = estimate(cell.final(context.reward, cell.seeds))
        rows.append(CollapseRow(cell.algorithm, cell.wrapper, cell.label, mean, counts, p))
    return tuple(rows)
