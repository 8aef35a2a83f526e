"""What a run shows while it runs: on stderr, so that stdout is the result alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
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
from b2bench.terminal.chart import chart
from b2bench.training.summary import Summary

if TYPE_CHECKING:  # a mistake is told before torch is imported
    from b2bench.config.run import RunConfig


CURVE_LINES, LOW_SCREEN = 6, 20
"""Lines of the live curve, and of a screen that is too low for one"""


class _Display(Progress):
    """A bar with the run's curves above it, where there are any yet and the terminal has room for them."""

    def __init__(self, *columns: ProgressColumn, curves: dict[str, list[tuple[float, float]]], **options: Any) -> None:
        self.curves = curves
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the chart and the bar."""
        drawn = {name: points for name, points in self.curves.items() if len(points) > 1}
        if drawn and self.console.height >= LOW_SCREEN and self.console.width >= 50:
            yield chart(drawn, width=min(60, self.console.width - 14), height=CURVE_LINES, unit="reward queries")
        yield from super().get_renderables()


@dataclass(frozen=True)
class Work:
    """What a run costs in forward-equivalents, at most, and what of it is saved if the store has its start."""

    total: int
    start: int


def work_of(config: RunConfig) -> Work | None:
    """Count the work of a run; None if its plugins do not let it be counted, which is no reason not to run."""
    from b2bench.estimate.calls import count_calls

    try:
        found = count_calls(config)
    except Exception:  # somebody else's code may raise anything, and the run itself will say so
        return None
    return Work(found.equivalents[1] + found.evaluation, found.saved)


class RunProgress:
    """A live bar and curves on a terminal, and a line per round and evaluation everywhere.

    ``work`` says, once the run begins, how much there is to do: then the bar and the time that is left go by it, from
    the first evaluation on. Without it they go by reward queries. ``processes`` share it, and this one hears of its own
    part. ``on_begin`` is called when the run begins, and ``on_stage`` at every stage.
    """

    def __init__(
        self,
        console: Console,
        budget: int,
        reward: str,
        *,
        quiet: bool = False,
        work: Callable[[], Work | None] = lambda: None,
        processes: int = 1,
        on_begin: Callable[[], None] = lambda: None,
        on_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_begin, self.on_stage, self.count_work = on_begin, on_stage, work
        self.processes = processes
        self.work: Work | None = None
        self.curves: dict[str, list[tuple[float, float]]] = {}
        # of several processes one speaks
        self.console, self.reward = Console(quiet=True) if quiet else console, reward
        self.live = console.is_terminal and not quiet
        self.progress = _Display(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),  # it names files, which may hold brackets
            BarColumn(bar_width=20),
            TextColumn("{task.fields[queries]:,}/{task.fields[budget]:,} queries"),
            TimeRemainingColumn(),
            curves=self.curves,
            console=console,
            disable=not self.live,
            speed_estimate_period=300,  # sampling, judging and optimising differ in speed
        )
        self.task = self.progress.add_task("starting", total=budget, queries=0, budget=budget)
        self.text = "starting"
        self.started = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, text: str) -> None:
        """Show what the run does now."""
        self.on_stage()
        self.text = text
        self.progress.update(self.task, description=text)

    def advanced(self, work: int, within: str) -> None:
        """Show how far the stage is, and the run."""
        if self.live:
            text = f"{self.text}: {within}" if within else self.text
            self.progress.update(self.task, description=text, advance=work * self.processes if self.work else 0)

    def begins(self, run_id: str) -> None:
        """All is loaded: from now on time is of the run alone."""
        self.on_begin()
        self.work = self.count_work() if self.live else None
        if self.work is not None:
            self.progress.reset(self.task, total=self.work.total)

    def resumed(self, queries: int) -> None:
        """Show the run from where it goes on: what an earlier process did takes no more time."""
        self._reached(queries)
        if self.work is not None:
            budget = self.progress.tasks[0].fields["budget"]
            left = (self.work.total - self.work.start) * (1 - queries / budget)
            self.progress.update(self.task, total=max(1, round(left)))

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: Any) -> None:
        """Print a line for the round: queries, mean reward, how many rollouts reached the loss, health."""
        self._reached(queries)
        self._point(f"{self.reward}, training", queries, reward)
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

    def _reached(self, queries: int) -> None:
        self.progress.update(self.task, queries=queries, completed=None if self.work else queries)

    def _point(self, name: str, queries: int, value: float) -> None:
        if math.isfinite(value):
            self.curves.setdefault(name, []).append((queries, value))

    def warned(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text.assemble(("warning", "yellow"), f"  {text}"), soft_wrap=True)

    def queried(self, queries: int) -> None:
        """Reward queries of a profile."""
        self.progress.advance(self.task, queries)
        self.progress.update(self.task, queries=int(self.progress.tasks[0].completed))

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
        if source is not None and self.work is not None:
            self.progress.update(self.task, total=self.work.total - self.work.start)
        self._reached(queries)
        for metric in shown:
            if metric.name in (self.reward, HELDOUT):
                name = self.reward if metric.name == self.reward else "held-out"
                self._point(f"{name}, test", queries, metric.value)
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
        after = summary.after.get(name, math.nan)  # a run that goes on may have been told to measure less
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
    found = Text.assemble((summary.verdict, style), f"; {others}" if others else "")
    for finding in summary.findings:
        found.append("\nwarning", "yellow").append(f"  {finding}")
    return found


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
