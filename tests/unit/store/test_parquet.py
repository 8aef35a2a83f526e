"""Runs as Parquet files: out and in again, and what is refused."""

import csv
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store_rows import run_row

from b2bench.config.run import cell_hash, stored_hash
from b2bench.errors import UserError
from b2bench.store.parquet import export_results, import_results
from b2bench.store.schema import RUN_TABLES
from b2bench.store.store import Store

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of three runs, to be copied."""
    folder = tmp_path_factory.mktemp("filled")
    found = Store(folder / "some.duckdb")
    for run_id, status in (("b2", "done"), ("a1", "failed"), ("c3", "interrupted")):
        found.start_run(run_row(run_id, config={"lr": 1e-3, "text": "$x$ <b> 'quoted'"}, algorithm=run_id))
        queries = [
            {"query_index": i, "round": 0, "prompt": f"a cat's {i}", "reward": 0.1 + i / 7, "scores": {"x": 1 / 3}}
            for i in range(5)
        ]
        found.record_round(run_id, {"round": 0, "queries": 5, "loss": float("nan")}, queries)
        rows = [{"queries": 0, "split": "test", "metric": "clipscore", "value": 2 / 3, "n": 5, "settings": {"n": 5}}]
        found.record_evals(run_id, rows)
        found.finish_run(run_id, status, "broken" if status == "failed" else None)
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "some.duckdb")


def whole(store: Store) -> dict[str, object]:
    return {run["run_id"]: repr(store.whole_run(run["run_id"])) for run in store.runs()}  # repr: nan equals nan


@pytest.mark.slow
def test_out_and_in_again_is_the_same_to_the_bit(store: Store, tmp_path: Path) -> None:
    folder, other = tmp_path / "a [folder]* of 'results'", Store(tmp_path / "other.duckdb")
    assert sorted(export_results(store, folder)) == ["a1", "b2"]  # what may go on stays
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{table}.parquet" for table in RUN_TABLES)
    assert sorted(import_results(other, folder)) == ["a1", "b2"]
    assert whole(other) == {name: rows for name, rows in whole(store).items() if name != "c3"}
    assert import_results(other, folder) == []
    again = tmp_path / "again"
    export_results(other, again)
    assert all((folder / f"{t}.parquet").read_bytes() == (again / f"{t}.parquet").read_bytes() for t in RUN_TABLES)


@pytest.mark.slow
def test_results_that_the_repository_ships_come_in(tmp_path: Path) -> None:
    """A new column of the schema leaves them behind: write them again, with null where nothing was recorded."""
    folders = sorted({file.parent for file in RESULTS.rglob("*.parquet")})
    assert folders
    for folder in folders:
        found = Store(tmp_path / f"{folder.name}.duckdb")
        runs = import_results(found, folder, stored_hash)
        assert runs
        assert sorted(runs) == sorted(run["run_id"] for run in found.runs())


@pytest.mark.slow
def test_a_filter_and_nothing_that_fits(store: Store, tmp_path: Path) -> None:
    assert export_results(store, tmp_path / "one", {"algorithm": {"b2"}}) == ["b2"]
    assert import_results(Store(tmp_path / "other.duckdb"), tmp_path / "one") == ["b2"]
    with pytest.raises(UserError, match="no finished run that fits"):
        export_results(store, tmp_path / "two", {"algorithm": {"c3"}})


def beside(store: Store) -> None:
    """Profiles and refusals: of what the runs are on, of other prompts, and of another reward."""
    of = (("ab", "clipscore", "template1"), ("of other prompts", "clipscore", "others"), ("ab", "jpeg", "template1"))
    for prompts_hash, reward, prompts in of:
        shared = {"started": datetime(2026, 11, 28), "seed": 0, "split": "train", "settings": {"steps": 20}}
        run = {name: run_row()[name] for name in ("benchmark_version", "backbone")}
        run |= {"reward": reward, "prompts": prompts}
        profile = {**shared, **run, "prompts_hash": prompts_hash, "profile_id": f"p {prompts_hash} {reward}"}
        store.record_profile(
            [
                {**profile, "tau": 14, "metric": "open_share", "value": 2 / 3, "low": 0.6, "high": 0.7},
                {**profile, "tau": 10, "metric": "range", "value": float("nan"), "lora": "mine.safetensors"},
            ]
        )
        refusal = {**run, "prompts_hash": prompts_hash, "algorithm": "draft1", "reason": "it has no branches"}
        store.record_refusals([refusal | {"wrapper": wrapper, "budget": 1000} for wrapper in ("b2", "bs")])
        store.record_refusals([refusal | {"wrapper": "b2", "budget": 7}])


@pytest.mark.slow
def test_profiles_and_refusals_of_what_the_runs_are_on_come_along(store: Store, tmp_path: Path) -> None:
    beside(store)
    folder, other = tmp_path / "results", Store(tmp_path / "other.duckdb")
    export_results(store, folder)
    import_results(other, folder)
    beside_them = [
        row
        for row in store.profiles()
        if row["reward"] == "clipscore" and (row["prompts_hash"] == "ab" or row["lora"] is None)
    ]
    assert repr(other.profiles()) == repr(beside_them)
    own = [row for row in store.refusals() if (row["prompts_hash"], row["reward"]) == ("ab", "clipscore")]
    kept = [row for row in own if row["budget"] == 1000]
    assert (len(other.profiles()), len(other.refusals())) == (3, 2)  # the pretrained model's stand beside
    assert other.refusals() == kept
    export_results(other, tmp_path / "again")
    for table in ("profiles", "refusals"):
        files = [of / f"{table}.parquet" for of in (folder, tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes()
    import_results(other, folder)
    assert (len(other.profiles()), len(other.refusals())) == (3, 2)

    export_results(store, tmp_path / "one", {"prompts": {"template1"}})
    one = Store(tmp_path / "one.duckdb")
    import_results(one, tmp_path / "one")
    assert {row["prompts"] for row in one.profiles()} == {"template1"}
    export_results(store, folder, {"algorithm": {"b2"}})  # which is what the runs are called here, and no refusal
    assert (folder / "profiles.parquet").exists()
    assert not (folder / "refusals.parquet").exists()

    change(folder, "profiles", "SELECT * EXCLUDE tau FROM {file}")
    last = Store(tmp_path / "last.duckdb")
    with pytest.raises(UserError, match=r"profiles\.parquet lacks the columns tau"):
        import_results(last, folder)
    assert not last.path.exists()


def change(folder: Path, table: str, select: str) -> None:
    file = folder / f"{table}.parquet"
    query = select.format(file=f"'{file}'")
    duckdb.sql(f"COPY ({query}) TO '{file}.new' (FORMAT parquet)")
    Path(f"{file}.new").replace(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "select", "reason"),
    [
        ("evals", "SELECT * EXCLUDE value FROM {file}", "evals.parquet lacks the columns value"),
        ("evals", "SELECT *, 1 AS evil FROM {file}", "has the columns evil"),
        ("evals", "SELECT * REPLACE ('<b>' AS value) FROM {file}", "is not a Parquet file of table evals"),
        ("runs", "SELECT * REPLACE ('{{' AS config) FROM {file}", "is not a Parquet file of table runs"),
        ("runs", "SELECT * REPLACE ('perfect' AS status) FROM {file}", "is not a Parquet file of table runs"),
        ("runs", "SELECT * FROM {file} UNION ALL SELECT * FROM {file}", "is not a Parquet file of table runs"),
        ("runs", "SELECT * REPLACE ('../' || run_id AS run_id) FROM {file}", "not a name of a run"),
        ("runs", "SELECT * FROM {file} WHERE run_id = 'a1'", "rows of runs that runs.parquet lacks: b2"),
    ],
)
def test_what_strangers_send_is_checked_before_anything_is_taken(
    store: Store, tmp_path: Path, table: str, select: str, reason: str
) -> None:
    folder, other = tmp_path / "results", Store(tmp_path / "other.duckdb")
    export_results(store, folder)
    change(folder, table, select)
    with pytest.raises(UserError, match=reason):
        import_results(other, folder)
    assert not other.path.exists()


@pytest.mark.slow
@pytest.mark.slow
def test_no_run_of_strangers_names_a_file_to_import(store: Store, tmp_path: Path) -> None:
    """Whoever goes on with a run imports the plugins that it names."""
    found = {"prompts": "template1", "plugins": ["leaderboard/results/evil.py"]}
    store.start_run(run_row("d4", config={"lr": 1e-3, "found": found}))
    store.finish_run("d4", "failed", "broken")
    export_results(store, tmp_path / "results")
    other = Store(tmp_path / "other.duckdb")
    import_results(other, tmp_path / "results")
    assert other.runs(run_id="d4")[0]["config"] == {"lr": 1e-3, "found": {"prompts": "template1", "plugins": []}}


def test_files_that_are_missing_or_damaged(store: Store, tmp_path: Path) -> None:
    folder, other = tmp_path / "results", Store(tmp_path / "other.duckdb")
    with pytest.raises(UserError, match=r"runs\.parquet cannot be read: No such file"):
        import_results(other, folder)
    export_results(store, folder)
    shutil.copyfile(__file__, folder / "rounds.parquet")
    with pytest.raises(UserError, match=r"rounds\.parquet is not a Parquet file"):
        import_results(other, folder)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_results(store, tmp_path / "file")


@pytest.mark.slow
def test_what_the_folder_alone_has_is_not_lost(store: Store, tmp_path: Path) -> None:
    """A store that the published runs were never read into cannot take their place."""
    folder, other = tmp_path / "results", Store(tmp_path / "other.duckdb")
    export_results(store, folder)
    other.start_run(run_row("d4"))
    other.finish_run("d4", "done")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"holds runs that database .* lacks, .*: a1, b2; try b2bench import"):
        export_results(other, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    import_results(other, folder)
    assert sorted(export_results(other, folder)) == ["a1", "b2", "d4"]
    assert export_results(other, folder, {"run_id": {"d4"}}) == ["d4"]  # which was asked for
    with duckdb.connect(str(other.path)) as con:  # the folder has it as done
        con.execute("UPDATE runs SET status = 'interrupted' WHERE run_id = 'd4'")
    with pytest.raises(UserError, match=r"holds runs that database .*, or has not to their end, .*: d4; try"):
        export_results(other, folder)
    for more in ("e4", "e5", "e6", "e7"):
        other.start_run(run_row(more))
        other.finish_run(more, "done")
    export_results(other, tmp_path / "more")
    with pytest.raises(UserError, match=r": e4, e5, e6 and 1 more; try"):
        export_results(store, tmp_path / "more")
    change(folder, "runs", "SELECT * EXCLUDE budget FROM {file}")
    with pytest.raises(UserError, match="lacks the columns budget"):  # of another version, perhaps
        export_results(store, folder)
    shutil.copyfile(__file__, folder / "runs.parquet")
    assert export_results(store, folder)  # it held no runs


@pytest.mark.slow
def test_tuning_runs_are_written_where_they_are_asked_for(store: Store, tmp_path: Path) -> None:
    store.start_run(run_row("t", seed=1000, algorithm="tuned", config={"tuning": True}))
    store.finish_run("t", "done")
    assert sorted(export_results(store, tmp_path / "one")) == ["a1", "b2"]
    assert sorted(export_results(store, tmp_path / "two", tuning=True)) == ["a1", "b2", "t"]
    with pytest.raises(UserError, match=r"holds runs of tuning \(1\), and they would be gone; try --tuning"):
        export_results(store, tmp_path / "two")
    assert (tmp_path / "two" / "runs.parquet").read_bytes() != (tmp_path / "one" / "runs.parquet").read_bytes()
    with pytest.raises(UserError, match=r"no finished run that fits but 1 of tuning; try --tuning"):
        export_results(store, tmp_path / "three", {"algorithm": {"tuned"}})


@pytest.mark.slow
def test_times_beyond_pythons_are_damage(store: Store, tmp_path: Path) -> None:
    export_results(store, tmp_path / "results")
    other = Store(tmp_path / "other.duckdb")
    change(tmp_path / "results", "runs", "SELECT * REPLACE (TIMESTAMP '290000-01-01' AS heartbeat) FROM {file}")
    with pytest.raises(UserError, match="heartbeat of table runs is '290000-01-01 00:00:00', which is no time"):
        import_results(other, tmp_path / "results")
    assert not other.path.exists()


@pytest.mark.slow
def test_no_spreadsheet_takes_a_text_for_a_formula(store: Store, tmp_path: Path) -> None:
    store.start_run(run_row("d4", name="=1+1"))
    store.finish_run("d4", "failed", "-2+3")
    export_results(store, tmp_path / "csv", form="csv")
    export_results(store, tmp_path / "results")
    with (tmp_path / "csv" / "runs.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["run_id"] == "d4"]
    assert (row["name"], row["error"]) == ("'=1+1", "'-2+3")
    assert row["seed"] == str(store.runs(run_id="d4")[0]["seed"])
    other = Store(tmp_path / "other.duckdb")
    import_results(other, tmp_path / "results")
    assert other.runs(run_id="d4")[0]["name"] == "=1+1"


CONFIG = {
    "algorithm": {"name": "ddpo"},
    "wrapper": {"name": "b2"},
    "reward": {"name": "clipscore"},
    "backbone": {"name": "pocket"},
    "prompts": {"name": "template1", "hash": "ab"},
    "queries": 1000,
    "seed": 0,
    "settings": {"lr": 1e-3},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"algorithm": "dpok"}, "algorithm dpok, and its configuration ddpo"),
        ({"wrapper": "bs"}, "wrapper bs, and its configuration b2"),
        ({"seed": 500}, "seed 500, and its configuration 0"),
        ({"budget": 2400}, "budget 2400, and its configuration 1000"),
        ({"prompts_hash": "cd"}, "prompts_hash cd, and its configuration ab"),
        ({"config": {**CONFIG, "settings": {"lr": 0.5}}}, "and its configuration"),
        ({"config_hash": "a\x1b[2J"}, r"config_hash a\x1b[2J, and its"),
        ({"config": None}, ""),
        ({"benchmark_version": "2", "config_hash": "by another rule"}, ""),
        ({"algorithm": "external", "config_hash": "of no cell"}, ""),
    ],
)
def test_a_row_that_says_another_cell_than_its_configuration_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    theirs = Store(tmp_path / "theirs.duckdb")
    theirs.start_run(run_row("r1", **{"config": CONFIG, "config_hash": cell_hash(CONFIG), **change}))
    theirs.finish_run("r1", "done")
    export_results(theirs, tmp_path / "results")
    for name, take in {
        "import": lambda store: import_results(store, tmp_path / "results", stored_hash),
        "merge": lambda store: store.merge(theirs.path, hash_of=stored_hash),
    }.items():
        ours = Store(tmp_path / f"{name}.duckdb")
        if said:
            with pytest.raises(UserError, match=re.escape(said)):
                take(ours)
            assert not ours.path.exists()
        else:
            assert take(ours) == ["r1"]
