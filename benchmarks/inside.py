"""How much of a whole run is the denoiser: ``python benchmarks/inside.py --algo ddpo --wrapper vanilla``.

A default run, start-up, evaluations, rewards, store and checkpoints included, in one process with one thread. Its calls
of the denoiser and its backward passes are timed where they are made, in seconds of the CPU, user and system; what is
outside of them is parted by what the run says that it does. ``grid.py`` sets it beside bare calls at their best.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from b2bench.cli.warmed import warm

INSIDE = ("denoiser, forward", "denoiser, backward")
STAGES = {"sampling": "sampling", "optimising": "training", "evaluating": "evaluation", " on ": "reward and store"}


class Clock:
    """CPU seconds by part. A call that is timed is taken out of the part that it is made in."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.part, self.since = "start-up", 0.0  # of the process: imports have been made when this is

    def turn(self, part: str) -> None:
        now = time.process_time()
        self.spent[self.part] += now - self.since
        self.part, self.since = part, now

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return ``call``, counted as ``name`` unless it is made within another one that is counted."""

        @functools.wraps(call)
        def counted(*args: Any, **more: Any) -> Any:
            around = self.part
            if around in INSIDE:
                return call(*args, **more)
            self.turn(name)
            try:
                return call(*args, **more)
            finally:
                self.turn(around)

        return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="ddpo")
    parser.add_argument("--wrapper", default="vanilla")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--queries", type=int, default=2400)
    parser.add_argument("--db", type=Path, help="store that keeps the run, as b2bench run would have made it")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="with --db: folder of its files")
    options = parser.parse_args()
    warm()  # as the command imports
    from b2bench.backbones.stable_diffusion import StableDiffusion
    from b2bench.config.resolve import resolve
    from b2bench.engine import Engine
    from b2bench.store.store import Store
    from b2bench.training.listener import Silent
    from b2bench.training.runs import start
    from b2bench.training.setup import limit_threads

    clock = Clock()
    with tempfile.TemporaryDirectory() as name, Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{options.algo} {options.wrapper}", total=options.queries)

        class Watch(Silent):
            def stage(self, text: str) -> None:
                clock.turn(next((part for word, part in STAGES.items() if word in text), clock.part))

            def round_done(self, *_: Any) -> None:
                progress.advance(task, options.queries / config.rounds)
                clock.turn("reward and store")

        limit_threads(1)
        StableDiffusion._call = clock.timed(StableDiffusion._call, INSIDE[0])  # type: ignore[method-assign]
        Engine.backward = clock.timed(Engine.backward, INSIDE[1])  # type: ignore[method-assign]
        kept = options.db is not None
        store = Store(options.db if kept else Path(name) / "one.duckdb")
        config = resolve(
            algorithm=options.algo, wrapper=options.wrapper, reward="clipscore", backbone="pocket",
            seed=options.seed, queries=options.queries, values={},
        )  # fmt: skip
        run = f"{options.algo}-{options.wrapper}-{options.seed}" if kept else None
        start(config, store, options.out if kept else Path(name), run, Watch())
    clock.turn("end")
    whole = sum(clock.spent.values())
    inside = sum(clock.spent[part] for part in INSIDE)
    table = Table("", "CPU s", "share of the run", box=box.SIMPLE)
    for part, spent in sorted(clock.spent.items(), key=lambda item: (item[0] not in INSIDE, -item[1])):
        table.add_row(part if part in INSIDE else f"outside, {part}", f"{spent:.1f}", f"{spent / whole:.1%}")
    table.add_row("the run", f"{whole:.1f}", "100%")
    console = Console(width=100)
    console.print(table)
    console.print(f"outside of denoiser calls: {1 - inside / whole:.1%} of the run")


if __name__ == "__main__":
    main()
