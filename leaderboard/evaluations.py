"""Evaluations of one run beside each other: those between its first and its last may be of fewer images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]


def comparable(evals: Iterable[Row]) -> list[Row]:
    """Rows of table ``evals``, where a value of fewer images than the run's start had is put on all of its images.

    Such an evaluation drew the first of the start's images again, and the start says in its settings what each metric
    was on these alone (``first``). The value becomes the start's plus the change on the images that both drew. So a
    curve shows no step where only the images differ; and inception scores and diversity, which depend on how many
    images there are, change by what was seen on equally many. ``n`` stays what was drawn.
    """
    rows = list(evals)
    starts = {_series(row): row for row in rows if row["queries"] == 0}
    return [_on_all_images(row, starts.get(_series(row))) for row in rows]


def _series(row: Row) -> tuple[Any, ...]:
    return row["run_id"], row["split"], row["metric"]


def _on_all_images(row: Row, start: Row | None) -> Row:
    if start is None or row["value"] is None or start["value"] is None:
        return row
    first = (start["settings"] or {}).get("first")
    if not isinstance(first, Mapping) or row["n"] != first.get("images") or row["n"] == start["n"]:
        return row
    of_first = first.get("value")
    if not isinstance(of_first, int | float) or not math.isfinite(of_first):  # null: a metric that few images lack
        return row
    return {**row, "value": start["value"] + (row["value"] - of_first)}
