"""What is measured without training: which images are chosen, and what makes a baseline the same as another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.evaluation.evaluate import eval_noise, eval_prompts
from b2bench.pocket.build import art
from b2bench.pocket.build.art import SPRITE_NAMES
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.pocket.world import STYLES
from b2bench.studies import baselines
from b2bench.studies.baselines import CANDIDATES, GUIDANCES, Baseline, best_of, candidate_noise, faithful_scenes, plan
from b2bench.training import inputs


@pytest.fixture
def scores() -> Tensor:
    """Of 16 candidates at 5 places, with ties."""
    return torch.randint(6, (16, 5), generator=torch.Generator().manual_seed(0)).float()


def chosen(scores: Tensor, counts: tuple[int, ...], calls: list[int]) -> dict[int, Tensor]:
    """``best_of`` of images that hold their own number; {count: index of the chosen candidate [places]}."""

    def candidates(i: int) -> Tensor:
        calls.append(i)
        return torch.full((scores.shape[1], 3, 2, 2), float(i))

    def score(images: Tensor) -> Tensor:
        index = images[:, 0, 0, 0].long()
        return scores[index, torch.arange(scores.shape[1])]

    return {count: images[:, 0, 0, 0].long() for count, images in best_of(candidates, score, counts).items()}


def test_best_of_keeps_the_first_highest_of_the_first_candidates(scores: Tensor) -> None:
    found = chosen(scores, (1, 4, 16), [])
    for count, index in found.items():
        expected = [column[:count].index(max(column[:count])) for column in scores.T.tolist()]
        assert index.tolist() == expected
    assert found[1].tolist() == [0] * 5
    assert not torch.equal(found[4], found[16])


def test_all_counts_choose_among_the_same_candidates_drawn_once(scores: Tensor) -> None:
    calls: list[int] = []
    both = chosen(scores, (4, 16), calls)
    assert calls == list(range(16))
    assert sorted(both) == [4, 16]
    for count in (4, 16):
        assert torch.equal(chosen(scores, (count,), [])[count], both[count])


def test_the_first_candidate_has_the_noise_of_runs_and_the_others_their_own(make_policy: Callable[..., Any]) -> None:
    policy = make_policy(num_steps=2)
    pairs = eval_prompts(["a cat", "a dog"], 3)
    for step in (-1, 1):
        noises = [candidate_noise(policy, 7, "test", pairs, i)([0, 1, 2], step) for i in range(4)]
        assert torch.equal(noises[0], eval_noise(policy, 7, "test", pairs)([0, 1, 2], step))
        flat = torch.cat(noises).flatten(1)
        assert len(torch.unique(flat, dim=0)) == 12
        # a row has its noise whatever the micro-batch
        assert torch.equal(candidate_noise(policy, 7, "test", pairs, 3)([2], step), noises[3][2:])
    train = candidate_noise(policy, 7, "train", pairs, 3)([0], -1)
    assert not torch.equal(train, candidate_noise(policy, 7, "test", pairs, 3)([0], -1))


# -- the oracle ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sprites() -> dict[tuple[str, str], np.ndarray]:
    """A rectangle for every name and style: the grey level says the style."""
    found = {}
    for number, style in enumerate(STYLES):
        for name in SPRITE_NAMES:
            sprite = np.full((16, 16, 4), 255, np.uint8)
            sprite[..., :3] = 40 * number
            found[style, name] = sprite
    return found


def scenes(sprites: Any, prompts: list[str], images: int, seed: int = 3, split: str = "test") -> Tensor:
    pairs = eval_prompts(prompts, images)
    return faithful_scenes(sprites, seed, split, [prompts[i] for i, _ in pairs], pairs)


def test_a_faithful_scene_depends_on_seed_split_prompt_and_noise_alone(sprites: Any) -> None:
    prompts = ["a cat playing chess", "a dog playing chess", "a fox playing chess"]
    many = scenes(sprites, prompts, 7)
    assert many.shape == (7, 3, 64, 64)
    assert 0 <= many.min() < many.max() <= 1
    assert torch.equal(scenes(sprites, prompts, 4), many[:4])
    assert not torch.equal(many[0], many[3])
    for other in (scenes(sprites, prompts, 7, seed=4), scenes(sprites, prompts, 7, split="train")):
        assert not torch.equal(other, many)


@pytest.mark.parametrize("prompts", [1, 3, 5, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_faithful_scenes_are_of_all_styles_alike(prompts: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    styles: list[str] = []

    def draw(sprites: Any, facts: Any, style: str, rng: Any) -> np.ndarray:
        styles.append(style)
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr("b2bench.pocket.build.scenes.draw", draw)
    animals = ["cat", "dog", "fox", "bee", "cow", "pig", "rat", "bat"][:prompts]
    scenes(None, [f"a {animal} playing chess" for animal in animals], 4 * prompts, seed)
    assert {style: styles.count(style) for style in STYLES} == dict.fromkeys(STYLES, prompts)


def test_the_art_is_fetched_where_no_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []
    monkeypatch.setattr(art, "fetch_art", fetched.append)
    monkeypatch.setattr(art, "load_sprites", lambda folder: {"from": folder})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    cache = tmp_path / "cache"
    assert art.load_art(None, cache, lambda text: None) == {"from": cache}
    assert fetched == [cache]
    assert art.load_art(tmp_path, cache, lambda text: None) == {"from": tmp_path}
    assert fetched == [cache]


def test_without_the_extra_it_is_named_and_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'resvg_py'", name="resvg_py")

    monkeypatch.setattr(art, "fetch_art", lambda folder: pytest.fail("fetched"))
    monkeypatch.setattr(art, "load_sprites", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match=r"uv pip install -e '.*\[pocket\]'"):
            art.load_art(folder, tmp_path / "cache", lambda text: None)


# -- which, and which is which ---------------------------------------------------------------------


def config(**values: Any) -> RunConfig:
    choices: dict[str, Any] = {
        "algorithm": "ddpo",
        "wrapper": "vanilla",
        "reward": "clipscore",
        "backbone": "pocket",
        "prompts": "template1",
        "queries": 2400,
        "seed": 0,
    }
    given = {key: values.pop(key) for key in list(values) if key in choices}
    return resolve(**(choices | given), values=values)


def test_the_sweep_holds_the_guidance_of_runs() -> None:
    names = [row.name for row in plan(["guidance", "best-of", "oracle"], config())]
    assert names == [f"guidance-{value:g}" for value in GUIDANCES] + [f"best-of-{n}" for n in CANDIDATES] + ["oracle"]
    assert [row.value for row in plan(["guidance"], config(guidance=3.5))][4:6] == [3.0, 3.5]


@pytest.mark.slow
@pytest.mark.parametrize("row", [Baseline("guidance", 2.0), Baseline("best-of", 4), Baseline("oracle")])
def test_a_baseline_is_what_its_numbers_depend_on(row: Baseline) -> None:
    usual = row.run_id(config())
    for same in (config(lr=0.1), config(micro_batch=7), config(seed=1), config(algorithm="dpok", wrapper="b2")):
        assert row.run_id(same) == usual
    for other in (
        config(eval_seed=1),
        config(eval_images=90),
        config(reward="success"),
        config(eval_train_images=0),
    ):
        assert row.run_id(other) != usual
    # the oracle is not sampled
    assert (row.run_id(config(steps=50)) == usual) == (row.kind == "oracle")


@pytest.mark.slow
def test_other_weights_at_the_same_path_are_another_baseline(tmp_path: Path) -> None:
    """By their content: a copy on another machine is the same."""
    weights = tmp_path / "here" / "open_clip_model.safetensors"
    weights.parent.mkdir()
    for file in (POCKET_WEIGHTS / "scorer-training").iterdir():
        (weights.parent / file.name).write_bytes(file.read_bytes())
    chosen, row = config(checkpoint=str(weights.parent)), Baseline("best-of", 4)
    first = row.run_id(chosen)
    assert row.content(chosen)["files"].keys() == {str(weights.parent)}
    assert "files" not in row.content(config())
    os.utime(weights, ns=(1, 1))
    assert row.run_id(chosen) == first
    weights.write_bytes(weights.read_bytes()[:-1] + b"1")
    assert row.run_id(chosen) != first


@pytest.mark.parametrize("text", ["~nobody-of-this-name/clip", "a\0b", "x" * 5000])
def test_a_setting_that_is_no_path_names_no_file(text: str) -> None:
    assert "files" not in Baseline("best-of", 4).content(config(checkpoint=text))
    assert inputs.stamps(text) == []


def test_settings_that_it_uses_are_taken() -> None:
    values = {"reward_device": "cpu", "reward_process": True, "inception_weights": "", "decode_micro_batch": 2}
    values |= {"guidance_split": True, "attention": "sliced"}
    baselines.check_values(config(**values), values)
    for name in ("kl_images", "lr"):
        with pytest.raises(UserError, match=f"does not use {name}"):
            baselines.check_values(config(), {name: 1})


def test_the_oracle_is_of_the_pocket_world_alone(tmp_path: Path) -> None:
    from b2bench.store.store import Store

    other = config(backbone="sd14")
    store = Store(tmp_path / "a.duckdb")
    with pytest.raises(UserError, match="pocket only"):
        baselines.run_baselines(other, ["oracle"], store, None, tmp_path, lambda text: None, lambda result: None)
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (["oracle,guidance"], ["guidance", "oracle"]),
        (["best-of", "guidance", "best-of"], ["guidance", "best-of"]),
        (["all"], ["guidance", "best-of", "oracle"]),
    ],
)
def test_kinds_come_as_a_list_or_one_by_one(given: list[str], kinds: list[str]) -> None:
    assert baselines.parse_kinds(given) == kinds
