"""What a store of thousands of runs takes, and a merge into it: ``uv run python benchmarks/merge.py``.

Made-up runs of 2,400 reward queries in ten rounds, with three evaluations of 40 metrics and 270 images. The store is
grown by SQL; its last runs are merged as a sweep on a cluster does, each from a store of its own. Printed are, at each
count of runs, the store's size, the median seconds of a merge, the seconds in which a sweep sees what is done, and the
peak memory of this process in merging.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.store.schema import RUN_TABLES
from b2bench.store.store import Store
from b2bench.training.peak import process_peak

QUERIES, ROUNDS = 2400, 10


def fill(path: Path) -> None:
    """A store with run ``run-0``, with the configuration of a real run and prompts of their usual length."""
    from b2bench.config.resolve import resolve  # imports torch, which merging does not need

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
        for table in RUN_TABLES:
            con.execute(f"UPDATE {table} SET run_id = ?", [f"run-{number}"])
        con.execute("UPDATE runs SET seed = ?", [number])


def grow(path: Path, model: Path, first: int, stop: int) -> None:
    """Insert runs ``first`` to ``stop`` - 1, a hundred at a time, so that their rows lie together.

    They are the model's with other scores: equal numbers would be compressed as real ones are not.
    """
    others = {
        "runs": ", r AS seed",
        "queries": ", random() AS reward, json_object('clipscore', random()) AS scores, random() AS advantage",
        "evals": ", random() AS value",
        "images": ", random() AS score",
        "rounds": "",
    }
    Store(path).merge(model)
    with duckdb.connect(str(path), config={"threads": "1"}) as con:
        con.execute(f"ATTACH '{model}' AS model (READ_ONLY)")
        for start in range(first, stop, 100):
            for table in RUN_TABLES:
                con.execute(
                    f"INSERT INTO {table} SELECT t.* REPLACE ('run-' || r AS run_id{others[table]}) "
                    f"FROM range({start}, {min(start + 100, stop)}) a(r), model.{table} t ORDER BY r"
                )


def seconds_to_look(store: Store) -> float:
    """As a sweep does, that knows a run by its cell and its seed."""
    start = time.perf_counter()
    store.sql("SELECT run_id, config_hash, seed, status FROM runs WHERE benchmark_version = ?", ["0"])
    return time.perf_counter() - start


def merge(path: Path, model: Path, first: int, stop: int) -> None:
    """Merge runs ``first`` to ``stop`` - 1 one by one; prints the median seconds, and this process's peak MiB."""
    one, seconds = path.with_name("one.duckdb"), []
    for number in range(first, stop):
        shutil.copy(model, one)
        rename(one, number)
        start = time.perf_counter()
        Store(path).merge(one)
        seconds.append(time.perf_counter() - start)
    print(json.dumps([statistics.median(seconds), process_peak()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 100, 400], help="counts at which to measure")
    parser.add_argument("--merges", type=int, default=10, help="merges at each count")
    options = parser.parse_args()
    table = Table("runs", box=box.SIMPLE)
    for name in ("query rows", "store MiB", "bytes a query row", "merge s", "look s", "peak MiB"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        model, target = Path(folder) / "model.duckdb", Path(folder) / "all.duckdb"
        fill(model)
        there = 1  # the model itself
        for count in sorted(options.runs):
            grow(target, model, there, count - options.merges)
            # in a process of its own: what merging needs, without what growing took
            script = f"import merge; merge.merge(merge.Path({str(target)!r}), merge.Path({str(model)!r}), "
            script += f"{count - options.merges}, {count})"
            command = [sys.executable, "-c", script]
            ended = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
            seconds, peak = json.loads(ended.stdout)
            there, size = count, target.stat().st_size
            table.add_row(
                f"{count:,}", f"{count * QUERIES:,}", f"{size / 2**20:.0f}", f"{size / count / QUERIES:.0f}",
                f"{seconds:.2f}", f"{seconds_to_look(Store(target)):.2f}", f"{peak:.0f}",
            )  # fmt: skip
        console = Console(highlight=False)
        console.print(f"a store of one run of {QUERIES:,} queries: {model.stat().st_size / 2**20:.1f} MiB")
        console.print(table)


if __name__ == "__main__":
    main()
