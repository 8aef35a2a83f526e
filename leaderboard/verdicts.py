"""What a wrapper does to an algorithm: the ablation's effects, and a verdict for each pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from b2bench.leaderboard.cells import CONTROLS, WRAPPERS, Cell, Run, labels, names_of, wrapper_order
from b2bench.leaderboard.rows import ALPHA, AblationRow, CompatibilityCell, CompatibilityRow, Context, Verdict
from b2bench.leaderboard.stats import Effects, Paired, detectable, equivalent, factorial, holm, paired


@dataclass(frozen=True)
class Variant:
    """An algorithm with one choice of settings, under several wrappers."""

    algorithm: str
    label: str
    cells: dict[str, Cell]
    several: tuple[str, ...] = ()


def variants_of(cells: Sequence[Cell]) -> list[Variant]:
    """Cells of an algorithm that differ in the wrapper and its settings alone, together.

    Settings that only some of the cells have are the wrapper's. Where one wrapper has several settings,
    the one with most seeds stands for it (then the latest): no choice by result.
    """
    algorithms: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    found = []
    for algorithm, members in algorithms.items():
        shared = set.intersection(*(set(cell.config) for cell in members))
        shared = {key for key in shared if key != "wrapper" and not key.startswith(("wrapper.", "wrapper_"))}
        groups: dict[tuple[tuple[str, str], ...], list[Cell]] = defaultdict(list)
        for cell in members:
            groups[tuple(sorted((key, cell.config[key]) for key in shared))].append(cell)
        for settings, label in zip(groups, labels([dict(key) for key in groups], [""] * len(groups)), strict=True):
            by_seeds = sorted(
                groups[settings],
                key=lambda cell: (
                    len(cell.runs),
                    max(str(run.row["finished"]) for run in cell.runs.values()),
                ),
            )
            wrappers = [cell.wrapper for cell in by_seeds]
            several = tuple(sorted({name for name in wrappers if wrappers.count(name) > 1}))
            found.append(Variant(algorithm, label, {cell.wrapper: cell for cell in by_seeds}, several))
    return found


def ablation(context: Context, variants: Sequence[Variant]) -> tuple[AblationRow, ...]:
    rows = []
    for variant in variants:
        missing = [wrapper for wrapper in WRAPPERS if wrapper not in variant.cells]
        if missing:
            text = f"not run: {', '.join(missing)}"
            rows.append(AblationRow(variant.algorithm, variant.label, None, (), 0, text))
            continue
        four = [variant.cells[wrapper] for wrapper in WRAPPERS]
        seeds = tuple(sorted(set.intersection(*(set(cell.runs) for cell in four))))
        if not seeds:
            rows.append(AblationRow(variant.algorithm, variant.label, None, (), 0, "no seed shared by all four"))
            continue
        effects = factorial(*(cell.final(context.reward, seeds) for cell in four))
        failed = sum(cell.runs[seed].failed for cell in four for seed in seeds)
        rows.append(AblationRow(variant.algorithm, variant.label, effects, seeds, failed, ""))
    family = [
        effect for row in rows if row.effects for effect in (row.effects.bpt, row.effects.bs, row.effects.interaction)
    ]
    adjusted = iter(_adjusted(family))
    return tuple(
        replace(row, effects=Effects(next(adjusted), next(adjusted), next(adjusted))) if row.effects else row
        for row in rows
    )


def _adjusted(family: Sequence[Paired]) -> list[Paired]:
    p = holm([effect.p for effect in family])
    return [replace(effect, p_adjusted=value) for effect, value in zip(family, p, strict=True)]


def compatibility(
    context: Context,
    variants: Sequence[Variant],
    incomplete: Sequence[Run],
    margin: float,
    refused: Mapping[tuple[str, str], str],
) -> tuple[CompatibilityRow, ...]:
    """Each wrapper against vanilla of the same algorithm and settings, vanilla against the pretrained model.

    Where vanilla was not run, all are against the pretrained model. Controls are a family of comparisons of their own,
    so that running them changes no verdict of the others.
    """
    started = {names_of(run.row) for run in incomplete}
    others = {name for variant in variants for name in variant.cells} | {name for _, name in (*started, *refused)}
    wrappers = sorted({*WRAPPERS, *(others - {"-"})}, key=wrapper_order)
    variants = [variant for variant in variants if set(variant.cells) != {"-"}]
    for algorithm in sorted({name for name, _ in (*started, *refused)} - {variant.algorithm for variant in variants}):
        variants.append(Variant(algorithm, "", {}))

    rows: list[list[CompatibilityCell]] = []
    for variant in variants:
        row = []
        for wrapper in wrappers:
            cell = variant.cells.get(wrapper)
            if cell is None:
                pair = (variant.algorithm, wrapper)
                reason = refused.get(pair, "")
                without: Verdict = "incomplete" if pair in started else "refused" if reason else "not run"
                row.append(CompatibilityCell(wrapper, without, None, "", 0, reason=reason))
                continue
            vanilla = variant.cells.get("vanilla")
            against = vanilla if wrapper != "vanilla" and vanilla else None
            seeds = sorted(set(cell.runs) & set(against.runs)) if against else cell.seeds
            ours = cell.final(context.reward, seeds)
            theirs = (against.final if against else cell.start)(context.reward, seeds)
            row.append(
                CompatibilityCell(
                    wrapper,
                    "failed" if cell.failed == len(cell.runs) else "untested",
                    paired(ours, theirs),
                    "vanilla" if against else "pretrained",
                    cell.failed,
                )
            )
        rows.append(row)
    families = {
        control: [cell.delta for row in rows for cell in row if cell.delta and (cell.wrapper in CONTROLS) == control]
        for control in (False, True)
    }
    tested = {control: sum(delta.p is not None for delta in family) for control, family in families.items()}
    adjusted = {control: iter(_adjusted(family)) for control, family in families.items()}

    def judged(cell: CompatibilityCell) -> CompatibilityCell:
        control = cell.wrapper in CONTROLS
        return _judged(cell, next(adjusted[control]), tested[control], margin) if cell.delta else cell

    return tuple(
        CompatibilityRow(
            variant.algorithm,
            variant.label,
            tuple(judged(cell) for cell in row),
        )
        for variant, row in zip(variants, rows, strict=True)
    )


def _judged(cell: CompatibilityCell, delta: Paired, comparisons: int, margin: float) -> CompatibilityCell:
    verdict = cell.verdict
    if verdict != "failed" and delta.p_adjusted is not None and delta.mean is not None:
        if delta.p_adjusted < ALPHA:
            verdict = "gain" if delta.mean > 0 else "loss"
        else:
            verdict = "equivalent" if equivalent(delta, margin) else "inconclusive"
    return replace(cell, delta=delta, verdict=verdict, detectable=detectable(delta, max(1, comparisons), ALPHA))
