"""The store: one DuckDB file that holds every reward query of many runs.

The schema is public and its names are stable; docs/store.md describes it column by column, and so
does the file itself (``SELECT column_name, comment FROM duckdb_columns()``). Times are UTC.

- ``runs``: one row per run; what was asked for, on what, and how it ended.
- ``queries``: one row per reward query on a training image.
- ``rounds``: one row per round: losses, cost.
- ``evals``: one row per metric of an evaluation; ``queries`` = 0 is the pretrained model.
- ``images``: scores of the evaluation images.
- ``profiles``: one row per measure and step of a ``b2bench profile``; it belongs to no run.
- ``refusals``: one row per algorithm and wrapper that a sweep asked for and that do not go together.
- ``polls``: one row per human preference test; ``votes``: one row per answer of a rater.
- ``schema``: one row, the version of all this.

A read-write DuckDB connection shuts out every other process, readers too. So nothing here stays
connected: each call opens, does one transaction and closes, and while another process holds the file
it waits; so that nothing depends on how well DuckDB's own lock holds, calls also take turns by the file
``NAME.lock`` beside it. A process that is killed leaves whole transactions or none; a new file appears under its
name only when its schema is complete, and a file of an older schema is copied before it is changed.
Connections can reach neither the network nor other files.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from b2bench.errors import UserError
from b2bench.store.database import Database
from b2bench.store.frames import Library, check_library, fetch
from b2bench.store.rows import (
    DamagedRow,
    Row,
    as_of_strangers,
    check_identity,
    check_ids,
    check_seeds,
    fetched,
    in_turns,
    insert_rows,
    of_runs,
    select_rows,
    update_run,
    utc_now,
)
from b2bench.store.schema import KEYS, RUN_TABLES


class Store(Database):
    """A DuckDB file of runs, by path. Making one opens nothing; ``check`` does, before any work is lost.

    ``patience`` is how many seconds a call waits for a file that another process holds. Every method
    raises :class:`UserError` for a file that it cannot use, and never changes such a file.
    """

    # -- what a run writes -------------------------------------------------------------------------

    def start_run(self, run: Mapping[str, Any], *, unique: bool = False) -> None:
        """Insert a row into ``runs`` with status running; the clock columns are filled in here.

        Raises:
            UserError: ``unique``, and a run has this name: another process may have started it since somebody looked.
                Or the row is of a training run whose seed is for tuning, and it is not a tuning run.
        """
        check_seeds([run])
        now = utc_now()
        row = {**run, "started": now, "heartbeat": now, "status": "running"}

        def work(con: duckdb.DuckDBPyConnection) -> None:
            name = run.get("name")
            if unique and (same := select_rows(con, "runs", {"name": name})):
                raise UserError(
                    f"a run named {name!r} was started meanwhile, {same[-1]['run_id']}; try the same command again, "
                    "which goes on from it when it has ended, or another name"
                )
            insert_rows(con, "runs", [row])

        self._write(work)

    def record_baseline(
        self, run: Mapping[str, Any], evals: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Insert a row into ``runs`` that is done, with its one evaluation, all or none.

        Return False and write nothing if the store has its ``run_id``, which says what was measured.
        """

        def work(con: duckdb.DuckDBPyConnection) -> bool:
            if select_rows(con, "runs", {"run_id": run["run_id"]}):
                return False
            now = utc_now()
            insert_rows(con, "runs", [{"started": now, **run, "finished": now, "heartbeat": now, "status": "done"}])
            insert_rows(con, "evals", [{**row, "run_id": run["run_id"]} for row in evals])
            insert_rows(con, "images", [{**row, "run_id": run["run_id"]} for row in images])
            return True

        return self._write(work)

    def beat(self, run_id: str) -> None:
        """Say that a run is at work, between two of its writes.

        Raises:
            Busy: another process has the file just now; nothing waits for it.
        """
        usual, self.patience = self.patience, 0.0
        try:
            self._write(lambda con: update_run(con, run_id, {}), new=False)
        finally:
            self.patience = usual

    def restart_run(self, run_id: str) -> None:
        """Set a run that is resumed to running again, and clear its error."""
        self._write(
            lambda con: update_run(con, run_id, {"status": "running", "error": None, "finished": None}), new=False
        )

    def record_round(self, run_id: str, round_row: Mapping[str, Any], query_rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert a row into ``rounds`` and its rows into ``queries``, all or none. ``run_id`` is added."""

        def work(con: duckdb.DuckDBPyConnection) -> None:
            update_run(con, run_id, {})
            insert_rows(con, "rounds", [{**round_row, "run_id": run_id}])
            insert_rows(con, "queries", [{**row, "run_id": run_id} for row in query_rows])

        self._write(work, new=False)

    def record_evals(
        self, run_id: str, rows: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Write rows of one evaluation into ``evals`` and ``images``, all or none. ``run_id`` is added.

        Rows of the same key are replaced: a run that was killed between this and its checkpoint
        evaluates once more.
        """

        def work(con: duckdb.DuckDBPyConnection) -> None:
            update_run(con, run_id, {})
            insert_rows(con, "evals", [{**row, "run_id": run_id} for row in rows], replace=True)
            insert_rows(con, "images", [{**row, "run_id": run_id} for row in images], replace=True)

        self._write(work, new=False)

    def finish_run(self, run_id: str, status: str, error: str | None = None) -> None:
        """Set how a run ended: ``status`` is done, failed or interrupted, ``error`` why."""
        if status not in ("done", "failed", "interrupted"):
            raise ValueError(f"a run ends done, failed or interrupted, not {status!r}")
        # a plugin's error may quote a file's name that is no text
        why = None if error is None else error.encode("utf-8", "backslashreplace").decode()
        self._write(
            lambda con: update_run(con, run_id, {"status": status, "error": why, "finished": utc_now()}), new=False
        )

    def rewind(self, run_id: str, round: int, queries: int) -> None:
        """Forget what a run wrote after its checkpoint, so that the resumed run writes no row twice.

        ``round`` is the next round to run: it and later ones go, with their queries. ``queries`` is
        the reward queries before it: evaluations after more than that go, with their images.

        Raises:
            UserError: the store lacks some of what was before the checkpoint; nothing was changed.
        """

        def work(con: duckdb.DuckDBPyConnection) -> None:
            query = "SELECT count(*) FROM queries WHERE run_id = ? AND round < ?"
            (held,) = con.execute(query, [run_id, round]).fetchall()[0]
            if held < queries:
                raise UserError(
                    f"{self.path} has {held:,} of the {queries:,} reward queries that run {run_id} had made by its "
                    "last checkpoint: it is another store than the run wrote to, or an older copy; try --db with the "
                    "newest one, or merge that into this one"
                )
            update_run(con, run_id, {})
            for table in ("rounds", "queries"):
                con.execute(f"DELETE FROM {table} WHERE run_id = ? AND round >= ?", [run_id, round])
            for table in ("evals", "images"):
                con.execute(f"DELETE FROM {table} WHERE run_id = ? AND queries > ?", [run_id, queries])

        self._write(work, new=False)

    def record_profile(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows of one profile into ``profiles``, all or none."""
        self._write(lambda con: insert_rows(con, "profiles", rows))

    def record_refusals(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note combinations that were refused; a newer reason replaces an older one."""
        self._write(lambda con: insert_rows(con, "refusals", rows, replace=True))

    def refusals(self) -> list[Row]:
        """Return rows of ``refusals``."""
        return self._read(lambda con: select_rows(con, "refusals", {}))

    def record_votes(self, polls: Sequence[Mapping[str, Any]], votes: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Insert preference tests and votes that the store does not have, all or none; return the new votes.

        What is there stays: the same rows twice add nothing.
        """

        def work(con: duckdb.DuckDBPyConnection) -> list[Row]:
            missing = {}
            for table, rows in (("polls", polls), ("votes", votes)):
                keys = KEYS[table]
                known = set(con.execute(f"SELECT {', '.join(keys)} FROM {table}").fetchall())
                of_key = {tuple(row[key] for key in keys): dict(row) for row in reversed(rows)}
                missing[table] = [row for key, row in reversed(of_key.items()) if key not in known]
                insert_rows(con, table, missing[table])
            return missing["votes"]

        return self._write(work)

    def ballots(self) -> tuple[list[Row], list[Row]]:
        """Return all rows of ``polls``, by when they were made, and of ``votes``, in each rater's order."""

        def work(con: duckdb.DuckDBPyConnection) -> tuple[list[Row], list[Row]]:
            polls = select_rows(con, "polls", {}, order="made, poll_id")
            return polls, select_rows(con, "votes", {}, order="poll_id, rater, position, comparison")

        return self._read(work)

    def merge(
        self,
        other: str | Path,
        *,
        own: bool = False,
        hash_of: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
    ) -> list[str]:
        """Copy the runs of another store that this one doesn't have, with all their rows; return their ids.

        A run is copied whole or not at all, and a merge that is cut short is finished by the next. A run that this
        store has stays as it is, unless it was done there and not here, or was written to later there and is done in
        neither: then all its rows are those of the other store. Profiles, preference tests and votes come along. The
        files of plugins that a run names do not, unless the store is the user's ``own``: whoever goes on with a run
        imports them.
        ``hash_of`` is that of :func:`b2bench.store.rows.check_identity`.

        Raises:
            UserError: the other store has a run whose id is not a name of a folder, or whose seed is for tuning while
                it is not a tuning run, or whose row and configuration differ; nothing was copied then.
        """
        source = Store(other, self.patience)
        runs = source.runs()
        check_ids((row["run_id"] for row in runs), str(source.path))
        check_seeds(runs, str(source.path))
        check_identity(runs, str(source.path), hash_of)
        new = self.wanting(runs)
        for some in in_turns(new, {row["run_id"]: row for row in runs}):
            self.insert_runs([rows if own else as_of_strangers(rows) for rows in source.whole_runs(some)])
        polls, votes = source.ballots()
        self.take({"profiles": source.profiles(), "refusals": source.refusals(), "polls": polls, "votes": votes})
        return new

    def take(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Insert rows of ``profiles``, ``polls`` and ``votes`` of another store that this one lacks, and its
        ``refusals`` in place of those here.
        """
        if profiles := rows["profiles"]:
            have = {row["profile_id"] for row in self.profiles()} if self.path.exists() else set()
            if profiles := [row for row in profiles if row["profile_id"] not in have]:
                self.record_profile(profiles)
        if refusals := rows["refusals"]:
            self.record_refusals(refusals)
        if rows["polls"] or rows["votes"]:
            self.record_votes(rows["polls"], rows["votes"])

    def wanting(self, runs: Iterable[Row]) -> list[str]:
        """Return ids of ``runs`` (rows of another store) that this store lacks, or has from an earlier moment."""
        # without configurations: a sweep merges run by run, and those of thousands of runs take seconds to read
        rows = self.sql("SELECT run_id, status, heartbeat FROM runs") if self.path.exists() else []
        known = {row["run_id"]: row for row in rows}
        return [row["run_id"] for row in runs if row["run_id"] not in known or _further(row, known[row["run_id"]])]

    def differing(self, other: str | Path) -> list[str]:
        """Return ids of runs that ended differently here and in the other store."""
        query = "SELECT run_id, status, finished, config_hash FROM runs WHERE status IN ('done', 'failed')"
        here = {row["run_id"]: row for row in self.sql(query)} if self.path.exists() else {}
        there = Store(other, self.patience).sql(query)
        return sorted(row["run_id"] for row in there if here.get(row["run_id"], row) != row)

    def whole_run(self, run_id: str) -> dict[str, list[Row]]:
        """Return everything about a run at one moment, because it may be writing."""
        return self._read(lambda con: {table: select_rows(con, table, {"run_id": run_id}) for table in RUN_TABLES})

    def whole_runs(self, run_ids: Iterable[str]) -> list[dict[str, list[Row]]]:
        """Return everything about each of the runs, all at one moment."""
        return self.together(lambda: [self.whole_run(run_id) for run_id in run_ids])

    def insert_runs(self, runs: Iterable[Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
        """Insert all rows of runs as :meth:`whole_run` gives them, all or none, in place of those that there are.

        Opening the file and closing it take longer than a small run's rows: :func:`in_turns` says how many make a turn.
        """

        def work(con: duckdb.DuckDBPyConnection) -> None:
            for rows in runs:
                for row in rows["runs"]:
                    if con.execute("SELECT 1 FROM runs WHERE run_id = ?", [row["run_id"]]).fetchall():
                        for table in reversed(RUN_TABLES):
                            con.execute(f"DELETE FROM {table} WHERE run_id = ?", [row["run_id"]])
                for table in RUN_TABLES:
                    insert_rows(con, table, rows.get(table, ()))

        self._write(work)

    # -- readers -----------------------------------------------------------------------------------

    def runs(self, **filters: Any) -> list[Row]:
        """Return rows of ``runs`` whose columns equal ``filters``, by start; JSON columns are Python objects."""
        return self._read(lambda con: select_rows(con, "runs", filters, order="started, run_id"))

    def rounds(self, run_ids: str | Iterable[str] | None = None) -> list[Row]:
        """Return rows of ``rounds`` of a run, of several, or of all."""
        return self._read(lambda con: select_rows(con, "rounds", of_runs(run_ids), order="run_id, round"))

    def evals(self, run_ids: str | Iterable[str] | None = None) -> list[Row]:
        """Return rows of ``evals`` of a run, of several, or of all."""
        return self._read(
            lambda con: select_rows(con, "evals", of_runs(run_ids), order="run_id, queries, split, metric")
        )

    def frames(self, library: Library) -> dict[str, Any]:
        """Tables ``runs``, ``evals`` and ``queries`` as data frames, of one moment: {table: frame}.

        Columns are those of docs/store.md; JSON columns are text, times are UTC without a zone.

        Raises:
            UserError: the library is not installed, or the store cannot be read.
        """
        check_library(library)
        orders = {
            "runs": "started, run_id",
            "evals": "run_id, queries, split, metric",
            "queries": "run_id, query_index",
        }
        queries = {table: f"SELECT * FROM {table} ORDER BY {order}" for table, order in orders.items()}
        return self._read(lambda con: fetch(con, queries, library))

    def evaluated_as(self, key: str) -> list[str]:
        """Return ids of runs whose evaluation at 0 queries has ``key`` in its settings."""
        query = "SELECT DISTINCT run_id FROM evals WHERE queries = 0 AND contains(settings::VARCHAR, ?) ORDER BY run_id"
        return [row["run_id"] for row in self.sql(query, [key])]

    def evaluation(self, run_id: str, queries: int) -> tuple[list[Row], list[Row]]:
        """Return rows of ``evals`` and ``images`` of one evaluation at one moment; none if a row is damaged."""

        def work(con: duckdb.DuckDBPyConnection) -> tuple[list[Row], list[Row]]:
            where = {"run_id": run_id, "queries": queries}
            try:
                return select_rows(con, "evals", where), select_rows(con, "images", where)
            except DamagedRow:
                return [], []

        return self._read(work)

    def samples(self) -> list[Row]:
        """Return rows of ``images`` that are kept as files, of all runs, in the order in which they were drawn."""
        query = "SELECT * FROM images WHERE path IS NOT NULL ORDER BY run_id, queries, length(path), path"
        return self._read(lambda con: fetched(con.execute(query)))

    def evaluation_errors(self) -> list[Row]:
        """Return for each run ``error``, the standard error of its last mean score over all its test images."""
        query = (
            "SELECT run_id, arg_max(error, queries) AS error FROM (SELECT run_id, queries, "
            "CASE WHEN count(score) > 1 AND bool_and(isfinite(score)) THEN stddev_samp(score) / sqrt(count(score)) END "
            "AS error, count(*) AS n, max(count(*)) OVER (PARTITION BY run_id) AS most "
            "FROM images GROUP BY run_id, queries) WHERE n = most GROUP BY run_id ORDER BY run_id"
        )
        return self._read(lambda con: fetched(con.execute(query)))

    def curve_errors(self) -> list[Row]:
        """Return for each evaluation ``error``, the standard error of the mean score over its test images."""
        query = (
            "SELECT run_id, queries, CASE WHEN count(score) > 1 AND bool_and(isfinite(score)) "
            "THEN stddev_samp(score) / sqrt(count(score)) END AS error "
            "FROM images GROUP BY run_id, queries ORDER BY run_id, queries"
        )
        return self._read(lambda con: fetched(con.execute(query)))

    def round_rewards(self) -> list[Row]:
        """Return for each round ``reward``, the mean reward of its training images, and ``queries`` at its end."""
        query = (
            "SELECT run_id, round, max(query_index) + 1 AS queries, avg(reward) AS reward "
            "FROM queries GROUP BY run_id, round ORDER BY run_id, round"
        )
        return self._read(lambda con: fetched(con.execute(query)))

    def last_scores(self) -> list[Row]:
        """Return for each run ``scores``, those of its last test images in order, and ``images``, a name of these.

        Images of a prompt follow one another. ``prompts`` counts these, None where some have more images than others.
        """
        query = (
            "SELECT run_id, list(score ORDER BY prompt, noise_index) AS scores, "
            "md5(string_agg(concat(prompt, chr(10), noise_index), chr(10) ORDER BY prompt, noise_index)) AS images, "
            "CASE WHEN len(list_distinct(map_values(histogram(prompt)))) = 1 THEN count(DISTINCT prompt) END "
            "AS prompts "
            "FROM (SELECT *, max(queries) OVER (PARTITION BY run_id) AS last FROM images) "
            "WHERE queries = last GROUP BY run_id HAVING count(score) = count(*) AND bool_and(isfinite(score)) "
            "ORDER BY run_id"
        )
        return self._read(lambda con: fetched(con.execute(query)))

    def profiles(self, **filters: Any) -> list[Row]:
        """Return rows of ``profiles`` whose columns equal ``filters``, by start and falling tau."""
        order = "started, profile_id, tau DESC, metric"
        return self._read(lambda con: select_rows(con, "profiles", filters, order=order))

    def find_run(self, text: str) -> Row:
        """Return the run whose id or name is ``text``, or the only one whose id or name starts with it."""
        runs = self.runs()
        text = unicodedata.normalize("NFC", text)  # some systems give file names and what is copied otherwise
        names = {run["run_id"]: unicodedata.normalize("NFC", run["name"] or "") for run in runs}
        for matches in (
            [run for run in runs if run["run_id"] == text],
            [run for run in runs if names[run["run_id"]] == text],
            [run for run in runs if text and (run["run_id"].startswith(text) or names[run["run_id"]].startswith(text))],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                found = ", ".join(run["run_id"] for run in matches[:8]) + (", ..." if len(matches) > 8 else "")
                raise UserError(f"run {text!r} in {self.path} is ambiguous; try one of {found}")
        close = difflib.get_close_matches(text, sorted({*names, *names.values()} - {""}), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "try `b2bench ls runs`"
        raise UserError(f"no run {text!r} in {self.path}; {hint}")

    def named_run(self, name: str | None, config_hash: str, seed: int, benchmark_version: str) -> Row | None:
        """Return the run of this name, which must have this cell, seed and benchmark version; None if there is none.

        Raises:
            UserError: the name is another run's.
        """
        found = self.runs(name=name) if name is not None and self.path.exists() else []
        asked = {"config_hash": config_hash, "seed": seed, "benchmark_version": benchmark_version}
        for row in found:
            if all(row[key] == value for key, value in asked.items()):
                return row
        if found:
            what = ("other settings", "another seed", f"benchmark version {found[-1]['benchmark_version']}")
            other = [text for text, (key, value) in zip(what, asked.items(), strict=True) if found[-1][key] != value]
            raise UserError(f"a run is named {name!r} already, with {' and '.join(other)}; try another name")
        return None


def _further(row: Row, here: Row) -> bool:
    """Tell whether another store has a run from a later moment than this one."""
    done = row["status"] == "done", here["status"] == "done"
    if any(done):
        return done == (True, False)
    return bool(row["heartbeat"] > here["heartbeat"])
