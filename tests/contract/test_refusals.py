"""Combinations that refuse each other say why, wherever they are looked for: no new line for a new plugin."""

from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.document import document
from b2bench.leaderboard.sheets import refusals as said
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.written import markdown
from synthetic import Rows

from b2bench.config.resolve import resolve
from b2bench.errors import Refused
from b2bench.registry import Registry
from b2bench.text import visible

CELLS = [(a, w) for a in Registry("algorithm").names() for w in Registry("wrapper").names()]
SHARED: dict[str, Any] = {"reward": "clipscore", "backbone": "pocket", "queries": 60, "seed": 0, "values": {}}


def refused() -> list[dict[str, str]]:
    """The rows that a sweep of everything writes for what it leaves out."""
    found = []
    for algorithm, wrapper in CELLS:
        try:
            resolve(algorithm=algorithm, wrapper=wrapper, **SHARED)
        except Refused as refusal:
            found.append(refusal.row)
    return found


@pytest.mark.slow
def test_the_compatibility_table_says_why_of_every_refused_combination() -> None:
    rows, refusals = Rows(), refused()
    for algorithm in ("ddpo", "draft1"):
        for seed in range(2):
            rows.add(algorithm, "vanilla", seed, {0: 0.6, 1000: 0.7})
    context = rows.one().head.context
    names = ("benchmark_version", "backbone", "reward", "prompts_hash", "budget")
    here = {name: getattr(context, name) for name in names}
    (group,) = tables(rows.runs, rows.evals, rows.rounds, refusals=[{**row, **here} for row in refusals])
    lines = said(group)
    expected = {f"refused: {row['algorithm']} {row['wrapper']}, {visible(row['reason'])}" for row in refusals}
    assert set(lines) == expected
    pairs = {(row["algorithm"], row["wrapper"]) for row in refusals}
    assert {("draft1", "b2"), ("dpo", "tree")} <= pairs
    assert all(row["reason"].strip() for row in refusals)
    page = markdown(document([group]))
    assert "refused: draft1 b2, it trains the last step of every rollout" in page
    assert "refused: dpo tree, " in page
    cells = {(row.algorithm, cell.wrapper): cell.verdict for row in group.compatibility for cell in row.cells}
    assert all(cells[pair] == "refused" for pair in pairs)
    assert cells["ddpo", "tree"] == "not run"


@pytest.mark.parametrize(
    "method",
    ["def edges(self, samples, interval): return torch.zeros(samples, len(interval), dtype=torch.long)",
     "def step_weights(self, std): return std"],
)  # fmt: skip
def test_a_wrapper_of_advantages_that_says_nothing_is_refused_on_pairs_all_the_same(
    method: str, tmp_path: Path
) -> None:
    plugin = tmp_path / "plain.py"
    plugin.write_text(
        "import torch\nfrom b2bench import wrapper\nfrom b2bench.wrappers import FullInterval, Independent\n"
        f"@wrapper\nclass Plain(FullInterval, Independent):\n    {method}\n"
    )
    resolve(algorithm="ddpo", wrapper="plain", plugins=[plugin], **SHARED)
    for algorithm in ("dpo", "raft", "diffusion_dpo"):
        with pytest.raises(Refused, match=f"its {method[4:].partition('(')[0]} are about advantages"):
            resolve(algorithm=algorithm, wrapper="plain", plugins=[plugin], **SHARED)
