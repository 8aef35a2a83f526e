"""``b2bench tune`` without training: a sweep's runs write what a function of their settings says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.cli.main import main
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
            for progress in sweep.progress:
                if progress.state != "already done":
                    progress.run_id = world.make(progress.job)
                    progress.state = "done" if progress.run_id else "failed"
            return sweep.progress

        monkeypatch.setattr(Sweep, "run", run)

    def make(self, job: Job) -> str | None:
        rewards, config = self.reward(job), job.config
        self.made.append(job)
        if rewards is None:  # it never began
            return None
        self.count += 1
        run_id = f"r{self.count}"
        self.store.start_run(
            run_row(run_id, seed=config.seed, config_hash=job.cell, config=config.as_dict(),
                    algorithm=config.algorithm_name, wrapper=config.wrapper_name, commit="c0ffee")
        )  # fmt: skip
        for round, reward in enumerate(rewards):
            rows = [
                {"query_index": 2 * round + i, "round": round, "prompt": "a cat", "reward": reward + off}
                for i, off in enumerate((-0.1, 0.1))
            ]
            self.store.record_round(run_id, {"round": round, "queries": 2 * round + 2}, rows)
        self.store.finish_run(run_id, "failed" if not rewards else "done")
        return run_id

    def __call__(self, *arguments: str) -> int | str | None:
        self.monkeypatch.setattr(sys, "argv", ["b2bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    def tune(self, *arguments: str) -> int | str | None:
        return self("tune", *SMALL, *arguments)
