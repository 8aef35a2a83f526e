"""The four losses, against each other, against their formulas, and on trajectories of the pocket backbone."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from b2bench.ddim import DDIM, stable_diffusion_schedule
from b2bench.errors import UserError
from b2bench.hyperparameters import build
from b2bench.registry import Registry
from b2bench.types import Gaussian, Pair, Transitions
from b2bench.update import transitions


@pytest.fixture(scope="module")
def policy(make_policy: Any) -> Any:
    return make_policy(num_steps=4)


@pytest.fixture(scope="module")
def batch(policy: Any, roll: Any) -> Transitions:
    """Twelve transitions of all steps, with advantages of both signs."""
    trajectories = roll(policy, draws=4, samples=2)
    items = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:12]
    found = transitions(trajectories, items // 4, items % 4, policy.device)
    assert found.advantage.min() < -0.1
    assert found.advantage.max() > 0.1
    assert found.step.unique().tolist() == [0, 1, 2, 3]
    return found


@pytest.fixture(scope="module")
def pairs(policy: Any, roll: Any) -> Pair:
    trajectories = roll(policy, draws=4, samples=2, leaves=2, reward=[1.0, 0.0] * 4)
    winners, offsets = torch.tensor([0, 2, 4, 6] * 2), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    return Pair(*(transitions(trajectories, rows, offsets, policy.device) for rows in (winners, winners + 1)))


def gradient(policy: Any, algorithm: Any, batch: Any) -> Tensor:
    loss, _ = algorithm.loss(policy, batch)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, policy.parameters())])


def changed(batch: Transitions, **fields: Tensor) -> Transitions:
    return Transitions(**{**vars(batch), **fields})


def pairs_of(batch: Pair) -> tuple[Transitions, Transitions]:
    return batch.winner, batch.loser


def assert_same_gradient(one: Tensor, two: Tensor) -> None:
    assert one.norm() > 1e-4
    assert (one - two).norm() / one.norm() < 1e-5


# -- policy gradients at the behaviour policy -------------------------------------------------------------


@pytest.mark.slow
def test_pg_has_ddpos_gradient_at_ratio_one(policy: Any, batch: Transitions, algorithm: Any) -> None:
    assert_same_gradient(gradient(policy, algorithm("ddpo"), batch), gradient(policy, algorithm("pg"), batch))


@pytest.mark.parametrize("reward_weight", [1.0, 10.0, 0.3])
def test_dpok_has_reward_weight_times_pgs_gradient_at_ratio_one(
    reward_weight: float, policy: Any, batch: Transitions, algorithm: Any
) -> None:
    dpok = algorithm("dpok", reward_weight=reward_weight, kl_weight=0.0)
    expected = reward_weight * gradient(policy, algorithm("pg"), batch)
    assert_same_gradient(gradient(policy, dpok, batch), expected)


def test_away_from_the_behaviour_policy_they_part(policy: Any, batch: Transitions, algorithm: Any) -> None:
    """Inside the clip range an importance ratio scales the gradient; PG has none."""
    inside = changed(batch, log_prob=batch.log_prob - 0.5, advantage=torch.ones(12))
    pg, wide = gradient(policy, algorithm("pg"), inside), {"clip_nats": 1e9}
    assert_same_gradient(gradient(policy, algorithm("ddpo", **wide), inside), math.exp(0.5) * pg)
    assert_same_gradient(gradient(policy, algorithm("dpok", kl_weight=0.0, **wide), inside), math.exp(0.5) * pg)


@pytest.mark.parametrize("nats", [1.64, 16.4])
def test_pg_is_minus_advantage_times_log_prob(nats: float, policy: Any, batch: Transitions, algorithm: Any) -> None:
    with torch.no_grad():
        log_prob = policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents)
        loss, _ = algorithm("pg").loss(policy, batch)
        torch.testing.assert_close(loss, -(batch.advantage * log_prob).mean())
        # PPO's surrogate by hand, on rows that are clipped above, below and not at all.
        shift = torch.linspace(-3, 3, 12) * nats / policy.latent_size
        ddpo, metrics = algorithm("ddpo", clip_nats=nats).loss(policy, changed(batch, log_prob=batch.log_prob - shift))
        dpok, _ = algorithm("dpok", clip_nats=nats, kl_weight=0.0).loss(
            policy, changed(batch, log_prob=batch.log_prob - shift)
        )
    surrogates, clamps, clipped = [], [], []
    for advantage, s in zip(batch.advantage.tolist(), shift.tolist(), strict=True):
        ratio = math.exp(s)
        bounded = min(max(ratio, 1 - nats / policy.latent_size), 1 + nats / policy.latent_size)
        surrogates.append(max(-advantage * ratio, -advantage * bounded))
        clamps.append(-advantage * bounded)
        clipped.append(float(ratio != bounded))
    assert float(ddpo) == pytest.approx(sum(surrogates) / 12, rel=1e-4)
    assert float(dpok) == pytest.approx(sum(clamps) / 12, rel=1e-4)
    assert metrics["clipped"].tolist() == clipped
    assert 0 < sum(clipped) < 12


def test_clipping_stops_the_gradient(policy: Any, batch: Transitions, algorithm: Any) -> None:
    """Beyond the range DDPO learns only what leads back; DPOK's plain clamp learns nothing at all."""
    above = changed(batch, log_prob=batch.log_prob - 0.1)
    for sign, moves in ((1.0, False), (-1.0, True)):
        rows = changed(above, advantage=torch.full((12,), sign))
        assert bool(gradient(policy, algorithm("ddpo"), rows).any()) == moves
        assert not gradient(policy, algorithm("dpok", kl_weight=0.0), rows).any()


# -- DPOK's penalty and value network ---------------------------------------------------------------------


def test_the_gaussian_kl_is_the_squared_distance_of_diffusers_means(
    policy: Any, batch: Transitions, algorithm: Any
) -> None:
    # A policy gives noise predictions whatever its network predicts.
    scheduler = DDIMScheduler.from_config(policy.pipeline.scheduler.config, prediction_type="epsilon")
    scheduler.set_timesteps(4)
    with torch.no_grad():
        ours = policy.noise(batch.cond, batch.latents, batch.step)
        with policy.reference():
            reference = policy.noise(batch.cond, batch.latents, batch.step)
        _, metrics = algorithm("dpok", kl="gaussian").loss(policy, batch)
        _, stand_in = algorithm("dpok", kl="eps_mse").loss(policy, batch)
    for row, k in enumerate(batch.step.tolist()):
        timestep = scheduler.timesteps[k]
        means = [
            scheduler.step(
                e[row].double(),
                timestep,
                batch.latents[row].double(),
                eta=1.0,
                variance_noise=torch.zeros(e[row].shape),
            ).prev_sample
            for e in (ours, reference)
        ]
        variance = scheduler._get_variance(int(timestep), int(timestep) - 250)
        expected = ((means[0] - means[1]) ** 2 / (2 * variance)).mean()
        assert float(metrics["kl"][row]) == pytest.approx(float(expected), rel=1e-3)
        assert float(stand_in["kl"][row]) == pytest.approx(float((ours[row] - reference[row]).square().mean()))
    assert metrics["kl"].min() > 0


def price(num_steps: int) -> Tensor:
    """Of eps_mse at weight 1 for a nat of Gaussian KL, at each step: noise predictions that differ by 1 everywhere.

    By the schedule of Stable Diffusion, on which DPOK's weights were published; pocket's is another.
    """
    ddim = DDIM(stable_diffusion_schedule(), num_steps, 1.0)
    latents, step = torch.zeros(num_steps, 4, 8, 8), torch.arange(num_steps)
    noise = torch.zeros_like(latents)
    return 1 / ddim.transition(noise, latents, step).kl(ddim.transition(noise + 1, latents, step))


def test_the_default_penalty_costs_what_the_published_one_of_one_prompt_costs(algorithm: Any) -> None:
    """In standard deviations of advantage a nat: DPOK's code has weights 10 and 0.01 at 50 steps."""
    default, published = algorithm("dpok"), 0.01 / 10 * price(50)
    assert default.kl == "gaussian"
    assert float(published.mean()) == pytest.approx(default.kl_weight / default.reward_weight, rel=0.1)
    assert float(published.mean()) == pytest.approx(0.0105, rel=0.01)  # as the documentation says
    assert float(1e-3 * price(20).mean()) == pytest.approx(0.0037, rel=0.01)


@pytest.mark.parametrize("kl", ["gaussian", "eps_mse"])
def test_the_penalty_enters_with_its_weight(kl: str, policy: Any, batch: Transitions, algorithm: Any) -> None:
    losses = {}
    for weight in (0.0, 3.0):
        loss, metrics = algorithm("dpok", kl=kl, kl_weight=weight).loss(policy, batch)
        losses[weight] = loss.item()
        mean = float(metrics["kl"].mean())
    assert mean > 1e-6
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * mean, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kl", ["gaussian", "eps_mse"])
def test_the_penalty_pulls_towards_the_pretrained_model(
    kl: str, make_policy: Any, batch: Transitions, algorithm: Any
) -> None:
    policy = make_policy(num_steps=4)
    dpok, found = algorithm("dpok", kl=kl, reward_weight=0.0), []
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        loss, metrics = dpok.loss(policy, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.02)
        optimizer.step()
        found.append(float(metrics["kl"].mean()))
    assert found[0] > found[1] > found[2]
    fresh = make_policy(num_steps=4, moved=0.0)
    assert not dpok.loss(fresh, batch)[1]["kl"].any()


def test_without_a_value_network_nothing_else_is_trained(policy: Any, algorithm: Any) -> None:
    dpok = algorithm("dpok")
    dpok.setup(policy, torch.Generator().manual_seed(0))
    assert list(dpok.networks()) == []


@pytest.mark.parametrize("name", ["noise_weighted", "tree"])
def test_a_wrapper_that_the_value_networks_advantage_would_not_see_is_refused(algorithm: Any, name: str) -> None:
    wrapper = Registry("wrapper").get(name)()
    assert "does not weigh; try value_net=false" in algorithm("dpok", value_net=True).refuses(wrapper)
    for fine, other in (
        (algorithm("dpok"), wrapper),
        (algorithm("dpok", value_net=True), Registry("wrapper").get("b2")()),
    ):
        assert fine.refuses(other) is None


def test_the_value_network_is_drawn_from_its_generator_alone(policy: Any, algorithm: Any) -> None:
    state = torch.random.get_rng_state()
    weights = []
    for seed in (0, 0, 1):
        dpok = algorithm("dpok", value_net=True, value_lr=3e-4)
        dpok.setup(policy, torch.Generator().manual_seed(seed))
        [(network, lr)] = dpok.networks()
        assert lr == 3e-4
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_value_network_starts_as_the_published_one(policy: Any, algorithm: Any) -> None:
    dpok = algorithm("dpok", value_net=True)
    dpok.setup(policy, torch.Generator().manual_seed(0))
    for time in dpok.value.times:
        assert 0 <= time.weight.min() < 0.05 < 0.95 < time.weight.max() < 1
    for layer in (*dpok.value.layers, dpok.value.head):
        outs, ins = layer.weight.shape
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (ins + outs)), rel=0.2)


def test_with_a_value_network_the_advantage_is_reward_minus_value(
    policy: Any, batch: Transitions, algorithm: Any
) -> None:
    dpok = algorithm("dpok", value_net=True, kl_weight=0.0)
    dpok.setup(policy, torch.Generator().manual_seed(0))
    with torch.no_grad():
        value = dpok.value(batch.cond, batch.latents, batch.step)
    assert value.shape == (12,)
    assert value.std() > 0
    expected = gradient(policy, algorithm("pg"), changed(batch, advantage=batch.reward - value))
    assert_same_gradient(gradient(policy, dpok, batch), expected)
    unused = changed(batch, advantage=torch.full((12,), 1e3))
    assert_same_gradient(gradient(policy, dpok, unused), expected)


@pytest.mark.slow
def test_the_value_network_learns_the_reward(policy: Any, batch: Transitions, algorithm: Any) -> None:
    dpok = algorithm("dpok", value_net=True)
    dpok.setup(policy, torch.Generator().manual_seed(0))
    [(network, _)] = dpok.networks()
    optimizer, found = torch.optim.Adam(network.parameters(), lr=1e-3), []
    for _ in range(6):
        optimizer.zero_grad()
        loss, metrics = dpok.loss(policy, batch)
        loss.backward()
        optimizer.step()
        found.append(float(metrics["value_loss"]))
    policy.unet.zero_grad()
    assert found[-1] < 0.5 * found[0]


# -- DPO --------------------------------------------------------------------------------------------------


def test_dpos_loss_at_the_reference_is_log_two(make_policy: Any, pairs: Pair, algorithm: Any) -> None:
    fresh = make_policy(num_steps=4, moved=0.0)
    loss, metrics = algorithm("dpo").loss(fresh, pairs)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert not metrics["clipped"].any()


def test_dpos_loss_by_hand(policy: Any, pairs: Pair, algorithm: Any) -> None:
    """The reference is the pretrained model, not the behaviour policy, whose log-probs are in the batch."""
    margins = []
    with torch.no_grad():
        loss, metrics = algorithm("dpo", beta=2.0, eps=0.05, clip_nats=None).loss(policy, pairs)
        log_rho = []
        for rows in (pairs.winner, pairs.loser):
            ours = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
            with policy.reference():
                theirs = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
            log_rho.append([math.log(min(max(math.exp(d), 0.95), 1.05)) for d in (ours - theirs).tolist()])
    margins = [2.0 * (w - low) for w, low in zip(*log_rho, strict=True)]
    assert any(abs(m) > 1e-3 for m in margins)
    expected = sum(math.log(1 + math.exp(-m)) for m in margins) / len(margins)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert metrics["accuracy"].shape == (8,)
    assert metrics["log_ratio"].abs().max() < 1e-5  # rolled out by this very policy


class Shifted:
    """A policy of one number: its transition is N(shift, 1) per dimension, the reference's N(0, 1)."""

    def __init__(self, shift: float) -> None:
        self.shift = torch.tensor(shift, requires_grad=True)
        self.adapter = True

    def transition(self, cond: Any, latents: Tensor, step: Tensor) -> Gaussian:
        return Gaussian(torch.zeros_like(latents) + self.adapter * self.shift, torch.ones(len(latents)))

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        self.adapter = False
        yield
        self.adapter = True


@pytest.mark.parametrize(("shift", "sign"), [(0.5, -1), (-0.5, 1)])
def test_dpos_loss_stays_within_its_bounds(shift: float, sign: int, pairs: Pair, algorithm: Any) -> None:
    """At both ends of its clamp: the winner much likelier than under the reference and the loser less, and reverse."""
    bound = math.log(1 + math.exp(sign * 0.1 * math.log(1.1 / 0.9)))
    assert round(bound, 3) == (0.683 if sign < 0 else 0.703)
    ends = Pair(
        *(changed(r, next_latents=torch.full_like(r.latents, x)) for r, x in zip(pairs_of(pairs), (2, -2), strict=True))
    )
    loss, metrics = algorithm("dpo", beta=0.1, eps=0.1, clip_nats=None).loss(Shifted(shift), ends)
    assert loss.item() == pytest.approx(bound, abs=1e-6)
    assert metrics["clipped"].all()
    assert metrics["accuracy"].tolist() == [float(shift > 0)] * 8


@pytest.mark.parametrize(("nats", "eps"), [(1e-3, 0.1), (10_000.0, 0.001)])
def test_dpos_clamp_in_nats_takes_the_place_of_the_one_per_dimension(
    nats: float, eps: float, policy: Any, pairs: Pair, algorithm: Any
) -> None:
    """The least of these ratios lies outside of 0.001 nats and the greatest inside of 10,000, whatever eps is."""
    with torch.no_grad():
        loss, metrics = algorithm("dpo", beta=2.0, eps=eps, clip_nats=nats).loss(policy, pairs)
        log_rho = []
        for rows in pairs_of(pairs):
            ours = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
            with policy.reference():
                theirs = policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)
            log_rho.append((ours - theirs) * policy.latent_size)
    margin = 2.0 * (log_rho[0].clamp(-nats, nats) - log_rho[1].clamp(-nats, nats)) / policy.latent_size
    assert float(loss) == pytest.approx(float(-torch.nn.functional.logsigmoid(margin).mean()), rel=1e-5)
    assert metrics["clipped"].tolist() == [float(nats < 1)] * 16


@pytest.mark.parametrize("nats", [0.0, -1.0])
def test_dpo_refuses_a_clamp_that_lets_nothing_through(nats: float, algorithm: Any) -> None:
    with pytest.raises(UserError, match=r"clip_nats = .* is not above 0"):
        build(type(algorithm("dpo")), {"clip_nats": nats})


def test_dpos_gradient_points_to_the_winner(pairs: Pair, algorithm: Any) -> None:
    for x in (0.01, -0.01):
        ends = Pair(
            *(
                changed(r, next_latents=torch.full_like(r.latents, s * x))
                for r, s in zip(pairs_of(pairs), (1, -1), strict=True)
            )
        )
        policy = Shifted(0.0)
        loss, _ = algorithm("dpo", clip_nats=None).loss(policy, ends)
        (found,) = torch.autograd.grad(loss, [policy.shift])
        # -d/ds log sigmoid(beta (log rho_w - log rho_l)) at s = 0: d log_prob / ds is x, and sigmoid'(0) = 1/2.
        assert found.item() == pytest.approx(-0.1 * 2 * x / 2, rel=1e-4)


def test_dpos_step_raises_the_winner_against_the_loser(make_policy: Any, pairs: Pair, algorithm: Any) -> None:
    policy = make_policy(num_steps=4)

    def margin() -> float:
        with torch.no_grad():
            found = [policy.transition(r.cond, r.latents, r.step).log_prob(r.next_latents) for r in pairs_of(pairs)]
        return float((found[0] - found[1]).mean())

    before = margin()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    algorithm("dpo", eps=0.9).loss(policy, pairs)[0].backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.01)
    optimizer.step()
    assert margin() > before + 1e-6


# -- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddpo", "pg", "dpo", "dpok"])
def test_gradients_reach_the_adapter_and_nothing_else(
    name: str, make_policy: Any, batch: Transitions, pairs: Pair, algorithm: Any
) -> None:
    policy = make_policy(num_steps=4)
    loss, _ = algorithm(name).loss(policy, pairs if name == "dpo" else batch)
    assert loss.shape == ()
    loss.backward()
    assert all(p.grad is not None for p in policy.parameters())
    assert sum(float(p.grad.norm()) for p in policy.parameters()) > 0
    modules = (policy.unet, policy.vae, policy.text_encoder)
    others = [p for module in modules for n, p in module.named_parameters() if "lora_" not in n]
    assert len(others) > 100
    assert all(p.grad is None for p in others)
