"""What a run shows while it runs: on stderr, so that stdout is the result alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from b2bench.metrics import (
    CLIPSCORE,
    DISTANCE,
    HELDOUT,
    METRICS,
    STYLE_ENTROPY,
    STYLE_SHARE,
    SUCCESS,
    is_style_share,
    label,
)
from b2bench.training.summary import Summary


class RunProgress:
    """A live bar over reward queries on a terminal, and a line per round and evaluation everywhere.

    ``on_begin`` is called when the run begins, and ``on_stage`` at every stage.
    """

    def __init__(
        self,
        console: Console,
        budget: int,
        reward: str,
        *,
        quiet: bool = False,
        on_begin: Callable[[], None] = lambda: None,
        on_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_begin, self.on_stage = on_begin, on_stage
        # of several processes one speaks
        self.console, self.reward = Console(quiet=True) if quiet else console, reward
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),  # it names files, which may hold brackets
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("queries"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=budget)
        self.started = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, text: str) -> None:
        """Show what the run does now."""
        self.on_stage()
        self.progress.update(self.task, description=text)

    def begins(self, run_id: str) -> None:
        """All is loaded."""
        self.on_begin()

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: Any) -> None:
        """Print a line for the round: queries, mean reward, how many rollouts reached the loss, health."""
        self.progress.update(self.task, completed=queries)
        metrics = report.metrics
        kept = f"kept {int(report.kept.sum())}/{len(report.kept)}"
        clipped = f"clipped {metrics['clipped']:.0%}" if "clipped" in metrics else ""
        skipped = "" if report.optimizer_steps else "skipped: nothing kept"
        self.console.print(
            Text.assemble(
                f"round {round:>2}/{rounds}  {queries:>6} queries  {self.reward} {reward:.3f}  "
                f"{kept}  {clipped}{skipped}  ",
                (f"{time.monotonic() - self.started:.0f} s", "dim"),
            )
        )

    def warned(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text.assemble(("warning", "yellow"), f"  {text}"), soft_wrap=True)

    def queried(self, queries: int) -> None:
        """Reward queries of a profile."""
        self.progress.advance(self.task, queries)

    def point_done(self, prompts: str, point: Any) -> None:
        """Print a line for the tau of a profile: the share of the variance that is still open."""
        measures = point.measures
        self.console.print(
            Text.assemble(
                f"{prompts}  tau {point.tau:>2}  {point.branches * point.leaves} queries  "
                f"{self.reward} sd {measures['total_sd'].value:.3g}  open {measures['open_share'].value:.3f}  ",
                (f"{time.monotonic() - self.started:.0f} s", "dim"),
            )
        )

    def evaluated(self, queries: int, evaluation: Any) -> None:
        """Print a line for the evaluation: every metric that has a mean over the test images."""
        shown = [m for m in evaluation.metrics if m.split == "test" and not m.name.startswith(STYLE_SHARE)]
        # of so few images that no two share a prompt there is no distance within one
        text = "  ".join(f"{m.name} {m.value:.3f}" for m in shown if math.isfinite(m.value))
        source = next((m.settings["reused_from"] for m in shown if "reused_from" in m.settings), None)
        whose = "" if source is None else f" (measured by run {source})"
        self.console.print(Text.assemble(("evaluation", "bold"), f" at {queries} queries{whose}  {text}"))


def summary_table(summary: Summary) -> Table:
    """Alignment, held-out alignment and diversity on unseen prompts, before and after."""
    title = f"{summary.run_id}: {summary.queries} reward queries, test prompts"
    table = Table(title=Text(title, "bold"), title_justify="left")
    table.add_column("metric")
    for heading in ("pretrained", "after", "change"):
        table.add_column(heading, justify="right")
    first = [summary.reward] if summary.reward in summary.before else []
    for name in dict.fromkeys([*first, *summary.before]):
        if is_style_share(name):
            continue
        before = summary.before[name]
        after = summary.after[name]
        numbers = (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
        # nan: too few images for this metric, such as one per prompt for the distance within a prompt
        trained = " (trained)" if name == summary.reward else ""
        table.add_row(Text(label(name) + trained), *(("-",) * 3 if math.isnan(before + after) else numbers))
    return table


def verdict_text(summary: Summary) -> Text:
    """Say in a line whether the run learned, and what the other metrics did meanwhile."""
    style = {"learned": "bold green", "got worse": "bold red"}.get(summary.verdict.partition(":")[0], "bold")
    changes = {
        METRICS[name].label.partition(" (")[0]: summary.after[name] - summary.before[name]
        for name in (HELDOUT, SUCCESS, STYLE_ENTROPY)
        if name in summary.before and name in summary.after and name != summary.reward
    }
    others = ", ".join(f"{what} {change:+.3f}" for what, change in changes.items() if math.isfinite(change))
    return Text.assemble((summary.verdict, style), f"; {others}" if others else "")


def baseline_table(results: Sequence[Any], evals: Iterable[Mapping[str, Any]], reward: str) -> Table:
    """Return a line per baseline: its numbers on unseen prompts."""
    value = {(row["run_id"], row["metric"]): row["value"] for row in evals if row["split"] == "test"}
    wanted = (CLIPSCORE, HELDOUT, SUCCESS, STYLE_ENTROPY, DISTANCE)
    headings = {reward: reward} | {name: METRICS[name].short for name in wanted}
    metrics = [metric for metric in headings if any(name == metric for _, name in value)]
    table = Table(title="baselines, test prompts", title_justify="left")
    table.add_column("baseline", no_wrap=True)
    for metric in metrics:
        table.add_column(Text(headings[metric]), justify="right")
    for result in results:
        found = [value.get((result.run_id, metric)) for metric in metrics]
        numbers = ["-" if number is None or math.isnan(number) else f"{number:.3f}" for number in found]
        table.add_row(result.baseline, *numbers)
    return table
