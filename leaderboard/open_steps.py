"""How much of the reward is still open at which step, beside the verdicts: could B2's mechanism act here?"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from b2bench.leaderboard.cells import SAMPLING, reward_settings
from b2bench.leaderboard.columns import grid_of
from b2bench.leaderboard.grid import Answer, Cell, Grid, number
from b2bench.leaderboard.rows import Context, OpenStep, Tables

from b2bench.text import visible

START = 0.7
"""The share of the steps with which bpt and b2 begin (``tau_start``) unless their settings say another."""
MUCH, LITTLE = 0.5, 0.2
"""Shares of the variance above which most is open, and below which little is."""
MEASURES = ("open_share", "within_sd", "total_sd", "range")


def profiles_of(
    context: Context, rows: Iterable[Mapping[str, Any]], settings: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """Return the rows of ``Store.profiles`` that are of a context's pretrained model, sampled as its runs sample.

    ``settings`` are those that all of its cells share, as text.
    """
    wanted = (context.benchmark_version, context.backbone, context.reward, context.prompts_hash)
    found = []
    for row in rows:
        keys = tuple(
            visible(str(row[key] or "")) for key in ("benchmark_version", "backbone", "reward", "prompts_hash")
        )
        own = row["settings"] or {}
        alike = all(
            json.dumps(own[name]) == settings[f"settings.{name}"]
            for name in SAMPLING
            if own.get(name) is not None and f"settings.{name}" in settings
        )
        measured = reward_settings(own.get("reward") or {})
        if row["lora"] is None and keys == wanted and measured == context.reward_settings and alike:
            found.append(row)
    return found


def open_steps(
    context: Context, rows: Iterable[Mapping[str, Any]], settings: Mapping[str, str]
) -> tuple[OpenStep, ...]:
    """Return what the latest profile of a context's pretrained model says, of those that :func:`profiles_of` finds."""
    found: dict[tuple[str, str], dict[int, dict[str, Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in profiles_of(context, rows, settings):
        found[str(row["started"]), row["profile_id"]][row["tau"]][row["metric"]] = row
    if not found:
        return ()
    latest = found[max(found)]
    return tuple(step for tau in sorted(latest, reverse=True) if (step := _step(tau, latest[tau])) is not None)


def open_elsewhere(
    context: Context, rows: Iterable[Mapping[str, Any]], settings: Mapping[str, str]
) -> dict[str, tuple[OpenStep, ...]]:
    """Return what the latest profiles of the same pretrained model say on other prompts, by their names."""
    known = list(rows)
    found: list[tuple[str, str, tuple[OpenStep, ...]]] = []
    for prompts_hash in sorted({visible(str(row["prompts_hash"] or "")) for row in known} - {context.prompts_hash}):
        other = replace(context, prompts_hash=prompts_hash)
        if steps := open_steps(other, known, settings):
            latest = profiles_of(other, known, settings)[-1]
            found.append((visible(str(latest.get("prompts") or "")), prompts_hash, steps))
    names = Counter(name for name, _, _ in found)

    def told(name: str, prompts_hash: str) -> str:
        alone = name and name != context.prompts and names[name] == 1
        return name if alone else f"{name} ({prompts_hash[:8]})".strip()

    return {told(name, prompts_hash): steps for name, prompts_hash, steps in sorted(found, key=lambda row: row[:2])}


def _step(tau: int, rows: Mapping[str, Mapping[str, Any]]) -> OpenStep | None:
    steps = ((rows.get("open_share") or {}).get("settings") or {}).get("steps")
    if not isinstance(steps, int) or not all(name in rows and _finite(rows[name]["value"]) for name in MEASURES):
        return None
    share = rows["open_share"]
    decided, within, total, spread = (float(rows[name]["value"]) for name in MEASURES)
    low, high = (float(share[end]) if _finite(share[end]) else math.nan for end in ("low", "high"))
    return OpenStep(tau, steps, decided, low, high, within, total, spread, share["branches"], share["leaves"])


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def room(group: Tables) -> Answer | None:
    """Say how much is open where b2 begins, and how the verdicts on it stand to that.

    None without a profile, and where bpt and b2 of several cells begin at several steps.
    """
    if not group.openness:
        return None
    share = _start(group)
    if share is None:
        return None
    begin = min(group.openness, key=lambda step: (abs(step.tau - share * step.steps), step.tau))
    words = "most" if begin.low > MUCH else "little" if begin.high < LITTLE else "part"
    there = abs(begin.tau - share * begin.steps) < 1
    where = "" if there else f" (bpt and b2 begin with {share * begin.steps:.0f}, which the profile lacks)"
    text = (
        f"with {begin.tau} of {begin.steps} steps to go{', where bpt and b2 begin' * there}, {words} of the reward is "
        f"open: {_share(begin)} of its variance{where}"
    )
    later = [step for step in group.openness if step.tau < begin.tau]
    if later:
        text += f"; with {later[0].tau} to go {_share(later[0])}"
    if words == "little" and there:
        text += ". What these steps cannot change they cannot learn at first, so b2 has little to gain from them here"
    kinds = {"most": "gain", "part": "inconclusive", "little": "loss"}
    return Answer("Room for B2", text, kinds[words] if there else "inconclusive")


def _start(group: Tables) -> float | None:
    """Return the share of the steps with which the context's bpt and b2 begin; None where they differ in it."""
    found = set()
    for detail in group.details:
        if detail.wrapper in ("bpt", "b2"):
            text = (group.settings | detail.settings).get("wrapper.tau_start", "")
            found.add(float(text) if text.replace(".", "", 1).isdecimal() else START)
    return found.pop() if len(found) == 1 else None if found else START


def _share(step: OpenStep) -> str:
    bounds = "" if not math.isfinite(step.low) else f" [{step.low:.0%}, {step.high:.0%}]"
    return f"{step.share:.0%}{bounds}"


def openness(group: Tables) -> Grid:
    """Return the profile as a table."""

    def value(name: str) -> Callable[[OpenStep], Cell]:
        return lambda step: Cell(number(getattr(step, name)), sort=getattr(step, name))

    def elsewhere(steps: Iterable[OpenStep]) -> Callable[[OpenStep], Cell]:
        known = {(step.tau, step.steps): step for step in steps}

        def cell(step: OpenStep) -> Cell:
            found = known.get((step.tau, step.steps))
            return Cell("-" if found is None else _share(found), sort=None if found is None else found.share)

        return cell

    columns: list[tuple[str, Callable[[Any], Cell]]] = [
        ("steps to go", lambda step: Cell(f"{step.tau} of {step.steps}", sort=step.tau)),
        ("share open", lambda step: Cell(_share(step), sort=step.share)),
        ("sd within a branch", value("within")),
        ("sd of all", value("total")),
        ("best \u2212 worst", value("spread")),
        ("branches", lambda step: Cell(f"{step.branches} of {step.leaves} leaves", sort=step.branches)),
        *((f"share open, {name}", elsewhere(steps)) for name, steps in group.open_elsewhere.items()),
    ]
    legend = [
        "of the pretrained model, by b2bench profile: the share of the reward's variance that the remaining steps "
        "decide, with a 95% bootstrap interval over branches"
    ]
    return grid_of(
        "openness", "How much of the reward is open", columns, group.openness, legend if group.openness else ()
    )
