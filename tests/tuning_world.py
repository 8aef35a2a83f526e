"""``b2bench tune`` without training: a sweep's runs write what a function of their settings says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.cli.main import main
from b2bench.store.rows import Row, check_seeds, utc_now
from b2bench.store.store import Store
from b2bench.sweep.local import Progress, Sweep
from b2bench.sweep.plan import Job

SMALL = ("--set", "steps=2", "--set", "draws=1")
Reward = Callable[[Job], list[float] | None]


def rising(job: Job, best: float = 1e-3) -> list[float] | None:
    """Mean rewards of three rounds: best at this lr, and a collapse above 2e-3."""
    lr = job.config.settings.lr
    if lr > 2e-3:
        return [0.5, 0.4, 0.3]
    return [0.5, 0.5, 0.7 - abs(lr - best) * 10]


class World:
    """Runs without training: ``Sweep.run`` writes what ``reward`` says of a job."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.reward, self.count = Store(folder / "b2bench.duckdb"), rising, 0
        self.made: list[Job] = []
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        world = self

        def run(sweep: Sweep) -> list[Progress]:
            sweep.look()
            runs = []
            for progress in sweep.progress:
                if progress.state != "already done":
                    made = world.make(progress.job)
                    if made is not None:
                        runs.append(made)
                        progress.run_id = made["runs"][0]["run_id"]
                    progress.state = "done" if made else "failed"
            if runs:  # without any there may be no store yet, and none is made
                world.store.insert_runs(runs)
            return sweep.progress

        monkeypatch.setattr(Sweep, "run", run)

    def make(self, job: Job) -> dict[str, list[Row]] | None:
        """The rows of a run, as if each had been written when it was made; None for one that never began.

        All runs of a sweep are written at once: a transaction takes longer than all that is tested here.
        """
        rewards, config = self.reward(job), job.config
        self.made.append(job)
        if rewards is None:
            return None
        self.count += 1
        run_id, now = f"r{self.count}", utc_now()
        run = run_row(
            run_id, seed=config.seed, config_hash=job.cell, config=config.as_dict(), algorithm=config.algorithm_name,
            wrapper=config.wrapper_name, commit="c0ffee", started=now, heartbeat=now, finished=now,
            status="done" if rewards else "failed",
        )  # fmt: skip
        check_seeds([run])  # as Store.start_run does
        return {
            "runs": [run],
            "rounds": [{"run_id": run_id, "round": round, "queries": 2 * round + 2} for round in range(len(rewards))],
            "queries": [
                {
                    "run_id": run_id,
                    "query_index": 2 * round + i,
                    "round": round,
                    "prompt": "a cat",
                    "reward": reward + off,
                }
                for round, reward in enumerate(rewards)
                for i, off in enumerate((-0.1, 0.1))
            ],
        }

    def __call__(self, *arguments: str) -> int | str | None:
        self.monkeypatch.setattr(sys, "argv", ["b2bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    def tune(self, *arguments: str) -> int | str | None:
        return self("tune", *SMALL, *arguments)
