"""The validity card: signs that a small testbed should reproduce if what it says is to be believed elsewhere.

Each sign is known from larger models (docs/preregistration.md says from where) and is tested on whatever cells a
context has: pass, fail or undecided. All tests of a card are one family, over which Holm goes. A sign with several
parts passes if all of its parts do, and fails if one does. A miss is a finding, and is printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from b2bench.leaderboard.cells import CONTROLS, PAIRED, REFERENCES, TUNED, WRAPPERS
from b2bench.leaderboard.grid import AREA_DIGITS, Cell, Column, Grid, Section, number, title
from b2bench.leaderboard.open_steps import profiles_of
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.rows import Curve, Tables
from b2bench.leaderboard.stats import (
    MIN_SEEDS,
    SHARE,
    Paired,
    area_under_curve,
    holm,
    paired,
    queries_to_target,
    two_sided,
)
from numpy.typing import NDArray
from scipy import special

from b2bench.metrics import DISTANCE, HELDOUT, STYLE_ENTROPY

Verdict = Literal["pass", "fail", "undecided"]
TRAJECTORY = ("ddpo", "pg", "dpok", "flow_dppo")
FORWARD = ("awm", "nft", "dgpo", "rwr")
"""Algorithms by what stands for the likelihood: of a step of the trajectory, or of the forward process."""
DEFAULTS = {"advantage": "history"}
"""Of settings that runs from before them don't have."""


@dataclass(frozen=True)
class Part:
    """One test: what is compared, the difference whose sign is asked for, and what is missing if there is none.

    ``p`` is two-sided and ``p_adjusted`` after Holm over the card. ``margin`` makes it a question of being no worse:
    the interval must lie above its negative. ``unmet``: nothing is missing but a result that the sign is about.
    """

    what: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    p_adjusted: float | None = None
    margin: float | None = None
    missing: str = ""
    known: Verdict | None = None
    unmet: bool = False

    def verdict(self, alpha: float) -> Verdict:
        """Return what the test says."""
        if self.known is not None:
            return self.known
        if self.mean is None or self.p_adjusted is None:
            return "undecided"
        if self.margin is not None and self.margin > 0 and self.low is not None and self.low > -self.margin:
            return "pass"  # a loss that is shown may be smaller than what counts as one
        if self.p_adjusted < alpha:
            return "pass" if self.mean > 0 else "fail"
        return "undecided"


@dataclass(frozen=True)
class Sign:
    """A sign by its number, what is claimed, and its tests."""

    number: int
    claim: str
    parts: tuple[Part, ...]
    alpha: float

    @property
    def verdict(self) -> Verdict:
        """Return pass if all parts pass, fail if one fails, else undecided."""
        found = {part.verdict(self.alpha) for part in self.parts}
        return "fail" if "fail" in found else "pass" if found == {"pass"} else "undecided"


@dataclass(frozen=True)
class _Cell:
    """Curves of a cell by seed, and all of its settings."""

    algorithm: str
    wrapper: str
    label: str
    settings: Mapping[str, str]
    curves: Mapping[int, Curve]


Values = Mapping[int, float]


def _points(curve: Curve, metric: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return queries and values of a metric; of a failed run those that are finite."""
    values = curve.values.get(metric, ())
    points = [
        (queries, value)
        for queries, value in zip(curve.queries, values, strict=bool(values))
        if math.isfinite(value) or not curve.failed
    ]
    return tuple(queries for queries, _ in points), tuple(value for _, value in points)


def _rows(curve: Curve, *metrics: str) -> list[tuple[float, ...]]:
    """Return queries, denoiser calls and the metrics at each evaluation; of a failed run those where all are finite."""
    columns = [curve.values.get(metric, ()) for metric in metrics]
    if not all(columns):
        return []
    rows = list(zip(curve.queries, curve.calls, *columns, strict=True))
    return [row for row in rows if not curve.failed or all(map(math.isfinite, row[2:]))]


class _Cells:
    """The cells of a context, tuned or untuned, and their values by seed."""

    def __init__(self, group: Tables, *, tuned: bool) -> None:
        self.reward, self.budget = group.head.context.reward, group.head.context.budget or 0
        self.alpha, self.tables = group.head.alpha, group
        settings = {(d.algorithm, d.wrapper, d.label): group.settings | d.settings for d in group.details}
        curves: dict[tuple[str, str, str], dict[int, Curve]] = {}
        for curve in group.curves:
            curves.setdefault((curve.algorithm, curve.wrapper, curve.label), {})[curve.seed] = curve
        others = {(d.algorithm, d.wrapper, d.label) for d in group.details if not (d.planned if tuned else d.other)}
        self.searched = {(d.algorithm, d.wrapper, d.label) for d in group.details if d.tuned}
        self.latest = {(d.algorithm, d.wrapper, d.label): d.latest for d in group.details}
        self.all = [
            _Cell(*name, settings.get(name, {}), found)
            for name, found in curves.items()
            if name not in others and (not tuned or (name in settings and PLAN.has_all(found)))
        ]
        self.tuned = tuned

    def of(self, algorithm: str, wrapper: str = "vanilla", **settings: str) -> _Cell | None:
        """Return the cell with most seeds, then the latest, of those with these settings; no choice by result.

        An untuned one comes before those that a search chose.
        """
        found = [
            cell
            for cell in self.all
            if (cell.algorithm, cell.wrapper) == (algorithm, wrapper)
            and all(cell.settings.get(f"settings.{name}", DEFAULTS[name]) == value for name, value in settings.items())
        ]
        return max(found, key=self.place, default=None)

    def place(self, cell: _Cell) -> tuple[bool, int, str, list[tuple[str, str]]]:
        """Return what is highest for the cell that stands for a sign, of several that could."""
        name = (cell.algorithm, cell.wrapper, cell.label)
        return name not in self.searched, len(cell.curves), self.latest.get(name, ""), sorted(cell.settings.items())

    def area(self, cell: _Cell) -> Values:
        """Return the area of gain; 0 of a failed run without evaluation, nan where one that is done lacks a value."""
        found = {}
        for seed, curve in cell.curves.items():
            queries, values = _points(curve, self.reward)
            if not queries:
                found[seed] = 0.0 if curve.failed else math.nan  # it counts with the pretrained model's score
                continue
            start = values[0] if queries[0] == 0 else math.nan
            found[seed] = area_under_curve(queries, values, self.budget) - start
        return found

    def change(self, cell: _Cell, metric: str) -> Values:
        """Return the value at the end minus that at the start: of a failed run the last that it had, which may be 0.

        And 0 of one without a value, where any run of the cell has one.
        """
        known = {seed: _points(curve, metric)[1] for seed, curve in cell.curves.items()}
        if not any(known.values()):
            return {}
        failed = {seed: 0.0 for seed, values in known.items() if not values and cell.curves[seed].failed}
        return failed | {seed: values[-1] - values[0] for seed, values in known.items() if values}

    def learned(self) -> list[_Cell]:
        """Cells that are claimed to have learned, with the settings that the claim is of.

        Controls and upper references make no claims, and have no say here either.
        """
        claimed = {
            (row.algorithm, cell.wrapper, tuple(cell.gain.values))
            for row in self.tables.compatibility
            for cell in row.cells
            if cell.learned == "gain" and cell.gain is not None
            if cell.wrapper not in CONTROLS and row.algorithm not in REFERENCES
        }
        named = {
            (row.algorithm, row.wrapper, row.label)
            for row in self.tables.leaderboard
            if row.area is not None and (row.algorithm, row.wrapper, tuple(row.area.values)) in claimed
        }
        return [cell for cell in self.all if (cell.algorithm, cell.wrapper, cell.label) in named]


def _test(what: str, first: Values, second: Values | None = None, margin: float | None = None) -> Part:
    """Test a mean over seeds above 0, or of ``first`` above ``second``, paired by seed."""
    seeds = sorted(first if second is None else first.keys() & second.keys())
    if len(seeds) < MIN_SEEDS:
        return Part(what, n=len(seeds), missing=f"{len(seeds)} shared seeds, of {MIN_SEEDS} at least")
    others = [0.0] * len(seeds) if second is None else [second[seed] for seed in seeds]
    return _part(what, paired([first[seed] for seed in seeds], others), margin)


def _part(what: str, delta: Paired, margin: float | None = None) -> Part:
    missing = "a value is missing" if delta.mean is None else ""
    return Part(what, delta.mean, delta.low, delta.high, delta.n, delta.p, None, margin, missing)


def _lacking(what: str, *names: str) -> Part:
    return Part(what, missing=f"not run: {', '.join(names)}")


def _above(cells: _Cells, what: str, first: tuple[str, _Cell | None], second: tuple[str, _Cell | None]) -> Part:
    """Test the area of gain of one cell above that of another."""
    (_, one), (_, other) = first, second
    if one is None or other is None:
        return _lacking(what, *(text for text, cell in (first, second) if cell is None))
    return _test(_of_which(what, one, other), cells.area(one), cells.area(other))


def _of_which(what: str, *cells: _Cell) -> str:
    """Name the settings of cells that stand for an algorithm, where a page may have it with several."""
    names = [(cell, cell.label.removeprefix(TUNED).strip()) for cell in cells]
    labels = [f"{cell.algorithm} {cell.wrapper} {label}" for cell, label in names if label]
    return f"{what} ({', '.join(labels)})" if labels else what


# -- signs ------------------------------------------------------------------------------------------------


def _advantage(cells: _Cells) -> list[Part]:
    history, pg = cells.of("ddpo", advantage="history"), cells.of("pg", advantage="history")
    grouped = cells.of("ddpo", advantage="loo") or cells.of("ddpo", advantage="group")
    return [
        _above(cells, "leave-one-out or group − history", ("ddpo, advantage=loo", grouped), ("ddpo", history)),
        _above(cells, "history − pg", ("ddpo", history), ("pg", pg)),
    ]


def _rwr(cells: _Cells) -> list[Part]:
    raft, what = cells.of("raft"), "raft: half of the budget − its end"
    parts = [_above(cells, "ddpo − rwr", ("ddpo", cells.of("ddpo")), ("rwr", cells.of("rwr")))]
    if raft is None:
        return [*parts, _lacking(what, "raft")]
    late = {}
    for seed, curve in raft.curves.items():
        rows = _rows(curve, cells.reward)
        if rows and len(curve.queries) > 2:
            queries, _, values = zip(*rows, strict=True)
            late[seed] = float(np.interp(cells.budget / 2, queries, values)) - values[-1]
    if not late:
        return [*parts, Part(what, missing="no evaluation between the first and the last (eval_points)")]
    # a failed run that did not come so far has ended with what it had at half of the budget
    late = {seed: 0.0 for seed, curve in raft.curves.items() if curve.failed} | late
    return [*parts, _test(what, late)]


def _groups(cells: _Cells) -> list[Part]:
    """Variances of the area of gain over seeds: does the smallest group spread more? An F-test, one ratio."""
    what = "log of the variance over seeds, smallest group − largest"
    sizes: dict[str, _Cell] = {}
    for cell in sorted(cells.all, key=cells.place):
        size = cell.settings.get("settings.samples", "")
        if (cell.algorithm, cell.wrapper) == ("ddpo", "vanilla") and size.isdecimal():
            sizes[size] = cell  # of several, that which stands for the other signs, too
    if len(sizes) < 2:
        return [_lacking(what, "ddpo vanilla with several group sizes (samples)")]
    few, many = (np.array(list(cells.area(sizes[key]).values())) for key in (min(sizes, key=int), max(sizes, key=int)))
    n = min(len(few), len(many))
    if not (np.isfinite(few).all() and np.isfinite(many).all()):
        return [Part(what, n=n, missing="a value is missing")]
    if n < MIN_SEEDS or not (few.var() > 0 and many.var() > 0):
        return [Part(what, n=n, missing=f"{n} seeds, of {MIN_SEEDS} at least")]
    ratio, df = float(few.var(ddof=1) / many.var(ddof=1)), (len(few) - 1, len(many) - 1)
    tail = float(special.fdtr(*df, ratio))
    bounds = [math.log(ratio / float(special.fdtri(*df, q))) for q in (0.975, 0.025)]
    return [Part(what, math.log(ratio), bounds[0], bounds[1], n, 2 * min(tail, 1 - tail))]


def _kl(cells: _Cells) -> list[Part]:
    """Return the held-out score where each seed first had the gain that all seeds of both cells reached."""
    what = "held-out score at equal trained reward, dpok − ddpo"
    names = {name: cells.of(name) for name in ("dpok", "ddpo")}
    if missing := [name for name, cell in names.items() if cell is None]:
        return [_lacking(what, *missing)]
    both = [cell for cell in names.values() if cell is not None]
    shared = set.intersection(*(set(cell.curves) for cell in both))
    whole = [cell.curves[seed] for cell in both for seed in shared if not cell.curves[seed].failed]
    found = [[row[2] for row in rows] for curve in whole if (rows := _rows(curve, cells.reward, HELDOUT))]
    gains = [float(np.max(trained)) - trained[0] for trained in found]
    if not all(map(math.isfinite, gains)):
        return [Part(what, n=len(shared), missing="a value is missing")]
    level = min(gains, default=math.inf)
    if level <= 0:
        return [Part(what, missing="a seed of one of the two did not gain", unmet=True)]
    values = [_at_gain(cells, cell, level * (1 - 1e-9)) for cell in both]
    return [_test(_of_which(what, *both), values[0], values[1])]


def _at_gain(cells: _Cells, cell: _Cell, level: float) -> Values:
    found = {}
    for seed, curve in cell.curves.items():
        if not (rows := _rows(curve, cells.reward, HELDOUT)):
            if curve.failed:
                found[seed] = 0.0  # it counts with the pretrained model's score
            continue
        queries, _, trained, held = zip(*rows, strict=True)
        at = queries_to_target(queries, trained, trained[0] + level)
        found[seed] = float(np.interp(queries[-1] if at is None else at, queries, held)) - held[0]
    return found


def _diversity(cells: _Cells) -> list[Part]:
    what = "loss of diversity, mean over the cells that learned"
    planned = [(name, wrapper) for name in PLAN.algorithms for wrapper in WRAPPERS]
    if cells.tuned and (absent := [" ".join(name) for name in planned if cells.of(*name) is None]):
        return [_lacking(what, *absent)]
    learned = cells.learned()
    metric = next((m for m in (STYLE_ENTROPY, DISTANCE) if any(cells.change(cell, m) for cell in learned)), "")
    if not metric:
        return [replace(_lacking(what, "a cell that learned, with a measure of diversity"), unmet=True)]
    changes = [cells.change(cell, metric) for cell in learned]
    seeds = sorted(set.intersection(*(set(change) for change in changes)))
    return [_test(what, {seed: -float(np.mean([change[seed] for change in changes])) for seed in seeds})]


def _likelihood(cells: _Cells) -> list[Part]:
    """Return the score of a forward loss against ddpo where both had spent the denoiser calls of the cheaper one."""
    what = "awm − ddpo at equal denoiser calls (no worse by a quarter of ddpo's gain)"
    awm, ddpo = cells.of("awm"), cells.of("ddpo")
    if awm is None or ddpo is None:
        return [_lacking(what, *(name for name, cell in (("awm", awm), ("ddpo", ddpo)) if cell is None))]
    spent = [
        curve.calls[-1] for cell in (awm, ddpo) for curve in cell.curves.values() if curve.calls and not curve.failed
    ]
    if not spent or not all(map(math.isfinite, spent)):
        return [Part(what, missing="denoiser calls of a run are not known")]
    at = min(spent)
    values: list[dict[int, float]] = [{}, {}]
    for cell, found in zip((awm, ddpo), values, strict=True):
        for seed, curve in cell.curves.items():
            if (rows := _rows(curve, cells.reward)) and all(map(math.isfinite, curve.calls)):
                _, calls, scores = zip(*rows, strict=True)
                found[seed] = float(np.interp(at, calls, scores)) - scores[0]
            elif curve.failed:
                found[seed] = rows[-1][2] - rows[0][2] if rows else 0.0
    gains = list(values[1].values())
    learned = len(gains) >= MIN_SEEDS and (paired(gains, [0.0] * len(gains)).low or 0.0) > 0
    margin = SHARE * float(np.mean(gains)) if learned else None  # of a gain that is not shown there is no quarter
    return [_test(what, values[0], values[1], margin)]


def _losses(cells: _Cells) -> list[Part]:
    """Half the difference between the likelihoods, and the losses of one around their mean: squares of true values.

    A square of an estimate has its noise in it, more so of the difference that is noisier. A product of two seeds does
    not: the mean of products over all pairs of seeds is unbiased, and its error is the jackknife's.
    """
    what = "square of half the difference between likelihoods − mean square among losses of one"
    sides = [[c for name in names if (c := cells.of(name)) is not None] for names in (TRAJECTORY, FORWARD)]
    if any(len(side) < 2 for side in sides):
        return [_lacking(what, f"two of {', '.join(TRAJECTORY)} and two of {', '.join(FORWARD)}")]
    areas = [[cells.area(cell) for cell in side] for side in sides]
    seeds = sorted(set.intersection(*(set(area) for side in areas for area in side)))
    if len(seeds) < MIN_SEEDS:
        return [_test(what, dict.fromkeys(seeds, 0.0))]
    values = [np.array([[area[seed] for seed in seeds] for area in side]) for side in areas]
    if not all(np.isfinite(side).all() for side in values):
        return [Part(what, n=len(seeds), missing="a value is missing")]
    between = (values[1].mean(0) - values[0].mean(0)) / 2
    within = np.concatenate([side - side.mean(0) for side in values])

    def squares(keep: NDArray[np.bool_]) -> float:
        return float(_square(between[keep]) - np.mean(_square(within[:, keep])))

    n = len(seeds)
    left_out = np.array([squares(np.arange(n) != seed) for seed in range(n)])
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    mean = squares(np.ones(n, dtype=np.bool_))
    half = float(special.stdtrit(n - 1, 0.975)) * error
    return [Part(what, mean, mean - half, mean + half, n, two_sided(mean, error, n - 1))]


def _square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the square of the true mean of values [..., R], from the products of different ones."""
    n = values.shape[-1]
    found: NDArray[np.float64] = (values.sum(-1) ** 2 - (values**2).sum(-1)) / (n * (n - 1))
    return found


def _extremes(cells: _Cells) -> list[Part]:
    parts = [
        _above(cells, f"{name}: b2 − random2", (f"{name} b2", one), (f"{name} random2", other))
        for name in sorted({cell.algorithm for cell in cells.all} - {*PAIRED})
        if (one := cells.of(name, "b2")) is not None and (other := cells.of(name, "random2")) is not None
    ]
    return parts or [_lacking("b2 − random2", "b2 and random2 of one algorithm that does not learn from pairs")]


def _decided(profiles: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Profiles of the pretrained model: less than half of the reward's variance is open at half of the steps."""
    parts = []
    for row in profiles:
        steps = (row["settings"] or {}).get("steps")
        if row["metric"] != "open_share" or not steps or 2 * row["tau"] != steps:
            continue
        value, low, high = row["value"], row["low"], row["high"]
        if any(one is None or not math.isfinite(one) for one in (value, low, high)):
            continue
        known: Verdict = "pass" if high < 0.5 else "fail" if low > 0.5 else "undecided"
        what = f"0.5 − share of variance open at tau = {row['tau']} of {steps}"
        parts.append(Part(what, 0.5 - value, 0.5 - high, 0.5 - low, row["branches"], known=known))
    return parts[-1:] or [_lacking("share of variance open at half of the steps", "b2bench profile")]


def _order(cells: _Cells) -> list[Part]:
    names = [name for name in sorted({cell.algorithm for cell in cells.all}) if cells.of(name, "forward") is not None]
    name = "ddpo" if "ddpo" in names or not names else names[0]
    bpt, full, forward = (cells.of(name, wrapper) for wrapper in ("bpt", "vanilla", "forward"))
    return [
        _above(cells, f"{name}: bpt − vanilla", (f"{name} bpt", bpt), (f"{name} vanilla", full)),
        _above(cells, f"{name}: vanilla − forward", (f"{name} vanilla", full), (f"{name} forward", forward)),
    ]


def _free(cells: _Cells) -> list[Part]:
    kinds = {row.kind for row in cells.tables.headroom if not row.reference}
    missing = [kind for kind in ("guidance", "best-of") if kind not in kinds]
    what = "rows of guidance and best-of-N stand beside the cells"
    return [
        Part(what, known="fail" if missing else "pass", missing=f"not measured: {', '.join(missing)}" * bool(missing))
    ]


SIGNS: tuple[tuple[int, str, Callable[[_Cells], list[Part]]], ...] = (
    (1, "leave-one-out or group advantage > history baseline > PG", _advantage),
    (2, "DDPO > RWR, and RAFT alone degrades late", _rwr),
    (3, "larger groups are more stable", _groups),
    (4, "a KL term keeps the held-out score at equal trained reward", _kl),
    (5, "diversity falls as the reward rises", _diversity),
    (6, "forward-process likelihood ≥ trajectory likelihood per denoiser call", _likelihood),
    (7, "the choice of the loss matters less than that of the likelihood", _losses),
    (8, "extremes > a random subset at equal steps", _extremes),
    (10, "BPT > all steps > forward (B2's paper); the field expects forward ≥ all steps", _order),
    (11, "what is free stands beside every gain", _free),
)


def _of_one_kind(sign: Callable[[_Cells], list[Part]], untuned: _Cells, tuned: _Cells) -> list[Part]:
    """Return the tests of a sign on the plan's tuned cells once all that it needs is there, and on others until then.

    Needed are cells with three seeds, whatever they show: so the choice is none by result. A tuned cell of the plan is
    never held against another one: the difference would be the search's.
    """
    chosen = sign(tuned)
    if not tuned.all or any(part.missing and not part.unmet for part in chosen):
        return sign(untuned)
    return [replace(part, what=f"{TUNED} {part.what}") if part.mean is not None else part for part in chosen]


def card(group: Tables, profiles: Iterable[Mapping[str, Any]] = ()) -> tuple[Sign, ...]:
    """Return the signs of a context, each with its tests after Holm; ``profiles`` are rows of ``Store.profiles``."""
    untuned, tuned, context = _Cells(group, tuned=False), _Cells(group, tuned=True), group.head.context
    mine = profiles_of(context, profiles, group.settings)
    found = [(place, claim, _of_one_kind(of, untuned, tuned)) for place, claim, of in SIGNS]
    found.append((9, "the reward is decided early, so that late branches differ little", _decided(mine)))
    found.sort(key=lambda sign: sign[0])
    adjusted = iter(holm([part.p for _, _, parts in found for part in parts]))
    return tuple(
        Sign(place, claim, tuple(replace(part, p_adjusted=next(adjusted)) for part in parts), group.head.alpha)
        for place, claim, parts in found
    )


KINDS = {"pass": "gain", "fail": "loss", "undecided": "inconclusive"}


def _digits(part: Part) -> int:
    """Return how many digits show a test: those of an area of gain, or two that are not zero where these hide it."""
    largest = max(abs(value) for value in (part.mean, part.low, part.high, 0.0) if value is not None)
    return AREA_DIGITS if not 1e-8 < largest < 1e-3 else 1 - math.floor(math.log10(largest))


def section(group: Tables, profiles: Iterable[Mapping[str, Any]] = ()) -> Section:
    """Return the validity card of a context as a table, a line for each test."""
    signs = card(group, profiles)
    columns = (
        Column("sign", right=False),
        Column("claim", right=False),
        Column("verdict", right=False),
        Column("test", right=False),
        Column("difference"),
        Column("p on this card", keep=8),
        Column("n", keep=7),
    )
    rows = []
    for sign in signs:
        for place, part in enumerate(sign.parts):
            digits = _digits(part)
            low, mean, high = (number(value, digits, sign=True) for value in (part.low, part.mean, part.high))
            text = part.missing if part.mean is None else mean if part.low is None else f"{mean} [{low}, {high}]"
            first = place == 0
            rows.append(
                (
                    Cell(str(sign.number) if first else "", sort=sign.number),
                    Cell(sign.claim if first else ""),
                    Cell(sign.verdict if first else "", kind=KINDS[sign.verdict]),
                    Cell(part.what),
                    Cell(text or "-", sort=part.mean),
                    Cell("-" if part.p_adjusted is None else f"{part.p_adjusted:.2g}", sort=part.p_adjusted),
                    Cell(str(part.n) if part.n else "-", sort=part.n),
                )
            )
    counts = {verdict: sum(sign.verdict == verdict for sign in signs) for verdict in KINDS}
    legend = (
        f"{counts['pass']} pass, {counts['fail']} fail, {counts['undecided']} undecided",
        "differences are in the area of gain unless the test says otherwise, with 95% intervals; a positive one is "
        "what is claimed",
        "p on this card: two-sided, after Holm over the tests of the card alone; a contrast that is a claim, too, has "
        f"another p there; pass and fail at {100 * group.head.alpha:g}%",
        "a sign with several tests passes if all do, and fails if one does",
    )
    return Section(
        title(group.head.context), (), (), (Grid("validity", "Validity card", columns, tuple(rows), legend),)
    )
