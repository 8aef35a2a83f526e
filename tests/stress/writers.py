"""Does a crowd lose a row? Many processes write one store while reports are made: ``python tests/stress/writers.py``.

Each writer does with the store what a run of so many rounds does (a row of ``runs``, rounds with 240 queries each,
three evaluations with their images), without training in between: the crowd is as dense as it gets. Printed are the
rows that are missing, what failed, and how long calls waited.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.store.store import Store

QUERIES = 240
PROMPTS = ["a cat riding a bike", "a dog playing chess", "a horse washing dishes"]


def write(path: Path, number: int, rounds: int) -> list[float]:
    """Seconds of every call of one writer."""
    store, run_id, seconds = Store(path), f"run-{number}", []

    def timed(call: Any, *arguments: Any) -> None:
        start = time.perf_counter()
        call(*arguments)
        seconds.append(time.perf_counter() - start)

    identity = {"algorithm": "ddpo", "wrapper": "vanilla", "backbone": "pocket", "reward": "clipscore"}
    cell = {"prompts": "template1", "config": {}, "config_hash": "cell", "budget": rounds * QUERIES, "seed": number}
    timed(store.start_run, {"run_id": run_id, "name": run_id, "benchmark_version": "0", **identity, **cell})
    for round in range(rounds):
        queries = [
            {
                "query_index": round * QUERIES + i, "round": round, "prompt": PROMPTS[i % 3], "group_id": i // 5,
                "leaf": i % 5, "reward": 0.5, "scores": {"clipscore": 0.5}, "advantage": 0.0, "kept": True,
            }
            for i in range(QUERIES)
        ]  # fmt: skip
        timed(store.record_round, run_id, {"round": round, "queries": (round + 1) * QUERIES, "kept": QUERIES}, queries)
        if round % (rounds // 2 or 1) == 0:
            rows = [
                {"queries": round * QUERIES, "split": "test", "metric": f"metric{i}", "value": 0.5, "n": 270}
                for i in range(10)
            ]
            images = [
                {"queries": round * QUERIES, "prompt": PROMPTS[i % 3], "noise_index": i, "score": 0.5}
                for i in range(270)
            ]
            timed(store.record_evals, run_id, rows, images)
    timed(store.finish_run, run_id, "done")
    return seconds


def crowd(writers: int, rounds: int) -> dict[str, Any]:
    """What became of ``writers`` processes of ``rounds`` rounds, and of a report every second meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b2bench.duckdb"
        reports, failed = [], []
        command = [sys.executable, "-m", "b2bench", "report", "--db", str(path), "--json"]
        with multiprocessing.get_context("spawn").Pool(writers) as pool:
            tasks = [pool.apply_async(write, (path, number, rounds)) for number in range(writers)]
            while not all(task.ready() for task in tasks):
                if path.exists():
                    start = time.perf_counter()
                    ended = subprocess.run(command, capture_output=True, text=True)
                    reports.append(time.perf_counter() - start)
                    if ended.returncode:
                        failed.append(ended.stderr)
                    else:
                        json.loads(ended.stdout)
                time.sleep(1)
            seconds = []
            for task in tasks:
                try:
                    seconds += task.get()
                except Exception as error:
                    failed.append(f"{type(error).__name__}: {error}")
        store = Store(path)
        found = {
            table: store.sql(f"SELECT count(*) AS n FROM {table}")[0]["n"]
            for table in ("runs", "rounds", "queries", "evals", "images")
        }
        evaluations = len([round for round in range(rounds) if round % (rounds // 2 or 1) == 0])
        expected = {
            "runs": writers,
            "rounds": writers * rounds,
            "queries": writers * rounds * QUERIES,
            "evals": writers * evaluations * 10,
            "images": writers * evaluations * 270,
        }
        done = store.sql("SELECT count(*) AS n FROM runs WHERE status = 'done'")[0]["n"]
    return {
        "found": found, "expected": expected, "done": done, "failed": failed, "seconds": seconds, "reports": reports,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result, console = crowd(options.writers, options.rounds), Console(highlight=False)
    table = Table("table", "rows expected", "rows found", box=box.SIMPLE)
    for name, expected in result["expected"].items():
        table.add_row(name, f"{expected:,}", f"{result['found'][name]:,}")
    console.print(table)
    seconds, reports = result["seconds"], result["reports"]
    console.print(
        f"{len(seconds)} calls of {options.writers} writers: median {statistics.median(seconds):.2f} s, slowest "
        f"{max(seconds):.1f} s; {len(reports)} reports meanwhile, slowest {max(reports, default=0):.1f} s; "
        f"{len(result['failed'])} errors"
    )
    for error in result["failed"][:5]:
        console.print(error)
    raise SystemExit(bool(result["failed"] or result["found"] != result["expected"]))


if __name__ == "__main__":
    main()
