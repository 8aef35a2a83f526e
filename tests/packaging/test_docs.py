"""What the pages say about the tree is true of the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = "b2bench|algorithms|benchmarks|docs|examples|leaderboard|prompts|rewards|tests|tools"
PATH = re.compile(rf"(?<![./-])(?:{TOP})/[\w./-]*")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PAGES = [*(page.name for page in ROOT.glob("*.md")), *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
STRUCTURE = ("docs/architecture.md", "docs/architecture.svg", "docs/design.md", "docs/security.md")


def paths(text):
    """Paths of the repository in ``text``; what stands behind a dot, a slash or a dash is another path or a URL."""
    return {match[0].rstrip(".") for match in PATH.finditer(text)}


@pytest.mark.parametrize("page", STRUCTURE)
def test_every_path_that_a_page_names_exists(page):
    named = paths((ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


def test_the_folders_of_the_package_are_all_on_the_page():
    named = paths((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    plugins = {"algorithms", "leaderboard", "prompts", "rewards"}
    rooms = {f"b2bench/{path.name}/" for path in (ROOT / "b2bench").iterdir() if path.is_dir()}
    rooms -= {f"b2bench/{name}/" for name in (*plugins, "__pycache__")}
    assert rooms <= named


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    file = ROOT / page
    links = LINK.findall(file.read_text(encoding="utf-8"))
    assert not [link for link in links if not (file.parent / link).exists()]
