"""Where the plugin folders are: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def plugin_path(path: Iterable[str], name: str) -> list[str]:
    """Extend ``path`` of package ``b2bench.NAME`` by the checkout's top-level folder NAME, if there is one.

    A wheel maps the folders into the package, so that no generic name lands in site-packages.
    """
    root = Path(__file__).parents[1]
    folder = root / name.rpartition(".")[2]
    checkout = (root / "pyproject.toml").exists() and folder.is_dir()
    return [*path, str(folder)] if checkout else list(path)


def install_extra(name: str) -> str:
    """Return the command that installs an extra: of the checkout that runs, or by the package's name."""
    root = Path(__file__).parents[1]
    checkout = (root / "pyproject.toml").exists()
    return f"uv pip install -e '{root}[{name}]'" if checkout else f"pip install 'b2bench[{name}]'"


PICTURE = "before_after.png"
"""Name of the picture that a run leaves in its folder"""
