"""The paper's own numbers, beside which a report's stand."""

from __future__ import annotations

import json
from pathlib import Path

from b2bench.leaderboard.grid import Cell, Column, Grid, number
from b2bench.leaderboard.rows import Context

PROMPTS = ("template1", "template2", "template3")
REPORTED = Path(__file__).with_name("reported.json")


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
