"""Finished runs as Parquet files, to publish and to take in: ``b2bench export`` and ``b2bench import``.

A folder holds one file per table of the store, with the store's columns, ordered by key: the same runs give the same
rows in the same order. What comes in is data of strangers: every column is checked against the schema, and a run that
the store has is left as it is. In files that are there only if they hold something, there comes along what reports
read beside runs: profiles and refusals of what the runs are on, and preference tests with their votes where all their
runs do.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from b2bench.errors import UserError
from b2bench.files import replaced
from b2bench.store.rows import (
    DamagedRow,
    Row,
    as_of_strangers,
    check_identity,
    check_ids,
    check_seeds,
    in_turns,
    insert_rows,
    select_rows,
)
from b2bench.store.schema import KEYS, RUN_TABLES, TABLES, column_type, create_table
from b2bench.store.store import Store
from b2bench.text import visible

ENDED = ("done", "failed")  # what counts in tables; the others may go on
BESIDE = ("profiles", "refusals", "polls", "votes")
"""Tables whose rows belong to no run alone."""
TRAINED_ON = ("benchmark_version", "backbone", "reward", "prompts_hash")
PROFILED = TRAINED_ON[:-1]
"""Of a profile of the pretrained model, whose prompts may be others: a report shows it beside its own."""


FORMS = {"parquet": "COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}
"""How a table is written: to be read again by b2bench, or as text by anything."""


def export_results(
    store: Store,
    folder: Path,
    where: Mapping[str, Collection[str]] | None = None,
    form: str = "parquet",
    tuning: bool = False,
) -> list[str]:
    """Write the ended runs whose columns are among ``where``'s values into ``folder``; return their ids.

    ``form``: parquet, or csv, which nothing of b2bench reads. ``tuning``: those of tuning, too. Each file is replaced
    whole. Runs that the folder held before and that do not fit any more are gone from it. So are the other tables' rows
    that do not go with the runs.

    Raises:
        UserError: no run fits, or the folder has runs that would be gone because the store lacks them or those of
            tuning are not wanted, or it cannot be written.
    """
    where = where or {}
    every = store.runs()  # before anything is said of the folder: there may be no store
    if form == "parquet":
        _check_kept(folder, store, tuning)
    fitting = [run for run in every if run["status"] in ENDED and _fits(run, where)]
    runs = [run for run in fitting if tuning or not _of_tuning(run)]
    chosen = [run["run_id"] for run in runs]
    if not chosen:
        said = f"database {store.path} holds no finished run that fits"
        if fitting:
            raise UserError(f"{said} but {len(fitting)} of tuning; try --tuning")
        raise UserError(f"{said}; try b2bench ls runs --db {store.path}")
    try:
        with tempfile.TemporaryDirectory() as name, _scratch(Path(name)) as con:
            _create(con)
            for some in in_turns(chosen, {run["run_id"]: run for run in runs}):
                for whole in store.whole_runs(some):
                    for table, rows in whole.items():
                        insert_rows(con, table, rows)
            beside = _beside(store, runs, where)
            for table, rows in beside.items():
                insert_rows(con, table, rows)
            folder.mkdir(parents=True, exist_ok=True)  # now that the store was read
            for table in (*RUN_TABLES, *BESIDE):
                if table in BESIDE and not beside[table]:
                    (folder / f"{table}.{form}").unlink(missing_ok=True)
                    continue
                order = ", ".join(KEYS.get(table, ("run_id",)))
                # the folder's name is ours and holds no quote
                written = Path(name) / f"{table}.{form}"
                columns = "*" if form == "parquet" else ", ".join(_as_csv(table, name) for name in TABLES[table])
                con.execute(f"COPY (SELECT {columns} FROM {table} ORDER BY {order}) TO '{written}' ({FORMS[form]})")
                with replaced(folder / f"{table}.{form}") as temporary:
                    shutil.copyfile(written, temporary)
    except OSError as error:
        raise UserError(f"results folder {folder} cannot be written: {error.strerror}") from None
    return chosen


def _check_kept(folder: Path, store: Store, tuning: bool) -> None:
    """See that no run is lost that the folder holds; what is no Parquet file is written over.

    Raises:
        UserError: the store lacks one, or has it from an earlier moment, or it is of ``tuning`` and those are left out.
    """
    file = folder / "runs.parquet"
    with suppress(OSError), file.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            return
    if not file.is_file():
        return
    there = _read(file, "runs")
    held, how = f"results folder {folder} holds", "or another folder"
    if lacking := sorted(store.wanting(there)):
        named = ", ".join(map(visible, lacking[:3])) + (f" and {len(lacking) - 3} more" if lacking[3:] else "")
        raise UserError(
            f"{held} runs that database {store.path} lacks, or has not to their end, and they would be gone: {named}; "
            f"try b2bench import {folder} --db {store.path} first, {how}"
        )
    if not tuning and (left := sum(map(_of_tuning, there))):
        raise UserError(f"{held} runs of tuning ({left}), and they would be gone; try --tuning, {how}")


def _of_tuning(run: Row) -> bool:
    return isinstance(run["config"], Mapping) and bool(run["config"].get("tuning"))


def _as_csv(table: str, column: str) -> str:
    """Return the SQL of a column as no spreadsheet takes it for a formula: with an apostrophe before, as reports."""
    if column_type(table, column) != "VARCHAR":
        return column
    return f"regexp_replace({column}, '^([=+@\\t\\r]|-.)', '''\\1') AS {column}"


def _fits(row: Row, where: Mapping[str, Collection[str]]) -> bool:
    """Tell whether the columns that the row has are among the values."""
    return all(str(row[name]) in values for name, values in where.items() if name in row)


def _beside(store: Store, runs: Sequence[Row], where: Mapping[str, Collection[str]]) -> dict[str, list[Row]]:
    """Return what goes with the runs, by table: what was profiled with the same reward, on these prompts and on others,
    and what was refused on the same prompts with the same reward and budget.
    """

    def of(row: Row, *names: str) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    on, budgets = {of(run, *TRAINED_ON) for run in runs}, {of(run, *TRAINED_ON, "budget") for run in runs}
    models = {of(run, *PROFILED) for run in runs}

    def stands_beside(row: Row) -> bool:
        return of(row, *PROFILED) in models and row["lora"] is None and _fits(row, where)

    profiles = [row for row in store.profiles() if of(row, *TRAINED_ON) in on or stands_beside(row)]
    refusals = [row for row in store.refusals() if of(row, *TRAINED_ON, "budget") in budgets and _fits(row, where)]
    polls, votes = _ballots_of(store, {run["run_id"] for run in runs})
    return {"profiles": profiles, "refusals": refusals, "polls": polls, "votes": votes}


def _ballots_of(store: Store, runs: Collection[str]) -> tuple[list[Row], list[Row]]:
    """Preference tests on these runs alone, with their votes; one of the pretrained model alone is on no run."""
    polls, votes = store.ballots()
    polls = [poll for poll in polls if (of := runs_of(poll)) and of <= set(runs)]
    ids = {poll["poll_id"] for poll in polls}
    return polls, [vote for vote in votes if vote["poll_id"] in ids]


def runs_of(poll: Row) -> set[str]:
    """Run ids of a preference test's cells; others may have written its row."""
    cells = [cell for cell in poll["cells"].values() if isinstance(cell, Mapping)]
    found = [run for cell in cells for run in cell.get("runs", ()) if isinstance(cell.get("runs"), list)]
    return {run for run in found if isinstance(run, str)}


def import_results(
    store: Store, folder: Path, hash_of: Callable[[Mapping[str, Any]], str | None] = lambda _: None
) -> list[str]:
    """Take the runs of an exported ``folder`` that the store does not have, or not to their end; return their ids.

    ``hash_of`` is that of :func:`b2bench.store.rows.check_identity`.

    Raises:
        UserError: a file is missing, is not Parquet or has other columns, or has a run with a seed that is for tuning,
            which is not a tuning run, or one whose row and configuration differ; nothing was read then.
    """
    rows = {table: _read(folder / f"{table}.parquet", table) for table in RUN_TABLES}
    files = {table: folder / f"{table}.parquet" for table in BESIDE}
    beside = {table: _read(file, table) if file.exists() else [] for table, file in files.items()}
    ids = [row["run_id"] for row in rows["runs"]]
    check_ids(ids, f"results folder {folder}")
    check_seeds(rows["runs"], f"results folder {folder}")
    check_identity(rows["runs"], f"results folder {folder}", hash_of)
    new = list(dict.fromkeys(store.wanting(rows["runs"])))
    if strange := {row["run_id"] for table in RUN_TABLES for row in rows[table]} - set(ids):
        names = ", ".join(sorted(strange)[:3])
        raise UserError(f"results folder {folder} has rows of runs that runs.parquet lacks: {names}")
    if {vote["poll_id"] for vote in beside["votes"]} - {poll["poll_id"] for poll in beside["polls"]}:
        raise UserError(f"results folder {folder} has votes of preference tests that polls.parquet lacks")
    of_run: dict[str, dict[str, list[dict[str, Any]]]] = {run_id: {table: [] for table in RUN_TABLES} for run_id in new}
    for table in RUN_TABLES:
        for row in rows[table]:
            if row["run_id"] in of_run:
                of_run[row["run_id"]][table].append(row)
    for some in in_turns(new, {row["run_id"]: row for row in rows["runs"]}):
        store.insert_runs([as_of_strangers(of_run[run_id]) for run_id in some])
    store.take(beside)
    return new


def _read(file: Path, table: str) -> list[dict[str, Any]]:
    """Return the rows of a file, in the columns and types of ``table``; JSON columns as Python objects."""
    columns = list(TABLES[table])
    try:
        with tempfile.TemporaryDirectory() as name, _scratch(Path(name)) as con:
            # copied: DuckDB reads a star or a bracket in a path as a pattern
            copy = Path(name) / "read.parquet"
            shutil.copyfile(file, copy)
            found = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM '{copy}'").fetchall()]
            if missing := [column for column in columns if column not in found]:
                raise UserError(f"{file} lacks the columns {', '.join(missing)}: another version of b2bench wrote it")
            if strange := [column for column in found if column not in columns]:
                raise UserError(f"{file} has the columns {', '.join(strange)[:80]}, which table {table} does not know")
            _create(con)
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM '{copy}'")
            return select_rows(con, table, {})
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except DamagedRow as error:
        raise UserError(f"{file} is damaged, or was changed by hand: {error}") from None
    except duckdb.Error as error:
        reason = re.sub(r"'[^']*read\.parquet'", repr(str(file)), str(error).strip().partition("\n")[0])[:160]
        raise UserError(f"{file} is not a Parquet file of table {table}: {reason}") from None


def _create(con: duckdb.DuckDBPyConnection) -> None:
    for table in (*RUN_TABLES, *BESIDE):
        for statement in create_table(table):
            con.execute(statement)


def _scratch(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return a database in memory that can reach ``folder`` and nothing else."""
    con = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "threads": "1",
        }
    )
    con.execute("SET allowed_directories = ?", [[str(folder)]])
    con.execute("SET enable_external_access = false")
    return con
