"""Which effects would the planned runs show? ``python benchmarks/detectable.py [--db STORE] [--only TEXT]``.

It prints, as Markdown, the spread over seeds that was measured and the smallest true contrasts that five and ten seeds
find in four experiments of five. Without ``--db`` the values are those of results/seed_spread.csv. With it they are
those of a store, and ``--out`` writes them as such a file. docs/preregistration.md has what it printed.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from b2bench.leaderboard.contrasts import CONTRASTS
from b2bench.leaderboard.power import Spread, least_effect, pooled, spreads
from b2bench.leaderboard.stats import ALPHA, LOOK

from b2bench.describe.tables import tables_of
from b2bench.store.store import Store

MEASURED = Path(__file__).parent / "results" / "seed_spread.csv"
LEVELS = {"one test, 5%": (1, ALPHA), "hardest of 56, 5%": (56, ALPHA), "hardest of 56, each of two looks": (56, LOOK)}


def read(path: Path) -> list[Spread]:
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values[row["cell"]].append((float(row["area"]), float(row["end"])))
    return [Spread(cell, *map(tuple, zip(*rows, strict=True))) for cell, rows in values.items()]


def write(path: Path, found: list[Spread]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cell", "area", "end"])
        for spread in found:
            writer.writerows([spread.cell, repr(a), repr(e)] for a, e in zip(spread.areas, spread.ends, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, help="store to measure in  [results/seed_spread.csv]")
    parser.add_argument("--out", type=Path, help="CSV file to write what was measured to")
    parser.add_argument("--only", default="", help="use cells whose line has this text: template1")
    parser.add_argument("--without", default="", help="leave out cells whose line has this text: the hash of one")
    parser.add_argument("--at-least", type=int, default=2, help="use cells with so many seeds or more  [2]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10])
    options = parser.parse_args()
    found = read(MEASURED) if options.db is None else spreads(tables_of(Store(options.db)))
    if options.out is not None:
        write(options.out, found)
    found = [spread for spread in found if options.only in spread.cell and len(spread.areas) >= options.at_least]
    if options.without:
        found = [spread for spread in found if options.without not in spread.cell]
    if not found:
        parser.error(f"no cell of {options.at_least} seeds or more is left, with {options.only!r} in its line")
    print("| cell | seeds | area of gain: mean, sd | gain at the end: mean, sd |\n|---|---:|---:|---:|")
    for spread in found:
        numbers = [f"{sum(v) / len(v):+.4f}, {pooled([v])[0]:.4f}" for v in (spread.areas, spread.ends)]
        print(f"| {spread.cell} | {len(spread.areas)} | {numbers[0]} | {numbers[1]} |")
    for name, samples in (("area of gain", [s.areas for s in found]), ("gain at the end", [s.ends for s in found])):
        sd, df = pooled(samples)
        print(f"\nLeast effect in the {name}; pooled standard deviation {sd:.4f} ({df} degrees of freedom)\n")
        print(f"| contrast | seeds | {' | '.join(LEVELS)} |\n|---|---:|{'---:|' * len(LEVELS)}")
        for contrast in CONTRASTS:
            for seeds in options.seeds:
                least = [least_effect(sd, contrast, seeds, *level) for level in LEVELS.values()]
                print(f"| {contrast} | {seeds} | {' | '.join('-' if v is None else f'{v:.4f}' for v in least)} |")


if __name__ == "__main__":
    main()
