"""The profile beside the verdicts."""

from typing import Any

import pytest
from b2bench.leaderboard.answers import answers
from b2bench.leaderboard.document import document
from b2bench.leaderboard.tables import tables
from synthetic import Rows


def profile(rows: Rows, shares: dict[int, tuple[float, float, float]], started: str = "2026", **more: Any) -> Any:
    names = ("benchmark_version", "backbone", "reward", "prompts_hash")
    shared = {name: rows.runs[0][name] for name in names} | {
        "profile_id": started, "started": started, "lora": None, "settings": {"steps": 20}, "branches": 48, "leaves": 5,
    }  # fmt: skip
    found = []
    for tau, (low, value, high) in shares.items():
        found.append(shared | {"tau": tau, "metric": "open_share", "value": value, "low": low, "high": high} | more)
        for metric in ("within_sd", "total_sd", "range"):
            found.append(shared | {"tau": tau, "metric": metric, "value": 0.1, "low": 0.05, "high": 0.2} | more)
    return found


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    for seed in range(3):
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.6 + 0.001 * seed})
    return rows


def said(rows: Rows, profiles: Any) -> tuple[str, str]:
    (group,) = tables(rows.runs, rows.evals, profiles=profiles)
    found = [answer for answer in answers(group) if answer.about == "Room for B2"]
    return (found[0].text, found[0].kind) if found else ("", "")


def test_what_is_open_where_b2_begins_stands_beside_the_verdict(rows: Rows) -> None:
    text, kind = said(rows, profile(rows, {20: (0.9, 0.95, 1.0), 14: (0.6, 0.7, 0.8), 10: (0.1, 0.2, 0.3)}))
    assert text.startswith(
        "with 14 of 20 steps to go, where bpt and b2 begin, most of the reward is open: 70% [60%, 80%]"
    )
    assert text.endswith("with 10 to go 20% [10%, 30%]")
    assert kind == "gain"
    text, kind = said(rows, profile(rows, {14: (0.05, 0.1, 0.15)}))
    assert "b2 has little to gain" in text
    assert kind == "loss"


def test_only_the_latest_profile_of_this_pretrained_model_counts(rows: Rows) -> None:
    old, new = profile(rows, {14: (0.6, 0.7, 0.8)}), profile(rows, {14: (0.3, 0.4, 0.6)}, "2027")
    assert "40% [30%, 60%]" in said(rows, [*new, *old])[0]
    for other in ({"lora": "mine"}, {"prompts_hash": "other"}, {"reward": "bertscore"}):
        assert said(rows, profile(rows, {14: (0.6, 0.7, 0.8)}, **other)) == ("", "")
    (group,) = tables(rows.runs, rows.evals, profiles=new)
    (grid,) = [grid for grid in document([group])[0].grids if grid.key == "openness"]
    assert [cell.text for cell in grid.rows[0][:3]] == ["14 of 20", "40% [30%, 60%]", "0.100"]


def test_a_profile_of_another_quantity_or_of_other_steps_says_nothing(rows: Rows) -> None:
    for run in rows.runs:
        run["config"]["settings"] = {"steps": 20, "guidance": 3.0}
    shares = {14: (0.6, 0.7, 0.8)}
    assert said(rows, profile(rows, shares, settings={"steps": 20, "guidance": 3.0}))[1] == "gain"
    for other in (
        {"steps": 50},
        {"steps": 20, "guidance": 5.0},
        {"steps": 20, "reward": {"goal": "incompressibility"}},
    ):
        assert said(rows, profile(rows, shares, settings=other)) == ("", "")


def test_a_profile_that_lacks_the_step_where_b2_begins_says_so(rows: Rows) -> None:
    text, kind = said(rows, profile(rows, {3: (0.05, 0.1, 0.15)}))
    assert text == (
        "with 3 of 20 steps to go, little of the reward is open: 10% [5%, 15%] of its variance "
        "(bpt and b2 begin with 14, which the profile lacks)"
    )
    assert kind == "inconclusive"


def test_b2_begins_where_its_cells_say(rows: Rows) -> None:
    shares = {14: (0.6, 0.7, 0.8), 10: (0.05, 0.1, 0.15)}
    for run in rows.runs:
        run["config"]["wrapper"] = {"name": "b2", "tau_start": 0.5}
    text, kind = said(rows, profile(rows, shares))
    assert text.startswith("with 10 of 20 steps to go, where bpt and b2 begin, little of the reward is open: 10%")
    assert kind == "loss"
    for seed in range(3):
        rows.add("pg", "b2", seed, {0: 0.6, 1000: 0.6}, config={"wrapper": {"name": "b2", "tau_start": 0.7}})
    assert said(rows, profile(rows, shares)) == ("", "")  # two places, and no one answer


def test_profiles_on_other_prompts_stand_beside(rows: Rows) -> None:
    mine = profile(rows, {14: (0.3, 0.4, 0.6), 10: (0.1, 0.2, 0.3)})
    other = profile(rows, {14: (0.6, 0.7, 0.8)}, "2027", prompts_hash="of others", prompts="pocket-template2")
    twice = [profile(rows, {14: (0.6, 0.7, 0.8)}, "2027", prompts_hash=name, prompts="mine") for name in ("a1", "b2")]
    (group,) = tables(rows.runs, rows.evals, profiles=[*mine, *twice[1], *twice[0]])
    assert list(group.open_elsewhere) == ["mine (a1)", "mine (b2)"]
    foreign = profile(rows, {14: (0.6, 0.9, 0.95)}, "2028", prompts_hash="of others", prompts="x", backbone="sd14")
    (group,) = tables(rows.runs, rows.evals, profiles=[*mine, *other, *foreign])
    (grid,) = [grid for grid in document([group])[0].grids if grid.key == "openness"]
    assert grid.columns[-1].name == "share open, pocket-template2"
    assert [row[-1].text for row in grid.rows] == ["70% [60%, 80%]", "-"]
