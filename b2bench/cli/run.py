"""``b2bench run``."""

from __future__ import annotations

import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from b2bench.cli.choices import Choices, resolved, with_file
from b2bench.cli.options import DEFAULT_DB, AsJson, Backbone, Db, Plugin, Queries, Reward, Set, Threads
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.errors import UserError
from b2bench.version import benchmark_version

if TYPE_CHECKING:  # --help does without it
    from b2bench.training.listener import Summary


def run(
    algo: Annotated[str | None, typer.Option(help="Algorithm: ddpo, pg, dpo, dpok, or a plugin's")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrapper: vanilla, bpt, bs, b2  [vanilla]")] = None,
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[
        str | None, typer.Option(help="A prompt set (b2bench ls prompts), or a text file  [the backbone's: template1]")
    ] = None,
    queries: Queries = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw  [0]")] = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path, typer.Option(help="Folder that receives the run folder")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="A name for the run")] = None,
    set_: Set = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file: algo, wrapper, backbone, reward, prompts, queries, seed, and a table [set]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Published settings: paper, ddpo-pytorch, ... (b2bench ls presets), or a file")
    ] = None,
    plugin: Plugin = None,
    resume: Annotated[str | None, typer.Option(help="Continue this run from its last checkpoint")] = None,
    threads: Threads = None,
    vram: Annotated[
        float | None, typer.Option(help="GiB of the GPU's memory: micro-batches and checkpointing are chosen to fit")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that share the run: one a GPU, or parts of the CPU's cores")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a backbone with an algorithm under a wrapper, and log every reward query."""
    # More than 80 lines: 31 are options, and an interrupt must find its run wherever it comes.
    from b2bench.config.given import check_text
    from b2bench.config.run import check_shares
    from b2bench.terminal.progress import RunProgress
    from b2bench.training.launch import has_gpus, is_first, is_one_of_several, launch

    choices = Choices(
        algo=algo,
        wrapper=wrapper,
        backbone=backbone,
        reward=reward,
        prompts=prompts,
        queries=queries,
        seed=seed,
        plugins=tuple(plugin or ()),
        preset=preset,
    )
    if resume is not None:
        others = {"--set": set_, "--config": config, "--preset": preset, "--plugin": plugin, "--vram": vram}
        _refuse_beside_resume(choices, others)
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
                chosen = resolved(with_file(choices, config, set_ or []))
                if vram is not None:
                    from b2bench.estimate.fit import within

                    chosen = within(chosen, vram)
                store.check()
                same = store.named_run(name, chosen.cell_hash(), chosen.seed, benchmark_version())
                if same is not None and same["status"] == "done":
                    _say(f"run {name} is done already, in {db}; b2bench show {same['run_id']} prints it")
                    return
                budget, reward_name = chosen.queries, chosen.reward_name
            if processes > 1 and not is_one_of_several():
                if resume is None:
                    check_shares(chosen, processes)
                raise typer.Exit(launch(processes, sys.argv[1:], cpu=not has_gpus(processes)))
            progress = stack.enter_context(RunProgress(console, budget, reward_name, quiet=not is_first()))
            progress.stage("importing torch")
            from b2bench.training import runs, setup

            setup.limit_threads(threads)
            if resume is not None:
                summary = runs.resume(resume, store, out, progress)
            else:
                summary = runs.start(chosen, store, out, name, progress)
        except KeyboardInterrupt as stop:  # with the run's id, once it is in the store
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut off how to resume
            stack.close()
            _say(_how_to_go_on(stop.args[0] if stop.args else run_id, db, out))
            raise typer.Exit(1) from None
    if is_first():
        _show(summary, db, as_json)


def _refuse_beside_resume(choices: Choices, others: dict[str, Any]) -> None:
    """Refuse what a run that goes on cannot have anew; ``others`` are values by flag.

    Raises:
        UserError: something is given.
    """
    given = [f"--{option}" for option in choices.options] + [flag for flag, value in others.items() if value]
    if given:
        raise UserError(f"--resume continues a run as it was started; leave out {', '.join(given)}")


def _how_to_go_on(run_id: str | None, db: Path, out: Path) -> str:
    """Say what an interrupted run left, and which command continues it."""
    if run_id is None:
        return "interrupted before the run began; nothing of it is stored"
    again = shlex.join(["b2bench", "run", "--resume", run_id, "--db", str(db), "--out", str(out)])
    return f"interrupted; every finished round is in {db}. Continue with: {again}"


def _say(text: str) -> None:
    """Print a line on stderr; of several processes the first does."""
    from b2bench.training.launch import is_first

    if is_first():
        stderr().print(text, soft_wrap=True)


def _show(summary: Summary, db: Path, as_json: bool) -> None:
    """Print what a run did."""
    from b2bench.terminal.progress import summary_table

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
