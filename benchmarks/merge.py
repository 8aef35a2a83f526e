"""What merging many runs takes, a store a run, as a sweep on a cluster does: ``uv run python benchmarks/merge.py``.

Made-up runs of 2,400 reward queries in ten rounds, with three evaluations of 40 metrics and 270 images, each in a
store of its own, are merged one by one into one store. Printed are, at each count of runs, the store's size, the
seconds of a merge, the seconds that a sweep takes to see what is done, and the peak memory of this process.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.config import resolve
from b2bench.store import Store

QUERIES, ROUNDS = 2400, 10


def fill(path: Path) -> None:
    """A store with run ``run-0``, with the configuration of a real run and prompts of their usual length."""
    config = resolve(
        algorithm="dpok", wrapper="b2", reward="clipscore", backbone="pocket", queries=QUERIES, seed=0, values={}
    )
    store = Store(path)
    store.start_run(
        {
            "run_id": "run-0", "name": "run-0", "benchmark_version": "0", "algorithm": "dpok", "wrapper": "b2",
            "backbone": "pocket", "reward": "clipscore", "prompts": "template1", "prompts_hash": "0" * 64, "seed": 0,
            "budget": QUERIES, "config": config.as_dict(), "config_hash": "cell", "versions": {"torch": "2"},
        }
    )  # fmt: skip
    metrics = [
        {
            "queries": QUERIES * point // 2, "split": split, "metric": f"metric_{i}", "value": 0.5 + i / 7, "n": 270,
            "settings": {"standard_error": 0.01 * i},
        }
        for point in range(3)
        for split in ("test", "train")
        for i in range(20)
    ]  # fmt: skip
    store.record_evals("run-0", metrics)
    store.finish_run("run-0", "done")
    per_round = QUERIES // ROUNDS
    with duckdb.connect(str(path)) as con:
        con.execute(
            f"""INSERT INTO queries SELECT 'run-0', i, i // {per_round}, 'a cat riding a bike ' || i % 45,
            i % {per_round} // 5, i % 5, random(), json_object('clipscore', random()), random(), random() < 0.4
            FROM range({QUERIES}) a(i)"""
        )
        con.execute(
            f"""INSERT INTO rounds SELECT 'run-0', i, {per_round} * (i + 1), 0, 20, 96, 48, random(),
            random(), random(), random(), random(), 4800, 3800, random(), 900 FROM range({ROUNDS}) a(i)"""
        )
        con.execute(
            f"""INSERT INTO images SELECT 'run-0', {QUERIES // 2} * p, 'a cat riding a bike ' || i % 45, i,
            random(), NULL FROM range(3) b(p), range(270) c(i)"""
        )


def rename(path: Path, number: int) -> None:
    """Make of ``run-0`` another run."""
    with duckdb.connect(str(path)) as con:
        for table in ("runs", "queries", "rounds", "evals", "images"):
            con.execute(f"UPDATE {table} SET run_id = ?", [f"run-{number}"])
        con.execute("UPDATE runs SET seed = ?", [number])


def seconds_to_look(store: Store) -> float:
    """As a sweep does, that knows a run by its cell and its seed."""
    start = time.perf_counter()
    store.sql("SELECT run_id, config_hash, seed, status FROM runs WHERE benchmark_version = ?", ["0"])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 100, 400], help="counts at which to print")
    options = parser.parse_args()
    table = Table("runs", box=box.SIMPLE)
    for name in ("store MiB", "bytes a query row", "merge s, last 20", "all merges s", "look s", "peak MiB"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        model, one, target = (
            Path(folder) / "model.duckdb",
            Path(folder) / "one.duckdb",
            Store(Path(folder) / "all.duckdb"),
        )
        fill(model)
        alone = model.stat().st_size
        seconds: list[float] = []
        for number in range(1, max(options.runs) + 1):
            shutil.copy(model, one)
            rename(one, number)
            start = time.perf_counter()
            target.merge(one)
            seconds.append(time.perf_counter() - start)
            if number in options.runs:
                size = target.path.stat().st_size
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
                    2**20 if sys.platform == "darwin" else 2**10
                )
                table.add_row(
                    f"{number:,}", f"{size / 2**20:.1f}", f"{size / number / QUERIES:.0f}",
                    f"{statistics.median(seconds[-20:]):.3f}", f"{sum(seconds):.1f}", f"{seconds_to_look(target):.3f}",
                    f"{peak:.0f}",
                )  # fmt: skip
    console = Console(highlight=False)
    console.print(f"a store of one run of {QUERIES:,} queries: {alone / 2**20:.1f} MiB")
    console.print(table)


if __name__ == "__main__":
    main()
