"""The tables of what a report claims, and beside them collapses and equal compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from b2bench.leaderboard.cells import PAIRED
from b2bench.leaderboard.collapse import FAR
from b2bench.leaderboard.columns import (
    algorithm_cell,
    aside,
    claimed,
    grid_of,
    name_cell,
    over,
    seeds_cell,
    wrapper_name,
)
from b2bench.leaderboard.contrasts import CONTRASTS, RATIO
from b2bench.leaderboard.grid import AREA_DIGITS, SYMBOLS, Cell, Grid, count, measured, number
from b2bench.leaderboard.noise import MOST
from b2bench.leaderboard.rows import (
    CompatibilityCell,
    CompatibilityRow,
    ContrastRow,
    Head,
    PlannedContrast,
    Tables,
)
from b2bench.leaderboard.stats import MIN_SEEDS, SHARE, Paired

EXPLORATORY = "exploratory: what this table shows is not among the claims, and its intervals are not adjusted"


def family(head: Head) -> str:
    """Say what a report claims as a whole."""
    if not head.tests and not head.tuned_tests:
        return f"no claims: they take {MIN_SEEDS} seeds of a cell"
    families = [
        f"{tests} test{'s' * (tests != 1)}{name}"
        for tests, name in (
            (head.tuned_tests, " on the plan's cells"),
            (head.tests, " on others" * bool(head.tuned_tests)),
        )
        if tests
    ]
    return (
        f"claims: {' and '.join(families)}{', each' * (len(families) > 1)} at {100 * head.alpha:g}%, Holm over all of "
        f"{'them' if len(families) == 1 else 'a family'}: the area of gain of each cell, the planned "
        "contrasts on it, and each wrapper against vanilla in the held-out score and in diversity"
    )


def _effect(effect: Paired | None, alpha: float, digits: int = 3) -> Cell:
    cell = measured(effect, digits, sign=True)
    if effect is None or effect.p_adjusted is None or effect.mean is None:
        return cell
    kind = "" if effect.p_adjusted >= alpha else "gain" if effect.mean > 0 else "loss"
    return Cell(f"{cell.text} p={effect.p_adjusted:.2g}", effect, effect.mean, kind)


# -- verdicts -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    algorithm: str
    wrapper: str
    label: str
    cell: CompatibilityCell


def verdicts(group: Tables) -> Grid:
    """Return the verdict on each cell in words, with the tests that it looks at."""
    rows = [
        _Judged(row.algorithm, cell.wrapper, row.label, cell)
        for row in group.compatibility
        for cell in row.cells
        if cell.delta is not None
    ]
    alpha = group.head.alpha

    def beside(name: str) -> Callable[[_Judged], Cell]:
        def cell(row: _Judged) -> Cell:
            found = next((other for other in row.cell.beside if other.name == name), None)
            return _effect(None if found is None else found.delta, alpha)

        return cell

    def to_vanilla(row: _Judged) -> Paired | None:
        return row.cell.delta if row.cell.baseline == "vanilla" else None

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("verdict", lambda row: Cell(f"{SYMBOLS[row.cell.verdict]} {row.cell.verdict}", kind=row.cell.verdict)),
        ("in words", lambda row: Cell(row.cell.words)),
        ("against pretrained", lambda row: _effect(row.cell.gain, alpha, AREA_DIGITS)),
        ("against vanilla", lambda row: _effect(to_vanilla(row), alpha, AREA_DIGITS)),
        ("held-out \u2212 vanilla", beside("held-out")),
        ("diversity \u2212 vanilla", beside("diversity")),
    ]
    shown = {row.cell.verdict for row in rows}
    legend = [
        family(group.head) + aside(group),
        "against pretrained, against vanilla: in the area of gain, the primary endpoint",
    ]
    if "loss" in shown:
        fell = ""
        if (far := group.head.collapse) is not None:
            fell = (
                f", or all seeds ended below the pretrained model, the median one by more than {number(FAR * far, 2)}"
            )
        legend.append(f"loss: worse by its test{fell}")
    if "mixed" in shown:
        legend.append(
            "mixed: better than vanilla or equal to it on the trained reward, and worse in the held-out score or in "
            "diversity"
        )
    if any(row.cell.wrapper != "vanilla" for row in rows):
        legend.append(_margin(group.head))
    return grid_of("verdicts", "Verdicts", columns, rows, legend if rows else ())


def _margin(head: Head) -> str:
    given = "" if head.margin is None else f", in the area of gain within ±{head.margin:g}"
    asked = over(head.equalities, head.tuned_equalities)
    return (
        f"equal: shown to be within {100 * SHARE:g}% of what vanilla gained{given} (two one-sided tests at "
        f"{100 * head.alpha:g}%, Holm over {asked}); if vanilla gained nothing, nothing is equal to it"
    )


# -- planned contrasts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Contrast:
    row: ContrastRow
    found: PlannedContrast

    @property
    def seeds(self) -> range:
        return range(self.found.end.n)

    @property
    def failed(self) -> int:
        return self.row.failed


def contrast_name(name: str) -> str:
    """Write a contrast as the sum of wrappers that it is, such as b2 - bpt - bs + vanilla."""
    terms = [f"{number(weight, 0, sign=True)[0]} {wrapper}" for wrapper, weight in CONTRASTS[name].items()]
    return " ".join(terms).removeprefix("+ ")


def contrasts(group: Tables) -> Grid:
    """Return the planned contrasts of each algorithm, a row for each."""
    rows = [_Contrast(row, found) for row in group.contrasts for found in row.contrasts]
    absent = [f"{algorithm_cell(row).text}: {row.missing}" for row in group.contrasts if row.missing]
    alpha = group.head.alpha

    def noise(name: str) -> Callable[[_Contrast], Cell]:
        def cell(row: _Contrast) -> Cell:
            value = None if row.found.noise is None else getattr(row.found.noise, name)
            return Cell(number(value, 4), sort=value)

        return cell

    def needed(row: _Contrast) -> Cell:
        if (found := row.found.noise) is None:
            return Cell("-")
        if found.needed is None:
            return Cell("seeds spread no more than images", kind="inconclusive")
        text = f"{count(found.needed)} ({count(found.images)} drawn)"
        return Cell(text, sort=found.needed, kind="" if found.enough else "inconclusive")

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("algorithm", lambda row: algorithm_cell(row.row)),
        ("contrast", lambda row: Cell(contrast_name(row.found.name))),
        ("area of gain", lambda row: _effect(row.found.delta, alpha, AREA_DIGITS)),
        ("at the end", lambda row: measured(row.found.end, sign=True)),
        ("least effect", lambda row: Cell(number(row.found.detectable, AREA_DIGITS), sort=row.found.detectable)),
        ("method", lambda row: Cell(row.found.delta.method)),
        ("noise of images", noise("evaluation")),
        ("spread of seeds", noise("seed")),
        ("images needed", needed),
        ("error of prompts", noise("prompts")),
        ("seeds", seeds_cell),
    ]
    legend = [
        f"p: after Holm over the {claimed(group.head)} of this report",
        "at the end: secondary, exploratory",
        "least effect: what these seeds would have shown in four experiments of five, at Holm's hardest level",
        "method: blocked (seed and wrapper, one error) if of the variances of the differences between wrappers the "
        f"largest is at most {RATIO:g} times the smallest, else the paired t-test",
    ]
    if any(row.found.noise for row in rows):
        legend += [
            "noise of images: standard deviation of the contrast of one seed at the end, from its images alone",
            "spread of seeds: the same from training alone",
            f"images needed: for a variance from images of {MOST:g} of that from seeds",
        ]
    if any(row.found.noise is not None and row.found.noise.prompts is not None for row in rows):
        legend.append(
            "error of prompts: standard error of the contrast at the end over test prompts, a mean over seeds; it is "
            "in no interval here, and says how far other prompts would move the contrast"
        )
    legend += [f"{text}; its BS contrast is that of the shared prefix alone" for text in _unselective(rows)]
    found = grid_of("contrasts", "Planned contrasts", columns, rows, [*(legend if rows else ()), *absent])
    return replace(found, names=2 if rows else 1)


def _unselective(rows: Iterable[Any]) -> list[str]:
    """Say of each algorithm on pairs that it ignores what a wrapper selects."""
    names = sorted({getattr(row, "row", row).algorithm for row in rows} & {*PAIRED})
    return [f"{name} ignores selection: it trains on the best and worst of each group" for name in names]


# -- compatibility --------------------------------------------------------------------------------------


def _verdict_text(found: CompatibilityCell) -> str:
    text = SYMBOLS[found.verdict]
    if found.delta is not None and found.delta.mean is not None:
        text += f" {number(found.delta.mean, AREA_DIGITS, sign=True)} {found.delta.wins}/{found.delta.n}"
    if found.fell:
        text += " (all fell)"
    if found.verdict == "inconclusive" and found.detectable is not None:
        text += f" (from {number(found.detectable, AREA_DIGITS)})"
    if found.failed:
        text += f" {found.failed}†"
    if found.baseline == "pretrained" and found.wrapper != "vanilla":
        text += "*"
    return text


def compatibility(group: Tables) -> Grid:
    """Return the matrix of verdicts, algorithms by wrappers."""
    rows = group.compatibility
    if not rows or not rows[0].cells:
        return grid_of("compatibility", "Compatibility", (), ())

    def verdict(place: int) -> Callable[[CompatibilityRow], Cell]:
        def cell(row: CompatibilityRow) -> Cell:
            found = row.cells[place]
            mean = None if found.delta is None else found.delta.mean
            return Cell(_verdict_text(found), found.delta, mean, found.verdict, found.detectable)

        return cell

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("algorithm", algorithm_cell),
        *((wrapper_name(cell.wrapper), verdict(i)) for i, cell in enumerate(rows[0].cells)),
    ]
    return grid_of("compatibility", "Compatibility", columns, rows, _compatibility_legend(group))


def _compatibility_legend(group: Tables) -> list[str]:
    rows = group.compatibility
    cells = [cell for row in rows for cell in row.cells]
    shown = {cell.verdict for cell in cells}
    legend = [", ".join(f"{symbol} {name}" for name, symbol in SYMBOLS.items() if name in shown)]
    if "untested" in shown:
        legend.append(f"untested: fewer than {MIN_SEEDS} shared seeds, or a value is missing")
    legend.append(
        "mean difference to vanilla in the area of gain, vanilla's to the pretrained model; k/n seeds are better; "
        f"{100 * group.head.alpha:g}%, Holm over the {claimed(group.head)} of this report{aside(group)}"
    )
    if "equivalent" in shown or "mixed" in shown:
        legend.append(_margin(group.head))
    if any(cell.verdict == "inconclusive" and cell.detectable is not None for cell in cells):
        legend.append("from: the smallest difference that these seeds would have shown in four experiments of five")
    if any(cell.failed for cell in cells):
        legend.append("† failed runs, counted with their last evaluation")
    if any(cell.baseline == "pretrained" and cell.wrapper != "vanilla" for cell in cells):
        legend.append("* against the pretrained model, for want of vanilla")
    return [*legend, *(f"{text}, under every wrapper" for text in _unselective(rows)), *refusals(group)]


def refusals(group: Tables) -> list[str]:
    """Say which algorithms and wrappers refuse each other, and why: a line for each."""
    cells = [(row.algorithm, cell) for row in group.compatibility for cell in row.cells if cell.verdict == "refused"]
    return [f"refused: {algorithm} {cell.wrapper}, {cell.reason}" for algorithm, cell in dict.fromkeys(cells)]


# -- collapses, equal compute ---------------------------------------------------------------------------


def collapse(group: Tables) -> Grid:
    """Return how many runs of each cell collapsed, and the means with and without them; no rows if none did."""
    rows = group.collapses if any(row.counts.collapsed or row.counts.fell for row in group.collapses) else ()

    def share(row: Any) -> Cell:
        found = row.counts
        if found.low is None or found.high is None:
            return Cell("-")
        text = f"{found.collapsed}/{found.n} [{number(found.low, 2)}, {number(found.high, 2)}]"
        return Cell(text, sort=found.collapsed / found.n, kind="loss" if found.collapsed else "")

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("collapsed", share),
        ("below the start", lambda row: Cell(f"{row.counts.below}/{row.counts.n}", sort=row.counts.below)),
        ("mean of all", lambda row: measured(row.mean)),
        ("median", lambda row: Cell(number(row.counts.median), sort=row.counts.median)),
        ("mean of the others", lambda row: Cell(number(row.counts.others), sort=row.counts.others)),
        (
            "Fisher's p to vanilla",
            lambda row: Cell("-" if row.fisher is None else f"{row.fisher:.2g}", sort=row.fisher),
        ),
    ]
    legend = [
        EXPLORATORY,
        _collapsed(group.head),
    ]
    return grid_of("collapse", "Collapses", columns, rows, legend if rows else ())


def _collapsed(head: Head) -> str:
    if head.collapse is None:
        return f"no run is counted as collapsed: nothing says how far {head.context.reward} spreads over images"
    return (
        f"collapsed: ended more than {number(head.collapse, 2)} below the pretrained model's score, with the 95% "
        "Wilson interval of the share; mean of the others: of the seeds that did not collapse"
    )


def compute(group: Tables) -> Grid:
    """Return the cells at equal compute instead of equal queries."""
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        (group.head.context.reward, lambda row: measured(row.alignment)),
        ("gain", lambda row: measured(row.gain, sign=True)),
        ("to vanilla", lambda row: measured(row.delta, sign=True)),
        ("queries there", lambda row: Cell(count(row.queries.mean), sort=row.queries.mean)),
    ]
    legend = [
        EXPLORATORY,
        f"at {count(group.head.compute)} forward-equivalents, what the cheapest run spent, controls "
        "and upper references aside; straight between evaluations",
    ]
    return grid_of("compute", "Equal compute", columns, group.compute, legend if group.compute else ())
