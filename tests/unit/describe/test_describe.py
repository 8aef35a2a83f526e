"""``b2bench ls`` and ``b2bench show``: complete, plain, and never markup."""

import io
import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from store_rows import run_row

from b2bench.config.settings import Settings
from b2bench.describe.description import _before_after, description, hidden_run
from b2bench.describe.listing import LISTS, listing
from b2bench.errors import UserError
from b2bench.hyperparameters import declared
from b2bench.registry import KINDS, Registry
from b2bench.store.store import Store
from b2bench.terminal.show import listing_table, render_description

ROOT = Path(__file__).parents[3]
NOWHERE = Path("no-such.duckdb")
AWR = [ROOT / "examples" / "awr.py"]


def printed(what: Any, width: int = 200) -> str:
    """What a terminal would show of a renderable, or of a description."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    if isinstance(what, dict):
        render_description(what, console)
    else:
        console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, to be copied: a run that is done and one that failed, with text that would be markup."""
    folder = tmp_path_factory.mktemp("filled")
    store = Store(folder / "runs.duckdb")
    settings = asdict(Settings()) | {"guidance": 3.0, "lr": 3e-4}
    config = {
        "algorithm": {"name": "ddpo", "clip_nats": 2.0},
        "wrapper": {"name": "b2", "tau_start": 0.7},
        "reward": {"name": "clipscore", "checkpoint": "pocket", "batch": 64},
        "backbone": {"name": "pocket"},
        "settings": settings,
    }
    for seed, (run_id, name) in enumerate([("r1-abc", "first"), ("r2-abd", "second [bold]")]):
        run = run_row(run_id, name=name, seed=seed, budget=20, config=config, versions={"torch": "2.13"})
        store.start_run(run)
        store.record_evals(run_id, [_eval(0, "train", 0.2), _eval(0, "test", 0.25)])
        queries = [_query(i, reward=i / 10) for i in range(10)]
        store.record_round(run_id, {"round": 0, "queries": 10, "kept": 4, "clip_fraction": math.nan}, queries)
    store.record_evals("r1-abc", [_eval(20, "train", 0.3), _eval(20, "test", 0.375)])
    store.finish_run("r1-abc", "done")
    store.finish_run("r2-abd", "failed", "reward [red]x[/red] returned nan")
    return folder


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    """The store of :func:`filled`, of the test's own."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs.duckdb"


def _eval(queries: int, split: str, value: float) -> dict[str, Any]:
    return {"queries": queries, "split": split, "metric": "clipscore", "value": value, "n": 90, "settings": {}}


def _query(index: int, reward: float) -> dict[str, Any]:
    return {"query_index": index, "round": 0, "prompt": "a cat", "reward": reward, "kept": True}


@pytest.mark.parametrize("what", [what for what in LISTS if what != "runs"])
def test_every_list_is_plain_and_shows_every_name(what: str) -> None:
    rows = listing(what, NOWHERE, [])
    json.dumps(rows, allow_nan=False)
    text = printed(listing_table(what, rows), width=80)
    assert rows
    for row in rows:
        assert row["name"] in text
        assert row["summary"]


@pytest.mark.parametrize("kind", KINDS)
def test_properties_and_hyperparameters_come_from_the_classes(kind: Any) -> None:
    registry = Registry(kind)
    rows = {row["name"]: row for row in listing(f"{kind}s", NOWHERE, [])}
    assert list(rows) == registry.names()
    for name, row in rows.items():
        assert registry.get(name).properties.items() <= row.items()  # type: ignore[attr-defined]


def test_a_plugin_is_listed_with_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = listing("algorithms", NOWHERE, AWR)
    assert rows[-1]["name"] == "awr"
    assert rows[-1]["from"].endswith("awr.py")
    assert rows[-1]["hyperparameters"] == {"temperature": 1.0, "max_weight": 20.0}
    monkeypatch.chdir(ROOT)
    assert f" {Path('examples', 'awr.py')} " in printed(listing_table("algorithms", rows))
    monkeypatch.chdir(tmp_path)
    assert str(AWR[0]) in printed(listing_table("algorithms", rows), 1000)  # not below here: the whole path


def test_what_is_outside_of_the_ranking_is_said_beside_it() -> None:
    rows = listing("algorithms", NOWHERE, [])
    assert "draft1  (outside the ranking) L = " in printed(listing_table("algorithms", rows))
    assert [row["name"] for row in rows if "outside the ranking" in row] == ["draft1"]


def test_an_algorithm_is_listed_with_its_family_its_batch_and_its_queries() -> None:
    rows = listing("algorithms", NOWHERE, [])
    families = {"policy gradient", "preference", "weighted regression", "forward process", "reward gradient"}
    assert {row["family"] for row in rows} == families
    of = {row["name"]: (row["batch"], row["queries an image"]) for row in rows}
    assert of["ddpo"] == ("transitions", "1")
    assert of["dpo"] == ("pairs of transitions", "K / 2")
    assert of["dgpo"] == ("finals, by group", "1")
    assert of["raft"] == ("pairs of finals", "K")
    assert of["draft1"] == ("last steps", "1, with its gradient")
    assert all(batch and queries for batch, queries in of.values())
    shown = printed(listing_table("algorithms", rows), 200)
    assert all(heading in shown for heading in ("family", "batch", "queries an image"))


def test_a_wrong_list_suggests_the_right_one() -> None:
    with pytest.raises(UserError, match=r"Did you mean algorithms\?"):
        listing("algorithm", NOWHERE, [])


def test_settings_that_an_algorithm_has_its_own_default_of() -> None:
    for name in Registry("algorithm").names():
        own = declared(Registry("algorithm").get(name))
        found = description(name, NOWHERE, [])
        assert {row["name"]: row["default"] for row in found["settings"]} == own
        assert "lr" in own
        assert "its own default" in printed(found)
    rows = {row["name"]: row for row in description("settings", NOWHERE, [])["hyperparameters"]}
    assert rows["updates_per_round"]["algorithms"] == {"draft1": 1, "pg": 1}
    assert set(rows["lr"]["algorithms"]) == set(Registry("algorithm").names())
    assert "algorithms" not in rows["draws"]
    assert "Default of an algorithm: draft1 1, pg 1" in " ".join(
        printed(description("settings", NOWHERE, []), 300).split()
    )


@pytest.mark.slow
def test_a_runs_differences_are_from_its_algorithms_defaults(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.duckdb")
    for name, updates in (("usual", 1), ("other", None)):
        of_pg = {"lr": 3e-4, "updates_per_round": updates}
        config = {"algorithm": {"name": "pg"}, "settings": asdict(Settings()) | of_pg}
        store.start_run(run_row(name, name=name, algorithm="pg", config=config))
    assert description("usual", store.path, [])["differences"] == []
    [row] = description("other", store.path, [])["differences"]
    assert (row["name"], row["value"], row["default"]) == ("run.updates_per_round", None, 1)


def test_an_algorithm_on_pairs_says_that_it_ignores_selection() -> None:
    found = {name: description(name, NOWHERE, [])["properties"] for name in Registry("algorithm").names()}
    on_pairs = [name for name in Registry("algorithm").names() if Registry("algorithm").get(name).pairs]  # type: ignore[attr-defined]
    assert [name for name, properties in found.items() if "selection" in properties] == on_pairs
    assert "dpo" in on_pairs
    assert "ignored" in printed(description("dpo", NOWHERE, []))


@pytest.mark.parametrize("kind", KINDS)
def test_show_has_every_hyperparameter(kind: Any) -> None:
    for name in Registry(kind).names():
        found = description(name, NOWHERE, [])
        json.dumps(found, allow_nan=False)
        assert (found["kind"], found["name"]) == (kind, name)
        text = printed(found)
        assert found["doc"].split("\n")[0][:60] in text
        for parameter in found["hyperparameters"]:
            assert parameter["doc"]
            assert parameter["name"] in text
        for value in found["properties"].values():
            assert value in text


def test_show_the_settings_of_the_harness() -> None:
    for name in ("settings", "run"):
        found = description(name, NOWHERE, [])
        assert [row["name"] for row in found["hyperparameters"]] == list(asdict(Settings()))
        assert "float | None" in printed(found)


def test_show_pocket_lists_its_vocabulary() -> None:
    text = " ".join(printed(description("pocket", NOWHERE, [])).split())
    assert "hedgehog, kangaroo" in text
    assert "riding a bike, playing chess, washing dishes" in text
    assert "guidance" in text


def test_show_prompts() -> None:
    found = description("template1", NOWHERE, [])
    assert (len(found["train"]), len(found["test"])) == (45, 90)
    assert "Test: 90 prompts" in printed(found)
    assert "and 80 more" in printed(found)


def test_a_plugin_without_doc_or_properties(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("from b2bench.registry import reward\n\n\n@reward\nclass Bare:\n    size: int = 3\n")
    assert description("bare", NOWHERE, [path])["doc"] == ""
    assert "size" in printed(description("bare", NOWHERE, [path]))
    rows = listing("rewards", NOWHERE, [path])
    assert rows[-1]["summary"] == ""
    assert "bare" in printed(listing_table("rewards", rows))


def test_text_of_plugins_is_no_markup(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(
        "from b2bench.registry import reward\n\n\n@reward\nclass Odd:\n"
        '    """Scores [/red] and [bold]."""\n\n    properties = {"range": "[/0, 1]"}\n'
        '    size: str = "[/x]"\n    """A [/y] size"""\n'
    )
    text = printed(description("odd", NOWHERE, [path])) + printed(
        listing_table("rewards", listing("rewards", NOWHERE, [path]))
    )
    for part in ("Scores [/red] and [bold].", "[/0, 1]", "[/x]", "A [/y] size"):
        assert part in text


def test_runs(db: Path) -> None:
    rows = listing("runs", db, [])
    assert [(row["run"], row["status"], row["queries"]) for row in rows] == [
        ("r1-abc", "done", 10),
        ("r2-abd", "failed", 10),
    ]
    text = printed(listing_table("runs", rows))
    assert "10/20" in text
    assert "second [bold]" in text
    assert "all: reward clipscore, backbone pocket, prompts template1" in text


def test_an_id_is_whole_in_a_narrow_terminal(tmp_path: Path) -> None:
    """Columns that it repeats give way to it; where it is a name of somebody's own, they stay."""
    store, run = Store(tmp_path / "b2bench.duckdb"), "dpok-vanilla-s0-20261126T135842-a9d9"
    store.start_run(run_row(run, name=run, algorithm="dpok", wrapper="vanilla", seed=0))
    table = listing_table("runs", listing("runs", store.path, []))
    for width, shown in ((120, ("started", "wrapper")), (90, ("wrapper",)), (60, ())):
        text = printed(table, width)
        assert run in text
        assert [name for name in ("started", "wrapper") if name in text] == list(shown)
    named = "dpok-vanilla-s1-20261126T135842-b3c0"
    store.start_run(run_row(named, name="short", algorithm="dpok", wrapper="vanilla", seed=1))
    text = printed(listing_table("runs", listing("runs", store.path, [])), 80)
    assert [text.count(word) for word in (run, named, "short")] == [1, 1, 1]  # an id is no name of its own
    store.start_run(run_row("mine", name="mine", algorithm="dpok", wrapper="vanilla", seed=1))
    assert "wrapper" in printed(listing_table("runs", listing("runs", store.path, [])), 60)


def test_no_runs_and_no_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "empty.duckdb")
    assert "b2bench run makes one" in printed(listing_table("runs", []))
    with pytest.raises(UserError, match="does not exist"):
        listing("runs", store.path, [])


def test_an_evaluated_lora_has_no_start() -> None:
    row = {"split": "test", "metric": "clipscore", "value": 0.31, "n": 540}
    (lora,) = _before_after([{**row, "queries": 24000}])
    assert (lora["before"], lora["after"], lora["queries"]) == (None, 0.31, 24000)
    (pretrained,) = _before_after([{**row, "queries": 0}])
    assert (pretrained["before"], pretrained["after"]) == (0.31, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r1-abc", "first", "r1", "fir"])
def test_show_a_run_by_id_name_or_prefix(name: str, db: Path) -> None:
    found = description(name, db, [])
    json.dumps(found, allow_nan=False)
    assert found["properties"]["status"] == "done"
    assert found["properties"]["queries"] == 10
    # Guidance 3 and the pocket checkpoint are what the defaults resolve to on pocket.
    assert found["differences"] == [
        {"name": "run.lr", "value": 3e-4, "default": Settings().lr},
        {"name": "ddpo.clip_nats", "value": 2.0, "default": 1.64},
    ]
    first = found["evaluations"][0]
    assert (first["split"], first["before"], first["after"], first["images"]) == ("test", 0.25, 0.375, 90)
    assert found["rounds"][0]["reward"] == pytest.approx(0.45)
    assert found["rounds"][0]["clipped"] is None
    text = printed(found, width=80)
    for part in ("run.lr", "0.0003", "0.125", "0.45", "torch 2.13"):
        assert part in text


@pytest.mark.slow
def test_a_run_that_is_called_like_something_else(db: Path) -> None:
    Store(db).start_run(run_row("r3", name="ddpo"))
    assert description("ddpo", db, [])["kind"] == "algorithm"
    assert hidden_run("ddpo", db)
    assert description("run:ddpo", db, [])["kind"] == "run"
    assert not hidden_run("dpok", db)
    assert not hidden_run("ddpo", NOWHERE)


def test_show_says_whose_the_first_evaluation_is_and_compares_the_same_images(db: Path) -> None:
    store = Store(db)
    store.start_run(run_row("r3", name="third", budget=20))
    taken = {"reused_from": "r1-abc", "first": {"images": 45, "value": 0.5}}
    store.record_evals("r3", [_eval(0, "test", 0.25) | {"settings": taken}])
    store.record_evals("r3", [_eval(10, "test", 0.625) | {"n": 45}])
    found = description("third", db, [])
    assert found["properties"]["start_reused_from"] == "r1-abc"
    assert found["evaluations"][0]["after"] == 0.375
    assert found["curves"]["clipscore, test prompts"] == [[0, 0.25], [10, 0.375]]
    assert "start_reused_from" in printed(found)
    assert "start_reused_from" not in description("first", db, [])["properties"]


@pytest.mark.slow
def test_show_a_failed_run_says_why(db: Path) -> None:
    found = description("r2-abd", db, [])
    assert found["evaluations"][0]["after"] is None
    assert "error: reward [red]x[/red] returned nan" in printed(found)


@pytest.mark.slow
def test_a_run_of_a_plugin_that_is_not_here(db: Path) -> None:
    run = Store(db).find_run("first")
    config = run["config"] | {"algorithm": {"name": "gone", "weight": 1}}
    Store(db).start_run({**run, "run_id": "r3", "name": "third", "algorithm": "gone", "config": config})
    found = description("r3", db, [])
    assert {"name": "gone.weight", "value": 1, "default": None} in found["differences"]
    assert "none yet" in printed(found)


@pytest.mark.slow
def test_an_unknown_name_suggests_one_of_anything(db: Path) -> None:
    for wrong, meant in (("dpokk", "dpok"), ("vanila", "vanilla"), ("pockett", "pocket"), ("secnd [bold]", "second")):
        with pytest.raises(UserError) as caught:
            description(wrong, db, [])
        assert f"Did you mean {meant}" in str(caught.value)
    with pytest.raises(UserError, match="ambiguous"):
        description("r", db, [])
    with pytest.raises(UserError, match="nothing is called ''"):
        description("", db, [])


@pytest.mark.slow
def test_listing_runs_imports_no_torch(db: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from b2bench.describe.listing import listing\n"
        "from b2bench.terminal.show import listing_table\n"
        "for what in ('runs', 'prompts', 'backbones'): listing_table(what, listing(what, Path(sys.argv[1]), []))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(db)], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("properties", ["[1, 3]", "['a', 3]", "{'a': 3}", "7"])
def test_a_plugin_with_broken_properties_hides_no_other(
    properties: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "props.py"
    path.write_text(
        "from b2bench.registry import algorithm\n\n\n@algorithm\nclass Props:\n    pairs = False\n"
        f"    properties = {properties}\n\n    def loss(self, policy, batch): ...\n"
    )
    rows = {row["name"]: row for row in listing("algorithms", NOWHERE, [path])}
    assert "ddpo" in rows
    assert "properties = " in rows["props"]["summary"]
