"""How long a report of a large store takes, and how much memory: ``uv run python benchmarks/report.py``.

A made-up store: 200 runs (four algorithms under four wrappers, 12 or 13 seeds each) of 5,000 reward queries each,
1,000,000 rows in all, with 20 rounds, 11 evaluations of 40 metrics and 270 images an evaluation; one cell collapses.
Each format is written by a process of its own, start and imports included. ``--beside FOLDER`` is a checkout of another
commit, whose reports take turns with these, and must be the same to the byte.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.store.store import Store

HERE = Path(__file__).parents[1]
ALGORITHMS, WRAPPERS = ("ddpo", "pg", "dpo", "dpok"), ("vanilla", "bpt", "bs", "b2")
METRICS = ("clipscore", "clipscore_heldout", "success", "style_entropy", "pairwise_distance", "kl_pretrained")
FORMATS = ("terminal", "markdown", "html", "json", "csv", "latex")


def fill(path: Path, runs: int, queries: int) -> None:
    """Runs through the store's own methods, their queries and images by SQL."""
    store, drawn = Store(path), random.Random(0)
    cells = list(itertools.product(ALGORITHMS, WRAPPERS))
    for number in range(runs):
        (algorithm, wrapper), seed = cells[number % len(cells)], number // len(cells)
        run_id = f"run-{number}"
        shared = {"backbone": "pocket", "reward": "clipscore", "prompts": "template1", "prompts_hash": "0" * 16}
        store.start_run(
            shared
            | {"run_id": run_id, "name": run_id, "algorithm": algorithm, "wrapper": wrapper, "seed": seed}
            | {"benchmark_version": "0", "budget": queries, "config_hash": f"{algorithm}-{wrapper}"}
            | {"config": {"algorithm": {"name": algorithm}, "wrapper": {"name": wrapper}, "settings": {"lr": 1e-3}}}
        )
        gain = drawn.gauss(0.01 * cells.index((algorithm, wrapper)), 0.01)
        if cells.index((algorithm, wrapper)) == 0:  # a cell that collapses: figures then have a second panel
            gain -= 5.0
        rows: list[dict[str, Any]] = [
            {
                "queries": queries * point // 10, "split": split, "metric": metric, "n": 270,
                "value": 0.6 + gain * point / 10 + drawn.gauss(0, 0.002), "settings": {"standard_error": 0.002},
            }
            for point in range(11)
            for split in ("test", "train")
            for metric in (*METRICS, *(f"style_{i}" for i in range(14)))
        ]  # fmt: skip
        store.record_evals(run_id, rows)
        store.finish_run(run_id, "done")
    with duckdb.connect(str(path)) as con:
        con.execute(
            f"""INSERT INTO queries SELECT 'run-' || r, q, q // {queries // 20}, 'a cat riding a bike', q // 5, q % 5,
            random(), '{{"clipscore": 0.5}}', random(), true FROM range({runs}) a(r), range({queries}) b(q)"""
        )
        con.execute(
            f"""INSERT INTO rounds (run_id, round, queries, denoiser_calls_sampling, denoiser_calls_training, seconds)
            SELECT 'run-' || r, k, {queries // 20} * (k + 1), 5000, 5000, 10 FROM range({runs}) a(r), range(20) b(k)"""
        )
        con.execute(
            f"""INSERT INTO images SELECT 'run-' || r, {queries // 10} * p, 'a cat riding a bike', i, random(), NULL
            FROM range({runs}) a(r), range(11) b(p), range(270) c(i)"""
        )


def measured(arguments: list[str], checkout: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of a command of the b2bench in ``checkout``; it prints to ``out``.

    Figures are drawn in processes of their own, one a core: the peak is that of the largest process, not of all.
    """
    script = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        f"subprocess.run(sys.argv[1:], check=True, stdout=open({str(out)!r}, 'w'))\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss]))"
    )
    command = [sys.executable, "-c", script, sys.executable, "-m", "b2bench", *arguments]
    # as users have it: with byte code kept from the first run
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(checkout)
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=out.parent)
    seconds, used, peak = json.loads(ended.stdout)
    return seconds, used, peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--beside", type=Path, help="checkout of another commit, to compare with")
    options = parser.parse_args()
    console = Console()
    checkouts = [path.resolve() for path in (HERE, options.beside) if path is not None]
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "large.duckdb"
        start = time.perf_counter()
        fill(db, options.runs, options.queries)
        rows = options.runs * options.queries
        console.print(f"{rows:,} query rows of {options.runs} runs, {db.stat().st_size / 2**20:.0f} MiB, made in "
                      f"{time.perf_counter() - start:.0f} s")  # fmt: skip
        columns = [f"{path.name}: {what}" for path in checkouts for what in ("s", "CPU s", "MiB")]
        table = Table("report, best of all", *columns, box=box.SIMPLE)
        for name in options.formats:
            found: dict[Path, list[tuple[float, float, float]]] = {path: [] for path in checkouts}
            written = set()
            for _ in range(options.repetitions):
                for path in checkouts:
                    out = Path(folder) / f"report.{name}"
                    found[path].append(measured(["report", "--db", str(db), "--format", name], path, out))
                    written.add(out.read_bytes())
            if len(written) > 1:
                sys.exit(f"reports in {name} differ")
            rows = [(min(s for s, _, _ in f), min(s for _, s, _ in f), max(m for *_, m in f)) for f in found.values()]
            table.add_row(name, *(text for s, cpu, peak in rows for text in (f"{s:.2f}", f"{cpu:.2f}", f"{peak:.0f}")))
        console.print(table)


if __name__ == "__main__":
    main()
