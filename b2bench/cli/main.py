"""The command line. It imports no torch until a command needs it, so that --help is instant."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import signal
import sys
from contextlib import ExitStack, closing
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from b2bench import benchmark_version, both_versions
from b2bench.errors import Refused, RunFailed, UserError
from b2bench.text import described, shortened, visible

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the boxes would import rich.markdown: half of the time that --help takes
    help="Which RL algorithm and sampling wrapper fine-tunes a text-to-image diffusion model best per reward query?",
)
pocket = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The embedded model: rebuild its weights, look at its images."
)
app.add_typer(pocket, name="pocket")


class Split(Enum):
    """The two parts of a prompt set."""

    train = "train"
    test = "test"


Db = Annotated[Path, typer.Option("--db", help="DuckDB file that holds the runs")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
_BACKBONE = "pocket, sd14, a pipeline folder or .safetensors file, or a hub id"
DEFAULT_DB = Path("b2bench.duckdb")
LONGEST_REASON = 1000  # characters of an error; what it quotes may be a whole file
ART_CACHE = Path("pocket-build") / "art"  # where `pocket build` has it too


def stdout() -> Console:
    """What is printed are the user's paths and names: no bracket or colon in them is markup."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """JSON on stdout; what is not a finite number is null, because JSON knows no NaN."""

    def finite(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the package's version and the benchmark's")] = False,
) -> None:
    if version:
        typer.echo(both_versions())
        raise typer.Exit


DEFAULTS: dict[str, Any] = {
    "algo": None,
    "wrapper": "vanilla",
    "backbone": "pocket",
    "reward": "clipscore",
    "prompts": None,
    "queries": 2400,
    "seed": 0,
}


def _given(options: dict[str, Any], config_file: Path | None, assignments: list[str]) -> dict[str, Any]:
    """What the config file says, and over it the command line; hyperparameters under "set"."""
    from b2bench.config.given import parse_assignments, read_config_file
    from b2bench.text import suggestion

    content = read_config_file(config_file) if config_file else {}
    values = content.pop("set", {})
    if not isinstance(values, dict):
        raise UserError(f"config file {config_file}: 'set' must be a table of hyperparameters")
    for name, value in content.items():
        if name not in DEFAULTS:
            raise UserError(
                f"config file {config_file}: unknown option {name!r}.{suggestion(name, DEFAULTS)} "
                f"Options: {', '.join(DEFAULTS)}; hyperparameters go into [set]"
            )
        wanted = int if name in ("queries", "seed") else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UserError(f"config file {config_file}: {name} = {value!r} is no {wanted.__name__}")
    given = content | {name: value for name, value in options.items() if value is not None}
    given["set"] = values | parse_assignments(assignments)
    return given


def _merged(options: dict[str, Any], config_file: Path | None, assignments: list[str]) -> dict[str, Any]:
    """Defaults, and over them what is given."""
    return DEFAULTS | _given(options, config_file, assignments)


def _resolve(merged: dict[str, Any], plugins: list[Path], preset: str | None = None) -> Any:
    """A run of ``merged`` options; with a preset, ``merged`` is what was given, and the preset stands behind it."""
    from b2bench.config.resolve import resolve, resolve_preset
    from b2bench.registry import Registry

    if preset is not None:
        options = {name: value for name, value in merged.items() if name != "set"}
        return resolve_preset(preset, given=options, defaults=DEFAULTS, values=merged["set"], plugins=tuple(plugins))
    if merged["algo"] is None:
        raise UserError(f"name an algorithm with --algo: {', '.join(Registry('algorithm').names())}")
    return resolve(
        algorithm=merged["algo"],
        wrapper=merged["wrapper"],
        reward=merged["reward"],
        backbone=merged["backbone"],
        prompts=merged["prompts"],
        queries=merged["queries"],
        seed=merged["seed"],
        values=merged["set"],
        plugins=tuple(plugins),
    )


@app.command()
def run(
    algo: Annotated[str | None, typer.Option(help="Algorithm: ddpo, pg, dpo, dpok, or a plugin's")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrapper: vanilla, bpt, bs, b2  [vanilla]")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"{_BACKBONE}  [pocket]")] = None,
    reward: Annotated[str | None, typer.Option(help="clipscore, bertscore, success  [clipscore]")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A prompt set (b2bench ls prompts), or a text file  [the backbone's: template1]")
    ] = None,
    queries: Annotated[int | None, typer.Option(help="Budget in reward queries  [2400]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw  [0]")] = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path, typer.Option(help="Folder that receives the run folder")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="A name for the run")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any hyperparameter: name=value")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file: algo, wrapper, backbone, reward, prompts, queries, seed, and a table [set]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Published settings: paper, ddpo-pytorch, ... (b2bench ls presets), or a file")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    resume: Annotated[str | None, typer.Option(help="Continue this run from its last checkpoint")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads  [all cores, or OMP_NUM_THREADS]")] = None,
    vram: Annotated[
        float | None, typer.Option(help="GiB of the GPU's memory: micro-batches and checkpointing are chosen to fit")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that share the run: one a GPU, or parts of the CPU's cores")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a backbone with an algorithm under a wrapper, and log every reward query."""
    from b2bench.config.given import check_text
    from b2bench.config.run import check_shares
    from b2bench.terminal.progress import RunProgress, summary_table
    from b2bench.training.launch import has_gpus, is_first, is_one_of_several, launch

    options = {
        "algo": algo,
        "wrapper": wrapper,
        "backbone": backbone,
        "reward": reward,
        "prompts": prompts,
        "queries": queries,
        "seed": seed,
    }
    if resume is not None:
        given = [f"--{option}" for option, value in options.items() if value is not None]
        others = (
            ("--set", set_),
            ("--config", config),
            ("--preset", preset),
            ("--plugin", plugin),
            ("--vram", vram),
        )
        given += [flag for flag, value in others if value]
        if given:
            raise UserError(f"--resume continues a run as it was started; leave out {', '.join(given)}")
    console, run_id = stderr(), resume
    with ExitStack() as stack:
        try:
            from b2bench.store.store import Store

            store = Store(db)
            check_text("--name", name)
            if resume is not None:
                row = store.find_run(resume)
                run_id, budget, reward_name = row["run_id"], row["budget"], row["reward"]
            else:
                merge = _merged if preset is None else _given
                resolved = _resolve(merge(options, config, set_ or []), plugin or [], preset)
                if vram is not None:
                    from b2bench.estimate.fit import within

                    resolved = within(resolved, vram)
                store.check()
                same = store.named_run(name, resolved.cell_hash(), resolved.seed, benchmark_version())
                if same is not None and same["status"] == "done":
                    if is_first():
                        text = f"run {name} is done already, in {db}; b2bench show {same['run_id']} prints it"
                        console.print(text, soft_wrap=True, markup=False)
                    return
                budget, reward_name = resolved.queries, resolved.reward_name
            if processes > 1 and not is_one_of_several():
                if resume is None:
                    check_shares(resolved, processes)
                raise typer.Exit(launch(processes, sys.argv[1:], cpu=not has_gpus(processes)))
            progress = stack.enter_context(RunProgress(console, budget, reward_name, quiet=not is_first()))
            progress.stage("importing torch")
            from b2bench.training import runs, setup

            setup.limit_threads(threads)
            if resume is not None:
                summary = runs.resume(resume, store, out, progress)
            else:
                summary = runs.start(resolved, store, out, name, progress)
        except KeyboardInterrupt as stop:  # with the run's id, once it is in the store
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut off how to resume
            stack.close()
            run_id = stop.args[0] if stop.args else run_id
            text = "interrupted before the run began; nothing of it is stored"
            if run_id is not None:
                again = shlex.join(["b2bench", "run", "--resume", run_id, "--db", str(db), "--out", str(out)])
                text = f"interrupted; every finished round is in {db}. Continue with: {again}"
            if is_first():
                console.print(text, soft_wrap=True)
            raise typer.Exit(1) from None
    if not is_first():
        return
    if as_json:
        print_json(vars(summary) | {"db": str(db)})
        return
    console = stdout()
    console.print(summary_table(summary))
    console.print(
        f"{summary.queries_per_second:.1f} queries a second, {summary.seconds:.0f} s\n"
        f"rows     {db} (run {summary.run_id})\nweights  {summary.weights}\n"
        "next     b2bench report",
        soft_wrap=True,
    )


@app.command()
def sweep(
    algo: Annotated[str | None, typer.Option(help="Algorithms: ddpo,dpok, or all")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrappers: vanilla,b2, or all  [vanilla]")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds: 0-4, or 0,1,7  [0]")] = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt sets, or text files  [the backbone's]")] = None,
    reward: Annotated[str | None, typer.Option(help="Rewards  [clipscore]")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbones  [pocket]")] = None,
    queries: Annotated[str | None, typer.Option(help="Budgets in reward queries  [2400]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any hyperparameter, of every run: name=value")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file: lists algo, wrapper, seeds, prompts, ..., and a table [set]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings of every run, or a file")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Runs at once, each with its part of the cores  [1; on Ray: what has room]"),
    ] = None,
    ray: Annotated[str | None, typer.Option(help="Run on a Ray cluster: auto, or HOST:PORT  (docs/scale.md)")] = None,
    cpus_per_run: Annotated[int, typer.Option(min=1, help="On Ray: CPUs, and threads, of a run")] = 1,
    gpus_per_run: Annotated[
        float | None, typer.Option(min=0, max=1, help="On Ray: GPUs of a run, or a share of one  [1 if there are any]")
    ] = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path, typer.Option(help="Folder that receives the run folders")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, its cost and each command")] = False,
    as_json: AsJson = False,
) -> None:
    """Do every combination of choices; finished runs are skipped, broken-off ones resumed."""
    from b2bench.store.store import Store
    from b2bench.sweep.local import Sweep
    from b2bench.terminal.sweep import SweepView, counted, logs_of, plan_rows, plan_table, thread_count

    lists = {"algo": algo, "wrapper": wrapper, "prompts": prompts, "reward": reward, "backbone": backbone}
    given = {**lists, "queries": queries, "seeds": seeds}
    planned, refused = _planned(given, config, set_ or [], preset, plugin or [])
    store = Store(db)
    store.check()
    found = Sweep(planned, store, out, at_once=jobs or 1, threads=thread_count(jobs or 1))
    if dry_run:
        found.look()
        rows = plan_rows(found)
        if as_json:
            print_json(rows)
        else:
            stdout().print(plan_table(rows))
            for row in rows:  # whole, to be copied
                typer.echo(shlex.join(row["command"]))
            for refusal in refused:
                stdout().print(f"refused: {refusal}", markup=False, soft_wrap=True)
        return
    console, kept = stderr(), "round"
    if refused:
        store.record_refusals([refusal.row for refusal in refused])
    for refusal in refused:
        console.print(f"refused: {refusal}", markup=False, soft_wrap=True)
    with ExitStack() as stack:
        if ray is not None:
            from b2bench.sweep.ray_cluster import RayCluster
            from b2bench.sweep.ray_sweep import RaySweep

            console.print(f"connecting to the Ray cluster {ray}", markup=False)
            cluster, kept = stack.enter_context(closing(RayCluster(ray, cpus_per_run, gpus_per_run))), "run"
            found = RaySweep(planned, store, out, at_once=jobs or 0, threads=cpus_per_run, cluster=cluster)
        try:
            with SweepView(console, found):
                found.run()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            again = f"every finished {kept} is in {db}. The same command goes on"
            console.print(f"interrupted ({counted(found.progress)}); {again}", soft_wrap=True)
            raise typer.Exit(1) from None
    if as_json:
        print_json([{"run": p.job.label, "state": p.state, "run_id": p.run_id, "note": p.note} for p in found.progress])
    else:
        stdout().print(f"{counted(found.progress)}; rows in {db}; next: b2bench report --db {db}", soft_wrap=True)
    if failed := logs_of(found.progress):
        console.print(f"what the runs that failed said is in {', '.join(map(str, failed))}", soft_wrap=True)
        raise typer.Exit(1)


def _planned(
    given: dict[str, str | None], config: Path | None, assignments: list[str], preset: str | None, plugins: list[Path]
) -> tuple[list[Any], list[Refused]]:
    """The jobs of a sweep, by its file and over it the command line, and the combinations that are refused."""
    from b2bench.config.given import parse_assignments, read_config_file
    from b2bench.registry import Registry
    from b2bench.sweep.plan import parse_list, parse_seeds, plan
    from b2bench.text import suggestion

    content = read_config_file(config) if config else {}
    values = content.pop("set", {})
    if not isinstance(values, dict):
        raise UserError(f"config file {config}: 'set' must be a table of hyperparameters")
    for name, value in content.items():
        if name not in given:
            raise UserError(f"config file {config}: unknown option {name!r}.{suggestion(name, list(given))}")
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
            raise UserError(f"config file {config}: {name} = {value!r} is no list of names or numbers")
        content[name] = ",".join(map(str, parts))
    texts = content | {name: value for name, value in given.items() if value is not None}
    values |= parse_assignments(assignments)
    if "algo" not in texts and preset is None:
        raise UserError(f"name algorithms with --algo: {', '.join(Registry('algorithm').names())}, or all")
    everything = {"algo": Registry("algorithm").names, "wrapper": Registry("wrapper").names}
    choices: dict[str, list[Any]] = {"seed": parse_seeds(str(texts.pop("seeds", "0")))}
    for name, text in texts.items():
        choices[name] = parse_list(name, text, everything[name]() if name in everything else ())
    if "queries" in choices:
        if not all(str(number).isdecimal() for number in choices["queries"]):
            raise UserError(f"--queries {texts['queries']!r}: write whole numbers")
        choices["queries"] = [int(number) for number in choices["queries"]]
    shared = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    shared += ["--preset", preset] if preset is not None else []
    shared += [part for path in plugins for part in ("--plugin", str(path))]

    refused: dict[tuple[Any, ...], Refused] = {}

    def resolve(options: dict[str, Any]) -> Any:
        merged = options | {"set": values}
        try:
            return _resolve(merged if preset is not None else DEFAULTS | merged, plugins, preset)
        except Refused as refusal:
            refused[tuple(refusal.row.values())] = refusal  # once, whatever the seed
            return None

    planned = plan(choices, shared, resolve)
    if refused and not planned:
        raise next(iter(refused.values()))
    return planned, list(refused.values())


class ReportFormat(StrEnum):
    """How a report is written."""

    terminal = "terminal"
    markdown = "markdown"
    html = "html"
    json = "json"
    csv = "csv"
    latex = "latex"


@app.command()
def report(
    db: Db = DEFAULT_DB,
    written_as: Annotated[ReportFormat, typer.Option("--format", help="How it is written")] = ReportFormat.terminal,
    out: Annotated[
        Path | None, typer.Option(help="File to write; Markdown goes between the markers of one that has them")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Show a part: algorithm=ddpo,pg; wrapper, prompts, reward, backbone, ...")
    ] = None,
    margin: Annotated[float, typer.Option(help="Differences of alignment that count as none when shown")] = 0.01,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write the figures into, as SVG and PDF; Markdown and LaTeX show them")
    ] = None,
    title: Annotated[str, typer.Option(help="What the report is headed")] = "",
    runs: Annotated[Path, typer.Option(help="Folder of the run folders, for the grids of sample images")] = Path(
        "runs"
    ),
    seeds: Annotated[
        str, typer.Option(help="Seeds that every cell should have, such as 0-4; without it those that any cell has")
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where seeds are missing or versions mix")] = False,
    as_json: AsJson = False,
) -> None:
    """Leaderboard, ablation, compatibility, generalisation and diversity of the runs in the store."""
    from b2bench.leaderboard.selection import held, parse_where, problems, select
    from b2bench.leaderboard.tables import tables
    from b2bench.store.store import Store
    from b2bench.sweep.plan import parse_seeds

    if not 0 < margin < math.inf:
        raise UserError(f"--margin {margin:g} is not above 0, or no number")
    if as_json and written_as not in (ReportFormat.terminal, ReportFormat.json):
        raise UserError(f"--json and --format {written_as.value} are two formats: choose one")
    conditions, planned = parse_where(where or []), parse_seeds(seeds) if seeds else []
    store = Store(db)
    rows = store.runs(), store.evals(), store.rounds()
    every = tables(*rows, margin, store.refusals(), planned, store.evaluation_errors())
    found = select(every, conditions)
    if every and not found:
        stderr().print(f"no run fits --where; {held(every)}", soft_wrap=True, markup=False)
    if found or not every or written_as is not ReportFormat.terminal or as_json:
        _write_report(found, ReportFormat.json if as_json else written_as, out, store, runs, figures, visible(title))
    if check and (wrong := problems(found)):
        for line in wrong:
            stderr().print(line, soft_wrap=True, markup=False)
        raise typer.Exit(1)


def _write_report(
    found: Any, written_as: ReportFormat, out: Path | None, store: Any, runs: Path, figures: Path | None, title: str
) -> None:
    from b2bench.leaderboard.document import document
    from b2bench.leaderboard.terminal import render, to_json

    if title and written_as in (ReportFormat.json, ReportFormat.csv):
        raise UserError(f"--title heads a page: {written_as.value} has no place for it")
    if out is not None and written_as is ReportFormat.terminal:
        raise UserError("--out writes files: choose --format markdown, html, json, csv or latex with it")
    pictures = [] if figures is None else _write_figures(found, written_as, out, store, runs, figures)
    if written_as is ReportFormat.terminal:
        if title:
            stdout().print(title, style="bold", markup=False)
        render(found, stdout())
        return
    if written_as is ReportFormat.json and out is None:
        print_json(to_json(found))
        return
    from b2bench.leaderboard import written

    if written_as is ReportFormat.html:
        from b2bench.leaderboard.html import html

        text = html(found, heading=title or "b2bench report", samples=store.samples(), runs=runs)
    elif written_as is ReportFormat.json:
        text = json.dumps(to_json(found), indent=2, default=str, allow_nan=False) + "\n"
    elif written_as is ReportFormat.csv:
        text = written.csv_text(document(found))
    else:
        make = written.markdown if written_as is ReportFormat.markdown else written.latex
        text = make(document(found, pictures), title)
    if out is None:
        typer.echo(text, nl=False)
        return
    _write_file(out, text, between=written_as is ReportFormat.markdown)


def _write_figures(
    found: Any, written_as: ReportFormat, out: Path | None, store: Any, runs: Path, folder: Path
) -> list[list[Any]]:
    from b2bench.leaderboard.files import write_figures

    beside = Path() if out is None else out.parent
    if written_as is ReportFormat.latex and re.search(r"[^\w./ -]", os.path.relpath(folder, beside)):
        raise UserError(f"--figures {folder}: TeX reads characters of this name as commands; choose another")
    try:
        pictures = write_figures(found, folder, store.samples(), runs, beside)
    except OSError as error:
        raise UserError(f"--figures {folder} cannot be written: {error.strerror}") from None
    stderr().print(f"{sum(map(len, pictures))} figures as SVG and PDF in {folder}", soft_wrap=True, markup=False)
    return pictures


def _write_file(out: Path, text: str, *, between: bool) -> None:
    """Write ``text``, whole or not at all; ``between`` the markers of a file that has them."""
    from b2bench.leaderboard.files import write_whole
    from b2bench.leaderboard.written import BEGIN, between_markers

    try:
        if between and out.is_file() and BEGIN in (old := out.read_text(encoding="utf-8")):
            text = between_markers(old, text)
        write_whole(out, text.encode())
    except ValueError as error:
        raise UserError(f"--out {out}: {error}") from None
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    stdout().print(f"report in {out}", soft_wrap=True, highlight=False)


@app.command()
def merge(
    stores: Annotated[list[Path], typer.Argument(help="DuckDB files whose runs are wanted")],
    into: Annotated[Path, typer.Option("--into", help="DuckDB file that receives them; made where there is none")],
    as_json: AsJson = False,
) -> None:
    """Copy the runs of other stores into one; those that ended in it stay as they are."""
    from b2bench.store.store import Store

    for path in stores:
        Store(path).check_exists()
    target = Store(into)
    found = {str(path): target.merge(path) for path in stores}
    for path in stores:
        if others := target.differing(path):
            names = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            text = f"{path}: {len(others)} runs ended otherwise than in {into}, which stays as it is: {visible(names)}"
            stderr().print(text, soft_wrap=True, markup=False)
    if as_json:
        print_json({"into": str(into), "new": found})
        return
    for name, new in found.items():
        stdout().print(f"{name}: {len(new)} new runs", soft_wrap=True)
    stdout().print(f"{into} holds {len(target.runs()) if into.exists() else 0} runs", soft_wrap=True)


RESULTS = Path("leaderboard") / "results"
Folder = Annotated[Path, typer.Argument(help="Folder of Parquet files, one for each table")]


@app.command()
def export(
    folder: Folder = RESULTS,
    db: Db = DEFAULT_DB,
    where: Annotated[
        list[str] | None, typer.Option(help="Only these: algorithm=ddpo,pg; wrapper, prompts, reward, backbone, ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write ended runs as Parquet files, to publish or to keep beside code."""
    from b2bench.leaderboard.selection import CONTEXT_KEYS, parse_where
    from b2bench.store.parquet import export_results
    from b2bench.store.store import Store

    wanted = {CONTEXT_KEYS.get(name, name): values for name, values in parse_where(where or []).items()}
    ids = export_results(Store(db), folder, wanted)
    if as_json:
        print_json({"folder": str(folder), "runs": ids})
    else:
        stdout().print(f"{len(ids)} runs in {folder}", soft_wrap=True)


@app.command(name="import")
def import_(folder: Folder = RESULTS, db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Take runs that were exported into the store; those that ended in it stay as they are."""
    from b2bench.store.parquet import import_results
    from b2bench.store.store import Store

    ids = import_results(Store(db), folder)
    if as_json:
        print_json({"db": str(db), "new": ids})
    else:
        stdout().print(f"{len(ids)} new runs in {db}", soft_wrap=True)


@app.command(name="ls")
def list_names(
    what: Annotated[str, typer.Argument(help="algorithms, wrappers, rewards, prompts, backbones or runs")],
    db: Db = DEFAULT_DB,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    as_json: AsJson = False,
) -> None:
    """List what there is, with its properties."""
    from b2bench.describe.listing import listing
    from b2bench.terminal.show import listing_table

    rows = listing(what, db, plugin or [])
    if as_json:
        print_json(rows)
    else:
        stdout().print(listing_table(what, rows))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="An algorithm, wrapper, reward, prompt set, backbone, or a run")],
    db: Db = DEFAULT_DB,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    as_json: AsJson = False,
) -> None:
    """Show one of them in full: what it is, its hyperparameters and defaults; or what a run did."""
    from b2bench.describe.description import description
    from b2bench.terminal.show import render_description

    found = description(name, db, plugin or [])
    if as_json:
        print_json(found)
    else:
        render_description(found, stdout())


@app.command()
def doctor(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """What this machine has: devices, precisions, versions, checkpoints, disk. Exit 1 where something cannot work."""
    from rich import box
    from rich.table import Table

    from b2bench.describe.doctor import examine

    found = examine(db)
    if as_json:
        print_json([vars(finding) for finding in found])
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in ("", "", "what", "detail"):
            table.add_column(heading, overflow="fold")
        styles = {"ok": "green", "absent": "yellow", "broken": "red"}
        for finding in found:
            state = Text(finding.state, styles[finding.state])
            table.add_row(finding.part, state, Text(finding.name), Text(finding.detail))
        stdout().print(table)
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(1)


@app.command()
def estimate(
    algo: Annotated[str | None, typer.Option(help="Algorithm  [the preset's, or all]")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrapper  [the preset's, or all]")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"{_BACKBONE}  [pocket]")] = None,
    reward: Annotated[str | None, typer.Option(help="clipscore, bertscore, success  [clipscore]")] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set, or a text file  [the backbone's]")] = None,
    queries: Annotated[int | None, typer.Option(help="Budget in reward queries  [2400]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any hyperparameter: name=value")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file, as for run")] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings: paper, ... (b2bench ls presets)")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    vram: Annotated[float | None, typer.Option(help="GiB of a GPU: which micro-batches fit")] = None,
    margin: Annotated[float | None, typer.Option(help="Share of --vram that stays free  [0.15]")] = None,
    throughput: Annotated[float | None, typer.Option(help="Denoiser calls a second, in sampling  [assumed]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each cell  [the preset's, or 1]")] = None,
    as_json: AsJson = False,
) -> None:
    """Memory, disk, denoiser calls and hours of a run, or of a grid, before it is started. Nothing is trained."""
    options = {
        "algo": algo,
        "wrapper": wrapper,
        "backbone": backbone,
        "reward": reward,
        "prompts": prompts,
        "queries": queries,
    }
    with stderr().status("counting on the meta device"):
        configs, preset_seeds = _grid(options, config, set_ or [], plugin or [], preset)
        from b2bench.estimate import estimate as counting

        found = counting.estimate(
            configs,
            vram=None if vram is None else vram * counting.GIB,
            throughput=throughput,
            margin=counting.MARGIN if margin is None else margin,
            seeds=seeds or preset_seeds or 1,
        )
    if as_json:
        print_json(found.as_dict())
        return
    from b2bench.terminal.estimate import render

    render(found, stdout())


def _grid(
    options: dict[str, Any], config_file: Path | None, assignments: list[str], plugins: list[Path], preset: str | None
) -> tuple[list[Any], int | None]:
    """A run of every cell of ``options``, where an algorithm or wrapper that nobody names is all; a preset's seeds."""
    from b2bench.config.presets import load_preset
    from b2bench.registry import load_registries

    known = load_preset(preset) if preset is not None else None
    given = _given(options, config_file, assignments)
    named = {**(known.options if known else {}), **given}
    registries = load_registries(plugins)
    cells = [
        {"algo": algo, "wrapper": wrapper}
        for algo in ([named["algo"]] if named.get("algo") else registries["algorithm"].names())
        for wrapper in ([named["wrapper"]] if named.get("wrapper") else registries["wrapper"].names())
    ]
    configs = [
        _resolve((given if known else DEFAULTS | given) | cell, plugins, preset if known else None) for cell in cells
    ]
    return configs, known.seeds if known else None


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A plugin file, or the name of a built-in algorithm, wrapper or reward")],
    as_json: AsJson = False,
) -> None:
    """Test a plugin against the contract: finite, reaches the adapter, mutates nothing, deterministic, learns."""
    from b2bench.plugins.check import check_file

    results = check_file(file)
    if as_json:
        print_json([vars(result) for result in results])
    else:
        console = stdout()
        for result in results:
            mark = ("ok    ", "green") if result.passed else ("FAILED", "red")
            console.print(Text.assemble(mark, f" {result.plugin}: {result.name}"), soft_wrap=True)
            if not result.passed:
                console.print(f"       {result.reason}", soft_wrap=True)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="algorithm, wrapper or reward")],
    name: Annotated[str, typer.Argument(help="Its name; the file becomes NAME.py in the working folder")],
) -> None:
    """Write a plugin file that works, to start from."""
    from b2bench.plugins.scaffold import write_plugin

    path = write_plugin(kind, name, Path.cwd())
    stdout().print(f"wrote {path.name}\ntest it   b2bench check {path.name}", soft_wrap=True)


@app.command()
def evaluate(
    lora: Annotated[Path | None, typer.Argument(help="LoRA file or folder; left out: the pretrained model")] = None,
    backbone: Annotated[str | None, typer.Option(help=_BACKBONE)] = None,
    reward: Annotated[str | None, typer.Option(help="clipscore, bertscore, success")] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set (b2bench ls prompts), or a text file")] = None,
    queries: Annotated[int, typer.Option(min=0, help="Reward queries that the LoRA cost, as its owner says")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the evaluation noise: eval_seed  [0]")] = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Images of test prompts")] = None,
    db: Db = DEFAULT_DB,
    name: Annotated[str | None, typer.Option(help="A name for the row")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure anybody's LoRA by the protocol of runs, into the store."""
    from b2bench.config.given import check_text

    options = {"algo": "ddpo", "backbone": backbone, "reward": reward, "prompts": prompts}
    chosen = {"eval_images": eval_images, "eval_seed": seed}
    assignments = [f"{setting}={value}" for setting, value in chosen.items() if value is not None]
    if lora is not None and not lora.exists():
        raise UserError(f"{lora} does not exist; pass a LoRA .safetensors file or its folder")
    check_text("--name", name)
    check_text("the LoRA", str(lora))
    config = _resolve(_merged(options, None, assignments), [])
    from b2bench.store.store import Store
    from b2bench.studies.lora import evaluate_lora
    from b2bench.terminal.progress import LABELS

    console = stderr()
    with console.status("importing torch") as status:
        run_id, result = evaluate_lora(config, lora, queries, Store(db), name, lambda text: status.update(Text(text)))
    if as_json:
        print_json({"run_id": run_id, "metrics": [vars(metric) for metric in result.metrics], "db": str(db)})
        return
    from rich.table import Table

    table = Table(title=run_id, title_justify="left")
    for heading in ("split", "metric", "value", "images"):
        table.add_column(heading, justify="right" if heading in ("value", "images") else "left")
    for metric in result.metrics:
        table.add_row(metric.split, LABELS.get(metric.name, metric.name), f"{metric.value:.4f}", str(metric.n))
    stdout().print(table)


@app.command()
def profile(
    backbone: Annotated[str | None, typer.Option(help=f"{_BACKBONE}  [pocket]")] = None,
    reward: Annotated[str | None, typer.Option(help="clipscore, bertscore, success  [clipscore]")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="A prompt set or a text file; several: a,b or twice  [template1]")
    ] = None,
    split: Annotated[Split, typer.Option(help="Prompts to draw from: train, as training does, or test")] = Split.train,
    taus: Annotated[
        str | None, typer.Option(help="Steps to go where branches are made  [20,17,14,10,6,3 of 20]")
    ] = None,
    leaves: Annotated[int, typer.Option(min=2, help="Leaves of a branch")] = 5,
    branches: Annotated[int, typer.Option(min=2, help="Branches at each tau")] = 48,
    lora: Annotated[Path | None, typer.Option(help="LoRA file or folder; left out: the pretrained model")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of prompts, noise and bootstrap  [0]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="steps, eta, guidance, ...: name=value")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a plugin")] = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path | None, typer.Option(help="PNG file for the figure")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads  [all cores, or OMP_NUM_THREADS]")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of a reward is still open at several denoising steps, where branches would be made."""
    from b2bench.config.given import parse_assignments
    from b2bench.config.resolve import check_profile_values
    from b2bench.leaderboard.figures import check_png, draw_openness
    from b2bench.leaderboard.openness import check_taus, default_taus, rows
    from b2bench.leaderboard.terminal import profile_table
    from b2bench.store.store import Store
    from b2bench.terminal.progress import RunProgress

    wanted = parse_taus(taus)
    if out is not None:
        check_png(out)
    if lora is not None and not lora.exists():
        raise UserError(f"{lora} does not exist; pass a LoRA .safetensors file or its folder")
    options = {"algo": "ddpo", "backbone": backbone, "reward": reward, "seed": seed}
    configs = []
    for name in prompt_names(prompts or ["template1"]):
        configs.append(_resolve(_merged({**options, "prompts": name}, None, set_ or []), plugin or []))
    check_profile_values(configs[0], parse_assignments(set_ or []))
    names = [config.prompts.name for config in configs]
    if len(set(names)) < len(names):
        raise UserError(f"--prompts {','.join(names)}: two sets have the same name; rename one, or leave it out")
    steps, reward_name = configs[0].settings.steps, configs[0].reward_name
    chosen = check_taus(default_taus(steps) if wanted is None else wanted, steps)
    total = len(configs) * len(chosen) * branches * leaves
    with RunProgress(stderr(), total, reward_name) as progress:
        progress.stage("importing torch")
        from b2bench.studies.profile import profile as measure_profile
        from b2bench.training.setup import limit_threads

        limit_threads(threads)
        found = measure_profile(
            configs,
            lora,
            split=split.value,
            taus=chosen,
            branches=branches,
            leaves=leaves,
            store=Store(db),
            listener=progress,
        )
    queries = sum(result.queries for _, result in found)
    if out is not None:
        title = (
            f"{configs[0].backbone.name}, {reward_name}, {split.value} prompts, {branches} branches of {leaves} leaves"
        )
        draw_openness({result.prompts: result for _, result in found}, out, title)
    if as_json:
        profiles = [
            {"profile_id": profile_id, "prompts": result.prompts, "queries": result.queries, "rows": rows(result)}
            for profile_id, result in found
        ]
        print_json({"profiles": profiles, "queries": queries, "db": str(db), "figure": out and str(out)})
        return
    console = stdout()
    for _, result in found:
        console.print(profile_table(result, reward_name))
    console.print(
        Text(
            "share open: variance within branches / total variance, [95% interval, bootstrap over branches]; "
            f"best−worst grows with the {leaves} leaves of a branch; same style: share of its pairs of leaves\n",
            style="dim",
        )
    )
    ids = ", ".join(profile_id for profile_id, _ in found)
    figure = "" if out is None else f"\nfigure   {out}"
    console.print(f"{queries} reward queries\nrows     {db} ({ids}){figure}", soft_wrap=True)


def parse_taus(text: str | None) -> list[int] | None:
    """``"20,14"`` to [20, 14]; None stays None.

    Raises:
        UserError: an entry is no whole number.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--taus {text!r} is no list of whole numbers such as 20,14,6") from None


def prompt_names(given: list[str]) -> list[str]:
    """Each prompt set by itself: ``["a,b", "c"]`` to ``["a", "b", "c"]``, but a file keeps the commas of its name."""
    return [name for text in given for name in ([text] if os.path.exists(text) else text.split(","))]


@app.command()
def baseline(
    kind: Annotated[list[str], typer.Option(help="guidance, best-of, oracle or all; several: a,b or twice")],
    backbone: Annotated[str | None, typer.Option(help=f"{_BACKBONE}  [pocket]")] = None,
    reward: Annotated[str | None, typer.Option(help="clipscore, bertscore, success  [clipscore]")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A prompt set, or a text file  [the backbone's: template1]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the evaluation noise: eval_seed  [0]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="eval_images, steps, guidance, ...: name=value")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a reward")] = None,
    art: Annotated[
        Path | None, typer.Option(help="Oracle: folder with the art archives; left out: fetched by npm pack")
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Measure what is to be had without training: guidance scales, best-of-N, faithful scenes; for the report."""
    from b2bench.config.given import parse_assignments
    from b2bench.store.store import Store
    from b2bench.terminal.progress import baseline_table

    options = {"algo": "ddpo", "backbone": backbone, "reward": reward, "prompts": prompts}
    assignments = [*(set_ or []), *([] if seed is None else [f"eval_seed={seed}"])]
    console, store = stderr(), Store(db)
    with console.status("importing torch") as status:
        from b2bench.studies import baselines

        kinds = baselines.parse_kinds(kind)
        if art is not None and "oracle" not in kinds:
            raise UserError("--art is for --kind oracle, whose scenes are drawn; leave it out")
        config = _resolve(_merged(options, None, assignments), plugin or [])
        baselines.check_values(config, parse_assignments(assignments))

        def done(result: baselines.Result) -> None:
            text = "measured" if result.measured else "already in the store, left as it is"
            console.print(f"{result.baseline}: {text}", soft_wrap=True)

        try:
            results = baselines.run_baselines(
                config, kinds, store, art, ART_CACHE, lambda text: status.update(Text(text)), done
            )
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            console.print(f"interrupted; what was measured is in {db}, the same command goes on", soft_wrap=True)
            raise typer.Exit(1) from None
    evals = store.evals([result.run_id for result in results])
    if as_json:
        columns = ("split", "metric", "value", "n", "settings")
        rows = [
            vars(result)
            | {"metrics": [{c: row[c] for c in columns} for row in evals if row["run_id"] == result.run_id]}
            for result in results
        ]
        print_json({"baselines": rows, "db": str(db)})
        return
    console = stdout()
    console.print(baseline_table(results, evals, config.reward_name))
    console.print(f"rows     {db}\nnext     b2bench report", soft_wrap=True)


@pocket.command()
def build(
    art: Annotated[
        Path | None, typer.Option(help="Folder with the art archives; left out: fetched by npm pack")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for art, checkpoints and products")] = Path("pocket-build"),
    stage: Annotated[list[str] | None, typer.Option(help="Only these stages")] = None,
    install: Annotated[Path | None, typer.Option(help="Copy the finished weights into this folder")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a stage")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Stages at a time, each in a process of its own")] = 2,
    variant: Annotated[str, typer.Option(help="Style gap of the world: default, none or wide")] = "default",
) -> None:
    """Rebuild the pocket weights from the art: in stages, resumable, seeded (needs the extra 'pocket')."""
    from b2bench.pocket.build.command import build_weights

    build_weights(art, work, stage or [], install, threads, jobs, stderr(), variant)


@pocket.command()
def verify(
    art: Annotated[
        Path | None, typer.Option(help="Folder with the art archives; left out: fetched by npm pack")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of a build: its times are bars too")] = None,
    db: Annotated[
        Path | None, typer.Option(help="Store with runs: collapse and the cost of the default run too")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Model card to write the tables into")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the figures into")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images per template of the base model's figures")] = 1080,
    sweep_images: Annotated[int, typer.Option(min=1, help="Images per template and guidance")] = 180,
) -> None:
    """Measure every bar of the pocket weights; exit code 1 if one falls short (needs the extra 'pocket')."""
    from b2bench.pocket.build.verify import verify as measure

    measure(art, work, db, card, out, images, sweep_images, stderr(), stdout())


@pocket.command()
def gallery(
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    prompts: Annotated[
        str, typer.Option(help="Prompt sets, comma-separated")
    ] = "template1,pocket-template2,pocket-template3",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt")] = 8,
    rows: Annotated[int, typer.Option(min=1, help="Prompts of each set, spread over its test split")] = 4,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; left out: the default")] = None,
    lora: Annotated[Path | None, typer.Option(help="Draw with this LoRA")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise")] = 0,
) -> None:
    """Draw prompts x seeds into a PNG."""
    from b2bench.studies.gallery import draw_gallery

    draw_gallery(out, prompts.split(","), seeds, rows, guidance, lora, seed)
    stdout().print(f"wrote {out}", soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, a failed run 1."""
    # Threads that spin at barriers made two of them 50 times slower than one on a busy machine; OpenMP
    # reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal in ASCII, or a path that is no UTF-8
            stream.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
        if code == 130:  # typer caught a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        complain("error", error)
        sys.exit(2)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            typer.echo(error.format_message())
        elif message := error.format_message().strip():
            context = getattr(error, "ctx", None)
            hint = f"; {context.command_path} --help lists what there is" if context else ""
            complain("error", message.rstrip(".") + hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(1)
    except RunFailed as error:
        complain("run failed", error)
        sys.exit(1)
    except BaseException as error:
        reason = refused(error)
        if reason is None:
            raise
        complain("error", reason)
        sys.exit(2)


def refused(error: BaseException) -> str | None:
    """What a plugin, the system or DuckDB raised and nobody said more of; None for any other error, which is a bug."""
    registry = sys.modules.get("b2bench.registry")
    if registry is not None and (place := registry.place_in_plugin(error)):
        return f"plugin {place}: {described(error)}. Correct it and run again."
    duckdb = sys.modules.get("duckdb")  # an error of DuckDB's means that it is imported
    if duckdb is not None and isinstance(error, duckdb.Error):
        return "; ".join([*getattr(error, "__notes__", []), str(error).partition("\n")[0]])
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or str(error) or type(error).__name__)
    return None


def complain(what: str, reason: object = "") -> None:
    """One line on stderr; of several processes the first says it."""
    from b2bench.training.launch import is_first

    if is_first():
        # a line of several; what else a name is made of is to be seen
        text = shortened(visible(re.sub(r" *\r?\n\s*", " ", str(reason)).strip(" ")), LONGEST_REASON)
        parts = [(f"{what}:", "red"), f" {text}"] if text else [(what, "red")]
        stderr().print(Text.assemble(*parts), soft_wrap=True)


if __name__ == "__main__":
    main()
