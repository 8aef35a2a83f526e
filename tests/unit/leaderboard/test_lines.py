"""Figures are drawn once, and many lines as one artist look like as many artists."""

import io
import math
from typing import Any

import numpy as np
import pytest
from b2bench.leaderboard.drawn import written_figure
from b2bench.leaderboard.lines import draw_lines
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

LINES = [
    ([0, 1, 2], [0.1, 0.4, 0.2]),
    ([0, 2], [0.3, -5.0]),
    ([0, 1, 2], [0.1, math.nan, 0.2]),
    ([], []),
    ([1.5], [0.2]),
    ([0, 1], [math.nan, math.nan]),
    (np.linspace(0, 2, 400).tolist(), np.sin(np.linspace(0, 9, 400)).tolist()),
]


@pytest.mark.parametrize("style", [{"linestyle": "--"}, {"linestyle": "-", "alpha": 0.5}])
def test_lines_are_the_same_svg_as_a_plot_of_each(style: dict[str, Any]) -> None:
    drawn = []
    for together in (False, True):
        figure = Figure(layout="constrained")
        for limits in (None, (0, 0.5)):
            axes = figure.add_subplot(1, 2, 1 if limits is None else 2)
            if limits:
                axes.set_ylim(*limits)
            if together:
                draw_lines(axes, LINES, linewidth=0.6, color="#0072b2", **style)
                draw_lines(axes, [], linewidth=0.6)
            else:
                for x, y in LINES:
                    axes.plot(x, y, linewidth=0.6, color="#0072b2", **style)
            axes.plot([0, 1], [0.2, 0.3], label="mean")
            axes.legend()
        drawn.append(written_figure(figure, "svg"))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", ["svg", "pdf"])
@pytest.mark.parametrize("layout", ["constrained", None])
def test_a_figure_is_drawn_once_in_the_bytes_of_one_drawn_twice(kind: str, layout: Any) -> None:
    class Counted(Artist):
        drawn = 0

        def draw(self, renderer: Any) -> None:
            Counted.drawn += 1

    def figure() -> Figure:
        found = Figure(figsize=(5, 3), dpi=90, layout=layout)
        for axes in found.subplots(2, 2).flat:
            axes.plot([0, 1], [10, 1e5], label="a long name of a line")
            axes.set_ylabel("how high")
        found.legend(*axes.get_legend_handles_labels(), loc="outside right upper" if layout else "upper right")
        return found

    usual = figure()
    plain = figure()
    written = written_figure(plain, kind)
    engine, dpi = plain.get_layout_engine(), plain.dpi
    assert (type(engine), dpi) == (type(usual.get_layout_engine()), 90)

    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "b2bench", "svg.fonttype": "path"}):
        usual.savefig(out, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None})
    assert written == out.getvalue()
    counted = figure()
    counted.add_artist(Counted())
    written_figure(counted, kind)
    assert Counted.drawn == 1
