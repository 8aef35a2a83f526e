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

from b2bench.leaderboard.headroom import HELDOUT, HeadroomRow, fits, headroom, is_baseline, missing_oracle, oracle_of
from b2bench.leaderboard.headroom import rows as headroom_rows
from b2bench.leaderboard.stats import Effects, Estimate, Paired, estimate, factorial, holm, paired

WRAPPERS = ("vanilla", "bpt", "bs", "b2")
INCEPTION = ("is_style", "is_subject", "is_clip", "is_inception", "inception_score")
DIVERSITY = ("style_entropy", "pairwise_distance")
ALPHA = 0.05
FINISHED = ("done", "failed")
NO_SETTING = ("seed", "found", "settings.micro_batch")
"""Keys of a configuration that its hash leaves out: they tell no cell from another."""

Row = Mapping[str, Any]
Verdict = Literal["gain", "not significant", "loss", "untested", "failed", "incomplete", "not run"]


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
    """What stands above the tables of a context. ``notes`` say what limits the comparison."""

    context: Context
    seeds: tuple[int, ...]
    images: tuple[int, ...]
    inception: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LeaderboardRow:
    """A cell's test-split numbers at the end of training; the reference row is the pretrained model.

    ``gain`` is against the pretrained model of the same seed; ``headroom`` is (alignment - pretrained) / (oracle -
    pretrained), None where the oracle was not measured (``b2bench baseline``). ``failed`` counts failed runs among
    ``seeds``; ``queries`` is per run where its numbers were taken, ``denoiser_calls`` per run (sampling and
    training); both are means over seeds.
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
    """One wrapper under an algorithm: the verdict on its alignment against ``baseline``, paired by seed."""

    wrapper: str
    verdict: Verdict
    delta: Paired | None
    baseline: str
    failed: int


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


@dataclass(frozen=True)
class _Run:
    """A run and its test-split values: queries -> metric -> value, NaN for null."""

    row: Row
    values: dict[int, dict[str, float]]
    calls: int | None
    queries: int

    @property
    def failed(self) -> bool:
        return bool(self.row["status"] == "failed")

    @property
    def last(self) -> int:
        return max(self.values, default=0)

    def start(self, metric: str) -> float:
        return self.values.get(0, {}).get(metric, math.nan)

    def final(self, metric: str) -> float:
        """The value at the last evaluation; of a failed run, the last finite one."""
        if not self.failed:
            return self.values.get(self.last, {}).get(metric, math.nan)
        history = [at[metric] for _, at in sorted(self.values.items()) if math.isfinite(at.get(metric, math.nan))]
        return history[-1] if history else math.nan


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
        """The pretrained model's value per seed: the run's own, or another run's of the same seed."""
        values = []
        for seed in seeds:
            own = self.runs[seed].start(metric)
            values.append(own if math.isfinite(own) else self.pretrained.get(seed, {}).get(metric, math.nan))
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


def tables(runs: Iterable[Row], evals: Iterable[Row], rounds: Iterable[Row] = ()) -> list[Tables]:
    """One :class:`Tables` per context, from rows of ``Store.runs``, ``.evals`` and ``.rounds``.

    ``rounds`` gives denoiser calls and how far a run got; without it those are None and from ``evals``.
    """
    values: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in evals:
        if row["split"] == "test":
            value = row["value"]
            values[row["run_id"]][row["queries"]][row["metric"]] = math.nan if value is None else float(value)
            settings[row["run_id"]].append(row)
    calls: dict[str, int] = defaultdict(int)
    queries: dict[str, int] = defaultdict(int)
    for row in rounds:
        parts = (row["denoiser_calls_sampling"], row["denoiser_calls_training"])
        calls[row["run_id"]] += sum(part or 0 for part in parts)
        queries[row["run_id"]] = max(queries[row["run_id"]], row["queries"])

    contexts: dict[Context, list[_Run]] = defaultdict(list)
    baselines: dict[Context, list[_Run]] = defaultdict(list)
    for row in runs:
        name = row["run_id"]
        mine = dict(values.get(name, {}))
        reached = max(queries.get(name, 0), max(mine, default=0))
        run = _Run(row, mine, calls.get(name), reached)
        if is_baseline(row):
            baselines[replace(_context(row), budget=None)].append(run)
        else:
            contexts[_context(row)].append(run)
    found, placed = [], set()
    for context, members in contexts.items():
        finished = [_flat(run.row["config"] or {}) for run in members if run.row["status"] in FINISHED]
        beside = [
            run
            for run in baselines[replace(context, budget=None)]
            if any(fits(_flat(run.row["config"]), config) for config in finished)
        ]
        placed |= {run.row["run_id"] for run in beside}
        found.append(_tables(context, members, settings, beside))
    for context, others in baselines.items():
        if alone := [run for run in others if run.row["run_id"] not in placed]:
            found.append(_tables(context, [], settings, alone))
    return sorted(found, key=lambda table: tuple(str(value) for value in vars(table.head.context).values()))


def _context(row: Row) -> Context:
    return Context(
        row["benchmark_version"],
        row["backbone"],
        row["reward"],
        row["prompts"],
        row["prompts_hash"] or "",
        row["budget"],
        _reward_settings((row["config"] or {}).get("reward") or {}),
    )


def _reward_settings(config: Row) -> str:
    """What makes scores another quantity than those of the same reward by default: checkpoint, a plugin's code."""
    found = {name: config[name] for name in ("checkpoint", "code") if config.get(name)}
    if found.get("checkpoint") in ("pocket", "paper"):
        del found["checkpoint"]
    return " ".join(f"{name}={value}" for name, value in found.items())


def _tables(
    context: Context, runs: Sequence[_Run], settings: Mapping[str, Sequence[Row]], baselines: Sequence[_Run]
) -> Tables:
    finished = [run for run in runs if run.row["status"] in FINISHED]
    pretrained: dict[int, dict[str, float]] = defaultdict(dict)
    for run in finished:
        for metric, value in run.values.get(0, {}).items():
            if math.isfinite(value):
                pretrained[run.row["seed"]].setdefault(metric, value)
    cells = _cells(finished, pretrained)
    beside = _cells(baselines, {})
    oracles = [oracle_of(cell.config, beside, context.reward) for cell in cells]
    rows = [_leaderboard_row(context, cell, oracle) for cell, oracle in zip(cells, oracles, strict=True)]
    rows.sort(key=lambda row: -math.inf if row.alignment.mean is None else row.alignment.mean, reverse=True)
    variants = _variants(cells)
    if pretrained:
        # cells that were evaluated in several ways have no one oracle
        rows.append(_reference(context, pretrained, oracles[0] if len(set(oracles)) == 1 else None))
    incomplete = [run for run in runs if run.row["status"] not in FINISHED]
    present = {metric for run in baselines for at in run.values.values() for metric in at}
    return Tables(
        _head(context, cells or beside, variants, settings),
        tuple(rows),
        headroom_rows(context, beside, cells, _measures(present)),
        missing_oracle(context, cells or beside, beside),
        _ablation(context, variants),
        _compatibility(context, variants, incomplete),
        tuple(
            Incomplete(run.row["run_id"], *_names(run.row), run.row["seed"], run.row["status"], run.queries)
            for run in incomplete
        ),
    )


def _names(row: Row) -> tuple[str, str]:
    return row["algorithm"] or "-", row["wrapper"] or "-"


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
            found[name] = value if isinstance(value, str) else json.dumps(value, default=str)
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


def _leaderboard_row(context: Context, cell: _Cell, oracle: float | None) -> LeaderboardRow:
    seeds = cell.seeds
    alignment = cell.final(context.reward, seeds)

    def gain(metric: str) -> Paired:
        return paired(cell.final(metric, seeds), cell.start(metric, seeds))

    measures = _measures({metric for run in cell.runs.values() for at in run.values.values() for metric in at})
    calls = [run.calls for run in cell.runs.values() if run.calls is not None]
    return LeaderboardRow(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        cell.config_hash,
        estimate(alignment),
        gain(context.reward),
        headroom(alignment, cell.start(context.reward, seeds), oracle),
        estimate(cell.final(HELDOUT, seeds)),
        gain(HELDOUT),
        estimate(cell.final("success", seeds)),
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[0]},
        {metric: estimate(cell.final(metric, seeds)) for metric in measures[1]},
        seeds,
        cell.failed,
        sum(run.last for run in cell.runs.values()) / len(cell.runs),
        sum(calls) / len(calls) if len(calls) == len(cell.runs) else None,
    )


def _measures(present: set[str]) -> tuple[list[str], list[str]]:
    return [metric for metric in INCEPTION if metric in present], [m for m in DIVERSITY if m in present]


def _reference(context: Context, pretrained: Mapping[int, Mapping[str, float]], oracle: float | None) -> LeaderboardRow:
    """The pretrained model, over the seeds of all cells."""
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
) -> Head:
    runs = [run for cell in cells for run in cell.runs.values()]
    rows = [row for run in runs for row in settings.get(run.row["run_id"], ())]
    images = {row["n"] for row in rows if row["metric"] == context.reward and row["n"] is not None}
    inception = set()
    for row in rows:
        if row["metric"] in INCEPTION:
            inception.add(f"{row['metric']} N={row['n']} splits={(row['settings'] or {}).get('splits', '?')}")
    seeds = tuple(sorted({seed for cell in cells for seed in cell.runs}))
    notes = []
    if len(images) > 1:
        notes.append("the runs were evaluated on different numbers of images")
    if len({text.partition(" ")[0] for text in inception}) < len(inception):
        notes.append("inception scores with different N or splits cannot be compared")
    for cell in cells:
        name = " ".join(filter(None, (cell.algorithm, cell.wrapper, cell.label)))
        if absent := set(seeds) - set(cell.seeds):
            notes.append(f"{name} lacks seed {', '.join(map(str, sorted(absent)))}")
        short = [seed for seed, run in cell.runs.items() if not run.failed and run.last < (context.budget or 0)]
        if short:
            notes.append(f"{name} has no evaluation at the budget for seed {', '.join(map(str, sorted(short)))}")
    for variant in variants:
        for wrapper in variant.several:
            cell = variant.cells[wrapper]
            notes.append(f"{cell.algorithm} {wrapper} stands for several in the lower tables: {cell.label}")
    return Head(context, seeds, tuple(sorted(images)), tuple(sorted(inception)), tuple(notes))


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
    context: Context, variants: Sequence[_Variant], incomplete: Sequence[_Run]
) -> tuple[CompatibilityRow, ...]:
    """Each wrapper against vanilla of the same algorithm and settings, vanilla against the pretrained model.

    Where vanilla was not run, all are against the pretrained model.
    """
    started = {_names(run.row) for run in incomplete}
    others = {name for variant in variants for name in variant.cells} | {name for _, name in started}
    wrappers = sorted({*WRAPPERS, *(others - {"-"})}, key=_order)
    variants = [variant for variant in variants if set(variant.cells) != {"-"}]
    for algorithm in sorted({name for name, _ in started} - {variant.algorithm for variant in variants}):
        variants.append(_Variant(algorithm, "", {}))

    rows: list[list[CompatibilityCell]] = []
    for variant in variants:
        row = []
        for wrapper in wrappers:
            cell = variant.cells.get(wrapper)
            if cell is None:
                running: Verdict = "incomplete" if (variant.algorithm, wrapper) in started else "not run"
                row.append(CompatibilityCell(wrapper, running, None, "", 0))
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
    adjusted = iter(_adjusted([cell.delta for row in rows for cell in row if cell.delta]))
    return tuple(
        CompatibilityRow(
            variant.algorithm,
            variant.label,
            tuple(_judged(cell, next(adjusted)) if cell.delta else cell for cell in row),
        )
        for variant, row in zip(variants, rows, strict=True)
    )


def _judged(cell: CompatibilityCell, delta: Paired) -> CompatibilityCell:
    verdict = cell.verdict
    if verdict != "failed" and delta.p_adjusted is not None and delta.mean is not None:
        significant = delta.p_adjusted < ALPHA
        verdict = ("gain" if delta.mean > 0 else "loss") if significant else "not significant"
    return replace(cell, delta=delta, verdict=verdict)
