"""A sweep on a cluster, without one: what is sent to a node, what is taken back, and what a retry costs."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_rows import run_row

import b2bench
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.sweep.plan import plan
from b2bench.sweep.ray_cluster import RayCluster, check_address, fitting
from b2bench.sweep.ray_sweep import LOSSES, Lost, RaySweep, packed
from b2bench.sweep.ray_task import PREFIX, on_node, own_folder


def config(options: dict[str, Any]) -> RunConfig:
    return resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=240, values={},
        seed=options["seed"],
    )  # fmt: skip


class Fake:
    """A cluster of ``places``; each task ends as the next of its seed's list says, or else done."""

    def __init__(self, folder: Path, cell: str, how: dict[int, list[str]], places: int = 2) -> None:
        self.folder, self.cell, self.places = folder, cell, places
        self.how = {seed: list(ends) for seed, ends in how.items()}
        self.running: list[int] = []
        self.most = 0
        self.tasks: list[dict[str, Any]] = []
        self.cancelled: list[int] = []

    def room(self) -> int:
        return self.places

    def submit(self, task: dict[str, Any]) -> int:
        self.tasks.append(task)
        self.running.append(len(self.tasks) - 1)
        self.most = max(self.most, len(self.running))
        return self.running[-1]

    def wait(self, handles: Sequence[int], seconds: float) -> list[int]:
        return list(handles)[:1]

    def cancel(self, handles: Sequence[int]) -> None:
        self.cancelled = list(handles)

    def result(self, handle: int) -> dict[str, Any]:
        self.running.remove(handle)
        arguments = self.tasks[handle]["arguments"]
        seed = int(arguments[arguments.index("--seed") + 1])
        left = self.how.get(seed, [])
        how = left.pop(0) if left else "done"
        if how == "lost":
            raise Lost("NodeDiedError: gone")
        if how == "full":
            raise OSError(28, "No space left on device")
        if how == "old":
            return {"node": "n1", "refused": "its b2bench is 0.1"}
        if how == "ctrl-c":
            raise KeyboardInterrupt
        run_id, db = f"run-{seed}-{handle}", self.folder / f"node-{seed}-{handle}.duckdb"
        store = Store(db)
        cell = "another" if how == "another" else self.cell
        version = "0" if how == "another version" else b2bench.benchmark_version()
        store.start_run(run_row(run_id, seed=seed, config_hash=cell, benchmark_version=version))
        store.finish_run(
            run_id, "failed" if how == "failed" else "done", "the loss is nan" if how == "failed" else None
        )
        return {
            "node": "n1",
            "code": 1 if how == "failed" else 0,
            "log": b"error: the loss is nan\n",
            "store": {"run.duckdb": db.read_bytes()},
            "files": {f"{run_id}/config.json": b"{}", f"{run_id}/samples/0-0.png": b"png"},
        }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RaySweep]:
    def sweep(seeds: list[int], how: dict[int, list[str]] | None = None, places: int = 2, **options: Any) -> RaySweep:
        jobs = plan({"seed": seeds}, ["--set", "lr=0.1"], config)
        fake = Fake(tmp_path, jobs[0].key[0], how or {}, places)
        return RaySweep(
            jobs, Store(tmp_path / "b2bench.duckdb"), tmp_path / "runs", pause=0.01, cluster=fake, **options
        )

    return sweep


def states(sweep: RaySweep) -> list[str]:
    return [progress.state for progress in sweep.progress]


@pytest.mark.slow
def test_results_come_back_and_what_is_done_is_skipped(make: Callable[..., RaySweep], tmp_path: Path) -> None:
    sweep = make([0, 1, 2], threads=3)
    sweep.run()
    assert states(sweep) == ["done"] * 3
    assert sweep.cluster.most == 2
    task = sweep.cluster.tasks[0]
    assert (task["version"], task["threads"]) == (b2bench.both_versions(), 3)
    for progress in sweep.progress:
        assert (tmp_path / "runs" / str(progress.run_id) / "samples" / "0-0.png").read_bytes() == b"png"
    again = make([0, 1, 2, 3], at_once=1, places=0)
    again.run()
    assert states(again) == ["already done"] * 3 + ["done"]
    assert len(again.cluster.tasks) == 1
    assert [run["seed"] for run in sweep.store.runs()] == [0, 1, 2, 3]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "sweep",
        "run-0-0",
        "run-1-1",
        "run-2-2",
        "run-3-0",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "ends", "tasks", "losses"),
    [
        (["lost"] * LOSSES, "done", LOSSES + 1, LOSSES),
        (["lost"] * (LOSSES + 1), "failed", LOSSES + 1, LOSSES + 1),
        (["failed"], "done", 2, 0),
        (["failed", "failed"], "failed", 2, 0),
        (["failed", "lost", "lost", "done"], "done", 4, 2),
        (["lost", "failed", "lost", "failed"], "failed", 4, 2),
        (["full", "done"], "done", 2, 0),
        (["another", "another"], "failed", 2, 0),
        (["another version", "another version"], "failed", 2, 0),
    ],
)  # fmt: skip
def test_a_lost_node_costs_no_attempt(
    make: Callable[..., RaySweep], how: list[str], ends: str, tasks: int, losses: int
) -> None:
    sweep = make([0, 1], {1: how})
    sweep.run()
    assert states(sweep) == ["done", ends]
    assert len(sweep.cluster.tasks) == 1 + tasks
    assert sweep.progress[1].losses == losses
    rows = sweep.store.runs(seed=1)
    assert [row["status"] for row in rows] == (["done"] if ends == "done" else ["failed"] if "failed" in how else [])
    if ends == "done":
        assert sweep.progress[1].note == ""
    if ends == "failed" and "failed" in how:
        assert sweep.progress[1].note == "node n1, exit code 1: error: the loss is nan"
        assert sweep.progress[1].log is not None
    if "another" in how[0]:
        assert "made another run" in sweep.progress[1].note


def test_another_version_on_a_node_stops_the_sweep(make: Callable[..., RaySweep]) -> None:
    sweep = make([0, 1, 2], {0: ["old"]})
    with pytest.raises(UserError, match=r"node n1 .* 0\.1.* the driver's is .*Try the same version on every node"):
        sweep.run()
    assert len(sweep.cluster.cancelled) == 2
    assert not sweep.store.path.exists()


def test_ctrl_c_cancels_what_runs_and_keeps_what_is_done(make: Callable[..., RaySweep]) -> None:
    sweep = make([0, 1, 2, 3], {1: ["ctrl-c"]})
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert states(sweep) == ["done", "stopped", "stopped", "stopped"]
    assert len(sweep.cluster.cancelled) == 2


def test_a_run_that_fits_on_no_node_is_refused(make: Callable[..., RaySweep]) -> None:
    with pytest.raises(UserError, match="--gpus-per-run"):
        make([0], places=0).run()
    node = {"CPU": 16.0, "GPU": 2.0}
    assert [fitting(node, 1, gpus) for gpus in (0, 1, 0.5, 0.3, 0.4)] == [16, 2, 4, 6, 4]
    assert fitting(node, 8, 0.25) == 2
    assert fitting({}, 1, 0) == 0


def test_files_of_the_user_go_along_and_name_the_same_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = tmp_path, tmp_path / "elsewhere"
    (here / "mine.py").write_text((Path(__file__).parents[3] / "examples" / "awr.py").read_text())
    (here / "own").mkdir()
    (here / "own" / "train.txt").write_text("a cat riding a bike\n")
    (here / "own" / "test.txt").write_text("a dog playing chess\n")
    (here / "p.txt").write_text("a cat riding a bike\n")
    (here / "fast.toml").write_text("[choices.a.set]\nsteps = { value = 5, source = 'open', why = 'x' }\n")
    arguments = [
        "--algo",
        "awr",
        "--prompts",
        "own",
        "--plugin",
        "mine.py",
        "--preset",
        "fast.toml:a",
        "--set",
        "a=b/c",
    ]
    sent, files = packed(arguments)
    assert sent[sent.index("--algo") + 1] == "awr"
    assert sent[sent.index("--preset") + 1].endswith("/fast.toml:a")
    assert sent[-1] == "a=b/c"
    for path, content in files.items():
        assert not os.path.isabs(path)
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_bytes(content)

    def cell(arguments: list[str]) -> str:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        made = resolve(
            algorithm="awr", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=240, seed=0, values={},
            prompts=options["--prompts"], plugins=(Path(options["--plugin"]),),
        )  # fmt: skip
        return made.cell_hash()

    expected = cell(arguments)
    monkeypatch.chdir(there)
    assert cell(sent) == expected
    monkeypatch.chdir(here)
    sent, files = packed(["--prompts", "p.txt", "--backbone", "own"])
    assert files == {sent[1]: b"a cat riding a bike\n"}
    assert Path(sent[1]).name == "p.txt"
    assert sent[3] == str(tmp_path / "own")
    assert packed(["--prompts", "template1", "--preset", "paper:100x256", "--backbone", "sd14"])[1] == {}
    tuned = tmp_path / "leaderboard" / "tuned" / "ddpo-b2.toml"
    tuned.parent.mkdir(parents=True)
    tuned.write_text("about = 'tuned'", encoding="utf-8")
    sent, files = packed(["--algo", "ddpo", "--wrapper", "b2", "--preset", "tuned"])
    assert sent[-1] == "files/2/ddpo-b2.toml"
    assert files == {sent[-1]: b"about = 'tuned'"}
    with pytest.raises(UserError, match=r"--set checkpoint=./own.*absolute path"):
        packed(["--set", "checkpoint=./own"])
    (here / "mine.py").write_text("import near_this\n")
    (here / "near_this.py").write_text("X = 1\n")
    sent, files = packed(["--plugin", "mine.py"])
    assert files == {sent[1]: b"import near_this\n", f"{os.path.dirname(sent[1])}/near_this.py": b"X = 1\n"}
    (here / "mine.py").unlink()
    with pytest.raises(UserError, match=r"mine\.py cannot be read"):
        packed(["--plugin", "mine.py"])


def test_a_node_with_another_version_says_so_before_it_does_anything() -> None:
    found = on_node({"version": "0.0", "arguments": [], "files": {}, "threads": 1})
    assert found["refused"].startswith(f"its b2bench is {b2bench.both_versions()} (of ")


def test_what_killed_workers_left_is_removed_and_what_is_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"{PREFIX}left").mkdir()
    (tmp_path / "other").mkdir()
    with own_folder() as first:
        assert first.is_dir()
        with own_folder() as second:
            assert first.is_dir()
            assert second != first
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_run_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Stdin that ends stands for a worker that was killed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    script = (
        "import sys, time, b2bench.cli.main as c; from b2bench.cli import on_node; c.main = lambda: time.sleep(60); "
    )
    script += "on_node.main()"
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, cwd=folder)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(20) == 1
    assert not folder.exists()


def test_without_the_extra_an_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"uv pip install -e '.*\[ray\]'"):
        RayCluster("auto", 1, None)


def test_a_head_node_that_does_not_answer_in_time_changes_no_room() -> None:
    cluster: Any = RayCluster.__new__(RayCluster)
    answers = [[{"Alive": True, "Resources": {"CPU": 3.0}}, {"Alive": False, "Resources": {"CPU": 9.0}}]]

    def nodes() -> Any:
        if not answers:
            raise TimeoutError("Timed out while waiting for GCS to become available.")
        return answers.pop()

    cluster.ray = SimpleNamespace(nodes=nodes, exceptions=SimpleNamespace(RayError=TimeoutError))
    cluster.cpus, cluster.gpus, cluster._known = 1, 0, []
    assert [cluster.room(), cluster.room()] == [3, 3]


@pytest.mark.parametrize("address", ["", "here", "ray://127.0.0.1:10001", ":1", "127.0.0.1:x"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(UserError, match="try auto, or HOST:PORT"):
        check_address(address)


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1: nothing answers there .*ray start --head"):
        check_address("127.0.0.1:1")
