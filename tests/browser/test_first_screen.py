"""What a report shows before anybody scrolls, on a screen as a talk has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.html import html
from synthetic import Rows

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SCREEN = {"width": 1280, "height": 800}
NOISE = (0.001, -0.001, 0.0005, -0.0005, 0.0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_the_answers_and_the_matrix_and_nothing_runs_out_of_it(
    scheme: str, opened: Any, tmp_path: Path
) -> None:
    """Sixteen cells and a dozen further algorithms, as the published leaderboard has."""
    rows = Rows()
    for algorithm in ("ddpo", "dpo", "dpok", "pg", *(f"other{place}" for place in range(12))):
        wrappers = ("vanilla",) if algorithm.startswith("other") else ("vanilla", "bpt", "bs", "b2")
        for place, wrapper in enumerate(wrappers):
            for seed, noise in enumerate(NOISE):
                rows.add(algorithm, wrapper, seed, {0: 0.6, 1000: 0.65 - 0.01 * place + noise})
    file = tmp_path / "report.html"
    file.write_text(html(rows.tables()), encoding="utf-8")
    page = opened(file, viewport=SCREEN, color_scheme=scheme)
    answers = page.locator("li:has(> b)")
    assert answers.count() >= 4
    bottoms = [box["y"] + box["height"] for box in (answers.nth(i).bounding_box() for i in range(answers.count()))]
    matrix = page.locator("table").first
    first = [matrix.locator("tbody tr").nth(i) for i in range(4)]
    assert [row.locator("th, td").first.inner_text() for row in first] == ["ddpo", "dpo", "dpok", "pg"]
    last = first[-1].bounding_box()
    assert max(bottoms) < matrix.bounding_box()["y"]
    assert last["y"] + last["height"] <= SCREEN["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREEN["width"]
