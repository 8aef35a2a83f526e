"""The tables of a report on a store: what ``b2bench report`` draws and ``b2bench.report`` gives."""

from __future__ import annotations

import math
from collections.abc import Iterable

from b2bench.errors import UserError
from b2bench.leaderboard.rows import MARGIN, Tables
from b2bench.leaderboard.selection import final_runs
from b2bench.leaderboard.tables import tables
from b2bench.store.store import Store


def tables_of(store: Store, margin: float = MARGIN, planned: Iterable[int] = (), tuning: bool = False) -> list[Tables]:
    """One :class:`Tables` per context, of all runs in the store; of tuning runs only if ``tuning`` asks for them.

    ``margin``: differences of alignment that are shown to be smaller count as none. ``planned``: seeds that every cell
    should have, besides those that any has.

    Raises:
        UserError: the store cannot be read, or the margin is not above 0.
    """
    if not 0 < margin < math.inf:
        raise UserError(f"--margin {margin:g} is not a number above 0; try 0.01")
    runs = store.runs()
    rows = (runs if tuning else final_runs(runs)), store.evals(), store.rounds()
    return tables(*rows, margin, store.refusals(), planned, store.evaluation_errors())
