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
from b2bench.errors import Refused, UserError
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
    resolve(algorithm="ddpo", wrapper="plain", plugins=(plugin,), **SHARED)
    for algorithm in ("dpo", "raft", "diffusion_dpo"):
        with pytest.raises(Refused, match=f"its {method[4:].partition('(')[0]} are about advantages"):
            resolve(algorithm=algorithm, wrapper="plain", plugins=(plugin,), **SHARED)


PLAIN = """
from typing import ClassVar
import torch
from b2bench import algorithm
@algorithm
class Plain:
    pairs: ClassVar[bool] = False
    {marks}
    def loss(self, policy, batch):
        return policy.transition(batch.cond, batch.latents, batch.step).mean.mean(), {{}}
"""


@pytest.mark.parametrize(
    ("marks", "refused", "accepted"),
    [
        (
            "reward_gradient: ClassVar[bool] = True\n    defaults: ClassVar[dict] = {'updates_per_round': 1}",
            {"forward": "leaves the last step out", "window": "leaves the last step out", "tree": "edges are about",
             "noise_weighted": "step_weights are about"},
            {"vanilla", "b2", "bpt"},
        ),
        ("whole_groups: ClassVar[bool] = True", {"tree": "the same step many times"}, {"vanilla", "noise_weighted"}),
        (
            "whole_groups: ClassVar[bool] = True\n    finals: ClassVar[bool] = True", {}, {"tree", "vanilla"},
        ),
    ],
)  # fmt: skip
def test_an_algorithm_that_says_nothing_is_refused_where_it_would_be_trained_as_another(
    marks: str, refused: dict[str, str], accepted: set[str], tmp_path: Path
) -> None:
    plugin = tmp_path / "plain.py"
    plugin.write_text(PLAIN.format(marks=marks))
    for wrapper in accepted:
        resolve(algorithm="plain", wrapper=wrapper, plugins=(plugin,), **SHARED)
    for wrapper, reason in refused.items():
        with pytest.raises(Refused, match=reason):
            resolve(algorithm="plain", wrapper=wrapper, plugins=(plugin,), **SHARED)


def test_a_wrapper_whose_interval_cannot_be_asked_is_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    for body, words in (("raise KeyError(3)", "odd.interval raised"), ("return slice(None)", "odd.interval ends at")):
        plugin.write_text(
            "from b2bench import wrapper\nfrom b2bench.wrappers import FullInterval, Independent\n"
            f"@wrapper\nclass Odd(FullInterval, Independent):\n    def interval(self, *_): {body}\n"
        )
        marks = "reward_gradient: ClassVar[bool] = True\n    defaults: ClassVar[dict] = {'updates_per_round': 1}"
        (tmp_path / "plain.py").write_text(PLAIN.format(marks=marks))
        with pytest.raises(UserError, match=words):
            resolve(algorithm="plain", wrapper="odd", plugins=(plugin, tmp_path / "plain.py"), **SHARED)


@pytest.mark.parametrize(
    ("algorithm", "values", "words"),
    [
        ("dpo", {"samples": 1}, "dpo learns from pairs"),
        ("raft", {"samples": 1}, "raft learns from pairs"),
        ("ddpo", {"samples": 1, "advantage": "group"}, "advantage=group compares"),
        ("ddpo", {"samples": 1, "advantage": "loo"}, "advantage=loo compares"),
        ("draft1", {"updates_per_round": "none"}, "updates_per_round = none: .*declare it"),
        ("draft1", {"timestep_fraction": 0.5}, "timestep_fraction = 0.5"),
    ],
)
def test_settings_under_which_nothing_is_learned_are_refused(
    algorithm: str, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        resolve(algorithm=algorithm, wrapper="vanilla", **{**SHARED, "values": values})
    resolve(algorithm="ddpo", wrapper="vanilla", **{**SHARED, "values": {"samples": 1}})
