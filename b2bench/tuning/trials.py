"""What the store says of tuning runs: their rewards at the start and at the end, and the code that they ran on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from b2bench.leaderboard.collapse import limit_of
from b2bench.leaderboard.tuning import Trial
from b2bench.store.store import Store
from b2bench.version import benchmark_version

ENDED = ("done", "failed")


def trials_of(store: Store, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Trial]:
    """Return what came of runs that have ended, by the hash of their cell and their seed; of several, the one done."""
    if not store.path.exists():
        return {}
    rows = store.sql(
        "SELECT run_id, config_hash, seed, status, reward FROM runs WHERE benchmark_version = ? "
        "AND list_contains(?, config_hash) AND list_contains(?, status) ORDER BY status = 'done', started, run_id",
        [benchmark_version(), sorted({cell for cell, _ in wanted}), list(ENDED)],
    )
    ended = {key: row for row in rows if (key := (row["config_hash"], row["seed"])) in wanted}
    rounds: dict[str, list[tuple[float, int]]] = {row["run_id"]: [] for row in ended.values()}
    spreads: dict[str, list[float]] = {run_id: [] for run_id in rounds}
    sums = store.sql(
        "SELECT run_id, round, sum(reward) AS total, count(*) AS n, "
        "stddev_samp(reward) AS spread FROM queries WHERE list_contains(?, run_id) "
        "GROUP BY run_id, round ORDER BY run_id, round",
        [sorted(rounds)],
    )
    for row in sums:
        rounds[row["run_id"]].append((math.nan if row["total"] is None else row["total"], row["n"]))
        if row["round"] == 0 and row["spread"] is not None:  # of the pretrained model's images
            spreads[row["run_id"]].append(row["spread"])
    return {
        key: _trial(row, rounds[row["run_id"]], limit_of(row["reward"], spreads[row["run_id"]]))
        for key, row in ended.items()
    }


def _trial(row: Mapping[str, Any], rounds: Sequence[tuple[float, int]], limit: float | None) -> Trial:
    """Return what a run's rounds say, each the sum of its rewards and their number; below ``limit`` it collapsed."""

    def mean(of: Sequence[tuple[float, int]]) -> float | None:
        value = sum(total for total, _ in of) / sum(n for _, n in of) if of else math.nan
        return value if math.isfinite(value) else None

    queries = sum(n for _, n in rounds)
    return Trial(mean(rounds[:1]), mean(rounds[-2:]), queries, row["status"] == "failed", row["run_id"], limit)


def code_of(store: Store, run_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the versions of b2bench and the commits that runs were made with."""
    rows = store.sql(
        "SELECT DISTINCT \"commit\", versions->>'b2bench' AS package FROM runs WHERE list_contains(?, run_id)",
        [sorted(run_ids)],
    )
    return {
        "b2bench": sorted({row["package"] for row in rows if row["package"]}),
        "commits": sorted({row["commit"] for row in rows if row["commit"]}),
    }
