"""The tables in a terminal, and as plain objects for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from b2bench.leaderboard.document import HEADROOM, SYMBOLS, count, number, refusals
from b2bench.leaderboard.headroom import HeadroomRow
from b2bench.leaderboard.openness import Measure, Profile
from b2bench.leaderboard.stats import MIN_SEEDS, Estimate, Paired
from b2bench.leaderboard.tables import AblationRow, CompatibilityCell, LeaderboardRow, Tables
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

STYLES = {
    "gain": "green",
    "equivalent": "yellow",
    "inconclusive": "yellow",
    "loss": "red",
    "untested": "cyan",
    "failed": "bold red",
    "incomplete": "blue",
    "not run": "dim",
    "refused": "magenta",
}


def render(tables: Sequence[Tables], console: Console) -> None:
    """Print the leaderboard, the ablation and the compatibility matrix of each context."""
    if not tables:
        console.print("No runs yet. Start one: b2bench run --algo dpok --wrapper b2", markup=False)
    for group in tables:
        _head(group, console)
        if not group.leaderboard:
            what = "no run was evaluated like these yet\n" if group.headroom else "no finished run here yet"
            console.print(f"  {what}", style="dim")
        else:
            _leaderboard(group, console)
        if group.headroom:
            _headroom(group, console)
        if group.leaderboard:
            _ablation(group.ablation, console)
        if group.compatibility:
            _compatibility(group, console)
        if group.incomplete:
            console.print(Text("Incomplete (not averaged)", style="bold"))
            for run in group.incomplete:
                cell = f"{run.algorithm} {run.wrapper} seed {run.seed}"
                console.print(Text(f"  {run.run_id}  {cell}: {run.status} at {run.queries:,} queries"))
            console.print()


def profile_table(profile: Profile, reward: str) -> Table:
    """What the branches of each tau say; the shares with their intervals."""
    sizes = {f"{point.branches} branches of {point.leaves} leaves" for point in profile.points}
    table = _table(f"{profile.prompts}: {reward}, T = {profile.num_steps}, {' or '.join(sorted(sizes))} at each tau")
    for name in ("tau", "share open", "sd\nwithin", "sd\ntotal", "best\u2212worst", "same style"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in profile.points:
        found = point.measures
        table.add_row(
            str(point.tau),
            _bounds(found["open_share"]),
            *(number(found[name].value) for name in ("within_sd", "total_sd", "range")),
            _bounds(found.get("same_style")),
        )
    return table


def _bounds(share: Measure | None) -> Text:
    """A share with its interval, which need not be symmetric."""
    if share is None or not math.isfinite(share.value):
        return Text("-", style="dim")
    text = Text(number(share.value, 2))
    if math.isfinite(share.low):
        text.append(f" [{number(share.low, 2)}, {number(share.high, 2)}]", style="dim")
    return text


def to_json(tables: Sequence[Tables]) -> list[dict[str, Any]]:
    """The tables as dicts, lists, numbers and strings; what is not finite is None."""
    return [_plain(group) for group in tables]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _head(group: Tables, console: Console) -> None:
    head, context = group.head, group.head.context
    prompts = f"{context.prompts} ({context.prompts_hash[:8]})" if context.prompts_hash else context.prompts
    budget = "no training" if context.budget is None else f"{context.budget:,} reward queries"
    parts = [
        f"b2bench {context.benchmark_version}",
        context.backbone,
        f"reward {context.reward} {context.reward_settings}".rstrip(),
        prompts,
        budget,
    ]
    console.rule(style="dim")
    console.print(Text(" · ".join(parts), style="bold"))
    seeds = ", ".join(map(str, head.seeds)) or "none finished"
    images = " or ".join(f"{n:,}" for n in head.images) or "no"
    facts = [f"seeds {seeds}", f"test split, {images} images per evaluation", *head.inception]
    console.print(Text(" · ".join(facts), style="dim"))
    for note in head.notes:
        console.print(Text(f"! {note}", style="yellow"))
    console.print()


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def interval(value: Estimate | None, digits: int = 3, sign: bool = False) -> Text:
    """Mean and half-width of the 95% interval, which Student's t makes symmetric."""
    if value is None or value.mean is None:
        return Text("-", style="dim")
    text = Text(number(value.mean, digits, sign))
    if value.high is not None:
        text.append(f" ±{number(value.high - value.mean, digits)}", style="dim")
    return text


Column = tuple[str, bool, Callable[[Any], Text]]


def _leaderboard(group: Tables, console: Console) -> None:
    rows = group.leaderboard
    columns: list[tuple[int, Column]] = [  # a lower number goes first where the terminal is narrow
        (9, ("cell", False, _cell)),
        *_measured(group.head.context.reward, rows),
        (9, ("seeds", True, _seeds)),
        (2, ("queries", True, lambda row: Text(count(row.queries)))),
        (8, ("calls", True, lambda row: Text(count(row.denoiser_calls)))),
    ]
    hidden = _fitted("Leaderboard", rows, columns, console)
    trained = [row for row in rows if not row.reference]
    legend = ["± is half the 95% t-interval over seeds; gain is against the pretrained model of the same seed"]
    if any(len(row.seeds) < MIN_SEEDS for row in rows):
        legend.append(f"fewer than {MIN_SEEDS} seeds: no interval")
    if any(row.failed for row in trained):
        legend.append("† failed runs, counted with their last evaluation")
    legend.append("calls: denoiser calls per run")
    if any(row.headroom for row in rows):
        legend.append(HEADROOM)
    if hidden:
        legend.append(f"in a wider terminal: {', '.join(hidden)}")
    console.print(Text("; ".join(legend), style="dim"))
    if group.oracle:
        console.print(Text(group.oracle, style="dim"))
    console.print()


def _headroom(group: Tables, console: Console) -> None:
    rows = group.headroom
    columns: list[tuple[int, Column]] = [
        (9, ("baseline", False, _baseline)),
        *_measured(group.head.context.reward, rows),
        (9, ("seeds", True, lambda row: Text(str(len(row.seeds))))),
        (2, ("queries an image", True, lambda row: Text(str(row.queries_per_image)))),
    ]
    hidden = _fitted("Headroom (no training)", rows, columns, console)
    legend = [] if group.leaderboard else ["gain is against the pretrained model of the same seed", HEADROOM]
    legend.append("oracle: drawn scenes that show what the prompt says")
    if hidden:
        legend.append(f"in a wider terminal: {', '.join(hidden)}")
    console.print(Text("; ".join(legend), style="dim"))
    if group.oracle and not group.leaderboard:
        console.print(Text(group.oracle, style="dim"))
    console.print()


def _measured(reward: str, rows: Sequence[LeaderboardRow] | Sequence[HeadroomRow]) -> list[tuple[int, Column]]:
    """Columns of what was measured on images, the same for cells and for headroom."""
    columns: list[tuple[int, Column]] = [
        (9, (reward, True, lambda row: interval(row.alignment))),
        (9, ("gain", True, lambda row: interval(row.gain, sign=True))),
        # where no row has one, any other column says more
        (7 if any(row.headroom for row in rows) else 1, ("headroom", True, lambda row: interval(row.headroom, 2))),
        (8, ("held-out", True, lambda row: interval(row.heldout))),
        (6, ("success", True, lambda row: interval(row.success))),
    ]
    for metric in _present(row.inception for row in rows):
        columns.append((4, (metric, True, _measure("inception", metric, 2))))
    for metric, short, priority in (("style_entropy", "style H", 7), ("pairwise_distance", "distance", 5)):
        if metric in _present(row.diversity for row in rows):
            columns.append((priority, (short, True, _measure("diversity", metric))))
    return [*columns, (3, ("held-out gain", True, lambda row: interval(row.heldout_gain, sign=True)))]


def _fitted(
    title: str,
    rows: Sequence[LeaderboardRow] | Sequence[HeadroomRow],
    columns: list[tuple[int, Column]],
    console: Console,
) -> list[str]:
    """Print the columns that have room, by their priority; the names of the others."""

    def build() -> Table:
        table = _table(title)
        for _, (name, right, _) in columns:
            table.add_column(Text(name), justify="right" if right else "left", overflow="fold", no_wrap=right)
        for row in rows:
            table.add_row(*(cell(row) for _, (_, _, cell) in columns), style="dim" if row.reference else None)
        return table

    hidden = []
    options = console.options.update(max_width=10_000)
    while Measurement.get(console, options, build()).maximum > console.width:
        lowest = min(range(len(columns)), key=lambda place: columns[place][0])
        if columns[lowest][0] == 9:
            break
        hidden.append(columns.pop(lowest)[1][0])
    console.print(build())
    return hidden


def _measure(measures: str, metric: str, digits: int = 3) -> Callable[[Any], Text]:
    return lambda row: interval(getattr(row, measures).get(metric), digits)


def _present(measures: Iterable[dict[str, Estimate]]) -> list[str]:
    return list(dict.fromkeys(metric for row in measures for metric in row))


def _cell(row: LeaderboardRow) -> Text:
    text = Text(row.algorithm if row.wrapper == "-" else f"{row.algorithm} {row.wrapper}")
    return text.append(f" {row.label}", style="dim") if row.label else text


def _baseline(row: HeadroomRow) -> Text:
    name = row.name.replace("-", " ") if row.kind == "guidance" else row.name
    text = Text(f"pretrained ({name})" if row.reference else name)
    return text.append(f" {row.label}", style="dim") if row.label else text


def _seeds(row: LeaderboardRow) -> Text:
    text = Text(str(len(row.seeds)))
    return text.append(f" ({row.failed}†)", style="red") if row.failed else text


def _ablation(rows: Sequence[AblationRow], console: Console) -> None:
    if all(row.effects is None for row in rows):
        missing = sorted({f"{_name(row)} ({row.missing})" for row in rows})
        if missing:
            text = f"Ablation: needs all four wrappers on shared seeds; {'; '.join(missing)}"
            console.print(Text(text, style="dim"))
            console.print()
        return
    table = _table("Ablation: effect on alignment of BPT, of BS, and of both beyond their sum")
    for name in ("algorithm", "BPT", "BS", "interaction", "seeds"):
        table.add_column(name, justify="left" if name == "algorithm" else "right")
    for row in rows:
        if row.effects is None:
            continue
        seeds = f"{len(row.seeds)} ({row.failed}†)" if row.failed else str(len(row.seeds))
        effects = (row.effects.bpt, row.effects.bs, row.effects.interaction)
        table.add_row(Text(_name(row)), *map(_effect, effects), seeds)
    console.print(table)
    console.print(Text("p: paired t-test over seeds, Holm over this table", style="dim"))
    for row in rows:
        if row.effects is None:
            console.print(Text(f"{_name(row)}: none, {row.missing}", style="dim"))
    console.print()


def _name(row: Any) -> str:
    return f"{row.algorithm} {row.label}".strip()


def _effect(effect: Paired) -> Text:
    text = interval(effect, sign=True)
    if effect.p_adjusted is not None:
        text.append(f" p={effect.p_adjusted:.2g}", style="dim")
    return text


def _compatibility(group: Tables, console: Console) -> None:
    rows = group.compatibility
    table = _table("Compatibility: wrappers against vanilla, vanilla against the pretrained model")
    table.add_column("algorithm")
    for cell in rows[0].cells:
        table.add_column(Text(cell.wrapper), justify="left")
    for row in rows:
        table.add_row(Text(_name(row)), *map(_verdict, row.cells))
    console.print(table)
    shown = {cell.verdict for row in rows for cell in row.cells}
    legend = [f"{symbol} {name}" for name, symbol in SYMBOLS.items() if name in shown]
    if "untested" in shown:
        legend[legend.index("? untested")] += f" (fewer than {MIN_SEEDS} shared seeds)"
    if any(cell.baseline == "pretrained" and cell.wrapper != "vanilla" for row in rows for cell in row.cells):
        legend.append("* against the pretrained model, for want of vanilla")
    legend.append("k/n: seeds that are better; 5% level, Holm over this table")
    console.print(Text(" · ".join(legend), style="dim"))
    for line in refusals(group):
        console.print(Text(line, style="dim"))
    console.print()


def _verdict(cell: CompatibilityCell) -> Text:
    text = Text(SYMBOLS[cell.verdict], style=STYLES[cell.verdict])
    if cell.delta is not None and cell.delta.mean is not None:
        text.append(f" {number(cell.delta.mean, sign=True)} {cell.delta.wins}/{cell.delta.n}")
    if cell.failed:
        text.append(f" {cell.failed}†")
    if cell.baseline == "pretrained" and cell.wrapper != "vanilla":
        text.append("*")
    return text
