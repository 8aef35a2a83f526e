"""Rows in and out of a connection, with JSON columns as Python objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb

from b2bench.errors import UserError
from b2bench.files import finite
from b2bench.search import FIRST_TUNING_SEED
from b2bench.store.schema import TABLES, column_type
from b2bench.text import visible

Row = dict[str, Any]
CONFIG_PARTS = ("algorithm", "wrapper", "reward", "backbone", "prompts", "settings", "found", "preset")

UNTRAINED = ("external", "baseline")
"""Algorithms of rows whose seed is that of an evaluation."""


class DamagedRow(Exception):
    """A row holds what no run writes; the message does not say in which file."""


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def of_runs(run_ids: str | Iterable[str] | None) -> dict[str, Any]:
    if run_ids is None:
        return {}
    return {"run_id": run_ids if isinstance(run_ids, str) else list(run_ids)}


def fetched(cursor: duckdb.DuckDBPyConnection) -> list[Row]:
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def select_rows(
    con: duckdb.DuckDBPyConnection, table: str, filters: Mapping[str, Any], order: str = "ALL"
) -> list[Row]:
    """Rows whose columns equal the filters, or are in them where a filter is a list; JSON decoded."""
    _known(table, filters)
    tests = [
        f"list_contains(?, {name})" if isinstance(value, list) else f"{name} IS NOT DISTINCT FROM ?"
        for name, value in filters.items()
    ]
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    rows = fetched(con.execute(f"SELECT * FROM {table} {where} ORDER BY {order}", list(filters.values())))
    for name in TABLES[table]:
        if column_type(table, name) == "JSON":
            for row in rows:
                row[name] = _document(row, table, name)
        if column_type(table, name) == "TIMESTAMP":
            for row in rows:
                if not isinstance(row[name], datetime | None):  # DuckDB's reach further than Python's
                    raise DamagedRow(f"{name} of table {table} is {str(row[name])[:40]!r}, which is no time of a run")
    return rows


def _document(row: Row, table: str, column: str) -> Row | None:
    """Return the object of a JSON column; every one that b2bench writes is an object, and so are the parts of a
    configuration.

    Raises:
        DamagedRow: it is something else.
    """
    if row[column] is None:
        return None
    try:
        found = json.loads(row[column])
    except RecursionError:
        found = None
    wrong = [column] if not isinstance(found, dict) else []
    if not wrong and column == "config":
        wrong = [f"{column}.{part}" for part in CONFIG_PARTS if not isinstance(found.get(part, {}), dict)]
    if wrong:
        of = row.get("run_id") or row.get("profile_id") or row.get("poll_id")
        raise DamagedRow(f"{wrong[0]} of table {table} is not a JSON object ({of})")
    return found


SWEEP_FOLDER = "sweep"
"""Folder of a sweep's logs, among those of the runs."""


def check_ids(ids: Iterable[str], source: str) -> None:
    """See that every id can name a folder: a run's files are in one of its name, and strangers choose theirs.

    Raises:
        UserError: one is a path, or empty.
    """
    for run_id in ids:
        if run_id in ("", ".", "..", SWEEP_FOLDER) or re.search(r"[/\\\0]", run_id):
            raise UserError(f"{source} has a run {run_id[:80]!r}, which is not a name of a run; nothing was copied")


def disarmed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``runs`` that names no plugin files: whoever goes on with a run would import them."""
    config = row["config"] if isinstance(row["config"], Mapping) else {}
    found = config.get("found")
    if not isinstance(found, Mapping) or not found.get("plugins"):
        return dict(row)
    return {**row, "config": {**config, "found": {**found, "plugins": []}}}


def as_of_strangers(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the rows of a whole run with that of ``runs`` :func:`disarmed`."""
    return {**rows, "runs": [disarmed(row) for row in rows["runs"]]}


TURN = 25_000
"""Reward queries whose rows are written in one turn, a second or two: others wait for the file meanwhile."""
FEWEST = 1_000
"""Reward queries that a run counts as if it has fewer, or none: it has evaluations and images, too."""


def in_turns(run_ids: Iterable[str], runs: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Divide runs into turns of at most :data:`TURN` reward queries by their budgets, or of one run that has more.

    ``runs`` has the row of each.
    """
    turn: list[str] = []
    queries = 0
    for run_id in run_ids:
        budget = max(runs[run_id]["budget"] or 0, FEWEST)
        if turn and queries + budget > TURN:
            yield turn
            turn, queries = [], 0
        turn.append(run_id)
        queries += budget
    if turn:
        yield turn


def check_seeds(runs: Iterable[Mapping[str, Any]], source: str = "") -> None:
    """See that no run that a report would compare has a seed that is for tuning.

    Raises:
        UserError: one has; ``source`` is the file that it would come from.
    """
    for run in runs:
        config = run.get("config")
        tuning = isinstance(config, Mapping) and config.get("tuning", False)
        if run["seed"] >= FIRST_TUNING_SEED and not tuning and run["algorithm"] not in UNTRAINED:
            said = f"{source}: run {run['run_id']} has " if source else ""
            end = "nothing was copied" if source else "try a lower seed"
            raise UserError(
                f"{said}seed = {run['seed']}: seeds from {FIRST_TUNING_SEED} on are for tuning (b2bench tune), and "
                f"this is not a tuning run; {end}"
            )


def check_identity(
    runs: Iterable[Mapping[str, Any]], source: str, hash_of: Callable[[Mapping[str, Any]], str | None]
) -> None:
    """See that what a run's row says of it is what its configuration says, of which reports take its cell's settings.

    ``hash_of`` gives the hash of the cell that a row's configuration describes, or None where it cannot be known.

    Raises:
        UserError: something differs; ``source`` is the file that it would come from.
    """
    for run in runs:
        config = run.get("config")
        if run["algorithm"] in UNTRAINED or not isinstance(config, Mapping):
            continue
        said: dict[str, Any] = {"seed": config.get("seed"), "budget": config.get("queries")}
        for column in ("algorithm", "wrapper", "reward", "backbone"):
            part = config.get(column)
            said[column] = part.get("name") if isinstance(part, Mapping) else None
        prompts = config.get("prompts")
        said["prompts_hash"] = prompts.get("hash") if isinstance(prompts, Mapping) else None
        said["config_hash"] = hash_of(run)
        for column, value in said.items():
            if value is not None and run.get(column) != value:
                raise UserError(
                    f"{source}: run {run['run_id']} has {column} {visible(str(run.get(column)))}, and its "
                    f"configuration {visible(str(value))}; nothing was copied"
                )


def insert_rows(
    con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]], replace: bool = False
) -> None:
    """All rows in one statement, as one JSON parameter: ten times faster than a statement a row.

    DuckDB parses the doubles back bit for bit. A column that a row lacks is null.
    """
    if not rows:
        return
    _known(table, *rows)
    structure = {name: column_type(table, name) for name in TABLES[table]}
    documents = [name for name, kind in structure.items() if kind == "JSON"]
    empty = dict.fromkeys(structure)
    body = [{**empty, **row, **{name: finite(row.get(name)) for name in documents}} for row in rows]
    con.execute(
        f"INSERT {'OR REPLACE ' if replace else ''}INTO {table} "
        "SELECT row.* FROM (SELECT unnest(from_json_strict(?, ?)) AS row)",
        [json.dumps(body, default=_plain), json.dumps([structure])],
    )


def update_run(con: duckdb.DuckDBPyConnection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change a row of ``runs``; every write of a run is a heartbeat."""
    values = {**values, "heartbeat": utc_now()}
    sets = ", ".join(f"{name} = ?" for name in values)
    if not con.execute(f"UPDATE runs SET {sets} WHERE run_id = ? RETURNING 1", [*values.values(), run_id]).fetchall():
        raise UserError(f"run {run_id} is not in this store, which is another than the one it began in; try that one")


def _known(table: str, *rows: Mapping[str, Any]) -> None:
    if unknown := set().union(*rows) - TABLES[table].keys():
        raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")


def _plain(value: Any) -> Any:
    """Return a JSON value of a numpy scalar, an array, a time or a path."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.tolist() if hasattr(value, "tolist") else str(value)
