"""The DuckDB store: what it writes, what it refuses, and what is left when it is killed."""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from filelock import FileLock
from store_rows import run_row

from b2bench.errors import Busy, UserError
from b2bench.store import database
from b2bench.store import rows as rows_of
from b2bench.store import store as store_of
from b2bench.store.rows import in_turns, insert_rows
from b2bench.store.schema import KEYS, MIGRATIONS, SCHEMA_VERSION, TABLES
from b2bench.store.store import Store

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "store.md"
README = ROOT / "README.md"


def round_rows(number: int, n: int = 10) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A round and its queries, with the scalars that a trainer has at hand."""
    queries = [
        {
            "query_index": number * n + i,
            "round": number,
            "prompt": f"a cat, {i % 2}",
            "group_id": i // 5,
            "leaf": i % 5,
            "reward": np.float64(0.1 + i / 7),
            "scores": {"success": np.float32(1), "broken": float("nan")},
            "advantage": i / 3,
            "kept": np.bool_(i % 2 == 0),
        }
        for i in range(n)
    ]
    return {"round": number, "queries": n * (number + 1), "loss": 0.5, "kept": n // 2}, queries


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "b2bench.duckdb", patience=10)


@pytest.fixture(scope="module")
def of_one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one run that is under way, to be copied."""
    folder = tmp_path_factory.mktemp("started")
    row = run_row(config={"lr": 1e-3, "nested": {"nan": float("nan"), "path": Path("x")}})
    Store(folder / "b2bench.duckdb").start_run(row)
    return folder


@pytest.fixture
def started(store: Store, of_one_run: Path) -> Store:
    shutil.copytree(of_one_run, store.path.parent, dirs_exist_ok=True)
    return store


def count(store: Store, table: str) -> int:
    return int(store.sql(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def test_a_run_from_start_to_end(started: Store) -> None:
    (run,) = started.runs()
    assert (run["status"], run["finished"], run["seed"]) == ("running", None, 0)
    assert run["config"] == {"lr": 1e-3, "nested": {"nan": None, "path": "x"}}
    started.record_round("a1", *round_rows(0))
    (after,) = started.runs()
    assert after["heartbeat"] > run["heartbeat"]
    started.record_evals("a1", [{"queries": 10, "split": "test", "metric": "clipscore", "value": 0.5, "n": 4}])
    started.finish_run("a1", "failed", "reward is NaN")
    assert [(row["status"], row["error"]) for row in started.runs(status="failed")] == [("failed", "reward is NaN")]
    assert started.runs(status="done") == []
    started.restart_run("a1")
    (run,) = started.runs()
    assert (run["status"], run["error"], run["finished"]) == ("running", None, None)


def test_rows_come_back_bit_for_bit(started: Store) -> None:
    round_row, queries = round_rows(0)
    started.record_round("a1", {**round_row, "loss": float("nan"), "grad_norm": 5e-324}, queries)
    found = started.sql("SELECT * FROM queries ORDER BY query_index")
    assert [row["reward"] for row in found] == [row["reward"] for row in queries]
    assert [row["kept"] for row in found] == [True, False] * 5
    assert json.loads(found[0]["scores"]) == {"success": 1.0, "broken": None}
    (row,) = started.rounds("a1")
    assert np.isnan(row["loss"])
    assert (row["grad_norm"], row["seconds"]) == (5e-324, None)


def test_evals_and_images_of_the_same_key_are_replaced(started: Store) -> None:
    row = {"queries": 0, "split": "test", "metric": "is_style", "n": 4, "settings": {"splits": 1}}
    image = {"queries": 0, "prompt": "a cat", "noise_index": 3, "score": 0.1, "path": "images/0.png"}
    started.record_evals("a1", [{**row, "value": 1.0}], [image])
    started.record_evals("a1", [{**row, "value": 2.0}], [image])
    (found,) = started.evals(["a1"])
    assert (found["value"], found["settings"]) == (2.0, {"splits": 1})
    assert count(started, "images") == 1
    assert started.evals(["b2"]) == []


def test_a_repeated_round_is_refused_as_a_whole(started: Store) -> None:
    started.record_round("a1", *round_rows(0))
    round_row, queries = round_rows(1)
    with pytest.raises(duckdb.ConstraintException):
        started.record_round("a1", round_row, [*queries, round_rows(0)[1][3]])
    assert (count(started, "rounds"), count(started, "queries")) == (1, 10)


@pytest.mark.slow
def test_rewind_forgets_what_came_after_the_checkpoint(started: Store) -> None:
    for number in range(3):
        started.record_round("a1", *round_rows(number))
        row = {"queries": 10 * (number + 1), "split": "test", "metric": "clipscore", "value": 0.5, "n": 4}
        image = {"queries": row["queries"], "prompt": "a cat", "noise_index": 0}
        started.record_evals("a1", [row], [image])
    started.rewind("a1", round=1, queries=10)
    assert [row["round"] for row in started.rounds("a1")] == [0]
    assert [row["queries"] for row in started.evals("a1")] == [10]
    assert (count(started, "queries"), count(started, "images")) == (10, 1)
    started.record_round("a1", *round_rows(1))
    assert count(started, "queries") == 20


def test_a_store_that_is_behind_its_checkpoint_is_refused_and_stays(started: Store) -> None:
    """A copy from round 1 and a checkpoint after round 2: the rows between would be missing for ever."""
    started.record_round("a1", *round_rows(0))
    before = started.whole_run("a1")
    with pytest.raises(UserError, match="has 10 of the 20 reward queries that run a1 had made by its last checkpoint"):
        started.rewind("a1", round=2, queries=20)
    assert started.whole_run("a1") == before
    started.rewind("a1", round=1, queries=10)


def test_mistakes_of_the_caller_are_named(started: Store) -> None:
    with pytest.raises(ValueError, match="no column lss"):
        started.record_round("a1", {"round": 0, "queries": 0, "lss": 1}, [])
    with pytest.raises(UserError, match="run zz is not in this store"):
        started.record_round("zz", *round_rows(0))
    with pytest.raises(ValueError, match="ends done"):
        started.finish_run("a1", "finished")
    with pytest.raises(ValueError, match="no column nam"):
        started.runs(nam="x")


def test_values_are_bound_and_never_sql(started: Store) -> None:
    evil = "'; DROP TABLE queries; --"
    started.start_run(run_row(evil, name='"; DELETE FROM runs'))
    started.record_round(evil, *round_rows(0))
    assert started.find_run(evil)["run_id"] == evil
    assert [row["run_id"] for row in started.rounds(evil)] == [evil]
    assert count(started, "runs") == 2


def test_a_large_round_is_one_statement_and_not_thousands(started: Store) -> None:
    round_row, queries = round_rows(0, n=2000)
    statements: list[str] = []

    class Connection:
        def execute(self, statement: str, parameters: list[Any]) -> None:
            statements.append(statement)

    insert_rows(Connection(), "queries", [{**row, "run_id": "a1"} for row in queries])  # type: ignore[arg-type]
    assert len(statements) == 1
    started.record_round("a1", round_row, queries)
    assert count(started, "queries") == 2000


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a1", "a1"), ("ddpo-b2-b22", "b22"), ("b2", "b22"), ("ddpo-b2-a1", "a1"), ("a", "a1")],
)
def test_find_run(started: Store, text: str, expected: str) -> None:
    started.start_run(run_row("b22"))
    assert started.find_run(text)["run_id"] == expected


def test_a_name_is_found_however_its_letters_are_composed(started: Store) -> None:
    started.start_run(run_row("c1", name="caf\u00e9"))
    started.start_run(run_row("d1", name="re\u0301sume\u0301"))  # as macOS gives the name of a file
    assert started.find_run("cafe\u0301")["run_id"] == "c1"
    assert started.find_run("r\u00e9s")["run_id"] == "d1"


def test_a_store_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/runs.duckdb").start_run(run_row())  # a notebook has no shell
    assert (tmp_path / "runs.duckdb").is_file()


def test_find_run_says_what_it_could_have_been(started: Store) -> None:
    started.start_run(run_row("a12"))
    with pytest.raises(UserError, match="ambiguous; try one of a1, a12"):
        started.find_run("ddpo")
    with pytest.raises(UserError, match="did you mean ddpo-b2-a1"):
        started.find_run("dpo-b2-a1")
    with pytest.raises(UserError, match="ls runs"):
        started.find_run("zzzz")


def test_sql_reads_and_does_nothing_else(started: Store, tmp_path: Path) -> None:
    assert started.sql("SELECT seed FROM runs WHERE run_id = ?", ["a1"]) == [{"seed": 0}]
    secret = tmp_path / "secret.csv"
    secret.write_text("x\n1\n")
    for query in (
        "DELETE FROM runs",
        "SELEKT",
        f"FROM read_csv('{secret}')",
        "INSTALL httpfs",
        "LOAD httpfs",
    ):
        with pytest.raises(UserError, match="SQL on"):
            started.sql(query)
    assert count(started, "runs") == 1


def test_what_is_read_together_is_of_one_state(started: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one connection; of another thread's calls, which wait for their turn, nothing is in it."""
    connect, opened = Store._connect, []

    def counted(self: Store, read_only: bool) -> Any:
        opened.append(read_only)
        return connect(self, read_only)

    monkeypatch.setattr(Store, "_connect", counted)
    other = Store(started.path, patience=10)
    with ThreadPoolExecutor(1) as pool:

        def work() -> tuple[list[Any], list[Any]]:
            rounds = started.rounds("a1")
            later.append(pool.submit(other.record_round, "a1", *round_rows(7)))
            time.sleep(0.1)
            return rounds, started.together(lambda: started.sql("SELECT * FROM queries"))

        later: list[Any] = []
        rounds, queries = started.together(work)
        later[0].result()
    assert opened == [True, False]
    assert len(queries) == 10 * len(rounds)
    assert len(started.rounds("a1")) == len(rounds) + 1
    with pytest.raises(RuntimeError, match="cannot write"):
        started.together(lambda: started.finish_run("a1", "done"))
    started.finish_run("a1", "done")


def test_ctrl_c_in_a_query_is_an_interrupt(started: Store) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as SIGINT's, but pytest's own stays
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            started.sql("SELECT count(*) FROM range(100000000) a, range(1000) b WHERE (a.range * b.range) % 7 = 3")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count(started, "runs") == 1


@pytest.mark.slow
def test_merge_takes_the_runs_that_are_not_there_yet(started: Store, tmp_path: Path) -> None:
    started.record_round("a1", *round_rows(0))
    other = Store(tmp_path / "other.duckdb")
    other.start_run(run_row("b22"))
    other.record_evals("b22", [{"queries": 0, "split": "test", "metric": "m", "value": 1.0, "settings": {"k": [1]}}])
    assert other.merge(started.path) == ["a1"]
    assert other.merge(started.path) == []
    for table in ("queries", "rounds"):
        query = f"SELECT * FROM {table} ORDER BY ALL"
        assert other.sql(query) == started.sql(query)
    assert other.runs(run_id="a1") == started.runs()
    copy = Store(tmp_path / "copy.duckdb")
    assert copy.merge(other.path) == ["a1", "b22"]
    assert copy.evals() == other.evals()


@pytest.mark.slow
def test_merge_takes_the_end_of_a_run_that_was_copied_before_it(started: Store, tmp_path: Path) -> None:
    """The same machine merged twice: the run was under way the first time."""
    here = Store(tmp_path / "here.duckdb")
    assert here.merge(started.path) == ["a1"]
    started.record_round("a1", *round_rows(0))
    started.finish_run("a1", "done")
    assert here.merge(started.path) == ["a1"]
    assert here.whole_run("a1") == started.whole_run("a1")
    assert here.merge(started.path) == []
    assert here.differing(started.path) == []


@pytest.mark.slow
def test_merge_takes_a_run_that_has_not_ended_from_its_later_moment(started: Store, tmp_path: Path) -> None:
    """Preempted twice: each merge takes what was written since; an old copy that failed replaces nothing."""
    here, old = Store(tmp_path / "here.duckdb"), Store(tmp_path / "old.duckdb")
    assert here.merge(started.path) == ["a1"]
    started.finish_run("a1", "failed", "out of memory")
    assert old.merge(started.path) == ["a1"]
    started.restart_run("a1")
    started.record_round("a1", *round_rows(0))
    assert here.merge(started.path) == ["a1"]
    assert count(here, "queries") == 10
    for later in (old.path, started.path):
        assert here.merge(later) == []


@pytest.mark.slow
def test_a_merge_of_many_runs_is_cut_short_between_two_turns(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs go in at once, as their budgets say. In the second turn the second run's rounds cannot be written."""
    for run_id in ("a1", "b2", "c3", "d4", "e5"):
        store.start_run(run_row(run_id, budget=1000))
        store.record_round(run_id, *round_rows(0))
    monkeypatch.setattr(rows_of, "TURN", 2000)

    def failing(con: Any, table: str, rows: Any) -> None:
        if table == "rounds" and rows[0]["run_id"] == "d4":
            raise KeyboardInterrupt
        insert_rows(con, table, rows)

    other = Store(tmp_path / "other.duckdb")
    with monkeypatch.context() as cut:
        cut.setattr(store_of, "insert_rows", failing)
        with pytest.raises(KeyboardInterrupt):
            other.merge(store.path)
    assert [run["run_id"] for run in other.runs()] == ["a1", "b2"]
    assert other.whole_run("b2") == store.whole_run("b2")
    assert other.merge(store.path) == ["c3", "d4", "e5"]
    assert [other.whole_run(run["run_id"]) for run in store.runs()] == [
        store.whole_run(run["run_id"]) for run in store.runs()
    ]


@pytest.mark.slow
def test_a_merge_replaces_several_runs_in_one_turn(store: Store, tmp_path: Path) -> None:
    """Their keys are deleted and inserted again in one transaction, in between another run's that is new."""
    here = Store(tmp_path / "here.duckdb")
    for run_id in ("a1", "c3"):
        store.start_run(run_row(run_id))
        store.record_round(run_id, *round_rows(0))
    assert here.merge(store.path) == ["a1", "c3"]
    store.start_run(run_row("b2"))
    for run_id in ("a1", "c3"):
        store.record_round(run_id, *round_rows(1))
        store.finish_run(run_id, "done")
    assert sorted(here.merge(store.path)) == ["a1", "b2", "c3"]
    assert all(here.whole_run(run_id) == store.whole_run(run_id) for run_id in ("a1", "b2", "c3"))
    assert count(here, "queries") == 40


def test_turns_hold_what_fits_and_never_nothing() -> None:
    def turns(**budgets: int | None) -> list[list[str]]:
        return list(in_turns(budgets, {run_id: {"budget": budget} for run_id, budget in budgets.items()}))

    full, few = rows_of.TURN, rows_of.FEWEST
    assert turns() == []
    assert turns(a=full, b=few, c=full - few, d=few) == [["a"], ["b", "c"], ["d"]]
    assert turns(a=1, b=full + 1, c=None, d=0, e=-full) == [["a"], ["b"], ["c", "d", "e"]]
    many = turns(**{f"run{i}": 0 for i in range(60)})
    assert [len(turn) for turn in many] == [full // few, full // few, 60 - 2 * (full // few)]


@pytest.mark.slow
def test_merge_leaves_what_ended_and_names_what_differs(started: Store, tmp_path: Path) -> None:
    here = Store(tmp_path / "here.duckdb")
    here.merge(started.path)
    here.finish_run("a1", "done")
    assert here.merge(started.path) == []  # still under way there
    assert here.differing(started.path) == []
    started.finish_run("a1", "failed", "the loss is nan")
    assert here.merge(started.path) == []
    assert here.differing(started.path) == ["a1"]
    assert [row["status"] for row in here.runs()] == ["done"]


@pytest.mark.parametrize("run_id", ["../a1", "/a1", "..", "", "a\\1", "sweep"])
def test_a_run_whose_id_is_a_path_is_not_merged(run_id: str, started: Store, tmp_path: Path) -> None:
    started.start_run(run_row(run_id))
    here = Store(tmp_path / "here.duckdb")
    with pytest.raises(UserError, match="not a name of a run"):
        here.merge(started.path)
    assert not here.path.exists()


def test_the_error_of_an_evaluation_is_that_of_its_last_images(started: Store) -> None:
    images = [
        {"queries": queries, "prompt": f"p{i}", "noise_index": 0, "score": score}
        for queries in (0, 100)
        for i, score in enumerate((0.2, 0.4, 0.6, 0.8))
        if queries == 100 or i < 2
    ]
    started.record_evals("a1", [], images)
    whole = {"run_id": "a1", "error": pytest.approx(np.std([0.2, 0.4, 0.6, 0.8], ddof=1) / 2)}
    assert started.evaluation_errors() == [whole]
    # between the first and the last evaluation there are fewer: they are not the test set
    started.record_evals("a1", [], [{"queries": 200, "prompt": "p0", "noise_index": 0, "score": 0.1}])
    assert started.evaluation_errors() == [whole]


def profile_rows(profile: str) -> list[dict[str, Any]]:
    shared = {
        "profile_id": profile,
        "started": datetime(2026, 3, 1, 10, 15),
        "benchmark_version": "0",
        "backbone": "pocket",
        "reward": "clipscore",
        "prompts": "template1",
        "split": "train",
        "seed": 0,
        "settings": {"steps": 20},
        "branches": 8,
        "leaves": 5,
        "queries": 80,
    }
    values = {(20, "open_share"): 0.7, (14, "open_share"): math.nan, (14, "range"): 0.1}
    return [{**shared, "tau": tau, "metric": metric, "value": value} for (tau, metric), value in values.items()]


def test_a_profile_is_written_whole_or_not_at_all(store: Store) -> None:
    store.record_profile(profile_rows("p1"))
    found = store.profiles(profile_id="p1")
    assert [(row["tau"], row["metric"]) for row in found] == [(20, "open_share"), (14, "open_share"), (14, "range")]
    assert (found[0]["value"], found[0]["settings"], found[0]["lora"]) == (0.7, {"steps": 20}, None)
    assert math.isnan(found[1]["value"])
    with pytest.raises(duckdb.ConstraintException):
        store.record_profile([*profile_rows("p2"), profile_rows("p1")[0]])
    assert count(store, "profiles") == 3


@pytest.mark.slow
def test_merge_takes_the_profiles_along(started: Store, tmp_path: Path) -> None:
    started.record_profile(profile_rows("p1"))
    other = Store(tmp_path / "other.duckdb")
    other.record_profile(profile_rows("p2"))
    assert other.merge(started.path) == ["a1"]
    assert other.merge(started.path) == []
    assert [row["profile_id"] for row in other.profiles()] == ["p1"] * 3 + ["p2"] * 3


@pytest.mark.slow
def test_preference_tests_and_votes_are_stored_once_and_merged(started: Store, tmp_path: Path) -> None:
    """tests/unit/studies/test_poll.py has more of them, with a page."""
    poll = {
        "poll_id": "p",
        "made": "2026-01-01",
        "benchmark_version": "3",
        "backbone": "pocket",
        "prompts": "template1",
    }
    poll |= {"eval_seed": 0, "seed": 0, "question": "?", "cells": {}, "comparisons": {}}
    vote = {"poll_id": "p", "rater": "r", "comparison": "c", "kind": "cells", "prompt": "a cat", "noise_index": 0}
    votes = [vote | {"shown": {}, "position": place, "comparison": str(place)} for place in range(3)]
    assert len(started.record_votes([poll], [*votes[:2], votes[0]])) == 2
    assert [row["comparison"] for row in started.record_votes([poll], votes)] == ["2"]
    other = Store(tmp_path / "other.duckdb")
    for _ in range(2):
        other.merge(started.path)
        assert other.ballots() == started.ballots()
    with pytest.raises(duckdb.ConstraintException):  # all or none
        started.record_votes([], [votes[0] | {"rater": "new"}, votes[0] | {"rater": "bad", "shown": None}])
    assert len(started.ballots()[1]) == 3


SCHEMAS = Path(__file__).parent / "schemas"
SHAPE = (
    "SELECT * EXCLUDE (database_name, database_oid, table_oid) FROM duckdb_columns() WHERE NOT internal "
    "ORDER BY table_name, column_index",
    "SELECT table_name, constraint_type, constraint_column_names, expression FROM duckdb_constraints() ORDER BY ALL",
    'SELECT * FROM "schema"',
)
"""Everything that tells one store's tables from another's."""

OLD_ROWS = """
INSERT INTO runs (run_id, benchmark_version, backbone, reward, prompts, seed, config_hash, versions, status, started,
                  heartbeat)
VALUES ('a1', '0.1.0', 'pocket', 'clipscore', 'template1', 7, 'cd', '{"torch": "2"}', 'done', '2026-01-01',
        '2026-01-01');
INSERT INTO rounds (run_id, round, queries) VALUES ('a1', 0, 10);
INSERT INTO queries (run_id, query_index, round, prompt, reward) VALUES ('a1', 0, 0, 'a cat', 0.5);
"""


def made_by(path: Path, schema: str) -> Store:
    """A store as an older b2bench made it: its SQL is kept as text, for nothing of today's can make it."""
    with duckdb.connect(str(path)) as con:
        con.execute((SCHEMAS / f"{schema}.sql").read_text(encoding="utf-8"))
        con.execute(OLD_ROWS)
    return Store(path)


@pytest.mark.slow
@pytest.mark.parametrize("schema", sorted(path.stem for path in SCHEMAS.glob("*.sql")))
def test_a_store_of_an_older_version_becomes_what_is_made_today(schema: str, tmp_path: Path) -> None:
    old, today = made_by(tmp_path / "old.duckdb", schema), Store(tmp_path / "today.duckdb")
    today.start_run(run_row())
    for query in SHAPE:
        assert old.sql(query) == today.sql(query)
    (run,) = old.runs()
    assert (run["run_id"], run["seed"], run["status"], run["versions"]) == ("a1", 7, "done", {"torch": "2"})
    assert [(row["round"], row["off_policy"]) for row in old.rounds()] == [(0, None)]
    assert old.sql("SELECT reward FROM queries") == [{"reward": 0.5}]
    old.record_profile(profile_rows("p1"))


def test_there_is_an_old_store_of_every_older_version() -> None:
    """Whoever raises the version keeps today's: the SQL of a new store, beside the others."""
    found = {path.stem.partition("-")[0] for path in SCHEMAS.glob("*.sql")}
    assert found >= {str(version) for version in range(1, SCHEMA_VERSION)}


RELEASED = {
    2: "769d9ecceead1782",
    3: "5f576b69c17b7aa2",
    4: "eb23d8b78c4465cb",
    5: "0cace1b04c091333",
    6: "93af0d37bb9fd3cf",
    7: "9af917a8985be52d",
}
"""Hash of each migration as it was first used. A new one is added here; an old one never changes."""


def test_a_migration_never_changes() -> None:
    """As one would that is made from today's tables: with the next column it would be another."""
    found = {step: hashlib.sha256(text.encode()).hexdigest()[:16] for step, text in MIGRATIONS.items()}
    assert found == RELEASED


def test_a_column_of_tomorrow_is_in_no_migration_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lifted(name: str) -> list[Any]:
        path = tmp_path / name
        made_by(path, "1")
        with duckdb.connect(str(path)) as con:
            for step in range(2, SCHEMA_VERSION + 1):
                con.execute(database.MIGRATIONS[step])
            return [con.execute(query).fetchall() for query in SHAPE]

    today = lifted("today.duckdb")
    for table in TABLES:
        monkeypatch.setitem(TABLES[table], "tomorrow", ("VARCHAR", "a column of the next version"))
    assert lifted("tomorrow.duckdb") == today


def test_a_column_is_added_by_a_step_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first version on, also to a table that a migration made."""
    old = made_by(tmp_path / "old.duckdb", "1")
    step = SCHEMA_VERSION + 1
    monkeypatch.setattr(database, "SCHEMA_VERSION", step)
    text = "ALTER TABLE profiles ADD COLUMN host VARCHAR; ALTER TABLE refusals ADD COLUMN host VARCHAR"
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS | {step: text})
    for table in ("profiles", "refusals"):
        monkeypatch.setitem(TABLES[table], "host", ("VARCHAR", "where it was made"))
    assert old.sql('SELECT * FROM "schema"') == [{"version": step}]
    old.record_profile([row | {"host": "h"} for row in profile_rows("p1")])
    assert {row["host"] for row in old.profiles()} == {"h"}


def test_reading_a_store_that_does_not_exist(store: Store) -> None:
    with pytest.raises(UserError, match="b2bench run"):
        store.runs()
    assert not store.path.exists()


def test_check_of_a_new_or_good_store_changes_nothing(store: Store) -> None:
    store.check()
    assert not store.path.exists()
    store.start_run(run_row())
    before = store.path.read_bytes()
    store.check()
    assert store.path.read_bytes() == before
    assert {name for name in os.listdir(store.path.parent) if not name.endswith(".lock")} == {store.path.name}


def newer(path: Path) -> None:
    Store(path).start_run(run_row())
    with duckdb.connect(str(path)) as con:
        con.execute('UPDATE "schema" SET version = 99')


def foreign(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")


def schema(kind: str, values: str) -> Callable[[Path], None]:
    """Somebody's table of this name, and no other."""

    def make(path: Path) -> None:
        with duckdb.connect(str(path)) as con:
            con.execute(f'CREATE TABLE "schema" (version {kind})')
            con.execute(f'INSERT INTO "schema" VALUES {values}')

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("hello" * 1000), "not a DuckDB file"),
        (lambda path: path.write_bytes(b""), "not a DuckDB file"),
        (newer, "schema version 99"),
        (foreign, "not a b2bench store"),
        (schema("INTEGER", "(NULL)"), "not a b2bench store"),
        (schema("VARCHAR", "('one')"), "not a b2bench store"),
        (schema("INTEGER", "(0)"), "not a b2bench store"),
        (schema("INTEGER", f"({SCHEMA_VERSION})"), "not a b2bench store"),
    ],
    ids=["text", "empty", "newer", "foreign", "null version", "text version", "version 0", "only a version"],
)
def test_a_file_that_is_no_store_is_refused_and_untouched(store: Store, make: Any, message: str) -> None:
    make(store.path)
    before = store.path.read_bytes()
    for call in (store.check, store.runs, lambda: store.start_run(run_row())):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert store.path.read_bytes() == before
    assert {name for name in os.listdir(store.path.parent) if not name.endswith(".lock")} == {store.path.name}


def test_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        Store(tmp_path).check()
    with pytest.raises(UserError, match="folder does not exist"):
        Store(tmp_path / "no" / "x.duckdb").check()


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(UserError, match="not UTF-8"):
        Store("caf\udce9.duckdb")


def test_a_name_is_given_once(store: Store) -> None:
    """Of two processes that both found it free, the second finds it taken when it writes."""
    store.start_run(run_row("a1", name="weekend"))
    with pytest.raises(UserError, match="a run named 'weekend' was started meanwhile, a1; try the same command again"):
        store.start_run(run_row("a2", name="weekend"), unique=True)
    assert [row["run_id"] for row in store.runs()] == ["a1"]


@pytest.mark.parametrize("name", ["a?b.duckdb", "d?r/b.duckdb", "a\\b.duckdb"])
def test_a_name_that_duckdb_misreads(name: str, tmp_path: Path) -> None:
    """DuckDB 2.0 writes the log of a?b to a.wal?b, and of a\\b opens a/b, which may be another store."""
    with pytest.raises(UserError, match="DuckDB cannot use a path with"):
        Store(tmp_path / name)


@pytest.mark.parametrize("name", ["a,b.duckdb", "a b#c%20.duckdb", "a:b", "[1]*.csv", "it's"])
def test_other_names_are_as_good_as_any(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / name)
    store.record_refusals([])
    assert store.runs() == []


def test_no_permission(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission"):
        store.check()
    with pytest.raises(UserError, match="no permission"):
        store.start_run(run_row())


def test_an_older_schema_is_lifted(started: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    steps = {SCHEMA_VERSION + 1: "ALTER TABLE runs ADD COLUMN host VARCHAR; UPDATE runs SET host = 'h'"}
    monkeypatch.setattr(database, "MIGRATIONS", steps)
    monkeypatch.setitem(TABLES["runs"], "host", ("VARCHAR", "where it ran"))
    assert started.sql("SELECT host FROM runs") == [{"host": "h"}]
    assert started.sql('SELECT version FROM "schema"') == [{"version": SCHEMA_VERSION + 1}]


def test_an_older_file_is_copied_before_it_is_lifted(started: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rows = started.path.read_bytes(), started.runs()
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(database, "MIGRATIONS", {SCHEMA_VERSION + 1: "nonsense"})
    for _ in range(2):  # what is cut short and tried again needs no second copy
        with pytest.raises(duckdb.ParserException):
            started.runs()
    monkeypatch.setattr(database, "MIGRATIONS", {SCHEMA_VERSION + 1: "COMMENT ON TABLE runs IS 'x'"})
    started.finish_run("a1", "done")
    name = f"{started.path.name}.schema-{SCHEMA_VERSION}"
    (copy,) = [path for path in started.path.parent.iterdir() if "schema" in path.name]
    assert copy.name == name
    assert copy.read_bytes() == before
    monkeypatch.undo()
    assert Store(copy).runs() == rows
    # another store of the same name, later: its copy takes the next free name
    copy.write_bytes(b"older")
    started._back_up(SCHEMA_VERSION)
    assert copy.read_bytes() == b"older"
    assert copy.with_name(f"{name}.2").read_bytes() == started.path.read_bytes()


def test_without_room_for_the_copy_the_schema_stays(started: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        patch.setattr(database, "MIGRATIONS", {SCHEMA_VERSION + 1: "ALTER TABLE runs ADD COLUMN host VARCHAR"})
        patch.setattr(database.shutil, "copy2", full)
        with pytest.raises(UserError, match=r"cannot be copied .*No space left"):
            started.runs()
    assert "host" not in started.runs()[0]


@pytest.mark.slow
def test_refusals_are_noted_once_and_merged(started: Store, tmp_path: Path) -> None:
    row = dict.fromkeys(TABLES["refusals"], "x") | {"budget": 100, "reason": "no branches"}
    started.record_refusals([row])
    started.record_refusals([row | {"reason": "needs branches"}, row | {"wrapper": "bs"}])
    assert {(found["wrapper"], found["reason"]) for found in started.refusals()} == {
        ("x", "needs branches"),
        ("bs", "no branches"),
    }
    other = Store(tmp_path / "other.duckdb")
    for _ in range(2):
        other.merge(started.path)
    assert len(other.refusals()) == 2


def test_a_migration_that_fails_leaves_the_old_file(started: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        steps = {SCHEMA_VERSION + 1: "ALTER TABLE runs ADD COLUMN host VARCHAR; FROM nowhere"}
        patch.setattr(database, "MIGRATIONS", steps)
        with pytest.raises(duckdb.CatalogException):
            started.runs()
    (run,) = started.runs()
    assert "host" not in run


FULL = """
import resource, sys
sys.path[:0] = {paths!r}
from b2bench.errors import NoRoom
from b2bench.store import Store
from test_store import round_rows
store = Store({path!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # no file grows beyond: a full disk of one's own
number = 0
try:
    while True:
        store.record_round("a1", *round_rows(number))
        number += 1
except NoRoom as error:
    print(number, error)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_whole_rounds(started: Store) -> None:
    script = FULL.format(paths=[str(Path(__file__).parent), *sys.path], path=str(started.path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    number, message = ended.stdout.split(maxsplit=1)
    assert "cannot be written" in message
    assert "what it holds is whole" in message
    assert count(started, "rounds") == int(number)
    started.record_round("a1", *round_rows(int(number)))


HOLD = """
import sys, time, duckdb
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_calls_wait_while_another_process_holds_the_file(started: Store) -> None:
    command = [sys.executable, "-c", HOLD, str(started.path), "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        impatient = Store(started.path, patience=0.05)
        with pytest.raises(UserError, match=rf"locked .* process {holder.pid} "):
            impatient.runs()
        with pytest.raises(UserError, match="locked"):
            impatient.check()
        started.record_round("a1", *round_rows(0))
        assert count(started, "rounds") == 1


def test_a_call_that_waits_long_says_so(
    started: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "SILENT", 0.05)
    monkeypatch.setattr(logging.getLogger(), "level", logging.CRITICAL)  # as others may leave it
    patient = Store(started.path, patience=0.3)
    with FileLock(f"{started.path}.lock"), pytest.raises(UserError, match="in use by other b2bench processes"):
        patient.runs()
    with duckdb.connect(str(started.path)), pytest.raises(UserError, match="of this process"):
        patient.runs()
    assert [record.message.split(",")[0].split(":")[0] for record in caplog.records] == [
        f"waiting for database {started.path}"
    ] * 2
    caplog.clear()
    assert patient.runs()
    assert not caplog.records


def test_what_has_worked_for_hours_waits_for_hours_unless_somebody_wants_to_end(
    started: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "SILENT", 0.05)
    store = Store(started.path)
    with ThreadPoolExecutor() as pool, FileLock(f"{started.path}.lock"), store.waiting(database.FOR_HOURS):
        waiting = pool.submit(store.runs)
        while not caplog.records:
            time.sleep(0.01)
        assert caplog.records[0].message.endswith("which others use (at most 5 h)")
        store.patience = 0.1
        with pytest.raises(Busy, match=r"in use by other b2bench processes for 0\.1 s"):
            waiting.result(timeout=20)
    assert store.patience == database.PATIENCE
    asked = Store(started.path, patience=1)
    with asked.waiting(database.FOR_HOURS):
        assert asked.patience == 1


def test_a_run_says_that_it_is_at_work_and_waits_for_nobody(started: Store) -> None:
    [before] = started.runs()
    started.beat(before["run_id"])
    [after] = started.runs()
    assert after["heartbeat"] > before["heartbeat"]
    assert {**after, "heartbeat": None} == {**before, "heartbeat": None}
    patience = started.patience
    with FileLock(f"{started.path}.lock"), pytest.raises(Busy, match="for 0 s"):
        started.beat(before["run_id"])
    assert started.patience == patience > 0


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_at_once(number: int, started: Store, monkeypatch: Any) -> None:
    """Lustre, Samba and NFS may have none (filelock#67, duckdb#13017); waiting for one would be in vain."""

    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match="is on a file system that locks no files; try --db on a local disk"):
        started.runs()


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Operation not supported", "is on a file system that locks no files; try --db on a local disk"),
        # the system does not name a holder in another container, or on another machine (trino#25802)
        ("Conflicting lock is held in PID 0", "locked for 0.1 s by a process in another container or on another"),
    ],
)
def test_duckdb_may_get_no_lock_where_the_store_got_its_own(
    reason: str, said: str, started: Store, monkeypatch: Any
) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise duckdb.IOException(f'Could not set lock on file "x": {reason}. See also https://duckdb.org')

    monkeypatch.setattr("duckdb.connect", connect)
    started.patience = 0.1
    with pytest.raises(UserError, match=said):
        started.runs()
    with pytest.raises(UserError, match="locks no files"):  # nobody else knows the file that a new store begins as
        Store(started.path.with_name("new.duckdb")).start_run(run_row("one"))


def test_calls_wait_for_a_connection_of_this_process(started: Store) -> None:
    with duckdb.connect(str(started.path)), pytest.raises(UserError, match="of this process"):
        Store(started.path, patience=0.05).runs()
    assert started.runs()


WRITE = """
import sys
sys.path[:0] = sys.argv[2:]
from store_rows import run_row
from test_store import Store, round_rows
store = Store(sys.argv[1])
if not store.path.exists():
    store.start_run(run_row())
print("ready", flush=True)
first = len(store.rounds("a1"))
for number in range(first, first + 10_000):
    store.record_round("a1", *round_rows(number, n=50))
"""


@pytest.mark.slow
def test_killed_at_any_instant_only_whole_rounds_are_left(store: Store) -> None:
    command = [sys.executable, "-c", WRITE, str(store.path), str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    seen = 0
    for pause in (0.21, 0.34):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            begin = time.monotonic()
            while not store.runs() or len(store.rounds()) <= seen:
                assert time.monotonic() - begin < 20
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
        rounds = store.rounds("a1")
        assert [row["round"] for row in rounds] == list(range(len(rounds)))
        assert count(store, "queries") == 50 * len(rounds)
        assert len(rounds) > seen
        # as if the checkpoint were two rounds old
        resume = max(len(rounds) - 2, 0)
        store.rewind("a1", resume, 50 * resume)
        for number in range(resume, len(rounds)):
            store.record_round("a1", *round_rows(number, n=50))
        (found,) = store.sql("SELECT count(*) AS n, count(DISTINCT query_index) AS d FROM queries")
        assert found["n"] == found["d"] == 50 * len(rounds)
        seen = len(rounds)


def baseline_rows(run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    run = run_row(run_id, algorithm="baseline", wrapper="best-of-4", budget=None)
    evals = [{"queries": 0, "split": "test", "metric": "clipscore", "value": 0.5, "n": 2, "settings": {"splits": 1}}]
    images = [{"queries": 0, "prompt": "a cat", "noise_index": i, "score": 0.5} for i in range(2)]
    return run, evals, images


def test_a_baseline_is_stored_once_and_merged_once(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "a.duckdb"), Store(tmp_path / "b.duckdb")
    assert store.record_baseline(*baseline_rows("b1"))
    (row,) = store.runs()
    assert (row["status"], row["budget"], row["finished"] is None) == ("done", None, False)
    run, evals, images = baseline_rows("b1")
    evals[0]["value"] = 0.9
    assert not store.record_baseline(run, evals, images)
    assert [found["value"] for found in store.evals("b1")] == [0.5]
    assert len(store.sql("SELECT * FROM images WHERE run_id = 'b1'")) == 2
    other.record_baseline(*baseline_rows("b1"))
    assert store.merge(other.path) == []


def test_a_baseline_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    run, evals, images = baseline_rows("b1")
    with pytest.raises(duckdb.ConstraintException):
        store.record_baseline(run, evals, [*images, images[0]])
    assert (store.runs(), store.evals(), store.sql("SELECT * FROM images")) == ([], [], [])


def test_the_schema_describes_itself(started: Store) -> None:
    found = started.sql("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal")
    comments = {(row["table_name"], row["column_name"]): row["comment"] for row in found}
    for table, columns in TABLES.items():
        for name, (_, comment) in columns.items():
            assert comments[table, name] == comment


def test_the_documentation_lists_the_schema() -> None:
    text = DOCS.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(\w+)`.*?\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    for table, columns in TABLES.items():
        documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", sections[table], flags=re.M)
        assert documented == [(name, kind.split()[0]) for name, (kind, _) in columns.items()]
        if table in KEYS:
            assert f"key: {', '.join(f'`{name}`' for name in KEYS[table])}" in sections[table]


@pytest.mark.parametrize("page", [README, DOCS], ids=["README", "docs/store.md"])
def test_the_queries_of_the_documentation_work(started: Store, page: Path) -> None:
    queries = re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    assert len(queries) == 3
    for number in range(2):
        started.record_round("a1", *round_rows(number))
    for value, at in ((0.5, 0), (0.7, 20)):
        row = {"queries": at, "split": "test", "metric": "clipscore", "value": value, "n": 4}
        started.record_evals("a1", [row])
    started.finish_run("a1", "done")
    prompts, cells, kept = (started.sql(query) for query in queries)
    assert [row["prompt"] for row in prompts] == ["a cat, 1", "a cat, 0"]
    assert prompts[0]["mean"] == pytest.approx(0.1 + 5 / 7)
    assert [(row["algorithm"], row["per_1000"]) for row in cells] == [("ddpo", pytest.approx(10.0))]
    assert [(row["round"], row["share"], row["drawn"]) for row in kept] == [(0, 0.5, 10), (1, 0.5, 10)]


def test_connections_reach_neither_network_nor_files(started: Store, tmp_path: Path) -> None:
    table = tmp_path / "secret.csv"
    table.write_text("a\n1\n")
    for query in (
        f"SELECT * FROM '{table}'",
        f"COPY runs TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        "INSTALL httpfs",
    ):
        with pytest.raises(Exception, match=r"(?i)disabled|read-only|permission"):
            started.sql(query)
    assert not (tmp_path / "out.csv").exists()


def test_the_store_and_the_tables_import_no_torch() -> None:
    code = "import sys, b2bench.store, b2bench.leaderboard.terminal; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.stdout.strip() == "False"


def test_links_to_one_store_take_turns(started: Store, tmp_path: Path) -> None:
    """Each with a lock of its own, transactions of others were overwritten unnoticed."""
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "link.duckdb"
    link.symlink_to(started.path)
    Store(link).record_round("a1", *round_rows(0))
    assert len(started.rounds("a1")) == 1
    assert [path.name for path in link.parent.iterdir()] == ["link.duckdb"]
    with Store(link)._turn(), pytest.raises(UserError, match="in use by other"):
        Store(started.path, 0.2).record_round("a1", *round_rows(1))


def test_a_reason_that_is_no_text_ends_a_run_all_the_same(started: Store) -> None:
    started.finish_run("a1", "failed", "ValueError: caf\udce9.png")
    assert started.runs()[0]["error"] == "ValueError: caf\\udce9.png"


def test_merge_names_no_file_to_import_unless_the_store_is_the_users_own(started: Store, tmp_path: Path) -> None:
    found = {"prompts": "template1", "plugins": ["evil.py"]}
    started.start_run(run_row("d4", config={"lr": 1e-3, "found": found}))
    for own, plugins in ((False, []), (True, ["evil.py"])):
        other = Store(tmp_path / f"{own}.duckdb")
        other.merge(started.path, own=own)
        assert other.runs(run_id="d4")[0]["config"] == {"lr": 1e-3, "found": found | {"plugins": plugins}}


def test_a_store_that_was_moved_is_not_begun_anew(tmp_path: Path) -> None:
    """What a run writes goes to the store that it began in, or nowhere."""
    store = Store(tmp_path / "runs.duckdb")
    store.start_run(run_row("r1"))
    store.path.rename(tmp_path / "moved.duckdb")
    for write in (
        lambda: store.record_round("r1", {"round": 0, "queries": 2}, []),
        lambda: store.record_evals("r1", []),
        lambda: store.finish_run("r1", "done"),
        lambda: store.restart_run("r1"),
        lambda: store.beat("r1"),
        lambda: store.rewind("r1", 0, 0),
    ):
        with pytest.raises(UserError, match="is gone: it was moved or removed since the run began"):
            write()
    assert not store.path.exists()
    store.start_run(run_row("r2"))
    with pytest.raises(UserError, match="run r1 is not in this store"):
        store.finish_run("r1", "done")
    assert [row["status"] for row in Store(tmp_path / "moved.duckdb").runs()] == ["running"]
