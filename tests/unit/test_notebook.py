"""What notebooks call: its keywords, its errors, and what it reads from a store."""

import importlib.util
import inspect
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.tables import tables
from store_rows import run_row

import b2bench
from b2bench import RunFailed, Store, UserError
from b2bench.cli import report as report_command
from b2bench.cli import run as run_command

TINY: dict[str, Any] = {"draws": 1, "samples": 5, "steps": 3, "eval_images": 4, "eval_train_images": 0}
CONFIG = {"algorithm": {"name": "ddpo"}, "wrapper": {"name": "b2"}, "settings": {"lr": 1e-3}}


EXAMPLE = Path(__file__).parents[2] / "examples" / "results.ipynb"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, to be copied: two finished runs of one cell, each with two evaluations and a round of two
    queries.
    """
    folder = tmp_path_factory.mktemp("filled")
    store = Store(folder / "b2bench.duckdb")
    for seed in (0, 1):
        run_id = f"a{seed}"
        store.start_run(run_row(run_id, seed=seed, budget=2, config=CONFIG))
        for queries, value in ((0, 0.5), (2, 0.6 + seed / 10)):
            row = {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 4}
            store.record_evals(run_id, [row])
        query = {"round": 0, "prompt": "a cat", "group_id": 0, "reward": 0.5, "scores": {"clipscore": 0.5}}
        rows = [{**query, "query_index": i, "leaf": i, "advantage": 0.0, "kept": True} for i in range(2)]
        store.record_round(run_id, {"round": 0, "queries": 2}, rows)
        store.finish_run(run_id, "done")
    return folder


@pytest.fixture
def db(filled: Path, here: Path) -> Path:
    """The store of :func:`filled` in the working folder."""
    shutil.copytree(filled, here, dirs_exist_ok=True)
    return here / "b2bench.duckdb"


# -- run -------------------------------------------------------------------------------------------


def test_every_option_of_the_command_is_a_keyword_with_the_same_default() -> None:
    command = inspect.signature(run_command.run).parameters
    keywords = inspect.signature(b2bench.run).parameters
    assert {*command} - {"set_", "processes", "purpose", "as_json", "quick", "track"} == {*keywords} - {
        "set",
        "progress",
    }
    for name in command.keys() & keywords.keys() - {"plugin"}:
        assert str(command[name].default) == str(keywords[name].default), name
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in keywords.values())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "no algorithm is named; try --algo with awm, ddpo, "),
        ({"algo": "ddpoo"}, "unknown algorithm 'ddpoo'. Did you mean ddpo?"),
        ({"algo": "ddpo", "seed": "3"}, "seed = '3' is not of type int"),
        ({"algo": "ddpo", "queries": 7.5}, "queries = 7.5 is not of type int"),
        ({"algo": 3}, "algo = 3 is not of type str"),
        ({"algo": "ddpo", "set": {"lr": "fast"}}, "lr = 'fast' is not of type float"),
        ({"algo": "ddpo", "set": {"lrr": 1.0}}, "unknown hyperparameter 'lrr'. Did you mean lr?"),
        ({"algo": "ddpo", "plugin": "gone.py"}, "plugin gone.py is not a file"),
        ({"algo": "ddpo", "config": "gone.toml"}, "config file gone.toml does not exist"),
        ({"algo": "ddpo", "prompts": Path("gone.txt")}, "unknown prompts 'gone.txt'"),
        ({"algo": "ddpo", "preset": "papr"}, "unknown preset 'papr'. Did you mean paper?"),
        ({"algo": "ddpo", "db": "gone/b2bench.duckdb"}, "its folder does not exist"),
        ({"algo": "ddpo", "name": 5}, "name = 5 is not a text"),
        ({"algo": "ddpo", "config": 3}, "config = 3 is not a path"),
        ({"algo": "ddpo", "set": [("lr", 1)]}, "set = [('lr', 1)] is not a mapping of hyperparameters to values"),
        ({"algo": "ddpo", "db": None}, "db = None is not a path"),
        ({"algo": "ddpo", "preset": 7}, "preset = 7 is not a name or a path"),
        ({"algo": "ddpo", "threads": "2"}, "threads = '2' is not a whole number"),
        ({"algo": "ddpo", "plugin": 7}, "plugin = 7 is not a path, or a list of paths"),
        ({"algo": "ddpo", "plugin": ["a.py", 7]}, "plugin = ['a.py', 7] is not a path, or a list of paths"),
        ({"algo": "ddpoo", "plugin": None}, "unknown algorithm 'ddpoo'. Did you mean ddpo?"),
        ({"resume": "a1", "seed": 3, "set": {"lr": 1.0}}, "try without --seed, --set"),
        ({"resume": "a1"}, "database b2bench.duckdb does not exist"),
    ],
    ids=str,
)
def test_a_mistake_is_a_user_error_with_the_commands_text(
    options: dict[str, Any], text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as caught:
        b2bench.run(**options)
    assert text in str(caught.value)
    assert list(here.iterdir()) == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(13, "Permission denied", "somewhere"), UserError, "^somewhere: Permission denied$"),
        (RunFailed("round 3: nan"), RunFailed, "^round 3: nan$"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "^ours$"),  # a bug keeps its traceback
    ],
)
def test_other_errors_are_what_the_command_makes_of_them(
    error: Exception, kind: type[Exception], text: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "start", fail)
    with pytest.raises(kind, match=text):
        b2bench.run(algo="ddpo", queries=10, set=TINY)


def test_a_plugin_that_ends_python_ends_the_call_alone(here: Path) -> None:
    Path("rude.py").write_text(
        "import sys\nfrom b2bench import algorithm\n\n\n@algorithm\nclass Rude:\n    pairs = False\n"
        "    def loss(self, policy, batch): ...\n    def refuses(self, wrapper):\n        sys.exit(3)\n"
    )
    with pytest.raises(UserError, match=r"plugin .*rude\.py, line 10: SystemExit: 3"):
        b2bench.run(algo="rude", plugin=Path("rude.py"), queries=10, set=TINY)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (KeyboardInterrupt(), "nothing of it is stored"),
        (KeyboardInterrupt("a-run"), r"Continue with: b2bench\.run\(resume='a-run', db='mine\.duckdb', out='runs'\)"),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    stop: KeyboardInterrupt, text: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs

    def interrupted(*_: object) -> None:
        raise stop

    monkeypatch.setattr(runs, "start", interrupted)
    with pytest.raises(KeyboardInterrupt, match=text):
        b2bench.run(algo="ddpo", queries=10, set=TINY, db="mine.duckdb")


def test_what_is_given_overrules_the_config_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from b2bench.training import runs

    Path("cell.toml").write_text('algo = "pg"\nqueries = 10\nseed = 7\n[set]\nlr = 2e-3\nsteps = 4\nsamples = 5\n')
    asked: list[Any] = []
    monkeypatch.setattr(runs, "start", lambda *arguments: asked.append(arguments))
    b2bench.run(config="cell.toml", seed=8, set={"lr": 5e-4}, out=Path("elsewhere"), name="mine")
    [(config, store, out, name, _)] = asked
    assert (config.algorithm_name, config.queries, config.seed) == ("pg", 10, 8)
    assert (config.settings.lr, config.settings.steps) == (5e-4, 4)
    assert (str(store.path), out, name) == ("b2bench.duckdb", Path("elsewhere"), "mine")


def test_a_run_leaves_the_process_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy takes the threads for its own workers; the next run in a notebook would have one."""
    import torch

    from b2bench.training import runs

    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32

    def start(*_: object) -> None:
        torch.set_num_threads(threads + 2)
        torch.backends.cudnn.allow_tf32 = not tf32
        raise RunFailed("round 3: nan")

    monkeypatch.setattr(runs, "start", start)
    with pytest.raises(RunFailed):
        b2bench.run(algo="ddpo", queries=10, set=TINY)
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (threads, tf32)


def test_a_run_is_resumed_alone_or_by_the_whole_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from b2bench.store.store import Store
    from b2bench.training import runs

    asked: list[Any] = []
    monkeypatch.setattr(runs, "start", lambda config, *_: asked.append(config))
    b2bench.run(algo="ddpo", queries=10, set=TINY)
    [config] = asked
    row = {"seed": 0, "config_hash": config.cell_hash(), "config": config.as_dict(), "budget": 10}
    Store("b2bench.duckdb").start_run(run_row("a1", **row))
    monkeypatch.setattr(runs, "resume", lambda *arguments: asked.append(arguments))
    b2bench.run(resume="a1")
    b2bench.run(resume="a1", algo="ddpo", queries=10, set={**TINY, "micro_batch": 8})
    assert asked[1][-1] is None
    assert asked[2][-1].settings.micro_batch == 8
    with pytest.raises(UserError, match="has other settings than these options say"):
        b2bench.run(resume="a1", algo="ddpo", queries=20, set=TINY)
    for whole in ({}, {"algo": "ddpo", "queries": 10, "set": TINY}):
        with pytest.raises(UserError, match=r"try without .*--name"):
            b2bench.run(resume="a1", name="other", **whole)


# -- load_results ----------------------------------------------------------------------------------


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("frames", "package", "other"), [("pandas", "pandas", "'arrow' (pyarrow)"), ("arrow", "pyarrow", "'pandas' (")]
)
def test_a_missing_package_is_named(
    frames: Any, package: str, other: str, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(package, monkeypatch)
    with pytest.raises(UserError) as caught:
        b2bench.load_results(db, frames)
    assert f"{frames} data frames need the package {package}, which is not installed" in str(caught.value)
    assert other in str(caught.value)


def test_unknown_frames_are_refused(db: Path) -> None:
    wrong: Any = "arow"
    with pytest.raises(UserError, match=r"unknown data frames 'arow'\. Did you mean arrow"):
        b2bench.load_results(db, wrong)


def columns_of(frame: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = frame.to_dict("list") if hasattr(frame, "to_dict") else frame.to_pydict()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "package"), [("pandas", "pandas"), ("arrow", "pyarrow")])
def test_frames_hold_the_rows_of_the_store(frames: Any, package: str, db: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}")
    before = db.read_bytes()
    found = b2bench.load_results(db, frames)
    assert repr(found) == "<Results runs: 2 rows, evaluations: 4 rows, queries: 4 rows>"
    for frame, table in ((found.runs, "runs"), (found.evaluations, "evals"), (found.queries, "queries")):
        names = [row["column_name"] for row in Store(db).sql(f"DESCRIBE {table}")]
        assert list(columns_of(frame)) == names
    assert columns_of(found.runs)["run_id"] == ["a0", "a1"]
    assert columns_of(found.evaluations)["value"] == [0.5, 0.6, 0.5, 0.7]
    assert columns_of(found.queries)["query_index"] == [0, 1, 0, 1]
    assert columns_of(found.queries)["scores"][0] == '{"clipscore":0.5}'
    assert db.read_bytes() == before
    with pytest.raises(AttributeError):
        found.runs = None  # type: ignore[misc]


# -- report ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_is_the_tables_that_the_command_draws(db: Path) -> None:
    store = Store(db)
    rows = store.runs(), store.evals(), store.rounds()
    scores = store.evaluation_errors(), store.last_scores()
    curves = store.round_rewards(), store.curve_errors()
    drawn = tables(*rows, None, store.refusals(), [], *scores, 1, *curves, store.profiles())
    assert repr(b2bench.report(db)) == repr(drawn)  # nan is not equal to itself
    assert b2bench.report(db)[0].leaderboard[0].alignment.mean == pytest.approx(0.65)


@pytest.mark.slow
def test_a_report_takes_the_commands_conditions(db: Path) -> None:
    [group] = b2bench.report(db, where={"algorithm": ["ddpo", "pg"], "budget": 2}, seeds=range(3), margin=0.2)
    assert group.head.margin == 0.2
    assert group.leaderboard[0].lacking == (2,)
    assert b2bench.report(db, where={"budget": 3}) == []
    [group] = b2bench.report(db, where={"algorithm": "pg"}, seeds="0-2")
    assert [row.algorithm for row in group.leaderboard if not row.reference] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: b2bench.report("gone.duckdb"), "database gone.duckdb does not exist"),
        (lambda: b2bench.report(where={"algoritm": "pg"}), "--where 'algoritm=pg'"),
        (lambda: b2bench.report(margin=0), "--margin 0 is not a number above 0"),
        (lambda: b2bench.report(looks=3), "--looks 3 is not 1 or 2"),
        (lambda: b2bench.report(seeds="a-b"), "a-b"),
        (lambda: b2bench.report(seeds=5), "seeds = 5 is not a text as 0-4"),
        (lambda: b2bench.report(seeds=[0, "a"]), "seeds = 'a' is not a text as 0-4"),
        (lambda: b2bench.report(where="prompts=x"), "where = 'prompts=x' is not a mapping"),
        (lambda: b2bench.report(margin="0.01"), "margin = '0.01' is not a number"),
        (lambda: b2bench.report(db=None), "db = None is not a path"),
        (lambda: b2bench.load_results(db=None), "db = None is not a path"),
        (lambda: b2bench.load_results("gone.duckdb", frames="arow"), "arow"),  # type: ignore[arg-type]
    ],
)
def test_what_means_nothing_is_refused(call: Callable[[], Any], text: str, db: Path) -> None:
    with pytest.raises(UserError, match=text):
        call()


def test_the_margin_is_the_commands() -> None:
    command, own = inspect.signature(report_command.report), inspect.signature(b2bench.report)
    for name in ("margin", "looks"):
        assert command.parameters[name].default == own.parameters[name].default


@pytest.mark.slow
def test_the_example_notebook_runs_from_top_to_bottom(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, one after the other, as Jupyter runs them, on a store of two runs; it keeps no output."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = [cell for cell in json.loads(EXAMPLE.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    (axes,) = names["figure"].axes
    lines = [(line.get_label(), list(line.get_ydata())) for line in axes.lines]
    assert lines == [("ddpo-b2-a0", [0.5, 0.6]), ("ddpo-b2-a1", [0.5, 0.7])]  # a line is a run
    assert names["by_round"].loc[0, "a0"] == 0.5
    names["plt"].close("all")
