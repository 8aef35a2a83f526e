"""Variants: an algorithm with one choice of settings, under several wrappers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from b2bench.leaderboard.cells import ABSENT, TUNED, WRAPPERS, Cell, labels, of_wrapper, usual


@dataclass(frozen=True)
class Variant:
    """An algorithm with one choice of settings, under several wrappers.

    ``settings`` are those that tell it from the algorithm's other variants. ``tuned``: ``b2bench tune`` chose settings
    for each of its cells by one protocol, so that what was searched differs between them and tells nothing.
    """

    algorithm: str
    label: str
    cells: dict[str, Cell]
    several: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    tuned: bool = False

    @property
    def planned(self) -> bool:
        """Whether its claims are the plan's: tuned cells of which vanilla and another of the four can be compared."""
        return self.tuned and len(self.cells.keys() & {*WRAPPERS}) > 1 and "vanilla" in self.cells

    def is_of(self, config: Mapping[str, str], tuned: bool) -> bool:
        """Whether a run with this flat configuration, whose settings were tuned or not, is one of the variant's."""
        alike = all(config.get(key, ABSENT.get(key, "unset")) == value for key, value in self.settings.items())
        return alike and (tuned or not self.tuned)


def variants_of(cells: Sequence[Cell], prompts: str = "") -> list[Variant]:
    """Cells of an algorithm that differ in the wrapper and its settings alone, together; tuned ones after the others.

    A setting that only some of the cells have tells them apart if those that have it differ in it: then the others are
    a variant of their own. Else it is one that older runs lack, or a wrapper's own. Where one wrapper has several
    settings, the one with most seeds stands for it (then the latest): no choice by result.

    Cells that were tuned by one protocol are one variant, whatever the search chose for each. A tuned cell is beside
    untuned ones, too, where its settings are theirs, as those of a search that chose the defaults. ``prompts`` are
    those of the cells: a variant that was tuned on others says so.
    """
    algorithms: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    found = []
    most = usual(cells)
    for algorithm, members in algorithms.items():
        found += _untuned(algorithm, members, most[algorithm])
        found += _tuned(algorithm, [cell for cell in members if cell.tuned], most[algorithm], prompts)
    return found


def _untuned(algorithm: str, members: Sequence[Cell], most: Mapping[str, str]) -> list[Variant]:
    own = [cell for cell in members if cell.untuned]
    groups = _groups(own)
    for cell in members:
        key = next((key for key in groups if not cell.untuned and all(_told(cell, name) == v for name, v in key)), None)
        if key is not None:
            groups[key].append(cell)
    named = labels([dict(key) for key in groups], [""] * len(groups), most)
    return [
        _variant(algorithm, label, found, dict(key)) for (key, found), label in zip(groups.items(), named, strict=True)
    ]


def _tuned(algorithm: str, members: Sequence[Cell], most: Mapping[str, str], prompts: str) -> list[Variant]:
    searches: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in members:
        searches[cell.search.protocol, cell.search.on].append(cell)
    found = []
    for (_, on), alike in searches.items():
        searched = frozenset[str]().union(*(cell.search.searched for cell in alike))
        groups = _groups(alike, searched)
        for (key, chosen), label in zip(
            groups.items(), labels([dict(key) for key in groups], [""] * len(groups), most), strict=True
        ):
            given = f"({chosen[0].search.given})" if len(searches) > 1 else ""
            elsewhere = f"on {on}" if on and prompts and on != prompts else ""
            name = " ".join(filter(None, (TUNED, given, elsewhere, label)))
            found.append(_variant(algorithm, name, chosen, dict(key), tuned=True))
    return found


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
    algorithm: str, label: str, members: Sequence[Cell], settings: Mapping[str, str], *, tuned: bool = False
) -> Variant:
    by_seeds = sorted(
        members,
        key=lambda cell: (len(cell.runs), max(str(run.row["finished"]) for run in cell.runs.values())),
    )
    wrappers = [cell.wrapper for cell in by_seeds]
    several = tuple(sorted({name for name in wrappers if wrappers.count(name) > 1}))
    return Variant(algorithm, label, {cell.wrapper: cell for cell in by_seeds}, several, settings, tuned)


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
