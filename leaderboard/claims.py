"""What a report claims: one family of tests for a context, stated before there is any data.

The cells of the plan, those of the paper's four algorithms whose settings ``b2bench tune`` chose, are a family of their
own, and all others another: so running more of the one changes no claim of the other. A family holds, of every
algorithm with one choice of settings:

- the gain of each of its cells over the pretrained model, on the area of gain;
- the planned contrasts of its wrappers (:data:`b2bench.leaderboard.contrasts.CONTRASTS`), on the area of gain;
- each wrapper against vanilla in the held-out score and in diversity, at the end.

Holm goes over all of a family at once. Whether two cells are equal is asked of the same pairs of cells and measures,
with Holm over these questions. Controls are a family of their own, so that running them changes no claim. All else that
a report prints is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from b2bench.leaderboard.cells import CONTROLS, REFERENCES, WRAPPERS, Cell
from b2bench.leaderboard.contrasts import CONTRASTS, planned
from b2bench.leaderboard.noise import Noise, noise, stacked
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.rows import Beside, Context, ContrastRow, PlannedContrast
from b2bench.leaderboard.stats import SHARE, Paired, detectable, equivalence, gained, holm, paired
from b2bench.leaderboard.variants import Variant

from b2bench.metrics import DISTANCE, HELDOUT, STYLE_ENTROPY

Key = tuple[int, str, str]
"""Number of the variant, name of the wrapper or contrast, and what is tested: gain, trained, held-out or diversity."""
Scores = Mapping[str, tuple[str, Sequence[float], int | None]]
"""Of a run the name of the images of its last evaluation, equal for equal images, their scores, prompt by prompt, and
how many prompts these are, None where some have more images than others."""
INTERACTION = "interaction"
"""The one contrast that is of no wrapper: a wrapper of this name would have no differences to vanilla."""
GAIN, TRAINED, HELD_OUT, DIVERSE = "gain", "trained", "held-out", "diversity"


@dataclass(frozen=True)
class Rules:
    """What is fixed before the data: the level of a test, and the margin of equality (None: a share of the gain)."""

    alpha: float
    margin: float | None = None


@dataclass(frozen=True)
class Claims:
    """The tests of a context by their keys, after Holm; ``equal`` holds margins and p-values of equality.

    ``equalities`` counts those that are not of controls, of untuned variants and of tuned ones. ``controls`` are tests
    of control wrappers and of upper references, after Holm over themselves. ``tuned`` are the numbers of the
    variants whose tuned cells are the plan's: each test of these counts, also one that lacks a value, and ``planned``
    is how many there will be. ``same`` names the test of the gain of a cell that an earlier variant of the family has,
    too. ``metrics`` names what stands for the held-out score and for diversity.
    """

    rules: Rules
    tests: Mapping[Key, Paired]
    controls: Mapping[Key, Paired]
    equal: Mapping[Key, tuple[float, float]]
    tuned: frozenset[int] = frozenset()
    planned: int = 0
    equalities: tuple[int, int] = (0, 0)
    same: Mapping[Key, Key] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def of(self, key: Key) -> Paired | None:
        """Return a test, of a control or not."""
        key = self.same.get(key, key)
        return self.tests.get(key) or self.controls.get(key)

    def tested(self, tuned: bool) -> int:
        """How many tests Holm goes over, of tuned variants or of the others."""
        return self._count(self.tests, tuned)

    def beside_whom(self, place: int, wrapper: str) -> int:
        """How many tests Holm goes over where it goes over those of this cell or contrast; all of the plan's, once they
        are there.
        """
        if wrapper in CONTROLS or (place, wrapper, GAIN) in self.controls:
            return max(1, self._count(self.controls, place in self.tuned))
        return max(self.planned if place in self.tuned else 1, self._count(self.tests, place in self.tuned))

    def _count(self, tests: Mapping[Key, Paired], tuned: bool) -> int:
        of = {key: test for key, test in tests.items() if (key[0] in self.tuned) == tuned}
        return sum(test.p is not None or tuned for test in of.values())

    def beside(self, place: int, wrapper: str) -> tuple[Beside, ...]:
        """Return what a wrapper does to the measures beside the trained reward, against vanilla."""
        found = []
        for measure, metric in self.metrics.items():
            key = (place, wrapper, measure)
            if (delta := self.of(key)) is None or delta.mean is None:
                continue
            margin, equal = self.equal.get(key, (None, None))
            verdict = direction(delta, equal, self.rules.alpha)
            found.append(Beside(measure, metric, delta, margin, equal, verdict))
        return tuple(found)


def direction(delta: Paired, equal: float | None, alpha: float) -> Literal["better", "worse", "equal", "open"]:
    """Return what a test after Holm, and one of equality, say of a difference."""
    if delta.p_adjusted is not None and delta.p_adjusted < alpha and delta.mean is not None:
        return "better" if delta.mean > 0 else "worse"
    return "equal" if equal is not None and equal < alpha else "open"


def claims_of(context: Context, variants: Sequence[Variant], rules: Rules) -> Claims:
    """Test what a report claims of these variants."""
    tests: dict[Key, Paired] = {}
    equal: dict[Key, tuple[float, float]] = {}
    metrics = _measures(context, variants)
    first: dict[tuple[bool, str], Key] = {}
    same: dict[Key, Key] = {}
    for place, variant in enumerate(variants):
        for wrapper, cell in variant.cells.items():
            key = (place, wrapper, GAIN)
            if wrapper == "-":
                continue
            if (known := first.setdefault((variant.planned, cell.config_hash), key)) == key:
                tests[key] = gain(context, cell)
            else:  # one question, although two rows answer it
                same[key] = known
        for measure, metric in {TRAINED: context.reward, **metrics}.items():
            values = {name: _values(context, cell, measure, metric) for name, cell in variant.cells.items()}
            for name, delta in _against(values).items():
                if measure != TRAINED and (name not in variant.cells or name == INTERACTION):
                    continue  # the interaction is asked of the trained reward alone
                tests[place, name, measure] = delta
                if name not in variant.cells or name == INTERACTION:
                    continue
                if found := _equal(context, variant, name, measure, metric, delta, rules):
                    equal[place, name, measure] = found

    def aside(key: Key) -> bool:
        return key[1] in CONTROLS or variants[key[0]].algorithm in REFERENCES

    tuned = frozenset(place for place, variant in enumerate(variants) if variant.planned)
    own = {key: test for key, test in tests.items() if aside(key)}
    claimed = {
        key: test for key, test in tests.items() if not aside(key) and (test.mean is not None or key[0] in tuned)
    }
    alike = {key: found for key, found in equal.items() if not aside(key)}
    others = {key: found for key, found in equal.items() if aside(key)}
    both = _adjusted_equal(alike, tuned) | _adjusted_equal(others, tuned)
    searched = sum(key[0] in tuned for key in alike)
    equalities = (len(alike) - searched, searched)
    counted = [_adjusted(some, tuned) for some in (claimed, own)]
    planned = PLAN.tests_on(context.prompts)
    return Claims(rules, counted[0], counted[1], both, tuned, planned, equalities, same, metrics)


def _families(keys: Iterable[Key], tuned: frozenset[int]) -> list[list[Key]]:
    """Part tests into those of tuned variants and the others."""
    found = list(keys)
    return [[key for key in found if (key[0] in tuned) == searched] for searched in (True, False)]


def _adjusted_equal(found: Mapping[Key, tuple[float, float]], tuned: frozenset[int]) -> dict[Key, tuple[float, float]]:
    adjusted = {}
    for keys in _families(found, tuned):
        for key, p in zip(keys, holm([found[key][1] for key in keys]), strict=True):
            adjusted[key] = (found[key][0], p or 0.0)
    return adjusted


def _adjusted(tests: Mapping[Key, Paired], tuned: frozenset[int]) -> dict[Key, Paired]:
    adjusted = {}
    for keys in _families(tests, tuned):
        # a claim of the plan that lacks a value stays one of its claims: the others get no easier level by it
        found = [1.0 if tests[key].p is None and key[0] in tuned else tests[key].p for key in keys]
        for key, p in zip(keys, holm(found), strict=True):
            adjusted[key] = replace(tests[key], p_adjusted=None if tests[key].p is None else p)
    return adjusted


def _measures(context: Context, variants: Sequence[Variant]) -> dict[str, str]:
    """Return the metrics beside the trained reward that any run has: the held-out score, and one
    measure of diversity.
    """
    cells = [cell for variant in variants for cell in variant.cells.values()]
    runs = [run for cell in cells for run in cell.runs.values()]
    present = {metric for run in runs for at in run.values.values() for metric in at} - {context.reward}
    found = {HELD_OUT: HELDOUT} if HELDOUT in present else {}
    diversity = next((metric for metric in (STYLE_ENTROPY, DISTANCE) if metric in present), "")
    return found | ({DIVERSE: diversity} if diversity else {})


def _values(context: Context, cell: Cell, measure: str, metric: str) -> dict[int, float]:
    """One value for each seed: the area under the curve of the trained reward, else the value at the end."""
    if measure == TRAINED:
        return dict(zip(cell.seeds, cell.area(metric, cell.seeds, context.budget), strict=True))
    return dict(zip(cell.seeds, cell.final(metric, cell.seeds), strict=True))


def gain(context: Context, cell: Cell) -> Paired:
    """Return the area of gain over the pretrained model, with the start as a covariate."""
    return gained(cell.area(context.reward, cell.seeds, context.budget), cell.start(context.reward, cell.seeds))


def _against(values: Mapping[str, Mapping[int, float]]) -> dict[str, Paired]:
    """Return the planned contrasts, and the differences of further wrappers to vanilla."""
    found = planned(values)
    if vanilla := values.get("vanilla"):
        for name, mine in values.items():
            if seeds := sorted(mine.keys() & vanilla.keys() if name not in (*WRAPPERS, *CONTRASTS) else ()):
                found[name] = paired([mine[seed] for seed in seeds], [vanilla[seed] for seed in seeds])
    return found


def _equal(
    context: Context, variant: Variant, name: str, measure: str, metric: str, delta: Paired, rules: Rules
) -> tuple[float, float] | None:
    """Return the margin and the p-value of equality to vanilla; None without a margin.

    The margin is a share of what vanilla gained (of diversity: of its change), and there is one only if that is beyond
    its own interval. So a cell that is like a vanilla that learned nothing isn't called equal to it. A margin that the
    user gave is of the trained reward, and there is none if it exceeds the gain.
    """
    vanilla = variant.cells["vanilla"]
    seeds = sorted(set(variant.cells[name].runs) & set(vanilla.runs))
    values = _values(context, vanilla, measure, metric)
    ends, starts = np.array([values[seed] for seed in seeds]), np.array(vanilla.start(metric, seeds))
    reference = gained(ends.tolist(), starts.tolist())
    if reference.mean is None or reference.p is None or reference.p >= rules.alpha:
        return None
    if reference.mean <= 0 and measure != DIVERSE:
        return None
    if rules.margin is not None and measure == TRAINED:
        if rules.margin >= reference.mean:
            return None
        margins = np.full(len(seeds), rules.margin)
    else:
        margins = SHARE * math.copysign(1.0, reference.mean) * (ends - starts.mean())
    p = equivalence(delta.values, margins.tolist())
    return None if p is None else (float(margins.mean()), p)


def contrast_rows(
    context: Context, variants: Sequence[Variant], claims: Claims, scores: Scores
) -> tuple[ContrastRow, ...]:
    """Return the planned contrasts of each algorithm, of which there must be one at least."""
    rows = []
    for place, variant in enumerate(variants):
        if set(variant.cells) == {"-"}:
            continue
        four = {name: cell for name, cell in variant.cells.items() if name in WRAPPERS}
        ends = planned(
            {name: dict(zip(c.seeds, c.final(context.reward, c.seeds), strict=True)) for name, c in four.items()}
        )
        found = []
        for name, end in ends.items():
            delta = claims.tests.get((place, name, TRAINED)) or replace(end, mean=None, low=None, high=None, p=None)
            found.append(
                PlannedContrast(
                    name,
                    delta,
                    end,
                    detectable(delta, claims.beside_whom(place, name), claims.rules.alpha),
                    _noise(four, CONTRASTS[name], scores),
                )
            )
        missing = [wrapper for wrapper in WRAPPERS if wrapper not in four]
        text = f"not run: {', '.join(missing)}" if missing else "" if found else "no seed shared by two wrappers"
        seeds = tuple(sorted(set.intersection(*(set(cell.runs) for cell in four.values())))) if four else ()
        failed = sum(cell.failed for cell in four.values())
        rows.append(ContrastRow(variant.algorithm, variant.label, tuple(found), seeds, failed, text))
    return tuple(rows)


def _noise(cells: Mapping[str, Cell], weights: Mapping[str, int], scores: Scores) -> Noise | None:
    """Part the spread of a contrast at the end, over the seeds for which its cells' images are the same."""
    rows: list[list[Sequence[float]]] = []
    names, prompts = [], set[int | None]()
    for seed in sorted(set.intersection(*(set(cells[wrapper].runs) for wrapper in weights))):
        known = [scores.get(cells[wrapper].runs[seed].row["run_id"]) for wrapper in weights]
        found = [score for score in known if score is not None]
        noises = {cells[wrapper].runs[seed].noise for wrapper in weights}
        if len(found) == len(weights) and len({name for name, _, _ in found}) == 1 and len(noises) == 1:
            rows.append([values for _, values, _ in found])
            names.append((found[0][0], *noises))
            prompts.add(found[0][2])
    if not rows or len({len(values) for row in rows for values in row}) != 1:
        return None
    by_cell = [[row[i] for row in rows] for i in range(len(weights))]
    shared = len(set(names)) == 1
    return noise(stacked(by_cell, list(weights.values())), shared, prompts.pop() if shared else None)
