"""What a grid costs beyond the denoiser: ``python benchmarks/grid.py --seeds 0-1``.

A sweep of default runs, start-up, evaluations, rewards, store and checkpoints included, beside the bare calls of the
denoiser that its runs made: UNet with LoRA, at the best of two batch sizes, forward, or forward and backward. All of it
in seconds of the CPU on one thread. A busy machine makes them more, too, and bare calls are timed when they are best,
before and after the sweep: on one that is not idle the ratio is too high.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from speed import config, cpu_seconds, denoiser

from b2bench.config.choices import name_sets
from b2bench.errors import Refused, UserError
from b2bench.estimate.calls import count_calls
from b2bench.registry import Kind, Registry
from b2bench.store.store import Store
from b2bench.sweep.plan import parse_list, parse_seeds
from b2bench.training.setup import pretrained_policy

ROWS = (48, 96)


def bare() -> dict[bool, float]:
    """CPU seconds of a row's denoiser call: without (False) and with a backward pass; the best of a few calls."""
    run = config("ddpo", "vanilla")
    policy = pretrained_policy(run, torch.device("cpu"))
    policy.add_lora(run.settings.lora_rank, 0)
    found = {}
    for backward in (False, True):
        calls = [(rows, denoiser(policy, rows, backward)) for rows in ROWS]
        found[backward] = min(min(cpu_seconds(call) for _ in range(4)) / rows for rows, call in calls)
    return found


def of_children() -> float:
    """CPU seconds, user and system, of the processes that this one has waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="ddpo,dpok")
    parser.add_argument("--wrapper", default="vanilla,b2")
    parser.add_argument("--seeds", default="0-1")
    parser.add_argument("--queries", type=int, default=2400)
    parser.add_argument("--into", type=Path, help="new folder that keeps the runs and their store")
    options = parser.parse_args()
    counted = []
    try:  # before hours are measured
        names = named("algo", "algorithm", options.algo), named("wrapper", "wrapper", options.wrapper)
        for algorithm, wrapper in itertools.product(*names):
            with contextlib.suppress(Refused):  # which the sweep leaves out, too
                calls = count_calls(config(algorithm, wrapper, **own(options.queries)))
                counted += [calls for _ in parse_seeds(options.seeds)]
    except UserError as error:
        parser.error(str(error))
    if not counted:
        parser.error("no run is left of this grid")
    if options.into is not None:
        options.into.mkdir(parents=True)
    torch.set_num_threads(1)
    before = bare()
    with tempfile.TemporaryDirectory() as name:
        folder = options.into or Path(name)
        chosen = ["--algo", options.algo, "--wrapper", options.wrapper, "--seeds", options.seeds]
        command = [sys.executable, "-m", "b2bench", "sweep", *chosen, "--queries", str(options.queries)]
        started = of_children()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr, env=environment)
        spent = of_children() - started
        store = Store(folder / "b2bench.duckdb")
        rows = [row for run in store.runs() for row in store.rounds(run["run_id"])]
    seconds = {kind: min(value, before[kind]) for kind, value in bare().items()}
    gradient = sum(row["denoiser_calls_gradient"] for row in rows)
    plain = sum(row["denoiser_calls_sampling"] + row["denoiser_calls_training"] for row in rows) - gradient
    rounds = plain * seconds[False] + gradient * seconds[True]
    evaluations = counted[0].evaluation + sum(calls.later.evaluation for calls in counted[1:])
    whole = rounds + evaluations * seconds[False]
    table = Table("", "CPU s", "times the rounds' bare calls", box=box.SIMPLE)
    table.add_row(f"bare calls of {len(rows)} rounds", f"{rounds:.1f}", "1")
    table.add_row("and of the evaluations", f"{whole:.1f}", f"{whole / rounds:.3f}")
    table.add_row(f"the grid of {len(counted)} runs", f"{spent:.1f}", f"{spent / rounds:.3f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"outside of denoiser calls: {1 - whole / spent:.1%} of the grid")


def named(option: str, kind: Kind, text: str) -> list[str]:
    """Return the names of a list as ``b2bench sweep`` takes it: all, paper, or some."""
    return parse_list(option, text, name_sets(kind, Registry(kind)))


def own(queries: int) -> dict[str, int | None]:
    """The budget, and evaluations as large as it gives."""
    return {"queries": queries, "eval_images": None, "eval_train_images": None}


if __name__ == "__main__":
    main()
