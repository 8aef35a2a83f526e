"""Does a faster setting learn the same? ``python benchmarks/same_learning.py precision --db b2bench.duckdb``.

Pairs finished runs that differ in the named setting alone (same algorithm, wrapper, prompts, seed, version, ...), and
prints the difference in final alignment on test prompts with its 90% interval over seeds. *The same* is said only
where the whole interval lies within the margin (two one-sided tests at 5%); where it reaches beyond, nothing is shown.
Runs of several stores are brought together by ``b2bench merge``. To make such runs:

    b2bench sweep --algo ddpo --wrapper vanilla --seeds 0-4
    b2bench sweep --algo ddpo --wrapper vanilla --seeds 0-4 --set precision=bf16
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.config.settings import Settings
from b2bench.store.store import Store
from leaderboard.stats import equivalent, paired

METRICS = ("clipscore", "clipscore_heldout", "bertscore", "success")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", metavar="SETTING", choices=[field.name for field in fields(Settings)])
    parser.add_argument("--db", type=Path, default=Path("b2bench.duckdb"))
    parser.add_argument("--margin", type=float, default=0.01)
    options = parser.parse_args()
    store = Store(options.db)
    cells: dict[str, dict[str, dict[int, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    for run in store.runs(status="done"):
        if run["algorithm"] in ("baseline", "external"):
            continue
        config = {name: part for name, part in run["config"].items() if name not in ("seed", "found")}
        settings = dict(config.pop("settings"))
        if options.setting not in settings:  # a baseline, or a run from before there was this setting
            continue
        value = str(settings.pop(options.setting))
        key = json.dumps([config, settings, run["benchmark_version"]], sort_keys=True)
        cells[key][value][run["seed"]] = _last(store, run["run_id"])
    table = Table("", "metric", "seeds", "means", "difference", "90% interval", f"within ±{options.margin:g}")
    table.box, table.show_edge = box.SIMPLE, False
    for key, values in cells.items():
        for one, two in itertools.combinations(sorted(values, reverse=True), 2):
            seeds = sorted(values[one].keys() & values[two].keys())
            for metric in METRICS:
                a, b = ([values[value][seed].get(metric) for seed in seeds] for value in (one, two))
                if len(seeds) > 1 and None not in (*a, *b):
                    table.add_row(*_row(json.loads(key)[0], metric, (one, two), a, b, options.margin))
    Console().print(table if table.rows else f"no runs that differ in {options.setting} alone")


def _row(cell: dict[str, Any], metric: str, names: tuple[str, str], a: Any, b: Any, margin: float) -> list[str]:
    delta = paired(b, a, confidence=0.9)
    same = equivalent(delta, margin)
    means = f"{names[0]} {sum(a) / len(a):.3f}, {names[1]} {sum(b) / len(b):.3f}"
    interval = "-" if delta.low is None or delta.high is None else f"{delta.low:+.4f} to {delta.high:+.4f}"
    verdict = "yes" if same else "not shown"
    name = f"{cell['algorithm']['name']} {cell['wrapper']['name']}"
    return [name, metric, str(len(a)), means, f"{delta.mean:+.4f}", interval, verdict]


def _last(store: Store, run_id: str) -> dict[str, float]:
    """The last evaluation on test prompts."""
    found = [row for row in store.evals(run_id) if row["split"] == "test"]
    end = max(row["queries"] for row in found)
    return {row["metric"]: row["value"] for row in found if row["queries"] == end}


if __name__ == "__main__":
    main()
