"""How many test images a store's runs say are needed, and where that and the cost of tuning are printed."""

import json
from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.cli.look import estimate
from b2bench.describe.images import images_needed
from b2bench.errors import UserError
from b2bench.store.store import Store

SEEDS = (0.03, -0.03, 0.0)
"""What each seed adds to b2."""


def fill(store: Store, image_noise: float, wrappers: tuple[str, ...] = ("vanilla", "b2")) -> None:
    for wrapper in wrappers:
        for seed, shift in enumerate(SEEDS):
            run_id = f"{wrapper}-{seed}"
            config = {"seed": seed, "settings": {"eval_seed": 0}}
            store.start_run(run_row(run_id, wrapper=wrapper, seed=seed, config=config, config_hash=wrapper))
            own = shift * (wrapper == "b2")
            scores = [
                0.6 + (0.05 + own + image_noise * (-1) ** (n + n // 4 * seed)) * (wrapper != "vanilla")
                for n in range(8)
            ]
            images = [
                {"queries": 1000, "prompt": "a cat", "noise_index": n, "score": score, "path": None}
                for n, score in enumerate(scores)
            ]
            shared = {"split": "test", "metric": "clipscore", "n": 8, "settings": None}
            ends = {0: 0.6, 1000: sum(scores) / 8}
            store.record_evals(run_id, [shared | {"queries": q, "value": v} for q, v in ends.items()], images)
            store.finish_run(run_id, "done")


@pytest.mark.slow
def test_images_are_those_that_make_evaluation_noise_a_quarter_of_the_seed_variance(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    fill(store, 0.06)
    found = images_needed(store, "pocket", "template1", "clipscore")
    assert isinstance(found["needed"], int)
    assert (found["drawn"], found["contrast"]) == (8, "ddpo b2 − vanilla")
    assert found["needed"] > 8
    assert f"try --set eval_images={found['needed']}" in str(found["text"])
    assert images_needed(store, "pocket", "template2", "clipscore")["needed"] is None
    assert "no number can be given" not in str(found["text"])
    three = Store(tmp_path / "three.duckdb")
    fill(three, 0.06, ("vanilla", "bpt", "b2"))  # what bpt adds is the same with each seed
    text = str(images_needed(three, "pocket", "template1", "clipscore")["text"])
    assert "the most of 1 contrast in" in text
    assert "in 1 more the seeds spread no more than their images do, so no number can be given" in text
    quiet = Store(tmp_path / "quiet.duckdb")
    fill(quiet, 0.001)
    assert "try" not in str(images_needed(quiet, "pocket", "template1", "clipscore")["text"])


@pytest.mark.slow
def test_an_estimate_has_the_cost_of_tuning_and_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "b.duckdb")
    fill(store, 0.06)
    estimate(algo="ddpo", wrapper="b2", tune=True, db=store.path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    (cell,) = found["tuning"]
    assert (cell["configurations"], cell["runs"], cell["queries"]) == (8, 12, 14_400)
    assert found["images"]["drawn"] == 8
    with pytest.raises(UserError, match="--tune --full"):
        estimate(algo="ddpo", wrapper="b2", full=True)
