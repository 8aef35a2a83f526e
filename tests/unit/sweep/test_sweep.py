"""A sweep: its plan, what it skips, resumes and retries, and that one failing run stops no other."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from store_rows import run_row

import b2bench
from b2bench.cli.main import main
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.sweep.local import Sweep
from b2bench.sweep.plan import Job, parse_list, parse_seeds, plan

PYTHON = sys.executable

# Stands for `b2bench run`: notes its arguments, and ends as the file named after its seed says.
FAKE = """
import json, os, pathlib, sys
sys.path[:0] = {paths!r}
from b2bench.store import Store
from store_rows import run_row
arguments = sys.argv[1:]
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as file:
    file.write(json.dumps([os.environ["OMP_NUM_THREADS"], *arguments]) + "\\n")
store = Store({db!r})
if "--resume" in arguments:
    run_id = arguments[arguments.index("--resume") + 1]
    store.finish_run(run_id, "done")
    raise SystemExit
seed = arguments[arguments.index("--seed") + 1]
how = (folder / seed).read_text().split() if (folder / seed).exists() else []
if how:
    (folder / seed).write_text(" ".join(how[1:]))
identity = json.loads((folder / "cells").read_text())[seed]
if how and how[0] == "another":  # a file that the arguments name has changed: the run is of another cell
    store.start_run(run_row("other", seed=int(seed), config_hash="other"))
    store.finish_run("other", "done")
    raise SystemExit
run_id = f"run-{{seed}}-{{len(how)}}"
store.start_run(run_row(run_id, seed=int(seed), **identity))
(folder / "runs" / run_id).mkdir(parents=True)
if how and how[0] == "killed":
    os.kill(os.getpid(), 9)
if how and how[0] == "failed":
    import shutil
    shutil.rmtree(folder / "runs" / run_id)  # nothing to resume
    store.finish_run(run_id, "failed", "the loss is nan")
    print("error: the loss is nan")
    raise SystemExit(1)
store.finish_run(run_id, "done")
"""


def config(options: dict[str, Any]) -> RunConfig:
    return resolve(
        algorithm=options.get("algo", "ddpo"), wrapper=options.get("wrapper", "vanilla"), reward="clipscore",
        backbone="pocket", queries=options.get("queries", 240), seed=options["seed"], values={},
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """A sweep of ddpo over seeds, whose runs are made by the script above."""

    def sweep(seeds: list[int], **options: Any) -> Sweep:
        jobs = plan({"seed": seeds}, ["--set", "lr=0.1"], config)
        identity = {"config_hash": jobs[0].key[0], "benchmark_version": b2bench.benchmark_version()}
        (tmp_path / "cells").write_text(json.dumps({str(seed): identity for seed in seeds}))
        db = tmp_path / "b2bench.duckdb"
        fake = tmp_path / "python"
        paths = [str(Path(b2bench.__file__).parents[1]), str(Path(__file__).parents[2])]
        script = FAKE.format(folder=str(tmp_path), db=str(db), paths=paths)
        (tmp_path / "fake.py").write_text(script)
        fake.write_text(f'#!/bin/sh\nshift 3\nexec "{PYTHON}" "{tmp_path}/fake.py" "$@"\n')
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        return Sweep(jobs, Store(db), tmp_path / "runs", pause=0.05, warm=False, **options)

    return sweep


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def states(sweep: Sweep) -> list[str]:
    return [progress.state for progress in sweep.progress]


def test_lists_and_seeds() -> None:
    assert parse_list("algo", "dpok, ddpo,dpok") == ["dpok", "ddpo"]
    assert parse_list("algo", "c,all", {"all": lambda: ["a", "b"]}) == ["c", "a", "b"]
    assert parse_list("algo", "paper", {"all": lambda: 1 / 0, "paper": lambda: ["b"]}) == ["b"]
    assert parse_seeds("0-3,7,2") == [0, 1, 2, 3, 7]
    for text in ("", "1-", "a", "-1", "3-1", "0-99999999", "1.5"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)
    with pytest.raises(UserError, match="names nothing"):
        parse_list("algo", " , ")


def test_a_file_is_one_name(tmp_path: Path) -> None:
    file = tmp_path / "cats, dogs.txt"
    file.touch()
    assert parse_list("prompts", str(file)) == [str(file)]
    assert parse_list("prompts", ["cats, dogs.txt", "template1"]) == ["cats, dogs.txt", "template1"]


@pytest.mark.slow
def test_a_list_of_a_hyperparameter_is_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cats, dogs.txt").write_text("a cat riding a bike\na dog playing chess\n")
    monkeypatch.chdir(tmp_path)

    def sweep(content: str, *arguments: str) -> int | str | None:
        Path("sweep.toml").write_text(content)
        monkeypatch.setattr(sys, "argv", ["b2bench", "sweep", "--config", "sweep.toml", "--dry-run", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    content = "algo = 'ddpo'\nprompts = ['cats, dogs.txt', 'template1']\n[set]\nlr = [1e-3, 1e-4]\nepochs = [1, 2]\n"
    assert not sweep(content, "--seeds", "0-1", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * 2 * 2 * 2
    assert rows[1]["run"] == "ddpo vanilla cats, dogs.txt lr=0.001 epochs=2 s0"
    assert rows[1]["command"][:10] == [
        *("b2bench", "run", "--algo", "ddpo", "--prompts", "cats, dogs.txt", "--seed", "0", "--set", "lr=0.001"),
    ]
    assert rows[1]["command"][10:12] == ["--set", "epochs=2"]
    assert not sweep(content, "--set", "lr=0.01", "--json")  # the command line overrules the file
    assert len(json.loads(capsys.readouterr().out)) == 2 * 2
    assert sweep("algo = 'ddpo'\n[set]\nlr = []\n") == 2
    assert "lr = [] of [set] holds no value" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_is_the_product_with_seeds_outermost() -> None:
    jobs = plan({"algo": ["ddpo", "pg"], "wrapper": ["b2"], "seed": [0, 1]}, ["--set", "lr=0.1"], config)
    assert [job.label for job in jobs] == [f"{a} b2 template1 s{seed}" for seed in (0, 1) for a in ("ddpo", "pg")]
    command = [
        "b2bench",
        "run",
        "--algo",
        "pg",
        "--wrapper",
        "b2",
        "--seed",
        "1",
        "--set",
        "lr=0.1",
        "--db",
        "x",
        "--out",
        "y",
    ]
    assert jobs[3].command(Path("x"), Path("y")) == command
    with pytest.raises(UserError, match="the same run twice"):
        plan({"seed": [0], "queries": [240, 240]}, [], config)
    with pytest.raises(UserError, match="unknown option 'colour'"):
        plan({"seed": [0], "colour": ["red"]}, [], config)


def test_a_plan_of_thousands_resolves_each_choice_once() -> None:
    asked = []

    def resolve_once(options: dict[str, Any]) -> RunConfig:
        asked.append(options)
        return config(options)

    jobs = plan({"algo": ["ddpo", "pg"], "seed": range(5000)}, [], resolve_once)
    assert len(jobs) == 10_000
    assert [options["algo"] for options in asked] == ["ddpo", "pg"]
    assert [job.config.seed for job in jobs[::2]] == list(range(5000))
    assert jobs[-1].key == (config({"algo": "pg", "seed": 4999}).cell_hash(), 4999)
    assert jobs[-1].arguments == ("--algo", "pg", "--seed", "4999")
    with pytest.raises(UserError, match="seed"):
        plan({"seed": [0, 2**31]}, [], config)


@pytest.mark.slow
def test_what_is_done_is_skipped(make: Callable[..., Sweep], tmp_path: Path) -> None:
    first = make([0, 1, 2], at_once=2, threads=3)
    assert states(first) == ["waiting"] * 3
    first.run()
    assert states(first) == ["done"] * 3
    made = calls(tmp_path)
    assert sorted(call[call.index("--seed") + 1] for call in made) == ["0", "1", "2"]
    assert {call[0] for call in made} == {"3"}
    again = make([0, 1, 2, 3])
    again.run()
    assert states(again) == ["already done"] * 3 + ["done"]
    assert len(calls(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "ends", "runs"),
    [("failed", "done", 2), ("failed failed", "failed", 2), ("killed", "done", 2)],
    ids=["retried once", "no more than once", "resumed after a kill"],
)
def test_a_run_that_breaks_off_gets_another_try_and_stops_no_other(
    make: Callable[..., Sweep], tmp_path: Path, how: str, ends: str, runs: int
) -> None:
    (tmp_path / "1").write_text(how)
    sweep = make([0, 1, 2])
    sweep.run()
    assert states(sweep) == ["done", ends, "done"]
    of_seed = [call for call in calls(tmp_path) if "--resume" in call or call[call.index("--seed") + 1] == "1"]
    assert len(of_seed) == runs
    assert ("--resume" in of_seed[1]) == (how == "killed")
    if ends == "failed":
        assert sweep.progress[1].note == "exit code 1: error: the loss is nan"
        assert sweep.progress[1].log is not None
        assert "the loss is nan" in sweep.progress[1].log.read_text()


@pytest.mark.slow
def test_a_command_that_makes_another_run_than_was_planned_is_not_made_twice(
    make: Callable[..., Sweep], tmp_path: Path
) -> None:
    (tmp_path / "1").write_text("another another")
    sweep = make([0, 1])
    sweep.run()
    assert states(sweep) == ["done", "failed"]
    assert "a file that it names (plugin, preset, prompts) has changed" in sweep.progress[1].note
    assert [call[call.index("--seed") + 1] for call in calls(tmp_path)].count("1") == 1


def held_by_others(sweep: Sweep) -> FileLock:
    """The lock of the run that is the sweep's first job, taken as a process that is not the sweep's has it."""
    cell, seed = sweep.jobs[0].key
    sweep.store.start_run(run_row("theirs", seed=seed, config_hash=cell))
    (sweep.out / "theirs").mkdir(parents=True)
    lock = FileLock(sweep.out / "theirs" / "lock", thread_local=False)
    lock.acquire()
    return lock


def test_a_run_that_another_process_has_open_is_waited_for(make: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = make([0])
    lock = held_by_others(sweep)
    thread = threading.Thread(target=sweep.run)
    thread.start()
    while states(sweep) != ["elsewhere"]:
        assert thread.is_alive()
        time.sleep(0.01)
    lock.release()  # it was killed: its run is resumed
    thread.join(30)
    assert states(sweep) == ["done"]
    (call,) = calls(tmp_path)  # with its arguments: settings of memory are those of now
    assert call[call.index("--resume") + 1] == "theirs"
    assert call[call.index("--set") + 1] == "lr=0.1"


@pytest.mark.slow
def test_a_run_that_another_process_has_open_keeps_no_other_waiting(make: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = make([0, 1, 2])
    lock = held_by_others(sweep)
    said: list[str] = []
    sweep.changed = lambda progress: said.append(progress.state)
    looked, held = [], sweep._held
    sweep._held = lambda run_id: bool(looked.append(run_id)) or held(run_id)  # type: ignore[method-assign]
    thread = threading.Thread(target=sweep.run)
    thread.start()
    while states(sweep) != ["elsewhere", "done", "done"] or looked.count("theirs") < 3:
        assert thread.is_alive()
        assert states(sweep)[0] in ("waiting", "elsewhere")
        time.sleep(0.01)
    lock.release()
    thread.join(30)
    assert states(sweep) == ["done"] * 3
    assert said.count("elsewhere") == 1  # however often it was looked for


def test_a_run_that_another_sweep_is_about_to_start_is_waited_for(make: Callable[..., Sweep], tmp_path: Path) -> None:
    """Two sweeps of one plan, started at once: the store knows of no run yet when both look."""
    (tmp_path / "runs" / "sweep").mkdir(parents=True)
    first, second = make([0]), make([0])
    key, seed = first.jobs[0].key
    with FileLock(tmp_path / "runs" / "sweep" / f"{key}-s{seed}.lock"):
        thread = threading.Thread(target=second.run)
        thread.start()
        deadline = time.monotonic() + 60
        while states(second) != ["elsewhere"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    thread.join()
    first.run()
    assert states(second) == ["done"]
    assert states(first) == ["already done"]
    assert len(calls(tmp_path)) == 1


def test_a_sweep_whose_store_breaks_ends_with_the_reason(
    make: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make([0, 1, 2, 3], at_once=2)
    monkeypatch.setattr(sweep, "known", lambda job: 1 / 0 if job.config.seed == 1 else None)
    with pytest.raises(ZeroDivisionError):
        sweep.run()
    assert states(sweep)[1] == "stopped"
    assert not set(states(sweep)) & {"waiting", "elsewhere", "running"}


def test_a_stopped_sweep_starts_no_run(make: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = make([0, 1])
    sweep.stop()
    sweep.run()
    assert states(sweep) == ["stopped", "stopped"]
    assert not (tmp_path / "calls").exists()


def test_jobs_of_other_versions_or_cells_are_not_taken_for_this_one(make: Callable[..., Sweep]) -> None:
    sweep = make([0])
    job: Job = sweep.jobs[0]
    store = sweep.store
    store.start_run(run_row("other-version", seed=0, config_hash=job.key[0], benchmark_version="0"))
    store.start_run(run_row("other-cell", seed=0, config_hash="x"))
    store.start_run(run_row("other-seed", seed=1, config_hash=job.key[0]))
    for run_id in ("other-version", "other-cell", "other-seed"):
        store.finish_run(run_id, "done")
    assert sweep.known(job) is None


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from b2bench.terminal.sweep import thread_count

    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [thread_count(jobs) for jobs in (1, 3, 8, 20)] == [8, 2, 1, 1]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count(1) == os.cpu_count()


PICKY = """
from b2bench.algorithms.ddpo import DDPO
from b2bench.registry import algorithm

@algorithm
class Picky(DDPO):
    def refuses(self, wrapper):
        {body}
"""


@pytest.mark.slow
def test_what_algorithm_and_wrapper_refuse_is_left_out_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Sweep, "run", lambda self: self.progress)
    plugin, db = tmp_path / "picky.py", tmp_path / "x.duckdb"
    plugin.write_text(PICKY.format(body="return 'learns from branches alone' if wrapper.leaves(5) == 1 else None"))
    choice = ["sweep", "--plugin", str(plugin), "--db", str(db), "--out", str(tmp_path / "runs"), "--algo", "picky"]

    def command(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["b2bench", *choice, *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    assert not command("--wrapper", "all", "--seeds", "0-2", "--dry-run")
    shown = capsys.readouterr()
    assert "6 of 6 runs to do" in shown.out
    assert shown.out.count("refused: picky is not trained under bpt: learns from branches alone") == 1
    assert not db.exists()
    assert not command("--wrapper", "b2", "--queries", "1200", "--seeds", "0-2", "--dry-run")
    assert capsys.readouterr().out.count("b2: tau never reaches T: the last of 5 rounds trains 19 of 20 steps") == 1

    assert not command("--wrapper", "all", "--seeds", "0-2")
    assert "refused: picky is not trained under vanilla" in capsys.readouterr().err
    assert [row["wrapper"] for row in Store(db).refusals()] == ["bpt", "vanilla"]

    assert command("--wrapper", "vanilla,bpt") == 2  # nothing is left
    assert "picky is not trained under vanilla: learns from branches alone" in capsys.readouterr().err

    for body, message in (
        ("return 3", "try the reason as text"),
        ("raise ValueError('?')", r"picky.refuses(B2) raised ValueError: ?"),
    ):
        plugin.write_text(PICKY.format(body=body))
        assert command("--wrapper", "b2") == 2
        assert message in " ".join(capsys.readouterr().err.split())
