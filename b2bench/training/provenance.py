"""Where a number comes from: the packages that it may depend on, the commit, the device."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import b2bench.version
from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.config.run import RunConfig
from b2bench.training.inputs import digests

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "duckdb", "numpy")


def versions() -> dict[str, str]:
    """Versions that a number may depend on, and the one of b2bench, on which none does: what is its provenance."""
    return {"b2bench": b2bench.version.__version__, **numeric_versions()}


@cache
def numeric_versions() -> Mapping[str, str]:
    """Versions that a number may depend on: of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Return the commit of the checkout that b2bench runs from, ``-dirty`` if it has changes; None once installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        # a tag would stand for the commit, which another clone needs not have
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def run_row(
    config: RunConfig, run_id: str, name: str | None, policy: StableDiffusion, processes: int = 1
) -> dict[str, Any]:
    """Return the row of table ``runs``; its configuration says what lay where weights were found."""
    content, weights = config.as_dict(), digests(config)
    if weights:
        content["found"] = content["found"] | {"weights": weights}
    return {
        "run_id": run_id,
        "name": name or run_id,
        "benchmark_version": b2bench.version.benchmark_version(),
        "algorithm": config.algorithm_name,
        "wrapper": config.wrapper_name,
        "backbone": config.backbone.name,
        "reward": config.reward_name,
        "prompts": config.prompts.name,
        "prompts_hash": config.prompts.content_hash,
        "seed": config.seed,
        "budget": config.queries,
        "config": content,
        "config_hash": config.cell_hash(),
        "versions": versions(),
        "commit": commit(),
        "device": str(policy.device) if processes == 1 else f"{policy.device.type} x {processes}",
        "threads": policy.threads.count,
    }
