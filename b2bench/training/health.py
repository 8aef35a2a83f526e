"""What a run's rows say about how it went: rules with their limits, read from the store alone.

Every limit is stated in docs/health.md. A finding is a hint where to look; none changes a run or a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from b2bench.metrics import HELDOUT, STYLE_ENTROPY

if TYPE_CHECKING:  # the rules need no DuckDB
    from b2bench.store.store import Store

STALE = timedelta(minutes=30)
"""Without a write for so long a run that says it is running is taken for dead"""
RATIO = 0.05
"""Distance of a round's mean ratio from 1, above which the update left the region that its data speak for"""
CLIPPED = 0.5
"""Share of clipped transitions, above which most of a round taught nothing"""
EQUAL = 0.5
"""Share of comparison groups whose rewards are all equal, above which the reward does not tell rollouts apart"""
OFF_POLICY = 0.05
"""Nats that a log-prob may differ before the first step of a round; rounding stays below a third of it"""
OUTLIER = 10.0
"""A round's gradient norm or KL as a multiple of the run's median, above which the update was another kind of update"""
ENTROPY = 0.1
"""Loss of style entropy against the pretrained model, as a share, that counts as collapse"""
FALL = 2.0
"""Standard errors by which a score is below another, above which it is lower"""

EQUAL_REWARDS = """
SELECT round, avg(CASE WHEN most = least THEN 1 ELSE 0 END) AS equal FROM (
    SELECT round, group_id, max(reward) AS most, min(reward) AS least
    FROM queries WHERE run_id = ? GROUP BY round, group_id HAVING count(*) > 1
) GROUP BY round
"""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """``level``: failed (the run is of no use as it is), warning, or fine."""

    level: Literal["failed", "warning"]
    text: str


def is_stale(run: Row, now: datetime) -> bool:
    """Tell by its last write whether a run that says it is running was killed; both times are UTC."""
    return run["status"] == "running" and now - run["heartbeat"] > STALE


def equal_rewards(store: Store, run_id: str) -> dict[int, float]:
    """Return the share of a run's groups whose rewards are all equal, by round."""
    return {row["round"]: float(row["equal"]) for row in store.sql(EQUAL_REWARDS, [run_id])}


def findings(
    run: Row, rounds: Sequence[Row], evals: Sequence[Row], equal: Mapping[int, float], now: datetime
) -> list[Finding]:
    """List what is wrong with a run, worst first. ``equal`` is the share of groups of equal rewards, by round."""
    found: list[Finding] = []
    if run["status"] == "failed":
        found.append(Finding("failed", f"it failed: {run['error'] or 'no reason was stored'}"))
    if is_stale(run, now):
        minutes = (now - run["heartbeat"]).total_seconds() / 60
        found.append(Finding("failed", f"it says running and has not written for {minutes:.0f} minutes: it was killed"))
    found += _of_rounds(rounds, equal)
    found += _of_evaluations(evals, str(run["reward"]))
    return found


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else float(value)


RULES: tuple[tuple[str, Callable[[Row, float], bool]], ...] = (
    ("no rollout reached the loss", lambda row, equal: row["kept"] == 0),
    ("no optimizer step was taken", lambda row, equal: row["optimizer_steps"] == 0),
    (
        f"before the first optimizer step a log-prob had changed by more than {OFF_POLICY:g} nats",
        lambda row, equal: _number(row, "off_policy") > OFF_POLICY,
    ),
    (
        f"the mean ratio is more than {RATIO:g} from 1",
        lambda row, equal: abs(_number(row, "ratio_mean") - 1) > RATIO,
    ),
    (
        f"more than {CLIPPED:.0%} of the transitions were clipped",
        lambda row, equal: _number(row, "clip_fraction") > CLIPPED,
    ),
    (f"all rewards are equal in more than {EQUAL:.0%} of the prompt draws", lambda row, equal: equal > EQUAL),
)
"""What is said of a round, and when; the second argument is the share of its groups whose rewards are all equal."""


def of_round(row: Row, equal: float) -> list[str]:
    """List what a single round shows, as soon as it is over."""
    return [text for text, test in RULES if test(row, equal)]


def _of_rounds(rounds: Sequence[Row], equal: Mapping[int, float]) -> list[Finding]:
    found = []

    def say(text: str, met: Sequence[Row]) -> None:
        if met:
            where = _listed([row["round"] + 1 for row in met])
            found.append(Finding("warning", f"{text} in round{'s' * (len(met) > 1)} {where}"))

    for text, test in RULES:
        say(text, [row for row in rounds if test(row, equal.get(row["round"], 0.0))])
    for name, what in (("grad_norm", "the gradient norm"), ("approx_kl", "the KL of a round's update")):
        values = sorted(value for row in rounds if math.isfinite(value := _number(row, name)))
        limit = OUTLIER * values[len(values) // 2] if values else 0.0
        if limit > 0:
            above = [row for row in rounds if _number(row, name) > limit]
            say(f"{what} is {OUTLIER:g} times its median", above)
        if name == "grad_norm" and values and values[-1] == 0:
            found.append(Finding("warning", "every gradient was zero"))
    return found


def _of_evaluations(evals: Sequence[Row], reward: str) -> list[Finding]:
    """Comparisons on test prompts, of the last evaluation with the first and with the best."""
    found = []
    curves: dict[str, list[Row]] = {}
    for row in sorted(evals, key=lambda row: row["queries"]):
        if row["split"] == "test" and row["value"] is not None and math.isfinite(row["value"]):
            curves.setdefault(row["metric"], []).append(row)

    def change(metric: str) -> tuple[float, float]:
        """Of the last against the first, and its standard error if the two were independent."""
        first, last = curves[metric][0], curves[metric][-1]
        return last["value"] - first["value"], math.hypot(_error(first), _error(last))

    trained = curves.get(reward, [])
    if len(trained) > 1:
        gain, error = change(reward)
        if gain < -FALL * error:
            found.append(
                Finding("warning", f"{reward} on test prompts ended below the pretrained model, by {-gain:.3f}")
            )
        best = max(trained, key=lambda row: row["value"])
        fall = best["value"] - trained[-1]["value"]
        if fall > FALL * math.hypot(_error(best), _error(trained[-1])):
            found.append(
                Finding("warning", f"{reward} was {fall:.3f} higher at {best['queries']} queries: it fell again")
            )
        if HELDOUT in curves and len(curves[HELDOUT]) > 1:
            other, its_error = change(HELDOUT)
            if gain > FALL * error and other < -FALL * its_error:
                found.append(
                    Finding(
                        "warning",
                        f"over-optimised: {reward} rose by {gain:.3f}, the held-out score fell by {-other:.3f}",
                    )
                )
    entropy = curves.get(STYLE_ENTROPY, [])
    if len(entropy) > 1 and entropy[-1]["value"] < (1 - ENTROPY) * entropy[0]["value"]:
        share = 1 - entropy[-1]["value"] / entropy[0]["value"]
        found.append(Finding("warning", f"{share:.0%} of the style entropy is lost: fewer styles are drawn"))
    return found


def _error(row: Row) -> float:
    settings = row["settings"] if isinstance(row["settings"], Mapping) else {}
    return float(settings.get("standard_error") or 0.0)


def _listed(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
