"""The packages that a number may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import b2bench

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "duckdb", "numpy")


def versions() -> dict[str, str]:
    """Versions that a number may depend on, and the one of b2bench, on which none does: what is its provenance."""
    return {"b2bench": b2bench.__version__, **numeric_versions()}


def numeric_versions() -> dict[str, str]:
    """Versions that a number may depend on: of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
