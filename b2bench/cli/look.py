"""``b2bench ls``, ``show``, ``doctor`` and ``estimate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from b2bench.cli.options import DEFAULT_DB, AsJson, Backbone, Db, Plugin, Queries, Reward, Set
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.config.choices import Choices, grid, with_file
from b2bench.errors import UserError

if TYPE_CHECKING:  # --help does without it
    from b2bench.config.run import RunConfig


def list_names(
    what: Annotated[str, typer.Argument(help="algorithms, wrappers, rewards, prompts, backbones, presets or runs")],
    db: Db = DEFAULT_DB,
    plugin: Plugin = None,
    as_json: AsJson = False,
) -> None:
    """List algorithms, wrappers, prompts, runs and more."""
    from b2bench.describe.listing import listing
    from b2bench.terminal.show import listing_table

    rows = listing(what, db, plugin or [])
    if as_json:
        print_json(rows)
    else:
        stdout().print(listing_table(what, rows))


def show(
    name: Annotated[
        str, typer.Argument(help="Algorithm, wrapper, reward, prompt set, backbone, preset or run, or settings")
    ],
    db: Db = DEFAULT_DB,
    plugin: Plugin = None,
    as_json: AsJson = False,
) -> None:
    """Show an algorithm, wrapper or run in full. It prints formulas and hyperparameters, or what a run did."""
    from b2bench.describe.description import RUN, description, hidden_run
    from b2bench.terminal.show import render_description

    found = description(name, db, plugin or [])
    if found["kind"] != "run" and hidden_run(name, db):
        stderr().print(f"a run has this name, too: b2bench show {RUN}{name} prints it", soft_wrap=True)
    if as_json:
        print_json(found)
    else:
        render_description(found, stdout())


def doctor(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Check devices, precisions, versions, checkpoints and disk. The exit code is 1 if something is broken."""
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


def estimate(
    algo: Annotated[str | None, typer.Option(help="Algorithm  [the preset's, else the paper's]")] = None,
    wrapper: Annotated[str | None, typer.Option(help="Wrapper  [the preset's, else the paper's]")] = None,
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt set, text file or folder  [the backbone's]")] = None,
    queries: Queries = None,
    set_: Set = None,
    config: Annotated[Path | None, typer.Option(help="TOML file, as for b2bench run")] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings: paper, ... (b2bench ls presets)")] = None,
    plugin: Plugin = None,
    vram: Annotated[float | None, typer.Option(help="GiB of a GPU; prints the micro-batches that fit")] = None,
    margin: Annotated[float | None, typer.Option(help="Share of --vram to keep free  [0.15]")] = None,
    throughput: Annotated[float | None, typer.Option(help="Denoiser calls a second when sampling  [assumed]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each cell  [the preset's, else 1]")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Say what tuning these cells costs, too: --quick of tune")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="With --tune: the cost of --full")] = False,
    db: Annotated[
        Path | None, typer.Option("--db", help="Store whose runs say how many test images are needed  [none]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the cost of a run or a grid.

    It counts memory, disk, denoiser calls and hours, with --tune also those of tuning. Nothing is trained.
    """
    from b2bench.describe.images import images_needed
    from b2bench.store.store import Store

    if full and not tune:
        raise UserError("--full is of the tuning; try --tune --full")
    store = None if db is None else Store(db)
    if store is not None:
        store.check_exists()
    choices = Choices(
        algo=algo,
        wrapper=wrapper,
        backbone=backbone,
        reward=reward,
        prompts=prompts,
        queries=queries,
        plugins=tuple(plugin or ()),
        preset=preset,
    )
    with stderr().status("counting on the meta device"):
        configs, preset_seeds = grid(with_file(choices, config, set_ or []))
        from b2bench.estimate import estimate as counting

        found = counting.estimate(
            configs,
            vram=None if vram is None else vram * counting.GIB,
            throughput=throughput,
            margin=counting.MARGIN if margin is None else margin,
            seeds=seeds or preset_seeds or 1,
        )
        costs = _tuning_costs(with_file(choices, config, set_ or []), configs, throughput, full=full) if tune else None
    one = configs[0]
    images = None if store is None else images_needed(store, one.backbone.name, one.prompts.name, one.reward_name)
    if as_json:
        more = ({} if costs is None else {"tuning": costs}) | ({} if images is None else {"images": images})
        print_json(found.as_dict() | more)
        return
    from b2bench.terminal.estimate import render

    render(found, stdout())
    if costs is not None:
        from b2bench.terminal.tune import cost_table

        stdout().print("\nTuning these cells, both stages", style="bold")
        stdout().print(cost_table(costs))
    if images is not None:
        stdout().print(Text(str(images["text"])), soft_wrap=True)


def _tuning_costs(
    choices: Choices, configs: Sequence[RunConfig], throughput: float | None, *, full: bool
) -> list[dict[str, Any]]:
    """Return what tuning each cell takes, with the configurations and queries of ``b2bench tune``."""
    from b2bench.search import FULL, QUICK
    from b2bench.terminal.tune import cost_rows
    from b2bench.tuning.stages import budget, plan_cell

    count = FULL if full else QUICK
    plans = [
        plan_cell(
            replace(choices, algo=one.algorithm_name, wrapper=one.wrapper_name),
            count,
            budget(one, half=not full),
            half=not full,
        )
        for one in configs
    ]
    return cost_rows(plans, throughput)
