"""Did a run learn? Gain on test prompts, paired by prompt and noise: ``python benchmarks/paired_gain.py [RUN ...]``.

The evaluations of a run draw the same prompts with the same noise, so the gain is a mean of differences by image, of
the ``n`` images that the first evaluation and a later one have in common. Its standard error is over images of one run:
it says whether this run moved, not whether the algorithm would with another seed (that takes seeds, see ``b2bench
report``). ``in s.e.``: the gain in standard errors; ``entropy``: of the styles in the images, where the backbone has
styles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from b2bench.leaderboard.evaluations import comparable
from rich import box
from rich.console import Console
from rich.table import Column, Table

from b2bench.store.store import Store

GAIN = """
select count(*) as n, avg(b.score - a.score) as gain, stddev_samp(b.score - a.score) / sqrt(count(*)) as error
from images a join images b using (run_id, prompt, noise_index)
where run_id = ? and a.queries = ? and b.queries = ?
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="run ids, names or prefixes; all finished runs if left out")
    parser.add_argument("--db", type=Path, default=Path("b2bench.duckdb"))
    options = parser.parse_args()
    store = Store(options.db)
    rows = [store.find_run(text) for text in options.runs] or store.runs(status="done")
    headings = ("run", "queries", "n", "gain", "in s.e.", "success", "entropy", "held-out")
    table = Table(
        *(Column(heading, no_wrap=True) for heading in headings), box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False
    )
    for row in rows:
        evals = [e for e in comparable(store.evals([row["run_id"]])) if e["split"] == "test"]
        points = sorted({e["queries"] for e in evals})
        if len(points) < 2:
            continue
        value = {(e["queries"], e["metric"]): e["value"] for e in evals}
        for point in points[1:]:
            found = store.sql(GAIN, [row["run_id"], points[0], point])[0]
            gain, error = found["gain"], found["error"]
            changes = []
            for metric in ("success", "style_entropy", "clipscore_heldout"):
                before, after = value.get((points[0], metric)), value.get((point, metric))
                changes.append("-" if before is None or after is None else f"{before:.2f}→{after:.2f}")
            in_errors = f"{gain / error:+.1f}" if error else "-"
            cell = f"{row['algorithm']} {row['wrapper']} {row['seed']}"
            table.add_row(cell, str(point), str(found["n"]), f"{gain:+.3f}", in_errors, *changes)
    wide = Console()
    Console(width=max(wide.width, 120)).print(table)  # of a cut number nobody has anything


if __name__ == "__main__":
    main()
