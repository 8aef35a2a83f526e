"""What a report says first: a few sentences on what learned, what collapsed, what is open, and what is free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from b2bench.leaderboard.cells import CONTROLS, REFERENCES
from b2bench.leaderboard.columns import algorithm_name, wrapper_name
from b2bench.leaderboard.grid import AREA_DIGITS, Answer, number
from b2bench.leaderboard.open_steps import room
from b2bench.leaderboard.rows import CollapseRow, CompatibilityCell, Head, HeadroomRow, LeaderboardRow, Tables
from b2bench.leaderboard.stats import MIN_SEEDS

FREE = ("guidance", "best-of")
"""Kinds of baselines that anybody can have without training; the oracle is none, for no model draws it."""


@dataclass(frozen=True)
class _Judged:
    algorithm: str
    label: str
    cell: CompatibilityCell

    @property
    def wrapper(self) -> str:
        return self.cell.wrapper

    @property
    def aside(self) -> bool:
        """Whether its tests are no claims, but a family of their own."""
        return self.wrapper in CONTROLS or self.algorithm in REFERENCES


def answers(group: Tables) -> tuple[Answer, ...]:
    """Return the sentences of a context, the first one on what learned; none if no cell is finished."""
    judged = [
        _Judged(row.algorithm, row.label, cell)
        for row in group.compatibility
        for cell in row.cells
        if cell.delta is not None
    ]
    cells = [row for row in group.leaderboard if not row.reference]
    if not cells:
        return ()
    once = _once(group, judged)
    found = [
        _learned(group, once, cells),
        _wrappers(group, judged),
        room(group),
        _lost(group, once),
        _over_optimised(cells),
        _open(group, judged, once),
        _free(group, cells),
    ]
    return tuple(answer for answer in found if answer is not None)


def _once(group: Tables, judged: Sequence[_Judged]) -> list[_Judged]:
    """Keep one of two rows that have the same cell, that of the plan if there is one: a search may choose what was run
    without it, or what another one chose.
    """
    planned = {(row.algorithm, row.label) for row in group.compatibility if row.planned}
    found: dict[tuple[str, bool], _Judged] = {}
    for row in sorted(judged, key=lambda row: (row.algorithm, row.label) not in planned):
        found.setdefault(row.cell.identity, row)
    return [row for row in judged if found[row.cell.identity] is row]


def listed(rows: Iterable[_Judged | LeaderboardRow | CollapseRow]) -> str:
    """Name cells by algorithm: "ddpo (vanilla, b2) and pg (bpt)"."""
    wrappers: dict[str, list[str]] = {}
    for row in rows:
        name = f"{algorithm_name(row.algorithm)} {row.label}".strip()
        wrappers.setdefault(name, []).append(row.wrapper)
    return joined(
        [name if of == ["-"] else f"{name} ({', '.join(map(wrapper_name, of))})" for name, of in wrappers.items()]
    )


def joined(parts: Sequence[str]) -> str:
    """Join names as a sentence does: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _learned(group: Tables, judged: Sequence[_Judged], cells: Sequence[LeaderboardRow]) -> Answer:
    tested = [row for row in judged if row.cell.learned != "untested" and not row.aside]
    learned = [row for row in tested if row.cell.learned == "gain"]
    apart = [row for row in judged if row.cell.learned == "gain" and row.aside]
    beside = f"; beside them, tested apart: {listed(apart)}" if apart else ""
    if not tested:
        text = f"nothing can be said: no cell has {MIN_SEEDS} seeds with all values"
        return Answer("Learned", text + beside, "untested")
    if not learned:
        text = f"none of {_cells(len(tested))} is shown to have learned"
        return Answer("Learned", text + beside, "inconclusive")
    text = f"{len(learned)} of {_cells(len(tested))}: {listed(learned)}{beside}"
    known = {(row.algorithm, row.wrapper, row.cell.gain.values) for row in learned if row.cell.gain is not None}

    def is_known(row: LeaderboardRow) -> bool:
        # a label may tell more cells apart than the variants of a claim, and the values are the same
        return row.area is not None and (row.algorithm, row.wrapper, row.area.values) in known

    best = max(
        (row for row in cells if row.alignment.mean is not None and not row.control and row.usual),
        key=_alignment,
        default=None,
    )
    if best is None or best.gain is None:
        return Answer("Learned", text, "gain")
    name = " ".join(filter(None, (best.algorithm, wrapper_name(best.wrapper), best.label)))
    score = f"{group.head.context.reward} {number(best.alignment.mean)}"
    if not is_known(best):
        text += (
            f". Which is best cannot be said: the highest at the end, {name} ({score}), is not shown to have learned"
        )
    else:
        alone = best.ranks is not None and best.ranks == (1, 1)
        rivals = [
            row for row in cells if row is not best and row.ranks is not None and row.ranks[0] == 1 and is_known(row)
        ]
        text += f". Highest at the end: {name}, {score}, {_with_half(best.gain)} against pretrained"
        if alone:
            text += ", better than every other cell in the ranking"
        elif rivals:
            few = len(rivals) <= 3
            text += f"; not told apart from it: {listed(rivals)}" if few else f"; {len(rivals)} others may be as good"
    return Answer("Learned", text, "gain")


def _alignment(row: LeaderboardRow) -> float:
    return row.alignment.mean or 0.0


def _with_half(value: object) -> str:
    mean, high = getattr(value, "mean", None), getattr(value, "high", None)
    half = f" ±{number(high - mean)}" if high is not None and mean is not None else ""
    return f"{number(mean, sign=True)}{half}"


SHOWN = {
    "gain": "better",
    "mixed": "better or equal, but worse in the held-out score or in diversity",
    "equivalent": "equal",
    "loss": "worse",
}
"""What a verdict says of a wrapper beside vanilla."""


def _wrappers(group: Tables, judged: Sequence[_Judged]) -> Answer | None:
    """Return what wrappers do to vanilla of the same algorithm, and bpt and bs to each other."""
    compared = [row for row in judged if row.cell.baseline == "vanilla" and not row.cell.fell]
    if not compared:
        return None
    claimed, apart = ([row for row in compared if row.aside == aside] for aside in (False, True))
    parts = _told(claimed)
    if not parts and claimed:
        parts = [f"none of {_cells(len(claimed))} is told apart from it"]
    if beside := _told(apart) or ([f"none of {_cells(len(apart))} is told apart from it"] if apart else []):
        parts.append(f"controls, tested apart: {', '.join(beside)}")
    shown = {row.cell.verdict for row in claimed or apart}
    kind = next((verdict for verdict in ("gain", "mixed", "loss", "equivalent") if verdict in shown), "inconclusive")
    return Answer("Against vanilla", "; ".join([*parts, *_together(group)]), kind)


def _told(compared: Sequence[_Judged]) -> list[str]:
    """Return what is shown of wrappers beside vanilla: of the trained reward, and of each measure beside it."""
    told = {verdict: [row for row in compared if row.cell.verdict == verdict] for verdict in SHOWN}
    parts = [f"{SHOWN[verdict]}: {listed(rows)}" for verdict, rows in told.items() if rows]
    # a difference beside the trained reward is a claim of its own, whatever is said of that
    for measure in dict.fromkeys(beside.name for row in compared for beside in row.cell.beside):
        for direction in ("better", "worse"):
            shown = [row for row in compared if (measure, direction) in _beside(row)]
            if shown:
                parts.append(f"{direction} in {measure_name(measure)}: {listed(shown)}")
    return parts


def _together(group: Tables) -> list[str]:
    """Return where bpt and bs are shown to do more or less together than apart: the interaction of both."""
    shown: dict[str, list[str]] = {"gain more or lose less": [], "gain less or lose more": []}
    for row in group.contrasts:
        found = row.of("interaction")
        if found is None or found.delta.p_adjusted is None or found.delta.p_adjusted >= group.head.alpha:
            continue
        name, mean = f"{row.algorithm} {row.label}".strip(), found.delta.mean or 0.0
        word = "gain more or lose less" if mean > 0 else "gain less or lose more"
        # a spread below what images alone cause came about by chance, and the p-value rests on it
        by_chance = found.noise is not None and found.noise.needed is None
        aside = ", though its seeds spread no more than their images do" * by_chance
        shown[word].append(f"{name} ({number(mean, AREA_DIGITS, sign=True)}{aside})")
    return [
        f"bpt and bs together {word} than the sum of what each does: {joined(names)}"
        for word, names in shown.items()
        if names
    ]


def measure_name(name: str) -> str:
    """Return how a sentence names what is measured beside the trained reward."""
    return {"held-out": "the held-out score"}.get(name, name)


def _beside(row: _Judged) -> set[tuple[str, str]]:
    return {(beside.name, beside.verdict) for beside in row.cell.beside}


def _lost(group: Tables, judged: Sequence[_Judged]) -> Answer:
    fallen = [row for row in group.collapses if row.counts.collapsed]
    runs = sum(row.counts.n for row in group.collapses)
    failed = [row for row in judged if row.cell.verdict == "failed"]
    lost = [row for row in judged if row.cell.learned == "loss"]
    parts = []
    if lost:
        parts.append(f"lost against pretrained: {listed(lost)}")
    below = [row for row in judged if row.cell.learned == "inconclusive" and row.cell.below]
    if below:
        parts.append(f"not shown to have lost, but all seeds ended below pretrained: {listed(below)}")
    if failed:
        parts.append(f"every run failed: {listed(failed)}")
    if fallen:
        counts = ", ".join(
            f"{' '.join(filter(None, (row.algorithm, row.wrapper, row.label)))} {row.counts.collapsed}/{row.counts.n}"
            for row in fallen[:8]
        )
        more = f" and {len(fallen) - 8} more cells" if len(fallen) > 8 else ""
        total = sum(row.counts.collapsed for row in fallen)
        parts.append(f"{total} of {runs} runs collapsed ({counts}{more})")
    if group.head.collapse is None:
        parts.append(f"runs are not counted: nothing says how far {group.head.context.reward} spreads over images")
        return Answer("Collapsed", "; ".join(parts), "loss" if len(parts) > 1 else "untested")
    if not parts:
        return Answer("Collapsed", f"none of {runs} runs, and no cell lost against pretrained", "gain")
    # seeds that are all below are no test: of three seeds of a cell that does nothing, it is one time in eight
    return Answer("Collapsed", "; ".join(parts), "loss" if lost or failed or fallen else "inconclusive")


def _over_optimised(cells: Sequence[LeaderboardRow]) -> Answer | None:
    shown = [row for row in cells if row.over_optimised and row.gain is not None and row.gain.low is not None]
    signs = [row for row in cells if row.over_optimised and row not in shown]
    parts = [f"the trained reward rose and the held-out score fell: {listed(shown)}"] if shown else []
    if signs:
        parts.append(f"so by the signs alone, of fewer than {MIN_SEEDS} seeds: {listed(signs)}")
    return Answer("Over-optimised", "; ".join(parts), "loss" if shown else "inconclusive") if parts else None


MANY = 8
"""Cells above which a sentence counts them instead of naming them: the tables have their names."""


def _whether(what: str, rows: Sequence[_Judged]) -> str:
    if len(rows) > MANY:
        return f"whether {len(rows)} cells {what} (table Verdicts)"
    return f"whether these {what}: {listed(rows)}"


def _open(group: Tables, judged: Sequence[_Judged], once: Sequence[_Judged]) -> Answer:
    few = [row for row in judged if row.cell.verdict == "untested"]
    flats = [row for row in once if row.cell.learned == "inconclusive"]
    differences = [row for row in judged if row.cell.verdict == "inconclusive" and row.cell.baseline == "vanilla"]
    flat, unclear = ([row for row in rows if not row.aside] for rows in (flats, differences))
    parts = []
    if few:
        parts.append(f"fewer than {MIN_SEEDS} shared seeds, or a value is missing: {listed(few)}")
    if flat:
        parts.append(_whether("learned", flat))
    if unclear:
        parts.append(_whether("differ from vanilla in the trained reward", unclear))
    apart = [
        _whether(what, [row for row in rows if row.aside])
        for what, rows in (("learned", flats), ("differ from vanilla in the trained reward", differences))
        if any(row.aside for row in rows)
    ]
    if apart:
        parts.append(f"controls and upper references, tested apart: {', '.join(apart)}")
    crossed = [
        f"{row.algorithm} {row.label}".strip()
        for row in group.contrasts
        if (found := row.of("interaction")) is not None
        and (found.delta.p_adjusted is None or found.delta.p_adjusted >= group.head.alpha)
    ]
    if crossed:
        parts.append(f"whether BPT and BS do together what they do apart: {joined(crossed)}")
    known = [row.cell.gain_detectable for row in flat] + [row.cell.detectable for row in unclear if row not in flat]
    least = [value for value in known if value is not None]
    oracle = next((row.gain.mean for row in group.headroom if row.kind == "oracle" and row.usual), None)
    gains = [row.cell.gain_detectable for row in flat if row.cell.gain_detectable is not None]
    beyond = sum(value > oracle for value in gains) if oracle is not None else 0
    if least:
        low, high = number(min(least), AREA_DIGITS), number(max(least), AREA_DIGITS)
        span = low if low == high else f"{low} to {high}"
        parts.append(f"the least true area of gain that these seeds would show in four experiments of five: {span}")
    if beyond:
        seeds = "it could hardly be shown to learn" if beyond == 1 else "they could hardly be shown to learn"
        parts.append(
            f"of {_cells(beyond)} it is more than the oracle gains ({number(oracle, AREA_DIGITS)}), so {seeds}"
        )
    if not parts:
        asked = (
            "every comparison of what was run"
            if any(row.missing for row in group.contrasts)
            else "every planned comparison"
        )
        return Answer("Cannot be said", f"nothing: {asked} has an answer", "gain")
    return Answer("Cannot be said", "; ".join(parts), "inconclusive")


def _free(group: Tables, cells: Sequence[LeaderboardRow]) -> Answer:
    """Return the cells beside guidance and best-of-N: above the best of them, or below it, with their whole interval.

    Guidance costs no query. Best-of-N asks the reward about the images of the test set themselves, and no run may.
    Controls and upper references have no say.
    """
    cells = [row for row in cells if not row.control]
    rows = [
        row
        for row in group.headroom
        if row.kind in FREE and row.usual and not row.reference and row.alignment.mean is not None
    ]
    if not rows:
        return Answer(
            "Without training",
            "not measured; b2bench baseline measures guidance and best-of-N on the same test set",
            "untested",
        )
    best = max(rows, key=lambda row: row.alignment.mean or 0.0)
    level = best.alignment.mean or 0.0
    ranked = [row for row in cells if row.usual and row.alignment.low is not None and row.alignment.high is not None]
    above = [row for row in ranked if row.alignment.low is not None and row.alignment.low > level]
    below = [row for row in ranked if row.alignment.high is not None and row.alignment.high < level]
    text = f"{_baseline(best, group.head)} has {number(level)} ({_with_half(best.gain)})"
    if above:
        text += f"; above it with their interval: {listed(above)}"
    elif not ranked:
        text += f"; no cell has the {MIN_SEEDS} seeds of an interval to set beside it"
    elif len(below) < len(ranked):
        text += "; no cell is above it with its interval"
    else:
        text += "; every cell is below it" if len(ranked) == len(cells) else "; every cell with an interval is below it"
    for other in _best_of_each(row for row in rows if row.queries_per_image != best.queries_per_image):
        text += f"; {_beside_cells(other, group.head, ranked)}"
    if above or not ranked:
        return Answer("Without training", text, "gain" if above else "untested")
    return Answer("Without training", text, "loss" if len(below) == len(ranked) else "inconclusive")


def _best_of_each(rows: Iterable[HeadroomRow]) -> list[HeadroomRow]:
    """Return the highest row of each cost in queries, the highest first."""
    found: dict[int, HeadroomRow] = {}
    for row in sorted(rows, key=lambda row: -(row.alignment.mean or 0.0)):
        found.setdefault(row.queries_per_image, row)
    return list(found.values())


def _beside_cells(row: HeadroomRow, head: Head, ranked: Sequence[LeaderboardRow]) -> str:
    level = row.alignment.mean or 0.0
    above = [cell for cell in ranked if cell.alignment.low is not None and cell.alignment.low > level]
    some = f", with {_cells(len(above)) if above else 'no cell'} above it by the whole interval" if ranked else ""
    return f"{_baseline(row, head)} has {number(level)}{some}"


def _baseline(row: HeadroomRow, head: Head) -> str:
    name = row.name.replace("-", " ") if row.kind == "guidance" else row.name
    if row.queries_per_image <= 1:
        return name
    whole = f", {row.queries_per_image * head.images[0]:,} on the test set" if len(head.images) == 1 else ""
    return f"{name} ({row.queries_per_image} queries an image{whole})"
