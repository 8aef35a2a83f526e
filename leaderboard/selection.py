"""Which part of a report is shown, and whether its cells are whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from b2bench.leaderboard.rows import Tables

from b2bench.errors import UserError
from b2bench.text import suggestion

CONTEXT_KEYS = {
    "version": "benchmark_version",
    "backbone": "backbone",
    "reward": "reward",
    "prompts": "prompts",
    "budget": "budget",
}
CELL_KEYS = ("algorithm", "wrapper")


def final_runs(runs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out the rows of ``runs`` that are tuning runs: settings are not judged by runs that chose them."""
    return [run for run in runs if not (run["config"] or {}).get("tuning")]


def parse_where(conditions: Sequence[str]) -> dict[str, set[str]]:
    """``["algorithm=ddpo,pg", "prompts=template1"]`` to names and the values that they may have.

    Raises:
        UserError: a condition of another form or name.
    """
    known = [*CELL_KEYS, *CONTEXT_KEYS]
    found: dict[str, set[str]] = {}
    for condition in conditions:
        name, equals, values = condition.partition("=")
        if not equals or name not in known or not values:
            raise UserError(
                f"--where {condition!r} is not a condition; try NAME=VALUE or NAME=VALUE,VALUE with {', '.join(known)}"
            )
        # a LoRA's name may have commas
        found.setdefault(name, set()).update(value.strip() for value in (values, *values.split(",")))
    return found


def select(tables: Sequence[Tables], where: dict[str, set[str]]) -> list[Tables]:
    """Select the tables and rows that fit. Rows are left out, not runs: p-values stay the whole table's."""
    found = []
    for group in tables:
        context = group.head.context
        if all(str(getattr(context, CONTEXT_KEYS[name])) in where[name] for name in where if name in CONTEXT_KEYS):
            found.append(_rows(group, {name: where[name] for name in where if name in CELL_KEYS}))
    return found


def _rows(group: Tables, where: dict[str, set[str]]) -> Tables:
    if not where:
        return group

    def fits(row: Any) -> bool:
        if getattr(row, "reference", False):
            return True
        # a row of all wrappers fits when its algorithm does
        return all(getattr(row, name, None) in (*where[name], None) for name in where)

    compatibility = [
        replace(row, cells=tuple(cell for cell in row.cells if cell.wrapper in where.get("wrapper", {cell.wrapper})))
        for row in group.compatibility
        if fits(row)
    ]
    kept: dict[str, Any] = {
        name: tuple(row for row in getattr(group, name) if fits(row))
        for name in (
            "leaderboard",
            "contrasts",
            "incomplete",
            "generalisation",
            "diversity",
            "curves",
            "details",
            "collapses",
            "compute",
        )
    }
    return replace(group, compatibility=tuple(compatibility), **kept)


def held(tables: Sequence[Tables]) -> str:
    """Return what a condition may ask for: the values that contexts and their cells have."""
    found = [f"{name}={','.join(values)}" for name, values in _values(tables).items()]
    return f"the store holds {'; '.join(found)}"


def _values(tables: Sequence[Tables]) -> dict[str, list[str]]:
    found = {
        name: sorted({str(getattr(group.head.context, key)) for group in tables}) for name, key in CONTEXT_KEYS.items()
    }
    rows = [row for group in tables for row in (*group.leaderboard, *group.incomplete) if not _is_reference(row)]
    refused = [cell for group in tables for row in group.compatibility for cell in row.cells if cell.reason]
    for name in CELL_KEYS:
        of = [*rows, *(refused if name == "wrapper" else [row for group in tables for row in group.compatibility])]
        found[name] = sorted({value for row in of if (value := getattr(row, name)) and value != "-"})
    return found


def _is_reference(row: Any) -> bool:
    return bool(getattr(row, "reference", False))


def check_held(tables: Sequence[Tables], where: dict[str, set[str]]) -> None:
    """Refuse a condition on a value that nothing in the store has: it is most likely a slip of the pen.

    Raises:
        UserError: with the values that the store holds.
    """
    if not tables:
        return
    values = _values(tables)
    for name, wanted in where.items():
        known_here = set(values[name])
        lists = {whole: {part.strip() for part in whole.split(",")} for whole in wanted if "," in whole}
        # a text with commas is one name or a list of them: the other reading needs not be held
        held_lists = {whole for whole, parts in lists.items() if parts <= known_here}
        of_names = {part for whole, parts in lists.items() if whole in known_here for part in parts}
        if strange := sorted(wanted - known_here - held_lists - of_names, key=lambda value: (value in lists, value)):
            strange = [value for value in strange if value not in lists] or strange
            known = ", ".join(values[name]) or "none"
            raise UserError(
                f"--where {name}={','.join(strange)}: no run in the store has this {name}."
                f"{suggestion(strange[0], values[name])} The store holds {known}"
            )


def problems(tables: Sequence[Tables]) -> list[str]:
    """List what keeps a report from being one comparison: missing seeds or values, runs that are not done, versions."""
    found = []
    versions = sorted({group.head.context.benchmark_version for group in tables})
    if len(versions) > 1:
        found.append(f"runs of several benchmark versions: {', '.join(versions)}")
    if not any(not row.reference for group in tables for row in group.leaderboard):
        found.append("no finished run")
    for group in tables:
        context = group.head.context
        name = f"{context.backbone} {context.reward} {context.prompts} {context.budget}"
        found += [f"{name}: {text}" for row in group.leaderboard for text in row.wanting]
        found += [
            f"{name}: run {run.run_id} is {run.status}{f', last written {run.written} UTC' if run.written else ''}"
            for run in group.incomplete
        ]
        found += [
            f"{name}: {row.algorithm} {row.wrapper} has {row.failed} failed runs"
            for row in group.leaderboard
            if row.failed
        ]
    return found
