"""A report of known effects in every format, against files that were looked at.

``B2BENCH_GOLDEN=1 pytest tests/unit/leaderboard/test_golden.py`` writes them anew; look at them, then commit them.
Figures are left out of the HTML: their bytes are matplotlib's.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from b2bench.leaderboard.document import document
from b2bench.leaderboard.html import html
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.terminal import render, to_json
from b2bench.leaderboard.written import csv_text, latex, markdown
from rich.console import Console
from synthetic import Rows

from b2bench.text import visible

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "a <b>cat</b> | $x$ \x1b[31m"


def known(hostile: str = HOSTILE) -> list[Tables]:
    """BPT adds 0.04, BS takes 0.03 and a fifth of the style entropy; pg does nothing; dpo fails; a hostile name."""
    rows, start = Rows(), 0.6
    same = {"settings": {"eval_seed": 0}}
    for seed, jitter in enumerate((0.001, -0.001, 0.0005, -0.0005, 0.0)):
        for wrapper, gain, kept in (("vanilla", 0.05, 1.0), ("bpt", 0.09, 1.0), ("bs", 0.02, 0.8), ("b2", 0.07, 0.8)):
            end = start + gain + (jitter if wrapper == "vanilla" else -jitter)
            rows.add(
                "ddpo", wrapper, seed, {0: start, 500: start + gain / 2, 1000: end},
                seen={0: start, 500: start + 0.6 * gain, 1000: end + 0.01},
                heldout={0: start, 500: start + gain / 3, 1000: end - 0.01},
                entropy={0: 1.3, 500: 1.3 * (1 + kept) / 2, 1000: 1.3 * kept + jitter}, config=same,
            )  # fmt: skip
        rows.add("pg", "vanilla", seed, {0: start, 1000: start + jitter}, config=same)
        rows.add("dpo", "bs", seed, {0: start}, status="failed", error=f"the loss is nan: {hostile}", config=same)
        rows.add(hostile, "vanilla", seed, {0: start, 1000: start - 0.02 + jitter}, config=same)
    rows.add("dpok", "b2", 0, {0: 0.6}, status="running", config=same)
    here = {name: rows.runs[0][name] for name in ("benchmark_version", "backbone", "reward", "prompts_hash", "budget")}
    refusal = {**here, "algorithm": "pg", "wrapper": "b2", "reason": f"no branches {hostile}"}
    errors = [{"run_id": rows.runs[0]["run_id"], "error": 0.016}]
    return tables(rows.runs, rows.evals, rows.rounds, refusals=[refusal], errors=errors)


def terminal(groups: list[Tables]) -> str:
    console = Console(
        file=io.StringIO(), width=140, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    console.record = True
    render(groups, console)
    return console.export_svg(title="b2bench report", unique_id="golden")


FORMATS: dict[str, Callable[[list[Tables]], str]] = {
    "report.svg": terminal,
    "report.md": lambda groups: markdown(document(groups)),
    "report.tex": lambda groups: latex(document(groups)),
    "report.csv": lambda groups: csv_text(document(groups)),
    "report.json": lambda groups: json.dumps(to_json(groups), indent=1, default=str, allow_nan=False) + "\n",
    "report.html": lambda groups: re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", html(groups)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_report_is_what_was_looked_at(name: str) -> None:
    found, file = FORMATS[name](known()), GOLDEN / name
    if os.environ.get("B2BENCH_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8", newline="")
    assert found == file.read_bytes().decode(), f"{file} differs; B2BENCH_GOLDEN=1 writes it anew, then look at it"


class Parsed(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements[tag] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "a | b | `c` [d](javascript:e)",
    r"\input{/etc/passwd} $x$ % & # _ ^ ~ {}",
    'quote " comma , semicolon ;',
    "\x1b[31mred\x07",
)


@cache
def written(hostile: str) -> dict[str, str]:
    """The report in every format, with a hostile name."""
    groups = known(hostile)
    return {name: write(groups) for name, write in FORMATS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HOSTILE_NAMES)
def test_hostile_names_arrive_as_text(hostile: str) -> None:
    """Each format, read by what reads it: the name is there, letter by letter, and is nothing but a name."""
    shown, texts, usual = visible(hostile), written(hostile), written("harmless")
    page, usual_page = Parsed(texts["report.html"]), Parsed(usual["report.html"])
    assert page.elements == usual_page.elements
    assert " ".join(shown.split()) in " ".join(page.text.split())
    assert Parsed(texts["report.svg"]).elements.keys() == Parsed(usual["report.svg"]).elements.keys()
    rows = [cell for row in csv.reader(io.StringIO(texts["report.csv"])) for cell in row]
    assert any(shown in cell for cell in rows)
    assert json.dumps(hostile)[1:-1] in texts["report.json"] or json.dumps(shown)[1:-1] in texts["report.json"]
    for name, text in texts.items():
        assert not {"\x1b", "\x07"} & set(text), name
    assert r"\input{/etc" not in texts["report.tex"]
    assert "<script>" not in texts["report.md"]

    def columns(markdown: str) -> list[int]:
        table = [line for line in markdown.splitlines() if line.startswith("|")]
        return [len(re.findall(r"(?<!\\)\|", line)) for line in table]

    assert columns(texts["report.md"]) == columns(usual["report.md"])
