"""Runs that are forks of one warmed process: what they print and how they end, that they are the command's own runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.store.store import Store
from b2bench.sweep.local import Sweep
from b2bench.sweep.plan import plan
from b2bench.sweep.warm import LOST, Started, Warm, can_fork

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="needs Linux")]

VALUES = {"draws": 1, "samples": 2, "steps": 2, "eval_images": 2, "eval_train_images": 0, "kl_images": 0}


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    process = Warm(os.environ)
    yield process
    process.close()


def started(warm: Warm, log: Path, *arguments: str) -> Started:
    run = warm.start(arguments, log)
    assert run is not None
    return run


def test_a_fork_is_the_command(warm: Warm, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert started(warm, log, "--version").wait() == 0
    assert started(warm, log, "show", "nothing").wait() == 2
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert "benchmark version" in lines[1]
    assert lines[2].startswith("error: ")


def test_how_it_ends_is_told(warm: Warm, tmp_path: Path) -> None:
    arguments = ("run", "--algo", "ddpo", "--db", str(tmp_path / "db"), "--out", str(tmp_path / "runs"))
    one, two = (started(warm, tmp_path / name, *arguments) for name in ("one", "two"))
    one.send_signal(signal.SIGKILL)
    two.send_signal(signal.SIGTERM)
    assert one.wait() == -signal.SIGKILL
    assert two.wait() in (1, -signal.SIGTERM)  # interrupted in words, or before the first of them
    one.send_signal(signal.SIGTERM)  # which has ended


def test_without_the_process_there_are_commands(tmp_path: Path) -> None:
    warm = Warm(os.environ)
    run = started(warm, tmp_path / "log", "--version")
    assert warm._process is not None
    warm._process.kill()
    assert run.wait() in (0, LOST)
    assert warm.start(["--version"], tmp_path / "log") is None
    warm.close()
    assert warm.start(["--version"], tmp_path / "log") is None


def test_the_run_of_a_sweep_is_that_of_the_command_to_the_bit(tmp_path: Path) -> None:
    def config(options: dict[str, object]) -> RunConfig:
        return resolve(
            algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=4,
            seed=int(str(options["seed"])), values=VALUES,
        )  # fmt: skip

    shared = ["--algo", "ddpo", "--queries", "4", "--threads", "1", *(f"--set={n}={v}" for n, v in VALUES.items())]
    store = Store(tmp_path / "swept.duckdb")
    sweep = Sweep(plan({"seed": [3, 4]}, shared, config), store, tmp_path / "swept", at_once=2)
    assert [progress.state for progress in sweep.run()] == ["done", "done"], sweep.progress
    alone = [sys.executable, "-m", "b2bench", "run", *shared, "--seed", "4", "--json"]
    places = ["--db", str(tmp_path / "alone.duckdb"), "--out", str(tmp_path / "alone")]
    made = subprocess.run([*alone, *places], capture_output=True, text=True, check=True)
    run_id = json.loads(made.stdout)["run_id"]
    swept = next(row["run_id"] for row in store.runs() if row["seed"] == 4)
    files = [tmp_path / "swept" / swept, tmp_path / "alone" / run_id]
    lora = [next(folder.rglob("*lora*.safetensors")).read_bytes() for folder in files]
    assert lora[0] == lora[1]
    versions, commits = ([row[name] for row in store.runs()] for name in ("versions", "commit"))
    assert versions[0] == versions[1]
    assert commits[0] == commits[1]
