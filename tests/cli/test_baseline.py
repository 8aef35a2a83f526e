"""``b2bench baseline``: measured as runs are, stored once, shown beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from b2bench.pocket.build import art
from b2bench.pocket.world import STYLES
from b2bench.store.store import Store
from b2bench.studies import baselines

MEASURED = ("--set", "steps=2", "--set", "eval_images=4", "--set", "eval_train_images=3")
TRAINED = ("--set", "draws=1", "--set", "transitions_per_step=1000", "--set", "eval_points=2")
SCORES = "SELECT prompt, noise_index, score FROM images WHERE run_id = ? AND queries = 0 ORDER BY ALL"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "b2bench.duckdb")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short sweep."""
    monkeypatch.setattr(baselines, "GUIDANCES", (2.0,))
    monkeypatch.setattr(baselines, "CANDIDATES", (1, 2, 4))


def ids(store: Store) -> dict[str, str]:
    return {row["wrapper"]: row["run_id"] for row in store.runs()}


def start(store: Store, run_id: str) -> list[tuple[Any, ...]]:
    """Every number of the evaluation at 0 queries, but the KL along paths, which is of an adapter."""
    names = ("split", "metric", "value", "n")
    found = [row for row in store.evals(run_id) if row["queries"] == 0 and row["metric"] != "kl_pretrained"]
    return [tuple("nan" if row[name] != row[name] else row[name] for name in names) for row in found]


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_the_sweep_and_best_of_hold_the_evaluation_of_a_run(store: Store, b2bench: Callable[..., Any]) -> None:
    noise = ("--set", "eval_seed=2")
    done = b2bench("run", "--algo", "ddpo", "--queries", 5, "--seed", 7, *MEASURED, *TRAINED, *noise)
    assert done.code == 0, done.stderr
    done = b2bench("baseline", "--kind", "guidance,best-of", "--seed", 2, *MEASURED, "--json")
    assert done.code == 0, done.stderr
    rows = json.loads(done.stdout)["baselines"]
    assert [row["baseline"] for row in rows] == ["guidance-2", "guidance-3", "best-of-1", "best-of-2", "best-of-4"]
    assert all(row["measured"] for row in rows)
    found = ids(store)
    run = found["vanilla"]
    for same in ("guidance-3", "best-of-1"):
        assert start(store, found[same]) == start(store, run)
        assert store.sql(SCORES, [found[same]]) == store.sql(SCORES, [run])
    assert start(store, found["guidance-2"]) != start(store, run)
    scores = {n: [row["score"] for row in store.sql(SCORES, [found[f"best-of-{n}"]])] for n in (1, 2, 4)}
    for fewer, more in ((1, 2), (2, 4)):
        assert all(b > a - 1e-6 for a, b in zip(scores[fewer], scores[more], strict=True))
    # of four places one in sixteen draws has no better image among two more
    assert sum(scores[4]) > sum(scores[1])
    settings = {json.dumps(row["settings"].get("queries_per_image")) for row in store.evals(found["best-of-4"])}
    assert settings == {"4"}


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up art: a rectangle of its own colour for every name and style; the folder it stands for."""
    rng = np.random.default_rng(0)

    def load(folder: Path) -> dict[tuple[str, str], np.ndarray]:
        found = {}
        for style in STYLES:
            for name in art.SPRITE_NAMES:
                found[style, name] = np.full((16, 16, 4), 255, np.uint8)
                found[style, name][..., :3] = rng.integers(256, size=3)
        return found

    monkeypatch.setattr(art, "load_sprites", load)
    return Path()


@pytest.mark.slow
def test_a_baseline_is_measured_once_and_shown_beside_runs(
    store: Store, painted: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("baseline", "--kind", "oracle", "--art", painted, *MEASURED)
    done = b2bench(*command)
    assert done.code == 0, done.stderr
    assert "oracle: measured" in done.stderr
    assert "oracle" in done.stdout
    (row,) = store.runs()
    assert (row["algorithm"], row["wrapper"], row["status"], row["budget"]) == ("baseline", "oracle", "done", None)
    values = store.evals()
    whole = repr((store.runs(), values))  # as text, where nan is nan
    assert {(found["split"], found["n"]) for found in values if found["metric"] == "success"} == {
        ("test", 4),
        ("train", 3),
    }
    assert len(store.sql(SCORES, [row["run_id"]])) == 4
    # nothing is loaded or drawn a second time
    monkeypatch.setattr(art, "load_sprites", lambda folder: pytest.fail("drawn again"))
    again = b2bench(*command, "--json")
    assert again.code == 0, again.stderr
    assert "oracle: already in the store" in again.stderr
    (told,) = json.loads(again.stdout)["baselines"]
    assert (told["run_id"], told["measured"]) == (row["run_id"], False)
    assert {"clipscore", "success"} <= {metric["metric"] for metric in told["metrics"]}
    assert repr((store.runs(), store.evals())) == whole
    (table,) = json.loads(b2bench("report", "--json").stdout)
    assert (table["leaderboard"], table["contrasts"], table["compatibility"]) == ([], [], [])
    assert [shown["name"] for shown in table["headroom"]] == ["oracle"]
    assert "Headroom (no training)" in b2bench("report").stdout
    listed = b2bench("ls", "runs")
    assert "1 baseline, not trained: oracle; seed 0;" in " ".join(listed.stdout.split())
    (listed_row,) = json.loads(b2bench("ls", "runs", "--json").stdout)
    assert (listed_row["algorithm"], listed_row["budget"]) == ("baseline", None)
    assert b2bench("show", row["run_id"]).code == 0


def test_a_baseline_that_is_interrupted_leaves_nothing_of_it(
    store: Store, painted: Path, b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(baselines, "faithful_scenes", stop)
    done = b2bench("baseline", "--kind", "oracle", "--art", painted, *MEASURED)
    assert done.code == 1
    assert "The same command continues" in done.stderr
    assert not store.path.exists()
