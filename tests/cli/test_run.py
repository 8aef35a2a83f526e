"""Runs from the command line: what they write, and what is left of those that are stopped."""

import errno
import hashlib
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from store_rows import run_row

from b2bench import both_versions
from b2bench.config.choices import Choices, resolved
from b2bench.config.settings import Settings
from b2bench.errors import Busy
from b2bench.store.store import Store
from b2bench.terminal.progress import RunProgress
from b2bench.version import benchmark_version

ROOT = Path(__file__).parents[2]
PYTHON = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
CLI = (sys.executable, "-m", "b2bench")
ROUNDS, PER_ROUND = 6, 5
BUDGET = ROUNDS * PER_ROUND
SMALL = ("draws=1", f"samples={PER_ROUND}", "steps=3", "transitions_per_step=1000")
SMALL += ("eval_points=2", "eval_images=4", "eval_train_images=0")
SET = tuple(word for text in SMALL for word in ("--set", text))
TINY = ("run", "--algo", "ddpo", "--queries", str(BUDGET), *SET)


@dataclass(frozen=True)
class Ended:
    """A process that ended, in the folder where it ran."""

    folder: Path
    code: int
    stdout: str
    stderr: str

    @property
    def store(self) -> Store:
        return Store(self.folder / "b2bench.duckdb")


def run_in(folder: Path, *arguments: str) -> Ended:
    done = subprocess.run([*CLI, *arguments], cwd=folder, env=PYTHON, capture_output=True, text=True, timeout=300)
    return Ended(folder, done.returncode, done.stdout, done.stderr)


set_signal = signal.signal  # the fixture b2bench replaces it


def heed_interrupts() -> None:
    """As in a terminal: what a script starts in the background ignores SIGINT, and so would all that it starts."""
    set_signal(signal.SIGINT, signal.SIG_DFL)


def stop_in(folder: Path, number: signal.Signals) -> Ended:
    """Start a run, and send it a signal when its first round is done."""
    with (folder / "stdout").open("w+") as out:
        process = subprocess.Popen(
            [*CLI, *TINY, "--name", "weekend"],
            cwd=folder,
            env=PYTHON,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        assert process.stderr is not None
        with process:
            lines = []
            for line in process.stderr:
                lines.append(line)
                # Once: a line that is cut off by the signal is printed again.
                if line.startswith("round  1/") and not any(text.startswith("round ") for text in lines[:-1]):
                    process.send_signal(number)
        out.seek(0)
        return Ended(folder, process.returncode, out.read(), "".join(lines))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[Ended]"]]:
    """Three runs in processes of their own, at the same time: most of what they do is to import torch."""
    with ThreadPoolExecutor() as pool:
        yield {
            "json": pool.submit(run_in, tmp_path_factory.mktemp("json"), *TINY, "--json", "--seed", "3"),
            "interrupted": pool.submit(stop_in, tmp_path_factory.mktemp("a folder"), signal.SIGINT),
            "killed": pool.submit(stop_in, tmp_path_factory.mktemp("killed"), signal.SIGKILL),
        }


def check_whole(store: Store, run_id: str) -> None:
    """The run is done, and has exactly one row for everything it did."""
    run = store.find_run(run_id)
    assert (run["status"], run["error"]) == ("done", None)
    queries = store.sql("SELECT query_index, round, leaf FROM queries WHERE run_id = ? ORDER BY ALL", [run_id])
    assert queries == [{"query_index": i, "round": i // PER_ROUND, "leaf": i % PER_ROUND} for i in range(run["budget"])]
    rounds = store.rounds(run_id)
    assert [row["round"] for row in rounds] == list(range(run["budget"] // PER_ROUND))
    assert rounds[-1]["queries"] == run["budget"]
    assert {row["queries"] for row in store.evals(run_id)} == {0, run["budget"]}


# -- a run that ends well --------------------------------------------------------------------------


@pytest.mark.slow
def test_stdout_is_the_result_and_stderr_the_progress(ended: dict[str, "Future[Ended]"]) -> None:
    run = ended["json"].result()
    assert run.code == 0, run.stderr
    summary = json.loads(run.stdout)
    assert summary["queries"] == BUDGET
    assert summary["before"].keys() == summary["after"].keys() >= {"clipscore", "clipscore_heldout", "success"}
    assert (run.folder / summary["weights"]).is_file()
    assert run.stderr.count("\nround ") == ROUNDS
    assert run.stderr.count("evaluation at ") == 2
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_row_for_every_query_and_none_twice(
    ended: dict[str, "Future[Ended]"], b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended["json"].result()
    first = json.loads(run.stdout)["run_id"]
    check_whole(run.store, first)
    monkeypatch.chdir(run.folder)
    again = b2bench(*TINY, "--json", "--seed", "3", "--queries", "10", "--name", "again")
    assert again.code == 0, again.stderr
    second = json.loads(again.stdout)["run_id"]
    assert second != first
    check_whole(run.store, first)
    check_whole(run.store, second)
    assert run.store.sql("SELECT count(*) AS n FROM queries") == [{"n": BUDGET + 10}]
    # A name is one run's, and that is found out before anything is done.
    taken = b2bench(*TINY, "--name", "again")
    assert taken.code == 2
    assert "named 'again' already, with other settings and another seed" in " ".join(taken.stderr.split())
    assert len(run.store.runs()) == 2


@pytest.mark.slow
def test_the_command_line_goes_before_the_config_file(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [text.partition("=") for text in SMALL]
    table = "\n".join(f"{name} = {value}" for name, _, value in names)
    Path("cell.toml").write_text(
        f'algo = "pg"\nwrapper = "bs"\nqueries = 10\nseed = 7\n\n[set]\n{table}\nlr = 2e-3\n"bs.best" = 0.25\n'
    )
    done = b2bench("run", "--config", "cell.toml", "--seed", "8", "--set", "lr=5e-4", "--set", "steps=2")
    assert done.code == 0, done.stderr
    [run] = Store("b2bench.duckdb").runs()
    assert (run["algorithm"], run["wrapper"], run["budget"], run["seed"]) == ("pg", "bs", 10, 8)
    assert run["reward"] == "clipscore"
    assert run["config"]["settings"]["lr"] == 5e-4
    assert run["config"]["settings"]["steps"] == 2
    assert run["config"]["settings"]["transitions_per_step"] == 1000
    assert run["config"]["wrapper"]["best"] == 0.25
    assert run["run_id"] in done.stdout
    assert "pytorch_lora_weights.safetensors" in done.stdout


def test_paths_and_names_are_printed_as_they_are(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs
    from b2bench.training.summary import Summary

    def start(config: Any, store: Store, out: Path, *_: object) -> Summary:
        weights, db = str(out / "weights"), str(store.path)
        return Summary("run[1]", 10, 1.0, 10.0, {"odd[/b]": 0.1}, {"odd[/b]": 0.2}, weights, db, reward="odd[/b]")

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.chdir(tmp_path)
    Path("a[").mkdir()
    done = b2bench(*TINY, "--db", "a[/b].duckdb", "--out", "runs[old]:cat:")
    assert done.code == 0, done.stderr
    for text in ("run[1]: 10 reward queries", "odd[/b]", "a[/b].duckdb", "runs[old]:cat:/weights"):
        assert text in done.stdout


def test_a_terminal_shows_names_as_they_are() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system=None)
    metric = SimpleNamespace(name="odd[/b]", split="test", value=0.5, settings={})
    taken = SimpleNamespace(name="odd[/b]", split="test", value=0.25, settings={"reused_from": "mine[/b]"})
    with RunProgress(console, 10, "odd[/b]") as progress:
        progress.stage("loading a[/b]")
        progress.progress.refresh()
        report = SimpleNamespace(metrics={}, kept=np.ones(5), optimizer_steps=1)
        progress.round_done(1, 2, 5, 0.5, report)
        none = SimpleNamespace(name="distance", split="test", value=math.nan, settings={})
        progress.evaluated(5, SimpleNamespace(metrics=[metric, none]))
        progress.evaluated(0, SimpleNamespace(metrics=[taken]))
    for text in ("loading a[/b]", "5 queries  odd[/b] 0.500", "evaluation at 5 queries  odd[/b] 0.500"):
        assert text in screen.getvalue()
    assert "distance" not in screen.getvalue()  # a metric without a value is left out
    assert "evaluation at 0 queries (measured by run mine[/b])  odd[/b] 0.250" in screen.getvalue()


# -- runs that are stopped -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(
    ended: dict[str, "Future[Ended]"], b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended["interrupted"].result()
    assert run.code == 1, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    [stored] = run.store.runs()
    assert stored["status"] == "interrupted"
    assert 1 <= len(run.store.rounds()) < ROUNDS
    last = run.stderr.splitlines()[-1]
    assert last.startswith("interrupted; every finished round is in ")
    command = shlex.split(last.partition("Continue with: ")[2])
    assert command[:2] == ["b2bench", "run"]
    monkeypatch.chdir(run.folder)
    resumed = b2bench(*command[1:])
    assert resumed.code == 0, resumed.stderr
    check_whole(run.store, stored["run_id"])
    assert len(run.store.runs()) == 1


@pytest.mark.slow
def test_a_killed_run_leaves_a_store_that_reads_and_resumes(
    ended: dict[str, "Future[Ended]"], b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended["killed"].result()
    assert run.code == -signal.SIGKILL, run.stderr
    [stored] = run.store.runs()
    assert stored["status"] == "running"
    rounds = len(run.store.rounds())
    assert 1 <= rounds < ROUNDS
    assert run.store.sql("SELECT count(*) AS n FROM queries") == [{"n": rounds * PER_ROUND}]
    monkeypatch.chdir(run.folder)
    # A checkpoint of something else, whole by its name, is no reason to start anew.
    forged = io.BytesIO()
    torch.save({"round": rounds, "queries": []}, forged)
    name = f"checkpoint-00099-{hashlib.sha256(forged.getvalue()).hexdigest()[:16]}.pt"
    alien = run.folder / "runs" / stored["run_id"] / name
    alien.write_bytes(forged.getvalue())
    refused = b2bench("run", "--resume", stored["run_id"])
    assert refused.code == 2
    assert f"is not of run {stored['run_id']}" in refused.stderr
    assert len(run.store.rounds()) == rounds
    alien.unlink()
    # Elsewhere there are no checkpoints: it would start anew, over the rows that are stored.
    elsewhere = b2bench("run", "--resume", stored["run_id"], "--out", "elsewhere")
    assert elsewhere.code == 2
    assert "--out" in elsewhere.stderr
    assert len(run.store.rounds()) == rounds
    other = b2bench(*TINY, "--name", "weekend", "--seed", "9")
    assert other.code == 2
    assert "named 'weekend' already, with another seed" in " ".join(other.stderr.split())
    # The same command again goes on.
    resumed = b2bench(*TINY, "--name", "weekend", "--json")
    assert resumed.code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["run_id"] == stored["run_id"]
    check_whole(run.store, stored["run_id"])
    finished = b2bench(*TINY, "--name", "weekend")
    assert finished.code == 0
    assert "run weekend is done already" in " ".join(finished.stderr.split())
    assert len(run.store.runs()) == 1
    again = b2bench("run", "--resume", stored["run_id"])
    assert again.code == 2
    assert "is finished" in again.stderr


def test_an_interrupt_before_the_run_promises_nothing(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "Trainer", interrupted)
    monkeypatch.chdir(tmp_path)
    result = b2bench(*TINY)
    assert result.code == 1
    assert "nothing of it is stored" in result.stderr
    assert "--resume" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["resolve", "import"])
def test_an_interrupt_while_torch_is_imported_says_so(
    place: str, tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.config import resolve as config
    from b2bench.training import setup

    if place == "resolve":  # which imports the algorithm, and with it torch
        monkeypatch.setattr(config, "resolve", interrupt)
    else:
        monkeypatch.setattr(setup, "limit_threads", interrupt)
    monkeypatch.chdir(tmp_path)
    result = b2bench(*TINY)
    assert result.code == 1
    assert "nothing of it is stored" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["limit_threads", "Trainer"])
def test_an_interrupt_before_a_run_goes_on_says_how(
    place: str, tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs, setup

    monkeypatch.setattr(setup if place == "limit_threads" else runs, place, interrupt)
    monkeypatch.setattr(runs, "from_dict", lambda _: SimpleNamespace(settings=Settings()))
    monkeypatch.chdir(tmp_path)
    Path("runs/earlier").mkdir(parents=True)
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    result = b2bench("run", "--resume", "earl")
    assert result.code == 1
    assert "every finished round is in b2bench.duckdb" in result.stderr
    assert "b2bench run --resume earlier --db" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("torch.full((len(images),), float('nan'))", "reward odd returned 5 scores that are not finite, of 5"),
        ("torch.zeros(len(images), 2)", "reward odd returned shape (5, 2) for 5 images; expected (5,)"),
        ("torch.zeros(len(images) - 1)", "reward odd returned shape (4,) for 5 images; expected (5,)"),
    ],
)
def test_a_reward_that_answers_nonsense_fails_the_run(
    answer: str, reason: str, tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(
        "import torch\n\nfrom b2bench.registry import reward\n\n\n@reward\nclass Odd:\n"
        "    def __call__(self, images, prompts):\n"
        f"        return {answer} if len(images) == {PER_ROUND} else torch.zeros(len(images))\n"
    )
    result = b2bench(*TINY, "--reward", "odd", "--plugin", "odd.py")
    assert result.code == 1
    assert "Traceback" not in result.stderr
    assert f"run failed: round 0: {reason}" in result.stderr
    [run] = Store("b2bench.duckdb").runs()
    assert (run["status"], run["error"]) == ("failed", reason)
    assert Store("b2bench.duckdb").sql("SELECT count(*) AS n FROM queries") == [{"n": 0}]


@pytest.mark.slow
def test_a_terminal_in_ascii_gets_a_report_all_the_same(tmp_path: Path) -> None:
    Store(tmp_path / "b2bench.duckdb").start_run(run_row("earlier", name="caf\u00e9"))
    ascii_only = {**PYTHON, "PYTHONIOENCODING": "ascii"}
    for arguments in (["report"], ["show", "earlier"]):
        done = subprocess.run([*CLI, *arguments], cwd=tmp_path, env=ascii_only, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"?" in done.stdout


RUDE = """
import os, random, sys, torch
import numpy as np
from b2bench import reward

torch.set_grad_enabled(False)
print("imported")

@reward
class {name}:
    \"\"\"Mean brightness.\"\"\"

    def prepare(self, device):
        {rude}

    def __call__(self, images, prompts):
        found = images.flatten(1).mean(1)
        {rude}
        return found
"""
ALL = (
    "torch.set_grad_enabled(False); torch.set_default_dtype(torch.float64); torch.manual_seed(0); np.random.seed(0); "
    "random.seed(0); os.chdir('/'); print('scored'); os.system('echo scored'); 'images' in dir() and images.zero_()"
)


@pytest.mark.slow
def test_a_plugins_side_effects_change_no_number(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for name, rude in (("Clean", "pass"), ("Rude", ALL)):
        Path(f"{name}.py").write_text(RUDE.format(name=name, rude=rude))
        choice = ("--reward", name.lower(), "--plugin", f"{name}.py")
        values = ("draws=4", "samples=2", "steps=2", "eval_images=2", "eval_train_images=0")
        settings = [part for value in values for part in ("--set", value)]
        ended = b2bench("run", "--algo", "ddpo", "--queries", "8", *choice, *settings, "--json")
        assert ended.code == 0, ended.stderr
        summary = json.loads(ended.stdout)
        store = Store(tmp_path / "b2bench.duckdb")
        evals = [(row["metric"].replace("rude", "clean"), row["value"]) for row in store.evals([summary["run_id"]])]
        queries = "SELECT prompt, reward, advantage FROM queries WHERE run_id = ? ORDER BY query_index"
        pictures = [file.read_bytes() for file in sorted(Path("runs", summary["run_id"], "samples").iterdir())]
        weights = Path(summary["weights"]).read_bytes()
        found.append((sorted(map(repr, evals)), repr(store.sql(queries, [summary["run_id"]])), pictures, weights))
    assert found[0] == found[1]


# -- what is instant -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["run"], ["pocket"], ["pocket", "verify"]])
def test_h_is_help(arguments: list[str], b2bench: Callable[..., Any]) -> None:
    assert b2bench(*arguments, "-h").stdout == b2bench(*arguments, "--help").stdout != ""


@pytest.mark.parametrize("arguments", [["--help"], ["pocket", "--help"]])
def test_no_summary_of_a_command_is_cut(arguments: list[str]) -> None:
    found = subprocess.run(
        [*CLI, *arguments], env=PYTHON | {"COLUMNS": "80"}, capture_output=True, text=True, check=True
    )
    assert "..." not in found.stdout.split("\n", 1)[1]  # the first line is the usage


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["pocket", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """How long it takes is measured by benchmarks/startup.py."""
    code = (
        "import sys\nfrom b2bench.cli.main import main\n"
        f"sys.argv = ['b2bench', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'duckdb', 'numpy', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=PYTHON, capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_version(tmp_path: Path) -> None:
    assert run_in(tmp_path, "--version") == Ended(tmp_path, 0, f"{both_versions()}\n", "")


def test_without_arguments_there_is_help_and_exit_code_2(b2bench: Callable[..., Any]) -> None:
    result = b2bench()
    assert result.code == 2
    assert "Usage" in result.stdout
    assert result.stderr == ""


def test_ls_in_json_is_json_alone(tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for what, names in {
        "algorithms": {
            "ddpo",
            "pg",
            "dpo",
            "dpok",
            "rwr",
            "raft",
            "diffusion_dpo",
            "awm",
            "nft",
            "dgpo",
            "flow_dppo",
            "draft1",
        },
        "wrappers": {
            "vanilla",
            "bpt",
            "bs",
            "b2",
            "spread",
            "random2",
            "forward",
            "window",
            "noise_weighted",
            "tree",
        },
        "rewards": {
            "aesthetic",
            "bertscore",
            "clipscore",
            "hpsv2",
            "imagereward",
            "jpeg",
            "mix",
            "pickscore",
            "success",
        },
        "prompts": {"template1", "template2", "template3", "pocket-template2", "pocket-template3"},
        "backbones": {"pocket", "sd14"},
    }.items():
        result = b2bench("ls", what, "--json")
        assert result.code == 0, result.stderr
        assert {row["name"] for row in json.loads(result.stdout)} == names
        assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_stops_a_run_that_can_go_on(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import trainer

    def full(folder: Path, round: int, state: dict[str, Any]) -> Path:
        if round == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(folder, round, state)

    save = trainer.save_checkpoint
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", full)
        stopped = b2bench(*TINY)
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = store.runs()
    assert stopped.code == 1
    assert f"No space left on device; try making room, then --resume {run['run_id']}" in (
        " ".join(stopped.stderr.split())
    )
    assert (run["status"], "No space left" in run["error"]) == ("interrupted", True)
    resumed = b2bench("run", "--resume", run["run_id"])
    assert resumed.code == 0, resumed.stderr
    check_whole(store, run["run_id"])


@pytest.mark.slow
def test_a_store_that_another_keeps_for_hours_stops_a_run_that_can_go_on(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = []

    def kept(store: Store, run_id: str, row: dict[str, Any], queries: list[dict[str, Any]]) -> None:
        patience.append(store.patience)
        if row["round"] == 1:
            raise Busy(f"database {store.path} has been locked for 5 h by process 7 (duckdb)")
        record(store, run_id, row, queries)

    record = Store.record_round
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "record_round", kept)
        stopped = b2bench(*TINY)
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = store.runs()
    assert stopped.code == 1
    again = f"by process 7 (duckdb); try closing it there, then --resume {run['run_id']}"
    assert again in " ".join(stopped.stderr.split())
    assert "another --db" not in stopped.stderr  # its rows are in this one
    assert min(patience) >= 3600
    assert (run["status"], "locked for 5 h" in run["error"]) == ("interrupted", True)
    resumed = b2bench("run", "--resume", run["run_id"])
    assert resumed.code == 0, resumed.stderr
    check_whole(store, run["run_id"])


FLAT = """
import torch
from b2bench.registry import reward

@reward
class Flat:
    def __call__(self, images, prompts):
        return torch.zeros(len(images))
"""


@pytest.mark.slow
def test_what_a_round_shows_is_said_while_the_run_runs(
    tmp_path: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.py").write_text(FLAT)
    result = b2bench(*TINY, "--plugin", "flat.py", "--reward", "flat")
    assert result.code == 0, result.stderr
    text = " ".join(result.stderr.split())
    assert text.count("all rewards are equal in more than 50% of the prompt draws") == 1
    rounds = Store(tmp_path / "b2bench.duckdb").rounds()
    assert all(0 <= row["off_policy"] < 0.05 for row in rounds)
    assert "log-prob had changed" not in text


@pytest.mark.slow
def test_a_preset_that_names_the_algorithm_is_the_whole_command_again(
    b2bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of a preset resumes its runs by it."""
    monkeypatch.chdir(tmp_path)
    config = resolved(Choices(preset="grpo", seed=3))
    store = Store("b2bench.duckdb")
    store.start_run(
        run_row("a1", seed=3, config_hash=config.cell_hash(), config=config.as_dict(), budget=config.queries)
        | {"benchmark_version": benchmark_version()}
    )
    found = b2bench("run", "--resume", "a1", "--preset", "grpo", "--seed", "3")
    assert found.code == 2
    assert "run a1 has no folder" in " ".join(found.stderr.split())
    other = b2bench("run", "--resume", "a1", "--preset", "loop", "--seed", "3")
    assert "has other settings" in " ".join(other.stderr.split())
