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
import filecmp
import json
import logging
import math
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from filelock import FileLock, Timeout

from b2bench.errors import NoRoom, UserError

SCHEMA_VERSION = 4

# table -> column -> (type and constraints, comment, with units)
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "runs": {
        "run_id": ("VARCHAR PRIMARY KEY", "unique name of the run, across machines"),
        "name": ("VARCHAR", "the name that people type; the run folder's"),
        "benchmark_version": (
            "VARCHAR NOT NULL",
            "version of the benchmark, a whole number; results of different versions don't mix"
            "; of older runs the version of b2bench, such as 0.2.0.dev5",
        ),
        "algorithm": ("VARCHAR", "registry key: ddpo, pg, dpo, dpok or a plugin's; or external, or baseline"),
        "wrapper": (
            "VARCHAR",
            "registry key: vanilla, bpt, bs or b2; of a baseline, which: guidance-2, best-of-4, oracle",
        ),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward that is trained on"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR", "content hash of the prompt set"),
        "seed": ("BIGINT NOT NULL", "training seed, the replicate of all statistics"),
        "budget": ("BIGINT", "reward queries that the run may use"),
        "config": ("JSON", "every setting of the run"),
        "config_hash": ("VARCHAR NOT NULL", "hash of config without the seed; equal within a cell"),
        "versions": ("JSON", "package -> version; b2bench's own among them"),
        "commit": ("VARCHAR", "git commit of the code, with -dirty if it had local changes"),
        "device": ("VARCHAR", "cpu, cuda, ..."),
        "threads": ("INTEGER", "CPU threads of the process"),
        "started": ("TIMESTAMP NOT NULL", "UTC"),
        "finished": ("TIMESTAMP", "UTC; null while the run is running"),
        "heartbeat": ("TIMESTAMP NOT NULL", "UTC; last time the run wrote"),
        "status": (
            "VARCHAR NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted'))",
            "running, done, failed or interrupted; running with an old heartbeat was killed",
        ),
        "error": ("VARCHAR", "why the run failed"),
    },
    "queries": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "query_index": ("BIGINT NOT NULL", "0-based number of the reward query within the run"),
        "round": ("INTEGER NOT NULL", "0-based round"),
        "prompt": ("VARCHAR NOT NULL", "the prompt of the image"),
        "group_id": ("INTEGER", "prompt draw or branch point, 0-based within the round"),
        "leaf": ("INTEGER", "0-based place of the rollout within its group"),
        "reward": ("DOUBLE", "the reward as the algorithm saw it, with its noise if reward_noise asked for any"),
        "scores": ("JSON", "score -> value, what was measured on the image; the reward's without noise"),
        "advantage": ("DOUBLE", "standard deviations: per-prompt z-score of the reward"),
        "kept": ("BOOLEAN", "whether the wrapper passed the rollout on to the loss"),
    },
    "rounds": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "round": ("INTEGER NOT NULL", "0-based round"),
        "queries": ("BIGINT NOT NULL", "reward queries of the run up to and with this round"),
        "interval_start": ("INTEGER", "first trained denoising step, 0 is the noisiest"),
        "interval_stop": ("INTEGER", "step after the last trained one"),
        "kept": ("INTEGER", "rollouts that reached the loss"),
        "optimizer_steps": ("INTEGER", "optimizer steps of the round"),
        "loss": ("DOUBLE", "mean loss of the round"),
        "ratio_mean": ("DOUBLE", "mean probability ratio of policy and behaviour policy"),
        "approx_kl": (
            "DOUBLE",
            "nats per latent dimension: half the mean squared change of log-prob"
            ", an estimate of KL(behaviour || policy)",
        ),
        "clip_fraction": ("DOUBLE", "share of transitions whose ratio was clipped"),
        "grad_norm": ("DOUBLE", "mean L2 norm of the gradient before clipping"),
        "denoiser_calls_sampling": (
            "BIGINT",
            "denoiser calls of the round for rollouts, one per row and step",
        ),
        "denoiser_calls_training": ("BIGINT", "denoiser calls of the round for the loss"),
        "seconds": ("DOUBLE", "wall-clock seconds of the round"),
        "peak_mb": ("DOUBLE", "peak memory in 2^20 bytes, of the device or else the process"),
        "off_policy": (
            "DOUBLE",
            "nats: the largest change of a transition's log-prob before the first optimizer step of the round"
            ", which only rounding should make differ from 0",
        ),
    },
    "evals": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "queries": ("BIGINT NOT NULL", "reward queries before the evaluation; 0 is the pretrained model"),
        "split": ("VARCHAR NOT NULL", "train or test prompts"),
        "metric": ("VARCHAR NOT NULL", "what was measured; the trained reward goes by its own name"),
        "value": ("DOUBLE", "mean over the images, in the metric's unit"),
        "n": ("BIGINT", "images"),
        "settings": ("JSON", "what else defines the number, as N and splits of an inception score"),
    },
    "images": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "queries": ("BIGINT NOT NULL", "reward queries before the evaluation"),
        "prompt": ("VARCHAR NOT NULL", "the prompt of the image"),
        "noise_index": ("INTEGER NOT NULL", "number of the noise, the same in every run of an eval_seed"),
        "score": ("DOUBLE", "the trained reward on the image"),
        "path": ("VARCHAR", "file, relative to the run folder; null: this image is not kept"),
    },
    "profiles": {
        "profile_id": ("VARCHAR NOT NULL", "unique name of the profile, across machines"),
        "started": ("TIMESTAMP NOT NULL", "UTC"),
        "benchmark_version": ("VARCHAR NOT NULL", "version of the benchmark, as in runs"),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "lora": ("VARCHAR", "file name and hash of the LoRA; null for the pretrained model"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR", "content hash of the prompt set"),
        "split": ("VARCHAR NOT NULL", "train or test prompts"),
        "seed": ("BIGINT NOT NULL", "seed of prompts, noise and bootstrap"),
        "settings": ("JSON", "what else defines the numbers: steps, eta, guidance, the reward's settings, resamples"),
        "tau": ("INTEGER NOT NULL", "steps to go where the branches were made, of settings.steps"),
        "metric": ("VARCHAR NOT NULL", "open_share, within_sd, total_sd, range or same_style"),
        "value": ("DOUBLE", "share, or in the reward's unit; NaN where the rewards do not vary"),
        "low": ("DOUBLE", "lower end of the 95% bootstrap interval over branches"),
        "high": ("DOUBLE", "upper end"),
        "branches": ("BIGINT", "branches at this tau"),
        "leaves": ("BIGINT", "leaves of a branch"),
        "queries": ("BIGINT", "reward queries of the whole profile, over all tau"),
    },
    "refusals": {
        "benchmark_version": ("VARCHAR NOT NULL", "version of the benchmark, as in runs"),
        "algorithm": ("VARCHAR NOT NULL", "registry key"),
        "wrapper": ("VARCHAR NOT NULL", "registry key"),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR NOT NULL", "content hash of the prompt set"),
        "budget": ("BIGINT NOT NULL", "reward queries that a run would have used"),
        "reason": ("VARCHAR NOT NULL", "why, in the words of the algorithm or the wrapper"),
    },
}

KEYS: dict[str, tuple[str, ...]] = {
    "queries": ("run_id", "query_index"),
    "rounds": ("run_id", "round"),
    "evals": ("run_id", "queries", "split", "metric"),
    "images": ("run_id", "queries", "prompt", "noise_index"),
    "profiles": ("profile_id", "tau", "metric"),
    "refusals": ("benchmark_version", "algorithm", "wrapper", "backbone", "reward", "prompts_hash", "budget"),
}


RUN_TABLES = tuple(table for table, columns in TABLES.items() if "run_id" in columns)
"""Tables that say something of a run, ``runs`` first."""


def create_table(table: str) -> list[str]:
    """SQL that makes a table with its key and its comments."""
    columns = TABLES[table]
    body = [f"{name} {kind}" for name, (kind, _) in columns.items()]
    if table in KEYS:
        body.append(f"PRIMARY KEY ({', '.join(KEYS[table])})")
    return [f"CREATE TABLE {table} ({', '.join(body)})", *(_comment(table, name) for name in columns)]


def _comment(table: str, column: str) -> str:
    # a COMMENT takes no parameter; the text is the constant above
    text = TABLES[table][column][1].replace("'", "''")
    return f"COMMENT ON COLUMN {table}.{column} IS '{text}'"


MIGRATIONS: dict[int, str] = {
    step: (Path(__file__).parent / "migrations" / f"{step}.sql").read_text(encoding="utf-8")
    for step in range(2, SCHEMA_VERSION + 1)
}
"""SQL that lifts a file to this version from the one before it, run in one transaction.

Files of text, and none is changed once it was used: what is made from the tables above is made from tomorrow's tables
when tomorrow's b2bench meets an old file, and a column that a later step adds would be there already.
"""

CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "enable_external_access": "false",
    "threads": "1",  # the other cores are the training's
}

SILENT = 5.0
"""Seconds that a call waits for its turn before it says so, on the log, which is stderr where nobody set it up."""

POLL = 0.005
"""Seconds between two looks whether it is one's turn."""

log = logging.getLogger(__name__)
log.setLevel(logging.WARNING)  # whatever the root logger's, which b2bench.quiet raises for the sake of the libraries

Row = dict[str, Any]
T = TypeVar("T")


CONFIG_PARTS = ("algorithm", "wrapper", "reward", "backbone", "prompts", "settings", "found", "preset")


class DamagedRow(Exception):
    """A row holds what no run writes; the message does not say in which file."""


class _NoStore(UserError):
    """The file is somebody else's."""


class Store:
    """A DuckDB file of runs, by path. Making one opens nothing; ``check`` does, before any work is lost.

    ``patience`` is how many seconds a call waits for a file that another process holds. Every method
    raises :class:`UserError` for a file that it cannot use, and never changes such a file.
    """

    def __init__(self, path: str | Path, patience: float = 60.0) -> None:
        self.path = Path(path)
        try:
            str(path).encode()
        except UnicodeEncodeError:  # DuckDB takes UTF-8 alone
            raise UserError(f"database {str(path)!r}: its name is no UTF-8 text; choose another --db") from None
        self.patience = patience
        self._released = -math.inf  # when this process had its last turn

    # -- before a run ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`UserError` unless the file is a store, or can be made one here."""
        if self.path.exists():
            self._transaction(lambda _: None, read_only=True)
            writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        else:
            if self.path.is_symlink():  # DuckDB would make its target, without a schema
                raise UserError(f"database {self.path} is a link to nothing; remove it or choose another --db")
            if not self.path.parent.is_dir():
                raise UserError(f"database {self.path}: its folder does not exist; create it or choose another --db")
            writable = os.access(self.path.parent, os.W_OK)
        if not writable:
            raise UserError(f"database {self.path}: no permission to write it and beside it; choose another --db")

    def check_exists(self) -> None:
        """Raise :class:`UserError` unless the file is a store that is there."""
        self._read(lambda _: None)

    # -- what a run writes -------------------------------------------------------------------------

    def start_run(self, run: Mapping[str, Any]) -> None:
        """Insert a row into ``runs`` with status running; the clock columns are filled in here."""
        now = _now()
        row = {**run, "started": now, "heartbeat": now, "status": "running"}
        self._write(lambda con: insert_rows(con, "runs", [row]))

    def record_baseline(
        self, run: Mapping[str, Any], evals: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Insert a row into ``runs`` that is done, with its one evaluation, all or none.

        False, and nothing is written, where the store has its ``run_id``, which says what was measured.
        """

        def work(con: duckdb.DuckDBPyConnection) -> bool:
            if select_rows(con, "runs", {"run_id": run["run_id"]}):
                return False
            now = _now()
            insert_rows(con, "runs", [{"started": now, **run, "finished": now, "heartbeat": now, "status": "done"}])
            insert_rows(con, "evals", [{**row, "run_id": run["run_id"]} for row in evals])
            insert_rows(con, "images", [{**row, "run_id": run["run_id"]} for row in images])
            return True

        return self._write(work)

    def restart_run(self, run_id: str) -> None:
        """Set a run that is resumed to running again, and clear its error."""
        self._write(lambda con: _update(con, run_id, {"status": "running", "error": None, "finished": None}))

    def record_round(self, run_id: str, round_row: Mapping[str, Any], query_rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert a row into ``rounds`` and its rows into ``queries``, all or none. ``run_id`` is added."""

        def work(con: duckdb.DuckDBPyConnection) -> None:
            _update(con, run_id, {})
            insert_rows(con, "rounds", [{**round_row, "run_id": run_id}])
            insert_rows(con, "queries", [{**row, "run_id": run_id} for row in query_rows])

        self._write(work)

    def record_evals(
        self, run_id: str, rows: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Write rows of one evaluation into ``evals`` and ``images``, all or none. ``run_id`` is added.

        Rows of the same key are replaced: a run that was killed between this and its checkpoint
        evaluates once more.
        """

        def work(con: duckdb.DuckDBPyConnection) -> None:
            _update(con, run_id, {})
            insert_rows(con, "evals", [{**row, "run_id": run_id} for row in rows], replace=True)
            insert_rows(con, "images", [{**row, "run_id": run_id} for row in images], replace=True)

        self._write(work)

    def finish_run(self, run_id: str, status: str, error: str | None = None) -> None:
        """Set how a run ended: ``status`` is done, failed or interrupted, ``error`` why."""
        if status not in ("done", "failed", "interrupted"):
            raise ValueError(f"a run ends done, failed or interrupted, not {status!r}")
        self._write(lambda con: _update(con, run_id, {"status": status, "error": error, "finished": _now()}))

    def rewind(self, run_id: str, round: int, queries: int) -> None:
        """Forget what a run wrote after its checkpoint, so that the resumed run writes no row twice.

        ``round`` is the next round to run: it and later ones go, with their queries. ``queries`` is
        the reward queries before it: evaluations after more than that go, with their images.
        """

        def work(con: duckdb.DuckDBPyConnection) -> None:
            _update(con, run_id, {})
            for table in ("rounds", "queries"):
                con.execute(f"DELETE FROM {table} WHERE run_id = ? AND round >= ?", [run_id, round])
            for table in ("evals", "images"):
                con.execute(f"DELETE FROM {table} WHERE run_id = ? AND queries > ?", [run_id, queries])

        self._write(work)

    def record_profile(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows of one profile into ``profiles``, all or none."""
        self._write(lambda con: insert_rows(con, "profiles", rows))

    def record_refusals(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note combinations that were refused; of one that is known already, the reason is the newer."""
        self._write(lambda con: insert_rows(con, "refusals", rows, replace=True))

    def refusals(self) -> list[Row]:
        """Rows of ``refusals``."""
        return self._read(lambda con: select_rows(con, "refusals", {}))

    def merge(self, other: str | Path) -> list[str]:
        """Copy the runs of another store that this one doesn't have, with all their rows; return their ids.

        One transaction per run: a merge that is cut short is finished by the next. A run that this store has stays as
        it is, unless it ended there and not here, or was done there and failed here: then all its rows are those of
        the other store. Profiles come along.

        Raises:
            UserError: the other store has a run whose id is no name of a folder; nothing was copied then.
        """
        source = Store(other, self.patience)
        runs = source.runs()
        check_ids((row["run_id"] for row in runs), str(source.path))
        new = self.wanting(runs)
        for run_id in new:
            self.insert_run(source.whole_run(run_id))
        if profiles := source.profiles():
            have = {row["profile_id"] for row in self.profiles()} if self.path.exists() else set()
            if profiles := [row for row in profiles if row["profile_id"] not in have]:
                self.record_profile(profiles)
        if refusals := source.refusals():
            self.record_refusals(refusals)
        return new

    def wanting(self, runs: Iterable[Row]) -> list[str]:
        """Ids of those of ``runs``, rows of another store, that this one lacks or knows a shorter life of."""
        # without configurations: a sweep merges run by run, and those of thousands of runs take seconds to read
        rows = self.sql("SELECT run_id, status FROM runs") if self.path.exists() else []
        known = {row["run_id"]: _ended(row) for row in rows}
        return [row["run_id"] for row in runs if _ended(row) > known.get(row["run_id"], -1)]

    def differing(self, other: str | Path) -> list[str]:
        """Ids of runs that ended here and in the other store, and not alike."""
        query = "SELECT run_id, status, finished, config_hash FROM runs WHERE status IN ('done', 'failed')"
        here = {row["run_id"]: row for row in self.sql(query)} if self.path.exists() else {}
        there = Store(other, self.patience).sql(query)
        return sorted(row["run_id"] for row in there if here.get(row["run_id"], row) != row)

    def whole_run(self, run_id: str) -> dict[str, list[Row]]:
        """Everything about a run, of one moment: it may be writing."""
        return self._read(lambda con: {table: select_rows(con, table, {"run_id": run_id}) for table in RUN_TABLES})

    def insert_run(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Insert all rows of a run that :meth:`whole_run` gave, all or none, in place of those that there are."""

        def work(con: duckdb.DuckDBPyConnection) -> None:
            for row in rows["runs"]:
                if select_rows(con, "runs", {"run_id": row["run_id"]}):
                    for table in reversed(RUN_TABLES):
                        con.execute(f"DELETE FROM {table} WHERE run_id = ?", [row["run_id"]])
            for table in RUN_TABLES:
                insert_rows(con, table, rows.get(table, ()))

        self._write(work)

    # -- readers -----------------------------------------------------------------------------------

    def runs(self, **filters: Any) -> list[Row]:
        """Rows of ``runs`` whose columns equal ``filters``, by start; JSON columns as Python objects."""
        return self._read(lambda con: select_rows(con, "runs", filters, order="started, run_id"))

    def rounds(self, run_ids: str | Iterable[str] | None = None) -> list[Row]:
        """Rows of ``rounds`` of a run, of several, or of all."""
        return self._read(lambda con: select_rows(con, "rounds", _of(run_ids), order="run_id, round"))

    def evals(self, run_ids: str | Iterable[str] | None = None) -> list[Row]:
        """Rows of ``evals`` of a run, of several, or of all."""
        return self._read(lambda con: select_rows(con, "evals", _of(run_ids), order="run_id, queries, split, metric"))

    def evaluated_as(self, key: str) -> list[str]:
        """Ids of runs whose evaluation at 0 queries has ``key`` in its settings."""
        query = "SELECT DISTINCT run_id FROM evals WHERE queries = 0 AND contains(settings::VARCHAR, ?) ORDER BY run_id"
        return [row["run_id"] for row in self.sql(query, [key])]

    def evaluation(self, run_id: str, queries: int) -> tuple[list[Row], list[Row]]:
        """Rows of ``evals`` and of ``images`` of one evaluation, of one moment; none where a row is damaged."""

        def work(con: duckdb.DuckDBPyConnection) -> tuple[list[Row], list[Row]]:
            where = {"run_id": run_id, "queries": queries}
            try:
                return select_rows(con, "evals", where), select_rows(con, "images", where)
            except DamagedRow:
                return [], []

        return self._read(work)

    def samples(self) -> list[Row]:
        """Rows of ``images`` that are kept as files, of all runs, in the order in which they were drawn."""
        query = "SELECT * FROM images WHERE path IS NOT NULL ORDER BY run_id, queries, length(path), path"
        return self._read(lambda con: _rows(con.execute(query)))

    def evaluation_errors(self) -> list[Row]:
        """Of each run ``error``, the standard error of the last mean score that it has of all its test images."""
        query = (
            "SELECT run_id, arg_max(error, queries) AS error FROM (SELECT run_id, queries, "
            "CASE WHEN count(score) > 1 AND bool_and(isfinite(score)) THEN stddev_samp(score) / sqrt(count(score)) END "
            "AS error, count(*) AS n, max(count(*)) OVER (PARTITION BY run_id) AS most "
            "FROM images GROUP BY run_id, queries) WHERE n = most GROUP BY run_id ORDER BY run_id"
        )
        return self._read(lambda con: _rows(con.execute(query)))

    def profiles(self, **filters: Any) -> list[Row]:
        """Rows of ``profiles`` whose columns equal ``filters``, by start and falling tau."""
        order = "started, profile_id, tau DESC, metric"
        return self._read(lambda con: select_rows(con, "profiles", filters, order=order))

    def find_run(self, text: str) -> Row:
        """The run whose id or name is ``text``, or the only one whose id or name starts with it."""
        runs = self.runs()
        for matches in (
            [run for run in runs if run["run_id"] == text],
            [run for run in runs if run["name"] == text],
            [run for run in runs if text and (run["run_id"].startswith(text) or (run["name"] or "").startswith(text))],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                found = ", ".join(run["run_id"] for run in matches[:8]) + (", ..." if len(matches) > 8 else "")
                raise UserError(f"run {text!r} in {self.path} is ambiguous; which of: {found}?")
        names = {name for run in runs for name in (run["run_id"], run["name"]) if name}
        close = difflib.get_close_matches(text, sorted(names), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`b2bench ls runs` lists those that are"
        raise UserError(f"no run {text!r} in {self.path}; {hint}")

    def named_run(self, name: str | None, config_hash: str, seed: int, benchmark_version: str) -> Row | None:
        """The run of exactly this name, which must be of this cell, seed and benchmark version; None: there is none.

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
            raise UserError(f"a run is named {name!r} already, with {' and '.join(other)}; choose another name")
        return None

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Rows of any query, on a read-only connection; JSON columns as text.

        Raises :class:`UserError` with DuckDB's message where the query is wrong or would write.
        """

        def work(con: duckdb.DuckDBPyConnection) -> list[Row]:
            try:
                return _rows(con.execute(query, list(parameters)))
            except duckdb.InterruptException:
                raise
            except duckdb.Error as error:
                raise UserError(f"SQL on {self.path}: {_first_line(error)}") from None

        return self._read(work)

    # -- connections -------------------------------------------------------------------------------

    def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if not self.path.exists():
            raise UserError(f"there is no database {self.path}; `b2bench run` makes one, --db names another")
        return self._transaction(work, read_only=True)

    def _write(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if not self.path.exists():
            self.check()
            _create(self.path)
        return self._transaction(work, read_only=False)

    def _transaction(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        if self.path.is_dir():
            raise UserError(f"database {self.path} is a folder; give --db a file")
        new = not self._lock_path.exists()
        if new:
            self._check_kind()
        try:
            with self._turn():
                return self._alone(work, read_only)
        except _NoStore:
            if new:  # nothing of ours stays beside somebody else's file
                self._lock_path.unlink(missing_ok=True)
            raise

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _check_kind(self) -> None:
        """Refuse what is no DuckDB file before a lock is put beside it."""
        with suppress(OSError), self.path.open("rb") as file:
            if file.read(12)[8:] != b"DUCK":
                raise UserError(f"{self.path} is not a DuckDB file; it stays untouched, choose another --db")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Until it is left, no other call of any process has the file open; the system ends it with the process.

        DuckDB's own lock is not enough. DuckDB 2.0 reads a file's headers before it locks it, and not again after: if
        another process commits in between, the headers are stale and what it committed is overwritten. Sixteen
        writers beside a reader lost one transaction in a hundred (benchmarks/writers.py).
        """
        path = self._lock_path
        # Who comes again at once stays away for a moment: the lock knows no queue, and who waits for it looks only
        # every POLL. A process that wrote without pause kept readers out for 10 seconds and more.
        time.sleep(max(0.0, self._released + 2 * POLL - time.monotonic()))
        try:
            # whoever may use the store may wait for it: the lock has the store's mode, or a new file's
            there = self.path.is_file()
            lock = FileLock(path, mode=self.path.stat().st_mode & 0o777) if there else FileLock(path)
            try:
                lock.acquire(min(SILENT, self.patience), poll_interval=POLL)
            except Timeout:
                if self.patience <= SILENT:
                    raise
                log.warning("waiting for database %s, which others use (at most %g s)", self.path, self.patience)
                lock.acquire(self.patience - SILENT, poll_interval=POLL)
        except Timeout:
            raise UserError(
                f"database {self.path} has been in use by other b2bench processes for {self.patience:g} s; wait, or "
                "give this run another --db (b2bench merge joins the two later)"
            ) from None
        except OSError as error:
            if os.access(self.path.parent, os.W_OK):
                raise UserError(f"database {self.path}: its lock {path} cannot be used: {error.strerror}") from None
            yield  # a folder that nobody writes: readers alone need no turns
            return
        try:
            yield
        finally:
            lock.release()
            self._released = time.monotonic()

    def _alone(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        con = self._connect(read_only)
        try:
            version = self._version(con)
            if version < SCHEMA_VERSION:
                con.close()
                self._back_up(version)
                con = self._connect(read_only=False)
            con.begin()  # closing without a commit rolls back
            for step in range(version + 1, SCHEMA_VERSION + 1):
                con.execute(MIGRATIONS[step])
                con.execute('UPDATE "schema" SET version = ?', [step])
            self._check_shape(con)
            result = work(con)
            con.commit()
            return result
        except (duckdb.IOException, duckdb.TransactionException) as error:
            if not isinstance(error, duckdb.IOException) and "write file" not in str(error):
                raise
            reason = f"database {self.path} cannot be written: {_first_line(error)}; what it holds is whole"
            raise (UserError if read_only else NoRoom)(reason) from None
        except DamagedRow as error:
            raise UserError(f"database {self.path} is damaged, or was changed by hand: {error}") from None
        except (RuntimeError, duckdb.InterruptException) as error:
            if "interrupted" not in str(error).lower():
                raise
            raise KeyboardInterrupt from None  # DuckDB swallows the one of Ctrl-C: "Query interrupted"
        except duckdb.Error as error:
            error.add_note(f"database {self.path}")  # DuckDB does not say which
            raise
        finally:
            con.close()

    def _back_up(self, version: int) -> None:
        """Copy the file as it is to ``NAME.schema-VERSION`` before its schema changes, in whole or not at all.

        Copies that are there stay: of a migration that was cut short, which is the same, or of another store of this
        name, beside which this one gets a number.
        """
        self._connect(read_only=False).close()  # what its log holds comes into the file
        copy = self.path.with_name(f"{self.path.name}.schema-{version}")
        draft = copy.with_name(f".{copy.name}.{os.getpid()}")
        try:
            try:
                shutil.copy2(self.path, draft)
                with draft.open("rb") as file:
                    os.fsync(file.fileno())
                number = 1
                while copy.exists() and not filecmp.cmp(copy, draft, shallow=False):
                    number += 1
                    copy = self.path.with_name(f"{self.path.name}.schema-{version}.{number}")
                draft.replace(copy)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"database {self.path} has an older schema and cannot be copied to {copy} before that is changed: "
                f"{error.strerror}; make room beside it, or give this run another --db"
            ) from None

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the file, and wait while another process has it open."""
        started, pause, said = time.monotonic(), 0.005, self.patience <= SILENT
        while True:
            try:
                # absolute: DuckDB would take a: of a name a:b for an extension
                return duckdb.connect(os.path.abspath(self.path), read_only=read_only, config=CLOSED)
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise UserError(self._unusable(error)) from None
                if not said and time.monotonic() > started + SILENT:
                    said = True
                    log.warning("waiting for database %s: %s has it (at most %g s)", self.path, holder, self.patience)
                if time.monotonic() > started + self.patience:
                    raise UserError(
                        f"database {self.path} has been locked for {self.patience:g} s by {holder}; "
                        "close it there, or give this run another --db (b2bench merge joins the two later)"
                    ) from None
            # jitter, or processes that met once would keep meeting
            time.sleep(pause * random.uniform(0.5, 1.5))
            # a short limit: beside a writer without pause the gaps are milliseconds, and few tries never meet one
            pause = min(2 * pause, 0.05)

    def _unusable(self, error: duckdb.Error) -> str:
        text = str(error)
        if "not a valid DuckDB database" in text:
            return f"{self.path} is not a DuckDB file; it stays untouched, choose another --db"
        if "version number" in text:
            return f"{self.path} is of another DuckDB version: {_first_line(error)}; upgrade duckdb"
        return f"database {self.path} cannot be opened: {_first_line(error)}; check it or choose another --db"

    def _version(self, con: duckdb.DuckDBPyConnection) -> int:
        try:
            found = con.execute('SELECT version FROM "schema"').fetchall()
        except (duckdb.CatalogException, duckdb.BinderException):
            found = []
        version = found[0][0] if len(found) == 1 else None
        if not isinstance(version, int) or version < 1:
            raise self._no_store()
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{self.path} has schema version {version}, this b2bench knows up to {SCHEMA_VERSION}; "
                "upgrade b2bench or choose another --db"
            )
        return version

    def _check_shape(self, con: duckdb.DuckDBPyConnection) -> None:
        """Refuse tables that no b2bench made: whatever reads them takes columns, types and keys for granted."""
        for table in TABLES:
            try:
                rows = con.execute(f"PRAGMA table_info('{table}')").fetchall()
            except duckdb.CatalogException:
                raise self._no_store() from None
            found = {name: (kind, required, key) for _, name, kind, required, _, key in rows}
            for name in (*TABLES[table], *found):  # what is missing is said before what is new
                if found.get(name) != _shape(table, name):
                    what = "lacks column" if name not in found else "has another, or none of b2bench's, as column"
                    raise UserError(
                        f"database {self.path} is damaged, or was changed by hand: table {table} {what} {name}; "
                        "choose another --db"
                    )

    def _no_store(self) -> UserError:
        return _NoStore(f"{self.path} is a DuckDB file but no b2bench store; choose another --db")


def _create(path: Path) -> None:
    """Make an empty store in a file beside ``path``, then give it its name: nobody sees half a schema."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder) / "draft.duckdb"
            with duckdb.connect(str(draft), config=CLOSED) as con:
                con.begin()
                for table in TABLES:
                    for statement in create_table(table):
                        con.execute(statement)
                con.execute('CREATE TABLE "schema" (version INTEGER NOT NULL)')
                con.execute('INSERT INTO "schema" VALUES (?)', [SCHEMA_VERSION])
                con.commit()
            try:
                with suppress(FileExistsError):  # another process was first
                    os.link(draft, path)
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.rename(draft, path)
    except OSError as error:
        raise UserError(f"database {path} cannot be created: {error.strerror}; choose another --db") from None


def _holder(error: duckdb.Error) -> str | None:
    """Who holds the file, if that is what the error says."""
    text = str(error)
    if "different configuration" in text:
        return "a connection of this process"
    if "Could not set lock" not in text and "being used by another process" not in text:
        return None
    found = re.search(r"lock is held in (.+?) \(PID (\d+)\)", text)
    return f"process {found[2]} ({Path(found[1]).name})" if found else "another process"


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _of(run_ids: str | Iterable[str] | None) -> dict[str, Any]:
    if run_ids is None:
        return {}
    return {"run_id": run_ids if isinstance(run_ids, str) else list(run_ids)}


def _kind(table: str, column: str) -> str:
    return TABLES[table][column][0].split()[0]


def _shape(table: str, column: str) -> tuple[str, bool, bool] | None:
    """Type, whether it is never null, and whether it is of the key; None for no column of the table."""
    if column not in TABLES[table]:
        return None
    kind = TABLES[table][column][0]
    key = "PRIMARY KEY" in kind or column in KEYS.get(table, ())
    return kind.split()[0], key or "NOT NULL" in kind, key


def _rows(cursor: duckdb.DuckDBPyConnection) -> list[Row]:
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
    rows = _rows(con.execute(f"SELECT * FROM {table} {where} ORDER BY {order}", list(filters.values())))
    for name in TABLES[table]:
        if _kind(table, name) == "JSON":
            for row in rows:
                row[name] = _document(row, table, name)
    return rows


def _document(row: Row, table: str, column: str) -> Row | None:
    """The object of a JSON column; every one that b2bench writes is an object, and so are the parts of a configuration.

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
        of = row.get("run_id") or row.get("profile_id")
        raise DamagedRow(f"{wrong[0]} of table {table} is no JSON object ({of})")
    return found


def _ended(row: Row) -> int:
    return ("failed", "done").index(row["status"]) + 1 if row["status"] in ("failed", "done") else 0


def check_ids(ids: Iterable[str], source: str) -> None:
    """See that every id can name a folder: a run's files are in one of its name, and strangers choose theirs.

    Raises:
        UserError: one is a path, or empty.
    """
    for run_id in ids:
        if run_id in ("", ".", "..") or re.search(r"[/\\\0]", run_id):
            raise UserError(f"{source} has a run {run_id[:80]!r}, which is no name of a run: nothing was taken")


def insert_rows(
    con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]], replace: bool = False
) -> None:
    """All rows in one statement, as one JSON parameter: ten times faster than a statement a row.

    DuckDB parses the doubles back bit for bit. A column that a row lacks is null.
    """
    if not rows:
        return
    _known(table, *rows)
    structure = {name: _kind(table, name) for name in TABLES[table]}
    documents = [name for name, kind in structure.items() if kind == "JSON"]
    empty = dict.fromkeys(structure)
    body = [{**empty, **row, **{name: _finite(row.get(name)) for name in documents}} for row in rows]
    con.execute(
        f"INSERT {'OR REPLACE ' if replace else ''}INTO {table} "
        "SELECT row.* FROM (SELECT unnest(from_json_strict(?, ?)) AS row)",
        [json.dumps(body, default=_plain), json.dumps([structure])],
    )


def _update(con: duckdb.DuckDBPyConnection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change a row of ``runs``; every write of a run is a heartbeat."""
    values = {**values, "heartbeat": _now()}
    sets = ", ".join(f"{name} = ?" for name in values)
    if not con.execute(f"UPDATE runs SET {sets} WHERE run_id = ? RETURNING 1", [*values.values(), run_id]).fetchall():
        raise ValueError(f"run {run_id!r} was never started in this store")


def _known(table: str, *rows: Mapping[str, Any]) -> None:
    if unknown := set().union(*rows) - TABLES[table].keys():
        raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")


def _plain(value: Any) -> Any:
    """A JSON value of a numpy scalar, an array, a time or a path."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _finite(value: Any) -> Any:
    """``value`` for a JSON column: JSON has neither NaN nor infinity, so they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
