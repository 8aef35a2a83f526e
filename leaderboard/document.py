"""A report as titled grids of texts and numbers: what every written format is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from b2bench.leaderboard.answers import answers
from b2bench.leaderboard.cells import REFERENCES
from b2bench.leaderboard.columns import grid_of, measure_cell, name_cell, seeds_cell
from b2bench.leaderboard.grid import (
    AREA_DIGITS,
    MEASURES,
    Cell,
    Grid,
    Picture,
    Section,
    count,
    facts,
    measured,
    number,
    title,
)
from b2bench.leaderboard.matrix import learning, matrix
from b2bench.leaderboard.open_steps import openness
from b2bench.leaderboard.paper import paper_grids
from b2bench.leaderboard.rows import Head, HeadroomRow, LeaderboardRow, Tables
from b2bench.leaderboard.sheets import EXPLORATORY, collapse, compatibility, compute, contrasts, verdicts
from b2bench.leaderboard.stats import MIN_SEEDS


def document(tables: Sequence[Tables], pictures: Sequence[Sequence[Picture]] = ()) -> list[Section]:
    """Make a section for each context, with its tables in reading order; ``pictures`` are of each section."""
    return [_section(group, tuple(shown)) for group, shown in zip(tables, pictures or [()] * len(tables), strict=True)]


def _section(group: Tables, pictures: tuple[Picture, ...]) -> Section:
    head = group.head
    grids = [
        matrix(group),
        learning(group),
        _leaderboard(group),
        _headroom(group),
        verdicts(group),
        openness(group),
        contrasts(group),
        compatibility(group),
        collapse(group),
        compute(group),
        _generalisation(group),
        _diversity(group),
        *paper_grids(head.context),
        _incomplete(group),
    ]
    shown = tuple(grid for grid in grids if grid.rows or grid.legend)
    return Section(title(head.context), facts(head), head.notes, shown, pictures, answers(group))


def _on_images(reward: str, rows: Sequence[LeaderboardRow] | Sequence[HeadroomRow]) -> list[Any]:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        (reward, lambda row: measured(row.alignment)),
        ("against pretrained", lambda row: measured(row.gain, sign=True)),
        ("headroom", lambda row: measured(row.headroom, 2)),
        ("held-out", lambda row: measured(row.heldout)),
        ("held-out gain", lambda row: measured(row.heldout_gain, sign=True)),
        ("success", lambda row: measured(row.success)),
    ]
    for metric in dict.fromkeys(metric for row in rows for metric in row.inception):
        columns.append((metric, measure_cell("inception", metric, digits=2)))
    for metric in dict.fromkeys(metric for row in rows for metric in row.diversity):
        columns.append((MEASURES.get(metric, metric), measure_cell("diversity", metric)))
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
        return grid_of("leaderboard", "Leaderboard", (), ())

    def reached(row: LeaderboardRow) -> Cell:
        if row.to_target is None or row.reference:
            return Cell("-")
        mean, seeds = row.to_target.mean, len(row.seeds)
        if not row.reached:
            return Cell(f"never (0/{seeds})", sort=mean)
        return Cell(f"{'' if row.reached == seeds else '≥'}{count(mean)} ({row.reached}/{seeds})", sort=mean)

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("rank", _rank),
        ("area of gain", lambda row: measured(row.area, AREA_DIGITS, sign=True)),
        *_on_images(head.context.reward, rows),
        ("queries to target", reached),
        ("seeds", seeds_cell),
        ("queries", lambda row: Cell(count(row.queries), sort=row.queries)),
        ("optimizer steps", lambda row: Cell(count(row.optimizer_steps), sort=row.optimizer_steps)),
        ("denoiser calls", lambda row: Cell(count(row.denoiser_calls), sort=row.denoiser_calls)),
        ("forward-equivalents", lambda row: Cell(count(row.forward_equivalents), sort=row.forward_equivalents)),
        ("warning", _warning),
    ]
    legend = [
        EXPLORATORY,
        "± is half the 95% t-interval over seeds; against pretrained: the gain over the pretrained model on the same "
        "images, with the start as a covariate",
    ]
    if any(len(row.seeds) < MIN_SEEDS for row in rows if not row.reference):
        legend.append(f"fewer than {MIN_SEEDS} seeds: no interval")
    aside = {row.algorithm in REFERENCES for row in rows if row.control}
    if False in aside:
        legend.append("control: stands in for a part of a wrapper; it has no rank, and no say in targets")
    if True in aside:
        legend.append("upper reference: it follows the reward's gradient; it has no rank, and no say in targets")
    if any(row.ranks for row in rows):
        legend.append(
            f"rank: of the scores at the end, among the cells with {MIN_SEEDS} seeds or more that were evaluated as "
            "most were, by comparison with the best, two cells over the seeds that both have, with Bonferroni over the "
            f"others; a range from 1 has the cells that may be best ({100 * (1 - head.alpha):.3g}% confidence); few "
            "seeds or many cells leave many in it; one of which all seeds fell far is not in it, unless all cells fell"
        )
    if head.target is not None:
        legend.append(
            f"queries to target: to {number(head.target, sign=True)} over each seed's own start, half of the largest "
            "mean gain, which k/n seeds reached; ≥: the others counted with the budget"
        )
        if not any(row.gain and row.gain.low is not None and row.gain.low > 0 for row in rows):
            legend.append("queries to target: no gain is beyond its interval")
    if any(row.forward_equivalents for row in rows):
        legend.append("forward-equivalents: denoiser calls, of which one with a backward pass counts as three")
    if any(row.area and row.area.mean is not None for row in rows):
        legend.append("area of gain: mean over the budget of the score above the start, the primary endpoint")
    legend += straight(head)
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
    return grid_of("leaderboard", "Leaderboard", columns, rows, legend)


def straight(head: Head) -> list[str]:
    """Say of cells without an evaluation in between what their numbers are then; nothing if there are none."""
    some, cells = head.straight
    if not some:
        return []
    whose = "no run was" if some == cells else f"no run of {some} of the {cells} cells was"
    return [
        f"{whose} evaluated between its start and its end: {'the' if some == cells else 'there the'} area of gain is "
        "half of the gain at the end, and queries to target, matched diversity and equal compute are read off a "
        "straight line"
    ]


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
    legend = [] if group.leaderboard else ["against pretrained: on the same images", HEADROOM]
    legend += ["oracle: drawn scenes that show what the prompt says", *([group.oracle] if group.oracle else [])]
    return grid_of("headroom", "Headroom (no training)", columns, group.headroom, legend if group.headroom else ())


def _generalisation(group: Tables) -> Grid:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("gain on training prompts", lambda row: measured(row.seen, sign=True)),
        ("gain on unseen prompts", lambda row: measured(row.unseen, sign=True)),
        ("unseen \u2212 training", lambda row: measured(row.gap, sign=True)),
    ]
    rows = [row for row in group.generalisation if row.seen.mean is not None]
    legend = [EXPLORATORY]
    if few := group.head.seen_images:
        counts, unseen = (" or ".join(f"{n:,}" for n in found) for found in (few, group.head.images))
        so_few = max(few) < max(group.head.images, default=0) / 4
        legend.append(
            f"an evaluation on training prompts has {counts} images, on unseen ones {unseen}"
            + ": intervals are over seeds, on these images alone, and so few say little about others" * so_few
        )
    return grid_of("generalisation", "Generalisation to unseen prompts", columns, rows, legend if rows else ())


def _diversity(group: Tables) -> Grid:
    rows = group.diversity
    measures = list(dict.fromkeys(metric for row in rows for metric in row.change))
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("cell", name_cell),
        ("alignment gained", lambda row: measured(row.alignment_gain, sign=True)),
    ]
    for metric in measures:
        name = MEASURES.get(metric, metric)
        columns.append((f"{name}, change", measure_cell("change", metric, sign=True)))
        columns.append((f"{name}, matched", measure_cell("matched", metric)))
    legend = [EXPLORATORY, "change: against the pretrained model, at the end"]
    if group.head.matched is not None:
        legend.append(
            f"matched: where a seed first had {number(group.head.matched, sign=True)} over its own start, as every "
            "seed had of the cells whose seeds all gained at least a quarter of the largest mean gain"
        )
    else:
        legend.append(
            "no diversity at matched alignment: in no cell did all seeds gain a quarter of the largest mean gain"
        )
    return grid_of("diversity", "Diversity", columns, rows, legend) if measures else grid_of("diversity", "", (), ())


def _incomplete(group: Tables) -> Grid:
    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("run", lambda run: Cell(run.run_id)),
        ("cell", lambda run: Cell(f"{run.algorithm} {run.wrapper}")),
        ("seed", lambda run: Cell(str(run.seed), sort=run.seed)),
        ("status", lambda run: Cell(run.status)),
        ("queries", lambda run: Cell(f"{run.queries:,}", sort=run.queries)),
        ("last written (UTC)", lambda run: Cell(run.written or "-")),
    ]
    return grid_of("incomplete", "Incomplete (not averaged)", columns, group.incomplete)
