"""Commands that are printed work as they are printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_rows import run_row

from b2bench.cli import run as run_command
from b2bench.cli.options import beside
from b2bench.store.store import Store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_store_is_named_where_it_would_not_be_found() -> None:
    assert beside(Path("b2bench.duckdb")) == []
    assert beside("my runs.duckdb") == ["--db", "my runs.duckdb"]


def test_what_follows_a_run_finds_its_store(
    here: Path, b2bench: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(Path("my runs.duckdb"))
    store.start_run(run_row("r1", name="mine"))
    store.finish_run("r1", "done")
    run_command._show_again(SimpleNamespace(store=store, name="mine", done=store.find_run("r1")), here, False)  # type: ignore[arg-type]
    (command,) = re.findall(r"b2bench show .+(?= prints it)", " ".join(capsys.readouterr().err.split()))
    assert b2bench(*shlex.split(command)[1:]).code == 0


@pytest.mark.slow
def test_a_plugin_in_a_folder_with_a_space_is_run_as_printed(here: Path, b2bench: Callable[..., Any]) -> None:
    assert b2bench("new", "reward", "bright").code == 0
    folder = here / "a b"
    folder.mkdir()
    (here / "bright.py").rename(folder / "bright.py")
    found = b2bench("check", "a b/bright.py")
    assert found.code == 0, found
    (command,) = re.findall(r"run it +(.+)", found.stdout)
    assert shlex.split(command)[-4:] == ["--plugin", "a b/bright.py", "--queries", "240"]


def test_a_page_that_is_no_text_is_not_what_the_results_give(here: Path, b2bench: Callable[..., Any]) -> None:
    page = here / "page.md"
    page.write_bytes(b"\xb5\xff\x00")
    found = b2bench("leaderboard", "--check", "--out", page, here / "no-results")
    assert (found.code, "Traceback" in found.stderr) == (1, False)
    assert page.read_bytes() == b"\xb5\xff\x00"


def test_no_control_character_of_a_store_reaches_a_terminal(here: Path, b2bench: Callable[..., Any]) -> None:
    hostile = "na\x1b[31mme\x1b]0;title\x07"
    store = Store(here / "b2bench.duckdb")
    store.start_run(run_row("r1", name=hostile, backbone=hostile, versions={"torch": hostile}, config={"a": hostile}))
    store.finish_run("r1", "failed", hostile)
    for command in (("show", "r1"), ("ls", "runs"), ("report",), ("show", "r1", "--json")):
        found = b2bench(*command)
        assert "\x1b]0" not in found.stdout + found.stderr, command
        assert "\x1b[31mme" not in found.stdout + found.stderr, command
