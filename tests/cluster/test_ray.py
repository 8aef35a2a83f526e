"""A sweep on a real Ray cluster on this machine: a node is killed, the driver is killed, and nothing is lost.

Nodes are processes. Skipped where Ray is not installed. Without the variable one run on one node is made; the whole
takes four minutes on two cores:

    B2BENCH_CLUSTER=1 uv run pytest tests/cluster -n0 -s
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.sweep.ray_cluster import check_address

pytest.importorskip("ray", reason="needs the extra ray: pip install 'b2bench[ray]'")

pytestmark = pytest.mark.slow
whole = pytest.mark.skipif(
    not os.environ.get("B2BENCH_CLUSTER"), reason="takes minutes; B2BENCH_CLUSTER=1 runs it: two nodes, kills"
)

ROUNDS, PER_ROUND = 4, 5
QUERIES = ROUNDS * PER_ROUND
SMALL = ("draws=1", f"samples={PER_ROUND}", "steps=3", "transitions_per_step=1000")
SMALL += ("eval_points=2", "eval_images=4", "eval_train_images=0", "kl_images=0", "sample_images=2")
TINY = ("--algo", "ddpo", "--queries", str(QUERIES), *(word for text in SMALL for word in ("--set", text)))


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head node with one CPU."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster()
    made.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
    yield made
    made.shutdown()


def raylet(node: Any) -> int:
    """The process id of what makes a node a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def runs_on(node: Any) -> list[psutil.Process]:
    """Processes of runs that train on a node: their store is there."""
    found = []
    try:
        for process in psutil.Process(raylet(node)).children(recursive=True):
            command = process.cmdline()
            if "b2bench.cli.on_node" in command and (Path(process.cwd()) / "runs").is_dir():
                found.append(process)
    except psutil.Error:  # it ended meanwhile
        pass
    return found


def until(what: Callable[[], Any], seconds: float = 600) -> Any:
    """What ``what`` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def sweep(cluster: Any, folder: Path, *arguments: str, command: str = "sweep") -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "b2bench", command, *TINY, "--ray", cluster.address, *arguments]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(line, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], folder: Path) -> str:
    """What sweeps of ``folder`` printed so far; the last must have done everything."""
    code = process.wait(900)
    text = (folder / "log").read_text()
    print(f"\n{text}")
    assert code == 0, text
    return text


def check_all_there(folder: Path, seeds: set[int]) -> None:
    """Every run once, done, with all of its rows and its folder."""
    store = Store(folder / "b2bench.duckdb")
    runs = store.runs()
    assert sorted(run["seed"] for run in runs) == sorted(seeds)
    assert {run["status"] for run in runs} == {"done"}
    for run in runs:
        rows = store.whole_run(run["run_id"])
        assert sorted(row["query_index"] for row in rows["queries"]) == list(range(QUERIES))
        assert [row["round"] for row in rows["rounds"]] == list(range(ROUNDS))
        assert len(rows["images"]) == 2 * 4
        made = folder / "runs" / run["run_id"]
        assert {"config.json", "pytorch_lora_weights.safetensors"} <= {path.name for path in made.iterdir()}
        for image in rows["images"]:
            assert image["path"] is None or (made / image["path"]).is_file()
    assert len([path for path in (folder / "runs").iterdir() if path.name != "sweep"]) == len(seeds)


def test_a_port_that_is_no_clusters_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b2bench.sweep.ray_cluster.PATIENCE", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--ray {address}: no Ray cluster answered within 5 s; start one with"):
            check_address(address)


def test_a_run_on_one_node_with_files_of_the_user(cluster: Any, tmp_path: Path) -> None:
    """The short form: a plugin and prompts in relative paths reach the node, and the second command finds all done."""
    plugin = (Path(__file__).parents[2] / "examples" / "awr.py").read_text()
    (tmp_path / "awr.py").write_text(plugin)
    (tmp_path / "mine.txt").write_text("a cat riding a bike\na dog playing chess\n")
    own = ("--algo", "awr", "--plugin", "awr.py", "--prompts", "mine.txt", "--seeds", "3")
    text = ended(sweep(cluster, tmp_path, *own), tmp_path)
    assert "awr vanilla mine.txt s3  running" in text
    check_all_there(tmp_path, {3})
    (run,) = Store(tmp_path / "b2bench.duckdb").runs()
    assert (run["algorithm"], run["prompts"]) == ("awr", "mine.txt")
    assert "1 already done" in ended(sweep(cluster, tmp_path, *own), tmp_path)


@whole
def test_both_stages_of_a_tuning_run_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    few = ("--configurations", "2")
    text = ended(sweep(cluster, tmp_path, *few, command="tune"), tmp_path)
    assert "second stage: 2 runs" in text
    store = Store(tmp_path / "b2bench.duckdb")
    assert sorted(run["seed"] for run in store.runs(status="done")) == [1000, 1000, 1001, 1002]
    preset = tmp_path / "leaderboard" / "tuned" / "ddpo-vanilla.toml"
    made = preset.read_bytes()
    ended(sweep(cluster, tmp_path, *few, command="tune"), tmp_path)
    assert len(store.runs()) == 4
    assert preset.read_bytes() == made


@whole
def test_a_node_that_is_killed_costs_its_run_a_retry_and_nothing_else(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    process = sweep(cluster, tmp_path, "--seeds", "0-2")
    try:
        (victim,) = until(lambda: runs_on(second))
        folder = Path(victim.cwd())
        victim.suspend()  # it cannot end by itself: its worker must see that the raylet is gone
        os.kill(raylet(second), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not victim.is_running(), 60)
        until(lambda: not folder.exists(), 10)
        until(lambda: "  lost" in (tmp_path / "log").read_text())
        print(f"\nthe driver knew after {time.monotonic() - killed:.0f} s")
        text = ended(process, tmp_path)
    finally:
        process.kill()
    assert text.count("  lost") == 1
    assert text.count("running, again") == 1
    check_all_there(tmp_path, {0, 1, 2})


@whole
def test_ctrl_c_gives_up_what_runs_and_says_what_is_done(cluster: Any, tmp_path: Path) -> None:
    process = sweep(cluster, tmp_path, "--seeds", "0,1")
    try:
        (child,) = until(lambda: runs_on(cluster.head_node))
        folder = Path(child.cwd())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    finally:
        process.kill()
    text = (tmp_path / "log").read_text()
    assert "interrupted (2 stopped); every finished run is in b2bench.duckdb. The same command goes on" in text
    assert "Traceback" not in text
    until(lambda: not child.is_running() and not folder.exists(), 10)


@whole
def test_after_kill_9_of_the_driver_the_same_command_goes_on(cluster: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "b2bench.duckdb")
    process = sweep(cluster, tmp_path, "--seeds", "0-2")
    try:
        until(lambda: store.path.exists() and store.runs())
        (orphan,) = until(lambda: runs_on(cluster.head_node))
        folder = Path(orphan.cwd())
    finally:
        process.kill()
    until(lambda: not orphan.is_running(), 30)  # nothing trains for nobody
    before = [run["run_id"] for run in store.runs()]
    assert len(before) == 1
    text = ended(sweep(cluster, tmp_path, "--seeds", "0-2"), tmp_path)
    assert "1 already done, 2 done" in text
    check_all_there(tmp_path, {0, 1, 2})
    assert store.runs()[0]["run_id"] == before[0]
    assert not folder.exists()
