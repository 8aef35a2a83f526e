"""The runs of a tuning, stage by stage, as jobs of a sweep; and what came of them, read from the store.

Stage 1 tries every configuration with one seed. Stage 2 runs the top quarter with two more, and the mean of the three
decides. Nothing is kept but the store: the same command finds there what is done.

All configurations are known before the first run, unless a sampler of Optuna names them: then they come in generations,
each from the scores of those before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from b2bench.config.choices import Choices, resolved
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.leaderboard.tuning import Trial, Tried, top_quarter
from b2bench.search import FIRST_TUNING_SEED, GENERATION, Sampler
from b2bench.sweep.plan import Job, plan
from b2bench.tuning.proposals import optuna_for, proposed
from b2bench.tuning.space import Configuration, Dimension, configurations, space_of

SEEDS = (FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1, FIRST_TUNING_SEED + 2)
"""The first is that of stage 1."""
UNSEEN = {
    "run.eval_images": 1,
    "run.eval_train_images": 0,
    "run.sample_images": 0,
    "run.kl_images": 0,
    "run.inception": "none",
}
"""Nobody looks at the evaluations of tuning runs, so they are as small as they can be. No draw of training changes."""

DIFFERS = "the points follow from the scores of each cell and differ between cells, so cells are not tuned alike"
UNLIKE = "the points look at no score and are not those of the protocol, so the cell is not tuned as those of sobol are"

Key = tuple[str, int]
"""A run as the store knows it: the hash of its cell, and its seed."""


@dataclass(frozen=True)
class Plan:
    """The tuning of a cell: what is searched, what is tried, and for each configuration its jobs, one a seed.

    ``config`` is the cell with its defaults, ``given`` are the values that were set for all runs. ``count``
    configurations are tried in the end, of which those that ``sampler`` has named so far are here; ``make`` plans one.
    """

    config: RunConfig
    space: tuple[Dimension, ...]
    configurations: list[Configuration]
    jobs: list[tuple[Job, ...]]
    given: Mapping[str, Any]
    preset: str | None
    count: int
    sampler: Sampler
    make: Callable[[Configuration], tuple[Job, ...]]

    @property
    def name(self) -> str:
        """The cell, as its preset file is called."""
        return f"{self.config.algorithm_name}-{self.config.wrapper_name}"

    @property
    def keys(self) -> set[Key]:
        """What the store knows the runs of both stages by."""
        return {job.key for jobs in self.jobs for job in jobs}

    @property
    def second_runs(self) -> int:
        """How many runs stage 2 has."""
        return math.ceil(self.count / 4) * (len(SEEDS) - 1)

    @property
    def unknown(self) -> int:
        """How many configurations the sampler has not named yet."""
        return self.count - len(self.configurations)


def budget(config: RunConfig, *, half: bool) -> int:
    """Return the reward queries of a tuning run: those of ``config``, or half of them, in whole rounds if it can be."""
    if not half:
        return config.queries
    samples = config.settings.samples
    for unit in (config.settings.draws * samples, samples):
        if (queries := config.queries // 2 // unit * unit) > 0:
            return queries
    return config.queries


def caveat(sampler: Sampler) -> str:
    """Return what must be said of every sampler but sobol."""
    return UNLIKE if sampler is Sampler.random else DIFFERS


def plan_cell(
    choices: Choices, count: int, queries: int | None, *, half: bool, sampler: Sampler = Sampler.sobol
) -> Plan:
    """Plan the tuning of the cell that ``choices`` name, with ``count`` configurations.

    ``queries`` is the budget of a run; None is that of the cell, or half of it. All samplers
    begin with the same configurations; those of Optuna name the others in :func:`grown`.

    Raises:
        UserError: the cell cannot be, something in it cannot be searched, or Optuna is not installed.
        Refused: algorithm and wrapper do not go together.
    """
    own = {name.rpartition(".")[2] for name in choices.values}
    unseen = {name: value for name, value in UNSEEN.items() if name.rpartition(".")[2] not in own}
    given = choices.values
    choices = replace(choices, tuning=True, seed=SEEDS[0], values={**given, **unseen}, queries=queries)
    base = resolved(choices)
    spent = budget(base, half=half and queries is None)
    space = space_of(base)
    _refuse_fixed(space, given, base)
    tried = configurations(space, count)
    count = len(tried)
    if sampler is not Sampler.sobol:
        optuna_for(sampler)
        tried = tried[:GENERATION]
    named = {name: [value] for name, value in choices.options.items() if name not in ("seed", "queries")}
    shared = [*_sets(choices.values), *(("--preset", choices.preset) if choices.preset is not None else ())]
    shared += [part for path in choices.plugins for part in ("--plugin", str(path))]

    def make(one: Configuration) -> tuple[Job, ...]:
        values = {**choices.values, **one.assignments}

        def resolve(options: dict[str, Any]) -> RunConfig:
            return resolved(replace(choices, **options, values=values))

        arguments = [*shared, *_sets(one.assignments), "--purpose", "tuning"]
        planned = plan({**named, "queries": [spent], "seed": SEEDS}, arguments, resolve)
        return tuple(replace(job, note=brief(one.values)) for job in planned)

    return Plan(base, space, tried, [make(one) for one in tried], given, choices.preset, count, sampler, make)


def _sets(values: Mapping[str, Any]) -> list[str]:
    return [part for name, value in values.items() for part in ("--set", f"{name}={_text(value)}")]


def brief(values: Mapping[str, Any]) -> str:
    """Return the values of a configuration in a few words: ``lr=0.001 clip_nats=1.64``."""
    return " ".join(f"{name.partition('.')[2]}={_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    return "none" if value is None else repr(value) if isinstance(value, float) else str(value)


def _refuse_fixed(space: Iterable[Dimension], values: Mapping[str, Any], config: RunConfig) -> None:
    owners = {"run": "run", "algorithm": config.algorithm_name, "wrapper": config.wrapper_name}
    for one in space:
        part, _, name = one.name.partition(".")
        for given in values:
            prefix, _, own = given.rpartition(".")
            if own == name and prefix in ("", part, owners[part]):
                raise UserError(
                    f"{given} is what b2bench tune searches in {config.algorithm_name}; try without it in --set"
                )


def first_stage(plans: Iterable[Plan]) -> list[Job]:
    """Return the jobs of stage 1, as far as they are known: every configuration with the first seed."""
    return [jobs[0] for cell in plans for jobs in cell.jobs]


def due(cell: Plan, ended: Collection[Key]) -> list[Job]:
    """Return the jobs of stage 1 that are to be run. A run that failed is tried again, but not if later points rest on
    its score: it would change them.
    """
    return [job for job in first_stage([cell]) if cell.sampler is Sampler.sobol or job.key not in ended]


def grown(cell: Plan, tried: Sequence[Tried]) -> Plan:
    """Return the plan with the next generation, by what came of those before; as it is if there is none yet, or no
    more.
    """
    if not cell.unknown or unfinished(tried, 1):
        return cell
    known = [(one.values, one.mean(SEEDS[:1])) for one in tried]
    new = proposed(cell.space, known, cell.sampler, cell.count)
    configurations = [*cell.configurations, *new]
    return replace(cell, configurations=configurations, jobs=[*cell.jobs, *map(cell.make, new)])


def second_stage(cell: Plan, tried: Sequence[Tried]) -> list[Job]:
    """Return the jobs of stage 2: the top quarter with the other seeds."""
    return [job for i in top_quarter(tried, SEEDS[0]) for job in cell.jobs[i][1:]]


def outcome(cell: Plan, trials: Mapping[Key, Trial]) -> list[Tried]:
    """Return every configuration of a cell with its trials; a run that has not ended is none."""
    return [
        Tried(one.kind, one.values, {job.config.seed: trials[job.key] for job in of if job.key in trials})
        for one, of in zip(cell.configurations, cell.jobs, strict=True)
    ]


def unfinished(tried: Sequence[Tried], seeds: int) -> int:
    """Count the runs that should have ended and have not: all with the first seed, and of the top quarter ``seeds``."""
    first = sum(SEEDS[0] not in one.trials for one in tried)
    if first or seeds == 1:
        return first
    return sum(seed not in tried[i].trials for i in top_quarter(tried, SEEDS[0]) for seed in SEEDS[:seeds])
