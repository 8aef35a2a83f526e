"""``b2bench sweep``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from b2bench.cli.interrupts import INTERRUPTS
from b2bench.cli.options import DEFAULT_DB, AsJson, CpusPerRun, Db, GpusPerRun, Jobs, Plugin, Ray, beside
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.config.choices import Choices, name_sets, resolved
from b2bench.errors import Refused, UserError

if TYPE_CHECKING:  # --help does without it
    from b2bench.store.store import Store
    from b2bench.sweep.local import Sweep
    from b2bench.sweep.plan import Job


def sweep(
    algo: Annotated[str | None, typer.Option(help="Algorithms: ddpo,dpok, paper or all")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrappers: vanilla,b2, or all  [vanilla]")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds: 0-4, or 0,1,7  [0]")] = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt sets, text files or folders  [the backbone's]")] = None,
    reward: Annotated[str | None, typer.Option(help="Rewards  [clipscore]")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbones  [pocket]")] = None,
    queries: Annotated[str | None, typer.Option(help="Budgets in reward queries  [2400]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set any hyperparameter of every run: name=value")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file: lists named algo, wrapper, seeds, ..., and a table [set], of lists too"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings (b2bench ls presets), or a file")] = None,
    plugin: Plugin = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path, typer.Option(help="Folder for the run folders")] = Path("runs"),
    looks: Annotated[
        int, typer.Option(help="2: run half of the seeds; once they have ended, the same command runs the others")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, cost and commands; run nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every combination of choices. Finished runs are skipped, and interrupted ones are resumed."""
    from b2bench.store.database import FOR_HOURS
    from b2bench.store.store import Store
    from b2bench.sweep.local import Sweep
    from b2bench.sweep.plan import at_look
    from b2bench.terminal.sweep import SweepView, counted, logs_of, notices, plan_rows, thread_count

    lists = {"algo": algo, "wrapper": wrapper, "prompts": prompts, "reward": reward, "backbone": backbone}
    given = {**lists, "queries": queries, "seeds": seeds}
    planned, refused = _planned(given, config, set_ or [], preset, plugin or [])
    store = Store(db)
    store.check()
    planned, look = at_look(planned, looks, _ended(store))
    found = Sweep(planned, store, out, at_once=jobs or 1, threads=thread_count(jobs or 1))
    if dry_run:
        found.look()
        _show_plan(plan_rows(found), notices(planned), refused, as_json)
        return
    console = stderr()
    if refused:
        store.record_refusals([refusal.row for refusal in refused])
    for refusal in refused:
        console.print(f"refused: {refusal}", markup=False, soft_wrap=True)
    for notice in notices(planned):
        console.print(notice, markup=False, soft_wrap=True)
    kept = "round" if ray is None else "run"
    with sweeps(store, out, jobs, ray, cpus_per_run, gpus_per_run) as make:
        found = make(planned)
        try:
            with SweepView(console, found), store.waiting(FOR_HOURS):
                found.run()
        except KeyboardInterrupt:
            INTERRUPTS.ignore()
            again = f"every finished {kept} is in {db}. The same command goes on"
            console.print(f"interrupted ({counted(found.progress)}); {again}", soft_wrap=True)
            raise typer.Exit(1) from None
    if as_json:
        print_json([{"run": p.job.label, "state": p.state, "run_id": p.run_id, "note": p.note} for p in found.progress])
    else:
        report = shlex.join(["b2bench", "report", *beside(db), *(["--looks", "2"] if looks == 2 else [])])
        stdout().print(f"{counted(found.progress)}; rows in {db}; next: {report}", soft_wrap=True)
        if looks > look:
            stdout().print(f"look {look} of {looks}; the same command runs the other seeds", soft_wrap=True)
    if failed := logs_of(found.progress):
        console.print(f"the output of failed runs is in {', '.join(map(str, failed))}", soft_wrap=True)
        raise typer.Exit(1)


def _ended(store: Store) -> set[tuple[str, int]]:
    """Return the runs of this benchmark version that have ended, by the hash of their cell and their seed."""
    from b2bench.version import benchmark_version

    rows = store.runs(benchmark_version=benchmark_version()) if store.path.exists() else []
    return {(row["config_hash"], row["seed"]) for row in rows if row["status"] in ("done", "failed")}


@contextmanager
def sweeps(
    store: Store, out: Path, jobs: int | None, ray: str | None, cpus_per_run: int, gpus_per_run: float | None
) -> Iterator[Callable[[Sequence[Job]], Sweep]]:
    """Give what makes a sweep of jobs: on this machine, or on the Ray cluster, which is connected meanwhile."""
    from b2bench.sweep.local import Sweep
    from b2bench.terminal.sweep import thread_count

    if ray is None:
        at_once = jobs or 1
        yield lambda planned: Sweep(planned, store, out, at_once=at_once, threads=thread_count(at_once))
        return
    from b2bench.sweep.ray_cluster import RayCluster
    from b2bench.sweep.ray_sweep import RaySweep

    stderr().print(f"connecting to the Ray cluster {ray}", markup=False)
    with closing(RayCluster(ray, cpus_per_run, gpus_per_run)) as cluster:
        yield lambda planned: RaySweep(planned, store, out, at_once=jobs or 0, threads=cpus_per_run, cluster=cluster)


def _show_plan(rows: list[dict[str, Any]], notices: Sequence[str], refused: Sequence[Refused], as_json: bool) -> None:
    """Print the plan, each command whole, to be copied, what to know of it, and what is refused."""
    from b2bench.terminal.sweep import plan_table

    if as_json:
        print_json(rows)
        return
    stdout().print(plan_table(rows))
    for row in rows:
        typer.echo(shlex.join(row["command"]))
    for notice in notices:
        stdout().print(notice, markup=False, soft_wrap=True)
    for refusal in refused:
        stdout().print(f"refused: {refusal}", markup=False, soft_wrap=True)


def _planned(
    given: dict[str, str | None], config: Path | None, assignments: list[str], preset: str | None, plugins: list[Path]
) -> tuple[list[Any], list[Refused]]:
    """Return the jobs of a sweep, by its file and over it the command line, and the combinations that are refused."""
    from b2bench.config.given import parse_assignments, read_config_file
    from b2bench.config.run import check_seed
    from b2bench.registry import Kind, Registry
    from b2bench.sweep.plan import parse_list, parse_seeds, plan
    from b2bench.text import suggestion

    content = read_config_file(config) if config else {}
    values = content.pop("set", {})
    if not isinstance(values, dict):
        raise UserError(f"config file {config}: 'set' is not a table of hyperparameters; try [set]")
    for name, value in content.items():
        if name not in given:
            raise UserError(f"config file {config}: unknown option {name!r}.{suggestion(name, list(given))}")
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
            raise UserError(f"config file {config}: {name} = {value!r} is not a list of names or numbers")
        names = [str(part) for part in parts]
        # an item of a list is one name, whatever commas it has
        content[name] = names if isinstance(value, list) and name != "seeds" else ",".join(names)
    texts = content | {name: value for name, value in given.items() if value is not None}
    values |= parse_assignments(assignments)
    varied = {name: values.pop(name) for name, value in list(values.items()) if isinstance(value, list)}
    for name, listed in varied.items():
        if not listed:
            raise UserError(f"config file {config}: {name} = [] of [set] holds no value; try {name} = [VALUE, VALUE]")
    if "algo" not in texts and preset is None:
        raise UserError(
            f"no algorithm is named; try --algo with {', '.join(Registry('algorithm').names())}, paper or all"
        )
    kinds: dict[str, Kind] = {"algo": "algorithm", "wrapper": "wrapper"}
    choices: dict[str, list[Any]] = {"seed": parse_seeds(str(texts.pop("seeds", "0")))}
    for name, text in texts.items():
        kind = kinds.get(name)
        choices[name] = parse_list(name, text, name_sets(kind, Registry(kind)) if kind else None)
    if "queries" in choices:
        if not all(str(number).isdecimal() for number in choices["queries"]):
            raise UserError(f"--queries {texts['queries']!r} is not a list of whole numbers; try 2400 or 1200,2400")
        choices["queries"] = [int(number) for number in choices["queries"]]
    shared = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    shared += ["--preset", preset] if preset is not None else []
    shared += [part for path in plugins for part in ("--plugin", str(path))]

    refused: dict[tuple[Any, ...], Refused] = {}

    every = Choices(values=values, plugins=tuple(plugins), preset=preset)

    def resolve(options: dict[str, Any]) -> Any:
        try:
            own = options.pop("values", {})
            return resolved(replace(every, **options, values={**values, **own}))
        except Refused as refusal:
            refused[tuple(refusal.row.values())] = refusal  # once, whatever the seed
            return None

    planned = plan(choices, shared, resolve, varied)
    if refused and not planned:
        raise next(iter(refused.values()))
    for job in planned:
        check_seed(job.config)
    return planned, list(refused.values())
