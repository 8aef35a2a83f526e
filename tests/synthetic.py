"""Store rows of synthetic runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.tables import tables

START = datetime(2026, 1, 1)


class Rows:
    """Store rows, without a store."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.evals: list[dict[str, Any]] = []
        self.rounds: list[dict[str, Any]] = []

    def add(
        self,
        algorithm: str,
        wrapper: str,
        seed: int,
        values: dict[int, float | None],
        status: str = "done",
        config: dict[str, Any] | None = None,
        budget: int | None = 1000,
        seen: dict[int, float] | None = None,
        heldout: dict[int, float] | None = None,
        entropy: dict[int, float] | None = None,
        style: dict[int, float] | None = None,
        steps: int | None = None,
        **more: Any,
    ) -> str:
        """A run with its test clipscore at each count of queries; ``seen``: that of training prompts.

        ``style``: inception scores; ``steps``: optimizer steps of each of two rounds.
        """
        run_id = f"run{len(self.runs)}"
        config = config or {}
        self.runs.append(
            {
                "run_id": run_id,
                "name": run_id,
                "benchmark_version": "3",
                "algorithm": algorithm,
                "wrapper": wrapper,
                "backbone": "pocket",
                "reward": "clipscore",
                "prompts": "template1",
                "prompts_hash": "abcdef0123",
                "seed": seed,
                "budget": budget,
                "config": {"algorithm": algorithm, "wrapper": wrapper, "seed": seed, "lr": 1e-3, **config},
                "config_hash": f"{algorithm}-{wrapper}-{sorted(config.items())}",
                "finished": START + timedelta(minutes=len(self.runs)),
                "status": status,
            }
            | more
        )
        for queries, value in values.items():
            shared = {"run_id": run_id, "queries": queries, "n": 270, "settings": None}
            self.evals += [
                {**shared, "split": "test", "metric": "clipscore", "value": value},
                {**shared, "split": "train", "metric": "clipscore", "value": (seen or {}).get(queries, 99.0)},
                {**shared, "split": "test", "metric": "clipscore_heldout", "value": (heldout or {}).get(queries, 0.5)},
                {**shared, "split": "test", "metric": "style_entropy", "value": (entropy or {}).get(queries, 1.25)},
                {
                    **shared,
                    "split": "test",
                    "metric": "is_style",
                    "value": (style or {}).get(queries, 3.0),
                    "settings": {"splits": 1, "images": 270, "extractor": "pocket classifier, style"},
                },
            ]
        self.rounds += [
            {
                "run_id": run_id,
                "round": number,
                "queries": 500 * (number + 1),
                "denoiser_calls_sampling": 100,
                "denoiser_calls_training": 50,
                "denoiser_calls_gradient": 30,
            }
            | ({} if steps is None else {"optimizer_steps": steps})
            for number in range(2)
        ]
        return run_id

    def tables(self) -> list[Tables]:
        return tables(self.runs, self.evals, self.rounds)

    def one(self) -> Tables:
        (found,) = self.tables()
        return found
