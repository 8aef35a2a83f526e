"""``pocket build``: resumable, seeded, its stages in an order that satisfies every need. The art here is made up."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from b2bench.rewards.bertscore import greedy_recall
from rich.console import Console
from torch import Tensor, nn

from b2bench.errors import RunFailed, UserError
from b2bench.pocket.build import command, stages, training
from b2bench.pocket.build.art import SPRITE_NAMES, Sprites, fill, recolour
from b2bench.pocket.build.command import (
    NEEDS,
    STAGES,
    VARIANT_STAGES,
    build_weights,
    claim_folder,
    install_weights,
    record,
    run_side_by_side,
    run_stage,
)
from b2bench.pocket.build.scenes import (
    DRAFT,
    SCORED,
    VARIANTS,
    WEB,
    Web,
    draw,
    holds,
    make_corpus,
    other_detail,
    unfaithful,
    with_style_gap,
)
from b2bench.pocket.build.stages import Build
from b2bench.pocket.build.tokenizers import clip_tokenizer, word_tokenizer
from b2bench.pocket.build.training import fit
from b2bench.pocket.world import (
    COLOURS,
    RELATIONS,
    STYLES,
    TEMPLATES,
    Facts,
    all_facts,
    parse_caption,
    plain_facts,
    vocabulary,
)


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    """A rectangle of its own colour for every name and style."""
    rng = np.random.default_rng(0)
    found = Sprites()
    for style in STYLES:
        for name in SPRITE_NAMES:
            sprite = np.full((16, 16, 4), 255, np.uint8)
            sprite[..., :3] = rng.integers(256, size=3)
            found[style, name] = sprite
    return found


class Interrupted(Exception):
    pass


def train_line(folder: Path, stop_at: int | None = None) -> tuple[nn.Module, list[float]]:
    """Fit a line with ``fit``; ``stop_at`` interrupts it at the start of that step."""
    torch.manual_seed(0)
    model, draws = nn.Linear(2, 1), []

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        if len(draws) == stop_at:
            raise Interrupted
        x = torch.from_numpy(rng.standard_normal((8, 2))).float()
        draws.append(float(x[0, 0]))
        return (model(x) - x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1, generator=generator)).square().mean()

    fit("line", model, loss, steps=12, lr=0.1, seed=5, folder=folder, ema=0.9, report=lambda *_: None)
    return model, draws


@pytest.mark.slow
def test_every_word_is_one_token_and_the_same_one_in_every_process() -> None:
    code = (
        "import json; from b2bench.pocket.build.tokenizers import clip_tokenizer, word_tokenizer\n"
        "made = [clip_tokenizer(), word_tokenizer('bert'), word_tokenizer('llava')]\n"
        "print(json.dumps([sorted(t.get_vocab().items()) for t in made]))"
    )
    another = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tokenizer = clip_tokenizer()
    made = [tokenizer, word_tokenizer("bert"), word_tokenizer("llava")]
    assert json.loads(another.stdout) == json.loads(json.dumps([sorted(t.get_vocab().items()) for t in made]))
    assert {len(ids) for ids in tokenizer(list(vocabulary())).input_ids} == {3}
    assert tokenizer.eos_token_id == len(tokenizer) - 1


def test_recalls_of_many_sentences_are_those_of_bertscore() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = F.normalize(torch.randn(3, 5, 8, generator=generator), dim=-1)
    references = F.normalize(torch.randn(4, 6, 8, generator=generator), dim=-1)
    kept, scored = torch.arange(5) < torch.tensor([[5], [3], [1]]), torch.arange(6) < torch.tensor([[6], [2], [4], [1]])
    found = stages.greedy_recalls(candidates, kept, references, scored)
    for i, j in itertools.product(range(4), range(3)):
        assert float(found[i, j]) == pytest.approx(
            greedy_recall(candidates[j][kept[j]], references[i], scored[i]), abs=1e-6
        )


def test_an_interrupted_stage_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)  # a checkpoint a step
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole, draws = train_line(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_line(tmp_path / "halves", stop_at=7)
    rest, draws_after = train_line(tmp_path / "halves")
    assert draws_after == draws[7:]
    for expected, found in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_a_scene_depends_on_seed_kind_and_index_alone(sprites: Any) -> None:
    few, many = make_corpus(sprites, "web", 5, 3), make_corpus(sprites, "web", 9, 3)
    assert np.array_equal(few.pixels, many.pixels[:5])
    assert few.captions == many.captions[:5]
    assert not np.array_equal(few.pixels, make_corpus(sprites, "web", 5, 4).pixels)
    assert not np.array_equal(few.pixels, make_corpus(sprites, "clean", 5, 3).pixels)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "web"), [("web", WEB), ("draft", DRAFT), ("scored", SCORED)])
def test_a_corpus_has_the_stated_shares(sprites: Any, kind: str, web: Any) -> None:
    corpus = make_corpus(sprites, kind, 1500, 11)
    plain = {facts.labels for t in TEMPLATES for facts in plain_facts(t)}
    claims = np.array([parse_caption(caption).labels not in plain for caption in corpus.captions])
    tolerance = 4 * 0.5 / 1500**0.5
    assert np.mean(~claims) == pytest.approx(web.plain_share, abs=tolerance)
    for i, style in enumerate(STYLES):
        rows = claims & (corpus.style == i)
        assert rows.sum() / claims.sum() == pytest.approx(web.detailed[style], abs=tolerance * 1.2)
        for template in TEMPLATES:
            part = rows & (corpus.template == template)
            expected = web.faithful[template][style]
            assert corpus.faithful[part].mean() == pytest.approx(expected, abs=4 * 0.5 / part.sum() ** 0.5)
        assert corpus.faithful[~claims].all()


def test_an_unfaithful_scene_is_one_of_which_the_caption_is_not_true(sprites: Any) -> None:
    rng = np.random.default_rng(0)
    for template in TEMPLATES:
        for facts in all_facts(template)[::7]:
            assert holds(facts, facts)
            for permuted in (0.0, 1.0):
                shown, pixels = unfaithful(sprites, facts, "flat", permuted, np.random.default_rng(3))
                assert not holds(facts, shown)
                assert shown.subject == facts.subject
                assert (shown == facts.lacking) == (permuted == 0)
                assert not np.array_equal(pixels, draw(sprites, facts, "flat", np.random.default_rng(3)))
            assert other_detail(facts, rng).detail not in (facts.detail, None)


def test_what_is_lacking_is_all_that_differs(sprites: Any) -> None:
    """The subject stays where it is: a scene without its detail differs from the whole in the detail's place alone."""
    for facts in (Facts(1, "cat", "riding a bike"), Facts(3, "dog", "on", "bear"), Facts(3, "dog", "under", "bear")):
        whole, part = (
            draw(sprites, facts, "flat", np.random.default_rng(5), lacking=lacking).astype(int)
            for lacking in (False, True)
        )
        rows = np.flatnonzero(abs(whole - part).max((1, 2)) > 2)
        assert len(rows) > 0
        half = range(34) if facts.detail == "under" else range(21, 64)
        assert set(rows.tolist()) <= set(half)


def test_the_other_way_to_say_a_relation_is_the_same_scene(sprites: Any) -> None:
    for facts in all_facts(3):
        other = Facts(3, facts.second or "", RELATIONS[facts.detail or ""], facts.subject)
        assert other != facts
        assert other.labels == facts.labels
        first, second = (draw(sprites, said, "flat", np.random.default_rng(1)) for said in (facts, other))
        assert np.array_equal(first, second)


def test_relations_are_where_they_say(sprites: Any) -> None:
    """Red and blue squares: above, left, and (lower and drawn over) in front."""
    art = Sprites({("flat", name): np.full((8, 8, 4), 255, np.uint8) for name in ("dog", "car")})
    art["flat", "dog"][..., 1:3], art["flat", "car"][..., :2] = 0, 0

    def middle(picture: np.ndarray, channel: int) -> np.ndarray:
        others = [c for c in range(3) if c != channel]
        where = np.argwhere((picture[..., channel] > 250) & (picture[..., others].max(-1) < 5))
        return where.mean(0)  # row, column

    for relation in RELATIONS:
        for seed in range(20):
            picture = draw(art, Facts(3, "dog", relation, "car"), "flat", np.random.default_rng(seed))
            down, right = middle(picture, 2) - middle(picture, 0)  # of the car, seen from the dog
            expected = {
                "on": down > 20,
                "under": down < -20,
                "on the left of": right > 20,
                "on the right of": right < -20,
                "in the front of": down < -10,
                "behind": down > 10,
            }
            assert expected[relation]


def test_a_food_takes_each_colour() -> None:
    """A green disc with a small red leaf: the disc is painted, the leaf stays."""
    rows, columns = np.mgrid[:40, :40] - 19.5
    disc, leaf = np.hypot(rows, columns) < 18, (rows < -15) & (abs(columns) < 3)
    sprite = np.zeros((40, 40, 4), np.uint8)
    sprite[disc] = (60, 160, 60, 255)
    sprite[leaf] = (200, 20, 20, 255)
    for style in ("flat", "noto", "soft"):
        means = {}
        for colour in COLOURS:
            painted = recolour(sprite, style, colour)
            assert np.array_equal(painted[..., 3], sprite[..., 3])
            assert np.array_equal(painted[leaf], sprite[leaf])
            means[colour] = painted[disc & ~leaf][:, :3].mean(0)
        assert means["red"][0] > 200 > 60 > means["red"][1]
        assert means["white"].min() > 220
        assert means["black"].max() < 60
        distances = [abs(means[a] - means[b]).max() for a in COLOURS for b in COLOURS if a != b]
        assert min(distances) > 25


def test_line_art_is_filled_inside_and_nowhere_else() -> None:
    rows, columns = np.mgrid[:40, :40] - 19.5
    ring = abs(np.hypot(rows, columns) - 16) < 2
    sprite = np.zeros((40, 40, 4), np.uint8)
    sprite[ring] = (0, 0, 0, 255)
    red = recolour(sprite, "line", "red")
    assert tuple(red[20, 20]) == pytest.approx((219, 33, 38, 255), abs=2)
    assert tuple(red[20, 4]) == (0, 0, 0, 255)
    assert red[0, 0, 3] == 0
    assert fill(sprite, (1, 1, 1))[20, 20].tolist() == [255, 255, 255, 255]
    solid = np.zeros((40, 40, 4), np.uint8)
    solid[np.hypot(rows, columns) < 16] = (0, 0, 0, 255)
    assert recolour(solid, "line", "yellow")[20, 20, :3].tolist() == pytest.approx([249, 214, 38], abs=2)


def test_variants_differ_in_the_gap_between_styles() -> None:
    def gap(web: Web) -> float:
        return web.faithful[1]["flat"] - web.faithful[1]["soft"]

    for web in (WEB, DRAFT):
        none, wide = (with_style_gap(web, VARIANTS[name]) for name in ("none", "wide"))
        assert gap(none) == pytest.approx(0)
        assert none.detailed == none.plain
        assert gap(wide) > 1.3 * gap(web)
        for variant in (none, wide):
            assert sum(variant.detailed.values()) == pytest.approx(1)
            assert all(0 < share < 1 for table in variant.faithful.values() for share in table.values())


def test_two_variants_do_not_share_a_folder(tmp_path: Path) -> None:
    claim_folder(tmp_path, "wide")
    claim_folder(tmp_path, "wide")
    with pytest.raises(UserError, match="holds a build of variant wide"):
        claim_folder(tmp_path, "default")
    older = tmp_path / "older"
    older.mkdir()
    (older / "base-1.state").touch()
    with pytest.raises(UserError, match="older version"):
        claim_folder(older, "default")
    with pytest.raises(UserError, match=r"unknown variant 'wid'.*wide"):
        build_weights(None, tmp_path, [], None, 1, 1, Console(quiet=True), "wid")
    with pytest.raises(UserError, match="unknown stage 'bert'"):
        build_weights(None, tmp_path, ["bert"], None, 1, 1, Console(quiet=True), "wide")


def test_every_need_comes_before_the_stage() -> None:
    for name, needs in NEEDS.items():
        assert all(STAGES.index(need) < STAGES.index(name) for need in needs)
        assert name not in VARIANT_STAGES or set(needs) <= set(VARIANT_STAGES)
    assert all(hasattr(stages, f"train_{re.sub('_[0-9]$', '', name)}") for name in STAGES)


class Process:
    """Stands for a stage's process: ends with ``code`` after some looks at it."""

    def __init__(self, looks: int, code: int = 0) -> None:
        self.looks, self.code, self.stopped = looks, code, False

    def poll(self) -> int | None:
        self.looks -= 1
        return self.code if self.looks < 0 else None

    def terminate(self) -> None:
        self.stopped = True

    def wait(self) -> int:
        return self.code


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("jobs", [2, 3])
def test_side_by_side_keeps_to_the_needs_and_to_the_number_of_jobs(jobs: int) -> None:
    started: dict[str, Process] = {}

    def start(name: str) -> Any:
        over = {other for other, process in started.items() if process.looks < 0}
        assert set(NEEDS.get(name, [])) <= over
        assert len(started) - len(over) < jobs
        started[name] = Process(3 + len(name) % 4)
        return started[name]

    run_side_by_side(list(STAGES), jobs, start)
    assert sorted(started) == sorted(STAGES)
    assert next(iter(started)) == "latents"


@pytest.mark.usefixtures("no_waiting")
def test_a_stage_that_fails_stops_the_others_and_says_which() -> None:
    started: dict[str, Process] = {}

    def start(name: str) -> Any:
        started[name] = Process(1, code=1) if name == "captioner" else Process(10**6)
        return started[name]

    with pytest.raises(RunFailed, match=r"captioner.*exit code 1"):
        run_side_by_side(["latents", "base_1", "captioner"], 2, start)
    assert started["latents"].stopped
    assert "base_1" not in started


@pytest.fixture
def tiny(sprites: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a stage by two steps on 256 made-up scenes."""

    def make(art: Path, work: Path, report: Any, variant: str) -> Build:
        build = Build(art, work, report, variant=variant, scale=1e-4)
        build.__dict__["sprites"] = sprites
        return build

    monkeypatch.setattr(stages, "Build", make)

    def run(name: str, work: Path) -> None:
        run_stage(name, work / "art", work, 1, Console(quiet=True))

    return run


@pytest.mark.slow
def test_the_stages_leave_weights_that_the_package_loads(tiny: Callable[..., None], tmp_path: Path) -> None:
    from b2bench.backbones.specs import Backbone, pocket_networks
    from b2bench.backbones.stable_diffusion import load_pipeline

    for name in STAGES:
        with pytest.raises(UserError, match=name):
            install_weights(tmp_path, tmp_path / "installed")
        tiny(name, tmp_path)
        assert json.loads(record(tmp_path, name).read_text())["wall"] > 0
    installed = tmp_path / "installed"
    install_weights(tmp_path, installed)
    shipped = Path(command.__file__).parents[1] / "weights"
    files = {path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file() and path.suffix != ".md"}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} == files
    backbone = Backbone("pocket", "", "", 3.0, scorer="pocket", networks=pocket_networks(installed))
    for prompt in ("a cat riding a bike", "red apple", "dog on bear"):
        image = load_pipeline(backbone.drawing([prompt]))(prompt, num_inference_steps=2, output_type="np").images[0]
        assert image.shape == (64, 64, 3)
    assert not any(str(tmp_path) in path.read_text() for path in installed.rglob("*.json"))
