"""Two runs or two cells side by side: settings, images of the same prompt and noise, and prompts.

The difference is always the second minus the first. Images are paired by prompt and noise, so that what a prompt is
worth drops out. Over three shared seeds or more the unit is the training seed. With fewer, the standard error is over
images: it says how exact the difference of these runs is, and nothing of other seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from b2bench.leaderboard.cells import flat, reward_settings
from b2bench.leaderboard.columns import grid_of
from b2bench.leaderboard.grid import Answer, Cell, Grid, Section, measured, number
from b2bench.leaderboard.grids import SampleGrid, sample_of
from b2bench.leaderboard.stats import ALPHA, MIN_SEEDS, Paired, paired

from b2bench.errors import UserError
from b2bench.metrics import DISTANCE, HELDOUT, IS_STYLE, STYLE_ENTROPY, SUCCESS, label
from b2bench.text import visible

Row = Mapping[str, Any]
Place = tuple[str, int]
"""A prompt, and the number of a noise."""
Difference = tuple[str, float]
"""The prompt of an image, and the difference of its scores."""
SHOWN = 8
"""Prompts of each kind in a table, and rows of samples."""
BESIDE = (HELDOUT, SUCCESS, IS_STYLE, STYLE_ENTROPY, DISTANCE)


@dataclass(frozen=True)
class Taken:
    """A run with its last evaluation, rows of table ``images`` by place and values by metric, and with its first."""

    row: Row
    queries: int
    images: Mapping[Place, Row]
    values: Mapping[str, float]
    before: Mapping[Place, Row] = field(default_factory=dict)
    values_before: Mapping[str, float] = field(default_factory=dict)
    run_of_images: str = ""

    @property
    def noise(self) -> int:
        """The seed of the noise of evaluations."""
        noise = ((self.row["config"] or {}).get("settings") or {}).get("eval_seed")
        return noise if isinstance(noise, int) else int(self.row["seed"])


@dataclass(frozen=True)
class Side:
    """What is compared: a name, and its runs by seed."""

    name: str
    runs: Mapping[int, Taken]


@dataclass(frozen=True)
class PromptDelta:
    """The mean difference of a prompt over its ``n`` pairs of images, and its standard error over these."""

    prompt: str
    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Two sides, ``second`` minus ``first``.

    ``settings`` that differ are (name, first, second). ``delta`` is over seeds, without an interval below three.
    ``images`` pairs of images have the mean difference ``mean`` with the standard error ``error`` over images, and in
    the share ``better`` of them the second has the higher score. ``prompts`` fall by their difference. ``beside`` are
    other metrics: (name, first, second, difference). ``pairs`` are the runs that were paired,
    and ``shared`` the scored images that both of a pair have.
    """

    first: str
    second: str
    metric: str
    settings: tuple[tuple[str, str, str], ...]
    delta: Paired
    images: int
    mean: float
    error: float
    better: float
    prompts: tuple[PromptDelta, ...]
    beside: tuple[tuple[str, Paired, Paired, Paired], ...]
    pairs: tuple[tuple[Taken, Taken], ...]
    shared: tuple[tuple[Place, ...], ...]
    notes: tuple[str, ...] = ()


SAME = {
    "benchmark_version": "benchmark versions",
    "backbone": "backbones",
    "reward": "rewards",
    "prompts_hash": "prompt sets",
}
"""Columns of ``runs`` that must be equal before scores may be compared."""


def compare(first: Side, second: Side) -> Comparison:
    """Compare two sides; runs are paired by seed, or two single runs whatever their seeds.

    Raises:
        UserError: their scores are not of the same thing, no seed is shared, or no image is.
    """
    seeds = sorted(first.runs.keys() & second.runs.keys())
    if len(first.runs) == len(second.runs) == 1:
        pairs = [(next(iter(first.runs.values())), next(iter(second.runs.values())))]
    else:
        pairs = [(first.runs[seed], second.runs[seed]) for seed in seeds]
    if not pairs:
        mine, others = (", ".join(map(str, sorted(side.runs))) for side in (first, second))
        raise UserError(
            f"{first.name} has seeds {mine} and {second.name} has {others}: none is shared; try naming two runs"
        )
    _refuse_unlike(first, second, pairs)
    differences = [_differences(a, b) for a, b in pairs]
    if not all(differences):
        raise UserError(f"{first.name} and {second.name} have no scored test image of the same prompt and noise")
    every = np.array([value for found in differences for value in found.values()])
    images = _by_image(pairs, differences)
    means = [float(np.mean(list(found.values()))) for found in differences]
    settings = tuple(row for row in _settings([(a.row, b.row) for a, b in pairs]) if row[0] != "seed")
    metric = str(pairs[0][0].row["reward"])
    beside = tuple(found for name in BESIDE if name != metric and (found := _beside(name, pairs)) is not None)
    return Comparison(
        first.name,
        second.name,
        metric,
        settings,
        paired(means, [0.0] * len(means)),
        len(every),
        float(np.mean(means)),
        _error(np.array([value for _, value in images])),
        float((every > 0).mean()),
        _prompts(images),
        beside,
        tuple(pairs),
        tuple(map(tuple, differences)),
        tuple(_notes(first, second, pairs)),
    )


def _refuse_unlike(first: Side, second: Side, pairs: Sequence[tuple[Taken, Taken]]) -> None:
    for a, b in pairs:
        unlike = [name for column, name in SAME.items() if a.row[column] != b.row[column]]
        mine, others = (reward_settings((taken.row["config"] or {}).get("reward") or {}) for taken in (a, b))
        if mine != others:
            unlike.append(f"settings of the reward ({mine or 'the usual'}; {others or 'the usual'})")
        if unlike:
            raise UserError(
                f"{first.name} and {second.name} are of different {' and '.join(unlike)}: their scores are not of the "
                "same thing; try two of one context, as b2bench report groups them"
            )
        if a.noise != b.noise:
            raise UserError(
                f"{first.name} and {second.name} were evaluated on different noise (eval_seed {a.noise} and "
                f"{b.noise}): no image has a partner; try runs of one eval_seed"
            )


def _differences(a: Taken, b: Taken) -> dict[Place, float]:
    found = {}
    for place in sorted(a.images.keys() & b.images.keys()):
        scores = a.images[place]["score"], b.images[place]["score"]
        if all(score is not None and math.isfinite(score) for score in scores):
            found[place] = float(scores[1] - scores[0])
    return found


def _by_image(pairs: Sequence[tuple[Taken, Taken]], differences: Sequence[Mapping[Place, float]]) -> list[Difference]:
    """Return prompt and mean difference of each image: seeds that drew the same images are no further evidence."""
    found: dict[tuple[int, Place], list[float]] = defaultdict(list)
    for (a, _), of in zip(pairs, differences, strict=True):
        for place, value in of.items():
            found[a.noise, place].append(value)
    return [(prompt, float(np.mean(values))) for (_, (prompt, _)), values in found.items()]


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _prompts(images: Sequence[Difference]) -> tuple[PromptDelta, ...]:
    of_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt, value in images:
        of_prompt[prompt].append(value)
    rows = [
        PromptDelta(visible(prompt), float(np.mean(values)), _error(np.array(values)), len(values))
        for prompt, values in of_prompt.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.mean, row.prompt)))


def _settings(pairs: Sequence[tuple[Row, Row]]) -> list[tuple[str, str, str]]:
    """Return the settings in which any pair of runs differs: all values of each side, each once, in order of seeds."""
    by_pair = [{key: (one, other) for key, one, other in _of_pair(a, b)} for a, b in pairs]
    found = []
    for key in dict.fromkeys(key for values in by_pair for key in values):
        both = [values.get(key, ("unset", "unset")) for values in by_pair]
        if any(one != other for one, other in both):
            mine, others = (", ".join(dict.fromkeys(side)) for side in zip(*both, strict=True))
            found.append((key, mine, others))
    return found


def _of_pair(a: Row, b: Row) -> list[tuple[str, str, str]]:
    one, other = flat(a["config"] or {}), flat(b["config"] or {})
    found = [(key, one.get(key, "unset"), other.get(key, "unset")) for key in sorted(one.keys() | other.keys())]
    for key in ("budget", "commit", "device", "threads"):
        found.append((key, visible(str(a.get(key))), visible(str(b.get(key)))))
    mine, others = (row.get("versions") or {} for row in (a, b))
    for key in sorted({*mine, *others}):
        found.append((f"version of {key}", visible(str(mine.get(key))), visible(str(others.get(key)))))
    return found


def _beside(metric: str, pairs: Sequence[tuple[Taken, Taken]]) -> tuple[str, Paired, Paired, Paired] | None:
    if any(len(a.images) != len(b.images) for a, b in pairs if a.values and b.values):
        return None  # diversity and inception scores depend on how many images there are
    values = [[taken.values.get(metric, math.nan) for taken in side] for side in zip(*pairs, strict=True)]
    if not all(math.isfinite(value) for side in values for value in side):
        return None
    nothing = [0.0] * len(pairs)
    return label(metric), paired(values[0], nothing), paired(values[1], nothing), paired(values[1], values[0])


def _notes(first: Side, second: Side, pairs: Sequence[tuple[Taken, Taken]]) -> list[str]:
    notes = []
    if len(pairs) < MIN_SEEDS:
        notes.append(
            f"{len(pairs)} pair{'s' * (len(pairs) > 1)} of runs: the standard error is over images, and says nothing "
            f"of other training seeds; {MIN_SEEDS} shared seeds give an interval"
        )
    if any(a.row["seed"] != b.row["seed"] for a, b in pairs):
        notes.append("the two runs have different training seeds, so that their difference is also that of seeds")
    if len({taken.queries for pair in pairs for taken in pair if taken.queries}) > 1:  # 0: the pretrained model
        notes.append("the last evaluations are at different numbers of reward queries")
    if unlike := [(len(a.images), len(b.images)) for a, b in pairs if len(a.images) != len(b.images)]:
        notes.append(
            f"the last evaluations have {unlike[0][0]:,} and {unlike[0][1]:,} images: scores are of those that both "
            "have, and metrics of all images are left out"
        )
    for side in (first, second):
        left = sorted(set(side.runs) - {taken.row["seed"] for pair in pairs for taken in pair})
        if left:
            notes.append(f"{side.name}: seeds {', '.join(map(str, left))} have no partner and are left out")
        if failed := sum(taken.row["status"] == "failed" for taken in side.runs.values() if taken.queries):
            notes.append(f"{side.name}: {failed} failed, compared at the last evaluation")
    return notes


# -- shown ------------------------------------------------------------------------------------------------


def section(found: Comparison) -> Section:
    """Return a comparison as titled tables, with a sentence above them."""
    counts = {taken.queries for pair in found.pairs for taken in pair}
    sides = zip(*found.pairs, strict=True)
    facts = (
        f"reward {found.metric}",
        f"{len(found.pairs)} pair{'s' * (len(found.pairs) != 1)} of runs, {found.images:,} pairs of test images",
        f"at {' and '.join(f'{queries:,}' for queries in sorted(counts))} reward queries",
        *(f"{name}: {_runs(runs)}" for name, runs in zip((found.first, found.second), sides, strict=True)),
    )
    gained = [row for row in found.prompts if row.mean > 0][:SHOWN]
    lost = [row for row in found.prompts[::-1] if row.mean < 0][:SHOWN]
    grids = (
        _metrics(found),
        _prompt_grid("gained", f"Prompts on which {found.second} gained most", gained, len(found.prompts)),
        _prompt_grid("lost", f"Prompts on which {found.second} lost most", lost, len(found.prompts)),
        _settings_grid(found),
    )
    title = f"{found.second} against {found.first}"
    return Section(title, facts, found.notes, grids, (), (verdict(found),))


def _runs(runs: Sequence[Taken]) -> str:
    names = [visible(str(taken.row["name"] or taken.row["run_id"])) for taken in runs]
    return ", ".join(names) if len(names) < 3 else f"{len(names)} runs"


def verdict(found: Comparison) -> Answer:
    """Say which side is better, if that can be said."""
    delta = found.delta
    share = f"the higher score on {found.better:.0%} of {found.images:,} images"
    if delta.low is not None and delta.high is not None and delta.p is not None:
        text = (
            f"{found.second} − {found.first} = {number(delta.mean, sign=True)} [{number(delta.low, sign=True)}, "
            f"{number(delta.high, sign=True)}] over {delta.n} seeds (p = {delta.p:.2g}), {delta.wins}/{delta.n} seeds "
            f"better, {share}"
        )
        told = delta.p < ALPHA
    else:
        text = (
            f"{found.second} − {found.first} = {number(found.mean, sign=True)}, standard error {number(found.error)} "
            f"over images of these runs, {share}"
        )
        told = False
    kind = "inconclusive" if not told else "gain" if found.mean > 0 else "loss"
    about = {"gain": "Better", "loss": "Worse"}.get(kind, "Not told apart" if delta.low is not None else "These runs")
    return Answer(about, text, kind if delta.low is not None else "untested")


def _metrics(found: Comparison) -> Grid:
    scores = [
        [
            float(np.mean([taken.images[place]["score"] for place in of]))
            for taken, of in zip(side, found.shared, strict=True)
        ]
        for side in zip(*found.pairs, strict=True)
    ]
    nothing = [0.0] * len(found.pairs)
    rows = [
        (label(found.metric), paired(scores[0], nothing), paired(scores[1], nothing), found.delta),
        *found.beside,
    ]
    columns: list[tuple[str, Any]] = [
        ("metric", lambda row: Cell(row[0])),
        (found.first, lambda row: measured(row[1])),
        (found.second, lambda row: measured(row[2])),
        ("difference", lambda row: measured(row[3], sign=True)),
    ]
    legend = ["on test prompts, at the last evaluation"]
    if found.delta.low is not None:
        legend.append("± is half the 95% t-interval over seeds; but for the first line exploratory")
    return grid_of("compare", "Scores", columns, rows, legend)


def _prompt_grid(key: str, title: str, rows: Sequence[PromptDelta], of: int) -> Grid:
    columns: list[tuple[str, Any]] = [
        ("prompt", lambda row: Cell(row.prompt)),
        (
            "difference",
            lambda row: Cell(number(row.mean, sign=True), sort=row.mean, kind="gain" if row.mean > 0 else "loss"),
        ),
        ("standard error", lambda row: Cell(number(row.error), sort=row.error)),
        ("images", lambda row: Cell(str(row.n), sort=row.n)),
    ]
    legend = [f"the extremes of {of} prompts, of which some are luck: compare with the standard error, over images"]
    return grid_of(key, title, columns, rows, legend if rows else ["none"])


def _settings_grid(found: Comparison) -> Grid:
    columns: list[tuple[str, Any]] = [
        ("setting", lambda row: Cell(row[0])),
        (f"{found.first} ", lambda row: Cell(row[1])),
        (f"{found.second} ", lambda row: Cell(row[2])),
    ]
    return grid_of("differences", "Settings that differ", columns, found.settings, () if found.settings else ["none"])


def samples(found: Comparison, runs: Path) -> SampleGrid | None:
    """Return images of both sides from the same noise, those with the largest differences first; None without any."""
    shots = []
    for a, b in found.pairs:
        for place in sorted(a.images.keys() & b.images.keys()):
            one, other = a.images[place], b.images[place]
            if one["path"] and other["path"] and one["score"] is not None and other["score"] is not None:
                shots.append((other["score"] - one["score"], a, b, place))
    shots.sort(key=lambda shot: (-abs(shot[0]), shot[3]))
    if not shots:
        return None
    rows = []
    for difference, a, b, place in shots[: 2 * SHOWN]:
        before = (b.before or a.before).get(place)
        run = (b if b.before else a).run_of_images
        shown = (
            sample_of(runs, run, before if before and before["path"] else None),
            sample_of(runs, a.run_of_images, a.images[place]),
            sample_of(runs, b.run_of_images, b.images[place]),
        )
        seeds = f", seed {a.row['seed']}" if len(found.pairs) > 1 else ""
        rows.append((f"{visible(place[0])} ({number(difference, sign=True)}{seeds})", shown))
    seed = int(shots[0][2].row["seed"]) if len(found.pairs) == 1 else None
    return SampleGrid(seed, ("pretrained", found.first, found.second), tuple(rows))
