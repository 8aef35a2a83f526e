"""Finished runs as Parquet files, to publish and to take in: ``b2bench export`` and ``b2bench import``.

A folder holds one file per table of the store, with the store's columns, ordered by key: the same runs give the same
rows in the same order. What comes in is data of strangers: every column is checked against the schema, and a run that
the store has is left as it is. Preference tests and their votes come along where all their runs do, in files that are
there only then.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb

from b2bench.errors import UserError
from b2bench.files import replaced
from b2bench.store.rows import DamagedRow, Row, check_ids, insert_rows, select_rows
from b2bench.store.schema import KEYS, RUN_TABLES, TABLES, create_table
from b2bench.store.store import Store

ENDED = ("done", "failed")  # what counts in tables; the others may go on
VOTE_TABLES = ("polls", "votes")


FORMS = {"parquet": "COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}
"""How a table is written: to be read again by b2bench, or as text by anything."""


def export_results(
    store: Store, folder: Path, where: Mapping[str, Collection[str]] | None = None, form: str = "parquet"
) -> list[str]:
    """Write the ended runs whose columns are among ``where``'s values into ``folder``; return their ids.

    ``form``: parquet, or csv, which nothing of b2bench reads. Each file is replaced whole. Runs that the folder held
    before and that do not fit any more are gone from it.

    Raises:
        UserError: no run fits, or the folder cannot be written.
    """
    chosen = [
        run["run_id"]
        for run in store.runs()
        if run["status"] in ENDED and all(str(run[name]) in values for name, values in (where or {}).items())
    ]
    if not chosen:
        raise UserError(f"database {store.path} holds no finished run that fits; try b2bench ls runs --db {store.path}")
    try:
        with tempfile.TemporaryDirectory() as name, _scratch(Path(name)) as con:
            _create(con)
            for run_id in chosen:
                for table, rows in store.whole_run(run_id).items():
                    insert_rows(con, table, rows)
            polls, votes = _ballots_of(store, set(chosen))
            insert_rows(con, "polls", polls)
            insert_rows(con, "votes", votes)
            folder.mkdir(parents=True, exist_ok=True)  # now that the store was read
            for table in (*RUN_TABLES, *VOTE_TABLES):
                if table in VOTE_TABLES and not polls:
                    (folder / f"{table}.{form}").unlink(missing_ok=True)
                    continue
                order = ", ".join(KEYS.get(table, ("run_id",)))
                # the folder's name is ours and holds no quote
                written = Path(name) / f"{table}.{form}"
                con.execute(f"COPY (SELECT * FROM {table} ORDER BY {order}) TO '{written}' ({FORMS[form]})")
                with replaced(folder / f"{table}.{form}") as temporary:
                    shutil.copyfile(written, temporary)
    except OSError as error:
        raise UserError(f"results folder {folder} cannot be written: {error.strerror}") from None
    return chosen


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


def import_results(store: Store, folder: Path) -> list[str]:
    """Take the runs of an exported ``folder`` that the store does not have, or not to their end; return their ids.

    Raises:
        UserError: a file is missing, is not Parquet or has other columns; nothing was read then.
    """
    rows = {table: _read(folder / f"{table}.parquet", table) for table in RUN_TABLES}
    files = {table: folder / f"{table}.parquet" for table in VOTE_TABLES}
    ballots = {table: _read(file, table) if file.exists() else [] for table, file in files.items()}
    ids = [row["run_id"] for row in rows["runs"]]
    check_ids(ids, f"results folder {folder}")
    new = list(dict.fromkeys(store.wanting(rows["runs"])))
    if strange := {row["run_id"] for table in RUN_TABLES for row in rows[table]} - set(ids):
        names = ", ".join(sorted(strange)[:3])
        raise UserError(f"results folder {folder} has rows of runs that runs.parquet lacks: {names}")
    if {vote["poll_id"] for vote in ballots["votes"]} - {poll["poll_id"] for poll in ballots["polls"]}:
        raise UserError(f"results folder {folder} has votes of preference tests that polls.parquet lacks")
    of_run: dict[str, dict[str, list[dict[str, Any]]]] = {run_id: {table: [] for table in RUN_TABLES} for run_id in new}
    for table in RUN_TABLES:
        for row in rows[table]:
            if row["run_id"] in of_run:
                of_run[row["run_id"]][table].append(row)
    for run_id in new:
        store.insert_run(of_run[run_id])
    if ballots["polls"] or ballots["votes"]:
        store.record_votes(ballots["polls"], ballots["votes"])
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
    for table in (*RUN_TABLES, *VOTE_TABLES):
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
