"""The evaluation at 0 queries in the store: what its key holds, and which rows are taken over."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from store_rows import run_row

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.evaluation.evaluate import Evaluation, Metric, eval_prompts
from b2bench.store.store import Store
from b2bench.training import inputs
from b2bench.training.inputs import digests, named
from b2bench.training.start import known_start, marked, start_key

CPU = torch.device("cpu")


def config(**values: Any) -> RunConfig:
    choices: dict[str, Any] = {
        "algorithm": "ddpo",
        "wrapper": "vanilla",
        "reward": "clipscore",
        "backbone": "pocket",
        "prompts": "template1",
        "queries": 2400,
        "seed": 0,
    }
    given = {key: values.pop(key) for key in list(values) if key in choices}
    return resolve(**(choices | given), values={"eval_images": 5, "eval_train_images": 2} | values)


def key(config: RunConfig, processes: int = 1) -> str:
    return start_key(config, CPU, processes)


# -- the key ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual() -> str:
    return key(config())


@pytest.mark.parametrize(
    "same",
    [
        {"algorithm": "dpok", "wrapper": "b2", "seed": 3},
        {"lr": 0.1, "lora_rank": 2, "transitions_per_step": 3, "epochs": 2, "draws": 7, "reward_noise": 0.1},
        {"queries": 1200, "kl_images": 5},  # as many images
        {"eval_points": 5, "sample_images": 0},
    ],
)
def test_what_is_trained_is_no_part_of_the_key(same: dict[str, Any]) -> None:
    assert key(config(kl_images=5, **{k: v for k, v in same.items() if k != "kl_images"})) == key(config(kl_images=5))


@pytest.mark.parametrize(
    "other",
    [
        {"eval_seed": 1},
        {"eval_images": 6},
        {"eval_train_images": None},
        {"kl_images": 3},
        {"steps": 10},
        {"eta": 0.5},
        {"guidance": 2.0},
        {"precision": "bf16"},
        {"inception": "clip"},
        {"inception_splits": 2},
        {"micro_batch": 8},
        {"reward": "success"},
        {"reward.batch": 8},
        {"prompts": "pocket-template3"},
    ],
)
def test_what_an_evaluation_depends_on_is(other: dict[str, Any], usual: str) -> None:
    assert key(config(**other)) != usual


@pytest.mark.slow
def test_and_so_are_code_version_processes_and_files(
    usual: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = config()
    found = {usual, key(plain, 2), key(replace(plain, code={"reward": "a"})), key(replace(plain, code={"reward": "b"}))}
    with monkeypatch.context() as patch:
        patch.setattr("b2bench.version.BENCHMARK_VERSION", 99)
        found.add(key(plain))
    assert len(found) == 5
    assert key(replace(plain, code={"algorithm": "a"})) == usual
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1234")
    monkeypatch.setattr(inputs, "POCKET_WEIGHTS", tmp_path)
    before = key(plain)
    assert before == key(plain)
    os.utime(weights, ns=(1, 1))
    later = key(plain)
    weights.write_bytes(b"12345")
    assert len({before, later, key(plain)}) == 3


# -- the rows --------------------------------------------------------------------------------------


def evaluation(config: RunConfig) -> Evaluation:
    """Made-up numbers that a float32 and JSON would spoil."""
    texts = {"test": config.prompts.test, "train": config.prompts.train}
    drawn = {
        split: [(texts[split][prompt], noise) for prompt, noise in eval_prompts(texts[split], n)]
        for split, n in config.images_at(0).splits.items()
    }
    scores = torch.rand(len(drawn["test"]), generator=torch.Generator().manual_seed(0))
    settings = {"images": 5, "standard_error": 1 / 3, "first": {"images": 2, "value": float("nan")}}
    metrics = [
        Metric("test", "clipscore", float(scores.double().mean()), 5, settings),
        Metric("test", "pairwise_distance", float("nan"), 5, {"images": 5}),
        Metric("train", "clipscore", 0.1 + 0.2, 2, {"images": 2}),
    ]
    return Evaluation(metrics, drawn, {"test": {"clipscore": scores}}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With the evaluation of run ``a``."""
    store, plain = Store(tmp_path / "a.duckdb"), config()
    record(store, "a", marked(evaluation(plain), key(plain)))
    return store


def record(store: Store, run_id: str, found: Evaluation, queries: int = 0) -> None:
    store.start_run(run_row(run_id))
    store.record_evals(run_id, found.metric_rows(queries), found.image_rows(queries, "clipscore", {0: "samples/0.png"}))


def numbers(rows: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> list[list[str]]:
    """Rows as text, where nan equals nan, but for the run and where its numbers and files are from."""
    out = []
    for part in rows:
        settings = [{k: v for k, v in (row.get("settings") or {}).items() if k != "reused_from"} for row in part]
        plain = [{k: v for k, v in row.items() if k not in ("run_id", "settings", "path")} for row in part]
        out.append([repr(pair) for pair in zip(plain, settings, strict=True)])
    return out


@pytest.mark.slow
def test_what_is_taken_over_is_the_same_bit_for_bit_and_says_whose_it_is(store: Store) -> None:
    plain = config()
    found = known_start(store, key(plain), config(seed=5, lr=0.1))
    assert found is not None
    assert found.images == {}
    record(store, "b", found)
    again = known_start(store, key(plain), plain)
    assert again is not None
    record(store, "c", again)
    for copy in ("b", "c"):
        assert numbers(store.evaluation(copy, 0)) == numbers(store.evaluation("a", 0))
        assert {row["settings"]["reused_from"] for row in store.evaluation(copy, 0)[0]} == {"a"}
    assert not any("reused_from" in row["settings"] for row in store.evaluation("a", 0)[0])
    assert store.evaluated_as(key(plain)) == ["a", "b", "c"]


@pytest.mark.slow
def test_another_key_and_a_later_evaluation_are_not_taken(store: Store) -> None:
    other = config(eval_seed=2)
    assert known_start(store, key(other), other) is None
    record(store, "later", marked(evaluation(other), key(other)), queries=10)
    assert known_start(store, key(other), other) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM images WHERE noise_index = 0 AND prompt = (SELECT min(prompt) FROM images)",
        "UPDATE images SET score = NULL WHERE prompt = (SELECT min(prompt) FROM images)",
        "INSERT INTO images SELECT run_id, queries, prompt, 7, score, path FROM images LIMIT 1",
        "DELETE FROM evals WHERE metric = 'pairwise_distance'",
        "UPDATE evals SET value = NULL WHERE split = 'train'",
        "UPDATE evals SET settings = '{}' WHERE split = 'train'",
        "UPDATE evals SET settings = NULL WHERE split = 'train'",
        """UPDATE evals SET settings = '[' || settings::VARCHAR || ']' WHERE split = 'train'""",
    ],
)
def test_an_evaluation_that_is_not_whole_is_not_taken(store: Store, damage: str) -> None:
    plain = config()
    with duckdb.connect(str(store.path)) as con:
        con.execute(damage)
    assert known_start(store, key(plain), plain) is None
    record(store, "z", marked(evaluation(plain), key(plain)))  # a whole one behind it is
    found = known_start(store, key(plain), plain)
    assert found is not None
    assert {metric.settings["reused_from"] for metric in found.metrics} == {"z"}


def test_a_checkpoints_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in the working folder under the same name."""
    config = resolve(
        algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0, values={}
    )
    monkeypatch.chdir(tmp_path)
    before = digests(config)
    for name in ("pocket", "pocket-heldout", "auto"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("x")
    assert digests(config) == before == {}
    assert "pocket" not in named(config)
