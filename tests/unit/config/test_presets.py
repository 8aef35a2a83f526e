"""Presets: every value has a source, every one resolves, and a run records what it changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from b2bench.config.choices import DEFAULTS
from b2bench.config.presets import load_preset, preset_names
from b2bench.config.resolve import from_dict, resolve_preset
from b2bench.config.run import RunConfig
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.estimate.calls import count_calls

NAMES = [
    name for preset in preset_names() for name in (preset, *(f"{preset}:{c}" for c in load_preset(preset).choices))
]


def run(preset: str, values: dict[str, Any] | None = None, **given: Any) -> RunConfig:
    return resolve_preset(preset, given=given, defaults=DEFAULTS, values=values or {})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_resolves_in_every_cell(name: str) -> None:
    preset = load_preset(name)
    own = {
        part: preset.options[option]
        for part, option in (("algorithm", "algo"), ("wrapper", "wrapper"))
        if option in preset.options
    }
    for algo, wrapper in (("ddpo", "vanilla"), ("pg", "bpt"), ("dpo", "bs"), ("dpok", "b2")):
        config = run(name, algo=algo, wrapper=wrapper)
        assert (config.algorithm_name, config.wrapper_name) == (algo, wrapper)
        assert config.queries % (config.settings.draws * config.settings.samples) == 0
        assert config.preset is not None
        changed = {row["name"] for row in config.preset["deviations"]}
        chosen = {"algorithm": algo, "wrapper": wrapper}
        assert changed == {part for part, asked in own.items() if chosen[part] != asked}


def test_the_papers_preset_is_the_papers_experiment() -> None:
    config = run("paper", algo="ddpo", wrapper="b2")
    assert config.backbone.name == "sd14"
    assert (config.queries, config.rounds) == (25_600, 20)
    assert (config.settings.steps, config.settings.eta, config.settings.guidance) == (20, 1.0, 5.0)
    assert config.settings.lora_rank == 4
    other = run("paper:100x256", algo="ddpo", wrapper="b2")
    assert (other.queries, other.rounds) == (25_600, 100)


FIGURES = {
    # preset, algorithm: images a round, optimizer steps of the run, queries a step, wrapper, samples, weight decay
    ("paper", "ddpo"): (1280, 400, 64, "vanilla", 5, 1e-4),  # run_process.sh: 32 x 8 x 5 images; 128 a step, twice
    ("paper:first20", "ddpo"): (1280, 400, 64, "vanilla", 5, 1e-4),
    ("paper:100x256", "ddpo"): (256, 400, 64, "vanilla", 4, 1e-4),
    ("ddpo-pytorch", "ddpo"): (256, 200, 128, "vanilla", 4, 1e-4),  # two gradient updates a round of 256
    ("d3po", "dpo"): (40, 12_800, 2, "bs", 2, 1e-4),  # config/base.py: 2 x 10 pairs an epoch, one pair a step
    ("dpok", "dpok"): (10, 12_800, 2, "vanilla", 2, 0.0),  # README: --g_batch_size 10; p_step 5, adam_weight_decay 0
    ("pocket", "ddpo"): (240, 480, 5, "vanilla", 5, 1e-4),  # docs/pocket.md
    ("grpo", "ddpo"): (240, 480, 5, "vanilla", 5, 1e-4),  # pocket's, with another advantage
    ("loop", "ddpo"): (240, 480, 5, "vanilla", 5, 1e-4),
}


def test_every_preset_has_its_figures() -> None:
    assert {name for name, _ in FIGURES} == set(NAMES)


@pytest.mark.parametrize(("name", "algo"), FIGURES)
def test_a_preset_has_the_figures_of_its_source(name: str, algo: str) -> None:
    images, steps, queries_per_step, wrapper, samples, weight_decay = FIGURES[name, algo]
    config = run(name, algo=algo)
    settings = config.settings
    assert settings.draws * settings.samples == images
    assert count_calls(config).optimizer_steps[1] == steps
    assert config.queries / steps == queries_per_step
    assert (config.wrapper_name, settings.samples, settings.weight_decay) == (wrapper, samples, weight_decay)


@pytest.mark.slow
def test_the_papers_schedule_is_compressed_and_its_first_twenty_rounds_are_not() -> None:
    def taus(preset: str, wrapper: str) -> list[int]:
        config = run(preset, algo="ddpo", wrapper=wrapper)
        return [len(config.wrapper.interval(i, config.rounds, config.settings.steps)) for i in range(config.rounds)]

    for wrapper in ("bpt", "b2", "random2", "forward", "window"):
        assert taus("paper:first20", wrapper) == [14] * 15 + [15] * 5
        assert taus("paper", wrapper) == [14 + 7 * i // 20 for i in range(20)]


def test_a_step_of_the_papers_preset_is_larger_than_the_public_codes_where_trajectories_are_short() -> None:
    """Where 512 of 1,280 rollouts are kept the public code takes 8 steps, at tau 14 as at tau 20."""
    steps = {
        wrapper: count_calls(run("paper:first20", algo="ddpo", wrapper=wrapper)).optimizer_steps[1] / 20
        for wrapper in ("vanilla", "bs", "b2")
    }
    assert steps == {"vanilla": 20, "bs": 8, "b2": 6}


@pytest.mark.parametrize(("preset", "rule"), [("grpo", "group"), ("loop", "loo")])
def test_grpo_and_loop_are_ddpo_with_another_advantage_and_nothing_else(preset: str, rule: str) -> None:
    other, plain = run(preset, algo="ddpo"), run("pocket", algo="ddpo")
    assert other.settings == replace(plain.settings, advantage=rule)
    assert other.cell_hash() != plain.cell_hash()


@pytest.mark.slow
def test_the_pocket_preset_is_the_defaults() -> None:
    assert run("pocket", algo="dpok", wrapper="b2").settings == Settings(guidance=3.0)
    with_b2 = run("pocket", algo="dpok", wrapper="b2")
    from b2bench.config.resolve import resolve

    plain = resolve(
        algorithm="dpok", wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0, values={}
    )
    assert with_b2.cell_hash() == plain.cell_hash()


def test_a_run_records_what_it_changed_and_is_found_again() -> None:
    config = run("paper", {"lr": "2e-4", "ddpo.clip_nats": "1.64"}, algo="ddpo", queries=1280)
    assert config.preset is not None
    assert {row["name"]: (row["preset"], row["value"]) for row in config.preset["deviations"]} == {
        "run.lr": (1e-4, 2e-4),
        "algorithm.clip_nats": (1638.4, 1.64),
        "queries": (25_600, 1280),
    }
    again = from_dict(config.as_dict())
    assert again.as_dict() == config.as_dict()


def test_a_preset_whose_own_run_cannot_be_had_says_what_was_given_instead(tmp_path: Path) -> None:
    """``--queries`` that fits the samples given, and not those of the preset."""
    path = tmp_path / "mine.toml"
    path.write_text('[set]\nlr = { value = 1e-3, source = "x" }\n[options]\nalgo = { value = "pg", source = "x" }')
    config = run(str(path), {"samples": "4", "lr": "2e-3"}, algo="ddpo", queries=1204)
    assert config.preset is not None
    assert config.preset["deviations"] == [
        {"name": "algo", "preset": "pg", "value": "ddpo"},
        {"name": "samples", "preset": None, "value": "4"},
        {"name": "lr", "preset": 1e-3, "value": "2e-3"},
    ]


def test_a_preset_is_no_part_of_a_cell() -> None:
    config = run("pocket", algo="ddpo")
    assert "preset" in config.as_dict()
    content = {key: value for key, value in config.as_dict().items() if key != "preset"}
    assert from_dict(content).cell_hash() == config.cell_hash()


def test_a_clip_range_keeps_its_nats_on_another_backbone() -> None:
    config = run("ddpo-pytorch", backbone="pocket")
    assert config.algorithm.clip_nats == pytest.approx(1e-4 * 16_384)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[set]\nsteps = 20", "source"),
        ("[set]\nsteps = { value = 20 }", "source"),
        ('[set]\nsteps = { value = 20, source = "open" }', "open"),
        ('[set]\nsteps = { value = 20, source = "x", sauce = "y" }', "sauce"),
        ('[options]\nquery = { value = 20, source = "x" }', "queries"),
        ("[sett]", "unknown key 'sett'"),
        ("set = 3", "table"),
        ("notes = 3", "notes"),
        ("[set", "not TOML"),
        ('[set]\nstep = { value = 20, source = "x" }', "step"),
        ("[set]\nlr = { value = 1e-3, source = 5 }", "source"),
        ('[set]\nlr = { value = 1e-3, source = "x", why = 5 }', "why must be text"),
        ('[options]\nqueries = { value = "many", source = "x" }', "queries = 'many' is not of type int"),
        ('[options]\nbackbone = { value = 5, source = "x" }', "backbone = 5 is not of type str"),
        ('[options]\nprompts = { value = ["a"], source = "x" }', "is not of type str"),
    ],
)
def test_a_wrong_preset_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        run(str(path), algo="ddpo")


MINE = """
[set]
lr = { value = 1e-3, source = "x" }
[choices.big.set]
draws = { value = 2, source = "x" }
"""


def test_a_preset_file_has_choices_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE)
    for path in (tmp_path / "mine.toml", "./mine.toml", "mine.toml"):
        assert load_preset(f"{path}:big").name == "mine:big"
        assert run(f"{path}:big", algo="ddpo").settings.draws == 2
    with pytest.raises(UserError, match=r"no choice 'bigg'.*Did you mean big"):
        load_preset(f"{tmp_path}/mine.toml:bigg")


def test_what_overrules_a_preset_may_be_named_in_two_ways(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE + "[algorithm.ddpo]\nclip_nats = { value = 3.0, source = 'x' }\n")
    found = run(str(path), {"run.lr": 2e-3, "clip_nats": 2.0}, algo="ddpo")
    assert (found.settings.lr, found.algorithm.clip_nats) == (2e-3, 2.0)  # type: ignore[attr-defined]
    assert {each["name"] for each in found.preset["deviations"]} == {"run.lr", "algorithm.clip_nats"}
    with pytest.raises(UserError, match=r"lr is given twice, by itself and as run.lr"):
        run(str(path), {"run.lr": 2e-3, "lr": 2e-3}, algo="ddpo")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[algorithm.ddop]\neps = { value = 0.1, source = 'x' }",
            r"\[algorithm.ddop\] is of no algorithm. Did you mean ddpo",
        ),
        ("[wrapper.bpd]\nx = { value = 1, source = 'x' }", r"\[wrapper.bpd\] is of no wrapper. Did you mean bpt"),
        ("[choices.big.sets]\nx = { value = 1, source = 'x' }", r"unknown key 'sets' in choice big. Did you mean set"),
    ],
)
def test_a_mistyped_section_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        run(str(path), algo="ddpo")


def test_unknown_presets_and_choices_are_refused_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown preset 'papr'.*paper"):
        load_preset("papr")
    with pytest.raises(UserError, match=r"no choice '100x25'.*100x256"):
        load_preset("paper:100x25")
    with pytest.raises(UserError, match=r"'paper:' names no choice.*100x256.*paper alone"):
        load_preset("paper:")
    with pytest.raises(UserError, match="leaves the algorithm open"):
        run("paper")
