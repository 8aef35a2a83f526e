"""Many runs by one command: a product of choices, each run a process, finished ones skipped, broken-off ones resumed.

A run is recognised in the store by its cell, its seed and the benchmark's version, not by a list that the sweep keeps:
the same command again, after whatever happened, does what is left.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from filelock import FileLock, Timeout

from b2bench.environment import python
from b2bench.locks import lockable, process_lock
from b2bench.store.database import SHORT
from b2bench.store.rows import SWEEP_FOLDER
from b2bench.store.store import Store
from b2bench.sweep.plan import Job
from b2bench.sweep.warm import Started, Warm, can_fork
from b2bench.version import benchmark_version

State = Literal["waiting", "running", "done", "already done", "failed", "elsewhere", "lost", "stopped"]
ATTEMPTS = 2
CHANGED = (
    "the command made another run than was planned: a file that it names (plugin, preset, prompts) has changed since "
    "the sweep began; try the sweep again"
)


@dataclass
class Progress:
    """How far a job is. ``run_id`` once there is one; ``note`` says why it failed, ``losses`` how many nodes died."""

    job: Job
    state: State = "waiting"
    run_id: str | None = None
    attempts: int = 0
    losses: int = 0
    note: str = ""
    log: Path | None = None


@dataclass
class Sweep:
    """The jobs, ``at_once`` at a time, on one machine.

    ``threads`` is the number of CPU threads of each. ``warm``: they are forks of one process, which imports once what
    all of them use. Calls of :meth:`run` never raise for a run that fails.
    """

    jobs: Sequence[Job]
    store: Store
    out: Path
    at_once: int = 1
    threads: int = 1
    pause: float = 2.0
    warm: bool = field(default_factory=can_fork)
    changed: Callable[[Progress], None] = lambda progress: None
    progress: list[Progress] = field(init=False)
    counts: ClassVar[bool] = True
    """Whether the store knows of a run's queries while it runs."""

    def __post_init__(self) -> None:
        self.progress = [Progress(job) for job in self.jobs]
        self._stop = threading.Event()
        self._children: set[Started] = set()
        self._guard = threading.Lock()
        self._environment = os.environ | {"OMP_NUM_THREADS": str(self.threads), "COLUMNS": "120"}
        self._warm = Warm(self._environment)

    def run(self) -> list[Progress]:
        """Do what is left of the plan. Ctrl-C interrupts the runs, which keep their finished rounds, and is raised."""
        self.look()
        queue = deque(progress for progress in self.progress if progress.state != "already done")
        try:
            with ThreadPoolExecutor(self.at_once, "sweep") as pool:
                workers = [pool.submit(self._work, queue) for _ in range(self.at_once)]
                try:
                    for worker in workers:
                        worker.result()
                except BaseException:
                    self.stop()
                    raise
        finally:
            self._warm.close()
            for progress in self.progress:
                if progress.state in ("waiting", "elsewhere"):
                    self._set(progress, "stopped")
        return self.progress

    def stop(self) -> None:
        """Interrupt every run and start no other."""
        self._stop.set()
        self.store.patience = min(self.store.patience, SHORT)
        with self._guard:
            for child in self._children:
                with suppress(ProcessLookupError):
                    child.send_signal(signal.SIGTERM)  # SIGINT is ignored in a script's background

    # -- one job -----------------------------------------------------------------------------------

    def known(self, job: Job) -> dict[str, Any] | None:
        """Return the run of the store that is this job: a finished one if there is, else the last that was started."""
        if not self.store.path.exists():
            return None
        cell, seed = job.key
        rows = self.store.runs(config_hash=cell, seed=seed, benchmark_version=benchmark_version())
        done = [row for row in rows if row["status"] == "done"]
        found = done or rows
        return found[-1] if found else None

    def look(self) -> None:
        """See in the store what is done already, in one query: a sweep may have thousands of runs."""
        if not self.store.path.exists():
            return
        rows = self.store.sql(
            "SELECT run_id, config_hash, seed, status FROM runs WHERE benchmark_version = ? "
            "ORDER BY status = 'done', started, run_id",
            [benchmark_version()],
        )
        last = {(row["config_hash"], row["seed"]): row for row in rows}  # as known() chooses
        for progress in self.progress:
            row = last.get(progress.job.key)
            if row is not None:
                progress.run_id = row["run_id"]
                if row["status"] == "done":
                    self._set(progress, "already done")

    def _work(self, queue: deque[Progress]) -> None:
        """Take jobs from the queue until every one has ended; one that somebody else has open goes to its end."""
        try:
            while not self._stop.is_set() and any(p.state in ("waiting", "elsewhere") for p in self.progress):
                try:
                    progress = queue.popleft()
                except IndexError:  # another worker looks at the last ones
                    self._stop.wait(self.pause)
                    continue
                if self._do(progress):
                    continue
                queue.append(progress)
                if all(other.state == "elsewhere" for other in list(queue)):
                    self._stop.wait(self.pause)
        except BaseException:  # a job of its own would stay waiting, and the other workers with it
            self.stop()
            raise

    def _do(self, progress: Progress) -> bool:
        """Bring a job to its end; False where a process that is not ours has its run open."""
        while not self._stop.is_set():
            row = self.known(progress.job)
            if row is not None and row["status"] == "done":
                progress.note = ""
                self._set(progress, "done" if progress.attempts else "already done", row["run_id"])
                return True
            if row is not None and self._held(row["run_id"]):
                self._set(progress, "elsewhere", row["run_id"])
                return False
            if progress.attempts == ATTEMPTS:
                self._set(progress, "failed")
                return True
            lock = self._turn(progress.job)
            try:
                with lockable(f"folder {self.out}", "--out"):
                    held = lock.acquire(timeout=0)
                with held:
                    if self.known(progress.job) == row:  # as before: no other sweep started it since
                        progress.attempts += 1
                        self._attempt(progress, row)
            except Timeout:
                self._set(progress, "elsewhere", row["run_id"] if row else None)
                return False
        self._set(progress, "stopped")
        return True

    def _held(self, run_id: str) -> bool:
        """Tell whether a process of this machine has the run open: one that a killed sweep left, or somebody else's."""
        folder = self.out / run_id
        if not folder.is_dir():
            return False
        lock = process_lock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def _turn(self, job: Job) -> FileLock:
        """Return what one sweep holds at a time while it makes this run, which the store does not know before it has
        begun.
        """
        cell, seed = job.key
        logs = self.out / SWEEP_FOLDER
        logs.mkdir(parents=True, exist_ok=True)
        return process_lock(logs / f"{cell}-s{seed}.lock")

    def _attempt(self, progress: Progress, row: Mapping[str, Any] | None) -> None:
        db = ["--db", str(self.store.path), "--out", str(self.out)]
        if row is not None and (self.out / row["run_id"]).is_dir():
            # with its arguments: memory settings and the places of files are those that are asked for now
            arguments = ["run", *progress.job.arguments, "--resume", row["run_id"], *db]
        else:
            arguments = ["run", *progress.job.arguments, *db]
        progress.log = Path(self._turn(progress.job).lock_file).with_suffix(".log")
        self._set(progress, "running", row["run_id"] if row else None)
        with progress.log.open("ab") as log:
            log.write(f"$ {shlex.join(['b2bench', *arguments])}\n".encode())
            log.flush()
            child = self._start(arguments, log, progress.log)
            with self._guard:
                self._children.add(child)
                if self._stop.is_set():
                    child.send_signal(signal.SIGTERM)
            code = child.wait()
            with self._guard:
                self._children.discard(child)
        if code != 0:
            progress.note = f"{ended_by(code)}: {last_line(progress.log)}"
        elif (made := self.known(progress.job)) is None or made["status"] != "done":
            progress.note = CHANGED
            progress.attempts = ATTEMPTS  # it would be made again, and again be another

    def _start(self, arguments: Sequence[str], log: BinaryIO, path: Path) -> Started:
        """Start a run in a session of its own: Ctrl-C reaches the sweep, which tells its runs once."""
        forked = self._warm.start(arguments, path) if self.warm else None
        return forked or subprocess.Popen(
            [*python("b2bench"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )

    def _set(self, progress: Progress, state: State, run_id: str | None = None) -> None:
        again = state == progress.state == "elsewhere"  # it is looked for every few seconds, and a log says it once
        progress.state, progress.run_id = state, run_id or progress.run_id
        if not again:
            self.changed(progress)


def ended_by(code: int) -> str:
    """Say how a process with this exit code ended; below 0: by a signal."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")[-40:]
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:200]


def queries_done(store: Store, run_ids: Sequence[str]) -> dict[str, int]:
    """Reward queries of each run so far."""
    if not run_ids or not store.path.exists():
        return {}
    query = "SELECT run_id, max(queries) AS n FROM rounds WHERE list_contains(?, run_id) GROUP BY run_id"
    rows = store.sql(query, [list(run_ids)])
    return {row["run_id"]: row["n"] for row in rows}
