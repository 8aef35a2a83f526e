"""``b2bench report``: written files, filters and checks from the command line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_rows import run_row

from b2bench.store.store import Store

TINY = (
    "run", "--algo", "ddpo", "--queries", "10", "--set", "draws=1", "--set", "samples=5", "--set", "steps=3",
    "--set", "transitions_per_step=1000", "--set", "eval_points=2", "--set", "eval_images=4",
    "--set", "eval_train_images=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one finished run, to be copied."""
    made = tmp_path_factory.mktemp("filled")
    store = Store(made / "b2bench.duckdb")
    store.start_run(run_row("earlier", budget=10))
    store.record_evals("earlier", [
        {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 4}
        for queries, value in ((0, 0.6), (10, 0.7))
    ])  # fmt: skip
    store.finish_run("earlier", "done")
    return made


@pytest.fixture
def folder(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose store has one finished run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
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
    written = b2bench("report", "--format", "markdown", "--figures", "figures")
    assert "](figures/samples.svg)" in written.stdout
    assert "samples of seed 0" in written.stdout
    assert (tmp_path / "figures" / "samples.svg").read_text().count("data:image/png;base64,") == 8
    off = b2bench(*TINY, "--set", "sample_images=0", "--seed", "1", "--json")
    assert off.code == 0, off.stderr
    assert len(Store("b2bench.duckdb").samples()) == len(rows)
    assert not (tmp_path / "runs" / json.loads(off.stdout)["run_id"] / "samples").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written_as", "start"),
    [
        ("markdown", "## b2bench"),
        ("html", "<!DOCTYPE html>"),
        ("json", "["),
        ("csv", "context,table"),
        ("latex", "% b2bench report; it needs \\usepackage"),
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


@pytest.mark.slow
def test_latex_is_a_fragment_with_labels_and_chosen_columns(folder: Path, b2bench: Callable[..., Any]) -> None:
    part = b2bench("report", "--format", "latex", "--columns", "against pretrained,clipscore").stdout
    assert "\\documentclass" not in part
    assert part.count("\\label{tab:leaderboard}") == 1
    assert "{}cell & against pretrained & clipscore \\\\" in part
    assert "area of gain:" not in part  # of a column that is not shown
    assert "\\footnotesize exploratory" in part.replace("Exploratory", "exploratory")
    whole = b2bench("report", "--format", "latex", "--standalone").stdout
    assert whole.startswith("\\documentclass")
    assert whole.endswith("\\end{document}\n")
    slip = b2bench("report", "--format", "latex", "--columns", "clipscor")
    assert (slip.code, slip.stdout) == (2, "")
    assert "no table has a column 'clipscor'. Did you mean clipscore?" in slip.stderr


@pytest.mark.slow
def test_markdown_goes_between_the_markers_of_a_page(folder: Path, b2bench: Callable[..., Any]) -> None:
    page = folder / "README.md"
    page.write_text("# Mine\n<!-- b2bench report -->\n<!-- end of b2bench report -->\nafter\n")
    for _ in range(2):
        assert b2bench("report", "--format", "markdown", "--out", page).code == 0
        text = page.read_text()
        assert text.startswith("# Mine\n<!-- b2bench report -->\n## b2bench")
        assert text.endswith("<!-- end of b2bench report -->\nafter\n")
        assert text.count("<summary>Leaderboard") == 1
    page.write_text("<!-- b2bench report -->\n")
    refused = b2bench("report", "--format", "markdown", "--out", page)
    assert (refused.code, page.read_text()) == (2, "<!-- b2bench report -->\n")
    assert "has no line" in refused.stderr


@pytest.mark.slow
def test_figures_and_a_title(folder: Path, b2bench: Callable[..., Any]) -> None:
    (folder / "paper").mkdir()
    made = b2bench(
        "report", "--format", "markdown", "--out", "paper/report.md", "--figures", "paper/my figures", "--title", "Mine"
    )
    assert made.code == 0, made.stderr
    text = (folder / "paper" / "report.md").read_text()
    assert text.startswith("# Mine\n\n## b2bench")
    shown = re.findall(r"\]\((.*?)\)", text)
    assert "my%20figures/alignment-against-reward-queries.svg" in shown
    assert all((folder / "paper" / path.replace("%20", " ")).is_file() for path in shown)
    kinds = sorted(path.suffix for path in (folder / "paper" / "my figures").iterdir())
    assert kinds == sorted([".pdf", ".svg"] * len(shown))
    tex = b2bench("report", "--format", "latex", "--out", "paper/report.tex", "--figures", "paper/my figures")
    assert tex.code == 0
    assert "{my figures/alignment-against-reward-queries.pdf}" in (folder / "paper" / "report.tex").read_text()
    assert "Mine" in b2bench("report", "--title", "Mine").stdout
    assert "<h1>Mine</h1>" in b2bench("report", "--title", "Mine", "--format", "html").stdout


@pytest.mark.slow
def test_a_part_and_a_check(folder: Path, b2bench: Callable[..., Any]) -> None:
    assert b2bench("report", "--check").code == 0
    planned = b2bench("report", "--check", "--seeds", "0-9")
    assert planned.code == 1
    assert "lacks seed" in planned.stderr
    assert b2bench("report", "--seeds", "x").code == 2
    slip = b2bench("report", "--where", "algorithm=dppo")
    assert (slip.code, slip.stdout) == (2, "")
    assert "no run in the store has this algorithm. Did you mean ddpo? The store holds ddpo" in slip.stderr
    assert b2bench("report", "--margin", "inf").code == 2
    assert b2bench("report", "--json", "--format", "html").code == 2
    assert "The store holds 10" in b2bench("report", "--where", "budget=20").stderr
    store = Store(folder / "b2bench.duckdb")
    store.start_run(run_row("longer", budget=20, prompts="others"))  # each value is there, and no run has both
    none = b2bench("report", "--where", "prompts=others", "--where", "budget=10", "--check")
    assert none.code == 1
    assert "no finished run" in none.stderr
    assert "no run fits --where; the store holds version=" in none.stderr
    assert "No runs yet" not in none.stdout
    store.finish_run("longer", "done")
    Store(folder / "b2bench.duckdb").start_run(run_row("now"))
    checked = b2bench("report", "--check")
    assert checked.code == 1
    assert "run now is running" in checked.stderr
    assert "Leaderboard" in checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--where", "colour=red"), "--where 'colour=red'"),
        (("--margin", "0"), "--margin 0 is not a number above 0"),
        (("--looks", "3"), "--looks 3 is not 1 or 2"),
        (("--out", "report.txt"), "--format markdown"),
        (("--format", "pdf"), "pdf"),
        (("--format", "html", "--out", "none/report.html"), "cannot be written"),
        (("--format", "csv", "--title", "Mine"), "--title heads a page, and csv"),
        (("--format", "html", "--columns", "gain"), "--columns goes with --format markdown, csv or latex"),
        (("--format", "html", "--standalone"), "--standalone goes with --format latex"),
        (("--figures", "b2bench.duckdb"), "--figures b2bench.duckdb cannot be written"),
        (("--format", "latex", "--figures", "50%"), "TeX reads characters"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], reason: str, folder: Path, b2bench: Callable[..., Any]) -> None:
    found = b2bench("report", *arguments)
    assert found.code == 2
    assert reason in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_runs_travel_between_stores_and_as_parquet(folder: Path, b2bench: Callable[..., Any]) -> None:
    other = Store(folder / "other.duckdb")
    other.start_run(run_row("later", budget=10))
    other.finish_run("later", "failed", "broken")
    for new in (1, 0):  # the second time there is nothing to do
        merged = b2bench("merge", "b2bench.duckdb", "other.duckdb", "--into", "all.duckdb")
        assert merged.code == 0, merged.stderr
        assert merged.stdout.splitlines() == [
            f"b2bench.duckdb: {new} new runs", f"other.duckdb: {new} new runs", "all.duckdb holds 2 runs"
        ]  # fmt: skip
    assert "2 runs in leaderboard/results" in b2bench("export", "--db", "all.duckdb").stdout
    taken = b2bench("import", "--db", "mine.duckdb", "--json")
    assert json.loads(taken.stdout) == {"db": "mine.duckdb", "new": ["earlier", "later"]}
    reports = [b2bench("report", "--db", name, "--format", "json").stdout for name in ("all.duckdb", "mine.duckdb")]
    assert reports[0] == reports[1]
    assert "earlier" in reports[0]


def test_what_cannot_travel_is_said(folder: Path, b2bench: Callable[..., Any]) -> None:
    for arguments, reason in (
        (("merge", "missing.duckdb", "--into", "all.duckdb"), "database missing.duckdb does not exist"),
        (("export", "out", "--where", "algorithm=pg"), "holds no finished run that fits"),
        (("export", "out", "--where", "colour=red"), "try NAME=VALUE"),
        (("export", "--card", "now"), "--card now needs a folder to write; try --out FOLDER"),
        (("export", "--card", "now", "--out", "card", "--csv"), "--card writes one run"),
        (("export", "--out", "card"), "try --card RUN"),
        (("import", "nowhere"), "nowhere/runs.parquet cannot be read: No such file or directory"),
    ):
        ended = b2bench(*arguments)
        assert (ended.code, ended.stdout) == (2, "")
        assert reason in ended.stderr.replace("\n", " ")
    assert not (folder / "all.duckdb").exists()
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_show_draws_a_run_and_says_what_is_conspicuous(folder: Path, b2bench: Callable[..., Any]) -> None:
    store = Store(folder / "b2bench.duckdb")
    for number in range(3):
        rows = [
            {"query_index": 4 * number + i, "round": number, "prompt": "a cat", "group_id": i // 2, "reward": reward}
            for i, reward in enumerate((0.5, 0.5, 0.5, 0.5 + 0.1 * number * (number < 2)))
        ]
        values = {"kept": 4, "optimizer_steps": 1, "ratio_mean": 1.0 + number, "grad_norm": 0.1}
        store.record_round("earlier", {"round": number, "queries": 4 * number + 4, **values}, rows)
    shown = b2bench("show", "earlier")
    assert shown.code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert "warning the mean ratio is more than 0.05 from 1 in rounds 2-3" in text
    assert "warning all rewards are equal in more than 50% of the prompt draws in rounds 1, 3" in text
    assert "clipscore of training rollouts" in text
    assert any("⠀" < letter <= "⣿" for letter in shown.stdout)  # braille
    found = json.loads(b2bench("show", "earlier", "--json").stdout)
    assert [row["level"] for row in found["findings"]] == ["warning", "warning"]
    assert found["curves"]["clipscore of training rollouts"][0] == [4, 0.5]
    assert [row["equal"] for row in found["rounds"]] == [1.0, 0.5, 1.0]
