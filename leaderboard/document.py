"""A report as titled grids of texts and numbers: what every written format is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from b2bench.leaderboard.cells import CONTROLS, PAIRED
from b2bench.leaderboard.grid import (
    ALWAYS,
    MEASURES,
    SYMBOLS,
    Cell,
    Column,
    Grid,
    Picture,
    Section,
    count,
    facts,
    measured,
    number,
    title,
)
from b2bench.leaderboard.paper import paper_grids
from b2bench.leaderboard.rows import ALPHA, INCEPTION, HeadroomRow, LeaderboardRow, Tables
from b2bench.leaderboard.stats import MIN_SEEDS, Paired

KEEP = {
    "rank": 8,
    "held-out": 8,
    "headroom": 6,
    "style entropy (nats)": 7,
    "style entropy (nats), change": 7,
    "style entropy (nats), matched": 7,
    "denoiser calls": 6,
    "forward-equivalents": 5,
    "success": 6,
    "distance within a prompt": 5,
    "distance within a prompt, change": 5,
    "distance within a prompt, matched": 5,
    "queries to target": 5,
    **{f"{metric}{what}": 4 for metric in INCEPTION for what in ("", ", change", ", matched")},
    "held-out gain": 3,
    "area under curve": 3,
    "queries": 2,
    "queries an image": 2,
}
"""Which columns go first where a terminal is narrow: the lowest; a column that is not named stays."""


def document(tables: Sequence[Tables], pictures: Sequence[Sequence[Picture]] = ()) -> list[Section]:
    """Make a section for each context, with its tables in reading order; ``pictures`` are of each section."""
    return [_section(group, tuple(shown)) for group, shown in zip(tables, pictures or [()] * len(tables), strict=True)]


def _section(group: Tables, pictures: tuple[Picture, ...]) -> Section:
    head = group.head
    grids = [
        _leaderboard(group),
        _headroom(group),
        _ablation(group),
        _compatibility(group),
        _generalisation(group),
        _diversity(group),
        *paper_grids(head.context),
        _incomplete(group),
    ]
    shown = tuple(grid for grid in grids if grid.rows or grid.legend)
    return Section(title(head.context), facts(head), head.notes, shown, pictures)


def _name(row: Any) -> Cell:
    parts = [row.algorithm, "" if row.wrapper == "-" else _wrapper(row.wrapper), row.label]
    return Cell(" ".join(filter(None, parts)), kind="reference" if getattr(row, "reference", False) else "")


def _wrapper(name: str) -> str:
    return f"{name} (control)" if name in CONTROLS else name


def _algorithm(row: Any) -> Cell:
    return Cell(f"{row.algorithm} {row.label}".strip())


def _grid(
    key: str,
    title: str,
    columns: Sequence[tuple[str, Callable[[Any], Cell]]],
    rows: Sequence[Any],
    legend: Iterable[str] = (),
) -> Grid:
    """Columns of which every row has nothing to say are left out; a table without rows has none."""
    if not rows:
        return Grid(key, title, (), (), tuple(legend))
    filled = [(name, [cell(row) for row in rows]) for name, cell in columns]
    shown = [(name, cells) for name, cells in filled if any(cell.text not in ("", "-") for cell in cells)]
    heads = tuple(Column(name, place > 0, KEEP.get(name, ALWAYS)) for place, (name, _) in enumerate(shown))
    return Grid(key, title, heads, tuple(zip(*(cells for _, cells in shown), strict=True)), tuple(legend))


def _seeds(row: Any) -> Cell:
    if getattr(row, "reference", False) and len(row.seeds) == 1:  # one measurement, and no training
        return Cell("-", sort=0)
    lacking = len(getattr(row, "lacking", ()))
    text = f"{len(row.seeds)} of {len(row.seeds) + lacking}" if lacking else str(len(row.seeds))
    return Cell(f"{text} ({row.failed}†)" if getattr(row, "failed", 0) else text, sort=len(row.seeds))


def _of(measures: str, metric: str, digits: int = 3, sign: bool = False) -> Callable[[Any], Cell]:
    """The cell of one measure of those that a row has by name."""
    return lambda row: measured(getattr(row, measures).get(metric), digits, sign)


def _on_images(reward: str, rows: Sequence[LeaderboardRow] | Sequence[HeadroomRow]) -> list[Any]:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        (reward, lambda row: measured(row.alignment)),
        ("gain", lambda row: measured(row.gain, sign=True)),
        ("headroom", lambda row: measured(row.headroom, 2)),
        ("held-out", lambda row: measured(row.heldout)),
        ("held-out gain", lambda row: measured(row.heldout_gain, sign=True)),
        ("success", lambda row: measured(row.success)),
    ]
    for metric in dict.fromkeys(metric for row in rows for metric in row.inception):
        columns.append((metric, _of("inception", metric, digits=2)))
    for metric in dict.fromkeys(metric for row in rows for metric in row.diversity):
        columns.append((MEASURES.get(metric, metric), _of("diversity", metric)))
    return columns


def _rank(row: LeaderboardRow) -> Cell:
    if row.ranks is None:
        return Cell("-")
    first, last = row.ranks
    return Cell(str(first) if first == last else f"{first}\u2013{last}", sort=first)


def _warning(row: LeaderboardRow) -> Cell:
    if not row.over_optimised:
        return Cell("")
    return Cell("over-optimised", kind="loss") if _certain(row) else Cell("over-optimised?", kind="inconclusive")


def _certain(row: LeaderboardRow) -> bool:
    return row.gain is not None and row.gain.low is not None


def _leaderboard(group: Tables) -> Grid:
    head, rows = group.head, group.leaderboard
    if not rows:
        return _grid("leaderboard", "Leaderboard", (), ())

    def reached(row: LeaderboardRow) -> Cell:
        if row.to_target is None or row.reference:
            return Cell("-")
        mean, seeds = row.to_target.mean, len(row.seeds)
        if not row.reached:
            return Cell(f"never (0/{seeds})", sort=mean)
        return Cell(f"{'' if row.reached == seeds else '≥'}{count(mean)} ({row.reached}/{seeds})", sort=mean)

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", _name),
        ("rank", _rank),
        *_on_images(head.context.reward, rows),
        ("area under curve", lambda row: measured(row.area)),
        ("queries to target", reached),
        ("seeds", _seeds),
        ("queries", lambda row: Cell(count(row.queries), sort=row.queries)),
        ("denoiser calls", lambda row: Cell(count(row.denoiser_calls), sort=row.denoiser_calls)),
        ("forward-equivalents", lambda row: Cell(count(row.forward_equivalents), sort=row.forward_equivalents)),
        ("warning", _warning),
    ]
    legend = ["± is half the 95% t-interval over seeds; gain is against the pretrained model on the same images"]
    if any(len(row.seeds) < MIN_SEEDS for row in rows if not row.reference):
        legend.append(f"fewer than {MIN_SEEDS} seeds: no interval")
    if any(row.control for row in rows):
        legend.append("control: stands in for a part of a wrapper; it has no rank, and no say in targets")
    if any(row.ranks for row in rows):
        legend.append("rank: cells that cannot be told apart (paired t-tests, Holm over all pairs) share a range")
    if head.target is not None:
        legend.append(
            f"queries to target: to {number(head.target)}, half of the largest mean gain, which k/n seeds reached; "
            "≥: the others counted with the budget"
        )
        if not any(row.gain and row.gain.low is not None and row.gain.low > 0 for row in rows):
            legend.append("queries to target: no gain is beyond its interval")
    if any(row.forward_equivalents for row in rows):
        legend.append("forward-equivalents: denoiser calls, of which one with a backward pass counts as three")
    if any(row.area and row.area.mean is not None for row in rows):
        legend.append("area under curve: mean over the budget")
    if any(row.headroom for row in rows):
        legend.append(HEADROOM)
    if group.oracle and not group.headroom:
        legend.append(group.oracle)
    if any(row.failed for row in rows):
        legend.append("† failed runs, counted with their last evaluation")
    if any(row.over_optimised and _certain(row) for row in rows):
        legend.append(
            "over-optimised: the trained reward rose and the held-out score fell, both beyond their intervals"
        )
    if any(row.over_optimised and not _certain(row) for row in rows):
        legend.append(f"over-optimised?: by the signs alone, of fewer than {MIN_SEEDS} seeds")
    return _grid("leaderboard", "Leaderboard", columns, rows, legend)


HEADROOM = "headroom: (x \u2212 pretrained) / (oracle \u2212 pretrained)"


def _headroom(group: Tables) -> Grid:
    def name(row: HeadroomRow) -> Cell:
        text = row.name.replace("-", " ") if row.kind == "guidance" else row.name
        text = f"pretrained ({text})" if row.reference else text
        return Cell(f"{text} {row.label}".strip())

    several = any(len(row.seeds) > 1 for row in group.headroom)
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("baseline", name),
        *_on_images(group.head.context.reward, group.headroom),
        ("seeds", lambda row: Cell(str(len(row.seeds)) if several else "-", sort=len(row.seeds))),
        ("queries an image", lambda row: Cell(str(row.queries_per_image), sort=row.queries_per_image)),
    ]
    legend = [] if group.leaderboard else ["gain is against the pretrained model on the same images", HEADROOM]
    legend += ["oracle: drawn scenes that show what the prompt says", *([group.oracle] if group.oracle else [])]
    return _grid("headroom", "Headroom (no training)", columns, group.headroom, legend if group.headroom else ())


def _effect(effect: Paired | None) -> Cell:
    cell = measured(effect, sign=True)
    if effect is None or effect.p_adjusted is None or effect.mean is None:
        return cell
    kind = "" if effect.p_adjusted >= ALPHA else "gain" if effect.mean > 0 else "loss"
    return Cell(f"{cell.text} p={effect.p_adjusted:.2g}", effect, effect.mean, kind)


def _ablation(group: Tables) -> Grid:
    rows = [row for row in group.ablation if row.effects is not None]
    absent = [f"{_algorithm(row).text}: none, {row.missing}" for row in group.ablation if row.effects is None]
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("algorithm", _algorithm),
        ("BPT", lambda row: _effect(row.effects.bpt)),
        ("BS", lambda row: _effect(row.effects.bs)),
        ("interaction", lambda row: _effect(row.effects.interaction)),
        ("seeds", _seeds),
    ]
    legend = ["effect on alignment of BPT, of BS, and of both beyond their sum"]
    legend.append("p: paired t-test over seeds, Holm over the table")
    legend += [f"{text}; its BS effect is that of the shared prefix alone" for text in _unselective(rows)]
    return _grid("ablation", "Ablation", columns, rows, [*(legend if rows else ()), *absent])


def _compatibility(group: Tables) -> Grid:
    rows = group.compatibility
    if not rows or not rows[0].cells:
        return _grid("compatibility", "Compatibility", (), ())

    def verdict(place: int) -> Callable[[Any], Cell]:
        def cell(row: Any) -> Cell:
            found = row.cells[place]
            text = SYMBOLS[found.verdict]
            if found.delta is not None and found.delta.mean is not None:
                text += f" {number(found.delta.mean, sign=True)} {found.delta.wins}/{found.delta.n}"
            if found.verdict == "inconclusive" and found.detectable is not None:
                text += f" (from {number(found.detectable)})"
            if found.failed:
                text += f" {found.failed}†"
            if found.baseline == "pretrained" and found.wrapper != "vanilla":
                text += "*"
            mean = None if found.delta is None else found.delta.mean
            return Cell(text, found.delta, mean, found.verdict, found.detectable)

        return cell

    columns = [
        ("algorithm", _algorithm),
        *((_wrapper(cell.wrapper), verdict(i)) for i, cell in enumerate(rows[0].cells)),
    ]
    cells = [cell for row in rows for cell in row.cells]
    shown = {cell.verdict for cell in cells}
    legend = [", ".join(f"{symbol} {name}" for name, symbol in SYMBOLS.items() if name in shown)]
    if "untested" in shown:
        legend.append(f"untested: fewer than {MIN_SEEDS} shared seeds, or a value is missing")
    legend.append(
        "mean difference to vanilla, vanilla's to the pretrained model; k/n seeds are better; 5%, Holm over this table"
    )
    if "equivalent" in shown:
        legend.append(f"equivalent: shown to be within ±{group.head.margin:g}")
    if any(cell.verdict == "inconclusive" and cell.detectable is not None for cell in cells):
        legend.append("from: the smallest difference that these seeds would have shown in four experiments of five")
    if any(cell.failed for cell in cells):
        legend.append("† failed runs, counted with their last evaluation")
    if any(cell.baseline == "pretrained" and cell.wrapper != "vanilla" for cell in cells):
        legend.append("* against the pretrained model, for want of vanilla")
    legend += [f"{text}, under every wrapper" for text in _unselective(rows)]
    legend += refusals(group)
    return _grid("compatibility", "Compatibility", columns, rows, legend)


def _unselective(rows: Iterable[Any]) -> list[str]:
    """Say of each algorithm on pairs that it ignores what a wrapper selects."""
    names = sorted({row.algorithm for row in rows} & {*PAIRED})
    return [f"{name} ignores selection: it trains on the best and worst of each group" for name in names]


def refusals(group: Tables) -> list[str]:
    """Which algorithms and wrappers refuse each other, and why: a line for each."""
    cells = [(row.algorithm, cell) for row in group.compatibility for cell in row.cells if cell.verdict == "refused"]
    return [f"refused: {algorithm} {cell.wrapper}, {cell.reason}" for algorithm, cell in dict.fromkeys(cells)]


def _generalisation(group: Tables) -> Grid:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", _name),
        ("gain on training prompts", lambda row: measured(row.seen, sign=True)),
        ("gain on unseen prompts", lambda row: measured(row.unseen, sign=True)),
        ("unseen \u2212 training", lambda row: measured(row.gap, sign=True)),
    ]
    rows = [row for row in group.generalisation if row.seen.mean is not None]
    return _grid("generalisation", "Generalisation to unseen prompts", columns, rows)


def _diversity(group: Tables) -> Grid:
    rows = group.diversity
    measures = list(dict.fromkeys(metric for row in rows for metric in row.change))
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", _name),
        ("alignment gained", lambda row: measured(row.alignment_gain, sign=True)),
    ]
    for metric in measures:
        name = MEASURES.get(metric, metric)
        columns.append((f"{name}, change", _of("change", metric, sign=True)))
        columns.append((f"{name}, matched", _of("matched", metric)))
    legend = ["change: against the pretrained model, at the end"]
    if group.head.matched is not None:
        legend.append(
            f"matched: where the alignment first reached {number(group.head.matched)}, which the cells did that gained "
            "at least a quarter of the largest gain"
        )
    else:
        legend.append("no diversity at matched alignment: no cell gained")
    return _grid("diversity", "Diversity", columns, rows, legend) if measures else _grid("diversity", "", (), ())


def _incomplete(group: Tables) -> Grid:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("run", lambda run: Cell(run.run_id)),
        ("cell", lambda run: Cell(f"{run.algorithm} {run.wrapper}")),
        ("seed", lambda run: Cell(str(run.seed), sort=run.seed)),
        ("status", lambda run: Cell(run.status)),
        ("queries", lambda run: Cell(f"{run.queries:,}", sort=run.queries)),
        ("last written (UTC)", lambda run: Cell(run.written or "-")),
    ]
    return _grid("incomplete", "Incomplete (not averaged)", columns, group.incomplete)
