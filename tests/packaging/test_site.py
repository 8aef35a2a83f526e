"""The documentation as a site: it builds, every link leads somewhere, and the reference says what the code says."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from b2bench.cli.app import PANELS, POCKET, VOTE
from b2bench.config.settings import Settings
from b2bench.hyperparameters import hyperparameters
from b2bench.store.schema import TABLES

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CONTRIBUTING.md says; strict: a link to no page or no heading is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def headings(page: Path) -> list[str]:
    found = re.findall(r"<h2[^>]*>(.*?)<a", page.read_text(encoding="utf-8"), re.DOTALL)
    return [html.unescape(text).strip() for text in found]


@pytest.mark.slow
def test_the_site_builds_with_every_link_and_a_reference_made_from_the_code(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="architecture.svg"' in start
    assert "<strong>Against vanilla:</strong>" in start
    assert not re.search(r"^\| ddpo", start, re.MULTILINE)  # tables that are folded are tables, too
    assert start.count("<table>") > 5
    assert "&lt;!-- leaderboard" not in start
    commands = [name for panel in PANELS.values() for name in panel]
    commands += [f"vote {name}" for name in VOTE] + [f"pocket {name}" for name in POCKET]
    assert sorted(headings(site / "reference" / "commands.html")) == sorted(f"b2bench {name}" for name in commands)
    assert headings(site / "reference" / "schema.html") == list(TABLES)
    page = site / "reference" / "hyperparameters.html"
    text = page.read_text(encoding="utf-8")
    assert all(f"<code>{p.name}</code>" in text for p in hyperparameters(Settings))
    assert {"algorithm ddpo", "wrapper b2", "reward clipscore"} <= set(headings(page))
    assert "load_results" in headings(site / "reference" / "python.html")
    fetches = re.compile(r'<(?:script|link|img)[^>]*?(?:src|href)="(https?:[^"]*)"')
    assert not [found for page in site.rglob("*.html") for found in fetches.findall(page.read_text("utf-8"))]  # offline
