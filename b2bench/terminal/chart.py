"""Line charts of a few numbers in a terminal, in braille dots: two by four of them in a character."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from rich.text import Text

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode's braille patterns, by row and column
STYLES = ("bright_blue", "yellow", "green", "magenta")

Points = Sequence[tuple[float, float]]


def chart(lines: Mapping[str, Points], width: int = 64, height: int = 10, unit: str = "") -> Text:
    """Return lines by name through their points (x, y), on shared axes, with a legend below.

    Points that are not finite are left out; no point at all gives an empty text. ``width`` and ``height`` are
    characters of the canvas.
    """
    finite = {
        name: sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))
        for name, points in lines.items()
    }
    every = [point for points in finite.values() for point in points]
    if not every:
        return Text()
    left, right = _span([x for x, _ in every])
    low, high = _span([y for _, y in every])
    canvas = [[0] * width for _ in range(height)]
    colour: dict[tuple[int, int], str] = {}
    for (_, points), style in zip(finite.items(), STYLES * len(finite), strict=False):
        for x, y in _between(points, 4 * width):
            column = round((x - left) / (right - left) * (2 * width - 1))
            row = round((high - y) / (high - low) * (4 * height - 1))
            canvas[row // 4][column // 2] |= DOTS[row % 4][column % 2]
            colour[row // 4, column // 2] = style
    labels = [f"{high - (high - low) * row / (height - 1):.3f}" for row in range(height)]
    edge = max(len(label) for label in labels)
    text = Text()
    for row, cells in enumerate(canvas):
        text.append(f"{labels[row] if row in (0, height // 2, height - 1) else '':>{edge}} ", "dim").append("│", "dim")
        for column, bits in enumerate(cells):
            text.append(chr(0x2800 + bits) if bits else " ", colour.get((row, column), ""))
        text.append("\n")
    ends = f"{left:g}", f"{right:g}{f' {unit}' if unit else ''}"
    text.append(f"{'':>{edge}} └{'─' * width}\n", "dim")
    text.append(f"{'':>{edge}}  {ends[0]}{ends[1]:>{width - len(ends[0])}}\n", "dim")
    for (name, points), style in zip(finite.items(), STYLES * len(finite), strict=False):
        if points:
            text.append("━━ ", style).append(f"{name}   ")
    return text


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest, and a little where they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _between(points: Points, count: int) -> list[tuple[float, float]]:
    """``count`` points along each straight piece, and the points themselves."""
    found = list(points[:1])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        found += [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(1, count + 1)]
    return found
