"""``b2bench evaluate``, ``profile`` and ``baseline``."""

from __future__ import annotations

import math
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from b2bench.cli.options import DEFAULT_DB, AsJson, Backbone, Db, EvalSeed, Plugin, Reward, Split, Threads, beside
from b2bench.cli.output import print_json, stderr, stdout
from b2bench.config.choices import Choices, resolved, with_file
from b2bench.errors import UserError

if TYPE_CHECKING:  # --help does without it
    from b2bench.leaderboard.openness import Profile

ART_CACHE = Path("pocket-build") / "art"  # where `pocket build` has it too


def evaluate(
    lora: Annotated[Path | None, typer.Argument(help="LoRA file or folder  [none: the pretrained model]")] = None,
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt set (b2bench ls prompts), text file or folder")] = None,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="Reward queries that the LoRA cost, according to its author  [required with a LoRA]"),
    ] = None,
    seed: EvalSeed = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Number of images of test prompts")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set steps, guidance, eval_train_images, ...: name=value")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a reward")] = None,
    db: Db = DEFAULT_DB,
    name: Annotated[str | None, typer.Option(help="Name of its row in reports  [the file's, with a hash]")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate any LoRA by the protocol of runs. The result goes into the store."""
    from b2bench.config.given import check_text, parse_assignments, run_name
    from b2bench.config.resolve import check_untrained_values
    from b2bench.config.settings import EVALUATE_SETTINGS

    choices = Choices(algo="ddpo", backbone=backbone, reward=reward, prompts=prompts, plugins=tuple(plugin or ()))
    chosen = {"eval_images": eval_images, "eval_seed": seed}
    assignments = [*(set_ or []), *(f"{setting}={value}" for setting, value in chosen.items() if value is not None)]
    if lora is not None and not lora.exists():
        raise UserError(f"{lora} does not exist; try a LoRA .safetensors file or its folder")
    if lora is not None and not queries:
        raise UserError(
            f"the reward queries that {lora} cost are not known, and tables compare equal budgets; try --queries N"
        )
    name = run_name(name)
    check_text("the LoRA", str(lora))
    config = resolved(with_file(choices, None, assignments))
    check_untrained_values("an evaluation", EVALUATE_SETTINGS, config, parse_assignments(assignments))
    from b2bench.metrics import label
    from b2bench.store.store import Store
    from b2bench.studies.lora import evaluate_lora

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
        value = f"{metric.value:.4f}" if math.isfinite(metric.value) else "-"  # few images have no such number
        table.add_row(metric.split, label(metric.name), value, str(metric.n))
    stdout().print(table)


def profile(
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="Prompt set, text file or folder; several: a,b or repeat the option  [template1]"),
    ] = None,
    split: Annotated[Split, typer.Option(help="Prompts to draw from: train, as training does, or test")] = Split.train,
    taus: Annotated[
        str | None, typer.Option(help="Remaining steps at which branches are made  [20,17,14,10,6,3 of 20]")
    ] = None,
    leaves: Annotated[int, typer.Option(min=2, help="Leaves of a branch")] = 5,
    branches: Annotated[int, typer.Option(min=2, help="Branches at each tau")] = 48,
    lora: Annotated[Path | None, typer.Option(help="LoRA file or folder  [none: the pretrained model]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of prompts, noise and bootstrap  [0]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Set steps, eta, guidance, ...: name=value")] = None,
    plugin: Plugin = None,
    db: Db = DEFAULT_DB,
    out: Annotated[Path | None, typer.Option(help="PNG file for the figure")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure at which denoising steps a reward is decided.

    It shows how much of the reward is still open at several of them.
    """
    from b2bench.config.given import parse_assignments
    from b2bench.config.resolve import check_profile_values
    from b2bench.leaderboard.figures import check_png, draw_openness
    from b2bench.leaderboard.openness import check_taus, default_taus, rows
    from b2bench.store.store import Store
    from b2bench.terminal.progress import RunProgress

    wanted = parse_taus(taus)
    if out is not None:
        check_png(out)
    if lora is not None and not lora.exists():
        raise UserError(f"{lora} does not exist; try a LoRA .safetensors file or its folder")
    choices = Choices(algo="ddpo", backbone=backbone, reward=reward, seed=seed, plugins=tuple(plugin or ()))
    choices = with_file(choices, None, set_ or [])
    configs = [resolved(replace(choices, prompts=name)) for name in prompt_names(prompts or ["template1"])]
    check_profile_values(configs[0], parse_assignments(set_ or []))
    names = [config.prompts.name for config in configs]
    if len(set(names)) < len(names):
        raise UserError(f"--prompts {','.join(names)}: two sets have the same name; try renaming one")
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
    _show_profiles(found, reward_name, leaves, db, out)


def _show_profiles(
    found: Sequence[tuple[str, Profile]], reward: str, leaves: int, db: Path, figure: Path | None
) -> None:
    """Print a table of each profile, how to read it, and where the rows are."""
    from b2bench.leaderboard.terminal import profile_table

    console = stdout()
    for _, result in found:
        console.print(profile_table(result, reward))
    console.print(
        Text(
            "share open: variance within branches / total variance, [95% interval, bootstrap over branches]; "
            f"best−worst grows with the {leaves} leaves of a branch; same style: share of its pairs of leaves\n",
            style="dim",
        )
    )
    ids = ", ".join(profile_id for profile_id, _ in found)
    drawn = "" if figure is None else f"\nfigure   {figure}"
    queries = sum(result.queries for _, result in found)
    console.print(f"{queries} reward queries\nrows     {db} ({ids}){drawn}", soft_wrap=True)


def parse_taus(text: str | None) -> list[int] | None:
    """``"20,14"`` to [20, 14]; None stays None.

    Raises:
        UserError: an entry is not a whole number.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--taus {text!r} is not a list of whole numbers; try 20,14,6") from None


def prompt_names(given: list[str]) -> list[str]:
    """Each prompt set by itself: ``["a,b", "c"]`` to ``["a", "b", "c"]``, but a file keeps the commas of its name."""
    return [name for text in given for name in ([text] if os.path.exists(text) else text.split(","))]


def baseline(
    kind: Annotated[
        list[str], typer.Option(help="guidance, best-of, oracle or all; several: a,b or repeat the option")
    ],
    backbone: Backbone = None,
    reward: Reward = None,
    prompts: Annotated[
        str | None, typer.Option(help="Prompt set, text file or folder  [the backbone's: template1]")
    ] = None,
    seed: EvalSeed = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set eval_images, steps, guidance, ...: name=value")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with a reward")] = None,
    art: Annotated[
        Path | None,
        typer.Option(help="For the oracle (extra 'pocket'): folder with the art archives  [fetched by npm pack]"),
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Measure what is to be had without training.

    A guidance sweep, best-of-N sampling and oracle scenes become baselines of the report.
    """
    from b2bench.config.given import parse_assignments
    from b2bench.store.store import Store
    from b2bench.terminal.progress import baseline_table

    choices = Choices(algo="ddpo", backbone=backbone, reward=reward, prompts=prompts, plugins=tuple(plugin or ()))
    assignments = [*(set_ or []), *([] if seed is None else [f"eval_seed={seed}"])]
    console, store = stderr(), Store(db)
    with console.status("importing torch") as status:
        from b2bench.studies import baselines

        kinds = baselines.parse_kinds(kind)
        if art is not None and "oracle" not in kinds:
            raise UserError("--art is only used by --kind oracle; try without it")
        config = resolved(with_file(choices, None, assignments))
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
            console.print(f"interrupted; what was measured is in {db}. The same command continues", soft_wrap=True)
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
    console.print(f"rows     {db}\nnext     {shlex.join(['b2bench', 'report', *beside(db)])}", soft_wrap=True)
