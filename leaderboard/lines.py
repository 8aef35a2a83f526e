"""Many lines of one style as one artist of matplotlib. Import it where a figure is drawn: it imports matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D


class _Lines(Line2D):
    """Draws one line after the other, in the same bytes of SVG as that many ``Line2D``.

    To matplotlib each of these is an artist to make, to clip, and to ask for its size whenever axes are laid out. That
    takes more time than to draw it, and a report of 200 runs has 2,000. Not a ``LineCollection``, which writes other
    elements.
    """

    def __init__(self, lines: Sequence[tuple[Sequence[float], Sequence[float]]], **style: Any) -> None:
        self._whole = tuple(np.concatenate([np.asarray(line[i], dtype=np.float64) for line in lines]) for i in range(2))
        super().__init__(*self._whole, **style)
        self._lines = lines

    def draw(self, renderer: Any) -> None:
        for x, y in self._lines:
            self.set_data(x, y)
            super().draw(renderer)
        self.set_data(*self._whole)  # what limits are taken from


def draw_lines(axes: Axes, lines: Iterable[tuple[Any, Any]], **style: Any) -> None:
    """Draw lines (x, y) on ``axes``, as a call of ``axes.plot`` for each would.

    The axes make room for them when something is plotted there after them.
    """
    if each := list(lines):
        axes.add_line(_Lines(each, **style))
