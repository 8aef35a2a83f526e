"""What ``b2bench compare`` names, read from a store: runs, and cells with their runs by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from b2bench.errors import UserError
from b2bench.leaderboard.cells import flat, labels, last_name
from b2bench.leaderboard.compare import SAME, Side, Taken
from b2bench.leaderboard.selection import CONTEXT_KEYS, final_runs
from b2bench.store.store import Store
from b2bench.text import suggestion, visible

PRETRAINED = "pretrained"
ENDED = ("done", "failed")
UNSET = "unset"
"""What a setting is called that a run has not got, as reports do."""
Row = Mapping[str, Any]


def sides(store: Store, names: tuple[str, str], where: Mapping[str, set[str]]) -> tuple[Side, Side]:
    """Read two sides, each a run, a cell as ALGORITHM/WRAPPER, or ``pretrained``: the other side before training.

    ``where`` narrows what cells may be of, as in a report. A cell of several settings is ``ddpo/vanilla:lr=0.001``, or
    ``...:lr=0.001,epochs=2``: of its runs those with these values.

    Raises:
        UserError: there is no such run or cell, a name stands for several, or a run has no evaluation.
    """
    if names[0] == names[1]:
        raise UserError(f"{names[0]} is compared with itself; try two names")
    found: list[list[Row] | None] = [None if name == PRETRAINED else _runs(store, name, where) for name in names]
    mine, others = found
    if mine is None or others is None:
        known = others if mine is None else mine
        assert known is not None  # the names differ, so one of them is a run or a cell
        trained = _side(store, names[1] if mine is None else names[0], _one_setting(names, known, None))
        before = _before(trained)
        return (before, trained) if mine is None else (trained, before)
    first = _one_setting((names[0], names[1]), mine, others)
    second = _one_setting((names[1], names[0]), others, first)
    sides = _side(store, names[0], first), _side(store, names[1], second)
    short = [_short(name, side) for name, side in zip(names, sides, strict=True)]
    if short[0] == short[1]:
        return sides
    return replace(sides[0], name=short[0]), replace(sides[1], name=short[1])


def _short(name: str, side: Side) -> str:
    """Return the name of a cell; of a run what it is, because its own name is long and may say nothing."""
    if "/" in name:
        return side.name
    (run,) = [taken.row for taken in side.runs.values()]
    return visible(f"{run['algorithm']} {run['wrapper']} seed {run['seed']}")


def _runs(store: Store, name: str, where: Mapping[str, set[str]]) -> list[Row]:
    algorithm, slash, wrapper = name.partition("/")
    if not slash:
        return [store.find_run(name)]
    wrapper, _, told = wrapper.partition(":")
    cell = f"{algorithm}/{wrapper}"
    runs = [
        run
        for run in final_runs(store.runs())
        if (run["algorithm"], run["wrapper"]) == (algorithm, wrapper)
        and run["status"] in ENDED
        and all(str(run[CONTEXT_KEYS[key]]) in values for key, values in where.items() if key in CONTEXT_KEYS)
    ]
    if not runs:
        cells = sorted({f"{run['algorithm']}/{run['wrapper']}" for run in store.runs() if run["status"] in ENDED})
        raise UserError(
            f"no finished run of cell {cell} in {store.path}; it holds {visible(', '.join(cells)) or 'none'}"
        )
    for setting in filter(None, told.split(",")):
        runs = _with_setting(cell, runs, setting.strip())
    return runs


def _with_setting(cell: str, runs: Sequence[Row], setting: str) -> list[Row]:
    """Return the runs that have a setting, such as ``lr=0.001``; one that a run has not got is ``unset``.

    Raises:
        UserError: no run has a setting of this name, or none this value.
    """
    name, equals, value = setting.partition("=")
    by_run = [(run, flat(run["config"] or {})) for run in runs]
    keys = {key for _, config in by_run for key in config if name in (key, last_name(key))}
    if not equals or not keys:
        known = {last_name(key) for _, config in by_run for key in config}
        raise UserError(
            f"{cell}:{visible(setting)} names no setting of its runs.{suggestion(name, sorted(known))} Try "
            f"{cell}:NAME=VALUE with one that `b2bench show settings` or `b2bench show {cell.partition('/')[0]}` lists."
        )
    found = [run for run, config in by_run if any(_equal(config.get(key, UNSET), value) for key in keys)]
    if not found:
        values = sorted({config.get(key, UNSET) for _, config in by_run for key in keys})
        raise UserError(f"no run of {cell} has {visible(setting)}; try {visible(', '.join(values))}")
    return found


def _equal(value: str, asked: str) -> bool:
    """Tell whether two values are one, as text or as numbers."""
    try:
        return value == asked or float(value) == float(asked)
    except ValueError:
        return False


def _one_setting(names: tuple[str, str], runs: Sequence[Row], others: Sequence[Row] | None) -> list[Row]:
    """Return runs of one setting: those that fit the other side's context, if it has one.

    Raises:
        UserError: they still have several settings.
    """
    chosen = list(runs)
    if others is not None and len(runs) > 1:
        contexts = {tuple(run[key] for key in (*SAME, "budget")) for run in others}
        fitting = [run for run in runs if tuple(run[key] for key in (*SAME, "budget")) in contexts]
        chosen = fitting or chosen
    hashes = sorted({run["config_hash"] for run in chosen})
    if len(hashes) > 1:
        by_hash = [next(run for run in chosen if run["config_hash"] == key) for key in hashes]
        told = labels([flat(run["config"] or {}) for run in by_hash], hashes)
        shown = "; ".join(f"{visible(str(run['name']))}: {text}" for run, text in zip(by_hash, told, strict=True))
        several = [name for name, key in CONTEXT_KEYS.items() if len({str(run[key]) for run in by_hash}) > 1]
        narrower = "".join(f" --where {name}=..." for name in several)
        narrower = f"{narrower}, or" if narrower else ""
        more = "," if ":" in names[0] else ":"
        raise UserError(
            f"{names[0]} stands for {len(hashes)} settings; try{narrower} {names[0]}{more}NAME=VALUE with what tells "
            f"them apart, or name runs ({shown})"
        )
    return chosen


def _side(store: Store, name: str, runs: Sequence[Row]) -> Side:
    evals = store.evals([run["run_id"] for run in runs])
    found: dict[int, Taken] = {}
    for run in sorted(runs, key=lambda run: (run["status"] == "done", str(run["finished"] or ""))):
        points = [row["queries"] for row in evals if row["run_id"] == run["run_id"] and row["split"] == "test"]
        if not points:
            continue
        rows, images = store.evaluation(run["run_id"], max(points))
        rows_before, before = store.evaluation(run["run_id"], min(points))
        found[run["seed"]] = Taken(
            run,
            max(points),
            _by_place(images),
            _values(rows),
            _by_place(before) if min(points) < max(points) else {},
            _values(rows_before),
            run["run_id"],
        )
    if not found:
        raise UserError(f"{name} has no evaluation yet; try again after the run's first one")
    return Side(visible(name), found)


def _by_place(images: Sequence[Row]) -> dict[tuple[str, int], Row]:
    return {(row["prompt"], row["noise_index"]): row for row in images}


def _values(rows: Sequence[Row]) -> dict[str, float]:
    return {row["metric"]: math.nan if row["value"] is None else row["value"] for row in rows if row["split"] == "test"}


def _before(side: Side) -> Side:
    """Return the pretrained model, on the images that the runs of ``side`` began with."""
    runs = {
        seed: Taken(taken.row, 0, taken.before, taken.values_before, run_of_images=taken.run_of_images)
        for seed, taken in side.runs.items()
        if taken.before
    }
    if not runs:
        raise UserError(f"{side.name} has one evaluation only, so nothing is known of the time before it")
    return Side(PRETRAINED, runs)
