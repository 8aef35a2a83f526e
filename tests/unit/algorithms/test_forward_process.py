"""Losses on final latents, and what rests on the exact KL, against their formulas on the toy policy."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from b2bench.ddim import DDIM, stable_diffusion_schedule
from b2bench.plugins.toy import ToyPolicy, toy_batch
from b2bench.registry import Registry
from b2bench.types import FinalPair, Finals, Transitions

ON_FINALS = [n for n in Registry("algorithm").names() if getattr(Registry("algorithm").get(n), "finals", False)]
REFERENCE, OLD, NEW = "reference", "old", "new"


def made(name: str, **values: Any) -> Any:
    return Registry("algorithm").get(name)(**values)


class World:
    """A policy that sampled a batch, and has moved since; what it predicts then, before and without its adapter."""

    def __init__(self, algorithm: Any) -> None:
        self.policy = ToyPolicy(0)
        self.policy.move(0.2, "behaviour")
        self.batch: Any = toy_batch(self.policy, algorithm)
        self.old = [weight.detach().clone() for weight in self.policy.parameters()]
        self.policy.move(0.2, "update")
        scheduler = stable_diffusion_schedule()
        self.a = scheduler.alphas_cumprod[self.policy.ddim.timesteps].double()

    def m(self, rows: Finals, which: str) -> Tensor:
        """The mean squared error of a prediction, by the formula: [B]."""
        a = self.a[rows.step].reshape(-1, 1, 1, 1)
        noised = (a.sqrt() * rows.latents + (1 - a).sqrt() * rows.noise).float()
        return (self.prediction(rows.cond, noised, rows.step, which) - rows.noise).square().mean((1, 2, 3))

    def prediction(self, cond: Any, latents: Tensor, step: Tensor, which: str) -> Tensor:
        other = ToyPolicy(0)
        if which != REFERENCE:
            weights = self.old if which == OLD else [weight.detach() for weight in self.policy.parameters()]
            other.down.data, other.up.data = weights
        with torch.no_grad():
            return other.noise(cond, latents, step)


def both(batch: FinalPair) -> tuple[Finals, Finals]:
    return batch.winner, batch.loser


def rwr(world: World, algorithm: Any) -> Tensor:
    weight = (world.batch.advantage / algorithm.beta - 1 / (2 * algorithm.beta**2)).exp()
    return (torch.minimum(weight, torch.tensor(algorithm.max_weight)) * world.m(world.batch, NEW)).mean()


def raft(world: World, algorithm: Any) -> Tensor:
    return world.m(world.batch.winner, NEW).mean()


def diffusion_dpo(world: World, algorithm: Any) -> Tensor:
    winner, loser = both(world.batch)
    gap = (world.m(winner, NEW) - world.m(winner, REFERENCE)) - (world.m(loser, NEW) - world.m(loser, REFERENCE))
    return torch.log1p((algorithm.beta / 2 * world.policy.latent_size * gap).exp()).mean()


def awm(world: World, algorithm: Any) -> Tensor:
    eps = algorithm.clip_nats / world.policy.latent_size
    losses = []
    for a, new, old in zip(world.batch.advantage, world.m(world.batch, NEW), world.m(world.batch, OLD), strict=True):
        ratio = (old - new).exp()
        losses.append(torch.maximum(-a * ratio, -a * ratio.clamp(1 - eps, 1 + eps)))
    return torch.stack(losses).mean()


def nft(world: World, algorithm: Any) -> Tensor:
    rows, b = world.batch, algorithm.beta
    a = world.a[rows.step].reshape(-1, 1, 1, 1)
    noised = (a.sqrt() * rows.latents + (1 - a).sqrt() * rows.noise).float()
    old, new = (world.prediction(rows.cond, noised, rows.step, which) for which in (OLD, NEW))
    r = 0.5 + (rows.advantage / algorithm.scale).clamp(-1, 1) / 2
    good = ((1 - b) * old + b * new - rows.noise).square().mean((1, 2, 3))
    bad = ((1 + b) * old - b * new - rows.noise).square().mean((1, 2, 3))
    return (r * good + (1 - r) * bad).mean()


def dgpo(world: World, algorithm: Any) -> Tensor:
    rows, new, reference = world.batch, world.m(world.batch, NEW), world.m(world.batch, REFERENCE)
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, place in enumerate(zip(rows.group.tolist(), rows.step.tolist(), strict=True)):
        members[place].append(i)
    losses = torch.zeros(len(rows))
    for here in members.values():
        gap = (rows.advantage[here] * (new - reference)[here]).sum() * world.policy.latent_size
        losses[here] = torch.sigmoid(algorithm.beta * gap / len(here)) * rows.advantage[here] * new[here]
    return losses.mean()


EXPECTED: dict[str, Callable[[World, Any], Tensor]] = {
    "rwr": rwr,
    "raft": raft,
    "diffusion_dpo": diffusion_dpo,
    "awm": awm,
    "nft": nft,
    "dgpo": dgpo,
}


@pytest.mark.parametrize("guided", [False, True])
def test_rwr_trains_the_prediction_that_is_asked_for(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy policy has no guidance: here it doubles what is predicted for the prompt alone."""
    alone = ToyPolicy.noise

    def noise(self: ToyPolicy, cond: Any, latents: Tensor, step: Tensor, *, guided: bool = True) -> Tensor:
        return (1 + guided) * alone(self, cond, latents, step)

    algorithm = made("rwr", guided=guided)
    world = World(algorithm)
    rows = world.batch
    predicted = world.prediction(rows.cond, world.policy.add_noise(rows.latents, rows.noise, rows.step), rows.step, NEW)
    m = ((1 + guided) * predicted - rows.noise).square().mean((1, 2, 3))
    weight = (rows.advantage - 0.5).exp().clamp(max=20)
    monkeypatch.setattr(ToyPolicy, "noise", noise)
    loss, _ = algorithm.loss(world.policy, rows)
    assert loss.item() == pytest.approx((weight * m).mean().item(), rel=1e-5)


def test_each_loss_on_finals_has_a_formula_here() -> None:
    assert set(EXPECTED) == set(ON_FINALS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (name, values)
        for name in ON_FINALS
        for values in ({}, {"beta": 0.5}, {"clip_nats": 0.1})
        if values.keys() <= vars(made(name)).keys()
    ],
)
def test_a_loss_is_its_formula(name: str, values: dict[str, Any]) -> None:
    algorithm = made(name, **values)
    world = World(algorithm)
    loss, _ = algorithm.loss(world.policy, world.batch)
    torch.testing.assert_close(loss.detach(), EXPECTED[name](world, algorithm), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ON_FINALS)
def test_a_gradient_is_that_of_the_formula(name: str) -> None:
    """By finite differences of the formula in the direction of the gradient; what has no gradient there, has none."""
    algorithm = made(name)
    world = World(algorithm)
    loss, metrics = algorithm.loss(world.policy, world.batch)
    gradient = torch.autograd.grad(loss, world.policy.up)[0].double()
    start, step = world.policy.up.detach().clone(), 1e-2 / float(gradient.norm())
    fixed = 1 - metrics["held"] if name == "dgpo" else None

    def at(sign: int) -> float:
        world.policy.up.data = start + (sign * step * gradient).float()
        if fixed is not None:  # s is a constant of the gradient
            return float((fixed * world.batch.advantage * world.m(world.batch, NEW)).double().mean())
        return float(EXPECTED[name](world, algorithm).double())

    slope = (at(1) - at(-1)) / (2 * step)
    assert slope == pytest.approx(float(gradient.square().sum()), rel=0.05)


# -- limits ------------------------------------------------------------------------------------------


def gradient_of(loss: Tensor, policy: ToyPolicy) -> Tensor:
    return torch.autograd.grad(loss, policy.up)[0]


def own_error(policy: ToyPolicy, batch: Finals) -> Tensor:
    noised = policy.add_noise(batch.latents, batch.noise, batch.step)
    return (policy.noise(batch.cond, noised, batch.step) - batch.noise).square().flatten(1).mean(1)


@pytest.mark.parametrize("name", ["awm", "dgpo"])
def test_on_policy_the_gradient_is_that_of_the_weighted_error(name: str) -> None:
    """AWM at the behaviour policy, and DGPO at the reference, where s is 1/2."""
    algorithm, policy = made(name), ToyPolicy(0)
    if name == "awm":
        policy.move(0.2, "behaviour")
    batch = toy_batch(policy, algorithm)
    assert isinstance(batch, Finals)
    found = gradient_of(algorithm.loss(policy, batch)[0], policy)
    expected = gradient_of((batch.advantage * own_error(policy, batch)).mean(), policy)
    torch.testing.assert_close(found, expected * (1.0 if name == "awm" else 0.5), rtol=1e-4, atol=1e-7)


def test_nft_at_beta_1_and_all_good_is_the_plain_error() -> None:
    world = World(made("nft"))
    good = replace(world.batch, advantage=torch.full_like(world.batch.advantage, 9.0))
    loss, metrics = made("nft", beta=1.0).loss(world.policy, good)
    assert metrics["optimality"].unique().tolist() == [1.0]
    torch.testing.assert_close(loss, own_error(world.policy, good).mean())


def test_diffusion_dpo_at_the_reference_is_log_2() -> None:
    algorithm, policy = made("diffusion_dpo"), ToyPolicy(0)
    loss, _ = algorithm.loss(policy, toy_batch(policy, algorithm))
    assert loss.item() == pytest.approx(0.693147, abs=1e-5)


def test_a_group_of_one_is_compared_with_the_reference_alone() -> None:
    world = World(made("dgpo"))
    one = world.batch[:1]
    _, metrics = made("dgpo", beta=2.0).loss(world.policy, one)
    gap = one.advantage * (world.m(one, NEW) - world.m(one, REFERENCE)) * world.policy.latent_size
    torch.testing.assert_close(metrics["held"], 1 - torch.sigmoid(2.0 * gap), rtol=1e-4, atol=1e-6)


# -- what the harness gives -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diffusion_dpo", "dgpo"])
def test_a_group_shares_its_noise_at_a_step_and_no_other_has_it(name: str) -> None:
    algorithm = made(name)
    batch = toy_batch(ToyPolicy(0), algorithm)
    sides = both(batch) if isinstance(batch, FinalPair) else (batch,)
    seen: dict[tuple[int, int], Tensor] = {}
    for rows in sides:
        assert isinstance(rows, Finals)
        for i, place in enumerate(zip(rows.group.tolist(), rows.step.tolist(), strict=True)):
            assert torch.equal(seen.setdefault(place, rows.noise[i]), rows.noise[i])
    assert len({tuple(noise.flatten().tolist()) for noise in seen.values()}) == len(seen) > 1


def test_the_behaviour_policy_is_the_one_that_sampled_and_leaves_nothing_behind() -> None:
    policy = ToyPolicy(0)
    policy.move(0.2, "behaviour")
    batch = toy_batch(policy, made("ddpo"))
    assert isinstance(batch, Transitions)
    before = policy.noise(batch.cond, batch.latents, batch.step).detach()
    policy.move(0.2, "update")
    now, weights = policy.noise(batch.cond, batch.latents, batch.step), [id(p) for p in policy.parameters()]
    with policy.behaviour():
        inside = policy.noise(batch.cond, batch.latents, batch.step)
    assert torch.equal(inside, before)
    assert not inside.requires_grad
    assert torch.equal(policy.noise(batch.cond, batch.latents, batch.step), now)
    assert [id(p) for p in policy.parameters()] == weights
    now.sum().backward()  # a graph from before the context goes on


# -- the exact KL: a penalty of ddpo, and the trust region of flow_dppo ------------------------------------


def kl_nats(world: World, other: str) -> Tensor:
    """KL of each transition from that of another policy, from the means alone: [B], double."""
    rows, ddim = world.batch, world.policy.ddim
    mean, theirs = (
        ddim.transition(world.prediction(rows.cond, rows.latents, rows.step, which), rows.latents, rows.step).mean
        for which in (NEW, other)
    )
    return (mean - theirs).double().square().sum((1, 2, 3)) / (2 * ddim.sigma[rows.step].double() ** 2)


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_ddpo_with_a_kl_is_ddpo_and_the_price_of_its_nats(weight: float) -> None:
    world = World(made("ddpo"))
    plain, penalised = (made("ddpo", kl_weight=w).loss(world.policy, world.batch) for w in (0.0, weight))
    nats = kl_nats(world, REFERENCE)
    assert nats.min() > 0.01
    torch.testing.assert_close(penalised[1]["kl_nats"].double(), nats, rtol=1e-4, atol=1e-5)
    expected = plain[0].item() + weight * float(nats.mean()) / world.policy.latent_size
    assert penalised[0].item() == pytest.approx(expected, rel=1e-5)
    # what the KL adds to the gradient is that of the formula, by finite differences in its own direction
    added = (gradient_of(penalised[0], world.policy) - gradient_of(plain[0], world.policy)).double()
    start, step = world.policy.up.detach().clone(), 1e-2 / float(added.norm())

    def at(sign: int) -> float:
        world.policy.up.data = start + (sign * step * added).float()
        return weight * float(kl_nats(world, REFERENCE).mean()) / world.policy.latent_size

    assert (at(1) - at(-1)) / (2 * step) == pytest.approx(float(added.square().sum()), rel=0.01)


def test_ddpo_without_a_kl_asks_for_no_reference_and_at_the_reference_its_kl_is_nothing() -> None:
    policy = ToyPolicy(0)
    batch = toy_batch(policy, made("ddpo"))
    plain, penalised = (made("ddpo", kl_weight=w).loss(policy, batch) for w in (0.0, 5.0))
    assert torch.equal(plain[0], penalised[0])
    assert torch.equal(gradient_of(plain[0], policy), gradient_of(penalised[0], policy))
    assert "kl_nats" not in plain[1]
    policy.reference = None  # type: ignore[assignment, method-assign]
    made("ddpo").loss(policy, batch)
    with pytest.raises(TypeError):
        made("ddpo", kl_weight=5.0).loss(policy, batch)


@pytest.mark.parametrize("nats", [1e-6, 0.05, 1e6])
def test_flow_dppo_masks_what_is_far_and_goes_further(nats: float) -> None:
    algorithm = made("flow_dppo", trust_nats=nats)
    world = World(algorithm)
    rows, policy = world.batch, world.policy
    loss, metrics = algorithm.loss(policy, rows)
    means = [
        policy.ddim.transition(world.prediction(rows.cond, rows.latents, rows.step, which), rows.latents, rows.step)
        for which in (OLD, NEW)
    ]
    kl = (means[1].mean - means[0].mean).square().sum((1, 2, 3)) / (2 * means[1].std ** 2)
    torch.testing.assert_close(metrics["kl_old"], kl, rtol=1e-3, atol=1e-5)
    change = means[1].log_prob(rows.next_latents) - rows.log_prob
    total, masked = 0.0, 0
    for a, k, c in zip(rows.advantage.tolist(), kl.tolist(), change.tolist(), strict=True):
        if k > nats and a * c > 0:
            masked += 1
        else:
            total -= a * float(torch.tensor(c).exp())
    assert float(loss) == pytest.approx(total / len(rows), rel=1e-4)
    assert float(metrics["clipped"].sum()) == masked
    assert {1e-6: masked > 10, 0.05: masked > 0, 1e6: masked == 0}[nats]


def test_noising_is_diffusers_own_at_zero_terminal_snr_too() -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False,
    )  # fmt: skip
    ddim = DDIM(scheduler, 5, eta=1.0)
    draws = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(5, 4, 2, 2, generator=draws), torch.randn(5, 4, 2, 2, generator=draws)
    found = ddim.add_noise(latents, noise, torch.arange(5))
    torch.testing.assert_close(found, scheduler.add_noise(latents, noise, ddim.timesteps), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], noise[0])  # nothing is left of the image
