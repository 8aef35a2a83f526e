"""What is said of a run at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the door has Summary without DuckDB
    from b2bench.store.store import Store

LORA_FILE = "pytorch_lora_weights.safetensors"
"""Name of the trained weights in a run's folder; diffusers' ``load_lora_weights`` looks for it"""


@dataclass(frozen=True)
class Summary:
    """What a finished run says of itself, as ``b2bench run --json`` prints it.

    ``before`` and ``after`` map metric -> value on test prompts, at the first evaluation and at the last; a value is
    nan where there were too few images for it. ``queries`` are the reward queries of the whole run; ``seconds`` and
    ``queries_per_second`` are of the process that finished it, which may have resumed it. ``weights`` is the file of
    the LoRA weights, ``db`` that of the store.
    """

    run_id: str
    queries: int
    seconds: float
    queries_per_second: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    weights: str
    db: str


def summary(store: Store, run_id: str, folder: Path, *, queries: int, made: int, seconds: float) -> Summary:
    """Return the summary of a run that has ended, from its evaluations in the store.

    ``folder`` is the run's, ``queries`` are its reward queries, and ``made`` those of them that took ``seconds``.
    """
    rows = [row for row in store.evals([run_id]) if row["split"] == "test"]

    def at(queries: int) -> dict[str, float]:
        return {row["metric"]: row["value"] for row in rows if row["queries"] == queries}

    points = sorted({row["queries"] for row in rows}) or [0]
    return Summary(
        run_id=run_id,
        queries=queries,
        seconds=seconds,
        queries_per_second=made / seconds if seconds else math.nan,
        before=at(points[0]),
        after=at(points[-1]),
        weights=str(folder / LORA_FILE),
        db=str(store.path),
    )


def summary_again(store: Store, run: Mapping[str, Any], out: Path) -> Summary:
    """Return the summary of a run that was finished before, by its row of table ``runs``.

    Its seconds are those between its start and its end, pauses included. ``out`` is the folder of the run folders.
    """
    seconds = (run["finished"] - run["started"]).total_seconds()
    run_id, queries = run["run_id"], run["budget"]
    return summary(store, run_id, out / run_id, queries=queries, made=queries, seconds=seconds)
