"""One run on two processes: the same rows and, up to rounding, the same weights as on one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from b2bench.cli import with_parent
from b2bench.store.store import Store
from b2bench.training import launch as launch_module
from b2bench.training.launch import launch

SMALL = (
    "--queries", "18", "--set", "draws=3", "--set", "samples=3", "--set", "steps=4", "--set", "transitions_per_step=20",
    "--set", "eval_images=6", "--set", "eval_train_images=2", "--threads", "1",
)  # fmt: skip
ALGORITHMS = ("ddpo", "dpo", "dpok")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What the shell would do."""
    words = [sys.executable, "-m", "b2bench", *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"})


def rows(store: Store, run_id: str) -> list[dict[str, Any]]:
    columns = "query_index, round, prompt, group_id, leaf, kept, reward, advantage"
    return store.sql(f"select {columns} from queries where run_id = ? order by query_index", [run_id])


SEVERAL = """
import json, sys
from b2bench.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["b2bench", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def as_torchrun(runs: list[list[str]], cwd: Path) -> None:
    """Start two processes as torchrun does; each goes through all the runs, so that start-up is paid once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL, json.dumps(runs)], cwd=cwd, stdout=subprocess.DEVNULL,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.wait() for process in started] == [0, 0]


@pytest.mark.slow
def test_two_processes_end_where_one_does(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of 3 draws: the processes hold 1 and 2, so that their shares of a minibatch differ.

    A small learning rate, because Adam makes a step as long as lr of a gradient that is rounding and nothing else.
    """
    monkeypatch.chdir(tmp_path)
    cells = {name: ["run", "--algo", name, "--wrapper", "b2", *SMALL, "--set", "lr=1e-4"] for name in ALGORITHMS}
    cells["dpok"] += ["--set", "value_net=true"]
    for name, cell in cells.items():
        alone = b2bench(*cell, "--name", f"{name} on 1")
        assert (alone.code, alone.stdout.count("queries a second")) == (0, 1), alone.stderr
    together = command(*cells["ddpo"], "--name", "ddpo on 2", "--processes", "2", cwd=tmp_path)
    assert (together.returncode, together.stdout.count("queries a second")) == (0, 1), together.stderr
    others = [[*cells[name], "--name", f"{name} on 2"] for name in ("dpo", "dpok")]
    as_torchrun([*others, [*cells["ddpo"], "--seed", "1", "--name", "seed 1"]], tmp_path)
    store = Store(tmp_path / "b2bench.duckdb")
    for name in ALGORITHMS:
        end_alike(store, tmp_path, store.find_run(f"{name} on 1"), store.find_run(f"{name} on 2"))
    took_over(store, tmp_path, store.find_run("ddpo on 2")["run_id"], store.find_run("seed 1")["run_id"])


def end_alike(store: Store, folder: Path, one: dict[str, Any], two: dict[str, Any]) -> None:
    """The same rows, the same cost, and numbers and weights that are equal up to rounding."""
    assert one["config_hash"] == two["config_hash"]
    assert two["device"] == "cpu x 2"
    for expected, found in zip(rows(store, one["run_id"]), rows(store, two["run_id"]), strict=True):
        for number in ("reward", "advantage"):
            assert found.pop(number) == pytest.approx(expected.pop(number), abs=1e-4)
        assert found == expected
    spent = [
        [(r["denoiser_calls_sampling"], r["denoiser_calls_training"], r["kept"]) for r in store.rounds(run["run_id"])]
        for run in (one, two)
    ]
    assert spent[0] == spent[1]
    evals = [
        {(e["queries"], e["split"], e["metric"]): (e["value"], e["n"]) for e in store.evals([run["run_id"]])}
        for run in (one, two)
    ]
    assert evals[0].keys() == evals[1].keys()
    for key, (value_one, n) in evals[0].items():
        assert evals[1][key] == (pytest.approx(value_one, abs=1e-3, nan_ok=True), n), key
    weights = [load_file(folder / "runs" / run["run_id"] / "pytorch_lora_weights.safetensors") for run in (one, two)]
    vectors = [torch.cat([tensor.flatten() for tensor in state.values()]) for state in weights]
    assert (vectors[0] - vectors[1]).abs().max() < 1e-3 * vectors[0].abs().max()


def took_over(store: Store, folder: Path, first: str, second: str) -> None:
    """The second run has the first one's evaluation at 0 queries: its numbers, its images and their files."""
    found = [store.evaluation(run_id, 0) for run_id in (first, second)]
    assert {row["settings"].get("reused_from") for row in found[1][0]} == {first}
    values = [[(row["split"], row["metric"], repr(row["value"]), row["n"]) for row in evals] for evals, _ in found]
    assert values[0] == values[1]
    images = [[{k: v for k, v in row.items() if k != "run_id"} for row in images] for _, images in found]
    assert images[0] == images[1]
    files = [row["path"] for row in found[1][1] if row["path"]]
    assert len(files) == 6
    assert all((folder / "runs" / second / name).is_file() for name in files)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "number"), [("1", signal.SIGHUP), ("2", signal.SIGTERM)])
def test_a_signal_to_the_first_process_alone_interrupts_the_run(
    processes: str, number: signal.Signals, tmp_path: Path
) -> None:
    """A scheduler or ``kill`` tells the process that it knows; a terminal that closes sends SIGHUP."""
    command = [sys.executable, "-m", "b2bench", "run", "--algo", "ddpo", *SMALL, "--queries", "900"]
    process = subprocess.Popen(
        [*command, "--processes", processes], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # what started the tests may ignore it
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        lines = []
        for line in process.stderr:  # which ends when the last of them has ended
            lines.append(line)
            if line.startswith("round  1/"):
                process.send_signal(number)
    text = "".join(lines)
    assert process.returncode == 1, text
    assert "Traceback" not in text
    assert text.count("interrupted; every finished round is in b2bench.duckdb. Continue with: b2bench run") == 1
    [run] = Store(tmp_path / "b2bench.duckdb").runs()
    assert run["status"] == "interrupted"


@pytest.mark.slow
def test_a_loss_that_fails_in_one_process_ends_all_of_them(tmp_path: Path) -> None:
    """A reward is called in the same way (tests/unit/test_engine.py)."""
    (tmp_path / "odd.py").write_text(
        "import os\n"
        "from b2bench.registry import algorithm\n\n\n"
        "@algorithm\nclass Odd:\n"
        "    pairs = False\n"
        "    def loss(self, policy, batch):\n"
        "        if os.environ.get('RANK') == '1':\n"
        "            raise ValueError('only here')\n"
        "        transition = policy.transition(batch.cond, batch.latents, batch.step)\n"
        "        return transition.log_prob(batch.next_latents).mean(), {}\n",
        encoding="utf-8",
    )
    started = time.monotonic()
    ended = command("run", "--algo", "odd", "--plugin", "odd.py", *SMALL, "--processes", "2", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.count("round 0: process 1 of 2: ValueError: only here (") == 1
    assert time.monotonic() - started < 300  # nobody waits for the other
    [run] = Store(tmp_path / "b2bench.duckdb").runs()
    assert run["status"] == "failed"
    assert "odd.py, line 10)" in run["error"]
    [trace] = tmp_path.glob("runs/*/traceback*.txt")
    assert (trace.name, trace.read_text().count("only here")) == ("traceback-1.txt", 2)  # the line, and what it raised


def test_an_interrupted_run_does_not_wait_for_a_process_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for another deep inside a library hears of no signal."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    started: list[subprocess.Popen[bytes]] = []
    usual = subprocess.Popen

    def popen(_: list[str], **options: Any) -> Any:
        started.append(usual([sys.executable, "-c", code], **options, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        started[-1].stdout.readline()
        return started[-1]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(launch_module, "time", SimpleNamespace(sleep=interrupted))
    monkeypatch.setattr(launch_module, "LAST_WORDS", 0.1)
    monkeypatch.setattr(launch_module, "LEAVE", 0.1)
    assert launch(2, ["run"], cpu=True) == 1
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_a_users_mistake_is_said_once_and_starts_nothing(
    b2bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = b2bench("run", "--algo", "ddpoo", "--processes", "2")
    assert result.code == 2
    assert result.stderr.count("Did you mean ddpo") == 1
    result = b2bench("run", "--algo", "ddpo", *SMALL, "--processes", "4")
    assert result.code == 2
    assert "try at most 2" in result.stderr


def test_when_one_process_is_killed_the_others_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, signal, time; os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL); time.sleep(99)"
    started = []
    usual = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        assert ("b2bench.cli.with_parent" in command, options["stdin"]) == (True, subprocess.PIPE)
        started.append(usual([sys.executable, "-c", code], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert launch(3, ["run"], cpu=True) == 1
    assert sorted(process.returncode for process in started) == [-signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL]


def test_a_process_whose_parent_is_gone_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after kill -9 of the process that started the others."""
    held, interrupted = [b"x", b""], []
    monkeypatch.setattr(os, "read", lambda *_: held.pop(0))
    monkeypatch.setattr(os, "kill", lambda *call: interrupted.append((call, list(held))))
    with_parent.interrupt_with_parent()
    assert interrupted == [((os.getpid(), signal.SIGTERM), [])]
