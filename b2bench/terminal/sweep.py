"""What a terminal shows of a sweep: its plan with its cost, and its runs while they run."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from b2bench.environment import threads
from b2bench.sweep.local import Progress, Sweep, queries_done
from b2bench.sweep.plan import Job

STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "done": "green",
    "already done": "green",
    "failed": "bold red",
    "elsewhere": "yellow",
    "lost": "yellow",
    "stopped": "yellow",
}
SHOWN = 40  # rows of the live table: the others are counted


def cost(job: Job) -> dict[str, int]:
    """Reward queries and denoiser calls (of training the most that there may be) of a run."""
    from b2bench.estimate.calls import count_calls

    calls = count_calls(job.config)
    return {
        "queries": job.config.queries,
        "denoiser_calls": calls.sampling + calls.training[1] + calls.evaluation,
    }


def plan_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the plan as plain values: each run, whether it is done, what it costs and its command."""
    one_of = {progress.job.cell: progress.job for progress in sweep.progress}
    costs = {cell: cost(job) for cell, job in one_of.items()}  # runs of a cell cost the same
    return [
        {
            "run": progress.job.label,
            "state": progress.state,
            "run_id": progress.run_id,
            **costs[progress.job.cell],
            "command": progress.job.command(sweep.store.path, sweep.out),
        }
        for progress in sweep.progress
    ]


def notices(jobs: Iterable[Job]) -> list[str]:
    """Return what whoever starts these runs should know of them, each text once."""
    one_of = {job.cell: job.config for job in jobs}
    return list(dict.fromkeys(text for config in one_of.values() for text in config.notices))


def plan_table(rows: Sequence[dict[str, Any]]) -> Group:
    """Return the plan, and its cost in all."""
    table = Table(Column("run", overflow="fold"), Column("state", no_wrap=True), box=box.SIMPLE)
    table.add_column("queries", justify="right", no_wrap=True)
    table.add_column("denoiser calls, at most", justify="right", no_wrap=True)
    for row in rows:
        numbers = (f"{row['queries']:,}", f"{row['denoiser_calls']:,}")
        table.add_row(Text(row["run"]), Text(row["state"], STYLES[row["state"]]), *numbers)
    left = [row for row in rows if row["state"] != "already done"]
    total = {name: sum(row[name] for row in left) for name in ("queries", "denoiser_calls")}
    text = f"{len(left)} of {len(rows)} runs to do: {total['queries']:,} reward queries, "
    text += f"{total['denoiser_calls']:,} denoiser calls at most; b2bench estimate makes hours of them"
    return Group(table, Text(text), Text())


class SweepView:
    """A live table of a sweep's runs; without a terminal a line whenever one begins or ends."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self.console, self.sweep = console, sweep
        sweep.changed = self.changed
        self.started = time.monotonic()
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._queries: dict[str, int] = {}

    def __enter__(self) -> SweepView:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.table, console=self.console, refresh_per_second=2, redirect_stdout=False
            )
            self._live.start()
            if self.sweep.counts:
                self._thread = threading.Thread(target=self._count, daemon=True)
                self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()

    def changed(self, progress: Progress) -> None:
        """A run began, ended or broke off."""
        if self._live is None and progress.state != "waiting":
            which = f" ({progress.run_id})" if progress.run_id else ""
            note = f": {progress.note}" if progress.state in ("failed", "lost") else ""
            again = ", again" if progress.state == "running" and progress.attempts + progress.losses > 1 else ""
            seconds = f"{time.monotonic() - self.started:6.0f} s  "
            self.console.print(f"{seconds}{progress.job.label}  {progress.state}{again}{which}{note}", soft_wrap=True)

    def _count(self) -> None:
        """Ask the store for progress: seldom, because a reader shuts writers out for a moment."""
        while not self._stop.wait(5):
            running = [p.run_id for p in self.sweep.progress if p.state in ("running", "elsewhere") and p.run_id]
            try:
                self._queries |= queries_done(self.sweep.store, running)
                for progress in self.sweep.progress:
                    if progress.state == "running" and progress.run_id is None:
                        row = self.sweep.known(progress.job)
                        progress.run_id = row["run_id"] if row else None
            except Exception:  # the store is busy: the next time will do
                continue

    def table(self) -> Group:
        """Return the runs that run, then those that ended or wait, and how many there are of each."""
        order = ("running", "elsewhere", "failed", "lost", "waiting", "stopped", "done", "already done")
        rows = sorted(self.sweep.progress, key=lambda p: order.index(p.state))
        table = Table(Column("run", no_wrap=True), "state", box=box.SIMPLE)
        table.add_column("queries", justify="right")
        table.add_column("run id or reason", overflow="fold")  # the one that gives way
        for progress in rows[:SHOWN]:
            done = self._queries.get(progress.run_id or "", 0)
            if progress.state in ("done", "already done"):
                done = progress.job.config.queries
            table.add_row(
                Text(progress.job.label),
                Text(progress.state, STYLES[progress.state]),
                f"{done:,}/{progress.job.config.queries:,}",
                Text(progress.note if progress.state in ("failed", "lost") else progress.run_id or ""),
            )
        return Group(table, Text(counted(self.sweep.progress), "dim"))


def counted(progress: Sequence[Progress]) -> str:
    """How many runs there are in each state."""
    counts = Counter(p.state for p in progress)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def thread_count(jobs: int) -> int:
    """CPU threads of each of ``jobs`` runs at once: the cores, or OMP_NUM_THREADS, shared out."""
    return max(1, (threads() or os.cpu_count() or 1) // jobs)


def logs_of(progress: Sequence[Progress]) -> list[Path]:
    """Return the logs of runs that failed."""
    return [p.log for p in progress if p.state == "failed" and p.log is not None]
