"""The packages that a number may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "duckdb", "numpy")


def versions() -> dict[str, str]:
    """Versions that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
