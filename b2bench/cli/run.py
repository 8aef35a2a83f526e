"""``b2bench run``."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from b2bench.cli.completion import algorithms, presets, prompt_sets, wrappers
from b2bench.cli.garbage import unsearched
from b2bench.cli.interrupts import INTERRUPTS
from b2bench.cli.options import DEFAULT_DB, AsJson, Backbone, Db, Plugin, Purpose, Queries, Reward, Set, Threads, beside
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.config.choices import Choices, is_whole, quickened, refuse_beside_resume, resolved, with_file

if TYPE_CHECKING:  # --help does without it
    from b2bench.training.listener import Listener
    from b2bench.training.request import Request
    from b2bench.training.summary import Summary


def run(
    algo: Annotated[
        str | None,
        typer.Option(
            help="Algorithm (b2bench ls algorithms)  [required, here or by a preset]", autocompletion=algorithms
        ),
    ] = None,
    wrapper: Annotated[
        str | None,
        typer.Option(help="Wrapper (b2bench ls wrappers)  [vanilla]", autocompletion=wrappers),
    ] = None,
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompt set (b2bench ls prompts), text file or folder  [the backbone's: template1]",
            autocompletion=prompt_sets,
        ),
    ] = None,
    queries: Queries = None,
    seed: Annotated[int | None, typer.Option(help="Training seed  [0]")] = None,
    purpose: Annotated[
        Purpose, typer.Option(help="A final run; or a tuning run, which has a seed from 1000 on; reports leave it out")
    ] = Purpose.final,
    db: Db = DEFAULT_DB,
    out: Annotated[Path, typer.Option(help="Folder for the run folder")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A run of about a minute, to see that all works; too short to tell anything"),
    ] = False,
    set_: Set = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file: algo, wrapper, backbone, reward, prompts, queries, seed, and a table [set]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Published settings: paper, ddpo-pytorch, ... (b2bench ls presets) or a file", autocompletion=presets
        ),
    ] = None,
    plugin: Plugin = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Run to continue from its last checkpoint; alone, or with the whole command that started it"),
    ] = None,
    threads: Threads = None,
    vram: Annotated[
        float | None, typer.Option(help="GiB of the GPU; chooses micro-batches and checkpointing that fit")
    ] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, help="Processes that share the run: one for each GPU, or parts of the CPU's cores"),
    ] = 1,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Tell a tracker, too: wandb, tensorboard (extras) or trackio; several: a,b or repeat it"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model, and log every reward query. An algorithm trains the backbone under a wrapper."""
    # More than 80 lines: 40 are options, and an interrupt must find its run wherever it comes.
    INTERRUPTS.end_at_once(_how_to_go_on(resume, db, out))
    from b2bench.config.given import run_name
    from b2bench.config.run import check_shares
    from b2bench.terminal.progress import RunProgress, work_of
    from b2bench.training.launch import has_gpus, is_first, is_one_of_several, launch, world

    options: dict[str, Any] = {"algo": algo, "wrapper": wrapper, "backbone": backbone, "reward": reward}
    options |= {"prompts": prompts, "queries": queries, "seed": seed}
    choices = Choices(**options, plugins=tuple(plugin or ()), preset=preset, tuning=purpose is Purpose.tuning)
    others = {"--set": set_, "--config": config, "--preset": preset, "--plugin": plugin, "--vram": vram}
    others |= {"--purpose": choices.tuning, "--quick": quick}
    if resume is not None and (name is not None or not is_whole(choices, config)):
        refuse_beside_resume(choices, others | {"--name": name})
    again = bool(choices.options or any(others.values()))
    console, run_id = stderr(), resume
    with ExitStack() as stack:
        loading = stack.enter_context(ExitStack())
        loading.enter_context(unsearched())
        try:  # from here on an interrupt says what it left
            from b2bench.store.store import Store
            from b2bench.training.request import to_resume, to_start

            store = Store(db)
            name = run_name(name)
            chosen = None
            if resume is None or again:
                wanted = with_file(choices, config, set_ or [])
                chosen = resolved(quickened(wanted) if quick else wanted)
                if vram is not None:
                    from b2bench.estimate.fit import within

                    chosen = within(chosen, vram, wanted.values)
            if resume is not None:
                request = to_resume(resume, store, chosen)
                run_id = request.run_id
            else:
                assert chosen is not None
                request = to_start(chosen, store, name)
            if request.done is not None:
                _show_again(request, out, as_json)
                return
            if processes > 1 and not is_one_of_several():
                if request.config is not None:
                    check_shares(request.config, processes)
                INTERRUPTS.raise_them()  # it passes them on
                raise typer.Exit(launch(processes, sys.argv[1:], cpu=not has_gpus(processes)))
            progress = RunProgress(
                console,
                request.budget,
                request.reward,
                quiet=not is_first(),
                work=lambda: None if request.config is None else work_of(request.config),
                processes=world(),
                on_begin=partial(_begin, loading),
                on_stage=INTERRUPTS.check,
            )
            listener: Listener = stack.enter_context(progress)
            if track and is_first():
                listener = _tracked(track, request, out, listener, stack)
            summary = request.make(out, threads, listener)
        except KeyboardInterrupt as stop:  # with the run's id, once it is in the store
            INTERRUPTS.ignore()  # a second Ctrl-C must not cut off how to resume
            stack.close()
            _say(_how_to_go_on(stop.args[0] if stop.args else run_id, db, out))
            raise typer.Exit(1) from None
    if is_first():
        _show(summary, as_json)


def _begin(loading: ExitStack) -> None:
    """All is loaded: end what holds while it is, and let an interrupt be raised."""
    INTERRUPTS.raise_them()
    loading.close()


def _tracked(names: list[str], request: Request, out: Path, listener: Listener, stack: ExitStack) -> Listener:
    """Return a listener that tells trackers, too."""
    import os

    listener.stage("importing torch")
    from b2bench.training.listener import Several
    from b2bench.training.track import Tracking, check_tracker, settings_of

    names = [name.strip() for text in names for name in text.split(",")]
    for name in names:
        check_tracker(name)
    config = settings_of(request.config.as_dict() if request.config is not None else request.stored)
    project = os.environ.get("WANDB_PROJECT", "b2bench")
    more = [Tracking(name, config, out, listener.warned, project) for name in dict.fromkeys(names)]
    return Several(listener, *(stack.enter_context(one) for one in more))


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


def _show_again(request: Request, out: Path, as_json: bool) -> None:
    """Say that a run was finished before; as JSON also what it was."""
    from b2bench.training.launch import is_first
    from b2bench.training.summary import summary_again

    assert request.done is not None
    store = request.store
    show = shlex.join(["b2bench", "show", request.done["run_id"], *beside(store.path)])
    _say(f"run {request.name} is done already, in {store.path}; {show} prints it")
    if as_json and is_first():
        _show(summary_again(store, request.done, out), as_json)


def _show(summary: Summary, as_json: bool) -> None:
    """Print what a run did."""
    from b2bench.terminal.progress import summary_table, verdict_text

    if as_json:
        print_json({**vars(summary), "verdict": summary.verdict})
        return
    console = stdout()
    console.print(summary_table(summary))
    console.print(verdict_text(summary), soft_wrap=True)
    picture = f"picture  {summary.picture}\n" if summary.picture else ""
    console.print(
        f"{summary.queries_per_second:.1f} queries a second, {summary.seconds:.0f} s\n"
        f"rows     {summary.db} (run {summary.run_id})\nweights  {summary.weights}\n"
        f"{picture}"
        f"next     {shlex.join(['b2bench', 'show', summary.run_id, *beside(summary.db)])}\n"
        f"         {shlex.join(['b2bench', 'report', *beside(summary.db)])}",
        soft_wrap=True,
    )
