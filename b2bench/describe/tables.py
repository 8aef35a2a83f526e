"""The tables of a report on a store: what ``b2bench report`` draws and ``b2bench.report`` gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from b2bench.errors import UserError
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.selection import final_runs
from b2bench.leaderboard.tables import tables
from b2bench.store.store import Store


def tables_of(
    store: Store, margin: float | None = None, planned: Iterable[int] = (), looks: int = 1, tuning: bool = False
) -> list[Tables]:
    """Return one :class:`Tables` per context, of all runs in the store; of tuning runs only if ``tuning`` says so.

    ``margin``: the area of gain within which two cells are equal; None for a quarter of what the reference gained.
    ``planned``: seeds that every cell should have, in place of all that any has. ``looks``: 2 if the same runs are
    looked at twice, with half of the seeds and with all; each look then has a level of .029 instead of .05.

    Raises:
        UserError: the store cannot be read, the margin is not above 0, or looks are not 1 or 2.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin {margin:g} is not a number above 0; try 0.01")
    if looks not in (1, 2):
        raise UserError(f"--looks {looks} is not 1 or 2; try 2 for a look at half of the seeds and one at all")

    def read() -> tuple[Any, ...]:
        return (
            store.runs(), store.evals(), store.rounds(), store.refusals(), store.evaluation_errors(),
            store.last_scores(), store.round_rewards(), store.curve_errors(), store.profiles(),
        )  # fmt: skip

    runs, evals, rounds, refusals, errors, scores, rewards, curves, profiles = store.together(read)
    rows = runs if tuning else final_runs(runs), evals, rounds
    return tables(*rows, margin, refusals, planned, errors, scores, looks, rewards, curves, profiles)
