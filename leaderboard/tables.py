"""The tables of a report, as plain rows, from the rows of a store.

A context is what must be equal before two numbers may stand side by side: benchmark version, backbone,
reward, prompts and budget. Each context has its own tables. Within it a cell is a config hash, which
leaves out the seed; the replicate is the seed. What counts for a run is its last evaluation, never its
best; a failed run counts with the last value it had, or the pretrained one, and is flagged.

Baselines are not trained and have no budget: they stand beside every context that they fit, set apart, and in
one without a budget where they fit none.

Whatever shows a part of a table, filters its rows and not the runs: the family of tests is the whole context's.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from b2bench.leaderboard.board import (
    diversity_row,
    generalisation_row,
    leaderboard_row,
    levels,
    measures_of,
    place,
    ranks_of,
    reference_row,
)
from b2bench.leaderboard.cells import (
    TUNED,
    Cell,
    Drawn,
    Row,
    Run,
    cells_of,
    cumulative,
    flat,
    names_of,
    reward_settings,
    untold,
    usual_ways,
)
from b2bench.leaderboard.claims import Rules, Scores, claims_of, contrast_rows
from b2bench.leaderboard.collapse import limit_of
from b2bench.leaderboard.compute import common_compute, compute_rows
from b2bench.leaderboard.evaluations import comparable
from b2bench.leaderboard.headroom import fits, is_baseline, missing_oracle, oracle_of
from b2bench.leaderboard.headroom import rows as headroom_rows
from b2bench.leaderboard.open_steps import open_elsewhere, open_steps
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.rows import INCEPTION, Context, Curve, Detail, Head, Incomplete, Tables
from b2bench.leaderboard.stats import ALPHA, LOOK, estimate
from b2bench.leaderboard.variants import Variant, variants_of
from b2bench.leaderboard.verdicts import collapse_rows, compatibility

from b2bench.metrics import equivalents_of
from b2bench.text import visible

FINISHED = ("done", "failed")

_REFUSED_IN = ("benchmark_version", "backbone", "reward", "prompts_hash", "budget")
"""What a refusal and a context have in common; of the same prompts under another name, too."""


@dataclass(frozen=True)
class Asked:
    """What a report is told beside the rows: rules that are fixed before the data, and seeds that cells should have.

    ``margin`` is the area of gain within which two cells are equal, None for a share of what the reference gained.
    ``looks``: how many times the same runs are looked at; each of two has the level of ``stats.LOOK``.
    """

    margin: float | None = None
    planned: frozenset[int] = frozenset()
    looks: int = 1

    @property
    def alpha(self) -> float:
        """The level of a test."""
        return ALPHA if self.looks == 1 else LOOK


@dataclass(frozen=True)
class _Measured:
    """Evaluations by run: values of the test split and of training prompts, and rows of the test split."""

    values: Mapping[str, dict[int, dict[str, float]]]
    seen: Mapping[str, dict[int, dict[str, float]]]
    settings: Mapping[str, Sequence[Row]]
    scores: Scores
    learning: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    seen_images: Mapping[str, frozenset[int]] = field(default_factory=dict)


def tables(
    runs: Iterable[Row],
    evals: Iterable[Row],
    rounds: Iterable[Row] = (),
    margin: float | None = None,
    refusals: Iterable[Row] = (),
    planned: Iterable[int] = (),
    errors: Iterable[Row] = (),
    scores: Iterable[Row] = (),
    looks: int = 1,
    learning: Iterable[Row] = (),
    spreads: Iterable[Row] = (),
    profiles: Iterable[Row] = (),
) -> list[Tables]:
    """Make one :class:`Tables` per context, from rows of ``Store.runs``, ``.evals`` and ``.rounds``.

    ``rounds`` gives denoiser calls and how far a run got; without it those are None and from ``evals``. ``margin``,
    ``planned`` and ``looks`` are those of :class:`Asked`. ``refusals``: rows of ``Store.refusals``. ``errors``: rows of
    ``Store.evaluation_errors``. ``scores``: rows of ``Store.last_scores``, for the noise of evaluations. ``learning``
    and ``spreads``: rows of ``Store.round_rewards`` and ``Store.curve_errors``, for curves. ``profiles``: rows of
    ``Store.profiles``.
    """
    asked = Asked(margin, frozenset(planned), looks)
    spread: dict[str, float] = {row["run_id"]: row["error"] for row in errors if row["error"] is not None}
    profiled = list(profiles)
    measured = replace(_measured(evals, scores), **_between(learning, spreads))
    contexts: dict[Context, list[Run]] = defaultdict(list)
    baselines: dict[Context, list[Run]] = defaultdict(list)
    for run in _runs(runs, measured, rounds):
        if is_baseline(run.row):
            baselines[replace(_context(run.row), budget=None)].append(run)
        else:
            contexts[_context(run.row)].append(run)
    refused: dict[Any, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in refusals:
        refused[tuple(row[name] for name in _REFUSED_IN)][names_of(row)] = visible(row["reason"])
    found, placed = [], set()
    for context, members in contexts.items():
        finished = [flat(run.row["config"] or {}) for run in members if run.row["status"] in FINISHED]
        beside = [
            run
            for run in baselines[replace(context, budget=None)]
            if any(fits(flat(run.row["config"] or {}), config) for config in finished)
        ]
        placed |= {run.row["run_id"] for run in beside}
        here = refused[tuple(getattr(context, name) for name in _REFUSED_IN)]
        group = _tables(context, members, measured, beside, here, asked)
        known = [spread[run.row["run_id"]] for run in members if run.row["run_id"] in spread]
        error = float(np.mean(known)) if known else None
        found.append(
            replace(
                group,
                head=replace(group.head, error=error),
                openness=open_steps(context, profiled, group.settings),
                open_elsewhere=open_elsewhere(context, profiled, group.settings),
            )
        )
    for context, others in baselines.items():
        if alone := [run for run in others if run.row["run_id"] not in placed]:
            found.append(_tables(context, [], measured, alone, {}, asked))
    # what has results comes first
    return sorted(found, key=lambda table: (not table.leaderboard, *map(str, vars(table.head.context).values())))


def _measured(evals: Iterable[Row], scores: Iterable[Row]) -> _Measured:
    values: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    seen: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    settings: dict[str, list[Row]] = defaultdict(list)
    seen_images: dict[str, set[int]] = defaultdict(set)
    for row in comparable(evals):
        value = math.nan if row["value"] is None or not math.isfinite(row["value"]) else float(row["value"])
        if row["split"] == "test":
            values[row["run_id"]][row["queries"]][row["metric"]] = value
            settings[row["run_id"]].append(row)
        elif row["split"] == "train":
            seen[row["run_id"]][row["queries"]][row["metric"]] = value
            seen_images[row["run_id"]] |= {row["n"]} - {None}
    return _Measured(
        values,
        seen,
        settings,
        {row["run_id"]: (row["images"], row["scores"], row.get("prompts")) for row in scores},
        seen_images={name: frozenset(counts) for name, counts in seen_images.items()},
    )


def _between(learning: Iterable[Row], spreads: Iterable[Row]) -> dict[str, Any]:
    """By run: the queries and mean reward of each round, and the standard error of each evaluation."""
    rewards: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in learning:
        if row["reward"] is not None and math.isfinite(row["reward"]):
            rewards[row["run_id"]].append((float(row["queries"]), float(row["reward"])))
    errors: dict[str, dict[int, float]] = defaultdict(dict)
    for row in spreads:
        if row["error"] is not None:
            errors[row["run_id"]][row["queries"]] = row["error"]
    return {"learning": rewards, "errors": errors}


def _runs(rows: Iterable[Row], measured: _Measured, rounds: Iterable[Row]) -> list[Run]:
    """Each run with its values, and what it spent until each round's end."""
    queries: dict[str, int] = defaultdict(int)
    spent: dict[str, list[tuple[int, int]]] = defaultdict(list)
    equivalents: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    steps: dict[str, list[int | None]] = defaultdict(list)
    for row in rounds:
        name = row["run_id"]
        queries[name] = max(queries[name], row["queries"])
        spent[name].append(
            (row["queries"], sum(row[f"denoiser_calls_{part}"] or 0 for part in ("sampling", "training")))
        )
        equivalents[name].append((row["queries"], equivalents_of(row)))
        steps[name].append(row.get("optimizer_steps"))
    found = []
    for row in rows:
        name = row["run_id"]
        mine = dict(measured.values.get(name, {}))
        costs = [(at, cost) for at, cost in equivalents.get(name, []) if cost is not None]
        whole = bool(costs) and len(costs) == len(equivalents[name])
        taken = [count for count in steps.get(name, []) if count is not None]
        found.append(
            Run(
                row,
                mine,
                sum(calls for _, calls in spent[name]) if name in spent else None,
                max(queries.get(name, 0), max(mine, default=0)),
                dict(measured.seen.get(name, {})),
                cumulative(spent.get(name, [])),
                sum(cost for _, cost in costs) if whole else None,
                cumulative(costs) if whole else {},
                sum(taken) if taken and len(taken) == len(steps[name]) else None,
            )
        )
    return found


def _shared(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the settings that all cells have."""
    return dict(sorted(set.intersection(*(set(cell.config.items()) for cell in cells)))) if cells else {}


def _wanted(cell: Cell, cells: Sequence[Cell], wanted: frozenset[int]) -> frozenset[int]:
    """Return the seeds that a cell should have: the plan's has its own, and one outside of it not these again."""
    if cell.planned:
        return wanted & set(PLAN.seeds)
    same = any(one.planned and one.config_hash == cell.config_hash for one in cells)
    return wanted - set(PLAN.seeds) if same else wanted


def _one_machine(variants: Iterable[Variant]) -> list[str]:
    """Say where runs of the plan are not of one version of the code on one kind of device, as it asks."""
    cells = [cell for variant in variants if variant.planned for cell in variant.cells.values()]
    runs = [run.row for cell in cells for run in cell.runs.values()]
    found = {name: _each(row.get(name) for row in runs) for name in ("commit", "device")}
    return [
        f"runs of the plan are of several {name}s: {', '.join(values)}"
        for name, values in found.items()
        if len(values) > 1
    ]


def _detail(cell: Cell, shared: Mapping[str, str], variants: Sequence[Variant]) -> Detail:
    own = [variant for variant in variants if any(one is cell for one in variant.cells.values())]
    runs = [cell.runs[seed].row for seed in cell.seeds]
    versions = {
        " ".join(f"{name} {value}" for name, value in sorted((row.get("versions") or {}).items())) for row in runs
    }
    return Detail(
        cell.algorithm,
        cell.wrapper,
        cell.label,
        dict(sorted(set(cell.config.items()) - set(shared.items()))),
        tuple((row["seed"], visible(row["run_id"]), row["status"], visible(row.get("error") or "")) for row in runs),
        tuple(visible(text) for text in sorted(filter(None, versions))),
        _each(row.get("commit") for row in runs),
        _each(row.get("device") for row in runs),
        tuple(sorted({len(run.calls_at) - 1 for run in cell.runs.values() if len(run.calls_at) > 1})),
        any(variant.planned for variant in own),
        # nor on the card before the plan's cells are whole: a sign that needs them is tested once
        not all(variant.planned for variant in own) and not any(run.planned for run in cell.runs.values()),
        cell.tuned and not cell.untuned,
        max(str(row.get("finished") or "") for row in runs),
    )


def _each(texts: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({visible(str(text)) for text in texts if text}))


def _curves(cell: Cell, measured: _Measured) -> list[Curve]:
    found = []
    for seed in cell.seeds:
        run = cell.runs[seed]
        name, points = run.row["run_id"], sorted(run.values)
        rounds = measured.learning.get(name, ())
        errors = measured.errors.get(name, {})
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
                tuple(errors.get(point, math.nan) for point in points),
                tuple(queries for queries, _ in rounds),
                tuple(reward for _, reward in rounds),
            )
        )
    return found


def _spreads(context: Context, runs: Sequence[Run], measured: _Measured) -> list[float]:
    """Return the standard deviations over images of the pretrained model's reward, of the runs that scored them."""
    found = []
    for run in runs:
        name = run.row["run_id"]
        error = measured.errors.get(name, {}).get(0)
        counts = [
            row["n"]
            for row in measured.settings.get(name, ())
            if row["metric"] == context.reward and row["queries"] == 0 and row["n"]
        ]
        if error is not None and counts:
            found.append(error * math.sqrt(counts[0]))
    return found


def _starts(runs: Sequence[Run]) -> dict[Drawn, dict[str, float]]:
    """Return what the pretrained model has by each way of drawing and scoring its images."""
    found: dict[Drawn, dict[str, float]] = defaultdict(dict)
    for run in runs:
        for metric, value in run.values.get(0, {}).items():
            if math.isfinite(value):
                found[run.drawn].setdefault(metric, value)
    return found


def _usual(runs: Sequence[Run], starts: Mapping[Drawn, Mapping[str, float]]) -> dict[int, Mapping[str, float]]:
    """Return what the pretrained model has by the seed of its noise, in the way in which most runs drew images."""
    ways = Counter(run.drawn[1] for run in runs if run.drawn in starts)
    usual = max(ways, key=lambda way: ways[way], default="")
    return {noise: at for (noise, way), at in starts.items() if way == usual}


def _context(row: Row) -> Context:
    return Context(
        visible(row["benchmark_version"]),
        visible(row["backbone"]),
        visible(row["reward"]),
        visible(row["prompts"]),
        visible(row["prompts_hash"] or ""),
        row["budget"],
        reward_settings((row["config"] or {}).get("reward") or {}),
    )


def _tables(
    context: Context,
    runs: Sequence[Run],
    measured: _Measured,
    baselines: Sequence[Run],
    refused: Mapping[tuple[str, str], str],
    asked: Asked,
) -> Tables:
    finished = [run for run in runs if run.row["status"] in FINISHED]
    starts = _starts(finished)
    pretrained = _usual(finished, starts)
    limit = limit_of(context.reward, _spreads(context, finished, measured))
    cells = [replace(cell, limit=limit) for cell in cells_of(finished, starts)]
    beside = cells_of(baselines, {})
    oracles = [oracle_of(cell.config, beside, context.reward) for cell in cells]
    compared = [cell for cell in cells if not cell.control]
    target, matched = levels(context, compared)
    ranks = ranks_of(context, compared, asked.alpha)
    wanted = asked.planned or frozenset(seed for cell in cells or beside for seed in cell.seeds)
    ways = usual_ways(compared or cells)
    rows = [
        replace(
            leaderboard_row(context, cell, oracle, target, ranks.get(id(cell)), cell.ways == ways),
            lacking=tuple(sorted(_wanted(cell, cells, wanted).difference(cell.seeds))),
            wanting=tuple(_wanting(context, cell, wanted)),
        )
        for cell, oracle in zip(cells, oracles, strict=True)
    ]
    rows.sort(key=place, reverse=True)
    variants = variants_of(cells, context.prompts)
    claims = claims_of(context, variants, Rules(asked.alpha, asked.margin))
    compute = common_compute(compared)
    if pretrained:
        # cells that were evaluated in several ways have no one oracle
        rows.append(reference_row(context, pretrained, oracles[0] if len(set(oracles)) == 1 else None))
    incomplete = [run for run in runs if run.row["status"] not in FINISHED]
    present = {metric for run in baselines for at in run.values.values() for metric in at}
    head = replace(
        _head(context, cells or beside, variants, measured, wanted),
        target=target,
        matched=matched,
        margin=asked.margin,
        start=estimate([at.get(context.reward, math.nan) for at in pretrained.values()]).mean,
        alpha=asked.alpha,
        looks=asked.looks,
        tests=claims.tested(tuned=False),
        equalities=claims.equalities[0],
        tuned_tests=claims.tested(tuned=True),
        tuned_equalities=claims.equalities[1],
        compute=compute,
        collapse=limit,
    )
    shared = _shared(cells)
    return Tables(
        head,
        tuple(rows),
        headroom_rows(context, beside, cells, [cell for cell in cells if cell.ways == ways], measures_of(present)),
        missing_oracle(context, cells or beside, beside),
        contrast_rows(context, variants, claims, measured.scores),
        compatibility(context, variants, claims, incomplete, refused),
        tuple(
            Incomplete(
                visible(run.row["run_id"]),
                *names_of(run.row),
                run.row["seed"],
                run.row["status"],
                run.queries,
                _minute(run.row.get("heartbeat")),
            )
            for run in incomplete
        ),
        tuple(generalisation_row(context, cell) for cell in cells),
        tuple(diversity_row(context, cell, matched) for cell in cells),
        tuple(curve for cell in cells for curve in _curves(cell, measured)),
        tuple(_detail(cell, shared, variants) for cell in cells),
        collapse_rows(context, cells, variants),
        compute_rows(context, cells, variants, compute),
        shared,
    )


def _named(cell: Cell) -> str:
    return " ".join(filter(None, (cell.algorithm, cell.wrapper, cell.label)))


def _lacking(cells: Sequence[Cell], wanted: frozenset[int]) -> list[str]:
    """Return a line for each set of seeds that cells lack: what most of many cells lack is said once."""
    found: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for cell in cells:
        if absent := tuple(sorted(wanted - set(cell.seeds))):
            found[absent].append(_named(cell))
    return [
        f"{', '.join(names)} lack{'s' * (len(names) == 1)} {_seeds(absent)}" for absent, names in sorted(found.items())
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _wanting(context: Context, cell: Cell, wanted: frozenset[int]) -> list[str]:
    """Return what a cell lacks that comparing it would need."""
    name, found = _named(cell), []
    if absent := wanted - set(cell.seeds):
        found.append(f"{name} lacks {_seeds(sorted(absent))}")
    short = [seed for seed, run in cell.runs.items() if not run.failed and run.last < (context.budget or 0)]
    if short:
        found.append(f"{name} has no evaluation at the budget for seed {', '.join(map(str, sorted(short)))}")
    finals = zip(cell.seeds, cell.final(context.reward, cell.seeds), strict=True)
    unstarted = [seed for seed in cell.seeds if not math.isfinite(*cell.start(context.reward, [seed]))]
    if unstarted and any(math.isfinite(at.get(context.reward, math.nan)) for at in cell.pretrained.values()):
        found.append(
            f"{name} has no pretrained model to be compared with, evaluated as it was (eval_seed, steps, guidance, "
            "eta and the reward's settings); b2bench evaluate without a LoRA, with the same --set and --queries, "
            "measures it"
        )
    if unknown := [seed for seed, value in finals if not math.isfinite(value)]:
        found.append(f"{name} has no finite {context.reward} for seed {', '.join(map(str, unknown))}, so no mean")
    return found


def _minute(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else ""


def _head(
    context: Context,
    cells: Sequence[Cell],
    variants: Sequence[Variant],
    measured: _Measured,
    wanted: frozenset[int],
) -> Head:
    runs = [run for cell in cells for run in cell.runs.values()]
    images: set[int] = set()
    between: set[int] = set()
    inception = set()
    for run in runs:
        rows = measured.settings.get(run.row["run_id"], ())
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
    notes += _lacking(cells, wanted)
    claimants = [cell for cell in cells if not cell.control]  # controls and upper references make no claims
    for cell in cells:
        notes += _wanting(context, cell, frozenset())
    notes += _one_machine(variants)
    for variant in variants:
        for wrapper in variant.several:
            cell = variant.cells[wrapper]
            label = cell.label or "the settings of most runs"
            notes.append(f"{cell.algorithm} {wrapper} stands for several in the lower tables: {label}")
    notes += [f"{algorithm} without settings beside its name has {text}" for algorithm, text in untold(cells).items()]
    return Head(
        context,
        seeds,
        tuple(sorted(images)),
        tuple(sorted(inception)),
        tuple(notes),
        between=tuple(sorted(between)),
        eval_seeds=eval_seeds,
        tuned=(sum(cell.tuned for cell in claimants), len(claimants)),
        protocols=len({(one.protocol, one.on or context.prompts) for cell in claimants for one in cell.searches}),
        tuned_cells=tuple(
            _named(replace(cell, label=cell.label.removeprefix(TUNED).strip())) for cell in claimants if cell.tuned
        ),
        seen_images=tuple(
            sorted({max(found) for run in runs if (found := measured.seen_images.get(run.row["run_id"]))})
        ),
        straight=(sum(all(len(run.values) <= 2 for run in cell.runs.values()) for cell in cells), len(cells)),
    )
