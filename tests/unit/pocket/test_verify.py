"""The bars that ``pocket.build.verify`` reads from a store and from a build's records."""

import json
from pathlib import Path

import pytest
import torch
from store_rows import run_row

from b2bench.config.resolve import resolve
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.pocket.build.command import STAGES
from b2bench.pocket.build.learning import learning_bars, time_bars
from b2bench.pocket.build.verify import Swept, build_bars, guidance_bar
from b2bench.store.store import Store


def add_run(
    store: Store,
    seed: int,
    gain: float,
    *,
    queries: int = 2_400,
    nats: float = 4.0,
    version: str | None = None,
    **settings: object,
) -> None:
    """A finished run of ddpo vanilla whose every score rises by about ``gain``, and whose style entropy is halved."""
    run = f"{seed}-{queries}-{len(settings)}"
    more = {} if version is None else {"benchmark_version": version}
    own = {"algorithm": "ddpo", "wrapper": "vanilla", "reward": "clipscore", "backbone": "pocket"}
    config = resolve(**own, prompts="template1", queries=queries, seed=seed, values=settings).as_dict()
    store.start_run(run_row(run, wrapper="vanilla", seed=seed, budget=queries, config=config, threads=2, **more))
    store.record_round(run, {"round": 0, "queries": queries, "kept": 1, "seconds": 0.0}, [])
    for point, more, entropy, kl in ((0, 0.0, 1.2, 0.0), (queries, gain, 0.6, nats)):
        values = {
            "clipscore": 0.5 + more,
            "clipscore_heldout": 0.4 + more,
            "success": 0.3 + more,
            "style_entropy": entropy,
            "kl_pretrained": kl,
        }
        rows = [
            {"queries": point, "split": "test", "metric": metric, "value": value, "n": 9, "settings": {}}
            for metric, value in values.items()
        ]
        images = [
            {"queries": point, "prompt": "a cat", "noise_index": i, "score": 0.5 + more * (i % 2), "path": None}
            for i in range(9)
        ]
        store.record_evals(run, rows, images)
    store.finish_run(run, "done")


@pytest.mark.slow
def test_learning_is_the_least_gain_of_all_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    add_run(store, 0, 0.2)
    add_run(store, 1, 0.1)
    add_run(store, 2, 0.9, queries=240)  # another budget is another setting
    add_run(store, 3, 0.9, lora_rank=2)
    add_run(store, 4, 0.01, clip_nats=10.0)  # of the algorithm
    add_run(store, 5, 0.01, version="2")
    found = {bar.name: bar for bar in learning_bars(store)["template 1"]}
    assert learning_bars(store)["template 2"] == []
    least = found["ddpo vanilla: success gained, least of all seeds"]
    assert least.value == pytest.approx(0.1)
    assert not least.reached
    assert least.note == "seeds 0, 1"
    assert found["ddpo vanilla: held-out CLIPScore gained, least of all seeds"].value == pytest.approx(0.1)
    # four of nine images gained all, five nothing
    mean, deviation = 4 / 9, (20 / 81 * 9 / 8) ** 0.5
    paired = found["ddpo vanilla: CLIPScore gained, in paired standard errors, least of all seeds"]
    assert paired.value == pytest.approx(mean / (deviation / 3))
    spread = found["ddpo vanilla: success gained, SD over seeds / mean"]
    assert spread.value == pytest.approx(0.5**0.5 * 0.1 / 0.15)
    assert not spread.reached
    assert found["ddpo vanilla: KL from pretrained, nats"].value == 4.0
    assert found["ddpo vanilla: CLIPScore gained per sqrt(nat)"].value == pytest.approx(0.15 / 2)


@pytest.mark.slow
def test_collapse_is_looked_for_where_the_rate_or_the_budget_is_three_times_as_large(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    add_run(store, 0, 0.2)
    assert "all" not in learning_bars(store)
    add_run(store, 0, 0.2, lr=3 * Settings().lr)
    (lost,) = learning_bars(store)["all"]
    assert lost.value == pytest.approx(0.5)
    assert lost.reached


@pytest.mark.slow
def test_only_the_default_run_is_timed(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    add_run(store, 0, 0.1)
    add_run(store, 1, 0.1, eval_images=540)
    minutes, share = time_bars(store)
    assert minutes.value < 1
    assert share.value == 1.0
    assert not share.reached


def test_a_build_is_its_longest_stage_and_half_of_its_cpu_hours(tmp_path: Path) -> None:
    for name in STAGES:
        seconds = {"wall": 3000.0 if name == "decoder" else 60.0, "cpu": 1800.0, "resumed": name == "bert"}
        (tmp_path / f"{name}.done.json").write_text(json.dumps(seconds))
    longest, hours = build_bars(tmp_path)
    assert (longest.value, hours.value) == (50.0, len(STAGES) / 4)
    assert "resumed" in hours.note
    (tmp_path / "bert.done.json").unlink()
    with pytest.raises(UserError, match=f"{len(STAGES) - 1} of {len(STAGES)} stages"):
        build_bars(tmp_path)


def test_a_guidance_falls_short_where_another_is_better_beyond_the_noise_of_images() -> None:
    """Two templates of 100 images; what a guidance changes in an image varies by 0.05."""
    draws = torch.Generator().manual_seed(0)
    base = [torch.rand(100, generator=draws) for _ in range(2)]
    noise = [0.05 * torch.randn(100, generator=draws) for _ in range(2)]

    def bar(better: float) -> float:
        changed = [scores + each - each.mean() + better for scores, each in zip(base, noise, strict=True)]
        sweeps = [[Swept(3.0, {}, a), Swept(4.0, {}, b)] for a, b in zip(base, changed, strict=True)]
        return guidance_bar(sweeps, 3.0).value

    assert bar(-0.01) == 0.0  # the default is the best
    assert bar(0.01) == pytest.approx(0.01 / (0.05 / 200**0.5), rel=0.1)
    assert bar(0.01) > 2 > bar(0.005) > 0
