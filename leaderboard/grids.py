"""Sample grids: what the pretrained model and each cell drew for the same prompts from the same noise."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b2bench.leaderboard.grid import number
from b2bench.leaderboard.rows import Tables

from b2bench.text import visible

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST = 1_000_000  # bytes: what a run writes is far smaller


@dataclass(frozen=True)
class Sample:
    """An image as base64 of a PNG, "" where its file is gone, and its score by the trained reward."""

    png: str
    score: str


@dataclass(frozen=True)
class SampleGrid:
    """Rows are prompts fixed before training, columns the pretrained model and each cell, all of one ``seed``.

    None if rows are of several, and say so.
    """

    seed: int | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Sample | None, ...]], ...]

    @property
    def pictures(self) -> bool:
        """Whether any image is there: runs that were imported have their scores alone."""
        return any(image is not None and image.png for _, images in self.rows for image in images)


def sample_grid(group: Tables, samples: Iterable[Mapping[str, Any]], runs: Path) -> SampleGrid | None:
    """Return the grid of a context from rows of ``Store.samples`` and the run folders under ``runs``; None without
    images.

    The seed is the one that most cells have, the smallest of these. A row is of one noise: where cells were evaluated
    with several ``eval_seed``, those of the most frequent are shown.
    """
    found: dict[str, dict[int, dict[str, Mapping[str, Any]]]] = {}
    for row in samples:
        found.setdefault(row["run_id"], {}).setdefault(row["queries"], {}).setdefault(row["prompt"], row)
    of_noise: dict[str, list[tuple[str, dict[int, str]]]] = {}
    for detail in group.details:
        of_seed = {seed: run for seed, run, _, _ in detail.runs if run in found}
        if of_seed:
            name = " ".join(filter(None, (detail.algorithm, detail.wrapper, detail.label)))
            of_noise.setdefault(detail.settings.get("settings.eval_seed", ""), []).append((name, of_seed))
    if not of_noise:
        return None
    cells = max(of_noise.values(), key=len)
    seeds = sorted({seed for _, of_seed in cells for seed in of_seed})
    seed = max(seeds, key=lambda s: (sum(s in of_seed for _, of_seed in cells), -s))
    shown = [(name, of_seed[seed]) for name, of_seed in cells if seed in of_seed]
    columns = [(name, run, found[run][max(found[run])]) for name, run in shown]
    start = next(((run, found[run][0]) for _, run in shown if 0 in found[run]), None)
    if start is not None:
        columns.insert(0, ("pretrained", *start))
    prompts = list(dict.fromkeys(prompt for _, _, images in columns for prompt in images))
    return SampleGrid(
        seed,
        tuple(name for name, _, _ in columns),
        tuple((visible(p), tuple(sample_of(runs, run, images.get(p)) for _, run, images in columns)) for p in prompts),
    )


def sample_of(runs: Path, run: str, row: Mapping[str, Any] | None) -> Sample | None:
    """Return the image that a row of table ``images`` names, in the folder of ``run`` under ``runs``; None for None."""
    if row is None:
        return None
    return Sample(_png(runs, run, str(row["path"])), number(row["score"]))


def _png(runs: Path, run: str, name: str) -> str:
    return base64.b64encode(sample_file(runs, run, name)).decode()


def sample_file(runs: Path, run: str, name: str) -> bytes:
    """Return a PNG of a run's folder. A store from elsewhere may name any run and file: only what is in such a folder
    is read.

    Devices and pipes are none, whatever size they say they have.
    """
    try:
        folder = (runs / run).resolve()
        path = (folder / name).resolve()
        if run in ("", "..") or Path(run).name != run or not path.is_relative_to(folder) or not path.is_file():
            return b""
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError):
        return b""
    return data if data.startswith(PNG) and len(data) <= LARGEST else b""
