"""``b2bench validity``: the card in its three formats, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_rows import run_row

from b2bench.store.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose store has one finished run, of ddpo."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "b2bench.duckdb")
    store.start_run(run_row("only", budget=10))
    rows = [
        {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 4}
        for queries, value in ((0, 0.6), (10, 0.7))
    ]
    store.record_evals("only", rows)
    store.finish_run("only", "done")
    return tmp_path


def test_the_card_has_every_sign_in_every_format(folder: Path, b2bench: Callable[..., Any]) -> None:
    found = b2bench("validity", "--json")
    assert (found.code, found.stderr) == (0, "")
    [group] = json.loads(found.stdout)
    assert group["context"]["reward"] == "clipscore"
    assert [sign["number"] for sign in group["signs"]] == list(range(1, 12))
    assert {sign["verdict"] for sign in group["signs"]} <= {"pass", "fail", "undecided"}
    in_terminal, written = b2bench("validity"), b2bench("validity", "--markdown")
    assert (in_terminal.code, written.code) == (0, 0)
    assert in_terminal.stdout.count("undecided") >= 10
    assert written.stdout.count("undecided") >= 10
    assert written.stdout.startswith("#")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--where", "reward=other"), 1, "no finished run fits"),
        (("--where", "algorithm=ddpo"), 2, "a card takes all cells of a context"),
        (("--markdown", "--json"), 2, "two formats"),
        (("--db", "none.duckdb"), 2, "does not exist"),
    ],
)
def test_what_has_no_card_is_said(
    arguments: tuple[str, ...], code: int, said: str, folder: Path, b2bench: Callable[..., Any]
) -> None:
    found = b2bench("validity", *arguments)
    assert found.code == code
    assert said in " ".join(found.stderr.split())
    assert found.stdout == ""
