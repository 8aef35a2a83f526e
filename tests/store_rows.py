"""Rows for stores that tests fill by hand."""

from typing import Any

from b2bench import benchmark_version


def run_row(run_id: str = "a1", **more: Any) -> dict[str, Any]:
    """A run as ``Store.start_run`` takes it; ``more`` replaces or adds columns."""
    return {
        "run_id": run_id,
        "name": f"ddpo-b2-{run_id}",
        "benchmark_version": benchmark_version(),
        "algorithm": "ddpo",
        "wrapper": "b2",
        "backbone": "pocket",
        "reward": "clipscore",
        "prompts": "template1",
        "prompts_hash": "ab",
        "seed": 0,
        "budget": 1000,
        "config": {"lr": 1e-3},
        "config_hash": "cd",
        "versions": {"torch": "2"},
        **more,
    }
