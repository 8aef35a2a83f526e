"""The bars that ``pocket.build.verify`` reads from a store and from a build's records."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.pocket.build.command import STAGES
from b2bench.pocket.build.verify import build_bars, run_bars
from b2bench.store.store import Store


def evals(values: dict[int, tuple[float, float]]) -> list[dict[str, object]]:
    """Test rows of {queries: (clipscore, style entropy)}."""
    return [
        {"queries": queries, "split": "test", "metric": metric, "value": value, "n": 9, "settings": {}}
        for queries, pair in values.items()
        for metric, value in zip(("clipscore", "style_entropy"), pair, strict=True)
    ]


def test_collapse_is_alignment_gained_and_style_entropy_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    store.start_run(run_row("a", wrapper="vanilla"))
    store.record_evals("a", evals({0: (0.6, 1.2), 100: (0.9, 0.1), 200: (0.7, 1.14)}))
    store.finish_run("a", "done")
    gain, lost = run_bars(store)
    assert (gain.value, lost.value) == (pytest.approx(0.1), pytest.approx(0.05))
    assert gain.reached
    assert not lost.reached


def test_only_the_default_run_is_timed(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    usual = asdict(Settings(guidance=3.0))
    for name, settings in (("a", usual), ("b", {**usual, "eval_images": 540})):
        store.start_run(run_row(name, algorithm="dpok", threads=2, config={"settings": settings}))
        store.record_round(name, {"round": 0, "queries": 1, "kept": 1, "seconds": 0.0}, [])
        store.finish_run(name, "done")
    minutes, share = run_bars(store)
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
