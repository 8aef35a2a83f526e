"""A report's files: each is written whole or not at all, and figures under names that stay the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from b2bench.leaderboard.drawn import written_figures
from b2bench.leaderboard.figures import draw_samples, figure_makers
from b2bench.leaderboard.grid import Picture
from b2bench.leaderboard.grids import sample_grid
from b2bench.leaderboard.rows import Tables

from b2bench.files import write_whole

KINDS = ("svg", "pdf")  # for pages, and for papers


def write_figures(
    tables: Sequence[Tables],
    folder: Path,
    samples: Sequence[Mapping[str, Any]] = (),
    runs: Path = Path("runs"),
    beside: Path = Path(),
    kinds: Sequence[str] = KINDS,
) -> list[list[Picture]]:
    """Write every figure of a report, and its sample grids, into ``folder``, each as all ``kinds``.

    ``samples`` and ``runs`` are those of :func:`b2bench.leaderboard.html.html`. A name begins with the number of its
    context in the report where there are several. Returns the pictures of each context, with paths from ``beside``.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for place, group in enumerate(tables, 1):
        makers = [(name, name, make) for name, make in figure_makers(group).items()]
        if grid := sample_grid(group, samples, runs):
            caption = f"samples of seed {grid.seed}: along a row the same noise, below an image its trained score"
            makers.append(("samples", caption, partial(draw_samples, grid)))
        pictures = []
        written = written_figures([make for _, _, make in makers], kinds)
        for (name, caption, _), files in zip(makers, written, strict=True):
            if not files:
                continue
            name = re.sub(r"\W+", "-", name.lower())
            stem = folder / (f"{place}-{name}" if len(tables) > 1 else name)
            for kind, content in files.items():
                write_whole(stem.with_name(f"{stem.name}.{kind}"), content)
            pictures.append(Picture(caption, Path(os.path.relpath(stem, beside)).as_posix()))
        found.append(pictures)
    return found
