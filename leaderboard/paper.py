"""The paper's own numbers, beside which a report's stand."""

from __future__ import annotations

import json
from pathlib import Path

from b2bench.leaderboard.columns import algorithm_cell
from b2bench.leaderboard.grid import Cell, Column, Grid, measured, number
from b2bench.leaderboard.rows import CompatibilityRow, Context, LeaderboardRow, Tables
from b2bench.leaderboard.sheets import EXPLORATORY
from b2bench.leaderboard.stats import Paired, paired

PROMPTS = ("template1", "template2", "template3")
REPORTED = Path(__file__).with_name("reported.json")
STYLE_SCORE = "is_style"
"""What stands for the paper's inception score: of what a classifier sees in pocket's images, training loses style."""


def is_paper(context: Context) -> bool:
    """Whether the paper's numbers may stand beside: its backbone, its reward and its prompts."""
    return (
        context.backbone in ("sd14", "CompVis/stable-diffusion-v1-4")
        and context.reward == "clipscore"
        and not context.reward_settings
        and context.prompts in PROMPTS
    )


def paper_grids(context: Context) -> list[Grid]:
    """Tables 1, 2 and 3 of the paper for these prompts, marked as the paper's; none beside other backbones."""
    if not is_paper(context):
        return []
    return tables_of(context.prompts)


def reported_grids() -> list[Grid]:
    """All of the paper's tables 1, 2 and 3, by prompts."""
    return [grid for prompts in PROMPTS for grid in tables_of(prompts)]


def tables_of(prompts: str) -> list[Grid]:
    """Tables 1, 2 and 3 of the paper for these prompts, marked as the paper's."""
    reported = json.loads(REPORTED.read_text(encoding="utf-8"))
    tables = [
        ("1", "inception score", reported["table1_inception_score"][prompts]),
        ("3", "CLIPScore on unseen prompts", reported["table3_clipscore_unseen_prompts"][prompts]),
    ]
    if prompts == "template1":
        table2 = reported["table2_inception_score_template1"]
        flat = {"SD": table2["SD"]}
        for name in ("DPOK", "PG", "DPO"):
            flat |= {name: table2[name]["vanilla"], f"{name}+B2": table2[name]["b2"]}
        tables.insert(1, ("2", "inception score", flat))
    legend = [f"{reported['source']}; {reported['seeds']} seeds, 25,600 reward queries; no intervals were published"]
    return [
        Grid(
            f"paper_table{place}",
            f"The paper's table {place}: {what} ({prompts})",
            (Column("cell", right=False), Column(what)),
            tuple((Cell(name), Cell(number(value, 4), sort=value)) for name, value in values.items()),
            tuple(legend),
        )
        for place, what, values in tables
    ]


def beside_paper(group: Tables) -> Grid:
    """Return what B2 changed in the paper's tables 1, 2 and 3, and in the cells that stand for theirs here.

    Of the same prompts, or of the pocket's set that stands for them; no rows for others, or where no algorithm has both
    cells, or for the paper's own backbone, beside which its tables stand. The scores are of other models and other
    classifiers: signs compare, and sizes do not.
    """
    context = group.head.context
    budget = "" if context.budget is None else f", {context.budget:,} reward queries"
    title = f"What B2 changed in the paper's tables, and here on {context.prompts} ({context.backbone}{budget})"
    prompts = context.prompts.removeprefix("pocket-")
    if prompts not in PROMPTS or context.reward != "clipscore" or context.reward_settings or is_paper(context):
        return Grid("beside_paper", title, (), ())
    cells = {row.identity: row for row in group.leaderboard if not row.reference}
    rows = []
    for table, algorithm, there, metric in _changes(prompts):
        for variant in group.compatibility:
            if variant.algorithm == algorithm and (here := _change(variant, cells, metric)) is not None:
                rows.append(
                    (
                        Cell(table),
                        algorithm_cell(variant),
                        Cell(number(there, 4, sign=True), sort=there),
                        Cell(metric or "clipscore"),
                        measured(here, 4, sign=True),
                        _sign(there, here),
                        measured(_change(variant, cells, ""), 4, sign=True),
                    )
                )
    columns = (
        Column("the paper's table", right=False),
        Column("algorithm", right=False),
        Column("there: B2 \u2212 vanilla"),
        Column("here in", right=False),
        Column("here: B2 \u2212 vanilla"),
        Column("sign", right=False),
        Column("in clipscore"),
    )
    legend = (
        EXPLORATORY,
        "at the end, on unseen prompts, paired by seed, ± half the 95% interval; sign: open if that interval has zero "
        "in it",
        "in clipscore: B2 \u2212 vanilla in the trained reward; where B2 gained less, more diversity does not compare "
        "cells at equal gain, and the paper's B2 gained more",
        "of other models and other classifiers: signs may be compared, and sizes may not",
    )
    return Grid("beside_paper", title, columns, tuple(rows), legend if rows else (), names=2)


def _changes(prompts: str) -> list[tuple[str, str, float, str]]:
    """Return table, algorithm, B2 minus vanilla, and the metric that stands for it here ("": the trained reward)."""
    reported = json.loads(REPORTED.read_text(encoding="utf-8"))

    def ddpo(table: str) -> float:
        values: dict[str, float] = reported[table][prompts]
        return values["DDPO+B2"] - values["DDPO"]

    found = [("1: inception score", "ddpo", ddpo("table1_inception_score"), STYLE_SCORE)]
    if prompts == "template1":
        table2 = reported["table2_inception_score_template1"]
        found += [
            ("2: inception score", name.lower(), values["b2"] - values["vanilla"], STYLE_SCORE)
            for name, values in table2.items()
            if isinstance(values, dict)
        ]
    return [*found, ("3: CLIPScore on unseen prompts", "ddpo", ddpo("table3_clipscore_unseen_prompts"), "")]


def _change(variant: CompatibilityRow, cells: dict[tuple[str, bool], LeaderboardRow], metric: str) -> Paired | None:
    """Return b2 minus vanilla of a metric at the end, over the seeds that both have; None without values."""
    sides = []
    for wrapper in ("b2", "vanilla"):
        row = next((cells.get(cell.identity) for cell in variant.cells if cell.wrapper == wrapper), None)
        found = None if row is None else row.inception.get(metric) if metric else row.alignment
        if row is None or found is None or len(found.values) != len(row.seeds):
            return None
        sides.append(dict(zip(row.seeds, found.values, strict=True)))
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    mine, vanilla = ([side[seed] for seed in seeds] for side in sides)
    return paired(mine, vanilla)


def _sign(there: float, here: Paired) -> Cell:
    if here.mean is None or here.low is None or here.high is None or here.low <= 0 <= here.high:
        return Cell("open", kind="inconclusive")
    same = (here.mean > 0) == (there > 0)
    return Cell("the same" if same else "the other", kind="gain" if same else "loss")
