"""Samplers of Optuna: what they propose, from which scores, and that nothing but the scores decides."""

import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tuning_world import World, rising

from b2bench.config.choices import Choices
from b2bench.errors import UserError
from b2bench.search import GENERATION, Sampler, Search
from b2bench.sweep.local import Progress, Sweep
from b2bench.sweep.plan import Job
from b2bench.tuning.proposals import proposed
from b2bench.tuning.space import Configuration, Dimension, configurations
from b2bench.tuning.stages import plan_cell

LEARNS = [Sampler.tpe, pytest.param(Sampler.gp, marks=pytest.mark.slow)]
OPTUNA = [*LEARNS, Sampler.random]
Score = Callable[..., float]

LR = Dimension("run.lr", Search(1e-4, 1e-2, published=1e-5, source="here"), 1e-3)
CLIP = Dimension("algorithm.clip", Search(0.0, 10.0, log=False), 5.0)
SIZE = Dimension("run.transitions_per_step", Search(50, 400), 100, whole=True)
SPACES = [(LR,), (LR, CLIP), (LR, CLIP, SIZE)]


def search(
    space: Sequence[Dimension], sampler: Sampler, count: int, score: Callable[..., float]
) -> list[Configuration]:
    """All configurations of a search, whose runs score what ``score`` says of their values."""
    tried = configurations(space, count)[:GENERATION]
    while len(tried) < count:
        known = [(one.values, score(*one.values.values())) for one in tried]
        tried += proposed(space, known, sampler, count)
    return tried


def peak(lr: float, *others: float) -> float:
    return -((3.0 - abs(lr - 5e-3) * 1e3) ** 2) if lr > 8e-3 else -abs(lr - 5e-3) * 100


@pytest.mark.parametrize("space", SPACES, ids=len)
@pytest.mark.parametrize("sampler", OPTUNA)
def test_a_search_is_the_same_each_time_and_stays_in_its_space(sampler: Sampler, space: Sequence[Dimension]) -> None:
    pytest.importorskip("optuna")
    found = search(space, sampler, 10, peak)
    assert found == search(space, sampler, 10, peak)
    assert [one.kind for one in found] == ["published", "default", "sobol", "sobol", *[sampler] * 6]
    assert found[:GENERATION] == configurations(space, 10)[:GENERATION]
    assert len({tuple(one.values.values()) for one in found}) == 10
    for one in found[GENERATION:]:
        assert list(one.values) == [axis.name for axis in space]
        for axis, share in zip(space, one.point, strict=True):
            value = one.values[axis.name]
            assert axis.search.low <= value <= axis.search.high
            assert value == axis.at(share)
            assert isinstance(value, int) == axis.whole


@pytest.mark.parametrize("sampler", LEARNS)
def test_a_longer_search_begins_with_the_shorter_one(sampler: Sampler) -> None:
    pytest.importorskip("optuna")
    assert search(SPACES[1], sampler, 12, peak)[:6] == search(SPACES[1], sampler, 6, peak)


@pytest.mark.parametrize("sampler", LEARNS)
def test_points_follow_from_the_scores(sampler: Sampler) -> None:
    """More of them lie in the better half, whichever it is, than of points that look at nothing."""
    pytest.importorskip("optuna")
    low = search((LR,), sampler, 16, lambda lr: -abs(lr - 2e-4) * 1e3)
    high = search((LR,), sampler, 16, lambda lr: -abs(lr - 5e-3) * 1e3)
    below = [sum(one.values["run.lr"] < 1e-3 for one in found[GENERATION:]) for found in (low, high)]
    assert below[0] >= 8
    assert below[1] <= 4
    rounding = search((LR,), sampler, 16, lambda lr: -abs(lr - 5e-3) * 1e3 + 1e-14)
    assert rounding == high


def test_points_of_random_look_at_no_score() -> None:
    pytest.importorskip("optuna")
    assert search((LR, CLIP), Sampler.random, 12, peak) == search((LR, CLIP), Sampler.random, 12, lambda *_: 0.0)


@pytest.mark.parametrize("sampler", LEARNS)
def test_a_run_without_a_score_counts_as_the_lowest(sampler: Sampler) -> None:
    pytest.importorskip("optuna")
    tried = [(one.values, -float(i)) for i, one in enumerate(configurations(SPACES[1], 8)[:GENERATION])]
    lost = [*tried[:3], (tried[3][0], -float("inf"))]
    lowest = [*tried[:3], (tried[3][0], -2.0)]
    assert proposed(SPACES[1], lost, sampler, 8) == proposed(SPACES[1], lowest, sampler, 8)
    nothing = [(values, -float("inf")) for values, _ in tried]
    assert len(proposed(SPACES[1], nothing, sampler, 8)) == GENERATION


@pytest.mark.parametrize("sampler", OPTUNA)
def test_a_value_without_a_place_in_the_space_is_no_evidence(sampler: Sampler) -> None:
    """A clamp may be none, and published rates may lie below the range."""
    pytest.importorskip("optuna")
    inside = [({"run.lr": 1e-3, "algorithm.clip": 2.0}, 0.1), ({"run.lr": 2e-3, "algorithm.clip": 3.0}, 0.2)]
    none = ({"run.lr": 1e-3, "algorithm.clip": None}, 0.0)
    outside = [({"run.lr": 1e-5, "algorithm.clip": 2.0}, score) for score in (0.0, 9.0)]
    found = [proposed(SPACES[1], [*inside, none, one], sampler, 8) for one in outside]
    assert found[0] == found[1]


@pytest.mark.parametrize("sampler", OPTUNA)
def test_few_whole_numbers_are_each_tried_once(sampler: Sampler) -> None:
    pytest.importorskip("optuna")
    few = Dimension("run.transitions_per_step", Search(1, 7, log=False), 4, whole=True)
    count = len(configurations([few], 7))
    found = search([few], sampler, count, lambda size: float(size))
    assert sorted(one.values["run.transitions_per_step"] for one in found) == [1, 2, 3, 4, 5, 6, 7][:count]


@pytest.mark.parametrize(("log", "low"), [(True, 1e-4), (False, 0.0)])
def test_the_share_of_a_value_is_where_it_lies(log: bool, low: float) -> None:
    one = Search(low, 1e-2, log=log)
    for share in (0.0, 0.25, 1.0):
        assert one.share(one.at(share)) == pytest.approx(share, abs=1e-3)
    assert one.share(2e-2) is None
    assert one.share(None) is None


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"--sampler tpe needs the package optuna; try uv pip .*-e '.*\[optuna\]'"):
        plan_cell(Choices(algo="pg"), 8, None, half=True, sampler=Sampler.tpe)
    assert plan_cell(Choices(algo="pg"), 8, None, half=True).unknown == 0


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    pytest.importorskip("optuna")
    return World(tmp_path, monkeypatch)


def preset_of(world: World) -> dict[str, Any]:
    return tomllib.loads(Path("leaderboard/tuned/ddpo-vanilla.toml").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_tuning_in_generations_and_a_second_call_runs_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ("--algo", "ddpo", "--sampler", "tpe", "--configurations", "9")
    assert world.tune(*choice, "--json") == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["sampler"], row["alike"], row["configurations"]) == ("tpe", False, 9)
    assert [job.config.seed for job in world.made] == [1000] * 9 + [1001, 1002] * 3
    tuning = preset_of(world)["tuning"]
    assert [one["kind"] for one in tuning["tried"]] == ["published", "default", "sobol", "sobol", *["tpe"] * 5]
    assert tuning["sampler"] == "TPESampler of Optuna"
    assert tuning["generation"] == 4
    assert tuning["optuna"]
    assert "cells are not tuned alike" in tuning["points"]
    assert "cells are not tuned alike" in preset_of(world)["about"]

    world.made.clear()
    assert world.tune(*choice) == 0
    assert world.made == []
    assert "cells are not tuned alike" in " ".join(capsys.readouterr().out.split())
    assert world.tune("--algo", "ddpo", "--configurations", "9") == 2  # the protocol does not overwrite it
    assert "tuned by TPESampler of Optuna" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_processes_and_interrupts_change_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a generation end in another order, and the tuning is broken off in the middle of one."""
    choice = ("--algo", "ddpo", "--sampler", "tpe", "--configurations", "10")
    assert world.tune(*choice, "--jobs", "1") == 0
    whole = [job.key for job in world.made]
    expected = preset_of(world)

    world.store.path.unlink()
    Path("leaderboard/tuned/ddpo-vanilla.toml").unlink()
    world.made.clear()
    plain = Sweep.run

    def backwards(sweep: Sweep) -> list[Progress]:
        sweep.progress.reverse()
        if len(world.made) == 4:  # the second generation: one of its runs ends, and then it is interrupted
            sweep.progress = sweep.progress[:1]
            plain(sweep)
            raise KeyboardInterrupt
        return plain(sweep)

    monkeypatch.setattr(Sweep, "run", backwards)
    assert world.tune(*choice, "--jobs", "3") == 1
    assert len(world.made) == 5
    assert world.tune(*choice, "--jobs", "3") == 0
    assert sorted(job.key for job in world.made) == sorted(whole)
    assert preset_of(world) == expected


@pytest.mark.slow
def test_a_generation_waits_for_the_one_before_it_and_failed_runs_stay_as_they_are(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ("--sampler", "tpe", "--configurations", "8")

    def fails_at_default(job: Job) -> list[float] | None:
        return None if job.config.settings.lr == 1e-3 and job.config.algorithm_name == "ddpo" else rising(job)

    world.reward = fails_at_default  # a run that never began
    assert world.tune("--algo", "ddpo,pg", *choice) == 1
    assert "ddpo-vanilla: 1 runs did not end" in " ".join(capsys.readouterr().err.split())
    seeds = [(job.config.algorithm_name, job.config.seed) for job in world.made]
    assert seeds.count(("ddpo", 1000)) == 4
    assert seeds.count(("pg", 1000)) == 8

    world.made.clear()
    world.reward = lambda job: [] if job.config.settings.lr > 2e-3 else rising(job)  # these end without a score
    assert world.tune("--algo", "ddpo", *choice) == 0
    failed = [one for one in preset_of(world)["tuning"]["tried"] if not one["scores"]]
    assert 0 < len(failed) < 8
    world.made.clear()
    world.reward = rising  # it would do better now, but later points rest on it
    assert world.tune("--algo", "ddpo", *choice) == 0
    assert world.made == []


@pytest.mark.slow
def test_a_dry_run_says_the_cost_of_points_that_nobody_knows(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--algo", "pg", "--configurations", "8", "--sampler", "tpe", "--dry-run")
    assert world.tune(*few, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    [cell] = found["cells"]
    assert (cell["configurations"], cell["unknown"], cell["runs"], cell["queries"]) == (8, 4, 12, 14400)
    assert len(found["first_stage"]) == 4
    assert world.tune(*few) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Its other 4 runs, 4 of a cell at a time, are named by sampler tpe" in shown
    assert "12 runs, 14,400 reward queries" in shown


def test_a_sampler_that_is_none_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.tune("--algo", "pg", "--sampler", "cmaes") == 2
    assert "cmaes" in capsys.readouterr().err
