"""What is said of a run, rule by rule, and its curve in a terminal."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from b2bench.terminal.chart import chart
from b2bench.training.health import STALE, findings, is_stale

NOW = datetime(2026, 1, 2)
RUN = {"status": "done", "error": None, "heartbeat": NOW, "reward": "clipscore"}


def rounds(**changed: Any) -> list[dict[str, Any]]:
    healthy = {
        "kept": 240, "optimizer_steps": 48, "ratio_mean": 1.0, "clip_fraction": 0.05, "grad_norm": 0.01,
        "approx_kl": 1e-5, "off_policy": 0.001,
    }  # fmt: skip
    return [healthy | {"round": i} | (changed if i in (2, 3, 5) else {}) for i in range(8)]


def evals(**values: tuple[float, ...]) -> list[dict[str, Any]]:
    return [
        {"queries": 100 * i, "split": "test", "metric": metric, "value": value, "settings": {"standard_error": 0.01}}
        for metric, numbers in values.items()
        for i, value in enumerate(numbers)
    ]


def said(**given: Any) -> list[str]:
    values = {"run": RUN, "rounds": rounds(), "evals": evals(clipscore=(0.5, 0.6)), "equal": {}, "now": NOW} | given
    return [finding.text for finding in findings(**values)]


def test_of_a_healthy_run_nothing_is_said() -> None:
    assert said() == []
    assert said(rounds=[], evals=[]) == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kept": 0}, "no rollout reached the loss in rounds 3-4, 6"),
        ({"optimizer_steps": 0}, "no optimizer step was taken in rounds 3-4, 6"),
        ({"ratio_mean": 1.2}, "the mean ratio is more than 0.05 from 1 in rounds 3-4, 6"),
        ({"clip_fraction": 0.7}, "more than 50% of the transitions were clipped in rounds 3-4, 6"),
        ({"grad_norm": 1.0}, "the gradient norm is 10 times its median in rounds 3-4, 6"),
        ({"approx_kl": 1e-3}, "the KL of a round's update is 10 times its median in rounds 3-4, 6"),
        (
            {"off_policy": 0.2},
            "before the first optimizer step a log-prob had changed by more than 0.05 nats in rounds 3-4, 6",
        ),
        ({"grad_norm": None, "ratio_mean": None, "clip_fraction": float("nan")}, None),
    ],
)
def test_rules_of_rounds(changed: dict[str, Any], text: str | None) -> None:
    assert said(rounds=rounds(**changed)) == ([text] if text else [])


def test_rules_of_rewards_and_gradients_that_say_nothing() -> None:
    assert said(equal={0: 0.4, 4: 0.9}) == ["all rewards are equal in more than 50% of the prompt draws in round 5"]
    still = [row | {"grad_norm": 0.0} for row in rounds()]
    assert said(rounds=still) == ["every gradient was zero"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({"clipscore": (0.6, 0.5)}, ["ended below the pretrained model, by 0.100", "0.100 higher at 0 queries"]),
        ({"clipscore": (0.5, 0.7, 0.6)}, ["0.100 higher at 100 queries"]),
        ({"clipscore": (0.5, 0.6), "clipscore_heldout": (0.6, 0.5)}, ["over-optimised"]),
        ({"clipscore": (0.5, 0.6), "style_entropy": (1.0, 0.8)}, ["20% of the style entropy is lost"]),
        ({"clipscore": (0.5, 0.49), "clipscore_heldout": (0.6, 0.59), "style_entropy": (1.0, 0.95)}, []),
    ],
)
def test_rules_of_evaluations(values: dict[str, tuple[float, ...]], texts: list[str]) -> None:
    found = said(evals=evals(**values))
    assert len(found) == len(texts)
    assert all(text in line for text, line in zip(texts, found, strict=True))


def test_failed_and_killed_runs() -> None:
    assert said(run=RUN | {"status": "failed", "error": "the loss is nan"}) == ["it failed: the loss is nan"]
    silent = RUN | {"status": "running", "heartbeat": NOW - STALE - timedelta(minutes=5)}
    assert is_stale(silent, NOW)
    assert "was killed" in said(run=silent)[0]
    assert said(run=RUN | {"status": "running"}) == []


def test_a_chart_has_its_ends_its_names_and_no_broken_point() -> None:
    text = chart({"one": [(0, 0.25), (100, 0.75)], "two": [(50, float("nan")), (0, 0.5)]}, 20, 6, "queries").plain
    lines = text.splitlines()
    assert lines[0].startswith("0.750 │")
    assert lines[5].startswith("0.250 │")
    assert "100 queries" in text
    assert "one" in text
    assert "two" in text
    drawn = [line.partition("│")[2] for line in lines[:6]]
    assert drawn[0].rstrip()
    assert drawn[0].strip() == drawn[0].split()[-1]
    assert len(drawn[0].rstrip()) == 20
    assert not drawn[5].startswith(" ")
    assert chart({"none": [(0, float("inf"))]}).plain == ""
    assert chart({"flat": [(0, 1.0)]}, 20, 6).plain
