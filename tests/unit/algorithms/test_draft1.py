"""DRaFT-1, which follows the reward's gradient: its formula, what it is given, and what it refuses."""

from typing import Any

import pytest
import torch
from b2bench.leaderboard.cells import REFERENCES
from b2bench.rewards.clipscore import CLIPScore
from torch import Tensor

from b2bench.config.choices import name_sets
from b2bench.config.resolve import resolve
from b2bench.errors import Refused, RunFailed, UserError
from b2bench.evaluation.judges import followed
from b2bench.plugins.toy import ToyPolicy, toy_batch, toy_reward
from b2bench.registry import Registry
from b2bench.types import LastSteps

DRaFT1 = Registry("algorithm").get("draft1")


@pytest.fixture
def world() -> tuple[ToyPolicy, LastSteps]:
    policy = ToyPolicy(0)
    policy.move(0.2, "behaviour")
    batch = toy_batch(policy, DRaFT1())
    assert isinstance(batch, LastSteps)
    return policy, batch


def reward_of(policy: ToyPolicy, batch: LastSteps, noise: Tensor) -> Tensor:
    """Mean reward of the images that the last step makes of x_{T-1} and a noise, by the formula."""
    ddim = policy.ddim
    k = policy.num_steps - 1
    with torch.no_grad():
        e = policy.noise(batch.cond, batch.latents, batch.step)
    mean = ddim.state_weight[k] * batch.latents + ddim.noise_weight[k] * e
    images = torch.sigmoid(mean + ddim.sigma[k] * noise)
    return toy_reward(0)(images, batch.prompts).double().mean()


def test_it_sees_the_last_step_of_every_rollout_with_its_prompt(world: tuple[ToyPolicy, LastSteps]) -> None:
    policy, batch = world
    assert batch.step.tolist() == [policy.num_steps - 1] * len(batch)
    images = torch.sigmoid(batch.next_latents)
    torch.testing.assert_close(toy_reward(0)(images, batch.prompts), batch.reward)
    for rows in (slice(3, 6), torch.tensor([5, 2]), torch.arange(len(batch)) == 4):
        part = batch[rows]
        torch.testing.assert_close(toy_reward(0)(part.next_latents.sigmoid(), part.prompts), part.reward)


def test_loss_and_gradient_are_those_of_the_formula(world: tuple[ToyPolicy, LastSteps]) -> None:
    policy, batch = world
    loss, metrics = DRaFT1().loss(policy, batch)
    torch.testing.assert_close(metrics["reward"], batch.reward)
    assert loss.item() == pytest.approx(-float(batch.reward.mean()), rel=1e-5)
    gradient = torch.autograd.grad(loss, policy.up)[0].double()
    with torch.no_grad():
        gaussian = policy.transition(batch.cond, batch.latents, batch.step)
        noise = (batch.next_latents - gaussian.mean) / gaussian.std.reshape(-1, 1, 1, 1)
    start, step = policy.up.detach().clone(), 1e-2 / float(gradient.norm())

    def at(sign: int) -> float:
        policy.up.data = start + (sign * step * gradient).float()
        return -float(reward_of(policy, batch, noise))

    assert (at(1) - at(-1)) / (2 * step) == pytest.approx(float(gradient.square().sum()), rel=0.01)


def test_a_reward_that_does_not_depend_on_the_image_teaches_nothing(world: tuple[ToyPolicy, LastSteps]) -> None:
    policy, batch = world
    flat = LastSteps(**{**vars(batch), "judge": lambda images, prompts: 0 * images.flatten(1).sum(1)})
    assert not torch.autograd.grad(DRaFT1().loss(policy, flat)[0], policy.up)[0].any()


@pytest.mark.slow
def test_the_gradient_goes_through_decoder_and_scorer_of_pocket(make_policy: Any) -> None:
    policy, prompts = make_policy(num_steps=4), ["a cat riding a bike", "a dog riding a bike"]
    reward = CLIPScore(checkpoint="pocket")
    reward.prepare(torch.device("cpu"))
    draws = torch.Generator().manual_seed(0)
    latents, along = (torch.randn(2, *policy.latent_shape, generator=draws) for _ in range(2))

    def score(x: Tensor) -> Tensor:
        return followed(reward, policy.decode(x), prompts, "clipscore")

    with torch.no_grad():
        images = policy.decode(latents)
        assert not images.requires_grad
        torch.testing.assert_close(score(latents), reward(images, prompts))
    x = latents.clone().requires_grad_(True)
    assert torch.equal(policy.decode(x).detach(), images)
    slope = float((torch.autograd.grad(score(x).sum(), x)[0] * along).sum())
    with torch.no_grad():
        difference = float((score(latents + 1e-2 * along) - score(latents - 1e-2 * along)).sum()) / 2e-2
    assert slope == pytest.approx(difference, rel=0.1, abs=1e-4)
    assert abs(slope) > 1e-4
    assert all(weight.grad is None for weight in [*policy.vae.parameters(), *reward.scorer.model.parameters()])


class Cut:
    """A reward whose gradient is lost."""

    def with_gradient(self, images: Tensor, prompts: Any) -> Tensor:
        return images.detach().flatten(1).mean(1)


def test_a_reward_that_loses_its_gradient_ends_the_run_with_the_reason() -> None:
    with pytest.raises(RunFailed, match="no gradient; is there a no_grad"):
        followed(Cut(), torch.ones(2, 3, 4, 4, requires_grad=True), ["a", "b"], "cut")


# -- what it refuses --------------------------------------------------------------------------------------


def chosen(wrapper: str = "vanilla", reward: str = "clipscore", **values: Any) -> Any:
    return resolve(
        algorithm="draft1", wrapper=wrapper, reward=reward, backbone="pocket", prompts="template1", queries=60, seed=0,
        values=values,
    )  # fmt: skip


def test_what_cannot_be_followed_is_refused_with_a_reason() -> None:
    assert chosen().settings.updates_per_round == 1
    said = "not trained on the reward success: it follows the reward's gradient, and success has none; try clipscore"
    with pytest.raises(Refused, match=said) as refused:
        chosen(reward="success")
    assert refused.value.row["reward"] == "success"
    with pytest.raises(Refused, match="trains the last step of every rollout, by the reward's gradient; try vanilla"):
        chosen(wrapper="b2")
    with pytest.raises(UserError, match="takes one optimizer step on a sample"):
        chosen(updates_per_round="none")
    with pytest.raises(UserError, match="does not pass from one process to another"):
        chosen(reward_process=True)
    with pytest.raises(UserError, match="follows the reward's gradient, which has no noise"):
        chosen(reward_noise=0.1)


def test_it_stands_outside_of_rankings_and_of_all() -> None:
    registry = Registry("algorithm")
    outside = [name for name in registry.names() if getattr(registry.get(name), "upper_reference", "")]
    assert tuple(outside) == REFERENCES
    assert "draft1" not in name_sets("algorithm", registry)["all"]()
