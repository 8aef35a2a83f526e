"""Entry points of installed packages are read once, and again after one was installed."""

from importlib import metadata
from pathlib import Path

import pytest

from b2bench import installed
from b2bench.registry import Registry


def install(folder: Path, name: str) -> None:
    """Leave what an installer does: a folder of metadata beside the module."""
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text(f"[b2bench.algorithms]\n{name} = {name}:Good\n[other]\nx = y:z\n")


def test_a_package_that_is_installed_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "first" not in Registry("algorithm").names()
    install(tmp_path, "first")
    assert Registry("algorithm").names()[-1] == "first"
    install(tmp_path, "second")
    assert {"first", "second"} <= set(Registry("algorithm").names())
    for group in ("b2bench.algorithms", "b2bench.prompts"):
        expected = {(entry.name, entry.value) for entry in metadata.entry_points(group=group)}
        assert {(entry.name, entry.value) for entry in installed.entry_points(group)} == expected


def test_metadata_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed.entry_points("b2bench.algorithms")
    calls: list[object] = []
    monkeypatch.setattr(metadata, "entry_points", lambda **_: calls.append(1))
    for kind in ("algorithm", "wrapper", "reward"):
        Registry(kind)  # type: ignore[arg-type]
    assert not calls


def test_who_installed_what_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dict(installed.packages_distributions())  # not metadata's: a command of this process may have put it off
    monkeypatch.setattr(metadata, "packages_distributions", metadata.packages_distributions)  # put back at the end
    read: list[object] = []
    monkeypatch.setattr(installed, "packages_distributions", lambda: read.append(1) or expected)
    installed.read_distributions_late()
    found = metadata.packages_distributions()
    assert not read
    assert found["PIL"] == expected["PIL"]
    assert (found.get("no_such_module"), dict(found), len(read)) == (None, dict(expected), 1)
