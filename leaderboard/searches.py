"""What searches for settings tried and found, as the presets of ``b2bench tune`` tell it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.leaderboard.cells import wrapper_order
from b2bench.leaderboard.columns import algorithm_name, wrapper_name
from b2bench.leaderboard.grid import Cell, Column, Grid, number

from b2bench.errors import UserError
from b2bench.text import visible

Preset = Mapping[str, Any]


def presets_in(folder: Path, version: str) -> list[Preset]:
    """Return the tuned presets of a folder that are of this benchmark version, by name; none if there is no folder.

    Raises:
        UserError: a file is none that ``b2bench tune`` wrote.
    """
    found: list[Preset] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            preset = tomllib.loads(path.read_text(encoding="utf-8"))
            searches([preset])  # whatever is wrong with it is met here, where the file has a name
            if str(preset["tuning"]["benchmark_version"]) == version:
                found.append(preset)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} is not a tuned preset ({type(error).__name__}: {error}); try b2bench tune"
            ) from None
    return found


def searches(presets: Sequence[Preset]) -> Grid:
    """Return a row for each search: what was chosen, against the defaults, and what fewer tries would have given."""
    rows = sorted(map(_Search, presets), key=lambda row: (row.algorithm, wrapper_order(row.wrapper), row.on))
    counts = sorted({int(m) for row in rows for m in row.best_of})
    columns = (
        Column("cell", right=False),
        Column("chosen", right=False),
        Column("tuned"),
        Column("default"),
        Column("tuned \u2212 default"),
        *(Column(f"best of {m}") for m in counts),
        Column("collapsed"),
        Column("below"),
        Column("search", right=False),
        Column("on", right=False),
        Column("reward queries"),
    )
    cells = [
        (
            Cell(f"{algorithm_name(row.algorithm)} {wrapper_name(row.wrapper)}"),
            Cell(row.chosen),
            _score(row.tuning.get("tuned")),
            _score(row.tuning.get("default")),
            _score(row.tuning.get("gain"), sign=True),
            *(_score(row.best_of.get(str(m))) for m in counts),
            *(
                Cell(f"{_whole(row.tuning.get(name))} of {row.configurations}")
                for name in ("collapsed", "below_pretrained")
            ),
            Cell(row.given),
            Cell(row.on),
            Cell(_whole(row.tuning.get("queries"))),
        )
        for row in rows
    ]
    legend = [
        "chosen: the settings that were searched, by the mean reward of the last two rounds of training, on training "
        "prompts; no test prompt had a say",
        "tuned: that mean over the seeds of the search, which also chose it, so it flatters",
        "default: the mean of the defaults, over the seeds that they had there, which may be one",
        "tuned \u2212 default: over the seeds that both had",
        "best of m: what m of these configurations would have given on average, with one seed",
        "collapsed, below: of the configurations, those that collapsed and those that ended below where they began",
        "search: configurations x reward queries of a run, and what named the points",
    ]
    return Grid("searches", "Searches", columns, tuple(cells), tuple(legend))


class _Search:
    """A preset's own account; what it does not say is left open."""

    def __init__(self, preset: Preset) -> None:
        options = preset["options"]
        self.algorithm, self.wrapper = (visible(str(options[name]["value"])) for name in ("algo", "wrapper"))
        self.tuning: Mapping[str, Any] = preset["tuning"]
        self.best_of: Mapping[str, Any] = self.tuning.get("best_of") or {}
        self.configurations = _whole(self.tuning.get("configurations"))
        on = self.tuning.get("on") or {}
        self.on = visible(" ".join(str(on[name]) for name in ("backbone", "reward", "prompts") if name in on))
        sampler = visible(str(self.tuning.get("sampler", "")))
        size = f"{self.configurations} x {_whole(self.tuning.get('queries_a_run'))}"
        self.given = ", ".join(filter(None, (size, sampler.partition(",")[0])))
        self.chosen = ", ".join(self._values(preset, self.tuning.get("space") or {}))

    def _values(self, preset: Preset, space: Iterable[str]) -> Iterable[str]:
        """Return the searched settings with what the preset says of them."""
        sections = {"run": ["set"], "algorithm": ["algorithm", self.algorithm], "wrapper": ["wrapper", self.wrapper]}
        for key in space:
            part, _, name = key.rpartition(".")
            found: Any = preset
            for step in [*sections.get(part, [part]), name]:
                found = found.get(step, {}) if isinstance(found, Mapping) else {}
            if isinstance(found, Mapping) and "value" in found:
                yield visible(f"{name}={found['value']}")


def _score(value: Any, *, sign: bool = False) -> Cell:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return Cell(number(value, 4, sign) if known else "-", sort=value if known else None)


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"
