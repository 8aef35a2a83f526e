"""The tables of a report, as plain rows, from the rows of a store.

A context is what must be equal before two numbers may stand side by side: benchmark version, backbone,
reward, prompts and budget. Each context has its own tables. Within it a cell is a config hash, which
leaves out the seed; the replicate is the seed. What counts for a run is its last evaluation, never its
best; a failed run counts with the last value it had, or the pretrained one, and is flagged.

Baselines are not trained and have no budget: they stand beside every context that they fit, set apart, and in
one without a budget where they fit none.

Whatever shows a part of a table, filters its rows and not the runs: the Holm family is the whole table.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from b2bench.leaderboard.evaluations import comparable
from b2bench.leaderboard.headroom import HELDOUT, HeadroomRow, fits, headroom, is_baseline, missing_oracle, oracle_of
from b2bench.leaderboard.headroom import rows as headroom_rows
from b2bench.leaderboard.stats import (
    Effects,
    Estimate,
    Paired,
    area_under_curve,
    detectable,
    equivalent,
    estimate,
    factorial,
    holm,
    over_optimised,
    paired,
    queries_to_target,
    rank_ranges,
)

from b2bench.text import visible

WRAPPERS = ("vanilla", "bpt", "bs", "b2")
INCEPTION = ("is_style", "is_subject", "is_clip", "is_inception", "inception_score")
DIVERSITY = ("style_entropy", "pairwise_distance")
ALPHA = 0.05
FINISHED = ("done", "failed")
NO_SETTING = (
    "seed",
    "found",
    "preset",
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

_REFUSED_IN = ("benchmark_version", "backbone", "reward", "prompts_hash", "budget")
"""What a refusal and a context have in common; of the same prompts under another name, too."""

Row = Mapping[str, Any]
Verdict = Literal[
    "gain", "equivalent", "inconclusive", "loss", "untested", "failed", "incomplete", "not run", "refused"
]
MARGIN = 0.01
"""Differences of alignment that are shown to be smaller count as none."""


@dataclass(frozen=True)
class Context:
    """What is equal for all runs of a group of tables; ``budget`` in reward queries.

    ``reward_settings`` is empty for a built-in reward with the backbone's own checkpoint.
    """

    benchmark_version: str
    backbone: str
    reward: str
    prompts: str
    prompts_hash: str
    budget: int | None
    reward_settings: str = ""


@dataclass(frozen=True)
class Head:
    """What stands above the tables of a context. ``notes`` say what limits the comparison.

    ``target`` is the alignment that queries are counted to: half of the largest mean gain above the pretrained model.
    ``matched`` is the largest alignment that all cells reached on average that gained at least a quarter of the
    largest gain; at it diversity is compared. ``images`` are those of a run's first and last evaluation, ``between``
    those of the others where they are fewer. ``eval_seeds`` say of which noise all runs' evaluations are; empty where
    each seed had its own, before there was ``eval_seed``. ``error`` is the test set's standard error, from the spread
    of scores over its images, a mean over runs. ``margin``: smaller differences of alignment count as none.
    """

    context: Context
    seeds: tuple[int, ...]
    images: tuple[int, ...]
    inception: tuple[str, ...]
    notes: tuple[str, ...]
    target: float | None = None
    matched: float | None = None
    margin: float = MARGIN
    error: float | None = None
    between: tuple[int, ...] = ()
    eval_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class LeaderboardRow:
    """A cell's test-split numbers at the end of training; the reference row is the pretrained model.

    ``gain`` is against the pretrained model on the same images; ``headroom`` is (alignment - pretrained) / (oracle -
    pretrained), None where the oracle was not measured (``b2bench baseline``). ``failed`` counts failed runs among
    ``seeds``; ``lacking`` are the seeds that it should have and has not. ``queries`` is per run where its numbers
    were taken, ``denoiser_calls`` per run (sampling and training); both are means over seeds.

    ``ranks`` are those that the cell may have among all with these seeds; ``area`` is the mean alignment over the
    budget; ``to_target`` the reward queries at which a run first had ``Head.target``, or the budget for one of those
    that never had, which all but ``reached`` are: then it is a lower bound. A cell is
    ``over_optimised`` where the trained reward rose and the held-out score fell, as ``stats.over_optimised`` says.
    """

    algorithm: str
    wrapper: str
    label: str
    config_hash: str
    alignment: Estimate
    gain: Paired | None
    headroom: Estimate | None
    heldout: Estimate
    heldout_gain: Paired | None
    success: Estimate
    inception: dict[str, Estimate]
    diversity: dict[str, Estimate]
    seeds: tuple[int, ...]
    failed: int
    queries: float | None
    denoiser_calls: float | None
    reference: bool = False
    ranks: tuple[int, int] | None = None
    area: Estimate | None = None
    to_target: Estimate | None = None
    reached: int = 0
    over_optimised: bool = False
    lacking: tuple[int, ...] = ()


@dataclass(frozen=True)
class GeneralisationRow:
    """Alignment gained on training prompts and on unseen ones, and the second minus the first, paired by seed."""

    algorithm: str
    wrapper: str
    label: str
    seen: Paired
    unseen: Paired
    gap: Paired


@dataclass(frozen=True)
class DiversityRow:
    """What a cell's training did to each measure of diversity, by its name.

    ``change`` is against the pretrained model at the end; ``matched`` the value where the run's alignment first reached
    ``Head.matched``, straight between evaluations, so that cells are compared at the same alignment.
    """

    algorithm: str
    wrapper: str
    label: str
    alignment_gain: Paired
    change: dict[str, Paired]
    matched: dict[str, Estimate]


@dataclass(frozen=True)
class Curve:
    """A run's evaluations on test prompts, in order: reward queries, denoiser calls (nan: unknown), values."""

    algorithm: str
    wrapper: str
    label: str
    seed: int
    queries: tuple[int, ...]
    calls: tuple[float, ...]
    values: dict[str, tuple[float, ...]]
    failed: bool


@dataclass(frozen=True)
class Detail:
    """What a cell is made of: settings that are not every cell's, runs as (seed, run id, status, error), versions."""

    algorithm: str
    wrapper: str
    label: str
    settings: dict[str, str]
    runs: tuple[tuple[int, str, str, str], ...]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class AblationRow:
    """Factorial effects of BPT and BS on an algorithm's alignment; ``missing`` says why there are none."""

    algorithm: str
    label: str
    effects: Effects | None
    seeds: tuple[int, ...]
    failed: int
    missing: str


@dataclass(frozen=True)
class CompatibilityCell:
    """One wrapper under an algorithm: the verdict on its alignment against ``baseline``, paired by seed.

    ``detectable``: the smallest difference that these seeds would have shown; see :mod:`b2bench.leaderboard.stats`.
    """

    wrapper: str
    verdict: Verdict
    delta: Paired | None
    baseline: str
    failed: int
    detectable: float | None = None
    reason: str = ""  # why the two refuse each other


@dataclass(frozen=True)
class CompatibilityRow:
    """An algorithm's cells, in the order of the table's wrappers."""

    algorithm: str
    label: str
    cells: tuple[CompatibilityCell, ...]


@dataclass(frozen=True)
class Incomplete:
    """A run that is listed and not averaged."""

    run_id: str
    algorithm: str
    wrapper: str
    seed: int
    status: str
    queries: int
    written: str = ""  # UTC: long ago, and nobody writes it any more


@dataclass(frozen=True)
class Tables:
    """All tables of one context. ``oracle`` is the command that gives a headroom which is None; else empty."""

    head: Head
    leaderboard: tuple[LeaderboardRow, ...]
    headroom: tuple[HeadroomRow, ...]
    oracle: str
    ablation: tuple[AblationRow, ...]
    compatibility: tuple[CompatibilityRow, ...]
    incomplete: tuple[Incomplete, ...]
    generalisation: tuple[GeneralisationRow, ...] = ()
    diversity: tuple[DiversityRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True)
class _Run:
    """A run and its values on the test split, and on training prompts: queries -> metric -> value, NaN for null."""

    row: Row
    values: dict[int, dict[str, float]]
    calls: int | None
    queries: int
    seen: dict[int, dict[str, float]] = field(default_factory=dict)
    calls_at: dict[int, int] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.row["status"] == "failed")

    @property
    def noise(self) -> int:
        """What the evaluation's noise is of: ``eval_seed``, equal for all seeds; before there was one, the seed."""
        noise = ((self.row["config"] or {}).get("settings") or {}).get("eval_seed")
        return noise if isinstance(noise, int) else int(self.row["seed"])

    @property
    def last(self) -> int:
        return max(self.values, default=0)

    def start(self, metric: str) -> float:
        return self.values.get(0, {}).get(metric, math.nan)

    def final(self, metric: str, *, seen: bool = False) -> float:
        """The value at the last evaluation; of a failed run, the last finite one. ``seen``: of training prompts."""
        values = self.seen if seen else self.values
        if not self.failed:
            return values.get(max(values, default=0), {}).get(metric, math.nan)
        history = [at[metric] for _, at in sorted(values.items()) if math.isfinite(at.get(metric, math.nan))]
        return history[-1] if history else math.nan

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """Queries and values of every evaluation."""
        return list(self.values), [at.get(metric, math.nan) for at in self.values.values()]

    def where(self, metric: str, queries: float) -> float:
        """The value at so many queries, straight between evaluations."""
        x, y = self.curve(metric)
        order = np.argsort(x)
        return float(np.interp(queries, np.array(x)[order], np.array(y)[order])) if x else math.nan


@dataclass(frozen=True)
class _Cell:
    """Finished runs of one config hash, one per seed."""

    algorithm: str
    wrapper: str
    config_hash: str
    config: dict[str, str]
    runs: dict[int, _Run]
    label: str = ""
    pretrained: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.runs))

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.runs.values())

    def start(self, metric: str, seeds: Iterable[int]) -> list[float]:
        """The pretrained model's value per seed: the run's own, or another run's on the same noise."""
        values = []
        for seed in seeds:
            run = self.runs[seed]
            own = run.start(metric)
            values.append(own if math.isfinite(own) else self.pretrained.get(run.noise, {}).get(metric, math.nan))
        return values

    def final(self, metric: str, seeds: Iterable[int]) -> list[float]:
        """The value that counts per seed; a run that failed before any evaluation has the pretrained one."""
        values = []
        for seed in seeds:
            run = self.runs[seed]
            value = run.final(metric)
            if run.failed and not math.isfinite(value):
                (value,) = self.start(metric, [seed])
            values.append(value)
        return values


def tables(
    runs: Iterable[Row],
    evals: Iterable[Row],
    rounds: Iterable[Row] = (),
    margin: float = MARGIN,
    refusals: Iterable[Row] = (),
    planned: Iterable[int] = (),
    errors: Iterable[Row] = (),
) -> list[Tables]:
    """One :class:`Tables` per context, from rows of ``Store.runs``, ``.evals`` and ``.rounds``.

    ``rounds`` gives denoiser calls and how far a run got; without it those are None and from ``evals``. ``margin``:
    differences of alignment that are shown to be smaller count as none. ``refusals``: rows of ``Store.refusals``.
    ``planned``: seeds that every cell is to have, besides those that any has. ``errors``: rows of
    ``Store.evaluation_errors``.
    """
    wanted = frozenset(planned)
    spread: dict[str, float] = {row["run_id"]: row["error"] for row in errors if row["error"] is not None}
    values: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    seen: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in comparable(evals):
        value = math.nan if row["value"] is None or not math.isfinite(row["value"]) else float(row["value"])
        if row["split"] == "test":
            values[row["run_id"]][row["queries"]][row["metric"]] = value
            settings[row["run_id"]].append(row)
        elif row["split"] == "train":
            seen[row["run_id"]][row["queries"]][row["metric"]] = value
    calls: dict[str, int] = defaultdict(int)
    queries: dict[str, int] = defaultdict(int)
    spent: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in rounds:
        parts = (row["denoiser_calls_sampling"], row["denoiser_calls_training"])
        calls[row["run_id"]] += sum(part or 0 for part in parts)
        queries[row["run_id"]] = max(queries[row["run_id"]], row["queries"])
        spent[row["run_id"]].append((row["queries"], sum(part or 0 for part in parts)))

    contexts: dict[Context, list[_Run]] = defaultdict(list)
    baselines: dict[Context, list[_Run]] = defaultdict(list)
    for row in runs:
        name = row["run_id"]
        mine = dict(values.get(name, {}))
        reached = max(queries.get(name, 0), max(mine, default=0))
        run = _Run(row, mine, calls.get(name), reached, dict(seen.get(name, {})), _cumulative(spent.get(name, [])))
        if is_baseline(row):
            baselines[replace(_context(row), budget=None)].append(run)
        else:
            contexts[_context(row)].append(run)
    refused: dict[Any, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in refusals:
        refused[tuple(row[name] for name in _REFUSED_IN)][_names(row)] = visible(row["reason"])
    found, placed = [], set()
    for context, members in contexts.items():
        finished = [_flat(run.row["config"] or {}) for run in members if run.row["status"] in FINISHED]
        beside = [
            run
            for run in baselines[replace(context, budget=None)]
            if any(fits(_flat(run.row["config"]), config) for config in finished)
        ]
        placed |= {run.row["run_id"] for run in beside}
        here = refused[tuple(getattr(context, name) for name in _REFUSED_IN)]
        group = _tables(context, members, settings, beside, margin, here, wanted)
        known = [spread[run.row["run_id"]] for run in members if run.row["run_id"] in spread]
        error = float(np.mean(known)) if known else None
        found.append(replace(group, head=replace(group.head, error=error)))
    for context, others in baselines.items():
        if alone := [run for run in others if run.row["run_id"] not in placed]:
            found.append(_tables(context, [], settings, alone, margin, {}, wanted))
    return sorted(found, key=lambda table: tuple(str(value) for value in vars(table.head.context).values()))


def _cumulative(spent: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Denoiser calls up to each round's end, by its reward queries."""
    total, found = 0, {0: 0}
    for queries, calls in sorted(spent):
        total += calls
        found[queries] = total
    return found


def _detail(cell: _Cell, cells: Sequence[_Cell]) -> Detail:
    shared = set.intersection(*(set(other.config.items()) for other in cells))
    runs = [cell.runs[seed].row for seed in cell.seeds]
    versions = {
        " ".join(f"{name} {value}" for name, value in sorted((row.get("versions") or {}).items())) for row in runs
    }
    return Detail(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        dict(sorted(set(cell.config.items()) - shared)),
        tuple((row["seed"], visible(row["run_id"]), row["status"], visible(row.get("error") or "")) for row in runs),
        tuple(visible(text) for text in sorted(filter(None, versions))),
    )


def _curves(cell: _Cell) -> list[Curve]:
    found = []
    for seed in cell.seeds:
        run = cell.runs[seed]
        points = sorted(run.values)
        metrics = sorted({metric for at in run.values.values() for metric in at})
        found.append(
            Curve(
                cell.algorithm,
                cell.wrapper,
                cell.label,
                seed,
                tuple(points),
                tuple(float(run.calls_at.get(point, math.nan)) for point in points),
                {metric: tuple(run.values[point].get(metric, math.nan) for point in points) for metric in metrics},
                run.failed,
            )
        )
    return found


def _context(row: Row) -> Context:
    return Context(
        visible(row["benchmark_version"]),
        visible(row["backbone"]),
        visible(row["reward"]),
        visible(row["prompts"]),
        visible(row["prompts_hash"] or ""),
        row["budget"],
        _reward_settings((row["config"] or {}).get("reward") or {}),
    )


def _reward_settings(config: Row) -> str:
    """What makes scores another quantity than those of the same reward by default: checkpoint, a plugin's code."""
    found = {name: config[name] for name in ("checkpoint", "code") if config.get(name)}
    if found.get("checkpoint") in ("pocket", "paper"):
        del found["checkpoint"]
    return visible(" ".join(f"{name}={value}" for name, value in found.items()))


def _tables(
    context: Context,
    runs: Sequence[_Run],
    settings: Mapping[str, Sequence[Row]],
    baselines: Sequence[_Run],
    margin: float,
    refused: Mapping[tuple[str, str], str],
    planned: frozenset[int],
) -> Tables:
    finished = [run for run in runs if run.row["status"] in FINISHED]
    pretrained: dict[int, dict[str, float]] = defaultdict(dict)
    for run in finished:
        for metric, value in run.values.get(0, {}).items():
            if math.isfinite(value):
                pretrained[run.noise].setdefault(metric, value)
    cells = _cells(finished, pretrained)
    beside = _cells(baselines, {})
    oracles = [oracle_of(cell.config, beside, context.reward) for cell in cells]
    target, matched = _levels(context, cells)
    ranks = _ranks(context, cells)
    wanted = planned.union(*(cell.seeds for cell in cells))
    rows = [
        replace(
            _leaderboard_row(context, cell, oracle, target, ranks.get(id(cell))),
            lacking=tuple(sorted(wanted.difference(cell.seeds))),
        )
        for cell, oracle in zip(cells, oracles, strict=True)
    ]
    rows.sort(key=_place, reverse=True)
    variants = _variants(cells)
    if pretrained:
        # cells that were evaluated in several ways have no one oracle
        rows.append(_reference(context, pretrained, oracles[0] if len(set(oracles)) == 1 else None))
    incomplete = [run for run in runs if run.row["status"] not in FINISHED]
    present = {metric for run in baselines for at in run.values.values() for metric in at}
    return Tables(
        replace(
            _head(context, cells or beside, variants, settings, wanted), target=target, matched=matched, margin=margin
        ),
        tuple(rows),
        headroom_rows(context, beside, cells, _measures(present)),
        missing_oracle(context, cells or beside, beside),
        _ablation(context, variants),
        _compatibility(context, variants, incomplete, margin, refused),
        tuple(
            Incomplete(
                visible(run.row["run_id"]),
                *_names(run.row),
                run.row["seed"],
                run.row["status"],
                run.queries,
                _minute(run.row.get("heartbeat")),
            )
            for run in incomplete
        ),
        tuple(_generalisation(context, cell) for cell in cells),
        tuple(_diversity(context, cell, matched) for cell in cells),
        tuple(curve for cell in cells for curve in _curves(cell)),
        tuple(_detail(cell, cells) for cell in cells),
    )


def _minute(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else ""


def _place(row: LeaderboardRow) -> tuple[bool, float]:
    """What rows are ordered by. Those of too few seeds for an interval stand below: one lucky seed is not the best."""
    mean = row.alignment.mean
    return row.alignment.high is not None, -math.inf if mean is None else mean


def _names(row: Row) -> tuple[str, str]:
    return visible(row["algorithm"] or "-"), visible(row["wrapper"] or "-")


# -- cells ---------------------------------------------------------------------------------------------


def _cells(runs: Sequence[_Run], pretrained: Mapping[int, Mapping[str, float]]) -> list[_Cell]:
    """Cells in order of name, labelled where an algorithm and a wrapper have several."""
    chosen: dict[tuple[str, str, str], dict[int, _Run]] = defaultdict(dict)
    # identical reruns count once: the latest that was done, or else the latest that failed
    for run in sorted(runs, key=lambda run: (not run.failed, str(run.row["finished"] or ""))):
        chosen[(*_names(run.row), run.row["config_hash"])][run.row["seed"]] = run
    cells = [
        _Cell(*key, _flat(next(iter(members.values())).row["config"] or {}), members, "", pretrained)
        for key, members in chosen.items()
    ]
    groups: dict[tuple[str, str], list[_Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.algorithm, cell.wrapper].append(cell)
    return [
        replace(cell, label=label)
        for name in sorted(groups, key=lambda name: (name[0], _order(name[1])))
        for cell, label in zip(
            groups[name],
            _labels([cell.config for cell in groups[name]], [cell.config_hash for cell in groups[name]]),
            strict=True,
        )
    ]


def _order(wrapper: str) -> tuple[int, str]:
    return (WRAPPERS.index(wrapper) if wrapper in WRAPPERS else len(WRAPPERS), wrapper)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, of the settings that tell cells apart."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NO_SETTING:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[visible(name)] = visible(value) if isinstance(value, str) else json.dumps(value, default=str)
    return found


def _labels(configs: Sequence[Mapping[str, str]], fallback: Sequence[str]) -> list[str]:
    """What tells each configuration from the others, "lr=0.001 steps=48"; nothing for a single one."""
    if len(configs) < 2:
        return [""] * len(configs)
    keys = sorted({key for config in configs for key in config})
    differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    if not differing:  # the hash knows a difference that the configuration doesn't tell
        return [text[:8] for text in fallback]
    return [" ".join(f"{key}={config.get(key, 'unset')}" for key in differing) for config in configs]


# -- leaderboard ---------------------------------------------------------------------------------------


def _levels(context: Context, cells: Sequence[_Cell]) -> tuple[float | None, float | None]:
    """``Head.target`` and ``Head.matched``; None where no cell gains."""
    gains, ends, starts = [], [], []
    for cell in cells:
        end, start = estimate(cell.final(context.reward, cell.seeds)), estimate(cell.start(context.reward, cell.seeds))
        if end.mean is None or start.mean is None:
            return None, None
        gains.append(end.mean - start.mean)
        ends.append(end.mean)
        starts.append(start.mean)
    if not gains or max(gains) <= 0:
        return None, None
    best = max(range(len(gains)), key=gains.__getitem__)
    # a cell that hardly gained would put the level at the pretrained model's, where all are alike
    matched = min(end for end, gain in zip(ends, gains, strict=True) if gain >= max(gains) / 4)
    return starts[best] + gains[best] / 2, matched


def _ranks(context: Context, cells: Sequence[_Cell]) -> dict[int, tuple[int, int] | None]:
    """The rank range of each cell by its id, where several cells all share three seeds or more; else none has one."""
    if len(cells) < 2:
        return {}
    shared = sorted(set.intersection(*(set(cell.runs) for cell in cells))) if cells else []
    ranges = rank_ranges([cell.final(context.reward, shared) for cell in cells])
    return {id(cell): ranks for cell, ranks in zip(cells, ranges, strict=True)}


def _generalisation(context: Context, cell: _Cell) -> GeneralisationRow:
    seeds, metric = cell.seeds, context.reward
    unseen = paired(cell.final(metric, seeds), cell.start(metric, seeds))
    seen = paired(
        [cell.runs[seed].final(metric, seen=True) for seed in seeds],
        [cell.runs[seed].seen.get(0, {}).get(metric, math.nan) for seed in seeds],
    )
    gap = paired(unseen.values, seen.values)
    return GeneralisationRow(cell.algorithm, cell.wrapper, cell.label, seen, unseen, gap)


def _diversity(context: Context, cell: _Cell, matched: float | None) -> DiversityRow:
    seeds = cell.seeds
    present = {metric for run in cell.runs.values() for at in run.values.values() for metric in at}
    measures = [metric for part in _measures(present) for metric in part]

    gained = paired(cell.final(context.reward, seeds), cell.start(context.reward, seeds))
    end = estimate(cell.final(context.reward, seeds)).mean
    reached = matched is not None and end is not None and end >= matched

    def at_match(metric: str) -> Estimate:
        found = []
        for seed in seeds:
            run = cell.runs[seed]
            queries = None if matched is None else queries_to_target(*run.curve(context.reward), matched)
            # a run that ends below it: where it came nearest, which is its end
            found.append(run.final(metric) if queries is None else run.where(metric, queries))
        return estimate(found)

    return DiversityRow(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        gained,
        {metric: paired(cell.final(metric, seeds), cell.start(metric, seeds)) for metric in measures},
        {metric: at_match(metric) for metric in measures} if reached else {},
    )


def _leaderboard_row(
    context: Context, cell: _Cell, oracle: float | None, target: float | None, ranks: tuple[int, int] | None
) -> LeaderboardRow:
    seeds = cell.seeds
    alignment = cell.final(context.reward, seeds)

    def gain(metric: str) -> Paired:
        return paired(cell.final(metric, seeds), cell.start(metric, seeds))

    measures = _measures({metric for run in cell.runs.values() for at in run.values.values() for metric in at})
    calls = [run.calls for run in cell.runs.values() if run.calls is not None]
    curves = [cell.runs[seed].curve(context.reward) for seed in seeds]
    reached = [] if target is None else [queries_to_target(*curve, target) for curve in curves]
    trained, heldout = gain(context.reward), gain(HELDOUT)
    return LeaderboardRow(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        cell.config_hash,
        estimate(alignment),
        trained,
        headroom(alignment, cell.start(context.reward, seeds), oracle),
        estimate(cell.final(HELDOUT, seeds)),
        heldout,
        estimate(cell.final("success", seeds)),
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[0]},
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[1]},
        seeds,
        cell.failed,
        sum(run.last for run in cell.runs.values()) / len(cell.runs),
        sum(calls) / len(calls) if len(calls) == len(cell.runs) else None,
        ranks=ranks,
        area=estimate([area_under_curve(*curve, context.budget or 0) for curve in curves]),
        to_target=None if target is None else estimate([(context.budget or 0) if q is None else q for q in reached]),
        reached=sum(queries is not None for queries in reached),
        over_optimised=over_optimised(trained, heldout),
    )


def _measures(present: set[str]) -> tuple[list[str], list[str]]:
    return [metric for metric in INCEPTION if metric in present], [m for m in DIVERSITY if m in present]


def _reference(context: Context, pretrained: Mapping[int, Mapping[str, float]], oracle: float | None) -> LeaderboardRow:
    """The pretrained model, over the test sets that it was measured on: one, unless noise was by seed or by choice."""
    seeds = tuple(sorted(pretrained))
    alignment = [pretrained[seed].get(context.reward, math.nan) for seed in seeds]

    def value(metric: str) -> Estimate:
        return estimate([pretrained[seed].get(metric, math.nan) for seed in seeds])

    inception, diversity = _measures({metric for at in pretrained.values() for metric in at})
    return LeaderboardRow(
        "pretrained",
        "-",
        "",
        "",
        value(context.reward),
        None,
        headroom(alignment, alignment, oracle),
        value(HELDOUT),
        None,
        value("success"),
        {metric: value(metric) for metric in inception},
        {metric: value(metric) for metric in diversity},
        seeds,
        0,
        0.0,
        0.0,
        reference=True,
    )


def _head(
    context: Context,
    cells: Sequence[_Cell],
    variants: Sequence[_Variant],
    settings: Mapping[str, Sequence[Row]],
    wanted: frozenset[int],
) -> Head:
    runs = [run for cell in cells for run in cell.runs.values()]
    images: set[int] = set()
    between: set[int] = set()
    inception = set()
    for run in runs:
        rows = settings.get(run.row["run_id"], ())
        counts = {row["n"] for row in rows if row["metric"] == context.reward and row["n"] is not None}
        fewer = counts - {max(counts, default=0)}
        images |= counts - fewer
        between |= fewer
        for row in rows:
            if row["metric"] not in INCEPTION or row["n"] in fewer:
                continue
            how = row["settings"] or {}
            extractor = f" ({visible(str(how['extractor']))})" if "extractor" in how else ""
            inception.add(f"{row['metric']} N={row['n']} splits={how.get('splits', '?')}{extractor}")
    seeds = tuple(sorted({seed for cell in cells for seed in cell.runs}))
    own = [cell for cell in cells if "settings.eval_seed" not in cell.config]
    eval_seeds = () if own else tuple(sorted({run.noise for run in runs}))
    notes = []
    if len(images) > 1:
        notes.append("the runs were evaluated on different numbers of images")
    if len(eval_seeds) > 1:
        noises = ", ".join(map(str, eval_seeds))
        notes.append(f"the runs were evaluated on different noise (eval_seed {noises}), and differ by it, too")
    if len({text.partition(" ")[0] for text in inception}) < len(inception):
        notes.append("inception scores with different N, splits or extractors cannot be compared")
    for cell in cells:
        name = " ".join(filter(None, (cell.algorithm, cell.wrapper, cell.label)))
        if absent := wanted.union(seeds) - set(cell.seeds):
            notes.append(f"{name} lacks seed {', '.join(map(str, sorted(absent)))}")
        short = [seed for seed, run in cell.runs.items() if not run.failed and run.last < (context.budget or 0)]
        if short:
            notes.append(f"{name} has no evaluation at the budget for seed {', '.join(map(str, sorted(short)))}")
        finals = zip(cell.seeds, cell.final(context.reward, cell.seeds), strict=True)
        if unknown := [seed for seed, value in finals if not math.isfinite(value)]:
            notes.append(f"{name} has no finite {context.reward} for seed {', '.join(map(str, unknown))}, so no mean")
    for variant in variants:
        for wrapper in variant.several:
            cell = variant.cells[wrapper]
            notes.append(f"{cell.algorithm} {wrapper} stands for several in the lower tables: {cell.label}")
    return Head(
        context,
        seeds,
        tuple(sorted(images)),
        tuple(sorted(inception)),
        tuple(notes),
        between=tuple(sorted(between)),
        eval_seeds=eval_seeds,
    )


# -- ablation and compatibility ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Variant:
    """An algorithm with one choice of settings, under several wrappers."""

    algorithm: str
    label: str
    cells: dict[str, _Cell]
    several: tuple[str, ...] = ()


def _variants(cells: Sequence[_Cell]) -> list[_Variant]:
    """Cells of an algorithm that differ in the wrapper and its settings alone, together.

    Settings that only some of the cells have are the wrapper's. Where one wrapper has several settings,
    the one with most seeds stands for it (then the latest): no choice by result.
    """
    algorithms: dict[str, list[_Cell]] = defaultdict(list)
    for cell in cells:
        algorithms[cell.algorithm].append(cell)
    found = []
    for algorithm, members in algorithms.items():
        shared = set.intersection(*(set(cell.config) for cell in members))
        shared = {key for key in shared if key != "wrapper" and not key.startswith(("wrapper.", "wrapper_"))}
        groups: dict[tuple[tuple[str, str], ...], list[_Cell]] = defaultdict(list)
        for cell in members:
            groups[tuple(sorted((key, cell.config[key]) for key in shared))].append(cell)
        for settings, label in zip(groups, _labels([dict(key) for key in groups], [""] * len(groups)), strict=True):
            by_seeds = sorted(
                groups[settings],
                key=lambda cell: (
                    len(cell.runs),
                    max(str(run.row["finished"]) for run in cell.runs.values()),
                ),
            )
            wrappers = [cell.wrapper for cell in by_seeds]
            several = tuple(sorted({name for name in wrappers if wrappers.count(name) > 1}))
            found.append(_Variant(algorithm, label, {cell.wrapper: cell for cell in by_seeds}, several))
    return found


def _ablation(context: Context, variants: Sequence[_Variant]) -> tuple[AblationRow, ...]:
    rows = []
    for variant in variants:
        missing = [wrapper for wrapper in WRAPPERS if wrapper not in variant.cells]
        if missing:
            text = f"not run: {', '.join(missing)}"
            rows.append(AblationRow(variant.algorithm, variant.label, None, (), 0, text))
            continue
        four = [variant.cells[wrapper] for wrapper in WRAPPERS]
        seeds = tuple(sorted(set.intersection(*(set(cell.runs) for cell in four))))
        if not seeds:
            rows.append(AblationRow(variant.algorithm, variant.label, None, (), 0, "no seed shared by all four"))
            continue
        effects = factorial(*(cell.final(context.reward, seeds) for cell in four))
        failed = sum(cell.runs[seed].failed for cell in four for seed in seeds)
        rows.append(AblationRow(variant.algorithm, variant.label, effects, seeds, failed, ""))
    family = [
        effect for row in rows if row.effects for effect in (row.effects.bpt, row.effects.bs, row.effects.interaction)
    ]
    adjusted = iter(_adjusted(family))
    return tuple(
        replace(row, effects=Effects(next(adjusted), next(adjusted), next(adjusted))) if row.effects else row
        for row in rows
    )


def _adjusted(family: Sequence[Paired]) -> list[Paired]:
    p = holm([effect.p for effect in family])
    return [replace(effect, p_adjusted=value) for effect, value in zip(family, p, strict=True)]


def _compatibility(
    context: Context,
    variants: Sequence[_Variant],
    incomplete: Sequence[_Run],
    margin: float,
    refused: Mapping[tuple[str, str], str],
) -> tuple[CompatibilityRow, ...]:
    """Each wrapper against vanilla of the same algorithm and settings, vanilla against the pretrained model.

    Where vanilla was not run, all are against the pretrained model.
    """
    started = {_names(run.row) for run in incomplete}
    others = {name for variant in variants for name in variant.cells} | {name for _, name in (*started, *refused)}
    wrappers = sorted({*WRAPPERS, *(others - {"-"})}, key=_order)
    variants = [variant for variant in variants if set(variant.cells) != {"-"}]
    for algorithm in sorted({name for name, _ in (*started, *refused)} - {variant.algorithm for variant in variants}):
        variants.append(_Variant(algorithm, "", {}))

    rows: list[list[CompatibilityCell]] = []
    for variant in variants:
        row = []
        for wrapper in wrappers:
            cell = variant.cells.get(wrapper)
            if cell is None:
                pair = (variant.algorithm, wrapper)
                reason = refused.get(pair, "")
                without: Verdict = "incomplete" if pair in started else "refused" if reason else "not run"
                row.append(CompatibilityCell(wrapper, without, None, "", 0, reason=reason))
                continue
            vanilla = variant.cells.get("vanilla")
            against = vanilla if wrapper != "vanilla" and vanilla else None
            seeds = sorted(set(cell.runs) & set(against.runs)) if against else cell.seeds
            ours = cell.final(context.reward, seeds)
            theirs = (against.final if against else cell.start)(context.reward, seeds)
            row.append(
                CompatibilityCell(
                    wrapper,
                    "failed" if cell.failed == len(cell.runs) else "untested",
                    paired(ours, theirs),
                    "vanilla" if against else "pretrained",
                    cell.failed,
                )
            )
        rows.append(row)
    family = [cell.delta for row in rows for cell in row if cell.delta]
    tested, adjusted = sum(delta.p is not None for delta in family), iter(_adjusted(family))
    return tuple(
        CompatibilityRow(
            variant.algorithm,
            variant.label,
            tuple(_judged(cell, next(adjusted), tested, margin) if cell.delta else cell for cell in row),
        )
        for variant, row in zip(variants, rows, strict=True)
    )


def _judged(cell: CompatibilityCell, delta: Paired, comparisons: int, margin: float) -> CompatibilityCell:
    verdict = cell.verdict
    if verdict != "failed" and delta.p_adjusted is not None and delta.mean is not None:
        if delta.p_adjusted < ALPHA:
            verdict = "gain" if delta.mean > 0 else "loss"
        else:
            verdict = "equivalent" if equivalent(delta, margin) else "inconclusive"
    return replace(cell, delta=delta, verdict=verdict, detectable=detectable(delta, max(1, comparisons), ALPHA))
