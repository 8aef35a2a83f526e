"""What ``b2bench pocket verify`` compares: a measured value and the figure that was asked of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BAR_COLUMNS = ("bar", "measured", "asked", "", "note")


@dataclass(frozen=True)
class Bar:
    """One bar: what was measured, the value, and whether it reaches ``[low, high]``."""

    name: str
    value: float
    low: float = -np.inf
    high: float = np.inf
    note: str = ""

    @property
    def reached(self) -> bool:
        return bool(self.low <= self.value <= self.high)

    def row(self) -> tuple[str, str, str, str, str]:
        """Cells of a table line, in the order of ``BAR_COLUMNS``."""
        limits = [f">= {self.low:g}" if self.low > -np.inf else "", f"<= {self.high:g}" if self.high < np.inf else ""]
        asked = " and ".join(filter(None, limits))
        verdict = "" if not asked else "reached" if self.reached else "SHORT"
        return self.name, f"{self.value:.4g}", asked, verdict, self.note
