"""``b2bench report``: written files, filters and checks from the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_rows import run_row

from b2bench.store import Store

TINY = (
    "run", "--algo", "ddpo", "--queries", "10", "--set", "draws=1", "--set", "samples=5", "--set", "steps=3",
    "--set", "optimizer_steps=1", "--set", "eval_points=2", "--set", "eval_images=4", "--set", "eval_train_images=2",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose store has one finished run, without evaluations."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "b2bench.duckdb")
    store.start_run(run_row("earlier", budget=10))
    store.record_evals("earlier", [
        {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 4}
        for queries, value in ((0, 0.6), (10, 0.7))
    ])  # fmt: skip
    store.finish_run("earlier", "done")
    return tmp_path


@pytest.mark.slow
def test_a_run_leaves_the_images_of_the_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, b2bench: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = b2bench(*TINY, "--json")
    assert ended.code == 0, ended.stderr
    run = json.loads(ended.stdout)["run_id"]
    rows = Store("b2bench.duckdb").samples()
    assert [(row["queries"], row["path"]) for row in rows] == [
        (queries, f"samples/{queries}-{place}.png") for queries in (0, 10) for place in range(4)
    ]
    assert all((tmp_path / "runs" / run / row["path"]).is_file() for row in rows)
    assert b2bench("report", "--format", "html", "--out", "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 8
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # it works offline
    off = b2bench(*TINY, "--set", "sample_images=0", "--seed", "1", "--json")
    assert off.code == 0, off.stderr
    assert len(Store("b2bench.duckdb").samples()) == len(rows)
    assert not (tmp_path / "runs" / json.loads(off.stdout)["run_id"] / "samples").exists()


@pytest.mark.parametrize(
    ("written_as", "start"),
    [
        ("markdown", "## b2bench"),
        ("html", "<!DOCTYPE html>"),
        ("json", "["),
        ("csv", "context,table"),
        ("latex", "\\documentclass"),
    ],
)
def test_every_format_to_stdout_and_to_a_file(
    written_as: str, start: str, folder: Path, b2bench: Callable[..., Any]
) -> None:
    printed = b2bench("report", "--format", written_as)
    assert printed.code == 0, printed.stderr
    assert printed.stdout.startswith(start)
    written = b2bench("report", "--format", written_as, "--out", "report.out")
    assert written.stdout == "report in report.out\n"
    assert (folder / "report.out").read_text() == printed.stdout
    assert not list(folder.glob(".report*"))


def test_markdown_goes_between_the_markers_of_a_page(folder: Path, b2bench: Callable[..., Any]) -> None:
    page = folder / "README.md"
    page.write_text("# Mine\n<!-- b2bench report -->\n<!-- end of b2bench report -->\nafter\n")
    for _ in range(2):
        assert b2bench("report", "--format", "markdown", "--out", page).code == 0
        text = page.read_text()
        assert text.startswith("# Mine\n<!-- b2bench report -->\n## b2bench")
        assert text.endswith("<!-- end of b2bench report -->\nafter\n")
        assert text.count("### Leaderboard") == 1
    page.write_text("<!-- b2bench report -->\n")
    refused = b2bench("report", "--format", "markdown", "--out", page)
    assert (refused.code, page.read_text()) == (2, "<!-- b2bench report -->\n")
    assert "has no line" in refused.stderr


def test_a_part_and_a_check(folder: Path, b2bench: Callable[..., Any]) -> None:
    assert b2bench("report", "--check").code == 0
    none = b2bench("report", "--where", "prompts=others", "--check")
    assert none.code == 1
    assert "no finished run" in none.stderr
    Store(folder / "b2bench.duckdb").start_run(run_row("now"))
    checked = b2bench("report", "--check")
    assert checked.code == 1
    assert "run now is running" in checked.stderr
    assert "Leaderboard" in checked.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--where", "colour=red"), "--where 'colour=red'"),
        (("--margin", "0"), "--margin 0 is not above 0"),
        (("--out", "report.txt"), "--format markdown"),
        (("--format", "pdf"), "pdf"),
        (("--format", "html", "--out", "none/report.html"), "cannot be written"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], reason: str, folder: Path, b2bench: Callable[..., Any]) -> None:
    found = b2bench("report", *arguments)
    assert found.code == 2
    assert reason in found.stderr
    assert "Traceback" not in found.stderr
