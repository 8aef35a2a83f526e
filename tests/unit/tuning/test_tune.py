"""``b2bench tune``: its stages, what a second call does, the preset that it writes, and seeds kept apart."""

import json
import re
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from b2bench.algorithms.dpok import DPOK
from store_rows import run_row
from tuning_world import World, rising

import b2bench
from b2bench.cli.look import _tuning_costs
from b2bench.config.choices import Choices, resolved
from b2bench.config.presets import load_preset
from b2bench.config.prompt_sets import load_prompts
from b2bench.config.resolve import from_dict
from b2bench.config.run import check_seed
from b2bench.config.settings import Settings
from b2bench.describe.tables import tables_of
from b2bench.errors import UserError
from b2bench.store.parquet import export_results, import_results
from b2bench.store.store import Store
from b2bench.tuning.stages import UNSEEN, budget
from b2bench.tuning.trials import trials_of
from b2bench.version import benchmark_version
from b2bench.wrappers import B2


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.slow
def test_two_stages_choose_and_a_second_call_runs_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    choice = ("--algo", "pg", "--wrapper", "vanilla,b2")
    best = 3e-4  # the default
    world.reward = lambda job: rising(job, best)
    assert world.tune(*choice, "--configurations", "5", "--json") == 0
    [vanilla, b2] = json.loads(capsys.readouterr().out)
    assert [job.config.seed for job in world.made] == [1000] * 10 + [1001, 1002] * 4
    assert {job.config.queries for job in world.made} == {1200}
    assert all(job.config.tuning for job in world.made)
    chosen = vanilla["chosen"]
    assert (chosen["kind"], chosen["values"]["run.lr"]) == ("default", best)
    assert vanilla["tuned_score"] == pytest.approx((0.5 + 0.7) / 2)
    assert vanilla["queries"] == 9 * 6
    assert vanilla["collapsed"] == sum(job.config.settings.lr > 2e-3 for job in world.made[:5]) == 2
    assert b2["wrapper"] == "b2"
    path = Path("leaderboard/tuned/pg-vanilla.toml")
    assert vanilla["preset"] == str(path)
    text = path.read_text(encoding="utf-8")

    world.made.clear()
    assert world.tune(*choice, "--configurations", "5") == 0
    assert world.made == []
    assert path.read_text(encoding="utf-8") == text
    shown = " ".join(capsys.readouterr().out.split())
    assert "tuning queries" in shown
    assert "best of 1 of 2 of 4" in shown

    assert world.tune("--algo", "pg", "--configurations", "6") == 0  # the first five are done
    assert [job.config.seed for job in world.made] == [1000, 1001, 1002]  # and the sixth is of the top quarter
    assert len({job.cell for job in world.made}) == 1


@pytest.mark.slow
def test_evaluations_of_tuning_runs_are_small_and_the_rest_is_the_cells(world: World) -> None:
    world.tune("--algo", "pg", "--configurations", "2")
    job = world.made[0]
    plain = resolved(Choices(algo="pg", values={"steps": 2, "draws": 1}))
    differ = {name for name, value in vars(plain.settings).items() if value != getattr(job.config.settings, name)}
    assert differ == {"lr", "eval_images", "eval_train_images", "sample_images", "kl_images", "inception"}
    assert job.config.images_at(0).splits == {"test": 1, "train": 0}
    assert job.arguments[-2:] == ("--purpose", "tuning")
    assert job.label == "pg vanilla template1 s1000 lr=0.0001"


@pytest.mark.slow
def test_the_preset_says_how_it_was_found_and_run_takes_it(world: World) -> None:
    assert world.tune("--algo", "dpok", "--wrapper", "b2", "--configurations", "5", "--queries", "20") == 0
    path = Path("leaderboard/tuned/dpok-b2.toml")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tuning = content["tuning"]
    assert tuning["seeds"] == [1000, 1001, 1002]
    assert (tuning["configurations"], tuning["queries_a_run"], tuning["runs"]) == (5, 20, 5 + 4)
    assert tuning["commits"] == ["c0ffee"]
    assert tuning["space"]["algorithm.kl_weight"]["published"] == 0.01
    assert len(tuning["tried"]) == 5
    assert sum(len(one["scores"]) == 3 for one in tuning["tried"]) == 2

    config = resolved(Choices(algo="dpok", wrapper="b2", preset="tuned"))
    assert config.preset is not None
    assert (config.preset["name"], config.preset["deviations"]) == ("dpok-b2", [])
    assert config.preset["tuning_seeds"] == [1000, 1001, 1002]
    assert (config.preset["searched"], config.preset["tuned_on"]) == (["algorithm.kl_weight", "run.lr"], "template1")
    assert (config.queries, config.settings.steps, config.settings.draws) == (2400, 2, 1)
    assert config.settings.eval_images is None  # that was tuning's
    assert load_preset(str(path)).options["backbone"] == "pocket"
    assert world("sweep", "--preset", "tuned", "--algo", "dpok", "--wrapper", "b2", "--seeds", "0-1", "--dry-run") == 0


def test_a_default_that_changes_later_changes_no_tuned_cell(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.tune("--algo", "dpok", "--wrapper", "b2", "--configurations", "3", "--queries", "20") == 0
    cell = Choices(algo="dpok", wrapper="b2", preset="tuned")
    before, untuned = resolved(cell).cell_hash(), resolved(replace(cell, preset=None)).cell_hash()
    for owner, name, other in ((Settings, "max_grad_norm", 0.5), (DPOK, "clip_nats", 3.0), (B2, "rises", 3)):
        monkeypatch.setitem(owner.__init__.__kwdefaults__, name, other)  # what a dataclass takes if nothing is given
    assert resolved(replace(cell, preset=None)).cell_hash() != untuned
    assert resolved(cell).cell_hash() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--algo", "ddpo", "--wrapper", "bs"], "Try b2bench tune --algo ddpo --wrapper bs"),
        (["--algo", "ddpp"], "Did you mean ddpo?"),
        ([], "try naming the algorithm with --algo"),
    ],
)
def test_a_cell_without_tuned_settings_is_an_error_that_says_what_to_do(
    world: World, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert world("run", "--preset", "tuned", *given) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_runs_that_failed_count_as_collapsed_and_runs_that_never_began_are_left(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.reward = lambda job: [] if job.config.settings.lr > 2e-3 else rising(job)
    assert world.tune("--algo", "ddpo", "--configurations", "4", "--json") == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["collapsed"] == sum(job.config.settings.lr > 2e-3 for job in world.made[:4]) == 1

    world.reward = lambda job: None if job.config.settings.lr == 3e-4 else rising(job)
    assert world.tune("--algo", "pg", "--configurations", "2") == 1
    assert "pg-vanilla: 1 runs did not end, so nothing is chosen" in " ".join(capsys.readouterr().err.split())
    assert not Path("leaderboard/tuned/pg-vanilla.toml").exists()
    assert not any(job.config.algorithm_name == "pg" and job.config.seed > 1000 for job in world.made)

    world.reward = lambda job: []
    assert world.tune("--algo", "dpo", "--configurations", "2") == 1
    assert "dpo-vanilla: every run failed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_reports_leave_tuning_runs_out_unless_asked(world: World) -> None:
    assert world.tune("--algo", "ddpo", "--configurations", "2") == 0
    assert tables_of(world.store) == []
    assert len(tables_of(world.store, tuning=True)) == 1


@pytest.mark.slow
def test_what_was_tuned_on_something_else_is_not_overwritten(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.tune("--algo", "ddpo", "--configurations", "2") == 0
    assert world.tune("--algo", "ddpo", "--configurations", "2", "--prompts", "pocket-template2") == 2
    assert "prompts template1" in " ".join(capsys.readouterr().err.split())
    assert world.tune("--algo", "ddpo", "--configurations", "2", "--prompts", "pocket-template2", "--out", "two") == 0
    assert Path("two/ddpo-vanilla.toml").is_file()
    for less in (("--configurations", "2", "--queries", "1190"), ("--configurations", "2")):
        assert world.tune("--algo", "pg", "--configurations", "3", "--out", "three") == 0
        assert world.tune("--algo", "pg", *less, "--out", "three") == 2
        assert "was tuned with more" in " ".join(capsys.readouterr().err.split())
    text = Path("two/ddpo-vanilla.toml").read_text()
    Path("two/ddpo-vanilla.toml").write_text(re.sub(r'benchmark_version = "\d+"', 'benchmark_version = "1"', text))
    assert world.tune("--algo", "ddpo", "--configurations", "2", "--prompts", "pocket-template2", "--out", "two") == 2
    assert "is of benchmark version 1" in " ".join(capsys.readouterr().err.split())
    Path("two/ddpo-vanilla.toml").write_text("a = " + "[" * 5000)
    assert world.tune("--algo", "ddpo", "--configurations", "2", "--prompts", "pocket-template2", "--out", "two") == 2
    assert "is not a tuned preset" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_next_command_names_what_the_preset_cannot(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("\n".join(load_prompts("template1").train[:2]))
    few = ("--configurations", "2", "--prompts", "mine.txt")
    assert world.tune("--algo", "ddpo", *few) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"--seeds 0-4 --prompts {Path('mine.txt').resolve()}" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "ddpo", "--quick", "--full"], "two budgets"),
        (["--algo", "ddpo", "--configurations", "1"], "no search"),
        (["--algo", "ddpo", "--set", "lr=1"], "lr is what b2bench tune searches"),
        (["--algo", "ddpo", "--set", "ddpo.clip_nats=1"], "ddpo.clip_nats is what b2bench tune searches"),
        (["--algo", "ddpo", "--preset", "tuned"], "try without it"),
        ([], "try --algo"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    world: World, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert world.tune(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert world.made == []


@pytest.mark.slow
def test_a_dry_run_says_what_both_stages_cost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--configurations", "4", "--dry-run")
    assert world.tune("--algo", "pg,ddpo", *few, "--json", "--throughput", "100") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["algorithm"], row["runs"], row["queries"]) for row in found["cells"]] == [
        ("pg", 6, 7200),
        ("ddpo", 6, 7200),
    ]
    assert all(row["hours"][0] > 0 for row in found["cells"])
    assert len(found["first_stage"]) == 8
    assert not world.store.path.exists()
    assert world.tune("--algo", "pg", *few) == 0
    assert "6 runs, 7,200 reward queries" in " ".join(capsys.readouterr().out.split())
    assert world.tune("--algo", "pg", "--wrapper", "vanilla,b2", "--queries", "25", *few) == 0
    assert capsys.readouterr().out.count("b2: tau never reaches T: the last of 5 rounds") == 1


@pytest.mark.parametrize(
    ("given", "count", "half"),
    [([], 8, True), (["--quick"], 8, True), (["--full"], 32, False), (["--full", "--configurations", "9"], 9, False)],
)
def test_quick_and_full_are_budgets(
    world: World, monkeypatch: pytest.MonkeyPatch, given: list[str], count: int, half: bool
) -> None:
    asked: list[Any] = []

    def planned(choices: Choices, algo: str, wrapper: str, count: int, queries: None, by: str, *, half: bool) -> Any:
        asked.append((count, half))
        raise UserError("enough")

    monkeypatch.setattr("b2bench.cli.tune._planned", planned)
    assert world.tune("--algo", "pg", *given) == 2
    assert asked == [(count, half)]


@pytest.mark.parametrize(("full", "each"), [(False, 4800), (True, 9600)])
def test_an_estimate_prices_tuning_at_the_budget_of_the_run(full: bool, each: int) -> None:
    choices = Choices(algo="ddpo", wrapper="b2", queries=9600)
    (row,) = _tuning_costs(choices, [resolved(choices)], None, full=full)
    assert row["queries"] == each * row["runs"]


def test_half_of_a_budget_is_in_whole_rounds() -> None:
    def halved(queries: int, **values: int) -> int:
        return budget(resolved(Choices(algo="ddpo", queries=queries, values=values)), half=True)

    assert halved(2400) == 1200
    assert halved(1200) == 480  # two rounds of 240
    assert halved(240) == 120  # less than a round: whole draws
    assert halved(15) == 5
    assert halved(5) == 5
    assert budget(resolved(Choices(algo="ddpo")), half=False) == 2400


def test_seeds_of_tuning_and_of_final_runs_are_kept_apart(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (("run", "--algo", "ddpo", "--seed", "1000"), "seeds from 1000 on are for tuning"),
        (("run", "--algo", "ddpo", "--seed", "999", "--purpose", "tuning"), "has a seed from 1000 on"),
        (("sweep", "--algo", "ddpo", "--seeds", "998-1001", "--dry-run"), "seeds from 1000 on are for tuning"),
    ):
        assert world(*arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="not a tuning run"):
        world.store.start_run(run_row(seed=1000))
    world.store.start_run(run_row("lora", seed=1000, algorithm="external"))  # its seed is the evaluation's
    world.store.start_run(run_row("tuning", seed=1000, config={"tuning": True}))


def test_no_file_brings_in_what_the_store_refuses(tmp_path: Path) -> None:
    old, folder = Store(tmp_path / "old.duckdb"), tmp_path / "folder"
    for run_id, seed in (("a", 0), ("b", 1)):
        old.start_run(run_row(run_id, seed=seed))
        old.finish_run(run_id, "done")
    assert sorted(Store(tmp_path / "good.duckdb").merge(old.path)) == ["a", "b"]
    with duckdb.connect(str(old.path)) as con:  # as an older version could write it, or somebody by hand
        con.execute("UPDATE runs SET seed = 1000 WHERE run_id = 'b'")
    export_results(old, folder)
    new = Store(tmp_path / "new.duckdb")
    for take in (lambda: new.merge(old.path), lambda: import_results(new, folder)):
        with pytest.raises(UserError, match=r"run b has seed = 1000: .* not a tuning run; nothing was copied"):
            take()
    assert not new.path.exists()
    with duckdb.connect(str(old.path)) as con:
        con.execute("""UPDATE runs SET config = '{"tuning": true}' WHERE run_id = 'b'""")
    assert sorted(new.merge(old.path)) == ["a", "b"]


def test_a_reward_in_its_own_unit_collapses_by_its_spread(tmp_path: Path) -> None:
    """Of CLIPScore the limit is 0.02; of others a quarter of the standard deviation of the first round."""
    store, first, last = Store(tmp_path / "a.duckdb"), [10.0, 30.0], [18.0, 18.0]
    for name, scale in (("clipscore", 0.001), ("jpeg", 1.0)):
        store.start_run(run_row(name, reward=name, seed=1000, config={"tuning": True}, config_hash=name))
        for round, values in enumerate((first, last, last)):
            rows = [
                {"query_index": 2 * round + i, "round": round, "prompt": "a cat", "reward": scale * value}
                for i, value in enumerate(values)
            ]
            store.record_round(name, {"round": round, "queries": 2 * round + 2}, rows)
        store.finish_run(name, "done")
    trials = trials_of(store, {("clipscore", 1000), ("jpeg", 1000)})
    limits = {cell: trial.limit for (cell, _), trial in trials.items()}
    assert limits == {"clipscore": 0.02, "jpeg": pytest.approx(np.std(first, ddof=1) / 4)}
    assert not any(trial.collapsed for trial in trials.values())  # by 0.02 the second would be one


def test_a_preset_that_was_chosen_with_a_seed_is_not_judged_by_it(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('[set]\nlr = { value = 0.002, source = "here" }\n[tuning]\nseeds = [0, 1]\n', encoding="utf-8")
    for seed in (0, 1):
        with pytest.raises(UserError, match=rf"seed = {seed}: the settings of preset mine were chosen with this seed"):
            check_seed(resolved(Choices(algo="ddpo", preset=str(preset), seed=seed)))
    check_seed(resolved(Choices(algo="ddpo", preset=str(preset), seed=2)))
    assert world("sweep", "--algo", "ddpo", "--preset", str(preset), "--seeds", "1-3", "--dry-run") == 2
    assert "seed = 1: the settings of preset mine" in " ".join(capsys.readouterr().err.split())
    preset.write_text("[tuning]\nseeds = 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="must have seeds"):
        load_preset(str(preset))


def test_that_a_run_is_for_tuning_is_stored_and_is_not_its_identity() -> None:
    choices: dict[str, Any] = {"algo": "ddpo", "seed": 1000}
    tuning, final = resolved(Choices(**choices, tuning=True)), resolved(Choices(**choices))
    assert tuning.cell_hash() == final.cell_hash()
    assert "tuning" not in final.as_dict()
    assert from_dict(tuning.as_dict()).tuning
    assert not from_dict(final.as_dict()).tuning


@pytest.mark.slow
def test_small_evaluations_change_no_reward(tmp_path: Path) -> None:
    """A tuning run's numbers are those of an ordinary run with its settings, however few images are evaluated."""
    small = {"steps": 2, "draws": 1}
    rewards = []
    for name, more in (("plain", {"eval_images": 6, "eval_train_images": 2}), ("tuning", UNSEEN)):
        db = tmp_path / f"{name}.duckdb"
        b2bench.run(algo="ddpo", queries=10, set={**small, **more}, db=db, out=tmp_path / name)
        rewards.append(Store(db).sql("SELECT prompt, reward, advantage, kept FROM queries ORDER BY query_index"))
    assert rewards[0] == rewards[1]
    assert len(rewards[0]) == 10


def test_a_preset_of_another_benchmark_version_is_refused(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    for version, refused in (("1", True), (benchmark_version(), False)):
        preset.write_text(
            '[set]\nlr = { value = 0.002, source = "here" }\n'
            f'[tuning]\nseeds = [1000]\nbenchmark_version = "{version}"\n',
            encoding="utf-8",
        )
        with pytest.raises(UserError, match="tuned in benchmark version 1") if refused else nullcontext():
            resolved(Choices(algo="ddpo", preset=str(preset)))
