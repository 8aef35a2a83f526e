"""Variants: an algorithm with one choice of settings, under several wrappers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from b2bench.leaderboard.cells import ABSENT, Cell, labels, of_wrapper, usual


@dataclass(frozen=True)
class Variant:
    """An algorithm with one choice of settings, under several wrappers.

    ``settings`` are those that tell it from the algorithm's other variants.
    """

    algorithm: str
    label: str
    cells: dict[str, Cell]
    several: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def is_of(self, config: Mapping[str, str]) -> bool:
        """Whether a run with this flat configuration is one of the variant's."""
        return all(config.get(key, ABSENT.get(key, "unset")) == value for key, value in self.settings.items())


def variants_of(cells: Sequence[Cell]) -> list[Variant]:
    """Cells of an algorithm that differ in the wrapper and its settings alone, together.

    A setting that only some of the cells have tells them apart if those that have it differ in it: then the others are
    a variant of their own. Else it is one that older runs lack, or a wrapper's own. Where one wrapper has several
    settings, the one with most seeds stands for it (then the latest): no choice by result.
    """
    algorithms: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    found = []
    most = usual(cells)
    for algorithm, members in algorithms.items():
        keys = {key for cell in members for key in cell.config if not of_wrapper(key)}
        known = {key: [cell.config[key] for cell in members if key in cell.config] for key in keys}
        telling = {key for key, values in known.items() if len(values) == len(members) or len({*values}) > 1}
        groups: dict[tuple[tuple[str, str], ...], list[Cell]] = defaultdict(list)
        for cell in members:
            groups[tuple(sorted((key, cell.config.get(key, "unset")) for key in telling))].append(cell)
        named = labels([dict(key) for key in groups], [""] * len(groups), most[algorithm])
        for settings, label in zip(groups, named, strict=True):
            by_seeds = sorted(
                groups[settings],
                key=lambda cell: (
                    len(cell.runs),
                    max(str(run.row["finished"]) for run in cell.runs.values()),
                ),
            )
            wrappers = [cell.wrapper for cell in by_seeds]
            several = tuple(sorted({name for name in wrappers if wrappers.count(name) > 1}))
            found.append(Variant(algorithm, label, {cell.wrapper: cell for cell in by_seeds}, several, dict(settings)))
    return found


def vanilla_of(variants: Sequence[Variant]) -> dict[int, Cell]:
    """Return vanilla of the same algorithm and settings for each other cell, by the id of that, if it was run."""
    return {
        id(cell): variant.cells["vanilla"]
        for variant in variants
        if "vanilla" in variant.cells
        for cell in variant.cells.values()
        if cell.wrapper != "vanilla"
    }
