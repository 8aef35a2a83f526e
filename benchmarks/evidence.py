"""How long until a run shows that it learns? ``python benchmarks/evidence.py --jobs 2``.

The wait from Enter to a gain that is five standard errors above zero: CLIPScore on test prompts, each image beside that
of the same prompt and noise before training (``--errors``). A run of each cell and seed is evaluated after each round
on ``--images`` images, and ends there. Counted are start-up, the evaluation of the pretrained model, the rounds, and
one evaluation at the end; those between, which only found out when, are not. Seconds are of the CPU, user and system
time on one thread: what the clock shows on an idle core, and more on a busy machine. ``--jobs`` runs at once, each a
process. Settings are the default ones, but evaluations measure no KL, no inception score and no training prompts.

Five errors are of one run's images: *this* run has moved. Whether the algorithm does takes seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from paired_gain import GAIN
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from b2bench.sweep.plan import parse_list, parse_seeds

PARTS = ("start-up", "sampling", "training", "reward and store", "evaluation")


def watched(options: argparse.Namespace, algorithm: str, wrapper: str, seed: int) -> dict[str, Any]:
    """Make one run in this process, to its evidence or the end of its budget; what it took, by part."""
    from b2bench.cli.warmed import warm

    warm()  # as the command imports
    from b2bench.config.resolve import resolve
    from b2bench.evaluation.evaluate import Evaluation
    from b2bench.store.store import Store
    from b2bench.training.listener import Silent
    from b2bench.training.runs import start
    from b2bench.training.setup import limit_threads

    spent: dict[str, float] = defaultdict(float)
    found: list[dict[str, Any]] = []

    class Clock(Silent):
        """Adds up CPU seconds by what the run says that it does."""

        part, since, run_id = "start-up", 0.0, ""

        def turn(self, part: str) -> None:
            now = time.process_time()
            spent[self.part] += now - self.since
            self.part, self.since = part, now

        def stage(self, text: str) -> None:
            named = {"sampling": "sampling", "optimising": "training", "evaluating": "evaluation", " on ": PARTS[3]}
            self.turn(next((part for word, part in named.items() if word in text), self.part))

        def begins(self, run_id: str) -> None:
            self.run_id = run_id

        def round_done(self, *_: Any) -> None:
            self.turn("reward and store")

        def evaluated(self, queries: int, evaluation: Evaluation) -> None:
            self.turn("reward and store")
            [pair] = store.sql(GAIN, [self.run_id, 0, queries])
            errors = pair["gain"] / pair["error"] if pair["error"] else 0.0
            row = {"queries": queries, "gain": pair["gain"], "errors": errors, "spent": dict(spent)}
            found.append(row)
            print(f"{algorithm} {wrapper} {seed}: {queries} queries, {errors:+.1f} errors", file=sys.stderr, flush=True)
            if errors >= options.errors:
                raise KeyboardInterrupt  # as somebody who has seen enough

    values: dict[str, Any] = {
        "eval_images": options.images,
        "eval_train_images": 0,
        "kl_images": 0,
        "inception": "none",
    }
    values |= dict(text.split("=", 1) for text in options.set)
    limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "one.duckdb")  # of its own: nothing is taken over from another run
        asked = {"algorithm": algorithm, "wrapper": wrapper, "reward": "clipscore", "backbone": "pocket", "seed": seed}
        config = resolve(**asked, queries=options.queries, values=values)
        config = resolve(**asked, queries=options.queries, values=values | {"eval_points": config.rounds + 1})
        with contextlib.suppress(KeyboardInterrupt):
            start(config, store, Path(folder), None, Clock())
    return {"algorithm": algorithm, "wrapper": wrapper, "seed": seed, **counted(found, options.errors)}


def counted(found: Sequence[dict[str, Any]], errors: float) -> dict[str, Any]:
    """What the run took to its evidence or its end, without the evaluations between the first and the last."""
    first, last = found[0]["spent"], found[-1]["spent"]
    before = found[-2]["spent"] if len(found) > 1 else first
    parts = {name: last.get(name, 0.0) for name in PARTS}
    parts["evaluation"] = first["evaluation"] + last["evaluation"] - before["evaluation"]
    end = {name: found[-1][name] for name in ("queries", "gain", "errors")}
    curve = [[row["queries"], row["gain"], row["errors"]] for row in found]
    return {
        **end,
        "shown": found[-1]["errors"] >= errors,
        "seconds": sum(parts.values()),
        "parts": parts,
        "curve": curve,
    }


def apart(options: argparse.Namespace, cell: tuple[str, str, int]) -> dict[str, Any]:
    """Make a run in a process of its own, whose start-up is counted, too."""
    shared = ["--images", options.images, "--queries", options.queries, "--errors", options.errors]
    shared += [part for text in options.set for part in ("--set", text)]
    command = [sys.executable, __file__, "--one", *cell, *shared]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    made = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return dict(json.loads(made.stdout.splitlines()[-1]))


def show(rows: Sequence[dict[str, Any]], errors: float) -> None:
    """Print a line for each run, and one for each cell: the median, where all of its runs show a gain."""
    table = Table("", "seed", f"queries to {errors:g} errors", "CPU s", *PARTS, box=box.SIMPLE, show_edge=False)
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[f"{row['algorithm']} {row['wrapper']}"].append(row)
    for name, runs in cells.items():
        for row in runs:
            queries = str(row["queries"]) if row["shown"] else f"not by {row['queries']} ({row['errors']:+.1f})"
            parts = (f"{row['parts'][part]:.0f}" for part in PARTS)
            table.add_row(name, str(row["seed"]), queries, f"{row['seconds']:.0f}", *parts)
        if len(runs) > 1 and all(row["shown"] for row in runs):
            queries, seconds = (statistics.median(row[what] for row in runs) for what in ("queries", "seconds"))
            table.add_row(name, "median", f"{queries:.0f}", f"{seconds:.0f}", end_section=True)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="ddpo,dpok")
    parser.add_argument("--wrapper", default="vanilla,b2")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--queries", type=int, default=2400, help="budget of a run that shows nothing before")
    parser.add_argument("--images", type=int, default=540, help="test images of each evaluation")
    parser.add_argument("--errors", type=float, default=5.0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures of each run, too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        algorithm, wrapper, seed = options.one
        print(json.dumps(watched(options, algorithm, wrapper, int(seed))))
        return
    algorithms, wrappers = parse_list("algo", options.algo), parse_list("wrapper", options.wrapper)
    cells = [(a, w, s) for s in parse_seeds(options.seeds) for a in algorithms for w in wrappers]
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool, Progress(console=Console(stderr=True)) as progress:
        for row in progress.track(pool.map(lambda cell: apart(options, cell), cells), total=len(cells)):
            rows.append(row)
            if options.json is not None:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(sorted(rows, key=lambda row: (row["algorithm"], row["wrapper"], row["seed"])), options.errors)


if __name__ == "__main__":
    main()
