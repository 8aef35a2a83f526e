"""Runs and cells: the values of a run, and the runs of one config hash, one per seed."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from b2bench.leaderboard.collapse import COLLAPSE
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.stats import area_under_curve

from b2bench.text import visible

WRAPPERS = ("vanilla", "bpt", "bs", "b2")
CONTROLS = ("spread", "random2", "forward", "window", "noise_weighted", "tree")
"""Wrappers that stand in for a part of one of the four: they have no rank, and stand below the others."""
REFERENCES = ("draft1",)
"""Algorithms that follow the reward's gradient: what there is to be had, outside of ranks, claims and targets."""
TUNED = "tuned"
"""What names have of cells whose settings ``b2bench tune`` chose."""
OUTSIDE_OF_PLAN = "outside of the plan"
"""What names have of cells with the settings of one of the plan's, whose runs are not the plan's."""
PAIRED = ("diffusion_dpo", "dpo", "raft")
"""Algorithms that learn from the best and worst of each group, whatever a wrapper selects."""
NO_SETTING = (
    "seed",
    "found",
    "preset",
    "tuning",
    "settings.micro_batch",
    "settings.train_micro_batch",
    "settings.decode_micro_batch",
    "settings.gradient_checkpointing",
    "settings.guidance_split",
    "settings.attention",
    "settings.reward_device",
    "settings.reward_process",
    "settings.sample_images",
    "settings.kl_images",
    "settings.inception_weights",
)
"""Keys of a configuration that its hash leaves out: they tell no cell from another."""
WHEN = "settings.eval_points"
"""How often scores were looked at, which says little of a cell: the presets of ``b2bench tune`` have another number."""
ABSENT = {
    "settings.advantage": "history",
    "settings.timestep_fraction": "1.0",
    "settings.reward_noise": "0.0",
    "settings.updates_per_round": "null",
    "wrapper.schedule_rounds": "null",
    "algorithm.clip_nats": "null",
    "algorithm.kl_weight": "0.0",
    "algorithm.guided": "false",
}
"""What a setting was before there was one, as text: the hash of a run that lacks it is that of one that says so."""
OF_ONE = {"algorithm.kl_weight": "ddpo", "algorithm.guided": "rwr"}
"""The algorithm of which alone :data:`ABSENT` holds for a setting: others may have one of this name."""
SAMPLING = ("steps", "guidance", "eta")
"""Settings that change every image, and with it every number of an evaluation"""
Row = Mapping[str, Any]
Drawn = tuple[int, str]
"""How the images of an evaluation are drawn and scored: the seed of their noise, and all else as JSON"""


@dataclass(frozen=True)
class Search:
    """How ``b2bench tune`` chose the settings of a cell.

    ``protocol`` is equal for searches that are alike: sampler, configurations, and reward queries of a run; ``given``
    says it in short. ``on`` is the prompt set, "" where the preset does not say, and ``searched`` are the settings that
    were chosen.
    """

    protocol: str
    given: tuple[str, str]
    on: str
    searched: frozenset[str]


def search_of(preset: Mapping[str, Any]) -> Search:
    """Return what a tuned preset says of its search, as a run has it."""
    by, on, names = preset.get("tuned_by"), preset.get("tuned_on"), preset.get("searched")
    told = by if isinstance(by, Mapping) else {}
    counts = [told.get(name) for name in ("configurations", "queries_a_run")]
    size = " x ".join(f"{value:,}" for value in counts if isinstance(value, int))
    searched = [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else []
    return Search(
        json.dumps(by, sort_keys=True, default=str),
        (size, visible(str(told.get("sampler") or ""))),
        visible(str(on)) if on else "",
        frozenset(name.replace("run.", "settings.", 1) for name in searched),
    )


@dataclass(frozen=True)
class Run:
    """A run and its values on the test split, and on training prompts: queries -> metric -> value, NaN for null."""

    row: Row
    values: dict[int, dict[str, float]]
    calls: int | None
    queries: int
    seen: dict[int, dict[str, float]] = field(default_factory=dict)
    calls_at: dict[int, int] = field(default_factory=dict)
    equivalents: int | None = None
    equivalents_at: dict[int, int] = field(default_factory=dict)
    optimizer_steps: int | None = None

    @property
    def failed(self) -> bool:
        return bool(self.row["status"] == "failed")

    @property
    def preset(self) -> Mapping[str, Any]:
        """What its configuration says of the preset that it was started with; others may have written it."""
        found = (self.row["config"] or {}).get("preset")
        return found if isinstance(found, Mapping) else {}

    @property
    def tuned(self) -> bool:
        """Whether ``b2bench tune`` chose its settings: its preset names the seeds of a search, and nothing that tells
        cells apart was set otherwise. Another prompt set or another evaluation does not.
        """
        deviations = self._deviations
        if deviations is None:
            return False
        return bool(self.preset.get("tuning_seeds")) and not any(_tells(name) for name in deviations)

    @property
    def planned(self) -> bool:
        """Whether it is one of the plan's tuned runs (:meth:`b2bench.leaderboard.plan.Plan.holds`)."""
        told = [name for name in self._deviations or () if _setting(name) not in NO_SETTING]
        return self.tuned and PLAN.holds(self.row, self.preset, told)

    @property
    def _deviations(self) -> list[str] | None:
        """Names of the settings in which it differs from its preset; None if that cannot be read."""
        found = self.preset.get("deviations") or []
        if not isinstance(found, Sequence):
            return None
        return [str(one.get("name")) if isinstance(one, Mapping) else "" for one in found]

    @property
    def search(self) -> Search | None:
        """How ``b2bench tune`` chose its settings; None if it did not."""
        return search_of(self.preset) if self.tuned else None

    @property
    def noise(self) -> int:
        """What the evaluation's noise is of: ``eval_seed``, equal for all seeds; before there was one, the seed."""
        noise = ((self.row["config"] or {}).get("settings") or {}).get("eval_seed")
        return noise if isinstance(noise, int) else int(self.row["seed"])

    @property
    def drawn(self) -> Drawn:
        """How its images are drawn and scored: only numbers of the same way are compared."""
        config = self.row["config"] or {}
        settings = config.get("settings") or {}
        how = [{name: settings.get(name) for name in SAMPLING}, config.get("reward")]
        return self.noise, json.dumps(how, sort_keys=True, default=str)

    @property
    def way(self) -> tuple[str, str]:
        """As :attr:`drawn`, where noise that was the run's own is the same way for every seed."""
        given = isinstance(((self.row["config"] or {}).get("settings") or {}).get("eval_seed"), int)
        return str(self.noise) if given else "own", self.drawn[1]

    @property
    def last(self) -> int:
        return max(self.values, default=0)

    def start(self, metric: str) -> float:
        return self.values.get(0, {}).get(metric, math.nan)

    def final(self, metric: str, *, seen: bool = False) -> float:
        """Return the value at the last evaluation; of a failed run, the last finite one.

        ``seen``: of training prompts.
        """
        values = self.seen if seen else self.values
        if not self.failed:
            return values.get(max(values, default=0), {}).get(metric, math.nan)
        history = [at[metric] for _, at in sorted(values.items()) if math.isfinite(at.get(metric, math.nan))]
        return history[-1] if history else math.nan

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """Return queries and values of every evaluation."""
        return list(self.values), [at.get(metric, math.nan) for at in self.values.values()]

    def where(self, metric: str, queries: float) -> float:
        """Return the value at so many queries, straight between evaluations; of a failed run, between finite ones."""
        points = sorted(zip(*self.curve(metric), strict=True))
        if self.failed:
            points = [point for point in points if math.isfinite(point[1])]
        at, values = [queries for queries, _ in points], [value for _, value in points]
        return float(np.interp(queries, at, values)) if points else math.nan


@dataclass(frozen=True)
class Cell:
    """Finished runs of one config hash, one per seed. ``limit`` is how far a run falls that collapses.

    ``searches`` are those of ``b2bench tune`` that chose its settings, by any of its runs, repeated ones too;
    ``untuned``: somebody else chose them as well, as a search may choose the defaults. ``planned``: it has runs of the
    plan alone, no other cell has one, and neither its seeds nor those of the other three wrappers lack any.
    """

    algorithm: str
    wrapper: str
    config_hash: str
    config: dict[str, str]
    runs: dict[int, Run]
    label: str = ""
    pretrained: Mapping[Drawn, Mapping[str, float]] = field(default_factory=dict)
    limit: float | None = COLLAPSE
    searches: tuple[Search, ...] = ()
    untuned: bool = True
    planned: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.runs))

    @property
    def ways(self) -> frozenset[tuple[str, str]]:
        """In which ways its runs were evaluated."""
        return frozenset(run.way for run in self.runs.values())

    @property
    def control(self) -> bool:
        return self.wrapper in CONTROLS or self.upper_reference

    @property
    def upper_reference(self) -> bool:
        return self.algorithm in REFERENCES

    @property
    def tuned(self) -> bool:
        """Whether ``b2bench tune`` chose the settings: by one run's preset, for all runs of a cell have the same."""
        return bool(self.searches)

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.runs.values())

    def start(self, metric: str, seeds: Iterable[int]) -> list[float]:
        """Return the pretrained model's value per seed: the run's own, or another run's of images drawn alike."""
        values = []
        for seed in seeds:
            run = self.runs[seed]
            own = run.start(metric)
            values.append(own if math.isfinite(own) else self.pretrained.get(run.drawn, {}).get(metric, math.nan))
        return values

    def final(self, metric: str, seeds: Iterable[int]) -> list[float]:
        """Return the value that counts per seed; a run that failed before any evaluation has the pretrained one."""
        values = []
        for seed in seeds:
            run = self.runs[seed]
            value = run.final(metric)
            if run.failed and not math.isfinite(value):
                (value,) = self.start(metric, [seed])
            values.append(value)
        return values

    def area(self, metric: str, seeds: Iterable[int], budget: int | None) -> list[float]:
        """Return the mean of the curve over the budget per seed; what a failed run had last holds to the end."""
        values = []
        for seed in seeds:
            run = self.runs[seed]
            (start,) = self.start(metric, [seed])
            at = {0: start} | {q: v for q, v in zip(*run.curve(metric), strict=True) if q > 0}
            if run.failed:
                at = {queries: value for queries, value in at.items() if math.isfinite(value)}
            values.append(area_under_curve(list(at), list(at.values()), budget or 0))
        return values


def _tells(name: str) -> bool:
    """Whether a deviation from a preset makes its settings another choice."""
    return (
        name not in ("queries", "prompts")
        and not last_name(name).startswith(("eval_", "inception"))
        and _setting(name) not in NO_SETTING
    )


def _setting(name: str) -> str:
    """Return the key in a configuration of what a deviation names."""
    return name.replace("run.", "settings.", 1)


def cumulative(spent: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return what was spent up to each round's end, by its reward queries."""
    total, found = 0, {0: 0}
    for queries, calls in sorted(spent):
        total += calls
        found[queries] = total
    return found


def names_of(row: Row) -> tuple[str, str]:
    return visible(row["algorithm"] or "-"), visible(row["wrapper"] or "-")


def cells_of(runs: Sequence[Run], pretrained: Mapping[Drawn, Mapping[str, float]]) -> list[Cell]:
    """Cells in order of name, labelled where an algorithm and a wrapper have several."""
    chosen: dict[tuple[str, str, str, bool], dict[int, Run]] = defaultdict(dict)
    searches: dict[tuple[str, str, str, bool], list[Search | None]] = defaultdict(list)
    whole = _whole(runs)
    # identical reruns count once: the latest that was done, or else the latest that failed
    for run in sorted(runs, key=lambda run: (not run.failed, _ended(run))):
        planned, seed = run.planned and run.row["algorithm"] in whole, run.row["seed"]
        key = (*names_of(run.row), run.row["config_hash"], planned)
        known = chosen[key].get(seed)
        # of the plan's the first that was done: none is run again for its result
        if not planned or known is None or known.failed:
            chosen[key][seed] = run
        searches[key].append(run.search)
    cells = _completed(
        [
            Cell(
                *key[:3],
                flat(next(iter(members.values())).row["config"] or {}),
                members,
                pretrained=pretrained,
                searches=tuple(dict.fromkeys(search for search in searches[key] if search is not None)),
                untuned=None in searches[key],
                planned=key[3],
            )
            for key, members in chosen.items()
        ]
    )
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.algorithm, cell.wrapper].append(cell)
    most = usual(cells)
    return [
        replace(cell, label=label)
        for name in sorted(groups, key=lambda name: (name[0], wrapper_order(name[1])))
        for cell, label in zip(groups[name], _named(groups[name], most.get(name[0], {})), strict=True)
    ]


def _whole(runs: Iterable[Run]) -> set[str]:
    """Return the algorithms whose four cells of the plan have all of their seeds."""
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for run in runs:
        if run.planned:
            seeds[names_of(run.row)].add(run.row["seed"])
    return {name for name, _ in seeds if all(PLAN.has_all(seeds.get((name, wrapper), ())) for wrapper in WRAPPERS)}


def _ended(run: Run) -> str:
    return str(run.row["finished"] or "")


def _named(cells: Sequence[Cell], most: Mapping[str, str]) -> list[str]:
    """Return what tells the cells of one algorithm and wrapper apart: their settings, and who chose these."""
    configs = {cell.config_hash: cell.config for cell in cells}
    told = dict(zip(configs, labels([*configs.values()], [*configs], most), strict=True))
    plans = {cell.config_hash for cell in cells if cell.planned}

    def parts(cell: Cell) -> tuple[str, ...]:
        tuned = cell.tuned and not cell.untuned
        outside = tuned and not cell.planned and cell.config_hash in plans
        return TUNED * tuned, OUTSIDE_OF_PLAN * outside, told[cell.config_hash]

    return [" ".join(filter(None, parts(cell))) for cell in cells]


def usual_ways(cells: Iterable[Cell]) -> frozenset[tuple[str, str]]:
    """Return the ways of evaluation that most runs have: scores of another test set are no neighbours of theirs."""
    runs: Counter[frozenset[tuple[str, str]]] = Counter()
    for cell in cells:
        runs[cell.ways] += len(cell.runs)
    return max(runs, key=lambda ways: (runs[ways], sorted(ways)), default=frozenset())


def _completed(cells: Sequence[Cell]) -> list[Cell]:
    """Give cells of older runs the settings that others of their algorithm (and wrapper) have and they lack."""
    known: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        for key in cell.config:
            known[f"{cell.algorithm} {cell.wrapper}" if of_wrapper(key) else cell.algorithm].add(key)

    def lacks(cell: Cell, key: str) -> bool:
        if key in cell.config or cell.algorithm != OF_ONE.get(key, cell.algorithm):
            return False
        return key in known[f"{cell.algorithm} {cell.wrapper}" if of_wrapper(key) else cell.algorithm]

    return [
        replace(cell, config={**cell.config, **{key: value for key, value in ABSENT.items() if lacks(cell, key)}})
        for cell in cells
    ]


def usual(cells: Iterable[Cell]) -> dict[str, dict[str, str]]:
    """Return, per algorithm, the values that more than half of its runs have: names need not tell them.

    By number of runs, so that the name of a cell is no choice by result; with as many runs each, all are named. Tuned
    cells are named so, and have no say where there are others.
    """
    found: dict[str, dict[str, str]] = {}
    for algorithm, every in _by_algorithm(cells).items():
        members = [cell for cell in every if cell.untuned] or every
        runs: Counter[tuple[str, str]] = Counter()
        for cell in members:
            runs.update(dict.fromkeys(cell.config.items(), len(cell.runs)))
        total = sum(len(cell.runs) for cell in members)
        found[algorithm] = {key: value for (key, value), count in runs.items() if 2 * count > total}
    return found


def wrapper_order(wrapper: str) -> tuple[int, str]:
    if wrapper in CONTROLS:
        return len(WRAPPERS) + 1 + CONTROLS.index(wrapper), wrapper
    return (WRAPPERS.index(wrapper) if wrapper in WRAPPERS else len(WRAPPERS), wrapper)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, of the settings that tell cells apart."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NO_SETTING:
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[visible(name)] = visible(value) if isinstance(value, str) else json.dumps(value, default=str)
    return found


def untold(cells: Iterable[Cell]) -> dict[str, str]:
    """Return, per algorithm some of whose cells have settings beside their names, what the others have there."""
    found = {}
    for algorithm, members in _by_algorithm(cells).items():
        most = usual(members)[algorithm]
        told = [key for key in sorted(most) if _tells_apart(key, members)]
        if not any(f"{last_name(WHEN)}=" in cell.label for cell in members):
            told = [key for key in told if key != WHEN]
        if told:
            found[algorithm] = " ".join(f"{last_name(key)}={most[key]}" for key in told)
    return found


def _by_algorithm(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    algorithms: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    return algorithms


def _tells_apart(key: str, cells: Iterable[Cell]) -> bool:
    """Whether two cells that have it differ in it; the wrapper and what it alone has are told by its own name."""
    values = {cell.config[key] for cell in cells if key in cell.config}
    return not of_wrapper(key) and len(values) > 1


def of_wrapper(key: str) -> bool:
    return key == "wrapper" or key.startswith(("wrapper.", "wrapper_"))


def labels(
    configs: Sequence[Mapping[str, str]], fallback: Sequence[str], most: Mapping[str, str] | None = None
) -> list[str]:
    """Return what tells each configuration from the others, "lr=0.001 steps=48"; nothing for a single one.

    A setting goes by its last name, as ``--set`` takes it, unless two that are told have the same. ``most`` are values
    (:func:`usual`) that are not told. :data:`WHEN` is told only where nothing else tells two apart.
    """
    if len(configs) < 2:
        return [""] * len(configs)
    keys = sorted({key for config in configs for key in config})
    differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    rest = [key for key in differing if key != WHEN]
    if _kinds(configs, rest) == _kinds(configs, differing):
        differing = rest
    if not differing:  # the hash knows a difference that the configuration doesn't tell
        return [text[:8] for text in fallback]
    shared = Counter(last_name(key) for key in differing)
    names = {key: last_name(key) if shared[last_name(key)] == 1 else key for key in differing}
    return [
        " ".join(
            f"{names[key]}={config.get(key, 'unset')}"
            for key in differing
            if key not in config or config[key] != (most or {}).get(key)
        )
        for config in configs
    ]


def _kinds(configs: Sequence[Mapping[str, str]], keys: Sequence[str]) -> int:
    """How many of the configurations these settings tell apart."""
    return len({tuple(config.get(key) for key in keys) for config in configs})


def last_name(key: str) -> str:
    """Return the name by which ``--set`` takes a setting."""
    return key.rpartition(".")[2]


_OTHER_QUANTITY = {
    "checkpoint": ("pocket", "paper", "published"),
    "goal": ("compressibility",),
    "rewards": (),
    "code": (),
}
"""Settings of rewards that say what is measured, and their values that need no mention."""


def reward_settings(config: Row) -> str:
    """Return what makes scores another quantity than those of the same reward by default: checkpoint, goal, the
    formula of a mix, a plugin's code.
    """
    found = {
        name: config[name] for name, usual in _OTHER_QUANTITY.items() if config.get(name) and config[name] not in usual
    }
    return visible(" ".join(f"{name}={value}" for name, value in found.items()))
