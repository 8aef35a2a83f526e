"""Is anything lost? Kill a run with SIGKILL at random instants, resume it, compare: ``python tests/stress/kills.py``.

Every kill falls into a phase of a round that is chosen in turn (sampling, reward, update, store, checkpoint,
evaluation), in a round and at an instant that are drawn. The resumed run must end in the rows of an undisturbed one
(times, memory and run ids aside) and in the same weights, bit for bit. Linux and macOS: each run is a fork of this
process, which has imported everything already.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork does not inherit threads

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.cli.warmed import warm
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.evaluation.judges import Judges
from b2bench.store.schema import RUN_TABLES
from b2bench.store.store import Store
from b2bench.training import runs, trainer
from b2bench.training.listener import Silent

PHASES = ("sampling", "reward", "update", "store", "checkpoint", "evaluation")
ROUNDS = 4
OTHERWISE = {
    "runs": (),  # times, status while it ran, versions
    "rounds": ("seconds", "peak_mb", "run_id"),
    "queries": ("run_id",),
    "evals": ("run_id",),
    "images": ("run_id",),
}


def config() -> RunConfig:
    """Four rounds of DPOK with B2: an adapter, an optimizer, a history of advantages, and branches to restore."""
    values = {
        "draws": 1,
        "steps": 3,
        "transitions_per_step": 10,
        "eval_points": 3,
        "eval_images": 2,
        "eval_train_images": 1,
    }
    return resolve(
        algorithm="dpok",
        wrapper="b2",
        reward="clipscore",
        backbone="pocket",
        queries=5 * ROUNDS,
        seed=0,
        values=values | {"kl_images": 2, "sample_images": 2},
    )


def forked(work: Callable[[], None]) -> int:
    """The process id of a fork that does ``work`` and ends with exit code 0, or 1 where it raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def announce(pipe: int) -> None:
    """From now on, in this process, the beginning of every phase is written to ``pipe``."""

    def told(owner: Any, name: str, phase: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            os.write(pipe, bytes([PHASES.index(phase)]))
            return function(*args, **kwargs)

        setattr(owner, name, call)

    told(trainer, "rollout", "sampling")
    told(Judges, "scores", "reward")
    told(trainer, "update", "update")
    told(Store, "record_round", "store")
    told(trainer, "save_checkpoint", "checkpoint")
    told(Judges, "look", "evaluation")


def run_and_kill(folder: Path, phase: str | None, occurrence: int = 0, wait: float = 0.0) -> bool:
    """Start a run in ``folder`` and kill it ``wait`` seconds into a phase; True if it was killed and had not ended.

    Raises:
        RuntimeError: the run failed by itself.
    """
    reader, writer = os.pipe()

    def work() -> None:
        os.close(reader)
        announce(writer)
        runs.start(config(), Store(folder / "b2bench.duckdb"), folder / "runs", None, Silent())

    child = forked(work)
    os.close(writer)
    seen = 0
    while phase is not None and (told := os.read(reader, 1)):
        if PHASES[told[0]] == phase:
            seen += 1
            if seen > occurrence:
                time.sleep(wait)
                os.kill(child, signal.SIGKILL)
                break
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the run failed")
    return os.WIFSIGNALED(status)


def resumed(folder: Path) -> None:
    """Resume the run of ``folder`` in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    store = Store(folder / "b2bench.duckdb")
    (run,) = store.runs()
    _, status = os.waitpid(forked(lambda: _resume(run["run_id"], folder)), 0)
    if status:
        raise RuntimeError("the resumed run failed")


def _resume(run_id: str, folder: Path) -> None:
    torch.manual_seed(12345)  # whatever state the process is in
    runs.resume(run_id, Store(folder / "b2bench.duckdb"), folder / "runs", Silent())


def outcome(folder: Path) -> dict[str, str]:
    """A hash of every table and of the weights."""
    store = Store(folder / "b2bench.duckdb")
    (run,) = store.runs()
    rows = store.whole_run(run["run_id"])
    found = {"status": run["status"]}
    for table in RUN_TABLES[1:]:
        plain = [{name: value for name, value in row.items() if name not in OTHERWISE[table]} for row in rows[table]]
        found[table] = hashlib.sha256(repr(sorted(map(repr, plain))).encode()).hexdigest()
    weights = folder / "runs" / run["run_id"] / "pytorch_lora_weights.safetensors"
    return found | {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()}


def kills(count: int, seed: int, report: Callable[[str], None] = lambda text: None) -> list[tuple[str, list[str]]]:
    """``count`` kills: (phase, what differs from the undisturbed run) of each."""
    drawn, found = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Path(name) / "undisturbed"
        undisturbed.mkdir()
        run_and_kill(undisturbed, None)
        expected = outcome(undisturbed)
        while len(found) < count:
            folder = Path(name) / f"kill-{len(found)}-{drawn.random():.6f}"
            folder.mkdir()
            phase = PHASES[len(found) % len(PHASES)]
            times = 3 if phase == "evaluation" else ROUNDS
            longest = 0.05 if phase in ("store", "checkpoint", "reward") else 0.4
            if not run_and_kill(folder, phase, drawn.randrange(times), drawn.uniform(0, longest)):
                continue  # it was faster: another instant
            resumed(folder)
            result = outcome(folder)
            differs = [part for part in expected if result[part] != expected[part]]
            found.append((phase, differs))
            report(f"kill {len(found)}/{count} in {phase}: {', '.join(differs) or 'identical'}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm()  # or each fork would import again what a run imports late
    torch.set_num_threads(1)
    console = Console(highlight=False)
    found = kills(options.kills, options.seed, console.print)
    table = Table("killed in", "kills", "identical", box=box.SIMPLE)
    for phase, count in Counter(phase for phase, _ in found).items():
        same = sum(not differs for name, differs in found if name == phase)
        table.add_row(phase, str(count), str(same))
    console.print(table)
    same = sum(not differs for _, differs in found)
    console.print(f"{same} of {len(found)} identical")
    raise SystemExit(same < len(found))


if __name__ == "__main__":
    main()
