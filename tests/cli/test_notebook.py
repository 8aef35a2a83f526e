"""The functions for notebooks beside the commands: the same run, the same report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.terminal import to_json

import b2bench as door
from b2bench.files import finite
from b2bench.store.store import Store

SETTINGS = {"draws": 1, "samples": 5, "steps": 2, "transitions_per_step": 1000, "eval_points": 2, "eval_images": 4}
SETTINGS |= {"eval_train_images": 0, "lr": 5e-4}
CLOCK = ("run_id", "name", "started", "finished", "heartbeat", "seconds", "peak_mb")


def rows_of(db: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything that a store holds of its one run, without its name and what the clock says."""
    store = Store(db)
    [run] = store.runs()
    return {
        table: [finite({name: value for name, value in row.items() if name not in CLOCK}, str) for row in rows]
        for table, rows in store.whole_run(run["run_id"]).items()
    }


@pytest.mark.slow
def test_a_run_gives_the_rows_and_the_summary_of_the_command(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    choices = ("--algo", "pg", "--wrapper", "bpt", "--queries", "10", "--seed", "3")
    command = b2bench("run", *choices, *words, "--db", "command.duckdb", "--name", "one", "--json")
    assert command.code == 0, command.stderr
    capsys.readouterr()

    call: dict[str, Any] = {"algo": "pg", "wrapper": "bpt", "queries": 10, "seed": 3, "set": SETTINGS}
    call |= {"db": tmp_path / "call.duckdb", "name": "one"}
    summary = door.run(**call, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\nround ") == 2
    assert "evaluation at 10 queries" in captured.err

    expected, found = rows_of(tmp_path / "command.duckdb"), rows_of(tmp_path / "call.duckdb")
    assert {table: len(rows) for table, rows in found.items()} == {table: len(rows) for table, rows in expected.items()}
    assert found == expected

    printed = json.loads(command.stdout)
    assert isinstance(summary, door.Summary)
    assert [*vars(summary), "verdict"] == list(printed)
    assert finite(summary.before) == printed["before"]
    assert finite(summary.after) == printed["after"]
    assert (summary.queries, summary.db) == (10, str(tmp_path / "call.duckdb"))
    assert Path(summary.weights).is_file()

    # The same call again is done already, and silent if nobody asks for progress; so is the command, but for a line.
    again = door.run(**call)
    assert capsys.readouterr() == ("", "")
    for name in ("run_id", "queries", "weights", "db"):
        assert getattr(again, name) == getattr(summary, name)
    assert (finite(again.before), finite(again.after)) == (printed["before"], printed["after"])
    repeated = b2bench("run", *choices, *words, "--db", "command.duckdb", "--name", "one", "--json")
    assert repeated.code == 0
    assert "run one is done already" in repeated.stderr
    assert json.loads(repeated.stdout)["run_id"] == printed["run_id"]

    reported = b2bench("report", "--db", "call.duckdb", "--json")
    assert json.loads(reported.stdout) == json.loads(json.dumps(to_json(door.report("call.duckdb")), default=str))
