"""Memory and disk of a long run: 200 small rounds of pocket, and what a process and its files take on the way.

    uv run python benchmarks/long_run.py [--rounds 200]

Every round does all that a round of a run does: sampling, reward, update, store and checkpoint. Memory is what the
process holds (resident), after a collection of garbage and after glibc gave back what is free. A line is fitted to it
over the second half of the rounds, because the first ones fill caches; its slope says what 1,000 rounds would add.
"""

from __future__ import annotations

import argparse
import ctypes.util
import gc
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from b2bench.config.resolve import resolve
from b2bench.store.store import Store
from b2bench.training.provenance import run_row
from b2bench.training.trainer import Trainer

PER_ROUND, STEPS = 10, 2
console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--algo", default="dpok")
    parser.add_argument("--wrapper", default="b2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = resolve(
        algorithm=options.algo,
        wrapper=options.wrapper,
        reward="clipscore",
        backbone="pocket",
        queries=PER_ROUND * options.rounds,
        seed=0,
        values={
            "draws": PER_ROUND // 5,
            "steps": STEPS,
            "equal": "steps",
            "optimizer_steps": 2,
            "eval_images": 4,
            "eval_train_images": 0,
            "kl_images": 0,
        },
    )
    with tempfile.TemporaryDirectory() as place:
        store, folder = Store(Path(place) / "b2bench.duckdb"), Path(place) / "run"
        folder.mkdir()
        trainer = Trainer(config, "long", store, folder)
        store.start_run(run_row(config, "long", None, trainer.policy))
        every = max(1, options.rounds // 20)
        found: list[tuple[int, float, float, float]] = []
        for number in track(range(1, options.rounds + 1), "rounds", console=console):
            trainer._round()
            if number % every == 0:
                memory = _resident()
                found.append((number, memory, store.path.stat().st_size / 2**10, _size(folder) / 2**10))
    table = Table("round", "reward queries", "memory (MiB)", "store (KiB)", "run folder (KiB)", box=box.SIMPLE)
    for number, memory, stored, kept in found:
        table.add_row(str(number), f"{number * PER_ROUND:,}", f"{memory:.0f}", f"{stored:,.0f}", f"{kept:,.0f}")
    console.print(table)
    half = np.array(found[len(found) // 2 :])
    slope = np.polyfit(half[:, 0], half[:, 1], 1)[0]
    console.print(f"memory: {1000 * slope:+.1f} MiB in 1,000 rounds by the second half of these, fitted")


def _resident() -> float:
    """MiB of this process that hold something."""
    gc.collect()
    if (name := ctypes.util.find_library("c")) and hasattr(libc := ctypes.CDLL(name), "malloc_trim"):
        libc.malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
