"""Packages that offer plugins and backbones: what a command imports of them, and what they can spoil."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from b2bench.backbones.specs import backbones

PACKAGE = """
[b2bench.algorithms]
theirs = {module}:Theirs
[b2bench.wrappers]
around = {module}:Around
[b2bench.rewards]
liked = {module}:Liked
[b2bench.backbones]
drawn = {module}:DRAWN
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package of this source, as an installer does, and work in an empty folder."""
    place, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def install(source: str) -> None:
        metadata = place / "theirs-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(PACKAGE.format(module="offered_by_others"))
        (place / "offered_by_others.py").write_text(source)
        monkeypatch.delitem(sys.modules, "offered_by_others", raising=False)
        monkeypatch.syspath_prepend(place)

    return install


BROKEN = "raise RuntimeError('no such driver')\n"
CELL = ("--algo", "ddpo", "--wrapper", "vanilla", "--backbone", "pocket")


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", *CELL, "--dry-run"),
        ("sweep", "--algo", "paper", "--wrapper", "paper", "--dry-run"),
        ("tune", *CELL, "--dry-run"),
        ("estimate", *CELL),
        ("show", "ddpo"),
        ("show", "pocket"),
        ("show", "settings"),
        ("ls", "prompts"),
    ],
    ids=" ".join,
)
def test_what_is_not_named_is_not_imported(
    command: tuple[str, ...], installed: Callable[[str], None], b2bench: Callable[..., Any]
) -> None:
    installed(BROKEN)
    done = b2bench(*command)
    assert done.code == 0, done.stderr
    assert "offered_by_others" not in sys.modules
    assert "no such driver" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "--algo", "theirs", "--wrapper", "vanilla", "--dry-run"),
        ("sweep", "--algo", "all", "--wrapper", "vanilla", "--dry-run"),
        ("sweep", "--algo", "ddpo", "--wrapper", "all", "--dry-run"),
        ("tune", "--algo", "ddpo", "--wrapper", "all", "--dry-run"),
        ("run", "--algo", "ddpo", "--reward", "liked"),
        ("run", "--algo", "ddpo", "--backbone", "drawn"),
    ],
    ids=" ".join,
)
def test_what_is_named_and_does_not_import_is_said(
    command: tuple[str, ...], installed: Callable[[str], None], b2bench: Callable[..., Any]
) -> None:
    installed(BROKEN)
    done = b2bench(*command)
    assert (done.code, done.stdout) == (2, "")
    assert "no such driver" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (BROKEN, "cannot be loaded: RuntimeError: no such driver"),
        ("import sys\nsys.exit()\n", "cannot be loaded: SystemExit"),
        ("DRAWN = 'a folder'\n", "is not a Backbone"),
    ],
    ids=["raises", "exits", "no backbone"],
)
def test_a_backbone_of_another_package_is_imported_when_it_is_looked_up(
    source: str, reason: str, installed: Callable[[str], None]
) -> None:
    installed(source)
    found = backbones()
    assert {"pocket", "sd14", "drawn"} == set(found)
    assert found["pocket"].is_pocket
    assert found.get("drawn ") is None
    assert "drawn" in found
    assert "offered_by_others" not in sys.modules
    assert reason in found["drawn"].broken
    assert found["drawn"] is found["drawn"]


def test_a_backbone_of_another_package_is_used(installed: Callable[[str], None]) -> None:
    installed("from b2bench import Backbone\nDRAWN = Backbone('drawn', 'owner/name', 'theirs', guidance=3.0)\n")
    assert (backbones()["drawn"].guidance, len(backbones())) == (3.0, 3)
