"""Branches of a profile: their noise, their cost, and shares that are known in advance."""

import contextlib
import io
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from b2bench.leaderboard.figures import COLOURS, check_png, draw_openness
from b2bench.leaderboard.openness import Measure, Point, Profile, check_taus, openness, rows
from b2bench.leaderboard.terminal import profile_table
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageColor
from rich.console import Console
from torch import Tensor

from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.config.prompt_sets import load_prompts
from b2bench.config.resolve import check_profile_values, resolve
from b2bench.config.run import RunConfig
from b2bench.errors import RunFailed, UserError
from b2bench.plugins.toy import PROMPTS, ToyPolicy
from b2bench.store.store import Store
from b2bench.studies import profile as study
from b2bench.studies.lora import check_network
from b2bench.studies.profile import Leaves, branch_noise, sample_leaves

T = ToyPolicy.num_steps
OFFSETS = dict(zip(PROMPTS, (-0.2, 0.0, 0.1, 0.2), strict=True))


@pytest.fixture
def linear() -> ToyPolicy:
    """A policy whose steps are x -> a_k x + s_k z: then variances are known."""
    policy = ToyPolicy(0)
    policy.frozen["W"].data.zero_()
    return policy


def latent_mean(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Linear in the final latents, with a part that the prompt decides."""
    return images.logit().flatten(1).mean(1) + torch.tensor([OFFSETS[prompt] for prompt in prompts])


def profiled(
    policy: ToyPolicy, tau: int, branches: int = 6, leaves: int = 3, seed: int = 0, **options: object
) -> Leaves:
    arguments = {"tau": tau, "branches": branches, "leaves": leaves, "seed": seed, **options}
    return sample_leaves(policy, latent_mean, "latent_mean", PROMPTS, **arguments)


def true_share(policy: ToyPolicy, tau: int) -> float:
    """From the coefficients of the steps: what the last tau add to the variance, of all of it."""
    cond, one = policy.encode(PROMPTS[:1]), torch.ones(1, *policy.latent_shape)
    before, after = 1.0, 0.0  # variance of a latent dimension from x_T and the first steps, and from the last tau
    for k in range(T):
        step = policy.transition(cond, one, torch.tensor([k]))
        scale, noise = float(step.mean.detach().mean()) ** 2, float(step.std) ** 2
        before, after = scale * before, scale * after
        if k < T - tau:
            before += noise
        else:
            after += noise
    prompts = np.var(list(OFFSETS.values())) * policy.latent_size  # the reward is a mean over the latent's dimensions
    return after / (before + after + prompts)


@pytest.mark.parametrize("tau", range(1, T + 1))
def test_the_share_is_found_where_it_is_known(linear: ToyPolicy, tau: int) -> None:
    share = true_share(linear, tau)
    found = openness(profiled(linear, tau, branches=500, leaves=4).rewards)["open_share"]
    error = (found.high - found.low) / (2 * 1.96)
    assert 0 < error < 0.1 * share
    assert abs(found.value - share) < 3 * error


def test_the_known_shares_tell_the_steps_apart(linear: ToyPolicy) -> None:
    """Or the test above would pass with branches made anywhere; at T the initial latent and the prompt are shared."""
    shares = [true_share(linear, tau) for tau in range(1, T + 1)]
    assert all(b > 1.5 * a for a, b in itertools.pairwise(shares))
    assert 0 < shares[0] < shares[-1] < 1


def test_branches_of_every_tau_leave_the_same_path_and_no_leaf_is_drawn_twice(linear: ToyPolicy) -> None:
    early, late = (branch_noise(linear, 0, first=2, leaves=3, tau=tau) for tau in (3, 1))
    for step in (-1, 0):
        assert torch.equal(early([0, 3], step), late([0, 3], step))
    stem = [early([row], -1) for row in (0, 3)]
    leaves = [noise([row], step) for noise in (early, late) for row in range(6) for step in range(3, T)]
    leaves += [early([row], step) for row in range(6) for step in (1, 2)]
    draws = [*stem, *leaves]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    other = branch_noise(linear, 0, first=3, leaves=3, tau=3)
    assert torch.equal(early([3, 4], 2), other([0, 1], 2))  # of branch 3, wherever a batch begins
    assert not torch.equal(early([0], -1), branch_noise(linear, 1, 2, 3, 3)([0], -1))


def test_the_same_seed_gives_the_same_leaves_whatever_the_batch() -> None:
    policy = ToyPolicy(0)
    one = profiled(policy, 2)
    assert one.rewards.shape == (6, 3)
    assert torch.equal(one.rewards, profiled(policy, 2).rewards)
    for micro_batch in (1, 3, 7):
        again = profiled(policy, 2, micro_batch=micro_batch)
        torch.testing.assert_close(again.rewards, one.rewards, rtol=0, atol=1e-5)
    other = profiled(policy, 2, seed=1)
    assert not torch.allclose(other.rewards, one.rewards, atol=1e-3)
    assert profiled(policy, 4).prompts == one.prompts  # pairs the taus; prompts repeat, as in training
    assert len(set(profiled(policy, 1, branches=30, leaves=2).prompts)) == len(PROMPTS)


def test_every_leaf_is_one_query() -> None:
    asked: list[int] = []
    told: list[int] = []

    def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
        asked.append(len(images))
        return torch.arange(sum(asked) - len(images), sum(asked)).float()

    found = sample_leaves(
        ToyPolicy(0), reward, "count", PROMPTS, tau=2, branches=5, leaves=4, seed=0, micro_batch=8,
        styles=lambda images: torch.arange(len(images)) % 4, progress=told.append,
    )  # fmt: skip
    assert sum(asked) == 20
    assert asked == told
    assert max(asked) <= 8
    assert found.rewards.flatten().tolist() == list(range(20))  # branch by branch, as they were asked
    assert found.styles is not None
    assert found.styles.tolist() == [[0, 1, 2, 3]] * 5
    assert profiled(ToyPolicy(0), 2).styles is None


def test_a_reward_that_is_no_number_ends_the_profile() -> None:
    with pytest.raises(RunFailed, match="reward odd returned 6 scores that are not finite"):
        sample_leaves(
            ToyPolicy(0), lambda images, _: images.mean((1, 2, 3)) / 0, "odd", PROMPTS,
            tau=1, branches=2, leaves=3, seed=0,
        )  # fmt: skip


def test_taus_fall_and_are_steps() -> None:
    assert check_taus([3, 14, 20, 3], 20) == [20, 14, 3]
    for wrong in (0, 21, -1):
        with pytest.raises(UserError, match=rf"tau = {wrong} is outside 1 to 20"):
            check_taus([14, wrong], 20)


# -- what is shown ---------------------------------------------------------------------------------


def example(name: str, shares: dict[int, float], style: bool = True) -> Profile:
    def point(tau: int, share: float) -> Point:
        measures = {
            "open_share": Measure(share, share - 0.05, share + 0.05),
            "within_sd": Measure(0.125, 0.1, 0.15),
            "total_sd": Measure(0.25, 0.2, 0.3),
            "range": Measure(0.375, 0.3, 0.4),
        }
        return Point(tau, 48, 5, measures | ({"same_style": Measure(0.5, 0.25, 0.75)} if style else {}))

    return Profile(name, 20, tuple(point(tau, share) for tau, share in shares.items()), 48 * 5 * len(shares))


def printed(profile: Profile) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=80, color_system=None).print(profile_table(profile, "clipscore"))
    return screen.getvalue().splitlines()


def test_the_table_fits_a_terminal_and_has_a_dash_for_what_is_not_there() -> None:
    lines = printed(example("template1", {20: 0.65, 14: math.nan}))
    assert not any("…" in line for line in lines)
    assert "48 branches of 5 leaves" in lines[0]
    columns = ["20", "0.65", "[0.60,", "0.70]", "0.125", "0.250", "0.375", "0.50", "[0.25,", "0.75]"]
    assert lines[-3].split() == columns
    assert lines[-2].split() == ["14", "-", *columns[4:]]
    assert printed(example("template1", {20: 0.65}, style=False))[-2].split()[-2:] == ["0.375", "-"]


def test_rows_are_one_per_tau_and_measure() -> None:
    found = rows(example("template1", {20: 0.65, 14: 0.25}))
    assert len(found) == 10
    assert found[5] == {
        "tau": 14, "metric": "open_share", "value": 0.25, "low": 0.2, "high": 0.3, "branches": 48, "leaves": 5,
    }  # fmt: skip


def coloured(path: Path, colour: str) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((abs(pixels - ImageColor.getrgb(colour)).max(2) < 8).sum())


def test_the_figure_shows_every_set(tmp_path: Path) -> None:
    one, both = tmp_path / "one.png", tmp_path / "both.png"
    first, second = example("template1", {20: 0.65, 14: 0.2, 6: math.nan}), example("template2", {20: 0.4, 3: 0.1})
    draw_openness({"template1": first}, one, "pocket")
    draw_openness({"template1": first, "template2": second}, both)
    with Image.open(one) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 500
    assert coloured(one, COLOURS[0]) > 300
    assert coloured(one, COLOURS[1]) == 0
    assert min(coloured(both, COLOURS[0]), coloured(both, COLOURS[1])) > 300


def test_a_figure_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_png(tmp_path / "a.PNG")
    with pytest.raises(UserError, match=r"ends in \.png"):
        check_png(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="does not exist"):
        check_png(tmp_path / "gone" / "a.png")


def config_of(prompts: str) -> RunConfig:
    return resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=10, seed=0, values={},
        prompts=prompts,
    )  # fmt: skip


class Silent:
    def stage(self, text: str) -> None: ...
    def queried(self, queries: int) -> None: ...
    def point_done(self, prompts: str, point: Point) -> None: ...


@pytest.mark.slow
def test_each_set_is_drawn_by_its_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pocket has one for each template."""
    configs = [config_of(name) for name in ("template1", "pocket-template3")]
    seen: list[tuple[bool, float]] = []

    def spy(policy: StableDiffusion, reward: object, name: str, prompts: Sequence[str], **options: object) -> Leaves:
        expected = StableDiffusionPipeline.from_pretrained(configs[len(seen)].backbone.source).unet
        same = all(map(torch.equal, policy.pipeline.unet.parameters(), expected.parameters()))
        seen.append((same, policy.threads.count))
        return Leaves(20, tuple(prompts[:4]), torch.rand(4, 5), None)

    monkeypatch.setattr(study, "sample_leaves", spy)
    threads = torch.get_num_threads()
    found = study.profile(
        configs, None, split="train", taus=[20], branches=4, leaves=5, store=Store(tmp_path / "a.duckdb"),
        listener=Silent(),
    )  # fmt: skip
    assert [result.prompts for _, result in found] == ["template1", "pocket-template3"]
    assert seen == [(True, threads)] * 2


def test_the_prompts_of_every_set_are_checked_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def load(config: RunConfig, *rest: object, **more: object) -> object:
        checked.append(config.prompts.name)
        return object()

    monkeypatch.setattr(study, "load_policy", load)
    monkeypatch.setattr(study, "check_prompts", lambda policy, prompts: checked.append(prompts.name))
    first = config_of("template1")
    second = replace(first, prompts=replace(first.prompts, name="second"))
    study._policies([first, second], torch.device("cpu"), print, None)
    assert checked == ["template1", "second"]


def test_it_takes_the_settings_of_where_a_reward_runs() -> None:
    check_profile_values(config_of("template1"), {"reward_device": "cpu", "reward_process": True})
    with pytest.raises(UserError, match="does not use lr"):
        check_profile_values(config_of("template1"), {"lr": 1})


@pytest.mark.parametrize(
    ("trained", "content_hash", "wrong"),
    [("template1", None, False), ("template2", None, True), ("template2", "ab", False), ("gone.txt", None, False)],
)
def test_a_lora_of_another_templates_network_is_refused(
    trained: str, content_hash: str | None, wrong: bool, tmp_path: Path
) -> None:
    """Its file fits all three of them, and what it does to the others means nothing."""
    named = {"template2": "pocket-template2"}.get(trained, trained)
    known = content_hash or (load_prompts(named).content_hash if named != "gone.txt" else "")
    (tmp_path / "config.json").write_text(json.dumps({"prompts": {"name": named, "hash": known}}))
    config = resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=60, seed=0, values={}
    )
    with pytest.raises(UserError, match="try --prompts pocket-template2") if wrong else contextlib.nullcontext():
        check_network(tmp_path / "pytorch_lora_weights.safetensors", config)
