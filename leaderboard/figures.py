"""Figures, drawn by matplotlib without a display. It is imported where a figure is drawn: it takes a second."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from b2bench.leaderboard.columns import algorithm_name
from b2bench.leaderboard.curves import LEARNING, learning_makers
from b2bench.leaderboard.grid import MEASURES, SYMBOLS, count
from b2bench.leaderboard.grids import Sample, SampleGrid
from b2bench.leaderboard.openness import Profile
from b2bench.leaderboard.rows import Curve, Tables
from b2bench.leaderboard.stats import Paired, estimate

from b2bench.errors import UserError
from b2bench.metrics import DISTANCE, HELDOUT, IS_CLIP, IS_INCEPTION, KL, STYLE_ENTROPY

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all eyes
CellName = tuple[str, str, str]
"""Algorithm, wrapper, and what else a cell's settings are called"""
LARGEST_SIDE = 4096  # pixels of a sample image
MARKERS = ("o", "s", "^", "D", "v", "P")


def check_png(path: Path) -> None:
    """Before the work: whether a figure can be written there.

    Raises:
        UserError: it is not the name of a PNG file, or its folder does not exist.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: the figure is a PNG file; try a name that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: the folder {path.parent} does not exist; try creating it")


def draw_openness(profiles: Mapping[str, Profile], out: Path, title: str = "") -> None:
    """Share of the reward's variance that is open, against the steps to go, as PNG; a line per name, with intervals.

    Denoising runs from left to right: all T steps to go at the left, none at the right.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    steps = max(profile.num_steps for profile in profiles.values())
    taus = sorted({point.tau for profile in profiles.values() for point in profile.points} | {0, steps})
    for place, (name, profile) in enumerate(profiles.items()):
        points = [(p.tau, p.measures["open_share"]) for p in profile.points]
        points = [(tau, measure) for tau, measure in points if math.isfinite(measure.value)]
        shift = (place - (len(profiles) - 1) / 2) * 0.012 * steps  # or the bars of several would hide each other
        where = [tau + shift for tau, _ in points]
        values = [measure.value for _, measure in points]
        # A percentile interval need not hold its value, and a bar has no negative length.
        below = [max(0.0, m.value - m.low) if math.isfinite(m.low) else 0.0 for _, m in points]
        above = [max(0.0, m.high - m.value) if math.isfinite(m.high) else 0.0 for _, m in points]
        axes.errorbar(
            where,
            values,
            yerr=[below, above],
            label=name,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.5,
            elinewidth=1.2,
            capsize=3,
        )
    axes.set_xlim(steps * 1.04, -0.02 * steps)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(taus)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("steps to go at the branch point, tau")
    axes.set_ylabel("share of the reward's variance still open")
    if title:
        axes.set_title(title, fontsize=10)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(profiles) > 1:
        axes.legend(frameon=False)
    figure.savefig(out, format="png")


# -- figures of a report ----------------------------------------------------------------------------------

OF_ALGORITHMS = {
    **dict(zip(("ddpo", "pg", "dpo", "dpok", "dgpo", "awm"), COLOURS, strict=True)),
    "diffusion_dpo": "#7f7f7f",
    "draft1": "#000000",
    "flow_dppo": "#332288",
    "nft": "#882255",
    "raft": "#8c564b",
    "rwr": "#999933",
}
LINES = {"vanilla": "-", "bpt": "--", "bs": ":", "b2": "-."}
DASHED = 3.2
"""Length of a line in a legend, in letters: two dashes and dots of a dash-dotted one"""
WRAPPER_MARKERS = {"vanilla": "o", "bpt": "s", "bs": "^", "b2": "D"}
MORE_MARKERS = ("v", "P", "X", "*", "<", ">", "p", "h")


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each algorithm: the built-in ones have theirs in every figure, others get those that are
    left, by their names' order.
    """
    here = set(names)
    free = [colour for name, colour in OF_ALGORITHMS.items() if name not in here] or list(OF_ALGORITHMS.values())
    others = sorted(here - set(OF_ALGORITHMS))
    return OF_ALGORITHMS | {name: free[i % len(free)] for i, name in enumerate(others)}


def looks(cells: Iterable[CellName]) -> dict[CellName, dict[str, str]]:
    """Return how each cell is drawn: in its algorithm's colour, with its wrapper's line and marker.

    Cells that would look alike, because they differ in settings alone or there are few colours, have other markers.
    """
    cells = list(cells)
    palette, drawn, alike = colours([name for name, _, _ in cells]), {}, Counter[tuple[str, ...]]()
    for cell in cells:
        algorithm, wrapper, _ = cell
        look = {
            "color": palette[algorithm],
            "linestyle": LINES.get(wrapper, "-"),
            "marker": WRAPPER_MARKERS.get(wrapper, "o"),
        }
        key = tuple(look.values())
        if alike[key]:
            look["marker"] = MORE_MARKERS[(alike[key] - 1) % len(MORE_MARKERS)]
        alike[key] += 1
        drawn[cell] = look
    return drawn


def figure_makers(group: Tables) -> dict[str, Callable[[], Any]]:
    """Return what makes each figure of a context, by the figure's name: as a matplotlib figure, or None where its runs
    have nothing to show in it.
    """
    makers: dict[str, Callable[[Tables], Any]] = {
        "alignment against reward queries": lambda g: draw_curves(g, "queries"),
        "alignment against denoiser calls": lambda g: draw_curves(g, "calls"),
        "differences to vanilla": draw_forest,
        "alignment and diversity": draw_diversity,
        "alignment and distance from the pretrained model": draw_distance,
        "planned contrasts": draw_effects,
    }
    found = {f"{LEARNING}{name}": make for name, make in learning_makers(group).items()}
    return found | {name: partial(make, group) for name, make in makers.items()}


def report_figures(group: Tables) -> dict[str, Any]:
    """Return the figures of a context, by name, as matplotlib figures: those that its runs have
    something to show in.
    """
    found = {name: make() for name, make in figure_makers(group).items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _figure(width: float = 6.4, height: float = 4.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _plain_axes(axes)
    return figure, axes


def _plain_axes(axes: Any) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


MOST = "the part in which most are"


def _window(values: Iterable[float]) -> tuple[float, float] | None:
    """Where most of the values are, if some lie far outside: beyond three interquartile ranges (Tukey's far out)."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) < 4:
        return None
    low, high = np.percentile(finite, [25, 75])
    reach = 3 * (high - low)
    inside = finite[(finite >= low - reach) & (finite <= high + reach)]
    if reach == 0 or len(inside) == len(finite):
        return None
    room = 0.06 * float(np.ptp(inside))
    return float(inside.min()) - room, float(inside.max()) + room


def _stacked(x: Iterable[float], y: Sequence[Iterable[float]], width: float = 6.4) -> tuple[Any, Any]:
    """Return a figure and its axes [rows, len(y)]: a column for each set of values; see :func:`_window`.

    Two rows where some values are far outside: all of it, and the part in which most are. A cell that collapses would
    else press all others into one line.
    """
    from matplotlib.figure import Figure

    x_window, windows = _window(x), [_window(values) for values in y]
    rows = 2 if x_window or any(windows) else 1
    figure = Figure(figsize=(width, 4.0 if rows == 1 else 7.0), layout="constrained")
    panels = figure.subplots(rows, len(windows), squeeze=False)
    for axes in panels.flat:
        _plain_axes(axes)
    if rows == 2:
        panels[0, 0].set_title("all", fontsize=9, loc="left")
        panels[1, 0].set_title(MOST, fontsize=9, loc="left")
        for axes, window in zip(panels[1], windows, strict=True):
            _zoom(axes, x_window, window)
    return figure, panels


def _zoom(axes: Any, x_window: tuple[float, float] | None, y_window: tuple[float, float] | None) -> None:
    if x_window:
        axes.set_xlim(*x_window)
    if y_window:
        axes.set_ylim(*y_window)


def _legend(figure: Any) -> None:
    """Beside the axes: with sixteen cells no place within them is free, and looking for one takes seconds."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.set_figwidth(figure.get_figwidth() + 0.6 + 0.065 * max(map(len, names)))
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8, handlelength=DASHED)


def _plain(text: str, longest: int = 48) -> str:
    """Return a name as matplotlib shows it: short enough to leave room for the figure, and no formula
    between dollars.
    """
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")


def _cells(curves: Sequence[Curve], *metrics: str) -> dict[CellName, list[Curve]]:
    """Return the curves of each cell that hold these metrics.

    A cell whose runs share no evaluation has no mean: it is out.
    """
    found: dict[CellName, list[Curve]] = {}
    for curve in curves:
        if all(metric in curve.values for metric in metrics):
            found.setdefault((curve.algorithm, curve.wrapper, curve.label), []).append(curve)
    return {name: members for name, members in found.items() if _shared(members)}


def _shared(curves: Sequence[Curve]) -> list[int]:
    """Reward queries at which all of them were evaluated."""
    return sorted(set.intersection(*(set(curve.queries) for curve in curves)))


def _cell_name(algorithm: str, wrapper: str, label: str) -> str:
    parts = (algorithm_name(algorithm), "" if wrapper == "-" else wrapper, label)
    return _plain(" ".join(filter(None, parts)), 64)


def draw_curves(group: Tables, against: str) -> Any:
    """Return the trained score on test prompts: a thin line per seed, their mean, and the t-interval as a band."""
    from matplotlib.ticker import MaxNLocator

    metric = group.head.context.reward
    cells = _cells([curve for curve in group.curves if len(curve.queries) > 1], metric)
    if not cells:
        return None
    every = [curve for members in cells.values() for curve in members]
    drawn = looks(cells)
    figure, panels = _stacked((), [[value for curve in every for value in curve.values[metric]]])
    for axes in panels.flat:
        for name, members in cells.items():
            _draw_curve(axes, name, members, metric, against, drawn[name])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        axes.set_ylabel(_plain(metric))
    panels[-1, 0].set_xlabel("reward queries" if against == "queries" else "denoiser calls, sampling and training")
    _legend(figure)
    return figure


def _draw_curve(
    axes: Any, name: CellName, members: Sequence[Curve], metric: str, against: str, look: Mapping[str, str]
) -> None:
    from b2bench.leaderboard.lines import draw_lines

    shared, points = _shared(members), []
    where = [curve.queries if against == "queries" else curve.calls for curve in members]
    lines = zip(where, [curve.values[metric] for curve in members], strict=True)
    draw_lines(axes, lines, linewidth=0.6, alpha=0.5, color=look["color"], linestyle=look["linestyle"])
    for curve in members:
        at = dict(zip(curve.queries, zip(curve.calls, curve.values[metric], strict=True), strict=True))
        points.append([at[queries] for queries in shared])
    array = np.array(points, dtype=np.float64)  # [R, points, 2]
    x: Any = shared if against == "queries" else array[:, :, 0].mean(0)
    means = [estimate(array[:, i, 1].tolist()) for i in range(len(shared))]
    middle = [math.nan if m.mean is None else m.mean for m in means]
    axes.plot(x, middle, linewidth=1.8, label=_cell_name(*name), markersize=4, **look)
    if all(m.low is not None for m in means):
        low, high = [m.low for m in means], [m.high for m in means]
        axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)


def draw_forest(group: Tables) -> Any:
    """Paired differences with their intervals and a dot for each seed: wrappers to vanilla, vanilla to pretrained."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = [
        (row, cell)
        for row in group.compatibility
        for cell in row.cells
        if cell.delta is not None and cell.delta.mean is not None
    ]
    if not rows:
        return None
    window = _window(cell.delta.mean for _, cell in rows if cell.delta and cell.delta.mean is not None)
    figure = Figure(figsize=(9.6 if window else 6.4, 0.9 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2 if window else 1, squeeze=False, sharey=True)[0]
    palette = colours([row.algorithm for row, _ in rows])
    for axes in panels:
        _plain_axes(axes)
        for place, (row, cell) in enumerate(rows):
            assert cell.delta is not None
            _draw_delta(axes, place, cell.delta, palette[row.algorithm])
        axes.axvline(0, color="0.4", linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        margin = group.head.margin
        if margin is not None:
            axes.axvspan(-margin, margin, color="0.92", zorder=0)
        grey = "" if margin is None else f"\ngrey: within ±{margin:g}"
        axes.set_xlabel(_plain(f"difference in {group.head.context.reward}, mean over the budget{grey}"))
    if window:
        panels[0].set_title("all", fontsize=9, loc="left")
        panels[1].set_title(MOST, fontsize=9, loc="left")
        _zoom(panels[1], window, None)
    names = [
        _plain(f"{row.algorithm} {row.label} {cell.wrapper} − {cell.baseline}".replace("  ", " ")) for row, cell in rows
    ]
    panels[0].set_yticks(
        range(len(rows)), [f"{name}  {SYMBOLS[cell.verdict]}" for name, (_, cell) in zip(names, rows, strict=True)]
    )
    panels[0].invert_yaxis()
    return figure


def _draw_delta(axes: Any, place: float, delta: Paired, colour: str) -> None:
    """A dot for each seed, a diamond for their mean, a line for its interval."""
    axes.plot(delta.values, [place] * len(delta.values), "o", color=colour, markersize=3.5, alpha=0.5)
    axes.plot([delta.mean], [place], "D", color=colour, markersize=6)
    if delta.low is not None:
        axes.plot([delta.low, delta.high], [place, place], color=colour, linewidth=1.8)


def draw_diversity(group: Tables) -> Any:
    """Alignment against diversity at every evaluation, seeds averaged, and the Pareto front of what was measured.

    Hollow markers stand at the matched alignment: where a run first had it, as the table has them.
    """
    metric = group.head.context.reward
    present = {name for curve in group.curves for name in curve.values}
    measure = next((name for name in (STYLE_ENTROPY, DISTANCE, IS_CLIP, IS_INCEPTION) if name in present), "")
    cells = _cells(group.curves, metric, measure)
    if not measure or not cells:
        return None
    paths = {name: _path(members, measure, metric) for name, members in cells.items()}
    points = [(float(a), float(b)) for x, y in paths.values() for a, b in zip(x, y, strict=True)]
    front = pareto([point for point in points if all(map(math.isfinite, point))])
    matched = {(row.algorithm, row.wrapper, row.label): row.matched.get(measure) for row in group.diversity}
    drawn = looks(cells)
    start, gain = group.head.start, group.head.matched
    level = None if start is None or gain is None else start + gain  # each seed counts from its own start
    diversity, alignment = ([value for path in paths.values() for value in path[i]] for i in range(2))
    figure, panels = _stacked(diversity, [alignment])
    for axes in panels.flat:
        for name, (x, y) in paths.items():
            axes.plot(x, y, linewidth=1, markersize=5, label=_cell_name(*name), **drawn[name])
            at = matched.get(name)
            if level is not None and at is not None and at.mean is not None:
                hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5, "linestyle": "none", "markersize": 9}
                axes.plot([at.mean], [level], **{**drawn[name], **hollow})
        if level is not None:
            style: dict[str, Any] = {"color": "0.6", "linewidth": 0.8, "linestyle": (0, (4, 3))}
            axes.axhline(level, label="matched alignment", **style)
        axes.plot(*zip(*front, strict=True), color="0.5", linewidth=3, alpha=0.35, zorder=0, label="Pareto front")
        axes.set_ylabel(_plain(metric))
    panels[-1, 0].set_xlabel(MEASURES.get(measure, measure))
    _legend(figure)
    return figure


def _path(members: Sequence[Curve], *metrics: str) -> Any:
    """Of each metric its means over a cell's seeds, at the evaluations that they share: [metrics, points]."""
    at = [[curve.queries.index(queries) for curve in members] for queries in _shared(members)]
    found = [
        [[curve.values[metric][i] for curve, i in zip(members, places, strict=True)] for places in at]
        for metric in metrics
    ]
    return np.array(found, dtype=np.float64).mean(-1)


def draw_distance(group: Tables) -> Any:
    """Alignment against how far the sampler has gone: the trained score, and beside it the held-out one if any.

    The square root of the KL, along which reward and its over-optimisation are usually drawn (Gao et al. 2023).
    """
    trained, held_out = group.head.context.reward, HELDOUT
    cells = _cells([curve for curve in group.curves if len(curve.queries) > 1], KL, trained)
    if not cells:
        return None
    both = all(held_out in curve.values for members in cells.values() for curve in members)
    shown = [trained, *([held_out] if both and held_out != trained else [])]
    every = [curve for members in cells.values() for curve in members]
    figure, panels = _stacked(
        [math.sqrt(max(0.0, kl)) for curve in every for kl in curve.values[KL]],
        [[value for curve in every for value in curve.values[metric]] for metric in shown],
        6.4 if len(shown) == 1 else 9.6,
    )
    drawn = looks(cells)
    for row in panels:
        for axes, metric in zip(row, shown, strict=True):
            for name, members in cells.items():
                _draw_distance(axes, name, members, metric, drawn[name])
            axes.set_ylabel(_plain("held-out CLIPScore" if metric == held_out else metric))
    for axes in panels[-1]:
        axes.set_xlabel("square root of the KL from the pretrained model (nats a path)")
    _legend(figure)
    return figure


def _draw_distance(axes: Any, name: CellName, members: Sequence[Curve], metric: str, look: Mapping[str, str]) -> None:
    from b2bench.leaderboard.lines import draw_lines

    lines = ((np.sqrt(curve.values[KL]), curve.values[metric]) for curve in members)
    draw_lines(axes, lines, linewidth=0.6, alpha=0.5, color=look["color"], linestyle=look["linestyle"])
    kl, y = _path(members, KL, metric)
    axes.plot(np.sqrt(kl), y, linewidth=1.8, label=_cell_name(*name), markersize=4, **look)


def draw_samples(grid: SampleGrid) -> Any:
    """Return the sample grid: prompts downwards, cells across, the trained score under each image.

    None without images.
    """
    from matplotlib.figure import Figure

    shown = [[_pixels(sample) for sample in samples] for _, samples in grid.rows]
    if all(image is None for row in shown for image in row):
        return None
    names = [textwrap.fill(_plain(name, 30), 12) for name in grid.columns]
    prompts = [textwrap.fill(_plain(prompt), 18) for prompt, _ in grid.rows]
    figure = Figure(figsize=(1.6 + 0.9 * len(names), 0.5 + 1.05 * len(prompts)), layout="constrained")
    panels = figure.subplots(len(prompts), len(names), squeeze=False)
    for (_, samples), images, row, prompt in zip(grid.rows, shown, panels, prompts, strict=True):
        for sample, image, axes in zip(samples, images, row, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if image is not None:
                axes.imshow(image, interpolation="none")  # its own pixels, not those of a figure at some dpi
            if sample is not None:
                axes.set_xlabel(sample.score, fontsize=7, labelpad=2)
        row[0].set_ylabel(prompt, fontsize=8, rotation=0, ha="right", va="center")
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=8)
    return figure


def _pixels(sample: Sample | None) -> Any:
    """Return the image as an array [H, W, 3].

    None where it is missing, damaged, or larger than a sample has reason to be.
    """
    from PIL import Image

    if sample is None or not sample.png:
        return None
    data = base64.b64decode(sample.png)
    # width and height in the head of a PNG: a small file of a stranger may unfold to gigabytes
    if not 0 < max(int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) <= LARGEST_SIDE:
        return None
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points beside which no other is larger in both coordinates, by the first."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]


def draw_effects(group: Tables) -> Any:
    """Return the planned contrasts of each algorithm, on the area of gain."""
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in group.contrasts if any(contrast.delta.mean is not None for contrast in row.contrasts)]
    if not rows:
        return None
    figure, axes = _figure(6.4, 1.2 + 1.1 * len(rows))
    palette = colours([row.algorithm for row in rows])
    ticks = []
    for number, row in enumerate(rows):
        for k, contrast in enumerate(contrast for contrast in row.contrasts if contrast.delta.mean is not None):
            place = 5 * number + k
            _draw_delta(axes, place, contrast.delta, palette[row.algorithm])
            name = contrast.name if contrast.name == "interaction" else contrast.name.upper()
            ticks.append((place, _plain(f"{row.algorithm} {row.label} {name}".replace("  ", " "))))
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.invert_yaxis()
    axes.axvline(0, color="0.4", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(_plain(f"contrast in {group.head.context.reward}, mean over the budget"))
    return figure
