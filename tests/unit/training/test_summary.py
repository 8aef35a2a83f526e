"""What is said at the end of a run: its paired gain, and whether it learned."""

from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from store_rows import run_row

from b2bench.store.store import Store
from b2bench.terminal.progress import summary_table, verdict_text
from b2bench.training.summary import Summary, paired_gain


def image(queries: int, place: int, score: float) -> dict[str, Any]:
    return {"queries": queries, "prompt": f"p{place % 3}", "noise_index": place // 3, "score": score, "path": None}


def test_the_gain_is_paired_by_image(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.duckdb")
    store.start_run(run_row("r"))
    before, after = [0.1, 0.5, 0.9, 0.3], [0.2, 0.7, 0.9, 0.5, 0.0]
    for queries, scores in ((0, before), (10, after)):  # the second has an image that the first has not
        evals = [{"queries": queries, "split": "test", "metric": "clipscore", "value": 0.5, "n": 4, "settings": {}}]
        store.record_evals("r", evals, [image(queries, place, score) for place, score in enumerate(scores)])
    differences = [b - a for a, b in zip(before, after[:4], strict=True)]
    gain, error, images = paired_gain(store, "r", 0, 10)
    assert gain == pytest.approx(sum(differences) / 4)
    assert error == pytest.approx(stdev(differences) / 2)
    assert images == 4


@pytest.mark.parametrize(
    ("gain", "error", "images", "said"),
    [
        (0.02, 0.01, 30, "learned: clipscore +0.0200 ± 0.0100 (standard error over 30 images)"),
        (-0.02, 0.01, 30, "got worse: clipscore -0.0200"),
        (0.019, 0.01, 30, "cannot be told: clipscore +0.0190"),
        (0.5, float("nan"), 1, "too few images"),
        (float("nan"), float("nan"), 0, "nothing was compared"),
    ],
)
def test_the_verdict_goes_by_the_interval(gain: float, error: float, images: int, said: str) -> None:
    values = {"is_style": 2.0, "clipscore": 0.5, "clipscore_heldout": 0.4, "success": 0.25}
    found = Summary(
        "r", 10, 1.0, 10.0, values, {**values, "success": 0.5}, "w", "db", "clipscore", gain, error, images
    )  # fmt: skip
    assert said in found.verdict
    assert ("includes zero" in found.verdict) == (gain == 0.019)
    assert "held-out scorer +0.000, success +0.250" in str(verdict_text(found))
    assert "warning  over-optimised" in str(verdict_text(replace(found, findings=("over-optimised: so",))))
    first = next(summary_table(found).columns[0].cells)
    assert str(first) == "CLIPScore (trained)"


def test_a_metric_that_the_last_evaluation_lacks_is_a_line() -> None:
    """A run may be resumed with kl_images=0."""
    table = summary_table(
        Summary("r", 10, 1.0, 10.0, {"clipscore": 0.5, "kl_pretrained": 0.0}, {"clipscore": 0.6}, "w", "db")
    )
    assert [list(column.cells)[1] for column in table.columns[1:]] == ["-"] * 3
