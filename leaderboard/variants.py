"""Variants: an algorithm with one choice of settings, under several wrappers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from b2bench.leaderboard.cells import (
    ABSENT,
    OUTSIDE_OF_PLAN,
    TUNED,
    Cell,
    Run,
    Search,
    flat,
    labels,
    of_wrapper,
    usual,
)


@dataclass(frozen=True)
class Variant:
    """An algorithm with one choice of settings, under several wrappers.

    ``settings`` are those that tell it from the algorithm's other variants. ``search``: ``b2bench tune`` chose settings
    for each of its cells by this protocol, on these prompts, so that what was searched differs between them and tells
    nothing; None of other cells.
    """

    algorithm: str
    label: str
    cells: dict[str, Cell]
    several: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    search: tuple[str, str] | None = None

    @property
    def planned(self) -> bool:
        """Whether its claims are the plan's."""
        return self.search is not None and all(cell.planned for cell in self.cells.values())

    def is_of(self, run: Run) -> bool:
        """Whether a run, which may not have ended, is one of the variant's."""
        config = flat(run.row["config"] or {})
        alike = all(config.get(key, ABSENT.get(key, "unset")) == value for key, value in self.settings.items())
        if self.search is None:
            return alike
        return (
            alike
            and (run.planned or not self.planned)
            and run.search is not None
            and self.search == (run.search.protocol, run.search.on or run.row["prompts"])
        )


def variants_of(cells: Sequence[Cell], prompts: str = "") -> list[Variant]:
    """Cells of an algorithm that differ in the wrapper and its settings alone, together; tuned ones after the others.

    A setting that only some of the cells have tells them apart if those that have it differ in it: then the others are
    a variant of their own. Else it is one that older runs lack, or a wrapper's own. Where one wrapper has several
    settings, the one with most seeds stands for it (then the latest): no choice by result.

    Cells that were tuned by one protocol are one variant, whatever the search chose for each. A tuned cell is beside
    untuned ones, too, where its settings are theirs, as those of a search that chose the defaults; one of the plan is
    not, which is compared with the plan's alone. ``prompts`` are those of the cells: a variant that was tuned on others
    says so.
    """
    algorithms: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    found = []
    most = usual(cells)
    for algorithm, members in algorithms.items():
        found += _untuned(algorithm, members, most[algorithm])
        tuned = [cell for cell in members if cell.tuned]
        planned = _tuned(algorithm, [cell for cell in tuned if cell.planned], most[algorithm], prompts)
        others = _tuned(algorithm, [cell for cell in tuned if not cell.planned], most[algorithm], prompts)
        names = {variant.label for variant in planned}
        found += planned
        found += [replace(one, label=f"{one.label} {OUTSIDE_OF_PLAN}") if one.label in names else one for one in others]
    return found


def _untuned(algorithm: str, members: Sequence[Cell], most: Mapping[str, str]) -> list[Variant]:
    groups = _groups([cell for cell in members if cell.untuned])
    for cell in sorted((cell for cell in members if not cell.planned), key=lambda cell: -len(cell.runs)):
        for key, beside in groups.items():
            # never in the place of a cell that is there, which may have other settings of its wrapper
            if not cell.untuned and cell.wrapper not in [one.wrapper for one in beside]:
                beside += [cell] * all(_told(cell, name) == value for name, value in key)
    named = labels([dict(key) for key in groups], [""] * len(groups), most)
    return [
        _variant(algorithm, label, found, dict(key)) for (key, found), label in zip(groups.items(), named, strict=True)
    ]


def _tuned(algorithm: str, members: Sequence[Cell], most: Mapping[str, str], prompts: str) -> list[Variant]:
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    searches: dict[tuple[str, str], list[Search]] = defaultdict(list)
    for cell in members:
        for search in cell.searches:
            key = (search.protocol, search.on or prompts)
            searches[key].append(search)
            if not any(cell is one for one in found[key]):
                found[key].append(cell)
    names = _names([alike[0].given for alike in searches.values()])
    variants = []
    for key, name in zip(found, names, strict=True):
        groups = _groups(found[key], frozenset[str]().union(*(search.searched for search in searches[key])))
        told = labels([dict(settings) for settings in groups], [""] * len(groups), most)
        for (settings, cells), label in zip(groups.items(), told, strict=True):
            elsewhere = f"on {key[1]}" if prompts and key[1] != prompts else ""
            full = " ".join(filter(None, (TUNED, name, elsewhere, label)))
            variants.append(_variant(algorithm, full, cells, dict(settings), search=key))
    return variants


def _names(given: Sequence[tuple[str, str]]) -> list[str]:
    """Tell searches apart, each by its size and its sampler: nothing for a single one."""
    if len({*given}) == 1:
        return [""] * len(given)
    sizes = [size for size, _ in given]
    told = [[size] if sizes.count(size) == 1 else [size, sampler] for size, sampler in given]
    return [f"({', '.join(filter(None, parts))})" if any(parts) else "" for parts in told]


def _groups(
    members: Sequence[Cell], searched: frozenset[str] = frozenset()
) -> dict[tuple[tuple[str, str], ...], list[Cell]]:
    """Return cells by the settings that tell them apart, without those of their wrappers and what was searched."""
    keys = {key for cell in members for key in cell.config if not of_wrapper(key)} - searched
    known = {key: [cell.config[key] for cell in members if key in cell.config] for key in keys}
    telling = {key for key, values in known.items() if len(values) == len(members) or len({*values}) > 1}
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = defaultdict(list)
    for cell in members:
        groups[tuple(sorted((key, _told(cell, key)) for key in telling))].append(cell)
    return groups


def _told(cell: Cell, key: str) -> str:
    return cell.config.get(key, "unset")


def _variant(
    algorithm: str,
    label: str,
    members: Sequence[Cell],
    settings: Mapping[str, str],
    *,
    search: tuple[str, str] | None = None,
) -> Variant:
    by_seeds = sorted(
        members,
        key=lambda cell: (len(cell.runs), max(str(run.row["finished"]) for run in cell.runs.values())),
    )
    wrappers = [cell.wrapper for cell in by_seeds]
    several = tuple(sorted({name for name in wrappers if wrappers.count(name) > 1}))
    return Variant(algorithm, label, {cell.wrapper: cell for cell in by_seeds}, several, settings, search)


def vanilla_of(variants: Sequence[Variant]) -> dict[int, Cell]:
    """Return vanilla of the same algorithm and settings for each other cell, by the id of that, if it was run.

    Of a cell that is in two variants it is the untuned one.
    """
    return {
        id(cell): variant.cells["vanilla"]
        for variant in reversed(variants)
        if "vanilla" in variant.cells
        for cell in variant.cells.values()
        if cell.wrapper != "vanilla"
    }
