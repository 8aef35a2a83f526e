"""``b2bench tune``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from b2bench.cli.interrupts import INTERRUPTS
from b2bench.cli.options import (
    DEFAULT_DB,
    AsJson,
    Backbone,
    CpusPerRun,
    Db,
    GpusPerRun,
    Jobs,
    Plugin,
    Ray,
    Reward,
    Set,
)
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.cli.sweep import sweeps
from b2bench.config.choices import Choices, name_sets
from b2bench.errors import Refused, UserError
from b2bench.search import FULL, GENERATION, QUICK, Sampler

if TYPE_CHECKING:  # --help does without it
    from b2bench.leaderboard.tuning import Tried, TuningRow
    from b2bench.store.store import Store
    from b2bench.sweep.local import Progress, Sweep
    from b2bench.sweep.plan import Job
    from b2bench.tuning.stages import Plan

OUT = Path("leaderboard") / "tuned"


def tune(
    algo: Annotated[str | None, typer.Option(help="Algorithms: ddpo,dpok, paper or all")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrappers: vanilla,b2, or all  [vanilla]")] = None,
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt set, text file or folder  [the backbone's]")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"{QUICK} configurations, half of the queries each  [the default]")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help=f"{FULL} configurations, all queries")] = False,
    configurations: Annotated[int | None, typer.Option(help="Number of configurations of each cell")] = None,
    queries: Annotated[int | None, typer.Option(help="Budget of each run in reward queries")] = None,
    sampler: Annotated[
        Sampler,
        typer.Option(help="Who names the points; all but sobol are Optuna's, and try other points in each cell"),
    ] = Sampler.sobol,
    set_: Set = None,
    preset: Annotated[str | None, typer.Option(help="Published settings (b2bench ls presets), or a file")] = None,
    plugin: Plugin = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    db: Db = DEFAULT_DB,
    runs: Annotated[Path, typer.Option(help="Folder for the run folders")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder for the presets, one for each cell")] = OUT,
    throughput: Annotated[
        float | None, typer.Option(help="With --dry-run: denoiser calls a second when sampling  [assumed]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, cost and commands; run nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune the settings of cells. The same points are tried in every cell, and the best of each become its preset.

    With --sampler tpe, gp or random (extra optuna) the points follow from the scores of each cell instead.
    """
    from b2bench.config.given import parse_assignments
    from b2bench.store.store import Store
    from b2bench.terminal.sweep import notices
    from b2bench.tuning.stages import first_stage
    from b2bench.tuning.written import file_of

    if quick and full:
        raise UserError("--quick and --full are two budgets; try one of them")
    options: dict[str, Any] = {"backbone": backbone, "reward": reward, "prompts": prompts}
    choices = Choices(**options, values=parse_assignments(set_ or []), plugins=tuple(plugin or ()), preset=preset)
    count = configurations if configurations is not None else FULL if full else QUICK
    plans, refused = _planned(choices, algo, wrapper, count, queries, sampler, half=not full)
    files = [file_of(cell, out) for cell in plans]
    store = Store(db)
    store.check()
    for refusal in refused:
        stderr().print(f"refused: {refusal}", markup=False, soft_wrap=True)
    if dry_run:
        _show_plan(plans, store, runs, throughput, as_json)
        return
    for notice in notices(first_stage(plans)):
        stderr().print(notice, markup=False, soft_wrap=True)
    work = _Work(plans, store, db, "round" if ray is None else "run")
    with sweeps(store, runs, jobs, ray, cpus_per_run, gpus_per_run) as make:
        work.do(make)
    _finish(work, files, as_json)


def _planned(
    choices: Choices,
    algo: str | None,
    wrapper: str | None,
    count: int,
    queries: int | None,
    sampler: Sampler,
    *,
    half: bool,
) -> tuple[list[Plan], list[Refused]]:
    """Plan the tuning of each cell, and list the cells that are refused."""
    from b2bench.config.presets import TUNED
    from b2bench.registry import load_registries
    from b2bench.sweep.plan import parse_list
    from b2bench.tuning.stages import plan_cell

    registries = load_registries(choices.plugins)
    names = registries["algorithm"].names()
    if algo is None:
        raise UserError(f"no algorithm is named; try --algo with {', '.join(names)}, paper or all")
    if choices.preset == TUNED:
        raise UserError(f"--preset {TUNED} is what b2bench tune writes; try without it")
    plans: list[Plan] = []
    refused: list[Refused] = []
    for name in parse_list("algo", algo, name_sets("algorithm", registries["algorithm"])):
        for wrapping in parse_list("wrapper", wrapper or "vanilla", name_sets("wrapper", registries["wrapper"])):
            try:
                one = replace(choices, algo=name, wrapper=wrapping)
                plans.append(plan_cell(one, count, queries, half=half, sampler=sampler))
            except Refused as refusal:
                refused.append(refusal)
    if not plans:
        raise refused[0]
    return plans, refused


def _show_plan(plans: Sequence[Plan], store: Store, runs: Path, throughput: float | None, as_json: bool) -> None:
    """Print what is to be run, what it costs, and the commands of the first stage."""
    from b2bench.sweep.local import Sweep
    from b2bench.terminal.sweep import notices, plan_rows, plan_table
    from b2bench.terminal.tune import cost_rows, cost_table
    from b2bench.tuning.stages import first_stage

    found = Sweep(first_stage(plans), store, runs)
    found.look()
    rows, costs = plan_rows(found), cost_rows(plans, throughput)
    if as_json:
        print_json({"cells": costs, "first_stage": rows})
        return
    console = stdout()
    unknown = sum(cell.unknown for cell in plans)
    heading = "The first stage; the second follows from its results"
    if unknown:
        heading = (
            f"The beginning of the first stage. Its other {unknown} runs, {GENERATION} of a cell at a time, are named "
            f"by sampler {plans[0].sampler} from the scores before them. The second stage follows from the first"
        )
    console.print(heading, style="bold", soft_wrap=True)
    console.print(plan_table(rows))
    for row in rows:
        typer.echo(shlex.join(row["command"]))
    console.print("\nBoth stages", style="bold")
    console.print(cost_table(costs))
    for notice in notices(first_stage(plans)):
        console.print(notice, markup=False, soft_wrap=True)


@dataclass
class _Work:
    """The two stages, and what their sweeps ended in; ``kept`` is what an interrupt leaves of a run."""

    plans: Sequence[Plan]
    store: Store
    db: Path
    kept: str

    def do(self, make: Callable[[Sequence[Job]], Sweep]) -> None:
        """Run both stages; the second for cells whose first is whole.

        Raises:
            typer.Exit: it was interrupted.
        """
        from b2bench.terminal.sweep import counted
        from b2bench.tuning.stages import second_stage, unfinished

        self.progress: list[Progress] = []
        try:
            self._first_stage(make)
            whole = [(cell, self.tried(cell)) for cell in self.plans if not cell.unknown]
            second = [job for cell, tried in whole if not unfinished(tried, 1) for job in second_stage(cell, tried)]
            if second:
                self._stage(make, "second stage", second)
        except KeyboardInterrupt:
            INTERRUPTS.ignore()
            again = f"every finished {self.kept} is in {self.db}. The same command goes on"
            stderr().print(f"interrupted ({counted(self.progress)}); {again}", soft_wrap=True)
            raise typer.Exit(1) from None

    def _first_stage(self, make: Callable[[Sequence[Job]], Sweep]) -> None:
        """Run what is known of the first stage, again and again where a sampler names more from the scores."""
        from b2bench.tuning.stages import due, grown
        from b2bench.tuning.trials import trials_of

        begun: set[tuple[str, int]] = set()
        while True:
            jobs = [job for cell in self.plans for job in due(cell, trials_of(self.store, cell.keys))]
            if jobs := [job for job in jobs if job.key not in begun]:
                unknown = sum(cell.unknown for cell in self.plans)
                self._stage(make, "first stage", jobs, f", then {unknown} by their scores" if unknown else "")
            begun |= {job.key for job in jobs}
            plans = [grown(cell, self.tried(cell)) for cell in self.plans]
            if all(new is old for new, old in zip(plans, self.plans, strict=True)):
                return
            self.plans = plans

    def tried(self, cell: Plan) -> list[Tried]:
        """Return what came of each configuration so far."""
        from b2bench.tuning.stages import outcome
        from b2bench.tuning.trials import trials_of

        return outcome(cell, trials_of(self.store, cell.keys))

    def _stage(self, make: Callable[[Sequence[Job]], Sweep], name: str, planned: Sequence[Job], more: str = "") -> None:
        from b2bench.store.database import FOR_HOURS
        from b2bench.terminal.sweep import SweepView

        console = stderr()
        console.print(f"{name}: {len(planned)} runs{more}", markup=False)
        found = make(planned)
        self.progress += found.progress
        with SweepView(console, found), self.store.waiting(FOR_HOURS):
            found.run()


def _finish(work: _Work, files: Sequence[Path], as_json: bool) -> None:
    """Write the presets and print what came of it.

    Raises:
        typer.Exit: some cell has no result.
    """
    from b2bench.config.prompt_sets import prompt_set_names
    from b2bench.describe.images import images_needed
    from b2bench.leaderboard.tuning import of_protocol, tuning_row
    from b2bench.terminal.sweep import logs_of
    from b2bench.terminal.tune import result_table
    from b2bench.tuning.stages import SEEDS, caveat, unfinished
    from b2bench.tuning.trials import code_of
    from b2bench.tuning.written import write_preset

    rows: list[tuple[TuningRow, Path, list[Tried]]] = []
    console, missing = stderr(), False
    for cell, path in zip(work.plans, files, strict=True):
        tried = work.tried(cell)
        if left := unfinished(tried, len(SEEDS)):
            console.print(f"{cell.name}: {left} runs did not end, so nothing is chosen; the same command goes on")
            missing = True
            continue
        try:
            tried = of_protocol(tried, SEEDS)
            row = tuning_row(cell.config.algorithm_name, cell.config.wrapper_name, tried, SEEDS)
        except ValueError:
            console.print(f"{cell.name}: every run failed before its first round was over, so nothing is chosen")
            missing = True
            continue
        code = code_of(work.store, [trial.run_id for one in tried for trial in one.trials.values()])
        write_preset(cell, tried, row, code, path)
        rows.append((row, path, tried))
    sampler = work.plans[0].sampler
    if as_json:
        said = {"sampler": sampler, "alike": sampler is Sampler.sobol}
        print_json([{**asdict(row), **said, "preset": str(path), "tried": tried} for row, path, tried in rows])
    elif rows:
        stdout().print(result_table([row for row, _, _ in rows]))
        if sampler is not Sampler.sobol:
            stdout().print(f"sampler {sampler}: {caveat(sampler)}", soft_wrap=True)
        one = work.plans[0].config
        plugins = [part for path in one.plugins for part in ("--plugin", path)]
        beside = [] if one.prompts_argument in prompt_set_names() else ["--prompts", one.prompts_argument]
        beside += [] if work.store.path == DEFAULT_DB else ["--db", str(work.store.path)]
        for row, path, _ in rows:
            given = [
                "--preset",
                str(path),
                "--algo",
                row.algorithm,
                "--wrapper",
                row.wrapper,
                "--seeds",
                "0-4",
                *plugins,
                *beside,
            ]
            stdout().print(f"{path}; next: {shlex.join(['b2bench', 'sweep', *given])}", soft_wrap=True)
        images = images_needed(work.store, one.backbone.name, one.prompts.name, one.reward_name)
        stdout().print(str(images["text"]), soft_wrap=True, markup=False)
    if logs := logs_of(work.progress):
        console.print(f"the output of failed runs is in {', '.join(map(str, logs))}", soft_wrap=True)
    if missing:
        raise typer.Exit(1)
