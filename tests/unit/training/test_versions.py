"""What a release splits: nothing where the package's version alone changes, everything where the benchmark's does.

Each test makes something, lets a release come, and looks whether it still counts.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from b2bench.leaderboard.grid import title
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.selection import problems
from b2bench.leaderboard.tables import tables

from b2bench import version
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import Refused, UserError
from b2bench.store.store import Store
from b2bench.studies.baselines import Baseline
from b2bench.sweep.local import Sweep
from b2bench.sweep.plan import plan
from b2bench.sweep.ray_task import on_node
from b2bench.training import provenance, runs
from b2bench.training.listener import Silent

Release = Callable[[], None]


@pytest.fixture(params=[False, True], ids=["docs alone", "numbers change"])
def numbers_change(request: pytest.FixtureRequest) -> bool:
    """Whether the release that comes is one of the benchmark, or of the package alone."""
    return bool(request.param)


@pytest.fixture(autouse=True)
def benchmark_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is today."""
    monkeypatch.setattr("b2bench.version.BENCHMARK_VERSION", 3)


@pytest.fixture
def release(numbers_change: bool, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Lets the release come: a new version of the package, and of the benchmark where numbers change."""

    def come() -> None:
        monkeypatch.setattr("b2bench.version.__version__", "99.0")
        if numbers_change:
            monkeypatch.setattr("b2bench.version.BENCHMARK_VERSION", 4)

    return come


def config(options: dict[str, Any]) -> RunConfig:
    return resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=240, values={},
        seed=options.get("seed", 0),
    )  # fmt: skip


def row(run_id: str, seed: int = 0) -> dict[str, Any]:
    """The row of a run, as the runner writes it."""
    policy: Any = SimpleNamespace(device="cpu", threads=SimpleNamespace(count=1))
    return provenance.run_row(config({"seed": seed}), run_id, run_id, policy)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "b2bench.duckdb")


def test_the_benchmarks_version_is_a_whole_number_apart_from_the_packages() -> None:
    assert type(version.BENCHMARK_VERSION) is int
    assert version.benchmark_version() == str(version.BENCHMARK_VERSION)
    assert version.both_versions() == f"{version.__version__} (benchmark version {version.BENCHMARK_VERSION})"


def test_a_run_records_both(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b2bench.version.__version__", "99.0")
    store.start_run(row("a1"))
    (found,) = store.runs()
    assert (found["benchmark_version"], found["versions"]["b2bench"]) == ("3", "99.0")
    query = "SELECT versions->>'b2bench' AS package FROM runs WHERE benchmark_version = '3'"
    assert store.sql(query) == [{"package": "99.0"}]


def test_a_run_is_resumed(
    store: Store, tmp_path: Path, release: Release, numbers_change: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trainer(*_: Any) -> None:
        raise InterruptedError("it goes on")

    monkeypatch.setattr(runs, "Trainer", trainer)
    store.start_run(row("a1"))
    (tmp_path / "a1").mkdir()
    release()
    if not numbers_change:
        with pytest.raises(InterruptedError, match="it goes on"):
            runs.resume("a1", store, tmp_path, Silent())
        return
    reason = r"run a1 is of benchmark version 3, this is b2bench 99\.0 \(benchmark version 4\); .* try a new run"
    with pytest.raises(UserError, match=reason):
        runs.resume("a1", store, tmp_path, Silent())


def test_a_name_goes_on(
    store: Store, tmp_path: Path, release: Release, numbers_change: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(runs, "resume", lambda run_id, *_: resumed.append(run_id))
    store.start_run(row("weekend"))
    release()
    if numbers_change:
        with pytest.raises(UserError, match="named 'weekend' already, with benchmark version 3; try another name"):
            runs.start(config({}), store, tmp_path, "weekend", Silent())
    else:
        runs.start(config({}), store, tmp_path, "weekend", Silent())
    assert resumed == ([] if numbers_change else ["weekend"])


def test_a_name_that_another_process_takes_meanwhile_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        """Loads the backbone for as long as another process needs to start a run of the same name."""

        def __init__(self, *_: Any) -> None:
            self.policy, self.store, self.run_id = None, store, "b1"
            self.judges = SimpleNamespace(reward=None)
            store.start_run({**row("a1"), "name": "weekend"})

    monkeypatch.setattr(runs, "Trainer", Other)
    monkeypatch.setattr(runs, "run_row", lambda _, run_id, name, *more: {**row(run_id), "name": name})
    with pytest.raises(UserError, match="named 'weekend' was started meanwhile, a1"):
        runs.start(config({}), store, tmp_path / "runs", "weekend", Silent())
    assert [found["run_id"] for found in store.runs()] == ["a1"]
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_that_ends_before_it_is_resumed_stays_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.start_run(row("a1"))
    (tmp_path / "a1").mkdir()
    usual = runs.from_dict
    monkeypatch.setattr(runs, "from_dict", lambda found: store.finish_run("a1", "done") or usual(found))
    with pytest.raises(UserError, match="run a1 is finished"):
        runs.resume("a1", store, tmp_path, Silent())
    assert store.find_run("a1")["status"] == "done"


@pytest.mark.slow
def test_a_sweep_skips_what_is_done(store: Store, tmp_path: Path, release: Release, numbers_change: bool) -> None:
    store.start_run(row("a1", seed=1))
    store.finish_run("a1", "done")
    release()
    sweep = Sweep(plan({"seed": [0, 1]}, [], config), store, tmp_path)
    sweep.look()
    assert [progress.state for progress in sweep.progress] == [
        "waiting",
        "waiting" if numbers_change else "already done",
    ]
    assert [sweep.known(job) is not None for job in sweep.jobs] == [False, not numbers_change]


def report(store: Store) -> list[Tables]:
    return tables(store.runs(), store.evals(), store.rounds(), refusals=store.refusals())


@pytest.mark.slow
def test_a_report_has_one_table(store: Store, release: Release, numbers_change: bool) -> None:
    for seed in range(2):
        store.start_run(row(f"a{seed}", seed))
        rows = [{"queries": n, "split": "test", "metric": "clipscore", "value": 0.5, "n": 4} for n in (0, 240)]
        store.record_evals(f"a{seed}", rows)
        store.finish_run(f"a{seed}", "done")
        if seed == 0:
            release()
    found = report(store)
    heads = [title(group.head.context).partition(" ·")[0] for group in found]
    if numbers_change:
        assert heads == ["b2bench, benchmark version 3", "b2bench, benchmark version 4"]
        assert [group.head.seeds for group in found] == [(0,), (1,)]
        assert problems(found) == ["runs of several benchmark versions: 3, 4"]
    else:
        assert heads == ["b2bench, benchmark version 3"]
        assert [group.head.seeds for group in found] == [(0, 1)]
        assert problems(found) == []
    packages = {text for group in found for cell in group.details for text in cell.versions}
    assert len(packages) == 2  # a cell's head says with which packages it was made


@pytest.mark.slow
def test_a_refusal_belongs_to_the_runs_beside_it(store: Store, release: Release, numbers_change: bool) -> None:
    plugin = store.path.with_name("picky.py")
    plugin.write_text(
        "from b2bench.registry import algorithm\n\n\n@algorithm\nclass Picky:\n    pairs = False\n"
        "    def loss(self, policy, batch):\n        return batch.log_prob.mean(), {}\n\n"
        "    def refuses(self, wrapper):\n        return 'never'\n"
    )
    with pytest.raises(Refused) as refused:
        resolve(
            algorithm="picky", wrapper="b2", reward="clipscore", backbone="pocket", queries=240, seed=0, values={},
            plugins=(plugin,),
        )  # fmt: skip
    store.start_run(row("a0"))
    store.record_refusals([refused.value.row])
    release()
    store.start_run(row("a1"))
    verdicts = [
        {cell.wrapper: cell.verdict for line in group.compatibility if line.algorithm == "picky" for cell in line.cells}
        for group in report(store)
    ]
    assert [found.get("b2") for found in verdicts] == (["refused", None] if numbers_change else ["refused"])


@pytest.mark.parametrize("baseline", [Baseline("guidance", 2.0), Baseline("best-of", 4), Baseline("oracle")])
def test_a_baseline_is_not_measured_again(baseline: Baseline, release: Release, numbers_change: bool) -> None:
    before = baseline.run_id(config({}))
    release()
    assert (baseline.run_id(config({})) != before) == numbers_change


@pytest.mark.parametrize(("name", "value"), [("__version__", "99.0"), ("BENCHMARK_VERSION", 99)])
def test_a_node_must_have_both_versions_alike(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There code must be the same: a release of either sort on one side alone is refused."""
    monkeypatch.setattr(version, name, value)
    found = on_node({"version": version.both_versions(), "arguments": [], "files": {}, "threads": 1})
    assert found["refused"].startswith("its b2bench is ")


@pytest.mark.slow
def test_runs_of_before_there_was_the_number_stay_apart(store: Store, tmp_path: Path) -> None:
    """They have the package's version in its place, and no two of those mix either."""
    for run_id, maker in (("a1", "0.1.0"), ("a2", "0.2.0.dev5"), ("a3", version.benchmark_version())):
        store.start_run(row(run_id) | {"benchmark_version": maker})
        store.finish_run(run_id, "interrupted")
    heads = [title(group.head.context).partition(" ·")[0] for group in report(store)]
    assert heads == [f"b2bench, benchmark version {maker}" for maker in ("0.1.0", "0.2.0.dev5", "3")]
    sweep = Sweep(plan({"seed": [0]}, [], config), store, tmp_path)
    sweep.look()
    assert [progress.run_id for progress in sweep.progress] == ["a3"]
    with pytest.raises(UserError, match=r"run a2 is of benchmark version 0\.2\.0\.dev5, this is b2bench"):
        runs.resume("a2", store, tmp_path, Silent())
